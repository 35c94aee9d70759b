//! Several metrics, one verdict.

use serde::{Deserialize, Serialize};

use super::log_sum_exp;
use super::process::{Process, State};
use super::rate::Rate;

/// The verdict over several metrics, whose processes run side by side.
///
/// It fails on the average of their e-values, which is one itself, so that `alpha` is shared by all of them and the
/// processes' own verdicts do not count. It passes when all of them pass. Which metrics take part is settled before the
/// first block: one that has seen nothing counts as 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Combined {
    alpha: Rate,
    alpha_pass: Rate,
    failed: bool,
    holding: bool,
    #[serde(with = "super::exact")]
    log_fail: f64,
    #[serde(with = "super::exact")]
    log_pass: f64,
}

impl Combined {
    /// A verdict that has seen nothing.
    #[must_use]
    pub const fn new(alpha: Rate, alpha_pass: Rate) -> Self {
        Self { alpha, alpha_pass, failed: false, holding: false, log_fail: 0.0, log_pass: 0.0 }
    }

    /// Looks at all metrics; to be called after each of their ticks. Without a metric there is no evidence.
    pub fn look<'a>(&mut self, metrics: impl IntoIterator<Item = &'a Process>) -> State {
        let (mut fails, mut least, mut holding) = (Vec::new(), f64::INFINITY, false);
        for metric in metrics {
            fails.push(metric.log_fail());
            least = least.min(metric.log_pass());
            holding |= metric.holding_since().is_some();
        }
        let none = fails.is_empty();
        self.log_fail = if none { 0.0 } else { log_sum_exp(&fails) - (fails.len() as f64).ln() };
        self.log_pass = if none { 0.0 } else { least };
        self.holding = holding;
        self.failed |= self.log_fail >= self.alpha.threshold();
        self.state()
    }

    /// The natural logarithm of the evidence that the candidate is worse: the average of the metrics' evidence.
    #[must_use]
    pub const fn log_fail(&self) -> f64 {
        self.log_fail
    }

    /// The natural logarithm of the evidence that it is not: that of the metric which has the least.
    #[must_use]
    pub const fn log_pass(&self) -> f64 {
        self.log_pass
    }

    /// What it says since it last looked. A failure stays.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(self.failed, self.holding, self.log_pass, self.alpha_pass)
    }
}
