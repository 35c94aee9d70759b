//! A file to which a proxy appends its log lines, for proxies that send none over the network.
//!
//! The file is ours: it is read on from where it was, and emptied once it is long. The proxy appends to it (`O_APPEND`), so
//! it goes on at the beginning then. Lines that are written between the last read and the emptying are lost: microseconds,
//! once in some 100,000 lines, far below what would matter. What was in it before is not news.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::log_socket::Lines;

/// A longer file is emptied when all of it was read.
const LONG: u64 = 16 << 20;
/// A longer line is nobody's.
const LONGEST_LINE: usize = 64 << 10;
/// Read in one piece.
const PIECE: usize = 256 << 10;

/// What was read so far, and what was made of it.
pub struct LogFile<T> {
    path: PathBuf,
    open: Option<Open>,
    /// The beginning of a line whose end is still to come.
    begun: Vec<u8>,
    seen: T,
}

struct Open {
    file: File,
    /// Which file it is: another may come in its place.
    inode: u64,
    at: u64,
}

impl<T: Lines> LogFile<T> {
    /// Reads what is appended from now on; the file is made when it is not there, readable and writable for everybody who
    /// may enter its directory, as a proxy runs as whoever it likes.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(path: &Path, seen: T) -> io::Result<Self> {
        let mut log = Self { path: path.to_owned(), open: None, begun: Vec::new(), seen };
        let mut open = log.find()?;
        open.at = open.file.seek(SeekFrom::End(0))?;
        log.open = Some(open);
        Ok(log)
    }

    /// What was made of the lines so far, to be mended.
    pub fn seen(&mut self) -> &mut T {
        &mut self.seen
    }

    fn find(&self) -> io::Result<Open> {
        use std::os::unix::fs::PermissionsExt as _;
        let made = !self.path.exists();
        let file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        if made {
            file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        }
        let inode = file.metadata()?.ino();
        Ok(Open { file, inode, at: 0 })
    }

    /// Reads on, and says what was made of the lines so far.
    ///
    /// # Errors
    /// When the file cannot be read; the next call tries again.
    pub fn read(&mut self) -> io::Result<&T> {
        let there = std::fs::metadata(&self.path).map(|m| m.ino()).ok();
        if let Some(open) = self.open.take() {
            // What the old one has left is read before the new one.
            let moved = there != Some(open.inode);
            self.read_on(open)?;
            if moved {
                self.open = None;
                self.begun.clear();
            }
        }
        if self.open.is_none() {
            let open = self.find()?;
            self.read_on(open)?;
        }
        Ok(&self.seen)
    }

    fn read_on(&mut self, mut open: Open) -> io::Result<()> {
        let len = open.file.metadata()?.len();
        if len < open.at {
            // Somebody else emptied it.
            open.at = 0;
            self.begun.clear();
        }
        open.file.seek(SeekFrom::Start(open.at))?;
        let mut piece = vec![0; PIECE];
        loop {
            let n = open.file.read(&mut piece)?;
            let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else { break };
            open.at += n as u64;
            self.take(bytes);
        }
        if open.at > LONG {
            open.file.set_len(0)?;
            open.at = 0;
        }
        self.open = Some(open);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (ends, part) = match part.strip_suffix(b"\n") {
                Some(part) => (true, part),
                None => (false, part),
            };
            // One byte more than the longest, to know it by.
            let room = (LONGEST_LINE + 1).saturating_sub(self.begun.len());
            self.begun.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
            if ends {
                let line = std::mem::take(&mut self.begun);
                let line = if line.len() > LONGEST_LINE { String::new() } else { lossy(line) };
                self.seen.take(&line, true);
            }
        }
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::traffic::loss::Taken;

    #[derive(Default)]
    struct Kept(Vec<String>);

    impl Lines for Kept {
        fn take(&mut self, line: &str, trusted: bool) -> Taken {
            assert!(trusted);
            self.0.push(line.to_owned());
            Taken::Counted
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn what_is_appended_is_read_once_and_in_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        append(&path, "before\n");
        let mut log = LogFile::open(&path, Kept::default()).unwrap();
        assert!(log.read().unwrap().0.is_empty(), "no news");
        append(&path, "one\ntw");
        assert_eq!(log.read().unwrap().0, ["one"]);
        append(&path, "o\n\nthree\n");
        assert_eq!(log.read().unwrap().0, ["one", "two", "", "three"]);
        append(&path, &format!("{}\nfour\n", "x".repeat(LONGEST_LINE + 10)));
        assert_eq!(log.read().unwrap().0[4..], ["", "four"], "too long a line is left out");
    }

    #[test]
    fn a_long_file_is_emptied_and_one_that_others_empty_or_replace_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = LogFile::open(&path, Kept::default()).unwrap();
        let line = format!("{}\n", "y".repeat(1023));
        let mut proxy = OpenOptions::new().append(true).open(&path).unwrap();
        for _ in 0..=LONG / 1024 {
            proxy.write_all(line.as_bytes()).unwrap();
        }
        let n = log.read().unwrap().0.len();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        proxy.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 6, "it goes on at the beginning");
        assert_eq!(log.read().unwrap().0[n..], ["after"]);
        File::create(&path).unwrap();
        append(&path, "a\n");
        assert_eq!(log.read().unwrap().0[n + 1..], ["a"], "emptied by somebody else");
        append(&path, "last\n");
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        append(&path, "first\n");
        assert_eq!(log.read().unwrap().0[n + 2..], ["last", "first"], "another file in its place");
        std::fs::remove_file(&path).unwrap();
        log.read().unwrap();
        append(&path, "again\n");
        assert_eq!(log.read().unwrap().0[n + 4..], ["again"]);
    }
}
