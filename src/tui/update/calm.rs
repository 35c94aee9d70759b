//! What can wait: figures that change all the time, and say nothing when they do. A fleet at rest has a probe of every
//! instance every few seconds; drawing each of them is most of what a quiet screen would send over a slow link.

use crate::api::{Change, HealthView, InstanceView, RolloutView, ServiceView};
use crate::tui::model::Model;

/// Whether a change is more than another figure in the same state.
pub(super) fn more_than_figures(model: &Model, change: &Change) -> bool {
    match change {
        Change::Instance(new) => model.instance_named(&new.id).is_none_or(|old| instance(old, new)),
        Change::Service(new) => model.service_named(&new.name).is_none_or(|old| service(old, new)),
        Change::Probe(p) => !p.ok,
        _ => true,
    }
}

fn instance(old: &InstanceView, new: &InstanceView) -> bool {
    // What a probe says of one that is not healthy is what somebody is waiting for.
    let still = old.health == HealthView::Healthy && new.health == HealthView::Healthy;
    let figures = |i: &InstanceView| InstanceView {
        probe_ms: None,
        cpu_percent: None,
        memory_bytes: None,
        ..i.clone()
    };
    !still || figures(old) != figures(new)
}

fn service(old: &ServiceView, new: &ServiceView) -> bool {
    // In a rollout the figures are the point; they are drawn every second.
    let figures = |s: &ServiceView| {
        let mut s = s.clone();
        for r in &mut s.revisions {
            (r.traffic, r.share) = (None, None);
        }
        let gate = |r: RolloutView| RolloutView { gate_left_ms: None, comparison: None, ..r };
        s.rollout = s.rollout.map(gate);
        s
    };
    figures(old) != figures(new)
}
