//! The vocabulary between the core and the world: what should be (routes, instance specs) and what is
//! (observations, read-backs). Plain data; engines and proxies speak it, the core decides with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::analysis;
use crate::fleet::model::{Address, HealthCheck, Rule, Run};
use crate::fleet::names::{
    Bp, CheckName, FleetName, HostName, InstanceId, Millis, ProxyName, RevisionId, RolloutId, ServiceName,
    Version,
};
use crate::text::Safe;

/// One of the two places in a service's route. Stable alternates between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The first place.
    #[default]
    A,
    /// The second place.
    B,
}

impl Slot {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Something for each slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots<T> {
    /// For slot a.
    pub a: T,
    /// For slot b.
    pub b: T,
}

impl<T> Slots<T> {
    /// What is in `slot`.
    pub fn get(&self, slot: Slot) -> &T {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// What is in `slot`, to change it.
    pub fn get_mut(&mut self, slot: Slot) -> &mut T {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }
}

/// What a proxy should do for a service. Absolute: applying it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The service.
    pub service: ServiceName,
    /// The slot whose revision gets what no rule decides (a lost map entry, a dead candidate).
    pub stable: Slot,
    /// What each slot holds. The weights add up to 10,000, except that both are 0 before a first release.
    pub slots: Slots<SlotRoute>,
    /// Host names (edge only).
    pub domains: Vec<String>,
    /// How the proxy itself checks the endpoints of each slot: as its revision was deployed, so that a check that
    /// comes with a new version is never held against the old one.
    pub health: Slots<HealthCheck>,
    /// Requests that reach the slot that is not stable, whatever the weights, while one of its endpoints is ready;
    /// sorted. Empty while it must not be reached.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Whether a visitor keeps the place in 0 to 9,999 that the first roll of the dice gave them (a cookie named
    /// `ph_FLEET_SERVICE` holds it): as the weight rises visitors move to the candidate, none moves to and fro.
    #[serde(default)]
    pub sticky: bool,
}

/// One slot of a [`Route`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRoute {
    /// The revision in the slot; `None` when it is free.
    pub revision: Option<RevisionId>,
    /// The slot's share of the service's requests.
    pub weight: Bp,
    /// The instances in the slot, sorted by instance id. Those that never were healthy are not listed.
    pub endpoints: Vec<RouteEndpoint>,
}

/// One instance in a [`Route`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteEndpoint {
    /// The instance.
    pub instance: InstanceId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Whether it takes new requests.
    pub state: EndpointState,
}

/// Whether an endpoint takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// In rotation.
    Ready,
    /// Finishes what it has, takes nothing new.
    Drain,
}

/// What a proxy says of one service, read back from every worker. An old worker that still has connections counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReadback {
    /// One entry per worker, the newest first. Never empty for a proxy that knows the service.
    pub workers: Vec<WorkerRoute>,
}

/// What one worker of a proxy does for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRoute {
    /// The worker's pid, or another name for it.
    pub worker: String,
    /// Whether it accepts new connections (old workers after a reload do not).
    pub current: bool,
    /// The slot that gets what no rule decides.
    pub stable: Slot,
    /// What the worker has per slot.
    pub slots: Slots<SlotReadback>,
    /// The rules it follows, sorted; all of them send to the slot that is not stable.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Whether visitors keep their place.
    #[serde(default)]
    pub sticky: bool,
}

/// What one worker has in one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReadback {
    /// The slot's share.
    pub weight: Bp,
    /// The endpoints, sorted by instance id.
    pub endpoints: Vec<EndpointReadback>,
}

/// What one worker says of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReadback {
    /// The instance (the server's name in the proxy).
    pub instance: InstanceId,
    /// The address that is really used.
    pub addr: SocketAddr,
    /// Whether it takes new requests.
    pub state: EndpointState,
    /// What the proxy's own check says; `None` while it does not know.
    pub up: Option<bool>,
    /// Requests or connections in flight.
    pub in_flight: u32,
}

impl RouteReadback {
    /// The highest share that any worker still gives `slot`.
    #[must_use]
    pub fn highest(&self, slot: Slot) -> Bp {
        self.workers.iter().map(|w| w.slots.get(slot).weight).max().unwrap_or(Bp::ZERO)
    }

    /// The lowest share that any worker gives `slot`.
    #[must_use]
    pub fn lowest(&self, slot: Slot) -> Bp {
        self.workers.iter().map(|w| w.slots.get(slot).weight).min().unwrap_or(Bp::ZERO)
    }

    /// Whether any worker may send new requests to `slot`, by weight or by rule.
    #[must_use]
    pub fn reaches(&self, slot: Slot) -> bool {
        self.workers.iter().any(|w| w.reaches(slot))
    }

    /// Requests in flight to `instance`, over all workers and slots.
    #[must_use]
    pub fn in_flight(&self, instance: &InstanceId) -> u32 {
        self.workers
            .iter()
            .flat_map(|w| Slot::BOTH.into_iter().flat_map(|s| &w.slots.get(s).endpoints))
            .filter(|e| e.instance == *instance)
            .map(|e| e.in_flight)
            .sum()
    }

    /// Whether every worker has these weights and rules, and every worker that accepts connections exactly these endpoints.
    /// Workers that are on their way out keep the endpoints they had; only their weights can be changed.
    #[must_use]
    pub fn serves(&self, route: &Route) -> bool {
        let weights = |w: &WorkerRoute| {
            w.rules == route.rules
                && Slot::BOTH.iter().all(|&s| w.slots.get(s).weight == route.slots.get(s).weight)
        };
        let settled = |w: &WorkerRoute| !w.current || w.stable == route.stable;
        self.has_endpoints(route) && self.workers.iter().all(|w| weights(w) && settled(w))
    }

    /// Whether every worker that accepts connections has exactly these endpoints, so that nothing is left to be changed
    /// but weights, rules and which slot gets what nobody decides; `false` when none accepts any.
    #[must_use]
    pub fn has_endpoints(&self, route: &Route) -> bool {
        let endpoints = |w: &WorkerRoute| {
            w.sticky == route.sticky
                && Slot::BOTH.iter().all(|&s| {
                    let have = &w.slots.get(s).endpoints;
                    let want = &route.slots.get(s).endpoints;
                    have.len() == want.len()
                        && have
                            .iter()
                            .zip(want)
                            .all(|(h, w)| h.instance == w.instance && h.addr == w.addr && h.state == w.state)
                })
        };
        let mut current = self.workers.iter().filter(|w| w.current).peekable();
        current.peek().is_some() && current.all(endpoints)
    }
}

impl WorkerRoute {
    /// Whether it may send new requests to `slot`, by weight or by rule.
    #[must_use]
    pub fn reaches(&self, slot: Slot) -> bool {
        self.slots.get(slot).weight > Bp::ZERO || (slot != self.stable && !self.rules.is_empty())
    }
}

/// Everything an engine needs to bring an instance into being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// The fleet it belongs to.
    pub fleet: FleetName,
    /// The service it belongs to.
    pub service: ServiceName,
    /// Its identity.
    pub id: InstanceId,
    /// What it runs.
    pub revision: RevisionId,
    /// The readable tag of that.
    pub version: Version,
    /// The rollout that wanted it.
    pub rollout: RolloutId,
    /// How it is run.
    pub run: Run,
    /// The exact artifact: image digest (`sha256:…`), image id, or hash of the program.
    pub digest: String,
    /// Port the application listens on. For a process, the same as the host port.
    pub port: u16,
    /// Host port to publish on; `None` when the container's own address is used.
    pub host_port: Option<u16>,
    /// Address to publish on.
    pub address: IpAddr,
    /// How it is reached.
    pub reach: Address,
    /// Docker network to join.
    pub network: Option<String>,
    /// The whole environment, secrets included: never to be logged, journalled or put into arguments.
    pub env: BTreeMap<String, String>,
    /// What the engine does when it exits.
    pub restart: Restart,
    /// The engine's own id of something that runs already and becomes this instance, instead of a new one being made.
    pub adopts: Option<String>,
}

/// What the engine does when an instance exits by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Nothing: a candidate that dies has failed.
    No,
    /// Start it again: promoted instances are healed by the engine.
    UnlessStopped,
}

/// What an engine says of one instance of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedInstance {
    /// The engine's own id of it, when it was adopted.
    #[serde(default)]
    pub adopts: Option<Safe>,
    /// Its identity, from its label.
    pub id: InstanceId,
    /// The service, from its label.
    pub service: ServiceName,
    /// The revision, from its label.
    pub revision: RevisionId,
    /// The version, from its label.
    pub version: Version,
    /// The rollout that created it, from its label.
    pub rollout: RolloutId,
    /// Whether it runs.
    pub state: RunState,
    /// Where it is reached, once known.
    pub endpoint: Option<SocketAddr>,
    /// The artifact it really runs.
    pub digest: String,
    /// Wall-clock start, milliseconds since 1970; for people only.
    pub started_ms: Option<u64>,
    /// How often the engine started it again.
    pub restarts: u32,
    /// What the engine does when it exits.
    pub restart: Restart,
    /// What the engine's own health check says: a hint, never a reason to raise a weight.
    pub engine_health: Option<bool>,
}

impl ObservedInstance {
    /// Whether it was made and never started.
    #[must_use]
    pub fn never_ran(&self) -> bool {
        self.started_ms.is_none() && self.state == RunState::Exited { code: None, oom: false }
    }
}

/// Whether an instance runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Being started, or started again, by the engine itself.
    Starting,
    /// Running.
    Running,
    /// Ended, or made and never started: it does not run, and the engine will not start it by itself.
    Exited {
        /// Exit code; 128 + n for signal n; `None` when unknown.
        code: Option<i32>,
        /// Killed for lack of memory.
        oom: bool,
    },
}

/// What is known of the world just now. Everything here may be old or missing; the core treats a missing entry
/// as unknown, never as absent and never as healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Per host.
    pub hosts: BTreeMap<HostName, HostObs>,
    /// Per instance, what our own probes say.
    pub health: BTreeMap<InstanceId, Health>,
    /// Per proxy.
    pub proxies: BTreeMap<ProxyName, ProxyObs>,
    /// What tags and env files mean now, per revision.
    #[serde(default)]
    pub means: BTreeMap<RevisionId, Means>,
    /// What the analysis of each service's rollout says; missing where nobody judges, and before anything was counted.
    #[serde(default)]
    pub verdicts: BTreeMap<ServiceName, Verdict>,
    /// What the checks of each service's rollout answered; missing where nothing was asked yet.
    #[serde(default)]
    pub checks: BTreeMap<ServiceName, BTreeMap<CheckName, CheckSeen>>,
    /// Hooks that were begun since this controller started: of others, begun before, nobody knows whether they ran.
    #[serde(default)]
    pub begun: BTreeSet<InstanceId>,
    /// Effects that failed last time, by lane and subject: how often in a row, and the last error.
    pub failures: BTreeMap<String, Failure>,
}

/// What the analysis of a rollout says now, with its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Of which rollout.
    pub rollout: RolloutId,
    /// The phase whose share the evidence for a pass was gathered at.
    pub phase: usize,
    /// What it says.
    pub state: analysis::State,
    /// Since when stable itself fails (controller time).
    pub stable_fails: Option<Millis>,
    /// The end of the last moment in which no request of the candidate had failed yet (controller time); `None` while
    /// none has.
    pub first_bad: Option<Millis>,
    /// Since when nothing is missing of what is counted (controller time); `None` when nothing was missing at this share.
    #[serde(default)]
    pub counted_since: Option<Millis>,
    /// The numbers in words: `12 of 240 requests failed, stable 3 of 9,120: 99.7% sure it is over 0.5 points worse`.
    pub words: Safe,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// All is well.
    Good,
    /// It is not.
    Bad,
    /// Nobody knows: no answer in time, or one that says nothing. It is never taken for a good one.
    Unknown,
}

impl Answer {
    /// `good`, `bad` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of a check of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSeen {
    /// Of which rollout.
    pub rollout: RolloutId,
    /// What it answered last.
    pub answer: Answer,
    /// When that was asked (controller time).
    pub asked_at: Millis,
    /// How many bad answers there were since the last good one.
    pub bad: u32,
    /// When the first of them was asked.
    pub first_bad: Option<Millis>,
    /// The last answer in words: `0.07, at most 0.05`.
    pub words: Safe,
}

impl CheckSeen {
    /// After one more question, put at `asked_at`.
    #[must_use]
    pub fn after(
        before: Option<Self>,
        rollout: RolloutId,
        asked_at: Millis,
        answer: Answer,
        words: Safe,
    ) -> Self {
        let (bad, first_bad) = match (before.filter(|b| b.rollout == rollout), answer) {
            (_, Answer::Good) | (None, Answer::Unknown) => (0, None),
            (None, Answer::Bad) => (1, Some(asked_at)),
            (Some(b), Answer::Bad) => (b.bad.saturating_add(1), b.first_bad.or(Some(asked_at))),
            (Some(b), Answer::Unknown) => (b.bad, b.first_bad),
        };
        Self { rollout, answer, asked_at, bad, first_bad, words }
    }
}

/// What a revision's tag and env file mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Means {
    /// The artifact that the tag means; `None` when it was not asked or is not known.
    pub digest: Option<String>,
    /// Whether the values of the env file are those it was deployed with.
    pub env_same: bool,
}

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostObs {
    /// The operator's word that it is gone. Nothing is on it, and nothing is done to it.
    #[serde(default)]
    pub out: bool,
    /// Whether the last look succeeded. `false` means that all below is old.
    pub reachable: bool,
    /// Why not.
    pub error: Option<Safe>,
    /// Every instance of this fleet that the engine has, running or not.
    pub instances: BTreeMap<InstanceId, ObservedInstance>,
    /// Artifacts (by digest) verified to be there.
    pub images: BTreeSet<String>,
}

/// What our own probes say of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The state after rise and fall.
    pub verdict: HealthVerdict,
    /// Since when (controller time).
    pub since: Millis,
    /// The last probe's result in words: `200`, `refused`, `timeout`.
    pub last: Safe,
    /// How long the last probe took, in milliseconds.
    pub latency_ms: u32,
    /// Failures in a row.
    pub failures: u32,
}

/// Healthy, unhealthy, or not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthVerdict {
    /// Fewer probes than `rise` or `fall` since it started.
    #[default]
    Unknown,
    /// `rise` passes in a row, not followed by `fall` failures in a row.
    Healthy,
    /// `fall` failures in a row.
    Unhealthy,
}

/// What is known of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyObs {
    /// Whether the last look succeeded. `false` means that all below is old.
    pub reachable: bool,
    /// Why not.
    pub error: Option<Safe>,
    /// What it does per service.
    pub routes: BTreeMap<ServiceName, RouteReadback>,
    /// A write of ours is under way: what was read before it tells nothing about after it.
    #[serde(default)]
    pub writing: bool,
}

/// How an effect fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Times in a row.
    pub count: u32,
    /// Controller time of the last time.
    pub at: Millis,
    /// What was said last.
    pub error: Safe,
}
