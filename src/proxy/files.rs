//! Files that must be whole after a crash: written beside, synced, renamed, directory synced.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

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
fn waiting_for_disk<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
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
