//! What a fact changes in the state. Nothing else changes it, and nothing here decides: a newer binary that would decide
//! otherwise sees the same past.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{HookRun, HookState, Instance, Kept, Kind, Outcome, Rollout, ServiceState, Stage, State, Status};
use crate::fleet::model::Fleet;
use crate::fleet::names::{Millis, RevisionId, ServiceName};
use crate::rollout::fact::{Fact, Record};
use crate::rollout::world::Slot;
use crate::text::Safe;

impl State {
    /// Applies one journalled fact. Facts about things that are not there change nothing: a journal never panics.
    pub fn apply(&mut self, record: &Record) {
        self.seq = record.seq;
        self.at = self.at.max(record.at);
        if let Fact::FleetLoaded { fleet, .. } = &record.fact {
            self.load(fleet);
            return;
        }
        let Some(name) = record.fact.service() else { return };
        if let Fact::ServiceGone { service } = &record.fact {
            self.gone(service);
            return;
        }
        let declared = self.fleet.as_ref().and_then(|f| f.services.get(name));
        let spec = match &record.fact {
            Fact::RevisionKnown { revision, .. } => Some(&revision.spec),
            _ => declared,
        };
        if !self.services.contains_key(name)
            && let Some(spec) = spec
        {
            self.services.insert(name.clone(), ServiceState::new(spec.clone()));
        }
        if let Some(service) = self.services.get_mut(name) {
            service.apply(record);
        }
    }

    /// Services without a rollout take on the new declaration; a rollout keeps what it was planned on.
    fn load(&mut self, fleet: &Fleet) {
        for (name, declared) in &fleet.services {
            if let Some(s) = self.services.get_mut(name)
                && s.active().is_none()
            {
                s.spec = declared.clone();
            }
        }
        self.fleet = Some(fleet.clone());
    }

    /// Numbers go on where they were, so that no id is ever used twice.
    fn gone(&mut self, name: &ServiceName) {
        if let Some(s) = self.services.get_mut(name) {
            s.forget_hooks();
            let mut fresh = ServiceState::new(s.spec.clone());
            fresh.rollouts = s.rollouts;
            fresh.decision = s.decision + 1;
            fresh.removed = std::mem::take(&mut s.removed);
            *s = fresh;
        }
    }
}

impl ServiceState {
    fn apply(&mut self, record: &Record) {
        let (at, wall) = (record.at, record.wall_ms);
        match &record.fact {
            Fact::RevisionKnown { revision, .. } => {
                self.revisions.insert(revision.id.clone(), (**revision).clone());
            }
            Fact::RolloutStarted { rollout, kind, strategy, from, to, slot, plan, spec, by, .. } => {
                self.forget_hooks();
                self.rollouts += 1;
                self.decision += 1;
                self.down = false;
                self.next = None;
                self.spec = (**spec).clone();
                if self.kept.as_ref().is_some_and(|k| k.revision == *to) {
                    self.kept = None;
                }
                let mut entered_wall = vec![None; plan.phases.len()];
                if let Some(first) = entered_wall.first_mut() {
                    *first = Some(wall);
                }
                let version = |id: &RevisionId| self.revisions.get(id).map(|r| r.version.clone());
                self.rollout = Some(Rollout {
                    to_version: version(to),
                    from_version: from.as_ref().and_then(version),
                    id: rollout.clone(),
                    kind: *kind,
                    strategy: strategy.clone(),
                    from: from.clone(),
                    to: to.clone(),
                    slot: *slot,
                    plan: plan.clone(),
                    phase: 0,
                    entered_wall,
                    settled_at: None,
                    gates_opened: false,
                    status: Status::Running,
                    frozen: None,
                    reason: Safe::default(),
                    progress_at: at,
                    started_at: at,
                    resumed_at: at,
                    thawed_at: at,
                    held: BTreeSet::new(),
                    downtimes: Vec::new(),
                    hooks: Vec::new(),
                    verdict: None,
                    overruled: false,
                    made_safe: None,
                    abort_at: at,
                    forced: false,
                    by: by.clone(),
                    started_wall: wall,
                    ended_wall: None,
                    owed: Vec::new(),
                });
            }
            Fact::InstancePlaced { instance, revision, rollout, host, host_port, adopts, .. } => {
                let placed = Instance {
                    id: instance.clone(),
                    revision: revision.clone(),
                    rollout: rollout.clone(),
                    host: host.clone(),
                    host_port: *host_port,
                    stage: Stage::Placed,
                    admitted: false,
                    endpoint: None,
                    discard: false,
                    placed_at: at,
                    leaving_at: Millis(0),
                    adopts: adopts.clone(),
                    may_stop: false,
                };
                self.instances.insert(instance.clone(), placed);
            }
            Fact::SlotTaken { slot, revision, .. } => *self.slots.get_mut(*slot) = Some(revision.clone()),
            Fact::SlotFreed { slot, .. } => *self.slots.get_mut(*slot) = None,
            Fact::WeightDecided { weights, .. } => self.weights = weights.clone(),
            Fact::Promoted { .. } => self.promote(at, wall),
            Fact::KeepEnded { revision, .. } => {
                if let Some(k) = self.kept.as_mut().filter(|k| k.revision == *revision) {
                    k.warm_until = None;
                }
            }
            Fact::Evicted { revision, .. } => {
                if self.kept.as_ref().is_some_and(|k| k.revision == *revision) {
                    self.kept = None;
                }
                self.forget_revisions();
            }
            Fact::NextQueued { revision, by, .. } => {
                self.next = Some(((**revision).clone(), by.clone()));
                self.decision += 1;
            }
            Fact::NextDropped { .. } => self.next = None,
            Fact::StopAllowed { .. } => {
                self.instances.values_mut().filter(|i| i.adopts.is_some()).for_each(|i| i.may_stop = true);
            }
            Fact::DownRequested { .. } => {
                self.next = None;
                self.down = true;
                self.decision += 1;
            }
            fact => {
                self.apply_instance(fact, at);
                self.apply_rollout(fact, at, wall);
            }
        }
    }

    fn apply_instance(&mut self, fact: &Fact, at: Millis) {
        if let Fact::InstanceRemoved { instance, .. } = fact {
            if self.instances.remove(instance).is_some() {
                Arc::make_mut(&mut self.removed).insert(instance.clone());
                self.forget_revisions();
            }
            return;
        }
        let progress = matches!(
            fact,
            Fact::InstanceStarted { .. } | Fact::InstanceAdmitted { .. } | Fact::InstanceStopped { .. }
        );
        let (Fact::InstanceRevived { instance, .. }
        | Fact::InstanceStarted { instance, .. }
        | Fact::InstanceAdmitted { instance, .. }
        | Fact::InstanceLeaving { instance, .. }
        | Fact::InstanceDrained { instance, .. }
        | Fact::InstanceStopped { instance, .. }
        | Fact::InstanceDiscarded { instance, .. }) = fact
        else {
            return;
        };
        let Some(i) = self.instances.get_mut(instance) else { return };
        match fact {
            Fact::InstanceRevived { rollout, .. } => {
                i.stage = Stage::Placed;
                i.placed_at = at;
                i.admitted = false;
                i.discard = false;
                i.rollout = rollout.clone();
            }
            Fact::InstanceStarted { endpoint, .. } => {
                i.stage = i.stage.max(Stage::Started);
                i.endpoint = Some(*endpoint);
            }
            Fact::InstanceAdmitted { .. } => i.admitted = true,
            Fact::InstanceLeaving { discard, .. } => {
                i.stage = Stage::Leaving;
                i.discard = *discard;
                i.leaving_at = at;
            }
            Fact::InstanceDrained { .. } => {
                i.stage = Stage::Drained;
                i.admitted = false;
            }
            Fact::InstanceStopped { .. } => i.stage = Stage::Stopped,
            Fact::InstanceDiscarded { .. } => {
                i.stage = Stage::Discarded;
                i.discard = true;
            }
            _ => {}
        }
        if progress && let Some(r) = self.rollout.as_mut() {
            r.progress_at = at;
        }
    }

    fn apply_rollout(&mut self, fact: &Fact, at: Millis, wall: u64) {
        let Some(r) = self.rollout.as_mut() else { return };
        match fact {
            Fact::PhaseEntered { phase, .. } => {
                r.phase = *phase;
                r.settled_at = None;
                r.gates_opened = false;
                r.progress_at = at;
                if let Some(entered) = r.entered_wall.get_mut(*phase) {
                    *entered = Some(wall);
                }
                self.decision += 1;
            }
            Fact::PhaseSettled { .. } => {
                r.settled_at = Some(at);
                r.progress_at = at;
            }
            Fact::GatesOpened { .. } => {
                r.overrule();
                r.gates_opened = true;
                r.status = Status::Running;
                r.reason = Safe::default();
                r.progress_at = at;
                self.decision += 1;
            }
            Fact::Paused { reason, .. } => {
                r.status = Status::Paused;
                r.reason = reason.clone();
                self.decision += 1;
            }
            Fact::Resumed { .. } => {
                r.overrule();
                r.status = Status::Running;
                r.reason = Safe::default();
                r.progress_at = at;
                r.resumed_at = at;
                self.decision += 1;
            }
            Fact::HostHeld { host, .. } => {
                r.held.insert(host.clone());
                r.settled_at = None;
                r.progress_at = at;
                self.decision += 1;
            }
            Fact::HoldLifted { host, .. } => {
                r.held.remove(host);
                r.settled_at = None;
                r.progress_at = at;
                self.decision += 1;
            }
            Fact::HookBegun { hook, attempt, instance, host, .. } => {
                r.hooks.push(HookRun {
                    hook: *hook,
                    attempt: *attempt,
                    instance: instance.clone(),
                    host: host.clone(),
                    state: HookState::Begun,
                    detail: Safe::default(),
                    began_at: at,
                });
                r.progress_at = at;
            }
            Fact::HookEnded { instance, state, detail, .. } => {
                if let Some(h) = r.hooks.iter_mut().rfind(|h| h.instance == *instance) {
                    h.state = *state;
                    h.detail = detail.clone();
                }
                r.progress_at = at;
            }
            Fact::InstanceReplaced { instance, downtime, .. } => {
                r.downtimes.push((instance.clone(), *downtime));
                r.progress_at = at;
            }
            Fact::Frozen { reason, .. } => {
                // Not a decision: a link that comes and goes must not make every promote stale.
                r.frozen = Some(reason.clone());
            }
            Fact::Thawed { .. } => {
                r.frozen = None;
                r.progress_at = at;
                r.resumed_at = at;
                r.thawed_at = at;
            }
            Fact::AbortRequested { reason, .. } => {
                r.status = Status::Aborting;
                r.reason = reason.clone();
                r.abort_at = at;
                self.decision += 1;
            }
            Fact::VerdictReached { phase, verdict, .. } => r.verdict = Some((*phase, *verdict)),
            Fact::MadeSafe { since_bad, since_abort, .. } => r.made_safe = Some((*since_bad, *since_abort)),
            Fact::AbortForced { .. } => {
                r.forced = true;
                self.decision += 1;
            }
            Fact::RolloutEnded { outcome, reason, owed, .. } => {
                r.status = Status::Ended(*outcome);
                r.reason = reason.clone();
                r.owed = owed.clone();
                r.frozen = None;
                r.ended_wall = Some(wall);
                // A rollback that was taken back leaves its revision where it was: kept.
                if *outcome == Outcome::Aborted && r.kind == Kind::Rollback && self.kept.is_none() {
                    self.kept = Some(Kept { revision: r.to.clone(), warm_until: None });
                }
                self.decision += 1;
                self.forget_revisions();
            }
            _ => {}
        }
    }

    /// What hooks of the last rollout left is ours, and of no use once the next begins.
    fn forget_hooks(&mut self) {
        let left = self.rollout.iter_mut().flat_map(|r| std::mem::take(&mut r.hooks));
        let mut left = left.map(|h| h.instance).peekable();
        if left.peek().is_some() {
            Arc::make_mut(&mut self.removed).extend(left);
        }
    }

    /// A revision matters while it has instances, or may be brought or brought back as it is.
    fn forget_revisions(&mut self) {
        let active = self.rollout.as_ref().filter(|r| r.active());
        let coming = active.map(|r| &r.to);
        let kept = self.kept.as_ref().map(|k| &k.revision);
        let named: BTreeSet<&RevisionId> = [self.stable.as_ref(), kept, coming]
            .into_iter()
            .chain(Slot::BOTH.map(|s| self.slots.get(s).as_ref()))
            .flatten()
            .chain(self.instances.values().map(|i| &i.revision))
            .collect();
        self.revisions.retain(|id, _| named.contains(id));
    }

    fn promote(&mut self, at: Millis, wall: u64) {
        let Some(r) = self.rollout.as_mut() else { return };
        r.status = Status::Ended(Outcome::Done);
        r.ended_wall = Some(wall);
        let old = self.stable.replace(r.to.clone());
        self.stable_slot = r.slot;
        self.kept = old.map(|revision| Kept { revision, warm_until: Some(at.plus(self.spec.keep)) });
        if let Some(revision) = self.revisions.get(&r.to) {
            let version = revision.version.clone();
            self.served.retain(|v| *v != version);
            self.served.push(version);
        }
        self.decision += 1;
    }
}
