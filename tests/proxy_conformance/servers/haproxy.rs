//! A real HAProxy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Extras;
use pilothouse::proxy::haproxy::{Haproxy, Settings, ensure_files, frontend_lines};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::runner::Runner;
use crate::support::{Harness, OWNER, Server, free_addr, service};

struct Running {
    binary: PathBuf,
    runner: Runner,
}

impl Harness {
    /// A running HAProxy with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn haproxy() -> Option<Self> {
        Self::haproxy_with(Extras::ALL).await
    }

    /// One whose operator added only these lines.
    pub async fn haproxy_with(extras: Extras) -> Option<Self> {
        Self::haproxy_of(extras, "").await
    }

    /// One whose operator has more lines in their `defaults`.
    pub async fn haproxy_of(extras: Extras, defaults: &str) -> Option<Self> {
        Self::haproxy_by(extras, defaults, Self::directory(), Runner::here()).await
    }

    /// One in a container.
    pub async fn haproxy_in_container() -> Option<Self> {
        let dir = Self::directory();
        let runner = Runner::container(dir.path(), &crate::require::program("haproxy")?).await?;
        Self::haproxy_by(Extras::ALL, "", dir, runner).await
    }

    pub async fn haproxy_by(
        extras: Extras,
        defaults: &str,
        dir: tempfile::TempDir,
        runner: Runner,
    ) -> Option<Self> {
        let binary = crate::require::program("haproxy")?;
        let fleet: FleetName = "shop".parse().unwrap();
        let listen = free_addr();
        let own = dir.path().join("own");
        ensure_files(&own, &fleet, OWNER, &[service()]).unwrap();
        let log = free_addr();
        let text = format!(
            "defaults\n    mode http\n    timeout connect 1s\n    timeout client 30s\n    timeout server 10s\n    \
             timeout http-keep-alive 10s\n{defaults}frontend fe\n    bind {listen}\n    option idle-close-on-response\n    \
             log {log} format raw local0\n    log-format {}\n    {}\n",
            pilothouse::traffic::haproxy_log::LOG_FORMAT,
            frontend_lines(&own, &fleet, &service(), extras).join("\n    ")
        );
        std::fs::write(dir.path().join("op.cfg"), text).unwrap();
        let settings = Settings {
            dir: own,
            master_socket: dir.path().join("m.sock"),
            config: vec![dir.path().join("op.cfg")],
            binary: binary.clone(),
            log: Some(log),
        };
        let driver = Haproxy::new("edge-lb".parse().unwrap(), settings, fleet, OWNER.into());
        let driver = driver.within(runner.settings().as_ref());
        Some(Self::of(dir, listen, Arc::new(driver), Running { binary, runner }).await)
    }

    pub fn cfg(&self) -> PathBuf {
        self.path().join("own/shop.cfg")
    }

    pub fn master(&self) -> PathBuf {
        self.path().join("m.sock")
    }

    pub async fn master_says(&self, command: &str) -> String {
        let mut text = String::new();
        if let Ok(mut s) = tokio::net::UnixStream::connect(self.master()).await {
            s.write_all(format!("{command}\n").as_bytes()).await.unwrap();
            s.shutdown().await.unwrap();
            let _ = s.read_to_string(&mut text).await;
        }
        text
    }
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, dir: &Path) {
        let mut command = Command::new(&self.binary);
        command.args(["-W", "-db", "-S"]).arg(dir.join("m.sock"));
        command.arg("-f").arg(dir.join("op.cfg")).arg("-f").arg(dir.join("own/shop.cfg"));
        self.runner.start(command, &dir.join("haproxy.log")).await;
    }

    fn stop(&mut self, _dir: &Path) {
        self.runner.stop();
    }

    async fn reload(&self, h: &Harness) {
        let before = h.master_says("show proc").await;
        let _ = h.master_says("reload").await;
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = h.master_says("show proc").await;
            let worker = |t: &str| {
                t.split_once("# workers\n").map(|(_, w)| w.split_whitespace().next().map(str::to_owned))
            };
            if worker(&now).is_some() && worker(&now) != worker(&before) {
                return;
            }
        }
        panic!("no new worker");
    }
}
