//! Filters: each list for itself, counted, cleared with Esc, and never in the way of what comes.

use super::*;

fn filtered(rig: &mut Rig, pane: char, text: &str) {
    rig.key(Key::Char(pane));
    rig.key(Key::Char('/'));
    rig.typed(text);
    rig.key(Key::Enter);
}

#[test]
fn every_list_has_its_own_and_esc_clears_the_one_in_focus_first() {
    let mut rig = Rig::on(fixture::canary());
    filtered(&mut rig, '4', "fail");
    filtered(&mut rig, '5', "!pilothouse");
    filtered(&mut rig, '3', "^node-(1|2)$");
    assert_eq!(rig.model.probes().0.len(), 1);
    assert_eq!(rig.model.events().iter().map(|e| e.by.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    assert_eq!((rig.model.rows.len(), rig.model.in_scope), (6, 8));
    rig.key(Key::Char('4'));
    rig.key(Key::Esc);
    assert_eq!((rig.model.probes().0.len(), rig.model.events().len(), rig.model.rows.len()), (8, 2, 6));
    rig.key(Key::Esc);
    rig.key(Key::Esc);
    assert_eq!((rig.model.events().len(), rig.model.rows.len()), (5, 8));
}

#[test]
fn what_comes_later_goes_through_the_filter_and_those_who_scrolled_back_stay() {
    let mut rig = Rig::on(fixture::canary());
    filtered(&mut rig, '5', "alice|bob");
    rig.key(Key::Up);
    assert_eq!(rig.model.events_back, 1);
    let event = |seq, by: &str| EventView { seq, by: by.into(), text: "x".into(), ..EventView::default() };
    let news = |rig: &mut Rig, e| {
        let seq = rig.model.snapshot.as_ref().unwrap().seq + 1;
        rig.send(Msg::Update(Update::Delta(Delta { seq, changes: vec![Change::Event(e)] })));
    };
    news(&mut rig, event(95, "carol"));
    assert_eq!((rig.model.events_back, rig.model.events().len()), (1, 2), "is no line of this list");
    news(&mut rig, event(96, "bob"));
    assert_eq!((rig.model.events_back, rig.model.events().len()), (2, 3));
}

#[test]
fn a_row_appears_when_an_instance_begins_to_match_and_goes_when_it_ends() {
    let mut rig = Rig::on(fixture::canary());
    filtered(&mut rig, '3', "fail");
    assert_eq!(rig.model.rows.len(), 0);
    rig.change(|s| s.instances[3].health = crate::api::HealthView::Unhealthy);
    update(&mut rig.model, Msg::Time { now_ms: rig.now, wall_ms: rig.now });
    rig.model.settle();
    assert_eq!(rig.model.rows.len(), 1);
    rig.change(|s| s.instances[3].health = crate::api::HealthView::Healthy);
    rig.model.settle();
    assert_eq!(rig.model.rows.len(), 0);
}

#[test]
fn log_lines_are_found_among_thousands_that_come_and_go() {
    let mut rig = Rig::on(fixture::canary());
    let cmds = rig.key(Key::Char('l'));
    let Some(Cmd::Follow { generation, .. }) = cmds.first() else { panic!("{cmds:?}") };
    let lines = |from: u64, to: u64| -> Vec<MergedLog> {
        let text = |n| format!("{n} {}", if n % 10 == 0 { "ERROR" } else { "info" });
        (from..to).map(|n| logs::line(text(n))).collect()
    };
    let generation = *generation;
    rig.send(Msg::Log { generation, lines: lines(0, 1500) });
    rig.key(Key::Char('/'));
    rig.typed("error");
    rig.key(Key::Enter);
    let logs = |rig: &Rig| rig.model.logs.clone().unwrap();
    assert_eq!(logs(&rig).count(), 150);
    rig.key(Key::Up);
    let seen = logs(&rig).line(148).cloned();
    assert_eq!(seen.as_ref().unwrap().text.as_str(), "1480 ERROR");
    rig.send(Msg::Log { generation, lines: lines(1500, 2600) });
    let now = logs(&rig);
    assert_eq!((now.count(), now.lines.len(), now.dropped), (200, LOG_LINES, 600));
    assert_eq!(now.line(now.count() - 1 - now.back).cloned(), seen, "stands still while lines come");
    assert_eq!(now.line(0).unwrap().text.as_str(), "600 ERROR");
    assert_eq!(rig.key(Key::Esc), [], "the filter goes first");
    assert_eq!(logs(&rig).count(), LOG_LINES);
    assert_eq!(rig.key(Key::Esc), [Cmd::Unfollow]);
}

#[test]
fn a_wrong_expression_keeps_what_was_shown_and_is_no_panic() {
    let mut rig = Rig::on(fixture::canary());
    filtered(&mut rig, '3', "9c1e");
    rig.key(Key::Char('/'));
    rig.typed("(");
    assert_eq!(rig.model.rows.len(), 2);
    assert!(rig.model.filters.of(List::Fleet).wrong().is_some());
    rig.key(Key::Esc);
    assert_eq!(rig.model.rows.len(), 8);
}

#[test]
fn a_paste_into_a_filter_is_its_first_line_and_nothing_else() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    rig.key(Key::Char('/'));
    assert_eq!(rig.send(Msg::Paste("9c1e\nay\n".into())), []);
    assert_eq!((rig.model.rows.len(), rig.asks()), (2, false));
}
