//! The life of instances and slots: what the world shows of them, step by step, one fact at a time.

use crate::fleet::names::{Bp, Millis, ProxyName, RolloutId};
use crate::rollout::capacity::healthy;
use crate::rollout::fact::Fact;
use crate::rollout::state::{Instance, Rollout, ServiceState, Stage};
use crate::rollout::world::{EndpointState, Observed, ProxyObs, RunState, Slot};

/// How late a proxy may still carry out a write whose answer was lost: longer than any driver waits for one.
const LATE_WRITE: Millis = Millis(2500);

/// Facts that instances' observations justify now.
pub(super) fn instances(service: &ServiceState, obs: &Observed, now: Millis) -> Vec<Fact> {
    service.instances.values().filter_map(|i| step(service, i, obs, now)).collect()
}

fn step(service: &ServiceState, i: &Instance, obs: &Observed, now: Millis) -> Option<Fact> {
    let (name, instance) = (service.spec.name.clone(), i.id.clone());
    let host = obs.hosts.get(&i.host).filter(|h| h.reachable);
    let seen = host.and_then(|h| h.instances.get(&i.id));
    match i.stage {
        Stage::Placed => {
            let seen = seen.filter(|s| s.state == RunState::Running)?;
            let right = service.revisions.get(&i.revision).is_some_and(|r| r.digest == seen.digest);
            let endpoint = seen.endpoint.filter(|_| right)?;
            Some(Fact::InstanceStarted { service: name, instance, endpoint })
        }
        Stage::Started => {
            let moved = seen
                .filter(|s| s.state == RunState::Running)
                .and_then(|s| s.endpoint)
                .filter(|e| Some(*e) != i.endpoint);
            if let Some(endpoint) = moved {
                return Some(Fact::InstanceStarted { service: name, instance, endpoint });
            }
            let in_slot = service.slot_of(&i.revision).is_some();
            (!i.admitted && in_slot && healthy(service, i, obs))
                .then_some(Fact::InstanceAdmitted { service: name, instance })
        }
        Stage::Leaving => {
            drained(service, i, obs, now).map(|left| Fact::InstanceDrained { service: name, instance, left })
        }
        // What was adopted runs on, out of use, until somebody allows more.
        Stage::Drained if i.external() => Some(Fact::InstanceStopped { service: name, instance }),
        Stage::Drained => {
            let ended = host.is_some() && !seen.is_some_and(running);
            ended.then_some(Fact::InstanceStopped { service: name, instance })
        }
        Stage::Stopped if i.discard => Some(Fact::InstanceDiscarded { service: name, instance }),
        Stage::Stopped => None,
        Stage::Discarded => {
            let gone = host.is_some() && seen.is_none();
            gone.then_some(Fact::InstanceRemoved { service: name, instance })
        }
    }
}

fn running(seen: &crate::rollout::world::ObservedInstance) -> bool {
    !matches!(seen.state, RunState::Exited { .. })
}

/// Whether no proxy sends `i` anything any more, on any worker: the number of requests that are cut when it stops now,
/// which is 0 before the deadline. `None` while it must be waited for.
#[must_use]
pub fn drained(service: &ServiceState, i: &Instance, obs: &Observed, now: Millis) -> Option<u32> {
    let slot = service.slot_of(&i.revision);
    let overdue = now.since(i.leaving_at) > service.spec.drain.deadline;
    let mut left = 0;
    for proxy in &service.spec.proxies {
        let proxy = certain(proxy, obs, now)?;
        let Some(route) = proxy.routes.get(&service.spec.name) else { continue };
        for worker in &route.workers {
            let sends = slot_candidates(slot).any(|s| {
                let has = worker.slots.get(s);
                worker.reaches(s)
                    && has.endpoints.iter().any(|e| e.instance == i.id && e.state == EndpointState::Ready)
            });
            if sends && (worker.current || !overdue) {
                return None;
            }
        }
        left += route.in_flight(&i.id);
    }
    (left == 0 || overdue).then_some(left)
}

/// What is known of a proxy for certain. One that cannot be reached may still be sending; one whose last write failed may
/// yet carry it out: unknown is not drained.
pub(super) fn certain<'a>(proxy: &ProxyName, obs: &'a Observed, now: Millis) -> Option<&'a ProxyObs> {
    let failed = obs.failures.get(&format!("routes:{proxy}"));
    let in_doubt = failed.is_some_and(|f| now.since(f.at) < LATE_WRITE);
    obs.proxies.get(proxy).filter(|p| p.reachable && !p.writing && !in_doubt)
}

/// The slots a revision's instances may be found in: its own, or any when it has none any more.
fn slot_candidates(slot: Option<Slot>) -> impl Iterator<Item = Slot> {
    Slot::BOTH.into_iter().filter(move |s| slot.is_none_or(|own| own == *s))
}

/// It shall run again, for `rollout`.
pub(super) fn revive(service: &ServiceState, i: &Instance, rollout: &RolloutId) -> Fact {
    Fact::InstanceRevived {
        service: service.spec.name.clone(),
        instance: i.id.clone(),
        rollout: rollout.clone(),
    }
}

/// Seen ended or absent by an engine that answers; failing probes alone are not a reason to start it again.
pub(super) fn lost(i: &Instance, obs: &Observed) -> bool {
    obs.hosts
        .get(&i.host)
        .filter(|h| h.reachable)
        .is_some_and(|h| h.instances.get(&i.id).is_none_or(|s| !running(s)))
}

/// A slot whose revision neither serves nor is being rolled out, is drained and no longer has weight anywhere, is free.
pub(super) fn slots(service: &ServiceState, obs: &Observed, now: Millis) -> Vec<Fact> {
    let name = &service.spec.name;
    let mut facts = Vec::new();
    for slot in Slot::BOTH {
        let Some(revision) = service.slots.get(slot) else {
            if let Some(r) = service.active()
                && r.slot == slot
                && service.slot_of(&r.to).is_none()
                && r.status != crate::rollout::state::Status::Aborting
            {
                facts.push(Fact::SlotTaken { service: name.clone(), slot, revision: r.to.clone() });
            }
            continue;
        };
        let serves = service.stable.as_ref() == Some(revision) && !service.down;
        let coming = service
            .active()
            .is_some_and(|r| r.to == *revision && r.status != crate::rollout::state::Status::Aborting);
        let gone = service.of(revision).all(|i| i.stage >= Stage::Drained);
        if !serves && !coming && gone && weightless(service, slot, obs, now) {
            facts.push(Fact::SlotFreed { service: name.clone(), slot });
        }
    }
    facts
}

/// Whether the candidate has its slot of the route.
pub(super) fn in_slot(service: &ServiceState, r: &Rollout) -> bool {
    service.slots.get(r.slot).as_ref() == Some(&r.to)
}

/// Whether every proxy was read back giving `slot` nothing, by weight or by rule.
pub(super) fn weightless(service: &ServiceState, slot: Slot, obs: &Observed, now: Millis) -> bool {
    *service.weights.get(slot) == Bp::ZERO
        && service.spec.proxies.iter().all(|p| {
            certain(p, obs, now)
                .is_some_and(|p| p.routes.get(&service.spec.name).is_none_or(|r| !r.reaches(slot)))
        })
}
