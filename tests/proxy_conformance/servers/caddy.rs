//! A real Caddy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::caddy::{self, Caddy};

use super::runner::Runner;
use crate::support::{Harness, OWNER, Server, free_addr, service};

struct Running {
    settings: caddy::Settings,
    runner: Runner,
}

impl Harness {
    /// A running Caddy with an operator's own Caddyfile; `None` (said loudly) when it is not installed.
    pub async fn caddy() -> Option<Self> {
        Self::caddy_with("import SITE").await
    }

    /// One whose operator has other lines in the site; `SITE` is the file that Pilothouse makes.
    pub async fn caddy_with(site: &str) -> Option<Self> {
        Self::caddy_by(site, Self::directory(), Runner::here()).await
    }

    /// One in a container.
    pub async fn caddy_in_container() -> Option<Self> {
        let dir = Self::directory();
        let runner = Runner::container(dir.path(), &crate::require::program("caddy")?).await?;
        Self::caddy_by("import SITE", dir, runner).await
    }

    pub async fn caddy_by(site: &str, dir: tempfile::TempDir, runner: Runner) -> Option<Self> {
        let binary = crate::require::program("caddy")?;
        let fleet: FleetName = "shop".parse().unwrap();
        let listen = free_addr();
        let settings = caddy::Settings {
            dir: dir.path().join("own"),
            config: dir.path().join("Caddyfile"),
            admin: free_addr(),
            status: free_addr(),
            binary,
            log: Some(free_addr()),
        };
        let own = &settings.dir;
        let line = caddy::site_line(own, &fleet, &service());
        let text = format!(
            "{{\n    admin {}\n    auto_https off\n    {}\n}}\n{}\nhttp://:{port} {{\n    bind 127.0.0.1\n    {}\n}}\n",
            settings.admin,
            caddy::options_line(own, &fleet),
            caddy::server_line(own, &fleet),
            site.replace("import SITE", &line),
            port = listen.port(),
        );
        std::fs::write(&settings.config, text).unwrap();
        let driver = Caddy::new("front".parse().unwrap(), settings.clone(), fleet, OWNER.into());
        let driver = driver.within(runner.settings().as_ref());
        driver.prepare(&[service()]).await.unwrap();
        Some(Self::of(dir, listen, Arc::new(driver), Running { settings, runner }).await)
    }
}

/// A command of Caddy's that keeps what it writes in `dir`.
fn command(binary: &PathBuf, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("XDG_DATA_HOME", dir.join("data")).env("XDG_CONFIG_HOME", dir.join("config"));
    command
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, dir: &Path) {
        let mut command = command(&self.settings.binary, dir);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&self.settings.config);
        self.runner.start(command, &dir.join("caddy.log")).await;
    }

    fn stop(&mut self, _dir: &Path) {
        self.runner.stop();
    }

    async fn reload(&self, h: &Harness) {
        let mut command = command(&self.settings.binary, h.path());
        command.args(["reload", "--adapter", "caddyfile", "--force", "--config"]).arg(&self.settings.config);
        command.arg("--address").arg(self.settings.admin.to_string());
        match self.runner.is_container() {
            true => self.runner.run(&command).await,
            false => assert!(tokio::task::block_in_place(|| command.output()).unwrap().status.success()),
        }
    }
}
