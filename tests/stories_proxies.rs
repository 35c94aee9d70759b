//! The stories that are the same behind every proxy, with the real binary and the real proxy: one module for each.
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

/// Tests that each tell a story in a world of their own.
macro_rules! tell {
    ($backends:ident: $($name:ident($setup:expr) $story:path;)*) => {
        $(#[test]
        #[allow(unused_mut)]
        fn $name() {
            let Some(mut world) = World::new(stringify!($name), Backends::$backends, &$setup) else { return };
            $story(&mut world);
        })*
    };
}

/// A proxy with the stories that are told behind every one, and with `more` of them.
macro_rules! behind {
    ($proxy:ident, $backends:ident $(, $more:ident)*) => {
        mod $proxy {
            use super::*;
            tell! { $backends:
                a_canary_keeps_its_shares(Setup::default()) stories::canary;
                an_abort_sends_everything_back_and_leaves_nothing(Setup::default()) stories::abort;
                scenario_15_and_17_bad_candidates_go_by_themselves(stories::short()) stories::bad_candidates;
                scenario_22_a_drain_has_a_deadline_and_says_what_was_left(stories::slow_by_environment())
                    stories::a_drain_has_a_deadline;
                scenario_40_a_proxy_that_cannot_be_asked_is_not_healthy_by_silence(stories::watched())
                    stories::metrics_vanish;
            }
            $($more! { $backends })*
        }
    };
}

/// An operator may restart it. HAProxy's and the edge's story of that are among their own.
macro_rules! restarts {
    ($backends:ident) => {
        tell! { $backends:
            scenario_10_a_restart_keeps_the_share(Setup::default()) stories::a_restart_at_a_quarter;
        }
    };
}

/// What is counted comes on a way of its own. Of the others nothing can be asked then, as told above.
macro_rules! counts_apart {
    ($backends:ident) => {
        tell! { $backends:
            scenario_40_counts_that_vanish_are_inconclusive_and_pause(stories::judged()) stories::counts_vanish;
        }
    };
}

behind!(haproxy, DockerHaproxy);
behind!(nginx, ProcessNginx, restarts, counts_apart);
behind!(caddy, ProcessCaddy, restarts, counts_apart);
behind!(traefik, ProcessTraefik, restarts, counts_apart);
behind!(envoy, ProcessEnvoy, restarts);
behind!(edge, ProcessEdge);
