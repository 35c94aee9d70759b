//! What the requests of one rollout say about its candidate: counts of both revisions over the same seconds, in; a
//! verdict with its numbers, out. No clock and no I/O; all of it can be written down and read back.

mod lost;

use serde::{Deserialize, Serialize};

use self::lost::Lost;
use crate::analysis::{AbsoluteBound, Combined, Count, Process, Rate, Settings, State, Tick, UpperBound};
use crate::fleet::model::Analysis;
use crate::fleet::names::{Millis, ProxyName, RolloutId};
use crate::rollout::world::Verdict;
use crate::text::{Safe, thousands};
use crate::traffic::Counters;
use crate::traffic::loss::LogLoss;

/// Answers of stable that must have been timed before a threshold is taken from them.
const LEAST_TIMED: u64 = 200;
/// What nobody feels: an answer is slow when it takes longer than stable's quantile and this.
const SLACK_US: u64 = 5_000;
/// The candidate's first answers may be slow.
const WARM_UP: Millis = Millis::secs(30);
/// Evidence (as its logarithm) below which there is nothing worth saying: twice as likely one way as the other.
const WORTH_SAYING: f64 = 0.7;

/// What is counted as bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bad {
    /// A request that failed, or an attempt that was tried again elsewhere.
    Failed,
    /// An answer that took longer than this many microseconds.
    Slower(u64),
}

/// One thing that is counted, and what it says: of the whole rollout for a failure, of this share alone for a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Metric {
    bad: Bad,
    whole: Process,
    here: Process,
    counted: Tick,
}

impl Metric {
    fn new(bad: Bad, settings: Settings) -> Self {
        let process = Process::new(settings);
        Self { bad, whole: process.clone(), here: process, counted: Tick::default() }
    }

    fn count(&self, did: &Counters) -> Count {
        match self.bad {
            // A request that failed here and was tried elsewhere is counted where it ended: it is one of these as well.
            Bad::Failed => Count::new(did.requests + did.retries, did.bad()),
            Bad::Slower(us) => Count::new(did.latency.count(), did.latency.above(us)),
        }
    }
}

/// The evidence of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Of which.
    pub rollout: RolloutId,
    /// When the candidate first had a share.
    began: Millis,
    phase: usize,
    phase_began: Millis,
    metrics: Vec<Metric>,
    whole: Combined,
    here: Combined,
    most: UpperBound,
    absolute: Option<AbsoluteBound>,
    /// What both did at this share.
    counted_here: Tick,
    looked: Millis,
    first_bad: Option<Millis>,
    stable_fails: Option<Millis>,
    #[serde(default)]
    lost: Lost,
}

impl Evidence {
    /// Nothing yet, from `now` on; `before` is what stable did in the time before it, and `divisor` what counts are
    /// divided by because requests of one client fail together (1 when they do not, or nobody knows).
    #[must_use]
    pub fn begin(
        rollout: RolloutId,
        phase: usize,
        a: &Analysis,
        before: &Counters,
        divisor: f64,
        now: Millis,
    ) -> Self {
        let settings = |tolerance, history| Settings {
            tolerance,
            alpha: a.alpha,
            history,
            divisor,
            ..Settings::default()
        };
        let failures = Count::new(before.requests + before.retries, before.bad());
        let mut metrics = vec![Metric::new(Bad::Failed, settings(a.tolerance, failures))];
        let timed = before.latency.count();
        if a.latency && timed >= LEAST_TIMED {
            for (quantile, tolerance) in [(0.5, Rate::SLOWER_MEDIAN), (0.95, Rate::SLOWER_TAIL)] {
                let Some(us) = before.latency.quantile_us(quantile) else { continue };
                let us = us.saturating_add(SLACK_US);
                let slow = Count::new(timed, before.latency.above(us));
                metrics.push(Metric::new(Bad::Slower(us), settings(tolerance, slow)));
            }
        }
        Self {
            rollout,
            began: now,
            phase,
            phase_began: now,
            metrics,
            whole: Combined::new(a.alpha, Rate::ALPHA_PASS),
            here: Combined::new(a.alpha, Rate::ALPHA_PASS),
            most: UpperBound::new(a.tolerance, Rate::ALPHA_PASS),
            absolute: a.max_errors.map(|bound| AbsoluteBound::new(bound, a.alpha)),
            counted_here: Tick::default(),
            looked: now,
            first_bad: None,
            stable_fails: None,
            lost: Lost::default(),
        }
    }

    /// Another share is in force from `now` on: what was seen before says nothing about a pass at this one. What spoke
    /// against the candidate goes on speaking.
    pub fn enter(&mut self, phase: usize, a: &Analysis, now: Millis) {
        if phase == self.phase {
            return;
        }
        let t = seconds(now, self.began);
        for m in &mut self.metrics {
            m.whole.close(t);
            // Everything that was learnt of stable is known when the next share begins.
            let mut settings = *m.whole.settings();
            settings.history.add(m.counted.stable);
            m.here = Process::new(settings);
        }
        (self.phase, self.phase_began) = (phase, now);
        self.here = Combined::new(a.alpha, Rate::ALPHA_PASS);
        self.most = UpperBound::new(a.tolerance, Rate::ALPHA_PASS);
        self.counted_here = Tick::default();
        self.lost.enter();
    }

    /// What came and was lost of a proxy's log lines between the last time and the next tick, which takes that into account.
    pub fn lost(&mut self, proxy: &ProxyName, lost: &LogLoss) {
        self.lost.take(proxy, lost);
    }

    /// Takes in what both did between the last time and `now`.
    pub fn tick(&mut self, now: Millis, stable: &Counters, candidate: &Counters) {
        let (whole_t, here_t) = (seconds(now, self.began), seconds(now, self.phase_began));
        let warm = now.since(self.began) >= WARM_UP;
        let gap = self.lost.tick();
        for m in &mut self.metrics {
            if matches!(m.bad, Bad::Slower(_)) && !warm {
                continue;
            }
            let seen = Tick { stable: m.count(stable), candidate: m.count(candidate) };
            m.counted.stable.add(seen.stable);
            m.counted.candidate.add(seen.candidate);
            m.whole.tick(whole_t, seen);
            let complete = !gap.covers(m.bad);
            let block = if complete { m.here.tick(here_t, seen) } else { None };
            if m.bad == Bad::Failed {
                if complete {
                    self.counted_here.stable.add(seen.stable);
                    self.counted_here.candidate.add(seen.candidate);
                }
                if let Some(block) = block {
                    self.most.observe(&block);
                }
                if seen.candidate.bad > 0 {
                    self.first_bad.get_or_insert(self.looked);
                }
                if let Some(absolute) = &mut self.absolute {
                    absolute.tick(seen.candidate);
                }
            }
        }
        self.whole.look(self.metrics.iter().map(|m| &m.whole));
        self.here.look(self.metrics.iter().map(|m| &m.here));
        // Failures come first; slow answers alone are no reason to hold.
        let failing = self.metrics.first().and_then(|m| m.whole.holding_since());
        self.stable_fails = failing.map(|_| self.stable_fails.unwrap_or(now));
        self.lost.missed(self.metrics.iter().any(|m| gap.covers(m.bad)), now);
        self.looked = now;
    }

    fn state(&self) -> State {
        if self.whole.state() == State::Fail || self.absolute.as_ref().is_some_and(AbsoluteBound::failed) {
            State::Fail
        } else if self.stable_fails.is_some() {
            State::Hold
        } else {
            match self.here.state() {
                State::Pass if !self.lost.going_on => State::Pass,
                State::Pass | State::Wait | State::Fail | State::Hold => State::Wait,
            }
        }
    }

    /// What it says now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let state = self.state();
        // A pass still waits for a time without a gap.
        let lost = if matches!(state, State::Wait | State::Pass) { self.lost.words() } else { String::new() };
        Verdict {
            rollout: self.rollout.clone(),
            phase: self.phase,
            state,
            stable_fails: self.stable_fails,
            first_bad: self.first_bad,
            counted_since: self.lost.counted_since(),
            words: Safe::new(&format!("{}{}{lost}", self.words(state), self.together())),
        }
    }

    /// The numbers in words.
    fn words(&self, state: State) -> String {
        let Some(failed) = self.metrics.first() else { return String::new() };
        match state {
            State::Fail => self.against(),
            State::Hold => format!(
                "stable itself fails: {} of its requests in all, {} of the candidate's; nothing is decided meanwhile",
                of(failed.counted.stable),
                of(failed.counted.candidate)
            ),
            State::Pass | State::Wait => {
                let Tick { stable, candidate } = self.counted_here;
                if candidate.n == 0 || stable.n == 0 {
                    return "no requests of both versions at this share yet".to_owned();
                }
                let most = match self.most.difference() {
                    Some(d) => format!("at most {} points worse (95%)", points(d)),
                    None => "too few to tell".to_owned(),
                };
                let evidence = self.whole.log_fail();
                let sign = match state {
                    State::Wait if evidence >= WORTH_SAYING => {
                        format!("; {} sure it is worse", sure(evidence))
                    }
                    _ => String::new(),
                };
                format!("{} failed, stable {}: {most}{sign}", of(candidate), of(stable))
            }
        }
    }

    /// Why counts mean less than they seem to.
    fn together(&self) -> String {
        match self.metrics.first().map_or(1.0, |m| m.whole.settings().divisor) {
            d if d >= 1.05 => {
                let text = format!("{d:.1}");
                let text = text.strip_suffix(".0").unwrap_or(&text);
                format!(" (one in {text} counted: requests of one client fail together)")
            }
            _ => String::new(),
        }
    }

    /// What speaks against the candidate.
    fn against(&self) -> String {
        let worst = self.metrics.iter().max_by(|a, b| a.whole.log_fail().total_cmp(&b.whole.log_fail()));
        let absolute = self.absolute.as_ref().filter(|a| a.failed());
        if let Some(absolute) = absolute.filter(|_| self.whole.state() != State::Fail) {
            let counted = self.metrics.first().map(|m| m.counted).unwrap_or_default();
            return format!(
                "{} requests failed: {} sure that over {} do (stable {})",
                of(counted.candidate),
                sure(absolute.log_evidence()),
                percent(absolute.bound().fraction()),
                of(counted.stable)
            );
        }
        let Some(m) = worst else { return String::new() };
        let Tick { stable, candidate } = m.counted;
        let what = match m.bad {
            Bad::Failed => "requests failed".to_owned(),
            Bad::Slower(us) => format!("answers took longer than {} ms", us / 1000),
        };
        format!(
            "{} {what}, stable {}: {} sure it is over {} points worse",
            of(candidate),
            of(stable),
            sure(self.whole.log_fail()),
            points(m.whole.settings().tolerance.fraction())
        )
    }
}

/// Seconds since `began`.
fn seconds(now: Millis, began: Millis) -> f64 {
    now.since(began).0 as f64 / 1000.0
}

/// `12 of 9,120`
fn of(c: Count) -> String {
    format!("{} of {}", thousands(c.bad.min(c.n)), thousands(c.n))
}

/// How sure evidence makes: the chance of this much of it without a cause, at any time at all, is at most one in `e^log`.
fn sure(log: f64) -> String {
    let chance = (1.0 - (-log).exp()).clamp(0.0, 0.999);
    percent((chance * 1000.0).floor() / 1000.0)
}

/// `99.7%`
fn percent(part: f64) -> String {
    let text = format!("{:.1}", part * 100.0);
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// A difference of rates in points, with two digits that mean something.
fn points(difference: f64) -> String {
    let p = difference * 100.0;
    let text = if p >= 10.0 { format!("{p:.0}") } else { format!("{p:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests;
