//! One block: requests of both revisions over the same short time, and what a bet on them wins.

use serde::{Deserialize, Serialize};

/// Requests, and how many of them were bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Requests.
    pub n: u64,
    /// Of these, the bad ones: failed, or slower than a threshold. More than `n` counts as `n`.
    pub bad: u64,
}

impl Count {
    /// `bad` of `n` requests.
    #[must_use]
    pub const fn new(n: u64, bad: u64) -> Self {
        Self { n, bad }
    }

    /// The bad ones, never more than all.
    pub(super) fn failed(self) -> u64 {
        self.bad.min(self.n)
    }

    /// Adds what came in later.
    pub fn add(&mut self, more: Self) {
        self.n = self.n.saturating_add(more.n);
        self.bad = self.bad.saturating_add(more.failed());
    }
}

/// What both revisions did over the same time, as a rule one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The revision that serves now.
    pub stable: Count,
    /// The one that is tried.
    pub candidate: Count,
}

/// Rates of bad requests that a bet is made for: what stable is taken to do, and the candidate under the alternative.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alternative {
    pub(super) stable: f64,
    pub(super) candidate: f64,
}

/// Rates stay this far from 0 and 1.
const EDGE: f64 = 1e-7;
/// The most of what could be lost that is put at stake, so that nothing is ever lost for good.
const STAKE: f64 = 0.999;
/// Steps towards the projection; how close they come changes the power, never the validity.
const STEPS: usize = 8;
/// The part of each block's stake that is not insured: a block loses at most `ln 10`.
const AT_RISK: f64 = 0.9;
/// The most that one block may win, so that no single block decides.
const CAP: f64 = 2.5;
/// Above this `ln(1 + b·(e^ℓ − 1))` is `ℓ + ln b` to the last bit.
const LARGE: f64 = 30.0;

/// The logarithm of a block's e-value, for the hypothesis that the candidate's rate is at most stable's plus `tolerance`
/// when the alternative says that it is more, and at least stable's plus `tolerance` when the alternative says less.
///
/// All four counts are divided by `divisor`. Both revisions need a request: without, it is 0. The expectation of `e^ℓ` is
/// `A^nS · B^nC` with `nS·A + nC·B = n + λ(θC − θS − δ) ≤ n` under the hypothesis, so by the inequality of the arithmetic
/// and the geometric mean it is at most 1, for every `s` and `λ` of the right sign that were settled before the block.
pub(super) fn log_e(tick: &Tick, divisor: f64, at: Alternative, tolerance: f64) -> f64 {
    let divided = |n: u64| n as f64 / divisor;
    let (ns, ks) = (divided(tick.stable.n), divided(tick.stable.failed()));
    let (nc, kc) = (divided(tick.candidate.n), divided(tick.candidate.failed()));
    if tick.stable.n == 0 || tick.candidate.n == 0 {
        return 0.0;
    }
    let (low, high) = (EDGE, 1.0 - tolerance - EDGE);
    let (ts, tc) = (at.stable, at.candidate);
    // Not `clamp`: it panics where a tolerance next to 1 leaves no room.
    let within = |s: f64| s.max(low).min(high);

    // The point of the boundary that is nearest to the alternative in the sense of relative entropy.
    let mut s = (ns * ts + nc * (tc - tolerance)) / (ns + nc);
    for _ in 0..STEPS {
        s = within(s);
        let c = s + tolerance;
        let (ws, wc) = (ns / (s * (1.0 - s)), nc / (c * (1.0 - c)));
        s = (ws * ts + wc * (tc - tolerance)) / (ws + wc);
    }
    s = within(s);
    let c = s + tolerance;

    let lambda = nc * (tc - c) / (c * (1.0 - c));
    let lambda = lambda.min(STAKE * ns / (1.0 - s)).max(-STAKE * ns / s);
    // At the edges the point can come to lie beyond the alternative. A bet in the wrong direction would be no test of
    // the hypothesis; none is made then.
    let worse = tc > ts + tolerance;
    let lambda = if worse { lambda.max(0.0) } else { lambda.min(0.0) };
    let (us, uc) = (lambda / ns, lambda / nc);
    ks * (-us * (1.0 - s)).ln_1p()
        + (ns - ks) * (us * s).ln_1p()
        + kc * (uc * (1.0 - c)).ln_1p()
        + (nc - kc) * (-uc * c).ln_1p()
}

/// A block's evidence, insured and capped: at least `ln 0.1`, at most 2.5. Both only lower the expectation.
pub(super) fn shape(log_e: f64) -> f64 {
    let insured = if log_e > LARGE { log_e + AT_RISK.ln() } else { (AT_RISK * log_e.exp_m1()).ln_1p() };
    insured.min(CAP)
}
