//! Blue/green: the other colour in full, tried out before anyone sees it, then switched at once. The old colour stays
//! warm, so the way back is one weight change.

use super::{Phase, Plan};
use crate::fleet::model::{Gate, Rule, Service};
use crate::fleet::names::{Bp, Millis};

/// How long the new colour has to be healthy under all of the traffic, when the strategy names no time.
const BAKE: Millis = Millis::secs(5);

/// `preview` (all of it healthy, reached by the preview rule only), then `switch`: everything at once, and watched for a
/// while before it counts as done.
pub(super) fn plan(service: &Service, preview: Option<&Rule>, gates: &[Gate]) -> Plan {
    let phase = |name: &str, weight, gates| Phase {
        name: name.to_owned(),
        stable: service.placement.clone(),
        candidate: service.placement.clone(),
        weight,
        gates,
    };
    // What only shows under traffic has to show before the old colour stops being the way back by itself.
    let bake = gates.iter().find(|g| matches!(g, Gate::HealthyFor(_))).copied();
    let bake = [bake.unwrap_or(Gate::HealthyFor(BAKE))].into_iter().chain(super::checked(service)).collect();
    Plan {
        phases: vec![phase("preview", Bp::ZERO, gates.to_vec()), phase("switch", Bp::FULL, bake)],
        rules: preview.cloned().into_iter().collect(),
        ..Plan::default()
    }
}
