//! What is shown, and what never reaches the terminal.

use std::time::Duration;

use pilothouse::tui::fixture;

use crate::canned::Canned;
use crate::pty::*;

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
fn the_journal_is_read_further_back() {
    let mut c = Cockpit::open(fixture::canary());
    c.key(b":journal\r");
    c.wait_for("the page before the picture", |s| {
        s.contains("the very first event") && s.contains("all there is")
    });
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
