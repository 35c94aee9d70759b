//! A real Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::envoy::{self, Envoy, Settings};

use super::runner::Runner;
use crate::operators;
use crate::support::{Harness, OWNER, Server, end, free_addr, service};

struct Running {
    binary: PathBuf,
    /// The processes, the newest last, by the number of their hot restart.
    children: Mutex<Vec<Option<Child>>>,
    container: Option<Runner>,
}

/// What an operator may have left out.
pub struct Operator {
    pub routes: bool,
    pub clusters: bool,
    pub places: bool,
    pub log: bool,
}

impl Operator {
    pub const ALL: Self = Self { routes: true, clusters: true, places: true, log: true };
}

/// The settings of the proxy in this directory, with this administration server.
pub fn settings(dir: &Path, admin: SocketAddr) -> Settings {
    Settings { dir: dir.join("own"), admin, log: Some(dir.join("access.log")) }
}

/// An operator's own configuration, with the lines that Pilothouse says must be added.
pub fn configuration(s: &Settings, listen: SocketAddr, operator: &Operator) -> String {
    let fleet: FleetName = "shop".parse().unwrap();
    let line = |wanted: bool, line: String| if wanted { line } else { String::new() };
    let routes = match operator.routes {
        true => envoy::routes_line(&s.dir, &fleet, &service()),
        false => "route_config: { virtual_hosts: [] }".to_owned(),
    };
    let log = line(operator.log, s.log.as_deref().map(envoy::log_line).unwrap_or_default());
    let listener =
        operators::envoy_listener(listen, &routes, &log, &line(operator.places, envoy::place_line()));
    operators::envoy(s.admin, &line(operator.clusters, envoy::clusters_line(&s.dir, &fleet)), &listener)
}

impl Harness {
    /// A running Envoy with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn envoy() -> Option<Self> {
        Self::envoy_of(&Operator::ALL).await
    }

    pub async fn envoy_of(operator: &Operator) -> Option<Self> {
        Self::envoy_by(operator, Self::directory(), None).await
    }

    /// One in a container, where no process can take another's place.
    pub async fn envoy_in_container() -> Option<Self> {
        let dir = Self::directory();
        let runner = Runner::container(dir.path(), &crate::require::program("envoy")?).await?;
        Self::envoy_by(&Operator::ALL, dir, Some(runner)).await
    }

    pub async fn envoy_by(
        operator: &Operator,
        dir: tempfile::TempDir,
        container: Option<Runner>,
    ) -> Option<Self> {
        let binary = crate::require::program("envoy")?;
        let settings = settings(dir.path(), free_addr());
        let listen = free_addr();
        std::fs::write(dir.path().join("admin"), settings.admin.to_string()).unwrap();
        std::fs::write(dir.path().join("op.yaml"), configuration(&settings, listen, operator)).unwrap();
        let fleet: FleetName = "shop".parse().unwrap();
        let driver = Envoy::new("front".parse().unwrap(), settings, fleet, OWNER.into());
        let driver = driver.within(container.as_ref().and_then(Runner::settings).as_ref());
        driver.prepare(&[service()]).await.unwrap();
        let running = Running { binary, children: Mutex::default(), container };
        Some(Self::of(dir, listen, Arc::new(driver), running).await)
    }
}

impl Running {
    /// What every Envoy here is started with.
    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(dir.join("op.yaml")).args(["--concurrency", "2", "--log-level", "warning"]);
        command.arg("--log-path").arg(dir.join("envoy.log")).args(["--file-flush-interval-msec", "50"]);
        command.args(["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]);
        command
    }

    /// Starts one more; the one before it ends what it has, for two seconds at most.
    fn spawn(&self, dir: &Path) {
        let mut children = self.children.lock().unwrap();
        let base = dir.join("base_id");
        let mut command = self.command(dir);
        match children.len() {
            0 => command.arg("--use-dynamic-base-id").arg("--base-id-path").arg(&base),
            epoch => {
                let id = std::fs::read_to_string(&base).unwrap();
                command.args(["--restart-epoch", &epoch.to_string(), "--base-id", id.trim()])
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        children.push(Some(command.spawn().unwrap()));
    }
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, dir: &Path) {
        let mut command = self.command(dir);
        match &mut self.container {
            Some(container) => {
                command.arg("--use-dynamic-base-id");
                container.start(command, &dir.join("envoy.out.log")).await;
            }
            None => self.spawn(dir),
        }
        let admin = std::fs::read_to_string(dir.join("admin")).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(&admin).await.is_err() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn stop(&mut self, _dir: &Path) {
        self.container.iter_mut().for_each(Runner::stop);
        self.children.lock().unwrap().drain(..).for_each(|mut child| end(&mut child));
    }

    /// Envoy has no reload but another process that takes its place.
    async fn reload(&self, h: &Harness) {
        self.spawn(h.path());
        let old = { self.children.lock().unwrap().iter_mut().rev().nth(1).and_then(Option::take) };
        let mut old = old.unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while old.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the old process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while h.proxy.read_back().await.is_err() {
            assert!(Instant::now() < end, "the new process does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
