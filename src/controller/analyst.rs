//! Watches what the proxies count for rollouts that are to be judged, and keeps what was seen over a restart: evidence
//! that began anew would be given its chance of a false alarm once more.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::evidence::Evidence;
use super::numbers::Numbers;
use crate::analysis::{Count, Split, divisor};
use crate::fleet::names::{Bp, Millis, ProxyName, RevisionId, ServiceName};
use crate::rollout::decide;
use crate::rollout::state::{ServiceState, State, Status};
use crate::rollout::world::Verdict;
use crate::traffic::loss::LogLoss;
use crate::traffic::{Counters, Half};

/// It looks about once a second, as often as the proxies are asked.
const LOOK_EVERY: Millis = Millis(900);
/// What stable did is remembered in steps of this, and for so many of them: five minutes.
const PAST_EVERY: Millis = Millis::secs(10);
const PAST: usize = 30;

/// Whether requests of one client fail together is told from stable's, over an hour in batches of half a minute.
const BATCH: Millis = Millis::secs(30);
const BATCHES: usize = 120;
/// Batches without which that would be a guess.
const LEAST_BATCHES: usize = 10;

/// What is known of one service between two looks.
#[derive(Default)]
struct Watched {
    /// Everything that was counted for the revision that serves, now and then.
    past: VecDeque<(Millis, Counters)>,
    /// Whose past that is.
    stable: Option<RevisionId>,
    /// The two halves of its clients, batch by batch.
    batches: VecDeque<Split>,
    /// When the batch began that is being counted, and what had been counted then.
    batch: Option<(Millis, [Half; 2])>,
    /// What there was when it looked last, while the candidate had a share.
    last: Option<Last>,
}

/// What was counted at one moment.
struct Last {
    stable: Counters,
    candidate: Counters,
    /// What had come and was lost of the log lines by which that was counted.
    lines: BTreeMap<ProxyName, LogLoss>,
}

/// The analyst.
pub struct Analyst {
    file: PathBuf,
    watched: BTreeMap<ServiceName, Watched>,
    evidence: BTreeMap<ServiceName, Evidence>,
    looked: Option<Millis>,
    trouble: Option<String>,
}

impl Analyst {
    /// Goes on with what was written down in `dir`.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let file = dir.join("evidence.json");
        let (evidence, trouble) = match std::fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(evidence) => (evidence, None),
                Err(e) => (BTreeMap::new(), Some(format!("{}: {e}", file.display()))),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), None),
            Err(e) => (BTreeMap::new(), Some(format!("{}: {e}", file.display()))),
        };
        Self { file, watched: BTreeMap::new(), evidence, looked: None, trouble }
    }

    /// Looks at what was counted by `now`; `None` when it looked just before.
    pub fn look(
        &mut self,
        state: &State,
        numbers: &Numbers,
        now: Millis,
    ) -> Option<BTreeMap<ServiceName, Verdict>> {
        if self.looked.is_some_and(|at| now.since(at) < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(now);
        let before = self.evidence.len();
        for (name, service) in &state.services {
            if service.spec.analysis.is_some() {
                self.look_at(name, service, numbers, now);
            }
        }
        self.evidence.retain(|name, e| {
            let r = state.services.get(name).and_then(ServiceState::active);
            r.is_some_and(|r| r.id == e.rollout)
        });
        if !self.evidence.is_empty() || before > 0 {
            self.keep();
        }
        Some(self.evidence.iter().map(|(name, e)| (name.clone(), e.verdict())).collect())
    }

    fn look_at(&mut self, name: &ServiceName, service: &ServiceState, numbers: &Numbers, now: Millis) {
        let watched = self.watched.entry(name.clone()).or_default();
        let Some(stable) = &service.stable else { return };
        let Some(stable_total) = numbers.totals(name.as_str(), stable, &service.spec.proxies) else { return };
        if watched.stable.as_ref() != Some(stable) {
            *watched = Watched { stable: Some(stable.clone()), ..Watched::default() };
        }
        let judged = service.active().and_then(|r| Some((r, decide::judged(service, r)?)));
        let Some((r, a)) = judged else {
            watched.remember(now, stable_total);
            return;
        };
        // What is counted while versions change is no batch of one.
        watched.batch = None;
        let share = *service.weights.get(r.slot);
        let stands = matches!(r.status, Status::Running | Status::Paused);
        let both = share > Bp::ZERO && share < Bp::FULL && service.slots.get(r.slot).as_ref() == Some(&r.to);
        if !(stands && both) {
            watched.last = None;
            return;
        }
        let candidate_total = numbers.totals(name.as_str(), &r.to, &service.spec.proxies).unwrap_or_default();
        if self.evidence.get(name).is_none_or(|e| e.rollout != r.id) {
            let before = watched.past.front().map(|(_, then)| stable_total.since(then)).unwrap_or_default();
            let evidence = Evidence::begin(r.id.clone(), r.phase, &a, &before, watched.divisor(), now);
            self.evidence.insert(name.clone(), evidence);
        }
        let Some(evidence) = self.evidence.get_mut(name) else { return };
        // What was counted between two looks belongs to the share that was in force then.
        let lines = numbers.lines_of(&service.spec.proxies);
        if let Some(then) = &watched.last {
            for (proxy, so_far) in &lines {
                let before = then.lines.get(proxy).copied().unwrap_or_default();
                evidence.lost(proxy, &so_far.since(&before));
            }
            evidence.tick(now, &stable_total.since(&then.stable), &candidate_total.since(&then.candidate));
        }
        evidence.enter(r.phase, &a, now);
        watched.last = Some(Last { stable: stable_total, candidate: candidate_total, lines });
    }

    /// Writes down what was seen. It need not survive a power cut: a second that was not counted says nothing either way.
    fn keep(&mut self) {
        let text = serde_json::to_vec(&self.evidence).map_err(io::Error::other);
        let temp = self.file.with_extension("json.new");
        let kept =
            text.and_then(|t| std::fs::write(&temp, t)).and_then(|()| std::fs::rename(&temp, &self.file));
        self.trouble = kept.err().map(|e| format!("{}: {e}", self.file.display()));
    }

    /// What keeps it from remembering, for people.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let why = self.trouble.as_ref()?;
        Some(format!("the evidence of rollouts cannot be kept ({why}); after a restart it would begin anew"))
    }
}

impl Watched {
    /// By what counts are divided because requests of one client fail together; 1 while too little is known.
    fn divisor(&self) -> f64 {
        let told = |b: &&Split| b.one.n > 0 && b.other.n > 0 && b.one.bad + b.other.bad > 0;
        if self.batches.iter().filter(told).count() < LEAST_BATCHES {
            return 1.0;
        }
        let batches: Vec<Split> = self.batches.iter().copied().collect();
        divisor(&batches).unwrap_or(1.0)
    }

    fn remember(&mut self, now: Millis, total: Counters) {
        self.last = None;
        let (began, then) = *self.batch.get_or_insert((now, total.halves));
        if now.since(began) >= BATCH {
            let [one, other] = total.halves;
            let count = |now: Half, then: Half| {
                Count::new(now.requests.saturating_sub(then.requests), now.bad.saturating_sub(then.bad))
            };
            let [one_then, other_then] = then;
            self.batches.push_back(Split { one: count(one, one_then), other: count(other, other_then) });
            while self.batches.len() > BATCHES {
                self.batches.pop_front();
            }
            self.batch = Some((now, total.halves));
        }
        if self.past.back().is_none_or(|(at, _)| now.since(*at) >= PAST_EVERY) {
            self.past.push_back((now, total));
            while self.past.len() > PAST {
                self.past.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quarter of an hour of stable, a thousand requests each half a minute, of which the halves have these many bad.
    fn watched(batches: u64, bad: impl Fn(u64) -> [u64; 2]) -> Watched {
        let mut w = Watched::default();
        let mut total = Counters::default();
        for n in 0..=batches {
            w.remember(Millis::secs(30 * n), total.clone());
            for (half, bad) in total.halves.iter_mut().zip(bad(n)) {
                half.requests += 500;
                half.bad += bad;
            }
        }
        w
    }

    #[test]
    fn clients_that_fail_together_are_told_from_their_halves_once_enough_is_known() {
        // Ten of a client's requests at once, now in one half and now in the other.
        let together = |n: u64| if n.is_multiple_of(2) { [20, 0] } else { [0, 20] };
        let told = watched(30, together).divisor();
        assert!((10.0..40.0).contains(&told), "{told}");
        assert!((watched(9, together).divisor() - 1.0).abs() < f64::EPSILON, "too little to tell");
        let alone = watched(30, |n| [10 + n % 3, 10 + (n + 1) % 3]).divisor();
        assert!((1.0..1.2).contains(&alone), "{alone}");
        assert!((watched(30, |_| [0, 0]).divisor() - 1.0).abs() < f64::EPSILON, "nothing fails");
        assert_eq!(watched(300, together).batches.len(), BATCHES);
    }
}
