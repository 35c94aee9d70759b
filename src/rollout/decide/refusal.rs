//! The verbs by name, and how one is refused. The API hands both on as they are, so dependencies point inward.

use serde::{Deserialize, Serialize};

/// The verbs, without what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerbKind {
    /// Roll out a version.
    Deploy,
    /// Go to the next phase.
    Promote,
    /// Stop where it is.
    Pause,
    /// Go on.
    Resume,
    /// Give all traffic back to stable.
    Abort,
    /// Go back to the previous revision.
    Rollback,
    /// Go on with what was held back, or try again.
    Retry,
}

/// Why a request was refused, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense, or the fleet file has errors: exit 2.
    BadRequest,
    /// No such service, rollout or instance: exit 2.
    NotFound,
    /// Decided on something that is no longer so.
    Stale,
    /// Not possible in this state.
    Refused,
    /// The journal cannot be written, or something needed is out of reach.
    Unavailable,
    /// Another controller owns what should be changed: exit 5.
    Foreign,
}

/// Why a verb was refused; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As a word.
    pub code: ErrorCode,
    /// In words.
    pub message: String,
    /// What to do now.
    pub hint: String,
}

/// A refusal, as the result of a verb.
pub(super) fn refuse<T>(
    code: ErrorCode,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into(), hint: hint.into() })
}
