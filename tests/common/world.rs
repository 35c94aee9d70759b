//! A whole small world for one test: a fleet file, a proxy, a controller that the commands start by themselves, and
//! everything gone at the end, also after a panic. Commands are the real binary; the world is looked at from outside.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pilothouse::proxy::Extras;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common;

#[path = "outside.rs"]
pub mod outside;
mod proxies;
mod relay;
mod traefik_files;

/// Longest wait for anything that is asserted.
pub const LONG: Duration = Duration::from_secs(60);
/// Longest run of a command that does not follow a rollout.
const COMMAND: Duration = Duration::from_secs(60);

/// What runs the instances, and what moves the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backends {
    DockerHaproxy,
    ProcessEdge,
    ProcessNginx,
    ProcessTraefik,
    ProcessEnvoy,
    ProcessCaddy,
}

impl Backends {
    /// Whether instances are processes.
    pub fn processes(self) -> bool {
        self != Self::DockerHaproxy
    }
}

/// How the fleet of a test differs from the usual one.
#[derive(Clone, Debug)]
pub struct Setup {
    pub steps: &'static str,
    /// The lines of `[services.web.strategy]`, when it is another than a canary with `steps`.
    pub strategy: Option<&'static str>,
    /// The lines of `[services.web.hooks]`.
    pub hooks: Option<String>,
    pub replicas: u32,
    pub keep: &'static str,
    pub progress_deadline: &'static str,
    pub env_file: Option<String>,
    /// Another Docker Engine than the machine's.
    pub docker: Option<PathBuf>,
    /// Another one for the second host.
    pub second_docker: Option<PathBuf>,
    /// The lines that the operator has in HAProxy's frontend.
    pub extras: Extras,
    /// The port of a registry on loopback from which the hosts have to pull every image.
    pub registry: Option<u16>,
    /// Docker network the containers join.
    pub by_container_address: bool,
    /// The lines of `[services.api.strategy]`: a second service behind the same proxy, asked for by the host name
    /// [`API`], of version 2.0.0 where the first one is of 1.0.0.
    pub api: Option<&'static str>,
}

/// The host name by which the second service is asked for.
pub const API: &str = "api.test";

/// Waits for `promote` after each step.
pub const BY_HAND: &str = r#"{ weight = 5, pause = "manual" }, { weight = 25, pause = "manual" }, { weight = 50, pause = "manual" }"#;

impl Default for Setup {
    fn default() -> Self {
        Self {
            steps: BY_HAND,
            strategy: None,
            hooks: None,
            replicas: 4,
            keep: "2s",
            progress_deadline: "60s",
            env_file: None,
            docker: None,
            second_docker: None,
            extras: Extras::ALL,
            registry: None,
            by_container_address: false,
            api: None,
        }
    }
}

/// See the top of the file.
pub struct World {
    pub backends: Backends,
    pub fleet: String,
    pub listen: SocketAddr,
    dir: tempfile::TempDir,
    /// `127.A.B`: nobody else's addresses.
    net: String,
    /// The proxy, where it is none of ours.
    server: Option<(PathBuf, Option<Child>)>,
    /// What the controller asks it through, where it is asked over TCP.
    relay: Option<relay::Relay>,
    docker: Option<PathBuf>,
    second_docker: Option<PathBuf>,
    /// The lines that the operator has in HAProxy's frontend; written when it starts.
    pub extras: Extras,
    /// Where images are pushed to, and pulled from.
    remote: Option<String>,
    two_services: bool,
    runtime: tokio::runtime::Runtime,
}

/// The one image repository of this build; its images are kept for the next test.
pub fn repository() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    common::pilothouse().hash(&mut hasher);
    format!("pilothouse-stories-{:08x}", hasher.finish() & 0xffff_ffff)
}

const SERVICE_TAIL: &str = r#"
proxies = ["lb"]
keep = "KEEP"
progress_deadline = "PROGRESS"
ENV
[services.NAME.health]
http = "/health"
interval = "200ms"
timeout = "2s"
rise = 2
fall = 3

[services.NAME.drain]
deadline = "10s"
stop_grace = "5s"

[services.NAME.strategy]
STRATEGY
"#;

impl World {
    /// A world with nothing up yet; `None`, said loudly, when something it needs is missing.
    pub fn new(test: &str, backends: Backends, setup: &Setup) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut server = None;
        if let Some(program) = backends.program() {
            let Some(binary) = crate::common::require::program(program) else {
                common::skip(program, test, &format!("{program} is not installed"));
                return None;
            };
            server = Some((binary, None));
        }
        let docker = match &setup.docker {
            _ if backends.processes() => None,
            Some(socket) => Some(socket.clone()),
            None => Some(runtime.block_on(common::docker_or_skip(test))?),
        };
        let dir = tempfile::Builder::new().prefix("phs").tempdir_in("/tmp").unwrap();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let net = format!("127.{}.{}", 16 + random[0] % 200, random[1]);
        let listen = format!("{net}.100:8080").parse().unwrap();
        let fleet = common::unique("st");
        let remote = setup.registry.map(|port| format!("127.0.0.1:{port}/pilothouse-test/{fleet}"));
        let (two_services, second_docker) = (setup.api.is_some(), setup.second_docker.clone());
        let relay = backends.relay(&net);
        let mut world = Self {
            backends,
            fleet,
            listen,
            dir,
            net,
            server,
            relay,
            docker,
            second_docker,
            extras: setup.extras,
            remote,
            two_services,
            runtime,
        };
        std::fs::write(world.file(), world.text(setup)).unwrap();
        if let Some(env) = &setup.env_file {
            std::fs::write(world.path().join("web.env"), env).unwrap();
        }
        world.image("1.0.0");
        if two_services {
            world.image("2.0.0");
        }
        if backends.program().is_some() {
            // The controller makes the files without which some of them do not start.
            world.ok(&["status"]);
            world.start_proxy();
        }
        Some(world)
    }

    fn text(&self, setup: &Setup) -> String {
        let mut out = format!("name = \"{}\"\nstate_dir = \"state\"\n", self.fleet);
        // The hosts share one engine: what tells them apart is the address.
        for n in 1..=2 {
            let second = self.second_docker.as_ref().filter(|_| n == 2);
            let engine = match second.or(self.docker.as_ref()) {
                Some(socket) => format!("unix://{}", socket.display()),
                None => "process://".to_owned(),
            };
            let _ = write!(
                out,
                "\n[hosts.node-{n}]\nengine = \"{engine}\"\naddress = \"{}\"\n",
                self.host_address(n)
            );
        }
        out.push_str(&self.proxy_text());
        let strategy = setup
            .strategy
            .map_or_else(|| format!("type = \"canary\"\nsteps = [ {} ]", setup.steps), str::to_owned);
        out.push_str(&self.service_text(setup, "web", "1.0.0", 21_000, &strategy));
        if let Some(hooks) = &setup.hooks {
            let _ = write!(out, "\n[services.web.hooks]\n{hooks}\n");
        }
        if let Some(strategy) = setup.api {
            out.push_str(&self.service_text(setup, "api", "2.0.0", 21_100, strategy));
        }
        out
    }

    /// A service whose host ports begin at `port`.
    fn service_text(&self, setup: &Setup, name: &str, version: &str, port: u16, strategy: &str) -> String {
        let mut out =
            format!("\n[services.{name}]\nversion = \"{version}\"\nreplicas = {}\n", setup.replicas);
        match self.backends {
            Backends::DockerHaproxy => {
                let (image, pull) = match &self.remote {
                    Some(remote) => (remote.clone(), "missing"),
                    None => (repository(), "never"),
                };
                let _ = writeln!(out, "image = \"{image}\"\npull = \"{pull}\"\nport = 8080");
            }
            _ => {
                let _ = writeln!(
                    out,
                    "command = [\"{}\", \"sample-app\", \"--port\", \"{{port}}\", \"--address\", \
                     \"{{address}}\", \"--version\", \"{{version}}\", \"--behaviour-by-version\"]",
                    common::pilothouse().display(),
                );
                // HAProxy's frontend is the operator's, and so is what it chooses by.
                if name == "api" {
                    let _ = writeln!(out, "domains = [\"{API}\"]");
                }
            }
        }
        if setup.by_container_address {
            out.push_str("address = \"container\"\n");
        } else {
            let _ = writeln!(out, "host_ports = \"{port}-{}\"", port + 3);
        }
        let env = if setup.env_file.is_some() { "env_file = \"web.env\"" } else { "" };
        out + &SERVICE_TAIL
            .replace("NAME", name)
            .replace("KEEP", setup.keep)
            .replace("PROGRESS", setup.progress_deadline)
            .replace("ENV", env)
            .replace("STRATEGY", strategy)
    }

    /// Changes the fleet file, as an operator does.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(self.file(), text.replacen(from, to, 1)).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("fleet.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The address of host `n`.
    pub fn host_address(&self, n: usize) -> String {
        format!("{}.{n}", self.net)
    }

    // --- commands -------------------------------------------------------------------------------------------------

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(common::pilothouse());
        // Named first, unless the test names another one.
        if args.first() != Some(&"--fleet") {
            command.arg("--fleet").arg(self.file());
        }
        command.args(args);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Starts a command; what it says goes to files.
    pub fn spawn(&self, args: &[&str]) -> Running {
        let out = self.path().join(format!("{}.out", common::unique("cmd")));
        let file = std::fs::File::create(&out).unwrap();
        let child = self.command(args).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Running { child, out, what: args.join(" ") }
    }

    /// Runs a command to its end: exit code and all it said.
    pub fn run(&self, args: &[&str]) -> (i32, String) {
        let mut running = self.spawn(args);
        let code = running.end(COMMAND);
        (code, running.said())
    }

    /// Runs a command that must succeed; what it said.
    pub fn ok(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args);
        assert_eq!(code, 0, "pilothouse {}: {said}", args.join(" "));
        said
    }

    /// `status --output json`.
    pub fn status(&self) -> Value {
        let out = self.command(&["status", "--output", "json"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// The controller's snapshot, when one answers. Starts nothing.
    pub fn snapshot(&self) -> Option<Value> {
        self.get("/v1/snapshot")
    }

    /// What the controller answers, when one does. Starts nothing.
    pub fn get(&self, path: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.state_dir().join("control.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    /// The events so far, as `kind: text (by)`.
    pub fn events(&self) -> Vec<String> {
        let snapshot = self.snapshot().expect("a controller answers");
        let text = |e: &Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
        let events = snapshot["events"].as_array().unwrap();
        events
            .iter()
            .map(|e| format!("{}: {} ({})", text(e, "kind"), text(e, "text"), text(e, "by")))
            .collect()
    }

    /// Waits until `check` gives something; panics when it never does.
    pub fn wait<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(found) = check() {
                return found;
            }
            assert!(Instant::now() < deadline, "never happened: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The first service, as in the snapshot.
    pub fn service(&self) -> Option<Value> {
        self.service_named("web")
    }

    /// A service, as in the snapshot; null when it was never deployed.
    pub fn service_named(&self, name: &str) -> Option<Value> {
        let services = self.snapshot()?["services"].as_array()?.clone();
        Some(services.into_iter().find(|s| s["name"] == name).unwrap_or_default())
    }

    /// Waits until the rollout to `to` has set `percent`, and the proxy was read back with it.
    pub fn wait_for_share(&self, to: &str, percent: u64) {
        self.wait(&format!("{to} at {percent} %, read back"), || {
            let service = self.service()?;
            let r = service["revisions"].as_array()?.iter().find(|r| r["revision"]["version"] == to)?.clone();
            let waits = service["rollout"]["waiting"].as_array()?.iter().all(|w| w == "promote");
            (r["weight"] == percent * 100 && r["actual_weight"] == percent * 100 && waits).then_some(())
        });
    }

    /// The name of the phase and the status of the rollout to `to`.
    pub fn phase(&self, to: &str) -> Option<(String, String)> {
        let rollout = self.service()?["rollout"].clone();
        let phase = rollout["phase"]
            .as_u64()
            .and_then(|n| rollout["phases"][usize::try_from(n).ok()?]["name"].as_str());
        let found = (phase?.to_owned(), rollout["status"].as_str()?.to_owned());
        (rollout["to"] == to).then_some(found)
    }

    /// Waits for a status of the rollout to `to`.
    pub fn wait_for_status(&self, to: &str, status: &str) {
        self.wait(&format!("{to} {status}"), || self.phase(to).filter(|(_, s)| s == status));
    }

    // --- the controller -------------------------------------------------------------------------------------------

    /// The process that holds the fleet's lock, if it lives.
    pub fn controller(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.state_dir().join("lock")).ok()?;
        let pid = u32::try_from(serde_json::from_str::<Value>(&text).ok()?["pid"].as_u64()?).ok()?;
        self.is_ours(pid).then_some(pid)
    }

    /// Whether a process was started for this world: the unique directory is in its arguments.
    fn is_ours(&self, pid: u32) -> bool {
        let dir = self.path().display().to_string();
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&dir))
    }

    /// `kill -9` of the controller; waits until it is gone.
    pub fn kill_controller(&self) -> u32 {
        let pid = self.controller().expect("a controller runs");
        kill(pid, Signal::KILL);
        self.wait("the controller is gone", || (!alive(pid)).then_some(()));
        pid
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        // The controller first, or it would start again what is taken away.
        while let Some(pid) = self.controller() {
            kill(pid, Signal::KILL);
            std::thread::sleep(Duration::from_millis(20));
        }
        for (socket, container) in self.containers() {
            let options = bollard::query_parameters::RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            let id = container.id.unwrap_or_default();
            let _ = self.runtime.block_on(engine_at(socket).remove_container(&id, Some(options)));
        }
        for socket in self.engines() {
            let volume = format!("pilothouse-owner-{}", self.fleet);
            let options =
                bollard::query_parameters::RemoveVolumeOptionsBuilder::default().force(true).build();
            let _ = self.runtime.block_on(engine_at(socket).remove_volume(&volume, Some(options)));
        }
        for (socket, _, names) in self.pulled() {
            for name in names {
                self.forget(&socket, &name, true);
            }
        }
        self.stop_proxy();
        // Shims first, then what they watched over.
        for _ in 0..50 {
            let left: Vec<u32> = self.processes().into_iter().filter(|p| *p != std::process::id()).collect();
            if left.is_empty() {
                break;
            }
            for pid in left {
                kill(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn engine_at(socket: &Path) -> bollard::Docker {
    bollard::Docker::connect_with_unix(&socket.to_string_lossy(), 60, bollard::API_DEFAULT_VERSION).unwrap()
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Signals one process that this world started.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A command that was started.
pub struct Running {
    pub child: Child,
    out: PathBuf,
    what: String,
}

impl Running {
    /// Waits for its end; the exit code, or 128 + signal.
    pub fn end(&mut self, within: Duration) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let code = |s: ExitStatus| s.code().or_else(|| s.signal().map(|n| 128 + n)).unwrap_or(-1);
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return code(status);
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("pilothouse {} does not end: {}", self.what, self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
