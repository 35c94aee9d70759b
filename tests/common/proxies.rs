//! The proxy of a world: what the fleet file says of it, how an operator starts it with a configuration of their own, and
//! what a test can take away from it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pilothouse::fleet::model::TraefikSettings;
use pilothouse::proxy::{caddy, envoy, haproxy, nginx, traefik};
use rustix::process::{Pid, Signal, kill_process};

use super::relay::Relay;
use super::{API, Backends, World, kill, traefik_files};
use crate::common::{self, operators};

impl Backends {
    /// The program of the proxy, where it is none of ours.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::DockerHaproxy => Some("haproxy"),
            Self::ProcessEdge => None,
            Self::ProcessNginx => Some("nginx"),
            Self::ProcessTraefik => Some("traefik"),
            Self::ProcessEnvoy => Some("envoy"),
            Self::ProcessCaddy => Some("caddy"),
        }
    }

    /// Whether a reload closes connections that a request may be on its way on.
    pub fn closes_connections(self) -> bool {
        matches!(self, Self::ProcessNginx | Self::ProcessCaddy)
    }

    /// Whether what was counted comes on another way than everything else that the proxy says.
    pub fn counts_apart(self) -> bool {
        matches!(self, Self::ProcessNginx | Self::ProcessCaddy | Self::ProcessTraefik)
    }

    /// What stands before the address at which the proxy is asked, where nothing else could be taken away.
    pub(super) fn relay(self, net: &str) -> Option<Relay> {
        let between = matches!(self, Self::ProcessTraefik | Self::ProcessEnvoy);
        let at = |n: u8| format!("{net}.{n}:8404").parse().unwrap();
        between.then(|| Relay::start(at(102), at(101)))
    }
}

impl World {
    /// Where the proxy listens for those who ask it something.
    fn asked_at(&self) -> SocketAddr {
        format!("{}.101:8404", self.net).parse().unwrap()
    }

    /// Where HAProxy's master listens.
    pub fn master_socket(&self) -> PathBuf {
        self.path().join("m.sock")
    }

    /// The lines of `[proxies.lb]`.
    pub(super) fn proxy_text(&self) -> String {
        let path = |p: &str| self.path().join(p).display().to_string();
        let binary = self.server.as_ref().map_or_else(String::new, |(b, _)| b.display().to_string());
        let (own, asked, net) = (path("own"), self.asked_at(), &self.net);
        let relayed = || self.relay.as_ref().expect("one that is asked over TCP").listen;
        let lines = match self.backends {
            Backends::DockerHaproxy => format!(
                "type = \"haproxy\"\ndir = \"{own}\"\nmaster_socket = \"{}\"\nconfig = [\"{}\"]\nbinary = \"{binary}\"",
                self.master_socket().display(),
                path("op.cfg"),
            ),
            Backends::ProcessNginx => format!(
                "type = \"nginx\"\ndir = \"{own}\"\nconfig = \"{}\"\npid = \"{}\"\nstatus = \"{asked}\"\n\
                 log = \"{net}.101:5140\"\nbinary = \"{binary}\"",
                path("op.conf"),
                path("nginx.pid"),
            ),
            Backends::ProcessTraefik => {
                format!("type = \"traefik\"\ndir = \"{own}\"\napi = \"{}\"", relayed())
            }
            Backends::ProcessEnvoy => format!(
                "type = \"envoy\"\ndir = \"{own}\"\nadmin = \"{}\"\nlog = \"{}\"",
                relayed(),
                path("access.log"),
            ),
            Backends::ProcessCaddy => {
                // All of loopback hears these lines.
                let port = 20_000 + net.bytes().fold(0_u32, |n, b| (n * 31 + u32::from(b)) % 900);
                format!(
                    "type = \"caddy\"\ndir = \"{own}\"\nconfig = \"{}\"\nadmin = \"{}\"\nstatus = \"{asked}\"\n\
                     log = \"127.0.0.1:{port}\"\nbinary = \"{binary}\"",
                    path("Caddyfile"),
                    self.caddy_admin(),
                )
            }
            Backends::ProcessEdge => format!("type = \"edge\"\nlisten = \"{}\"", self.listen),
        };
        format!("\n[proxies.lb]\n{lines}\n")
    }

    // --- started and stopped --------------------------------------------------------------------------------------

    /// Starts the proxy as an operator does, with a configuration of their own, and waits until it listens.
    pub fn start_proxy(&mut self) {
        // Workers are other users, and look into what is below.
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        match self.backends {
            Backends::DockerHaproxy => self.start_haproxy(),
            Backends::ProcessNginx => self.start_nginx(),
            Backends::ProcessTraefik => self.start_traefik(),
            Backends::ProcessEnvoy => self.start_envoy(),
            Backends::ProcessCaddy => self.start_caddy(),
            Backends::ProcessEdge => panic!("the controller starts it"),
        }
        self.wait("the proxy listens", || TcpStream::connect(self.listen).ok());
    }

    /// Runs the proxy's program; what it says goes to a file beside its configuration.
    fn run_proxy(&mut self, arguments: impl FnOnce(&mut Command)) {
        let log = File::create(self.path().join("proxy.log")).unwrap();
        let dir = self.path().to_owned();
        let (binary, child) = self.server.as_mut().expect("a world with a proxy of the operator's");
        let mut command = Command::new(&*binary);
        arguments(&mut command);
        command.current_dir(dir).stdin(Stdio::null());
        *child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn start_haproxy(&mut self) {
        let fleet = self.fleet.parse().unwrap();
        let lines_of = |service: &str| {
            haproxy::frontend_lines(&self.path().join("own"), &fleet, &service.parse().unwrap(), self.extras)
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
        let op = self.path().join("op.cfg");
        std::fs::write(&op, text).unwrap();
        let own = self.path().join("own").join(format!("{}.cfg", self.fleet));
        let master = self.master_socket();
        self.run_proxy(|c| {
            c.args(["-W", "-db", "-S"]).arg(master).arg("-f").arg(op).arg("-f").arg(own);
        });
    }

    fn start_nginx(&mut self) {
        let (fleet, own, at) = (self.fleet.parse().unwrap(), self.path().join("own"), self.path().display());
        let text = format!(
            "daemon off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log notice;\nworker_processes 2;\n\
             worker_shutdown_timeout 20s;\nevents {{}}\nhttp {{\n    client_header_timeout 5s;\n    {}\n    \
             server {{\n        listen {};\n        location / {{ {} }}\n    }}\n}}\n",
            nginx::http_line(&own, &fleet),
            self.listen,
            nginx::location_line(&own, &fleet, &"web".parse().unwrap()),
        );
        let op = self.path().join("op.conf");
        std::fs::write(&op, text).unwrap();
        self.run_proxy(|c| {
            c.arg("-c").arg(op);
        });
    }

    fn start_traefik(&mut self) {
        let settings = TraefikSettings { dir: self.path().join("own"), api: self.asked_at() };
        let lines = traefik::static_lines(&settings).join("\n");
        traefik_files::write(self.path(), self.listen, &lines, &settings.dir);
        let lines = traefik::router_lines(&self.fleet.parse().unwrap(), &"web".parse().unwrap()).join("\n");
        let lines = lines.replace("Host(`www.example.com`)", "PathPrefix(`/`)");
        std::fs::write(settings.dir.join("op.yml"), lines).unwrap();
        let file = format!("--configFile={}", self.path().join("traefik.yml").display());
        self.run_proxy(|c| {
            c.arg(file);
        });
        // It listens before it has read what it shall do.
        self.wait("Traefik has its files", || {
            let answer = common::get(settings.api, "/api/version");
            self.runtime.block_on(answer).filter(|(status, _)| *status == 200)
        });
    }

    fn start_envoy(&mut self) {
        let (fleet, own) = (self.fleet.parse().unwrap(), self.path().join("own"));
        let listener = operators::envoy_listener(
            self.listen,
            &envoy::routes_line(&own, &fleet, &"web".parse().unwrap()),
            &envoy::log_line(&self.path().join("access.log")),
            &envoy::place_line(),
        );
        let text = operators::envoy(self.asked_at(), &envoy::clusters_line(&own, &fleet), &listener);
        let op = self.path().join("op.yaml");
        std::fs::write(&op, text).unwrap();
        self.run_proxy(|c| {
            c.arg("-c").arg(op).args([
                "--concurrency",
                "2",
                "--use-dynamic-base-id",
                "--log-level",
                "warning",
            ]);
            c.args(["--file-flush-interval-msec", "200"]);
        });
    }

    /// Where Caddy is told to load its configuration anew.
    fn caddy_admin(&self) -> String {
        format!("{}.101:2019", self.net)
    }

    fn start_caddy(&mut self) {
        let (fleet, own) = (self.fleet.parse().unwrap(), self.path().join("own"));
        let text = format!(
            "{{\n    admin {}\n    auto_https off\n    {}\n}}\n{}\nhttp://:{} {{\n    bind {}\n    {}\n}}\n",
            self.caddy_admin(),
            caddy::options_line(&own, &fleet),
            caddy::server_line(&own, &fleet),
            self.listen.port(),
            self.listen.ip(),
            caddy::site_line(&own, &fleet, &"web".parse().unwrap()),
        );
        let op = self.path().join("Caddyfile");
        std::fs::write(&op, text).unwrap();
        let keeps = [self.path().join("data"), self.path().join("config")];
        self.run_proxy(|c| {
            c.args(["run", "--adapter", "caddyfile", "--config"]).arg(op);
            c.env("XDG_DATA_HOME", &keeps[0]).env("XDG_CONFIG_HOME", &keeps[1]);
        });
    }

    /// Ends the proxy, whole.
    pub fn stop_proxy(&mut self) {
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

    fn proxy(&self) -> &Child {
        self.server.as_ref().and_then(|(_, child)| child.as_ref()).expect("the operator's proxy runs")
    }

    /// A reload by somebody else, as a certificate renewal does.
    pub fn reload_proxy(&self) {
        match self.backends {
            Backends::DockerHaproxy => kill(self.proxy().id(), Signal::USR2),
            Backends::ProcessNginx => kill(self.proxy().id(), Signal::HUP),
            Backends::ProcessCaddy => {
                let (binary, _) = self.server.as_ref().expect("a world with Caddy");
                let mut command = Command::new(binary);
                command.args(["reload", "--adapter", "caddyfile", "--config"]);
                command.arg(self.path().join("Caddyfile")).args(["--address", &self.caddy_admin()]);
                let done = command.stdin(Stdio::null()).output().unwrap();
                assert!(done.status.success(), "{done:?}");
            }
            other => panic!("{other:?} has no reload"),
        }
    }

    // --- taken away -----------------------------------------------------------------------------------------------

    /// Takes the way to ask the proxy anything away, until what this returns is dropped. Visitors are answered as before.
    pub fn hide_proxy(&self) -> Hidden<'_> {
        let (fleet, own) = (self.fleet.parse().unwrap(), self.path().join("own"));
        match self.backends {
            Backends::DockerHaproxy => self.without_file(self.master_socket()),
            Backends::ProcessEdge => self.without_file(self.state_dir().join("lb.sock")),
            // By this its workers are found.
            Backends::ProcessNginx => self.without_file(self.path().join("nginx.pid")),
            Backends::ProcessTraefik | Backends::ProcessEnvoy => self.hung_up_on("/"),
            // The server that says what is loaded, and the lines that are counted.
            Backends::ProcessCaddy => self.with_changed(
                "Caddyfile",
                &[(&caddy::server_line(&own, &fleet), ""), (&caddy::options_line(&own, &fleet), "")],
            ),
        }
    }

    /// Takes only what was counted away, where that comes on a way of its own.
    pub fn hide_counts(&self) -> Hidden<'_> {
        let (fleet, own) = (self.fleet.parse().unwrap(), self.path().join("own"));
        match self.backends {
            // An access_log of the operator's keeps ours out.
            Backends::ProcessNginx => {
                self.with_changed("op.conf", &[("location / {", "location / { access_log off;")])
            }
            Backends::ProcessCaddy => {
                self.with_changed("Caddyfile", &[(&caddy::options_line(&own, &fleet), "")])
            }
            Backends::ProcessTraefik => self.hung_up_on("/metrics"),
            other => panic!("what {other:?} counts is asked like everything else"),
        }
    }

    fn without_file(&self, path: PathBuf) -> Hidden<'_> {
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        Hidden::until(move || std::fs::rename(aside, path).unwrap())
    }

    fn hung_up_on(&self, prefix: &'static str) -> Hidden<'_> {
        let relay = self.relay.as_ref().expect("one that is asked over TCP");
        relay.shut(Some(prefix));
        Hidden::until(|| relay.shut(None))
    }

    /// The operator changes their own configuration, and loads it.
    fn with_changed(&self, file: &str, changes: &[(&str, &str)]) -> Hidden<'_> {
        let path = self.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = changes.iter().fold(text.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from} in {text}");
            text.replace(from, to)
        });
        std::fs::write(&path, changed).unwrap();
        self.reload_proxy();
        Hidden::until(move || {
            std::fs::write(path, text).unwrap();
            self.reload_proxy();
        })
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

/// Gives back what was taken away.
pub struct Hidden<'a>(Option<Box<dyn FnOnce() + 'a>>);

impl<'a> Hidden<'a> {
    fn until(back: impl FnOnce() + 'a) -> Self {
        Self(Some(Box::new(back)))
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // After a failure the whole world goes, and a second panic would hide the first.
        if let Some(back) = self.0.take()
            && !std::thread::panicking()
        {
            back();
        }
    }
}
