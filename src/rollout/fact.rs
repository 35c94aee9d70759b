//! Facts: what happened or was decided. Journalled, never changed, the only input of [`super::state::State::apply`].

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::state::{HookKind, HookState, Kind, Outcome, Revision};
use super::world::{Slot, Slots};
use crate::analysis;
use crate::fleet::model::{Fleet, Service};
use crate::fleet::names::{Bp, HostName, InstanceId, Millis, ProxyName, RevisionId, RolloutId, ServiceName};
use crate::text::Safe;

/// A fact with its place in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// Controller time: monotonic over restarts, stands still while no controller runs.
    pub at: Millis,
    /// Wall clock, milliseconds since 1970; for people, never for decisions.
    pub wall_ms: u64,
    /// What happened.
    pub fact: Fact,
}

/// Who or what caused a fact: an operator's name, or `pilothouse`.
pub type By = Safe;

/// What happened or was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Fact {
    /// A verb brought this fleet file.
    FleetLoaded {
        /// The normalised model.
        fleet: Box<Fleet>,
        /// Who.
        by: By,
    },
    /// A version was resolved to an artifact and a configuration.
    RevisionKnown {
        /// Of this service.
        service: ServiceName,
        /// The revision.
        revision: Box<Revision>,
    },
    /// A rollout began.
    RolloutStarted {
        /// Of this service.
        service: ServiceName,
        /// Its id.
        rollout: RolloutId,
        /// What kind of.
        kind: Kind,
        /// Name of the strategy.
        strategy: String,
        /// The revision that serves.
        from: Option<RevisionId>,
        /// The revision to bring.
        to: RevisionId,
        /// The slot it will take.
        slot: Slot,
        /// What will be done.
        plan: Plan,
        /// The service as declared then.
        spec: Box<Service>,
        /// Who.
        by: By,
    },
    /// An instance shall exist.
    InstancePlaced {
        /// Of this service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// Of this revision.
        revision: RevisionId,
        /// Wanted by this rollout.
        rollout: RolloutId,
        /// On this host.
        host: HostName,
        /// On this port of the host; `None` at the container's own address.
        host_port: Option<u16>,
        /// What runs there already and becomes the instance: the engine's own id of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adopts: Option<Safe>,
    },
    /// What was adopted may be stopped from now on, when nothing needs it any more.
    StopAllowed {
        /// Of this service.
        service: ServiceName,
        /// Who.
        by: By,
    },
    /// A stopped or lost instance shall run again.
    InstanceRevived {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
        /// For this rollout.
        rollout: RolloutId,
    },
    /// The engine was seen running it, here.
    InstanceStarted {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
        /// Where it is reached.
        endpoint: SocketAddr,
    },
    /// It was found healthy for the first time: it may be in the route.
    InstanceAdmitted {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
    },
    /// It shall go: nothing new is sent to it.
    InstanceLeaving {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
        /// Whether it is removed afterwards; otherwise it is kept, stopped.
        discard: bool,
    },
    /// No proxy sends it anything, and nothing is in flight, or the deadline passed.
    InstanceDrained {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
        /// Requests that were still in flight at the deadline.
        left: u32,
    },
    /// The engine was seen not running it.
    InstanceStopped {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
    },
    /// A stopped, kept instance shall be removed.
    InstanceDiscarded {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
    },
    /// The engine was seen without it.
    InstanceRemoved {
        /// Of this service.
        service: ServiceName,
        /// Which.
        instance: InstanceId,
    },
    /// A revision took a free slot of the route.
    SlotTaken {
        /// Of this service.
        service: ServiceName,
        /// Which.
        slot: Slot,
        /// By whom.
        revision: RevisionId,
    },
    /// A slot was drained on every proxy and is free.
    SlotFreed {
        /// Of this service.
        service: ServiceName,
        /// Which.
        slot: Slot,
    },
    /// These shares shall be in force.
    WeightDecided {
        /// Of this service.
        service: ServiceName,
        /// The shares.
        weights: Slots<Bp>,
    },
    /// A phase was entered.
    PhaseEntered {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// From 0.
        phase: usize,
        /// Who let it.
        by: By,
    },
    /// The phase's target was read back: instances healthy, weights in force on every proxy.
    PhaseSettled {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// From 0.
        phase: usize,
        /// The candidate's share.
        weight: Bp,
    },
    /// An operator opened the gates of the phase.
    GatesOpened {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// All remaining gates as well.
        full: bool,
        /// Who.
        by: By,
    },
    /// It stands still until somebody decides.
    Paused {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Why.
        reason: Safe,
        /// Who.
        by: By,
    },
    /// It goes on.
    Resumed {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Who.
        by: By,
    },
    /// Something it needs is out of reach; nothing risky is done.
    Frozen {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// What.
        reason: Safe,
    },
    /// What it needs is back.
    Thawed {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
    },
    /// The analysis came to a verdict, or found stable itself failing.
    VerdictReached {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// In this phase, from 0.
        phase: usize,
        /// What it says.
        verdict: analysis::State,
        /// Its numbers.
        detail: Safe,
    },
    /// What an instance wrote last before its rollout was taken back. An application that writes secrets into its log
    /// has them here as well, as in every other place where its log is kept.
    LastWords {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Which.
        instance: InstanceId,
        /// Its last lines, cut.
        lines: Vec<Safe>,
    },
    /// The candidate gets nothing any more: weight 0 was read back from every proxy that can be reached.
    MadeSafe {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// From the first bad answer of the candidate that was counted, to the second in which it was; `None` when none
        /// was.
        since_bad: Option<Millis>,
        /// From the decision to go back.
        since_abort: Millis,
    },
    /// All traffic goes back to stable, then the candidate goes.
    AbortRequested {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Why.
        reason: Safe,
        /// Who.
        by: By,
    },
    /// The operator asked again: everything to stable now, even more than it can carry.
    AbortForced {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Who.
        by: By,
    },
    /// The instances of one host go back to stable alone; the rollout cannot end before that is lifted.
    HostHeld {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Which.
        host: HostName,
        /// Who.
        by: By,
    },
    /// The host takes part again.
    HoldLifted {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
        /// Which.
        host: HostName,
        /// Who.
        by: By,
    },
    /// An instance took the place of one on the same host and port, and every proxy was read back sending to it.
    InstanceReplaced {
        /// Of this service.
        service: ServiceName,
        /// By this rollout.
        rollout: RolloutId,
        /// The new one.
        instance: InstanceId,
        /// The one before.
        replaced: InstanceId,
        /// From the moment in which the one before got nothing new until now.
        downtime: Millis,
    },
    /// A hook shall run; whatever it does may have been done from here on.
    HookBegun {
        /// Of this service.
        service: ServiceName,
        /// For this rollout.
        rollout: RolloutId,
        /// Which.
        hook: HookKind,
        /// From 1.
        attempt: u32,
        /// The one-off instance it runs as.
        instance: InstanceId,
        /// Where.
        host: HostName,
    },
    /// How it ended.
    HookEnded {
        /// Of this service.
        service: ServiceName,
        /// For this rollout.
        rollout: RolloutId,
        /// The one-off instance.
        instance: InstanceId,
        /// How.
        state: HookState,
        /// In words.
        detail: Safe,
    },
    /// When the rollout under way has ended, this revision is rolled out.
    NextQueued {
        /// Of this service.
        service: ServiceName,
        /// Which revision.
        revision: Box<Revision>,
        /// Who.
        by: By,
    },
    /// What was queued cannot be rolled out any more.
    NextDropped {
        /// Of this service.
        service: ServiceName,
        /// Why.
        reason: Safe,
    },
    /// The candidate is stable now, which ends the rollout; what was stable is the way back.
    Promoted {
        /// Of this service.
        service: ServiceName,
        /// Of this rollout.
        rollout: RolloutId,
    },
    /// It is over without a promotion.
    RolloutEnded {
        /// Of this service.
        service: ServiceName,
        /// Which.
        rollout: RolloutId,
        /// How.
        outcome: Outcome,
        /// Why.
        reason: Safe,
        /// What could not be done yet and is still being tried.
        owed: Vec<Safe>,
    },
    /// What the proxies counted for its revisions, from its start until its end. Written after the end, and missing when
    /// the controller began in between.
    RolloutCounted {
        /// Of this service.
        service: ServiceName,
        /// Which.
        rollout: RolloutId,
        /// One for each revision.
        counts: Vec<Counted>,
    },
    /// The kept revision's time is over: it is taken out of the route and stopped.
    KeepEnded {
        /// Of this service.
        service: ServiceName,
        /// Which.
        revision: RevisionId,
    },
    /// A kept revision makes room: it is removed.
    Evicted {
        /// Of this service.
        service: ServiceName,
        /// Which.
        revision: RevisionId,
    },
    /// The whole service is taken away.
    DownRequested {
        /// Which.
        service: ServiceName,
        /// Who.
        by: By,
    },
    /// Nothing is left of the service.
    ServiceGone {
        /// Which.
        service: ServiceName,
    },
    /// A host could not be reached, or can be again.
    HostSeen {
        /// Which.
        host: HostName,
        /// Whether it can be reached.
        reachable: bool,
        /// What was said.
        detail: Safe,
    },
    /// A proxy could not be reached, or can be again.
    ProxySeen {
        /// Which.
        proxy: ProxyName,
        /// Whether it can be reached.
        reachable: bool,
        /// What was said.
        detail: Safe,
    },
    /// A proxy was found doing something else than was read back before (reloaded, restarted, changed by hand).
    ProxyDiffers {
        /// Which.
        proxy: ProxyName,
        /// Of this service.
        service: ServiceName,
        /// What it did.
        detail: Safe,
    },
    /// An effect failed again and again.
    EffectFailing {
        /// On what.
        subject: String,
        /// Times in a row.
        count: u32,
        /// What was said last.
        error: Safe,
    },
    /// A controller began to serve.
    ControllerStarted {
        /// Its version.
        version: String,
        /// Its process id.
        pid: u32,
    },
    /// Time passed: how far long timers have come.
    ClockReached {},
}

/// Requests of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Whose.
    pub revision: RevisionId,
    /// Requests that ended, whatever way.
    pub requests: u64,
    /// Of these, the ones that failed.
    pub errors: u64,
    /// Attempts that failed and were tried again elsewhere.
    pub retries: u64,
}

impl Fact {
    /// The service it is about.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::RevisionKnown { service, .. }
            | Self::RolloutStarted { service, .. }
            | Self::InstancePlaced { service, .. }
            | Self::InstanceRevived { service, .. }
            | Self::InstanceStarted { service, .. }
            | Self::InstanceAdmitted { service, .. }
            | Self::InstanceLeaving { service, .. }
            | Self::InstanceDrained { service, .. }
            | Self::InstanceStopped { service, .. }
            | Self::InstanceDiscarded { service, .. }
            | Self::InstanceRemoved { service, .. }
            | Self::SlotTaken { service, .. }
            | Self::SlotFreed { service, .. }
            | Self::WeightDecided { service, .. }
            | Self::PhaseEntered { service, .. }
            | Self::PhaseSettled { service, .. }
            | Self::GatesOpened { service, .. }
            | Self::Paused { service, .. }
            | Self::Resumed { service, .. }
            | Self::Frozen { service, .. }
            | Self::Thawed { service, .. }
            | Self::VerdictReached { service, .. }
            | Self::MadeSafe { service, .. }
            | Self::LastWords { service, .. }
            | Self::AbortRequested { service, .. }
            | Self::AbortForced { service, .. }
            | Self::HostHeld { service, .. }
            | Self::HoldLifted { service, .. }
            | Self::InstanceReplaced { service, .. }
            | Self::HookBegun { service, .. }
            | Self::HookEnded { service, .. }
            | Self::NextQueued { service, .. }
            | Self::NextDropped { service, .. }
            | Self::Promoted { service, .. }
            | Self::RolloutEnded { service, .. }
            | Self::RolloutCounted { service, .. }
            | Self::KeepEnded { service, .. }
            | Self::Evicted { service, .. }
            | Self::DownRequested { service, .. }
            | Self::StopAllowed { service, .. }
            | Self::ServiceGone { service }
            | Self::ProxyDiffers { service, .. } => Some(service),
            Self::FleetLoaded { .. }
            | Self::HostSeen { .. }
            | Self::ProxySeen { .. }
            | Self::EffectFailing { .. }
            | Self::ControllerStarted { .. }
            | Self::ClockReached {} => None,
        }
    }
}
