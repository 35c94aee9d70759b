//! The stories against a real Caddy and real processes, with the real binary.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/dockerd.rs"]
mod dockerd;
#[path = "common/load.rs"]
mod load;
#[path = "common/stories.rs"]
mod stories;
#[path = "common/world.rs"]
mod world;

use world::{Backends, Setup, World};

fn world(test: &str, setup: &Setup) -> Option<World> {
    World::new(test, Backends::ProcessCaddy, setup)
}

#[test]
fn a_canary_keeps_its_shares() {
    let Some(world) = world("canary", &Setup::default()) else { return };
    stories::canary(&world);
}

#[test]
fn an_abort_sends_everything_back_and_leaves_nothing() {
    let Some(world) = world("abort", &Setup::default()) else { return };
    stories::abort(&world);
}
