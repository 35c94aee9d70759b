//! Helpers that the black-box tests share. Each test binary uses some of them.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod operators;
pub mod ports;
pub mod registry;
pub mod require;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pilothouse::fleet::model::{Address, Run};
use pilothouse::fleet::names::{FleetName, InstanceId, RevisionId};
use pilothouse::rollout::world::{InstanceSpec, Restart};
pub use ports::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest wait for something that takes milliseconds on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The real binary.
pub fn pilothouse() -> PathBuf {
    env!("CARGO_BIN_EXE_pilothouse").into()
}

/// A name that no other test, and no other run of this one, has.
pub fn unique(prefix: &str) -> String {
    let mut bytes = [0; 5];
    getrandom::fill(&mut bytes).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{prefix}-{hex}")
}

pub fn unique_fleet() -> FleetName {
    unique("t").parse().unwrap()
}

/// Waits until `check` gives something; panics with `what` when it never does.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status and body of `GET path`, or `None` when there is no answer.
pub async fn get(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let ask = async {
        let mut s = tokio::net::TcpStream::connect(addr).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        s.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        s.read_to_string(&mut text).await.ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.ok()?
}

/// A command that runs the sample application.
pub fn sample_command(extra: &[&str]) -> Run {
    let mut argv: Vec<String> =
        ["pilothouse", "sample-app", "--port", "{port}", "--address", "{address}"].map(str::to_owned).into();
    argv.extend(extra.iter().map(|s| (*s).to_owned()));
    Run::Command { argv }
}

/// A spec of instance `n` of service `web`, reached on a free port of the loopback address.
pub fn spec(fleet: &FleetName, n: u32, run: Run, version: &str, digest: &str) -> InstanceSpec {
    let service = "web".parse().unwrap();
    let revision: RevisionId = "0123abcd".parse().unwrap();
    let port = free_port();
    InstanceSpec {
        fleet: fleet.clone(),
        id: InstanceId::of(&service, &revision, n),
        service,
        revision,
        version: version.parse().unwrap(),
        rollout: "web-1".parse().unwrap(),
        run,
        digest: digest.to_owned(),
        port,
        host_port: Some(port),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        reach: Address::Published,
        network: None,
        env: BTreeMap::new(),
        restart: Restart::No,
        adopts: None,
    }
}

/// Whether `PILOTHOUSE_REQUIRE` (a comma separated list) says that `what` must not be missing.
fn required(what: &str) -> bool {
    std::env::var("PILOTHOUSE_REQUIRE").is_ok_and(|list| list.split(',').any(|w| w.trim() == what))
}

/// Says loudly that test `name` does not run for lack of `what`, and panics when `what` is required.
pub fn skip(what: &str, name: &str, why: &str) {
    assert!(!required(what), "{what} is required by PILOTHOUSE_REQUIRE, but {why} (test {name})");
    require::skipped::skipped(&format!("SKIPPED {what}: {name}: {why}"));
}

/// The local Docker Engine's socket, or `None` after having said so.
pub async fn docker_or_skip(name: &str) -> Option<PathBuf> {
    let socket = Path::new("/var/run/docker.sock");
    let why = match tokio::net::UnixStream::connect(socket).await {
        Err(e) => format!("cannot connect to {}: {e}", socket.display()),
        Ok(mut s) => {
            let ping = async {
                s.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").await?;
                let mut answer = Vec::new();
                s.read_to_end(&mut answer).await?;
                std::io::Result::Ok(String::from_utf8_lossy(&answer).contains(" 200 "))
            };
            match tokio::time::timeout(Duration::from_secs(5), ping).await {
                Ok(Ok(true)) => return Some(socket.to_owned()),
                other => format!("{} does not answer a ping: {other:?}", socket.display()),
            }
        }
    };
    skip("docker", name, &why);
    None
}
