//! A real Prometheus, and what it says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common;
use crate::world::World;

/// Ends with its owner.
pub struct Prometheus {
    child: Child,
    binary: PathBuf,
    dir: PathBuf,
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes `target` once a second.
    pub fn start(world: &World, binary: &Path, target: Option<SocketAddr>) -> Self {
        let address: SocketAddr = format!("{}:9090", world.host_address(101)).parse().unwrap();
        let dir = world.path().join("prometheus");
        std::fs::create_dir(&dir).unwrap();
        let targets = target.map(|t| format!("\"{t}\"")).unwrap_or_default();
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: pilothouse\n    \
             static_configs:\n      - targets: [{targets}]\n"
        );
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let child = Self::run(binary, &dir, address);
        let started = Self { child, binary: binary.to_owned(), dir, address };
        started.ready(world);
        started
    }

    fn run(binary: &Path, dir: &Path, address: SocketAddr) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        Command::new(binary)
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            // What is no longer scraped is soon unknown.
            .arg("--query.lookback-delta=3s")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn ready(&self, world: &World) {
        world.wait("Prometheus is ready", || {
            get(self.address, "/-/ready").filter(|(status, _)| *status == 200)
        });
    }

    /// Ends it.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it had.
    pub fn again(&mut self, world: &World) {
        self.child = Self::run(&self.binary, &self.dir, self.address);
        self.ready(world);
    }

    /// The first number that a query gives now; `None` when it gives none.
    pub fn value(&self, query: &str) -> Option<f64> {
        let answer = self.query(query);
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// What it makes of a query.
    pub fn query(&self, query: &str) -> Value {
        let encoded: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let (_, body) = get(self.address, &format!("/api/v1/query?query={encoded}")).expect("an answer");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{query}: {e}: {body}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body; `None` when nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: p\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// What Prometheus' own tool has to say about a page: nothing.
pub fn lint(page: &str) {
    let Some(promtool) = common::require::program("promtool") else { return };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success() && said.is_empty(), "{}\n{page}", String::from_utf8_lossy(&said));
}

/// Prometheus' own tool takes these rules.
pub fn check_rules(world: &World, rules: &str) {
    let Some(promtool) = common::require::program("promtool") else { return };
    let file = world.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let out = Command::new(promtool).args(["check", "rules"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let count = rules.matches("- alert:").count();
    assert!(count > 5, "{rules}");
    assert!(
        out.status.success() && said.contains(&format!("SUCCESS: {count} rules found")),
        "{said}\n{rules}"
    );
}
