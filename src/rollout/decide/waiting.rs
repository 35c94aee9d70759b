//! What a rollout waits for, owes, or finds different, in words; and whether its gates are open.

use std::collections::{BTreeMap, BTreeSet};

use super::life::certain;
use super::place::missing;
use super::{checks, hooks, judge};
use crate::fleet::model::Gate;
use crate::fleet::names::{Bp, HostName, InstanceId, Millis};
use crate::rollout::capacity::{Trust, healthy, in_rotation, serves};
use crate::rollout::plan::Placement;
use crate::rollout::reconcile::route;
use crate::rollout::state::{Instance, Rollout, ServiceState, Stage, State, Status};
use crate::rollout::target::target;
use crate::rollout::world::{HealthVerdict, Observed, RunState};
use crate::text::Safe;

/// What an abort has not done yet, and why, where that is known.
pub(super) fn owed(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Vec<Safe> {
    let mut owed: Vec<Safe> = Vec::new();
    let failing = |subject: String| obs.failures.get(&subject).map(|f| format!(" ({})", f.error));
    let share = *service.weights.get(r.slot);
    let replicas = service.spec.replicas();
    if share > Bp::ZERO
        && let Some(stable) = &service.stable
    {
        let works = in_rotation(service, stable, obs, Trust::Presumed);
        owed.push(Safe::new(&format!(
            "{share} stays on the candidate: {works} of {replicas} instances of stable work"
        )));
    }
    let want = route(service, obs);
    for p in &service.spec.proxies {
        let seen = obs.proxies.get(p);
        let away = seen.filter(|p| !p.reachable).map(|p| format!(" ({})", unreachable(p.error.as_ref())));
        let has = seen.and_then(|p| p.routes.get(&service.spec.name));
        let still = has.is_some_and(|route| service.slot_of(&r.to).is_some_and(|s| route.reaches(s)));
        let why = away.or_else(|| failing(format!("routes:{p}")));
        if still && share == Bp::ZERO || why.is_some() || seen.is_none() {
            let why = why.unwrap_or_default();
            owed.push(Safe::new(&format!(
                "proxy {p}: weight {share} for the candidate was not read back yet{why}"
            )));
        } else if r.plan.limits.surge.is_some() && !has.is_some_and(|have| have.serves(&want)) {
            owed.push(Safe::new(&format!("proxy {p}: stable's instances were not all read back yet")));
        } else if certain(p, obs, now).is_none() {
            owed.push(Safe::new(&format!("proxy {p}: a write to it may still be on its way")));
        }
    }
    for i in service.of(&r.to).filter(|i| i.stage != Stage::Stopped) {
        let host = obs.hosts.get(&i.host).filter(|h| !h.reachable);
        let away = host.map(|h| format!(" (host {}: {})", i.host, unreachable(h.error.as_ref())));
        let why = away
            .or_else(|| failing(format!("stop:{}", i.id)))
            .or_else(|| failing(format!("remove:{}", i.id)))
            .unwrap_or_default();
        let left: u32 =
            obs.proxies.values().flat_map(|p| p.routes.values()).map(|r| r.in_flight(&i.id)).sum();
        let what = match i.stage {
            Stage::Leaving if left > 0 => format!("{left} requests to {} are in flight", i.id),
            Stage::Discarded => format!("{} is still to be removed", i.id),
            _ => format!("{} is still to be stopped", i.id),
        };
        owed.push(Safe::new(&format!("{what}{why}")));
    }
    for (host, n) in target(service, r).stable.iter().flatten() {
        let here = || service.stable.iter().flat_map(|s| service.of(s)).filter(|i| i.host == *host);
        let back = here().filter(|i| i.stage == Stage::Started && i.admitted).count();
        let works = here().filter(|i| serves(service, i, obs, Trust::Presumed)).count();
        if back < *n as usize {
            let why = here().find_map(|i| failing(format!("start:{}", i.id))).unwrap_or_default();
            owed.push(Safe::new(&format!("{back} of {n} instances of stable run on {host} again{why}")));
        } else if works < *n as usize {
            let last = here()
                .filter_map(|i| obs.health.get(&i.id))
                .find(|h| h.verdict != HealthVerdict::Healthy)
                .map(|h| format!(", last probe: {}", h.last))
                .unwrap_or_default();
            owed.push(Safe::new(&format!("{works} of {n} instances of stable on {host} work{last}")));
        }
    }
    owed
}

/// Why something is not reachable: for a reason, or because nobody looked yet.
fn unreachable(error: Option<&Safe>) -> &str {
    error.map_or("not looked at yet", Safe::as_str)
}

/// Whether the phase's target is what the world was read back to be.
pub(super) fn settled(service: &ServiceState, r: &Rollout, obs: &Observed) -> bool {
    unsettled(service, r, obs).is_empty()
}

/// What the target still lacks, in words.
fn unsettled(service: &ServiceState, r: &Rollout, obs: &Observed) -> Vec<Safe> {
    let target = target(service, r);
    let mut out = Vec::new();
    let (mut ready, mut wanted) = (0, 0);
    for (host, n) in &target.candidate {
        if obs.hosts.get(host).is_some_and(|h| h.out) {
            continue;
        }
        wanted += n;
        let on_host = service.of(&r.to).filter(|i| i.host == *host);
        let n_ready = on_host.filter(|i| serves(service, i, obs, Trust::Proved)).count();
        ready += (*n).min(u32::try_from(n_ready).unwrap_or(u32::MAX));
    }
    if ready < wanted {
        let last = service
            .of(&r.to)
            .filter(|i| i.stage == Stage::Started)
            .filter_map(|i| obs.health.get(&i.id))
            .find(|h| h.verdict != HealthVerdict::Healthy)
            .map(|h| format!(", last probe: {}", h.last))
            .unwrap_or_default();
        out.push(Safe::new(&format!("{ready} of {wanted} candidate instances healthy{last}")));
    }
    if let Some(stable) = &target.stable {
        let left = surplus(service, stable);
        if left > 0 {
            out.push(Safe::new(&format!("{left} of the old instances to be taken out")));
        }
    }
    if *service.weights.get(r.slot) != target.weight {
        out.push(Safe::new(&format!("weight {} of {}", service.weights.get(r.slot), target.weight)));
    }
    let want = route(service, obs);
    for p in &service.spec.proxies {
        let serves = obs.proxies.get(p).is_some_and(|p| {
            p.reachable && p.routes.get(&service.spec.name).is_some_and(|have| have.serves(&want))
        });
        if !serves {
            out.push(Safe::new(&format!("{p} was not yet read back at {}", service.weights.get(r.slot))));
        }
    }
    out
}

/// Instances of stable that still run although the target has no place for them.
fn surplus(service: &ServiceState, target: &Placement) -> usize {
    let Some(stable) = &service.stable else { return 0 };
    let hosts: BTreeSet<_> = service.of(stable).map(|i| &i.host).collect();
    let over = |host: &HostName| {
        let runs = service.of(stable).filter(|i| i.host == *host && i.stage <= Stage::Drained).count();
        runs.saturating_sub(target.get(host).copied().unwrap_or(0) as usize)
    };
    hosts.into_iter().map(over).sum()
}

/// What the rollout waits for now, in words; empty when it waits for nothing.
#[must_use]
pub fn waiting(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Vec<Safe> {
    if r.status == Status::Aborting {
        return owed(service, r, obs, now);
    }
    let mut out = unsettled(service, r, obs);
    if let Some(h) = hooks::running(r) {
        let text = format!("hook {} runs on {} as {}", h.hook.as_str(), h.host, h.instance);
        out.insert(0, Safe::new(&text));
    }
    let target = target(service, r);
    out.extend(missing(state, service, &r.to, &target.candidate, obs, r.plan.limits.in_place).1);
    if out.is_empty()
        && let Some(at) = r.settled_at
        && !r.gates_opened
    {
        for gate in closed_gates(service, r, obs, at, now) {
            match gate {
                Gate::Checks => out.extend(checks::open(service, r, obs, at.max(r.thawed_at))),
                gate => out.push(Safe::new(&gate_text(gate))),
            }
        }
    }
    out
}

/// A gate in words, as it is declared.
#[must_use]
pub fn gate_text(gate: Gate) -> String {
    match gate {
        Gate::HealthyFor(d) => format!("healthy for {d}"),
        Gate::Pause(d) => format!("pause {d}"),
        Gate::Manual => "promote".to_owned(),
        Gate::Verdict => "a passing verdict".to_owned(),
        Gate::Checks => "good checks".to_owned(),
    }
}

pub(super) fn closed_gates(
    service: &ServiceState,
    r: &Rollout,
    obs: &Observed,
    settled_at: Millis,
    now: Millis,
) -> Vec<Gate> {
    let Some(phase) = r.phase() else { return Vec::new() };
    let open = |gate: &Gate| match gate {
        Gate::Manual => false,
        Gate::Verdict => judge::passed(service, r, obs, settled_at, now),
        Gate::Checks => checks::open(service, r, obs, settled_at.max(r.thawed_at)).is_empty(),
        Gate::Pause(d) => now.since(settled_at) >= *d || judge::ends_pauses(service, r, obs, settled_at, now),
        Gate::HealthyFor(d) => service.of(&r.to).filter(|i| i.stage == Stage::Started).all(|i| {
            // What passed while something was out of reach was not watched: never healthy by silence.
            let since = obs.health.get(&i.id).map(|h| h.since.max(settled_at).max(r.thawed_at));
            healthy(service, i, obs) && since.is_some_and(|s| now.since(s) >= *d)
        }),
    };
    phase.gates.iter().copied().filter(|g| !open(g)).collect()
}

/// Time until the longest timed gate of the phase opens; `None` when there is none that is closed.
#[must_use]
pub fn gate_left(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Millis> {
    let settled_at = r.settled_at.filter(|_| !r.gates_opened)?;
    closed_gates(service, r, obs, settled_at, now)
        .into_iter()
        .filter_map(|g| match g {
            Gate::Manual | Gate::Checks => None,
            Gate::Verdict => judge::soak_left(service, r, obs, settled_at, now),
            Gate::Pause(d) => Some(settled_at.plus(d).since(now)),
            Gate::HealthyFor(d) => Some(settled_at.max(r.thawed_at).plus(d).since(now)),
        })
        .max()
}

/// Differences between what should run and what does, in words. Put right by `up`, but for the way back: what was kept
/// for it and is gone is only made anew by the rollback itself.
#[must_use]
pub fn drift(service: &ServiceState, obs: &Observed) -> Vec<Safe> {
    let mut out = Vec::new();
    let Some(stable) = &service.stable else { return out };
    for i in service.of(stable).filter(|i| i.stage == Stage::Started) {
        let Some(host) = obs.hosts.get(&i.host).filter(|h| h.reachable) else { continue };
        match host.instances.get(&i.id) {
            None => out.push(Safe::new(&format!("{} is gone from {}", i.id, i.host))),
            Some(seen) => {
                if let RunState::Exited { code, .. } = seen.state {
                    let code = code.map(|c| format!(" with {c}")).unwrap_or_default();
                    out.push(Safe::new(&format!("{} on {} has exited{code}", i.id, i.host)));
                }
                if service.revisions.get(stable).is_some_and(|r| r.digest != seen.digest) {
                    out.push(Safe::new(&format!("{} on {} runs another artifact", i.id, i.host)));
                }
            }
        }
    }
    if let (Some(means), Some(r)) = (obs.means.get(stable), service.revisions.get(stable)) {
        if means.digest.as_ref().is_some_and(|d| *d != r.digest) {
            out.push(Safe::new(&format!(
                "the tag {} means another artifact now; what runs keeps the one it was deployed with",
                r.version
            )));
        }
        if !means.env_same {
            out.push(Safe::new(&format!(
                "the env file is not what it was when {} was deployed; what runs keeps the values it started with",
                r.version
            )));
        }
    }
    out.extend(strangers(service, obs));
    if service.active().is_none() {
        out.extend(way_back(service, obs));
        for (host, wanted) in &service.spec.placement {
            let have = service.of(stable).filter(|i| i.host == *host && i.stage == Stage::Started).count();
            if have != *wanted as usize {
                out.push(Safe::new(&format!("{host} has {have} of {wanted} declared instances")));
            }
        }
    }
    out
}

/// Kept instances that somebody removed, per host. What held their image is gone with them.
fn way_back(service: &ServiceState, obs: &Observed) -> Vec<Safe> {
    let kept = service.kept.as_ref().and_then(|k| service.revisions.get(&k.revision));
    let Some(kept) = kept else { return Vec::new() };
    let mut gone: BTreeMap<&HostName, usize> = BTreeMap::new();
    // What was adopted is nobody's to make anew.
    let stays = |i: &&Instance| matches!(i.stage, Stage::Started | Stage::Stopped) && !i.discard;
    for i in service.of(&kept.id).filter(stays).filter(|i| i.adopts.is_none()) {
        let host = obs.hosts.get(&i.host).filter(|h| h.reachable && !h.out);
        if host.is_some_and(|h| !h.instances.contains_key(&i.id)) {
            *gone.entry(&i.host).or_default() += 1;
        }
    }
    let words = |(host, n): (&HostName, usize)| {
        let (which, what) = if n == 1 {
            ("1 kept instance".to_owned(), "makes it anew")
        } else {
            (format!("{n} kept instances"), "makes them anew")
        };
        Safe::new(&format!(
            "{which} of {} gone from {host}: a rollback {what}, and has to pull the image if that is gone too",
            kept.version
        ))
    };
    gone.into_iter().map(words).collect()
}

/// Containers that carry this service's labels and that nobody here made: started by hand, or forged. Left alone.
fn strangers(service: &ServiceState, obs: &Observed) -> Vec<Safe> {
    let hook = |id: &InstanceId| service.rollout.iter().flat_map(|r| &r.hooks).any(|h| h.instance == *id);
    let mut out = Vec::new();
    for (name, host) in obs.hosts.iter().filter(|(_, h)| h.reachable) {
        for id in host.instances.values().filter(|i| i.service == service.spec.name).map(|i| &i.id) {
            if !service.instances.contains_key(id) && !service.removed.contains(id) && !hook(id) {
                out.push(Safe::new(&format!(
                    "{id} on {name} carries our labels and is not ours: left alone"
                )));
            }
        }
    }
    out
}
