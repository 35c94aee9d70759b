//! Made-up fleets for tests, benches and the example controller. Times are fixed, so that pictures can be compared.

mod strategies;

pub use strategies::{checked, compared, down, empty_place, followed, held, many_hosts, preview};

use crate::api::{
    API_VERSION, EventView, HealthView, Hello, HostView, InstanceDetails, InstanceView, Level, PhaseHostView,
    PhaseView, PlanView, ProbeView, ProxyView, RevisionRef, RevisionView, Role, RolloutStatus, RolloutView,
    ServiceView, Snapshot, TrafficView, VerbKind,
};
use crate::text::Safe;

/// The wall clock of all fixtures: 2026-03-01 12:04:31 UTC.
pub const WALL_MS: u64 = 1_772_366_671_000;

const DAY: u64 = 86_400_000;

fn revision(id: &str, version: &str) -> RevisionRef {
    RevisionRef { id: id.into(), version: version.into(), digest: format!("sha256:{id}").into() }
}

fn phase(name: &str, weight: u16, instances: u32, gates: &[&str]) -> PhaseView {
    let gates = gates.iter().map(|g| Safe::from(*g)).collect();
    PhaseView { name: name.into(), weight, instances, gates, ..PhaseView::default() }
}

/// The first phases of `r` were entered so many seconds ago.
fn entered(r: &mut RolloutView, ago_s: &[u64]) {
    for (p, ago) in r.phases.iter_mut().zip(ago_s) {
        p.entered_ms = Some(WALL_MS - ago * 1000);
    }
}

/// The phases of the sample canary.
#[must_use]
pub fn phases() -> Vec<PhaseView> {
    let mut phases = vec![
        phase("start", 0, 1, &["healthy for 30s"]),
        phase("5%", 500, 1, &["pause 2m"]),
        phase("25%", 2500, 2, &["healthy for 30s", "pause 10m"]),
        phase("50%", 5000, 3, &["promote"]),
        phase("100%", 10_000, 6, &[]),
    ];
    for (p, seconds) in phases.iter_mut().zip([30, 120, 600]) {
        p.at_least_ms = seconds * 1000;
    }
    phases
}

/// A phase of a plan on three hosts.
fn hosts_of(p: &PhaseView) -> Vec<PhaseHostView> {
    let part =
        |share: u16, here: u32, all: u32| u16::try_from(u32::from(share) * here / all.max(1)).unwrap_or(0);
    let on = |n: u32| {
        let candidate = p.instances / 3 + u32::from(n < p.instances % 3);
        PhaseHostView {
            host: format!("node-{}", n + 1).into(),
            stable: 2,
            candidate,
            stable_weight: part(10_000 - p.weight, 2, 6),
            candidate_weight: part(p.weight, candidate, p.instances),
        }
    };
    (0..3).map(on).collect()
}

/// What deploying 1.6.0 would do.
#[must_use]
pub fn plan() -> PlanView {
    PlanView {
        service: "web".into(),
        strategy: "canary".into(),
        from: Some("1.5.0".into()),
        to: "1.6.0".into(),
        phases: phases().into_iter().map(|p| PhaseView { hosts: hosts_of(&p), ..p }).collect(),
        replicas: 6,
        lowest: Some(6),
        extra: 6,
        at_least_ms: 750_000,
        by_hand: vec!["50%".into()],
        takes: "at least 12m30s, and until promoted at 50%".into(),
        not_promised: vec![
            "one version to one visitor: while the traffic is split, requests may see either".into(),
        ],
        way_back: "instant: one weight change, until 1h after it has ended".into(),
        notes: vec!["evicts 1.4.2; the way back is 1.5.0 afterwards".into()],
        decision: 41,
    }
}

/// `n` instances of a revision of `web`, spread over three hosts.
fn instances(id: &str, version: &str, role: Role, n: u32, share: u16, age_ms: u64) -> Vec<InstanceView> {
    (1..=n)
        .map(|k| InstanceView {
            id: format!("web-{id}-{k}").into(),
            service: "web".into(),
            host: format!("node-{}", (k - 1) % 3 + 1).into(),
            revision: id.into(),
            version: version.into(),
            role,
            endpoint: Some(format!("10.0.0.{}:2000{k}", (k - 1) % 3 + 1).into()),
            state: "running".into(),
            health: HealthView::Healthy,
            probe: "200".into(),
            probe_ms: Some(3 + k),
            weight: Some(share),
            cpu_percent: Some(2.0 + k as f32),
            memory_bytes: Some((40 + u64::from(k)) << 20),
            started_ms: Some(WALL_MS - age_ms),
            restarts: 0,
        })
        .collect()
}

/// What the engine says of the candidate's first instance, which was short of memory once.
#[must_use]
pub fn details() -> InstanceDetails {
    let label = |name: &str, value: &str| (name.into(), value.into());
    InstanceDetails {
        id: "web-9c1e0a77-1".into(),
        runs_as: "4f0f2f6f3c8e4f0f2f6f3c8e4f0f2f6f3c8e4f0f2f6f3c8e4f0f2f6f3c8e4f0f".into(),
        image: "registry.example/shop/web@sha256:9c1e0a77".into(),
        labels: vec![label("io.pilothouse.fleet", "shop"), label("io.pilothouse.service", "web")],
        env: vec!["DATABASE_URL".into(), "PATH".into(), "PORT".into()],
        ports: vec!["10.0.0.1:20001 to 8080/tcp".into()],
        restart: "no".into(),
        exit_code: Some(137),
        oom: true,
        ended_ms: Some(WALL_MS - 300_000),
        error: None,
    }
}

fn traffic(rate: f32, error_percent: f32, p95: f32, requests: u64, errors: u64) -> TrafficView {
    TrafficView {
        rate,
        error_percent,
        p50_ms: Some(p95 / 3.0),
        p95_ms: Some(p95),
        mean_ms: None,
        requests,
        errors,
        retries: 0,
    }
}

fn event(seq: u64, ago_s: u64, by: &str, level: Level, kind: &str, text: &str) -> EventView {
    EventView {
        seq,
        at_ms: WALL_MS - ago_s * 1000,
        service: Some("web".into()),
        rollout: Some("web-7".into()),
        by: by.into(),
        level,
        kind: kind.into(),
        text: text.into(),
    }
}

fn base() -> Snapshot {
    let hello = Hello {
        api: API_VERSION,
        version: "0.1.0".into(),
        fleet: "shop".into(),
        pid: 4711,
        started_ms: WALL_MS - DAY,
    };
    let hosts = (1..=3).map(|n| HostView {
        name: format!("node-{n}").into(),
        engine: "docker".into(),
        address: format!("10.0.0.{n}").into(),
        reachable: true,
        error: None,
        out: false,
    });
    Snapshot {
        schema: 1,
        seq: 100,
        controller: hello,
        environment: "staging".into(),
        hosts: hosts.collect(),
        proxies: vec![ProxyView {
            name: "lb-1".into(),
            kind: "haproxy".into(),
            reachable: true,
            error: None,
        }],
        watchers: vec!["alice".into(), "bob".into(), "operator".into()],
        ..Snapshot::default()
    }
}

fn quiet(name: &str, version: &str) -> ServiceView {
    ServiceView {
        name: name.into(),
        stable: Some(revision("11112222", version)),
        revisions: vec![RevisionView {
            revision: revision("11112222", version),
            role: Role::Stable,
            slot: Some("a".into()),
            weight: 10_000,
            actual_weight: Some(10_000),
            share: Some(10_000),
            traffic: Some(traffic(88.0, 0.0, 12.0, 400_000, 3)),
            healthy: 2,
            wanted: 2,
        }],
        replicas: 2,
        strategy: "canary".into(),
        known_versions: vec![version.into()],
        verbs: vec![VerbKind::Deploy],
        ..ServiceView::default()
    }
}

/// A canary of `web` from 1.4.2 to 1.5.0 at 25 %, with 6:12 left on its gate; two more services stand still.
#[must_use]
pub fn canary() -> Snapshot {
    let mut s = base();
    let stable = RevisionView {
        revision: revision("7f3a0b11", "1.4.2"),
        role: Role::Stable,
        slot: Some("a".into()),
        weight: 7500,
        actual_weight: Some(7500),
        share: Some(7540),
        traffic: Some(traffic(412.0, 0.02, 38.0, 9_120, 3)),
        healthy: 6,
        wanted: 6,
    };
    let candidate = RevisionView {
        revision: revision("9c1e0a77", "1.5.0"),
        role: Role::Candidate,
        slot: Some("b".into()),
        weight: 2500,
        actual_weight: Some(2500),
        share: Some(2460),
        traffic: Some(traffic(137.0, 0.03, 41.0, 2_410, 1)),
        healthy: 2,
        wanted: 2,
    };
    let mut rollout = RolloutView {
        id: "web-7".into(),
        strategy: "canary".into(),
        from: Some("1.4.2".into()),
        to: "1.5.0".into(),
        status: RolloutStatus::Running,
        reason: "waits for its gates".into(),
        decision: 40,
        phase: 2,
        phases: phases(),
        waiting: vec!["pause 10m".into()],
        gate_left_ms: Some(372_000),
        by: "alice".into(),
        started_ms: WALL_MS - 480_000,
        ended_ms: None,
        owed: vec![],
        ..RolloutView::default()
    };
    entered(&mut rollout, &[480, 445, 260]);
    let web = ServiceView {
        name: "web".into(),
        stable: Some(revision("7f3a0b11", "1.4.2")),
        previous: Some(revision("55aa0b11", "1.4.1")),
        previous_warm: false,
        rollout: Some(rollout),
        revisions: vec![stable, candidate],
        replicas: 6,
        strategy: "canary".into(),
        known_versions: vec!["1.5.0".into(), "1.4.2".into(), "1.4.1".into()],
        drift: vec![],
        verbs: vec![
            VerbKind::Deploy,
            VerbKind::Promote,
            VerbKind::Pause,
            VerbKind::Abort,
            VerbKind::Rollback,
        ],
        ..ServiceView::default()
    };
    s.services = vec![quiet("api", "3.1.0"), web, quiet("worker", "2.0.7")];
    s.services.sort_by(|a, b| a.name.cmp(&b.name));
    s.instances = instances("7f3a0b11", "1.4.2", Role::Stable, 6, 1250, 3 * DAY);
    s.instances.extend(instances("9c1e0a77", "1.5.0", Role::Candidate, 2, 1250, 480_000));
    s.instances.sort_by(|a, b| a.id.cmp(&b.id));
    s.events = vec![
        event(90, 480, "alice", Level::Info, "rollout_started", "alice deploys 1.5.0: canary, 5 phases"),
        event(91, 445, "pilothouse", Level::Info, "phase_entered", "entered 5%"),
        event(92, 300, "pilothouse", Level::Warn, "probe_failed", "web-7f3a0b11-2 failed a probe: 503"),
        event(93, 260, "bob", Level::Info, "promoted", "promoted to 25%"),
        event(94, 259, "pilothouse", Level::Info, "weight_set", "25% set and read back from lb-1"),
    ];
    s.probes = (0..8u32)
        .map(|n| ProbeView {
            at_ms: WALL_MS - 2000 + u64::from(n) * 200,
            service: "web".into(),
            host: format!("node-{}", n % 3 + 1).into(),
            instance: format!("web-7f3a0b11-{}", n % 6 + 1).into(),
            ok: n != 5,
            result: if n == 5 { "503" } else { "200" }.into(),
            latency_ms: 4 + n,
            failures: u32::from(n == 5),
            fall: 3,
        })
        .collect();
    s
}

/// The same in production.
#[must_use]
pub fn production() -> Snapshot {
    Snapshot { environment: "production".into(), production: true, ..canary() }
}

/// The rollout of `web` is done: 1.5.0 serves, 1.4.2 still runs.
#[must_use]
pub fn finished() -> Snapshot {
    let mut s = canary();
    if let Some(web) = s.services.iter_mut().find(|x| x.name.as_str() == "web") {
        web.stable = Some(revision("9c1e0a77", "1.5.0"));
        web.previous = Some(revision("7f3a0b11", "1.4.2"));
        web.previous_warm = true;
        web.known_versions.insert(0, "1.6.0".into());
        web.verbs = vec![VerbKind::Deploy, VerbKind::Rollback];
        if let Some(r) = &mut web.rollout {
            r.status = RolloutStatus::Done;
            r.phase = 4;
            r.decision = 41;
            r.waiting.clear();
            r.gate_left_ms = None;
            r.ended_ms = Some(WALL_MS - 60_000);
            // It was promoted to the end, past 50 %.
            if let Some(last) = r.phases.last_mut() {
                last.entered_ms = Some(WALL_MS - 90_000);
            }
        }
        for v in &mut web.revisions {
            let candidate = v.role == Role::Candidate;
            v.role = if candidate { Role::Stable } else { Role::Old };
            v.weight = if candidate { 10_000 } else { 0 };
            v.actual_weight = Some(v.weight);
            v.share = Some(v.weight);
            if candidate {
                (v.healthy, v.wanted) = (6, 6);
            }
        }
    }
    s
}

/// A fleet in which nothing is declared.
#[must_use]
pub fn empty() -> Snapshot {
    let mut s = base();
    s.watchers = vec!["operator".into()];
    s.hosts.clear();
    s.proxies.clear();
    s
}

/// A service that never ran.
#[must_use]
pub fn undeployed() -> Snapshot {
    let mut s = base();
    s.services = vec![ServiceView {
        name: "web".into(),
        replicas: 2,
        strategy: "canary".into(),
        known_versions: vec!["1.1.0".into(), "1.0.0".into()],
        verbs: vec![VerbKind::Deploy],
        ..ServiceView::default()
    }];
    s
}

/// The canary with `n` instances of stable on `n / 20` hosts.
#[must_use]
pub fn crowd(n: u32) -> Snapshot {
    let mut s = canary();
    let nodes = (n / 20).max(1);
    s.hosts = (0..nodes)
        .map(|k| HostView { name: format!("node-{k:04}").into(), reachable: true, ..HostView::default() })
        .collect();
    s.instances = instances("7f3a0b11", "1.4.2", Role::Stable, n, 1, 3 * DAY);
    for (k, i) in (0u32..).zip(&mut s.instances) {
        i.host = format!("node-{:04}", k % nodes).into();
    }
    s.instances.sort_by(|a, b| a.id.cmp(&b.id));
    s
}
