//! What is known of the hooks of a rollout.

use serde::{Deserialize, Serialize};

use crate::fleet::names::{HostName, InstanceId, Millis};
use crate::text::Safe;

/// One attempt to run a hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookRun {
    /// Which.
    pub hook: HookKind,
    /// From 1.
    pub attempt: u32,
    /// The one-off instance it runs as.
    pub instance: InstanceId,
    /// Where.
    pub host: HostName,
    /// How far it is.
    pub state: HookState,
    /// How it ended, in words.
    pub detail: Safe,
    /// When it was begun.
    pub began_at: Millis,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// Before any instance of the candidate starts.
    BeforeStart,
    /// Before the candidate's first share.
    BeforeTraffic,
    /// When it serves everything.
    AfterPromote,
}

impl HookKind {
    /// As it is written in names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeStart => "before-start",
            Self::BeforeTraffic => "before-traffic",
            Self::AfterPromote => "after-promote",
        }
    }
}

/// How far a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// It shall run, or runs.
    Begun,
    /// It exited with 0, or an operator takes it as done.
    Passed,
    /// It exited with something else, or took too long.
    Failed,
    /// Nobody knows whether it ran.
    Unknown,
    /// An operator wants it once more.
    Again,
}
