//! What the world as it is means for a rollout: the next facts, or none when there is nothing to decide.

use super::waiting::{closed_gates, owed, settled, waiting};
use super::{OURSELVES, hooks, judge, life, place, steer, verb};
use crate::fleet::names::{Bp, Millis};
use crate::rollout::capacity::{known_bad, wanted_weights};
use crate::rollout::fact::{By, Fact};
use crate::rollout::state::{
    HookKind, Instance, Kind, Outcome, Revision, Rollout, ServiceState, Stage, State, Status,
};
use crate::rollout::target::target;
use crate::rollout::world::{Observed, RunState};
use crate::text::Safe;

/// How long an abort waits for what it cannot reach before it ends and says what it owes.
const OWED_AFTER: Millis = Millis::secs(30);
/// Failed starts of one instance in a row that make its rollout fail.
const START_ATTEMPTS: u32 = 3;

/// The facts that follow now. The caller journals and applies them and asks again until there are none.
#[must_use]
pub fn advance(state: &State, obs: &Observed, now: Millis) -> Vec<Fact> {
    let mut facts = Vec::new();
    for service in state.services.values() {
        facts.extend(life::instances(service, obs, now));
    }
    for service in state.services.values() {
        let out = |i: &&Instance| obs.hosts.get(&i.host).is_some_and(|h| h.out);
        facts.extend(service.instances.values().filter(out).filter_map(|i| leave(service, i, true)));
    }
    if !facts.is_empty() {
        return facts;
    }
    for service in state.services.values() {
        let mut of_service = life::slots(service, obs, now);
        if of_service.is_empty() {
            of_service = weights(service, obs);
        }
        if of_service.is_empty() && service.down {
            of_service = going_down(service, obs, now);
        } else if of_service.is_empty() {
            of_service = match service.active() {
                Some(r) => rollout(state, service, r, obs, now),
                None => service.next.as_ref().map_or_else(|| at_rest(service, obs, now), |n| next(state, n)),
            };
        }
        facts.extend(of_service);
    }
    facts
}

fn weights(service: &ServiceState, obs: &Observed) -> Vec<Fact> {
    let weights = wanted_weights(service, obs);
    if weights == service.weights {
        return Vec::new();
    }
    vec![Fact::WeightDecided { service: service.spec.name.clone(), weights }]
}

fn leave(service: &ServiceState, i: &Instance, discard: bool) -> Option<Fact> {
    let (service, instance) = (service.spec.name.clone(), i.id.clone());
    match i.stage {
        Stage::Placed | Stage::Started => Some(Fact::InstanceLeaving { service, instance, discard }),
        Stage::Stopped if discard => Some(Fact::InstanceDiscarded { service, instance }),
        Stage::Leaving | Stage::Drained | Stage::Stopped | Stage::Discarded => None,
    }
}

/// A service that is taken away: everything leaves, then it is gone.
fn going_down(service: &ServiceState, obs: &Observed, now: Millis) -> Vec<Fact> {
    let name = service.spec.name.clone();
    let mut facts: Vec<Fact> = Vec::new();
    if let Some(r) = service.active() {
        facts.push(Fact::RolloutEnded {
            service: name.clone(),
            rollout: r.id.clone(),
            outcome: Outcome::Aborted,
            reason: "the service was taken down".into(),
            owed: Vec::new(),
        });
        return facts;
    }
    facts.extend(service.instances.values().filter_map(|i| leave(service, i, true)));
    let empty = service.instances.is_empty() && service.slots.a.is_none() && service.slots.b.is_none();
    if empty && crate::rollout::world::Slot::BOTH.iter().all(|&s| life::weightless(service, s, obs, now)) {
        facts.push(Fact::ServiceGone { service: name });
    }
    facts
}

/// What was asked for while another rollout was under way.
fn next(state: &State, (revision, by): &(Revision, By)) -> Vec<Fact> {
    verb::deploy(state, revision, Kind::Release, None, by).unwrap_or_else(|refused| {
        let service = revision.spec.name.clone();
        vec![Fact::NextDropped { service, reason: Safe::new(&refused.message) }]
    })
}

/// From one attempt to start a lost instance again to the next.
const RESTORE_EVERY: Millis = Millis::secs(10);

/// Nothing is under way: what is kept ends in its time, and what was lost comes back, where the fleet file says so.
fn at_rest(service: &ServiceState, obs: &Observed, now: Millis) -> Vec<Fact> {
    let facts = kept(service, now);
    let (Some(stable), Some(last)) = (&service.stable, &service.rollout) else { return facts };
    if !facts.is_empty() || !service.spec.restore {
        return facts;
    }
    // What was adopted is its owner's to start.
    let lost = service.of(stable).filter(|i| {
        let waited = now.since(i.placed_at) >= RESTORE_EVERY;
        i.stage == Stage::Started && waited && !i.external() && life::lost(i, obs)
    });
    lost.map(|i| life::revive(service, i, &last.id)).collect()
}

/// A kept revision runs until its time is over, then is stopped; what is neither stable nor kept goes.
fn kept(service: &ServiceState, now: Millis) -> Vec<Fact> {
    let name = service.spec.name.clone();
    let mut facts = Vec::new();
    let kept = service.kept.as_ref();
    if let Some(k) = kept
        && k.warm_until.is_some_and(|until| now >= until)
    {
        facts.push(Fact::KeepEnded { service: name, revision: k.revision.clone() });
        return facts;
    }
    for i in service.instances.values() {
        let is_kept = kept.is_some_and(|k| k.revision == i.revision);
        let warm = kept.is_some_and(|k| k.warm_until.is_some());
        let stable = service.stable.as_ref() == Some(&i.revision);
        if !(stable || is_kept && warm) {
            facts.extend(leave(service, i, !is_kept));
        }
    }
    facts
}

fn rollout(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Vec<Fact> {
    let evicted = evict(service, r);
    if !evicted.is_empty() {
        return evicted;
    }
    match r.status {
        Status::Aborting => aborting(state, service, r, obs, now),
        Status::Running | Status::Paused => going_up(state, service, r, obs, now),
        Status::Ended(_) => Vec::new(),
    }
}

/// What belongs neither to stable nor to the candidate makes room.
fn evict(service: &ServiceState, r: &Rollout) -> Vec<Fact> {
    let name = service.spec.name.clone();
    if let Some(k) = &service.kept {
        return vec![Fact::Evicted { service: name, revision: k.revision.clone() }];
    }
    service
        .instances
        .values()
        .filter(|i| i.revision != r.to && Some(&i.revision) != service.stable.as_ref())
        .filter_map(|i| leave(service, i, true))
        .collect()
}

fn aborting(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Vec<Fact> {
    let name = service.spec.name.clone();
    let candidates: Vec<&Instance> = service.of(&r.to).collect();
    // What stable has lost is started again: it is to carry everything.
    let lost = service.instances.values().filter(|i| service.stable.as_ref() == Some(&i.revision));
    let revived: Vec<Fact> = lost
        .filter(|i| i.stage == Stage::Started && life::lost(i, obs))
        .map(|i| life::revive(service, i, &i.rollout))
        .collect();
    if !revived.is_empty() {
        return revived;
    }
    let restarted = place::stable(state, service, r, obs);
    if !restarted.is_empty() {
        return restarted;
    }
    if let Some(replaced) = steer::replaced(service, r, obs, now) {
        return vec![replaced];
    }
    // Traffic first, everything else after it was read back.
    let slot = service.slot_of(&r.to);
    if slot.is_none_or(|s| life::weightless(service, s, obs, now)) {
        if slot.is_some()
            && let Some(safe) = judge::made_safe(service, r, obs, now)
        {
            return vec![safe];
        }
        let discard = r.kind != Kind::Rollback;
        let leaving: Vec<Fact> = candidates.iter().filter_map(|i| leave(service, i, discard)).collect();
        if !leaving.is_empty() {
            return leaving;
        }
    }
    if r.plan.limits.surge.is_some()
        && let Some(leaving) = steer::make_way(service, r, obs, now, true)
    {
        return vec![leaving];
    }
    let away = |i: &&Instance| i.stage == Stage::Stopped && r.kind == Kind::Rollback;
    let whole = r.plan.limits.surge.is_none() || stable_is_whole(service, r) && steer::in_force(service, obs);
    let finished = slot.is_none() && candidates.iter().all(away) && whole;
    let owed = if finished { Vec::new() } else { owed(service, r, obs, now) };
    let waited = now.since(r.abort_at) > OWED_AFTER.plus(service.spec.drain.deadline);
    // While the candidate still has to carry a share, the abort is not over, however long it takes.
    let returned = *service.weights.get(r.slot) == Bp::ZERO || slot.is_none();
    if !(finished || waited && returned) {
        return Vec::new();
    }
    vec![Fact::RolloutEnded {
        service: name,
        rollout: r.id.clone(),
        outcome: Outcome::Aborted,
        reason: r.reason.clone(),
        owed,
    }]
}

/// Whether as many instances of stable are in rotation as there were.
fn stable_is_whole(service: &ServiceState, r: &Rollout) -> bool {
    let Some(stable) = &service.stable else { return true };
    target(service, r).stable.iter().flatten().all(|(host, n)| {
        let here = service.of(stable).filter(|i| i.host == *host && !i.discard);
        let (mut back, mut all) = (0, 0);
        for i in here {
            all += 1;
            back += u32::from(i.stage == Stage::Started && i.admitted);
        }
        back >= (*n).min(all)
    })
}

fn going_up(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Vec<Fact> {
    let (name, rollout) = (service.spec.name.clone(), r.id.clone());
    if service.stable.as_ref() == Some(&r.to) {
        let reason = Safe::default();
        return vec![Fact::RolloutEnded {
            service: name,
            rollout,
            outcome: Outcome::Done,
            reason,
            owed: Vec::new(),
        }];
    }
    // A kept instance that died while nobody needed it is started again, before that counts as a failure of the way back.
    let revived: Vec<Fact> = service
        .of(&r.to)
        .filter(|i| i.stage == Stage::Started && i.rollout != r.id && life::lost(i, obs))
        .map(|i| life::revive(service, i, &r.id))
        .collect();
    if !revived.is_empty() {
        return revived;
    }
    if let Some(ended) = hooks::ended(service, r, obs, now) {
        return ended;
    }
    if let Some(said) = judge::news(service, r, obs) {
        return vec![said];
    }
    if let Some(reason) = failure(state, service, r, obs, now) {
        return vec![if hooks::irreversible(service, r) {
            if r.status == Status::Paused {
                return Vec::new();
            }
            let reason = Safe::new(&format!(
                "{reason}; something irreversible was done, so nothing goes back by itself: abort or resume"
            ));
            Fact::Paused { service: name, rollout, reason, by: OURSELVES.into() }
        } else if stable_fails_too(service, r, obs) {
            let reason =
                Safe::new(&format!("{reason}; stable is failing as well, so nothing is sent back to it"));
            if r.status == Status::Paused {
                return Vec::new();
            }
            Fact::Paused { service: name, rollout, reason, by: OURSELVES.into() }
        } else {
            Fact::AbortRequested { service: name, rollout, reason, by: OURSELVES.into() }
        }];
    }
    match (&r.frozen, out_of_reach(service, r, obs)) {
        (None, Some(reason)) => return vec![Fact::Frozen { service: name, rollout, reason }],
        (Some(_), None) => return vec![Fact::Thawed { service: name, rollout }],
        (Some(_), Some(_)) => return Vec::new(),
        (None, None) => {}
    }
    if let Some(pause) = judge::pauses(service, r, obs, now) {
        return vec![pause];
    }
    let paused = r.status == Status::Paused;
    // A held host goes back whatever else stands still.
    let mut placed = if r.held.is_empty() { Vec::new() } else { place::stable(state, service, r, obs) };
    if placed.is_empty() && !paused {
        if let Some(first) = hooks::gate(service, r, HookKind::BeforeStart, obs) {
            return first;
        }
        if hooks::ready_for_traffic(service, r, obs)
            && let Some(first) = hooks::gate(service, r, HookKind::BeforeTraffic, obs)
            && !first.is_empty()
        {
            return first;
        }
        placed = place::candidate(state, service, r, obs);
    }
    if placed.is_empty() && !(paused && r.held.is_empty()) {
        placed.extend(steer::make_way(service, r, obs, now, paused));
    }
    if !placed.is_empty() {
        return placed;
    }
    if let Some(replaced) = steer::replaced(service, r, obs, now) {
        return vec![replaced];
    }
    if paused || !settled(service, r, obs) {
        return Vec::new();
    }
    let Some(phase) = r.phase() else { return Vec::new() };
    let Some(settled_at) = r.settled_at else {
        return vec![Fact::PhaseSettled { service: name, rollout, phase: r.phase, weight: phase.weight }];
    };
    if !r.gates_opened && !closed_gates(service, r, obs, settled_at, now).is_empty() {
        return Vec::new();
    }
    if r.last_phase() && !r.held.is_empty() {
        Vec::new()
    } else if r.last_phase() {
        if let Some(first) = hooks::gate(service, r, HookKind::AfterPromote, obs) {
            return first;
        }
        vec![Fact::Promoted { service: name, rollout }]
    } else {
        vec![Fact::PhaseEntered { service: name, rollout, phase: r.phase + 1, by: OURSELVES.into() }]
    }
}

/// Why the candidate has failed, if it has.
fn failure(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Safe> {
    if let Some(reason) = judge::failed(service, r, obs) {
        return Some(reason);
    }
    for i in service.of(&r.to).filter(|i| !r.held.contains(&i.host)) {
        let host = obs.hosts.get(&i.host).filter(|h| h.reachable);
        if i.stage == Stage::Started
            && let Some(host) = host
        {
            match host.instances.get(&i.id).map(|s| &s.state) {
                None => return Some(Safe::new(&format!("{} is gone from {}", i.id, i.host))),
                Some(RunState::Exited { code, oom }) => {
                    let how = match (oom, code) {
                        (true, _) => "was killed for lack of memory".to_owned(),
                        (_, Some(code)) => format!("exited with {code}"),
                        (_, None) => "exited".to_owned(),
                    };
                    return Some(Safe::new(&format!("{} on {} {how}", i.id, i.host)));
                }
                Some(RunState::Running | RunState::Starting) => {}
            }
            if i.admitted && known_bad(i, obs) {
                let last = obs.health.get(&i.id).map(|h| h.last.to_string()).unwrap_or_default();
                return Some(Safe::new(&format!("{} on {} became unhealthy ({last})", i.id, i.host)));
            }
        }
        if let Some(deadline) = r.plan.limits.healthy_deadline
            && i.stage <= Stage::Started
            && !i.admitted
            && r.status == Status::Running
            && r.frozen.is_none()
            && now.since(i.placed_at.max(r.resumed_at)) > deadline
        {
            let last =
                obs.health.get(&i.id).map(|h| format!(" (last probe: {})", h.last)).unwrap_or_default();
            let text = format!("{} on {} was not healthy within {deadline}{last}", i.id, i.host);
            return Some(Safe::new(&text));
        }
        if i.stage == Stage::Placed {
            let exited = host.and_then(|h| h.instances.get(&i.id)).and_then(|s| match s.state {
                RunState::Exited { code, .. } => code,
                RunState::Running | RunState::Starting => None,
            });
            if let Some(f) = obs.failures.get(&start_key(i)).filter(|f| f.count >= START_ATTEMPTS) {
                let code = exited.map(|c| format!(" (exit {c})")).unwrap_or_default();
                return Some(Safe::new(&format!("{} does not start on {}: {}{code}", i.id, i.host, f.error)));
            }
        }
    }
    for (subject, f) in obs.failures.iter().filter(|(_, f)| f.count >= START_ATTEMPTS) {
        if let Some(host) = subject.strip_prefix(&format!("artifact:{}:", r.to)) {
            return Some(Safe::new(&format!("the artifact cannot be had on {host}: {}", f.error)));
        }
    }
    let overdue = r.settled_at.is_none()
        && r.status == Status::Running
        && r.frozen.is_none()
        && hooks::running(r).is_none()
        && now.since(r.progress_at) > service.spec.progress_deadline;
    overdue.then(|| {
        let waiting = waiting(state, service, r, obs, now);
        let what = waiting.first().map(ToString::to_string).unwrap_or_default();
        Safe::new(&format!("no progress for {}: {what}", service.spec.progress_deadline))
    })
}

/// The name under which failed starts of an instance are counted in [`Observed::failures`].
#[must_use]
pub fn start_key(i: &Instance) -> String {
    format!("start:{}", i.id)
}

fn stable_fails_too(service: &ServiceState, r: &Rollout, obs: &Observed) -> bool {
    if judge::stable_fails(service, r, obs) {
        return true;
    }
    let Some(stable) = &service.stable else { return false };
    let mut any = false;
    let all_bad = service.of(stable).filter(|i| i.stage == Stage::Started).all(|i| {
        any = true;
        known_bad(i, obs)
    });
    any && all_bad
}

/// What the rollout needs and cannot reach.
fn out_of_reach(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Safe> {
    // A controller that has just started knows nothing yet, and no reason either.
    let words = |what: String, error: &Option<Safe>| match error {
        Some(error) => Safe::new(&format!("{what} cannot be reached: {error}")),
        None => Safe::new(&format!("{what} was not looked at yet")),
    };
    for p in &service.spec.proxies {
        if let Some(proxy) = obs.proxies.get(p).filter(|p| !p.reachable) {
            return Some(words(format!("proxy {p}"), &proxy.error));
        }
    }
    let phase = r.phase()?;
    for host in phase.candidate.keys().chain(phase.stable.keys()) {
        if let Some(h) = obs.hosts.get(host).filter(|h| !h.reachable) {
            return Some(words(format!("host {host}"), &h.error));
        }
    }
    None
}
