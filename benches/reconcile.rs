//! What the core costs: one turn of the helm (advance, reconcile, the snapshot's view) at 20, 1,000 and 5,000 instances
//! with a canary half-way, and the replay of a journal of 10,000 facts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pilothouse::controller::journal::{Head, Journal};
use pilothouse::controller::numbers::Numbers;
use pilothouse::controller::view::{Sources, snapshot};
use pilothouse::fleet::model::{
    Address, Drain, EdgeSettings, Engine, Fleet, Gate, HealthCheck, Hooks, Host, Probe, Proxy, ProxyKind,
    Run, Service, Step, Strategy,
};
use pilothouse::fleet::names::{Bp, HostName, Millis, ProxyName, ServiceName};
use pilothouse::rollout::decide::{self, Intent};
use pilothouse::rollout::fact::{Fact, Record};
use pilothouse::rollout::reconcile::{Effect, reconcile};
use pilothouse::rollout::state::{Kind, Revision, State};
use pilothouse::rollout::world::{
    EndpointReadback, Health, HealthVerdict, Observed, ObservedInstance, ProxyObs, Restart, Route,
    RouteReadback, RunState, Slot, SlotReadback, Slots, WorkerRoute,
};

/// Hosts of every fleet here.
const HOSTS: u16 = 10;
/// Instances of each service, at most.
const PER_SERVICE: usize = 50;

fn fleet(instances: usize) -> Fleet {
    let hosts: Vec<HostName> = (1..=HOSTS).map(|n| format!("node-{n}").parse().unwrap()).collect();
    let lb: ProxyName = "lb".parse().unwrap();
    let services = instances.div_ceil(PER_SERVICE);
    let replicas = u32::try_from(instances.min(PER_SERVICE)).unwrap();
    let per_host = replicas / u32::from(HOSTS);
    let service = |n: usize| {
        let first = 10_000 + u16::try_from(n).unwrap() * 20;
        Service {
            name: format!("s{n:03}").parse().unwrap(),
            run: Run::Command { argv: vec!["app".into()] },
            version: None,
            versions: vec![],
            placement: hosts.iter().map(|h| (h.clone(), per_host)).collect(),
            port: 8080,
            host_ports: (first, first + 19),
            address: Address::Published,
            network: None,
            env: BTreeMap::new(),
            env_file: None,
            health: HealthCheck {
                probe: Probe::Tcp,
                interval: Millis::secs(1),
                timeout: Millis(500),
                rise: 2,
                fall: 3,
            },
            drain: Drain { deadline: Millis::secs(30), stop_grace: Millis::secs(10) },
            strategy: Strategy::Canary {
                steps: vec![Step { weight: Bp::percent(25), instances: None, gates: vec![Gate::Manual] }],
                sticky: false,
                tester: None,
            },
            hooks: Hooks::default(),
            analysis: None,
            checks: Vec::new(),
            progress_deadline: Millis::secs(600),
            keep: Millis::secs(60),
            restore: false,
            proxies: vec![lb.clone()],
            domains: vec![],
        }
    };
    let host = |(n, name): (usize, &HostName)| {
        let address = format!("10.0.0.{}", n + 1).parse().unwrap();
        (
            name.clone(),
            Host { name: name.clone(), engine: Engine::Process { dir: None }, address, out: false },
        )
    };
    let listen = "127.0.0.1:80".parse().unwrap();
    Fleet {
        name: "bench".parse().unwrap(),
        environment: "bench".into(),
        production: false,
        state_dir: None,
        require_serve: false,
        metrics: None,
        notify: BTreeMap::new(),
        hosts: hosts.iter().enumerate().map(host).collect(),
        proxies: [(
            lb.clone(),
            Proxy { name: lb.clone(), kind: ProxyKind::Edge(EdgeSettings { listen }), container: None },
        )]
        .into(),
        services: (0..services).map(service).map(|s| (s.name.clone(), s)).collect(),
        hash: "0".into(),
    }
}

/// A world that does at once what it is told, and the facts that led there.
struct World {
    fleet: Fleet,
    state: State,
    obs: Observed,
    now: Millis,
    records: Vec<Record>,
}

impl World {
    fn new(instances: usize) -> Self {
        let fleet = fleet(instances);
        let mut world = Self {
            fleet: fleet.clone(),
            state: State::default(),
            obs: Observed::default(),
            now: Millis(0),
            records: Vec::new(),
        };
        for host in fleet.hosts.keys() {
            world.obs.hosts.entry(host.clone()).or_default().reachable = true;
        }
        for proxy in fleet.proxies.keys() {
            let seen = ProxyObs { reachable: true, ..ProxyObs::default() };
            world.obs.proxies.insert(proxy.clone(), seen);
        }
        world.record(Fact::FleetLoaded { fleet: Box::new(fleet), by: "bench".into() });
        world
    }

    /// All services at version 1, the first one half-way to version 2.
    fn with_a_canary(instances: usize) -> Self {
        let mut world = Self::new(instances);
        let services: Vec<ServiceName> = world.fleet.services.keys().cloned().collect();
        for s in &services {
            world.deploy(s, 1);
        }
        world.settle();
        assert_eq!(world.state.services.values().map(|s| s.instances.len()).sum::<usize>(), instances);
        world.deploy(&services[0], 2);
        world.settle();
        let weights = &world.state.services[&services[0]].weights;
        assert_eq!((weights.a, weights.b), (Bp::percent(75), Bp::percent(25)));
        world
    }

    fn record(&mut self, fact: Fact) {
        let seq = self.records.len() as u64 + 1;
        let record = Record { seq, at: self.now, wall_ms: self.now.0, fact };
        self.state.apply(&record);
        self.records.push(record);
    }

    fn deploy(&mut self, service: &ServiceName, n: u32) {
        let revision = Revision {
            id: format!("{n:08x}").parse().unwrap(),
            version: format!("1.{n}.0").parse().unwrap(),
            digest: format!("sha256:{n}"),
            spec: self.fleet.services[service].clone(),
            env_hash: String::new(),
        };
        let facts = decide::deploy(&self.state, &revision, Kind::Release, None, &"bench".into()).unwrap();
        facts.into_iter().for_each(|f| self.record(f));
    }

    fn abort(&mut self, service: &ServiceName) {
        let facts = decide::verb(&self.state, service, Intent::Abort, None, &"bench".into()).unwrap();
        facts.into_iter().for_each(|f| self.record(f));
    }

    /// Until there is nothing to decide and nothing to do.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.now = self.now.plus(Millis::secs(1));
            let facts = decide::advance(&self.state, &self.obs, self.now);
            let effects = reconcile(&self.state, &self.obs);
            if facts.is_empty() && effects.is_empty() {
                return;
            }
            facts.into_iter().for_each(|f| self.record(f));
            reconcile(&self.state, &self.obs).into_iter().for_each(|e| self.run(e));
        }
        panic!("the world does not settle: {:?}", self.records.last());
    }

    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Artifact { host, service, revision } => {
                let digest = self.state.services[&service].revisions[&revision].digest.clone();
                self.obs.hosts.entry(host).or_default().images.insert(digest);
            }
            Effect::Hook { .. } | Effect::LetGo { .. } => {}
            Effect::Start { host, service, instance } => {
                let s = &self.state.services[&service];
                let (i, address) = (&s.instances[&instance], self.fleet.hosts[&host].address);
                let revision = &s.revisions[&i.revision];
                let seen = ObservedInstance {
                    adopts: None,
                    id: instance.clone(),
                    service: service.clone(),
                    revision: i.revision.clone(),
                    version: revision.version.clone(),
                    rollout: i.rollout.clone(),
                    state: RunState::Running,
                    endpoint: Some(SocketAddr::new(address, i.host_port.unwrap())),
                    digest: revision.digest.clone(),
                    started_ms: None,
                    restarts: 0,
                    restart: Restart::No,
                    engine_health: None,
                };
                self.obs.hosts.entry(host).or_default().instances.insert(instance.clone(), seen);
                let health = Health {
                    verdict: HealthVerdict::Healthy,
                    since: self.now,
                    last: "200".into(),
                    latency_ms: 1,
                    failures: 0,
                };
                self.obs.health.insert(instance, health);
            }
            Effect::Stop { host, instance, .. } => {
                if let Some(seen) = self.obs.hosts.entry(host).or_default().instances.get_mut(&instance) {
                    seen.state = RunState::Exited { code: Some(0), oom: false };
                }
            }
            Effect::Remove { host, instance } => {
                self.obs.hosts.entry(host).or_default().instances.remove(&instance);
                self.obs.health.remove(&instance);
            }
            Effect::Restart { host, instance, restart } => {
                if let Some(seen) = self.obs.hosts.entry(host).or_default().instances.get_mut(&instance) {
                    seen.restart = restart;
                }
            }
            Effect::Routes { proxy, routes, .. } => {
                let routes = routes.iter().map(|r| (r.service.clone(), read_back(r))).collect();
                self.obs.proxies.entry(proxy).or_default().routes = routes;
            }
        }
    }
}

fn read_back(route: &Route) -> RouteReadback {
    let slot = |s: Slot| {
        let slot = route.slots.get(s);
        let endpoint = |e: &pilothouse::rollout::world::RouteEndpoint| EndpointReadback {
            instance: e.instance.clone(),
            addr: e.addr,
            state: e.state,
            up: Some(true),
            in_flight: 0,
        };
        SlotReadback { weight: slot.weight, endpoints: slot.endpoints.iter().map(endpoint).collect() }
    };
    let slots = Slots { a: slot(Slot::A), b: slot(Slot::B) };
    RouteReadback {
        workers: vec![WorkerRoute {
            worker: "1".into(),
            current: true,
            stable: route.stable,
            slots,
            rules: Vec::new(),
            sticky: false,
        }],
    }
}

fn turn(c: &mut Criterion) {
    for instances in [20, 1_000, 5_000] {
        let world = World::with_a_canary(instances);
        let (numbers, usage, versions) = (Numbers::default(), BTreeMap::new(), BTreeMap::new());
        let mut group = c.benchmark_group("turn");
        group.measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1)).sample_size(20);
        group.bench_function(BenchmarkId::new("advance", instances), |b| {
            b.iter(|| black_box(decide::advance(&world.state, &world.obs, world.now)).len());
        });
        group.bench_function(BenchmarkId::new("reconcile", instances), |b| {
            b.iter(|| black_box(reconcile(&world.state, &world.obs)).len());
        });
        let from = Sources {
            state: &world.state,
            obs: &world.obs,
            numbers: &numbers,
            usage: &usage,
            versions: &versions,
            now: world.now,
            wall_ms: 0,
        };
        group.bench_function(BenchmarkId::new("view", instances), |b| {
            b.iter(|| black_box(snapshot(&from)).instances.len());
        });
        group.finish();
    }
}

/// Releases that are aborted, again and again: what a long-lived journal is made of.
fn journal_of(facts: usize) -> Vec<Record> {
    let mut world = World::new(20);
    let service = world.fleet.services.keys().next().unwrap().clone();
    world.deploy(&service, 1);
    world.settle();
    let mut n = 1;
    while world.records.len() < facts {
        n += 1;
        world.deploy(&service, n);
        world.settle();
        world.abort(&service);
        world.settle();
    }
    world.records.truncate(facts);
    world.records
}

fn replay(c: &mut Criterion) {
    let records = journal_of(10_000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let (mut journal, _) = Journal::open(&path, &Head::default()).unwrap();
    for some in records.chunks(500) {
        journal.append(Millis(0), 0, some.iter().map(|r| r.fact.clone()).collect()).unwrap();
    }
    let head = journal.head().clone();
    drop(journal);
    let mut group = c.benchmark_group("journal of 10,000 facts");
    group.measurement_time(Duration::from_secs(6)).warm_up_time(Duration::from_secs(1)).sample_size(10);
    group.bench_function("apply", |b| {
        b.iter(|| {
            let mut state = State::default();
            records.iter().for_each(|r| state.apply(r));
            black_box(state.seq)
        });
    });
    group.bench_function("open, check the chain, apply", |b| {
        b.iter(|| {
            let (_journal, records) = Journal::open(&path, &head).unwrap();
            let mut state = State::default();
            records.iter().for_each(|r| state.apply(r));
            black_box(state.seq)
        });
    });
    group.finish();
}

criterion_group!(benches, turn, replay);
criterion_main!(benches);
