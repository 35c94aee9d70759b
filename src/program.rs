//! Programs of the operator's: where they are, and how one runs: in a process group of its own, which ends with it, whatever
//! it started.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::spawn_blocking;

/// What is kept of what it writes, in bytes; the rest is read and thrown away, so that it does not wait for us.
const OUTPUT: usize = 16_384;
/// What it wrote is there when it has ended; what it left behind may hold its output open.
const MOMENT: Duration = Duration::from_millis(100);

/// Where programs without a directory are looked for when there is no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program's file: an absolute path as it is, a bare name looked up in `PATH`; `None` where nothing can be run.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|p| usable(p));
    }
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    std::env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join(name)).find(|p| usable(p))
}

/// Whether it is a file that may be run.
#[must_use]
pub fn usable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Ends the program and all that it started when it is no longer waited for, or has ended. Its number is used only while
/// nobody else can have it: until it was waited for.
struct Group {
    pid: Pid,
    waited_for: Arc<Mutex<bool>>,
}

impl Group {
    /// Waits until the program has ended, ends what it left behind, and only then gives its number back.
    async fn ended(&self, mut child: Child) -> io::Result<ExitStatus> {
        let (pid, waited_for) = (self.pid, Arc::clone(&self.waited_for));
        let waited = spawn_blocking(move || {
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
            let mut waited_for = waited_for.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = kill_process_group(pid, Signal::KILL);
            *waited_for = true;
            child.wait()
        });
        waited.await.map_err(io::Error::other)?
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !*self.waited_for.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// How a program ended, and the last line that is not empty of what it wrote to its output, or else to its errors.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it said last.
    pub said: String,
}

/// Runs a program to its end. Nothing of its group lives on afterwards, nor when this is dropped before.
///
/// # Errors
/// When it cannot be started, or how it ended cannot be told.
pub async fn run(
    argv: &[String],
    env: &[(&'static str, String)],
    input: Option<Vec<u8>>,
) -> io::Result<Ended> {
    let (program, arguments) = argv.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(env.iter().cloned()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.process_group(0);
    let mut child = command.spawn()?;
    let group = Group { pid: Pid::from_child(&child), waited_for: Arc::default() };
    let out = child.stdout.take().and_then(|o| ChildStdout::from_std(o).ok());
    let err = child.stderr.take().and_then(|e| ChildStderr::from_std(e).ok());
    let stdin = child.stdin.take().and_then(|i| ChildStdin::from_std(i).ok());
    let feed = tokio::spawn(async move {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // Who does not read it has its reasons; the exit status tells.
            let _ = stdin.write_all(&input).await;
        }
    });
    let mut written = tokio::spawn(async { tokio::join!(last_line(out), last_line(err)) });
    let status = group.ended(child).await;
    feed.abort();
    let lines = tokio::time::timeout(MOMENT, &mut written).await;
    written.abort();
    let (out, err) = lines.ok().and_then(Result::ok).unwrap_or_default();
    Ok(Ended { status: status?, said: if out.is_empty() { err } else { out } })
}

/// The last line that is not empty.
async fn last_line(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..n).unwrap_or_default());
        let over = kept.len().saturating_sub(OUTPUT);
        kept.drain(..over);
    }
    let text = String::from_utf8_lossy(&kept);
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default().to_owned()
}
