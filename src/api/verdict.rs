//! What the analysis and the checks of a rollout say.

use serde::{Deserialize, Serialize};

use crate::text::Safe;

/// What the analysis of a rollout says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictView {
    /// `wait`: inconclusive so far; `pass`; `fail`; `hold`: stable itself fails, nothing is decided.
    pub state: Safe,
    /// Its numbers, in words.
    pub words: Safe,
    /// Nothing is done about it.
    #[serde(default)]
    pub dry_run: bool,
}

impl VerdictView {
    /// In one line: `verdict: fail: 12 of 240 requests failed, …`.
    #[must_use]
    pub fn line(&self) -> String {
        let state = match self.state.as_str() {
            "wait" => "no verdict yet",
            "hold" => "on hold",
            other => other,
        };
        let dry = if self.dry_run { " (dry run)" } else { "" };
        format!("verdict{dry}: {state}: {}", self.words)
    }
}

/// What a check of a rollout says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// Its name.
    pub name: Safe,
    /// `good`, `bad`, `unknown`; empty before the first answer.
    pub answer: Safe,
    /// The last answer in words.
    pub words: Safe,
    /// Bad answers since the last good one.
    pub bad: u32,
    /// After so many the candidate is taken back.
    pub failures: u32,
    /// Nothing is done about it.
    #[serde(default)]
    pub dry_run: bool,
}

impl CheckView {
    /// In one line: `check saturation: bad, 1 of 2 in a row: 0.07, at most 0.05`.
    #[must_use]
    pub fn line(&self) -> String {
        let dry = if self.dry_run { " (dry run)" } else { "" };
        if self.answer.is_empty() {
            return format!("check {}{dry}: not asked yet", self.name);
        }
        // How near it is to being taken back comes before the words, which may be cut.
        let bad = match self.answer.as_str() {
            _ if self.bad == 0 || self.dry_run => String::new(),
            "bad" => format!(", {} of {} in a row", self.bad, self.failures),
            _ => format!(", {} of {} bad in a row before", self.bad, self.failures),
        };
        let words = if self.words.is_empty() { String::new() } else { format!(": {}", self.words) };
        format!("check {}{dry}: {}{bad}{words}", self.name, self.answer)
    }
}
