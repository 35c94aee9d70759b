//! `plan --output json`: the documented, versioned form for scripts, in per cent and milliseconds.

use serde::{Deserialize, Serialize};

use super::PlanView;
use crate::text::Safe;

/// What a deploy would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// Version of this type: 1.
    pub schema: u32,
    /// The service.
    pub service: Safe,
    /// `canary`, `first release`, …
    pub strategy: Safe,
    /// Version now; null for a first release.
    pub from: Option<Safe>,
    /// Version then.
    pub to: Safe,
    /// The phases, in order.
    pub phases: Vec<PlanPhase>,
    /// Instances needed at 100 %.
    pub replicas: u32,
    /// The fewest healthy instances in rotation at any moment; null for a first release.
    pub lowest: Option<u32>,
    /// The same in per cent of the replicas.
    pub lowest_percent: Option<f64>,
    /// The most instances that run beyond the replicas.
    pub extra: u32,
    /// It takes this long or longer.
    pub at_least_ms: u64,
    /// Phases that wait for somebody to promote.
    pub by_hand: Vec<Safe>,
    /// What it cannot promise, in words.
    pub not_promised: Vec<Safe>,
    /// The way back, in words.
    pub way_back: Safe,
    /// What else to know, in words.
    pub notes: Vec<Safe>,
    /// Decision number for `deploy --decision`.
    pub decision: u64,
}

/// One phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanPhase {
    /// Its name.
    pub name: Safe,
    /// The candidate's share, in per cent.
    pub weight: f64,
    /// What must hold before the next, in words.
    pub gates: Vec<Safe>,
    /// Instances and shares by host.
    pub hosts: Vec<PlanHost>,
}

/// One host in one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanHost {
    /// Its name.
    pub host: Safe,
    /// Instances of stable.
    pub stable: u32,
    /// Instances of the candidate.
    pub candidate: u32,
    /// Share of stable's instances here, in per cent of the service's requests.
    pub stable_weight: f64,
    /// Share of the candidate's instances here.
    pub candidate_weight: f64,
}

/// The documented form of a plan.
#[must_use]
pub fn plan_report(p: &PlanView) -> PlanReport {
    let percent = |bp: u16| f64::from(bp) / 100.0;
    let phases = p.phases.iter().map(|phase| PlanPhase {
        name: phase.name.clone(),
        weight: percent(phase.weight),
        gates: phase.gates.clone(),
        hosts: phase
            .hosts
            .iter()
            .map(|h| PlanHost {
                host: h.host.clone(),
                stable: h.stable,
                candidate: h.candidate,
                stable_weight: percent(h.stable_weight),
                candidate_weight: percent(h.candidate_weight),
            })
            .collect(),
    });
    let of_replicas = |n: u32| (f64::from(n) * 10_000.0 / f64::from(p.replicas.max(1))).floor() / 100.0;
    PlanReport {
        schema: 1,
        service: p.service.clone(),
        strategy: p.strategy.clone(),
        from: p.from.clone(),
        to: p.to.clone(),
        phases: phases.collect(),
        replicas: p.replicas,
        lowest: p.lowest,
        lowest_percent: p.lowest.map(of_replicas),
        extra: p.extra,
        at_least_ms: p.at_least_ms,
        by_hand: p.by_hand.clone(),
        not_promised: p.not_promised.clone(),
        way_back: p.way_back.clone(),
        notes: p.notes.clone(),
        decision: p.decision,
    }
}
