//! What an engine says of one instance, on request.

use serde::{Deserialize, Serialize};

use crate::text::Safe;

/// What the engine says of one instance when it is asked; names of its environment, never a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceDetails {
    /// Its id.
    pub id: Safe,
    /// The engine's own name for it: a container id, or `pid 4711`; empty when it has none now.
    pub runs_as: Safe,
    /// What it was made from: an image, or a program.
    pub image: Safe,
    /// Its labels, sorted.
    pub labels: Vec<(Safe, Safe)>,
    /// Names in its environment, sorted.
    pub env: Vec<Safe>,
    /// Its ports, in words.
    pub ports: Vec<Safe>,
    /// What the engine does when it exits by itself: `no` or `unless-stopped`.
    pub restart: Safe,
    /// How it exited last.
    pub exit_code: Option<i32>,
    /// Whether it was ended for want of memory.
    pub oom: bool,
    /// Wall clock when it ended last, milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// What the engine says went wrong.
    pub error: Option<Safe>,
}
