//! The hands: what carries effects to engines and proxies, and what looks at them. Everything comes back as an
//! [`Input`]; after every effect the world is read back before the effect is reported as done.

mod inspect;
mod last_words;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::clock::{Clock, wall_ms};
use super::crash::boundary;
use super::input::Input;
use super::secrets::Identity;
use crate::api::ProbeView;
use crate::engine::{self, Engine, EngineError};
use crate::fleet::env_file;
use crate::fleet::model::{
    Address, Engine as EngineModel, Fleet, HealthCheck, Host, Proxy as ProxyModel, Pull, Run,
};
use crate::fleet::names::{
    FleetName, HostName, InstanceId, Millis, ProxyName, RevisionId, RolloutId, ServiceName,
};
use crate::https;
use crate::probe::{Counter, Pace, Prober};
use crate::proxy::{self, Direction, Proxy, ProxyError};
use crate::rollout::decide;
use crate::rollout::reconcile::{Effect, Lane};
use crate::rollout::state::{Revision, State};
use crate::rollout::world::{
    InstanceSpec, Means, Observed, ObservedInstance, Restart, RouteReadback, RunState,
};
use crate::text::Safe;

/// From one look at a host to the next, when nothing says that it changed.
const RESYNC: Duration = Duration::from_secs(5);
/// From one look at a proxy to the next.
const PROXY_POLL: Duration = Duration::from_millis(500);
/// The same when something has just begun to drain: most of what is in flight ends within milliseconds.
const DRAIN_POLL: Duration = Duration::from_millis(25);
/// From one question for a proxy's counters to the next.
const COUNT: Duration = Duration::from_secs(1);
/// From one look at the versions an engine has to the next.
const VERSIONS_POLL: Duration = Duration::from_secs(20);
/// From one question to a registry about a tag to the next: public ones count each as a pull, and allow few an hour.
const REGISTRY_POLL: Millis = Millis::secs(300);

/// A driver, and what it was opened for: another declaration needs another driver.
type Opened<Declared, Driver> = (Declared, Arc<Driver>);

/// Longest effect on a host: pulling a large image, with room to spare. Drivers have their own, shorter deadlines.
const HOST_LIMIT: Duration = Duration::from_secs(1200);
/// Longest write to a proxy: a check, a reload and a look at every worker.
const PROXY_LIMIT: Duration = Duration::from_secs(60);

/// What was seen after an effect.
enum Look {
    Host(Result<Vec<ObservedInstance>, EngineError>),
    Proxy(Result<BTreeMap<ServiceName, RouteReadback>, ProxyError>),
}

/// How an effect ended, and what was seen then.
type Looked = (Result<(), Safe>, Look);

/// What is needed to start an instance.
struct StartOrder {
    spec: InstanceSpec,
    revision: Revision,
    carries_env: bool,
}

/// Drivers and background tasks of the fleet.
pub struct Hands {
    tx: mpsc::Sender<Input>,
    fleet: FleetName,
    identity: Identity,
    state_dir: PathBuf,
    program: PathBuf,
    clock: Clock,
    prober: Prober,
    /// Asks what checks ask.
    http: https::Client,
    epochs: Mutex<HashMap<Lane, u64>>,
    engines: Mutex<HashMap<HostName, Opened<Host, dyn Engine>>>,
    proxies: Mutex<HashMap<ProxyName, Opened<ProxyModel, dyn Proxy>>>,
    /// What a registry said that a revision's tag means, and when.
    registries: Mutex<HashMap<RevisionId, (Millis, Option<String>)>>,
    /// When the last of those that drain began to (controller time).
    draining: watch::Sender<Option<Millis>>,
}

/// What the hands are given.
pub struct Setup {
    /// Where inputs go.
    pub tx: mpsc::Sender<Input>,
    /// The fleet.
    pub fleet: FleetName,
    /// Who we are.
    pub identity: Identity,
    /// The state directory.
    pub state_dir: PathBuf,
    /// This program, to start shims and edges with.
    pub program: PathBuf,
    /// Controller time.
    pub clock: Clock,
}

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A poisoned registry is still a registry: its maps are only ever replaced entry by entry.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hands {
    /// # Errors
    /// When the HTTP client for probes cannot be set up.
    pub fn new(setup: Setup) -> Result<Self, reqwest::Error> {
        let Setup { tx, fleet, identity, state_dir, program, clock } = setup;
        Ok(Self {
            tx,
            fleet,
            identity,
            state_dir,
            program,
            clock,
            prober: Prober::new()?,
            http: https::Client::default(),
            epochs: Mutex::default(),
            engines: Mutex::default(),
            proxies: Mutex::default(),
            registries: Mutex::default(),
            draining: watch::Sender::default(),
        })
    }

    /// The engine of a host, as it is declared now.
    pub fn engine(&self, host: &Host) -> Arc<dyn Engine> {
        let mut engines = locked(&self.engines);
        if let Some((known, engine)) = engines.get(&host.name)
            && known == host
        {
            return engine.clone();
        }
        let engine = engine::open(host, &self.state_dir, &self.program);
        engines.insert(host.name.clone(), (host.clone(), engine.clone()));
        engine
    }

    /// The driver of a proxy, as it is declared now.
    pub fn proxy(&self, declared: &ProxyModel) -> Arc<dyn Proxy> {
        let mut proxies = locked(&self.proxies);
        if let Some((known, proxy)) = proxies.get(&declared.name)
            && known == declared
        {
            return proxy.clone();
        }
        let (owner, dir) = (&self.identity.owner, &self.state_dir);
        let proxy = proxy::open(declared, &self.fleet, owner, dir, &self.program);
        proxies.insert(declared.name.clone(), (declared.clone(), proxy.clone()));
        proxy
    }

    /// Which of our effects a look at a lane was made after: it goes up when one begins and when one ends. A look that
    /// began before tells nothing about after.
    pub fn epoch(&self, lane: &Lane) -> u64 {
        locked(&self.epochs).get(lane).copied().unwrap_or(0)
    }

    fn next_epoch(&self, lane: &Lane) -> u64 {
        let mut epochs = locked(&self.epochs);
        let epoch = epochs.entry(lane.clone()).or_default();
        *epoch += 1;
        *epoch
    }

    /// Carries out one effect in the background. The world is read back and reported before the effect is. The handle
    /// interrupts it; that it was is reported like any failure.
    ///
    /// # Errors
    /// When it cannot even be begun, in words.
    pub fn carry_out(
        self: &Arc<Self>,
        effect: Effect,
        state: &State,
        obs: &Observed,
    ) -> Result<AbortHandle, String> {
        let fleet = state.fleet.as_ref().ok_or("no fleet is loaded")?;
        let lane = effect.lane();
        let (work, limit): (BoxFuture<'static, Looked>, _) = match &lane {
            Lane::Host(name) => {
                let host =
                    fleet.hosts.get(name).ok_or_else(|| format!("host {name} is not declared"))?.clone();
                let start = match &effect {
                    Effect::Start { service, instance, .. } => {
                        Some(self.start_order(state, obs, &host, service, instance)?)
                    }
                    Effect::Hook { service, instance, .. } => {
                        Some(self.hook_order(state, &host, service, instance)?)
                    }
                    _ => None,
                };
                let revision = match &effect {
                    Effect::Artifact { service, revision, .. } => {
                        state.services.get(service).and_then(|s| s.revisions.get(revision)).cloned()
                    }
                    _ => None,
                };
                (Arc::clone(self).on_host(host, effect.clone(), start, revision).boxed(), HOST_LIMIT)
            }
            Lane::Proxy(name) => {
                let declared =
                    fleet.proxies.get(name).ok_or_else(|| format!("proxy {name} is not declared"))?.clone();
                (Arc::clone(self).on_proxy(declared, effect.clone()).boxed(), PROXY_LIMIT)
            }
        };
        self.next_epoch(&lane);
        let inner = tokio::spawn(tokio::time::timeout(limit, work));
        let handle = inner.abort_handle();
        let me = Arc::clone(self);
        tokio::spawn(async move {
            // A driver that panics or never returns must not keep its lane for ever.
            let (result, look) = match inner.await {
                Ok(Ok((result, look))) => (result, Some(look)),
                Ok(Err(_elapsed)) => (Err("the driver did not return in time".into()), None),
                Err(e) if e.is_cancelled() => (Err("interrupted by something more urgent".into()), None),
                Err(_panicked) => (Err("the driver failed: this is a defect".into()), None),
            };
            let epoch = me.next_epoch(&lane);
            match (look, lane) {
                (Some(Look::Host(result)), Lane::Host(host)) => {
                    me.send(Input::HostSeen { host, result, epoch }).await;
                }
                (Some(Look::Proxy(result)), Lane::Proxy(proxy)) => {
                    me.send(Input::ProxySeen { proxy, result, epoch, after_write: true }).await;
                }
                _ => {}
            }
            me.send(Input::Done { effect, result }).await;
        });
        Ok(handle)
    }

    async fn on_proxy(self: Arc<Self>, declared: ProxyModel, effect: Effect) -> Looked {
        let proxy = self.proxy(&declared);
        boundary();
        let result = match &effect {
            Effect::Routes { routes, back, .. } => {
                let direction = if *back { Direction::Back } else { Direction::Up };
                proxy.apply(routes, direction).await.map_err(|e| Safe::new(&e.to_string()))
            }
            _ => Ok(()),
        };
        boundary();
        (result, Look::Proxy(proxy.read_back().await))
    }

    async fn send(&self, input: Input) {
        // The loop is gone only when the controller is ending; then nobody needs to know.
        let _ = self.tx.send(input).await;
    }

    /// What instances of a revision have in common.
    fn spec(
        &self,
        host: &Host,
        revision: &Revision,
        instance: &InstanceId,
        rollout: &RolloutId,
    ) -> InstanceSpec {
        InstanceSpec {
            fleet: self.fleet.clone(),
            service: revision.spec.name.clone(),
            id: instance.clone(),
            revision: revision.id.clone(),
            version: revision.version.clone(),
            rollout: rollout.clone(),
            run: revision.spec.run.clone(),
            digest: revision.digest.clone(),
            port: revision.spec.port,
            host_port: None,
            address: host.address,
            reach: revision.spec.address,
            network: revision.spec.network.clone(),
            env: revision.spec.env.clone(),
            restart: Restart::No,
            adopts: None,
        }
    }

    /// All that an engine needs, but for the values of the env file, which are read when it is started.
    fn start_order(
        &self,
        state: &State,
        obs: &Observed,
        host: &Host,
        service: &ServiceName,
        instance: &InstanceId,
    ) -> Result<StartOrder, String> {
        let gone = || format!("{instance} is no longer wanted");
        let s = state.services.get(service).ok_or_else(gone)?;
        let i = s.instances.get(instance).ok_or_else(gone)?;
        let revision = s.revisions.get(&i.revision).ok_or_else(gone)?.clone();
        let spec = InstanceSpec {
            host_port: i.host_port,
            restart: s.restart_policy(i),
            adopts: i.adopts.as_ref().map(ToString::to_string),
            ..self.spec(host, &revision, instance, &i.rollout)
        };
        // A container that exists carries its own environment; the file is only read to make one.
        let exists = obs.hosts.get(&i.host).is_some_and(|h| h.instances.contains_key(instance));
        let carries_env = exists && matches!(host.engine, EngineModel::Docker { .. });
        Ok(StartOrder { spec, revision, carries_env })
    }

    /// The same for a hook: the candidate's artifact, settings and network, its own arguments, and no port.
    fn hook_order(
        &self,
        state: &State,
        host: &Host,
        service: &ServiceName,
        instance: &InstanceId,
    ) -> Result<StartOrder, String> {
        let gone = || format!("{instance} is no longer wanted");
        let s = state.services.get(service).ok_or_else(gone)?;
        let r = s.active().ok_or_else(gone)?;
        let begun = r.hooks.iter().find(|h| h.instance == *instance).ok_or_else(gone)?;
        let hook = decide::hook_declared(s, r, begun.hook).ok_or_else(gone)?;
        let revision = s.revisions.get(&r.to).ok_or_else(gone)?.clone();
        let run = match &revision.spec.run {
            Run::Image { repository, pull, .. } => {
                Run::Image { repository: repository.clone(), args: hook.run.clone(), pull: *pull }
            }
            Run::Command { .. } => Run::Command { argv: hook.run.clone() },
        };
        // It is not reached by anybody, so it needs no port of the host.
        let spec =
            InstanceSpec { run, reach: Address::Container, ..self.spec(host, &revision, instance, &r.id) };
        Ok(StartOrder { spec, revision, carries_env: false })
    }

    async fn on_host(
        self: Arc<Self>,
        host: Host,
        effect: Effect,
        start: Option<StartOrder>,
        revision: Option<Revision>,
    ) -> Looked {
        let engine = self.engine(&host);
        boundary();
        let result = self.do_on_host(&*engine, &effect, start, revision).await;
        boundary();
        (result, Look::Host(engine.observe(&self.fleet).await))
    }

    async fn do_on_host(
        &self,
        engine: &dyn Engine,
        effect: &Effect,
        start: Option<StartOrder>,
        revision: Option<Revision>,
    ) -> Result<(), Safe> {
        let words = |e: EngineError| Safe::new(&e.to_string());
        match effect {
            Effect::Artifact { .. } => match revision {
                Some(r) => engine.ensure_artifact(&r.spec.run, &r.version, &r.digest).await.map_err(words),
                None => Ok(()),
            },
            Effect::Start { .. } => {
                let Some(mut order) = start else { return Ok(()) };
                match self.environment(&order.revision) {
                    Ok(env) => order.spec.env.extend(env),
                    Err(_changed) if order.carries_env => {}
                    Err(e) => return Err(e),
                }
                match engine.start(&order.spec).await.map_err(words)?.state {
                    RunState::Exited { code, .. } => {
                        let code = code.map_or_else(|| "unknown".to_owned(), |c| c.to_string());
                        Err(Safe::new(&format!("it ended at once, exit code {code}")))
                    }
                    RunState::Running | RunState::Starting => Ok(()),
                }
            }
            Effect::Hook { .. } => {
                let Some(mut order) = start else { return Ok(()) };
                order.spec.env.extend(self.environment(&order.revision)?);
                // A hook's program is another than the service's, and so is what tells its state.
                if matches!(order.spec.run, Run::Command { .. }) {
                    let found = engine.resolve(&order.spec.run, &order.spec.version).await.map_err(words)?;
                    order.spec.digest =
                        found.ok_or_else(|| Safe::new("the hook's program is not on this machine"))?;
                }
                engine.start(&order.spec).await.map(|_| ()).map_err(words)
            }
            Effect::Stop { instance, grace, .. } => {
                engine.stop(&self.fleet, instance, *grace).await.map_err(words)
            }
            Effect::LetGo { instance, .. } => engine.let_go(&self.fleet, instance).await.map_err(words),
            Effect::Remove { instance, .. } => engine.remove(&self.fleet, instance).await.map_err(words),
            Effect::Restart { instance, restart, .. } => {
                engine.set_restart(&self.fleet, instance, *restart).await.map_err(words)
            }
            Effect::Routes { .. } => Ok(()),
        }
    }

    /// The values of a revision's env file, if they still are what they were when it was deployed.
    fn environment(&self, revision: &Revision) -> Result<BTreeMap<String, String>, Safe> {
        let Some(path) = &revision.spec.env_file else { return Ok(BTreeMap::new()) };
        let env = env_file::read(path).map_err(|p| Safe::new(&p.to_string()))?;
        if self.identity.env_hash(&env) == revision.env_hash {
            Ok(env)
        } else {
            Err(Safe::new(&format!(
                "{} is no longer what it was when revision {} was deployed: put it back, or deploy again",
                path.display(),
                revision.id
            )))
        }
    }

    /// Looks up what a revision's tag and env file mean now, in the background.
    pub fn look_up(self: &Arc<Self>, host: &Host, revision: Revision) {
        let (me, engine) = (Arc::clone(self), self.engine(host));
        tokio::spawn(async move {
            let digest = me.meaning(engine.as_ref(), &revision).await;
            let means = Means { digest, env_same: me.environment(&revision).is_ok() };
            me.send(Input::Means { revision: revision.id, means }).await;
        });
    }

    /// The artifact that a revision's tag means now: the engine's word where that counts and it has one, else the
    /// registry's, which is asked seldom and remembered.
    async fn meaning(&self, engine: &dyn Engine, revision: &Revision) -> Option<String> {
        let ask = async |run: &Run| engine.resolve(run, &revision.version).await.ok().flatten();
        let Run::Image { repository, args, pull } = &revision.spec.run else {
            return ask(&revision.spec.run).await;
        };
        let only = |pull| Run::Image { repository: repository.clone(), args: args.clone(), pull };
        if *pull != Pull::Always {
            let here = ask(&only(Pull::Never)).await;
            if here.is_some() || *pull == Pull::Never {
                return here;
            }
        }
        let now = self.clock.now();
        let known = locked(&self.registries).get(&revision.id).cloned();
        if let Some((at, digest)) = known
            && now.since(at) < REGISTRY_POLL
        {
            return digest;
        }
        let digest = ask(&only(Pull::Always)).await;
        let mut answers = locked(&self.registries);
        // What is no longer looked up is of no use.
        answers.retain(|_, (at, _)| now.since(*at) < REGISTRY_POLL);
        answers.insert(revision.id.clone(), (now, digest.clone()));
        digest
    }

    /// Makes the files that proxies are told to load: HAProxy does not start without them, so they are there before the
    /// first rollout, and before any command is answered. What goes wrong is said when a route is applied, with the same
    /// words.
    pub async fn prepare(&self, fleet: &Fleet) {
        for proxy in fleet.proxies.values() {
            let behind = fleet.services.values().filter(|s| s.proxies.contains(&proxy.name));
            let services: Vec<ServiceName> = behind.map(|s| s.name.clone()).collect();
            let _ = self.proxy(proxy).prepare(&services).await;
        }
    }

    /// Watches every host and proxy of the fleet, for as long as the tasks are kept.
    pub fn watch(self: &Arc<Self>, fleet: &Fleet) -> Vec<JoinHandle<()>> {
        let (hands, all) = (Arc::clone(self), fleet.clone());
        let mut tasks = vec![tokio::spawn(async move { hands.prepare(&all).await })];
        for host in fleet.hosts.values().filter(|h| !h.out) {
            tasks.push(tokio::spawn(Arc::clone(self).watch_host(host.clone())));
        }
        for proxy in fleet.proxies.values() {
            tasks.push(tokio::spawn(Arc::clone(self).watch_proxy(proxy.clone())));
        }
        tasks.push(tokio::spawn(Arc::clone(self).watch_versions(fleet.clone())));
        tasks
    }

    async fn watch_host(self: Arc<Self>, host: Host) {
        let engine = self.engine(&host);
        let lane = Lane::Host(host.name.clone());
        loop {
            match engine.claim(&self.fleet, &self.identity.owner, false).await {
                Ok(owner) if owner == self.identity.owner => break,
                Ok(owner) => {
                    let marker = match &host.engine {
                        EngineModel::Docker { .. } => {
                            format!("docker volume rm pilothouse-owner-{}", self.fleet)
                        }
                        EngineModel::Process { .. } => {
                            format!("remove owner-{} from its directory", self.fleet)
                        }
                    };
                    let error = EngineError::Foreign(Safe::new(&format!(
                        "held by another controller of fleet {}: {owner}. If that one is gone for good: {marker}",
                        self.fleet
                    )));
                    let epoch = self.epoch(&lane);
                    self.send(Input::HostSeen { host: host.name.clone(), result: Err(error), epoch }).await;
                }
                Err(e) => {
                    let epoch = self.epoch(&lane);
                    self.send(Input::HostSeen { host: host.name.clone(), result: Err(e), epoch }).await;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut failed = false;
        loop {
            let mut changes = engine.changes(&self.fleet).await.ok();
            loop {
                let epoch = self.epoch(&lane);
                let result = engine.observe(&self.fleet).await;
                // One lost answer is not a lost host: it is asked again at once before anything is frozen for it.
                let again = result.is_err() && !failed;
                failed = result.is_err();
                if again {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    continue;
                }
                let lost = result.is_err();
                self.send(Input::HostSeen { host: host.name.clone(), result, epoch }).await;
                let wait = if lost { Duration::from_secs(1) } else { RESYNC };
                let subscribed = changes.is_some();
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    Some(change) = async { match &mut changes { Some(c) => Some(c.next().await), None => None } } => {
                        if change.is_none() {
                            break;
                        }
                    }
                }
                if !subscribed || lost {
                    break;
                }
            }
        }
    }

    async fn watch_proxy(self: Arc<Self>, declared: ProxyModel) {
        let proxy = self.proxy(&declared);
        let lane = Lane::Proxy(declared.name.clone());
        let mut draining = self.draining.subscribe();
        let mut counted: Option<Instant> = None;
        let mut failed = false;
        loop {
            let epoch = self.epoch(&lane);
            let result = proxy.read_back().await;
            let again = result.is_err() && !failed;
            failed = result.is_err();
            if !again {
                let proxy = declared.name.clone();
                self.send(Input::ProxySeen { proxy, result, epoch, after_write: false }).await;
            }
            // A little early rather than half a second late.
            if counted.is_none_or(|at| at.elapsed() + PROXY_POLL / 2 >= COUNT) {
                counted = Some(Instant::now());
                if let Ok(counters) = proxy.counters().await {
                    let (proxy, loss) = (declared.name.clone(), proxy.loss());
                    self.send(Input::Counters { proxy, counters, loss }).await;
                }
            }
            // The longer something drains, the longer it may still take.
            let since = draining.borrow_and_update().map(|at| self.clock.now().since(at).duration());
            let wait = since.map_or(PROXY_POLL, |since| (since / 4).clamp(DRAIN_POLL, PROXY_POLL));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = draining.changed() => {}
            }
        }
    }

    async fn watch_versions(self: Arc<Self>, fleet: Fleet) {
        loop {
            for service in fleet.services.values() {
                let host = service.placement.keys().find_map(|h| fleet.hosts.get(h).filter(|h| !h.out));
                if let Some(host) = host
                    && let Ok(versions) = self.engine(host).versions(&service.run).await
                {
                    self.send(Input::Versions { service: service.name.clone(), versions }).await;
                }
            }
            tokio::time::sleep(VERSIONS_POLL).await;
        }
    }

    /// When the last of those that drain began to; `None` while nothing does. Proxies are looked at more often for it.
    pub fn draining(&self, since: Option<Millis>) {
        self.draining.send_if_modified(|known| std::mem::replace(known, since) != since);
    }

    /// Probes one instance for as long as the task is kept.
    pub fn probe(self: &Arc<Self>, target: Target) -> JoinHandle<()> {
        let me = Arc::clone(self);
        tokio::spawn(async move {
            let mut counter = Counter::new(&target.check, me.clock.now());
            let mut pace = Pace::new(&target.check);
            loop {
                let outcome = me.prober.ask(target.endpoint, &target.check).await;
                if !pace.counts(outcome.ok) {
                    tokio::time::sleep(pace.wait()).await;
                    continue;
                }
                let health = counter.count(&outcome, me.clock.now());
                let view = ProbeView {
                    at_ms: wall_ms(),
                    service: Safe::new(target.service.as_str()),
                    host: Safe::new(target.host.as_str()),
                    instance: Safe::new(target.instance.as_str()),
                    ok: outcome.ok,
                    result: outcome.result,
                    latency_ms: outcome.latency_ms,
                    failures: health.failures,
                    fall: target.check.fall,
                };
                me.send(Input::Probed { target: target.key(), health, view }).await;
                tokio::time::sleep(pace.wait()).await;
            }
        })
    }

    /// Follows CPU and memory of one instance for as long as the task is kept.
    pub fn follow_usage(self: &Arc<Self>, host: &Host, instance: InstanceId) -> JoinHandle<()> {
        let me = Arc::clone(self);
        let engine = self.engine(host);
        tokio::spawn(async move {
            loop {
                if let Ok(mut usage) = engine.usage(&me.fleet, &instance).await {
                    while let Some(usage) = usage.next().await {
                        me.send(Input::Usage { instance: instance.clone(), usage }).await;
                    }
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        })
    }
}

/// What is probed: another start or address of an instance is another target, and starts with nothing known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The instance.
    pub instance: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Its host.
    pub host: HostName,
    /// Where it listens.
    pub endpoint: std::net::SocketAddr,
    /// When it started: a restarted instance has everything to prove again.
    pub started_ms: Option<u64>,
    /// How it is checked.
    pub check: HealthCheck,
}

/// Which target a probe was made on.
pub type TargetKey = (InstanceId, std::net::SocketAddr, Option<u64>, HealthCheck);

impl Target {
    /// What tells it from the other targets.
    #[must_use]
    pub fn key(&self) -> TargetKey {
        (self.instance.clone(), self.endpoint, self.started_ms, self.check.clone())
    }
}

/// How long to wait before an effect is tried again that failed `count` times.
#[must_use]
pub fn backoff(effect: &Effect, count: u32) -> Millis {
    match effect {
        // The way back is never slow, and never waits for what failed on the way up.
        Effect::Routes { back: true, .. } if count <= 1 => Millis(0),
        Effect::Routes { back: true, .. } => Millis(250),
        _ => Millis((250u64 << count.min(6)).min(10_000)),
    }
}
