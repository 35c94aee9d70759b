//! Which news each receiver has, in a small file: `notify.json`. It is replaced as a whole and not synced: what a power
//! cut takes is told once more.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::text::Safe;

/// Numbers of facts, by receiver.
pub struct Cursors {
    path: PathBuf,
    all: Mutex<BTreeMap<String, u64>>,
}

impl Cursors {
    /// Reads what is there. A file that cannot be read counts as none: everybody is new, and told what comes.
    pub fn open(dir: &Path) -> (Self, Option<Safe>) {
        let path = dir.join("notify.json");
        let (all, trouble) = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(all) => (all, None),
                Err(e) => (BTreeMap::new(), Some(e.to_string())),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (BTreeMap::new(), None),
            Err(e) => (BTreeMap::new(), Some(e.to_string())),
        };
        let trouble = trouble.map(|e| {
            Safe::new(&format!(
                "{} cannot be read ({e}): notifications of before this start are not told; it is written anew",
                path.display()
            ))
        });
        (Self { path, all: Mutex::new(all) }, trouble)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last news that a receiver has; `None` for one that is new.
    pub fn of(&self, target: &str) -> Option<u64> {
        self.all().get(target).copied()
    }

    /// A receiver has this.
    pub fn set(&self, target: &str, seq: u64) {
        let mut all = self.all();
        all.insert(target.to_owned(), seq);
        self.write(&all);
    }

    /// Forgets receivers that are gone.
    pub fn keep(&self, there: impl Fn(&str) -> bool) {
        let mut all = self.all();
        let before = all.len();
        all.retain(|name, _| there(name));
        if all.len() != before {
            self.write(&all);
        }
    }

    /// When it cannot be written the next controller tells more than it has to.
    fn write(&self, all: &BTreeMap<String, u64>) {
        let new = self.path.with_extension("new");
        let write = || {
            let mut f =
                std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            f.write_all(&serde_json::to_vec(all).map_err(std::io::Error::other)?)?;
            std::fs::rename(&new, &self.path)
        };
        let _ = write();
    }
}
