//! A real Traefik.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::traefik::{self, Settings, Traefik};

use super::runner::Runner;
use crate::support::{Harness, OWNER, Server, client, free_addr, get, service};
use crate::traefik_files;

struct Running {
    binary: PathBuf,
    runner: Runner,
    settings: Settings,
    reloads: AtomicU32,
}

impl Harness {
    /// A running Traefik with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn traefik() -> Option<Self> {
        Self::traefik_of(true, "10ms").await
    }

    /// One whose operator may have left out the router, and has it wait this long between two changes.
    pub async fn traefik_of(router: bool, throttle: &str) -> Option<Self> {
        Self::traefik_by(router, throttle, Self::directory(), Runner::here()).await
    }

    /// One in a container.
    pub async fn traefik_in_container() -> Option<Self> {
        let dir = Self::directory();
        let runner = Runner::container(dir.path(), &crate::require::program("traefik")?).await?;
        Self::traefik_by(true, "10ms", dir, runner).await
    }

    pub async fn traefik_by(
        router: bool,
        throttle: &str,
        dir: tempfile::TempDir,
        runner: Runner,
    ) -> Option<Self> {
        let binary = crate::require::program("traefik")?;
        let fleet: FleetName = "shop".parse().unwrap();
        let listen = free_addr();
        let settings = Settings { dir: dir.path().join("own"), api: free_addr() };
        let lines = traefik::static_lines(&settings).join("\n").replace("10ms", throttle);
        traefik_files::write(dir.path(), listen, &lines, &settings.dir);
        if router {
            write_router(&settings.dir, &fleet);
        }
        let driver = Traefik::new("front".parse().unwrap(), settings.clone(), fleet, OWNER.into());
        let driver = driver.within(runner.settings().as_ref());
        driver.prepare(&[service()]).await.unwrap();
        let running = Running { binary, runner, settings, reloads: AtomicU32::new(0) };
        Some(Self::of(dir, listen, Arc::new(driver), running).await)
    }
}

/// The operator's router, as they are told to write it.
pub fn write_router(dir: &Path, fleet: &FleetName) {
    let lines = traefik::router_lines(fleet, &service()).join("\n");
    std::fs::write(dir.join("op.yml"), lines.replace("Host(`www.example.com`)", "PathPrefix(`/`)")).unwrap();
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, dir: &Path) {
        let mut command = Command::new(&self.binary);
        command.arg(format!("--configFile={}", dir.join("traefik.yml").display())).current_dir(dir);
        self.runner.start(command, &dir.join("traefik.log")).await;
        if let Some(pid) = self.runner.pid() {
            std::fs::write(dir.join("traefik.pid"), pid.to_string()).unwrap();
        }
        // It listens before it has read what it shall do.
        let url = "/api/version";
        let end = Instant::now() + Duration::from_secs(20);
        while get(&client(), self.settings.api, url).await.is_err() {
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(dir.join("traefik.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn stop(&mut self, _dir: &Path) {
        self.runner.stop();
    }

    async fn reload(&self, _h: &Harness) {
        let n = self.reloads.fetch_add(1, Ordering::SeqCst);
        let text = format!("http: {{ middlewares: {{ op-{n}: {{ addPrefix: {{ prefix: /x }} }} }} }}\n");
        std::fs::write(self.settings.dir.join("more.yml"), text).unwrap();
        let url = format!("/api/http/middlewares/op-{n}@file");
        let end = Instant::now() + Duration::from_secs(20);
        while get(&client(), self.settings.api, &url).await.is_err() {
            assert!(Instant::now() < end, "the operator's own change is never in force");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn throws_dice(&self) -> bool {
        false
    }
}
