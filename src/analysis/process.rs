//! The e-process of one metric: blocks, bets, what they add up to, and what that means.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::block::{Alternative, Count, Tick, log_e, shape};
use super::rate::Rate;
use super::{exact, log_sum_exp};

/// Where between stable's rate plus the tolerance and 1 the grid of alternatives lies.
const GRID: [f64; 5] = [0.005, 0.015, 0.05, 0.2, 0.9];
/// Bets of the FAIL process: the learner, then the grid.
const BETS: usize = 6;
/// What each of them has of the stake.
const WEIGHTS: [f64; BETS] = [0.25, 0.15, 0.15, 0.15, 0.15, 0.15];
/// What is kept back at first, for a failure that begins late.
const RESERVE: f64 = 0.2;
/// How long it takes until the reserve is a third, in seconds.
const RESERVE_S: f64 = 600.0;
/// Bets of the PASS process.
pub(super) const PASSES: usize = 3;
/// Seconds after which what was seen counts half.
const HALF_LIFE_S: f64 = 120.0;
/// Requests of stable that a block needs; of the candidate it needs one.
const STABLE_LEAST: u64 = 3;
/// Blocks that are skipped when stable itself fails.
const HOLD_BLOCKS: u32 = 3;
/// Bad requests of stable in a block below which it is not taken to fail, and the rate likewise.
const HOLD_LEAST: u64 = 3;
const HOLD_RATE: f64 = 0.2;
/// And how many times its usual rate.
const HOLD_TIMES: f64 = 4.0;
/// Above this rate of stable plus tolerance nothing can be told, and no bet is made.
const HOPELESS: f64 = 0.97;

/// What a process is asked, and what was known before it began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How much higher the candidate's rate of bad requests may be than stable's, as a difference of the two.
    pub tolerance: Rate,
    /// The chance of ever calling a candidate that is within the tolerance a failure.
    pub alpha: Rate,
    /// The same for calling one a pass that is not.
    pub alpha_pass: Rate,
    /// By what all counts are divided because requests of one client fail together; see [`super::divisor()`]. Less than
    /// 1, or no finite number, counts as 1.
    #[serde(with = "exact")]
    pub divisor: f64,
    /// Stable's requests before the rollout, as far back as its rate was the same.
    pub history: Count,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tolerance: Rate::TOLERANCE,
            alpha: Rate::ALPHA,
            alpha_pass: Rate::ALPHA_PASS,
            divisor: 1.0,
            history: Count::default(),
        }
    }
}

/// What the evidence says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Inconclusive so far.
    #[default]
    Wait,
    /// The candidate is within the tolerance, so far. It is taken back when the evidence is.
    Pass,
    /// The candidate is worse by more than the tolerance. Once said, it stays.
    Fail,
    /// Stable itself fails: blocks are skipped, and nothing is decided.
    Hold,
}

impl State {
    /// What evidence means: a failure stays one, then comes what stable suffers from, then a pass.
    pub(super) fn of(failed: bool, holding: bool, log_pass: f64, alpha_pass: Rate) -> Self {
        match () {
            () if failed => Self::Fail,
            () if holding => Self::Hold,
            () if log_pass >= alpha_pass.threshold() => Self::Pass,
            () => Self::Wait,
        }
    }

    /// In one word: `wait`, `pass`, `fail` or `hold`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Requests and bad ones of both revisions, older ones counting less.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    #[serde(with = "exact")]
    stable_n: f64,
    #[serde(with = "exact")]
    stable_bad: f64,
    #[serde(with = "exact")]
    candidate_n: f64,
    #[serde(with = "exact")]
    candidate_bad: f64,
}

impl Estimates {
    fn new(history: Count) -> Self {
        Self {
            stable_n: history.n as f64,
            stable_bad: history.failed() as f64,
            candidate_n: 0.0,
            candidate_bad: 0.0,
        }
    }

    /// Whether anything is known of stable.
    pub(super) fn known(&self) -> bool {
        self.stable_n >= 1.0
    }

    /// Stable's rate of bad requests.
    #[must_use]
    pub fn stable(&self) -> f64 {
        (self.stable_bad + 0.25) / (self.stable_n + 50.0)
    }

    /// The candidate's rates that a FAIL at `tolerance` is bet on.
    fn failures(&self, tolerance: f64) -> [f64; BETS] {
        let stable = self.stable();
        let edge = stable + tolerance;
        let learnt = (self.candidate_bad + 1.0) / (self.candidate_n + 20.0);
        let learnt = learnt.max(edge + 0.25 * tolerance + 0.05 * stable).min(0.98);
        let [a, b, c, d, e] = GRID.map(|f| edge + (1.0 - edge) * f);
        [learnt, a, b, c, d, e]
    }

    /// The candidate's rates that a PASS at `tolerance` is bet on.
    pub(super) fn passes(&self, tolerance: f64) -> [f64; PASSES] {
        let edge = self.stable() + tolerance;
        let pooled =
            (self.candidate_bad + self.stable_bad + 0.25) / (self.stable_n + self.candidate_n + 50.0);
        let own = (self.candidate_bad + 0.25) / (self.candidate_n + 50.0);
        [pooled, 0.5 * pooled + 0.5 * edge, own].map(|rate| rate.min(edge - 0.25 * tolerance))
    }

    /// `dt` seconds later, with what came in meanwhile.
    fn learn(&mut self, dt: f64, seen: &Tick) {
        let kept = 2.0_f64.powf(-dt / HALF_LIFE_S);
        self.stable_n = self.stable_n * kept + seen.stable.n as f64;
        self.stable_bad = self.stable_bad * kept + seen.stable.failed() as f64;
        self.candidate_n = self.candidate_n * kept + seen.candidate.n as f64;
        self.candidate_bad = self.candidate_bad * kept + seen.candidate.failed() as f64;
    }
}

/// A block that was closed and counts: what was seen, and what was known before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// What both revisions did in it.
    pub seen: Tick,
    /// What was known when it began.
    pub known: Estimates,
    /// By what its counts are divided.
    pub(super) divisor: f64,
}

/// The evidence of one metric, gathered block by block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    settings: Settings,
    known: Estimates,
    /// Logarithms of what the FAIL bets hold.
    #[serde(with = "exact::array")]
    fails: [f64; BETS],
    /// Logarithm of what is kept back.
    #[serde(with = "exact")]
    reserve: f64,
    /// Logarithms of what the PASS bets hold.
    #[serde(with = "exact::array")]
    passes: [f64; PASSES],
    /// The block that is still open.
    open: Tick,
    /// When the last block was closed.
    #[serde(with = "exact")]
    closed_s: f64,
    /// Blocks still to be skipped.
    skip: u32,
    /// The end of the block with which stable began to fail; `None` when it does not.
    holding_since: Option<Seconds>,
    #[serde(with = "exact")]
    log_fail: f64,
    #[serde(with = "exact")]
    log_pass: f64,
    failed: bool,
}

/// Seconds since the process began, written down exactly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Seconds(#[serde(with = "exact")] f64);

impl Process {
    /// A process that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            known: Estimates::new(settings.history),
            fails: WEIGHTS.map(|w| ((1.0 - RESERVE) * w).ln()),
            reserve: RESERVE.ln(),
            passes: [(1.0_f64 / 3.0).ln(); PASSES],
            open: Tick::default(),
            closed_s: 0.0,
            skip: 0,
            holding_since: None,
            log_fail: 0.0,
            log_pass: 0.0,
            failed: false,
        }
    }

    /// Takes in what both revisions did up to `t`, in seconds since the process began, and closes the block when it holds
    /// enough: one request of the candidate and three of stable. When that happens depends on counts, never on outcomes.
    ///
    /// Gives the block when it was closed and counts. A `t` that is less than the one before counts as the one before.
    pub fn tick(&mut self, t: f64, seen: Tick) -> Option<Block> {
        self.open.stable.add(seen.stable);
        self.open.candidate.add(seen.candidate);
        if self.open.candidate.n < 1 || self.open.stable.n < STABLE_LEAST {
            return None;
        }
        self.close(t)
    }

    /// Closes the block at `t` whatever it holds, because a new phase begins: shares change, and what came before belongs
    /// to the shares before. Requests that have none of the other revision beside them are learnt from and not bet on.
    pub fn close(&mut self, t: f64) -> Option<Block> {
        let seen = std::mem::take(&mut self.open);
        if seen == Tick::default() {
            return None;
        }
        let t = if t.is_finite() { t.max(self.closed_s) } else { self.closed_s };
        let dt = t - self.closed_s;
        self.closed_s = t;
        self.drip(dt);

        let skipped = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        self.look_at_stable(&seen, t);
        if skipped {
            return None;
        }
        if self.skip == 0 {
            self.holding_since = None;
        }

        let known = self.known;
        let both = seen.stable.n > 0 && seen.candidate.n > 0;
        let bet = both && self.can_bet();
        if bet {
            self.bet(&seen);
        }
        let [a, b, c, d, e, f] = self.fails;
        self.log_fail = log_sum_exp(&[a, b, c, d, e, f, self.reserve]);
        self.log_pass = log_sum_exp(&self.passes);
        self.failed |= self.log_fail >= self.settings.alpha.threshold();
        self.known.learn(dt, &seen);
        bet.then(|| Block { seen, known, divisor: self.divisor() })
    }

    /// Hands a part of the reserve to the bets: a failure may begin at any time.
    fn drip(&mut self, dt: f64) {
        let part = self.reserve + (-(-dt / RESERVE_S).exp()).ln_1p();
        for (log, weight) in self.fails.iter_mut().zip(WEIGHTS) {
            *log = log_sum_exp(&[*log, part + weight.ln()]);
        }
        self.reserve -= dt / RESERVE_S;
    }

    /// When stable itself fails, the next blocks are skipped: both suffer then, and one may suffer more for reasons that
    /// are not its own.
    fn look_at_stable(&mut self, seen: &Tick, t: f64) {
        let usual = if self.known.known() { HOLD_TIMES * self.known.stable() } else { 0.0 };
        let failed = seen.stable.failed();
        let fails = failed >= HOLD_LEAST && failed as f64 >= HOLD_RATE.max(usual) * seen.stable.n as f64;
        if fails {
            self.skip = HOLD_BLOCKS;
            self.holding_since.get_or_insert(Seconds(t));
        }
    }

    fn can_bet(&self) -> bool {
        self.known.known() && self.known.stable() + self.settings.tolerance.fraction() < HOPELESS
    }

    fn bet(&mut self, seen: &Tick) {
        let tolerance = self.settings.tolerance.fraction();
        let (stable, divisor) = (self.known.stable(), self.divisor());
        let won = |candidate| shape(log_e(seen, divisor, Alternative { stable, candidate }, tolerance));
        for (log, rate) in self.fails.iter_mut().zip(self.known.failures(tolerance)) {
            *log += won(rate);
        }
        for (log, rate) in self.passes.iter_mut().zip(self.known.passes(tolerance)) {
            *log += won(rate);
        }
    }

    fn divisor(&self) -> f64 {
        let divisor = self.settings.divisor;
        if divisor.is_finite() { divisor.max(1.0) } else { 1.0 }
    }

    /// What it is asked.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known of both revisions' rates.
    #[must_use]
    pub const fn estimates(&self) -> &Estimates {
        &self.known
    }

    /// The natural logarithm of the evidence that the candidate is worse than tolerated; `ln(1/α)` decides.
    #[must_use]
    pub const fn log_fail(&self) -> f64 {
        self.log_fail
    }

    /// The natural logarithm of the evidence that it is not; `ln(1/α)` of the pass decides.
    #[must_use]
    pub const fn log_pass(&self) -> f64 {
        self.log_pass
    }

    /// What the evidence says after the last block that was closed.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(self.failed, self.holding_since.is_some(), self.log_pass, self.settings.alpha_pass)
    }

    /// Since when stable itself fails, in seconds since the process began: the end of the block that showed it. It ends
    /// with the first block that counts again. Longer than half a minute is a reason not to promote, and when it began
    /// with a higher share, to step back.
    #[must_use]
    pub fn holding_since(&self) -> Option<f64> {
        self.holding_since.map(|Seconds(t)| t)
    }
}
