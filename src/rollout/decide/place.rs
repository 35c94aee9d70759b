//! Where missing instances go: kept ones first, then new ones on free ports, never more than may run at a time.

use std::collections::BTreeMap;

use crate::fleet::model::Address;
use crate::fleet::names::{HostName, InstanceId, RevisionId, RolloutId};
use crate::rollout::fact::Fact;
use crate::rollout::plan::Placement;
use crate::rollout::state::{Instance, Rollout, ServiceState, Stage, State};
use crate::rollout::target::target;
use crate::rollout::world::Observed;
use crate::text::Safe;

/// Instances of the candidate that the target needs and that do not exist yet, as many as may run now.
pub(super) fn candidate(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed) -> Vec<Fact> {
    let target = target(service, r);
    let lacking = missing(state, service, &r.to, &target.candidate, obs, r.plan.limits.in_place).0;
    let facts = lacking.into_iter().map(|m| fact(service, &r.id, &r.to, m));
    facts.take(room(service, r)).collect()
}

/// Stopped instances of stable that the target needs again, as many as may run now. New ones are never made: stable
/// goes back to what it was.
pub(super) fn stable(state: &State, service: &ServiceState, r: &Rollout, obs: &Observed) -> Vec<Fact> {
    let (Some(stable), Some(wanted)) = (&service.stable, target(service, r).stable) else {
        return Vec::new();
    };
    let lacking = missing(state, service, stable, &wanted, obs, r.plan.limits.in_place).0;
    let kept = lacking.into_iter().filter(|m| matches!(m, Missing::Kept(_)));
    kept.map(|m| fact(service, &r.id, stable, m)).take(room(service, r)).collect()
}

/// Instances that may be started now without going over the replicas and the surge.
fn room(service: &ServiceState, r: &Rollout) -> usize {
    let Some(surge) = r.plan.limits.surge else { return usize::MAX };
    let most = (service.spec.replicas() + surge) as usize;
    most.saturating_sub(service.instances.values().filter(|i| i.stage <= Stage::Drained).count())
}

/// What brings an instance that is missing.
pub(super) fn fact(
    service: &ServiceState,
    rollout: &RolloutId,
    revision: &RevisionId,
    missing: Missing,
) -> Fact {
    let (name, rollout) = (service.spec.name.clone(), rollout.clone());
    match missing {
        Missing::Kept(instance) => Fact::InstanceRevived { service: name, instance, rollout },
        Missing::New { instance, host, host_port } => Fact::InstancePlaced {
            service: name,
            instance,
            revision: revision.clone(),
            rollout,
            host,
            host_port,
            adopts: None,
        },
    }
}

/// An instance that a placement lacks.
pub(super) enum Missing {
    /// A stopped one can be started again.
    Kept(InstanceId),
    /// A new one.
    New {
        /// Its id.
        instance: InstanceId,
        /// Where.
        host: HostName,
        /// On which port.
        host_port: Option<u16>,
    },
}

/// What `target` lacks of a revision, and in words why more of it cannot be placed now. With `in_place` a new instance
/// takes the port of a stopped one of the other revision.
pub(super) fn missing(
    state: &State,
    service: &ServiceState,
    revision: &RevisionId,
    target: &Placement,
    obs: &Observed,
    in_place: bool,
) -> (Vec<Missing>, Vec<Safe>) {
    let mut out = Vec::new();
    let mut words = Vec::new();
    let spec = &service.spec;
    let mut number = 0;
    let mut taken: BTreeMap<HostName, Vec<u16>> = BTreeMap::new();
    for (host, wanted) in target {
        // A host that is out counts for nothing.
        if obs.hosts.get(host).is_some_and(|h| h.out) {
            continue;
        }
        let on_host = |i: &&Instance| i.host == *host;
        // Kept ones that are just being taken out are started again once they have stopped.
        let cooling = |i: &Instance| matches!(i.stage, Stage::Leaving | Stage::Drained) && !i.discard;
        if service.of(revision).filter(on_host).any(cooling) {
            words.push(Safe::new(&format!("instances on {host} are still being taken out")));
            continue;
        }
        let have = service.of(revision).filter(on_host).filter(|i| i.stage <= Stage::Started).count();
        let mut lack = (*wanted as usize).saturating_sub(have);
        for i in service.of(revision).filter(on_host).filter(|i| i.stage == Stage::Stopped && !i.discard) {
            if lack > 0 {
                lack -= 1;
                match occupant(service, i) {
                    Some(other) => words.push(Safe::new(&format!("{other} still has the port of {}", i.id))),
                    None => out.push(Missing::Kept(i.id.clone())),
                }
            }
        }
        for _ in 0..lack {
            let host_port = match spec.address {
                Address::Container => None,
                Address::Published => {
                    let mine = taken.entry(host.clone()).or_default();
                    let left = if in_place { vacant(service, revision, host, mine) } else { Vacant::None };
                    let port = match left {
                        Vacant::Port(port) => Some(port),
                        Vacant::Later => {
                            words.push(Safe::new(&format!(
                                "the port of its predecessor on {host} is still in use"
                            )));
                            break;
                        }
                        Vacant::None => free_port(state, spec.host_ports, host, mine, obs),
                    };
                    let Some(port) = port else {
                        let (first, last) = spec.host_ports;
                        words.push(Safe::new(&format!("no port of {first}-{last} is free on {host}")));
                        break;
                    };
                    mine.push(port);
                    Some(port)
                }
            };
            let instance = loop {
                number += 1;
                let id = InstanceId::of(&spec.name, revision, number);
                if !service.instances.contains_key(&id) && !service.removed.contains(&id) {
                    break id;
                }
            };
            out.push(Missing::New { instance, host: host.clone(), host_port });
        }
    }
    (out, words)
}

/// Another instance that runs, or shall, where `i` would.
fn occupant<'a>(service: &'a ServiceState, i: &Instance) -> Option<&'a InstanceId> {
    let here = |o: &&Instance| {
        o.id != i.id && o.host == i.host && o.host_port == i.host_port && o.stage <= Stage::Drained
    };
    i.host_port?;
    service.instances.values().find(here).map(|o| &o.id)
}

/// A port that an instance of the other revision leaves to its successor.
enum Vacant {
    /// It is free.
    Port(u16),
    /// It will be.
    Later,
    /// There is no predecessor.
    None,
}

fn vacant(service: &ServiceState, revision: &RevisionId, host: &HostName, mine: &[u16]) -> Vacant {
    let before = |i: &&Instance| i.host == *host && i.revision != *revision;
    let succeeded = |port| {
        mine.contains(&port) || service.of(revision).any(|i| i.host == *host && i.host_port == Some(port))
    };
    let open =
        || service.instances.values().filter(before).filter(|i| i.host_port.is_some_and(|p| !succeeded(p)));
    // A revision that is being evicted once had the same port: whoever lives there now decides.
    let lives_at = |port: Option<u16>| {
        let here = |o: &Instance| o.host == *host && o.host_port == port && o.stage <= Stage::Drained;
        service.instances.values().any(here)
    };
    match open().find(|i| i.stage > Stage::Drained && !lives_at(i.host_port)) {
        Some(stopped) => stopped.host_port.map_or(Vacant::None, Vacant::Port),
        None if open().next().is_some() => Vacant::Later,
        None => Vacant::None,
    }
}

/// The lowest port of the range that no instance has and no proxy still sends to: an endpoint has one occupant.
fn free_port(state: &State, range: (u16, u16), host: &HostName, mine: &[u16], obs: &Observed) -> Option<u16> {
    let declared = state.fleet.as_ref()?.hosts.get(host)?;
    (range.0..=range.1).find(|port| {
        let occupied = state.services.values().flat_map(|s| s.instances.values()).any(|i| {
            let same_place = i.host == *host
                || state
                    .fleet
                    .as_ref()
                    .and_then(|f| f.hosts.get(&i.host))
                    .is_some_and(|h| h.address == declared.address);
            same_place && i.host_port == Some(*port)
        });
        let addr = std::net::SocketAddr::new(declared.address, *port);
        let routed = obs
            .proxies
            .values()
            .flat_map(|p| p.routes.values())
            .flat_map(|r| &r.workers)
            .any(|w| w.slots.a.endpoints.iter().chain(&w.slots.b.endpoints).any(|e| e.addr == addr));
        !occupied && !routed && !mine.contains(port)
    })
}
