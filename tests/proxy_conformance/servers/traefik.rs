//! A real Traefik.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::traefik::{self, Settings, Traefik};

use crate::support::{Harness, OWNER, Server, client, end, free_addr, get, service};
use crate::traefik_files;

struct Running {
    binary: PathBuf,
    child: Option<Child>,
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
        let binary = crate::require::program("traefik")?;
        let dir = Self::directory();
        let fleet: FleetName = "shop".parse().unwrap();
        let listen = free_addr();
        let settings = Settings { dir: dir.path().join("own"), api: free_addr() };
        let lines = traefik::static_lines(&settings).join("\n").replace("10ms", throttle);
        traefik_files::write(dir.path(), listen, &lines, &settings.dir);
        if router {
            write_router(&settings.dir, &fleet);
        }
        let driver = Traefik::new("front".parse().unwrap(), settings.clone(), fleet, OWNER.into());
        driver.prepare(&[service()]).unwrap();
        let running = Running { binary, child: None, settings, reloads: AtomicU32::new(0) };
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
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(dir.join("traefik.log")).unwrap();
        let mut command = Command::new(&self.binary);
        command.arg(format!("--configFile={}", dir.join("traefik.yml").display())).current_dir(dir);
        command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        let child = command.spawn().unwrap();
        std::fs::write(dir.join("traefik.pid"), child.id().to_string()).unwrap();
        self.child = Some(child);
        // It listens before it has read what it shall do.
        let url = "/api/version";
        let end = Instant::now() + Duration::from_secs(20);
        while get(&client(), self.settings.api, url).await.is_err() {
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(dir.join("traefik.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn stop(&mut self, _dir: &Path) {
        end(&mut self.child);
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
