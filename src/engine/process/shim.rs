//! The shim: one small process per instance that starts the instance's program, keeps its output and its exit
//! status, and restarts it when told to. It outlives the controller; holding the lock is its sign of life.
//!
//! The instance's environment, secrets included, reaches the program through the shim's own environment: it is in
//! no file and in no argument.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::Instant;

use super::files::{InstanceDir, Phase, Proc, Spec, Status, boot};
use super::log::Log;
use crate::engine::lines::Splitter;
use crate::rollout::world::Restart;

/// Longest wait for whoever looks at the lock just now.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL when the shim itself is told to end and nobody said how long.
const OWN_GRACE: Duration = Duration::from_secs(10);
/// First and longest wait before the program is started again; doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Longest wait for output that was still on its way when the program ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Watches over the instance whose directory is `dir`, until it has ended and is not to be started again.
///
/// # Errors
/// When the directory cannot be used, or another shim watches over it already.
pub fn run(dir: &Path) -> io::Result<()> {
    // Fails when it leads a session already, which is what is wanted.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::env::set_current_dir("/")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Shim::open(dir).await?.watch().await })
}

struct Shim {
    dir: InstanceDir,
    spec: Spec,
    status: Status,
    log: Arc<Log>,
    orders: Orders,
    _lock: File,
}

impl Shim {
    async fn open(path: &Path) -> io::Result<Self> {
        let dir = InstanceDir::new(path.to_owned());
        let lock = lock(&dir).await?;
        let spec = dir.spec()?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no spec in {}", path.display()))
        })?;
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let status = Status { boot: boot(), shim: Proc::now(me), ..Status::default() };
        let orders = Orders::open(&dir)?;
        let log = Arc::new(Log::open(path)?);
        dir.write_status(&status)?;
        Ok(Self { dir, spec, status, log, orders, _lock: lock })
    }

    async fn watch(mut self) -> io::Result<()> {
        let mut backoff = BACKOFF.0;
        loop {
            let began = Instant::now();
            let (code, stopped) = match self.spawn() {
                Ok(child) => self.attend(child).await,
                Err(e) => {
                    let program = self.spec.program.display();
                    self.log.line(true, format!("pilothouse: cannot start {program}: {e}").as_bytes());
                    (if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 }, false)
                }
            };
            self.status.child = None;
            self.status.code = Some(code);
            let again = !stopped && self.dir.restart() == Restart::UnlessStopped;
            self.status.phase = if again { Phase::Starting } else { Phase::Exited };
            self.tell();
            if !again {
                return Ok(());
            }
            if began.elapsed() > BACKOFF.1 {
                backoff = BACKOFF.0;
            }
            if self.orders.stop_within(backoff).await {
                self.status.phase = Phase::Exited;
                self.tell();
                return Ok(());
            }
            backoff = (backoff * 2).min(BACKOFF.1);
            self.status.restarts = self.status.restarts.saturating_add(1);
        }
    }

    fn spawn(&mut self) -> io::Result<Child> {
        let (name, args) = self.spec.argv.split_first().map_or(("", &[][..]), |(n, a)| (n.as_str(), a));
        let child = Command::new(&self.spec.program)
            .arg0(name)
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        self.status.child = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Proc::now);
        self.status.started_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok());
        self.status.phase = Phase::Running;
        self.tell();
        Ok(child)
    }

    /// Waits for the program's end, passing on orders; the exit code, and whether somebody asked for it.
    async fn attend(&mut self, mut child: Child) -> (i32, bool) {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut pumps = tokio::task::JoinSet::new();
        if let Some(out) = child.stdout.take() {
            pumps.spawn(pump(out, false, Arc::clone(&self.log)));
        }
        if let Some(err) = child.stderr.take() {
            pumps.spawn(pump(err, true, Arc::clone(&self.log)));
        }
        let mut kill_at: Option<Instant> = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                grace = self.orders.stop() => {
                    let at = Instant::now() + grace;
                    if kill_at.is_none() {
                        send(group, Signal::TERM);
                    }
                    // A second, more impatient order counts; a more patient one does not take back the first.
                    kill_at = Some(kill_at.map_or(at, |k| k.min(at)));
                }
                () = sleep_until(kill_at) => {
                    send(group, Signal::KILL);
                    kill_at = Some(Instant::now() + Duration::from_secs(1));
                }
            }
        };
        // What it started and left behind goes with it, as it would in a container.
        send(group, Signal::KILL);
        let drained =
            tokio::time::timeout(LAST_WORDS, async { while pumps.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            pumps.abort_all();
        }
        (status.map_or(126, exit_code), kill_at.is_some())
    }

    /// Nothing better can be done when the disk is full: the lock still tells that it is alive.
    fn tell(&self) {
        let _ = self.dir.write_status(&self.status);
    }
}

async fn lock(dir: &InstanceDir) -> io::Result<File> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        if let Some(file) = dir.try_own()? {
            return Ok(file);
        }
        if Instant::now() > deadline {
            let text = format!("{} is watched over by another shim", dir.path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn send(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Gone already is what was wanted.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(126)
}

async fn pump(mut from: impl tokio::io::AsyncRead + Unpin, stderr: bool, log: Arc<Log>) {
    let mut lines = Splitter::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => lines.feed(buffer.get(..n).unwrap_or_default(), |line| log.line(stderr, line)),
        }
    }
    lines.finish(|line| log.line(stderr, line));
}

/// What the shim is told: by the pipe `control` (`stop GRACE_MS`), or by SIGTERM. Hang-up and interrupt are heard
/// and ignored, so that neither a closed terminal nor its Ctrl-C reaches an instance.
struct Orders {
    pipe: pipe::Receiver,
    term: Signals,
    hangup: Signals,
    interrupt: Signals,
    text: Vec<u8>,
}

impl Orders {
    fn open(dir: &InstanceDir) -> io::Result<Self> {
        let path = dir.file("control");
        match rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            // Open for writing as well, so that it does not end when a writer leaves.
            pipe: pipe::OpenOptions::new().read_write(true).open_receiver(&path)?,
            term: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            text: Vec::new(),
        })
    }

    /// Waits for the order to stop; the grace that goes with it. May be dropped and called again.
    async fn stop(&mut self) -> Duration {
        let mut buffer = [0; 256];
        loop {
            while let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(ms) = line.trim().strip_prefix("stop ").and_then(|n| n.parse().ok()) {
                    return Duration::from_millis(ms);
                }
            }
            tokio::select! {
                _ = self.term.recv() => return OWN_GRACE,
                _ = self.hangup.recv() => {}
                _ = self.interrupt.recv() => {}
                read = self.pipe.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => self.text.extend(buffer.iter().take(n)),
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            // Orders are short: a flood is nobody's order.
            if self.text.len() > 4096 {
                self.text.clear();
            }
        }
    }

    async fn stop_within(&mut self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.stop()).await.is_ok()
    }
}
