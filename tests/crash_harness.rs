//! The controller dies at every boundary between two steps, once and twice, and the next one brings the rollout to its
//! end: the real binary, which kills itself (`PILOTHOUSE_CRASH_AT`), on the embedded engine and proxy under a light load.
//! What must hold is looked at from outside after every run.
//!
//! `PILOTHOUSE_CRASH_STEP` is the distance from one boundary that is tried to the next (10; 1 for every one, which takes
//! about ten minutes a strategy), `PILOTHOUSE_CRASH_PAIRS` the number of pairs of crashes per strategy and direction (4;
//! `all` for every pair), `PILOTHOUSE_CRASH_SEED` says which pairs, and `PILOTHOUSE_CRASH_ONLY` names the strategies, with commas between them. A
//! failure says the crashes that led to it.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/world.rs"]
mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use load::Load;
use pilothouse::api::{RolloutStatus, ServiceView, Snapshot, Verb, VerbRequest};
use pilothouse::client::Client;
use pilothouse::controller::crash;
use pilothouse::controller::journal::Journal;
use pilothouse::controller::lock::Holder;
use world::{Backends, Setup, World};

/// A strategy: its section of the fleet file on the way up, and for a release that is taken back in the middle.
struct Strategy {
    name: &'static str,
    up: &'static str,
    abort: &'static str,
    /// The candidate's share, in basis points, at which it is taken back; sooner when it waits for somebody.
    abort_at: u16,
}

const STRATEGIES: &[Strategy] = &[
    Strategy {
        name: "in-place",
        up: "type = \"in-place\"\nmin_healthy_time = \"50ms\"",
        abort: "type = \"in-place\"\nmin_healthy_time = \"50ms\"",
        abort_at: 1,
    },
    Strategy {
        name: "rolling",
        up: "type = \"rolling\"\nmin_healthy_time = \"50ms\"\nhealthy_deadline = \"30s\"",
        abort: "type = \"rolling\"\nmin_healthy_time = \"50ms\"\nhealthy_deadline = \"30s\"",
        abort_at: 1,
    },
    Strategy {
        name: "blue-green",
        up: "type = \"blue-green\"\nhealthy_for = \"50ms\"",
        abort: "type = \"blue-green\"\npause = \"manual\"",
        abort_at: 1,
    },
    Strategy {
        name: "canary",
        up: "type = \"canary\"\nsteps = [ { weight = 25, healthy_for = \"50ms\" } ]",
        abort: "type = \"canary\"\nsteps = [ { weight = 25, pause = \"manual\" } ]",
        abort_at: 2500,
    },
    Strategy {
        name: "ab",
        up: "type = \"ab\"\nduration = \"1s\"\nshare = 30",
        abort: "type = \"ab\"\nduration = \"1m\"\nshare = 30",
        abort_at: 3000,
    },
];

/// Worlds side by side: a rollout waits most of its time.
const WORLDS: usize = 6;
/// So many runs that are left alone end the enumeration.
const UNTOUCHED: u64 = 3;
/// Longest run, crashes and all.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Abort,
}

#[test]
fn scenario_1_a_crash_at_every_boundary_and_at_pairs_of_them() {
    let began = Instant::now();
    let mut violations = Vec::new();
    let only = std::env::var("PILOTHOUSE_CRASH_ONLY").unwrap_or_default();
    for strategy in STRATEGIES.iter().filter(|s| only.is_empty() || only.split(',').any(|o| o == s.name)) {
        for way in [Way::Up, Way::Abort] {
            violations.extend(enumerate(strategy, way));
        }
    }
    println!("crash harness: {} violations in {:.0} s", violations.len(), began.elapsed().as_secs_f64());
    assert!(violations.is_empty(), "{violations:#?}");
}

/// What the worlds of one strategy and direction do together.
#[derive(Default)]
struct Shared {
    next: AtomicU64,
    /// Runs that came to their end before the boundary at which they should have died.
    untouched: AtomicU64,
    /// The last boundary that a run reached.
    boundaries: AtomicU64,
    pair: AtomicUsize,
    runs: AtomicU64,
    kills: AtomicU64,
    violations: Mutex<Vec<String>>,
}

fn enumerate(strategy: &Strategy, way: Way) -> Vec<String> {
    let began = Instant::now();
    let shared = Shared::default();
    let pairs = Mutex::new(None);
    let (requests, failed) = std::thread::scope(|scope| {
        let worlds: Vec<_> =
            (0..WORLDS).map(|_| scope.spawn(|| one_world(strategy, way, &shared, &pairs))).collect();
        worlds.into_iter().map(|w| w.join().unwrap()).fold((0, 0), |(r, f), (a, b)| (r + a, f + b))
    });
    let violations = shared.violations.into_inner().unwrap();
    println!(
        "crash harness: {} {way:?}: {} boundaries, {} pairs of crashes, {} runs, {} kills, {failed} of {requests} \
         requests failed, {} violations, {:.0} s",
        strategy.name,
        shared.boundaries.into_inner(),
        pairs.into_inner().unwrap().map_or(0, |p| p.len()),
        shared.runs.into_inner(),
        shared.kills.into_inner(),
        violations.len(),
        began.elapsed().as_secs_f64(),
    );
    violations
}

/// From one boundary that is tried to the next.
fn step() -> u64 {
    let asked = std::env::var("PILOTHOUSE_CRASH_STEP").ok().and_then(|s| s.parse().ok());
    asked.filter(|n| *n > 0).unwrap_or(10)
}

/// The pairs to try, once it is known how many boundaries there are.
fn choose(boundaries: u64) -> Vec<[u64; 2]> {
    let all = || (1..=boundaries).flat_map(|a| (1..=boundaries).map(move |b| [a, b]));
    let asked = std::env::var("PILOTHOUSE_CRASH_PAIRS").unwrap_or_else(|_| "4".to_owned());
    let Ok(wanted) = asked.parse::<usize>() else { return all().collect() };
    let seed = std::env::var("PILOTHOUSE_CRASH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut rest: Vec<[u64; 2]> = all().collect();
    let mut chosen = Vec::new();
    let mut random: u64 = seed;
    while chosen.len() < wanted && !rest.is_empty() {
        // Knuth's generator: the same pairs for the same seed, everywhere.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = usize::try_from(random >> 33).unwrap() % rest.len();
        chosen.push(rest.swap_remove(n));
    }
    chosen
}

fn one_world(
    strategy: &Strategy,
    way: Way,
    shared: &Shared,
    pairs: &Mutex<Option<Vec<[u64; 2]>>>,
) -> (u64, u64) {
    let mut stage = Stage::new(strategy, way);
    // Every single crash, until runs are left alone: more than one, as not all have the same number of boundaries.
    while shared.untouched.load(Ordering::Relaxed) < UNTOUCHED {
        let n = shared.next.fetch_add(1, Ordering::Relaxed) * step() + 1;
        if stage.run(&[n], shared) == 0 {
            shared.untouched.fetch_add(1, Ordering::Relaxed);
        } else {
            shared.boundaries.fetch_max(n, Ordering::Relaxed);
        }
    }
    loop {
        let chosen = {
            let mut pairs = pairs.lock().unwrap();
            let boundaries = shared.boundaries.load(Ordering::Relaxed);
            let pairs = pairs.get_or_insert_with(|| choose(boundaries));
            pairs.get(shared.pair.fetch_add(1, Ordering::Relaxed)).copied()
        };
        let Some(pair) = chosen else { break };
        stage.run(&pair, shared);
    }
    stage.end()
}

/// A world in which one release after the other is made.
struct Stage {
    world: World,
    runtime: tokio::runtime::Runtime,
    way: Way,
    abort_at: u16,
    file: PathBuf,
    hash: String,
    load: Load,
    versions: u32,
    /// The version that served after the last run.
    stable: String,
    serve: Option<Child>,
    /// At which boundary it dies.
    crash_at: Option<u64>,
}

impl Stage {
    fn new(strategy: &Strategy, way: Way) -> Self {
        let setup = Setup { keep: "50ms", ..Setup::default() };
        let world = World::new("crash harness", Backends::ProcessEdge, &setup).unwrap();
        // A small program has a small hash to compute, and a fast world more runs in the time there is.
        let app = world.path().join("app");
        std::fs::write(&app, format!("#!/bin/sh\nexec '{}' \"$@\"\n", common::pilothouse().display()))
            .unwrap();
        std::fs::set_permissions(&app, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = world.path().join("fleet.toml");
        let mut text = std::fs::read_to_string(&file).unwrap();
        let section = match way {
            Way::Up => strategy.up,
            Way::Abort => strategy.abort,
        };
        for (from, to) in [
            (
                format!("[\"{}\"", common::pilothouse().display()).as_str(),
                format!("[\"{}\"", app.display()).as_str(),
            ),
            ("replicas = 4", "replicas = 2"),
            ("interval = \"200ms\"", "interval = \"25ms\""),
            ("rise = 2", "rise = 1"),
            ("fall = 3", "fall = 40"),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            text = text.replace(from, to);
        }
        let at = text.find("type = \"canary\"").unwrap();
        text.replace_range(at.., section);
        std::fs::write(&file, text).unwrap();
        let hash = pilothouse::fleet::load(&file).unwrap().fleet.hash;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        world.ok(&["up"]);
        world.kill_controller();
        let load = Load::paced(world.listen, 1, Duration::from_millis(10));
        Self {
            world,
            runtime,
            way,
            abort_at: strategy.abort_at,
            file,
            hash,
            load,
            versions: 0,
            stable: "1.0.0".to_owned(),
            serve: None,
            crash_at: None,
        }
    }

    /// One release, with the controller dying at each of `crashes`, counted anew in each life. How often it died.
    fn run(&mut self, crashes: &[u64], shared: &Shared) -> u64 {
        self.versions += 1;
        let version = format!("1.0.{}", self.versions);
        let failed_before = self.load.failed();
        let (kills, last) = self.release(crashes, &version);
        shared.runs.fetch_add(1, Ordering::Relaxed);
        shared.kills.fetch_add(kills, Ordering::Relaxed);
        let mut wrong = match last {
            Some(snapshot) => self.look(&version, &snapshot),
            None => vec![self.not_over()],
        };
        let failed = self.load.failed() - failed_before;
        if failed > 0 {
            wrong.push(format!("{failed} requests failed"));
        }
        self.stop();
        wrong.extend(self.journal().err());
        let told =
            wrong.into_iter().map(|w| format!("{:?} {version}, crashes at {crashes:?}: {w}", self.way));
        let told = told.inspect(|w| eprintln!("VIOLATION {w}"));
        shared.violations.lock().unwrap().extend(told);
        kills
    }

    /// How often the controller died, and what it showed when all was over.
    fn release(&mut self, crashes: &[u64], version: &str) -> (u64, Option<Snapshot>) {
        let mut crashes = crashes.iter();
        let mut kills = 0;
        self.start(crashes.next());
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.died() {
                kills += 1;
                self.start(crashes.next());
            }
            if let Some(snapshot) = self.snapshot()
                && self.ask(version, &snapshot) == Some(true)
            {
                return (kills, Some(snapshot));
            }
            std::thread::sleep(Duration::from_millis(8));
        }
        (kills, None)
    }

    /// Does the next thing that is to be done; whether all is over.
    fn ask(&self, version: &str, snapshot: &Snapshot) -> Option<bool> {
        let service = snapshot.services.first()?;
        let ours = service.rollout.as_ref().filter(|r| r.to.as_str() == version);
        let Some(rollout) = ours else {
            self.verb(Verb::Deploy { version: version.to_owned() });
            return Some(false);
        };
        let share = share_of(service, version);
        let waits = rollout.waiting.iter().any(|w| w.as_str() == "promote");
        let running = rollout.status == RolloutStatus::Running;
        match self.way {
            Way::Abort if running && (waits || share.is_some_and(|s| s >= self.abort_at)) => {
                self.verb(Verb::Abort);
                return Some(false);
            }
            Way::Up if running && waits => {
                self.verb(Verb::Promote { full: false });
                return Some(false);
            }
            Way::Up | Way::Abort => {}
        }
        // A controller that has just begun shows what it has not yet seen as unknown: no end, and nothing wrong.
        let unread = service.revisions.iter().any(|r| r.weight > 0 && r.actual_weight.is_none());
        if unread || !snapshot.hosts.iter().all(|h| h.reachable) {
            return Some(false);
        }
        match rollout.status {
            RolloutStatus::Paused | RolloutStatus::Failed => Some(true),
            // What is kept is stopped when its time is over; what is not is gone.
            RolloutStatus::Done | RolloutStatus::Aborted => {
                let stable = service.stable.as_ref().map(|s| s.id.as_str());
                let rest: Vec<_> =
                    snapshot.instances.iter().filter(|i| Some(i.revision.as_str()) != stable).collect();
                Some(match rollout.status {
                    RolloutStatus::Done => rest.iter().all(|i| {
                        i.endpoint.is_none() || matches!(i.state.as_str(), "exited" | "stopped" | "gone")
                    }),
                    _ => !rest.iter().any(|i| i.version.as_str() == version),
                })
            }
            _ => Some(false),
        }
    }

    /// What is wrong at the end of a run, as seen from outside.
    fn look(&mut self, version: &str, snapshot: &Snapshot) -> Vec<String> {
        let Some(service) = snapshot.services.first() else { return vec!["no service".into()] };
        let mut wrong = Vec::new();
        let stable = service.stable.as_ref().map(|s| s.version.as_str());
        let status = service.rollout.as_ref().map(|r| r.status);
        let ended = match status {
            Some(RolloutStatus::Done) => stable == Some(version),
            Some(RolloutStatus::Aborted) => stable == Some(self.stable.as_str()),
            Some(RolloutStatus::Paused) => true,
            _ => false,
        };
        let wanted = match self.way {
            Way::Up => RolloutStatus::Done,
            Way::Abort => RolloutStatus::Aborted,
        };
        if !ended || status != Some(wanted) {
            let events: Vec<&str> = snapshot.events.iter().rev().take(12).map(|e| e.text.as_str()).collect();
            wrong.push(format!("it ended {status:?} on {stable:?}: {events:?}"));
        }
        let set: u32 = service.revisions.iter().map(|r| u32::from(r.weight)).sum();
        let actual: u32 = service.revisions.iter().filter_map(|r| r.actual_weight).map(u32::from).sum();
        if (set, actual) != (10_000, 10_000) {
            wrong.push(format!("the weights add up to {set} set, {actual} read back"));
        }
        let there: std::collections::BTreeSet<String> = self.world.there().into_keys().collect();
        let shown: std::collections::BTreeSet<String> =
            snapshot.instances.iter().map(|i| i.id.to_string()).collect();
        if there != shown {
            wrong.push(format!("there are {there:?}, known are {shown:?}"));
        }
        let apps = self.programs();
        let running = self.world.there().values().filter(|r| **r).count();
        if apps != running {
            wrong.push(format!("{apps} programs run, {running} instances"));
        }
        if let Some(stable) = stable {
            self.stable = stable.to_owned();
        }
        wrong
    }

    /// What there was instead of an end.
    fn not_over(&self) -> String {
        let Some(snapshot) = self.snapshot() else { return "no controller answers".to_owned() };
        let events: Vec<&str> = snapshot.events.iter().rev().take(12).map(|e| e.text.as_str()).collect();
        let status = snapshot.services.first().and_then(|s| s.rollout.as_ref()).map(|r| r.status);
        let weights: Vec<_> = snapshot
            .services
            .iter()
            .flat_map(|s| &s.revisions)
            .map(|r| (r.weight, r.actual_weight))
            .collect();
        format!("no end within {PATIENCE:?}: {status:?}, weights set and read back {weights:?}, {events:?}")
    }

    /// Instances' programs that run, whoever knows of them.
    fn programs(&self) -> usize {
        let line = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_program = |pid: &u32| {
            let line = line(pid);
            let mut words = line.split(|b| *b == 0);
            words.next().is_some_and(|w| w.ends_with(b"/pilothouse")) && words.next() == Some(b"sample-app")
        };
        self.world.processes().iter().filter(|pid| is_program(pid)).count()
    }

    fn snapshot(&self) -> Option<Snapshot> {
        serde_json::from_value(self.world.snapshot()?).ok()
    }

    /// What goes wrong here is that the controller has just died; what was asked for is then asked for again.
    fn verb(&self, verb: Verb) {
        let request = VerbRequest {
            verb,
            decision: None,
            fleet_file: Some(self.file.display().to_string()),
            fleet_hash: Some(self.hash.clone()),
            by: None,
        };
        let socket = self.world.state_dir().join("control.sock");
        let ask = async { Client::connect(&socket).await.ok()?.verb("web", &request).await.ok() };
        let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), ask).await });
    }

    fn start(&mut self, crash_at: Option<&u64>) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.world.state_dir().join("controller.log"))
            .unwrap();
        let mut command = Command::new(common::pilothouse());
        command.arg("serve").arg("--fleet").arg(&self.file).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env_remove(crash::VARIABLE);
        if let Some(n) = crash_at {
            command.env(crash::VARIABLE, n.to_string());
        }
        self.serve = Some(command.spawn().unwrap());
        self.crash_at = crash_at.copied();
    }

    /// Whether it has died of its own hand; panics when it ended in any other way.
    fn died(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        let Some(status) = self.serve.as_mut().and_then(|c| c.try_wait().unwrap()) else { return false };
        // One that is killed leaves its lock for a moment to a thread that waits for the disk, or to a child that it was
        // just starting. Commands try again then, and so do we.
        if status.code() == Some(5) {
            std::thread::sleep(Duration::from_millis(20));
            let again = self.crash_at;
            self.start(again.as_ref());
            return false;
        }
        let log = std::fs::read_to_string(self.world.state_dir().join("controller.log")).unwrap_or_default();
        assert_eq!(status.signal(), Some(9), "the controller ended: {log}");
        true
    }

    /// As hard as the crashes.
    fn stop(&mut self) {
        if let Some(mut child) = self.serve.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The journal reads as a whole, up to the head that the lock file remembers.
    fn journal(&self) -> Result<(), String> {
        let text = std::fs::read_to_string(self.world.state_dir().join("lock")).map_err(|e| e.to_string())?;
        let holder: Holder = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let path = self.world.state_dir().join("journal.db");
        Journal::open(&path, &holder.head).map(|_| ()).map_err(|e| e.to_string())
    }

    fn end(mut self) -> (u64, u64) {
        self.stop();
        let report = self.load.finish();
        (report.requests, report.failed)
    }
}

/// The share that was decided: what was read back is not known yet after a crash, while the release goes on.
fn share_of(service: &ServiceView, version: &str) -> Option<u16> {
    service.revisions.iter().find(|r| r.revision.version.as_str() == version).map(|r| r.weight)
}
