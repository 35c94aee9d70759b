//! Where a fleet's controller lives, and that there is one only: state directory, lock file, socket path.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::journal::Head;
use crate::fleet::model::Fleet;
use crate::text::hex;

/// Longest path of a Unix socket, in bytes, on Linux.
pub const SOCKET_PATH_MAX: usize = 107;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the fleet.
    #[error("fleet is held by {0}")]
    Held(Holder),
    /// The directory or a file in it cannot be used.
    #[error("state directory {path}: {why}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

/// Who holds a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Wall-clock start, milliseconds since 1970.
    pub since_ms: u64,
    /// User it runs as.
    pub user: String,
    /// Head of the journal it wrote.
    #[serde(default)]
    pub head: Head,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of {} since {}", self.pid, self.user, super::clock::utc(self.since_ms))
    }
}

/// Where a fleet's controller keeps its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The state directory, 0700.
    pub dir: PathBuf,
    /// The API's socket, 0600.
    pub socket: PathBuf,
}

impl Place {
    /// The place of a fleet: its `state_dir`, else `/var/lib/pilothouse/FLEET` for root, else
    /// `$XDG_STATE_HOME/pilothouse/FLEET`. The socket is `DIR/control.sock`, or when that is longer than 107 bytes a
    /// short path under `/tmp`, derived from the directory.
    #[must_use]
    pub fn of(fleet: &Fleet) -> Self {
        let dir = fleet.state_dir.clone().unwrap_or_else(|| default_root().join(fleet.name.as_str()));
        Self::at(dir)
    }

    /// The place with this state directory.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        let mut socket = dir.join("control.sock");
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            let tag = hex(&Sha256::digest(dir.as_os_str().as_encoded_bytes()));
            let tag: String = tag.chars().take(16).collect();
            let uid = rustix::process::getuid().as_raw();
            socket = PathBuf::from(format!("/tmp/pilothouse-{uid}/{tag}.sock"));
        }
        Self { dir, socket }
    }

    /// Makes the directories, 0700, and refuses those that belong to somebody else.
    ///
    /// # Errors
    /// [`LockError::Directory`].
    pub fn prepare(&self) -> Result<(), LockError> {
        private_dir(&self.dir)?;
        match self.socket.parent() {
            Some(parent) if parent != self.dir => private_dir(parent),
            _ => Ok(()),
        }
    }
}

impl Place {
    /// Refuses a socket in a directory that somebody else made: whoever answers there is not our controller.
    ///
    /// # Errors
    /// [`LockError::Directory`].
    pub fn trusted(&self) -> Result<(), LockError> {
        let Some(parent) = self.socket.parent() else { return Ok(()) };
        let Ok(meta) = std::fs::symlink_metadata(parent) else { return Ok(()) };
        let me = rustix::process::getuid();
        if meta.is_dir() && (meta.uid() == me.as_raw() || meta.uid() == 0 || me.is_root()) {
            return Ok(());
        }
        let why =
            format!("belongs to user {}: no controller of yours is there; set another state_dir", meta.uid());
        Err(LockError::Directory { path: parent.to_owned(), why })
    }
}

fn default_root() -> PathBuf {
    if rustix::process::getuid().is_root() {
        return PathBuf::from("/var/lib/pilothouse");
    }
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(home)
        .map_or_else(
            || PathBuf::from(format!("/tmp/pilothouse-{}", rustix::process::getuid().as_raw())),
            |home| home.join("pilothouse"),
        )
}

fn private_dir(path: &Path) -> Result<(), LockError> {
    let refused = |why: String| LockError::Directory { path: path.to_owned(), why };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| refused(format!("cannot be made: {e}")))?;
    let meta = std::fs::symlink_metadata(path).map_err(|e| refused(e.to_string()))?;
    let me = rustix::process::getuid().as_raw();
    if !meta.is_dir() {
        return Err(refused("is not a directory".into()));
    }
    if meta.uid() != me {
        return Err(refused(format!(
            "belongs to user {}, and you are user {me}: run as that user, or set another state_dir",
            meta.uid()
        )));
    }
    if meta.mode() & 0o077 != 0 {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(path, private)
            .map_err(|e| refused(format!("cannot be made private: {e}")))?;
    }
    Ok(())
}

/// The held lock. Released by the kernel when the process ends, however it ends.
pub struct Lock {
    file: File,
    holder: Holder,
}

impl Lock {
    /// Takes the fleet's lock.
    ///
    /// # Errors
    /// [`LockError::Held`] with who holds it when a live process does; a dead one never blocks.
    pub fn take(place: &Place, holder: Holder) -> Result<Self, LockError> {
        let path = place.dir.join("lock");
        let refused = |e: std::io::Error| LockError::Directory { path: path.clone(), why: e.to_string() };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(refused)?;
        let locked = file.try_lock();
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(refused)?;
        let previous: Holder = serde_json::from_str(&text).unwrap_or_default();
        match locked {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(LockError::Held(previous)),
            Err(std::fs::TryLockError::Error(e)) => return Err(refused(e)),
        }
        let mut lock = Self { file, holder: Holder { head: previous.head, ..holder } };
        lock.write().map_err(refused)?;
        Ok(lock)
    }

    /// The journal's head as the last controller left it.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.holder.head
    }

    /// Remembers the journal's head beside the journal.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&mut self, head: &Head) -> std::io::Result<()> {
        self.holder.head = head.clone();
        self.write()
    }

    fn write(&mut self) -> std::io::Result<()> {
        let text = serde_json::to_vec(&self.holder)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&text)?;
        self.file.set_len(text.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::at(dir.path().join("state"));
        place.prepare().unwrap();
        (dir, place)
    }

    #[test]
    fn the_second_one_sees_who_holds_it_and_a_released_lock_remembers_the_head() {
        let (_dir, place) = place();
        let holder = Holder { pid: 7, since_ms: 1, user: "alice".into(), head: Head::default() };
        let mut lock = Lock::take(&place, holder.clone()).unwrap();
        let head = Head { seq: 4, hash: "aa".into() };
        lock.remember(&head).unwrap();
        match Lock::take(&place, holder.clone()) {
            Err(LockError::Held(h)) => assert_eq!((h.pid, h.user.as_str()), (7, "alice")),
            _ => panic!("a held lock was given twice"),
        }
        drop(lock);
        assert_eq!(Lock::take(&place, holder).unwrap().head(), &head);
    }

    #[test]
    fn a_long_state_directory_gets_a_short_socket() {
        let place = Place::at(PathBuf::from("/").join("x".repeat(200)));
        assert!(place.socket.as_os_str().len() <= SOCKET_PATH_MAX);
        assert_ne!(place, Place::at(PathBuf::from("/").join("y".repeat(200))));
    }

    #[test]
    fn the_state_directory_is_private() {
        let (_dir, place) = place();
        let mode = std::fs::metadata(&place.dir).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
