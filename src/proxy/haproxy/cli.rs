//! Commands to HAProxy's workers through the master's socket, one connection a command.
//!
//! One connection per command is faster than a prompt and leaves nothing half-read behind. The writing half is
//! closed after the command: without that HAProxy waits for more.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::ProxyError;
use crate::text::Safe;

/// Longest wait for one command.
const DEADLINE: Duration = Duration::from_secs(2);
/// While it reloads the master takes no connections: a tenth of a second, or 1.5 s when the reload fails.
const BUSY_FOR: Duration = Duration::from_millis(1800);
/// More than this is not an answer of HAProxy's.
const MAX_ANSWER: u64 = 64 << 20;

/// A word as the command line wants it: it splits commands at `;` and takes `\` away.
pub(super) fn escaped(word: &str) -> String {
    word.replace('\\', r"\\").replace(';', r"\;")
}

/// The master's socket.
pub(super) struct Master {
    /// Its path.
    pub(super) socket: PathBuf,
}

impl Master {
    /// One line of commands (joined with `;`, each with its own prefix) and all that is answered.
    pub(super) async fn command(&self, line: &str) -> Result<String, ProxyError> {
        match timeout(DEADLINE, self.talk(line)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(self.unknown(&format!("{e}"))),
            Err(_) => Err(self.unknown(&format!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }

    /// While it starts or reloads the master refuses connections, or resets what waited in its queue: asked again,
    /// which does no harm, as every command here is absolute.
    async fn talk(&self, line: &str) -> std::io::Result<String> {
        let start = Instant::now();
        loop {
            match self.talk_once(line).await {
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ) && start.elapsed() < BUSY_FOR =>
                {
                    sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    async fn talk_once(&self, line: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = Vec::with_capacity(4096);
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Tells the master to reload. It may answer nothing or hang up, as it starts itself anew: what became of it is
    /// for the caller to look at.
    pub(super) async fn reload(&self) {
        let _ = timeout(DEADLINE, self.talk_once("reload")).await;
    }

    /// One line of commands to one worker. `None` when that worker is gone.
    pub(super) async fn worker(&self, pid: u32, commands: &[&str]) -> Result<Option<String>, ProxyError> {
        let line = commands.iter().map(|c| format!("@!{pid} {c}")).collect::<Vec<_>>().join(";");
        let answer = self.command(&line).await?;
        Ok((!answer.contains("Can't find the target PID")).then_some(answer))
    }

    /// An answer that is none.
    pub(super) fn garbled(&self, pid: u32) -> ProxyError {
        self.unknown(&format!("worker {pid} gives no whole answer"))
    }

    fn unknown(&self, what: &str) -> ProxyError {
        ProxyError::Unknown(Safe::new(&format!(
            "HAProxy is not reachable through its master socket {}: {what}; is it running with -W -S?",
            self.socket.display()
        )))
    }
}
