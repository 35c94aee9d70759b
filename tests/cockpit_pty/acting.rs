//! What keys, names, pastes and split sequences send, and what they do not.

use std::time::Duration;

use pilothouse::api::Verb;
use pilothouse::tui::fixture;

use crate::canned::Canned;
use crate::pty::*;

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
