//! One revision makes way for the other, instance by instance, without taking more out of rotation than is allowed.

use std::collections::{BTreeMap, BTreeSet};

use super::life;
use crate::fleet::names::{Bp, Millis, RevisionId};
use crate::rollout::capacity::{Trust, in_rotation, serves};
use crate::rollout::fact::Fact;
use crate::rollout::plan::Placement;
use crate::rollout::reconcile::{artifacts_are_there, route};
use crate::rollout::state::{Instance, Kind, Rollout, ServiceState, Stage, Status};
use crate::rollout::target::target;
use crate::rollout::world::{Observed, Slot};

/// The next instance that the target has no place for, when it may leave now. Of the candidate, and of stable unless
/// `candidate_only`.
pub(super) fn make_way(
    service: &ServiceState,
    r: &Rollout,
    obs: &Observed,
    now: Millis,
    candidate_only: bool,
) -> Option<Fact> {
    let target = target(service, r);
    let discard = r.kind != Kind::Rollback;
    let leaves = |i: &Instance, discard| Fact::InstanceLeaving {
        service: service.spec.name.clone(),
        instance: i.id.clone(),
        discard,
    };
    let of_candidate = surplus(service, &r.to, &target.candidate, obs);
    if let Some(i) = of_candidate.into_iter().find(|i| may_leave(service, r, i, obs, now)) {
        return Some(leaves(i, discard));
    }
    if candidate_only {
        return None;
    }
    let (stable, wanted) = (service.stable.as_ref()?, target.stable?);
    // Nothing is taken out before what takes its place can be started everywhere.
    if !artifacts_are_there(service, &r.to, obs) {
        return None;
    }
    let of_stable = surplus(service, stable, &wanted, obs);
    of_stable.into_iter().find(|i| may_leave(service, r, i, obs, now)).map(|i| leaves(i, false))
}

/// Instances beyond the placement: first those that work least, then the youngest.
fn surplus<'a>(
    service: &'a ServiceState,
    revision: &'a RevisionId,
    wanted: &Placement,
    obs: &Observed,
) -> Vec<&'a Instance> {
    let mut out: Vec<&Instance> = Vec::new();
    let hosts: BTreeSet<_> = service.of(revision).map(|i| &i.host).collect();
    for host in hosts {
        let keep = wanted.get(host).copied().unwrap_or(0) as usize;
        let mut here: Vec<&Instance> =
            service.of(revision).filter(|i| i.host == *host && i.stage <= Stage::Started).collect();
        here.sort_by_key(|i| (serves(service, i, obs, Trust::Presumed), i.admitted));
        let over = here.len().saturating_sub(keep);
        out.extend(here.into_iter().take(over));
    }
    out
}

/// Whether `i` may leave without taking out more than is allowed (safety rule 2).
fn may_leave(service: &ServiceState, r: &Rollout, i: &Instance, obs: &Observed, now: Millis) -> bool {
    // What gets nothing now can go.
    if !serves(service, i, obs, Trust::Presumed) {
        return true;
    }
    let Some(slot) = service.slot_of(&i.revision) else { return true };
    if life::weightless(service, slot, obs, now) {
        return true;
    }
    let limits = &r.plan.limits;
    if limits.surge.is_none() || !in_force(service, obs) {
        return false;
    }
    let trust = if r.status == Status::Aborting { Trust::Presumed } else { Trust::Proved };
    let replicas = service.spec.replicas();
    // What a slot carries: its instances, and no more than its share makes use of.
    let carried = |slot: Slot| {
        let Some(revision) = service.slots.get(slot) else { return 0 };
        let mut n = in_rotation(service, revision, obs, trust);
        if i.revision == *revision && serves(service, i, obs, trust) {
            n = n.saturating_sub(1);
        }
        n.min(instances_used(*service.weights.get(slot), replicas))
    };
    // The last one leaves a slot that still has a share only where nobody else could take it: in place, alone.
    let last = in_rotation(service, &i.revision, obs, Trust::Presumed) <= 1;
    (!last || limits.in_place && carried(slot.other()) == 0)
        && carried(Slot::A) + carried(Slot::B) >= replicas.saturating_sub(limits.unavailable)
}

/// How many instances a share keeps as busy as they are meant to be.
fn instances_used(weight: Bp, replicas: u32) -> u32 {
    let n = (u64::from(weight.get()) * u64::from(replicas) + 5_000) / 10_000;
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Whether every proxy was read back doing what is wanted now.
pub(super) fn in_force(service: &ServiceState, obs: &Observed) -> bool {
    let want = route(service, obs);
    service.spec.proxies.iter().all(|p| {
        obs.proxies.get(p).is_some_and(|p| {
            p.reachable
                && !p.writing
                && p.routes.get(&service.spec.name).is_some_and(|have| have.serves(&want))
        })
    })
}

/// An instance that took the place of one on the same port, is healthy and was read back in rotation: the time in which
/// its place was empty is known.
pub(super) fn replaced(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Fact> {
    if !r.plan.limits.in_place || !in_force(service, obs) {
        return None;
    }
    let serving = service.instances.values().filter(|i| {
        let share = service.slot_of(&i.revision).map_or(Bp::ZERO, |s| *service.weights.get(s));
        share > Bp::ZERO
            && serves(service, i, obs, Trust::Proved)
            && !r.downtimes.iter().any(|(id, _)| *id == i.id)
    });
    for i in serving {
        let before = service.instances.values().find(|o| {
            o.id != i.id
                && o.host == i.host
                && o.host_port == i.host_port
                && o.stage >= Stage::Drained
                && o.leaving_at <= i.placed_at
                && o.leaving_at >= r.started_at
        });
        if let Some(before) = before {
            return Some(Fact::InstanceReplaced {
                service: service.spec.name.clone(),
                rollout: r.id.clone(),
                instance: i.id.clone(),
                replaced: before.id.clone(),
                downtime: now.since(before.leaving_at),
            });
        }
    }
    None
}

/// Instances that have left their place while whatever takes it does not serve yet, of a rollout that replaces them in
/// place: the other side of `replaced`.
#[must_use]
pub fn empty_places<'a>(service: &'a ServiceState, r: &Rollout) -> Vec<&'a Instance> {
    if !r.plan.limits.in_place || !r.active() {
        return Vec::new();
    }
    let place = |i: &Instance| (i.host.clone(), i.host_port);
    let left =
        service.instances.values().filter(|i| i.stage >= Stage::Leaving && i.leaving_at >= r.started_at);
    let mut last: BTreeMap<_, &Instance> = BTreeMap::new();
    for i in left {
        let known = last.entry(place(i)).or_insert(i);
        if i.leaving_at > known.leaving_at {
            *known = i;
        }
    }
    let serves_there = |gone: &Instance| {
        service.instances.values().any(|i| {
            place(i) == place(gone)
                && i.stage <= Stage::Started
                && i.admitted
                && i.placed_at >= gone.leaving_at
                && r.downtimes.iter().any(|(id, _)| *id == i.id)
        })
    };
    last.into_values().filter(|gone| !serves_there(gone)).collect()
}
