//! The events pane on the whole screen, with what the journal has before the picture.

use super::*;
use crate::api::{EventView, JournalPage};

/// After these keys, and with two days before the picture.
fn shown(size: (u16, u16), keys: &str) -> Model {
    let mut m = model(fixture::canary(), size);
    press(&mut m, ":journal\n");
    let event = |seq: u64, by: &str, text: &str| EventView {
        seq,
        at_ms: fixture::WALL_MS - 86_400_000 * (3 - seq),
        by: by.into(),
        service: Some("web".into()),
        text: text.into(),
        ..EventView::default()
    };
    let events = vec![
        event(1, "alice", "fleet file loaded: 3 hosts, 3 services"),
        event(2, "bob", "web: abort: bob saw errors in the log"),
    ];
    update(&mut m, Msg::Journal(Ok(JournalPage { events, before: None })));
    press(&mut m, keys);
    m
}

#[test]
fn other_days_have_dates_and_the_beginning_is_said() {
    for (name, keys) in [("journal", ""), ("journal_top", "g")] {
        for size in [(40, 10), (80, 24), (200, 50)] {
            for (look, theme) in [("colour", COLOUR), ("no_color", NO_COLOUR), ("ascii", ASCII)] {
                let buf = picture(&mut shown(size, keys), &theme);
                insta::assert_snapshot!(format!("{name}_{}x{}_{look}", size.0, size.1), text(&buf));
            }
        }
    }
}

#[test]
fn at_the_beginning_there_is_a_page_and_the_first_event_is_looked_at() {
    let buf = picture(&mut shown((80, 24), "g"), &COLOUR);
    let (x, y) = find(&buf, "fleet file loaded");
    assert!(buf[(x, y)].modifier.contains(Modifier::REVERSED));
    let (_, below) = find(&buf, "bob saw errors");
    assert_eq!(below, y + 1);
    assert!(!buf[(x, below)].modifier.contains(Modifier::REVERSED));
    find(&buf, "all there is");
}

#[test]
fn a_page_on_its_way_and_one_that_failed_are_said() {
    let mut m = model(fixture::canary(), (80, 24));
    press(&mut m, "5z");
    find(&picture(&mut m, &COLOUR), "reading further back");
    let late = crate::client::ClientError::NoAnswer { what: "journal".into(), why: "too late".into() };
    update(&mut m, Msg::Journal(Err(late)));
    let buf = picture(&mut m, &COLOUR);
    assert_eq!(buf[find(&buf, "nothing older: no answer")].fg, Color::Yellow);
}
