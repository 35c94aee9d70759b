//! How much of a service's traffic a revision can carry, and the shares that follow: safety rules 1, 2 and 6.

use super::plan::Placement;
use super::state::{HookKind, Instance, Rollout, ServiceState, Stage, Status};
use super::target::target;
use super::world::{HealthVerdict, Observed, RunState, Slots};
use crate::fleet::names::{Bp, RevisionId};

/// Whether the engine confirms that our instance runs **and** our own probe passes (rule 11).
#[must_use]
pub fn healthy(service: &ServiceState, i: &Instance, obs: &Observed) -> bool {
    let Some(host) = obs.hosts.get(&i.host).filter(|h| h.reachable) else { return false };
    let Some(seen) = host.instances.get(&i.id) else { return false };
    let artifact_right = service.revisions.get(&i.revision).is_some_and(|r| r.digest == seen.digest);
    artifact_right
        && seen.state == RunState::Running
        && seen.endpoint == i.endpoint
        && obs.health.get(&i.id).is_some_and(|h| h.verdict == HealthVerdict::Healthy)
}

/// Whether something is known against it: it was seen ended or failing. Not knowing is not knowing against.
#[must_use]
pub fn known_bad(i: &Instance, obs: &Observed) -> bool {
    let host = obs.hosts.get(&i.host).filter(|h| h.reachable);
    let ended = host.is_some_and(|h| {
        h.instances.get(&i.id).is_none_or(|seen| matches!(seen.state, RunState::Exited { .. }))
    });
    ended || obs.health.get(&i.id).is_some_and(|h| h.verdict == HealthVerdict::Unhealthy)
}

/// The share that `revision` can carry: instances in rotation and healthy ÷ instances needed at 100 %.
#[must_use]
pub fn capacity(service: &ServiceState, revision: &RevisionId, obs: &Observed) -> Bp {
    let n = in_rotation(service, revision, obs, Trust::Proved);
    Bp::ratio(u64::from(n), u64::from(service.spec.replicas()))
}

/// The same for the way back: instances in rotation that nothing is known against. A controller that was just started,
/// or cannot reach an engine, has no fresh health; refusing the way back for that would turn "unknown" into "dead". A
/// revision that served everything with fewer instances than are declared now carries everything with them.
#[must_use]
pub fn capacity_for_return(service: &ServiceState, revision: &RevisionId, obs: &Observed) -> Bp {
    let all = service.of(revision).filter(|i| !i.discard).count() as u64;
    let needed = u64::from(service.spec.replicas()).min(all);
    Bp::ratio(u64::from(in_rotation(service, revision, obs, Trust::Presumed)), needed)
}

/// What it takes to count an instance as working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Known to be healthy: for what is risky.
    Proved,
    /// Nothing is known against it: for what is on its way out, and for the way back.
    Presumed,
}

/// Whether an instance takes requests and works, as far as `trust` asks.
#[must_use]
pub fn serves(service: &ServiceState, i: &Instance, obs: &Observed, trust: Trust) -> bool {
    i.stage == Stage::Started
        && i.admitted
        && match trust {
            Trust::Proved => healthy(service, i, obs),
            Trust::Presumed => !known_bad(i, obs),
        }
}

/// Instances of a revision that take requests and work.
#[must_use]
pub fn in_rotation(service: &ServiceState, revision: &RevisionId, obs: &Observed, trust: Trust) -> u32 {
    let n = service.of(revision).filter(|i| serves(service, i, obs, trust)).count();
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The shares that should be in force now, given those that are decided already.
///
/// Going up, the candidate gets its phase's share once its healthy capacity carries all of it, and only while nothing is
/// out of reach: an operator sees the shares of the plan and no others. Going back, stable gets what it can carry at
/// once; if both together cannot carry everything, the shares are in proportion to what each can.
#[must_use]
pub fn wanted_weights(service: &ServiceState, obs: &Observed) -> Slots<Bp> {
    if service.down {
        return Slots::default();
    }
    match (&service.stable, service.active()) {
        (None, None) => Slots::default(),
        (None, Some(r)) => first_release(service, r, obs),
        (Some(_), None) => only(service.stable_slot, service),
        (Some(stable), Some(r)) => {
            let candidate = match r.plan.limits.surge {
                None => side_by_side(service, stable, r, obs),
                Some(_) => replacing(service, stable, r, obs),
            };
            let mut weights = Slots::default();
            *weights.get_mut(r.slot) = candidate;
            *weights.get_mut(service.stable_slot) = candidate.rest();
            weights
        }
    }
}

/// Both revisions are whole while the share moves.
fn side_by_side(service: &ServiceState, stable: &RevisionId, r: &Rollout, obs: &Observed) -> Bp {
    let now = *service.weights.get(r.slot);
    let goal = goal(service, r, now);
    if goal > now {
        let carries = capacity(service, &r.to, obs) >= goal;
        return if may_rise(service, r) && carries { goal } else { now };
    }
    if goal == now || r.forced {
        return goal;
    }
    let stable_carries = capacity_for_return(service, stable, obs);
    let candidate_carries = capacity_for_return(service, &r.to, obs);
    back(now.rest(), stable_carries, candidate_carries).min(goal.rest()).rest()
}

/// One revision makes way for the other: the share follows what is in rotation, less what is about to leave, so that
/// every instance carries about the same and no slot is emptied while it has a share.
fn replacing(service: &ServiceState, stable: &RevisionId, r: &Rollout, obs: &Observed) -> Bp {
    let now = *service.weights.get(r.slot);
    let goal = goal(service, r, now);
    if r.forced {
        return goal;
    }
    let target = target(service, r);
    let aborting = r.status == Status::Aborting;
    let stable_n = in_rotation(service, stable, obs, Trust::Presumed);
    let count = |p: &Placement| p.values().sum::<u32>();
    let least = service.spec.replicas().saturating_sub(r.plan.limits.unavailable);
    let stays = |have: u32, wanted: u32, other: u32| {
        if have > wanted { wanted.max(have.min(least.saturating_sub(other))) } else { have }
    };
    let share = |trust: Trust| {
        let candidate = in_rotation(service, &r.to, obs, trust);
        let candidate_stays = stays(candidate, count(&target.candidate), stable_n);
        let stable_stays = stays(stable_n, target.stable.as_ref().map_or(stable_n, count), candidate);
        match candidate_stays + stable_stays {
            // Nothing is known to work. On the way back stable is where the operator wants to be.
            0 if aborting => Bp::ZERO,
            0 => now,
            all => Bp::ratio(u64::from(candidate_stays), u64::from(all)),
        }
    };
    let (proved, presumed) = (share(Trust::Proved), share(Trust::Presumed));
    if proved > now && may_rise(service, r) {
        proved.min(goal.max(now))
    } else if presumed < now && (r.frozen.is_none() || goal < now) {
        // Less works than before, or it is on its way back.
        presumed
    } else {
        now
    }
}

/// The share the rollout aims at; nothing while the candidate has no slot, and nothing new while it is paused.
fn goal(service: &ServiceState, r: &Rollout, now: Bp) -> Bp {
    let in_slot = service.slots.get(r.slot).as_ref() == Some(&r.to);
    match r.status {
        Status::Aborting => Bp::ZERO,
        _ if !in_slot => Bp::ZERO,
        Status::Paused => now.min(target(service, r).weight),
        _ => target(service, r).weight,
    }
}

fn may_rise(service: &ServiceState, r: &Rollout) -> bool {
    r.frozen.is_none()
        && r.status == Status::Running
        && super::decide::hook_passed(service, r, HookKind::BeforeTraffic)
}

/// Stable's share on the way back: all that it can carry, and never less than it has.
fn back(stable_now: Bp, stable_carries: Bp, candidate_carries: Bp) -> Bp {
    let total = u64::from(stable_carries.get()) + u64::from(candidate_carries.get());
    let proportion = match total {
        // Nothing is known to work: stable is where the operator wants to be.
        0 => Bp::FULL,
        t if t < 10_000 => Bp::ratio(u64::from(stable_carries.get()), t),
        _ => Bp::ZERO,
    };
    stable_now.max(stable_carries).max(proportion)
}

/// Nothing, or everything once the whole first revision is healthy.
fn first_release(service: &ServiceState, r: &Rollout, obs: &Observed) -> Slots<Bp> {
    let mut weights = Slots::default();
    let goal = match r.status {
        Status::Aborting => Bp::ZERO,
        _ => r.phase().map_or(Bp::ZERO, |p| p.weight),
    };
    let now = *service.weights.get(r.slot);
    let in_slot = service.slots.get(r.slot).as_ref() == Some(&r.to);
    let ready = in_slot && may_rise(service, r) && capacity(service, &r.to, obs) == Bp::FULL;
    *weights.get_mut(r.slot) = if goal > now && !ready { now } else { goal };
    weights
}

fn only(slot: super::world::Slot, service: &ServiceState) -> Slots<Bp> {
    let mut weights = Slots::default();
    if service.slots.get(slot).is_some() {
        *weights.get_mut(slot) = Bp::FULL;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_takes_what_stable_carries_and_splits_a_shortage_in_proportion() {
        let p = Bp::percent;
        assert_eq!(back(p(75), p(100), p(100)), p(100), "stable whole");
        assert_eq!(back(p(50), p(75), p(50)), p(75), "stable lost a quarter, the candidate carries the rest");
        assert_eq!(back(p(50), p(75), p(0)), p(100), "a dead candidate keeps nothing");
        assert_eq!(back(p(50), p(0), p(100)), p(50), "a dead stable gets nothing more");
        assert_eq!(back(p(20), p(30), p(30)), p(50), "both short: in proportion");
        assert_eq!(back(p(20), p(0), p(0)), p(100), "nothing known: where the operator wants to be");
    }
}
