//! Records what front ends are shown while a rollout is under way, for `replay`. It listens like any other client; the
//! loop that steers does not know of it, and when something fails here it says so in the log and stops.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::clock::wall_ms;
use super::helm::Latest;
use super::samples::{Entry, Sample, Samples};
use crate::api::{Change, Delta, ServiceView, Snapshot};
use crate::text::Safe;

/// How long after its end a rollout is still recorded.
const AFTER_END_MS: u64 = 10_000;
/// Samples are written this often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Records until the controller ends.
pub async fn run(path: PathBuf, latest: Latest, mut updates: broadcast::Receiver<Arc<Delta>>) {
    let mut recorder = Recorder::default();
    let mut samples: Option<Samples> = None;
    let mut tick = tokio::time::interval(WRITE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let now = || latest.read().unwrap_or_else(PoisonError::into_inner).current();
    recorder.all(wall_ms(), &now());
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                Ok(delta) => {
                    if recorder.delta(wall_ms(), &delta) {
                        recorder.all(wall_ms(), &now());
                    }
                }
                Err(RecvError::Lagged(_)) => recorder.all(wall_ms(), &now()),
                Err(RecvError::Closed) => return,
            },
            _ = tick.tick() => {
                let entries = recorder.due(wall_ms());
                if entries.is_empty() {
                    continue;
                }
                let (path, open) = (path.clone(), samples.take());
                let written = tokio::task::spawn_blocking(move || {
                    let mut samples = match open {
                        Some(samples) => samples,
                        None => Samples::open(&path)?,
                    };
                    samples.write(&entries).map(|()| samples)
                });
                match written.await {
                    Ok(Ok(open)) => samples = Some(open),
                    Ok(Err(e)) => return gives_up(&e),
                    Err(e) => return gives_up(&e),
                }
            }
        }
    }
}

fn gives_up(why: &dyn std::fmt::Display) {
    eprintln!(
        "pilothouse: rollouts are no longer recorded until the next controller, replay shows less: {why}"
    );
}

/// What is being recorded, and what waits to be written.
#[derive(Default)]
struct Recorder {
    /// By service: the rollout, and when its recording ends.
    active: BTreeMap<Safe, (Safe, Option<u64>)>,
    /// Number of the last state that was written.
    shown: u64,
    waiting: Vec<Entry>,
}

impl Recorder {
    /// Takes in a whole picture: at first, after a gap, and when a recording begins.
    fn all(&mut self, now: u64, snapshot: &Snapshot) {
        for service in &snapshot.services {
            self.look(now, service);
        }
        self.shown = snapshot.seq;
        let rollouts: Vec<String> = self.active.values().map(|(id, _)| id.to_string()).collect();
        if rollouts.is_empty() {
            return;
        }
        self.waiting.extend(rollouts.into_iter().map(Entry::Begin));
        self.sample(now, true, snapshot);
    }

    /// Takes in what changed; `true` when a whole picture is needed.
    fn delta(&mut self, now: u64, delta: &Delta) -> bool {
        let mut whole = delta.seq > self.shown + 1 && !self.active.is_empty();
        if delta.seq <= self.shown {
            return false;
        }
        for change in &delta.changes {
            match change {
                Change::Service(service) => whole |= self.look(now, service),
                Change::ServiceGone(name) => self.ends(now, name),
                _ => {}
            }
        }
        if !whole && !self.active.is_empty() {
            self.sample(now, false, delta);
        }
        self.shown = delta.seq;
        whole
    }

    /// Whether a recording begins with this view of a service.
    fn look(&mut self, now: u64, service: &ServiceView) -> bool {
        let under_way = service.rollout.as_ref().filter(|r| !r.status.ended()).map(|r| &r.id);
        let recorded = self.active.get(&service.name).map(|(id, _)| id);
        match (under_way, recorded) {
            (Some(id), recorded) if recorded != Some(id) => {
                let before = self.active.insert(service.name.clone(), (id.clone(), None));
                self.waiting.extend(before.map(|(id, _)| Entry::End(id.to_string())));
                true
            }
            (None, Some(_)) => {
                self.ends(now, &service.name);
                false
            }
            _ => false,
        }
    }

    fn ends(&mut self, now: u64, service: &Safe) {
        if let Some((_, ends)) = self.active.get_mut(service) {
            ends.get_or_insert(now + AFTER_END_MS);
        }
    }

    fn sample<T: serde::Serialize>(&mut self, at_ms: u64, whole: bool, what: &T) {
        // Our own types always serialise; one that did not would show as a gap.
        if let Ok(body) = serde_json::to_string(what) {
            self.waiting.push(Entry::Sample(Sample { at_ms, whole, body }));
        }
    }

    /// What is to be written now.
    fn due(&mut self, now: u64) -> Vec<Entry> {
        let over = |ends: Option<u64>| ends.is_some_and(|at| at <= now);
        let ended =
            self.active.values().filter(|(_, ends)| over(*ends)).map(|(id, _)| Entry::End(id.to_string()));
        self.waiting.extend(ended);
        self.active.retain(|_, (_, ends)| !over(*ends));
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RolloutStatus, RolloutView};

    fn service(name: &str, rollout: &str, status: RolloutStatus) -> ServiceView {
        let rollout = RolloutView { id: rollout.into(), status, ..RolloutView::default() };
        ServiceView { name: name.into(), rollout: Some(rollout), ..ServiceView::default() }
    }

    fn change(seq: u64, service: ServiceView) -> Delta {
        Delta { seq, changes: vec![Change::Service(Box::new(service))] }
    }

    /// `B id`, `S seq`, `D seq`, `E id`.
    fn said(entries: &[Entry]) -> Vec<String> {
        let seq = |s: &Sample| serde_json::from_str::<serde_json::Value>(&s.body).unwrap()["seq"].to_string();
        let one = |e: &Entry| match e {
            Entry::Begin(id) => format!("B {id}"),
            Entry::Sample(s) if s.whole => format!("S {}", seq(s)),
            Entry::Sample(s) => format!("D {}", seq(s)),
            Entry::End(id) => format!("E {id}"),
        };
        entries.iter().map(one).collect()
    }

    fn picture(seq: u64, services: Vec<ServiceView>) -> Snapshot {
        Snapshot { seq, services, ..Snapshot::default() }
    }

    #[test]
    fn a_rollout_is_recorded_from_its_start_to_ten_seconds_after_its_end() {
        use RolloutStatus::{Done, Running};
        let mut r = Recorder::default();
        r.all(0, &picture(5, vec![service("web", "web-1", Done)]));
        assert!(!r.delta(1, &change(6, service("web", "web-1", Done))));
        assert_eq!(r.due(1), [], "nothing is under way");
        assert!(r.delta(2, &change(7, service("web", "web-2", Running))), "the whole picture is wanted");
        // By then the next change may be in it already.
        r.all(2, &picture(8, vec![service("web", "web-2", Running)]));
        assert!(!r.delta(3, &change(8, service("web", "web-2", Running))));
        assert!(!r.delta(3, &change(9, service("web", "web-2", Running))));
        assert_eq!(said(&r.due(3)), ["B web-2", "S 8", "D 9"]);
        assert!(!r.delta(4, &change(10, service("web", "web-2", Done))));
        assert!(!r.delta(5, &Delta { seq: 11, changes: vec![] }));
        assert_eq!(said(&r.due(9_000)), ["D 10", "D 11"]);
        assert!(!r.delta(9_500, &Delta { seq: 12, changes: vec![] }));
        assert_eq!(said(&r.due(4 + AFTER_END_MS)), ["D 12", "E web-2"]);
        assert!(!r.delta(20_000, &Delta { seq: 13, changes: vec![] }));
        assert_eq!(r.due(30_000), []);
    }

    #[test]
    fn a_second_rollout_and_a_gap_begin_with_a_whole_picture() {
        use RolloutStatus::{Done, Running};
        let mut r = Recorder::default();
        let both = || vec![service("api", "api-1", Running), service("web", "web-2", Running)];
        r.all(0, &picture(5, vec![service("web", "web-2", Running)]));
        assert!(r.delta(1, &change(6, service("api", "api-1", Running))));
        r.all(1, &picture(6, both()));
        assert_eq!(said(&r.due(1)), ["B web-2", "S 5", "B api-1", "B web-2", "S 6"]);
        assert!(r.delta(2, &Delta { seq: 9, changes: vec![] }), "7 and 8 are missing");
        r.all(2, &picture(9, both()));
        assert_eq!(said(&r.due(2)), ["B api-1", "B web-2", "S 9"]);
        // The next rollout of the same service begins before the recording of the last one has ended.
        assert!(!r.delta(3, &change(10, service("web", "web-2", Done))));
        assert!(r.delta(4, &change(11, service("web", "web-3", Running))));
        r.all(4, &picture(11, vec![service("api", "api-1", Running), service("web", "web-3", Running)]));
        assert_eq!(said(&r.due(4)), ["D 10", "E web-2", "B api-1", "B web-3", "S 11"]);
    }
}
