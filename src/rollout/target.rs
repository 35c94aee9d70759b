//! What a rollout aims at now: its phase, or stable alone while it aborts, less the hosts that an operator holds.

use super::plan::Placement;
use super::state::{Rollout, ServiceState, Status};
use crate::fleet::names::Bp;

/// What a rollout aims at now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Instances of stable that shall run and be in rotation; `None` where they are left as they are, because both
    /// revisions run side by side.
    pub stable: Option<Placement>,
    /// Instances of the candidate that shall run and be in rotation.
    pub candidate: Placement,
    /// The candidate's share.
    pub weight: Bp,
}

/// What `r` aims at now.
#[must_use]
pub fn target(service: &ServiceState, r: &Rollout) -> Target {
    let side_by_side = r.plan.limits.surge.is_none();
    let aborting = || Target {
        stable: (!side_by_side).then(|| service.spec.placement.clone()),
        candidate: Placement::new(),
        weight: Bp::ZERO,
    };
    let Some(phase) = r.phase().filter(|_| r.status != Status::Aborting) else { return aborting() };
    let mut candidate = phase.candidate.clone();
    let mut stable = (!side_by_side).then(|| phase.stable.clone());
    let mut weight = phase.weight;
    if !r.held.is_empty() {
        for host in &r.held {
            candidate.remove(host);
            if let (Some(stable), Some(n)) = (stable.as_mut(), service.spec.placement.get(host)) {
                stable.insert(host.clone(), *n);
            }
        }
        let left: u32 = candidate.values().sum();
        weight = weight.min(Bp::ratio(u64::from(left), u64::from(service.spec.replicas())));
    }
    Target { stable, candidate, weight }
}
