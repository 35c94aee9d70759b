//! A terminal with a cockpit in it, and a controller made of memory behind that.

use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilothouse::api::{Snapshot, Verb};
use pilothouse::tui::fixture;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtyPair, PtySize, native_pty_system};
use rustix::process::{Pid, Signal};

use crate::canned::Canned;

/// Generous: these machines are shared. A test that passes needs a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const BINARY: &str = env!("CARGO_BIN_EXE_pilothouse");
/// What a person leaves between two keys.
pub const PERSON: Duration = Duration::from_millis(400);

/// A controller in a runtime of its own; dropping it breaks every connection.
pub struct Server {
    pub runtime: Option<tokio::runtime::Runtime>,
    pub canned: Arc<Canned>,
}

impl Server {
    pub fn start(socket: &Path, canned: Arc<Canned>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (serving, path) = (canned.clone(), socket.to_owned());
        runtime.spawn(async move { serving.serve(&path).await });
        Self { runtime: Some(runtime), canned }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What came out of the terminal.
pub struct Seen {
    pub parser: vt100::Parser,
    pub raw: Vec<u8>,
    /// The reading thread ends with the next bytes.
    pub stop: bool,
}

pub struct Cockpit {
    pub pair: Option<PtyPair>,
    pub keys: Option<Box<dyn Write + Send>>,
    pub child: Box<dyn Child + Send + Sync>,
    pub seen: Arc<Mutex<Seen>>,
    pub reader: Option<std::thread::JoinHandle<()>>,
    pub before: String,
    pub server: Option<Server>,
    pub dir: tempfile::TempDir,
}

pub fn size(cols: u16, rows: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

pub fn command(socket: &Path) -> CommandBuilder {
    let mut cmd = CommandBuilder::new(BINARY);
    cmd.args(["cockpit", "--socket"]);
    cmd.arg(socket);
    cmd.env_clear();
    for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LOGNAME", "operator")] {
        cmd.env(name, value);
    }
    cmd
}

pub fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// Feeds what the terminal shows into a model of one.
pub fn watch(master: &dyn MasterPty) -> (Arc<Mutex<Seen>>, std::thread::JoinHandle<()>) {
    let parser = vt100::Parser::new(some(30), some(100), 0);
    let seen = Arc::new(Mutex::new(Seen { parser, raw: Vec::new(), stop: false }));
    let mut reader = master.try_clone_reader().unwrap();
    let sink = seen.clone();
    let thread = std::thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok(n) = reader.read(&mut buf) {
            let mut seen = sink.lock().unwrap();
            if n == 0 || seen.stop {
                break;
            }
            seen.parser.process(&buf[..n]);
            seen.raw.extend_from_slice(&buf[..n]);
        }
    });
    (seen, thread)
}

impl Cockpit {
    /// Opens it, with a controller, and waits for the first picture.
    pub fn open(snapshot: Snapshot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("s"), Canned::new(snapshot));
        let mut cockpit = Self::alone(dir);
        cockpit.server = Some(server);
        cockpit.wait_for("the first picture", |s| s.contains("live") && s.contains("rollout"));
        cockpit
    }

    pub fn alone(dir: tempfile::TempDir) -> Self {
        let command = command(&dir.path().join("s"));
        Self::run(dir, command)
    }

    pub fn run(dir: tempfile::TempDir, command: CommandBuilder) -> Self {
        let pair = native_pty_system().openpty(size(100, 30)).unwrap();
        let before = termios(&*pair.master);
        let (seen, reader) = watch(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        let keys = pair.master.take_writer().unwrap();
        Self {
            pair: Some(pair),
            keys: Some(keys),
            child,
            seen,
            reader: Some(reader),
            before,
            server: None,
            dir,
        }
    }

    pub fn canned(&self) -> Arc<Canned> {
        self.server.as_ref().unwrap().canned.clone()
    }

    pub fn master(&self) -> &dyn MasterPty {
        &*self.pair.as_ref().unwrap().master
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Closes the terminal, as a lost SSH session does.
    pub fn close_terminal(&mut self) {
        self.seen.lock().unwrap().stop = true;
        // The reader holds the terminal open until it has read something.
        let reader = self.reader.take().unwrap();
        let end = Instant::now() + PATIENCE;
        let mut n = 0;
        while !reader.is_finished() {
            assert!(Instant::now() < end);
            n += 1;
            self.canned().change(|s| s.alarms = vec![format!("{n}").into()]);
            std::thread::sleep(Duration::from_millis(50));
        }
        self.keys = None;
        self.pair = None;
    }

    pub fn text(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    pub fn wait_for(&self, what: &str, ok: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !ok(&self.text()) {
            assert!(Instant::now() < end, "waited in vain for {what}:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_for_verbs(&self, n: usize) {
        let end = Instant::now() + PATIENCE;
        while self.canned().verbs().len() < n {
            assert!(Instant::now() < end, "{:?}\n{}", self.canned().verbs(), self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let keys = self.keys.as_mut().unwrap();
        keys.write_all(bytes).unwrap();
        keys.flush().unwrap();
    }

    /// A command by name, typed by a person.
    pub fn command(&mut self, text: &str) {
        for c in format!(":{text}\r").chars() {
            std::thread::sleep(if c == '\r' { PERSON } else { Duration::from_millis(60) });
            self.send(c.to_string().as_bytes());
        }
    }

    /// The kinds of the verbs that reached the controller, in order.
    pub fn sent(&self) -> Vec<Verb> {
        self.canned().verbs().into_iter().map(|(_, request)| request.verb).collect()
    }

    /// A key by a person.
    pub fn key(&mut self, bytes: &[u8]) {
        std::thread::sleep(PERSON);
        self.send(bytes);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.process_id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The terminal is as it was found.
    pub fn check_restored(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let restored = {
                let seen = self.seen.lock().unwrap();
                let s = seen.parser.screen();
                let mouse = s.mouse_protocol_mode() != vt100::MouseProtocolMode::None;
                !s.alternate_screen() && !s.bracketed_paste() && !s.hide_cursor() && !mouse
            };
            if restored {
                break;
            }
            assert!(Instant::now() < end, "the screen was left as it is");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(termios(self.master()), self.before);
    }
}

impl Drop for Cockpit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn termios(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

/// A cockpit with these settings of its own, and its first picture.
pub fn with_settings(text: &str) -> Cockpit {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pilothouse")).unwrap();
    std::fs::write(dir.path().join("pilothouse/cockpit.toml"), text).unwrap();
    let server = Server::start(&dir.path().join("s"), Canned::new(fixture::canary()));
    let mut command = command(&dir.path().join("s"));
    command.env("XDG_CONFIG_HOME", dir.path());
    let mut cockpit = Cockpit::run(dir, command);
    cockpit.server = Some(server);
    cockpit.wait_for("the first picture", |s| s.contains("live") && s.contains("rollout"));
    cockpit
}
