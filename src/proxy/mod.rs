//! Proxies: who moves the traffic. One trait, one file (or folder) per proxy.

mod advice;
pub mod caddy;
pub mod edge;
pub mod envoy;
mod files;
mod found;
pub mod haproxy;
pub mod nginx;
mod place;
mod processes;
mod sockets;
pub mod traefik;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::advice::Advice;
pub use self::found::{Found, Setting, all as found, free as free_address};
pub use self::place::misfit;
use crate::fleet::model::{self, Choose, Fleet, HealthCheck, Probe, ProxyKind, Rule, Service, Strategy};
use crate::fleet::names::{FleetName, InstanceId, Millis, ServiceName};
use crate::rollout::world::{Route, RouteReadback, Slot, SlotRoute, Slots};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::loss::LogLoss;

/// Why a call to a proxy failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No answer in time, or no connection: what happened is unknown. Read back before writing again.
    #[error("{0}")]
    Unknown(Safe),
    /// The proxy answered and refused, or its configuration check failed: nothing was changed.
    #[error("{0}")]
    Refused(Safe),
    /// The file or the proxy belongs to another controller. Never touched.
    #[error("{0}")]
    Foreign(Safe),
}

/// Which of the two orders a route is applied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A risky change: what survives a restart is written first (and checked), then what is in force.
    Up,
    /// Back to safety: what is in force first, then what survives a restart.
    Back,
}

/// A proxy. Every call ends within a deadline of the driver's own choosing, and may be repeated.
#[async_trait]
pub trait Proxy: Send + Sync {
    /// Makes what the proxy itself needs to start and nobody else would make, for these services; what is there
    /// stays as it is. Asked for as soon as a fleet is loaded, before anything is deployed.
    async fn prepare(&self, _services: &[ServiceName]) -> Result<(), ProxyError> {
        Ok(())
    }

    /// Whether where it runs is such that what is written here is read there. [`ProxyError::Refused`] says what to change.
    async fn fits(&self) -> Result<(), ProxyError> {
        Ok(())
    }

    /// Whether this proxy, as it is set up now, can do what a plan asks of it beyond moving shares: follow `rules`, and
    /// keep the places of visitors. Asked before a rollout begins. [`ProxyError::Refused`] says what is missing and what
    /// to do about it; any other error means that the proxy could not be asked.
    async fn can(&self, _service: &ServiceName, _rules: &[Rule], _sticky: bool) -> Result<(), ProxyError> {
        Ok(())
    }

    /// Puts the routes of all services of the fleet in force: this is the whole truth, a service that is missing
    /// here is no longer served. Only what differs is changed. Not done until read back: the caller compares
    /// [`Proxy::read_back`] with the routes.
    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError>;

    /// What every worker does now, per service.
    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError>;

    /// Requests, errors and latency per instance since some fixed moment in the past. Never goes backwards for the
    /// life of the driver, also over reloads and restarts of the proxy, until [`Proxy::forget`].
    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError>;

    /// How many of the log lines came and were lost that the last [`Proxy::counters`] were made of; `None` for a proxy that
    /// counts by itself, or keeps its lines in a file.
    fn loss(&self) -> Option<LogLoss> {
        None
    }

    /// Nobody asks for the counters of these instances any more: they may be forgotten.
    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool);

    /// Something that costs information but no safety (no latency percentiles, say), for people.
    fn warning(&self) -> Option<Safe> {
        None
    }

    /// What an operator should know of how it is set up, before a release finds out. Changes nothing.
    async fn examine(&self, services: &[&Service]) -> Vec<Advice> {
        advice::asked(self, services).await
    }

    /// The exact commands by which an operator takes a service's candidate out by hand, when nothing else works.
    fn by_hand(&self, route: &Route) -> String;
}

/// What a service needs of its proxies beyond shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Rules: headers and cookies that choose.
    pub rules: bool,
    /// Visitors that keep their place.
    pub sticky: bool,
}

impl Extras {
    /// Everything there is.
    pub const ALL: Self = Self { rules: true, sticky: true };

    /// What a strategy needs.
    #[must_use]
    pub fn of(strategy: &Strategy) -> Self {
        match strategy {
            Strategy::InPlace { .. } | Strategy::Rolling { .. } => Self::default(),
            Strategy::BlueGreen { preview, .. } => Self { rules: preview.is_some(), sticky: false },
            Strategy::Canary { sticky, tester, .. } => Self { rules: tester.is_some(), sticky: *sticky },
            Strategy::Ab { choose: Choose::Rule(_), .. } => Self { rules: true, sticky: false },
            Strategy::Ab { choose: Choose::Share(_), .. } => Self { rules: false, sticky: true },
        }
    }
}

/// The route of a service that nobody serves.
fn nothing(service: &ServiceName) -> Route {
    let health = HealthCheck { probe: Probe::Tcp, interval: Millis(0), timeout: Millis(0), rise: 1, fall: 1 };
    Route {
        service: service.clone(),
        stable: Slot::A,
        slots: Slots { a: SlotRoute::default(), b: SlotRoute::default() },
        domains: Vec::new(),
        health: Slots { a: health.clone(), b: health },
        rules: Vec::new(),
        sticky: false,
    }
}

/// The name of the cookie that holds a visitor's place in a sticky service: the same at every proxy, so that a
/// visitor keeps it whichever they come through.
#[must_use]
pub fn place_cookie(fleet: &FleetName, service: &ServiceName) -> String {
    format!("ph_{fleet}_{service}")
}

/// The driver for a proxy of the fleet file. `owner` names this controller in what the proxy keeps; an edge's files
/// are in `state_dir`, and `program` is the pilothouse binary it is started from.
#[must_use]
pub fn open(
    proxy: &model::Proxy,
    fleet: &FleetName,
    owner: &str,
    state_dir: &Path,
    program: &Path,
) -> Arc<dyn Proxy> {
    let (name, fleet, owner) = (proxy.name.clone(), fleet.clone(), owner.to_owned());
    let within = proxy.container.as_ref();
    match &proxy.kind {
        ProxyKind::Haproxy(s) => {
            Arc::new(haproxy::Haproxy::new(name, s.clone(), fleet, owner).within(within))
        }
        ProxyKind::Nginx(s) => Arc::new(nginx::Nginx::new(name, s.clone(), fleet, owner).within(within)),
        ProxyKind::Traefik(s) => {
            Arc::new(traefik::Traefik::new(name, s.clone(), fleet, owner).within(within))
        }
        ProxyKind::Envoy(s) => Arc::new(envoy::Envoy::new(name, s.clone(), fleet, owner).within(within)),
        ProxyKind::Caddy(s) => Arc::new(caddy::Caddy::new(name, s.clone(), fleet, owner).within(within)),
        ProxyKind::Edge(s) => {
            let (dir, program) = (state_dir.to_owned(), program.to_owned());
            Arc::new(edge::Edge::new(name, s.listen, dir, program, owner, fleet))
        }
    }
}

/// What a proxy is, for people: `haproxy at /run/haproxy/master.sock, owns /etc/haproxy/pilothouse/shop.cfg`.
#[must_use]
pub fn describe(fleet: &FleetName, proxy: &model::Proxy) -> String {
    match &proxy.kind {
        ProxyKind::Haproxy(s) => haproxy::describe(s, fleet),
        ProxyKind::Nginx(s) => nginx::describe(s),
        ProxyKind::Traefik(s) => traefik::describe(s, fleet),
        ProxyKind::Envoy(s) => envoy::describe(s),
        ProxyKind::Caddy(s) => caddy::describe(s),
        ProxyKind::Edge(s) => format!("edge on {}", s.listen),
    }
}

/// What the operator has to add to the proxy's own configuration: where, and the lines.
#[must_use]
pub fn lines_to_add(fleet: &Fleet, proxy: &model::Proxy) -> Vec<(String, Vec<String>)> {
    let behind = fleet.services.values().filter(|s| s.proxies.contains(&proxy.name));
    let services: Vec<(&ServiceName, Extras)> = behind.map(|s| (&s.name, Extras::of(&s.strategy))).collect();
    match &proxy.kind {
        ProxyKind::Haproxy(s) => haproxy::lines_to_add(s, &fleet.name, &services),
        ProxyKind::Nginx(s) => nginx::lines_to_add(s, &fleet.name, &services),
        ProxyKind::Traefik(s) => traefik::lines_to_add(s, &fleet.name, &services),
        ProxyKind::Envoy(s) => envoy::lines_to_add(s, &fleet.name, &services),
        ProxyKind::Caddy(s) => caddy::lines_to_add(s, &fleet.name, &services),
        ProxyKind::Edge(_) => Vec::new(),
    }
}
