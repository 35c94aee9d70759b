//! The second database: recordings of rollouts. It may be lost at any time, and nothing waits for it: no sync, no
//! check, and when it cannot be read it is begun anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::journal::signed;

/// Rollouts that are kept.
const MOST_RECORDINGS: i64 = 50;
/// Size of the file, in bytes.
const MOST_BYTES: i64 = 200 << 20;
/// Version of the tables; another one is begun anew.
const FORMAT: i64 = 1;

/// One thing that was published, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// Whether it is a whole snapshot; else a delta.
    pub whole: bool,
    /// JSON of either.
    pub body: String,
}

/// What is to be written, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// This rollout's recording begins, or goes on after a gap, with the sample that comes next.
    Begin(String),
    /// Something was published; it belongs to all that are being recorded.
    Sample(Sample),
    /// This rollout's recording ends with what was written so far.
    End(String),
}

/// The open database.
pub struct Samples {
    db: Connection,
    path: PathBuf,
    /// Rollouts that are being recorded.
    open: Vec<String>,
    most_bytes: i64,
}

impl Samples {
    /// Opens the database, or begins a new one.
    ///
    /// # Errors
    /// When neither can be done.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        Self::open_within(path, MOST_BYTES)
    }

    fn open_within(path: &Path, most_bytes: i64) -> rusqlite::Result<Self> {
        let ready = |db: Connection| Self { db, path: path.to_owned(), open: Vec::new(), most_bytes };
        prepare(path)
            .or_else(|_| {
                remove(path);
                prepare(path)
            })
            .map(ready)
    }

    /// Writes entries in one transaction, and makes room when there is too much.
    ///
    /// # Errors
    /// When they cannot be written. A disk that is full gets back what this took of it.
    pub fn write(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        let written = self.insert(entries).and_then(|()| self.prune());
        if let Err(e) = &written
            && e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        {
            remove(&self.path);
        }
        written
    }

    fn insert(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        for entry in entries {
            match entry {
                Entry::Begin(rollout) => {
                    let next: i64 =
                        tx.query_row("SELECT coalesce(max(id), 0) + 1 FROM samples", [], |r| r.get(0))?;
                    tx.execute(
                        "INSERT INTO recordings (rollout, first, last) VALUES (?1, ?2, ?2) ON CONFLICT DO NOTHING",
                        params![rollout, next],
                    )?;
                    if !self.open.contains(rollout) {
                        self.open.push(rollout.clone());
                    }
                }
                // Nobody's any more: its recording was given up.
                Entry::Sample(_) if self.open.is_empty() => {}
                Entry::Sample(s) => {
                    tx.prepare_cached("INSERT INTO samples (at, whole, body) VALUES (?1, ?2, ?3)")?
                        .execute(params![signed(s.at_ms), s.whole, s.body])?;
                }
                Entry::End(rollout) => {
                    finish(&tx, rollout)?;
                    self.open.retain(|r| r != rollout);
                }
            }
        }
        for rollout in &self.open {
            finish(&tx, rollout)?;
        }
        tx.commit()
    }

    /// The oldest recordings make room; what is being recorded and alone too large is given up.
    fn prune(&mut self) -> rusqlite::Result<()> {
        loop {
            let count: i64 = self.db.query_row("SELECT count(*) FROM recordings", [], |r| r.get(0))?;
            let used: i64 = self.db.query_row(
                "SELECT (page_count - freelist_count) * page_size
                 FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
                [],
                |r| r.get(0),
            )?;
            if count == 0 || (count <= MOST_RECORDINGS && used <= self.most_bytes) {
                return Ok(());
            }
            let tx = self.db.transaction()?;
            tx.execute("DELETE FROM recordings WHERE rollout = (SELECT rollout FROM recordings ORDER BY first LIMIT 1)", [])?;
            tx.execute(
                "DELETE FROM samples WHERE id < (SELECT coalesce(min(first), 9223372036854775807) FROM recordings)",
                [],
            )?;
            tx.commit()?;
            let db = &self.db;
            let kept = |id: &String| {
                db.query_row("SELECT 1 FROM recordings WHERE rollout = ?1", [id], |_| Ok(())).is_ok()
            };
            self.open.retain(kept);
        }
    }
}

/// A recording reaches to the last sample that there is.
fn finish(tx: &Connection, rollout: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE recordings SET last = max(last, (SELECT coalesce(max(id), 0) FROM samples)) WHERE rollout = ?1",
    )?
    .execute([rollout])?;
    Ok(())
}

fn prepare(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(2))?;
    db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    let format: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    if format != 0 && format != FORMAT {
        return Err(rusqlite::Error::InvalidQuery);
    }
    // AUTOINCREMENT: an id that was pruned is never given again, so a range never holds what it did not.
    db.execute_batch(&format!(
        "PRAGMA synchronous=OFF;
         CREATE TABLE IF NOT EXISTS samples (
             id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, whole INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS recordings (
             rollout TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT;
         PRAGMA user_version={FORMAT};"
    ))?;
    Ok(db)
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        // What is not there is removed; what cannot be removed fails again when it is opened.
        let _ = std::fs::remove_file(PathBuf::from(file));
    }
}

/// Hands out the samples of a recording in order, until `each` says that nobody wants more. `false` when there is no
/// such recording.
///
/// # Errors
/// When the database cannot be read.
pub fn read(path: &Path, rollout: &str, mut each: impl FnMut(Sample) -> bool) -> rusqlite::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::from_secs(2))?;
    let range: Option<(i64, i64)> = db
        .query_row("SELECT first, last FROM recordings WHERE rollout = ?1", [rollout], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .optional()?;
    let Some((first, last)) = range else { return Ok(false) };
    // In pages: a slow reader must not hold a snapshot of the database, which would keep its log from being emptied.
    let mut next = first;
    let mut select = db.prepare(
        "SELECT id, at, whole, body FROM samples WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 200",
    )?;
    loop {
        let page: Vec<(i64, Sample)> = select
            .query_map([next, last], |r| {
                let at: i64 = r.get(1)?;
                Ok((r.get(0)?, Sample { at_ms: at.unsigned_abs(), whole: r.get(2)?, body: r.get(3)? }))
            })?
            .collect::<Result<_, _>>()?;
        let Some((id, _)) = page.last() else { return Ok(true) };
        next = id + 1;
        for (_, sample) in page {
            if !each(sample) {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: u64) -> Entry {
        Entry::Sample(Sample { at_ms: n, whole: n.is_multiple_of(10), body: format!("{{\"n\":{n}}}") })
    }

    fn times(path: &Path, rollout: &str) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        let found = read(path, rollout, |s| {
            out.push(s.at_ms);
            true
        });
        found.unwrap().then_some(out)
    }

    #[test]
    fn recordings_overlap_and_each_reads_its_own_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.db");
        assert_eq!(times(&path, "web-1"), None);
        let mut s = Samples::open(&path).unwrap();
        s.write(&[Entry::Begin("web-1".into()), sample(10), sample(11)]).unwrap();
        assert_eq!(times(&path, "web-1").unwrap(), [10, 11], "while it is being written");
        s.write(&[Entry::Begin("api-7".into()), sample(20), sample(21), Entry::End("web-1".into())]).unwrap();
        s.write(&[sample(22), Entry::End("api-7".into())]).unwrap();
        assert_eq!(times(&path, "web-1").unwrap(), [10, 11, 20, 21]);
        assert_eq!(times(&path, "api-7").unwrap(), [20, 21, 22]);
        assert_eq!(times(&path, "web-2"), None);
        // The next controller goes on with it.
        let mut s = Samples::open(&path).unwrap();
        s.write(&[Entry::Begin("api-7".into()), sample(30)]).unwrap();
        assert_eq!(times(&path, "api-7").unwrap(), [20, 21, 22, 30]);
        let mut first = 0;
        assert!(
            read(&path, "api-7", |_| {
                first += 1;
                false
            })
            .unwrap()
        );
        assert_eq!(first, 1, "nobody wants more");
    }

    #[test]
    fn only_the_newest_fifty_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.db");
        let mut s = Samples::open(&path).unwrap();
        for n in 1..=60 {
            let id = format!("web-{n}");
            s.write(&[Entry::Begin(id.clone()), sample(n), Entry::End(id)]).unwrap();
        }
        assert_eq!(times(&path, "web-10"), None);
        assert_eq!(times(&path, "web-11").unwrap(), [11]);
        let left: i64 = s.db.query_row("SELECT count(*) FROM samples", [], |r| r.get(0)).unwrap();
        assert_eq!(left, 50);
    }

    #[test]
    fn the_file_stays_small_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.db");
        let most = 1 << 20;
        let mut s = Samples::open_within(&path, most).unwrap();
        let big = |n| Entry::Sample(Sample { at_ms: n, whole: true, body: "x".repeat(100_000) });
        for n in 0..40 {
            let id = format!("web-{n}");
            s.write(&[Entry::Begin(id.clone()), big(n), Entry::End(id)]).unwrap();
        }
        assert_eq!(times(&path, "web-0"), None);
        assert_eq!(times(&path, "web-39").unwrap(), [39]);
        // One that is too large by itself is given up, and recorded no further.
        s.write(&[Entry::Begin("api-1".into())]).unwrap();
        for n in 0..40 {
            s.write(&[big(n)]).unwrap();
        }
        assert_eq!(times(&path, "api-1"), None);
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < 3 * most.unsigned_abs(), "{size}");
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.db");
        std::fs::write(&path, "this is no database, and it is long enough to be noticed".repeat(100))
            .unwrap();
        let mut s = Samples::open(&path).unwrap();
        s.write(&[Entry::Begin("web-1".into()), sample(1)]).unwrap();
        assert_eq!(times(&path, "web-1").unwrap(), [1]);
    }
}
