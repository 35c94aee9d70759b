//! Plans: a release as data. A phase is a target, not a script. Each strategy is one file here and nothing elsewhere.

mod ab;
mod blue_green;
mod canary;
pub mod outlook;
mod replace;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fleet::model::{Gate, Rule, Service, Strategy};
use crate::fleet::names::{Bp, HostName, Millis};

/// How many instances on which host.
pub type Placement = BTreeMap<HostName, u32>;

/// What a rollout will do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The phases, in order. Never empty.
    pub phases: Vec<Phase>,
    /// How one revision may make way for the other.
    #[serde(default)]
    pub limits: Limits,
    /// Requests that reach the candidate once one of its instances is healthy, whatever its share.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Whether visitors keep the version they saw while the shares stay.
    #[serde(default)]
    pub sticky: bool,
    /// Whether what runs already is taken over: no hook is run for it.
    #[serde(default)]
    pub adopts: bool,
}

/// How one revision may make way for the other, on the way up and on the way back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Instances of both revisions together that may run beyond the replicas; `None` for as many as the phases need.
    pub surge: Option<u32>,
    /// Instances that may be missing from rotation.
    pub unavailable: u32,
    /// An instance takes the host port of the one it replaces, once that has stopped.
    pub in_place: bool,
    /// An instance that is not healthy this long after it was placed has failed.
    pub healthy_deadline: Option<Millis>,
}

/// A target state, and what must hold before the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `start`, `5%`, … `100%`.
    pub name: String,
    /// Instances of stable that run and are in rotation.
    pub stable: Placement,
    /// Instances of the candidate that run and are in rotation.
    pub candidate: Placement,
    /// The candidate's share.
    pub weight: Bp,
    /// What must hold before the next phase, beside the target itself.
    pub gates: Vec<Gate>,
}

/// The plan for bringing a new revision of `service`; without a `stable` one, a first release, which has nothing to
/// compare with and skips the steps.
#[must_use]
pub fn plan(service: &Service, has_stable: bool) -> Plan {
    if !has_stable {
        return first(service);
    }
    match &service.strategy {
        Strategy::Canary { steps, sticky, tester } => canary::plan(service, steps, *sticky, tester.as_ref()),
        Strategy::InPlace { batch, min_healthy_time } | Strategy::Rolling { batch, min_healthy_time, .. } => {
            replace::plan(service, *batch, *min_healthy_time, limits(service))
        }
        Strategy::BlueGreen { preview, gates } => blue_green::plan(service, preview.as_ref(), gates),
        Strategy::Ab { choose, duration } => ab::plan(service, choose, *duration),
    }
}

/// The strategy's name, as in the fleet file.
#[must_use]
pub fn strategy_name(strategy: &Strategy) -> &'static str {
    strategy.name()
}

/// All at once, healthy before the first request.
fn first(service: &Service) -> Plan {
    let phase = |name: &str, weight| Phase {
        name: name.to_owned(),
        stable: Placement::new(),
        candidate: service.placement.clone(),
        weight,
        gates: Vec::new(),
    };
    Plan { phases: vec![phase("start", Bp::ZERO), phase("100%", Bp::FULL)], ..Plan::default() }
}

/// The plan for going back to a revision that ran before: no gates, only the safety rules, and the strategy's limits.
#[must_use]
pub fn back(service: &Service) -> Plan {
    let limits = limits(service);
    let phase = Phase {
        name: "100%".to_owned(),
        stable: if limits.surge.is_none() { service.placement.clone() } else { Placement::new() },
        candidate: service.placement.clone(),
        weight: Bp::FULL,
        gates: Vec::new(),
    };
    Plan { phases: vec![phase], limits, ..Plan::default() }
}

/// The plan for taking over what runs already. What the proxies are sending to keeps all of its share from the first
/// moment; anything else is healthy before its first request, like a first release.
#[must_use]
pub fn adopt(service: &Service, serving: bool) -> Plan {
    let mut plan = first(service);
    if serving {
        plan.phases.drain(..plan.phases.len().saturating_sub(1));
    }
    Plan { adopts: true, ..plan }
}

/// How one revision of the service may make way for the other.
fn limits(service: &Service) -> Limits {
    match &service.strategy {
        Strategy::InPlace { batch, .. } => replace::in_place(service, *batch),
        Strategy::Rolling { max_unavailable, max_surge, healthy_deadline, .. } => {
            replace::rolling(*max_unavailable, *max_surge, *healthy_deadline)
        }
        Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Ab { .. } => Limits::default(),
    }
}

/// The gate of a phase in which checks are asked.
fn checked(service: &Service) -> Option<Gate> {
    service.checks.iter().any(|c| !c.dry_run).then_some(Gate::Checks)
}

/// `n` instances spread over the hosts of `full`, one host after the other, never more on a host than there.
#[must_use]
pub fn spread(full: &Placement, n: u32) -> Placement {
    let mut out = Placement::new();
    let mut left = n.min(full.values().sum());
    while left > 0 {
        for (host, max) in full {
            let have = out.get(host).copied().unwrap_or(0);
            if left > 0 && have < *max {
                out.insert(host.clone(), have + 1);
                left -= 1;
            }
        }
    }
    out
}

/// Instances needed to carry `weight` when `replicas` carry everything: rounded up, at least one.
#[must_use]
pub fn needed(replicas: u32, weight: Bp) -> u32 {
    weight.instances_of(replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreading_goes_round_and_stays_within_each_host() {
        let full: Placement = [("a", 1), ("b", 3)].iter().map(|(h, n)| (h.parse().unwrap(), *n)).collect();
        let counts = |n| spread(&full, n).values().copied().collect::<Vec<_>>();
        assert_eq!(counts(0), Vec::<u32>::new());
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(2), [1, 1]);
        assert_eq!(counts(3), [1, 2]);
        assert_eq!(counts(99), [1, 3]);
    }

    #[test]
    fn needed_rounds_up() {
        assert_eq!(needed(4, Bp::percent(5)), 1);
        assert_eq!(needed(4, Bp::percent(50)), 2);
        assert_eq!(needed(4, Bp::percent(51)), 3);
        assert_eq!(needed(30, Bp::FULL), 30);
    }
}
