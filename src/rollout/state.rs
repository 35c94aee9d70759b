//! State: what the facts add up to. [`State::apply`] is the only way it changes; replaying a journal calls nothing else.

mod apply;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fact::By;
pub use super::hook::{HookKind, HookRun, HookState};
use super::plan::{Phase, Plan};
use super::world::{Restart, Slot, Slots};
use crate::analysis;
use crate::fleet::model::{Fleet, Service};
use crate::fleet::names::{Bp, HostName, InstanceId, Millis, RevisionId, RolloutId, ServiceName, Version};
use crate::text::Safe;

/// What the facts of one fleet add up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The fleet file that was loaded last.
    pub fleet: Option<Fleet>,
    /// Services that were ever deployed.
    pub services: BTreeMap<ServiceName, ServiceState>,
    /// Number of the last fact.
    pub seq: u64,
    /// Controller time of the last fact.
    pub at: Millis,
}

/// An immutable thing that can be run: an artifact and a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Identity: the start of the hash over all below.
    pub id: RevisionId,
    /// Readable tag.
    pub version: Version,
    /// The artifact.
    pub digest: String,
    /// How it is run: the service as declared when it was first deployed.
    pub spec: Service,
    /// Keyed hash over the values of the env file, which themselves are never stored.
    pub env_hash: String,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// As declared when it was last deployed, or brought up.
    pub spec: Service,
    /// The revision that serves.
    pub stable: Option<RevisionId>,
    /// The slot it is in.
    pub stable_slot: Slot,
    /// What is in the slots of the route.
    pub slots: Slots<Option<RevisionId>>,
    /// The shares that shall be in force.
    pub weights: Slots<Bp>,
    /// Revisions that still matter.
    pub revisions: BTreeMap<RevisionId, Revision>,
    /// Instances that exist or shall exist.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// The way back after a promotion.
    pub kept: Option<Kept>,
    /// The rollout under way, or the one that ended last.
    pub rollout: Option<Rollout>,
    /// Rollouts so far.
    pub rollouts: u64,
    /// Goes up with every change that an operator might have decided otherwise on.
    pub decision: u64,
    /// Being taken away.
    pub down: bool,
    /// Ids of removed instances: what still carries one of them is ours, and an orphan. They only ever become more, and a
    /// state is copied before each of its changes: the copies share them.
    pub removed: Arc<BTreeSet<InstanceId>>,
    /// Versions that were ever stable, the latest last.
    pub served: Vec<Version>,
    /// What is rolled out when the rollout under way has ended, and who wants it.
    pub next: Option<(Revision, By)>,
}

/// An instance that exists or shall exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Identity.
    pub id: InstanceId,
    /// What it runs.
    pub revision: RevisionId,
    /// The rollout that wanted it last.
    pub rollout: RolloutId,
    /// Where.
    pub host: HostName,
    /// The host's port it is published on.
    pub host_port: Option<u16>,
    /// How far it is.
    pub stage: Stage,
    /// Was healthy since it last started: it may be in the route.
    pub admitted: bool,
    /// Where it was last reached.
    pub endpoint: Option<SocketAddr>,
    /// Removed after it stopped.
    pub discard: bool,
    /// When it was placed, or started again.
    pub placed_at: Millis,
    /// When it began to leave.
    pub leaving_at: Millis,
    /// The engine's own id of what was there before us and was adopted.
    #[serde(default)]
    pub adopts: Option<Safe>,
    /// Somebody allowed what was adopted to be stopped.
    #[serde(default)]
    pub may_stop: bool,
}

impl Instance {
    /// Adopted, and not to be stopped: nothing is ever done to it but sending it requests, or not.
    #[must_use]
    pub fn external(&self) -> bool {
        self.adopts.is_some() && !self.may_stop
    }
}

/// How far an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Shall run; was not seen running yet.
    Placed,
    /// Was seen running, and shall.
    Started,
    /// Shall get nothing new.
    Leaving,
    /// Gets nothing, has nothing: shall stop.
    Drained,
    /// Was seen stopped.
    Stopped,
    /// Shall be removed.
    Discarded,
}

/// A revision that is kept for the way back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Which.
    pub revision: RevisionId,
    /// Controller time until which it is kept running; `None` once that is over.
    pub warm_until: Option<Millis>,
}

/// Why a rollout was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The first one of a service.
    First,
    /// A new revision.
    Release,
    /// Back to an earlier one, without gates.
    Rollback,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The candidate serves.
    Done,
    /// Back at stable.
    Aborted,
    /// Neither.
    Failed,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Going on.
    Running,
    /// Waits for an operator.
    Paused,
    /// Going back.
    Aborting,
    /// Over.
    Ended(Outcome),
}

/// One attempt to bring a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Identity.
    pub id: RolloutId,
    /// Why it was made.
    pub kind: Kind,
    /// Name of the strategy.
    pub strategy: String,
    /// The revision that served.
    pub from: Option<RevisionId>,
    /// The revision to bring.
    pub to: RevisionId,
    /// Its readable tag, which outlives the revision.
    pub to_version: Option<Version>,
    /// The readable tag of the revision that served.
    pub from_version: Option<Version>,
    /// The slot for it.
    pub slot: Slot,
    /// What is to be done.
    pub plan: Plan,
    /// Where it is, from 0.
    pub phase: usize,
    /// When each phase was entered (wall clock).
    pub entered_wall: Vec<Option<u64>>,
    /// When the phase's target was read back; `None` before.
    pub settled_at: Option<Millis>,
    /// An operator opened the gates of this phase.
    pub gates_opened: bool,
    /// How it stands.
    pub status: Status,
    /// What is out of reach.
    pub frozen: Option<Safe>,
    /// Why it stands so.
    pub reason: Safe,
    /// Last time that something went forward.
    pub progress_at: Millis,
    /// When it began.
    pub started_at: Millis,
    /// Last time that it went on after a stop.
    pub resumed_at: Millis,
    /// Last time that what could not be seen was seen again; what is to be watched for a time is watched from then on.
    pub thawed_at: Millis,
    /// Hosts whose instances were rolled back alone, and stay so.
    pub held: BTreeSet<HostName>,
    /// Time out of rotation of each instance that was replaced in place, with its id.
    pub downtimes: Vec<(InstanceId, Millis)>,
    /// What was run around it, in order.
    pub hooks: Vec<HookRun>,
    /// What the analysis said last that was no waiting, and in which phase.
    pub verdict: Option<(usize, analysis::State)>,
    /// Somebody was told that the candidate fails, and goes on with it: it is not taken back for that any more.
    pub overruled: bool,
    /// How long it took, from its first bad answer and from the decision, until the candidate got nothing any more.
    pub made_safe: Option<(Option<Millis>, Millis)>,
    /// When the abort was asked for.
    pub abort_at: Millis,
    /// The operator wants everything on stable, whatever it can carry.
    pub forced: bool,
    /// Who started it.
    pub by: By,
    /// Wall-clock start.
    pub started_wall: u64,
    /// Wall-clock end.
    pub ended_wall: Option<u64>,
    /// What was still owed when it ended.
    pub owed: Vec<Safe>,
}

impl Rollout {
    /// Whether it has not ended.
    #[must_use]
    pub fn active(&self) -> bool {
        !matches!(self.status, Status::Ended(_))
    }

    /// The phase it is in.
    #[must_use]
    pub fn phase(&self) -> Option<&Phase> {
        self.plan.phases.get(self.phase)
    }

    /// Somebody goes on. After a verdict that only paused it, because something irreversible was done or stable itself
    /// failed, that is their answer to the verdict.
    fn overrule(&mut self) {
        let failed = self.verdict.is_some_and(|(_, said)| said == analysis::State::Fail);
        self.overruled |= failed && self.status == Status::Paused;
    }

    /// Whether there is no phase after this one.
    #[must_use]
    pub fn last_phase(&self) -> bool {
        self.phase + 1 >= self.plan.phases.len()
    }
}

impl ServiceState {
    fn new(spec: Service) -> Self {
        Self {
            spec,
            stable: None,
            stable_slot: Slot::A,
            slots: Slots::default(),
            weights: Slots::default(),
            revisions: BTreeMap::new(),
            instances: BTreeMap::new(),
            kept: None,
            rollout: None,
            rollouts: 0,
            decision: 0,
            down: false,
            removed: Arc::default(),
            served: Vec::new(),
            next: None,
        }
    }

    /// The rollout under way.
    #[must_use]
    pub fn active(&self) -> Option<&Rollout> {
        self.rollout.as_ref().filter(|r| r.active())
    }

    /// The instances of a revision.
    pub fn of<'a>(&'a self, revision: &'a RevisionId) -> impl Iterator<Item = &'a Instance> {
        self.instances.values().filter(move |i| i.revision == *revision)
    }

    /// The slot a revision is in.
    #[must_use]
    pub fn slot_of(&self, revision: &RevisionId) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|&s| self.slots.get(s).as_ref() == Some(revision))
    }

    /// What the engine shall do when this instance exits: candidates are not healed, a death is news.
    #[must_use]
    pub fn restart_policy(&self, instance: &Instance) -> Restart {
        let candidate = self.active().is_some_and(|r| r.to == instance.revision);
        if candidate || self.stable.as_ref() != Some(&instance.revision) {
            Restart::No
        } else {
            Restart::UnlessStopped
        }
    }
}
