//! nginx: Pilothouse owns one file for the `http` block and one per service for a `location`.
//!
//! The open-source nginx has no way to change a weight but a reload, which closes idle connections and leaves old workers
//! behind. So shares are not in its configuration: for each request nginx asks whether an empty file is there
//! (`shares.rs`), and a change of a share is a change of one symbolic link: in force for every worker at once, without a
//! reload, and kept over restarts. Only another set of instances, a rule or sticky places need a reload.
//!
//! Facts of nginx this rests on (1.22): `if (-f ...)` with nothing but `set` in it is evaluated for each request, before
//! the upstream is chosen; after a reload the master starts the new workers and tells the old ones to end 100 ms later,
//! and such a worker closes the connections that are kept alive, but serves one that was opened and not used yet, with the
//! instances that it knows; a configuration that cannot be loaded leaves the old workers as they are, and only the error
//! log says so.

mod config;
mod found;
mod load;
mod look;
mod process;
mod shares;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use self::config::{cookie_line, http_line, location_line};
pub(super) use self::found::found;
use self::process::Worker;
use self::shares::Shares;
use super::place::Place;
use super::sockets::{self, Whose};
use super::{Advice, Direction, Extras, Proxy, ProxyError, advice, files, nothing};
pub use crate::fleet::model::NginxSettings as Settings;
use crate::fleet::model::{Container, Rule, Service};
use crate::fleet::names::{Bp, FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{EndpointReadback, Route, RouteReadback, Slot, SlotReadback, Slots, WorkerRoute};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::log_socket::LogPort;
use crate::traffic::loss::LogLoss;
use crate::traffic::nginx_log::{Forgotten, LogListener};

/// Longest wait for new workers after a reload.
const RELOAD_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for an answer of our own server.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// nginx reads the files as another user.
const MODE: u32 = 0o644;
/// Generations of which is remembered what they route: old workers go on logging.
const REMEMBERED: usize = 64;
/// Workers of one reload are started within so many ticks (10 ms) of each other.
const TOGETHER: u64 = 5;

pub(super) fn describe(s: &Settings) -> String {
    format!("nginx, told of by {}, owns {}", s.status, s.dir.display())
}

pub(super) fn lines_to_add(
    s: &Settings,
    fleet: &FleetName,
    services: &[(&ServiceName, Extras)],
) -> Vec<(String, Vec<String>)> {
    let http = format!("line for the http block of {}", s.config.display());
    let mut out = vec![(http, vec![http_line(&s.dir, fleet)])];
    out.extend(services.iter().map(|(service, extras)| {
        let mut lines = vec![location_line(&s.dir, fleet, service)];
        if extras.sticky {
            lines.push(cookie_line(fleet, service));
        }
        (format!("in the location that serves {service}, in place of proxy_pass"), lines)
    }));
    out
}

/// The driver.
pub struct Nginx {
    name: ProxyName,
    settings: Settings,
    fleet: FleetName,
    owner: String,
    place: Place,
    /// One write at a time: it must not cross the reads of another that was decided on them.
    one: tokio::sync::Mutex<()>,
    known: Arc<std::sync::Mutex<Known>>,
    log: LogPort<LogListener>,
}

/// What never changes, and so need not be asked again.
#[derive(Default)]
struct Known {
    /// The generation that a worker has loaded, by process and start.
    loaded: BTreeMap<(u32, u64), String>,
    /// What a generation routes; the newest [`REMEMBERED`], oldest first.
    routes: VecDeque<(String, Arc<Vec<Route>>)>,
}

impl Known {
    fn loaded(&self, worker: &Worker) -> Option<String> {
        self.loaded.get(&(worker.pid, worker.started)).cloned()
    }

    fn routes(&self, generation: &str) -> Option<&Arc<Vec<Route>>> {
        self.routes.iter().find(|(g, _)| g == generation).map(|(_, routes)| routes)
    }

    fn remember(&mut self, generation: &str, routes: &Arc<Vec<Route>>) {
        self.routes.retain(|(g, _)| g != generation);
        self.routes.push_back((generation.to_owned(), Arc::clone(routes)));
        if self.routes.len() > REMEMBERED {
            self.routes.pop_front();
        }
    }

    /// The instance that had an address in a generation.
    fn whose(&self, generation: &str, addr: SocketAddr) -> Result<Option<InstanceId>, Forgotten> {
        let routes = self.routes(generation).ok_or(Forgotten)?;
        let slots = routes.iter().flat_map(|r| [&r.slots.a, &r.slots.b]);
        Ok(slots.flat_map(|s| &s.endpoints).find(|e| e.addr == addr).map(|e| e.instance.clone()))
    }
}

/// A worker that takes connections and the generation it has loaded, if that is known.
type Seen = (Worker, Option<String>);

impl Nginx {
    /// A driver for one nginx; touches nothing yet.
    #[must_use]
    pub fn new(name: ProxyName, settings: Settings, fleet: FleetName, owner: String) -> Self {
        let log = LogPort::new(settings.log);
        let (place, one) = (Place::new(name.clone(), None), tokio::sync::Mutex::new(()));
        Self { name, settings, fleet, owner, place, one, known: Arc::default(), log }
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks whose file it is. Every other step relies on this one.
    fn check_owner(&self) -> Result<Option<String>, ProxyError> {
        files::own(&config::http_path(&self.settings.dir, &self.fleet), &self.fleet, &self.owner)
    }
}

/// No slot has a share.
const NOBODY: Shares = Shares { b: None, rules: false };

/// What workers with these routes do. Where the shares are not known the worst is assumed: that anything is reached.
fn readback(route: &Route, shares: Option<Shares>, in_flight: &BTreeMap<SocketAddr, u32>) -> WorkerRoute {
    let slot = |slot: Slot| SlotReadback {
        weight: shares.map_or(Bp::FULL, |s| s.weight(slot)),
        endpoints: route
            .slots
            .get(slot)
            .endpoints
            .iter()
            .map(|e| EndpointReadback {
                instance: e.instance.clone(),
                addr: e.addr,
                state: e.state,
                up: None,
                in_flight: in_flight.get(&e.addr).copied().unwrap_or(0),
            })
            .collect(),
    };
    WorkerRoute {
        worker: String::new(),
        current: true,
        stable: route.stable,
        slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
        rules: if shares.is_none_or(|s| s.rules) { route.rules.clone() } else { Vec::new() },
        sticky: route.sticky,
    }
}

#[async_trait]
impl Proxy for Nginx {
    async fn prepare(&self, services: &[ServiceName]) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let there = self.check_owner()?;
        self.io(files::readable_dir(dir), "make", dir)?;
        self.recover()?;
        for service in services {
            let link = shares::link(dir, fleet, service);
            self.io(shares::make_ready(dir, fleet, service), "make the shares of", &link)?;
            if fs::symlink_metadata(&link).is_err() {
                self.io(shares::set(dir, fleet, service, NOBODY), "set the shares in", &link)?;
            }
        }
        let located = self.located()?;
        if there.is_some() && services.iter().all(|s| located.contains(s)) {
            return Ok(());
        }
        // What is routed already stays; a service that is new gets a location that answers 503.
        let generation = there.as_deref().and_then(config::generation_in).map(str::to_owned);
        let routes = match generation {
            Some(generation) => self.routes(&generation)?,
            None => None,
        };
        if there.is_some() && routes.is_none() {
            return Ok(());
        }
        let rendered = self.render(routes.as_deref().map_or(&[], Vec::as_slice), services)?;
        let files = self.files(&rendered)?;
        if there.is_none() {
            return self.write(&files);
        }
        // nginx may be started again at any moment: what is new must not keep it from that.
        self.publish(&files)?;
        if self.accepted().await { self.checked() } else { self.recover() }
    }

    async fn fits(&self) -> Result<(), ProxyError> {
        self.place.sees(&self.settings.dir, "nginx").await
    }

    async fn can(&self, service: &ServiceName, rules: &[Rule], sticky: bool) -> Result<(), ProxyError> {
        if let Some(why) = rules.iter().find_map(config::unfit) {
            return Err(self.refused(&why));
        }
        self.fits().await?;
        // A configuration that nginx would not load now, for whatever reason, is better known before a release.
        let (_, theirs) = self.check().await?;
        if sticky { self.cookie_is_told(service, &theirs) } else { Ok(()) }
    }

    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        self.check_owner()?;
        if let Some(why) = routes.iter().flat_map(|r| &r.rules).find_map(config::unfit)
            && direction == Direction::Up
        {
            return Err(self.refused(&why));
        }
        if direction == Direction::Back {
            // In force without nginx's doing anything, before anything else that could fail, whatever becomes of the rest.
            self.set_shares(routes)?;
        }
        self.io(files::readable_dir(&self.settings.dir), "make", &self.settings.dir)?;
        let rendered = self.render(routes, &[])?;
        self.load(routes, &rendered).await?;
        if direction == Direction::Up {
            self.set_shares(routes)?;
        }
        self.nobody_else(routes, &rendered)?;
        for route in &rendered.routes {
            if self.shares(route).await?.is_none() {
                return Err(self.refused(&format!(
                    "nginx's workers do not see the shares in {}; the user they run as must be allowed to look into it \
                     and into every directory above",
                    shares::link(&self.settings.dir, &self.fleet, &route.service).display()
                )));
            }
        }
        Ok(())
    }

    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError> {
        drop(self.one.lock().await);
        let now = self.look().await?;
        let uid = now.current.first().map_or(0, |(w, _)| w.uid);
        let mut in_flight = files::waiting_for_disk(|| sockets::connections(now.master, &Whose::User(uid)))
            .map_err(|e| self.unknown(&format!("cannot look at nginx's connections: {e}")))?;
        self.held_by_old_workers(&now, &mut in_flight)?;
        let mut by_generation: BTreeMap<Option<String>, Vec<u32>> = BTreeMap::new();
        for (worker, loaded) in now.current {
            by_generation.entry(loaded).or_default().push(worker.pid);
        }
        let mut out: BTreeMap<ServiceName, RouteReadback> = BTreeMap::new();
        for (generation, pids) in by_generation {
            let worker = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            let routes = match &generation {
                Some(g) => self.routes(g)?,
                None => None,
            };
            // Nobody knows where it sends requests: that nothing is known of an instance must not look as if it had none.
            let (Some(g), Some(routes)) = (generation, routes) else {
                return Err(self.unknown(&format!(
                    "nobody knows what worker {worker} of nginx has loaded; reload nginx, or wait until it has"
                )));
            };
            let intact = self.intact(&g, &routes)?;
            for route in routes.iter() {
                // Files that were changed by hand may be in force or not: anything is possible then.
                let shares = if intact { self.shares(route).await? } else { None };
                let mut now = WorkerRoute { worker: worker.clone(), ..readback(route, shares, &in_flight) };
                if !intact {
                    let endpoints = now.slots.a.endpoints.iter_mut().chain(&mut now.slots.b.endpoints);
                    endpoints.for_each(|e| e.in_flight = e.in_flight.max(1));
                }
                out.entry(route.service.clone()).or_default().workers.push(now);
            }
        }
        Ok(out)
    }

    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError> {
        let known = Arc::clone(&self.known);
        let whose = move |generation: &str, addr| {
            known.lock().unwrap_or_else(PoisonError::into_inner).whose(generation, addr)
        };
        let logged = self.log.ask(|addr| LogListener::bind(addr, Box::new(whose)), LogListener::counted);
        let mut out = logged.unwrap_or_default();
        let now = self.look().await?;
        for generation in now.current.into_iter().filter_map(|(_, g)| g).collect::<BTreeSet<_>>() {
            // Whoever was not asked for anything yet is there all the same.
            let routes = self.routes(&generation)?.unwrap_or_default();
            for route in routes.iter() {
                let endpoints = Slot::BOTH.into_iter().flat_map(|s| &route.slots.get(s).endpoints);
                for e in endpoints {
                    out.entry(e.instance.clone()).or_default();
                }
            }
        }
        Ok(out)
    }

    fn loss(&self) -> Option<LogLoss> {
        self.log.loss()
    }

    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.log.heard(|listener| listener.forget(gone));
    }

    fn warning(&self) -> Option<Safe> {
        match self.settings.log {
            Some(_) => self.log.trouble("numbers", self.name.as_str()),
            None => Some(Safe::new(&format!(
                "no numbers per version: proxy {} has no log = \"127.0.0.1:PORT\"",
                self.name
            ))),
        }
    }

    async fn examine(&self, services: &[&Service]) -> Vec<Advice> {
        let mut out = advice::asked(self, services).await;
        // What keeps it from being checked has been said.
        let Ok((paths, theirs)) = self.check().await else { return out };
        for service in services {
            let route = Route { sticky: Extras::of(&service.strategy).sticky, ..nothing(&service.name) };
            if let Err(e) = self.has_lines(&paths, &theirs, &[route]) {
                out.push(Advice::fails(&e.to_string()));
            }
        }
        out.dedup();
        out.extend(config::hints(&theirs, &self.fleet, self.settings.log));
        out
    }

    fn by_hand(&self, route: &Route) -> String {
        let (dir, fleet, service) = (&self.settings.dir, &self.fleet, &route.service);
        let all = Shares { b: Some(if route.stable == Slot::B { Bp::FULL } else { Bp::ZERO }), rules: false };
        let (target, link) = (shares::target(fleet, service, all), shares::link(dir, fleet, service));
        let (target, link) = (target.display(), link.display());
        format!(
            "# all requests of {service} to slot {} (stable), on every worker, now and after a restart:\n\
             ln -sfn {target} {link}.new && {{ [ -L {link} ] || mv {link} {link}.aside; }}; mv -T {link}.new {link}\n",
            route.stable.as_str(),
        )
    }
}
