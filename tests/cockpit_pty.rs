//! The cockpit in a real terminal, against a controller made of memory: what it leaves behind, what it sends, and
//! what it does when the terminal or the controller goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::fs::OpenOptions;
use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilothouse::api::{Snapshot, Verb};
use pilothouse::tui::fixture;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtyPair, PtySize, native_pty_system};
use rustix::process::{Pid, Signal};

#[path = "support/canned.rs"]
mod canned;

use canned::Canned;

/// Generous: these machines are shared. A test that passes needs a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);
const BINARY: &str = env!("CARGO_BIN_EXE_pilothouse");
/// What a person leaves between two keys.
const PERSON: Duration = Duration::from_millis(400);

/// A controller in a runtime of its own; dropping it breaks every connection.
struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    canned: Arc<Canned>,
}

impl Server {
    fn start(socket: &Path, canned: Arc<Canned>) -> Self {
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
struct Seen {
    parser: vt100::Parser,
    raw: Vec<u8>,
    /// The reading thread ends with the next bytes.
    stop: bool,
}

struct Cockpit {
    pair: Option<PtyPair>,
    keys: Option<Box<dyn Write + Send>>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Seen>>,
    reader: Option<std::thread::JoinHandle<()>>,
    before: String,
    server: Option<Server>,
    dir: tempfile::TempDir,
}

fn size(cols: u16, rows: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

fn command(socket: &Path) -> CommandBuilder {
    let mut cmd = CommandBuilder::new(BINARY);
    cmd.args(["cockpit", "--socket"]);
    cmd.arg(socket);
    cmd.env_clear();
    for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LOGNAME", "operator")] {
        cmd.env(name, value);
    }
    cmd
}

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// Feeds what the terminal shows into a model of one.
fn watch(master: &dyn MasterPty) -> (Arc<Mutex<Seen>>, std::thread::JoinHandle<()>) {
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
    fn open(snapshot: Snapshot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("s"), Canned::new(snapshot));
        let mut cockpit = Self::alone(dir);
        cockpit.server = Some(server);
        cockpit.wait_for("the first picture", |s| s.contains("live") && s.contains("rollout"));
        cockpit
    }

    fn alone(dir: tempfile::TempDir) -> Self {
        let command = command(&dir.path().join("s"));
        Self::run(dir, command)
    }

    fn run(dir: tempfile::TempDir, command: CommandBuilder) -> Self {
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

    fn canned(&self) -> Arc<Canned> {
        self.server.as_ref().unwrap().canned.clone()
    }

    fn master(&self) -> &dyn MasterPty {
        &*self.pair.as_ref().unwrap().master
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Closes the terminal, as a lost SSH session does.
    fn close_terminal(&mut self) {
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

    fn text(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    fn wait_for(&self, what: &str, ok: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !ok(&self.text()) {
            assert!(Instant::now() < end, "waited in vain for {what}:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_verbs(&self, n: usize) {
        let end = Instant::now() + PATIENCE;
        while self.canned().verbs().len() < n {
            assert!(Instant::now() < end, "{:?}\n{}", self.canned().verbs(), self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let keys = self.keys.as_mut().unwrap();
        keys.write_all(bytes).unwrap();
        keys.flush().unwrap();
    }

    /// A command by name, typed by a person.
    fn command(&mut self, text: &str) {
        for c in format!(":{text}\r").chars() {
            std::thread::sleep(if c == '\r' { PERSON } else { Duration::from_millis(60) });
            self.send(c.to_string().as_bytes());
        }
    }

    /// The kinds of the verbs that reached the controller, in order.
    fn sent(&self) -> Vec<Verb> {
        self.canned().verbs().into_iter().map(|(_, request)| request.verb).collect()
    }

    /// A key by a person.
    fn key(&mut self, bytes: &[u8]) {
        std::thread::sleep(PERSON);
        self.send(bytes);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.process_id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_for_end(&mut self) -> ExitStatus {
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
    fn check_restored(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let restored = {
                let seen = self.seen.lock().unwrap();
                let s = seen.parser.screen();
                !s.alternate_screen() && !s.bracketed_paste() && !s.hide_cursor()
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

fn termios(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

#[test]
fn q_gives_the_terminal_back_and_says_that_the_rollout_goes_on() {
    let mut c = Cockpit::open(fixture::canary());
    assert_ne!(termios(c.master()), c.before, "raw mode");
    c.key(b"q");
    assert!(c.wait_for_end().success());
    c.check_restored();
    c.wait_for("the farewell", |s| {
        s.contains("Detached; web goes on: canary to 1.5.0, running, phase 3/5 (25%).")
    });
    assert!(c.canned().verbs().is_empty());
}

#[test]
fn signals_and_ctrl_c_give_the_terminal_back() {
    for how in ["TERM", "HUP", "INT", "^C"] {
        let mut c = Cockpit::open(fixture::canary());
        match how {
            "TERM" => c.signal(Signal::TERM),
            "HUP" => c.signal(Signal::HUP),
            "INT" => c.signal(Signal::INT),
            _ => c.key(b"\x03"),
        }
        c.wait_for_end();
        c.check_restored();
    }
}

#[test]
fn a_closed_terminal_ends_it_within_a_second() {
    let mut c = Cockpit::open(fixture::canary());
    c.close_terminal();
    let closed = Instant::now();
    c.wait_for_end();
    assert!(closed.elapsed() < Duration::from_secs(1), "{:?}", closed.elapsed());
}

#[test]
fn the_whole_canary_by_keys_and_by_name() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"p");
    c.wait_for("the question", |s| s.contains("PROMOTE web to the next phase?"));
    c.key(b"y");
    c.wait_for("the phase", |s| s.contains("phase 4/5"));
    c.key(b" ");
    c.wait_for("the pause", |s| s.contains("PAUSED"));
    c.command("resume");
    c.wait_for("the question", |s| s.contains("RESUME web?"));
    c.key(b"y");
    c.wait_for("going on", |s| s.contains("running:"));
    c.command("promote");
    c.wait_for("the question", |s| s.contains("PROMOTE web to the next phase?"));
    c.key(b"y");
    c.wait_for("the last phase", |s| s.contains("phase 5/5"));
    c.command("abort");
    c.wait_for("the question", |s| s.contains("ABORT web?"));
    c.key(b"y");
    c.wait_for("the end", |s| s.contains("aborted"));
    c.command("deploy 1.6.0");
    c.wait_for("the plan", |s| s.contains("DEPLOY web") && s.contains("y deploys"));
    c.key(b"y");
    c.wait_for_verbs(6);
    let promote = Verb::Promote { full: false };
    let deploy = Verb::Deploy { version: "1.6.0".into() };
    assert_eq!(c.sent(), [promote.clone(), Verb::Pause, Verb::Resume, promote, Verb::Abort, deploy]);
    c.command("quit");
    assert!(c.wait_for_end().success());
    c.check_restored();
}

#[test]
fn the_same_story_pasted_or_with_50_ms_between_the_bytes_does_nothing() {
    for story in [
        "d1.6.0\rypypyP\ryryt\ry",
        ":deploy 1.6.0\ry:promote\ry:promote full\ryweb\r:rollback\ry",
        ":pause\r:abort\ry:retry\ry:resume\ry",
    ] {
        for how in ["bracketed", "at once", "slowly"] {
            let mut c = Cockpit::open(fixture::production());
            match how {
                "bracketed" => c.send(format!("\x1b[200~{story}\x1b[201~").as_bytes()),
                "at once" => c.send(story.as_bytes()),
                _ => {
                    for byte in story.bytes() {
                        c.send(&[byte]);
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(c.sent(), [], "{story:?} {how}:\n{}", c.text());
        }
    }
}

#[test]
fn what_is_copied_goes_to_the_terminal_at_the_other_end() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"3");
    c.key(b"c");
    c.wait_for("the word that it was done", |s| s.contains("copied") && s.contains("web-9c1e0a77-1"));
    let raw = String::from_utf8_lossy(&c.seen.lock().unwrap().raw).into_owned();
    // web-9c1e0a77-1
    assert!(raw.contains("\u{1b}]52;c;d2ViLTljMWUwYTc3LTE=\u{7}"));
}

#[test]
fn details_of_an_instance_are_asked_for_and_shown() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"3");
    c.key(b"\r");
    c.wait_for("what the engine says", |s| s.contains("DATABASE_URL=(hidden)") && s.contains("exit code"));
    c.key(b"\x1b");
    c.wait_for("the panes", |s| s.contains("3 fleet"));
    c.key(b"ay");
    c.wait_for_verbs(1);
}

#[test]
fn where_one_only_looks_no_key_and_no_name_sends_anything() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("s"), Canned::new(fixture::canary()));
    let mut command = command(&dir.path().join("s"));
    command.args(["--read-only", "--theme", "contrast"]);
    let mut c = Cockpit::run(dir, command);
    c.server = Some(server);
    c.wait_for("the picture", |s| s.contains("READ-ONLY live"));
    for key in [&b"a"[..], b"y", b"p", b"y", b" ", b"d", b"r", b"y"] {
        c.key(key);
    }
    c.command("abort");
    c.wait_for("that there is no such thing", |s| s.contains("there is no command 'abort'"));
    c.key(b"\x1b");
    assert_eq!(c.sent(), []);
    c.key(b"q");
    assert!(c.wait_for_end().success());
    c.check_restored();
}

/// A cockpit with these settings of its own, and its first picture.
fn with_settings(text: &str) -> Cockpit {
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

#[test]
fn keys_are_those_of_the_operator_s_own_file() {
    let mut c = with_settings("[keys]\nabort = [\"x\", \"F5\"]\n");
    c.wait_for("the configured key", |s| s.contains("x, F5 abort"));
    // What is no key any more does nothing; F5 as xterm sends it.
    c.key(b"a");
    c.key(b"\x1b[15~");
    c.wait_for("the question", |s| s.contains("ABORT web?"));
    c.key(b"y");
    c.wait_for_verbs(1);
    assert_eq!(c.sent(), [Verb::Abort]);
}

#[test]
fn a_file_with_a_mistake_is_said_on_the_screen_and_after_it_and_the_keys_are_the_usual_ones() {
    let mut c = with_settings("theme = \"lihgt\"\n[keys]\nabort = \"x\"\n");
    c.wait_for("the mistake", |s| s.contains("cockpit.toml:1:9: there is no such theme"));
    c.key(b"x");
    c.key(b"a");
    c.wait_for("the question", |s| s.contains("ABORT web?") && !s.contains("no such theme"));
    c.key(b"\x1b");
    c.key(b"q");
    assert!(c.wait_for_end().success());
    c.check_restored();
    let left = c.text();
    assert!(left.contains("= write theme = \"light\"") && left.contains("defaults are used"), "{left}");
}

#[test]
fn a_closed_terminal_ends_it_even_when_no_signal_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    // Nothing that moves: no write may be what notices that the terminal is gone.
    let server = Server::start(&socket, Canned::new(fixture::empty()));
    let pair = native_pty_system().openpty(size(100, 30)).unwrap();
    let (seen, reader) = watch(&*pair.master);
    // Not its controlling terminal: the kernel sends no SIGHUP, and only the hang-up itself can be noticed.
    let tty = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap())
        .open(pair.master.tty_name().unwrap())
        .unwrap();
    let mut child = std::process::Command::new(BINARY)
        .args(["cockpit", "--socket"])
        .arg(&socket)
        .env_clear()
        .env("TERM", "xterm")
        .stdin(tty.try_clone().unwrap())
        .stdout(tty)
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    let mut n = 0;
    while !reader.is_finished() {
        assert!(Instant::now() < end, "{}", seen.lock().unwrap().parser.screen().contents());
        n += 1;
        server.canned.change(|s| s.alarms = vec![format!("{n}").into()]);
        std::thread::sleep(Duration::from_millis(50));
        let mut seen = seen.lock().unwrap();
        seen.stop = seen.parser.screen().contents().contains("live");
    }
    drop(pair);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    assert!(status.is_some(), "it lives on without a terminal");
}

#[test]
fn promote_reaches_the_controller_with_the_decision_that_was_seen() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"p");
    c.wait_for("the question", |s| s.contains("PROMOTE web to the next phase?"));
    c.key(b"\r");
    c.key(b"y");
    c.wait_for_verbs(1);
    let (service, request) = c.canned().verbs().remove(0);
    assert_eq!(
        (service.as_str(), request.verb, request.decision),
        ("web", Verb::Promote { full: false }, Some(40))
    );
    assert_eq!(request.by.unwrap().as_str(), "operator");
    c.wait_for("the new phase", |s| s.contains("phase 4/5") && s.contains("promote web: accepted"));
}

#[test]
fn abort_is_two_keys_in_one_breath_and_is_not_cut_off_by_leaving() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"ayq");
    assert!(c.wait_for_end().success());
    let verbs = c.canned().verbs();
    assert_eq!(verbs.len(), 1);
    assert_eq!((&verbs[0].1.verb, verbs[0].1.decision), (&Verb::Abort, None));
    c.check_restored();
}

#[test]
fn a_stale_refusal_is_shown_with_what_changed() {
    let mut c = Cockpit::open(fixture::canary());
    c.canned().refuse_next();
    c.key(b"p");
    c.wait_for("the question", |s| s.contains("PROMOTE"));
    c.key(b"y");
    c.wait_for("the refusal", |s| s.contains("NOT done") && s.contains("bob promoted to 50%"));
}

#[test]
fn pastes_do_nothing_bracketed_or_not() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"\x1b[200~promote y py ry\ry\x1b[201~");
    c.wait_for("the notice", |s| s.contains("paste was ignored"));
    c.key(b"pypyPy\rryry");
    c.wait_for("a question", |s| s.contains("PROMOTE web") || s.contains("ROLL web"));
    c.key(b"\x1b");
    c.wait_for("no question", |s| !s.contains("PROMOTE web") && !s.contains("ROLL web"));
    assert!(c.canned().verbs().is_empty(), "{:?}", c.canned().verbs());
}

#[test]
fn a_split_escape_sequence_on_a_slow_link_does_nothing() {
    let mut c = Cockpit::open(fixture::canary());
    for end in [b'A', b'B', b'C', b'D', b'F', b'H'] {
        for middle in [b'[', b'O'] {
            for byte in [0x1b, middle, end] {
                c.send(&[byte]);
                std::thread::sleep(Duration::from_millis(60));
            }
        }
    }
    c.key(b"?");
    c.wait_for("the help page", |s| s.contains("STEER"));
    assert!(c.canned().verbs().is_empty());
}

#[test]
fn a_resize_in_the_middle_draws_a_picture_of_the_new_size() {
    let mut c = Cockpit::open(fixture::canary());
    for (cols, rows) in [(40, 10), (200, 50), (1, 1), (80, 24)] {
        c.pair.as_ref().unwrap().master.resize(size(cols, rows)).unwrap();
        c.seen.lock().unwrap().parser.screen_mut().set_size(some(rows), some(cols));
        std::thread::sleep(Duration::from_millis(150));
    }
    c.wait_for("the picture at 80x24", |s| {
        s.lines().count() == 24
            && s.lines().last().is_some_and(|l| l.contains("a abort") && l.contains("q detach"))
    });
    c.key(b"q");
    c.wait_for_end();
    c.check_restored();
}

#[test]
fn a_lost_controller_is_shown_and_comes_back_by_itself() {
    let mut c = Cockpit::open(fixture::canary());
    let canned = c.canned();
    c.server = None;
    c.wait_for("the loss", |s| s.contains("LOST") && s.contains("1.4.2"));
    c.key(b"a");
    c.wait_for("why not", |s| s.contains("abort is off"));
    c.server = Some(Server::start(&c.socket(), canned));
    c.wait_for("the return", |s| s.contains(" live") && !s.contains("LOST"));
    c.key(b"ay");
    c.wait_for_verbs(1);
}

#[test]
fn a_controller_that_is_not_there_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = Cockpit::alone(dir);
    c.wait_for("the wait", |s| s.contains("no controller answers yet"));
    c.server = Some(Server::start(&c.socket(), Canned::new(fixture::empty())));
    c.wait_for("the empty fleet", |s| s.contains("runs nothing yet") && s.contains("pilothouse up"));
    c.key(b"q");
    assert!(c.wait_for_end().success());
    c.check_restored();
}

#[test]
fn logs_are_followed_and_abort_works_from_there() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"3l");
    c.wait_for("the lines", |s| s.contains("39 web-9c1e0a77-1 GET /cart"));
    c.key(b"vv");
    c.wait_for("both instances", |s| {
        s.contains("7f3a-1 38 INFO") && s.contains("9c1e-1 39 ERROR") && s.contains("2 instances following")
    });
    c.key(b"ay");
    c.wait_for_verbs(1);
    assert_eq!(c.canned().verbs()[0].1.verb, Verb::Abort);
}

#[test]
fn the_journal_is_read_further_back() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b":journal\r");
    c.wait_for("the page before the picture", |s| {
        s.contains("the very first event") && s.contains("all there is")
    });
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_takes_it_again() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b"\x1a");
    c.check_restored();
    c.signal(Signal::CONT);
    c.wait_for("the picture", |s| s.contains("a abort") && s.contains("live"));
    assert_ne!(termios(c.master()), c.before);
    c.key(b"q");
    assert!(c.wait_for_end().success());
    c.check_restored();
}

#[test]
fn ctrl_z_in_a_shell_stops_it_and_fg_goes_on_and_no_key_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let server = Server::start(&socket, Canned::new(fixture::canary()));
    let mut shell = CommandBuilder::new("bash");
    shell.args(["--norc", "--noprofile", "--noediting", "-i"]);
    shell.env_clear();
    let path = std::env::var("PATH").unwrap();
    for (name, value) in [("TERM", "xterm"), ("LANG", "C.UTF-8"), ("PS1", "prompt> "), ("PATH", &*path)] {
        shell.env(name, value);
    }
    let mut c = Cockpit::run(dir, shell);
    c.server = Some(server);
    c.wait_for("the prompt", |s| s.contains("prompt>"));
    c.send(format!("{BINARY} cockpit --socket {}\n", socket.display()).as_bytes());
    c.wait_for("the picture", |s| s.contains("live") && s.contains("a abort"));
    for _ in 0..2 {
        c.key(b"\x1a");
        c.wait_for("the shell", |s| s.contains("Stopped") && !s.contains("a abort"));
        c.key(b"clear\n");
        c.wait_for("an empty screen", |s| !s.contains("Stopped"));
        c.key(b"fg\n");
        c.wait_for("the picture", |s| s.contains("live") && s.contains("a abort"));
        c.key(b"?");
        c.wait_for("the help page", |s| s.contains("STEER"));
        c.key(b"q");
        c.wait_for("the panes", |s| !s.contains("STEER"));
    }
    c.key(b"q");
    c.wait_for("the farewell", |s| s.contains("Detached; web goes on"));
    c.send(b"exit\n");
    c.wait_for_end();
    c.check_restored();
}

#[test]
fn nothing_from_outside_reaches_the_terminal_as_a_control_sequence() {
    let mut s = fixture::canary();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\u{202e}evil";
    s.environment = evil.into();
    s.alarms = vec![evil.into()];
    s.events.iter_mut().for_each(|e| e.text = evil.into());
    s.instances.iter_mut().for_each(|i| (i.id, i.host, i.probe) = (evil.into(), evil.into(), evil.into()));
    let mut c = Cockpit::open(s);
    c.key(b"q");
    c.wait_for_end();
    let seen = c.seen.lock().unwrap();
    let raw = String::from_utf8_lossy(&seen.raw);
    assert!(raw.contains("evil"));
    for bad in ["\u{1b}]", "\u{7}", "\u{9b}", "\u{202e}", "\u{1b}[6n"] {
        assert!(!raw.contains(bad), "{bad:?}");
    }
}

#[test]
fn an_idle_screen_writes_nothing() {
    let mut still = fixture::finished();
    still.instances.clear();
    still.services.iter_mut().for_each(|s| s.rollout = None);
    let c = Cockpit::open(still);
    std::thread::sleep(Duration::from_millis(500));
    let bytes = || c.seen.lock().unwrap().raw.len();
    let before = bytes();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(bytes(), before);
}

#[test]
fn without_a_terminal_it_refuses_with_a_hint() {
    let out = std::process::Command::new(BINARY)
        .args(["cockpit", "--socket", "/nonexistent/s"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("use 'pilothouse status --watch'"));
}
