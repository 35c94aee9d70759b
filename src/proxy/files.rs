//! Files that must be whole after a crash (written beside, synced, renamed, directory synced), and whose they are.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::ProxyError;
use crate::fleet::names::FleetName;
use crate::text::Safe;

/// Replaces `path` with `text` so that a reader, also after a power cut, sees the old or the new text, whole.
///
/// # Errors
/// What the file system said; the old file is intact then.
pub(super) fn write_atomic(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temp = beside(path);
    write_synced(&temp, text, mode)?;
    publish(&temp, path)
}

/// Writes `text` to `path` and syncs it, without the rename.
pub(super) fn write_synced(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    waiting_for_disk(|| write_and_sync(path, text, mode))
}

fn write_and_sync(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The controller's umask is strict; HAProxy may read its files as another user.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Renames `temp` to `path` and makes the rename itself survive a crash.
pub(super) fn publish(temp: &Path, path: &Path) -> io::Result<()> {
    waiting_for_disk(|| {
        fs::rename(temp, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })
}

/// Does something that may take as long as the disk likes. A worker of the runtime hands on what else it has to do, so
/// that an abort which arrives meanwhile is read.
pub(super) fn waiting_for_disk<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Makes a directory, and those above it, that the proxy may look into, whoever it runs as; what is there stays as it is.
pub(super) fn readable_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                readable_dir(parent)?;
                readable_dir(path)
            }
            _ => Err(e),
        },
        Err(e) => Err(e),
    }
}

/// The same for a directory that is nobody's but ours: it is put right when it is there.
pub(super) fn open_to_all(path: &Path) -> io::Result<()> {
    readable_dir(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o555 == 0o555 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Makes what was created in a directory survive a crash.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    waiting_for_disk(|| File::open(path)?.sync_all())
}

/// First line of a fleet's configuration file: whose it is.
pub(super) fn header(fleet: &FleetName, owner: &str) -> String {
    format!("# pilothouse fleet={fleet} owner={}", Safe::capped(owner, 200))
}

/// The owner named in a configuration file's first line; `None` when Pilothouse did not write it.
fn owner_in(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix("# pilothouse fleet=")?.split_once(" owner=").map(|(_, owner)| owner)
}

/// The text of a configuration file of ours, `None` when there is none yet.
///
/// # Errors
/// When it cannot be read, or is somebody else's: it must not be touched then.
pub(super) fn own(path: &Path, fleet: &FleetName, owner: &str) -> Result<Option<String>, ProxyError> {
    let text = read(path)
        .map_err(|e| ProxyError::Refused(Safe::new(&format!("cannot read {}: {e}", path.display()))))?;
    match text {
        Some(t) if t.lines().next() == Some(header(fleet, owner).as_str()) => Ok(Some(t)),
        // An empty one was made with `touch`, so that the proxy can be started before Pilothouse ever ran.
        None => Ok(None),
        Some(t) if t.trim().is_empty() => Ok(None),
        Some(t) => {
            let whose = owner_in(&t).unwrap_or("somebody who is not Pilothouse");
            Err(ProxyError::Foreign(Safe::new(&format!(
                "{} belongs to {whose}, not to {owner}; move it away if that is wrong",
                path.display()
            ))))
        }
    }
}

/// Where the next text of `path` is put before it is renamed. HAProxy reads only `*.cfg` from a directory, so the
/// ending keeps a half-written file from being loaded.
pub(super) fn beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The file's text; `None` when there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
