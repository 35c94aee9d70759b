//! What is known of past rollouts: wire types, and the documented form of `history` and `show --output json`.

use serde::{Deserialize, Serialize};

use super::{EventView, Role, RolloutStatus};
use crate::text::Safe;

/// Rollouts, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Version of this type: 1.
    pub schema: u32,
    /// The rollouts.
    pub rollouts: Vec<Past>,
    /// Whether there are older ones.
    pub more: bool,
}

/// A part of the journal, as people read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPage {
    /// What happened, the oldest first.
    pub events: Vec<EventView>,
    /// Before which fact the page before this one ends; null when this one begins with the first.
    pub before: Option<u64>,
}

/// One rollout in short. Wall-clock times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// `SERVICE-N`.
    pub id: Safe,
    /// Its service.
    pub service: Safe,
    /// `first release`, `release` or `rollback`.
    pub kind: Safe,
    /// For example `canary`.
    pub strategy: Safe,
    /// Version that served before; null for a first release.
    pub from: Option<Safe>,
    /// Version it brought.
    pub to: Safe,
    /// Who started it.
    pub by: Safe,
    /// Start.
    pub started_ms: u64,
    /// End; null while it is under way.
    pub ended_ms: Option<u64>,
    /// How it stands, or ended.
    pub status: RolloutStatus,
    /// Why; may be empty.
    pub reason: Safe,
    /// When it was taken back: how long it took until the candidate got nothing any more, read back from every proxy.
    /// From its first bad answer that was counted (to the second), or from the decision when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe_after_ms: Option<u64>,
}

/// One rollout in full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// Version of this type: 1.
    pub schema: u32,
    /// In short.
    #[serde(flatten)]
    pub past: Past,
    /// What was still owed when it ended.
    pub owed: Vec<Safe>,
    /// The phases of its plan.
    pub phases: Vec<PastPhase>,
    /// What was asked, and what stopped it or let it go on, in order.
    pub acts: Vec<PastAct>,
    /// Requests of both revisions from its start to its end, as the proxies counted them; empty when nobody did.
    pub counts: Vec<PastCount>,
    /// Time out of rotation of each instance that was replaced in place.
    pub downtimes: Vec<PastDowntime>,
    /// Whether there was too much to read all of it.
    pub cut: bool,
}

/// One phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PastPhase {
    /// Its name.
    pub name: Safe,
    /// The candidate's share in it, in per cent.
    pub weight: f64,
    /// What had to hold before the next, in words.
    pub gates: Vec<Safe>,
    /// When it was entered; null when it never was.
    pub entered_ms: Option<u64>,
    /// Who let it be entered.
    pub by: Option<Safe>,
    /// When its target was read back; null when it never was.
    pub settled_ms: Option<u64>,
    /// When it was left: for the next phase, or because the rollout had ended.
    pub left_ms: Option<u64>,
}

/// Something that was done to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PastAct {
    /// When.
    pub at_ms: u64,
    /// Who: an operator's name or `pilothouse`.
    pub by: Safe,
    /// A machine-readable word: `deploy`, `promote`, `promote_full`, `pause`, `resume`, `freeze`, `thaw`, `verdict`,
    /// `abort`, `abort_forced`, `log` (what an instance wrote last), `safe`, `hold`, `lift`,
    /// `next`, `next_dropped`.
    pub what: Safe,
    /// More, in words; may be empty.
    pub text: Safe,
}

/// What the proxies counted for one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PastCount {
    /// The part it played when the rollout began: `stable` or `candidate`.
    pub role: Role,
    /// Its version.
    pub version: Safe,
    /// Requests.
    pub requests: u64,
    /// Of these, the ones that failed.
    pub errors: u64,
    /// Attempts that failed and were tried again elsewhere.
    pub retries: u64,
}

/// An instance that was replaced in place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PastDowntime {
    /// The new one.
    pub instance: Safe,
    /// The one before.
    pub replaced: Safe,
    /// How long its place was empty, in milliseconds.
    pub downtime_ms: u64,
}
