//! What an instance's directory holds, shared by the engine and the shim.
//!
//! ```text
//! DIR/INSTANCE/spec.json    what it is; never any of its environment
//!              lock         held by the shim for as long as it lives: held means alive, no pid is guessed
//!              status.json  written by the shim, whole or not at all
//!              restart      the policy, read by the shim each time the process exits
//!              control      a pipe the shim reads orders from
//!              log, log.old what the process wrote
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fleet::names::{FleetName, InstanceId, RevisionId, RolloutId, ServiceName, Version};
use crate::rollout::world::Restart;

/// What an instance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub fleet: FleetName,
    pub service: ServiceName,
    pub id: InstanceId,
    pub revision: RevisionId,
    pub version: Version,
    pub rollout: RolloutId,
    pub digest: String,
    /// The program's own path; `argv[0]` is what it is told it is called.
    pub program: PathBuf,
    pub argv: Vec<String>,
    pub endpoint: SocketAddr,
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The shim was started, the process not yet; or it waits before it starts the process again.
    #[default]
    Starting,
    Running,
    Exited,
}

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proc {
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

/// What the shim last said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Status {
    pub phase: Phase,
    /// The boot that all pids and start times below belong to.
    #[serde(default)]
    pub boot: String,
    /// Set once the shim holds the lock.
    pub shim: Option<Proc>,
    pub child: Option<Proc>,
    /// Wall clock, milliseconds since 1970.
    pub started_ms: Option<u64>,
    pub restarts: u32,
    /// Of the last exit; 128 + n for signal n.
    pub code: Option<i32>,
}

/// The directory of one instance.
#[derive(Clone, Debug)]
pub(super) struct InstanceDir {
    pub path: PathBuf,
}

impl InstanceDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// The spec, or `None` when there is none (yet).
    pub(super) fn spec(&self) -> io::Result<Option<Spec>> {
        read_json(&self.file("spec.json"))
    }

    pub(super) fn write_spec(&self, spec: &Spec) -> io::Result<()> {
        write_json(&self.file("spec.json"), spec)
    }

    pub(super) fn status(&self) -> io::Result<Status> {
        Ok(read_json(&self.file("status.json"))?.unwrap_or_default())
    }

    pub(super) fn write_status(&self, status: &Status) -> io::Result<()> {
        write_json(&self.file("status.json"), status)
    }

    /// A missing or unreadable policy means the careful one: no restart.
    pub(super) fn restart(&self) -> Restart {
        match fs::read_to_string(self.file("restart")) {
            Ok(text) if text.trim() == "unless-stopped" => Restart::UnlessStopped,
            _ => Restart::No,
        }
    }

    pub(super) fn write_restart(&self, restart: Restart) -> io::Result<()> {
        let text = match restart {
            Restart::No => "no\n",
            Restart::UnlessStopped => "unless-stopped\n",
        };
        write_whole(&self.file("restart"), text.as_bytes())
    }

    /// The lock of one who watches over the instance; `None` while another holds or looks at it.
    pub(super) fn try_own(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.file("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// A look at the lock: `None` while a shim holds it. What is returned keeps any shim from starting, so that
    /// what is read meanwhile belongs together.
    pub(super) fn try_look(&self) -> io::Result<Option<Look>> {
        match File::open(self.file("lock")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some(Look { _file: None })),
            Err(e) => Err(e),
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(Some(Look { _file: Some(file) })),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(e)) => Err(e),
            },
        }
    }
}

/// See [`InstanceDir::try_look`].
pub(super) struct Look {
    _file: Option<File>,
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display()))),
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec(value)?)
}

/// Replaces `path` by a file with `bytes`: a reader sees the old or the new, never a part.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    // Two writers (engine and shim) never share a temporary file.
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Fields of `/proc/PID/stat` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcStat {
    pub state: char,
    pub group: i32,
    pub session: i32,
    /// User and system time together, in clock ticks.
    pub cpu: u64,
    pub start: u64,
}

/// What the kernel says of `pid`; `None` when it is gone.
pub(super) fn proc_stat(pid: i32) -> Option<ProcStat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself contain spaces and parentheses.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
    let id = |field: usize| -> Option<i32> { fields.get(field - 3)?.parse().ok() };
    Some(ProcStat {
        state: fields.first()?.chars().next()?,
        group: id(5)?,
        session: id(6)?,
        cpu: number(14)? + number(15)?,
        start: number(22)?,
    })
}

/// What tells this boot of the machine from any other.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Proc {
    /// The process that has `pid` now.
    pub(super) fn now(pid: i32) -> Option<Self> {
        proc_stat(pid).map(|s| Self { pid, start: s.start })
    }

    /// Whether this very process still runs (a zombie does not).
    pub(super) fn runs(self) -> bool {
        proc_stat(self.pid).is_some_and(|s| s.start == self.start && s.state != 'Z')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let me = i32::try_from(std::process::id()).unwrap();
        let stat = proc_stat(me).unwrap();
        assert_eq!(stat.group, rustix::process::getpgrp().as_raw_nonzero().get());
        assert!(Proc::now(me).unwrap().runs());
        assert!(!Proc { pid: me, start: stat.start + 1 }.runs());
    }

    #[test]
    fn a_look_keeps_owners_out_but_not_other_lookers() {
        let dir = tempfile::tempdir().unwrap();
        let i = InstanceDir::new(dir.path().into());
        assert!(i.try_look().unwrap().is_some(), "nobody ever held it");
        let owner = i.try_own().unwrap().unwrap();
        assert!(i.try_look().unwrap().is_none());
        drop(owner);
        let first = i.try_look().unwrap().unwrap();
        assert!(i.try_look().unwrap().is_some());
        assert!(i.try_own().unwrap().is_none());
        drop(first);
        assert!(i.try_own().unwrap().is_some());
    }
}
