//! A program that says whether all is well: 0 is good, 1 is bad, everything else is no answer.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::task::spawn_blocking;

use crate::rollout::world::Answer;

/// What is kept of what it writes, in bytes; the rest is read and thrown away, so that it does not wait for us.
const OUTPUT: usize = 16_384;
/// What it wrote is there when it has ended; what it left behind may hold its output open.
const MOMENT: Duration = Duration::from_millis(100);

/// Ends the program and all that it started when the question ends, however it does. Its number is used only while
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

pub(super) async fn ask(argv: &[String], env: &BTreeMap<&'static str, String>) -> (Answer, String) {
    let Some((program, args)) = argv.split_first() else { return (Answer::Unknown, "no program".into()) };
    let mut command = Command::new(program);
    command.args(args).envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Of its own group, so that what it starts ends with it.
    command.process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return (Answer::Unknown, format!("cannot run {program}: {e}")),
    };
    let group = Group { pid: Pid::from_child(&child), waited_for: Arc::default() };
    let out = child.stdout.take().and_then(|o| ChildStdout::from_std(o).ok());
    let err = child.stderr.take().and_then(|e| ChildStderr::from_std(e).ok());
    let written = tokio::spawn(async { tokio::join!(last_line(out), last_line(err)) });
    let ended = group.ended(child).await;
    let (out, err) = match tokio::time::timeout(MOMENT, written).await {
        Ok(Ok(lines)) => lines,
        _ => Default::default(),
    };
    let said = if out.is_empty() { err } else { out };
    let or = |what: &str| if said.is_empty() { what.to_owned() } else { said.clone() };
    let with = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
    match ended.map(|status| status.code()) {
        Ok(Some(0)) => (Answer::Good, or("exit code 0")),
        Ok(Some(1)) => (Answer::Bad, or("exit code 1")),
        Ok(Some(code)) => (Answer::Unknown, with(format!("exit code {code}"))),
        Ok(None) => (Answer::Unknown, with("ended by a signal".into())),
        Err(e) => (Answer::Unknown, format!("cannot wait for {program}: {e}")),
    }
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn sh(script: &str) -> (Answer, String) {
        let argv = ["sh".to_owned(), "-c".into(), script.to_owned()];
        ask(&argv, &BTreeMap::from([("PILOTHOUSE_VERSION", "1.5.0".to_owned())])).await
    }

    #[tokio::test]
    async fn the_exit_code_is_the_answer_and_the_last_line_its_words() {
        let all = [
            ("echo first; echo \"$PILOTHOUSE_VERSION is fine\"", Answer::Good, "1.5.0 is fine"),
            ("echo late >&2; exit 1", Answer::Bad, "late"),
            ("exit 1", Answer::Bad, "exit code 1"),
            ("exit 2", Answer::Unknown, "exit code 2"),
            ("kill -9 $$", Answer::Unknown, "ended by a signal"),
            ("yes | head -c 1000000; echo; echo end", Answer::Good, "end"),
        ];
        for (script, answer, words) in all {
            assert_eq!(sh(script).await, (answer, words.to_owned()), "{script}");
        }
        let (answer, words) = ask(&["/nonexistent/x".to_owned()], &BTreeMap::new()).await;
        assert_eq!(answer, Answer::Unknown);
        assert!(words.starts_with("cannot run /nonexistent/x"), "{words}");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_keeps_nobody_waiting_and_is_ended() {
        let started = Instant::now();
        let (answer, child) = sh("sleep 60 & echo $!; exit 1").await;
        assert_eq!(answer, Answer::Bad);
        assert!(started.elapsed() < Duration::from_secs(30), "it waited for the child");
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['S', 'R', 'D']))
        };
        while lives() && started.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!lives(), "the child lived on");
    }
}
