//! Traefik: Pilothouse owns one file in the directory that its file provider watches.
//!
//! The file is both what is in force and what survives a restart: Traefik takes it within milliseconds, closes no
//! connection for it, and begins with it when it is started. What is in force is asked of Traefik's API, at an entry point
//! of our own. The operator's router stays theirs: it has no service, and ours are its children (Traefik 3.6).
//!
//! Facts of Traefik this rests on (3.7): a file that comes by a rename is one change, and files made in the watched
//! directory are several; a change is looked at at once unless another was less than `providersThrottleDuration` ago; the
//! API that answers belongs to the configuration that serves; with each change Traefik makes a new key for TLS unless a
//! default certificate is declared, which takes a hundred times as long as the rest; weights are followed exactly, in turn
//! and not at random; one file of the directory that cannot be read holds all the others back.

mod config;
mod found;
mod look;
mod metrics;
mod places;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub(super) use self::found::found;
use self::look::{Raw, Seen, of_file};
use super::place::Place;
use super::{Advice, Direction, Extras, Proxy, ProxyError, advice, files, nothing};
pub use crate::fleet::model::TraefikSettings as Settings;
use crate::fleet::model::{Container, Rule, Service};
use crate::fleet::names::{Bp, FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{EndpointReadback, Route, RouteReadback, Slot, SlotReadback, Slots, WorkerRoute};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::totals::Totals;

/// Longest wait for Traefik to take a change; it may wait 2 s by itself.
const TAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for an answer of its API.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// A change that takes longer is worth a word.
const SLOW: Duration = Duration::from_millis(500);
const NO_METRICS: &str = "Traefik counts nothing; add `metrics: { prometheus: { manualRouting: true } }` to its static \
                          configuration";
/// Traefik reads the file as another user.
const MODE: u32 = 0o644;

pub(super) fn describe(s: &Settings, fleet: &FleetName) -> String {
    format!("traefik, asked at {}, owns {}", s.api, config::path(&s.dir, fleet).display())
}

/// The lines for Traefik's static configuration.
#[must_use]
pub fn static_lines(s: &Settings) -> Vec<String> {
    let lines = [
        "entryPoints:",
        "  pilothouse:",
        &format!("    address: \"{}\"", s.api),
        "api: {}",
        "metrics:",
        "  prometheus:",
        "    manualRouting: true",
        "    buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]",
        "providers:",
        "  providersThrottleDuration: 10ms",
        "  file:",
        &format!("    directory: {}", s.dir.display()),
        "    watch: true",
    ];
    lines.map(str::to_owned).into()
}

/// The router of the operator's own that ours hang from. Its name says which service it is for, and it has no service.
#[must_use]
pub fn router_lines(fleet: &FleetName, service: &ServiceName) -> Vec<String> {
    let name = format!("    {}:", config::base(fleet, service));
    let lines =
        ["http:", "  routers:", &name, "      rule: Host(`www.example.com`)", "      entryPoints: [web]"];
    lines.map(str::to_owned).into()
}

pub(super) fn lines_to_add(
    s: &Settings,
    fleet: &FleetName,
    services: &[(&ServiceName, Extras)],
) -> Vec<(String, Vec<String>)> {
    let mut out = vec![("in Traefik's static configuration, beside what it has".to_owned(), static_lines(s))];
    out.extend(services.iter().map(|(service, _)| {
        let place = format!(
            "in a file in {}, your router for {service}: the rule and entry points are yours, a service it has none",
            s.dir.display()
        );
        (place, router_lines(fleet, service))
    }));
    out
}

/// The driver.
pub struct Traefik {
    name: ProxyName,
    settings: Settings,
    fleet: FleetName,
    owner: String,
    place: Place,
    http: Result<reqwest::Client, reqwest::Error>,
    /// One write at a time: it must not cross the reads of another that was decided on them.
    one: tokio::sync::Mutex<()>,
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    totals: Totals<String>,
    /// Why there are no numbers.
    missing: Option<&'static str>,
    /// How long the last change took.
    took: Duration,
}

impl Traefik {
    /// A driver for one Traefik; touches nothing yet.
    #[must_use]
    pub fn new(name: ProxyName, settings: Settings, fleet: FleetName, owner: String) -> Self {
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let (one, numbers) = (tokio::sync::Mutex::new(()), Mutex::default());
        let place = Place::new(name.clone(), None);
        Self { name, settings, fleet, owner, place, http, one, numbers }
    }

    /// The same for one that runs in a container.
    #[must_use]
    pub fn within(mut self, container: Option<&Container>) -> Self {
        self.place = Place::new(self.name.clone(), container);
        self
    }

    fn refused(&self, what: &str) -> ProxyError {
        ProxyError::Refused(Safe::new(&format!("proxy {}: {what}", self.name)))
    }

    fn unknown(&self, what: &str) -> ProxyError {
        ProxyError::Unknown(Safe::new(&format!("proxy {}: {what}", self.name)))
    }

    fn io<T>(&self, result: io::Result<T>, what: &str, path: &Path) -> Result<T, ProxyError> {
        result.map_err(|e| self.refused(&format!("cannot {what} {}: {e}", path.display())))
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our file, when it is ours. Every other step relies on this one.
    fn own(&self) -> Result<Option<String>, ProxyError> {
        files::own(&config::path(&self.settings.dir, &self.fleet), &self.fleet, &self.owner)
    }

    /// Puts the file in place by one rename, which is one change to Traefik: what is written before that lies in a
    /// directory of its own, which Traefik does not watch, and its name ends in nothing that Traefik reads.
    fn write(&self, text: &str) -> Result<(), ProxyError> {
        let (dir, path) = (&self.settings.dir, config::path(&self.settings.dir, &self.fleet));
        let aside = dir.join(".pilothouse");
        self.io(files::readable_dir(&aside), "make", &aside)?;
        let temp = aside.join(format!("{}.new", self.fleet));
        let written = files::write_synced(&temp, text, MODE).and_then(|()| files::publish(&temp, &path));
        self.io(written, "write", &path)
    }

    /// Whether this file is what is in force: the mark is asked for first, as it is one small answer.
    async fn has(&self, rendered: &config::Rendered) -> Result<bool, ProxyError> {
        let name = of_file(&config::generation_name(&self.fleet));
        let mark: Option<Value> = self.ask_json(&format!("/api/http/middlewares/{name}")).await?;
        if mark.as_ref().and_then(config::mark_of) != Some(&rendered.generation) {
            return Ok(false);
        }
        let seen = self.seen(&self.raw().await?);
        let is = |r: &Route| seen.get(&r.service).is_some_and(|s| s.intact && !s.by_hand && s.route == *r);
        Ok(rendered.routes.iter().all(is))
    }

    /// Waits until this file is in force.
    async fn taken(&self, rendered: &config::Rendered) -> Result<(), ProxyError> {
        let start = Instant::now();
        loop {
            let last = match self.has(rendered).await {
                Ok(true) => {
                    self.numbers().took = start.elapsed();
                    return Ok(());
                }
                Ok(false) => "what it has is something else".to_owned(),
                Err(e) => e.to_string(),
            };
            if start.elapsed() > TAKE_DEADLINE {
                return Err(self.unknown(&format!(
                    "Traefik did not take {} within {} s ({last}); a file in that directory which it cannot read holds \
                     all of them back, and its log says which",
                    config::path(&self.settings.dir, &self.fleet).display(),
                    TAKE_DEADLINE.as_secs()
                )));
            }
            let pause = if start.elapsed() < SLOW { 2 } else { 20 };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Whether the Traefik that answers knows what the file asks of it: one that does not would refuse every file of its
    /// directory.
    async fn version(&self) -> Result<(), ProxyError> {
        let version: Option<Value> = self.ask_json("/api/version").await?;
        let said = version.as_ref().and_then(|v| v.get("Version")).and_then(Value::as_str).unwrap_or("");
        let mut numbers = said.trim_start_matches('v').split('.').map(|n| n.parse::<u32>().unwrap_or(0));
        let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if known >= (3, 7) {
            return Ok(());
        }
        Err(self.refused(&format!("this is Traefik {}; 3.7 or newer is needed", Safe::capped(said, 40))))
    }

    /// Whether the operator's router for a service is there, without a service of its own.
    fn router(&self, raw: &Raw, service: &ServiceName) -> Result<(), ProxyError> {
        let name = config::base(&self.fleet, service);
        match raw.routers.get(&of_file(&name)) {
            None => Err(self.refused(&format!(
                "no router of this Traefik serves {service}; add one to a file in {}: {}",
                self.settings.dir.display(),
                router_lines(&self.fleet, service).iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ")
            ))),
            Some(router) if router.get("service").is_some() => Err(self.refused(&format!(
                "the router {name} has a service of its own; take its line `service:` out"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Whether Traefik can do what these routes ask of it.
    async fn ready(&self, routes: &[Route]) -> Result<(), ProxyError> {
        self.version().await?;
        let raw = self.raw().await?;
        routes.iter().try_for_each(|route| self.router(&raw, &route.service))
    }

    /// The same, once it has taken a file.
    async fn ready_soon(&self, routes: &[Route]) -> Result<(), ProxyError> {
        let start = Instant::now();
        loop {
            match self.ready(routes).await {
                Err(ProxyError::Unknown(_)) if start.elapsed() < TAKE_DEADLINE => {
                    sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }

    /// Writes the file that is there as it should be, with what it routes; whether it was not.
    fn mend(&self, before: Option<&str>) -> Result<bool, ProxyError> {
        let as_it_should_be = self.render(&before.map(config::routes_in).unwrap_or_default(), None).text;
        if before == Some(as_it_should_be.as_str()) {
            return Ok(false);
        }
        self.write(&as_it_should_be)?;
        Ok(true)
    }

    /// The file for these routes, and for every other service that a file may have had: its router is still there.
    fn render(&self, routes: &[Route], before: Option<&str>) -> config::Rendered {
        let mut all: BTreeMap<ServiceName, Route> =
            routes.iter().map(|r| (r.service.clone(), r.clone())).collect();
        for route in before.map(config::routes_in).unwrap_or_default() {
            all.entry(route.service).or_insert_with_key(nothing);
        }
        let all: Vec<Route> = all.into_values().collect();
        config::render(&all, &self.fleet, &self.owner, self.settings.api)
    }

    /// Takes away what operators have done by hand.
    fn undo_by_hand(&self, routes: &[Route]) -> Result<(), ProxyError> {
        for route in routes {
            let path = config::by_hand_path(&self.settings.dir, &self.fleet, &route.service);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return self.io(Err(e), "remove", &path),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What Traefik does with a service. Where that is not what the file said, the worst is assumed: that anything is reached.
fn readback(seen: &Seen, in_flight: &BTreeMap<std::net::SocketAddr, u32>) -> WorkerRoute {
    let route = &seen.route;
    let slot = |slot: Slot| SlotReadback {
        weight: match (seen.intact, seen.by_hand) {
            (false, _) => Bp::FULL,
            (true, true) if slot == route.stable => Bp::FULL,
            (true, true) => Bp::ZERO,
            (true, false) => route.slots.get(slot).weight,
        },
        endpoints: route
            .slots
            .get(slot)
            .endpoints
            .iter()
            .map(|e| EndpointReadback {
                instance: e.instance.clone(),
                addr: e.addr,
                state: e.state,
                up: seen.up.get(&e.instance).copied(),
                in_flight: in_flight.get(&e.addr).copied().unwrap_or(0).max(u32::from(!seen.intact)),
            })
            .collect(),
    };
    WorkerRoute {
        worker: "traefik".to_owned(),
        current: true,
        stable: route.stable,
        slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
        rules: if seen.intact && seen.by_hand { Vec::new() } else { route.rules.clone() },
        sticky: route.sticky,
    }
}

#[async_trait]
impl Proxy for Traefik {
    async fn prepare(&self, services: &[ServiceName]) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        let before = self.own()?;
        let dir = &self.settings.dir;
        self.io(files::readable_dir(dir), "make", dir)?;
        // What is routed already stays; a service that is new gets routers that answer 503.
        let mut routes = before.as_deref().map(config::routes_in).unwrap_or_default();
        let known = routes.len();
        for service in services {
            if routes.iter().all(|r| r.service != *service) {
                routes.push(nothing(service));
            }
        }
        if before.is_some() && routes.len() == known {
            return Ok(());
        }
        self.write(&self.render(&routes, None).text)
    }

    async fn fits(&self) -> Result<(), ProxyError> {
        self.place.sees(&self.settings.dir, "traefik").await
    }

    async fn can(&self, service: &ServiceName, rules: &[Rule], _sticky: bool) -> Result<(), ProxyError> {
        if let Some(why) = rules.iter().find_map(config::unfit) {
            return Err(self.refused(&why));
        }
        self.fits().await?;
        self.version().await?;
        self.router(&self.raw().await?, service)
    }

    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        let before = self.own()?;
        let rendered = self.render(routes, before.as_deref());
        if direction == Direction::Up {
            if let Some(why) = routes.iter().flat_map(|r| &r.rules).find_map(config::unfit) {
                return Err(self.refused(&why));
            }
            if let Err(e) = self.ready(routes).await {
                // Whoever took our file away, or changed it, may have taken the way to ask with it.
                if !self.mend(before.as_deref())? {
                    return Err(e);
                }
                self.ready_soon(routes).await?;
            }
        }
        let same = before.as_deref() == Some(rendered.text.as_str());
        if same && self.has(&rendered).await? {
            return Ok(());
        }
        self.write(&rendered.text)?;
        // After the file, which must not come into force as it was before.
        self.undo_by_hand(routes)?;
        let taken = self.taken(&rendered).await;
        if let (Err(_), Direction::Up, Some(before), false) = (&taken, direction, before, same) {
            // What was never in force must not come by surprise later on.
            self.write(&before)?;
        }
        taken
    }

    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError> {
        drop(self.one.lock().await);
        let raw = self.raw().await?;
        // After what is in force, so that what was begun before it is seen.
        let in_flight = self.connections()?;
        let seen = self.seen(&raw).into_iter();
        let read = seen
            .map(|(service, seen)| (service, RouteReadback { workers: vec![readback(&seen, &in_flight)] }));
        Ok(read.collect())
    }

    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError> {
        let routes: Vec<Route> = self.seen(&self.raw().await?).into_values().map(|seen| seen.route).collect();
        let (status, text) = self.ask("/metrics").await?;
        let metrics = metrics::read(&text, &routes, &self.fleet);
        let mut numbers = self.numbers();
        if status != 200 {
            numbers.missing = Some(NO_METRICS);
            let all = numbers.totals.all();
            for instance in metrics.counts.into_keys() {
                all.entry(instance).or_default();
            }
            return Ok(all.clone());
        }
        numbers.missing = None;
        for (instance, counts) in metrics.counts {
            numbers.totals.take(metrics.life.clone(), &instance, counts);
        }
        numbers.totals.keep_sources(|life| *life == metrics.life);
        Ok(numbers.totals.all().clone())
    }

    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.numbers().totals.forget(gone);
    }

    fn warning(&self) -> Option<Safe> {
        self.numbers().missing.map(|why| Safe::new(&format!("no numbers per version: {why}")))
    }

    async fn examine(&self, services: &[&Service]) -> Vec<Advice> {
        let counted = self.counters().await.err();
        let mut out = advice::asked(self, services).await;
        let took = self.numbers().took;
        if took > SLOW {
            out.push(Advice::better(
                &format!("proxy {}: Traefik took {} ms for the last change", self.name, took.as_millis()),
                "providersThrottleDuration: 10ms under providers: in its static configuration, and a default \
                 certificate: tls: { stores: { default: { defaultCertificate: { certFile: ..., keyFile: ... } } } }",
            ));
        }
        if let (Some(e), true) = (counted, out.is_empty()) {
            out.push(Advice::fails(&e.to_string()));
        }
        out
    }

    fn by_hand(&self, route: &Route) -> String {
        let path = config::by_hand_path(&self.settings.dir, &self.fleet, &route.service);
        let (path, stable) = (path.display(), route.stable.as_str());
        format!(
            "# all requests of {} to slot {stable} (stable), now and after a restart, until the file is removed:\n\
             cat > {path}.new <<'END' && mv {path}.new {path}\n{}\nEND\n",
            route.service,
            config::by_hand(route, &self.fleet),
        )
    }
}
