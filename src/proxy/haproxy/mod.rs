//! HAProxy in master-worker mode: Pilothouse owns one configuration file per fleet and one map per service.
//!
//! The operator loads `DIR/FLEET.cfg` as one more `-f` and adds one line per service to a frontend of their own
//! ([`frontend_line`]), or a few where rules or sticky places are used ([`frontend_lines`]). Shares are a dice in basis points against the map, exact whatever the number of servers.
//! Shares and drains change at run time, on every worker, and are written to the files as well; everything else
//! needs a reload. The files hold the truth, so a reload or restart by anybody keeps it.
//!
//! Facts of HAProxy 2.6 this rests on: a version of a map is prepared aside and committed at once, and a late
//! commit of an older version is refused; old workers accept changes of maps but of no servers ("Proxy is
//! disabled"), and no longer check; run-time changes are lost at a reload.

mod cli;
mod config;
mod counters;
mod found;
mod hints;
mod lines;
mod owned;
mod parse;
mod rules;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use self::cli::Master;
use self::config::{Pairs, Rendered};
use self::counters::Accumulator;
pub(super) use self::found::found;
use self::lines::Lines;
pub use self::lines::{frontend_line, frontend_lines};
use self::parse::Proc;
use self::worker::{Service, Worker};
use super::place::Place;
use super::{Advice, Direction, Extras, Proxy, ProxyError, advice, files};
pub use crate::fleet::model::HaproxySettings as Settings;
use crate::fleet::model::{self, Rule};
use crate::fleet::names::{FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{Route, RouteReadback, Slot};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::haproxy_log::LogListener;
use crate::traffic::log_socket::LogPort;
use crate::traffic::loss::LogLoss;

/// Longest wait for a new worker after a reload.
const RELOAD_DEADLINE: Duration = Duration::from_secs(5);
/// HAProxy reads the files, perhaps as another user.
const MODE: u32 = 0o644;

/// The worker that takes connections, whatever its process id.
const CURRENT: &str = "@1";

/// Makes the files that HAProxy needs to start before Pilothouse ever set a route: the maps of each service, and an
/// empty configuration. Existing files stay as they are.
///
/// # Errors
/// When the directory or a file cannot be written.
pub fn ensure_files(dir: &Path, fleet: &FleetName, owner: &str, services: &[ServiceName]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let make = |path: PathBuf, text: &str| match files::read(&path)? {
        None => files::write_atomic(&path, text, MODE),
        Some(_) => Ok(()),
    };
    for service in services {
        let neutral = config::backend(fleet, service, config::Place::Neutral);
        make(config::map_path(dir, fleet, service), &format!("0:{} {neutral}\n", config::DICE - 1))?;
        make(config::rules_path(dir, fleet, service), "")?;
        make(config::sticky_path(dir, fleet, service), "")?;
    }
    // Last: whoever waits for it before they start HAProxy finds the maps as well.
    make(config::cfg_path(dir, fleet), &config::render(&[], fleet, owner, None).text)
}

pub(super) fn describe(s: &Settings, fleet: &FleetName) -> String {
    format!("haproxy at {}, owns {}", s.master_socket.display(), config::cfg_path(&s.dir, fleet).display())
}

pub(super) fn lines_to_add(
    s: &Settings,
    fleet: &FleetName,
    services: &[(&ServiceName, Extras)],
) -> Vec<(String, Vec<String>)> {
    let of = |(service, extras): &(&ServiceName, Extras)| {
        let lines = frontend_lines(&s.dir, fleet, service, *extras);
        let many = if lines.len() == 1 { "line" } else { "lines, in this order," };
        (format!("frontend {many} for {service}, to add to haproxy's own configuration"), lines)
    };
    services.iter().map(of).collect()
}

/// The driver.
pub struct Haproxy {
    name: ProxyName,
    settings: Settings,
    fleet: FleetName,
    owner: String,
    master: Master,
    place: Place,
    /// One write at a time: it must not cross the reads of another that was decided on them.
    one: tokio::sync::Mutex<()>,
    counts: std::sync::Mutex<Accumulator>,
    log: LogPort<LogListener>,
    /// The last version of each service's shares that the worker which takes connections was told, and what is in it.
    told: std::sync::Mutex<BTreeMap<ServiceName, (u32, Pairs)>>,
}

impl Haproxy {
    /// A driver for one HAProxy; touches nothing yet.
    #[must_use]
    pub fn new(name: ProxyName, settings: Settings, fleet: FleetName, owner: String) -> Self {
        let master = Master { socket: settings.master_socket.clone() };
        let log = LogPort::new(settings.log);
        Self {
            place: Place::new(name.clone(), None),
            name,
            settings,
            fleet,
            owner,
            master,
            one: tokio::sync::Mutex::new(()),
            counts: std::sync::Mutex::default(),
            log,
            told: std::sync::Mutex::default(),
        }
    }

    /// The same for one that runs in a container.
    #[must_use]
    pub fn within(mut self, container: Option<&model::Container>) -> Self {
        self.place = Place::new(self.name.clone(), container);
        self
    }

    fn refused(&self, what: &str) -> ProxyError {
        ProxyError::Refused(Safe::new(&format!("proxy {}: {what}", self.name)))
    }

    fn io<T>(&self, result: io::Result<T>, what: &str, path: &Path) -> Result<T, ProxyError> {
        result.map_err(|e| self.refused(&format!("cannot {what} {}: {e}", path.display())))
    }

    /// All workers, the current first. A worker that ends in between is left out.
    async fn workers(&self) -> Result<Vec<Worker>, ProxyError> {
        let (procs, _) = parse::procs(&self.master.command("show proc").await?);
        let mut out = Vec::new();
        for proc in &procs {
            out.extend(Worker::read(&self.master, proc, &self.settings.dir, &self.fleet).await?);
        }
        if out.iter().any(|w| w.current) { Ok(out) } else { Err(self.no_worker()) }
    }

    /// Waits until no write is under way. A look does not keep a write waiting that comes after it: who asked for both
    /// knows that the look tells nothing about what is now.
    async fn between_writes(&self) {
        drop(self.one.lock().await);
    }

    fn no_worker(&self) -> ProxyError {
        ProxyError::Unknown(Safe::new(&format!(
            "proxy {}: HAProxy's master answers but has no worker that takes connections; look at its log",
            self.name
        )))
    }

    /// Reloads when no current worker has `rendered`'s generation, and waits until one has.
    async fn reload_if_needed(&self, rendered: &Rendered) -> Result<(), ProxyError> {
        let serves = |workers: &[Worker]| {
            let wanted = (!rendered.rows.is_empty() || rendered.text.contains("\nbackend "))
                .then_some(rendered.generation.as_str());
            workers.iter().any(|w| w.current && w.generation.as_deref() == wanted)
        };
        if serves(&self.workers().await?) {
            return Ok(());
        }
        let failed_before = parse::procs(&self.master.command("show proc").await?).1;
        self.master.reload().await;
        let start = Instant::now();
        let mut last = String::new();
        while start.elapsed() < RELOAD_DEADLINE {
            sleep(Duration::from_millis(20)).await;
            match self.workers().await {
                Ok(workers) if serves(&workers) => return Ok(()),
                Ok(_) => {}
                Err(e) => last = format!(" ({e})"),
            }
            if let Ok(answer) = self.master.command("show proc").await
                && parse::procs(&answer).1 > failed_before
            {
                last = ": its master reports a failed reload; look at its log".to_owned();
                break;
            }
        }
        Err(ProxyError::Unknown(Safe::new(&format!(
            "proxy {}: no new HAProxy worker serves the new configuration{last}; the old ones go on serving",
            self.name
        ))))
    }

    /// Puts the maps in force on the worker that takes connections, before anything else is asked or written: what an
    /// abort is for. Its map follows from the route alone, so one conversation is enough where the number of the map's
    /// next version is known, and two where it has to be asked for. What does not work here is tried again, and
    /// reported, by [`Self::set_live`], which comes next.
    async fn hurry(&self, routes: &[Route]) {
        futures_util::future::join_all(routes.iter().map(|r| self.hurry_one(r))).await;
    }

    async fn hurry_one(&self, route: &Route) {
        let path = config::map_path(&self.settings.dir, &self.fleet, &route.service);
        let want = config::pairs(&worker::plain_map(&self.fleet, route));
        let say = async |commands: &[String]| {
            let line = commands.iter().map(|c| format!("{CURRENT} {c}")).collect::<Vec<_>>().join(";");
            self.master.command(&line).await
        };
        let ask = [format!("show map {}", path.display()), format!("prepare map {}", path.display())];
        // Versions are numbered on from 1 in each worker. A number that was not prepared is refused, so a wrong guess
        // (the worker is new, or somebody else prepared one) costs a second conversation and does nothing.
        let guess = locked(&self.told).get(&route.service).filter(|(_, is)| *is != want).map(|(n, _)| n + 1);
        let mut commands = ask.to_vec();
        commands.extend(guess.iter().flat_map(|n| swap(&path, *n, &want)));
        let Ok(answer) = say(&commands).await else { return };
        let Some(version) = parse::new_version(&answer) else { return };
        if guess != Some(version) {
            if parse::pairs(&answer).is_none_or(|have| have == want) {
                return;
            }
            if say(&swap(&path, version, &want)).await.is_err() {
                return;
            }
        }
        locked(&self.told).insert(route.service.clone(), (version, want));
    }

    /// Puts maps and server weights in force on every worker, writing only what was read to differ. A worker that
    /// does not answer keeps none of the others waiting longer than its deadline: an abort must reach what it can.
    async fn set_live(&self, routes: &[Route], rendered: &Rendered) -> Result<(), ProxyError> {
        let (procs, _) = parse::procs(&self.master.command("show proc").await?);
        if !procs.iter().any(|p| p.current) {
            return Err(self.no_worker());
        }
        let mut result = Ok(());
        for proc in &procs {
            let done = self.set_worker(proc, routes, rendered).await;
            result = result.and(done);
        }
        result
    }

    async fn set_worker(&self, proc: &Proc, routes: &[Route], rendered: &Rendered) -> Result<(), ProxyError> {
        let read = Worker::read(&self.master, proc, &self.settings.dir, &self.fleet).await?;
        let Some(worker) = read else { return Ok(()) };
        let (mut refused, mut failed) = (Ok(()), Ok(()));
        for route in routes {
            let Some(service) = worker.services.get(&route.service) else { continue };
            if worker.current {
                let needs = Extras { rules: !route.rules.is_empty(), sticky: route.sticky };
                refused = refused.and(self.lines_missing(&route.service, needs, service.lines));
            }
            // One service's trouble must not keep another's way back from this worker.
            let (swapped, unfit) = self.set_maps(&worker, service, route).await;
            failed = failed.and(swapped);
            refused = refused.and(unfit.map_or(Ok(()), |why| Err(self.refused(&why))));
        }
        failed?;
        if worker.current {
            let commands = worker.server_commands(&self.fleet, rendered);
            for some in commands.chunks(20) {
                let some: Vec<&str> = some.iter().map(String::as_str).collect();
                self.master.worker(worker.pid, &some).await?;
            }
        }
        refused
    }

    /// Puts a service's maps in force on one worker. The rules come first, as an abort takes a tester's way to the
    /// candidate before it changes shares. Also says what is wrong with a rule that HAProxy cannot follow.
    async fn set_maps(
        &self,
        worker: &Worker,
        service: &Service,
        route: &Route,
    ) -> (Result<(), ProxyError>, Option<String>) {
        let (dir, fleet, extras) = (&self.settings.dir, &self.fleet, service.lines.extras);
        let (rules, unfit) = worker.wanted_rules(fleet, route);
        let wanted = [
            // Half of the lines do not half of the work but something else.
            (
                config::rules_path(dir, fleet, &route.service),
                service.rules.clone(),
                if extras.rules { rules } else { vec![] },
            ),
            (
                config::sticky_path(dir, fleet, &route.service),
                service.sticky.clone(),
                config::sticky_pairs(route.sticky && extras.sticky),
            ),
            (
                config::map_path(dir, fleet, &route.service),
                service.map.as_deref().map(config::pairs),
                config::pairs(&worker.wanted_map(fleet, route)),
            ),
        ];
        let mut result = Ok(());
        let shares = config::map_path(dir, fleet, &route.service);
        for (path, have, want) in wanted {
            if have.is_some_and(|have| have != want) {
                let swapped = self.swap_map(worker.pid, &path, &want).await;
                if let Ok(Some(version)) = swapped
                    && worker.current
                    && path == shares
                {
                    locked(&self.told).insert(route.service.clone(), (version, want));
                }
                result = result.and(swapped.map(|_| ()));
            }
        }
        (result, unfit)
    }

    /// What the operator has to type before a service's route can be what it should be.
    fn lines_missing(&self, service: &ServiceName, needs: Extras, has: Lines) -> Result<(), ProxyError> {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let add =
            Extras { rules: needs.rules && !has.extras.rules, sticky: needs.sticky && !has.extras.sticky };
        let mut lines = lines::frontend_lines(dir, fleet, service, add);
        let plain = lines::frontend_line(dir, fleet, service);
        let what = match (add.rules, add.sticky) {
            _ if !has.plain => {
                return Err(self.refused(&format!(
                    "no frontend of this HAProxy sends requests to {service}; add to the one that should: {}",
                    lines.join(" and below it: ")
                )));
            }
            (false, false) => return Ok(()),
            (true, false) => "follows the rules",
            (false, true) => "keeps the places of the visitors",
            (true, true) => "follows the rules or keeps the places of the visitors",
        };
        lines.retain(|line| *line != plain);
        Err(self.refused(&format!(
            "no frontend of this HAProxy {what} of {service}; add to the one that serves it: {} and below that, as \
             it is now: {plain}",
            lines.join(" and below it: ")
        )))
    }

    /// Services that no frontend sends anything to.
    async fn plain_lines(&self, services: &[&model::Service]) -> Vec<Advice> {
        let workers = match self.workers().await {
            Ok(workers) => workers,
            Err(e) => return vec![Advice::fails(&e.to_string())],
        };
        let Some(current) = workers.iter().find(|w| w.current) else { return vec![] };
        let missing = services.iter().filter_map(|service| {
            // One that it never heard of is not released yet: its lines are not seen either.
            let lines = current.services.get(&service.name)?.lines;
            self.lines_missing(&service.name, Extras::default(), lines).err()
        });
        missing.map(|e| Advice::fails(&e.to_string())).collect()
    }

    /// Replaces a worker's map at once: prepared aside, then committed; the number of that version. Nothing happens when
    /// the worker is gone.
    async fn swap_map(
        &self,
        pid: u32,
        path: &Path,
        want: &[(String, String)],
    ) -> Result<Option<u32>, ProxyError> {
        let prepare = format!("prepare map {}", path.display());
        let Some(answer) = self.master.worker(pid, &[&prepare]).await? else { return Ok(None) };
        let Some(version) = parse::new_version(&answer) else {
            // Perhaps it is ending: the next look tells.
            return Err(ProxyError::Unknown(Safe::new(&format!(
                "proxy {}: worker {pid} does not prepare the map {}: {}",
                self.name,
                path.display(),
                answer.trim()
            ))));
        };
        let commands = swap(path, version, want);
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        match self.master.worker(pid, &commands).await? {
            Some(answer) if parse::pairs(&answer).as_deref() != Some(want) => {
                let said = answer.lines().find(|l| !l.is_empty()).unwrap_or("nothing");
                Err(ProxyError::Unknown(Safe::new(&format!(
                    "proxy {}: worker {pid} did not take the map {}, it says: {said}",
                    self.name,
                    path.display()
                ))))
            }
            _ => Ok(Some(version)),
        }
    }
}

fn locked<T>(what: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fills a prepared version of a map, puts it in force, and shows it.
fn swap(path: &Path, version: u32, want: &[(String, String)]) -> Vec<String> {
    let path = path.display();
    let mut commands: Vec<String> = want
        .iter()
        .map(|(key, value)| format!("add map @{version} {path} {} {value}", cli::escaped(key)))
        .collect();
    commands.push(format!("commit map @{version} {path}"));
    commands.push(format!("show map {path}"));
    commands
}

#[async_trait]
impl Proxy for Haproxy {
    async fn prepare(&self, services: &[ServiceName]) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        self.check_owner()?;
        let made = ensure_files(&self.settings.dir, &self.fleet, &self.owner, services);
        self.io(made, "make the files of", &self.settings.dir)
    }

    async fn fits(&self) -> Result<(), ProxyError> {
        self.place.sees(&self.settings.dir, "haproxy").await
    }

    async fn can(&self, service: &ServiceName, rules: &[Rule], sticky: bool) -> Result<(), ProxyError> {
        if let (_, Some(why)) = config::rule_pairs(rules, "") {
            return Err(self.refused(&why));
        }
        self.fits().await?;
        let needs = Extras { rules: !rules.is_empty(), sticky };
        if needs == Extras::default() {
            return Ok(());
        }
        self.between_writes().await;
        let workers = self.workers().await?;
        // One that never heard of the service yet tells nothing about its lines.
        match workers.iter().find(|w| w.current).and_then(|w| w.services.get(service)) {
            Some(has) => self.lines_missing(service, needs, has.lines),
            None => Ok(()),
        }
    }

    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError> {
        let _one = self.one.lock().await;
        self.check_owner()?;
        if direction == Direction::Back {
            self.hurry(routes).await;
        }
        let rendered = config::render(routes, &self.fleet, &self.owner, self.settings.log);
        if direction == Direction::Up {
            self.write_files(routes, &rendered).await?;
            self.reload_if_needed(&rendered).await?;
            return self.set_live(routes, &rendered).await;
        }
        let live = self.set_live(routes, &rendered).await;
        // Written even if HAProxy did not answer: whoever starts it again starts it safe.
        self.write_maps(routes, false)?;
        self.write_files(routes, &rendered).await?;
        // A line that some service's operator has to add must not keep the others from what only a reload changes:
        // it is said again at the end.
        if matches!(live, Err(ProxyError::Unknown(_))) {
            return live;
        }
        self.reload_if_needed(&rendered).await?;
        // Somebody else's reload may have started a worker from the files before they were written.
        self.set_live(routes, &rendered).await
    }

    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError> {
        self.between_writes().await;
        let mut out: BTreeMap<ServiceName, RouteReadback> = BTreeMap::new();
        for worker in self.workers().await? {
            for name in worker.services.keys() {
                if let Some(route) = worker.route(&self.fleet, name) {
                    out.entry(name.clone()).or_default().workers.push(route);
                }
            }
        }
        Ok(out)
    }

    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError> {
        let prefix = format!("ph_{}_", self.fleet);
        let logged = self.log.ask(|addr| LogListener::bind(addr, prefix), LogListener::counted);
        self.between_writes().await;
        let (procs, _) = parse::procs(&self.master.command("show proc").await?);
        for proc in &procs {
            if let Some(stat) = self.master.worker(proc.pid, &["show stat"]).await? {
                // A worker that is just leaving says nothing; its counts so far are kept.
                let mut counts = locked(&self.counts);
                counts.take(proc.pid, &self.fleet, &stat);
            }
        }
        let mut counts = locked(&self.counts);
        counts.keep(&procs.iter().map(|p| p.pid).collect::<BTreeSet<_>>());
        let mut totals = counts.totals();
        for (server, logged) in logged.unwrap_or_default() {
            if let Some(total) = server.parse::<InstanceId>().ok().and_then(|id| totals.get_mut(&id)) {
                (total.latency, total.halves) = (logged.latency, logged.halves);
            }
        }
        Ok(totals)
    }

    fn loss(&self) -> Option<LogLoss> {
        self.log.loss()
    }

    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        locked(&self.counts).forget(gone);
        self.log.heard(|listener| listener.forget(gone));
    }

    /// Why there are no latency percentiles, or bad ones, although a log address is configured.
    fn warning(&self) -> Option<Safe> {
        self.log.trouble("percentiles", self.name.as_str())
    }

    async fn examine(&self, services: &[&model::Service]) -> Vec<Advice> {
        let mut out = advice::asked(self, services).await;
        if !out.iter().any(|a| a.fails) {
            out.extend(self.plain_lines(services).await);
        }
        out.extend(self.settings.hints());
        out
    }

    fn by_hand(&self, route: &Route) -> String {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let map = config::map_path(dir, fleet, &route.service);
        let rules = config::rules_path(dir, fleet, &route.service);
        let (map, rules) = (map.display(), rules.display());
        let socket = self.settings.master_socket.display();
        let stable = config::backend(&self.fleet, &route.service, config::Place::Slot(route.stable));
        let last = config::DICE - 1;
        let slot = match route.stable {
            Slot::A => "a",
            Slot::B => "b",
        };
        format!(
            "# all requests of {service} to slot {slot} (stable), on every worker, now:\n\
             for w in $(echo show proc | socat - UNIX-CONNECT:{socket} | awk '$2==\"worker\"{{print $1}}'); do\n  \
             echo \"@!$w clear map {rules};@!$w clear map {map};@!$w add map {map} 0:{last} {stable}\" | \
             socat - UNIX-CONNECT:{socket}\n\
             done\n\
             # and after a reload or restart:\n\
             : > {rules}; echo '0:{last} {stable}' > {map}\n",
            service = route.service,
        )
    }
}
