//! What an operator's verb means: facts, or a refusal that says why.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::life;
use super::place::{self, missing};
use super::refusal::{ErrorCode, Refusal, VerbKind, refuse};
use crate::fleet::model::{Fleet, Service};
use crate::fleet::names::{Bp, HostName, InstanceId, RevisionId, RolloutId, ServiceName};
use crate::rollout::fact::{By, Fact};
use crate::rollout::plan;
use crate::rollout::state::{
    HookRun, HookState, Instance, Kind, Outcome, Revision, Rollout, ServiceState, Stage, State, Status,
};
use crate::rollout::world::{Observed, Slot, Slots};
use crate::text::Safe;

/// A verb that needs nothing resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// On to the next phase, or with `full` to the end.
    Promote {
        /// Skip the remaining gates.
        full: bool,
    },
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Back to stable.
    Abort,
    /// The instances of one host go back to stable, the others stay.
    Hold(HostName),
    /// Held hosts take part again, this one or all; a pause ends.
    Retry(Option<HostName>),
}

/// Refuses a risky verb that was decided on something that is no longer so.
fn fresh(service: &ServiceState, decision: Option<u64>) -> Result<(), Refusal> {
    match decision {
        Some(seen) if seen != service.decision => {
            let now = match service.active() {
                Some(r) => format!(
                    "the rollout is now in phase {} ({}){}",
                    r.phase + 1,
                    r.phase().map(|p| p.name.clone()).unwrap_or_default(),
                    match r.status {
                        Status::Paused => ", paused",
                        Status::Aborting => ", aborting",
                        _ => "",
                    }
                ),
                None => "no rollout is under way now".to_owned(),
            };
            refuse(
                ErrorCode::Stale,
                format!("decided on {seen}, but {now} (decision {})", service.decision),
                "look again, then decide again",
            )
        }
        _ => Ok(()),
    }
}

/// What a verb on a rollout means.
///
/// # Errors
/// [`Refusal`] when there is nothing to do it to, or it was decided on an older state and is risky.
pub fn verb(
    state: &State,
    service: &ServiceName,
    intent: Intent,
    decision: Option<u64>,
    by: &By,
) -> Result<Vec<Fact>, Refusal> {
    let s = known(state, service)?;
    let name = service.clone();
    let Some(r) = s.active() else {
        return refuse(
            ErrorCode::Refused,
            format!("no rollout of {service} is under way"),
            match intent {
                Intent::Abort => {
                    format!("to go back to the version before, use: pilothouse rollback {service}")
                }
                _ => format!("to start one, use: pilothouse deploy {service} VERSION"),
            },
        );
    };
    let rollout = r.id.clone();
    let by = by.clone();
    match (intent, r.status) {
        // Asked for again by somebody who has seen that it stands: everything goes to stable, whatever it can carry. Two
        // operators who abort in the same second do not mean that.
        (Intent::Abort, Status::Aborting)
            if decision == Some(s.decision) && !r.forced && !weight_is_back(s) =>
        {
            Ok(vec![Fact::AbortForced { service: name, rollout, by }])
        }
        (Intent::Abort, Status::Aborting) => Ok(Vec::new()),
        (Intent::Abort, _) => {
            let reason = Safe::new(&format!("aborted by {by}"));
            Ok(vec![Fact::AbortRequested { service: name, rollout, reason, by }])
        }
        (_, Status::Aborting) => {
            refuse(ErrorCode::Refused, format!("{rollout} is aborting"), "wait until it has ended")
        }
        (Intent::Pause, Status::Paused) => Ok(Vec::new()),
        (Intent::Pause, _) => {
            let reason = Safe::new(&format!("paused by {by}"));
            Ok(vec![Fact::Paused { service: name, rollout, reason, by }])
        }
        (Intent::Resume, Status::Paused) => {
            fresh(s, decision)?;
            Ok(vec![Fact::Resumed { service: name, rollout, by }])
        }
        (Intent::Resume, _) => {
            refuse(ErrorCode::Refused, format!("{rollout} is not paused"), "nothing to do")
        }
        (Intent::Hold(host), _) => {
            if !s.spec.placement.contains_key(&host) {
                let hosts: Vec<String> = s.spec.placement.keys().map(ToString::to_string).collect();
                return refuse(
                    ErrorCode::NotFound,
                    format!("{service} has no host {host}"),
                    format!("its hosts: {}", hosts.join(", ")),
                );
            }
            if r.kind == Kind::First {
                return refuse(
                    ErrorCode::Refused,
                    format!("{rollout} is the first release: there is nothing to go back to"),
                    format!("to take it away: pilothouse abort {service}"),
                );
            }
            if r.held.contains(&host) {
                return Ok(Vec::new());
            }
            Ok(vec![Fact::HostHeld { service: name, rollout, host, by }])
        }
        (Intent::Retry(host), status) => {
            fresh(s, decision)?;
            if let Some(host) = host.as_ref().filter(|h| !r.held.contains(h)) {
                return refuse(ErrorCode::Refused, format!("host {host} is not held"), "nothing to do");
            }
            let lifted = r.held.iter().filter(|h| host.as_ref().is_none_or(|host| host == *h));
            let mut facts: Vec<Fact> = lifted
                .map(|host| Fact::HoldLifted {
                    service: name.clone(),
                    rollout: rollout.clone(),
                    host: host.clone(),
                    by: by.clone(),
                })
                .collect();
            facts.extend(stuck_hook(r).map(|h| hook_ended(r, h, &name, HookState::Again, by.as_str())));
            if status == Status::Paused {
                facts.push(Fact::Resumed { service: name, rollout: rollout.clone(), by });
            }
            if facts.is_empty() {
                return refuse(
                    ErrorCode::Refused,
                    format!("{rollout} is going on: nothing is held or paused"),
                    "nothing to do",
                );
            }
            Ok(facts)
        }
        (Intent::Promote { full }, _) => {
            fresh(s, decision)?;
            let mut facts: Vec<Fact> = stuck_hook(r)
                .map(|h| hook_ended(r, h, &name, HookState::Passed, by.as_str()))
                .into_iter()
                .collect();
            facts.push(Fact::GatesOpened {
                service: name.clone(),
                rollout: rollout.clone(),
                full,
                by: by.clone(),
            });
            let last = r.plan.phases.len().saturating_sub(1);
            if full && r.phase < last {
                facts.push(Fact::PhaseEntered { service: name, rollout, phase: last, by });
            }
            Ok(facts)
        }
    }
}

/// The hook that keeps a rollout where it is.
fn stuck_hook(r: &Rollout) -> Option<&HookRun> {
    r.hooks.last().filter(|h| matches!(h.state, HookState::Failed | HookState::Unknown))
}

fn hook_ended(r: &Rollout, h: &HookRun, service: &ServiceName, state: HookState, by: &str) -> Fact {
    let detail = match state {
        HookState::Passed => format!("{}; taken as done by {by}", h.detail),
        _ => format!("{}; to be run again, says {by}", h.detail),
    };
    Fact::HookEnded {
        service: service.clone(),
        rollout: r.id.clone(),
        instance: h.instance.clone(),
        state,
        detail: Safe::new(&detail),
    }
}

fn weight_is_back(s: &ServiceState) -> bool {
    *s.weights.get(s.stable_slot.other()) == Bp::ZERO
}

fn known<'a>(state: &'a State, service: &ServiceName) -> Result<&'a ServiceState, Refusal> {
    match state.services.get(service) {
        Some(s) => Ok(s),
        None => {
            let names: Vec<String> = state.services.keys().map(ToString::to_string).collect();
            let hint = if names.is_empty() {
                "nothing was deployed yet: start with 'pilothouse up' or 'pilothouse deploy SERVICE VERSION'"
                    .to_owned()
            } else {
                format!("known services: {}", names.join(", "))
            };
            refuse(ErrorCode::NotFound, format!("{service} was never deployed"), hint)
        }
    }
}

/// What loading a fleet file means.
///
/// # Errors
/// [`Refusal`] when it takes away or changes a host or proxy that is in use.
pub fn load(state: &State, fleet: &Fleet, by: &By) -> Result<Vec<Fact>, Refusal> {
    if let Some(old) = &state.fleet {
        if *old == *fleet {
            return Ok(Vec::new());
        }
        if old.name != fleet.name {
            return refuse(
                ErrorCode::BadRequest,
                format!("this controller holds fleet {}", old.name),
                "check --fleet",
            );
        }
        for s in state.services.values() {
            let planned =
                s.active().into_iter().flat_map(|r| r.plan.phases.iter().flat_map(|p| p.candidate.keys()));
            let hosts: BTreeSet<_> = s.instances.values().map(|i| &i.host).chain(planned).collect();
            for host in hosts {
                let same = |f: &Fleet| f.hosts.get(host).map(|h| (h.engine.clone(), h.address));
                if same(fleet) != same(old) {
                    return refuse(
                        ErrorCode::Refused,
                        format!(
                            "host {host} has instances of {}, but the fleet file changes or drops it",
                            s.spec.name
                        ),
                        format!("put [hosts.{host}] back as it was, or take the service down first"),
                    );
                }
            }
            let next = fleet.services.get(&s.spec.name);
            for proxy in s.spec.proxies.iter().filter(|_| !s.instances.is_empty()) {
                if !fleet.proxies.contains_key(proxy) || next.is_some_and(|n| !n.proxies.contains(proxy)) {
                    return refuse(
                        ErrorCode::Refused,
                        format!(
                            "{} runs behind proxy {proxy}, but the fleet file takes it away",
                            s.spec.name
                        ),
                        format!(
                            "keep {proxy} until the service is taken down: what it sends would not be seen any more"
                        ),
                    );
                }
            }
            for proxy in &s.spec.proxies {
                if s.active().is_some() && fleet.proxies.get(proxy) != old.proxies.get(proxy) {
                    return refuse(
                        ErrorCode::Refused,
                        format!(
                            "proxy {proxy} is used by a rollout of {}, but the fleet file changes it",
                            s.spec.name
                        ),
                        "finish or abort the rollout first",
                    );
                }
            }
        }
    }
    Ok(vec![Fact::FleetLoaded { fleet: Box::new(fleet.clone()), by: by.clone() }])
}

/// What deploying `revision` means. Its service must be in the loaded fleet.
///
/// # Errors
/// [`Refusal`] when a rollout is under way, or the revision serves already.
pub fn deploy(
    state: &State,
    revision: &Revision,
    kind: Kind,
    decision: Option<u64>,
    by: &By,
) -> Result<Vec<Fact>, Refusal> {
    let service = revision.spec.name.clone();
    let current = state.services.get(&service);
    let mut facts =
        vec![Fact::RevisionKnown { service: service.clone(), revision: Box::new(revision.clone()) }];
    let stable = current.and_then(|s| s.stable.clone());
    let mut number = 1;
    let mut slot = Slot::A;
    if let Some(s) = current {
        fresh(s, decision)?;
        number = s.rollouts + 1;
        if s.down {
            return refuse(
                ErrorCode::Refused,
                format!("{service} is being taken down"),
                "wait until it is gone",
            );
        }
        if let Some(r) = s.active() {
            return follow(s, r, revision, by);
        }
        if stable.as_ref() == Some(&revision.id) {
            return refuse(
                ErrorCode::Refused,
                format!("{service} {} serves already (revision {})", revision.version, revision.id),
                "nothing to do",
            );
        }
        if stable.is_some() {
            slot = s.stable_slot.other();
        }
        if let Some(own) = s.slot_of(&revision.id) {
            slot = own;
        }
    }
    let kind = if stable.is_none() { Kind::First } else { kind };
    // What runs is the revision's; where, how many and behind what is as declared now, also on the way back.
    let spec = match current.filter(|_| kind == Kind::Rollback) {
        Some(s) => Service {
            run: revision.spec.run.clone(),
            port: revision.spec.port,
            address: revision.spec.address,
            network: revision.spec.network.clone(),
            env: revision.spec.env.clone(),
            env_file: revision.spec.env_file.clone(),
            health: revision.spec.health.clone(),
            ..s.spec.clone()
        },
        None => revision.spec.clone(),
    };
    let plan = match kind {
        Kind::Rollback => plan::back(&spec),
        Kind::First | Kind::Release => plan::plan(&revision.spec, stable.is_some()),
    };
    let adopted = current.and_then(|s| s.instances.values().find(|i| i.external()));
    if let Some(i) = adopted.filter(|_| plan.limits.in_place) {
        return refuse(
            ErrorCode::Refused,
            format!("in place, {} would have to be stopped, and it was adopted", i.id),
            format!(
                "allow it with 'pilothouse down {service} --adopted', or choose another strategy for this release"
            ),
        );
    }
    let strategy = match kind {
        Kind::First => "first release",
        Kind::Rollback => "rollback",
        Kind::Release => plan::strategy_name(&revision.spec.strategy),
    };
    facts.push(Fact::RolloutStarted {
        service: service.clone(),
        rollout: RolloutId::of(&service, number),
        kind,
        strategy: strategy.to_owned(),
        from: stable,
        to: revision.id.clone(),
        slot,
        plan,
        spec: Box::new(spec),
        by: by.clone(),
    });
    Ok(facts)
}

/// A version that is asked for while another is being rolled out: that one goes back first. The original stable stays
/// the way back.
fn follow(s: &ServiceState, r: &Rollout, revision: &Revision, by: &By) -> Result<Vec<Fact>, Refusal> {
    let service = s.spec.name.clone();
    let same = |id: &RevisionId| *id == revision.id;
    if same(&r.to) && r.status != Status::Aborting {
        return refuse(
            ErrorCode::Refused,
            format!("{service} {} is being rolled out already ({})", revision.version, r.id),
            "nothing to do",
        );
    }
    if r.from.as_ref().is_some_and(same) {
        return refuse(
            ErrorCode::Refused,
            format!("{service} {} is what {} started from", revision.version, r.id),
            format!("to go back to it: pilothouse abort {service}"),
        );
    }
    let mut facts = Vec::new();
    if r.status != Status::Aborting {
        let reason = Safe::new(&format!("{} follows", revision.version));
        facts.push(Fact::AbortRequested {
            service: service.clone(),
            rollout: r.id.clone(),
            reason,
            by: by.clone(),
        });
    }
    facts.push(Fact::NextQueued { service, revision: Box::new(revision.clone()), by: by.clone() });
    Ok(facts)
}

/// What bringing up a service that was deployed before means: lost instances of stable run again, missing ones are
/// placed. Nothing is changed or removed.
#[must_use]
pub fn up(state: &State, service: &ServiceName, obs: &Observed) -> Vec<Fact> {
    let Some(s) = state.services.get(service).filter(|s| s.active().is_none() && !s.down) else {
        return Vec::new();
    };
    let (Some(stable), Some(last)) = (&s.stable, &s.rollout) else { return Vec::new() };
    let mut facts: Vec<Fact> = s
        .of(stable)
        .filter(|i| i.stage == Stage::Started && !obs.hosts.get(&i.host).is_some_and(|h| h.out))
        .filter(|i| life::lost(i, obs))
        .map(|i| life::revive(s, i, &last.id))
        .collect();
    let lacking = missing(state, s, stable, &s.spec.placement, obs, false).0;
    facts.extend(lacking.into_iter().map(|m| place::fact(s, &last.id, stable, m)));
    facts
}

/// Something that runs already, to become an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where.
    pub host: HostName,
    /// The id it gets, or has had all along.
    pub instance: InstanceId,
    /// On this port of the host; `None` at its own address.
    pub host_port: Option<u16>,
    /// The engine's own id of it; `None` for what Pilothouse itself made.
    pub adopts: Option<Safe>,
    /// Where it is reached, when the proxies may be sending to it already: that goes on.
    pub serving: Option<SocketAddr>,
}

/// What taking over what runs already means: a first release whose instances are there. Without any, a plain one.
///
/// # Errors
/// [`Refusal`] when the service has a stable revision, or a rollout is under way.
pub fn adopt(state: &State, revision: &Revision, taken: &[Taken], by: &By) -> Result<Vec<Fact>, Refusal> {
    let service = &revision.spec.name;
    if let Some(s) = state.services.get(service).filter(|s| s.stable.is_some() || s.active().is_some()) {
        let what = s.active().map_or_else(
            || "serves already: nothing is left to adopt".to_owned(),
            |r| format!("is being rolled out ({})", r.id),
        );
        return refuse(ErrorCode::Refused, format!("{service} {what}"), "nothing to do");
    }
    let mut facts = deploy(state, revision, Kind::First, None, by)?;
    if taken.is_empty() {
        return Ok(facts);
    }
    let serving = taken.iter().any(|t| t.serving.is_some());
    let started = facts.iter_mut().find_map(|f| match f {
        Fact::RolloutStarted { rollout, plan, strategy, slot, .. } => {
            *plan = plan::adopt(&revision.spec, serving);
            "adoption".clone_into(strategy);
            Some((rollout.clone(), *slot))
        }
        _ => None,
    });
    let Some((rollout, slot)) = started else { return Ok(facts) };
    for t in taken {
        let (service, instance) = (service.clone(), t.instance.clone());
        facts.push(Fact::InstancePlaced {
            service: service.clone(),
            instance: instance.clone(),
            revision: revision.id.clone(),
            rollout: rollout.clone(),
            host: t.host.clone(),
            host_port: t.host_port,
            adopts: t.adopts.clone(),
        });
        // The journal that said that it was healthy is lost; what the proxies send to it must not be interrupted.
        if let Some(endpoint) = t.serving {
            let (of, which) = (service.clone(), instance.clone());
            facts.push(Fact::InstanceStarted { service: of, instance: which, endpoint });
            facts.push(Fact::InstanceAdmitted { service, instance });
        }
    }
    if serving {
        let mut weights = Slots::<Bp>::default();
        *weights.get_mut(slot) = Bp::FULL;
        let (service, revision) = (service.clone(), revision.id.clone());
        facts.push(Fact::SlotTaken { service: service.clone(), slot, revision });
        facts.push(Fact::WeightDecided { service, weights });
    }
    Ok(facts)
}

/// What allowing adopted instances of a service to be stopped means.
///
/// # Errors
/// [`Refusal`] when it has none, or they are allowed to be already.
pub fn allow_stop(state: &State, service: &ServiceName, by: &By) -> Result<Vec<Fact>, Refusal> {
    let s = known(state, service)?;
    if s.instances.values().any(Instance::external) {
        return Ok(vec![Fact::StopAllowed { service: service.clone(), by: by.clone() }]);
    }
    refuse(
        ErrorCode::Refused,
        format!("{service} has no adopted instance that must not be stopped"),
        "nothing to do",
    )
}

/// What taking a service away means.
///
/// # Errors
/// [`Refusal`] when it was never deployed.
pub fn down(state: &State, service: &ServiceName, by: &By) -> Result<Vec<Fact>, Refusal> {
    let s = known(state, service)?;
    if s.down || (s.stable.is_none() && s.instances.is_empty() && s.active().is_none()) {
        return Ok(Vec::new());
    }
    Ok(vec![Fact::DownRequested { service: service.clone(), by: by.clone() }])
}

/// The verbs that would be accepted now.
#[must_use]
pub fn possible(s: &ServiceState) -> Vec<VerbKind> {
    if s.down {
        return Vec::new();
    }
    let held = s.active().is_some_and(|r| !r.held.is_empty() && r.status != Status::Aborting);
    let mut verbs = match s.active().map(|r| r.status) {
        Some(Status::Running) => {
            vec![VerbKind::Deploy, VerbKind::Promote, VerbKind::Pause, VerbKind::Abort, VerbKind::Rollback]
        }
        Some(Status::Paused) => {
            vec![VerbKind::Deploy, VerbKind::Promote, VerbKind::Resume, VerbKind::Abort, VerbKind::Rollback]
        }
        Some(Status::Aborting) => Vec::new(),
        Some(Status::Ended(_)) | None => {
            let mut v = vec![VerbKind::Deploy];
            if s.kept.is_some() {
                v.push(VerbKind::Rollback);
            }
            if s.rollout
                .as_ref()
                .is_some_and(|r| matches!(r.status, Status::Ended(Outcome::Aborted | Outcome::Failed)))
            {
                v.push(VerbKind::Retry);
            }
            v
        }
    };
    if held {
        verbs.push(VerbKind::Retry);
    }
    verbs
}
