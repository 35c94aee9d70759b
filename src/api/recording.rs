//! Recordings of rollouts: what the screen was shown, and when.

use serde::{Deserialize, Serialize};

use super::{Delta, Snapshot};

/// Something that was published while a rollout was under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What was published.
    #[serde(flatten)]
    pub what: Shown,
}

/// What a frame holds. A recording begins with a snapshot; another one follows after a gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// Everything.
    Snapshot(Box<Snapshot>),
    /// What changed.
    Delta(Delta),
}
