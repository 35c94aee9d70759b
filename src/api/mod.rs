//! Wire types of the controller's API, version 1: HTTP over a Unix socket.
//!
//! | call | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/version` | | [`Hello`] |
//! | `GET /v1/snapshot` | | [`Snapshot`] |
//! | `GET /v1/stream?name=NAME&usage=BOOL` | | server-sent events: first `snapshot`, then `delta`s; after a gap another `snapshot` |
//! | `POST /v1/services/{service}/verbs` | [`VerbRequest`] | [`VerbReply`], else [`ApiError`] with status 400, 404, 409 or 503 |
//! | `POST /v1/up`, `POST /v1/down` | [`FleetRequest`] | [`VerbReply`], else [`ApiError`] |
//! | `GET /v1/instances/{id}/logs?tail=N&follow=BOOL` | | [`LogEntry`] a line, as JSON |
//! | `GET /v1/services/{service}/logs?version=V&tail=N&follow=BOOL` | | [`MergedLog`] a line, as JSON: of all instances, or those of a version or revision, by the time the lines were written; `tail` is of each; at most 32 instances at a time |
//! | `GET /v1/services/{service}/plan?version=V&fleet_file=F&fleet_hash=H&resolve=BOOL` | | [`PlanView`]; with `resolve` only for a version that the hosts or a registry have |
//! | `GET /v1/instances/{id}` | | [`InstanceDetails`] |
//! | `GET /v1/history?service=S&limit=N` | | [`History`] |
//! | `GET /v1/journal?before=SEQ&limit=N` | | [`JournalPage`]: the last N events (500 at most) before a fact, or of all |
//! | `GET /v1/rollouts/{id}` | | [`Story`] |
//! | `GET /v1/rollouts/{id}/recording` | | [`Frame`] a line, as JSON: first a snapshot |
//! | `POST /v1/stop` | | the controller ends; rollouts wait for the next one |
//!
//! The screen and the commands see these types only, never the core's.

mod compare;
mod delta;
mod details;
mod history;
mod log;
mod recording;
mod report;
mod status;
mod trend;
mod verdict;

use serde::{Deserialize, Serialize};

pub use compare::{ComparisonView, Finding, Interval, MeasuredView, wilson};
pub use delta::{Change, Delta, TAIL};
pub use details::InstanceDetails;
pub use history::{History, JournalPage, Past, PastAct, PastCount, PastDowntime, PastPhase, Story};
pub use log::{LogEntry, MergedLog};
pub use recording::{Frame, Shown};
pub use report::{PlanHost, PlanPhase, PlanReport, plan_report};
pub use status::{Status, StatusInstance, StatusRevision, StatusRollout, StatusService, status};
pub use trend::{POINTS, Point, STEP_MS, Trends, step};
pub use verdict::{CheckView, VerdictView};

pub use crate::rollout::decide::{ErrorCode, VerbKind};
use crate::text::Safe;

/// The version of this API; a client of another one may watch and abort, nothing else.
pub const API_VERSION: u32 = 1;

/// Who the controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`API_VERSION`] of the controller.
    pub api: u32,
    /// Version of its binary.
    pub version: Safe,
    /// Fleet it holds.
    pub fleet: Safe,
    /// Process id.
    pub pid: u32,
    /// Wall-clock start, milliseconds since 1970.
    pub started_ms: u64,
}

/// Everything there is to see, as of `seq`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of this type.
    pub schema: u32,
    /// Counts changes; a [`Delta`] with `seq` n applies to the state with `seq` n − 1.
    pub seq: u64,
    /// Who serves it.
    pub controller: Hello,
    /// Name of the environment.
    pub environment: Safe,
    /// Whether risky verbs ask for more.
    pub production: bool,
    /// Hosts, sorted by name.
    pub hosts: Vec<HostView>,
    /// Proxies, sorted by name.
    pub proxies: Vec<ProxyView>,
    /// Services, sorted by name.
    pub services: Vec<ServiceView>,
    /// Instances, sorted by id.
    pub instances: Vec<InstanceView>,
    /// The last events, oldest first.
    pub events: Vec<EventView>,
    /// The last probes, oldest first.
    pub probes: Vec<ProbeView>,
    /// Who is watching, the client that gets this included.
    pub watchers: Vec<Safe>,
    /// The name among them that this stream's client is shown under; empty outside of a stream.
    #[serde(default)]
    pub you: Safe,
    /// Whatever keeps the controller from working properly, in words (`the journal cannot be written: …`).
    pub alarms: Vec<Safe>,
    /// What the revisions did over the last minutes; only in a stream.
    #[serde(default, skip_serializing_if = "Trends::is_empty")]
    pub trends: Trends,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: Safe,
    /// `docker` or `process`.
    pub engine: Safe,
    /// Its address.
    pub address: Safe,
    /// Whether the last look succeeded.
    pub reachable: bool,
    /// Why not.
    pub error: Option<Safe>,
    /// Declared as gone.
    pub out: bool,
}

/// A proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyView {
    /// Its name.
    pub name: Safe,
    /// `haproxy` or `edge`.
    pub kind: Safe,
    /// Whether the last look succeeded.
    pub reachable: bool,
    /// Why not.
    pub error: Option<Safe>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: Safe,
    /// The revision that serves now.
    pub stable: Option<RevisionRef>,
    /// The kept revision that `rollback` goes to.
    pub previous: Option<RevisionRef>,
    /// Whether going back to `previous` is one weight change (it still runs).
    pub previous_warm: bool,
    /// The rollout under way, or the one that ended last.
    pub rollout: Option<RolloutView>,
    /// The revisions in the route or kept, stable first.
    pub revisions: Vec<RevisionView>,
    /// Instances needed at 100 %.
    pub replicas: u32,
    /// Strategy that `deploy` uses, for example `canary`.
    pub strategy: Safe,
    /// Versions that can be deployed: those the engines have, and those that ran before. Newest first.
    pub known_versions: Vec<Safe>,
    /// Differences between what should run and what does, in words.
    pub drift: Vec<Safe>,
    /// The version that follows when the rollout under way has ended.
    #[serde(default)]
    pub next: Option<Safe>,
    /// What can be done now.
    pub verbs: Vec<VerbKind>,
}

/// A revision, named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRef {
    /// Eight hex digits.
    pub id: Safe,
    /// Readable tag.
    pub version: Safe,
    /// The artifact.
    pub digest: Safe,
}

/// One revision in the route, or kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RevisionView {
    /// Which.
    pub revision: RevisionRef,
    /// `stable`, `candidate` or `old`.
    pub role: Role,
    /// `a` or `b`; `None` when not in the route.
    pub slot: Option<Safe>,
    /// The share that was set, in basis points.
    pub weight: u16,
    /// The share that was read back, in basis points: of the proxy that deviates most; `None` when unknown.
    pub actual_weight: Option<u16>,
    /// The share that was measured over the last seconds, in basis points; `None` without traffic.
    pub share: Option<u16>,
    /// Numbers over the last ten seconds; `None` when no proxy gives any.
    pub traffic: Option<TrafficView>,
    /// Instances healthy now.
    pub healthy: u32,
    /// Instances that should run.
    pub wanted: u32,
}

/// The part a revision plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serves now.
    #[default]
    Stable,
    /// Being rolled out.
    Candidate,
    /// Kept for the way back.
    Old,
}

/// Request numbers of a revision over a short window, and since its rollout began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficView {
    /// Requests a second, in the window.
    pub rate: f32,
    /// Failed and retried requests, in per cent of the window's requests.
    pub error_percent: f32,
    /// Median response time in milliseconds; `None` when the proxy gives none.
    pub p50_ms: Option<f32>,
    /// 95th percentile in milliseconds; `None` when the proxy gives only a mean.
    pub p95_ms: Option<f32>,
    /// Mean in milliseconds, when that is all there is.
    pub mean_ms: Option<f32>,
    /// Requests since the rollout began.
    pub requests: u64,
    /// Failed requests since then.
    pub errors: u64,
    /// Retried attempts since then: failures that the proxy hid from clients.
    pub retries: u64,
}

/// A rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// `SERVICE-N`.
    pub id: Safe,
    /// For example `canary`.
    pub strategy: Safe,
    /// Version it started from; `None` for a first release.
    pub from: Option<Safe>,
    /// Version it brings.
    pub to: Safe,
    /// How it stands.
    pub status: RolloutStatus,
    /// Why it stands so, in words (`waits for promote`, `web-9c1e0a77-1 exited with 1`).
    pub reason: Safe,
    /// Goes up when phase, status or candidate change; risky verbs carry it.
    pub decision: u64,
    /// The phase now, from 0.
    pub phase: usize,
    /// All phases.
    pub phases: Vec<PhaseView>,
    /// What the phase waits for, in words; empty when it waits for nothing.
    pub waiting: Vec<Safe>,
    /// Time until the timed gate opens, as of this view, in milliseconds.
    pub gate_left_ms: Option<u64>,
    /// Who started it.
    pub by: Safe,
    /// Wall-clock start, milliseconds since 1970.
    pub started_ms: u64,
    /// Wall-clock end.
    pub ended_ms: Option<u64>,
    /// What is still owed after an end (a host that could not be reached).
    pub owed: Vec<Safe>,
    /// Hosts that were rolled back alone; it cannot end before they take part again.
    #[serde(default)]
    pub held: Vec<Safe>,
    /// How long the place of each replaced instance was empty (in-place).
    #[serde(default)]
    pub downtimes: Vec<DowntimeView>,
    /// Places that are empty now, while their instance is replaced (in-place): nothing serves there.
    #[serde(default)]
    pub empty: Vec<EmptyView>,
    /// How requests reach the candidate whatever its share, in words (`header X-Preview`); not the value, which may be
    /// a secret.
    #[serde(default)]
    pub testers: Vec<Safe>,
    /// What an A/B release has measured since both took their shares; `None` before, for other strategies, and when
    /// the controller was started after it ended.
    #[serde(default)]
    pub comparison: Option<ComparisonView>,
    /// What the analysis says of it; `None` when nobody judges it, and before anything was counted.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// What its checks say, in the order of the fleet file.
    #[serde(default)]
    pub checks: Vec<CheckView>,
    /// Hooks that were begun, in order.
    #[serde(default)]
    pub hooks: Vec<HookView>,
    /// Something that cannot be undone was begun: failures pause, nothing goes back by itself.
    #[serde(default)]
    pub irreversible: bool,
}

/// A place whose instance has left while its successor does not serve yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyView {
    /// The host.
    pub host: Safe,
    /// The instance that has left.
    pub instance: Safe,
    /// Wall clock when it was sent new requests last, milliseconds since 1970.
    pub since_ms: u64,
}

/// One attempt to run a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookView {
    /// `before-start`, `before-traffic` or `after-promote`.
    pub hook: Safe,
    /// The one-off instance it runs as; `logs` takes this name.
    pub instance: Safe,
    /// `running`, `passed`, `failed` or `unknown`.
    pub state: Safe,
    /// How it ended, in words.
    pub detail: Safe,
}

/// How long a place was empty while its instance was replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowntimeView {
    /// The instance that took the place.
    pub instance: Safe,
    /// Milliseconds from the last moment in which its predecessor was sent new requests until every proxy was read
    /// back sending to it.
    pub ms: u64,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutStatus {
    /// Going on.
    #[default]
    Running,
    /// Waits for an operator.
    Paused,
    /// Something it needs cannot be reached; goes on by itself when it can.
    Frozen,
    /// Going back.
    Aborting,
    /// The candidate serves.
    Done,
    /// Back at stable.
    Aborted,
    /// Ended without reaching either; needs an operator.
    Failed,
}

impl RolloutStatus {
    /// Whether it has ended.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Done | Self::Aborted | Self::Failed)
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Frozen => "frozen",
            Self::Aborting => "aborting",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

/// One phase of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseView {
    /// `start`, `5%`, … `100%`.
    pub name: Safe,
    /// The candidate's share in it, in basis points.
    pub weight: u16,
    /// Instances of the candidate in it.
    pub instances: u32,
    /// What must hold before the next, in words (`pause 2m`, `healthy for 30s`, `promote`).
    pub gates: Vec<Safe>,
    /// When it was entered, milliseconds since 1970; `None` when it was not (yet), or was passed over.
    pub entered_ms: Option<u64>,
    /// Its timed gates keep it this long or longer, in milliseconds.
    #[serde(default)]
    pub at_least_ms: u64,
    /// Its instances and shares by host, sorted by name; only in a [`PlanView`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<PhaseHostView>,
}

/// One host in one phase of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseHostView {
    /// Its name.
    pub host: Safe,
    /// Instances of stable in rotation.
    pub stable: u32,
    /// Instances of the candidate in rotation.
    pub candidate: u32,
    /// The part of the service's requests that stable's instances here take, in basis points.
    pub stable_weight: u16,
    /// The part that the candidate's instances here take, in basis points.
    pub candidate_weight: u16,
}

/// What a rollout would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Service.
    pub service: Safe,
    /// Strategy.
    pub strategy: Safe,
    /// Version now; `None` for a first release.
    pub from: Option<Safe>,
    /// Version then.
    pub to: Safe,
    /// The phases.
    pub phases: Vec<PhaseView>,
    /// Instances needed at 100 %.
    #[serde(default)]
    pub replicas: u32,
    /// The fewest healthy instances in rotation at any moment when nothing fails; `None` for a first release.
    #[serde(default)]
    pub lowest: Option<u32>,
    /// The most instances that run at any moment beyond the replicas.
    #[serde(default)]
    pub extra: u32,
    /// It takes this long or longer, in milliseconds.
    #[serde(default)]
    pub at_least_ms: u64,
    /// Names of the phases that wait for somebody to promote.
    #[serde(default)]
    pub by_hand: Vec<Safe>,
    /// How long it takes, in words (`at least 2m, and until promoted at 25%`).
    #[serde(default)]
    pub takes: Safe,
    /// What it cannot promise, in words.
    #[serde(default)]
    pub not_promised: Vec<Safe>,
    /// The way back, in words (`instant: one weight change`).
    pub way_back: Safe,
    /// What the operator should know (`evicts 1.3.0, the way back is 1.4.2 afterwards`).
    pub notes: Vec<Safe>,
    /// Decision that a deploy confirmed on this plan carries.
    pub decision: u64,
}

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its id.
    pub id: Safe,
    /// Its service.
    pub service: Safe,
    /// Its host.
    pub host: Safe,
    /// Its revision's id.
    pub revision: Safe,
    /// Its revision's version.
    pub version: Safe,
    /// The part its revision plays.
    pub role: Role,
    /// Address and port, once known.
    pub endpoint: Option<Safe>,
    /// `pending`, `starting`, `running`, `draining`, `stopping`, `stopped` (as it should be), `parked` (adopted: out of use,
    /// and not to be stopped), `exited` (by itself),
    /// `gone` or `unknown`.
    pub state: Safe,
    /// What our own probes say.
    pub health: HealthView,
    /// The last probe in words: `200`, `refused`, `timeout`; empty before the first.
    pub probe: Safe,
    /// How long it took, in milliseconds.
    pub probe_ms: Option<u32>,
    /// Its part of its service's requests, set, in basis points.
    pub weight: Option<u16>,
    /// CPU in per cent of one core.
    pub cpu_percent: Option<f32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Wall-clock start, milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// How often the engine started it again.
    pub restarts: u32,
}

/// What our own probes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthView {
    /// Not known (yet, or any more).
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}

/// Something that happened, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Number of the fact in the journal.
    pub seq: u64,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// Service, when it is about one.
    pub service: Option<Safe>,
    /// Rollout, when it is about one.
    pub rollout: Option<Safe>,
    /// Who did it: an operator's name or `pilothouse`.
    pub by: Safe,
    /// How much it matters.
    pub level: Level,
    /// A machine-readable word: `rollout_started`, `phase_entered`, `abort_requested`, …
    pub kind: Safe,
    /// What happened, in words.
    pub text: Safe,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know.
    #[default]
    Info,
    /// Somebody should look.
    Warn,
    /// Something went wrong.
    Error,
}

/// One probe of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeView {
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// Service.
    pub service: Safe,
    /// Host.
    pub host: Safe,
    /// Instance.
    pub instance: Safe,
    /// Whether it passed.
    pub ok: bool,
    /// `200`, `refused`, `timeout`, …
    pub result: Safe,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
    /// Failures in a row, 0 when it passed.
    pub failures: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
}

/// Something an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verb")]
pub enum Verb {
    /// Roll out a version.
    Deploy {
        /// The version.
        version: String,
    },
    /// Go to the next phase, or with `full` to the end, past the gates. Safety rules still hold.
    Promote {
        /// Skip the remaining gates.
        full: bool,
    },
    /// Stop where it is.
    Pause,
    /// Go on.
    Resume,
    /// Give all traffic back to stable, then take the candidate away.
    Abort,
    /// Go back to the previous revision; in mid-rollout the same as abort, or with `host` for that host alone.
    Rollback {
        /// To this version instead.
        to: Option<String>,
        /// Only the instances of this host, in mid-rollout; the others stay.
        #[serde(default)]
        host: Option<String>,
    },
    /// In mid-rollout: held hosts take part again and a pause ends. After an abort: the same version once more.
    Retry {
        /// Only this host; all when `None`.
        #[serde(default)]
        host: Option<String>,
    },
}

/// A verb, on what it was decided, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbRequest {
    /// What is wanted.
    #[serde(flatten)]
    pub verb: Verb,
    /// The decision number the operator saw. Needed from the screen for risky verbs; a verb that carries an older
    /// one is refused. Abort and pause are never refused for it.
    #[serde(default)]
    pub decision: Option<u64>,
    /// The fleet file as the client read it, when the verb needs one (deploy, rollback).
    #[serde(default)]
    pub fleet_file: Option<String>,
    /// SHA-256 (hex) of that file's bytes, so that what the operator saw is what is used.
    #[serde(default)]
    pub fleet_hash: Option<String>,
    /// A name to show beside the login name that the socket tells (for example a CI job's).
    #[serde(default)]
    pub by: Option<Safe>,
}

/// What `up` and `down` carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRequest {
    /// Path of the fleet file.
    pub fleet_file: String,
    /// SHA-256 (hex) of its bytes.
    pub fleet_hash: String,
    /// Only these services; empty for all.
    #[serde(default)]
    pub services: Vec<String>,
    /// On the way up: what runs already is taken over as the first release. On the way down: nothing goes, but what was
    /// adopted may be stopped and removed from now on.
    #[serde(default)]
    pub adopt: bool,
    /// A name to show beside the login name.
    #[serde(default)]
    pub by: Option<Safe>,
}

/// A verb was accepted and journalled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbReply {
    /// Rollouts it started or concerns.
    pub rollouts: Vec<Safe>,
    /// The decision after it.
    pub decision: u64,
    /// What happens now, in words.
    pub message: Safe,
}

/// A verb was refused, and nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|h| format!("\n  {h}")).unwrap_or_default())]
pub struct ApiError {
    /// Why, as a word.
    pub code: ErrorCode,
    /// Why, in words.
    pub message: Safe,
    /// What to do now.
    pub hint: Option<Safe>,
}
