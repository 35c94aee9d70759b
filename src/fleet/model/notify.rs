//! Whom a controller tells about rollouts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fleet::names::{Millis, ServiceName, TargetName};

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Its name.
    pub name: TargetName,
    /// How it is told.
    pub to: NotifyKind,
    /// About what; never empty.
    pub events: Vec<NotifyEvent>,
    /// About these services; empty for all.
    pub services: Vec<ServiceName>,
    /// Longest single attempt.
    pub timeout: Millis,
    /// So long after something happened it is given up.
    pub retry_for: Millis,
}

impl Notify {
    /// Whether it is told about this event of this service.
    #[must_use]
    pub fn wants(&self, event: NotifyEvent, service: &str) -> bool {
        self.events.contains(&event)
            && (self.services.is_empty() || self.services.iter().any(|s| s.as_str() == service))
    }
}

/// How a receiver is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum NotifyKind {
    /// A `POST` of JSON.
    Webhook {
        /// Where to.
        url: Given,
        /// What proves that it is us.
        token: Option<Given>,
        /// The header that carries the token; `None` for `Authorization: Bearer TOKEN`.
        token_header: Option<String>,
    },
    /// A `POST` of `{"text": …}`, as Slack's incoming webhooks take it, and Mattermost's.
    Slack {
        /// Where to; whoever knows it can write.
        url: Given,
    },
    /// A program, with JSON on its standard input.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// A text, or where the controller finds it each time it needs it: secrets are never part of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// As it is.
    Plain(String),
    /// In this variable of the controller's environment.
    Env(String),
    /// The first line of this file; absolute.
    File(PathBuf),
}

/// Something of a rollout that others may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyEvent {
    /// It began.
    Started,
    /// Another phase was entered.
    Phase,
    /// It waits for somebody.
    Paused,
    /// It goes on.
    Resumed,
    /// Something it needs is out of reach.
    Frozen,
    /// It is being taken back.
    Aborting,
    /// The new version serves everything.
    Promoted,
    /// It was taken back.
    Aborted,
    /// It ended without reaching either.
    Failed,
}

impl NotifyEvent {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Started,
        Self::Phase,
        Self::Paused,
        Self::Resumed,
        Self::Frozen,
        Self::Aborting,
        Self::Promoted,
        Self::Aborted,
        Self::Failed,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Phase => "phase",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Frozen => "frozen",
            Self::Aborting => "aborting",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}
