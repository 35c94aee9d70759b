//! Envoy: Pilothouse owns files of its discovery service, which Envoy reads again as soon as another one takes their place.
//!
//! Nothing is reloaded, and no connection is closed: a file is renamed over the old one, Envoy's main thread reads it and
//! hands it to the workers. A share is a number in the route configuration of its service, so one rename both puts it in
//! force and keeps it over a restart. Instances are files of their own, one per slot; one that drains stays in it, so that
//! what it has in flight is still seen. The administration server says which version of each file is in force, what the
//! listeners route, and what each instance has done and has in flight.
//!
//! Facts of Envoy this rests on (1.40): a file that it refuses leaves what was loaded in force, and is counted
//! (`update_rejected`); another version of the same content is not noticed; a cluster that changes is another one, which
//! knows nothing of what is in flight, but its instances may change; what is in flight of an instance that was removed is
//! finished, and no longer shown; a place in priority 1 is only used while nobody in priority 0 is healthy, or for a
//! request that failed there.

mod admin;
mod config;
mod found;
mod lines;
mod look;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::admin::{Admin, State};
use self::config::Shares;
pub(super) use self::found::found;
pub use self::lines::{all_routes_line, clusters_line, log_line, place_line, routes_line};
use super::place::Place;
use super::{Advice, Direction, Proxy, ProxyError, advice, files};
pub use crate::fleet::model::EnvoySettings as Settings;
use crate::fleet::model::{Container, Rule, Service};
use crate::fleet::names::{FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{Route, RouteReadback, Slot};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::envoy_log::Counted;
use crate::traffic::log_file::LogFile;
use crate::traffic::totals::Totals;

/// Longest wait until Envoy has what was written.
const DEADLINE: Duration = Duration::from_secs(5);
/// After this what Envoy's main thread has loaded is what its workers do: they are told at once, and do it in the next
/// turn of their loops.
const WORKERS: Duration = Duration::from_millis(10);
/// Envoy reads the files as another user.
const MODE: u32 = 0o644;
/// Two looks at one process differ by no more, in seconds, as to when it was started.
const SAME_START: u64 = 1;

pub(super) fn describe(s: &Settings) -> String {
    format!("envoy, asked at {}, owns {}", s.admin, s.dir.display())
}

pub(super) use self::lines::lines_to_add;

/// The driver.
pub struct Envoy {
    name: ProxyName,
    settings: Settings,
    fleet: FleetName,
    owner: String,
    place: Place,
    admin: Admin,
    /// One write at a time: it must not cross the reads of another that was decided on them.
    one: tokio::sync::Mutex<()>,
    /// When something of ours was last in force on the main thread.
    changed: Mutex<Option<Instant>>,
    counts: Mutex<Counts>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Counts {
    /// By the process's start (seconds since 1970) and the cluster.
    totals: Totals<(u64, String)>,
    started: u64,
}

#[derive(Default)]
struct Log {
    file: Option<LogFile<Counted>>,
    failure: Option<Safe>,
}

/// A file as it should be.
struct Wanted {
    path: PathBuf,
    text: String,
    /// The resource, as [`State`] calls it.
    resource: String,
    version: String,
    /// Whether it may be that nobody reads it.
    optional: bool,
}

/// A file that was written, and what it was before.
type Was<'a> = (&'a Path, Option<String>);

/// All files as they should be.
#[derive(Default)]
struct All {
    /// Who there is.
    instances: Vec<Wanted>,
    /// Who gets what.
    shares: Vec<Wanted>,
    /// The services that have routes, and whether those are among the ones of all services.
    routed: Vec<(ServiceName, bool)>,
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Envoy {
    /// A driver for one Envoy; touches nothing yet.
    #[must_use]
    pub fn new(name: ProxyName, settings: Settings, fleet: FleetName, owner: String) -> Self {
        let admin = Admin(settings.admin);
        Self {
            place: Place::new(name.clone(), None),
            name,
            settings,
            fleet,
            owner,
            admin,
            one: tokio::sync::Mutex::new(()),
            changed: Mutex::default(),
            counts: Mutex::default(),
            log: Mutex::default(),
        }
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

    /// Checks whose files these are. Every other step relies on this one.
    fn check_owner(&self) -> Result<Option<String>, ProxyError> {
        files::own(&config::clusters_path(&self.settings.dir, &self.fleet), &self.fleet, &self.owner)
    }

    /// The services that have files: Envoy's listeners may ask for what they route.
    fn filed(&self) -> Result<BTreeSet<ServiceName>, ProxyError> {
        let dir = &self.settings.dir;
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => self.io(entries, "look into", dir)?,
        };
        let ours = format!("{}_", self.fleet);
        let name = |e: fs::DirEntry| e.file_name().to_str()?.strip_prefix(&ours)?.parse().ok();
        Ok(entries.flatten().filter_map(name).collect())
    }

    fn routes_file(&self, service: &ServiceName, shares: &Shares) -> Wanted {
        let config = config::routes(&self.fleet, service, shares);
        let (version, text) = config::response("config.route.v3.RouteConfiguration", &[config]);
        let path = config::routes_path(&self.settings.dir, &self.fleet, service);
        Wanted { path, text, resource: config::route_name(&self.fleet, service), version, optional: true }
    }

    fn all_routes_file(&self, config: &Value) -> Wanted {
        let (version, text) =
            config::response("config.route.v3.RouteConfiguration", std::slice::from_ref(config));
        let path = config::all_routes_path(&self.settings.dir, &self.fleet);
        Wanted { path, text, resource: config::all_name(&self.fleet), version, optional: true }
    }

    fn endpoint_files(&self, service: &ServiceName, route: Option<&Route>) -> Vec<Wanted> {
        let of = |slot| {
            let config = config::endpoints(&self.fleet, service, route, slot);
            let (version, text) = config::response("config.endpoint.v3.ClusterLoadAssignment", &[config]);
            let path = config::endpoints_path(&self.settings.dir, &self.fleet, service, slot);
            let resource = config::cluster_name(&self.fleet, service, slot);
            Wanted { path, text, resource, version, optional: false }
        };
        Slot::BOTH.map(of).into()
    }

    fn clusters_file(&self, services: &BTreeSet<ServiceName>) -> Wanted {
        let both = services.iter().flat_map(|s| Slot::BOTH.map(|slot| (s, slot)));
        let all: Vec<Value> =
            both.map(|(s, slot)| config::cluster(&self.settings.dir, &self.fleet, s, slot)).collect();
        let (version, text) = config::response("config.cluster.v3.Cluster", &all);
        let text = format!("{}\n{text}", files::header(&self.fleet, &self.owner));
        let path = config::clusters_path(&self.settings.dir, &self.fleet);
        Wanted { path, text, resource: "cds".to_owned(), version, optional: false }
    }

    /// Makes the directories of these services.
    fn make_dirs(&self, services: &BTreeSet<ServiceName>) -> Result<(), ProxyError> {
        let dir = &self.settings.dir;
        self.io(files::readable_dir(dir), "make", dir)?;
        let all = config::all_routes_path(dir, &self.fleet).parent().map(Path::to_path_buf);
        for own in services.iter().map(|s| config::service_dir(dir, &self.fleet, s)).chain(all) {
            self.io(files::open_to_all(&own), "make", &own)?;
        }
        Ok(())
    }

    /// Writes the files that differ, and notes what each of those was before.
    fn write<'a>(&self, wanted: &'a [Wanted], was: &mut Vec<Was<'a>>) -> Result<(), ProxyError> {
        for w in wanted {
            let there = self.io(files::read(&w.path), "read", &w.path)?;
            if there.as_deref() != Some(w.text.as_str()) {
                self.io(files::write_atomic(&w.path, &w.text, MODE), "write", &w.path)?;
                was.push((w.path.as_path(), there));
            }
        }
        Ok(())
    }

    async fn state(&self) -> Result<State, ProxyError> {
        self.admin.state().await.map_err(|e| self.unknown(&e))
    }

    /// Waits until Envoy has all of this in force, from `before` on. Routes count where a listener takes them.
    async fn in_force(&self, wanted: &[&[Wanted]], before: Option<&State>) -> Result<State, ProxyError> {
        let start = Instant::now();
        loop {
            let state = self.state().await?;
            let has = |w: &&Wanted| match state.versions.get(&w.resource) {
                Some(all) => all.iter().all(|v| *v == w.version),
                None => w.optional,
            };
            let Some(missing) = wanted.iter().copied().flatten().find(|w| !has(w)) else {
                *locked(&self.changed) = Some(Instant::now());
                return Ok(state);
            };
            let refused = |s: &State| s.refused.get(&missing.resource).copied().unwrap_or(0);
            if before.is_some_and(|before| refused(&state) > refused(before)) {
                return Err(self.refused(&format!(
                    "Envoy refuses {}; its log says why, and what it had stays in force",
                    missing.path.display()
                )));
            }
            if !state.versions.contains_key(&missing.resource) && start.elapsed() > DEADLINE / 3 {
                return Err(self.not_read());
            }
            if start.elapsed() > DEADLINE {
                return Err(self.unknown(&format!(
                    "Envoy does not take {} within {} s; may the user it runs as read it?",
                    missing.path.display(),
                    DEADLINE.as_secs()
                )));
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Instances first, then shares, each in force before the next; what was written is told.
    async fn up<'a>(&self, all: &'a All, was: &mut Vec<Was<'a>>) -> Result<(), ProxyError> {
        let before = self.state().await?;
        self.write(&all.instances, was)?;
        self.in_force(&[&all.instances], Some(&before)).await?;
        self.write(&all.shares, was)?;
        let state = self.in_force(&[&all.shares], Some(&before)).await?;
        self.are_taken(all, state).await
    }

    /// Whether a listener takes the routes of each service that is routed. One that has just been started is given a moment.
    async fn are_taken(&self, all: &All, mut state: State) -> Result<(), ProxyError> {
        let start = Instant::now();
        loop {
            let taken = |name: &String| state.versions.contains_key(name);
            let shared = taken(&config::all_name(&self.fleet));
            let is = |(service, in_all): &&(ServiceName, bool)| {
                taken(&config::route_name(&self.fleet, service)) || (shared && *in_all)
            };
            let Some((missing, _)) = all.routed.iter().find(|r| !is(r)) else { return Ok(()) };
            if start.elapsed() > DEADLINE / 3 {
                return Err(self.refused(&self.no_listener(missing)));
            }
            sleep(Duration::from_millis(20)).await;
            state = self.state().await?;
        }
    }

    /// All files for these routes. A service that has files and no route is served by nobody.
    fn all(&self, routes: &[Route]) -> Result<All, ProxyError> {
        let mut services = self.filed()?;
        services.extend(routes.iter().map(|r| r.service.clone()));
        self.make_dirs(&services)?;
        let mut all = All::default();
        for service in &services {
            let route = routes.iter().find(|r| r.service == *service);
            all.shares.push(self.routes_file(service, &route.map_or_else(Shares::nobody, Shares::of)));
            all.instances.extend(self.endpoint_files(service, route));
        }
        all.instances.push(self.clusters_file(&services));
        let shared = config::all_routes(&self.fleet, routes);
        let in_all = |service| config::has_host(&shared, &config::route_name(&self.fleet, service));
        all.routed = routes.iter().map(|r| (r.service.clone(), in_all(&r.service))).collect();
        all.shares.push(self.all_routes_file(&shared));
        Ok(all)
    }
}

#[async_trait]
impl Proxy for Envoy {
    async fn prepare(&self, services: &[ServiceName]) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        self.check_owner()?;
        let mut all = self.filed()?;
        all.extend(services.iter().cloned());
        self.make_dirs(&all)?;
        // The clusters last: they name the files of their instances, which must be there when Envoy reads of them.
        let mut new = vec![self.all_routes_file(&config::all_routes(&self.fleet, &[]))];
        for service in &all {
            new.extend(self.endpoint_files(service, None));
            new.push(self.routes_file(service, &Shares::nobody()));
        }
        new.retain(|w| !w.path.exists());
        self.write(&new, &mut Vec::new())?;
        self.write(&[self.clusters_file(&all)], &mut Vec::new())?;
        // The log is made as well, so that whoever Envoy runs as may write to it.
        self.logged();
        Ok(())
    }

    async fn fits(&self) -> Result<(), ProxyError> {
        self.place.sees(&self.settings.dir, "envoy").await
    }

    async fn can(&self, service: &ServiceName, _rules: &[Rule], sticky: bool) -> Result<(), ProxyError> {
        self.fits().await?;
        let listeners = self.admin.listeners().await.map_err(|e| self.unknown(&e))?;
        let routing = lines::routing(&listeners, &self.fleet, service);
        if routing.is_empty() {
            return Err(self.refused(&self.no_listener(service)));
        }
        if sticky && !routing.iter().all(|connection| lines::keeps_places(connection)) {
            return Err(self.refused(&format!(
                "a listener that serves {service} cannot keep the places of its visitors; add to its http_filters, \
                 before the router: {}",
                place_line()
            )));
        }
        Ok(())
    }

    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        self.check_owner()?;
        let all = self.all(routes)?;
        match direction {
            Direction::Up => {
                let mut was = Vec::new();
                let done = self.up(&all, &mut was).await;
                if matches!(done, Err(ProxyError::Refused(_))) {
                    for (path, text) in was.into_iter().rev() {
                        if let Some(text) = text {
                            self.io(files::write_atomic(path, &text, MODE), "put back", path)?;
                        }
                    }
                }
                done
            }
            Direction::Back => {
                // In force without a question to Envoy, before anything else that could fail. Written even if it does not
                // run: whoever starts it again starts it safe.
                self.write(&all.shares, &mut Vec::new())?;
                self.write(&all.instances, &mut Vec::new())?;
                let state = self.in_force(&[&all.shares, &all.instances], None).await?;
                self.are_taken(&all, state).await
            }
        }
    }

    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError> {
        drop(self.one.lock().await);
        let changed = *locked(&self.changed);
        if let Some(changed) = changed {
            tokio::time::sleep_until(changed + WORKERS).await;
        }
        let routes = self.admin.routes().await.map_err(|e| self.unknown(&e))?;
        let clusters = self.admin.clusters().await.map_err(|e| self.unknown(&e))?;
        let old = self.state().await?.old_connections;
        Ok(look::read_back(&self.fleet, &routes, &clusters, old))
    }

    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError> {
        let uptime = self.state().await?.uptime;
        let clusters = self.admin.clusters().await.map_err(|e| self.unknown(&e))?;
        let logged = self.logged();
        let mut counts = locked(&self.counts);
        let started = look::now_secs().saturating_sub(uptime);
        if started.abs_diff(counts.started) > SAME_START {
            counts.started = started;
        }
        let life = counts.started;
        for (cluster, instance, now) in look::counted(&self.fleet, &clusters) {
            counts.totals.take((life, cluster), &instance, now);
        }
        counts.totals.keep_sources(|(started, _)| *started == life);
        let mut out = counts.totals.all().clone();
        for (id, logged) in logged {
            if let Some(total) = out.get_mut(&id) {
                (total.latency, total.halves) = (logged.latency, logged.halves);
            }
        }
        Ok(out)
    }

    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        locked(&self.counts).totals.forget(gone);
        if let Some(log) = &mut locked(&self.log).file {
            log.seen().forget(gone);
        }
    }

    fn warning(&self) -> Option<Safe> {
        match &self.settings.log {
            Some(_) => {
                locked(&self.log).failure.clone().map(|why| Safe::new(&format!("no percentiles: {why}")))
            }
            None => Some(Safe::new(&format!("no percentiles: proxy {} has no log = \"FILE\"", self.name))),
        }
    }

    async fn examine(&self, services: &[&Service]) -> Vec<Advice> {
        let mut out = advice::asked(self, services).await;
        if !out.iter().any(|a| a.fails) {
            out.extend(self.hints(services).await);
        }
        out
    }

    fn by_hand(&self, route: &Route) -> String {
        let mut files = vec![self.routes_file(&route.service, &Shares::all_stable(route))];
        files.extend(self.all_by_hand(route));
        let mut out = format!(
            "# all requests of {} to slot {} (stable), on every worker, now and after a restart:\n",
            route.service,
            route.stable.as_str(),
        );
        for Wanted { path, text, .. } in &files {
            let path = path.display();
            let _ = write!(out, "cat >{path}.new <<'END' && mv {path}.new {path}\n{text}END\n");
        }
        out
    }
}

impl Envoy {
    /// What the log says so far, per instance. What goes wrong costs what its lines tell, nothing else.
    fn logged(&self) -> BTreeMap<InstanceId, Counters> {
        let Some(path) = &self.settings.log else { return BTreeMap::new() };
        let mut log = locked(&self.log);
        let failed = |e: io::Error| Some(Safe::new(&format!("cannot read {}: {e}", path.display())));
        if log.file.is_none() {
            match LogFile::open(path, Counted::default()) {
                Ok(file) => log.file = Some(file),
                Err(e) => log.failure = failed(e),
            }
        }
        let Log { file, failure } = &mut *log;
        match file.as_mut().map(LogFile::read) {
            Some(Ok(counted)) => {
                *failure = None;
                counted.all()
            }
            Some(Err(e)) => {
                *failure = failed(e);
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        }
    }

    /// The file of all services as it is, but for the one that goes back to stable; `None` where that is not in it.
    fn all_by_hand(&self, route: &Route) -> Option<Wanted> {
        let text = files::read(&config::all_routes_path(&self.settings.dir, &self.fleet)).ok()??;
        let mut response: Value = serde_json::from_str(&text).ok()?;
        let mut all = response.pointer_mut("/resources/0")?.take();
        let name = config::route_name(&self.fleet, &route.service);
        let hosts = all.get_mut("virtual_hosts")?.as_array_mut()?;
        let host = hosts.iter_mut().find(|h| h.get("name") == Some(&Value::from(name.as_str())))?;
        let shares = Shares { hosts: Shares::said(host)?.hosts, ..Shares::all_stable(route) };
        *host = config::host(&self.fleet, &route.service, &shares);
        Some(self.all_routes_file(&all))
    }

    /// What to do about a service whose routes no listener takes.
    fn no_listener(&self, service: &ServiceName) -> String {
        format!(
            "no listener of this Envoy takes its routes of {service}; write in the http_connection_manager that should, in \
             place of route_config: {}",
            routes_line(&self.settings.dir, &self.fleet, service)
        )
    }

    /// What to do about clusters that Envoy does not read.
    fn not_read(&self) -> ProxyError {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        self.refused(&format!(
            "this Envoy does not read {}; add to dynamic_resources of its configuration: {}",
            config::clusters_path(dir, fleet).display(),
            clusters_line(dir, fleet)
        ))
    }

    /// What could be better.
    async fn hints(&self, services: &[&Service]) -> Vec<Advice> {
        let Some(log) = &self.settings.log else { return vec![] };
        let Ok(listeners) = self.admin.listeners().await else { return vec![] };
        let mut out = Vec::new();
        for service in services {
            let routing = lines::routing(&listeners, &self.fleet, &service.name);
            if !routing.iter().all(|connection| lines::logs_to(connection, log)) {
                out.push(Advice::better(
                    &format!("the listener of {} does not write to {}", service.name, log.display()),
                    &format!("add to its http_connection_manager: {}", log_line(log)),
                ));
            }
        }
        if let Some(every) = self.admin.flushes_every().await
            && every.trim_end_matches('s').parse::<f64>().is_ok_and(|secs| secs > 2.0)
        {
            out.push(Advice::better(
                &format!(
                    "Envoy writes its log lines every {every}, and verdicts on response times wait for that"
                ),
                "start it with --file-flush-interval-msec 1000",
            ));
        }
        out
    }
}
