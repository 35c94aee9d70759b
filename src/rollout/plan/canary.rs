//! Canary: a few instances and a small share first, then more. Stable stays whole until the end, so the way back is one
//! weight change from any phase.

use super::{Phase, Plan, needed, spread};
use crate::fleet::model::{Gate, Rule, Service, Step};
use crate::fleet::names::Bp;

/// `start` (healthy, no traffic), one phase per step, then 100 %.
pub(super) fn plan(service: &Service, steps: &[Step], sticky: bool, tester: Option<&Rule>) -> Plan {
    let replicas = service.replicas();
    let phase = |name: String, weight: Bp, size: u32, gates| Phase {
        name,
        stable: service.placement.clone(),
        candidate: spread(&service.placement, size),
        weight,
        gates,
    };
    // What a step asked for beyond its weight stays: none is stopped on the way up.
    let mut size = 0;
    let sizes: Vec<u32> = steps
        .iter()
        .map(|s| {
            size = size.max(s.instances.unwrap_or(0)).max(needed(replicas, s.weight));
            size
        })
        .collect();
    let first = sizes.first().copied().unwrap_or(replicas);
    let mut phases = vec![phase("start".to_owned(), Bp::ZERO, first, Vec::new())];
    let steps = steps.iter().zip(sizes);
    // Beside each other both versions can be judged; at 100 % there is nothing to compare with.
    let judged = service.analysis.is_some_and(|a| !a.dry_run);
    let judges = || judged.then_some(Gate::Verdict).into_iter().chain(super::checked(service));
    let gates = |s: &Step| s.gates.iter().copied().chain(judges()).collect();
    phases.extend(steps.map(|(s, size)| phase(s.weight.human(), s.weight, size, gates(s))));
    phases.push(phase(Bp::FULL.human(), Bp::FULL, replicas, Vec::new()));
    Plan { phases, sticky, rules: tester.cloned().into_iter().collect(), ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::simulation::{fleet, web};

    #[test]
    fn what_a_step_asked_for_beyond_its_weight_stays() {
        let step = |weight, instances| Step { weight: Bp::percent(weight), instances, gates: Vec::new() };
        let steps = vec![step(5, Some(3)), step(25, None), step(90, None)];
        let service = fleet(2, 2, 1, steps.clone()).services.remove(&web()).unwrap();
        let plan = plan(&service, &steps, false, None);
        let sizes: Vec<u32> = plan.phases.iter().map(|p| p.candidate.values().sum()).collect();
        assert_eq!(sizes, [3, 3, 3, 4, 4]);
    }
}
