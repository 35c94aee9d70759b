//! In-place and rolling: the new takes the place of the old, a batch at a time. No more hosts are needed; the way back
//! restarts what was stopped.

use super::{Limits, Phase, Placement, Plan, spread};
use crate::fleet::model::{Batch, Gate, Service};
use crate::fleet::names::{Bp, Millis};

/// One phase per batch; each ends with the batch in rotation, healthy for `min_healthy`, and as many of the old stopped.
pub(super) fn plan(service: &Service, batch: Batch, min_healthy: Millis, limits: Limits) -> Plan {
    let replicas = service.replicas();
    let mut phases = Vec::new();
    let mut phase = |name: String, candidate: Placement| {
        let stable = service
            .placement
            .iter()
            .map(|(host, n)| (host.clone(), n.saturating_sub(candidate.get(host).copied().unwrap_or(0))))
            .filter(|(_, n)| *n > 0)
            .collect();
        let count: u32 = candidate.values().sum();
        let healthy = (min_healthy > Millis(0)).then_some(Gate::HealthyFor(min_healthy));
        let gates = healthy.into_iter().chain(super::checked(service)).collect();
        let weight = Bp::ratio(u64::from(count), u64::from(replicas));
        phases.push(Phase { name, stable, candidate, weight, gates });
    };
    match batch {
        Batch::Count(n) => {
            let mut count = 0;
            while count < replicas {
                count = count.saturating_add(n.max(1)).min(replicas);
                phase(format!("{count}/{replicas}"), spread(&service.placement, count));
            }
        }
        Batch::Host => {
            let mut candidate = Placement::new();
            for (host, n) in &service.placement {
                candidate.insert(host.clone(), *n);
                phase(host.to_string(), candidate.clone());
            }
        }
    }
    Plan { phases, limits, ..Plan::default() }
}

/// In-place: nothing extra, the same ports, a batch missing meanwhile. With one instance that is downtime, which is
/// measured.
pub(super) fn in_place(service: &Service, batch: Batch) -> Limits {
    let missing = match batch {
        Batch::Count(n) => n.max(1),
        Batch::Host => service.placement.values().copied().max().unwrap_or(1),
    };
    Limits {
        surge: Some(0),
        unavailable: missing.min(service.replicas()),
        in_place: true,
        ..Limits::default()
    }
}

/// Rolling: out of rotation, replaced, healthy, back in; never fewer in rotation than declared.
pub(super) fn rolling(max_unavailable: u32, max_surge: u32, healthy_deadline: Millis) -> Limits {
    Limits {
        surge: Some(max_surge),
        unavailable: max_unavailable,
        in_place: false,
        healthy_deadline: Some(healthy_deadline),
    }
}
