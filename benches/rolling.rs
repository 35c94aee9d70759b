//! A rolling release of four replicas on Docker, side by side in one run with `docker service update` (Docker Swarm,
//! start-first, one at a time, no delay) on the same engine and with the same image: how long the way up takes, how
//! long after 'go back' nothing is left on the new version, and what a client outside lost meanwhile.
//!
//! `PILOTHOUSE_BENCH_RUNS` (3) says how often. When the engine is in no swarm it is made one of its own on loopback,
//! which is left again at the end, also after a panic or a signal. Needs Docker (engine and command line) and HAProxy;
//! says so loudly when one is missing. This executable is also what runs in the containers, as the sample application
//! (`sample-app`) and as Swarm's health check (`probe`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{LocalNodeState, ServiceSpec, Task, TaskState};
use bollard::query_parameters::{
    LeaveSwarmOptionsBuilder, ListTasksOptionsBuilder, RemoveImageOptionsBuilder,
};
use pilothouse::demo::sample_app::{self, Settings};
use serde_json::json;
use tokio::runtime::Runtime;

#[path = "../tests/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../tests/common/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../tests/common/world.rs"]
mod world;

use load::Load;
use world::{Backends, Setup, World};

const IMAGE: &str = "pilothouse-bench-rolling";
const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";
const REPLICAS: u32 = 4;
/// Between two health checks: Pilothouse's probes and, in the runs that have one, Swarm's.
const INTERVAL: Duration = Duration::from_millis(500);
/// `--update-monitor` and `--rollback-monitor`: how long Swarm looks on after the last task.
const MONITOR: Duration = Duration::from_millis(500);
/// Longest wait for anything at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// No time beyond the health checks is waited for, as Swarm with a delay of 0 waits for none.
const ROLLING: &str = "type = \"rolling\"\nmax_surge = 1\nmin_healthy_time = \"0s\"";
const BLUE_GREEN: &str = "type = \"blue-green\"\nhealthy_for = \"0s\"";
const CANARY: &str = "type = \"canary\"\nsteps = [ { weight = 50, pause = \"manual\" } ]";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("sample-app") => return serve(),
        Some("probe") => return if healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        _ => {}
    }
    let quick = std::env::args().any(|a| a == "--test");
    let asked = std::env::var("PILOTHOUSE_BENCH_RUNS").ok().and_then(|n| n.parse().ok());
    let runs: u32 = if quick { 1 } else { asked.unwrap_or(3) };
    if common::require::program("haproxy").is_none() {
        return ExitCode::SUCCESS;
    }
    let runtime = Runtime::new().unwrap();
    let Some(socket) = runtime.block_on(common::docker_or_skip("rolling")) else { return ExitCode::SUCCESS };
    let engine =
        Docker::connect_with_unix(&socket.to_string_lossy(), 60, bollard::API_DEFAULT_VERSION).unwrap();
    let images = Images::make(&runtime, &engine, &socket);
    let swarm = Swarm::join(&runtime, &engine);
    let mut table = Table::default();
    // In turn, so that whatever else this machine does meets all of them.
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        rolling(&mut table);
        blue_green(&mut table);
        canary(&mut table);
        if let Some(swarm) = &swarm {
            swarm.release(&images, false, &SWARM_BARE, &mut table);
            swarm.release(&images, true, &SWARM_CHECKED, &mut table);
        }
    }
    table.print(swarm.is_some());
    ExitCode::SUCCESS
}

/// The sample application of a container; the version is in the image.
fn serve() -> ExitCode {
    // Not the command line's own: that would link the whole program into this one.
    let version = std::env::var("PILOTHOUSE_VERSION").unwrap();
    let mut settings = Settings::well_behaved(&version, 8080);
    settings.address = Ipv4Addr::UNSPECIFIED.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(sample_app::run(settings)).unwrap();
    ExitCode::SUCCESS
}

/// Whether the application beside this process answers 200 on `/health`.
fn healthy() -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.starts_with("HTTP/1.1 200 ").then_some(())
    };
    ask().is_some()
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

// --- numbers ------------------------------------------------------------------------------------------------------

const ROLLING_UP: &str = "Pilothouse rolling: deploy until the command returns";
const ROLLING_BACK: &str = "Pilothouse rolling: rollback until the new version's last request";
const ROLLING_RETURNS: &str = "Pilothouse rolling: rollback until the command returns";
const BLUE_UP: &str = "Pilothouse blue/green: deploy until the command returns";
const BLUE_BACK: &str = "Pilothouse blue/green: rollback until the new version's last request";
const CANARY_BACK: &str = "Pilothouse canary at 50 %: abort until the new version's last request";

/// What one kind of Swarm service is called in the table.
struct SwarmRows {
    what: &'static str,
    up: &'static str,
    up_returns: &'static str,
    back: &'static str,
    back_returns: &'static str,
}

const SWARM_BARE: SwarmRows = SwarmRows {
    what: "Swarm without a health check",
    up: "Swarm, no health check: update until only new tasks run",
    up_returns: "Swarm, no health check: update until the command returns",
    back: "Swarm, no health check: rollback until no new task is wanted",
    back_returns: "Swarm, no health check: rollback until the command returns",
};

const SWARM_CHECKED: SwarmRows = SwarmRows {
    what: "Swarm with a health check",
    up: "Swarm, health check: update until only new tasks run",
    up_returns: "Swarm, health check: update until the command returns",
    back: "Swarm, health check: rollback until no new task is wanted",
    back_returns: "Swarm, health check: rollback until the command returns",
};

#[derive(Default)]
struct Table {
    /// In order of appearance; one value a run.
    rows: Vec<(&'static str, Vec<f64>)>,
    /// By strategy: requests and failures of the load outside.
    load: BTreeMap<&'static str, (u64, u64, Vec<String>)>,
}

/// Median, least and most.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let middle = v.len() / 2;
    let median = if v.len().is_multiple_of(2) { f64::midpoint(v[middle - 1], v[middle]) } else { v[middle] };
    (median, v[0], v[v.len() - 1])
}

impl Table {
    fn add(&mut self, what: &'static str, took: Duration) {
        let seconds = took.as_secs_f64();
        match self.rows.iter_mut().find(|(w, _)| *w == what) {
            Some((_, all)) => all.push(seconds),
            None => self.rows.push((what, vec![seconds])),
        }
    }

    fn add_load(&mut self, what: &'static str, load: Load) {
        let report = load.finish();
        let entry = self.load.entry(what).or_default();
        entry.0 += report.requests;
        entry.1 += report.failed;
        entry.2.extend(report.how);
    }

    fn row(&self, what: &str) -> &[f64] {
        self.rows.iter().find(|(w, _)| *w == what).map_or(&[], |(_, v)| v)
    }

    /// How many times as long `theirs` took as `ours` in the same run.
    fn ratio(&self, what: &str, theirs: &str, ours: &str) {
        let of: Vec<f64> =
            self.row(theirs).iter().zip(self.row(ours)).map(|(t, o)| t / o.max(0.000_5)).collect();
        let (median, least, most) = spread(&of);
        println!("{what:<84} {median:>9.1}x {least:>9.1}x {most:>9.1}x");
    }

    fn print(&self, swarm: bool) {
        println!();
        println!("{:<84} {:>10} {:>10} {:>10}", "rolling release of 4 replicas", "median", "least", "most");
        for (what, all) in &self.rows {
            let (median, least, most) = spread(all);
            let ms = |s: f64| format!("{:.0} ms", s * 1000.0);
            println!("{what:<84} {:>10} {:>10} {:>10}", ms(median), ms(least), ms(most));
        }
        for (what, (requests, failed, how)) in &self.load {
            println!("{:<84} {failed:>10} of {requests}", format!("{what}: failed requests, up and back"));
            how.iter().take(5).for_each(|h| println!("    {h}"));
        }
        if swarm {
            println!(
                "\n{:<84} {:>10} {:>10} {:>10}",
                "Swarm / Pilothouse, run by run", "median", "least", "most"
            );
            for rows in [&SWARM_BARE, &SWARM_CHECKED] {
                let say = |what: &str| format!("{}: {what}", rows.what);
                self.ratio(&say("the way up, both commands return"), rows.up_returns, ROLLING_UP);
                self.ratio(&say("the way up, Swarm without its monitor"), rows.up, ROLLING_UP);
                self.ratio(&say("the way back of rolling"), rows.back, ROLLING_BACK);
                self.ratio(&say("the way back of blue/green"), rows.back, BLUE_BACK);
                self.ratio(&say("the way back of a canary"), rows.back, CANARY_BACK);
            }
        }
        println!("\n{}", conditions());
    }
}

fn conditions() -> String {
    let (interval, monitor) = (INTERVAL.as_millis(), MONITOR.as_millis());
    format!(
        "conditions:
- the same image, never pulled: Pilothouse by tag with pull = \"never\", Swarm by image id
- containers on the default bridge, reached by their own addresses: no port is published by either
- Swarm's service has endpoint mode dnsrr: its ingress mesh, which needs a kernel with IPVS, is not used. Nothing
  balances for it and it has no load, so 'no new task is wanted' leaves out what its clients would still need
- Pilothouse is under load through HAProxy all the while, kept-alive connections, and drains every instance
- Pilothouse: GET /health every {interval} ms, the first right after the start, rise 1, min_healthy_time 0
- Swarm, no health check: ready is what has started. Health check: this executable as a HEALTHCHECK every {interval} ms,
  the first one interval after the start, as Docker does it
- Swarm: start-first, parallelism 1, delay 0, monitor {monitor} ms, both ways; its command returns after the monitor
- one engine: Pilothouse sees it as two hosts, Swarm as one node"
    )
}

// --- Pilothouse ---------------------------------------------------------------------------------------------------

/// A fleet with version 1.0.0 up, on our image and without waiting for more than Swarm waits for.
fn fleet(what: &str, strategy: &'static str, keep: &'static str) -> World {
    let setup = Setup {
        strategy: Some(strategy),
        keep,
        replicas: REPLICAS,
        by_container_address: true,
        ..Setup::default()
    };
    let world = World::new(what, Backends::DockerHaproxy, &setup).expect("looked for before");
    world.edit(&format!("image = \"{}\"", world::repository()), &format!("image = \"{IMAGE}\""));
    world.edit("interval = \"200ms\"", &format!("interval = \"{}ms\"", INTERVAL.as_millis()));
    world.edit("rise = 2", "rise = 1");
    world.ok(&["up"]);
    world
}

/// Four visitors with connections that are kept; each waits a little between two requests.
fn visitors(world: &World) -> Load {
    let load = Load::paced(world.listen, 4, Duration::from_millis(2));
    wait("the old version answers", || load.of(OLD));
    load
}

/// Runs a command that takes the traffic back: how long until it returned, and until the last request was sent that
/// the new version answered.
fn back(world: &World, load: &Load, args: &[&str]) -> (Duration, Duration) {
    wait("the new version answers", || load.of(NEW));
    let began = Instant::now();
    world.ok(args);
    let returned = began.elapsed();
    // Whoever was still sent to the new version is seen.
    std::thread::sleep(Duration::from_secs(1));
    let (_, last) = load.of(NEW).unwrap();
    assert!(last.elapsed() > Duration::from_millis(500), "the new version still answers");
    (returned, last.saturating_duration_since(began))
}

fn deploy(world: &World) -> Duration {
    let began = Instant::now();
    world.ok(&["deploy", "web", NEW]);
    began.elapsed()
}

fn rolling(table: &mut Table) {
    let world = fleet("rolling", ROLLING, "1s");
    let load = visitors(&world);
    table.add(ROLLING_UP, deploy(&world));
    let (returned, last) = back(&world, &load, &["rollback", "web", "--wait"]);
    table.add(ROLLING_BACK, last);
    table.add(ROLLING_RETURNS, returned);
    table.add_load("Pilothouse rolling", load);
}

fn blue_green(table: &mut Table) {
    let world = fleet("blue/green", BLUE_GREEN, "10m");
    let load = visitors(&world);
    // Follows until the new version serves; the old one is kept and still runs.
    let mut deploying = world.spawn(&["deploy", "web", NEW]);
    let began = Instant::now();
    assert_eq!(deploying.end(PATIENCE), 0, "{}", deploying.said());
    table.add(BLUE_UP, began.elapsed());
    table.add(BLUE_BACK, back(&world, &load, &["rollback", "web"]).1);
    table.add_load("Pilothouse blue/green", load);
}

fn canary(table: &mut Table) {
    let world = fleet("canary", CANARY, "1s");
    let load = visitors(&world);
    let mut deploying = world.spawn(&["deploy", "web", NEW]);
    world.wait_for_share(NEW, 50);
    table.add(CANARY_BACK, back(&world, &load, &["abort", "web"]).1);
    assert_eq!(deploying.end(PATIENCE), 3, "{}", deploying.said());
    table.add_load("Pilothouse canary", load);
}

// --- images -------------------------------------------------------------------------------------------------------

/// The images, by version; removed with the value.
struct Images<'r> {
    runtime: &'r Runtime,
    engine: Docker,
    ids: BTreeMap<&'static str, String>,
}

impl<'r> Images<'r> {
    fn make(runtime: &'r Runtime, engine: &Docker, socket: &Path) -> Self {
        let me = std::env::current_exe().unwrap();
        let make = |version: &str| {
            let version = version.parse().unwrap();
            runtime.block_on(pilothouse::demo::image::build(socket, &me, IMAGE, &version)).unwrap()
        };
        let ids = [OLD, NEW].map(|v| (v, make(v))).into();
        Self { runtime, engine: engine.clone(), ids }
    }
}

impl Drop for Images<'_> {
    fn drop(&mut self) {
        for version in self.ids.keys() {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            let name = format!("{IMAGE}:{version}");
            let _ = self.runtime.block_on(self.engine.remove_image(&name, Some(options), None));
        }
    }
}

// --- Swarm --------------------------------------------------------------------------------------------------------

/// The network that joining a swarm makes and leaving it does not remove.
const GATEWAY: &str = "docker_gwbridge";

/// What has to be undone, also when this process is ended by a signal.
#[derive(Clone)]
struct Undo {
    engine: Docker,
    service: String,
    /// Whether the swarm is ours, and whether its gateway network is.
    joined: bool,
    made_gateway: bool,
}

impl Undo {
    async fn run(&self) {
        let _ = self.engine.delete_service(&self.service).await;
        if self.joined {
            let options = LeaveSwarmOptionsBuilder::default().force(true).build();
            match self.engine.leave_swarm(Some(options)).await {
                Ok(()) => eprintln!("left the swarm that was made for this"),
                Err(e) => eprintln!("CANNOT LEAVE THE SWARM: {e}. Do it: docker swarm leave --force"),
            }
        }
        if self.made_gateway {
            // Its last containers are only just going.
            for _ in 0..50 {
                if self.engine.remove_network(GATEWAY).await.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// An engine in a swarm; see [`Undo`] for its end.
struct Swarm<'r> {
    runtime: &'r Runtime,
    docker: PathBuf,
    undo: Undo,
}

impl Drop for Swarm<'_> {
    fn drop(&mut self) {
        self.runtime.block_on(self.undo.run());
    }
}

impl<'r> Swarm<'r> {
    /// Uses the swarm that the engine manages alone, or makes one; `None`, said loudly, when neither is possible.
    fn join(runtime: &'r Runtime, engine: &Docker) -> Option<Self> {
        let docker = common::require::program("docker")?;
        let skip = |why: &str| common::skip("docker", "Swarm beside Pilothouse", why);
        let state = runtime.block_on(engine.info()).unwrap().swarm.unwrap_or_default();
        let gateway_is_there = || runtime.block_on(engine.inspect_network(GATEWAY, None)).is_ok();
        let had_gateway = gateway_is_there();
        let joined = match state.local_node_state {
            Some(LocalNodeState::ACTIVE) => {
                if state.control_available != Some(true) || state.nodes != Some(1) {
                    skip("the engine is in a swarm with others, and this would use theirs");
                    return None;
                }
                false
            }
            Some(LocalNodeState::INACTIVE) | None => true,
            other => {
                skip(&format!("the engine's part in its swarm is {other:?}"));
                return None;
            }
        };
        let undo = Undo {
            engine: engine.clone(),
            service: common::unique("pilothouse-bench"),
            joined,
            made_gateway: joined && !had_gateway,
        };
        if joined {
            let request = serde_json::from_value(json!({
                "ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1", "DataPathAddr": "127.0.0.1",
            }));
            if let Err(e) = runtime.block_on(engine.init_swarm(request.unwrap())) {
                skip(&format!("it makes no swarm: {e}"));
                return None;
            }
        }
        // From here on a signal undoes too.
        static ENDING: OnceLock<()> = OnceLock::new();
        let on_signal = undo.clone();
        runtime.spawn(async move {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut term, mut int) =
                (signal(SignalKind::terminate()).unwrap(), signal(SignalKind::interrupt()).unwrap());
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if ENDING.set(()).is_ok() {
                on_signal.run().await;
            }
            std::process::exit(130);
        });
        Some(Self { runtime, docker, undo })
    }

    fn spec(&self, image: &str, checked: bool) -> ServiceSpec {
        let config = json!({
            "Parallelism": 1, "Delay": 0, "FailureAction": "pause", "Monitor": nanos(MONITOR),
            "MaxFailureRatio": 0.0, "Order": "start-first",
        });
        let mut container = json!({ "Image": image, "StopGracePeriod": nanos(Duration::from_secs(5)) });
        if checked {
            // Through the API: the command line's --health-cmd needs a shell in the image.
            container["HealthCheck"] = json!({
                "Test": ["CMD", "/pilothouse", "probe"],
                "Interval": nanos(INTERVAL), "Timeout": nanos(Duration::from_secs(2)), "Retries": 3,
            });
        }
        serde_json::from_value(json!({
            "Name": self.undo.service,
            "TaskTemplate": { "ContainerSpec": container },
            "Mode": { "Replicated": { "Replicas": REPLICAS } },
            "UpdateConfig": config, "RollbackConfig": config,
            "EndpointSpec": { "Mode": "dnsrr" },
        }))
        .unwrap()
    }

    fn tasks(&self) -> Vec<Task> {
        let filters = HashMap::from([("service", vec![self.undo.service.as_str()])]);
        let options = ListTasksOptionsBuilder::default().filters(&filters).build();
        self.runtime.block_on(self.undo.engine.list_tasks(Some(options))).unwrap_or_default()
    }

    /// Whether the tasks that are wanted all run `image`, and there are enough.
    fn only(&self, image: &str) -> bool {
        let tasks = self.tasks();
        let wanted = || tasks.iter().filter(|t| t.desired_state == Some(TaskState::RUNNING));
        let is = |t: &Task| {
            let spec = t.spec.as_ref().and_then(|s| s.container_spec.as_ref());
            spec.and_then(|c| c.image.as_deref()) == Some(image)
        };
        let runs = |t: &Task| t.status.as_ref().and_then(|s| s.state) == Some(TaskState::RUNNING);
        wanted().count() == REPLICAS as usize && wanted().all(|t| is(t) && runs(t))
    }

    /// Runs `docker service ARGS` as an operator does: until only `image` is wanted, and until it returned.
    fn command(&self, args: &[&str], image: &str) -> (Duration, Duration) {
        let mut command = Command::new(&self.docker);
        command.arg("service").args(args).args(["--quiet", "--detach=false"]).arg(&self.undo.service);
        let what = format!("docker service {}", args.join(" "));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        let running = std::thread::spawn(move || (command.status().unwrap(), began.elapsed()));
        let settled = wait(&what, || self.only(image).then(|| began.elapsed()));
        let (status, returned) = running.join().unwrap();
        assert!(status.success(), "{what}: {status}");
        (settled, returned)
    }

    /// A service with the old version, updated and rolled back.
    fn release(&self, images: &Images<'_>, checked: bool, rows: &SwarmRows, table: &mut Table) {
        let (old, new) = (&images.ids[OLD], &images.ids[NEW]);
        let create = self.undo.engine.create_service(self.spec(old, checked), None);
        self.runtime.block_on(create).unwrap();
        wait("Swarm runs the old version", || self.only(old).then_some(()));
        let (settled, returned) = self.command(&["update", "--no-resolve-image", "--image", new], new);
        table.add(rows.up, settled);
        table.add(rows.up_returns, returned);
        let (settled, returned) = self.command(&["rollback"], old);
        table.add(rows.back, settled);
        table.add(rows.back_returns, returned);
        self.runtime.block_on(self.undo.engine.delete_service(&self.undo.service)).unwrap();
        // Its containers take time and processor of their own to go.
        wait("Swarm's containers are gone", || self.containers_are_gone().then_some(()));
    }

    fn containers_are_gone(&self) -> bool {
        let label = format!("com.docker.swarm.service.name={}", self.undo.service);
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = bollard::query_parameters::ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let list = self.runtime.block_on(self.undo.engine.list_containers(Some(options)));
        list.is_ok_and(|l| l.is_empty())
    }
}

/// As Docker's API takes durations.
fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap()
}
