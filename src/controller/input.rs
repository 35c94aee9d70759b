//! Everything that can happen to a controller, as one type: its loop takes these in one at a time.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::hands::TargetKey;
use super::metrics::page::Known;
use crate::api::{ApiError, ProbeView, VerbReply};
use crate::checks::Answered;
use crate::engine::{EngineError, Usage};
use crate::fleet::model::Fleet;
use crate::fleet::names::{
    CheckName, HostName, InstanceId, Millis, ProxyName, RevisionId, RolloutId, ServiceName, TargetName,
    Version,
};
use crate::proxy::ProxyError;
use crate::rollout::decide::{Intent, Taken};
use crate::rollout::reconcile::Effect;
use crate::rollout::state::{Kind, Revision, State};
use crate::rollout::world::{Health, Means, ObservedInstance, RouteReadback};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::loss::LogLoss;

/// Somebody wants something, and waits for the answer.
pub type Asked = (Box<Request>, oneshot::Sender<Result<VerbReply, ApiError>>);

/// Something that happened.
pub enum Input {
    /// A host was looked at.
    HostSeen {
        /// Which.
        host: HostName,
        /// What was seen.
        result: Result<Vec<ObservedInstance>, EngineError>,
        /// After which of our effects the look began.
        epoch: u64,
    },
    /// A proxy was read back.
    ProxySeen {
        /// Which.
        proxy: ProxyName,
        /// What it does.
        result: Result<BTreeMap<ServiceName, RouteReadback>, ProxyError>,
        /// After which of our effects the look began.
        epoch: u64,
        /// Right after a write of ours.
        after_write: bool,
    },
    /// A proxy's numbers.
    Counters {
        /// Which.
        proxy: ProxyName,
        /// Per instance.
        counters: BTreeMap<InstanceId, Counters>,
        /// What was lost of the lines that they are made of, if they are.
        loss: Option<LogLoss>,
    },
    /// An effect was carried out, or not.
    Done {
        /// Which.
        effect: Effect,
        /// Why not.
        result: Result<(), Safe>,
    },
    /// An instance was probed.
    Probed {
        /// On what.
        target: TargetKey,
        /// Its health after it.
        health: Health,
        /// For people.
        view: ProbeView,
    },
    /// CPU and memory of an instance.
    Usage {
        /// Which.
        instance: InstanceId,
        /// How much.
        usage: Usage,
    },
    /// The versions an engine has.
    Versions {
        /// Of this service.
        service: ServiceName,
        /// The newest first.
        versions: Vec<Version>,
    },
    /// What a revision's tag and env file mean now.
    Means {
        /// Of this revision.
        revision: RevisionId,
        /// What they mean.
        means: Means,
    },
    /// A check of a rollout was asked.
    Checked {
        /// Of this service.
        service: ServiceName,
        /// Which.
        check: CheckName,
        /// For this rollout.
        rollout: RolloutId,
        /// When the question was put (controller time).
        asked_at: Millis,
        /// What it came to.
        answered: Answered,
    },
    /// What an instance that failed wrote last.
    LastWords {
        /// Of this service.
        service: ServiceName,
        /// Taken back with this rollout.
        rollout: RolloutId,
        /// Which.
        instance: InstanceId,
        /// Its last lines, cut.
        lines: Vec<Safe>,
    },
    /// Who watches, and whether anybody wants CPU and memory.
    Watchers {
        /// Their names.
        names: Vec<Safe>,
        /// Whether one of them asked for usage.
        usage: bool,
    },
    /// Somebody needs the whole state, to show a plan or to find an instance.
    State(oneshot::Sender<Box<State>>),
    /// News were given up.
    Untold {
        /// Who was to be told.
        target: TargetName,
        /// After so many attempts.
        attempts: u32,
        /// What was said last.
        error: Safe,
    },
    /// Somebody wants `/metrics`.
    Metrics(oneshot::Sender<Box<Known>>),
    /// The controller shall end; rollouts wait for the next one.
    Stop,
}

/// What somebody wants.
pub enum Request {
    /// A verb on a rollout.
    Verb {
        /// Of this service.
        service: ServiceName,
        /// Which.
        intent: Intent,
        /// On what it was decided.
        decision: Option<u64>,
        /// Who.
        by: Safe,
    },
    /// A new rollout.
    Deploy {
        /// The fleet file.
        fleet: Box<Fleet>,
        /// What to bring.
        revision: Box<Revision>,
        /// With or without gates.
        kind: Kind,
        /// On what it was decided.
        decision: Option<u64>,
        /// Who.
        by: Safe,
    },
    /// Back to a revision that is kept.
    Rollback {
        /// Of this service.
        service: ServiceName,
        /// To this version; `None` for the kept one, whichever it is.
        to: Option<Version>,
        /// On what it was decided.
        decision: Option<u64>,
        /// Who.
        by: Safe,
    },
    /// What is missing is created.
    Up {
        /// The fleet file.
        fleet: Box<Fleet>,
        /// First revisions of services that were never deployed, with what runs of them already.
        first: Vec<(Revision, Vec<Taken>)>,
        /// Only these; empty for all.
        services: Vec<ServiceName>,
        /// Who.
        by: Safe,
    },
    /// Services are taken away.
    Down {
        /// Which; empty for all.
        services: Vec<ServiceName>,
        /// Who.
        by: Safe,
    },
    /// Adopted instances of services may be stopped from now on.
    AllowStop {
        /// Which.
        services: Vec<ServiceName>,
        /// Who.
        by: Safe,
    },
    /// Only load a fleet file, when none is known yet.
    Load {
        /// The file.
        fleet: Box<Fleet>,
        /// Who.
        by: Safe,
    },
}
