//! How long a change of weight takes behind each proxy, on the real servers of the conformance suite, in turn with the
//! shortest command an operator has for the same (`proxies/bare.rs`): from the start until it is read back (of a command:
//! until it has returned, or the server shows it) and no client is sent to the old version any more. The command has a server
//! of its own with the same configuration: a reload of one is nothing that the other waits for.
//! `PILOTHOUSE_BENCH_CHANGES` (100) says how many changes of each. Whatever is not installed is named and left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilothouse::fleet::names::Bp;
use pilothouse::proxy::Direction;
use pilothouse::rollout::world::Slot;

#[path = "proxies/bare.rs"]
mod bare;
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

use bare::Bare;
use support::{Backend, Harness, client, get, route};

/// Times of one kind, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// In milliseconds; 0 where there is none.
    fn at(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let n = (last as f64 * part).round() as usize;
        self.0.get(n).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.is_empty() {
            true => write!(f, "none"),
            false => write!(f, "{:.2} / {:.2} ms", self.at(0.5), self.at(0.99)),
        }
    }
}

/// When it asked, and who answered; nobody where it failed.
type Seen = (Instant, Option<String>);

/// One client on one connection: when it asked, and who answered.
struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start((at, path): (SocketAddr, &'static str)) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let client = client();
            loop {
                let asked = Instant::now();
                let answer = get(&client, at, path).await.ok();
                all.lock().unwrap().push((asked, answer));
            }
        });
        Self { seen, task }
    }

    /// Until so many answers in a row came from this one.
    async fn only(&self, who: &Backend, answers: usize) {
        let (id, end) = (who.id.to_string(), Instant::now() + Duration::from_secs(20));
        let is = |(_, answer): &(Instant, Option<String>)| answer.as_ref() == Some(&id);
        while self.seen.lock().unwrap().iter().rev().take_while(|one| is(one)).count() < answers {
            assert!(Instant::now() < end, "{id} is never the only one to answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What one way of changing came to.
#[derive(Default)]
struct Side {
    up: Vec<Duration>,
    back: Vec<Duration>,
    failed: usize,
    asked: usize,
}

impl Side {
    /// Times one change, from everything to `old` to everything to `new`.
    async fn change(
        &mut self,
        at: (SocketAddr, &'static str),
        [old, new]: [&Backend; 2],
        back: bool,
        act: impl Future<Output = ()>,
    ) {
        let watch = Watch::start(at);
        watch.only(old, 1).await;
        let started = Instant::now();
        act.await;
        let returned = started.elapsed();
        watch.only(new, 50).await;
        let seen = watch.seen.lock().unwrap();
        let last = seen.iter().rev().find(|(_, who)| who.as_ref() == Some(&old.id.to_string()));
        let in_force = last.map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(started));
        if back { &mut self.back } else { &mut self.up }.push(in_force.max(returned));
        self.asked += seen.len();
        self.failed += seen.iter().filter(|(_, who)| who.is_none()).count();
    }

    fn lost(&self) -> String {
        format!("{} of {}", self.failed, self.asked)
    }
}

/// The same two versions behind Pilothouse and behind the operator's own command, in turn.
async fn measure(
    name: &str,
    mut h: Harness,
    mut command: Option<Box<dyn Bare>>,
    [a, b]: [&Backend; 2],
    changes: usize,
) {
    h.up(&route(Slot::A, &[a], &[b], Bp::ZERO)).await;
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for n in 0..changes {
        let back = n % 2 == 1;
        let share = if back { Bp::ZERO } else { Bp::FULL };
        let versions = if back { [b, a] } else { [a, b] };
        let next = route(Slot::A, &[a], &[b], share);
        let act = async {
            let direction = if back { Direction::Back } else { Direction::Up };
            h.apply(&next, direction).await.unwrap();
            h.settled(&next).await;
        };
        ours.change((h.listen, "/"), versions, back, act).await;
        if let Some(command) = &mut command {
            theirs.change(command.address(), versions, back, command.all_to(!back)).await;
        }
    }
    let mut reload = Vec::new();
    for _ in 0..changes.min(10) {
        let started = Instant::now();
        h.reload().await;
        reload.push(started.elapsed());
    }
    h.stop();
    let (lost, their_lost) = (ours.lost(), theirs.lost());
    let (up, back, reload) = (Times::of(ours.up), Times::of(ours.back), Times::of(reload));
    let bare = Times::of([theirs.up, theirs.back].concat());
    let ratio = match &command {
        Some(_) => format!("{:.2}, {:.2}", up.at(0.5) / bare.at(0.5), back.at(0.5) / bare.at(0.5)),
        None => "none".to_owned(),
    };
    let words = command.map_or("it has none", |c| c.words());
    println!("| {name} | {up} | {back} | {bare} | {ratio} | {reload} | {lost} | {their_lost} | {words} |");
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--test");
    let wanted = std::env::var("PILOTHOUSE_BENCH_CHANGES").ok().and_then(|n| n.parse().ok());
    let changes = wanted.unwrap_or(if quick { 4 } else { 100 });
    println!(
        "{changes} changes of all traffic from one version to the other and back, in turn with the bare command; p50 / p99; one \
         client meanwhile"
    );
    println!(
        "| proxy | up, in force and read back | back (abort) | the bare command, until in force | ratio of medians: up, back | \
         the server's own reload | failed | failed, bare | the bare command |"
    );
    println!("|{}", " --- |".repeat(9));
    // One after the other: each has the machine for itself.
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    measure("edge", Harness::edge().await, None, [&a, &b], changes).await;
    macro_rules! beside {
        ($($name:literal: $proxy:ident),*) => {$(
            match (Harness::$proxy().await, Harness::$proxy().await) {
                (Some(h), Some(mut other)) => {
                    let command = bare::$proxy(&mut other, &a, &b).await;
                    measure($name, h, Some(command), [&a, &b], changes).await;
                }
                _ => println!("| {} | not installed: skipped{} |", $name, " |".repeat(7)),
            }
        )*};
    }
    beside!("HAProxy": haproxy, "nginx": nginx, "Caddy": caddy, "Traefik": traefik, "Envoy": envoy);
}
