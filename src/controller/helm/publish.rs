//! What front ends get: a snapshot, then what changed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::{Helm, PUBLISH_EVERY};
use crate::api::{Change, Delta, EventView, ProbeView, Snapshot, TAIL, Trends};
use crate::controller::clock::wall_ms;
use crate::controller::view::{self, Sources};
use crate::text::Safe;

/// What was published last.
#[derive(Default)]
pub struct Published {
    /// The snapshot, but for events and probes.
    pub snapshot: Arc<Snapshot>,
    /// What happened last.
    events: VecDeque<EventView>,
    /// The last probes.
    probes: VecDeque<ProbeView>,
    /// When each service's countdown had the value that is in the snapshot.
    pub countdowns: HashMap<Safe, Instant>,
    /// What the revisions did over the last minutes.
    pub trends: Trends,
}

impl Published {
    /// The snapshot as of now, for a client that begins to watch.
    #[must_use]
    pub fn current(&self) -> Snapshot {
        let mut s = (*self.snapshot).clone();
        s.events = self.events.iter().cloned().collect();
        s.probes = self.probes.iter().cloned().collect();
        for service in &mut s.services {
            let since = self.countdowns.get(&service.name);
            if let (Some(r), Some(since)) = (service.rollout.as_mut(), since) {
                r.gate_left_ms = r.gate_left_ms.map(|left| left.saturating_sub(millis(since.elapsed())));
            }
        }
        s
    }

    /// Something happened.
    pub fn happened(&mut self, event: EventView) {
        push(&mut self.events, event);
    }

    /// Keeps what is only ever added.
    fn keep_tails(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Event(event) => self.happened(event.clone()),
                Change::Probe(probe) => push(&mut self.probes, probe.clone()),
                _ => {}
            }
        }
    }
}

fn push<T>(tail: &mut VecDeque<T>, value: T) {
    if tail.len() >= TAIL {
        tail.pop_front();
    }
    tail.push_back(value);
}

/// Shared with the API server.
pub type Latest = Arc<RwLock<Published>>;

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Helm {
    /// Publishes what changed since the last time.
    pub(super) fn publish(&mut self) {
        self.tell();
        let wall_ms = wall_ms();
        for s in self.state.services.values() {
            if let Some(r) = &s.rollout {
                let (service, rollout) = (s.spec.name.as_str(), r.id.as_str());
                self.numbers.compare(service, rollout, view::compares(r), wall_ms);
            }
        }
        let sources = Sources {
            state: &self.state,
            obs: &self.obs,
            numbers: &self.numbers,
            usage: &self.usage,
            versions: &self.versions,
            now: self.clock.now(),
            wall_ms,
        };
        let mut next = view::snapshot(&sources);
        next.controller = self.hello.clone();
        next.watchers.clone_from(&self.watchers);
        next.alarms.clone_from(&self.alarms);
        next.alarms.extend(self.keeper.trouble());
        next.alarms.extend(self.notifier.trouble());
        next.alarms.extend(self.exporter.trouble());
        next.alarms.extend(self.analyst.trouble().map(|t| Safe::new(&t)));
        next.alarms.extend(self.numbers.losing(sources.now));
        let (last, mut countdowns) = {
            let guard = self.latest.read().unwrap_or_else(PoisonError::into_inner);
            (guard.snapshot.clone(), guard.countdowns.clone())
        };
        keep_countdowns(&mut next, &last, &mut countdowns);
        keep_since(&mut next, &last);
        let mut changes = last.changes_to(&next);
        changes.append(&mut self.pending);
        self.published = Instant::now();
        self.publish_after = PUBLISH_EVERY;
        self.measured(wall_ms, &next);
        if changes.is_empty() && last.schema == next.schema {
            return;
        }
        next.seq = last.seq + 1;
        let delta = Arc::new(Delta { seq: next.seq, changes });
        {
            let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
            latest.keep_tails(&delta.changes);
            (latest.snapshot, latest.countdowns) = (Arc::new(next), countdowns);
        }
        // No receiver is fine: nobody is watching.
        let _ = self.updates.send(delta);
    }

    /// Keeps what the revisions do now for those who begin to watch later.
    fn measured(&self, wall_ms: u64, next: &Snapshot) {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        next.services.iter().for_each(|s| latest.trends.record(wall_ms, s));
        latest.trends.retain(|name| next.services.binary_search_by(|s| s.name.cmp(name)).is_ok());
    }
}

/// A place that is empty since the same moment is not a change, though the moment is computed anew each time.
fn keep_since(next: &mut Snapshot, last: &Snapshot) {
    for service in &mut next.services {
        let old = last.services.iter().find(|s| s.name == service.name);
        let Some((r, before)) = service.rollout.as_mut().zip(old.and_then(|s| s.rollout.as_ref())) else {
            continue;
        };
        for e in &mut r.empty {
            let same = before.empty.iter().find(|b| b.instance == e.instance);
            if let Some(b) = same.filter(|b| b.since_ms.abs_diff(e.since_ms) < 1500) {
                e.since_ms = b.since_ms;
            }
        }
    }
}

/// A countdown that runs as expected is not a change: clients count down by themselves.
fn keep_countdowns(next: &mut Snapshot, last: &Snapshot, countdowns: &mut HashMap<Safe, Instant>) {
    for service in &mut next.services {
        let fresh = service.rollout.as_ref().and_then(|r| r.gate_left_ms);
        let old = last.services.iter().find(|s| s.name == service.name);
        let before = old.and_then(|s| s.rollout.as_ref()).and_then(|r| r.gate_left_ms);
        let elapsed = countdowns.get(&service.name).map_or(0, |since| millis(since.elapsed()));
        let expected = before.map(|b| b.saturating_sub(elapsed));
        let runs_on = matches!((fresh, expected), (Some(f), Some(e)) if f.abs_diff(e) < 1500);
        if runs_on && let Some(r) = service.rollout.as_mut() {
            r.gate_left_ms = before;
            if old == Some(&*service) {
                continue;
            }
        }
        if let Some(r) = service.rollout.as_mut() {
            r.gate_left_ms = fresh;
        }
        countdowns.insert(service.name.clone(), Instant::now());
    }
}
