//! The edge's own checks: a hint which endpoints to try first, never a reason to route.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::table::{State, Stats};
use crate::fleet::model::{HealthCheck, Probe};

/// One checking task per endpoint.
#[derive(Default)]
pub(super) struct Checks {
    running: BTreeMap<String, JoinHandle<()>>,
}

impl Checks {
    /// Starts what is missing and ends what is no longer routed.
    pub(super) fn follow(&mut self, state: &State) {
        let mut old = std::mem::take(&mut self.running);
        for (endpoint, service, health) in state.endpoints() {
            let key = format!("{} {} {health:?}", endpoint.instance, endpoint.addr);
            let task = old.remove(&key).unwrap_or_else(|| {
                tokio::spawn(check(
                    endpoint.addr,
                    service.route.service.to_string(),
                    health,
                    Arc::clone(&endpoint.stats),
                ))
            });
            self.running.insert(key, task);
        }
        old.into_values().for_each(|task| task.abort());
    }
}

async fn check(addr: SocketAddr, host: String, health: HealthCheck, stats: Arc<Stats>) {
    let (mut good, mut bad) = (0u32, 0u32);
    loop {
        let passed =
            timeout(health.timeout.duration(), probe(addr, &host, &health.probe)).await.unwrap_or(false);
        (good, bad) = if passed { (good.saturating_add(1), 0) } else { (0, bad.saturating_add(1)) };
        if good >= health.rise.max(1) {
            stats.set_up(true);
        } else if bad >= health.fall.max(1) {
            stats.set_up(false);
        }
        tokio::time::sleep(health.interval.duration().max(Duration::from_millis(50))).await;
    }
}

/// Whether the status line says 200 to 399, or for TCP whether there is a connection.
async fn probe(addr: SocketAddr, host: &str, probe: &Probe) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return false };
    let Probe::Http { path } = probe else { return true };
    let ask = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pilothouse-edge\r\nConnection: close\r\n\r\n"
    );
    if stream.write_all(ask.as_bytes()).await.is_err() {
        return false;
    }
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.is_ok()
        && line.starts_with(b"HTTP/1.")
        && matches!(line.get(9), Some(b'2' | b'3'))
}
