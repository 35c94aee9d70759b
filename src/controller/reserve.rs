//! Room for an abort: a file that takes up space and is given back when the disk is full and an abort must be journalled.

use std::io::Write;
use std::path::{Path, PathBuf};

/// How much is kept free, in bytes: a few hundred facts and SQLite's own overhead.
const SIZE: usize = 1 << 20;

/// The reserved room.
pub struct Reserve(PathBuf);

impl Reserve {
    /// Reserves the room in `DIR/reserve`, unless it is reserved already. A disk too full for it is not an error: it
    /// will be when something has to be written.
    #[must_use]
    pub fn take(dir: &Path) -> Self {
        let path = dir.join("reserve");
        let whole = std::fs::metadata(&path).is_ok_and(|m| m.len() == SIZE as u64);
        if !whole {
            // Written, not just made longer: a hole takes up no room.
            let filled = std::fs::File::create(&path).and_then(|mut f| {
                f.write_all(&vec![0xA5; SIZE])?;
                f.sync_all()
            });
            if filled.is_err() {
                let _ = std::fs::remove_file(&path);
            }
        }
        Self(path)
    }

    /// Gives the room back; whether there was any.
    pub fn release(&mut self) -> bool {
        std::fs::remove_file(&self.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::take(dir.path());
        assert_eq!(std::fs::metadata(dir.path().join("reserve")).unwrap().len(), SIZE as u64);
        assert!(reserve.release());
        assert!(!reserve.release());
    }
}
