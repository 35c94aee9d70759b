//! The helm: one loop that takes in what happens, journals what follows from it, and hands out what is to be done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use super::analyst::Analyst;
use super::clock::Clock;
use super::explain;
use super::hands::{Hands, Target, TargetKey, backoff};
use super::input::{Asked, Input};
use super::inspector::Inspector;
use super::journal::Journal;
use super::keeper::Keeper;
use super::lock::Lock;
use super::metrics::Exporter;
use super::metrics::page::{self, Known};
use super::metrics::tally::Tally;
use super::notify::Notifier;
use super::notify::news::{News, news};
use super::numbers::Numbers;
use super::reserve::Reserve;
use crate::api::{Change, Delta, Hello};
use crate::engine::Usage;
use crate::fleet::names::{InstanceId, Millis, ServiceName, Version};
use crate::rollout::capacity;
use crate::rollout::fact::{Counted, Fact, Record};
use crate::rollout::reconcile::{Effect, Lane, differences, reconcile};
use crate::rollout::state::{Instance, Stage, State};
use crate::rollout::world::{CheckSeen, Failure, HostObs, Observed, RunState};
use crate::text::Safe;

mod batch;
mod publish;
mod requests;

pub use publish::Latest;

/// Deciding must come to an end; more rounds than this are a defect, and stop rather than spin.
const MAX_ROUNDS: usize = 500;
/// Views go out at most this often, unless somebody waits for the effect of a verb.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// The effect of something that was done goes out at most this often.
const PUBLISH_SOON: Duration = Duration::from_millis(20);
/// Long timers are written down this often.
const CLOCK_EVERY: Millis = Millis::secs(60);

/// Of so many instances of a candidate that is taken back the last lines are kept.
const LAST_WORDS_OF: usize = 2;

/// An effect that is being carried out.
struct Busy {
    /// Whether it sends traffic back to stable.
    back: bool,
    /// Interrupts it.
    handle: AbortHandle,
}

/// The loop's state.
pub struct Helm {
    state: State,
    obs: Observed,
    journal: Journal,
    /// What is decided and not written yet.
    batch: Option<batch::Batch>,
    keeper: Keeper,
    reserve: Reserve,
    clock: Clock,
    hands: Arc<Hands>,
    hello: Hello,
    busy: HashMap<Lane, Busy>,
    watching: Vec<JoinHandle<()>>,
    probes: HashMap<InstanceId, (TargetKey, JoinHandle<()>)>,
    following: HashMap<InstanceId, JoinHandle<()>>,
    numbers: Numbers,
    tally: Tally,
    exporter: Exporter,
    notifier: Notifier,
    /// What others were not told yet.
    untold: Vec<News>,
    analyst: Analyst,
    inspector: Inspector,
    usage: BTreeMap<InstanceId, Usage>,
    versions: BTreeMap<ServiceName, Vec<Version>>,
    watchers: Vec<Safe>,
    usage_wanted: bool,
    alarms: Vec<Safe>,
    pending: Vec<Change>,
    latest: Latest,
    updates: broadcast::Sender<Arc<Delta>>,
    published: Instant,
    /// Views go out so long after the last ones.
    publish_after: Duration,
}

/// What a helm is made of.
pub struct Parts {
    /// The open journal.
    pub journal: Journal,
    /// Its facts.
    pub records: Vec<Record>,
    /// Keeps the lock's file and the journal's in order.
    pub keeper: Keeper,
    /// Serves `/metrics`.
    pub exporter: Exporter,
    /// Tells others.
    pub notifier: Notifier,
    /// Judges rollouts.
    pub analyst: Analyst,
    /// Room for an abort.
    pub reserve: Reserve,
    /// Controller time.
    pub clock: Clock,
    /// Engines and proxies.
    pub hands: Arc<Hands>,
    /// Who we are.
    pub hello: Hello,
    /// Where snapshots go.
    pub latest: Latest,
    /// Where deltas go.
    pub updates: broadcast::Sender<Arc<Delta>>,
}

impl Helm {
    /// Replays the journal.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (mut state, mut tally) = (State::default(), Tally::default());
        let mut notifier = parts.notifier;
        {
            let mut latest = parts.latest.write().unwrap_or_else(PoisonError::into_inner);
            for record in &parts.records {
                explain::event(&state, record).into_iter().for_each(|event| latest.happened(event));
                news(&state, record).into_iter().for_each(|n| notifier.before(n));
                state.apply(record);
                tally.happened(&record.fact);
            }
        }
        Self {
            state,
            obs: Observed::default(),
            journal: parts.journal,
            batch: None,
            keeper: parts.keeper,
            reserve: parts.reserve,
            clock: parts.clock,
            hands: parts.hands,
            hello: parts.hello,
            busy: HashMap::new(),
            watching: Vec::new(),
            probes: HashMap::new(),
            following: HashMap::new(),
            numbers: Numbers::default(),
            tally,
            exporter: parts.exporter,
            notifier,
            untold: Vec::new(),
            analyst: parts.analyst,
            inspector: Inspector::default(),
            usage: BTreeMap::new(),
            versions: BTreeMap::new(),
            watchers: Vec::new(),
            usage_wanted: false,
            alarms: Vec::new(),
            pending: Vec::new(),
            latest: parts.latest,
            updates: parts.updates,
            published: Instant::now(),
            publish_after: PUBLISH_EVERY,
        }
    }

    /// Runs until it is told to stop. Effects in flight are left to finish by themselves; the next controller looks.
    /// The lock is given back, to be released last.
    ///
    /// It writes to the disk, so it is for a thread of its own: what it hands out runs on the others.
    pub async fn run(
        mut self,
        mut seen: mpsc::Receiver<Input>,
        mut asked: mpsc::Receiver<Asked>,
    ) -> Option<Lock> {
        let started =
            Fact::ControllerStarted { version: self.hello.version.to_string(), pid: self.hello.pid };
        let _ = self.record(vec![started]);
        self.watch();
        loop {
            let due = tokio::time::Instant::from_std(self.published + self.publish_after);
            tokio::select! {
                biased;
                Some(ask) = asked.recv() => self.answer(ask),
                input = seen.recv() => {
                    let Some(input) = input else { return self.leave() };
                    let mut next = Some(input);
                    let mut taken = 0;
                    while let Some(input) = next.take() {
                        if matches!(input, Input::Stop) {
                            return self.leave();
                        }
                        self.take(input);
                        // Nobody who asks waits behind all that was seen.
                        while let Ok(ask) = asked.try_recv() {
                            self.answer(ask);
                        }
                        taken += 1;
                        if taken < 256 {
                            next = seen.try_recv().ok();
                        }
                    }
                }
                () = tokio::time::sleep_until(due) => {}
            }
            self.step();
            if self.published.elapsed() >= self.publish_after {
                self.publish();
            }
        }
    }

    /// Does what somebody asks for. It is under way before it is shown, and shown before it is answered, so that who
    /// asked sees the effect in what they look at next.
    fn answer(&mut self, (request, reply): Asked) {
        let answer = self.request(*request);
        self.step();
        self.publish();
        let _ = reply.send(answer);
    }

    fn leave(mut self) -> Option<Lock> {
        // What was seen and not written is seen again by the next one.
        let _ = self.commit();
        for task in self.watching.drain(..) {
            task.abort();
        }
        for (_, (_, task)) in self.probes.drain() {
            task.abort();
        }
        for (_, task) in self.following.drain() {
            task.abort();
        }
        self.inspector.end();
        drop(self.journal);
        self.keeper.end()
    }

    /// Watches the hosts and proxies of the fleet that is loaded now.
    fn watch(&mut self) {
        for task in self.watching.drain(..) {
            task.abort();
        }
        if let Some(fleet) = &self.state.fleet {
            self.exporter.listen(fleet.metrics);
            self.notifier.targets(fleet, self.state.seq);
            self.watching = self.hands.watch(fleet);
            // The operator's word that a host is gone: nothing runs there, and nothing waits for it.
            for host in fleet.hosts.values().filter(|h| h.out) {
                let gone = HostObs { out: true, reachable: true, ..HostObs::default() };
                self.obs.hosts.insert(host.name.clone(), gone);
            }
            // What is no longer declared is not known about either; what is no longer out is looked at again.
            self.obs.hosts.retain(|name, seen| fleet.hosts.get(name).is_some_and(|h| h.out == seen.out));
            self.obs.proxies.retain(|name, _| fleet.proxies.contains_key(name));
            // Whoever wrote last may have been interrupted: nothing is certain until it was written again.
            let now = self.clock.now();
            for name in fleet.proxies.keys() {
                let doubt =
                    Failure { count: 0, at: now, error: "not written since this controller began".into() };
                self.obs.failures.entry(format!("routes:{name}")).or_insert(doubt);
            }
        }
    }

    /// Reads what the candidate's instances wrote last, of those first that are known to be bad. Asked for before any of
    /// them is stopped; an abort does not wait for it.
    fn last_words(&self, service: &ServiceName) {
        let (Some(s), Some(fleet)) = (self.state.services.get(service), &self.state.fleet) else { return };
        let Some(r) = s.active() else { return };
        let mut instances: Vec<&Instance> = s.of(&r.to).filter(|i| i.stage <= Stage::Leaving).collect();
        instances.sort_by_key(|i| !capacity::known_bad(i, &self.obs));
        for i in instances.into_iter().take(LAST_WORDS_OF) {
            if let Some(host) = fleet.hosts.get(&i.host) {
                self.hands.last_words(host, service.clone(), r.id.clone(), i.id.clone());
            }
        }
    }

    /// What a rollout counts begins with it: of the instances that were removed before nobody asks any more.
    fn forget_counters(&mut self, service: &ServiceName) {
        let Some(s) = self.state.services.get(service) else { return };
        let gone = |id: &InstanceId| s.removed.contains(id) && !s.instances.contains_key(id);
        self.numbers.forget(&gone);
        self.tally.forget_instances(&gone);
        self.tally.forget(&self.state);
        let proxies = self.state.fleet.iter().flat_map(|f| f.proxies.values());
        proxies.for_each(|p| self.hands.proxy(p).forget(&gone));
    }

    /// What the proxies counted for the rollout that has just ended.
    fn counted(&self, service: &ServiceName) -> Option<Fact> {
        let r = self.state.services.get(service)?.rollout.as_ref()?;
        let counts = r.from.iter().chain([&r.to]).map(|revision| {
            let c = self.numbers.counted(service.as_str(), revision)?;
            let (requests, errors, retries) = (c.requests, c.errors, c.retries);
            Some(Counted { revision: revision.clone(), requests, errors, retries })
        });
        let counts = counts.collect::<Option<Vec<_>>>()?;
        Some(Fact::RolloutCounted { service: service.clone(), rollout: r.id.clone(), counts })
    }

    /// Takes in something seen.
    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::HostSeen { host, result, epoch } => {
                // A look that began before an effect of ours ended tells nothing about after it.
                let stale = self.hands.epoch(&Lane::Host(host.clone())) != epoch;
                if stale || self.obs.hosts.get(&host).is_some_and(|h| h.out) {
                    return;
                }
                let known = self.obs.hosts.contains_key(&host);
                let seen = self.obs.hosts.entry(host.clone()).or_default();
                let was = seen.reachable;
                match result {
                    Ok(instances) => {
                        seen.reachable = true;
                        seen.error = None;
                        seen.instances = instances.into_iter().map(|i| (i.id.clone(), i)).collect();
                    }
                    Err(e) => {
                        seen.reachable = false;
                        seen.error = Some(Safe::new(&e.to_string()));
                    }
                }
                let (reachable, detail) = (seen.reachable, seen.error.clone().unwrap_or_default());
                if was != reachable && (known || !reachable) {
                    self.propose(vec![Fact::HostSeen { host, reachable, detail }]);
                }
            }
            Input::ProxySeen { proxy, result, epoch, after_write } => {
                if self.hands.epoch(&Lane::Proxy(proxy.clone())) != epoch {
                    return;
                }
                let before = Observed {
                    proxies: self
                        .obs
                        .proxies
                        .get(&proxy)
                        .map(|p| (proxy.clone(), p.clone()))
                        .into_iter()
                        .collect(),
                    ..Observed::default()
                };
                let known = self.obs.proxies.contains_key(&proxy);
                let seen = self.obs.proxies.entry(proxy.clone()).or_default();
                let was = seen.reachable;
                match result {
                    Ok(routes) => {
                        seen.reachable = true;
                        seen.error = None;
                        seen.routes = routes;
                    }
                    Err(e) => {
                        seen.reachable = false;
                        seen.error = Some(Safe::new(&e.to_string()));
                    }
                }
                let (reachable, detail) = (seen.reachable, seen.error.clone().unwrap_or_default());
                let mut facts = Vec::new();
                if was != reachable && known {
                    facts.push(Fact::ProxySeen { proxy: proxy.clone(), reachable, detail });
                }
                if !after_write {
                    facts.extend(differences(&before, &self.obs, &self.state));
                }
                self.propose(facts);
            }
            Input::Counters { proxy, counters, loss } => {
                if self.state.fleet.as_ref().is_some_and(|f| f.metrics.is_some()) {
                    self.tally.take(&proxy, &counters);
                    self.tally.lines(&proxy, loss);
                }
                self.numbers.take(now, &proxy, counters);
                self.numbers.lines(now, &proxy, loss);
                if let Some(verdicts) = self.analyst.look(&self.state, &self.numbers, now) {
                    self.obs.verdicts = verdicts;
                }
            }
            Input::Done { effect, result } => self.done(&effect, result),
            Input::Probed { target, health, view } => {
                if self.probes.get(&target.0).is_some_and(|(key, _)| *key == target) {
                    self.obs.health.insert(target.0, health);
                    self.tally.probed(&view);
                    self.pending.push(Change::Probe(view));
                }
            }
            Input::Usage { instance, usage } => {
                self.usage.insert(instance, usage);
            }
            Input::Versions { service, versions } => {
                // As often as versions are looked for, so are the tag and the env file of what serves.
                if let (Some(s), Some(fleet)) = (self.state.services.get(&service), &self.state.fleet)
                    && let Some(revision) = s.stable.as_ref().and_then(|id| s.revisions.get(id))
                    && let Some(host) =
                        s.spec.placement.keys().find_map(|h| fleet.hosts.get(h).filter(|h| !h.out))
                {
                    self.hands.look_up(host, revision.clone());
                }
                self.versions.insert(service, versions);
            }
            Input::Means { revision, means } => {
                self.obs.means.insert(revision, means);
            }
            Input::Checked { service, check, rollout, asked_at, answered: (answer, words) } => {
                if self.inspector.asks(&service, &check, &rollout) {
                    let seen = self.obs.checks.entry(service).or_default();
                    let after = CheckSeen::after(seen.remove(&check), rollout, asked_at, answer, words);
                    seen.insert(check, after);
                }
            }
            Input::LastWords { service, rollout, instance, lines } => {
                let last = self.state.services.get(&service).and_then(|s| s.rollout.as_ref());
                if last.is_some_and(|r| r.id == rollout) {
                    self.propose(vec![Fact::LastWords { service, rollout, instance, lines }]);
                }
            }
            Input::Watchers { names, usage } => {
                self.watchers = names;
                self.usage_wanted = usage;
            }
            Input::State(reply) => {
                let _ = reply.send(Box::new(self.state.clone()));
            }
            Input::Untold { target, attempts, error } => {
                let subject = format!("notify:{target}");
                self.propose(vec![Fact::EffectFailing { subject, count: attempts, error }]);
            }
            Input::Metrics(reply) => {
                self.tally.forget(&self.state);
                let (tally, state) = (self.tally.clone(), &self.state);
                let (actual, safe) = (page::actual(state, &self.obs), page::safe(state));
                let told = self.notifier.told();
                let _ = reply.send(Box::new(Known { tally, actual, safe, told }));
            }
            Input::Stop => {}
        }
    }

    fn done(&mut self, effect: &Effect, result: Result<(), Safe>) {
        // What somebody waits to see goes out sooner, and at once that traffic went back.
        let soon =
            if matches!(effect, Effect::Routes { back: true, .. }) { Duration::ZERO } else { PUBLISH_SOON };
        self.publish_after = self.publish_after.min(soon);
        self.busy.remove(&effect.lane());
        if let Effect::Routes { proxy, .. } = effect
            && let Some(seen) = self.obs.proxies.get_mut(proxy)
        {
            seen.writing = false;
        }
        let subject = effect.subject();
        match result {
            Ok(()) => {
                self.obs.failures.remove(&subject);
                if let Effect::Artifact { host, service, revision } = effect
                    && let Some(r) = self.state.services.get(service).and_then(|s| s.revisions.get(revision))
                {
                    self.obs.hosts.entry(host.clone()).or_default().images.insert(r.digest.clone());
                }
            }
            Err(error) => {
                let now = self.clock.now();
                let failure = self.obs.failures.entry(subject.clone()).or_insert(Failure {
                    count: 0,
                    at: now,
                    error: Safe::default(),
                });
                failure.count += 1;
                failure.at = now;
                failure.error = error.clone();
                let count = failure.count;
                if count == 3 {
                    self.propose(vec![Fact::EffectFailing { subject, count, error }]);
                }
            }
        }
    }

    /// Decides until nothing follows any more, writes that down, then hands out what is to be done.
    fn step(&mut self) {
        if !self.decide() {
            return;
        }
        let now = self.clock.now();
        self.forget_failures();
        self.follow_instances();
        let all = self.state.services.values().flat_map(|s| s.instances.values());
        self.hands.draining(all.filter(|i| i.stage == Stage::Leaving).map(|i| i.leaving_at).max());
        for effect in reconcile(&self.state, &self.obs) {
            let lane = effect.lane();
            let back = matches!(effect, Effect::Routes { back: true, .. });
            if let Some(busy) = self.busy.get(&lane) {
                // The way back does not wait for a check, a reload or a deadline of the way up.
                if back && !busy.back {
                    busy.handle.abort();
                }
                continue;
            }
            let failed = self.obs.failures.get(&effect.subject()).filter(|f| f.count > 0);
            if failed.is_some_and(|f| now < f.at.plus(backoff(&effect, f.count))) {
                continue;
            }
            match self.hands.carry_out(effect.clone(), &self.state, &self.obs) {
                Ok(handle) => {
                    if let Effect::Routes { proxy, .. } = &effect {
                        self.obs.proxies.entry(proxy.clone()).or_default().writing = true;
                    }
                    self.busy.insert(lane, Busy { back, handle });
                }
                Err(why) => self.done(&effect, Err(Safe::new(&why))),
            }
        }
        // Nothing that is to be done waits for what is to be asked.
        self.inspector.follow(&self.state, &mut self.obs, &self.hands);
    }

    /// Failures of what nobody wants any more say nothing.
    fn forget_failures(&mut self) {
        let services = &self.state.services;
        let ours = |id: &str| {
            let known = |id: &InstanceId| {
                services.values().any(|s| s.instances.contains_key(id) || s.removed.contains(id))
            };
            id.parse().is_ok_and(|id| known(&id))
        };
        let placed = |rest: &str| {
            let mut all = services.values().flat_map(|s| s.instances.values());
            all.any(|i| i.stage == Stage::Placed && rest.starts_with(i.revision.as_str()))
        };
        self.obs.failures.retain(|subject, _| match subject.split_once(':') {
            Some(("start" | "stop" | "remove" | "restart", id)) => ours(id),
            Some(("artifact", rest)) => placed(rest),
            _ => true,
        });
    }

    /// Probes what runs and shall; a new start is a new target.
    fn follow_instances(&mut self) {
        let mut targets: HashMap<InstanceId, Target> = HashMap::new();
        for s in self.state.services.values() {
            for i in s.instances.values().filter(|i| matches!(i.stage, Stage::Started | Stage::Leaving)) {
                let seen = self.obs.hosts.get(&i.host).and_then(|h| h.instances.get(&i.id));
                let running = seen.is_none_or(|s| matches!(s.state, RunState::Running | RunState::Starting));
                if let Some(endpoint) = i.endpoint.filter(|_| running) {
                    let target = Target {
                        instance: i.id.clone(),
                        service: s.spec.name.clone(),
                        host: i.host.clone(),
                        endpoint,
                        started_ms: seen.and_then(|s| s.started_ms),
                        // As its own revision was deployed: a check that comes with a new version is not for the old one.
                        check: s.revisions.get(&i.revision).map_or(&s.spec, |r| &r.spec).health.clone(),
                    };
                    targets.insert(i.id.clone(), target);
                }
            }
        }
        let obs = &mut self.obs;
        self.probes.retain(|id, (key, task)| {
            let keep = targets.get(id).is_some_and(|t| t.key() == *key);
            if !keep {
                task.abort();
                obs.health.remove(id);
            }
            keep
        });
        let wanted = |id: &InstanceId| self.usage_wanted && targets.contains_key(id);
        let usage = &mut self.usage;
        self.following.retain(|id, task| {
            let keep = wanted(id);
            if !keep {
                task.abort();
                usage.remove(id);
            }
            keep
        });
        for (id, target) in targets {
            if self.usage_wanted
                && !self.following.contains_key(&id)
                && let Some(host) = self.state.fleet.as_ref().and_then(|f| f.hosts.get(&target.host))
            {
                self.following.insert(id.clone(), self.hands.follow_usage(host, id.clone()));
            }
            if !self.probes.contains_key(&id) {
                self.probes.insert(id, (target.key(), self.hands.probe(target)));
            }
        }
    }
}
