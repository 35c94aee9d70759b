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
mod lines;
mod look;
mod place;

use std::collections::{BTreeMap, BTreeSet};
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
pub use self::lines::{clusters_line, log_line, place_line, routes_line};
use super::{Advice, Direction, Proxy, ProxyError, advice, files};
pub use crate::fleet::model::EnvoySettings as Settings;
use crate::fleet::model::{Rule, Service};
use crate::fleet::names::{FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{Route, RouteReadback, Slot};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::envoy_log::Counted;
use crate::traffic::log_file::LogFile;
use crate::traffic::totals::Totals;

/// Longest wait until Envoy has what was written.
const DEADLINE: Duration = Duration::from_secs(3);
/// After this what Envoy's main thread has loaded is what its workers do: they are told at once, and do it in the next
/// turn of their loops.
const WORKERS: Duration = Duration::from_millis(20);
/// Envoy reads the files as another user.
const MODE: u32 = 0o644;
/// Two looks at one process differ by less, in seconds, as to when it was started.
const SAME_START: u64 = 2;

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
        Wanted { path, text, resource: config::route_name(&self.fleet, service), version }
    }

    fn endpoint_files(&self, service: &ServiceName, route: Option<&Route>) -> Vec<Wanted> {
        let of = |slot| {
            let config = config::endpoints(&self.fleet, service, route, slot);
            let (version, text) = config::response("config.endpoint.v3.ClusterLoadAssignment", &[config]);
            let path = config::endpoints_path(&self.settings.dir, &self.fleet, service, slot);
            Wanted { path, text, resource: config::cluster_name(&self.fleet, service, slot), version }
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
        Wanted { path, text, resource: "cds".to_owned(), version }
    }

    /// Makes the directories of these services.
    fn make_dirs(&self, services: &BTreeSet<ServiceName>) -> Result<(), ProxyError> {
        let dir = &self.settings.dir;
        self.io(files::readable_dir(dir), "make", dir)?;
        for service in services {
            let own = config::service_dir(dir, &self.fleet, service);
            self.io(files::open_to_all(&own), "make", &own)?;
        }
        Ok(())
    }

    /// Writes the files that differ; what each of those was before.
    fn write<'a>(&self, wanted: &'a [Wanted]) -> Result<Vec<(&'a Path, Option<String>)>, ProxyError> {
        let mut was = Vec::new();
        for w in wanted {
            let there = self.io(files::read(&w.path), "read", &w.path)?;
            if there.as_deref() != Some(w.text.as_str()) {
                self.io(files::write_atomic(&w.path, &w.text, MODE), "write", &w.path)?;
                was.push((w.path.as_path(), there));
            }
        }
        Ok(was)
    }

    async fn state(&self) -> Result<State, ProxyError> {
        self.admin.state().await.map_err(|e| self.unknown(&e))
    }

    /// Waits until Envoy has all of this in force, from `before` on.
    async fn in_force(&self, wanted: &[Wanted], before: Option<&State>) -> Result<(), ProxyError> {
        let start = Instant::now();
        loop {
            let state = self.state().await?;
            let has = |w: &&Wanted| {
                state.versions.get(&w.resource).is_some_and(|all| all.iter().all(|v| *v == w.version))
            };
            let Some(missing) = wanted.iter().find(|w| !has(w)) else {
                *locked(&self.changed) = Some(Instant::now());
                return Ok(());
            };
            let refused = |s: &State| s.refused.get(&missing.resource).copied().unwrap_or(0);
            if before.is_some_and(|before| refused(&state) > refused(before)) {
                return Err(self.refused(&format!(
                    "Envoy refuses {}; its log says why, and what it had stays in force",
                    missing.path.display()
                )));
            }
            if !state.versions.contains_key(&missing.resource) && start.elapsed() > DEADLINE / 3 {
                return Err(self.refused(&self.not_read(&missing.path)));
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

    /// Writes what differs and waits until it is in force. What Envoy refuses is taken back.
    async fn put(&self, wanted: &[Wanted]) -> Result<(), ProxyError> {
        let before = self.state().await?;
        let was = self.write(wanted)?;
        let done = self.in_force(wanted, Some(&before)).await;
        if matches!(done, Err(ProxyError::Refused(_))) {
            for (path, text) in was {
                if let Some(text) = text {
                    self.io(files::write_atomic(path, &text, MODE), "put back", path)?;
                }
            }
        }
        done
    }
}

#[async_trait]
impl Proxy for Envoy {
    fn prepare(&self, services: &[ServiceName]) -> Result<(), ProxyError> {
        self.check_owner()?;
        let mut all = self.filed()?;
        all.extend(services.iter().cloned());
        self.make_dirs(&all)?;
        // The clusters last: they name the files of their instances, which must be there when Envoy reads of them.
        for service in &all {
            let mut new = self.endpoint_files(service, None);
            new.push(self.routes_file(service, &Shares::nobody()));
            new.retain(|w| !w.path.exists());
            self.write(&new)?;
        }
        self.write(&[self.clusters_file(&all)])?;
        self.log_exists();
        Ok(())
    }

    async fn can(&self, service: &ServiceName, _rules: &[Rule], sticky: bool) -> Result<(), ProxyError> {
        let listeners = self.admin.listeners().await.map_err(|e| self.unknown(&e))?;
        let routing = lines::routing(&listeners, &config::route_name(&self.fleet, service));
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        if routing.is_empty() {
            return Err(self.refused(&self.not_read(&config::routes_path(dir, fleet, service))));
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
        let mut services = self.filed()?;
        services.extend(routes.iter().map(|r| r.service.clone()));
        self.make_dirs(&services)?;
        let (mut shares, mut instances) = (Vec::new(), Vec::new());
        for service in &services {
            let route = routes.iter().find(|r| r.service == *service);
            shares.push(self.routes_file(service, &route.map_or_else(Shares::nobody, Shares::of)));
            instances.extend(self.endpoint_files(service, route));
        }
        instances.push(self.clusters_file(&services));
        match direction {
            Direction::Up => {
                self.put(&instances).await?;
                // A service that nobody serves any more need not be asked for.
                shares.retain(|w| routes.iter().any(|r| config::route_name(&self.fleet, &r.service) == w.resource));
                self.put(&shares).await
            }
            Direction::Back => {
                // In force without a question to Envoy, before anything else that could fail. Written even if it does not
                // run: whoever starts it again starts it safe.
                self.write(&shares)?;
                self.write(&instances)?;
                shares.retain(|w| routes.iter().any(|r| config::route_name(&self.fleet, &r.service) == w.resource));
                self.in_force(&shares, None).await?;
                self.in_force(&instances, None).await
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
            Some(_) => locked(&self.log).failure.clone().map(|why| Safe::new(&format!("no percentiles: {why}"))),
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
        let file = self.routes_file(&route.service, &Shares::all_stable(route));
        let path = file.path.display();
        format!(
            "# all requests of {service} to slot {slot} (stable), on every worker, now and after a restart:\n\
             cat >{path}.new <<'END' && mv {path}.new {path}\n{text}END\n",
            service = route.service,
            slot = route.stable.as_str(),
            text = file.text,
        )
    }
}

impl Envoy {
    /// Makes the log file, so that whoever Envoy runs as may write to it.
    fn log_exists(&self) {
        self.logged();
    }

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

    /// What to do about a file that Envoy does not read.
    fn not_read(&self, path: &Path) -> String {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let service = self.filed().unwrap_or_default().into_iter();
        let mut service = service.filter(|s| config::routes_path(dir, fleet, s) == path);
        match service.next() {
            Some(service) => format!(
                "no listener of this Envoy takes its routes of {service}; write in the http_connection_manager that \
                 should, in place of route_config: {}",
                routes_line(dir, fleet, &service)
            ),
            None => format!(
                "this Envoy does not read {}; add to dynamic_resources of its configuration: {}",
                path.display(),
                clusters_line(dir, fleet)
            ),
        }
    }

    /// What could be better.
    async fn hints(&self, services: &[&Service]) -> Vec<Advice> {
        let Some(log) = &self.settings.log else { return vec![] };
        let Ok(listeners) = self.admin.listeners().await else { return vec![] };
        let mut out = Vec::new();
        for service in services {
            let routing = lines::routing(&listeners, &config::route_name(&self.fleet, &service.name));
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
                &format!("Envoy writes its log lines every {every}, and verdicts on response times wait for that"),
                "start it with --file-flush-interval-msec 1000",
            ));
        }
        out
    }
}
