//! What can only be checked once all tables are read: ports, addresses and names that two of them want.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::ctx::{At, Ctx};
use super::hosts::Declared;
use super::model::{Host, Proxy, ProxyKind, Strategy};
use super::names::{HostName, ProxyName};
use super::problem::Span;
use super::service::Draft;

/// Runs every check.
pub(super) fn check(
    ctx: &mut Ctx<'_>,
    hosts: &Declared<HostName, Host>,
    proxies: &Declared<ProxyName, Proxy>,
    services: &[Draft],
    metrics: Option<&At<SocketAddr>>,
) {
    all_out(ctx, hosts);
    shared_proxies(ctx, proxies);
    let places = places(hosts, services);
    room(ctx, services, &places);
    overlaps(ctx, services, &places);
    edge_inside_ports(ctx, proxies, services, &places);
    edge_names(ctx, proxies, services);
    if let Some(metrics) = metrics {
        metrics_alone(ctx, metrics, proxies, services, &places);
    }
}

fn all_out(ctx: &mut Ctx<'_>, hosts: &Declared<HostName, Host>) {
    if let Some(first) = hosts.items.values().next()
        && hosts.items.len() == hosts.names.len()
        && hosts.items.values().all(|h| h.value.out)
    {
        let message = "every host is out: nothing can run anywhere";
        ctx.mismatch(&first.span, message, "remove out = true from a host that is there");
    }
}

/// Instances of each service at each address. Two hosts with one address share its ports, whatever their engines.
type Places = Vec<BTreeMap<IpAddr, u32>>;

fn places(hosts: &Declared<HostName, Host>, services: &[Draft]) -> Places {
    services
        .iter()
        .map(|draft| {
            let mut at = BTreeMap::new();
            for (name, count) in &draft.service.placement {
                if let Some(host) = hosts.items.get(name) {
                    *at.entry(host.value.address).or_insert(0) += count;
                }
            }
            at
        })
        .collect()
}

/// Ports that `count` instances at one address need.
fn ports(draft: &Draft, count: u32) -> u32 {
    count.saturating_mul(draft.service.strategy.revisions_on_ports())
}

/// Each range has room at the busiest address for all revisions that hold ports at the same time.
fn room(ctx: &mut Ctx<'_>, services: &[Draft], places: &Places) {
    for (draft, at) in services.iter().zip(places).filter(|(d, _)| d.strategy_is_known) {
        let Some(span) = &draft.range else { continue };
        let Some((address, count)) = at.iter().max_by_key(|(_, n)| **n) else { continue };
        let (first, last) = draft.service.host_ports;
        let has = u32::from(last) - u32::from(first) + 1;
        let needs = ports(draft, *count);
        if has < needs {
            let instances = if *count == 1 { "1 instance".to_owned() } else { format!("{count} instances") };
            let ports = if has == 1 { "port" } else { "ports" };
            let strategy = &draft.service.strategy;
            let why = match strategy {
                Strategy::InPlace { .. } => "each new one takes the port of the one it replaces",
                Strategy::Rolling { .. } => "old and new, as a stopped one keeps its port for the way back",
                Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Ab { .. } => {
                    "old and new run side by side"
                }
            };
            let message = format!(
                "host_ports has {has} {ports}, but {} needs {needs} for {instances} at {address}: {why}",
                strategy.name()
            );
            let fix = match u32::from(first).checked_add(needs - 1).filter(|l| *l <= 65_535) {
                Some(last) => format!("write host_ports = \"{first}-{last}\""),
                None => "write a larger range, or fewer instances per host".to_owned(),
            };
            ctx.mismatch(span, &message, &fix);
        }
    }
}

fn overlaps(ctx: &mut Ctx<'_>, services: &[Draft], places: &Places) {
    for (n, (later, later_at)) in services.iter().zip(places).enumerate() {
        let Some(span) = &later.range else { continue };
        let (first, last) = later.service.host_ports;
        for (earlier, earlier_at) in services.iter().zip(places).take(n) {
            let (other_first, other_last) = earlier.service.host_ports;
            let shared = later_at.keys().find(|a| earlier_at.contains_key(a));
            let (Some(_), Some(address)) = (&earlier.range, shared) else { continue };
            if first.max(other_first) > last.min(other_last) {
                continue;
            }
            let message = format!(
                "host_ports {first}-{last} of '{}' overlap {other_first}-{other_last} of '{}' at {address}",
                later.service.name, earlier.service.name
            );
            let wanted = later_at.values().max().map_or(0, |n| ports(later, *n).saturating_sub(1));
            let size = u16::try_from(wanted).unwrap_or(u16::MAX).max(last - first);
            ctx.mismatch(span, &message, &free_range(services, size));
            // One is enough: the range that is suggested is free of all others.
            break;
        }
    }
}

/// Names a range of the same size above all others.
fn free_range(services: &[Draft], size: u16) -> String {
    let top =
        services.iter().filter(|d| d.range.is_some()).map(|d| d.service.host_ports.1).max().unwrap_or(0);
    match top.checked_add(1).and_then(|first| Some((first, first.checked_add(size)?))) {
        Some((first, last)) => format!("write host_ports = \"{first}-{last}\""),
        None => "write a range that no other service on these hosts has".to_owned(),
    }
}

/// Whether two sockets cannot both be bound.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && same_address(a.ip(), b.ip())
}

fn same_address(a: IpAddr, b: IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}

fn edges(proxies: &Declared<ProxyName, Proxy>) -> impl Iterator<Item = (&ProxyName, &Span, SocketAddr)> {
    proxies.items.iter().filter_map(|(name, p)| match &p.value.kind {
        ProxyKind::Edge(edge) => Some((name, &p.span, edge.listen)),
        _ => None,
    })
}

fn shared_proxies(ctx: &mut Ctx<'_>, proxies: &Declared<ProxyName, Proxy>) {
    let mut dirs: BTreeMap<&Path, &ProxyName> = BTreeMap::new();
    let mut taken: Vec<(&'static str, SocketAddr, &ProxyName)> = Vec::new();
    for (name, At { value, span }) in &proxies.items {
        if let Some(dir) = value.kind.dir()
            && let Some(other) = dirs.insert(dir, name)
        {
            let message = format!("proxies '{other}' and '{name}' have the same dir '{}'", dir.display());
            ctx.mismatch(span, &message, "give each its own: Pilothouse writes one configuration into it");
        }
        for (key, addr) in value.kind.addresses() {
            // A log is datagrams: it is in the way of no server.
            let same = |k: &str| k == key || (k != "log" && key != "log");
            if let Some((_, _, other)) = taken.iter().find(|(k, a, _)| same(k) && clash(*a, addr)) {
                let message = match key {
                    "log" => format!("proxies '{other}' and '{name}' send their log to the same address"),
                    "listen" => {
                        format!("proxies '{other}' and '{name}' both listen on port {}", addr.port())
                    }
                    key => format!("proxies '{other}' and '{name}' have the same {key} address {addr}"),
                };
                ctx.mismatch(span, &message, "give each its own address or port");
            }
            taken.push((key, addr, name));
        }
    }
}

/// The address of `/metrics` is nobody else's.
fn metrics_alone(
    ctx: &mut Ctx<'_>,
    At { value: listen, span }: &At<SocketAddr>,
    proxies: &Declared<ProxyName, Proxy>,
    services: &[Draft],
    places: &Places,
) {
    for (name, At { value, .. }) in &proxies.items {
        // A log is datagrams: it is in the way of no server.
        let taken = value.kind.addresses().into_iter().find(|(key, a)| *key != "log" && clash(*a, *listen));
        if let Some((key, _)) = taken {
            let message =
                format!("[metrics] listens on {listen}, which is '{key}' of proxy '{name}' as well");
            ctx.mismatch(span, &message, "write another port, for example 9464");
        }
    }
    for (draft, at) in services.iter().zip(places).filter(|(d, _)| d.range.is_some()) {
        let (first, last) = draft.service.host_ports;
        if (first..=last).contains(&listen.port()) && at.keys().any(|a| same_address(*a, listen.ip())) {
            let message = format!(
                "[metrics] listens on {listen}, which is one of the host_ports {first}-{last} of '{}'",
                draft.service.name
            );
            ctx.mismatch(span, &message, "write another port, or move the range");
        }
    }
}

fn edge_inside_ports(
    ctx: &mut Ctx<'_>,
    proxies: &Declared<ProxyName, Proxy>,
    services: &[Draft],
    places: &Places,
) {
    for (name, span, listen) in edges(proxies) {
        for (draft, at) in services.iter().zip(places).filter(|(d, _)| d.range.is_some()) {
            let (first, last) = draft.service.host_ports;
            if (first..=last).contains(&listen.port()) && at.keys().any(|a| same_address(*a, listen.ip())) {
                let message = format!(
                    "proxy '{name}' listens on {listen}, which is one of the host_ports {first}-{last} of '{}'",
                    draft.service.name
                );
                ctx.mismatch(span, &message, "write another port, or move the range");
            }
        }
    }
}

/// Proxies that find the service of a request by its host name, and whether each request there belongs to one.
fn by_host(proxies: &Declared<ProxyName, Proxy>) -> impl Iterator<Item = (&ProxyName, bool)> {
    proxies.items.iter().filter_map(|(name, p)| match &p.value.kind {
        ProxyKind::Edge(_) => Some((name, true)),
        // A service without domains may have a listener of its own there.
        ProxyKind::Envoy(_) => Some((name, false)),
        ProxyKind::Haproxy(_) | ProxyKind::Nginx(_) | ProxyKind::Caddy(_) | ProxyKind::Traefik(_) => None,
    })
}

/// On one proxy that finds services by host name, each name belongs to one service.
fn edge_names(ctx: &mut Ctx<'_>, proxies: &Declared<ProxyName, Proxy>, services: &[Draft]) {
    for (edge, all) in by_host(proxies) {
        let behind: Vec<&Draft> = services.iter().filter(|d| d.service.proxies.contains(edge)).collect();
        let mut taken: BTreeMap<&str, &Draft> = BTreeMap::new();
        let mut catches_all: Option<&Draft> = None;
        for draft in behind {
            let name = &draft.service.name;
            for domain in &draft.domains {
                if let Some(other) = taken.insert(&domain.value, draft) {
                    let message = format!(
                        "domain '{}' of '{name}' already belongs to '{}' on proxy '{edge}'",
                        domain.value, other.service.name
                    );
                    ctx.mismatch(&domain.span, &message, "give each service its own domains");
                }
            }
            if draft.domains.is_empty() && all {
                if let Some(other) = catches_all {
                    let message = format!(
                        "'{name}' and '{}' (line {}) are both without domains on proxy '{edge}'",
                        other.service.name,
                        ctx.line(&other.name)
                    );
                    ctx.mismatch(
                        &draft.name,
                        &message,
                        "add domains = [\"NAME.example\"] to all but one of them",
                    );
                }
                catches_all = Some(draft);
            }
        }
    }
    for draft in services {
        let on_edge = draft.service.proxies.iter().any(|p| by_host(proxies).any(|(e, _)| e == p));
        let all_read = draft.proxies.iter().all(|p| proxies.items.contains_key(&p.value));
        if let Some(domain) = draft.domains.first()
            && !on_edge
            && all_read
        {
            let message = format!(
                "domains of '{}' are used by no proxy: it is not behind an edge proxy",
                draft.service.name
            );
            ctx.mismatch(
                &domain.span,
                &message,
                "remove 'domains' (HAProxy's own frontend chooses), or add an edge proxy to 'proxies'",
            );
        }
    }
}
