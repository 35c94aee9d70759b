//! However it ends, the terminal is given back.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use pilothouse::tui::fixture;
use portable_pty::{CommandBuilder, native_pty_system};
use rustix::process::Signal;

use crate::canned::Canned;
use crate::pty::*;

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
fn without_a_terminal_it_refuses_with_a_hint() {
    let out = std::process::Command::new(BINARY)
        .args(["cockpit", "--socket", "/nonexistent/s"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("use 'pilothouse status --watch'"));
}

#[test]
fn the_mouse_is_the_terminal_s_unless_it_is_asked_for_and_given_back_with_it() {
    let on = |c: &Cockpit| {
        let seen = c.seen.lock().unwrap();
        seen.parser.screen().mouse_protocol_mode() != vt100::MouseProtocolMode::None
    };
    let until = |c: &Cockpit, wanted: bool| {
        let end = Instant::now() + PATIENCE;
        while on(c) != wanted {
            assert!(Instant::now() < end, "{}", c.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut c = Cockpit::open(fixture::canary());
    c.command("mouse");
    until(&c, true);
    let (x, y) = {
        let text = c.text();
        let y = text.lines().position(|l| l.contains("5 events")).unwrap();
        (text.lines().nth(y).unwrap().find("5 events").unwrap(), y)
    };
    // A press on the events pane, as the terminal writes it, then one that is torn in the middle.
    c.key(format!("\x1b[<0;{};{}M\x1b[<0;{};{}m", x + 1, y + 1, x + 1, y + 1).as_bytes());
    c.key(b"z");
    c.wait_for("the events on the whole screen", |s| !s.contains("3 fleet"));
    for byte in b"\x1b[<0;10;10M\x1b[<0;10;10m" {
        std::thread::sleep(Duration::from_millis(50));
        c.send(&[*byte]);
    }
    c.command("mouse");
    until(&c, false);
    assert_eq!(c.sent(), [], "no verb");
    c.command("mouse");
    until(&c, true);
    c.key(b"q");
    assert!(c.wait_for_end().success());
    c.check_restored();
    let raw = String::from_utf8_lossy(&c.seen.lock().unwrap().raw).into_owned();
    assert!(!raw.contains("\x1b[?1002h") && !raw.contains("\x1b[?1003h"), "movements are not asked for");
}
