//! How long an abort takes until a real HAProxy has weight 0 for the candidate, read back. By the driver alone, and
//! from the abort on the controller's socket; beside them, in the same run, the bare commands that cannot be avoided:
//! the map's swap on the same socket, and one fdatasync on the same disk. A bystander reads the weight on the worker's
//! own socket, so that it is not in the way of the master, over which Pilothouse speaks.
//!
//! `PILOTHOUSE_BENCH_DRIVER` (1000) and `PILOTHOUSE_BENCH_ABORTS` (200) say how often; an abort from end to end needs
//! a deploy before it, which takes about a second. Needs HAProxy; says so loudly when it is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use pilothouse::api::{FleetRequest, RolloutStatus, Snapshot, Verb, VerbRequest};
use pilothouse::client::{Client, Update, Updates};
use pilothouse::fleet::model::{HealthCheck, Probe};
use pilothouse::fleet::names::{Bp, FleetName, InstanceId, Millis, RevisionId, ServiceName};
use pilothouse::proxy::haproxy::{Haproxy, Settings, ensure_files, frontend_line};
use pilothouse::proxy::{Direction, Proxy};
use pilothouse::rollout::world::{EndpointState, Route, RouteEndpoint, Slot, SlotRoute, Slots};

#[path = "../tests/common/require.rs"]
mod require;

/// Longest wait for anything that is not measured.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let Some(haproxy) = require::program("haproxy") else { return };
    // `cargo test --benches` only wants to know whether it runs.
    let quick = std::env::args().any(|a| a == "--test");
    let times = |name: &str, usual: usize| {
        let asked = std::env::var(name).ok().and_then(|n| n.parse().ok());
        if quick { 2 } else { asked.unwrap_or(usual) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut table = Table::default();
    runtime.block_on(driver(&haproxy, times("PILOTHOUSE_BENCH_DRIVER", 1000), &mut table));
    runtime.block_on(end_to_end(&haproxy, times("PILOTHOUSE_BENCH_ABORTS", 200), &mut table));
    table.print();
}

// --- numbers ------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Table(Vec<(&'static str, Vec<Duration>)>);

impl Table {
    fn add(&mut self, what: &'static str, took: Duration) {
        match self.0.iter_mut().find(|(w, _)| *w == what) {
            Some((_, all)) => all.push(took),
            None => self.0.push((what, vec![took])),
        }
    }

    fn print(&mut self) {
        println!("{:<64} {:>6} {:>10} {:>10} {:>10}", "abort", "n", "p50", "p99", "max");
        for (what, all) in &mut self.0 {
            all.sort();
            let at = |part: f64| {
                let n = (all.len() as f64 * part).ceil() as usize;
                format!("{:.3} ms", all[n.clamp(1, all.len()) - 1].as_secs_f64() * 1000.0)
            };
            println!("{what:<64} {:>6} {:>10} {:>10} {:>10}", all.len(), at(0.5), at(0.99), at(1.0));
        }
    }
}

// --- HAProxy ------------------------------------------------------------------------------------------------------

/// A HAProxy with an operator's own configuration, ended with the value.
struct Running {
    child: Child,
    master: PathBuf,
    /// Of the worker that takes connections.
    stats: PathBuf,
    map: PathBuf,
}

impl Running {
    /// Starts it on a directory whose `own` has our files.
    fn start(binary: &Path, dir: &Path, fleet: &FleetName) -> Self {
        let service: ServiceName = "web".parse().unwrap();
        let listen = free_addr();
        let own = dir.join("own");
        let stats = dir.join("stats.sock");
        let text = format!(
            "global\n    stats socket {} level user\n\
             defaults\n    mode http\n    timeout connect 1s\n    timeout client 30s\n    timeout server 10s\n\
             frontend fe\n    bind {listen}\n    {}\n",
            stats.display(),
            frontend_line(&own, fleet, &service)
        );
        std::fs::write(dir.join("op.cfg"), text).unwrap();
        let master = dir.join("m.sock");
        let log = File::create(dir.join("haproxy.log")).unwrap();
        let child = Command::new(binary)
            .args(["-W", "-db", "-S"])
            .arg(&master)
            .arg("-f")
            .arg(dir.join("op.cfg"))
            .arg("-f")
            .arg(&own)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let running = Self { child, master, stats, map: own.join(format!("{fleet}_web.map")) };
        wait("HAProxy answers", || {
            let answers = std::net::TcpStream::connect(listen).is_ok() && !running.workers().is_empty();
            answers.then_some(())
        });
        running
    }

    /// One line of commands over one connection, and all that is answered.
    fn says(&self, line: &str) -> String {
        says(&self.master, line)
    }

    /// Pids of all workers, old ones too.
    fn workers(&self) -> Vec<u32> {
        self.says("show proc")
            .lines()
            .filter_map(|l| {
                let mut words = l.split_whitespace();
                let pid = words.next()?.parse().ok()?;
                (words.next()? == "worker").then_some(pid)
            })
            .collect()
    }

    /// Whether every one of these workers gives the candidate, in slot b, nothing.
    fn all_at_zero(&self, workers: &[u32]) -> bool {
        let map = self.map.display();
        let line = workers.iter().map(|pid| format!("@!{pid} show map {map}")).collect::<Vec<_>>().join(";");
        let answer = self.says(&line);
        let entries = answer.lines().filter(|l| l.starts_with("0x"));
        let mut any = false;
        let all = entries.into_iter().all(|l| {
            any = true;
            l.contains(" 0:9999 ") && !l.trim_end().ends_with("_b")
        });
        any && all
    }

    /// Asks the worker that takes connections from now on, over connections of its own, as a bystander would: gives when
    /// it gives the candidate nothing any more (and the others, which are asked then, neither), and when it began to ask.
    fn watch(&self, workers: &[u32]) -> (JoinHandle<Instant>, Instant) {
        let (stats, master, map) = (self.stats.clone(), self.master.clone(), self.map.display().to_string());
        let others: Vec<String> = workers.iter().map(|pid| format!("@!{pid} show map {map}")).collect();
        let at_zero = |text: &str| {
            let mut entries = text.lines().filter(|l| l.starts_with("0x")).peekable();
            entries.peek().is_some() && entries.all(|l| l.contains(" 0:9999 "))
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let watch = std::thread::spawn(move || {
            ready.send(()).unwrap();
            let start = Instant::now();
            loop {
                let text = says(&stats, &format!("show map {map}"));
                if at_zero(&text) {
                    let now = Instant::now();
                    if at_zero(&says(&master, &others.join(";"))) {
                        return now;
                    }
                }
                assert!(start.elapsed() < PATIENCE, "weight 0 never came: {text}");
                // The machine is small: a bystander without a pause is in the way of what it watches. The times are too
                // long by up to this.
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        is_ready.recv().unwrap();
        (watch, Instant::now())
    }

    /// The commands that no way of setting a share can do without: prepare, fill, commit, read back.
    fn bare_swap(&self, worker: u32, stable: &str) {
        let map = self.map.display();
        let answer = self.says(&format!("@!{worker} prepare map {map}"));
        let version = answer.rsplit(' ').next().unwrap().trim().to_owned();
        let commands = [
            format!("add map @{version} {map} 0:9999 {stable}"),
            format!("commit map @{version} {map}"),
            format!("show map {map}"),
        ];
        let line = commands.iter().map(|c| format!("@!{worker} {c}")).collect::<Vec<_>>().join(";");
        let answer = self.says(&line);
        assert!(answer.contains(&format!(" 0:9999 {stable}")), "{answer}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What a master answers to one line; nothing when it takes no connections just now.
fn says(master: &Path, line: &str) -> String {
    let mut text = String::new();
    if let Ok(mut s) = UnixStream::connect(master) {
        let _ = s.write_all(format!("{line}\n").as_bytes());
        let _ = s.shutdown(std::net::Shutdown::Write);
        let _ = s.read_to_string(&mut text);
    }
    text
}

fn free_addr() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn wait<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One line appended to a file in `dir`, and on the disk.
fn fdatasync(file: &mut File) -> Duration {
    let start = Instant::now();
    file.write_all(&[b'x'; 256]).unwrap();
    file.sync_data().unwrap();
    start.elapsed()
}

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("phb").tempdir_in("/tmp").unwrap()
}

// --- the driver alone ---------------------------------------------------------------------------------------------

/// Something that accepts connections, so that HAProxy's checks pass.
fn backend(revision: u32) -> (RevisionId, RouteEndpoint) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let revision: RevisionId = format!("{revision:08x}").parse().unwrap();
    let instance = InstanceId::of(&"web".parse().unwrap(), &revision, 1);
    (revision, RouteEndpoint { instance, addr, state: EndpointState::Ready })
}

async fn driver(binary: &Path, times: usize, table: &mut Table) {
    let dir = temp();
    let (fleet, service): (FleetName, ServiceName) = ("bench".parse().unwrap(), "web".parse().unwrap());
    let own = dir.path().join("own");
    ensure_files(&own, &fleet, "bench@here", std::slice::from_ref(&service)).unwrap();
    let haproxy = Running::start(binary, dir.path(), &fleet);
    let settings = Settings {
        dir: own,
        master_socket: haproxy.master.clone(),
        config: vec![dir.path().join("op.cfg")],
        binary: binary.to_owned(),
        log: None,
    };
    let proxy = Haproxy::new("lb".parse().unwrap(), settings, fleet.clone(), "bench@here".into());
    let (stable, candidate) = (backend(1), backend(2));
    let route = |share: u16| {
        let slot = |(revision, endpoint): &(RevisionId, RouteEndpoint), weight| SlotRoute {
            revision: Some(revision.clone()),
            weight,
            endpoints: vec![endpoint.clone()],
        };
        let share = Bp::percent(share);
        let health = HealthCheck {
            probe: Probe::Tcp,
            interval: Millis(1000),
            timeout: Millis(1000),
            rise: 1,
            fall: 3,
        };
        [Route {
            service: service.clone(),
            stable: Slot::A,
            slots: Slots { a: slot(&stable, share.rest()), b: slot(&candidate, share) },
            domains: vec![],
            health: Slots { a: health.clone(), b: health },
            rules: Vec::new(),
            sticky: false,
        }]
    };
    proxy.apply(&route(25), Direction::Up).await.unwrap();
    wait("one worker", || (haproxy.workers().len() == 1).then_some(()));
    let worker = haproxy.workers()[0];
    let line = haproxy.says(&format!("@!{worker} show map {}", haproxy.map.display()));
    let to_a = line.split_whitespace().find(|w| w.ends_with("_a")).unwrap().to_owned();
    let mut file = File::create(dir.path().join("own/sync")).unwrap();
    for _ in 0..times {
        let start = Instant::now();
        haproxy.bare_swap(worker, &to_a);
        table.add("bare: map prepared, filled, committed and shown", start.elapsed());
        table.add("bare: one fdatasync", fdatasync(&mut file));
        proxy.apply(&route(25), Direction::Up).await.unwrap();
        assert!(!haproxy.all_at_zero(&[worker]));
        let start = Instant::now();
        proxy.apply(&route(0), Direction::Back).await.unwrap();
        let applied = start.elapsed();
        let back = proxy.read_back().await.unwrap();
        table.add("driver: HAProxy at 0 and the files on the disk", applied);
        table.add("driver: the same, and read back", start.elapsed());
        assert_eq!(back[&service].highest(Slot::B), Bp::ZERO);
        // Once more with a bystander: HAProxy comes first, the files after it.
        proxy.apply(&route(25), Direction::Up).await.unwrap();
        let (watch, start) = haproxy.watch(&[worker]);
        proxy.apply(&route(0), Direction::Back).await.unwrap();
        table.add(
            "driver: every worker of HAProxy has 0",
            watch.join().unwrap().saturating_duration_since(start),
        );
        proxy.apply(&route(25), Direction::Up).await.unwrap();
    }
}

// --- from end to end ----------------------------------------------------------------------------------------------

/// `pilothouse serve` with a fleet; ended, with what it started, with the value.
struct Served {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Shims and their programs have the directory, or the fleet's own port range, in their arguments.
        let dir = self.dir.path().display().to_string();
        for _ in 0..50 {
            let ours = processes(&[&dir, NET]);
            if ours.is_empty() {
                break;
            }
            for pid in ours {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An address that nothing else here uses.
const NET: &str = "127.15.251.7";

fn processes(words: &[&str]) -> Vec<i32> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != me)
        .filter(|pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("pilothouse") && words.iter().any(|w| line.contains(w))
        })
        .collect()
}

fn fleet_text(dir: &Path, binary: &Path) -> String {
    let path = |p: &str| dir.join(p).display().to_string();
    format!(
        r#"name = "bench"
state_dir = "{state}"

[hosts.here]
engine = "process://"
address = "{NET}"

[proxies.lb]
type = "haproxy"
dir = "{own}"
master_socket = "{master}"
config = ["{op}"]
binary = "{binary}"

[services.web]
command = ["{program}", "sample-app", "--port", "{{port}}", "--address", "{{address}}", "--version", "{{version}}"]
version = "0"
replicas = 1
host_ports = "23000-23003"
proxies = ["lb"]
keep = "1s"

[services.web.health]
http = "/health"
interval = "100ms"
timeout = "100ms"
rise = 1
fall = 20

[services.web.drain]
deadline = "5s"
stop_grace = "1s"

[services.web.strategy]
type = "canary"
steps = [ {{ weight = 25, pause = "manual" }} ]
"#,
        state = path("state"),
        own = path("own"),
        master = path("m.sock"),
        op = path("op.cfg"),
        binary = binary.display(),
        program = env!("CARGO_BIN_EXE_pilothouse"),
    )
}

fn actual(s: &Snapshot, version: &str) -> Option<u16> {
    s.services.first()?.revisions.iter().find(|r| r.revision.version.as_str() == version)?.actual_weight
}

/// What a client is shown, as it is shown.
struct Shown {
    updates: Updates,
    now: Snapshot,
}

impl Shown {
    async fn to(client: &Client, name: &str) -> Self {
        Self { updates: client.stream(name, false).await.unwrap(), now: Snapshot::default() }
    }

    /// When it was shown what is waited for.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&Snapshot) -> bool) -> Instant {
        loop {
            if done(&self.now) {
                return Instant::now();
            }
            match tokio::time::timeout(PATIENCE, self.updates.next()).await {
                Ok(Some(Ok(Update::Snapshot(s)))) => self.now = *s,
                Ok(Some(Ok(Update::Delta(d)))) => assert!(self.now.apply(d), "a gap"),
                other => panic!("never shown: {what}: {other:?}: {:#?}", self.now.services),
            }
        }
    }
}

async fn end_to_end(binary: &Path, times: usize, table: &mut Table) {
    let dir = temp();
    let file = dir.path().join("fleet.toml");
    std::fs::write(&file, fleet_text(dir.path(), binary)).unwrap();
    // HAProxy does not start without the map; the configuration is the controller's to write.
    let (fleet, own) = ("bench".parse().unwrap(), dir.path().join("own"));
    ensure_files(&own, &fleet, "", &["web".parse().unwrap()]).unwrap();
    std::fs::remove_file(own.join("bench.cfg")).unwrap();
    let haproxy = Running::start(binary, dir.path(), &fleet);
    let socket = dir.path().join("state/control.sock");
    let log = File::create(dir.path().join("serve.log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_pilothouse"))
        .arg("serve")
        .arg("--fleet")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let served = Served { child, dir };
    let dir = served.dir.path();
    wait("the controller's socket", || socket.exists().then_some(()));
    let client = Client::connect(&socket).await.unwrap();
    let loaded = pilothouse::fleet::load(&file).unwrap();
    let up = FleetRequest {
        adopt: false,
        fleet_file: file.display().to_string(),
        fleet_hash: loaded.fleet.hash.clone(),
        services: vec![],
        by: None,
    };
    client.up(&up).await.unwrap();
    let (mut mine, mut other) = (Shown::to(&client, "me").await, Shown::to(&client, "other").await);
    mine.until("version 0 serves", |s| s.services.first().is_some_and(|s| s.stable.is_some())).await;
    let request = |verb| VerbRequest {
        verb,
        decision: None,
        fleet_file: Some(up.fleet_file.clone()),
        fleet_hash: Some(up.fleet_hash.clone()),
        by: None,
    };
    let mut sync = File::create(dir.join("state/sync")).unwrap();
    let status = |s: &Snapshot, version: &str| {
        let r = s.services.first()?.rollout.as_ref()?;
        (r.to.as_str() == version).then_some(r.status)
    };
    for n in 1..=times + times / 4 {
        let version = n.to_string();
        client.verb("web", &request(Verb::Deploy { version: version.clone() })).await.unwrap();
        mine.until("the candidate has its share", |s| actual(s, &version) == Some(2500)).await;
        other.until("the candidate has its share", |s| actual(s, &version) == Some(2500)).await;
        let workers = haproxy.workers();
        assert!(!haproxy.all_at_zero(&workers));
        let aborted = |s: &Snapshot| status(s, &version) == Some(RolloutStatus::Aborted);
        if n % 5 == 0 {
            // The first sync after a deploy pays for what everybody has written since: so does an abort's, but one
            // that came right after this one would not.
            table.add("bare: one fdatasync in place of the abort", fdatasync(&mut sync));
            client.verb("web", &request(Verb::Abort)).await.unwrap();
            mine.until("the abort has ended", aborted).await;
            continue;
        }
        let (watch, start) = haproxy.watch(&workers);
        let request = request(Verb::Abort);
        let (answered, seen, read) = tokio::join!(
            async {
                client.verb("web", &request).await.unwrap();
                Instant::now()
            },
            other.until("the other sees the abort", |s| {
                !matches!(status(s, &version), Some(RolloutStatus::Running | RolloutStatus::Paused))
            }),
            mine.until("the controller read 0 back", |s| matches!(actual(s, &version), Some(0) | None)),
        );
        let in_force = watch.join().unwrap();
        for (what, when) in [
            ("end to end: abort until it is answered, journalled", answered),
            ("end to end: abort until every worker of HAProxy has 0", in_force),
            ("end to end: abort until another client is shown it", seen),
            ("end to end: abort until a client is shown 0 as read back", read),
        ] {
            table.add(what, when.saturating_duration_since(start));
        }
        mine.until("the abort has ended", aborted).await;
    }
    client.stop().await.unwrap();
}
