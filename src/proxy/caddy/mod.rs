//! Caddy: Pilothouse owns Caddyfiles that the operator's own imports once, and directories that Caddy looks into.
//!
//! A reload of Caddy closes connections that are kept alive, and in 2.6 every websocket. So nothing that changes in a release is
//! in its configuration: for each request Caddy looks into a directory for the instance to send it to (`tree.rs`), and
//! a change of a route, whatever it is, is a change of one symbolic link: in force at once, without a reload, and kept over
//! restarts. Only a rule that was never used before needs a reload.

mod config;
mod found;
mod look;
mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::config::{options_line, server_line, site_line};
pub(super) use self::found::found;
use super::nothing;
use super::place::Place;
use super::{Advice, Direction, Extras, Proxy, ProxyError, advice, files, sockets};
pub use crate::fleet::model::CaddySettings as Settings;
use crate::fleet::model::{Container, Rule, Service};
use crate::fleet::names::{Bp, FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{
    EndpointReadback, EndpointState, Route, RouteReadback, Slot, SlotReadback, Slots, WorkerRoute,
};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::caddy_log::LogListener;
use crate::traffic::log_socket::LogPort;
use crate::traffic::loss::LogLoss;

/// Caddy reads the files as another user.
const MODE: u32 = 0o644;
/// A request that found an instance before a change may take so long to open its connection.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
/// Addresses of which is remembered whose they were.
const REMEMBERED: usize = 4096;

pub(super) fn describe(s: &Settings) -> String {
    format!("caddy at {}, owns {}", s.admin, s.dir.display())
}

pub(super) fn lines_to_add(
    s: &Settings,
    fleet: &FleetName,
    services: &[(&ServiceName, Extras)],
) -> Vec<(String, Vec<String>)> {
    let file = s.config.display();
    let mut out = Vec::new();
    if s.log.is_some() {
        let place = format!("line for the global options (the first braces) of {file}");
        out.push((place, vec![options_line(&s.dir, fleet)]));
    }
    out.push((format!("line beside the sites of {file}"), vec![server_line(&s.dir, fleet)]));
    out.extend(services.iter().map(|(service, _)| {
        let place = format!("in the site (or handle) that serves {service}, in place of reverse_proxy");
        (place, vec![site_line(&s.dir, fleet, service)])
    }));
    out
}

/// The driver.
pub struct Caddy {
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

#[derive(Default)]
struct Known {
    /// Whose an address was last; the newest at the end.
    whose: VecDeque<(SocketAddr, InstanceId)>,
    /// When a route was changed last.
    changed: Option<Instant>,
}

impl Known {
    fn remember(&mut self, route: &Route) {
        for e in [&route.slots.a, &route.slots.b].into_iter().flat_map(|s| &s.endpoints) {
            if self.whose(e.addr).as_ref() != Some(&e.instance) {
                self.whose.retain(|(addr, _)| *addr != e.addr);
                self.whose.push_back((e.addr, e.instance.clone()));
            }
        }
        while self.whose.len() > REMEMBERED {
            self.whose.pop_front();
        }
    }

    fn whose(&self, addr: SocketAddr) -> Option<InstanceId> {
        self.whose.iter().find(|(a, _)| *a == addr).map(|(_, id)| id.clone())
    }
}

impl Caddy {
    /// A driver for one Caddy; touches nothing yet.
    #[must_use]
    pub fn new(name: ProxyName, settings: Settings, fleet: FleetName, owner: String) -> Self {
        let log = LogPort::new(settings.log.map(config::heard_at));
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
        files::own(&config::server_path(&self.settings.dir, &self.fleet), &self.fleet, &self.owner)
    }

    /// The services that have a file.
    fn located(&self) -> Result<BTreeSet<ServiceName>, ProxyError> {
        let dir = &self.settings.dir;
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => self.io(entries, "look into", dir)?,
        };
        let service = |name: &str| {
            let rest = name.strip_prefix(self.fleet.as_str())?.strip_prefix('_')?;
            rest.strip_suffix(".caddy")?.parse().ok()
        };
        Ok(entries.flatten().filter_map(|e| service(e.file_name().to_str()?)).collect())
    }

    /// The files for these services, and the generation that they are.
    fn render(&self, wanted: &BTreeMap<ServiceName, Vec<Rule>>) -> Result<Rendered, ProxyError> {
        let (s, fleet, owner) = (&self.settings, &self.fleet, &self.owner);
        let mut services = self.located()?;
        services.extend(wanted.keys().cloned());
        let mut out = Vec::new();
        for service in &services {
            let path = config::site_path(&s.dir, fleet, service);
            let there = self.io(files::read(&path), "read", &path)?.unwrap_or_default();
            let wanted = wanted.get(service).map_or(&[][..], Vec::as_slice);
            let rules = config::rules(config::known_rules(&there), wanted);
            out.push((path, config::site(fleet, owner, &s.dir, service, &rules)));
        }
        out.push((config::options_path(&s.dir, fleet), config::options(fleet, owner, s.log)));
        let texts: Vec<String> = out.iter().map(|(_, text)| text.clone()).collect();
        let (text, generation) = config::server(fleet, owner, &s.dir, s.status, &services, &texts);
        out.push((config::server_path(&s.dir, fleet), text));
        Ok(Rendered { files: out, generation, services })
    }

    /// Writes what differs; what stood there before.
    fn write(&self, rendered: &Rendered) -> Result<Vec<(PathBuf, String)>, ProxyError> {
        let mut before = Vec::new();
        for (path, text) in &rendered.files {
            let there = self.io(files::read(path), "read", path)?;
            if there.as_deref() != Some(text.as_str()) {
                self.io(files::write_atomic(path, text, MODE), "write", path)?;
                before.extend(there.map(|old| (path.clone(), old)));
            }
        }
        Ok(before)
    }

    /// Puts routes in force, each whatever becomes of the others.
    fn set(&self, routes: &[Route]) -> Result<(), ProxyError> {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let mut result = Ok(());
        for route in routes {
            self.known().remember(route);
            let link = tree::link(dir, fleet, &route.service);
            let set = files::waiting_for_disk(|| tree::set(dir, fleet, route));
            match self.io(set, "set the route in", &link) {
                Ok(true) => self.known().changed = Some(Instant::now()),
                Ok(false) => {}
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }

    /// Whether every service's questions and rules are in what Caddy has loaded; else reloads it, with the operator's own
    /// file. When that is refused the files are what they were.
    async fn load(&self, routes: &[Route]) -> Result<(), ProxyError> {
        let wanted = routes.iter().map(|r| (r.service.clone(), r.rules.clone())).collect();
        let rendered = self.render(&wanted)?;
        let before = self.write(&rendered)?;
        let loaded = self.ask("/").await.map(|answer| answer.generation);
        if loaded.as_ref() != Ok(&rendered.generation) {
            if let Err(e) = self.reload().await {
                for (path, old) in before {
                    self.io(files::write_atomic(&path, &old, MODE), "put back", &path)?;
                }
                return Err(e);
            }
            let now = self.ask("/").await?.generation;
            if now != rendered.generation {
                let line = server_line(&self.settings.dir, &self.fleet);
                return Err(self.refused(&format!(
                    "Caddy was reloaded and has not loaded what Pilothouse wrote; is {line:?} in {}?",
                    self.settings.config.display()
                )));
            }
            self.has_lines(routes.iter().map(|r| &r.service)).await?;
        }
        Ok(())
    }

    /// Whether a site of what Caddy has loaded serves each of these services.
    async fn has_lines(&self, services: impl Iterator<Item = &ServiceName>) -> Result<(), ProxyError> {
        let loaded = self.loaded().await?;
        for service in services {
            if !loaded.contains(&config::mark(&self.fleet, service)) {
                return Err(self.refused(&format!(
                    "no site of this Caddy serves {service}; add to the one that should in {}, in place of \
                     reverse_proxy: {}; then reload Caddy",
                    self.settings.config.display(),
                    site_line(&self.settings.dir, &self.fleet, service)
                )));
            }
        }
        Ok(())
    }

    /// More instances than parts of the requests: some would get none.
    fn too_many(&self, routes: &[Route]) -> Result<(), ProxyError> {
        let many =
            |r: &&Route| Slot::BOTH.iter().any(|&s| tree::ready(r, s).len() > usize::from(tree::PARTS));
        match routes.iter().find(many) {
            Some(r) => Err(self.refused(&format!(
                "{} has more than {} instances in one version, and each gets a hundredth at least",
                r.service,
                tree::PARTS
            ))),
            None => Ok(()),
        }
    }
}

/// The files of a fleet.
struct Rendered {
    files: Vec<(PathBuf, String)>,
    /// What our server answers when it has loaded them.
    generation: String,
    services: BTreeSet<ServiceName>,
}

/// What Caddy does with a route. Where it is not intact the worst is assumed: that anything is reached, and busy.
fn readback(
    route: &Route,
    intact: bool,
    in_flight: impl Fn(SocketAddr, EndpointState) -> u32,
) -> WorkerRoute {
    let slot = |slot: Slot| {
        let slot = route.slots.get(slot);
        let endpoint = |e: &crate::rollout::world::RouteEndpoint| EndpointReadback {
            instance: e.instance.clone(),
            addr: e.addr,
            state: e.state,
            up: None,
            in_flight: in_flight(e.addr, e.state).max(u32::from(!intact)),
        };
        SlotReadback {
            weight: if intact { slot.weight } else { Bp::FULL },
            endpoints: slot.endpoints.iter().map(endpoint).collect(),
        }
    };
    WorkerRoute {
        worker: "caddy".to_owned(),
        current: true,
        stable: route.stable,
        slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
        rules: route.rules.clone(),
        sticky: route.sticky,
    }
}

#[async_trait]
impl Proxy for Caddy {
    async fn prepare(&self, services: &[ServiceName]) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        self.check_owner()?;
        self.io(files::readable_dir(dir), "make", dir)?;
        for service in services {
            if tree::in_force(dir, fleet, service).is_none() {
                self.set(&[nothing(service)])?;
            }
        }
        let rendered = self.render(&services.iter().map(|s| (s.clone(), Vec::new())).collect())?;
        self.write(&rendered).map(drop)
    }

    async fn fits(&self) -> Result<(), ProxyError> {
        self.place.sees(&self.settings.dir, "caddy").await
    }

    async fn can(&self, service: &ServiceName, rules: &[Rule], _sticky: bool) -> Result<(), ProxyError> {
        if let Some(why) = rules.iter().find_map(config::unfit) {
            return Err(self.refused(&why));
        }
        self.fits().await?;
        self.ask("/").await?;
        self.has_lines([service].into_iter()).await
    }

    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        self.check_owner()?;
        if direction == Direction::Back {
            // In force without Caddy's doing anything, before anything else that could fail.
            self.set(routes)?;
        } else {
            if let Some(why) = routes.iter().flat_map(|r| &r.rules).find_map(config::unfit) {
                return Err(self.refused(&why));
            }
            self.too_many(routes)?;
        }
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        self.io(files::readable_dir(dir), "make", dir)?;
        let loaded = self.load(routes).await;
        if direction == Direction::Up {
            loaded.clone()?;
            self.set(routes)?;
        }
        for service in self.located()? {
            if routes.iter().all(|r| r.service != service) {
                self.set(&[nothing(&service)])?;
            }
        }
        for route in routes {
            // What an abort needs is there beforehand.
            let spare = files::waiting_for_disk(|| tree::make(dir, fleet, &tree::aborted(route)));
            self.io(spare, "make the way back in", &tree::link(dir, fleet, &route.service))?;
            let _ = tree::tidy(dir, fleet, route);
        }
        loaded?;
        for route in routes {
            if !self.sees(route).await? {
                return Err(self.refused(&format!(
                    "Caddy does not see the route in {}; the user it runs as must be allowed to look into it and into \
                     every directory above",
                    tree::link(dir, fleet, &route.service).display()
                )));
            }
        }
        Ok(())
    }

    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError> {
        drop(self.one.lock().await);
        let generation = self.ask("/").await?.generation;
        let (s, fleet) = (&self.settings, &self.fleet);
        let rendered = self.render(&BTreeMap::new())?;
        let loaded = generation == rendered.generation;
        let first = self.place.first().await?;
        let looked = files::waiting_for_disk(|| match (first, sockets::listener(s.status)?) {
            // Who is root in there is root here: its connections are told apart by process.
            (Some(pid), Some(_)) => sockets::connections(pid, &sockets::of_family(pid)?).map(Some),
            (None, Some(uid)) => {
                sockets::connections(std::process::id(), &sockets::Whose::User(uid)).map(Some)
            }
            (_, None) => Ok(None),
        });
        let Some(connections) =
            looked.map_err(|e| self.unknown(&format!("cannot look at Caddy's connections: {e}")))?
        else {
            return Err(self.unknown(&format!(
                "what answers at {} does not listen in the network of the controller: what Caddy has in flight is \
                 unknown",
                s.status
            )));
        };
        let just_now = self.known().changed.is_some_and(|at| at.elapsed() < ON_ITS_WAY);
        let in_flight = |addr: SocketAddr, state: EndpointState| {
            let open = connections.get(&addr).copied().unwrap_or(0);
            open.max(u32::from(just_now && state == EndpointState::Drain))
        };
        let mut out: BTreeMap<ServiceName, RouteReadback> = BTreeMap::new();
        for service in rendered.services {
            let Some(name) = tree::in_force(&s.dir, fleet, &service) else { continue };
            let read = files::waiting_for_disk(|| tree::read(&s.dir, fleet, &service, &name));
            let Some((route, intact)) = self.io(read, "read", &tree::link(&s.dir, fleet, &service))? else {
                return Err(self.unknown(&format!("nobody knows what the route of {service} is")));
            };
            self.known().remember(&route);
            let intact = intact && loaded && self.sees(&route).await?;
            out.entry(service).or_default().workers.push(readback(&route, intact, in_flight));
        }
        Ok(out)
    }

    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError> {
        let known = Arc::clone(&self.known);
        let whose = move |addr| known.lock().unwrap_or_else(PoisonError::into_inner).whose(addr);
        let logged = self.log.ask(
            |addr| LogListener::bind(addr, config::token(&self.owner), Box::new(whose)),
            LogListener::counted,
        );
        let mut out = logged.unwrap_or_default();
        self.ask("/").await?;
        for service in self.located()? {
            let (dir, fleet) = (&self.settings.dir, &self.fleet);
            let Some(name) = tree::in_force(dir, fleet, &service) else { continue };
            let read = tree::read(dir, fleet, &service, &name);
            let Some((route, _)) = self.io(read, "read", &tree::link(dir, fleet, &service))? else {
                continue;
            };
            self.known().remember(&route);
            // Whoever was not asked for anything yet is there all the same.
            for e in [&route.slots.a, &route.slots.b].into_iter().flat_map(|s| &s.endpoints) {
                out.entry(e.instance.clone()).or_default();
            }
        }
        Ok(out)
    }

    fn loss(&self) -> Option<LogLoss> {
        self.log.loss()
    }

    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.log.heard(|listener| listener.forget(gone));
        self.known().whose.retain(|(_, id)| !gone(id));
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
        // What keeps it from being asked has been said.
        let Ok(loaded) = self.loaded().await else { return out };
        if let Some(log) = self.settings.log
            && !loaded.contains(&format!("udp/{}", config::heard_at(log)))
        {
            out.push(Advice::better(
                "Caddy sends no log lines, so there are no numbers per version",
                &format!(
                    "add to the global options of {}: {}",
                    self.settings.config.display(),
                    options_line(&self.settings.dir, &self.fleet)
                ),
            ));
        }
        out
    }

    fn by_hand(&self, route: &Route) -> String {
        let (dir, fleet, service) = (&self.settings.dir, &self.fleet, &route.service);
        let name = tree::Tree::of(&tree::aborted(route)).map(|t| t.name).unwrap_or_default();
        let (target, link) = (tree::target(fleet, service, &name), tree::link(dir, fleet, service));
        let (target, link) = (target.display(), link.display());
        format!(
            "# all requests of {service} to slot {} (stable), at once, now and after a restart:\n\
             ln -sfn {target} {link}.new && {{ [ -L {link} ] || mv {link} {link}.aside; }}; mv -T {link}.new {link}\n",
            route.stable.as_str(),
        )
    }
}
