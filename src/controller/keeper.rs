//! What keeps the files in order beside the loop that decides, in a thread of its own, so that nobody who aborts waits for
//! it: the journal's head in the lock file, and the journal's log copied into its database.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::journal::Head;
use super::lock::Lock;
use crate::text::Safe;

/// Facts between two checkpoints while nothing is being released.
const QUIET: u64 = 64;
/// Facts between two checkpoints in any case. The log's room ([`super::journal::LOG_ROOM`]) is for more than these.
const AT_MOST: u64 = 400;

struct Written {
    head: Head,
    quiet: bool,
}

/// The thread, and what to tell it.
pub struct Keeper {
    tx: Option<Sender<Written>>,
    thread: JoinHandle<Lock>,
    trouble: Arc<Mutex<Option<Safe>>>,
}

impl Keeper {
    /// Takes the lock over.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(lock: Lock, journal: PathBuf) -> std::io::Result<Self> {
        let (tx, rx) = channel();
        let trouble = Arc::new(Mutex::new(None));
        let said = Arc::clone(&trouble);
        let thread = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || keep(lock, &journal, &rx, &said))?;
        Ok(Self { tx: Some(tx), thread, trouble })
    }

    /// The journal has grown up to `head`; `quiet` when no rollout is under way.
    pub fn written(&self, head: &Head, quiet: bool) {
        if let Some(tx) = &self.tx {
            // It ends only after us.
            let _ = tx.send(Written { head: head.clone(), quiet });
        }
    }

    /// What does not work.
    pub fn trouble(&self) -> Option<Safe> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends, with everything written, and gives the lock back.
    pub fn end(mut self) -> Option<Lock> {
        self.tx = None;
        self.thread.join().ok()
    }
}

fn keep(
    mut lock: Lock,
    journal: &std::path::Path,
    rx: &Receiver<Written>,
    said: &Mutex<Option<Safe>>,
) -> Lock {
    let mut copied = lock.head().seq;
    while let Ok(first) = rx.recv() {
        let last = rx.try_iter().last().unwrap_or(first);
        let remembered = lock.remember(&last.head);
        let trouble = remembered.err().map(|e| Safe::new(&format!("the lock file cannot be written: {e}")));
        *said.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        let due = if last.quiet { QUIET } else { AT_MOST };
        if last.head.seq >= copied + due && checkpoint(journal).is_ok() {
            copied = last.head.seq;
        }
    }
    lock
}

/// Copies what it can of the log into the database; keeps nobody from writing. When it fails the log goes on growing and
/// the next one copies more.
fn checkpoint(journal: &std::path::Path) -> rusqlite::Result<()> {
    let db = Connection::open(journal)?;
    db.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;")?;
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
