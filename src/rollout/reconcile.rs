//! What is to be done: from what is true now and what should be, never from what was done last. Effects are absolute
//! and may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use super::fact::Fact;
use super::state::{
    HookKind, HookRun, HookState, Instance, Kind, Rollout, ServiceState, Stage, State, Status,
};
use super::world::{
    EndpointState, HostObs, Observed, Restart, Route, RouteEndpoint, RunState, Slot, SlotRoute, Slots,
};
use crate::fleet::model::{HealthCheck, Rule};
use crate::fleet::names::{Bp, HostName, InstanceId, Millis, ProxyName, RevisionId, ServiceName};

/// Where an effect is carried out. One effect at a time in each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A host's engine.
    Host(HostName),
    /// A proxy.
    Proxy(ProxyName),
}

/// Something to do to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The artifact of a revision is on a host, verified.
    Artifact {
        /// Where.
        host: HostName,
        /// Of this service.
        service: ServiceName,
        /// Which.
        revision: RevisionId,
    },
    /// An instance runs.
    Start {
        /// Where.
        host: HostName,
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
    },
    /// A hook runs, or has run.
    Hook {
        /// Where.
        host: HostName,
        /// Of this service.
        service: ServiceName,
        /// The one-off instance.
        instance: InstanceId,
    },
    /// An instance does not run.
    Stop {
        /// Where.
        host: HostName,
        /// Which.
        instance: InstanceId,
        /// From SIGTERM to SIGKILL.
        grace: Millis,
    },
    /// An adopted instance is no longer ours; it runs on.
    LetGo {
        /// Where.
        host: HostName,
        /// Which.
        instance: InstanceId,
    },
    /// An instance does not exist.
    Remove {
        /// Where.
        host: HostName,
        /// Which.
        instance: InstanceId,
    },
    /// The engine heals an instance, or does not.
    Restart {
        /// Where.
        host: HostName,
        /// Which.
        instance: InstanceId,
        /// What it does.
        restart: Restart,
    },
    /// A proxy serves these routes and no others of this fleet.
    Routes {
        /// Which.
        proxy: ProxyName,
        /// All of them.
        routes: Vec<Route>,
        /// Whether traffic goes back to stable.
        back: bool,
    },
}

impl Effect {
    /// Where it is carried out.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Artifact { host, .. }
            | Self::Start { host, .. }
            | Self::Hook { host, .. }
            | Self::Stop { host, .. }
            | Self::Remove { host, .. }
            | Self::LetGo { host, .. }
            | Self::Restart { host, .. } => Lane::Host(host.clone()),
            Self::Routes { proxy, .. } => Lane::Proxy(proxy.clone()),
        }
    }

    /// The name under which its failures are counted in [`Observed::failures`].
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Artifact { host, revision, .. } => format!("artifact:{revision}:{host}"),
            Self::Start { instance, .. } => format!("start:{instance}"),
            Self::Hook { instance, .. } => super::decide::hook_key(instance),
            Self::Stop { instance, .. } => format!("stop:{instance}"),
            Self::LetGo { instance, .. } => format!("let-go:{instance}"),
            Self::Remove { instance, .. } => format!("remove:{instance}"),
            Self::Restart { instance, .. } => format!("restart:{instance}"),
            Self::Routes { proxy, .. } => format!("routes:{proxy}"),
        }
    }
}

/// What is to be done now, the most urgent first within each lane.
#[must_use]
pub fn reconcile(state: &State, obs: &Observed) -> Vec<Effect> {
    let mut effects = routes(state, obs);
    for service in state.services.values() {
        for i in service.instances.values() {
            effects.extend(instance(service, i, obs));
        }
        effects.extend(artifacts(service, obs));
        effects.extend(hooks(service, obs));
    }
    effects.extend(orphans(state, obs));
    // Taking away before bringing: a port or a slot may have to become free first.
    effects.sort_by_key(|e| match e {
        Effect::Routes { .. } => 0,
        Effect::Stop { .. } => 1,
        Effect::Remove { .. } | Effect::LetGo { .. } => 2,
        Effect::Artifact { .. } => 3,
        Effect::Start { .. } | Effect::Hook { .. } => 4,
        Effect::Restart { .. } => 5,
    });
    effects
}

fn instance(service: &ServiceState, i: &Instance, obs: &Observed) -> Option<Effect> {
    let host = obs.hosts.get(&i.host).filter(|h| h.reachable && !h.out);
    let seen = host.and_then(|h| h.instances.get(&i.id));
    let running = seen.is_some_and(|s| !matches!(s.state, RunState::Exited { .. }));
    let (at, id) = (i.host.clone(), i.id.clone());
    match i.stage {
        Stage::Placed => {
            // Nothing is tried on a host that does not answer, and nothing started before the artifact is everywhere.
            host?;
            let ready = artifacts_are_there(service, &i.revision, obs);
            (ready && !running).then(|| Effect::Start {
                host: at,
                service: service.spec.name.clone(),
                instance: id,
            })
        }
        // What was adopted is known to the engine by our word only: said again when it was forgotten.
        Stage::Started if i.external() && host.is_some() && seen.is_none() => {
            Some(Effect::Start { host: at, service: service.spec.name.clone(), instance: id })
        }
        Stage::Started | Stage::Leaving if i.external() => None,
        Stage::Started | Stage::Leaving => {
            let want = service.restart_policy(i);
            let differs = running && seen.is_some_and(|s| s.restart != want);
            differs.then_some(Effect::Restart { host: at, instance: id, restart: want })
        }
        Stage::Discarded if i.external() => {
            seen.is_some().then_some(Effect::LetGo { host: at, instance: id })
        }
        Stage::Drained | Stage::Stopped if i.external() => None,
        Stage::Drained | Stage::Stopped | Stage::Discarded if running => {
            Some(Effect::Stop { host: at, instance: id, grace: service.spec.drain.stop_grace })
        }
        Stage::Discarded if seen.is_some() => Some(Effect::Remove { host: at, instance: id }),
        Stage::Drained | Stage::Stopped | Stage::Discarded => None,
    }
}

/// A hook that was begun and is not there runs, when it was this controller that began it; one that took too long is
/// stopped, and so is one whose rollout goes back.
fn hooks(service: &ServiceState, obs: &Observed) -> Vec<Effect> {
    let Some(r) = &service.rollout else { return Vec::new() };
    let effect = |h: &HookRun| {
        let host = obs.hosts.get(&h.host).filter(|h| h.reachable && !h.out)?;
        let seen = host.instances.get(&h.instance).filter(|s| !s.never_ran());
        let runs = seen.is_some_and(|s| !matches!(s.state, RunState::Exited { .. }));
        let wanted = h.state == HookState::Begun && r.active() && r.status != Status::Aborting;
        let (host, instance) = (h.host.clone(), h.instance.clone());
        if wanted && seen.is_none() && obs.begun.contains(&h.instance) {
            Some(Effect::Hook { host, service: service.spec.name.clone(), instance })
        } else if runs && !wanted {
            Some(Effect::Stop { host, instance, grace: service.spec.drain.stop_grace })
        } else {
            None
        }
    };
    r.hooks.iter().filter_map(effect).collect()
}

/// What still carries the id of an instance that was removed: ours by label and by journal, left by a late start.
/// One pass over what is seen, whatever the number of services.
fn orphans(state: &State, obs: &Observed) -> Vec<Effect> {
    let mut out = Vec::new();
    for (host, h) in obs.hosts.iter().filter(|(_, h)| h.reachable && !h.out) {
        for seen in h.instances.values() {
            let Some(service) = state.services.get(&seen.service) else { continue };
            if service.removed.contains(&seen.id) && !service.instances.contains_key(&seen.id) {
                let (host, instance) = (host.clone(), seen.id.clone());
                out.push(match seen.state {
                    // An old look at one that was let go of, or a mark that was written late.
                    _ if seen.adopts.is_some() => Effect::LetGo { host, instance },
                    RunState::Exited { .. } => Effect::Remove { host, instance },
                    _ => Effect::Stop { host, instance, grace: service.spec.drain.stop_grace },
                });
            }
        }
    }
    out
}

/// Artifacts are fetched on every host of the whole plan before the first instance starts anywhere (rule 4).
fn artifacts(service: &ServiceState, obs: &Observed) -> Vec<Effect> {
    let placed = service.instances.values().filter(|i| i.stage == Stage::Placed);
    // A candidate's even before its first instance is placed: what it replaces is not taken out earlier.
    let coming = service.active().filter(|r| matches!(r.status, Status::Running)).map(|r| &r.to);
    let wanted: BTreeSet<&RevisionId> = placed.map(|i| &i.revision).chain(coming).collect();
    let mut out = Vec::new();
    for id in wanted {
        for host in artifact_hosts(service, id, obs) {
            let h = obs.hosts.get(host).filter(|h| h.reachable && !h.out);
            if h.is_some_and(|h| !has_artifact(service, id, h)) {
                out.push(Effect::Artifact {
                    host: host.clone(),
                    service: service.spec.name.clone(),
                    revision: id.clone(),
                });
            }
        }
    }
    out
}

/// Whether a revision's artifact is wherever it must be before one of its instances starts.
#[must_use]
pub fn artifacts_are_there(service: &ServiceState, revision: &RevisionId, obs: &Observed) -> bool {
    artifact_hosts(service, revision, obs)
        .iter()
        .all(|h| obs.hosts.get(*h).is_some_and(|h| has_artifact(service, revision, h)))
}

/// Where a revision's artifact must be before one of its instances starts: for a new revision everywhere, so that a
/// release that cannot be finished is not begun; for one that served before only where an instance has to be made, so
/// that neither a host that cannot be reached nor an image that lost its name keeps the way back from another, and a
/// kept instance, which holds what it was made of, starts as it is.
fn artifact_hosts<'a>(service: &'a ServiceState, id: &'a RevisionId, obs: &Observed) -> Vec<&'a HostName> {
    let new = service.active().is_some_and(|r| r.to == *id && r.kind != Kind::Rollback);
    let digest = service.revisions.get(id).map(|r| &r.digest);
    let made = |i: &&Instance| {
        let seen = obs.hosts.get(&i.host).and_then(|h| h.instances.get(&i.id));
        seen.is_some_and(|seen| Some(&seen.digest) == digest)
    };
    let placed = service.of(id).filter(|i| i.stage == Stage::Placed);
    let mut hosts: BTreeSet<&HostName> = placed.filter(|i| !made(i)).map(|i| &i.host).collect();
    if new {
        hosts.extend(service.spec.placement.keys());
    }
    hosts.into_iter().collect()
}

fn has_artifact(service: &ServiceState, id: &RevisionId, host: &HostObs) -> bool {
    host.out || (host.reachable && service.revisions.get(id).is_some_and(|r| host.images.contains(&r.digest)))
}

fn check_of(service: &ServiceState, slot: Slot) -> HealthCheck {
    let revision = service.slots.get(slot).as_ref().and_then(|id| service.revisions.get(id));
    revision.map_or_else(|| service.spec.health.clone(), |r| r.spec.health.clone())
}

/// The candidate's rules, once one of its instances may take requests; none while it is going away.
fn rules(service: &ServiceState) -> Vec<Rule> {
    let ready = |r: &&Rollout| {
        matches!(r.status, Status::Running | Status::Paused)
            && service.slots.get(r.slot).as_ref() == Some(&r.to)
            && service.stable_slot != r.slot
            && service.of(&r.to).any(|i| i.stage == Stage::Started && i.admitted)
            && super::decide::hook_passed(service, r, HookKind::BeforeTraffic)
    };
    let mut rules = service.active().filter(ready).map(|r| r.plan.rules.clone()).unwrap_or_default();
    rules.sort();
    rules
}

/// What a service's proxies should do.
#[must_use]
pub fn route(service: &ServiceState, _obs: &Observed) -> Route {
    let slot = |slot: Slot| {
        let revision = service.slots.get(slot).clone();
        let mut endpoints: Vec<RouteEndpoint> = revision
            .iter()
            .flat_map(|r| service.of(r))
            .filter(|i| i.admitted)
            .filter_map(|i| {
                let state = match i.stage {
                    Stage::Started => EndpointState::Ready,
                    Stage::Leaving => EndpointState::Drain,
                    _ => return None,
                };
                Some(RouteEndpoint { instance: i.id.clone(), addr: i.endpoint?, state })
            })
            .collect();
        endpoints.sort();
        SlotRoute { revision, weight: *service.weights.get(slot), endpoints }
    };
    Route {
        service: service.spec.name.clone(),
        stable: service.stable_slot,
        slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
        domains: service.spec.domains.clone(),
        health: Slots { a: check_of(service, Slot::A), b: check_of(service, Slot::B) },
        rules: rules(service),
        sticky: service.active().is_some_and(|r| r.plan.sticky),
    }
}

/// Per proxy all of its routes, when anything in them is not as read back.
fn routes(state: &State, obs: &Observed) -> Vec<Effect> {
    let mut per_proxy: BTreeMap<&ProxyName, Vec<(&ServiceState, Route)>> = BTreeMap::new();
    for service in state.services.values() {
        let gone =
            service.instances.is_empty() && service.slots == Slots::default() && service.active().is_none();
        for proxy in &service.spec.proxies {
            let routes = per_proxy.entry(proxy).or_default();
            if !gone {
                routes.push((service, route(service, obs)));
            }
        }
    }
    let mut out = Vec::new();
    for (proxy, routes) in per_proxy {
        let seen = obs.proxies.get(proxy);
        let reachable = seen.is_some_and(|p| p.reachable);
        let have = seen.map(|p| &p.routes);
        // After a write that failed, what the proxy does and what its files say may differ: it is written again.
        let failed = obs.failures.contains_key(&format!("routes:{proxy}"));
        let right = reachable
            && !failed
            && have.is_some_and(|have| {
                routes.iter().all(|(_, r)| have.get(&r.service).is_some_and(|h| h.serves(r)))
                    && have.keys().all(|name| routes.iter().any(|(_, r)| r.service == *name))
            });
        if right || (routes.is_empty() && !failed && have.is_none_or(BTreeMap::is_empty)) {
            continue;
        }
        let back = routes.iter().any(|(s, r)| returning(s, r, have.and_then(|h| h.get(&r.service))));
        out.push(Effect::Routes {
            proxy: proxy.clone(),
            routes: routes.into_iter().map(|(_, r)| r).collect(),
            back,
        });
    }
    out
}

/// Whether the change takes traffic back: from the slot that is not stable, or to a revision that is kept for the way
/// back and stands behind the proxy already. Such a change is in force before it is in the proxy's files.
fn returning(service: &ServiceState, r: &Route, have: Option<&super::world::RouteReadback>) -> bool {
    let other = service.stable_slot.other();
    let want = r.slots.get(other).weight;
    let kind = service.active().map(|r| r.kind);
    service.active().is_some_and(|r| r.status == Status::Aborting)
        || have.is_some_and(|h| h.highest(other) > want && want < Bp::FULL)
        || kind == Some(Kind::Rollback) && have.is_some_and(|h| h.has_endpoints(r))
}

/// Facts about proxies that were found doing something else than before, for the events.
#[must_use]
pub fn differences(before: &Observed, after: &Observed, state: &State) -> Vec<Fact> {
    let mut out = Vec::new();
    for service in state.services.values() {
        let want = route(service, after);
        for proxy in &service.spec.proxies {
            let at = |o: &Observed| {
                o.proxies
                    .get(proxy)
                    .filter(|p| p.reachable)
                    .and_then(|p| p.routes.get(&service.spec.name))
                    .cloned()
            };
            let (Some(old), Some(new)) = (at(before), at(after)) else { continue };
            if old.serves(&want) && !new.serves(&want) {
                let other = service.stable_slot.other();
                let detail = format!(
                    "weight of slot {} was {}, is {} to {}",
                    other.as_str(),
                    old.highest(other),
                    new.lowest(other),
                    new.highest(other)
                );
                out.push(Fact::ProxyDiffers {
                    proxy: proxy.clone(),
                    service: service.spec.name.clone(),
                    detail: detail.as_str().into(),
                });
            }
        }
    }
    out
}
