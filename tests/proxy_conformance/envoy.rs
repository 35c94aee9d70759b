//! The suite against a real Envoy, and what is Envoy's own.

use crate::suite;
use crate::support::Harness;
use crate::visitors;

// Without `checks`: its instances are checked by Pilothouse alone.
conforms!(
    Harness::envoy().await;
    suite: shares,
    changes_lose_nothing,
    drain,
    slots_alternate,
    dead_candidate,
    hidden_failures_are_counted,
    candidates_that_all_hang_up_lose_nothing,
    the_candidates_that_stay_share_alike,
    counters,
    restart_keeps,
    a_websocket_is_held_through_a_drain,
    before_the_first_release
);

conforms!(
    Harness::envoy().await;
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);
