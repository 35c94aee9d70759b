//! A controller made of memory, to look at the cockpit without a fleet:
//!
//! ```text
//! cargo run --example canned_controller -- /tmp/canned.sock [canary|production|finished|empty|undeployed] &
//! cargo run -- cockpit --socket /tmp/canned.sock
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilothouse::tui::fixture;

#[path = "../tests/support/canned.rs"]
mod canned;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let socket = args.next().expect("a path for the socket");
    let mut snapshot = match args.next().as_deref() {
        Some("production") => fixture::production(),
        Some("finished") => fixture::finished(),
        Some("empty") => fixture::empty(),
        Some("undeployed") => fixture::undeployed(),
        _ => fixture::canary(),
    };
    // Bring the fixed times up to now, so that ages make sense.
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let shift = wall() - fixture::WALL_MS;
    snapshot.events.iter_mut().for_each(|e| e.at_ms += shift);
    snapshot.probes.iter_mut().for_each(|p| p.at_ms += shift);
    snapshot.instances.iter_mut().for_each(|i| i.started_ms = i.started_ms.map(|t| t + shift));
    for r in snapshot.services.iter_mut().filter_map(|s| s.rollout.as_mut()) {
        r.started_ms += shift;
        r.ended_ms = r.ended_ms.map(|t| t + shift);
    }
    let controller = canned::Canned::new(snapshot);
    let probing = controller.clone();
    tokio::spawn(async move {
        let mut n = 0u32;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            n += 1;
            probing.change(|s| {
                let Some(mut probe) = s.probes.first().cloned() else { return };
                probe.at_ms = wall();
                probe.latency_ms = n % 9 + 3;
                s.probes.push(probe);
            });
        }
    });
    controller.serve(std::path::Path::new(&socket)).await;
}
