//! A controller in the background: any command that needs one starts it when none runs, the way tmux starts its server.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::lock::{Holder, LockError, Place};
use crate::client::{Client, ClientError};
use crate::fleet::model::Fleet;

/// How long a controller may take until it answers: it replays its journal first.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// How soon starting one is tried again while another process holds the lock.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a controller may take to be gone after it has stopped answering.
const ENDING: Duration = Duration::from_secs(2);
/// What of our environment a controller in the background keeps. The rest may hold an operator's secrets.
const KEPT: [&str; 6] = ["PATH", "HOME", "USER", "XDG_STATE_HOME", "SSH_AUTH_SOCK", "DOCKER_CONFIG"];

/// Why no controller could be reached.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be used, or somebody else holds it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It must be started by hand.
    #[error(
        "no controller runs for fleet {0}, and the fleet file says require_serve = true: start 'pilothouse serve' \
         (see assets/pilothouse.service), then try again"
    )]
    MustServe(String),
    /// It could not be started, or ended at once.
    #[error("the controller did not start: {0}")]
    Failed(String),
    /// It is there and does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A connection to the fleet's controller, which is started when none runs.
///
/// # Errors
/// [`StartError`].
pub async fn connect(fleet: &Fleet, file: &Path) -> Result<Client, StartError> {
    connect_or_start(fleet, file, None).await
}

/// The same; a controller that is started takes everything down when the process `leave_with` ends.
///
/// # Errors
/// [`StartError`].
pub async fn connect_or_start(
    fleet: &Fleet,
    file: &Path,
    leave_with: Option<u32>,
) -> Result<Client, StartError> {
    let place = Place::of(fleet);
    // Before anything is believed that answers there.
    place.trusted()?;
    let began = Instant::now();
    loop {
        match Client::connect(&place.socket).await {
            Err(ClientError::Unreachable { .. }) => break,
            // One that is just ending takes the connection and does not answer. It was only asked who it is, so
            // asking again does no harm, and finds it gone.
            Err(ClientError::NoAnswer { .. }) if began.elapsed() < ENDING => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return Ok(other?),
        }
    }
    if fleet.require_serve {
        return Err(StartError::MustServe(fleet.name.to_string()));
    }
    start(&place, file, leave_with).await
}

async fn start(place: &Place, file: &Path, leave_with: Option<u32>) -> Result<Client, StartError> {
    place.prepare()?;
    let failed = |why: String| StartError::Failed(why);
    let log_path = place.dir.join("controller.log");
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|e| failed(format!("{}: {e}", log_path.display())))?;
    let before = log.metadata().map(|m| m.len()).unwrap_or(0);
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let file = std::path::absolute(file).map_err(|e| failed(e.to_string()))?;
    let errors = log.try_clone().map_err(|e| failed(e.to_string()))?;
    let mut command = Command::new(program);
    command
        .args(["serve", "--background", "--fleet"])
        .arg(&file)
        .args(leave_with.map(|pid| format!("--leave-with={pid}")))
        .env_clear()
        .envs(KEPT.iter().filter_map(|k| std::env::var_os(k).map(|v| (*k, v))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let mut held = false;
    loop {
        if let Ok(client) = Client::connect(&place.socket).await {
            return Ok(client);
        }
        if let Ok(Some(status)) = child.try_wait() {
            // The lock is held: by one that another command starts at the same time and that will answer soon, or by
            // one that is just ending, after which ours can begin.
            if status.code() == Some(5) {
                held = true;
                tokio::time::sleep(AGAIN).await;
                if let Ok(client) = Client::connect(&place.socket).await {
                    return Ok(client);
                }
                if Instant::now() + AGAIN >= deadline {
                    return Err(StartError::Lock(LockError::Held(holder(place))));
                }
                child = command.spawn().map_err(|e| failed(e.to_string()))?;
                continue;
            }
            let said = std::fs::read(&log_path).unwrap_or_default();
            let new = said.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
            let said = crate::text::Safe::new(String::from_utf8_lossy(new).trim());
            return Err(failed(said.to_string()));
        }
        // One that was started last may still be about to find the lock held.
        if held && Instant::now() >= deadline + AGAIN {
            return Err(StartError::Lock(LockError::Held(holder(place))));
        }
        if !held && Instant::now() >= deadline {
            return Err(failed(format!(
                "it does not answer at {}; see {}",
                place.socket.display(),
                log_path.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn holder(place: &Place) -> Holder {
    let text = std::fs::read_to_string(place.dir.join("lock")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
