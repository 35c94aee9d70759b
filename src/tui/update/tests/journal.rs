//! The events pane further back than the picture: pages that are asked for as somebody comes near, without gaps, bounded.

use super::*;
use crate::api::JournalPage;
use crate::tui::journal::{KEPT, Stop};

fn event(seq: u64, by: &str) -> EventView {
    EventView { seq, by: by.into(), text: format!("event {seq}").into(), ..EventView::default() }
}

fn events(seqs: std::ops::Range<u64>) -> Vec<EventView> {
    seqs.map(|seq| event(seq, if seq % 100 == 0 { "alice" } else { "pilothouse" })).collect()
}

/// The fixture, with events 1,001 to 1,020 in the picture.
fn rig() -> Rig {
    let mut s = fixture::canary();
    s.events = events(1_001..1_021);
    let mut rig = Rig::on(s);
    rig.key(Key::Char('5'));
    rig
}

fn asked(cmds: &[Cmd]) -> Option<u64> {
    match cmds {
        [] => None,
        [Cmd::Journal { before }] => Some(*before),
        other => panic!("{other:?}"),
    }
}

fn page(rig: &mut Rig, seqs: std::ops::Range<u64>) -> Option<u64> {
    let before = Some(seqs.start).filter(|s| *s > 1);
    asked(&rig.send(Msg::Journal(Ok(JournalPage { events: events(seqs), before }))))
}

fn seqs(rig: &Rig) -> Vec<u64> {
    rig.model.events().iter().map(|e| e.seq).collect()
}

#[test]
fn nothing_is_asked_for_that_nobody_comes_near() {
    let mut rig = rig();
    assert_eq!(asked(&rig.key(Key::Up)), None, "the picture has more than is in sight");
    rig.key(Key::Char('4'));
    assert_eq!(asked(&rig.key(Key::Char('g'))), None, "other panes have no journal");
    rig.key(Key::Char('5'));
    assert_eq!(asked(&rig.key(Key::Char('g'))), Some(1_001));
    assert_eq!(asked(&rig.key(Key::Char('g'))), None, "once is enough");
}

#[test]
fn pages_come_as_one_scrolls_back_to_the_beginning_without_a_gap() {
    let mut rig = rig();
    assert_eq!(asked(&rig.key(Key::Char('z'))), Some(1_001), "the whole screen has room for more");
    let mut next = page(&mut rig, 801..1_001);
    assert_eq!(next, None, "it is full now");
    let mut from = 801;
    for _ in 0..40 {
        next = asked(&rig.key(Key::Char('g')));
        let Some(before) = next else { break };
        assert_eq!(before, from);
        from = from.saturating_sub(200).max(1);
        page(&mut rig, from..before);
    }
    assert_eq!((next, from), (None, 1));
    assert_eq!(seqs(&rig), (1..1_021).collect::<Vec<_>>());
    assert_eq!(rig.model.journal.stop, Some(Stop::Beginning));
    rig.key(Key::Char('g'));
    assert_eq!(rig.key(Key::Char('c')), [Cmd::Copy("00:00:00 event 1 (pilothouse)".into())]);
}

#[test]
fn the_place_stays_when_pages_and_news_come() {
    let mut rig = rig();
    rig.key(Key::Char('g'));
    let looked_at = |rig: &Rig| seqs(rig)[seqs(rig).len() - 1 - rig.model.events_back];
    assert_eq!(looked_at(&rig), 1_001);
    page(&mut rig, 801..1_001);
    assert_eq!(looked_at(&rig), 1_001);
    rig.change(|s| s.events.push(event(1_021, "bob")));
    assert_eq!(looked_at(&rig), 1_001);
}

#[test]
fn what_slides_out_of_the_picture_stays_in_the_list() {
    let mut s = fixture::canary();
    s.events = events(1_001..1_001 + crate::api::TAIL as u64);
    let mut rig = Rig::on(s);
    rig.key(Key::Char('5'));
    let last = 1_000 + crate::api::TAIL as u64;
    let news = |rig: &mut Rig, seqs: std::ops::Range<u64>| {
        let seq = rig.model.snapshot.as_ref().unwrap().seq + 1;
        let changes = events(seqs).into_iter().map(Change::Event).collect();
        rig.send(Msg::Update(Update::Delta(Delta { seq, changes })));
    };
    news(&mut rig, last + 1..last + 3);
    assert_eq!(rig.model.journal.len(), 0, "nobody has asked");
    assert_eq!(asked(&rig.key(Key::Char('g'))), Some(1_003));
    // While the page is on its way, and after it has come.
    news(&mut rig, last + 3..last + 6);
    page(&mut rig, 803..1_003);
    news(&mut rig, last + 6..last + 20);
    assert_eq!(seqs(&rig), (803..last + 20).collect::<Vec<_>>());
    // After a gap nobody knows what is missing.
    rig.send(Msg::Update(Update::Snapshot(Box::new(fixture::canary()))));
    assert_eq!(rig.model.journal.len(), 0);
}

#[test]
fn a_filter_looks_further_back_until_the_screen_is_full() {
    let mut rig = rig();
    rig.key(Key::Char('z'));
    rig.key(Key::Char('/'));
    rig.typed("alice");
    rig.key(Key::Enter);
    let mut before = 1_001;
    let mut next = page(&mut rig, before - 200..before);
    for _ in 0..4 {
        before -= 200;
        if before == 1 {
            break;
        }
        assert_eq!(next, Some(before));
        next = page(&mut rig, before.saturating_sub(200).max(1)..before);
    }
    assert_eq!(seqs(&rig), (1..=10).map(|n| n * 100).collect::<Vec<_>>());
    rig.key(Key::Esc);
    assert!(!rig.model.zoom);
    rig.key(Key::Esc);
    assert_eq!(seqs(&rig).len(), 1_020);
}

#[test]
fn as_much_is_kept_as_anybody_reads_and_a_failure_says_why() {
    let mut s = fixture::canary();
    s.events = events(101_001..101_021);
    let mut full = Rig::on(s);
    full.key(Key::Char('5'));
    let mut before = 101_001;
    while asked(&full.key(Key::Char('g'))).is_some() {
        page(&mut full, before - 500..before);
        before -= 500;
    }
    assert_eq!((full.model.journal.len(), &full.model.journal.stop), (KEPT, &Some(Stop::Full)));

    let mut rig = rig();
    rig.key(Key::Char('g'));
    let late = ClientError::NoAnswer { what: "journal".into(), why: "it took too long".into() };
    rig.send(Msg::Journal(Err(late)));
    assert!(matches!(&rig.model.journal.stop, Some(Stop::Failed(why)) if why.as_str().contains("too long")));
    assert_eq!(asked(&rig.key(Key::Char('g'))), None);
}
