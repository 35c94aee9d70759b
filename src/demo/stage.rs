//! The demo's stage: a directory with a fleet file, on loopback, with everything that is started for it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use color_eyre::eyre::{Result, WrapErr, bail, eyre};

use super::image;
use crate::fleet::Loaded;

/// What the demo runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Parts {
    /// Processes behind the embedded proxy: needs nothing
    #[default]
    Process,
    /// Containers behind HAProxy: needs a Docker socket and the haproxy program
    Docker,
}

/// The version that runs when the demo begins.
pub const FIRST: &str = "1.0.0";
/// A version that works.
pub const GOOD: &str = "1.1.0";
/// A version that fails one request in five once it has traffic.
pub const FAILING: &str = "1.2.0-failing";
/// A version that never becomes healthy.
pub const SICK: &str = "1.3.0-unhealthy";

/// The service that the demo releases.
pub const SERVICE: &str = "web";
/// Repository of the sample application's images.
const REPOSITORY: &str = "pilothouse-sample";

/// A prepared directory. Removed when it is dropped, and what was started with it is ended.
pub struct Stage {
    dir: PathBuf,
    /// Where the proxy serves.
    pub listen: SocketAddr,
    /// The fleet.
    pub loaded: Loaded,
    haproxy: Option<Child>,
}

/// What the demo's service is released with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// A canary with time to look, and a step that waits for a key.
    Screen,
    /// A canary that goes by itself within half a minute.
    Canary,
    /// One instance, replaced where it stands.
    InPlace,
    /// One after the other.
    Rolling,
    /// The other colour, tried out, then switched.
    BlueGreen,
    /// A fifth of the visitors for a few seconds, then a decision.
    Ab,
}

/// The header and value with which the demo looks at the new colour before the switch.
pub const PREVIEW: (&str, &str) = ("x-preview", "green");

impl Play {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Screen, Self::Canary, Self::InPlace, Self::Rolling, Self::BlueGreen, Self::Ab];

    fn strategy(self) -> String {
        match self {
            Self::Screen => r#"type = "canary"
steps = [
  { weight = 5, pause = "20s" },
  { weight = 25, pause = "manual" },
  { weight = 50, healthy_for = "15s" },
]"#
            .to_owned(),
            Self::Canary => r#"type = "canary"
steps = [
  { weight = 5, pause = "6s" },
  { weight = 25, pause = "6s" },
  { weight = 50, pause = "6s" },
]"#
            .to_owned(),
            Self::InPlace => "type = \"in-place\"\nmin_healthy_time = \"2s\"".to_owned(),
            Self::Rolling => "type = \"rolling\"\nmax_surge = 1\nmin_healthy_time = \"1s\"".to_owned(),
            Self::BlueGreen => format!(
                "type = \"blue-green\"\npreview = {{ header = \"{}\", value = \"{}\" }}\npause = \"5s\"",
                PREVIEW.0, PREVIEW.1
            ),
            Self::Ab => "type = \"ab\"\nshare = 20\nduration = \"10s\"".to_owned(),
        }
    }

    /// Whether its releases are judged by what their requests come to: wider than a service would have it, so that a few
    /// requests are enough.
    fn analysis(self) -> &'static str {
        match self {
            Self::Screen | Self::Canary => {
                "\n[services.web.analysis]\ntolerance = \"5%\"\nlatency = false\nsoak = \"5s\"\n"
            }
            Self::InPlace | Self::Rolling | Self::BlueGreen | Self::Ab => "",
        }
    }

    /// Hosts to use, of three, and instances on each.
    fn size(self) -> (usize, u32) {
        match self {
            // What it costs shows only when nobody else serves.
            Self::InPlace => (1, 1),
            _ => (3, 2),
        }
    }
}

impl Stage {
    /// Makes the directory, the fleet file and, for Docker, the images and a HAProxy.
    ///
    /// # Errors
    /// When a part is missing or cannot be started; says which.
    pub async fn set(parts: Parts, play: Play) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("pilothouse-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&dir).wrap_err_with(|| format!("{}", dir.display()))?;
        let made = Self::fill(&dir, parts, play).await;
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&dir);
        }
        made
    }

    async fn fill(dir: &Path, parts: Parts, play: Play) -> Result<Self> {
        let program = std::env::current_exe().wrap_err("finding this program")?;
        let listen = free_address()?;
        let text = match parts {
            Parts::Process => process_fleet(dir, &program, listen, play)?,
            Parts::Docker => {
                let socket = docker_socket();
                for version in [FIRST, GOOD, FAILING, SICK] {
                    let version = version.parse().map_err(|e| eyre!("{version}: {e}"))?;
                    image::build(&socket, &program, REPOSITORY, &version).await?;
                }
                docker_fleet(dir, &socket, play)?
            }
        };
        let file = dir.join("fleet.toml");
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .wrap_err("fleet.toml")?;
        out.write_all(text.as_bytes())?;
        let loaded = crate::fleet::load(&file).map_err(|p| eyre!("the demo's own fleet file: {p}"))?;
        Ok(Self { dir: dir.to_owned(), listen, loaded, haproxy: None })
    }

    /// Starts HAProxy, when the fleet has one; its files must be there (the controller makes them).
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_haproxy(&mut self) -> Result<()> {
        use crate::fleet::model::{HaproxySettings, ProxyKind};
        use crate::proxy::Extras;
        use crate::proxy::haproxy::frontend_lines;
        let fleet = &self.loaded.fleet;
        let Some(ProxyKind::Haproxy(HaproxySettings { dir, master_socket, .. })) =
            fleet.proxies.values().next().map(|p| &p.kind)
        else {
            return Ok(());
        };
        let ours = dir.join(format!("{}.cfg", fleet.name));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ours.exists() {
            if Instant::now() > deadline {
                bail!("the controller did not write {}", ours.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let service = SERVICE.parse().map_err(|e| eyre!("{e}"))?;
        let lines = frontend_lines(dir, &fleet.name, &service, Extras::ALL).join("\n    ");
        let main = format!(
            "global\n    hard-stop-after 30s\n    maxconn 2000\ndefaults\n    mode http\n    timeout connect 500ms\n    \
             timeout client 30s\n    timeout server 30s\n    timeout http-keep-alive 10s\n    \
             option idle-close-on-response\nfrontend demo\n    bind {}\n    {lines}\n",
            self.listen
        );
        let cfg = self.dir.join("haproxy.cfg");
        std::fs::write(&cfg, main)?;
        let log = std::fs::File::create(self.dir.join("haproxy.log"))?;
        let child = Command::new("haproxy")
            .arg("-W")
            .arg("-S")
            .arg(master_socket)
            .arg("-f")
            .arg(&cfg)
            .arg("-f")
            .arg(&ours)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .wrap_err("starting haproxy (is it installed? On Debian: apt-get install haproxy)")?;
        self.haproxy = Some(child);
        while tokio::net::TcpStream::connect(self.listen).await.is_err() {
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(self.dir.join("haproxy.log")).unwrap_or_default();
                bail!("haproxy does not serve: {}", crate::text::Safe::new(said.trim()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(child) = &mut self.haproxy {
            // SIGTERM first: the master ends its workers.
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let deadline = Instant::now() + Duration::from_secs(3);
            while child.try_wait().is_ok_and(|s| s.is_none()) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Linux gives outgoing connections ports from here on (`ip_local_port_range`): one of them may be taken at any moment.
const EPHEMERAL: u16 = 32_768;

/// The first of `n` ports that are free together on each of `hosts`.
fn free_range(hosts: &[&str], n: u16) -> Result<u16> {
    let least = 20_000;
    let most = EPHEMERAL - n;
    // Demos side by side begin at different places.
    let start = least + u16::try_from(std::process::id() % u32::from(most - least)).unwrap_or(0);
    let step = usize::from(n);
    (start..most)
        .step_by(step)
        .chain((least..start).step_by(step))
        .find(|first| {
            (*first..first.saturating_add(n))
                .all(|port| hosts.iter().all(|h| TcpListener::bind((*h, port)).is_ok()))
        })
        .ok_or_else(|| eyre!("no {n} free ports in a row"))
}

fn docker_socket() -> PathBuf {
    std::env::var("DOCKER_HOST")
        .ok()
        .and_then(|h| h.strip_prefix("unix://").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("/var/run/docker.sock"))
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}

fn service(play: Play, run: &str, host_ports: (u16, u16), per_host: u32, proxy: &str) -> String {
    format!(
        r#"
[services.{SERVICE}]
{run}
version = "{FIRST}"
per_host = {per_host}
host_ports = "{}-{}"
proxies = ["{proxy}"]
keep = "2m"
progress_deadline = "20s"

[services.{SERVICE}.health]
http = "/health"
interval = "500ms"
timeout = "400ms"
rise = 2
fall = 3

[services.{SERVICE}.drain]
deadline = "10s"
stop_grace = "5s"

[services.{SERVICE}.strategy]
{}
{}"#,
        host_ports.0,
        host_ports.1,
        play.strategy(),
        play.analysis()
    )
}

fn process_fleet(dir: &Path, program: &Path, listen: SocketAddr, play: Play) -> Result<String> {
    let (hosts, per_host) = play.size();
    let hosts: Vec<&str> = ["127.0.1.1", "127.0.1.2", "127.0.1.3"].into_iter().take(hosts).collect();
    let first = free_range(&hosts, 6)?;
    let mut text = format!(
        "name = \"demo\"\nenvironment = \"demo\"\nstate_dir = {}\n\n[proxies.front]\ntype = \"edge\"\nlisten = \"{listen}\"\n",
        quoted(&dir.join("state"))
    );
    for (n, address) in hosts.iter().enumerate() {
        text.push_str(&format!(
            "\n[hosts.node-{}]\nengine = \"process://\"\naddress = \"{address}\"\n",
            n + 1
        ));
    }
    let run = format!(
        "command = [{}, \"sample-app\", \"--behaviour-by-version\"]\nversions = [\"{GOOD}\", \"{FAILING}\", \"{SICK}\"]",
        quoted(program)
    );
    text.push_str(&service(play, &run, (first, first + 5), per_host, "front"));
    Ok(text)
}

fn docker_fleet(dir: &Path, socket: &Path, play: Play) -> Result<String> {
    let first = free_range(&["127.0.0.1"], 13)?;
    let haproxy = dir.join("haproxy");
    let mut text = format!(
        "name = \"demo-{}\"\nenvironment = \"demo\"\nstate_dir = {}\n\n[hosts.node-1]\nengine = {}\naddress = \"127.0.0.1\"\n",
        std::process::id(),
        quoted(&dir.join("state")),
        toml::Value::String(format!("unix://{}", socket.display())),
    );
    text.push_str(&format!(
        "\n[proxies.lb]\ntype = \"haproxy\"\ndir = {}\nmaster_socket = {}\nconfig = [{}]\n",
        quoted(&haproxy),
        quoted(&dir.join("master.sock")),
        quoted(&dir.join("haproxy.cfg")),
    ));
    let run = format!("image = \"{REPOSITORY}\"\npull = \"never\"\nport = 8080");
    let (hosts, per_host) = play.size();
    let replicas = u32::try_from(hosts)? * per_host;
    text.push_str(&service(play, &run, (first, first + 12), replicas, "lb"));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_demo_s_own_fleet_files_are_right() {
        let dir = tempfile::tempdir().unwrap();
        for play in Play::ALL {
            let listen = free_address().unwrap();
            let texts = [
                process_fleet(dir.path(), Path::new("/usr/bin/pilot house"), listen, play).unwrap(),
                docker_fleet(dir.path(), Path::new("/var/run/docker.sock"), play).unwrap(),
            ];
            for text in texts {
                let loaded = crate::fleet::parse(&text, &dir.path().join("fleet.toml"));
                let loaded = loaded.unwrap_or_else(|p| panic!("{p}\n{text}"));
                assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            }
        }
    }
}
