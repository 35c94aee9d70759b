//! A/B: two revisions side by side for a set time, told apart by a header, a cookie or a sticky share; then somebody
//! decides.

use super::{Phase, Plan, needed};
use crate::fleet::model::{Choose, Gate, Service};
use crate::fleet::names::{Bp, Millis};

/// `start`, `compare` for `duration` and until promoted, then everything.
pub(super) fn plan(service: &Service, choose: &Choose, duration: Millis) -> Plan {
    let (share, rules) = match choose {
        Choose::Share(share) => (*share, Vec::new()),
        Choose::Rule(rule) => (Bp::ZERO, vec![rule.clone()]),
    };
    // How many match a rule is not known before: the candidate is as large as stable then.
    let size = if rules.is_empty() { needed(service.replicas(), share) } else { service.replicas() };
    let phase = |name: &str, size: u32, weight, gates| Phase {
        name: name.to_owned(),
        stable: service.placement.clone(),
        candidate: super::spread(&service.placement, size),
        weight,
        gates,
    };
    Plan {
        phases: vec![
            phase("start", size, Bp::ZERO, Vec::new()),
            phase("compare", size, share, vec![Gate::Pause(duration), Gate::Manual]),
            phase(&Bp::FULL.human(), service.replicas(), Bp::FULL, Vec::new()),
        ],
        sticky: rules.is_empty(),
        rules,
        ..Plan::default()
    }
}
