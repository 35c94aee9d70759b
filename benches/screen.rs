//! What a frame costs: time, and bytes over the wire. Only rows in sight are built, so it must not grow with the
//! fleet; what does grow, sorting and counting after a change, is measured on its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Read as _, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use pilothouse::api::{Change, Delta, InstanceView, ProbeView, Snapshot};
use pilothouse::client::Update;
use pilothouse::tui::fixture;
use pilothouse::tui::keys::Key;
use pilothouse::tui::model::Model;
use pilothouse::tui::screen::Screen;
use pilothouse::tui::theme::Theme;
use pilothouse::tui::update::{Msg, update};
use portable_pty::{Child, CommandBuilder, PtyPair, PtySize, native_pty_system};

#[path = "../tests/support/canned.rs"]
mod canned;

use canned::Canned;

#[derive(Clone, Default)]
struct Counting(Rc<Cell<usize>>);

impl Write for Counting {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + buf.len());
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn model(instances: u32, size: (u16, u16)) -> Model {
    let mut m = Model::default();
    update(&mut m, Msg::Time { now_ms: 0, wall_ms: fixture::WALL_MS });
    update(&mut m, Msg::Resize(size.0, size.1));
    update(&mut m, Msg::Update(Update::Snapshot(Box::new(fixture::crowd(instances)))));
    m
}

/// Changes the first instance in sight.
fn touch(m: &mut Model, n: u32) {
    let seen = m.row(0).unwrap().clone();
    let changed = InstanceView { probe_ms: Some(n % 90 + 10), ..seen };
    let seq = m.snapshot.as_ref().unwrap().seq + 1;
    let delta = Delta { seq, changes: vec![Change::Instance(Box::new(changed))] };
    update(m, Msg::Update(Update::Delta(delta)));
}

fn frames(c: &mut Criterion) {
    let theme = Theme::default();
    for size in SIZES {
        for n in [20, 1_000, 5_000] {
            let label = format!("{n} instances {}x{}", size.0, size.1);
            let mut m = model(n, size);
            let out = Counting::default();
            let mut screen = Screen::new(out.clone());
            screen.draw(&mut m, &theme).unwrap();
            let first = out.0.replace(0);
            screen.draw(&mut m, &theme).unwrap();
            let nothing = out.0.replace(0);
            touch(&mut m, 5);
            screen.draw(&mut m, &theme).unwrap();
            let one = out.0.replace(0);
            println!(
                "bytes, {label}: first paint {first}, nothing changed {nothing}, one instance changed {one}"
            );

            c.bench_function(&format!("draw, nothing changed, {label}"), |b| {
                b.iter(|| screen.draw(black_box(&mut m), &theme).unwrap());
            });
            let mut k = 0;
            c.bench_function(&format!("change one and draw, {label}"), |b| {
                b.iter(|| {
                    k += 1;
                    touch(&mut m, k);
                    screen.draw(black_box(&mut m), &theme).unwrap()
                });
            });
        }
    }
}

/// A key, and the frame that shows it.
fn keys(c: &mut Criterion) {
    let theme = Theme::default();
    for n in [20, 1_000, 5_000] {
        for (what, keys) in [
            ("down", &[Key::Down, Key::Up][..]),
            ("a letter of a filter", &[Key::Char('7'), Key::Backspace]),
            ("fold", &[Key::Char('-'), Key::Char('+')]),
        ] {
            let mut m = model(n, (80, 24));
            update(&mut m, Msg::Key(Key::Char('3')));
            match what {
                "a letter of a filter" => drop(update(&mut m, Msg::Key(Key::Char('/')))),
                "fold" => drop(update(&mut m, Msg::Key(Key::Char('v')))),
                _ => {}
            }
            let mut screen = Screen::new(Counting::default());
            screen.draw(&mut m, &theme).unwrap();
            let mut turn = keys.iter().cycle();
            c.bench_function(&format!("key to frame, {what}, {n} instances 80x24"), |b| {
                b.iter(|| {
                    update(&mut m, Msg::Key(*turn.next().unwrap()));
                    screen.draw(black_box(&mut m), &theme).unwrap()
                });
            });
        }
    }
}

/// The binary in a terminal of 80x24, on a controller made of memory.
struct Cockpit {
    child: Box<dyn Child + Send + Sync>,
    bytes: Arc<AtomicUsize>,
    first: Duration,
    canned: Arc<Canned>,
    // Both end with it.
    _pair: PtyPair,
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Cockpit {
    fn open(snapshot: Snapshot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let canned = Canned::new(snapshot);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (serving, at) = (canned.clone(), socket.clone());
        runtime.spawn(async move { serving.serve(&at).await });
        while !socket.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_pilothouse"));
        command.args(["cockpit", "--socket"]);
        command.arg(&socket);
        command.env_clear();
        for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LOGNAME", "operator")] {
            command.env(name, value);
        }
        let bytes = Arc::new(AtomicUsize::new(0));
        let (shown, sink) = (Arc::new(Mutex::new(Vec::new())), bytes.clone());
        let mut reader = pair.master.try_clone_reader().unwrap();
        let raw = shown.clone();
        let began = Instant::now();
        let child = pair.slave.spawn_command(command).unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 65536];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                sink.fetch_add(n, Ordering::SeqCst);
                let mut raw = raw.lock().unwrap();
                if raw.len() < 1 << 20 {
                    raw.extend_from_slice(&buf[..n]);
                }
            }
        });
        let screen = || {
            let size = |n: u16| std::num::NonZero::new(n).unwrap();
            let mut terminal = vt100::Parser::new(size(24), size(80), 0);
            terminal.process(&shown.lock().unwrap());
            terminal.screen().contents()
        };
        // The head of a picture; before it there is one line that says what is waited for.
        while !screen().contains(" instances ") {
            assert!(began.elapsed() < Duration::from_secs(30), "no picture:\n{}", screen());
            std::thread::sleep(Duration::from_millis(1));
        }
        let first = began.elapsed();
        Self { child, bytes, first, canned, _pair: pair, _runtime: runtime, _dir: dir }
    }

    /// Anonymous memory, in MB: what this process has for itself alone.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.process_id().unwrap()));
        let status = status.unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Bytes a second on the terminal, over `seconds` in which `change` happens `a_second` times each.
    fn rate(&self, seconds: u32, a_second: u32, change: impl Fn(&mut Snapshot, u32)) -> f64 {
        let (began, before) = (Instant::now(), self.bytes.load(Ordering::SeqCst));
        for n in 0..seconds * a_second {
            self.canned.change(|s| change(s, n));
            std::thread::sleep(Duration::from_secs(1) / a_second);
        }
        (self.bytes.load(Ordering::SeqCst) - before) as f64 / began.elapsed().as_secs_f64()
    }
}

impl Drop for Cockpit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every probe of an instance takes another time; every two seconds it uses something else.
fn figures(s: &mut Snapshot, n: u32) {
    for (k, i) in (0u32..).zip(&mut s.instances) {
        i.probe_ms = Some((n * 7 + k * 3) % 9 + 1);
        if n.is_multiple_of(2) {
            i.cpu_percent = Some(((n + k) % 5) as f32);
        }
    }
    let at_ms = s.probes.last().map_or(0, |p| p.at_ms) + 1000;
    let new: Vec<ProbeView> = s
        .instances
        .iter()
        .take(20)
        .map(|i| ProbeView {
            at_ms,
            service: i.service.clone(),
            host: i.host.clone(),
            instance: i.id.clone(),
            ok: true,
            result: "200".into(),
            latency_ms: i.probe_ms.unwrap_or(1),
            failures: 0,
            fall: 3,
        })
        .collect();
    s.probes.extend(new);
}

fn processes() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load average {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    for n in [20, 1_000, 5_000] {
        let mut first: Vec<Duration> = (0..9).map(|_| Cockpit::open(fixture::crowd(n)).first).collect();
        first.sort();
        let cockpit = Cockpit::open(fixture::crowd(n));
        std::thread::sleep(Duration::from_secs(2));
        println!(
            "{n} instances: first picture {:?} (median of 9, {:?} to {:?}), memory {:.1} MB anonymous",
            first[4],
            first[0],
            first[8],
            cockpit.memory()
        );
    }
    let mut still = fixture::crowd(20);
    still.services.iter_mut().for_each(|s| s.rollout = None);
    let cockpit = Cockpit::open(still);
    println!(
        "at rest, 20 instances, a probe of each every second: {:.0} bytes/s",
        cockpit.rate(30, 1, figures)
    );
    let cockpit = Cockpit::open(fixture::crowd(5_000));
    let moving = |s: &mut Snapshot, n: u32| {
        if n.is_multiple_of(5) {
            figures(s, n / 5);
        }
        for r in s.services.iter_mut().flat_map(|s| &mut s.revisions) {
            if let Some(t) = &mut r.traffic {
                t.rate += 1.0;
                t.requests += 412;
                t.p95_ms = Some((n % 30) as f32 + 20.0);
            }
        }
    };
    println!("in a rollout, 5,000 instances: {:.0} bytes/s", cockpit.rate(20, 5, moving));
}

criterion_group!(benches, frames, keys);

fn main() {
    // Only when everything is asked for: `cargo bench --bench screen -- draw` is about the frames.
    if !std::env::args().skip(1).any(|a| !a.starts_with('-')) {
        processes();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
