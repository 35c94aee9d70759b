//! A receiver that is a program: JSON on its standard input, the same in short in its environment. It has a deadline, and
//! what it leaves running then goes with it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::news::News;
use crate::text::Safe;

/// Of what a program writes so much is kept, in bytes; it may write as much as it likes.
const KEPT: usize = 2048;
/// After its end, somebody it started may hold its output open; nobody waits for that.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// A process group of ours that has not ended: it ends with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            // Its leader was not waited for yet, so the number is still its own.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs it to its end.
///
/// # Errors
/// When it cannot be started, ends with something else than 0, or does not end in time.
pub async fn run(argv: &[String], news: &News, body: &[u8], timeout: Duration) -> Result<(), String> {
    let (program, arguments) = argv.split_first().ok_or("no program is named")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment(news))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("{program} cannot be started: {e}"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(pid);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let body = body.to_vec();
    let feed = tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            // Who does not read it has its reasons; the exit status tells.
            let _ = stdin.write_all(&body).await;
        }
    });
    let mut wrote = tokio::spawn(async move { tokio::join!(tail(stdout), tail(stderr)) });
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    feed.abort();
    let Ok(ended) = ended else {
        drop(group);
        let _ = child.wait().await;
        wrote.abort();
        return Err(format!("it did not end within {:.1}s and was killed", timeout.as_secs_f64()));
    };
    group.0 = None;
    let said = tokio::time::timeout(AFTERWARDS, &mut wrote).await;
    wrote.abort();
    let status = ended.map_err(|e| format!("how it ended cannot be told: {e}"))?;
    if status.success() {
        return Ok(());
    }
    let (out, err) = said.ok().and_then(Result::ok).unwrap_or_default();
    let text = String::from_utf8_lossy(if err.is_empty() { &out } else { &err }).into_owned();
    let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
    let last = Safe::capped(last, 200);
    let colon = if last.is_empty() { "" } else { ": " };
    Err(format!("it ended with {status}{colon}{last}"))
}

/// The last bytes of a stream, read to its end so that the writer never waits.
async fn tail<R: AsyncRead + Unpin>(stream: Option<R>) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    let Some(mut stream) = stream else { return kept };
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..n).unwrap_or_default());
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
    kept
}

fn environment(news: &News) -> Vec<(&'static str, String)> {
    let text = |t: &Option<Safe>| t.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        ("PILOTHOUSE_ID", news.id.clone()),
        ("PILOTHOUSE_EVENT", news.event.as_str().to_owned()),
        ("PILOTHOUSE_FLEET_NAME", news.fleet.to_string()),
        ("PILOTHOUSE_ENVIRONMENT", news.environment.to_string()),
        ("PILOTHOUSE_SERVICE", news.service.to_string()),
        ("PILOTHOUSE_ROLLOUT", news.rollout.to_string()),
        ("PILOTHOUSE_FROM", text(&news.from)),
        ("PILOTHOUSE_TO", news.to.to_string()),
        ("PILOTHOUSE_BY", news.by.to_string()),
        ("PILOTHOUSE_REASON", text(&news.reason)),
        ("PILOTHOUSE_TEXT", news.text.to_string()),
    ]
}
