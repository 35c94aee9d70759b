//! How long a change of weight takes behind each proxy, on the real servers of the conformance suite: from the call of the
//! driver until no client is sent to the old version any more, until the driver returns, and until it was read back; beside
//! what the same server takes for a reload of its own, which is what a change takes without Pilothouse, and for a command
//! where it has one. `PILOTHOUSE_BENCH_CHANGES` (100) says how many changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pilothouse::fleet::names::Bp;
use pilothouse::proxy::Direction;
use pilothouse::rollout::world::Slot;

#[path = "../tests/proxy_conformance/servers/caddy.rs"]
mod caddy;
#[path = "../tests/proxy_conformance/servers/edge.rs"]
mod edge;
#[path = "../tests/proxy_conformance/servers/envoy.rs"]
mod envoy;
#[path = "../tests/proxy_conformance/servers/haproxy.rs"]
mod haproxy;
#[path = "../tests/proxy_conformance/servers/nginx.rs"]
mod nginx;
#[path = "../tests/common/operators.rs"]
mod operators;
#[path = "../tests/common/ports.rs"]
mod ports;
#[path = "../tests/common/require.rs"]
mod require;
#[path = "../tests/proxy_conformance/servers/runner.rs"]
mod runner;
#[path = "../tests/proxy_conformance/support.rs"]
mod support;
#[path = "../tests/proxy_conformance/servers/traefik.rs"]
mod traefik;
#[path = "../tests/common/traefik_files.rs"]
mod traefik_files;

use support::{Backend, Harness, client, get, route};

/// Times of one kind, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    fn at(&self, part: f64) -> String {
        let last = self.0.len().saturating_sub(1);
        let n = (last as f64 * part).round() as usize;
        self.0.get(n).map_or("none".to_owned(), |d| format!("{:.2}", d.as_secs_f64() * 1000.0))
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {} ms", self.at(0.5), self.at(0.99))
    }
}

/// What one client on one connection is answered, and when the last answer of each version was asked for.
struct Watch {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<(Instant, Option<String>)>>,
}

impl Watch {
    fn start(at: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let client = client();
            let mut seen = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let answer = get(&client, at, "/").await.ok();
                seen.push((asked, answer));
            }
            seen
        });
        Self { stop, task }
    }

    async fn end(self) -> Vec<(Instant, Option<String>)> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn measure(name: &str, mut h: Harness, changes: usize) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
    let (mut in_force, mut returned, mut read_back) = (Vec::new(), Vec::new(), Vec::new());
    let (mut failed, mut asked) = (0, 0);
    for n in 0..changes {
        let back = n % 2 == 0;
        let (share, old) = if back { (Bp::ZERO, &b) } else { (Bp::FULL, &a) };
        let next = route(Slot::A, &[&a], &[&b], share);
        let watch = Watch::start(h.listen);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let started = Instant::now();
        let direction = if back { Direction::Back } else { Direction::Up };
        h.apply(&next, direction).await.unwrap();
        returned.push(started.elapsed());
        let shown = h.proxy.read_back().await.unwrap().remove(&support::service()).unwrap();
        read_back.push(started.elapsed());
        assert!(shown.serves(&next), "{name}: {shown:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
        let seen = watch.end().await;
        asked += seen.len();
        failed += seen.iter().filter(|(_, who)| who.is_none()).count();
        let last = seen.iter().rev().find(|(_, who)| who.as_ref() == Some(&old.id.to_string()));
        let after = last.map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(started));
        in_force.push(after);
    }
    let mut reload = Vec::new();
    for _ in 0..10 {
        let started = Instant::now();
        h.reload().await;
        reload.push(started.elapsed());
    }
    h.stop();
    println!(
        "| {name} | {} | {} | {} | {} | {failed} of {asked} |",
        Times::of(in_force),
        Times::of(returned),
        Times::of(read_back),
        Times::of(reload)
    );
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--test");
    let wanted = std::env::var("PILOTHOUSE_BENCH_CHANGES").ok().and_then(|n| n.parse().ok());
    let changes = wanted.unwrap_or(if quick { 4 } else { 100 });
    println!(
        "{changes} changes of all traffic from one version to the other and back, p50 / p99; one client meanwhile"
    );
    println!(
        "| proxy | last request to the old version | driver returned | read back | the server's own reload | failed |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    measure("edge", Harness::edge().await, changes).await;
    // One after the other: each has the machine for itself.
    if let Some(h) = Harness::haproxy().await {
        measure("HAProxy", h, changes).await;
    }
    if let Some(h) = Harness::nginx().await {
        measure("nginx", h, changes).await;
    }
    if let Some(h) = Harness::caddy().await {
        measure("Caddy", h, changes).await;
    }
    if let Some(h) = Harness::traefik().await {
        measure("Traefik", h, changes).await;
    }
    if let Some(h) = Harness::envoy().await {
        measure("Envoy", h, changes).await;
    }
}
