//! Facts from their decision to the disk. What follows from one another is written in one transaction, and nothing is
//! done before it is written.

use super::{CLOCK_EVERY, Helm, MAX_ROUNDS};
use crate::api::{Change, EventView};
use crate::controller::clock::wall_ms;
use crate::controller::explain;
use crate::controller::notify::news::{News, news};
use crate::rollout::decide;
use crate::rollout::fact::{Fact, Record};
use crate::rollout::state::{ServiceState, State, Status};
use crate::rollout::world::Observed;
use crate::text::Safe;

/// Facts that are applied to the state and not written yet.
pub(super) struct Batch {
    /// The state to go back to when they cannot be written.
    before: State,
    records: Vec<Record>,
    events: Vec<EventView>,
    news: Vec<News>,
}

impl Helm {
    /// Applies facts, to be written with the next [`Self::commit`]. Nothing may be done for them before that.
    pub(super) fn propose(&mut self, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        let (at, wall_ms) = (self.clock.now(), wall_ms());
        let batch = self.batch.get_or_insert_with(|| Batch {
            before: self.state.clone(),
            records: Vec::new(),
            events: Vec::new(),
            news: Vec::new(),
        });
        for fact in facts {
            let record = Record { seq: self.state.seq + 1, at, wall_ms, fact };
            batch.events.extend(explain::event(&self.state, &record));
            batch.news.extend(news(&self.state, &record));
            look_anew(&self.state, &mut self.obs, &record.fact);
            self.state.apply(&record);
            batch.records.push(record);
        }
    }

    /// Writes what was proposed, all or nothing. When it cannot be written the state is as it was before.
    pub(super) fn commit(&mut self) -> Result<(), Safe> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let records = &batch.records;
        let asked = |r: &Record| matches!(r.fact, Fact::AbortRequested { .. } | Fact::AbortForced { .. });
        let aborting = |s: &ServiceState| s.active().is_some_and(|r| r.status == Status::Aborting);
        let safe_direction = records.iter().any(asked) || self.state.services.values().any(aborting);
        let mut written = self.journal.write(records);
        if written.is_err() && safe_direction && self.reserve.release() {
            written = self.journal.write(records);
        }
        if let Err(e) = written {
            self.state = batch.before;
            let alarm = Safe::new(&format!("nothing is done: {e}"));
            self.alarms = vec![alarm.clone()];
            return Err(alarm);
        }
        self.alarms.clear();
        let quiet = self.state.services.values().all(|s| s.active().is_none());
        self.keeper.written(self.journal.head(), quiet);
        let mut ended = Vec::new();
        for record in records {
            self.tally.happened(&record.fact);
            match &record.fact {
                Fact::Promoted { service, .. } | Fact::RolloutEnded { service, .. } => {
                    ended.push(service.clone());
                }
                Fact::RolloutStarted { service, .. } => {
                    self.forget_counters(service);
                    self.numbers.mark(service.as_str());
                }
                // Who aborts by hand has seen why.
                Fact::AbortRequested { service, by, .. } if by.as_str() == decide::OURSELVES => {
                    self.last_words(service);
                }
                Fact::WeightDecided { service, .. } | Fact::PhaseSettled { service, .. } => {
                    self.numbers.shares_changed(service.as_str(), record.at);
                }
                _ => {}
            }
        }
        self.pending.extend(batch.events.into_iter().map(Change::Event));
        if batch.records.iter().any(|r| matches!(r.fact, Fact::FleetLoaded { .. })) {
            self.watch();
        }
        // Told when what follows from it is under way.
        self.untold.extend(batch.news);
        let counted = ended.iter().filter_map(|service| self.counted(service)).collect();
        // The rollout has ended whether or not its numbers can be written.
        let _ = self.record(counted);
        Ok(())
    }

    /// Tells others what was written, with what was counted.
    pub(super) fn tell(&mut self) {
        let mut news = std::mem::take(&mut self.untold);
        if !self.notifier.has_targets() {
            return;
        }
        for n in &mut news {
            let s = self.state.services.get(n.of());
            if let (Some(s), Some(Fact::RolloutCounted { counts, .. })) = (s, self.counted(n.of())) {
                n.count(s, &counts);
            }
        }
        self.notifier.tell(&news);
    }

    /// Writes facts down at once.
    pub(super) fn record(&mut self, facts: Vec<Fact>) -> Result<(), Safe> {
        self.propose(facts);
        self.commit()
    }

    /// Writes down what an operator asked for together with all that follows from it: one wait for the disk.
    pub(super) fn record_with_consequences(&mut self, facts: Vec<Fact>) -> Result<(), Safe> {
        self.propose(facts);
        self.follow();
        self.commit()
    }

    /// Decides until nothing follows any more and writes it down; whether something may be done now.
    pub(super) fn decide(&mut self) -> bool {
        let ends = self.follow();
        let timing = self.state.services.values().any(|s| s.active().is_some());
        if timing && self.clock.now().since(self.state.at) > CLOCK_EVERY {
            self.propose(vec![Fact::ClockReached {}]);
        }
        let written = self.commit().is_ok();
        if !ends {
            self.alarms =
                vec!["deciding does not come to an end: this is a defect; nothing more is done".into()];
        }
        ends && written
    }

    /// Proposes what follows, and what follows from that; whether that comes to an end.
    fn follow(&mut self) -> bool {
        let now = self.clock.now();
        for _ in 0..MAX_ROUNDS {
            let facts = decide::advance(&self.state, &self.obs, now);
            if facts.is_empty() {
                return true;
            }
            self.propose(facts);
            // What was known of the health of what starts anew says nothing about it.
            self.follow_instances();
        }
        false
    }
}

/// What a fact that is about to be applied means for what is remembered of the world: what begins anew is looked at
/// anew. What was verified may have been removed since (an image by a prune), and what failed before is no reason to
/// give up at once.
fn look_anew(state: &State, obs: &mut Observed, fact: &Fact) {
    match fact {
        Fact::HookBegun { instance, .. } => {
            obs.begun.insert(instance.clone());
        }
        Fact::RolloutStarted { service, to, .. } => {
            if let Some(r) = state.services.get(service).and_then(|s| s.revisions.get(to)) {
                obs.hosts.values_mut().for_each(|h| {
                    h.images.remove(&r.digest);
                });
            }
            let artifact = format!("artifact:{to}:");
            obs.failures.retain(|subject, _| !subject.starts_with(&artifact));
        }
        Fact::InstanceRevived { instance, .. } => {
            obs.failures.remove(&format!("start:{instance}"));
        }
        _ => {}
    }
}
