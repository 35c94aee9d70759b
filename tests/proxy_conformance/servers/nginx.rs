//! A real nginx.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::nginx::{self, Nginx};
use pilothouse::rollout::world::RouteReadback;

use super::runner::Runner;
use crate::support::{Harness, OWNER, Server, free_addr, service};

struct Running {
    binary: PathBuf,
    config: PathBuf,
    runner: Runner,
}

impl Harness {
    /// A running nginx with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn nginx() -> Option<Self> {
        Self::nginx_of(true, "client_header_timeout 2s;").await
    }

    /// One whose operator may have left out the line for visitors' places, and has more lines in the `http` block.
    pub async fn nginx_of(cookie: bool, http: &str) -> Option<Self> {
        Self::nginx_by(cookie, http, Self::directory(), Runner::here()).await
    }

    /// One in a container, whose first process is a shell that has started it.
    pub async fn nginx_in_container() -> Option<Self> {
        let dir = Self::directory();
        let runner = Runner::container(dir.path(), &crate::require::program("nginx")?).await?;
        Self::nginx_by(true, "client_header_timeout 2s;", dir, runner.with(|c| c.wrapped = true)).await
    }

    pub async fn nginx_by(cookie: bool, http: &str, dir: tempfile::TempDir, runner: Runner) -> Option<Self> {
        let binary = crate::require::program("nginx")?;
        let fleet: FleetName = "shop".parse().unwrap();
        let (listen, at) = (free_addr(), dir.path().display());
        let settings = nginx::Settings {
            dir: dir.path().join("own"),
            config: dir.path().join("op.conf"),
            pid: dir.path().join("nginx.pid"),
            status: free_addr(),
            binary: binary.clone(),
            log: Some(free_addr()),
        };
        let cookie = if cookie { nginx::cookie_line(&fleet, &service()) } else { String::new() };
        let text = format!(
            "daemon off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log notice;\nworker_processes 2;\nevents {{}}\n\
             http {{\n    {}\n    {http}\n    map $http_upgrade $op_connection {{ default upgrade; \"\" close; }}\n    \
             server {{\n        listen {listen};\n        location / {{\n            {}\n            {cookie}\n            \
             proxy_http_version 1.1;\n            proxy_set_header Upgrade $http_upgrade;\n            \
             proxy_set_header Connection $op_connection;\n        }}\n    }}\n}}\n",
            nginx::http_line(&settings.dir, &fleet),
            nginx::location_line(&settings.dir, &fleet, &service()),
        );
        std::fs::write(&settings.config, text).unwrap();
        let config = settings.config.clone();
        let driver = Nginx::new("front".parse().unwrap(), settings, fleet, OWNER.into());
        let driver = driver.within(runner.settings().as_ref());
        driver.prepare(&[service()]).await.unwrap();
        Some(Self::of(dir, listen, Arc::new(driver), Running { binary, config, runner }).await)
    }
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, dir: &Path) {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(&self.config);
        self.runner.start(command, &dir.join("nginx.out.log")).await;
    }

    fn stop(&mut self, _dir: &Path) {
        self.runner.stop();
    }

    async fn reload(&self, h: &Harness) {
        let pids = |back: &RouteReadback| -> Vec<String> {
            back.workers.iter().flat_map(|w| w.worker.split(' ').map(str::to_owned)).collect()
        };
        let before = pids(&h.read().await);
        let mut command = Command::new(&self.binary);
        command.args(["-s", "reload", "-c"]).arg(&self.config);
        match self.runner.is_container() {
            true => self.runner.run(&command).await,
            false => assert!(tokio::task::block_in_place(|| command.status()).unwrap().success()),
        }
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < end, "no new worker");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = h.proxy.read_back().await.ok().and_then(|mut all| all.remove(&service()));
            if now.is_some_and(|now| pids(&now).iter().all(|pid| !before.contains(pid))) {
                break;
            }
        }
    }

    fn closes_connections(&self) -> bool {
        true
    }

    /// Before 1.23.
    fn sees_repeated_headers(&self) -> bool {
        false
    }
}
