//! The journal: facts in SQLite, append-only, chained by hash. Nothing is done that could not be written here.
//!
//! The head of the chain is also kept in the lock file ([`super::lock`]): a damaged WAL tail would otherwise read as a
//! shorter journal that looks right.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::crash::boundary;
use crate::fleet::names::Millis;
use crate::rollout::fact::{Fact, Record};
use crate::text::hex;

/// Version of the journal's format: it goes up when there is a fact that an older binary does not know. A journal with a
/// higher one is refused, one with a lower one is read, and is of this format from then on.
pub const FORMAT: i64 = 3;
/// Bytes that the write-ahead log is made long at the start.
pub(super) const LOG_ROOM: u64 = 4 << 20;
/// SQLite's WAL-reset corruption is fixed from here on.
const SQLITE_AT_LEAST: i32 = 3_051_003;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite said no.
    #[error("journal {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// What is in the file is not what was written.
    #[error(
        "journal {path}: {what}. Nothing was changed. Put the file back from a backup, or move the state directory \
         away and take over what runs: pilothouse up --adopt"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer Pilothouse.
    #[error("journal {path} has format {found}, this binary knows up to {FORMAT}: use the newer pilothouse")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// The library has a known bug that loses data.
    #[error("SQLite {0} is older than 3.51.3, which can corrupt a journal")]
    OldSqlite(&'static str),
}

/// The number and hash of the last fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Number of the fact; 0 when there is none.
    pub seq: u64,
    /// Hex SHA-256 of the chain up to it; empty when there is none.
    pub hash: String,
}

/// An open journal. There is one writer per fleet: the lock file is held while it is open.
pub struct Journal {
    db: Connection,
    path: PathBuf,
    head: Head,
}

impl Journal {
    /// Opens or creates the journal, checks its whole chain against `expected` (the head that the lock file remembers),
    /// and returns it with its facts.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read, is damaged, shorter than it was, or newer than this binary.
    pub fn open(path: &Path, expected: &Head) -> Result<(Self, Vec<Record>), JournalError> {
        if rusqlite::version_number() < SQLITE_AT_LEAST {
            return Err(JournalError::OldSqlite(rusqlite::version()));
        }
        let sqlite = |source| JournalError::Sqlite { path: path.to_owned(), source };
        let damaged = |what: String| JournalError::Damaged { path: path.to_owned(), what };
        if expected.seq > 0 && !path.exists() {
            return Err(damaged(format!("it is missing, but {} facts were written", expected.seq)));
        }
        let db = Connection::open(path).map_err(sqlite)?;
        let mode: String =
            db.query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0)).map_err(|e| not_a_database(path, e))?;
        if mode != "wal" {
            return Err(damaged(format!("it cannot use a write-ahead log here (mode {mode})")));
        }
        db.execute_batch(
            "PRAGMA synchronous=FULL;
             CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS facts (
                 seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, wall INTEGER NOT NULL,
                 body TEXT NOT NULL, hash TEXT NOT NULL) STRICT;",
        )
        .map_err(|e| not_a_database(path, e))?;
        let format: Option<i64> = db
            .query_row("SELECT value FROM meta WHERE key = 'format'", [], |r| r.get(0))
            .optional()
            .map_err(sqlite)?;
        match format {
            None => {
                db.execute("INSERT INTO meta VALUES ('format', ?1)", [FORMAT]).map_err(sqlite)?;
            }
            Some(found) if found > FORMAT => {
                return Err(JournalError::Newer { path: path.to_owned(), found });
            }
            Some(_) => {}
        }
        let (records, head) = read(&db, path, expected)?;
        if head.seq < expected.seq {
            return Err(damaged(format!(
                "it ends at fact {}, but fact {} was written",
                head.seq, expected.seq
            )));
        }
        // After it was read whole: an older binary that comes back must not take for damaged what it does not know.
        if format.is_some_and(|found| found < FORMAT) {
            db.execute("UPDATE meta SET value = ?1 WHERE key = 'format'", [FORMAT]).map_err(sqlite)?;
        }
        make_room(&db, path).map_err(sqlite)?;
        Ok((Self { db, path: path.to_owned(), head }, records))
    }

    /// The last fact's number and hash.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Writes facts in one transaction, all or none, and returns them as records. Durable when it returns.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`]: nothing was written, so nothing may be done.
    pub fn append(
        &mut self,
        at: Millis,
        wall_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Record>, JournalError> {
        let numbers = self.head.seq + 1..;
        let records: Vec<Record> =
            numbers.zip(facts).map(|(seq, fact)| Record { seq, at, wall_ms, fact }).collect();
        self.write(&records)?;
        Ok(records)
    }

    /// Writes records, numbered on from the last, in one transaction, all or none. Durable when it returns.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`]: nothing was written, so nothing may be done.
    pub fn write(&mut self, records: &[Record]) -> Result<(), JournalError> {
        boundary();
        let mut head = self.head.clone();
        let path = self.path.clone();
        let sqlite = |source| JournalError::Sqlite { path: path.clone(), source };
        let tx = self.db.transaction().map_err(sqlite)?;
        for record in records {
            let body = serde_json::to_string(&record.fact)
                .map_err(|e| sqlite(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
            head = Head { seq: record.seq, hash: chain(&head.hash, record, &body) };
            let columns =
                params![signed(record.seq), signed(record.at.0), signed(record.wall_ms), body, head.hash];
            tx.prepare_cached("INSERT INTO facts VALUES (?1, ?2, ?3, ?4, ?5)")
                .and_then(|mut s| s.execute(columns))
                .map_err(sqlite)?;
        }
        tx.commit().map_err(sqlite)?;
        self.head = head;
        boundary();
        Ok(())
    }
}

/// Makes the log as long as it will be between two checkpoints. SQLite writes it from its beginning again after each, and
/// a write into room that a file has is on the disk as soon as its own bytes are; one that makes the file longer waits
/// for the file system's journal, and with it for whatever anybody else wrote.
///
/// What does not begin with a valid frame of the current generation is not read: zeros are no facts. A disk too full for
/// the room is not an error.
fn make_room(db: &Connection, path: &Path) -> rusqlite::Result<()> {
    // Ours to copy from now on, when it keeps nobody waiting: `super::keeper`.
    db.execute_batch("PRAGMA wal_autocheckpoint=0")?;
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let lengthen = || {
        let mut file = std::fs::OpenOptions::new().append(true).open(&log)?;
        let short = LOG_ROOM.saturating_sub(file.metadata()?.len());
        std::io::copy(&mut std::io::repeat(0).take(short), &mut file)?;
        file.sync_all()
    };
    let _: std::io::Result<()> = lengthen();
    Ok(())
}

fn not_a_database(path: &Path, source: rusqlite::Error) -> JournalError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match source.sqlite_error_code() {
        Some(NotADatabase | DatabaseCorrupt) => {
            JournalError::Damaged { path: path.to_owned(), what: source.to_string() }
        }
        _ => JournalError::Sqlite { path: path.to_owned(), source },
    }
}

fn read(db: &Connection, path: &Path, expected: &Head) -> Result<(Vec<Record>, Head), JournalError> {
    let damaged = |what: String| JournalError::Damaged { path: path.to_owned(), what };
    let whole: String =
        db.query_row("PRAGMA quick_check", [], |r| r.get(0)).map_err(|e| not_a_database(path, e))?;
    if whole != "ok" {
        return Err(damaged(whole));
    }
    let mut head = Head::default();
    let mut records = Vec::new();
    let mut select = db
        .prepare("SELECT seq, at, wall, body, hash FROM facts ORDER BY seq")
        .map_err(|e| not_a_database(path, e))?;
    let rows = select
        .query_map([], |r| {
            let (seq, at, wall): (i64, i64, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
            let (body, hash): (String, String) = (r.get(3)?, r.get(4)?);
            Ok((seq, at, wall, body, hash))
        })
        .map_err(|e| not_a_database(path, e))?;
    for row in rows {
        let (seq, at, wall, body, hash) = row.map_err(|e| not_a_database(path, e))?;
        let (seq, at, wall) = (seq.unsigned_abs(), Millis(at.unsigned_abs()), wall.unsigned_abs());
        if seq != head.seq + 1 {
            return Err(damaged(format!("fact {} is missing", head.seq + 1)));
        }
        let fact: Fact =
            serde_json::from_str(&body).map_err(|e| damaged(format!("fact {seq} cannot be read: {e}")))?;
        let record = Record { seq, at, wall_ms: wall, fact };
        if chain(&head.hash, &record, &body) != hash {
            return Err(damaged(format!("fact {seq} was changed after it was written")));
        }
        head = Head { seq, hash };
        if head.seq == expected.seq && head.hash != expected.hash {
            return Err(damaged(format!("fact {seq} is not the one that was written")));
        }
        records.push(record);
    }
    Ok((records, head))
}

fn chain(previous: &str, record: &Record, body: &str) -> String {
    let mut h = Sha256::new();
    for part in
        [previous, &record.seq.to_string(), &record.at.0.to_string(), &record.wall_ms.to_string(), body]
    {
        h.update((part.len() as u64).to_le_bytes());
        h.update(part.as_bytes());
    }
    hex(&h.finalize())
}

/// SQLite's integers are signed; ours never reach the sign bit.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(n: usize) -> Vec<Fact> {
        vec![Fact::ClockReached {}; n]
    }

    fn write(dir: &Path, n: usize) -> Head {
        let (mut j, _) = Journal::open(&dir.join("journal.db"), &Head::default()).unwrap();
        j.append(Millis(5), 7, facts(n)).unwrap();
        j.head().clone()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let head = write(dir.path(), 3);
        let (journal, records) = Journal::open(&dir.path().join("journal.db"), &head).unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!(journal.head(), &head);
        assert_eq!((records[2].seq, records[2].at, records[2].wall_ms), (3, Millis(5), 7));
    }

    #[test]
    fn a_missing_or_shorter_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let head = Head { seq: 3, hash: "x".into() };
        let missing = Journal::open(&path, &head).err().unwrap().to_string();
        assert!(missing.contains("it is missing, but 3 facts were written"), "{missing}");
        write(dir.path(), 2);
        let shorter = Journal::open(&path, &head).err().unwrap().to_string();
        assert!(shorter.contains("it ends at fact 2, but fact 3 was written"), "{shorter}");
    }

    #[test]
    fn a_changed_fact_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let head = write(dir.path(), 3);
        let path = dir.path().join("journal.db");
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE facts SET at = 6 WHERE seq = 2", []).unwrap();
        drop(db);
        let said = Journal::open(&path, &head).err().unwrap().to_string();
        assert!(said.contains("fact 2 was changed"), "{said}");
    }

    #[test]
    fn scenario_33_a_flipped_byte_on_any_page_never_reads_as_another_history() {
        let dir = tempfile::tempdir().unwrap();
        let head = write(dir.path(), 40);
        let path = dir.path().join("journal.db");
        let (whole, records) = Journal::open(&path, &head).unwrap();
        drop(whole);
        let bytes = std::fs::read(&path).unwrap();
        for page in 0..bytes.len() / 4096 {
            for at in [page * 4096 + 9, page * 4096 + 4000, page * 4096 + 4090] {
                let mut bad = bytes.clone();
                bad[at] ^= 0x41;
                let other = dir.path().join(format!("bad-{at}.db"));
                std::fs::write(&other, &bad).unwrap();
                // A flip in unused space may go unnoticed, but then the history is the same.
                if let Ok((_, same)) = Journal::open(&other, &head) {
                    assert_eq!(same, records, "byte {at}");
                }
            }
        }
        for cut in (1..bytes.len() / 4096).map(|p| p * 4096) {
            let other = dir.path().join(format!("cut-{cut}.db"));
            std::fs::write(&other, &bytes[..cut]).unwrap();
            assert!(Journal::open(&other, &head).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let head = write(dir.path(), 1);
        let path = dir.path().join("journal.db");
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE meta SET value = 99", []).unwrap();
        drop(db);
        let said = Journal::open(&path, &head).err().unwrap().to_string();
        assert!(said.contains("format 99"), "{said}");
    }

    #[test]
    fn an_older_format_is_read_and_is_this_one_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let head = write(dir.path(), 3);
        let path = dir.path().join("journal.db");
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE meta SET value = 1", []).unwrap();
        let (_journal, records) = Journal::open(&path, &head).unwrap();
        assert_eq!(records.len(), 3);
        let format: i64 = db.query_row("SELECT value FROM meta", [], |r| r.get(0)).unwrap();
        assert_eq!(format, FORMAT);
    }

    #[test]
    fn a_batch_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let (mut j, _) = Journal::open(&path, &Head::default()).unwrap();
        j.append(Millis(0), 0, facts(1)).unwrap();
        // Somebody else holds the write lock: the append fails after its busy time, and nothing of it is there.
        j.db.busy_timeout(std::time::Duration::from_millis(10)).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(j.append(Millis(0), 0, facts(3)).is_err());
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(j.append(Millis(0), 0, facts(1)).unwrap()[0].seq, 2);
    }
}
