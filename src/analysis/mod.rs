//! Is the candidate worse than stable? A sequential test that may be looked at after every second.
//!
//! For each metric a [`Process`] gathers counts of both revisions over the same short time (a *block*), bets on the
//! candidate being more than the tolerance worse than stable, and multiplies what it wins. While the candidate is within
//! the tolerance in every block, the product has an expectation of at most one, however often it is looked at and whenever
//! one stops (Ville's inequality): the chance of *ever* reaching `1/α` is at most `α` over the whole rollout. Rates may
//! drift, shares may change, both revisions may suffer together: only requests of the same block are compared.
//!
//! Arithmetic and nothing else: no clock, no I/O. Seconds come in as arguments; all state can be written down and read
//! back bit for bit, for a process that begins anew after a restart of the controller would void the bound.
//! docs/analyse.md has the method in words, its limits and its sources.
//!
//! The blockwise e-value is that of R. J. Turner, A. Ly, P. D. Grünwald, "Generic E-variables for exact sequential
//! k-sample tests that allow for optional stopping", Journal of Statistical Planning and Inference 230 (2024), in the
//! betting form of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", with an
//! additive tolerance. Insurance, cap, reserve and hold are this project's own.

mod absolute;
mod block;
mod bound;
mod combine;
mod divisor;
mod exact;
mod process;
mod rate;
#[cfg(test)]
mod tests;

pub use absolute::AbsoluteBound;
pub use block::{Count, Tick};
pub use bound::UpperBound;
pub use combine::Combined;
pub use divisor::{Split, divisor};
pub use process::{Block, Estimates, Process, Settings, State};
pub use rate::{BadRate, Rate};

/// The logarithm of the sum of exponentials, without overflow; `-∞` of none.
///
/// Summed from left to right: the order is part of the agreement with the reference.
fn log_sum_exp(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + logs.iter().map(|l| (l - most).exp()).sum::<f64>().ln()
}
