//! How much worse the candidate can be: an upper bound of the difference that may be looked at all the time.

use serde::{Deserialize, Serialize};

use super::block::{Alternative, log_e, shape};
use super::process::{Block, PASSES};
use super::rate::Rate;
use super::{exact, log_sum_exp};

/// Steps of each power of ten.
const STEPS: [f64; 10] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];
/// The powers of ten: from 0.01 points to 80.
const DECADES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];

/// The PASS process over a grid of differences: each that is rejected, with all above it, is one that the candidate's rate
/// does not exceed stable's by.
///
/// The hypothesis of a point δ is that in every block the candidate's rate is at least stable's plus δ. When the true
/// difference is Δ, the largest point that is not above Δ is a true hypothesis, and it would have to be rejected for the
/// bound to fall to or below it: that happens at any time at all with a chance of at most `1 − level`. The bound is not
/// kept at its lowest: when the evidence is taken back, because the candidate became worse later, it rises again, though
/// slowly. It is a bound of a difference that stays the same: begin a new one with each phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpperBound {
    /// The chance of ever being below the true difference.
    miss: Rate,
    /// From the smallest difference to the largest.
    rungs: Vec<Rung>,
}

/// One point of the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rung {
    #[serde(with = "exact")]
    difference: f64,
    /// Logarithms of what its bets hold.
    #[serde(with = "exact::array")]
    bets: [f64; PASSES],
}

impl UpperBound {
    /// A bound that has seen nothing; `tolerance` becomes a point of its grid, so that it can say what a pass says. `miss`
    /// is the chance of ever being below the true difference, 5 % as a rule.
    #[must_use]
    pub fn new(tolerance: Rate, miss: Rate) -> Self {
        let mut points: Vec<f64> = DECADES.iter().flat_map(|d| STEPS.map(|s| s * d)).collect();
        // A point that differs from the tolerance by rounding only is the same.
        points.retain(|p| (p / tolerance.fraction() - 1.0).abs() > 1e-9);
        points.push(tolerance.fraction());
        points.sort_by(f64::total_cmp);
        let third = (1.0 / PASSES as f64).ln();
        let rungs = points.into_iter().map(|difference| Rung { difference, bets: [third; PASSES] }).collect();
        Self { miss, rungs }
    }

    /// Takes in a block that [`super::Process::tick`] gave.
    pub fn observe(&mut self, block: &Block) {
        let stable = block.known.stable();
        for rung in &mut self.rungs {
            for (log, candidate) in rung.bets.iter_mut().zip(block.known.passes(rung.difference)) {
                let at = Alternative { stable, candidate };
                *log += shape(log_e(&block.seen, block.divisor, at, rung.difference));
            }
        }
    }

    /// The bound, as a difference of rates between 0 and 1; `None` while nothing can be said.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        let needed = self.miss.threshold();
        self.rungs
            .iter()
            .rev()
            .take_while(|rung| log_sum_exp(&rung.bets) >= needed)
            .last()
            .map(|rung| rung.difference)
    }
}
