//! What Pilothouse writes for Envoy: resources of its discovery service, as files.
//!
//! Per service there are a route configuration `ph_FLEET_SERVICE`, which holds the shares, and two clusters,
//! `ph_FLEET_SERVICE_a` and `_b`, whose instances are files of their own. One more route configuration, `ph_FLEET`, has all
//! services with their domains, for a listener that serves several. The cluster of the slot that is not stable also has
//! stable's instances, with a lower priority: a request whose candidate does not answer is repeated there, and never the
//! other way. Everything is written as Envoy itself prints it, so that what it has loaded can be compared.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::place;
use crate::fleet::model::{Rule, RuleBy};
use crate::fleet::names::{Bp, FleetName, ServiceName};
use crate::rollout::world::{EndpointState, Route, RouteEndpoint, Slot, Slots};
use crate::text::hex;

/// What the types of Envoy's API begin with.
const TYPES: &str = "type.googleapis.com/envoy";
/// No limit that anybody meets: Envoy's own defaults (1,024 requests, 3 retries at a time) turn a busy moment into errors.
const NO_LIMIT: u32 = 1_000_000;
/// With this any healthy instance is enough for a priority to be used alone: of a thousand, one.
const OVERPROVISIONED: u32 = 100_000;

/// The name of a service's route configuration.
pub(super) fn route_name(fleet: &FleetName, service: &ServiceName) -> String {
    format!("{}{service}", prefix(fleet))
}

/// The name of the route configuration that has all services.
pub(super) fn all_name(fleet: &FleetName) -> String {
    format!("ph_{fleet}")
}

/// What the names of all that is a service's begin with.
pub(super) fn prefix(fleet: &FleetName) -> String {
    format!("ph_{fleet}_")
}

/// The name of the cluster of a slot.
pub(super) fn cluster_name(fleet: &FleetName, service: &ServiceName, slot: Slot) -> String {
    format!("{}_{}", route_name(fleet, service), slot.as_str())
}

/// The file of the fleet's clusters. Its first line says whose everything is.
pub(super) fn clusters_path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("{fleet}.clusters.yaml"))
}

/// The directory of a service: one for each, as Envoy reads all that it knows of in a directory again when one file changes.
pub(super) fn service_dir(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}"))
}

/// The file of a service's route configuration.
pub(super) fn routes_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    service_dir(dir, fleet, service).join("routes.json")
}

/// The file of the route configuration that has all services, in a directory of its own. No service is named so.
pub(super) fn all_routes_path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("{fleet}_")).join("routes.json")
}

/// The file of the instances of a slot.
pub(super) fn endpoints_path(dir: &Path, fleet: &FleetName, service: &ServiceName, slot: Slot) -> PathBuf {
    service_dir(dir, fleet, service).join(format!("endpoints_{}.json", slot.as_str()))
}

/// A file as Envoy reads it, and the version it shows once that is in force. The version is a hash: Envoy takes no notice
/// of another version of the same content.
pub(super) fn response(kind: &str, resources: &[Value]) -> (String, String) {
    let typed = resources.iter().map(|r| with(json!({ "@type": format!("{TYPES}.{kind}") }), r.clone()));
    let typed: Vec<Value> = typed.collect();
    let body = Value::from(typed);
    let digest = Sha256::digest(body.to_string().as_bytes());
    let version = format!("ph-{}", hex(digest.get(..8).unwrap_or_default()));
    let text = json!({ "version_info": version, "resources": body }).to_string();
    (version, format!("{text}\n"))
}

/// Where Envoy reads a resource: a file, and the directory into which its successors are renamed.
fn source(path: &Path) -> Value {
    let dir = path.parent().unwrap_or(path);
    json!({
        "resource_api_version": "V3",
        "path_config_source": { "path": path, "watched_directory": { "path": dir } },
    })
}

/// The same as an operator types it.
pub(super) fn source_line(path: &Path) -> String {
    let dir = path.parent().unwrap_or(path);
    format!(
        "{{ resource_api_version: V3, path_config_source: {{ path: {}, watched_directory: {{ path: {} }} }} }}",
        path.display(),
        dir.display()
    )
}

/// What a service's requests come to, beside its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shares {
    /// The slot that gets what no rule decides.
    pub(super) stable: Slot,
    /// Each slot's share; both nothing before a first release.
    pub(super) weights: Slots<Bp>,
    /// What sends to the other slot.
    pub(super) rules: Vec<Rule>,
    /// Whether visitors keep their place.
    pub(super) sticky: bool,
    /// The host names for which this is; `*` for all others.
    pub(super) hosts: Vec<String>,
}

impl Shares {
    /// Nobody serves.
    pub(super) fn nobody() -> Self {
        Self {
            stable: Slot::A,
            weights: Slots::default(),
            rules: Vec::new(),
            sticky: false,
            hosts: anything(),
        }
    }

    pub(super) fn of(route: &Route) -> Self {
        Self {
            stable: route.stable,
            weights: Slots { a: route.slots.a.weight, b: route.slots.b.weight },
            rules: route.rules.clone(),
            sticky: route.sticky,
            hosts: anything(),
        }
    }

    /// Everything to stable, and no rules.
    pub(super) fn all_stable(route: &Route) -> Self {
        let mut shares = Self { weights: Slots::default(), rules: Vec::new(), ..Self::of(route) };
        *shares.weights.get_mut(route.stable) = Bp::FULL;
        shares
    }

    /// What a virtual host says of itself: to be compared with the whole before it is believed.
    pub(super) fn said(host: &Value) -> Option<Self> {
        let said = host.pointer("/metadata/filter_metadata/pilothouse/shares")?;
        serde_json::from_str(said.as_str()?).ok()
    }
}

fn anything() -> Vec<String> {
    vec!["*".to_owned()]
}

/// The route configuration of a service, whatever host is asked for.
pub(super) fn routes(fleet: &FleetName, service: &ServiceName, shares: &Shares) -> Value {
    json!({ "name": route_name(fleet, service), "virtual_hosts": [host(fleet, service, shares)] })
}

/// The route configuration of all services that have domains; what is asked for by another name is for the one that has none,
/// where there is one such.
pub(super) fn all_routes(fleet: &FleetName, routes: &[Route]) -> Value {
    let without = routes.iter().filter(|r| r.domains.is_empty()).count();
    let hosts = routes.iter().filter_map(|route| {
        let hosts = match route.domains.as_slice() {
            [] if without == 1 => anything(),
            [] => return None,
            // With a port or without.
            names => names.iter().flat_map(|n| [n.clone(), format!("{n}:*")]).collect(),
        };
        Some(host(fleet, &route.service, &Shares { hosts, ..Shares::of(route) }))
    });
    json!({ "name": all_name(fleet), "virtual_hosts": hosts.collect::<Vec<_>>() })
}

/// Whether a route configuration has a virtual host of this name.
pub(super) fn has_host(config: &Value, name: &str) -> bool {
    let hosts = config.get("virtual_hosts").and_then(Value::as_array);
    hosts.into_iter().flatten().any(|h| h.get("name").and_then(Value::as_str) == Some(name))
}

/// Requests that may be sent twice.
const REPEATABLE: &str = "GET|HEAD|OPTIONS";

/// What becomes of the requests to a service.
pub(super) fn host(fleet: &FleetName, service: &ServiceName, shares: &Shares) -> Value {
    let name = route_name(fleet, service);
    let said = serde_json::to_string(shares).unwrap_or_default();
    let mut routes = Vec::new();
    let mut both = |headers: Vec<Value>, to: &dyn Fn(bool) -> Value, extra: Option<Value>| {
        for repeatable in [true, false] {
            let mut matching = headers.clone();
            if repeatable {
                matching.push(matches(":method", REPEATABLE));
            }
            let mut request = json!({ "prefix": "/" });
            if !matching.is_empty() {
                request = with(request, json!({ "headers": matching }));
            }
            let mut route = json!({ "match": request, "route": to(repeatable) });
            if let Some(extra) = &extra {
                route = with(route, json!({ "typed_per_filter_config": extra }));
            }
            routes.push(route);
        }
    };
    let serves = shares.weights.a > Bp::ZERO || shares.weights.b > Bp::ZERO;
    if serves {
        let candidate = cluster_name(fleet, service, shares.stable.other());
        for rule in &shares.rules {
            let to = |repeatable| action(json!({ "cluster": candidate }), repeatable);
            // Whom a rule sends somewhere is given no place.
            let extra = shares.sticky.then(|| place::filter(json!({ "disabled": true })));
            both(vec![looks_for(rule)], &to, extra);
        }
        let weighted = |slot| {
            let weight = shares.weights.get(slot).get();
            json!({ "name": cluster_name(fleet, service, slot), "weight": weight })
        };
        // In this order b has the first places, at whatever share.
        let mut split = json!({ "clusters": [weighted(Slot::B), weighted(Slot::A)] });
        if shares.sticky {
            split = with(split, json!({ "header_name": place::HEADER }));
        }
        both(vec![], &|repeatable| action(json!({ "weighted_clusters": split }), repeatable), None);
    } else {
        routes.push(json!({ "match": { "prefix": "/" }, "direct_response": { "status": 503 } }));
    }
    let mut host = json!({
        "name": name,
        "domains": shares.hosts,
        "routes": routes,
        "metadata": { "filter_metadata": { "pilothouse": { "shares": said } } },
    });
    if shares.sticky && serves {
        let script = place::script(fleet, service);
        let filters = place::filter(json!({ "source_code": { "inline_string": script } }));
        let more =
            json!({ "typed_per_filter_config": filters, "request_headers_to_remove": [place::HEADER] });
        host = with(host, more);
    }
    host
}

/// How requests are sent on: with no deadline but those of the operator's listener, and again elsewhere when an instance does
/// not answer; what may not be sent twice only while nothing of it was sent.
fn action(to: Value, repeatable: bool) -> Value {
    let again = "connect-failure,refused-stream,reset-before-request";
    let again = if repeatable { format!("{again},reset") } else { again.to_owned() };
    let action = json!({
        "timeout": "0s",
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "retry_policy": {
            "retry_on": again,
            "num_retries": 3,
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {
                    "@type": format!(
                        "{TYPES}.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
                    ),
                    "update_frequency": 1,
                },
            },
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": format!("{TYPES}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                },
            }],
            "host_selection_retry_max_attempts": "5",
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.010s" },
        },
    });
    with(action, to)
}

/// An object with the fields of another one added.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    if let (Some(all), Value::Object(more)) = (object.as_object_mut(), more) {
        all.extend(more);
    }
    object
}

/// A header whose whole value matches an expression.
fn matches(name: &str, expression: &str) -> Value {
    json!({ "name": name, "string_match": { "safe_regex": { "regex": expression } } })
}

/// The header that a rule looks at. Envoy joins the values of headers of one name with commas.
fn looks_for(rule: &Rule) -> Value {
    let value = regex::escape(&rule.value);
    match rule.by {
        RuleBy::Header => matches(&rule.name.to_ascii_lowercase(), &among(",", &value)),
        RuleBy::Cookie => matches("cookie", &among(";,", &format!("{}={value}", regex::escape(&rule.name)))),
    }
}

/// One of several, between any of these characters.
fn among(separators: &str, one: &str) -> String {
    format!("(?s)(?:.*[{separators}])?[ \\t]*{one}[ \\t]*(?:[{separators}].*)?")
}

/// The instances of a slot, and behind them those that take over when none of them answers.
pub(super) fn endpoints(
    fleet: &FleetName,
    service: &ServiceName,
    route: Option<&Route>,
    slot: Slot,
) -> Value {
    let of = |e: &RouteEndpoint| {
        let mut one = json!({ "endpoint": {
            "address": { "socket_address": { "address": e.addr.ip().to_string(), "port_value": e.addr.port() } },
            "hostname": e.instance.as_str(),
        } });
        if e.state == EndpointState::Drain {
            one = with(one, json!({ "health_status": "DRAINING" }));
        }
        one
    };
    let mut priorities = Vec::new();
    if let Some(route) = route {
        let own: Vec<Value> = route.slots.get(slot).endpoints.iter().map(of).collect();
        let stable = route.slots.get(route.stable).endpoints.iter();
        let behind: Vec<Value> = match slot == route.stable {
            true => Vec::new(),
            false => stable.filter(|e| e.state == EndpointState::Ready).map(of).collect(),
        };
        priorities.push(json!({ "lb_endpoints": own }));
        if !behind.is_empty() {
            priorities.push(json!({ "priority": 1, "lb_endpoints": behind }));
        }
    }
    json!({
        "cluster_name": cluster_name(fleet, service, slot),
        "endpoints": priorities,
        "policy": { "overprovisioning_factor": OVERPROVISIONED },
    })
}

/// The cluster of a slot. It never changes while its service is there, as another one of its name would forget what is in
/// flight. An instance that failed five times in a row is left out for a second, but never more than half of them.
pub(super) fn cluster(dir: &Path, fleet: &FleetName, service: &ServiceName, slot: Slot) -> Value {
    json!({
        "name": cluster_name(fleet, service, slot),
        "type": "EDS",
        "connect_timeout": "0.500s",
        "eds_cluster_config": { "eds_config": source(&endpoints_path(dir, fleet, service, slot)) },
        // Where none is healthy Envoy would send to all, also to those that drain.
        "common_lb_config": { "healthy_panic_threshold": {} },
        "circuit_breakers": { "thresholds": [{
            "max_connections": NO_LIMIT,
            "max_pending_requests": NO_LIMIT,
            "max_requests": NO_LIMIT,
            "max_retries": NO_LIMIT,
        }] },
        "outlier_detection": {
            "split_external_local_origin_errors": true,
            "consecutive_local_origin_failure": 5,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "0.500s",
            "base_ejection_time": "1s",
            "max_ejection_time": "1s",
            "max_ejection_percent": 50,
        },
    })
}

/// Whether Envoy has loaded all of `ours`: what it says more than that is what was left to it.
pub(super) fn has_all(loaded: &Value, ours: &Value) -> bool {
    match (loaded, ours) {
        (Value::Object(loaded), Value::Object(ours)) => {
            ours.iter().all(|(key, value)| loaded.get(key).is_some_and(|there| has_all(there, value)))
        }
        (Value::Array(loaded), Value::Array(ours)) => {
            loaded.len() == ours.len() && loaded.iter().zip(ours).all(|(l, o)| has_all(l, o))
        }
        _ => loaded == ours,
    }
}
