//! What Envoy's answers come to: what it routes, to whom, and what each instance did.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::admin::{Cluster, Host};
use super::config::{self, Shares};
use crate::fleet::names::{Bp, FleetName, InstanceId, ServiceName};
use crate::rollout::world::{
    EndpointReadback, EndpointState, RouteReadback, Slot, SlotReadback, Slots, WorkerRoute,
};
use crate::traffic::Counters;

/// What every listener routes, per service. `old` connections are those of a process that was replaced and still ends what
/// it has: nobody knows where those go, so nothing that drains is free while there are any.
pub(super) fn read_back(
    fleet: &FleetName,
    routes: &[Value],
    clusters: &[Cluster],
    old: u64,
) -> BTreeMap<ServiceName, RouteReadback> {
    let mut out: BTreeMap<ServiceName, RouteReadback> = BTreeMap::new();
    let ours = |config: &&Value| {
        let name = config.get("name").and_then(Value::as_str).unwrap_or_default();
        name == config::all_name(fleet) || name.starts_with(&config::prefix(fleet))
    };
    let hosts = routes.iter().filter(ours).filter_map(|c| c.get("virtual_hosts")?.as_array()).flatten();
    for host in hosts {
        let Some(service) = service_of(fleet, host) else { continue };
        let said = Shares::said(host);
        let is = said.clone().filter(|s| config::has_all(host, &config::host(fleet, &service, s)));
        let slot = |slot: Slot| SlotReadback {
            // What was changed by hand may do anything.
            weight: is.as_ref().map_or(Bp::FULL, |s| *s.weights.get(slot)),
            endpoints: endpoints(fleet, &service, slot, clusters, old > 0, is.is_none()),
        };
        let said = said.unwrap_or_else(Shares::nobody);
        let all = &mut out.entry(service.clone()).or_default().workers;
        all.push(WorkerRoute {
            worker: format!("listener {}", all.len() + 1),
            current: true,
            stable: said.stable,
            slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
            rules: said.rules,
            sticky: said.sticky,
        });
    }
    out
}

/// The service whose virtual host it is.
fn service_of(fleet: &FleetName, host: &Value) -> Option<ServiceName> {
    host.get("name")?.as_str()?.strip_prefix(&config::prefix(fleet))?.parse().ok()
}

/// The instances in a slot. What each has in flight is counted wherever it is used: a candidate's requests may end at one
/// of stable's.
fn endpoints(
    fleet: &FleetName,
    service: &ServiceName,
    slot: Slot,
    clusters: &[Cluster],
    old_process: bool,
    changed_by_hand: bool,
) -> Vec<EndpointReadback> {
    let of = |slot: Slot| {
        let name = config::cluster_name(fleet, service, slot);
        clusters.iter().filter(move |c| c.name == name).flat_map(|c| &c.host_statuses)
    };
    let mut out: Vec<EndpointReadback> = of(slot)
        .filter(|h| h.priority == 0)
        .filter_map(|h| {
            let (instance, addr) = (h.hostname.parse::<InstanceId>().ok()?, h.addr()?);
            let state = if h.drains() { EndpointState::Drain } else { EndpointState::Ready };
            let elsewhere = of(slot.other()).filter(|o| o.hostname == h.hostname);
            let mut in_flight: u64 = elsewhere.chain([h]).map(in_flight).sum();
            if changed_by_hand || (old_process && h.drains()) {
                in_flight = in_flight.max(1);
            }
            let in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
            Some(EndpointReadback { instance, addr, state, up: h.left_out().then_some(false), in_flight })
        })
        .collect();
    out.sort_by(|a, b| a.instance.cmp(&b.instance));
    out
}

/// Requests that an instance has, and those that wait for a connection to it.
fn in_flight(host: &Host) -> u64 {
    host.stat("rq_active") + host.stat("rq_pending_active")
}

/// What each instance did in each cluster of the fleet since Envoy was started or the instance came.
pub(super) fn counted(fleet: &FleetName, clusters: &[Cluster]) -> Vec<(String, InstanceId, Counters)> {
    let prefix = config::prefix(fleet);
    let mut out = Vec::new();
    for cluster in clusters.iter().filter(|c| c.name.starts_with(&prefix)) {
        for host in &cluster.host_statuses {
            let Ok(instance) = host.hostname.parse::<InstanceId>() else { continue };
            // An attempt that failed is an error of the instance, whether or not it was repeated elsewhere.
            let errors = host.stat("rq_error");
            let requests = host.stat("rq_success") + errors;
            out.push((cluster.name.clone(), instance, Counters { requests, errors, ..Counters::default() }));
        }
    }
    out
}

/// Seconds since 1970.
pub(super) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
