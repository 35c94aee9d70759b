//! A bound that nobody may pass, whatever stable does: a candidate that hurts what both share stays invisible to any
//! comparison of the two.

use serde::{Deserialize, Serialize};

use super::block::{Count, shape};
use super::rate::Rate;
use super::{exact, log_sum_exp};

/// Where between the bound and 1 the alternatives lie that are bet on, with equal stakes.
const GRID: [f64; 3] = [0.05, 0.2, 0.6];

/// Evidence that more of the candidate's requests fail than the bound allows.
///
/// For a fixed alternative `p` above the bound `b`, `(p/b)^k · ((1−p)/(1−b))^(n−k)` has an expectation of at most one while
/// the true rate is at most `b`, in every block and however the rate moves below it; so has the product over blocks, and
/// the average over alternatives. Insurance and cap as in the comparison. It fails at `1/α` and then for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AbsoluteBound {
    bound: Rate,
    alpha: Rate,
    /// Logarithms of what the bets hold.
    #[serde(with = "exact::array")]
    bets: [f64; GRID.len()],
    failed: bool,
}

impl AbsoluteBound {
    /// Evidence of nothing yet; `alpha` is the chance of ever failing a candidate that stays below `bound`.
    #[must_use]
    pub fn new(bound: Rate, alpha: Rate) -> Self {
        Self { bound, alpha, bets: [(1.0 / GRID.len() as f64).ln(); GRID.len()], failed: false }
    }

    /// Takes in what the candidate did since the last time; whether it has failed by now.
    pub fn tick(&mut self, seen: Count) -> bool {
        let b = self.bound.fraction();
        let (bad, good) = (seen.failed() as f64, (seen.n - seen.failed()) as f64);
        if seen.n > 0 {
            for (log, f) in self.bets.iter_mut().zip(GRID) {
                let p = b + (1.0 - b) * f;
                *log += shape(bad * (p / b).ln() + good * ((1.0 - p) / (1.0 - b)).ln());
            }
        }
        self.failed |= self.log_evidence() >= self.alpha.threshold();
        self.failed
    }

    /// The natural logarithm of the evidence; `ln(1/α)` decides.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        log_sum_exp(&self.bets)
    }

    /// Whether it was ever enough.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// The bound.
    #[must_use]
    pub const fn bound(&self) -> Rate {
        self.bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    /// The chance of `k` bad ones among `n` at the rate `p`.
    fn binomial(n: u64, k: u64, p: f64) -> f64 {
        let ways = (0..k).fold(1.0, |w, i| w * (n - i) as f64 / (i + 1) as f64);
        ways * p.powi(i32::try_from(k).unwrap()) * (1.0 - p).powi(i32::try_from(n - k).unwrap())
    }

    #[test]
    fn the_evidence_of_a_block_expects_at_most_one_at_the_bound_and_below() {
        for bound in ["0.1%", "1%", "10%", "50%"] {
            for n in [1_u64, 3, 10, 40] {
                for part in [0.1, 0.5, 1.0] {
                    let theta = rate(bound).fraction() * part;
                    let expected: f64 = (0..=n)
                        .map(|bad| {
                            let mut a = AbsoluteBound::new(rate(bound), rate("1%"));
                            a.tick(Count::new(n, bad));
                            binomial(n, bad, theta) * a.log_evidence().exp()
                        })
                        .sum();
                    assert!(expected <= 1.0 + 1e-9, "{bound}, {n} requests at {theta}: {expected}");
                }
            }
        }
    }

    #[test]
    fn it_fails_what_is_far_above_soon_and_keeps_what_is_below() {
        let mut bad = AbsoluteBound::new(rate("5%"), rate("1%"));
        let after = (1..100).find(|_| bad.tick(Count::new(10, 3))).unwrap();
        assert!((2..=6).contains(&after), "30 % against 5 %, ten a second: {after} s");
        let mut good = AbsoluteBound::new(rate("5%"), rate("1%"));
        assert!((0_u64..3600).all(|s| !good.tick(Count::new(10, u64::from(s.is_multiple_of(4))))), "2.5 %");
        assert!(!AbsoluteBound::new(rate("5%"), rate("1%")).tick(Count::default()));
        // More bad ones than requests, which only a defect could count, are no crash.
        bad.tick(Count::new(1, 5));
        assert!(bad.failed(), "for good");
    }

    #[test]
    fn it_is_written_down_and_read_back_bit_for_bit() {
        let mut a = AbsoluteBound::new(rate("5%"), rate("1%"));
        a.tick(Count::new(7, 2));
        let text = serde_json::to_string(&a).unwrap();
        assert_eq!(serde_json::from_str::<AbsoluteBound>(&text).unwrap(), a);
    }
}
