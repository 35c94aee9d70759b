//! A whole small world for one test: a fleet file, a proxy, a controller that the commands start by themselves, and
//! everything gone at the end, also after a panic. Commands are the real binary; the world is looked at from outside.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pilothouse::proxy::Extras;
use pilothouse::proxy::haproxy::frontend_lines;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common;

#[path = "outside.rs"]
pub mod outside;
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
        let (mut server, mut docker) = (None, None);
        if backends == Backends::DockerHaproxy {
            let Some(binary) = crate::common::require::program("haproxy") else {
                common::skip("haproxy", test, "haproxy is not installed");
                return None;
            };
            server = Some((binary, None));
            docker = match &setup.docker {
                Some(socket) => Some(socket.clone()),
                None => Some(runtime.block_on(common::docker_or_skip(test))?),
            };
        }
        let behind = match backends {
            Backends::ProcessNginx => Some("nginx"),
            Backends::ProcessTraefik => Some("traefik"),
            Backends::ProcessEnvoy => Some("envoy"),
            Backends::ProcessCaddy => Some("caddy"),
            Backends::DockerHaproxy | Backends::ProcessEdge => None,
        };
        if let Some(program) = behind {
            let Some(binary) = crate::common::require::program(program) else {
                common::skip(program, test, &format!("{program} is not installed"));
                return None;
            };
            server = Some((binary, None));
        }
        let dir = tempfile::Builder::new().prefix("phs").tempdir_in("/tmp").unwrap();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let net = format!("127.{}.{}", 16 + random[0] % 200, random[1]);
        let listen = format!("{net}.100:8080").parse().unwrap();
        let fleet = common::unique("st");
        let remote = setup.registry.map(|port| format!("127.0.0.1:{port}/pilothouse-test/{fleet}"));
        let (two_services, second_docker) = (setup.api.is_some(), setup.second_docker.clone());
        let world = Self {
            backends,
            fleet,
            listen,
            dir,
            net,
            server,
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
        if backends == Backends::DockerHaproxy {
            world.image("1.0.0");
            if two_services {
                world.image("2.0.0");
            }
            // The controller makes the files that HAProxy will not start without.
            world.ok(&["status"]);
            let mut world = world;
            world.start_haproxy();
            return Some(world);
        }
        if backends == Backends::ProcessNginx {
            world.ok(&["status"]);
            let mut world = world;
            world.start_nginx();
            return Some(world);
        }
        if backends == Backends::ProcessTraefik {
            world.ok(&["status"]);
            let mut world = world;
            world.start_traefik();
            return Some(world);
        }
        if backends == Backends::ProcessEnvoy {
            world.ok(&["status"]);
            let mut world = world;
            world.start_envoy();
            return Some(world);
        }
        if backends == Backends::ProcessCaddy {
            world.ok(&["status"]);
            let mut world = world;
            world.start_caddy();
            return Some(world);
        }
        Some(world)
    }

    fn text(&self, setup: &Setup) -> String {
        let mut out = format!("name = \"{}\"\nstate_dir = \"state\"\n", self.fleet);
        let path = |p: &str| self.path().join(p).display().to_string();
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
        match self.backends {
            Backends::DockerHaproxy => {
                let _ = write!(
                    out,
                    "\n[proxies.lb]\ntype = \"haproxy\"\ndir = \"{}\"\nmaster_socket = \"{}\"\nconfig = [\"{}\"]\nbinary = \"{}\"\n",
                    path("own"),
                    path("m.sock"),
                    path("op.cfg"),
                    self.server.as_ref().unwrap().0.display(),
                );
            }
            Backends::ProcessNginx => {
                let _ = write!(
                    out,
                    "\n[proxies.lb]\ntype = \"nginx\"\ndir = \"{}\"\nconfig = \"{}\"\npid = \"{}\"\n\
                     status = \"{net}.101:8404\"\nlog = \"{net}.101:5140\"\nbinary = \"{}\"\n",
                    path("own"),
                    path("op.conf"),
                    path("nginx.pid"),
                    self.server.as_ref().unwrap().0.display(),
                    net = self.net,
                );
            }
            Backends::ProcessTraefik => {
                let s = self.traefik();
                let _ = write!(
                    out,
                    "\n[proxies.lb]\ntype = \"traefik\"\ndir = \"{}\"\napi = \"{}\"\n",
                    s.dir.display(),
                    s.api
                );
            }
            Backends::ProcessEnvoy => {
                let _ = write!(
                    out,
                    "\n[proxies.lb]\ntype = \"envoy\"\ndir = \"{}\"\nadmin = \"{}.101:9901\"\nlog = \"{}\"\n",
                    path("own"),
                    self.net,
                    path("access.log"),
                );
            }
            Backends::ProcessCaddy => {
                let _ = write!(
                    out,
                    "\n[proxies.lb]\ntype = \"caddy\"\ndir = \"{}\"\nconfig = \"{}\"\nadmin = \"{net}.101:2019\"\n\
                     status = \"{net}.101:8404\"\nlog = \"127.0.0.1:{}\"\nbinary = \"{}\"\n",
                    path("own"),
                    path("Caddyfile"),
                    // All of loopback hears these lines.
                    20_000
                        + self
                            .listen
                            .ip()
                            .to_string()
                            .bytes()
                            .fold(0_u32, |n, b| (n * 31 + u32::from(b)) % 900),
                    self.server.as_ref().unwrap().0.display(),
                    net = self.net,
                );
            }
            Backends::ProcessEdge => {
                let _ = write!(out, "\n[proxies.lb]\ntype = \"edge\"\nlisten = \"{}\"\n", self.listen);
            }
        }
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
            Backends::ProcessEdge
            | Backends::ProcessNginx
            | Backends::ProcessTraefik
            | Backends::ProcessEnvoy
            | Backends::ProcessCaddy => {
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

    pub fn master_socket(&self) -> PathBuf {
        self.path().join("m.sock")
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

    // --- the proxy ------------------------------------------------------------------------------------------------

    /// Starts HAProxy as an operator does, with a configuration of their own.
    pub fn start_haproxy(&mut self) {
        let fleet = self.fleet.parse().unwrap();
        let lines_of = |service: &str| {
            frontend_lines(&self.path().join("own"), &fleet, &service.parse().unwrap(), self.extras)
        };
        let mut lines = Vec::new();
        if self.two_services {
            // As README says: a condition of the operator's own goes onto each of the lines.
            lines.extend(lines_of("api").into_iter().map(|line| {
                let with = if line.contains(" if {") { "" } else { " if" };
                format!("{line}{with} {{ req.hdr(host) -i {API} }}")
            }));
        }
        lines.extend(lines_of("web"));
        let lines = lines.join("\n    ");
        let text = format!(
            "global\n    maxconn 500\n    hard-stop-after 30s\ndefaults\n    mode http\n    timeout connect 2s\n    \
             timeout client 30s\n    timeout server 10s\n    timeout http-keep-alive 10s\nfrontend fe\n    \
             bind {}\n    option idle-close-on-response\n    {lines}\n",
            self.listen
        );
        std::fs::write(self.path().join("op.cfg"), text).unwrap();
        let own = self.path().join("own").join(format!("{}.cfg", self.fleet));
        let log = std::fs::File::create(self.path().join("haproxy.log")).unwrap();
        let (binary, child) = self.server.as_mut().expect("a world with HAProxy");
        let mut command = Command::new(&*binary);
        command.args(["-W", "-db", "-S"]).arg(self.dir.path().join("m.sock"));
        command.arg("-f").arg(self.dir.path().join("op.cfg"));
        command.arg("-f").arg(own);
        *child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.wait("HAProxy listens", || TcpStream::connect(self.listen).ok());
    }

    /// Starts nginx as an operator does, with a configuration of their own.
    fn start_nginx(&mut self) {
        use pilothouse::proxy::nginx;
        std::fs::set_permissions(self.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (fleet, own, at) = (self.fleet.parse().unwrap(), self.path().join("own"), self.path().display());
        let text = format!(
            "daemon off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log notice;\nworker_processes 2;\n\
             worker_shutdown_timeout 20s;\nevents {{}}\nhttp {{\n    client_header_timeout 5s;\n    {}\n    \
             server {{\n        listen {};\n        location / {{ {} }}\n    }}\n}}\n",
            nginx::http_line(&own, &fleet),
            self.listen,
            nginx::location_line(&own, &fleet, &"web".parse().unwrap()),
        );
        std::fs::write(self.path().join("op.conf"), text).unwrap();
        let (binary, child) = self.server.as_mut().expect("a world with nginx");
        let mut command = Command::new(&*binary);
        command.arg("-c").arg(self.dir.path().join("op.conf"));
        *child =
            Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        self.wait("nginx listens", || TcpStream::connect(self.listen).ok());
    }

    /// How Traefik is reached.
    fn traefik(&self) -> pilothouse::fleet::model::TraefikSettings {
        let api = format!("{}.101:8404", self.net).parse().unwrap();
        pilothouse::fleet::model::TraefikSettings { dir: self.path().join("own"), api }
    }

    /// Starts Traefik as an operator does, with a configuration of their own.
    fn start_traefik(&mut self) {
        use pilothouse::proxy::traefik;
        let settings = self.traefik();
        let lines = traefik::static_lines(&settings).join("\n");
        traefik_files::write(self.path(), self.listen, &lines, &settings.dir);
        let lines = traefik::router_lines(&self.fleet.parse().unwrap(), &"web".parse().unwrap()).join("\n");
        let lines = lines.replace("Host(`www.example.com`)", "PathPrefix(`/`)");
        std::fs::write(settings.dir.join("op.yml"), lines).unwrap();
        let log = std::fs::File::create(self.path().join("traefik.log")).unwrap();
        let file = format!("--configFile={}", self.path().join("traefik.yml").display());
        let at = self.path().to_owned();
        let (binary, child) = self.server.as_mut().expect("a world with Traefik");
        let mut command = Command::new(&*binary);
        command.arg(file).current_dir(at).stdin(Stdio::null());
        *child = Some(command.stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap());
        // It listens before it has read what it shall do.
        self.wait("Traefik has its files", || {
            let answer = common::get(settings.api, "/api/version");
            self.runtime.block_on(answer).filter(|(status, _)| *status == 200)
        });
    }

    /// Starts Caddy as an operator does, with a Caddyfile of their own.
    fn start_caddy(&mut self) {
        use pilothouse::proxy::caddy;
        let (fleet, own) = (self.fleet.parse().unwrap(), self.path().join("own"));
        let text = format!(
            "{{\n    admin {}.101:2019\n    auto_https off\n    {}\n}}\n{}\nhttp://:{} {{\n    bind {}\n    {}\n}}\n",
            self.net,
            caddy::options_line(&own, &fleet),
            caddy::server_line(&own, &fleet),
            self.listen.port(),
            self.listen.ip(),
            caddy::site_line(&own, &fleet, &"web".parse().unwrap()),
        );
        std::fs::write(self.path().join("Caddyfile"), text).unwrap();
        let dir = self.dir.path().to_owned();
        let log = std::fs::File::create(dir.join("caddy.log")).unwrap();
        let (binary, child) = self.server.as_mut().expect("a world with Caddy");
        let mut command = Command::new(&*binary);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.join("Caddyfile"));
        command.env("XDG_DATA_HOME", dir.join("data")).env("XDG_CONFIG_HOME", dir.join("config"));
        *child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.wait("Caddy listens", || TcpStream::connect(self.listen).ok());
    }

    fn master(&self) -> u32 {
        self.server.as_ref().and_then(|(_, c)| c.as_ref()).expect("HAProxy runs").id()
    }

    /// SIGUSR2 to the master, as a certificate renewal does.
    pub fn reload_haproxy(&self) {
        kill(self.master(), Signal::USR2);
    }

    /// Kills HAProxy, whole.
    pub fn stop_haproxy(&mut self) {
        let Some((_, child)) = &mut self.server else { return };
        if let Some(mut child) = child.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Takes the way to ask the proxy anything away, until what this returns is dropped. Visitors are answered as before.
    pub fn hide_proxy(&self) -> Hidden {
        let path = match self.backends {
            Backends::DockerHaproxy => self.master_socket(),
            Backends::ProcessEdge => self.state_dir().join("lb.sock"),
            Backends::ProcessNginx => self.path().join("nginx.pid"),
            Backends::ProcessTraefik => unreachable!("Traefik is asked over TCP"),
            Backends::ProcessEnvoy => unreachable!("Envoy is asked over TCP"),
            Backends::ProcessCaddy => panic!("what Caddy is asked by is no file"),
        };
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        Hidden { path, aside }
    }

    /// What HAProxy answers on its master socket; a master that is just reloading is asked again.
    pub fn haproxy_says(&self, command: &str) -> String {
        self.wait("HAProxy's master answers", || {
            let mut stream = UnixStream::connect(self.master_socket()).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            stream.write_all(format!("{command}\n").as_bytes()).ok()?;
            stream.shutdown(std::net::Shutdown::Write).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
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
        self.stop_haproxy();
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

/// Gives the way to the proxy back.
pub struct Hidden {
    path: PathBuf,
    aside: PathBuf,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = std::fs::rename(&self.aside, &self.path);
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
