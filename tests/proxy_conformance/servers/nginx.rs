//! A real nginx.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pilothouse::fleet::names::FleetName;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::nginx::{self, Nginx};
use pilothouse::rollout::world::RouteReadback;

use crate::support::{Harness, OWNER, Server, end, free_addr, service};

struct Running {
    binary: PathBuf,
    child: Option<Child>,
}

impl Harness {
    /// A running nginx with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn nginx() -> Option<Self> {
        Self::nginx_of(true, "client_header_timeout 2s;").await
    }

    /// One whose operator may have left out the line for visitors' places, and has more lines in the `http` block.
    pub async fn nginx_of(cookie: bool, http: &str) -> Option<Self> {
        let binary = crate::require::program("nginx")?;
        // The workers run as another user.
        let dir = Self::directory();
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
        let proxy = Arc::new(Nginx::new("front".parse().unwrap(), settings, fleet, OWNER.into()));
        proxy.prepare(&[service()]).unwrap();
        Some(Self::of(dir, listen, proxy, Running { binary, child: None }).await)
    }
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, dir: &Path) {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(dir.join("op.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn stop(&mut self, _dir: &Path) {
        end(&mut self.child);
    }

    async fn reload(&self, h: &Harness) {
        let master = self.child.as_ref().unwrap();
        let pids = |back: &RouteReadback| -> Vec<String> {
            back.workers.iter().flat_map(|w| w.worker.split(' ').map(str::to_owned)).collect()
        };
        let before = pids(&h.read().await);
        let pid = rustix::process::Pid::from_child(master);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
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
