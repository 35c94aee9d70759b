//! A past rollout, played: the recorded updates go through the same model as live ones, at the time they came.

use std::collections::BTreeMap;

use crate::api::{Frame, Shown, Snapshot};
use crate::client::Update;
use crate::text::Safe;

use super::model::{Model, Replay};
use super::update::{Msg, update};

/// How fast it can go.
pub const SPEEDS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// How far one key goes, in milliseconds of the recording.
pub const STEP_MS: u64 = 10_000;
/// Frames between two places from which it can go on after scrubbing back.
const KEY_EVERY: usize = 500;

/// A recording, and how far it was played.
pub struct Player {
    frames: Vec<Frame>,
    /// The first frame that was not shown yet.
    next: usize,
    /// The picture before some frames, by their number.
    keys: BTreeMap<usize, Key>,
    begin_ms: u64,
}

/// A picture to go on from.
struct Key {
    snapshot: Box<Snapshot>,
    service_ms: BTreeMap<Safe, u64>,
}

impl Player {
    /// A player of a recording; `None` when there is nothing to see in it.
    #[must_use]
    pub fn new(mut frames: Vec<Frame>) -> Option<Self> {
        let whole = frames.iter().position(|f| matches!(f.what, Shown::Snapshot(_)))?;
        frames.drain(..whole);
        // The wall clock may have been set back in between; the order is what happened.
        let mut last = 0;
        for frame in &mut frames {
            last = frame.at_ms.max(last);
            frame.at_ms = last;
        }
        let begin_ms = frames.first()?.at_ms;
        Some(Self { frames, next: 0, keys: BTreeMap::new(), begin_ms })
    }

    /// How long the recording is, in milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> u64 {
        self.frames.last().map_or(0, |f| f.at_ms - self.begin_ms)
    }

    /// Opens the recording in `model`, at its beginning.
    pub fn open(&mut self, model: &mut Model, rollout: Safe, speed: u32) {
        // The service is what the rollout is named after; the operator may look at another one later.
        model.service = rollout.as_str().rsplit_once('-').map(|(service, _)| service.into());
        model.replay = Some(Replay { rollout, at_ms: 0, length_ms: self.length_ms(), speed, paused: false });
        self.play_to(model, 0);
    }

    /// Lets `elapsed_ms` of the operator's time pass.
    pub fn pass(&mut self, model: &mut Model, elapsed_ms: u64) {
        let Some(replay) = model.replay.as_ref().filter(|r| !r.paused) else { return };
        let to = replay.at_ms.saturating_add(elapsed_ms.saturating_mul(replay.speed.into()));
        self.play_to(model, to);
    }

    /// Goes to a place in the recording, forward or back.
    pub fn seek(&mut self, model: &mut Model, to_ms: u64) {
        let at = model.replay.as_ref().map_or(0, |r| r.at_ms);
        if to_ms < at {
            self.go_back(model, to_ms);
        }
        (model.health_back, model.events_back) = (0, 0);
        self.play_to(model, to_ms);
    }

    /// Goes back to a picture from before `to_ms`.
    fn go_back(&mut self, model: &mut Model, to_ms: u64) {
        let first_after = self.frames.partition_point(|f| f.at_ms - self.begin_ms <= to_ms);
        match self.keys.range(..=first_after).next_back() {
            Some((at, key)) => {
                self.next = *at;
                model.snapshot = Some(key.snapshot.clone());
                model.service_ms.clone_from(&key.service_ms);
                (model.rows_stale, model.counts_stale) = (true, true);
            }
            None => self.next = 0,
        }
    }

    /// Shows all frames up to `to_ms`, each at its time, and stands there; at the end it stays.
    fn play_to(&mut self, model: &mut Model, to_ms: u64) {
        let length = self.length_ms();
        let to_ms = to_ms.min(length);
        while let Some(frame) = self.frames.get(self.next) {
            let at = frame.at_ms - self.begin_ms;
            if at > to_ms {
                break;
            }
            if self.next.is_multiple_of(KEY_EVERY)
                && let Some(snapshot) = model.snapshot.as_ref().filter(|_| self.next > 0)
            {
                let key = || Key { snapshot: snapshot.clone(), service_ms: model.service_ms.clone() };
                self.keys.entry(self.next).or_insert_with(key);
            }
            self.next += 1;
            update(model, Msg::Time { now_ms: at, wall_ms: frame.at_ms });
            let shown = match &frame.what {
                Shown::Snapshot(s) => {
                    // Services that are gone leave no countdown behind.
                    model.service_ms.clear();
                    Update::Snapshot(s.clone())
                }
                // A gap is followed by a snapshot, until which the picture stands still.
                Shown::Delta(d) => Update::Delta(d.clone()),
            };
            update(model, Msg::Update(shown));
        }
        update(model, Msg::Time { now_ms: to_ms, wall_ms: self.begin_ms + to_ms });
        if let Some(replay) = &mut model.replay {
            replay.at_ms = to_ms;
            replay.paused |= to_ms == length;
        }
        model.dirty = true;
        model.settle();
    }
}

#[cfg(test)]
mod tests;
