//! What instances write: bounded on disk, read back from the end, followed.
//!
//! A line in the file is `O` or `E` (output or error), the wall clock in milliseconds, a space, and the line as it was,
//! bounded by the [`Splitter`]. Shims of earlier versions, which may still run, write `o` or `e` and no time.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::engine::lines::Splitter;
use crate::engine::{BoxStream, LogLine};
use crate::text::Safe;

/// Size at which a file is put aside, in bytes. One old file is kept, so an instance has at most twice this.
pub(super) const FILE_MAX: u64 = 1024 * 1024;
/// How often a followed file is looked at.
const FOLLOW: Duration = Duration::from_millis(150);

/// The log of one instance, written by its shim.
pub(super) struct Log {
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Log {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("log");
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file: Mutex::new((file, size)) })
    }

    /// Writes one line; a full disk loses lines, never the instance.
    pub(super) fn line(&self, stderr: bool, line: &[u8]) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut text = Vec::with_capacity(line.len() + 16);
        text.push(if stderr { b'E' } else { b'O' });
        text.extend_from_slice(since.as_millis().to_string().as_bytes());
        text.push(b' ');
        text.extend_from_slice(line);
        text.push(b'\n');
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, size) = &mut *guard;
        if *size + text.len() as u64 > FILE_MAX {
            let old = self.path.with_extension("old");
            if fs::rename(&self.path, old).is_ok()
                && let Ok(new) = open(&self.path)
            {
                (*file, *size) = (new, 0);
            }
        }
        if file.write_all(&text).is_ok() {
            *size += text.len() as u64;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn parse(line: &[u8]) -> LogLine {
    let (head, text) = match line.iter().position(|b| *b == b' ') {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default()),
        None => (line, [].as_slice()),
    };
    let at_ms = head.get(1..).and_then(|t| std::str::from_utf8(t).ok()).and_then(|t| t.parse().ok());
    let stderr = matches!(head.first(), Some(b'e' | b'E'));
    LogLine { stderr, text: Safe::log(&String::from_utf8_lossy(text)), at_ms }
}

/// The last `tail` lines of the instance in `dir` and, with `follow`, what comes after, until `dir` is gone.
pub(super) fn read(dir: PathBuf, tail: usize, follow: bool) -> BoxStream<LogLine> {
    let (send, mut receive) = mpsc::channel(256);
    tokio::spawn(async move {
        let mut reader = Follower { path: dir.join("log"), file: None, splitter: Splitter::default() };
        let mut last = VecDeque::new();
        let mut keep = |line: &[u8]| {
            last.push_back(parse(line));
            if last.len() > tail {
                last.pop_front();
            }
        };
        if let Ok(mut old) = File::open(dir.join("log.old")) {
            let mut splitter = Splitter::default();
            // A broken old file costs old lines only.
            let _ = each_chunk(&mut old, |chunk| splitter.feed(chunk, &mut keep));
        }
        reader.step(&mut keep);
        for line in last {
            if send.send(line).await.is_err() {
                return;
            }
        }
        while follow && dir.exists() {
            tokio::select! {
                () = tokio::time::sleep(FOLLOW) => {}
                () = send.closed() => return,
            }
            let mut lines = Vec::new();
            reader.step(&mut |line| lines.push(parse(line)));
            for line in lines {
                if send.send(line).await.is_err() {
                    return;
                }
            }
        }
    });
    Box::pin(futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

/// Reads what was added since the last step, also across a rotation.
struct Follower {
    path: PathBuf,
    file: Option<File>,
    splitter: Splitter,
}

impl Follower {
    fn step(&mut self, emit: &mut dyn FnMut(&[u8])) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        self.rest(emit);
        let same = match (self.file.as_ref().map(File::metadata), fs::metadata(&self.path)) {
            (Some(Ok(have)), Ok(now)) => have.ino() == now.ino(),
            _ => true,
        };
        if !same {
            // What was written between the read above and the rotation, then the new file.
            self.rest(emit);
            self.file = File::open(&self.path).ok();
            self.rest(emit);
        }
    }

    fn rest(&mut self, emit: &mut dyn FnMut(&[u8])) {
        if let Some(file) = &mut self.file {
            let splitter = &mut self.splitter;
            let _ = each_chunk(file, |chunk| splitter.feed(chunk, &mut *emit));
        }
    }
}

fn each_chunk(file: &mut File, mut f: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    // A file is at most about FILE_MAX long; one that is not ours to bound is not read for ever.
    let from = file.stream_position()?;
    let mut left = FILE_MAX * 2;
    if file.metadata()?.len() > from + left {
        file.seek(SeekFrom::End(-i64::try_from(left).unwrap_or(i64::MAX)))?;
    }
    while left > 0 {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        left = left.saturating_sub(n as u64);
        f(buffer.get(..n).unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_with_its_time_and_one_of_an_earlier_version_without() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path()).unwrap().line(true, b" two  spaces ");
        let line = parse(fs::read(dir.path().join("log")).unwrap().strip_suffix(b"\n").unwrap());
        assert_eq!((line.stderr, line.text.as_str()), (true, " two  spaces "));
        assert!(line.at_ms.is_some_and(|at| at > 1_700_000_000_000), "{line:?}");
        let old = LogLine { stderr: false, text: "a b".into(), at_ms: None };
        assert_eq!(parse(b"o a b"), old);
        assert_eq!(parse(b"O5 a b"), LogLine { at_ms: Some(5), ..old });
        assert_eq!(parse(b"e ").text.as_str(), "");
    }

    #[test]
    fn the_file_is_put_aside_and_never_grows_past_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        for n in 0..60_000 {
            log.line(false, format!("line {n} {}", "x".repeat(60)).as_bytes());
        }
        let size = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("log") <= FILE_MAX && size("log.old") <= FILE_MAX);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
