//! What instances write.

use serde::{Deserialize, Serialize};

use crate::text::Safe;

/// One log line of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// From standard error.
    pub stderr: bool,
    /// The line.
    pub text: Safe,
    /// When it was written, by its host's clock, in milliseconds since 1970; absent where nobody noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
}

/// One line of the merged logs of several instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum MergedLog {
    /// An instance wrote a line.
    Line {
        /// Which.
        instance: Safe,
        /// What.
        line: LogEntry,
    },
    /// Something about an instance's log, in words: it came later, it has exited, it cannot be read.
    Note {
        /// Which.
        instance: Safe,
        /// What.
        text: Safe,
    },
    /// How many instances are read; first, and whenever it changes.
    Reads {
        /// So many are read.
        instances: u32,
        /// So many there are.
        of: u32,
    },
}
