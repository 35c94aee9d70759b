//! A world in memory that misbehaves on command, and the core driven against it: every safety rule is asserted at every
//! step, whatever the sequence of verbs, faults and crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::capacity::{healthy, known_bad};
use super::decide::{self, Intent};
use super::fact::{Fact, Record};
use super::reconcile::{Effect, Lane, reconcile};
use super::state::{HookKind, Kind, Outcome, Stage, State, Status};
use super::world::{
    EndpointReadback, EndpointState, Failure, Health, HealthVerdict, HostObs, Observed, ObservedInstance,
    ProxyObs, Restart, Route, RouteReadback, RunState, Slot, SlotReadback, Slots, WorkerRoute,
};
use crate::fleet::model::{Fleet, Gate, Probe, Step};
use crate::fleet::names::{Bp, HostName, InstanceId, Millis, ProxyName, RevisionId, ServiceName};

/// A small deterministic generator: a seed is all that is needed to see a failure again.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
struct Process {
    seen: ObservedInstance,
    up_since: Millis,
}

/// Whether it answers, what runs there, and the artifacts it has.
type SimHost = (bool, BTreeMap<InstanceId, Process>, BTreeSet<String>);

#[derive(Clone, Default)]
struct SimProxy {
    reachable: bool,
    /// The newest first; the others are on their way out and keep their endpoints.
    workers: Vec<BTreeMap<ServiceName, Route>>,
    /// Writes whose answer was lost and that take effect later.
    late: Vec<(Millis, Vec<Route>)>,
    /// A write under way: it takes effect when it ends, and no look counts before that.
    writing: Option<(Millis, Vec<Route>)>,
}

/// How badly the world behaves, in per cent of the occasions.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) effect_fails: u64,
    pub(crate) write_late: u64,
    pub(crate) write_slow: u64,
    pub(crate) stop_never: bool,
    pub(crate) unreachable: u64,
    pub(crate) instance_dies: u64,
    pub(crate) crash: u64,
}

pub(crate) use fixture::{fleet, fleet_with, revision_of, steps, web};
use proxy::{read_back, write};

#[derive(Clone)]
pub(crate) struct Sim {
    pub(crate) state: State,
    pub(crate) obs: Observed,
    pub(crate) now: Millis,
    pub(crate) journal: Vec<Record>,
    pub(crate) faults: Faults,
    pub(crate) dice: Dice,
    fleet: Fleet,
    /// The service that a story's verbs and questions are about; the rules are asserted for every one.
    pub(crate) about: ServiceName,
    hosts: BTreeMap<HostName, SimHost>,
    proxies: BTreeMap<ProxyName, SimProxy>,
    /// Revisions whose instances never become healthy.
    pub(crate) sick: BTreeSet<RevisionId>,
    pub(crate) stops: u64,
    /// What hooks exit with.
    pub(crate) hook_exits: i32,
    /// A hook is seen made and not started first, as by a look between two calls to an engine.
    hook_made_first: bool,
    /// How often each attempt of a hook ran.
    pub(crate) hook_runs: BTreeMap<InstanceId, u32>,
    /// When the controller dies, and in what way it is wrong.
    pub(crate) harness: crashes::Harness,
    /// Until when the world may look wrong to a service: something of it died, or a late write came, and was not put
    /// right yet.
    excused_until: BTreeMap<ServiceName, Millis>,
}

impl Sim {
    pub(crate) fn new(fleet: Fleet, seed: u64) -> Self {
        let hosts =
            fleet.hosts.keys().map(|h| (h.clone(), (true, BTreeMap::new(), BTreeSet::new()))).collect();
        let proxy = SimProxy { reachable: true, workers: vec![BTreeMap::new()], late: vec![], writing: None };
        let proxies = fleet.proxies.keys().map(|p| (p.clone(), proxy.clone())).collect();
        let mut sim = Self {
            state: State::default(),
            obs: Observed::default(),
            now: Millis(0),
            journal: vec![],
            faults: Faults::default(),
            dice: Dice::new(seed),
            fleet: fleet.clone(),
            about: fleet
                .services
                .keys()
                .find(|n| **n == web())
                .or(fleet.services.keys().next())
                .unwrap()
                .clone(),
            hosts,
            proxies,
            sick: BTreeSet::new(),
            stops: 0,
            hook_exits: 0,
            hook_made_first: false,
            hook_runs: BTreeMap::new(),
            harness: crashes::Harness::default(),
            excused_until: BTreeMap::new(),
        };
        sim.record(Fact::FleetLoaded { fleet: Box::new(fleet), by: "test".into() });
        sim
    }

    fn record(&mut self, fact: Fact) {
        self.check_fact(&fact);
        if let Fact::HookBegun { instance, .. } = &fact {
            self.obs.begun.insert(instance.clone());
        }
        let record = Record { seq: self.journal.len() as u64 + 1, at: self.now, wall_ms: self.now.0, fact };
        self.state.apply(&record);
        self.journal.push(record);
    }

    pub(crate) fn service(&self) -> &super::state::ServiceState {
        &self.state.services[&self.about]
    }

    /// A changed fleet file is loaded.
    pub(crate) fn load(&mut self, change: impl FnOnce(&mut Fleet)) -> Result<(), decide::Refusal> {
        let mut fleet = self.fleet.clone();
        change(&mut fleet);
        let fleet = fleet.without_hosts_that_are_out();
        for f in decide::load(&self.state, &fleet, &"op".into())? {
            self.record(f);
        }
        for (name, host) in &fleet.hosts {
            if let Some((reachable, ..)) = self.hosts.get_mut(name).filter(|_| host.out) {
                *reachable = false;
                let gone = HostObs { out: true, reachable: true, ..HostObs::default() };
                self.obs.hosts.insert(name.clone(), gone);
            }
        }
        self.fleet = fleet;
        Ok(())
    }

    pub(crate) fn deploy(&mut self, n: u32, kind: Kind) -> Result<(), decide::Refusal> {
        let known = self
            .state
            .services
            .get(&self.about)
            .and_then(|s| s.revisions.get(&revision_of(&self.fleet, &self.about, n).id));
        let revision = known
            .filter(|_| kind == Kind::Rollback)
            .cloned()
            .unwrap_or_else(|| revision_of(&self.fleet, &self.about, n));
        for f in decide::deploy(&self.state, &revision, kind, None, &"op".into())? {
            self.record(f);
        }
        Ok(())
    }

    pub(crate) fn verb(&mut self, intent: Intent) -> Result<(), decide::Refusal> {
        for f in decide::verb(&self.state, &self.about, intent, None, &"op".into())? {
            self.record(f);
        }
        Ok(())
    }

    /// The controller dies: all that is left is the journal and the world.
    pub(crate) fn crash(&mut self) {
        let mut state = State::default();
        for record in &self.journal {
            state.apply(record);
        }
        assert_eq!(state, self.state, "a replay gives the same state");
        self.obs = Observed::default();
    }

    pub(crate) fn step(&mut self) {
        self.now = self.now.plus(Millis(500));
        self.trouble();
        self.act();
    }

    /// A step in which who can be reached stays as given: hosts first, then proxies, in name order.
    fn step_with(&mut self, reachable: &[bool]) {
        self.now = self.now.plus(Millis(500));
        let slots = self
            .hosts
            .values_mut()
            .map(|h| &mut h.0)
            .chain(self.proxies.values_mut().map(|p| &mut p.reachable));
        slots.zip(reachable).for_each(|(slot, r)| *slot = *r);
        self.act();
    }

    fn act(&mut self) {
        self.observe();
        for round in 0.. {
            assert!(round < 200, "deciding does not come to an end: {:?}", self.journal.last());
            let facts = self.decided();
            self.check_alone(&facts);
            if facts.is_empty() {
                break;
            }
            for fact in facts {
                self.record(fact);
                if self.dies() {
                    return;
                }
            }
            if self.dice.chance(self.faults.crash) {
                self.crash();
                return;
            }
        }
        self.check_words();
        let mut lanes = BTreeSet::<Lane>::new();
        for effect in self.effects() {
            let failing = self.obs.failures.get(&effect.subject()).is_some_and(|f| f.count > 0);
            let busy =
                matches!(&effect, Effect::Routes { proxy, .. } if self.proxies[proxy].writing.is_some());
            if !busy && lanes.insert(effect.lane()) && !(failing && self.dice.chance(50)) {
                if self.dies() || self.says_done_first(&effect) {
                    return;
                }
                self.run(&effect);
                if self.dies() {
                    return;
                }
                if self.dice.chance(self.faults.crash) {
                    self.crash();
                    return;
                }
            }
        }
        self.check_world();
    }

    pub(crate) fn run_until(&mut self, what: &str, steps: usize, done: impl Fn(&Self) -> bool) {
        for _ in 0..steps {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not within {steps} steps: {what}\n{}", self.explain());
    }

    fn trouble(&mut self) {
        let f = self.faults;
        for (name, (reachable, processes, _)) in &mut self.hosts {
            if self.fleet.hosts[name].out {
                continue;
            }
            *reachable = if *reachable {
                !self.dice.chance(f.unreachable)
            } else {
                self.dice.chance(40) || f.unreachable == 0
            };
            for p in processes.values_mut() {
                if p.seen.state == RunState::Running && self.dice.chance(f.instance_dies) {
                    self.excused_until.insert(p.seen.service.clone(), self.now.plus(Millis::secs(600)));
                    if p.seen.restart == Restart::No {
                        p.seen.state = RunState::Exited { code: Some(1), oom: false };
                    } else {
                        p.seen.restarts += 1;
                        p.up_since = self.now;
                    }
                }
            }
        }
        for proxy in self.proxies.values_mut() {
            let was = proxy.reachable;
            proxy.reachable = if was {
                !self.dice.chance(f.unreachable)
            } else {
                self.dice.chance(40) || f.unreachable == 0
            };
            let (due, later): (Vec<_>, Vec<_>) = proxy.late.drain(..).partition(|(at, _)| *at <= self.now);
            proxy.late = later;
            for (_, routes) in due {
                for route in &routes {
                    let until = self.excused_until.entry(route.service.clone()).or_default();
                    *until = (*until).max(self.now.plus(Millis::secs(30)));
                }
                write(proxy, &routes);
            }
            if self.dice.chance(20) {
                proxy.workers.truncate(1);
            }
        }
    }

    fn observe(&mut self) {
        for (name, (reachable, processes, images)) in &self.hosts {
            let seen = self.obs.hosts.entry(name.clone()).or_default();
            if seen.out {
                continue;
            }
            seen.reachable = *reachable;
            if *reachable {
                let instances = processes.iter().map(|(id, p)| (id.clone(), p.seen.clone())).collect();
                *seen =
                    HostObs { out: false, reachable: true, error: None, instances, images: images.clone() };
            }
            for (id, p) in processes {
                let up = p.seen.state == RunState::Running && !self.sick.contains(&p.seen.revision);
                let ready = self.now.since(p.up_since) >= Millis::secs(1);
                let verdict = match (up, ready) {
                    (true, true) => HealthVerdict::Healthy,
                    (true, false) => HealthVerdict::Unknown,
                    _ => HealthVerdict::Unhealthy,
                };
                let old = self.obs.health.get(id).filter(|h| h.verdict == verdict).map(|h| h.since);
                let since = old.unwrap_or(self.now);
                let health = Health { verdict, since, last: "sim".into(), latency_ms: 1, failures: 0 };
                self.obs.health.insert(id.clone(), health);
            }
        }
        for (name, proxy) in &mut self.proxies {
            let seen = self.obs.proxies.entry(name.clone()).or_default();
            if let Some((due, routes)) = proxy.writing.take() {
                if due > self.now {
                    proxy.writing = Some((due, routes));
                    continue;
                }
                write(proxy, &routes);
            }
            seen.writing = false;
            seen.reachable = proxy.reachable;
            if proxy.reachable {
                *seen = ProxyObs { reachable: true, error: None, routes: read_back(proxy), writing: false };
            }
        }
    }

    fn run(&mut self, effect: &Effect) {
        self.check_effect(effect);
        let reachable = match effect.lane() {
            Lane::Host(h) => self.hosts[&h].0,
            Lane::Proxy(p) => self.proxies[&p].reachable,
        };
        let never = self.faults.stop_never && matches!(effect, Effect::Stop { .. });
        let slow = self.dice.chance(self.faults.write_slow);
        if let Effect::Routes { proxy, routes, .. } = effect
            && slow
            && reachable
        {
            let due = self.now.plus(Millis(500 * (1 + self.dice.below(6))));
            self.proxies.get_mut(proxy).unwrap().writing = Some((due, routes.clone()));
            self.obs.proxies.entry(proxy.clone()).or_default().writing = true;
            return;
        }
        let failed = !reachable || never || self.dice.chance(self.faults.effect_fails);
        if failed {
            let failure = self.obs.failures.entry(effect.subject()).or_insert(Failure {
                count: 0,
                at: self.now,
                error: "no".into(),
            });
            failure.count += 1;
            failure.at = self.now;
        } else {
            self.obs.failures.remove(&effect.subject());
        }
        // A call that failed may have done its work all the same: the answer was lost.
        let done = !never && (!failed || (reachable && self.dice.chance(50)));
        match effect {
            Effect::Routes { proxy, routes, .. } => {
                let late = self.dice.chance(self.faults.write_late);
                let p = self.proxies.get_mut(proxy).unwrap();
                if late && reachable {
                    p.late.push((self.now.plus(Millis(1500)), routes.clone()));
                } else if done {
                    write(p, routes);
                }
            }
            _ if !done => {}
            Effect::Artifact { host, service, revision } => {
                let digest = self.state.services[service].revisions[revision].digest.clone();
                self.hosts.get_mut(host).unwrap().2.insert(digest);
            }
            Effect::Start { host, service, instance } => {
                let i = self.state.services[service].instances[instance].clone();
                let revision = self.state.services[service].revisions[&i.revision].clone();
                let address = self.fleet.hosts[host].address;
                let endpoint = Some(SocketAddr::new(address, i.host_port.unwrap()));
                let explain = self.explain();
                let (_, processes, _) = self.hosts.get_mut(host).unwrap();
                let taken = processes.values().any(|p| {
                    p.seen.id != *instance && p.seen.state == RunState::Running && p.seen.endpoint == endpoint
                });
                assert!(!taken, "rule 11: an endpoint has one occupant\n{explain}");
                let seen = ObservedInstance {
                    adopts: i.adopts.clone(),
                    id: instance.clone(),
                    service: service.clone(),
                    revision: i.revision.clone(),
                    version: revision.version,
                    rollout: i.rollout.clone(),
                    state: RunState::Running,
                    endpoint,
                    digest: revision.digest,
                    started_ms: None,
                    restarts: 0,
                    restart: Restart::No,
                    engine_health: None,
                };
                processes.insert(instance.clone(), Process { seen, up_since: self.now });
            }
            Effect::Hook { host, service, instance } => self.run_hook(host, service, instance),
            Effect::Stop { host, instance, .. } => {
                self.stops += 1;
                if let Some(p) = self.hosts.get_mut(host).unwrap().1.get_mut(instance) {
                    p.seen.state = RunState::Exited { code: Some(0), oom: false };
                }
            }
            Effect::Remove { host, instance } | Effect::LetGo { host, instance } => {
                self.hosts.get_mut(host).unwrap().1.remove(instance);
            }
            Effect::Restart { host, instance, restart } => {
                if let Some(p) = self.hosts.get_mut(host).unwrap().1.get_mut(instance) {
                    p.seen.restart = *restart;
                }
            }
        }
    }

    /// Containers that nobody accounts for.
    pub(crate) fn orphans(&self) -> Vec<InstanceId> {
        let all = || self.state.services.values();
        let hooks: Vec<_> =
            all().flat_map(|s| &s.rollout).flat_map(|r| &r.hooks).map(|h| &h.instance).collect();
        let known = |id: &&InstanceId| all().any(|s| s.instances.contains_key(*id)) || hooks.contains(id);
        self.hosts.values().flat_map(|(_, ps, _)| ps.keys()).filter(|id| !known(id)).cloned().collect()
    }

    pub(crate) fn ended(&self) -> Option<Outcome> {
        match self.service().rollout.as_ref()?.status {
            Status::Ended(o) => Some(o),
            _ => None,
        }
    }

    /// What it stands at and waits for.
    pub(crate) fn explain(&self) -> String {
        let s = self.service();
        let waiting = s.rollout.as_ref().map(|r| decide::waiting(&self.state, s, r, &self.obs, self.now));
        let tail = self.journal.iter().rev().take(12).map(|r| format!("{r:?}")).collect::<Vec<_>>();
        let status =
            s.rollout.as_ref().map(|r| (r.id.clone(), r.phase, r.status, r.frozen.clone(), r.reason.clone()));
        format!(
            "{status:?}\nwaiting {waiting:?}\nweights {:?} slots {:?}\ninstances {:#?}\nfailures {:?}\neffects {:?}\n{}",
            s.weights,
            s.slots,
            s.instances
                .values()
                .map(|i| format!("{} {:?} {} {}", i.id, i.stage, i.admitted, i.discard))
                .collect::<Vec<_>>(),
            self.obs.failures,
            reconcile(&self.state, &self.obs).len(),
            tail.join("\n")
        )
    }

    /// The share that the newest worker of each proxy gives a revision.
    pub(crate) fn current_weight_of(&self, id: &RevisionId) -> Vec<Bp> {
        let newest =
            self.proxies.values().filter_map(|p| p.workers.first()).filter_map(|w| w.get(&self.about));
        newest.map(|r| share(r, id)).collect()
    }

    /// The share that every worker of every proxy gives a revision, old ones included.
    pub(crate) fn weight_of(&self, id: &RevisionId) -> Vec<Bp> {
        self.proxies
            .values()
            .flat_map(|p| &p.workers)
            .filter_map(|w| w.get(&self.about))
            .map(|r| share(r, id))
            .collect()
    }

    pub(crate) fn set_reachable(&mut self, host: Option<&str>, proxy: Option<&str>, reachable: bool) {
        if let Some(h) = host {
            self.hosts.get_mut(&h.parse::<HostName>().unwrap()).unwrap().0 = reachable;
        }
        if let Some(p) = proxy {
            self.proxies.get_mut(&p.parse::<ProxyName>().unwrap()).unwrap().reachable = reachable;
        }
    }

    /// Kills one running instance of a revision.
    pub(crate) fn kill_one(&mut self, id: &RevisionId) {
        let victim = self
            .hosts
            .values_mut()
            .flat_map(|(_, ps, _)| ps.values_mut())
            .find(|p| p.seen.revision == *id && p.seen.state == RunState::Running);
        victim.expect("one runs").seen.state = RunState::Exited { code: Some(137), oom: false };
    }
}

fn share(route: &Route, id: &RevisionId) -> Bp {
    let slots = Slot::BOTH.into_iter().map(|s| route.slots.get(s));
    slots.filter(|s| s.revision.as_ref() == Some(id)).map(|s| s.weight).max().unwrap_or(Bp::ZERO)
}

mod adoption;
mod checks;
mod crashes;
pub(crate) mod fixture;
mod hooks;
mod proxy;
mod random;
mod rules;
mod stories;
mod strategies;
mod verdicts;
