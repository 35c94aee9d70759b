//! A container that somebody else runs, and a proxy is in it: it is looked at, and programs of its own are run in it.
//! It is never started, stopped or changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerInspectResponse, ExecConfig};
use futures_util::StreamExt as _;

use super::client::{Client, Fail};
use super::observe::INSPECT;
use crate::engine::EngineError;
use crate::text::Safe;

/// Longest wait for dockerd to begin or to tell of a program; the program itself has the caller's deadline.
const BEGIN: Duration = Duration::from_secs(5);
/// Most that is kept of what a program writes, in bytes: the configurations of proxies are printed whole.
const LONGEST: usize = 16 << 20;

/// A container by its name.
pub struct Theirs {
    client: Client,
    name: String,
}

/// A container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Its first process, as this machine numbers it.
    pub pid: u32,
    /// Whether its network is this machine's.
    pub host_network: bool,
    /// Directories of this machine that are seen in it: which, and where.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// A program that ran in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The code it ended with; 126 and 127 when it could not be started.
    pub code: i64,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Theirs {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(socket: &Path, name: &str) -> Self {
        Self { client: Client::new(socket), name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is now.
    ///
    /// # Errors
    /// `Refused` when there is none of this name or it does not run; `Unknown` when dockerd does not answer.
    pub async fn look(&self) -> Result<Look, EngineError> {
        let look = self.client.docker()?.inspect_container(&self.name, None);
        let found =
            self.client.find("look at a container", INSPECT, look).await.map_err(|e| e.at(&self.client))?;
        let refused = |what: &str| {
            EngineError::Refused(Safe::from(format!("container {} {what} {}", self.name, self.client.at())))
        };
        let found = found.ok_or_else(|| refused("is not there on"))?;
        look_of(&found).ok_or_else(|| refused("does not run on"))
    }

    /// Runs a program of the container in it, as the container's own user, and waits for its end.
    ///
    /// # Errors
    /// `Refused` when it cannot be begun; `Unknown` when it did not end within `deadline` (it goes on: there is no way to end
    /// it from here) or dockerd stopped telling of it.
    pub async fn run(&self, words: &[String], deadline: Duration) -> Result<Ran, EngineError> {
        let what = format!("run {} in container {}", words.first().map_or("", String::as_str), self.name);
        let call = async {
            let docker = self.client.docker()?;
            let config = ExecConfig {
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                cmd: Some(words.to_vec()),
                ..ExecConfig::default()
            };
            let made = self.client.call(&what, BEGIN, docker.create_exec(&self.name, config)).await;
            let id = made.map_err(|e| e.at(&self.client))?.id;
            let begun = self.client.call(&what, BEGIN, docker.start_exec(&id, None)).await;
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            if let StartExecResults::Attached { mut output, .. } = begun.map_err(|e| e.at(&self.client))? {
                while let Some(piece) = output.next().await {
                    match piece.map_err(|e| Fail::of(&what, e).at(&self.client))? {
                        LogOutput::StdErr { message } => keep(&mut stderr, &message),
                        LogOutput::StdOut { message } | LogOutput::Console { message } => {
                            keep(&mut stdout, &message);
                        }
                        LogOutput::StdIn { .. } => {}
                    }
                }
            }
            let told = self.client.call(&what, BEGIN, docker.inspect_exec(&id)).await;
            let code = told.map_err(|e| e.at(&self.client))?.exit_code;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Ran { code: self.ended(&what, code)?, stdout: text(&stdout), stderr: text(&stderr) })
        };
        tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            Err(EngineError::Unknown(Safe::from(format!(
                "{} could not {what} within {} s",
                self.client.at(),
                deadline.as_secs()
            ))))
        })
    }

    fn ended(&self, what: &str, code: Option<i64>) -> Result<i64, EngineError> {
        code.ok_or_else(|| {
            EngineError::Unknown(Safe::from(format!(
                "{} does not say how it ended to {what}",
                self.client.at()
            )))
        })
    }
}

fn keep(all: &mut Vec<u8>, more: &[u8]) {
    let room = LONGEST.saturating_sub(all.len());
    all.extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
}

/// `None` when it does not run.
fn look_of(c: &ContainerInspectResponse) -> Option<Look> {
    let state = c.state.as_ref().filter(|s| s.running == Some(true))?;
    let pid = u32::try_from(state.pid?).ok().filter(|pid| *pid > 0)?;
    let mode = c.host_config.as_ref().and_then(|h| h.network_mode.as_deref());
    let mounts = c.mounts.iter().flatten();
    let binds = mounts.filter_map(|m| Some((m.source.as_ref()?.into(), m.destination.as_ref()?.into())));
    Some(Look { pid, host_network: mode == Some("host"), binds: binds.collect() })
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, HostConfig, MountPoint};

    use super::*;

    #[test]
    fn only_what_runs_is_looked_at() {
        let state = |running, pid| {
            Some(ContainerState { running: Some(running), pid: Some(pid), ..ContainerState::default() })
        };
        let mount = MountPoint {
            source: Some("/etc/nginx/pilothouse".into()),
            destination: Some("/etc/nginx/pilothouse".into()),
            ..MountPoint::default()
        };
        let mut c = ContainerInspectResponse {
            state: state(true, 4711),
            host_config: Some(HostConfig { network_mode: Some("host".into()), ..HostConfig::default() }),
            mounts: Some(vec![mount]),
            ..ContainerInspectResponse::default()
        };
        let look = look_of(&c).unwrap();
        assert_eq!((look.pid, look.host_network, look.binds.len()), (4711, true, 1));
        c.state = state(false, 0);
        assert_eq!(look_of(&c), None);
        c.state = state(true, 0);
        assert_eq!(look_of(&c), None, "it is about to start");
    }

    #[test]
    fn what_a_program_writes_is_bounded() {
        let mut all = vec![0; LONGEST - 1];
        keep(&mut all, b"ab");
        keep(&mut all, b"c");
        assert_eq!((all.len(), all.last()), (LONGEST, Some(&b'a')));
    }
}
