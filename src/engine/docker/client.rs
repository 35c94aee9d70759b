//! Calls to dockerd: each with a deadline, each failure sorted into "it refused" and "who knows".

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};

use crate::engine::EngineError;
use crate::text::Safe;

/// The library's own limit on each call, in seconds; ours are shorter, and each call has its own.
const LIBRARY_LIMIT: u64 = 24 * 3600;

/// A connection that is made when it is first needed.
pub(super) struct Client {
    socket: PathBuf,
    docker: OnceLock<Docker>,
}

/// How a call failed.
#[derive(Debug)]
pub(super) enum Fail {
    /// dockerd answered with this status, and why.
    Refused { what: String, status: u16, text: String },
    /// No answer, or none that can be understood.
    Unknown { what: String, text: String },
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), docker: OnceLock::new() }
    }

    /// Which engine this is, for people.
    pub(super) fn at(&self) -> String {
        format!("docker ({})", self.socket.display())
    }

    pub(super) fn docker(&self) -> Result<&Docker, EngineError> {
        if let Some(docker) = self.docker.get() {
            return Ok(docker);
        }
        let docker =
            Docker::connect_with_unix(&self.socket.to_string_lossy(), LIBRARY_LIMIT, API_DEFAULT_VERSION)
                .map_err(|e| {
                    EngineError::Unknown(Safe::from(format!(
                        "cannot reach {}: {e}; is dockerd running there?",
                        self.at()
                    )))
                })?;
        Ok(self.docker.get_or_init(|| docker))
    }

    /// Runs one call; `what` says what it does, as in "cannot `what`".
    pub(super) async fn call<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Fail> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(Fail::of(what, e)),
            Err(_) => Err(Fail::Unknown {
                what: what.to_owned(),
                text: format!("no answer within {} s", deadline.as_secs()),
            }),
        }
    }

    /// The same for something that may not be there: `None` when dockerd says so.
    pub(super) async fn find<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Fail> {
        match self.call(what, deadline, call).await {
            Ok(value) => Ok(Some(value)),
            Err(Fail::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Fail {
    pub(super) fn of(what: &str, error: Error) -> Self {
        let what = what.to_owned();
        match error {
            Error::DockerResponseServerError { status_code: status, message: text } => {
                // dockerd waits for others too (a registry, containerd): their silence is not a refusal.
                if status >= 500 && nobody_answered(&text) {
                    Self::Unknown { what, text }
                } else {
                    Self::Refused { what, status, text }
                }
            }
            Error::DockerStreamError { error: text } if nobody_answered(&text) => {
                Self::Unknown { what, text }
            }
            Error::DockerStreamError { error: text } => Self::Refused { what, status: 500, text },
            other => Self::Unknown { what, text: with_causes(&other) },
        }
    }

    /// The status that dockerd answered with, if it did.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unknown { .. } => None,
        }
    }

    /// As the engine's error, naming the engine.
    pub(super) fn at(self, client: &Client) -> EngineError {
        match self {
            Self::Refused { what, text, .. } => {
                EngineError::Refused(Safe::from(format!("{} refused to {what}: {text}", client.at())))
            }
            Self::Unknown { what, text } => EngineError::Unknown(Safe::from(format!(
                "{} did not say whether it could {what}: {text}",
                client.at()
            ))),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = e.source();
    }
    text
}

/// Whether dockerd's words mean that somebody whom it asked did not answer.
fn nobody_answered(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "dial tcp",
        "dial unix",
        "no such host",
        "connection refused",
        "connection reset",
        "i/o timeout",
        "tls handshake timeout",
        "network is unreachable",
        "no route to host",
        "deadline exceeded",
        "request canceled",
        "client.timeout",
        "unexpected eof",
        "too many requests",
        "temporary failure",
        "service unavailable",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unknown_and_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&dir.path().join("none.sock"));
        let error = client.docker().unwrap_err();
        assert!(matches!(&error, EngineError::Unknown(t) if t.as_str().contains("none.sock")), "{error}");
    }

    #[tokio::test]
    async fn an_engine_that_never_answers_is_unknown_within_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deaf.sock");
        // Accepts (the kernel does), says nothing.
        let _deaf = tokio::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(&path);
        let docker = client.docker().unwrap();
        let fail = client.call("ping", Duration::from_millis(100), docker.ping()).await.unwrap_err();
        assert!(matches!(fail.at(&client), EngineError::Unknown(_)));
    }

    #[test]
    fn an_unreachable_registry_is_not_a_refusal() {
        let of = |status_code, message: &str| {
            Fail::of("x", Error::DockerResponseServerError { status_code, message: message.into() })
        };
        assert_eq!(of(500, "Get https://r/v2/: dial tcp 10.0.0.1:443: connect: refused").status(), None);
        assert_eq!(of(404, "no such image").status(), Some(404));
        assert_eq!(of(500, "driver failed: port is already allocated").status(), Some(500));
    }
}
