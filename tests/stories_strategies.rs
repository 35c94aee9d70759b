//! Every strategy on real parts: on processes behind the embedded proxy, on Docker behind HAProxy.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/stories.rs"]
mod stories;
#[path = "common/strategies.rs"]
mod strategies;
#[path = "common/world.rs"]
mod world;

use strategies::{AB, BLUE_GREEN, CANARY, IN_PLACE, ROLLING, ROLLING_DOWN, setup};
use world::{Backends, Setup, World};

macro_rules! on_both {
    ($($name:ident($world:ident, $setup:expr) $body:block)*) => {
        mod process_edge {
            use super::*;
            $(#[test]
            fn $name() {
                let Some($world) = World::new(stringify!($name), Backends::ProcessEdge, &$setup) else { return };
                $body
            })*
        }
        mod docker_haproxy {
            use super::*;
            $(#[test]
            fn $name() {
                let Some($world) = World::new(stringify!($name), Backends::DockerHaproxy, &$setup) else { return };
                $body
            })*
        }
    };
}

on_both! {
    rolling_loses_nothing(world, setup(ROLLING)) {
        strategies::up_back_and_abort(&world, "rolling with a surge");
    }
    rolling_without_room_loses_nothing(world, setup(ROLLING_DOWN)) {
        strategies::up_back_and_abort(&world, "rolling without a surge");
    }
    blue_green_loses_nothing(world, setup(BLUE_GREEN)) {
        strategies::up_back_and_abort(&world, "blue/green");
    }
    canary_with_sticky_visitors_loses_nothing(world, setup(CANARY)) {
        strategies::up_back_and_abort(&world, "sticky canary");
    }
    ab_loses_nothing(world, setup(AB)) {
        strategies::up_back_and_abort(&world, "A/B");
    }
    in_place_with_others_to_serve_loses_nothing(world, setup(IN_PLACE)) {
        strategies::up_back_and_abort(&world, "in-place, four instances");
    }
    in_place_alone_says_its_downtime(world, Setup { replicas: 1, ..setup(IN_PLACE) }) {
        strategies::downtime(&world);
    }
    a_preview_is_seen_by_its_header_only(world, setup(BLUE_GREEN)) {
        strategies::rules(&world, "preview", ("X-Preview", "green"), "preview");
    }
    a_variant_is_seen_by_its_header_only(world, setup(AB)) {
        strategies::rules(&world, "variant", ("X-Variant", "b"), "compare");
    }
    bad_candidates_of_rolling_go_by_themselves(world, setup(ROLLING)) {
        strategies::bad_candidates(&world, "rolling");
    }
    bad_candidates_of_blue_green_go_by_themselves(world, setup(BLUE_GREEN)) {
        strategies::bad_candidates(&world, "blue/green");
    }
    one_host_goes_back_alone(world, setup(ROLLING)) {
        strategies::one_host_back(&world);
    }
    a_newer_version_in_mid_rollout_follows(world, setup(ROLLING)) {
        strategies::newer_in_mid_rollout(&world);
    }
}

#[test]
fn hooks_run_as_processes() {
    let hooks = format!("before_start = {{ run = [\"{}\", \"--version\"] }}", common::pilothouse().display());
    let setup = Setup { hooks: Some(hooks), ..setup(ROLLING) };
    let Some(world) = World::new("hooks", Backends::ProcessEdge, &setup) else { return };
    strategies::hooks(&world, "before_start = { run = [\"/bin/false\"] }");
}

#[test]
fn hooks_run_as_containers() {
    let setup = Setup { hooks: Some("before_start = { run = [\"--help\"] }".to_owned()), ..setup(ROLLING) };
    let Some(world) = World::new("hooks", Backends::DockerHaproxy, &setup) else { return };
    strategies::hooks(&world, "before_start = { run = [\"--no-such-flag\"] }");
}
