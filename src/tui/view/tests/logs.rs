//! The log pane: marks, levels, what was found, and the place that is looked at.

use super::*;
use crate::api::{LogEntry, MergedLog};

fn line(instance: &str, stderr: bool, text: &str) -> MergedLog {
    let line = LogEntry { stderr, text: text.into(), at_ms: None };
    MergedLog::Line { instance: instance.into(), line }
}

fn lines() -> Vec<MergedLog> {
    let note = |text: &str| MergedLog::Note { instance: "web-9c1e0a77-2".into(), text: text.into() };
    vec![
        MergedLog::Reads { instances: 8, of: 8 },
        line("web-7f3a0b11-1", false, "INFO GET /cart 200 5ms"),
        line("web-9c1e0a77-1", false, r#"{"level":"warn","msg":"cart is slow"}"#),
        line("web-7f3a0b11-2", false, "DEBUG cache hit for cart 17"),
        note("is new: 1.5.0 on node-2"),
        line("web-9c1e0a77-2", true, "[error] cart: 연결이 끊어졌습니다"),
        line("web-7f3a0b11-1", true, "started"),
        line("web-9c1e0a77-2", true, "level=info msg=\"another Cart\""),
        note("has exited"),
        line("web-7f3a0b11-1", false, "plain text"),
    ]
}

/// The service's logs, and then these keys.
fn shown(size: (u16, u16), keys: &str) -> Model {
    let mut m = model(fixture::canary(), size);
    press(&mut m, "1l");
    let generation = m.logs.as_ref().unwrap().generation;
    update(&mut m, Msg::Log { generation, lines: lines() });
    press(&mut m, keys);
    m
}

#[test]
fn merged_logs_on_every_size() {
    for (name, keys) in [("logs", ""), ("logs_search", "/cart\nnN")] {
        for size in [(40, 10), (80, 24), (200, 50)] {
            for (look, theme) in [("colour", COLOUR), ("no_color", NO_COLOUR), ("ascii", ASCII)] {
                let buf = picture(&mut shown(size, keys), &theme);
                let styles = if look == "colour" { format!("\n\n{}", styles(&buf)) } else { String::new() };
                let all = format!("{}{styles}", text(&buf));
                insta::assert_snapshot!(format!("{name}_{}x{}_{look}", size.0, size.1), all);
            }
        }
    }
}

#[test]
fn a_mark_says_which_instance_and_its_colour_which_version() {
    let buf = picture(&mut shown((80, 24), ""), &COLOUR);
    assert_eq!(buf[find(&buf, "9c1e-1")].fg, Color::LightMagenta);
    assert_eq!(buf[find(&buf, "7f3a-1")].fg, Color::Cyan);
    find(&buf, "logs  web 8 instances following");
    let mut m = shown((80, 24), "");
    let generation = m.logs.as_ref().unwrap().generation;
    update(&mut m, Msg::Log { generation, lines: vec![MergedLog::Reads { instances: 32, of: 40 }] });
    let buf = picture(&mut m, &COLOUR);
    assert_eq!(buf[find(&buf, "32 of 40 instances")].fg, Color::Yellow);
    // One instance's log needs none.
    let mut m = model(fixture::canary(), (80, 24));
    press(&mut m, "3l");
    let generation = m.logs.as_ref().unwrap().generation;
    update(&mut m, Msg::Log { generation, lines: vec![line("web-9c1e0a77-1", false, "hello")] });
    let buf = picture(&mut m, &COLOUR);
    assert_eq!(find(&buf, "hello").0, 1);
}

#[test]
fn a_level_is_a_tone_and_standard_error_a_mark_whatever_the_level() {
    let buf = picture(&mut shown((80, 24), ""), &COLOUR);
    assert_eq!(buf[find(&buf, "[error]")].fg, Color::LightRed);
    assert_eq!(buf[find(&buf, "{\"level\":\"warn\"")].fg, Color::Yellow);
    assert!(buf[find(&buf, "DEBUG")].modifier.contains(Modifier::DIM));
    assert_eq!(buf[find(&buf, "INFO GET")].fg, Color::Reset);
    for (text, tone) in
        [("[error]", Color::Yellow), ("started", Color::Yellow), ("level=info", Color::Yellow)]
    {
        let (_, y) = find(&buf, text);
        assert_eq!((buf[(0, y)].symbol(), buf[(0, y)].fg), ("!", tone), "{text}");
    }
    assert_eq!(buf[find(&buf, "level=info")].fg, Color::Reset, "what says it is fine is no warning");
    assert_eq!(buf[find(&buf, "started")].fg, Color::Yellow);
}

#[test]
fn what_is_searched_for_stands_out_also_in_the_line_that_is_looked_at() {
    let mut m = shown((80, 24), "/cart\nnN");
    let buf = picture(&mut m, &COLOUR);
    find(&buf, "/cart match 4 of 5 · 4 lines below");
    let reversed = |at: (u16, u16)| buf[at].modifier.contains(Modifier::REVERSED);
    let (x, y) = find(&buf, "cart 17");
    assert!(reversed((x, y)) && reversed((x + 3, y)) && !reversed((x + 4, y)) && !reversed((x - 1, y)));
    // The line that is looked at is reversed, and what was found in it is not.
    let (x, y) = find(&buf, "cart: ");
    assert!(!reversed((x, y)) && reversed((x + 4, y)) && reversed((x - 1, y)));
    let (x, y) = find(&buf, "another Cart");
    assert!(reversed((x + 8, y)) && !reversed((x + 7, y)));
    // Scrolled to the right, what is in sight is still marked where it stands.
    update(&mut m, Msg::Key(Key::Right));
    let buf = picture(&mut m, &COLOUR);
    let (x, y) = find(&buf, "Cart\"");
    assert!(buf[(x, y)].modifier.contains(Modifier::REVERSED), "{x} {y}");
}
