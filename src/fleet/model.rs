//! The validated model of a fleet: what is declared, normalised, with every reference resolved.
//!
//! It is journalled when a verb uses it, so it holds no secret: values from `env_file` are read at start of an
//! instance and never stored, only named and hashed.

mod check;
mod notify;
mod proxy;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{Bp, FleetName, HostName, Millis, ProxyName, ServiceName, TargetName, Version};
use crate::analysis::Rate;
pub use check::{Ask, Check, Limit, PLACEHOLDERS as CHECK_PLACEHOLDERS};
pub use notify::{Given, Notify, NotifyEvent, NotifyKind};
pub use proxy::{
    CaddySettings, Container, EdgeSettings, EnvoySettings, HaproxySettings, NginxSettings, Proxy, ProxyKind,
    TraefikSettings,
};

/// Everything declared in one `fleet.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Name of the fleet.
    pub name: FleetName,
    /// What the operators call this environment, for example `production` or `staging`.
    pub environment: String,
    /// Whether risky verbs ask for more than a key here. Defaults to `environment = "production"`.
    pub production: bool,
    /// Where the controller keeps its journal, lock and socket; `None` for the default place.
    pub state_dir: Option<PathBuf>,
    /// Refuse to start a controller in the background: production may insist on `pilothouse serve`.
    pub require_serve: bool,
    /// Where the controller serves `/metrics`; `None` for nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Who is told about rollouts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notify: BTreeMap<TargetName, Notify>,
    /// The hosts, by name.
    pub hosts: BTreeMap<HostName, Host>,
    /// The proxies, by name.
    pub proxies: BTreeMap<ProxyName, Proxy>,
    /// The services, by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Hex SHA-256 over the file's bytes: which file a verb was made on.
    pub hash: String,
}

impl Fleet {
    /// The same fleet with nothing placed on hosts that are declared as gone.
    #[must_use]
    pub fn without_hosts_that_are_out(mut self) -> Self {
        let hosts = &self.hosts;
        for service in self.services.values_mut() {
            service.placement.retain(|host, _| hosts.get(host).is_some_and(|h| !h.out));
        }
        self
    }
}

/// One engine that runs instances, and the address at which proxies and probes reach them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Name of the host.
    pub name: HostName,
    /// How instances are run there.
    pub engine: Engine,
    /// Address at which published ports of instances are reached by proxies and probes.
    pub address: IpAddr,
    /// The operator's word that the host is gone: it counts for nothing and blocks nothing.
    pub out: bool,
}

/// An engine and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Engine {
    /// A Docker Engine behind a Unix socket (`unix:///var/run/docker.sock`).
    Docker {
        /// Absolute path of the socket.
        socket: PathBuf,
    },
    /// Child processes on this machine (`process://` or `process:///absolute/dir`).
    Process {
        /// Where instance directories are kept; `None` for `STATE_DIR/hosts/HOST`.
        dir: Option<PathBuf>,
    },
}

/// How a revision of a service is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Run {
    /// A container of `repository:VERSION`.
    Image {
        /// Repository without tag or digest, for example `registry.example:5000/shop/web`.
        repository: String,
        /// Arguments in place of the image's own command; empty to keep that.
        args: Vec<String>,
        /// When to ask the registry.
        pull: Pull,
    },
    /// A process. `{version}`, `{port}` and `{address}` are replaced in each argument.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// When an image is looked for in its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// Only when the engine does not have the tag.
    #[default]
    Missing,
    /// Always resolve the tag in the registry, never trust a local one.
    Always,
    /// Never: the image must be on every host.
    Never,
}

/// How proxies and probes reach an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// At the host's address, on a port out of `host_ports`.
    #[default]
    Published,
    /// At the container's own address, on `port`; observed again at every start.
    Container,
}

/// A service: how to run it, how to check it, where, how many, behind which proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name of the service.
    pub name: ServiceName,
    /// How a revision is run.
    pub run: Run,
    /// The version that `up` starts when nothing runs yet.
    pub version: Option<Version>,
    /// Versions to offer for a deploy beside those that the engines list, the newest first.
    #[serde(default)]
    pub versions: Vec<Version>,
    /// How many instances are needed at 100 %, per host. Never empty, no zero. A host that is out keeps its share:
    /// nothing moves to other hosts because one was lost.
    pub placement: BTreeMap<HostName, u32>,
    /// The port the application listens on (inside the container; equal to the host port for a process).
    pub port: u16,
    /// First and last host port that instances may be published on. Over all hosts with the same address it has room
    /// for as many revisions as [`Strategy::revisions_on_ports`] says. `(0, 0)` when instances are reached at [`Address::Container`] and none is published.
    pub host_ports: (u16, u16),
    /// How instances are reached.
    pub address: Address,
    /// Docker network to join; `None` for the default bridge.
    pub network: Option<String>,
    /// Plain settings. Secrets belong into `env_file`, whose values are never stored.
    pub env: BTreeMap<String, String>,
    /// File of `NAME=value` lines, read at each start of an instance; absolute.
    pub env_file: Option<PathBuf>,
    /// How an instance is checked.
    pub health: HealthCheck,
    /// How an instance is taken out.
    pub drain: Drain,
    /// How a new version is released.
    pub strategy: Strategy,
    /// What runs once around a release.
    #[serde(default)]
    pub hooks: Hooks,
    /// How a release is judged by what its requests come to; `None` when nobody judges it.
    #[serde(default)]
    pub analysis: Option<Analysis>,
    /// What is asked about a candidate while it takes requests.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Steps must be reached within this time of progress; does not run while paused.
    pub progress_deadline: Millis,
    /// How long the old revision is kept running after promotion, for a rollback that is one weight change.
    pub keep: Millis,
    /// Whether an instance of stable that ended or is gone is started again without being asked for.
    #[serde(default)]
    pub restore: bool,
    /// The proxies in front; may be empty for a service without traffic (a worker).
    pub proxies: Vec<ProxyName>,
    /// Host names the edge proxy serves this service under; empty for all others.
    pub domains: Vec<String>,
}

impl Service {
    /// Instances needed at 100 %, over all hosts.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.placement.values().sum()
    }
}

/// How Pilothouse itself probes an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From one probe to the next.
    pub interval: Millis,
    /// Longest wait for an answer.
    pub timeout: Millis,
    /// Passes in a row before it counts as healthy.
    pub rise: u32,
    /// Failures in a row before it counts as unhealthy.
    pub fall: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Probe {
    /// `GET path`, passing on 200 to 399.
    Http {
        /// Path and query, starting with `/`.
        path: String,
    },
    /// A connection that is accepted.
    Tcp,
}

/// How an instance leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Longest wait for requests in flight; what was left then is reported.
    pub deadline: Millis,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Millis,
}

/// How a new version is released. What each promises is in docs/fleet-file.md; what it does is `rollout::plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Strategy {
    /// Stopped, replaced on the same host and port, started. Downtime, measured and reported.
    InPlace {
        /// How many are replaced at a time.
        batch: Batch,
        /// Each batch has been healthy for this long before the next begins.
        min_healthy_time: Millis,
    },
    /// A batch at a time: out of rotation, replaced, healthy, back in.
    Rolling {
        /// How many are replaced at a time.
        batch: Batch,
        /// Instances that may be missing from rotation. Together with `max_surge` at least 1; below the replicas.
        max_unavailable: u32,
        /// Instances that may exist beyond the replicas.
        max_surge: u32,
        /// Each batch has been healthy for this long before the next begins.
        min_healthy_time: Millis,
        /// An instance that is not healthy this long after it was placed has failed.
        healthy_deadline: Millis,
    },
    /// The other colour in full, tried out before anyone sees it, then switched at once.
    BlueGreen {
        /// Requests that reach the new colour before the switch.
        preview: Option<Rule>,
        /// What must hold before the switch; empty to switch as soon as all are healthy.
        gates: Vec<Gate>,
    },
    /// A few instances and a small share first, then more.
    Canary {
        /// Rising weights below 100 %; 100 % follows by itself.
        steps: Vec<Step>,
        /// A visitor stays on the version they saw while the weights rise (a cookie holds their place).
        #[serde(default)]
        sticky: bool,
        /// Requests that always reach the candidate once it is ready: for testers.
        #[serde(default)]
        tester: Option<Rule>,
    },
    /// Two revisions side by side for a set time; ends with promote or abort.
    Ab {
        /// Who sees the candidate.
        choose: Choose,
        /// For how long they are compared before somebody has to decide.
        duration: Millis,
    },
}

impl Strategy {
    /// How many revisions hold host ports at the same time: 1 when an instance takes the port of the one it replaces,
    /// else 2. A stopped instance keeps its port for the way back, so rolling needs two as well.
    #[must_use]
    pub fn revisions_on_ports(&self) -> u32 {
        match self {
            Self::InPlace { .. } => 1,
            Self::Rolling { .. } | Self::BlueGreen { .. } | Self::Canary { .. } | Self::Ab { .. } => 2,
        }
    }

    /// What is written as `type` in the fleet file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InPlace { .. } => "in-place",
            Self::Rolling { .. } => "rolling",
            Self::BlueGreen { .. } => "blue-green",
            Self::Canary { .. } => "canary",
            Self::Ab { .. } => "ab",
        }
    }
}

/// How many instances are replaced at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "n")]
pub enum Batch {
    /// This many; at least 1.
    Count(u32),
    /// All of one host.
    Host,
}

/// Who sees the candidate of an A/B release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "what")]
pub enum Choose {
    /// Requests that match.
    Rule(Rule),
    /// This share of the visitors, each always the same version.
    Share(Bp),
}

/// Requests that a rule sends to the candidate, whatever the weights.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Where it looks.
    pub by: RuleBy,
    /// Name of the header (any case) or cookie.
    pub name: String,
    /// The exact value.
    pub value: String,
}

/// Where a [`Rule`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleBy {
    /// A request header.
    Header,
    /// A cookie.
    Cookie,
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The candidate's share.
    pub weight: Bp,
    /// Instances of the candidate, when more than the share needs; `None` for as many as it needs.
    #[serde(default)]
    pub instances: Option<u32>,
    /// What must hold before the next step; never empty.
    pub gates: Vec<Gate>,
}

/// One-off runs of the candidate around a release. Each runs once, on the first host of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Before any instance of the candidate starts (a migration).
    pub before_start: Option<Hook>,
    /// When the candidate is healthy, before its first share of traffic (a smoke test, a cache to warm).
    pub before_traffic: Option<Hook>,
    /// After it serves everything.
    pub after_promote: Option<Hook>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// For an image the arguments, for a command program and arguments; placeholders as in the service's own.
    pub run: Vec<String>,
    /// Longest run; then it has failed.
    pub timeout: Millis,
    /// May be run again when nobody knows whether it ran.
    pub idempotent: bool,
    /// Once it was begun there is no automatic way back: failures pause instead.
    pub irreversible: bool,
}

/// How a release is judged by what its requests come to: candidate against stable, over the same seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// How much higher the candidate's rate of failed requests may be than stable's, as a difference of the two.
    pub tolerance: Rate,
    /// The chance of ever taking a candidate back that is within the tolerance, over the whole rollout.
    pub alpha: Rate,
    /// The most of the candidate's requests that may fail, whatever stable does.
    pub max_errors: Option<Rate>,
    /// Whether slower answers count as well, where the proxies tell how long answers take.
    pub latency: bool,
    /// The least time at each share before it can have passed.
    pub soak: Millis,
    /// After this time at a share without a verdict the rollout pauses.
    pub inconclusive_after: Millis,
    /// A pass ends the pause of a step before its time.
    pub early: bool,
    /// It only says what it would do.
    pub dry_run: bool,
}

/// What must hold before a rollout goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "ms")]
pub enum Gate {
    /// Every instance of the candidate has been healthy for this long, without a break.
    HealthyFor(Millis),
    /// This much time has passed in the phase.
    Pause(Millis),
    /// An operator has promoted.
    Manual,
    /// The analysis has passed the candidate at the share of this phase.
    Verdict,
    /// Every check has had a good answer to a question that was put in this phase.
    Checks,
}
