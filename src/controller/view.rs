//! What the state and the world look like from outside: the snapshot that every front end shows.

use std::collections::BTreeMap;

use super::numbers::{Numbers, share};
use crate::api::{
    CheckView, DowntimeView, EmptyView, HealthView, HookView, HostView, InstanceDetails, InstanceView,
    PhaseHostView, PhaseView, PlanView, ProxyView, RevisionRef, RevisionView, Role, RolloutStatus,
    RolloutView, ServiceView, Snapshot, VerdictView,
};
use crate::engine::{Details, Usage};
use crate::fleet::model::{Check, Engine, Fleet, Rule, RuleBy, Service};
use crate::fleet::names::{Bp, InstanceId, Millis, RevisionId, ServiceName, Version};
use crate::rollout::capacity;
use crate::rollout::decide;
use crate::rollout::plan::outlook::{OnHost, gated, outlook};
use crate::rollout::plan::{Phase, Plan, plan, strategy_name};
use crate::rollout::state::{
    HookRun, HookState, Instance, Kind, Outcome, Revision, Rollout, ServiceState, Stage, State, Status,
};
use crate::rollout::target::target;
use crate::rollout::world::{Health, HealthVerdict, Observed, Restart, RunState, Slot};
use crate::text::Safe;

/// What a snapshot is made of, beside who serves it and the tails of events and probes.
pub struct Sources<'a> {
    /// What the facts add up to.
    pub state: &'a State,
    /// What is known of the world.
    pub obs: &'a Observed,
    /// Request numbers.
    pub numbers: &'a Numbers,
    /// CPU and memory, while somebody looks.
    pub usage: &'a BTreeMap<InstanceId, Usage>,
    /// Versions the engines have, per service.
    pub versions: &'a BTreeMap<ServiceName, Vec<Version>>,
    /// Controller time.
    pub now: Millis,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}

/// Everything that can be derived, sorted as [`Snapshot`] says.
#[must_use]
pub fn snapshot(from: &Sources<'_>) -> Snapshot {
    let mut s = Snapshot { schema: 1, ..Snapshot::default() };
    let Some(fleet) = &from.state.fleet else { return s };
    s.environment = Safe::new(&fleet.environment);
    s.production = fleet.production;
    s.hosts = hosts(fleet, from.obs);
    s.proxies = proxies(fleet, from.obs);
    for (name, declared) in &fleet.services {
        if !from.state.services.contains_key(name) {
            s.services.push(undeployed(declared, from));
        }
    }
    for service in from.state.services.values() {
        s.services.push(service_view(service, fleet, from));
        let rotation = in_rotation(service);
        s.instances.extend(service.instances.values().map(|i| instance_view(service, i, &rotation, from)));
    }
    s.services.sort_by(|a, b| a.name.cmp(&b.name));
    s.instances.sort_by(|a, b| a.id.cmp(&b.id));
    s
}

fn hosts(fleet: &Fleet, obs: &Observed) -> Vec<HostView> {
    let mut views: Vec<HostView> = fleet
        .hosts
        .values()
        .map(|h| {
            let seen = obs.hosts.get(&h.name);
            HostView {
                name: Safe::new(h.name.as_str()),
                engine: match h.engine {
                    Engine::Docker { .. } => "docker".into(),
                    Engine::Process { .. } => "process".into(),
                },
                address: Safe::new(&h.address.to_string()),
                reachable: seen.is_some_and(|s| s.reachable),
                error: seen.and_then(|s| s.error.clone()),
                out: h.out,
            }
        })
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

fn proxies(fleet: &Fleet, obs: &Observed) -> Vec<ProxyView> {
    let mut views: Vec<ProxyView> = fleet
        .proxies
        .values()
        .map(|p| {
            let seen = obs.proxies.get(&p.name);
            ProxyView {
                name: Safe::new(p.name.as_str()),
                kind: p.kind.as_str().into(),
                reachable: seen.is_some_and(|s| s.reachable),
                error: seen.and_then(|s| s.error.clone()),
            }
        })
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

fn undeployed(declared: &Service, from: &Sources<'_>) -> ServiceView {
    ServiceView {
        name: Safe::new(declared.name.as_str()),
        replicas: declared.replicas(),
        strategy: strategy_name(&declared.strategy).into(),
        known_versions: known_versions(declared, &[], from),
        verbs: vec![crate::api::VerbKind::Deploy],
        ..ServiceView::default()
    }
}

fn service_view(s: &ServiceState, fleet: &Fleet, from: &Sources<'_>) -> ServiceView {
    let reference = |id: &RevisionId| s.revisions.get(id).map(revision_ref);
    let kept = s.kept.as_ref();
    let mut drift = decide::drift(s, from.obs);
    if !fleet.services.contains_key(&s.spec.name) {
        drift.push("no longer in the fleet file; it goes on running until 'pilothouse down'".into());
    }
    ServiceView {
        name: Safe::new(s.spec.name.as_str()),
        stable: s.stable.as_ref().and_then(reference),
        previous: kept.and_then(|k| reference(&k.revision)),
        previous_warm: kept.is_some_and(|k| {
            let mut instances = s.of(&k.revision).peekable();
            let warm = k.warm_until.is_some();
            // Adopted ones run on after their time as well.
            instances.peek().is_some()
                && instances
                    .all(|i| warm && i.stage == Stage::Started || i.external() && i.stage == Stage::Stopped)
        }),
        rollout: s.rollout.as_ref().map(|r| rollout_view(s, r, from)),
        revisions: revisions(s, from),
        replicas: s.spec.replicas(),
        strategy: strategy_name(&s.spec.strategy).into(),
        known_versions: known_versions(&s.spec, &s.served, from),
        drift,
        next: s.next.as_ref().map(|(r, _)| Safe::new(r.version.as_str())),
        verbs: decide::possible(s),
    }
}

/// Versions the engines have, then those that served before; the newest first.
fn known_versions(spec: &Service, served: &[Version], from: &Sources<'_>) -> Vec<Safe> {
    let mut out: Vec<&Version> = from.versions.get(&spec.name).into_iter().flatten().collect();
    for v in spec.versions.iter().chain(served.iter().rev()).chain(&spec.version) {
        if !out.contains(&v) {
            out.push(v);
        }
    }
    out.into_iter().map(|v| Safe::new(v.as_str())).collect()
}

fn revision_ref(r: &Revision) -> RevisionRef {
    RevisionRef {
        id: Safe::new(r.id.as_str()),
        version: Safe::new(r.version.as_str()),
        digest: Safe::new(&r.digest),
    }
}

fn role(s: &ServiceState, id: &RevisionId) -> Role {
    if s.stable.as_ref() == Some(id) {
        Role::Stable
    } else if s.active().is_some_and(|r| r.to == *id) {
        Role::Candidate
    } else {
        Role::Old
    }
}

fn ids<'a>(s: &'a ServiceState, revision: &'a RevisionId) -> Vec<&'a InstanceId> {
    s.of(revision).map(|i| &i.id).collect()
}

fn revisions(s: &ServiceState, from: &Sources<'_>) -> Vec<RevisionView> {
    let all: u64 = s.revisions.keys().map(|id| from.numbers.recent(s.spec.name.as_str(), &ids(s, id))).sum();
    let mut views: Vec<RevisionView> = s
        .revisions
        .values()
        .map(|r| {
            let slot = s.slot_of(&r.id);
            let instances = ids(s, &r.id);
            let healthy = s.of(&r.id).filter(|i| i.stage == Stage::Started);
            RevisionView {
                revision: revision_ref(r),
                role: role(s, &r.id),
                slot: slot.map(|s| s.as_str().into()),
                weight: slot.map_or(0, |slot| s.weights.get(slot).get()),
                actual_weight: slot.map_or(Some(0), |slot| actual(s, slot, from.obs)),
                share: share(from.numbers.recent(s.spec.name.as_str(), &instances), all).map(Bp::get),
                traffic: from.numbers.view(s.spec.name.as_str(), &instances),
                healthy: healthy
                    .filter(|i| capacity::healthy(s, i, from.obs))
                    .count()
                    .try_into()
                    .unwrap_or(u32::MAX),
                wanted: wanted(s, &r.id),
            }
        })
        .collect();
    views.sort_by_key(|v| v.role as u8);
    views
}

/// The share that was read back, of the proxy and worker that deviates most; `None` when one cannot be asked.
fn actual(s: &ServiceState, slot: Slot, obs: &Observed) -> Option<u16> {
    let set = s.weights.get(slot).get();
    let mut worst = set;
    for p in &s.spec.proxies {
        let proxy = obs.proxies.get(p).filter(|p| p.reachable)?;
        let route = proxy.routes.get(&s.spec.name)?;
        for seen in [route.lowest(slot).get(), route.highest(slot).get()] {
            if seen.abs_diff(set) > worst.abs_diff(set) {
                worst = seen;
            }
        }
    }
    Some(worst)
}

fn wanted(s: &ServiceState, id: &RevisionId) -> u32 {
    match s.active() {
        Some(r) if r.to == *id => target(s, r).candidate.values().sum(),
        Some(r) if s.stable.as_ref() == Some(id) => {
            target(s, r).stable.map_or(s.spec.replicas(), |p| p.values().sum())
        }
        _ if s.stable.as_ref() == Some(id) => s.spec.replicas(),
        _ => s.of(id).filter(|i| i.stage == Stage::Started).count().try_into().unwrap_or(u32::MAX),
    }
}

fn rollout_view(s: &ServiceState, r: &Rollout, from: &Sources<'_>) -> RolloutView {
    let waiting = if r.active() { decide::waiting(from.state, s, r, from.obs, from.now) } else { Vec::new() };
    let status = match (r.status, &r.frozen) {
        (Status::Running, Some(_)) => RolloutStatus::Frozen,
        (Status::Running, None) => RolloutStatus::Running,
        (Status::Paused, _) => RolloutStatus::Paused,
        (Status::Aborting, _) => RolloutStatus::Aborting,
        (Status::Ended(Outcome::Done), _) => RolloutStatus::Done,
        (Status::Ended(Outcome::Aborted), _) => RolloutStatus::Aborted,
        (Status::Ended(Outcome::Failed), _) => RolloutStatus::Failed,
    };
    let reason = match (&r.frozen, status) {
        (Some(why), RolloutStatus::Frozen) => why.clone(),
        (_, RolloutStatus::Aborting) => aborting_reason(s, r, from.obs),
        _ => r.reason.clone(),
    };
    let version = |v: &Option<Version>| v.as_ref().map(|v| Safe::new(v.as_str()));
    RolloutView {
        id: Safe::new(r.id.as_str()),
        strategy: Safe::new(&r.strategy),
        from: version(&r.from_version),
        to: version(&r.to_version).unwrap_or_default(),
        status,
        reason,
        decision: s.decision,
        phase: r.phase,
        phases: phases(&s.spec, &r.plan, Some(r)),
        waiting,
        gate_left_ms: r.active().then(|| decide::gate_left(s, r, from.obs, from.now)).flatten().map(|m| m.0),
        by: r.by.clone(),
        started_ms: r.started_wall,
        ended_ms: r.ended_wall,
        owed: r.owed.clone(),
        verdict: r.active().then(|| decide::verdict(s, r, from.obs)).flatten().map(|v| VerdictView {
            state: v.state.as_str().into(),
            words: v.words.clone(),
            dry_run: s.spec.analysis.is_some_and(|a| a.dry_run),
        }),
        checks: if r.active() { check_views(s, r, from.obs) } else { Vec::new() },
        hooks: r.hooks.iter().map(hook_view).collect(),
        irreversible: decide::irreversible(s, r),
        held: r.held.iter().map(|h| Safe::new(h.as_str())).collect(),
        downtimes: r
            .downtimes
            .iter()
            .map(|(id, d)| DowntimeView { instance: Safe::new(id.as_str()), ms: d.0 })
            .collect(),
        empty: decide::empty_places(s, r)
            .into_iter()
            .map(|i| EmptyView {
                host: Safe::new(i.host.as_str()),
                instance: Safe::new(i.id.as_str()),
                since_ms: from.wall_ms.saturating_sub(from.now.since(i.leaving_at).0),
            })
            .collect(),
        testers: r.plan.rules.iter().map(|rule| Safe::new(&tester(rule))).collect(),
        comparison: r.from.as_ref().zip(r.from_version.as_ref()).zip(r.to_version.as_ref()).and_then(
            |((stable, was), becomes)| {
                let names = [(stable.as_str(), was.as_str()), (r.to.as_str(), becomes.as_str())];
                from.numbers.comparison(s.spec.name.as_str(), r.id.as_str(), names)
            },
        ),
    }
}

/// Whether a rollout has two revisions side by side now to be compared: the middle of an A/B release, once both have
/// their shares.
#[must_use]
pub fn compares(r: &Rollout) -> bool {
    let middle = r.phase > 0 && !r.last_phase();
    let stands = matches!(r.status, Status::Running | Status::Paused) && r.settled_at.is_some();
    r.strategy == "ab" && middle && stands
}

/// How requests are chosen, without the value that they have to carry.
fn tester(rule: &Rule) -> String {
    match rule.by {
        RuleBy::Header => format!("header {}", rule.name),
        RuleBy::Cookie => format!("cookie {}", rule.name),
    }
}

fn check_views(s: &ServiceState, r: &Rollout, obs: &Observed) -> Vec<CheckView> {
    let view = |c: &Check| {
        let seen = decide::check_seen(s, r, obs, c);
        CheckView {
            name: Safe::new(c.name.as_str()),
            answer: seen.map_or("", |s| s.answer.as_str()).into(),
            words: seen.map(|s| s.words.clone()).unwrap_or_default(),
            bad: seen.map_or(0, |s| s.bad),
            failures: c.failures,
            dry_run: c.dry_run,
        }
    };
    decide::checks(s, r).iter().map(view).collect()
}

fn hook_view(h: &HookRun) -> HookView {
    let state = match h.state {
        HookState::Begun => "running",
        HookState::Passed => "passed",
        HookState::Failed => "failed",
        HookState::Unknown | HookState::Again => "unknown",
    };
    HookView {
        hook: h.hook.as_str().into(),
        instance: Safe::new(h.instance.as_str()),
        state: state.into(),
        detail: h.detail.clone(),
    }
}

/// Why it aborts, and when stable cannot take everything, what stays and what can be done about it.
fn aborting_reason(s: &ServiceState, r: &Rollout, obs: &Observed) -> Safe {
    let left = *s.weights.get(r.slot);
    let stable = s.stable.as_ref().filter(|_| left > Bp::ZERO && s.slot_of(&r.to).is_some());
    match stable {
        Some(stable) => Safe::new(&format!(
            "{}; stable carries only {}, so {left} stays on the candidate until it does; to send everything to stable all the same: \
             pilothouse abort {} --decision {}",
            r.reason,
            capacity::capacity_for_return(s, stable, obs),
            s.spec.name,
            s.decision
        )),
        None => r.reason.clone(),
    }
}

fn phases(service: &Service, plan: &Plan, r: Option<&Rollout>) -> Vec<PhaseView> {
    let view = |(n, p): (usize, &Phase)| PhaseView {
        name: Safe::new(&p.name),
        weight: p.weight.get(),
        instances: p.candidate.values().sum(),
        gates: p.gates.iter().map(|g| Safe::new(&decide::gate_text(*g))).collect(),
        entered_ms: r.and_then(|r| r.entered_wall.get(n).copied().flatten()),
        at_least_ms: gated(service, p).0,
        hosts: Vec::new(),
    };
    plan.phases.iter().enumerate().map(view).collect()
}

/// What deploying `to` would do.
#[must_use]
pub fn plan_view(state: &State, declared: &Service, to: &Version, kind: Kind) -> PlanView {
    let s = state.services.get(&declared.name);
    let stable = s.and_then(|s| s.stable.as_ref().and_then(|id| s.revisions.get(id)));
    let plan = match kind {
        Kind::Rollback => crate::rollout::plan::back(declared),
        Kind::First | Kind::Release => plan(declared, stable.is_some()),
    };
    let outlook = outlook(declared, &plan, stable.is_some());
    let mut notes = Vec::new();
    if let Some(r) = s.and_then(ServiceState::active) {
        notes.push(Safe::new(&format!("{} is under way: a deploy takes it back first", r.id)));
    }
    if let Some(kept) = s.and_then(|s| s.kept.as_ref().and_then(|k| s.revisions.get(&k.revision)))
        && kept.version != *to
    {
        let way = stable.map(|r| r.version.to_string()).unwrap_or_default();
        notes.push(Safe::new(&format!("evicts {}; the way back is {way} afterwards", kept.version)));
    }
    PlanView {
        service: Safe::new(declared.name.as_str()),
        strategy: match (kind, stable) {
            (Kind::Rollback, _) => "rollback".into(),
            (_, None) => "first release".into(),
            _ => strategy_name(&declared.strategy).into(),
        },
        from: stable.map(|r| Safe::new(r.version.as_str())),
        to: Safe::new(to.as_str()),
        phases: phases(declared, &plan, None)
            .into_iter()
            .zip(&outlook.phases)
            .map(|(phase, hosts)| PhaseView { hosts: hosts.iter().map(on_host).collect(), ..phase })
            .collect(),
        replicas: declared.replicas(),
        lowest: outlook.lowest,
        extra: outlook.extra,
        at_least_ms: outlook.at_least.0,
        by_hand: outlook.by_hand.iter().map(|p| Safe::new(p)).collect(),
        takes: Safe::new(&outlook.takes()),
        not_promised: outlook.not_promised.iter().map(|w| Safe::new(w)).collect(),
        way_back: Safe::new(&outlook.way_back.text()),
        notes,
        decision: s.map_or(0, |s| s.decision),
    }
}

fn on_host(on: &OnHost) -> PhaseHostView {
    PhaseHostView {
        host: Safe::new(on.host.as_str()),
        stable: on.stable,
        candidate: on.candidate,
        stable_weight: on.stable_share.get(),
        candidate_weight: on.candidate_share.get(),
    }
}

/// What an engine said of an instance, for the API.
#[must_use]
pub fn details_view(id: &InstanceId, d: Details) -> InstanceDetails {
    let restart = match d.restart {
        None => "",
        Some(Restart::No) => "no",
        Some(Restart::UnlessStopped) => "unless-stopped",
    };
    InstanceDetails {
        id: Safe::new(id.as_str()),
        runs_as: d.runs_as,
        image: d.image,
        labels: d.labels,
        env: d.env,
        ports: d.ports,
        restart: restart.into(),
        exit_code: d.exit_code,
        oom: d.oom,
        ended_ms: d.ended_ms,
        error: d.error,
    }
}

/// Instances in rotation, per revision.
fn in_rotation(s: &ServiceState) -> BTreeMap<&RevisionId, u32> {
    let mut counts = BTreeMap::new();
    for i in s.instances.values().filter(|i| i.stage == Stage::Started && i.admitted) {
        *counts.entry(&i.revision).or_default() += 1;
    }
    counts
}

fn instance_view(
    s: &ServiceState,
    i: &Instance,
    rotation: &BTreeMap<&RevisionId, u32>,
    from: &Sources<'_>,
) -> InstanceView {
    let host = from.obs.hosts.get(&i.host);
    let reachable = host.is_some_and(|h| h.reachable);
    let seen = host.and_then(|h| h.instances.get(&i.id));
    let state = match (i.stage, reachable, seen.map(|s| &s.state)) {
        (_, false, _) => "unknown",
        (Stage::Placed, _, None) => "pending",
        (Stage::Leaving, _, Some(RunState::Running)) => "draining",
        (Stage::Stopped | Stage::Discarded, _, Some(RunState::Running)) if i.external() => "parked",
        (Stage::Drained | Stage::Stopped | Stage::Discarded, _, Some(RunState::Running)) => "stopping",
        (_, _, None) => "gone",
        (_, _, Some(RunState::Starting)) => "starting",
        (_, _, Some(RunState::Running)) => "running",
        // What we stopped did not exit on its own: the one is as it should be, the other is not.
        (Stage::Stopped | Stage::Discarded, _, Some(RunState::Exited { .. })) => "stopped",
        (_, _, Some(RunState::Exited { .. })) => "exited",
    };
    let health = from.obs.health.get(&i.id);
    let usage = from.usage.get(&i.id);
    InstanceView {
        id: Safe::new(i.id.as_str()),
        service: Safe::new(s.spec.name.as_str()),
        host: Safe::new(i.host.as_str()),
        revision: Safe::new(i.revision.as_str()),
        version: s.revisions.get(&i.revision).map(|r| Safe::new(r.version.as_str())).unwrap_or_default(),
        role: role(s, &i.revision),
        endpoint: i.endpoint.map(|e| Safe::new(&e.to_string())),
        state: state.into(),
        health: match health.map(|h| h.verdict).filter(|_| i.stage <= Stage::Leaving) {
            Some(HealthVerdict::Healthy) => HealthView::Healthy,
            Some(HealthVerdict::Unhealthy) => HealthView::Unhealthy,
            Some(HealthVerdict::Unknown) | None => HealthView::Unknown,
        },
        probe: probe_text(health, seen.and_then(|s| s.engine_health)),
        probe_ms: health.map(|h| h.latency_ms),
        weight: instance_weight(s, i, rotation.get(&i.revision).copied().unwrap_or(0)),
        cpu_percent: usage.map(|u| u.cpu_percent),
        memory_bytes: usage.map(|u| u.memory_bytes),
        started_ms: seen.filter(|s| s.state == RunState::Running).and_then(|s| s.started_ms),
        restarts: seen.map_or(0, |s| s.restarts),
    }
}

/// The last probe in words. What the engine's own check says is a hint beside it, where the two differ.
fn probe_text(health: Option<&Health>, engine: Option<bool>) -> Safe {
    let last = health.map(|h| h.last.clone()).unwrap_or_default();
    let ours = health.map_or(HealthVerdict::Unknown, |h| h.verdict);
    match (engine, ours) {
        (Some(false), HealthVerdict::Healthy | HealthVerdict::Unknown) => {
            Safe::new(&format!("{last} (engine: unhealthy)"))
        }
        _ => last,
    }
}

/// The instance's part of its slot's share.
fn instance_weight(s: &ServiceState, i: &Instance, in_rotation: u32) -> Option<u16> {
    let slot = s.slot_of(&i.revision)?;
    if i.stage != Stage::Started || !i.admitted {
        return Some(0);
    }
    u16::try_from(u32::from(s.weights.get(slot).get()) / in_rotation.max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_s_own_check_is_a_hint_beside_ours() {
        let health =
            |verdict| Health { verdict, since: Millis(0), last: "200".into(), latency_ms: 1, failures: 0 };
        let text = |verdict, engine| probe_text(Some(&health(verdict)), engine).to_string();
        assert_eq!(text(HealthVerdict::Healthy, Some(false)), "200 (engine: unhealthy)");
        assert_eq!(text(HealthVerdict::Healthy, Some(true)), "200");
        assert_eq!(text(HealthVerdict::Healthy, None), "200");
        assert_eq!(text(HealthVerdict::Unhealthy, Some(false)), "200");
    }
}
