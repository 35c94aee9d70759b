//! Somebody in front of the real cockpit, in a real terminal.

use std::io::{self, Read, Write};
use std::num::NonZeroU16;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtyPair, PtySize, native_pty_system};
use rustix::process::Pid;

use crate::common;
use crate::world::World;

/// Generous: these machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What a person leaves between two keys.
const PERSON: Duration = Duration::from_millis(400);

/// A link between a terminal and whoever sits in front of it.
#[derive(Clone, Copy)]
pub struct Link {
    /// Of what is shown; keys are few.
    pub bytes_a_second: u32,
    /// From the one end to the other, and as long back.
    pub delay: Duration,
}

/// A cockpit in a terminal of its own.
pub struct Operator {
    pub pair: Option<PtyPair>,
    keys: Option<Box<dyn Write + Send>>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
    shown: Arc<Mutex<(usize, Instant)>>,
}

fn carry(mut from: Box<dyn Read + Send>, mut to: impl FnMut(&[u8])) {
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        to(&buf[..n]);
    }
}

/// Shows what comes at the pace of the link, and as much later.
fn far(from: Box<dyn Read + Send>, link: Link, mut show: impl FnMut(&[u8]) + Send + 'static) {
    let (tx, rx) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut free = Instant::now();
        carry(from, |bytes| {
            // In packets of some size, so that a picture comes in pieces.
            for piece in bytes.chunks(500) {
                let takes = Duration::from_secs_f64(piece.len() as f64 / f64::from(link.bytes_a_second));
                free = free.max(Instant::now()) + takes;
                let _ = tx.send((free + link.delay, piece.to_vec()));
            }
        });
    });
    std::thread::spawn(move || {
        for (at, piece) in rx {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            show(&piece);
        }
    });
}

/// Writes everything a little later, in order.
struct Delayed {
    tx: Sender<(Instant, Vec<u8>)>,
    delay: Duration,
}

impl Delayed {
    fn new(mut to: Box<dyn Write + Send>, delay: Duration) -> Self {
        let (tx, rx) = channel::<(Instant, Vec<u8>)>();
        std::thread::spawn(move || {
            for (at, bytes) in rx {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                let _ = to.write_all(&bytes).and_then(|()| to.flush());
            }
        });
        Self { tx, delay }
    }
}

impl Write for Delayed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.tx.send((Instant::now() + self.delay, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Operator {
    pub fn sit_down(world: &World, name: &str) -> Self {
        Self::behind(world, name, (110, 30), None)
    }

    /// In front of a terminal of so many columns and rows at the other end of a link, where there is one.
    pub fn behind(world: &World, name: &str, (cols, rows): (u16, u16), link: Option<Link>) -> Self {
        let pair =
            native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new(common::pilothouse());
        command.arg("--fleet");
        command.arg(world.path().join("fleet.toml"));
        command.env_clear();
        command.cwd("/");
        for (key, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LOGNAME", name)] {
            command.env(key, value);
        }
        let some = |n| NonZeroU16::new(n).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(rows), some(cols), 0)));
        let shown = Arc::new(Mutex::new((0, Instant::now())));
        let reader = pair.master.try_clone_reader().unwrap();
        let (sink, count) = (screen.clone(), shown.clone());
        let show = move |bytes: &[u8]| {
            sink.lock().unwrap().process(bytes);
            let mut count = count.lock().unwrap();
            *count = (count.0 + bytes.len(), Instant::now());
        };
        let child = pair.slave.spawn_command(command).unwrap();
        let mut keys = pair.master.take_writer().unwrap();
        match link {
            None => drop(std::thread::spawn(move || carry(reader, show))),
            Some(link) => {
                far(reader, link, show);
                keys = Box::new(Delayed::new(keys, link.delay));
            }
        }
        Self { pair: Some(pair), keys: Some(keys), child, screen, shown }
    }

    /// Bytes that were shown so far, and when the last of them were.
    pub fn shown(&self) -> (usize, Instant) {
        *self.shown.lock().unwrap()
    }

    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub fn sees(&self, what: &str) {
        self.when(what, Duration::from_millis(20), |text| text.contains(what));
    }

    /// Looks so often until the screen is as is waited for, and says when it was.
    pub fn when(&self, what: &str, every: Duration, ok: impl Fn(&str) -> bool) -> Instant {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if ok(&text) {
                return Instant::now();
            }
            assert!(Instant::now() < end, "waited in vain for {what:?}:\n{text}");
            std::thread::sleep(every);
        }
    }

    pub fn presses(&mut self, keys: &str) {
        for key in keys.chars() {
            std::thread::sleep(PERSON);
            self.press(key);
        }
    }

    /// One key, now.
    pub fn press(&mut self, key: char) {
        let out = self.keys.as_mut().unwrap();
        out.write_all(key.to_string().as_bytes()).unwrap();
        out.flush().unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.process_id().unwrap()).unwrap()).unwrap()
    }

    pub fn is_gone(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the cockpit lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
