//! Logs of an instance, a version and a service; places that stay; searching among all lines.

use super::*;
use crate::api::{LogEntry, MergedLog};
use crate::tui::logs::{Logs, Source, Whose};

/// A line of one instance.
pub(super) fn line(text: impl ToString) -> MergedLog {
    of("web-9c1e0a77-1", text)
}

fn of(instance: &str, text: impl ToString) -> MergedLog {
    let line = LogEntry { text: text.to_string().into(), ..LogEntry::default() };
    MergedLog::Line { instance: instance.into(), line }
}

fn opened(cmds: &[Cmd]) -> (u64, Whose, u32) {
    match cmds {
        [Cmd::Follow { generation, whose, tail }] => (*generation, whose.clone(), *tail),
        other => panic!("{other:?}"),
    }
}

fn whose(cmds: &[Cmd]) -> Whose {
    opened(cmds).1
}

fn logs(rig: &Rig) -> &Logs {
    rig.model.logs.as_ref().unwrap()
}

fn version(version: &str) -> Whose {
    Whose::Version { service: "web".into(), version: version.into() }
}

fn looked_at(rig: &Rig) -> String {
    logs(rig).line(logs(rig).cursor().unwrap()).unwrap().text.to_string()
}

#[test]
fn the_pane_in_focus_says_whose_logs_and_wider_goes_round() {
    let mut rig = Rig::on(fixture::canary());
    let instance = rig.model.instance.clone().unwrap();
    for pane in ['1', '2'] {
        rig.key(Key::Char(pane));
        assert_eq!(whose(&rig.key(Key::Char('l'))), Whose::Service("web".into()));
        assert_eq!(
            whose(&rig.key(Key::Char('v'))),
            Whose::Instance(instance.clone()),
            "the one that was selected"
        );
        rig.key(Key::Esc);
    }
    rig.key(Key::Char('3'));
    rig.key(Key::Char('G'));
    let stable = rig.model.instance.clone().unwrap();
    let (first, of, tail) = opened(&rig.key(Key::Char('l')));
    assert_eq!((of, tail), (Whose::Instance(stable.clone()), 500));
    let (second, of, tail) = opened(&rig.key(Key::Char('v')));
    assert_eq!((of, tail), (version("1.4.2"), 250), "of six");
    assert!(second > first);
    assert_eq!(whose(&rig.key(Key::Char('v'))), Whose::Service("web".into()));
    assert_eq!(whose(&rig.key(Key::Char('v'))), Whose::Instance(stable));
}

#[test]
fn commands_open_the_candidates_or_the_services_logs_from_anywhere() {
    let mut rig = Rig::on(fixture::canary());
    rig.typed(":logs version");
    assert_eq!(whose(&rig.key(Key::Enter)), version("1.5.0"));
    rig.typed(":logs service");
    assert_eq!(whose(&rig.key(Key::Enter)), Whose::Service("web".into()));
    rig.key(Key::Esc);
    rig.key(Key::Char('3'));
    rig.key(Key::Char('G'));
    rig.typed(":logs version");
    assert_eq!(whose(&rig.key(Key::Enter)), version("1.4.2"), "of the selected instance");
}

#[test]
fn an_instance_that_is_gone_is_no_way_back_and_no_end() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    let (_, of, _) = opened(&rig.key(Key::Char('l')));
    let Whose::Instance(id) = of else { panic!("{of:?}") };
    rig.change(|s| s.instances.retain(|i| i.id != id));
    assert_eq!(whose(&rig.key(Key::Char('v'))), version("1.5.0"));
    assert_eq!(whose(&rig.key(Key::Char('v'))), Whose::Service("web".into()));
    assert_eq!(whose(&rig.key(Key::Char('v'))), version("1.5.0"));
}

#[test]
fn wider_keeps_what_is_looked_for_and_another_log_does_not() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    rig.key(Key::Char('l'));
    rig.typed("/error");
    rig.key(Key::Enter);
    let (generation, ..) = opened(&rig.key(Key::Char('v')));
    rig.send(Msg::Log { generation, lines: vec![line("error"), line("fine")] });
    assert_eq!(logs(&rig).count(), 1);
    rig.typed(":logs service");
    rig.key(Key::Enter);
    assert!(!rig.model.filters.of(List::Logs).active());
}

#[test]
fn what_is_told_of_an_instance_stands_among_its_lines_and_how_many_are_read_does_not() {
    let mut rig = Rig::on(fixture::canary());
    let (generation, ..) = opened(&rig.key(Key::Char('l')));
    let note = MergedLog::Note { instance: "web-9c1e0a77-2".into(), text: "has exited".into() };
    let lines = vec![MergedLog::Reads { instances: 32, of: 40 }, line("x"), note, of("web-9c1e0a77-2", "y")];
    rig.send(Msg::Log { generation, lines });
    let told: Vec<_> = logs(&rig).lines.iter().map(|l| (l.instance.as_str(), l.source)).collect();
    assert_eq!(
        told,
        [("web-9c1e0a77-1", Source::Out), ("web-9c1e0a77-2", Source::Note), ("web-9c1e0a77-2", Source::Out)]
    );
    assert_eq!(logs(&rig).reads, Some((32, 40)));
}

#[test]
fn a_place_is_kept_through_a_flood_and_the_gap_after_it_is_marked() {
    let mut rig = Rig::on(fixture::canary());
    let (generation, ..) = opened(&rig.key(Key::Char('l')));
    let flood = |from: usize, to: usize| Msg::Log { generation, lines: (from..to).map(line).collect() };
    rig.send(flood(0, 1_000));
    rig.key(Key::PageUp);
    let seen = looked_at(&rig);
    for n in 0..10 {
        rig.send(flood(1_000 + n * 1_000, 2_000 + n * 1_000));
        assert_eq!(looked_at(&rig), seen);
    }
    let page = logs(&rig).top(20);
    assert_eq!(
        logs(&rig).line(page).unwrap().text.as_str(),
        (seen.parse::<usize>().unwrap() - 19).to_string()
    );
    let missed = logs(&rig).missed;
    assert_eq!(logs(&rig).lines.len(), LOG_LINES);
    assert_eq!(logs(&rig).dropped as usize + LOG_LINES + missed, 11_000, "every line is accounted for");
    rig.key(Key::Char('G'));
    rig.send(flood(11_000, 11_002));
    let last: Vec<_> = logs(&rig).lines.iter().rev().take(3).map(|l| l.text.to_string()).collect();
    assert_eq!(last[..2], ["11001", "11000"]);
    assert!(last[2].starts_with(&format!("{missed} lines not kept")), "{last:?}");
    assert_eq!((logs(&rig).missed, logs(&rig).back, logs(&rig).lines.len()), (0, 0, LOG_LINES));
}

#[test]
fn at_the_beginning_there_is_a_page_and_the_place_moves_in_it() {
    let mut rig = Rig::on(fixture::canary());
    let (generation, ..) = opened(&rig.key(Key::Char('l')));
    rig.send(Msg::Log { generation, lines: (0..100).map(line).collect() });
    rig.key(Key::Char('g'));
    assert_eq!((looked_at(&rig).as_str(), logs(&rig).top(20)), ("0", 0));
    rig.key(Key::Down);
    assert_eq!((looked_at(&rig).as_str(), logs(&rig).top(20)), ("1", 0));
    for _ in 0..19 {
        rig.key(Key::Down);
    }
    assert_eq!((looked_at(&rig).as_str(), logs(&rig).top(20)), ("20", 1));
    let short = Logs::default();
    assert_eq!((short.top(20), short.cursor()), (0, None));
}

#[test]
fn n_goes_through_what_was_found_with_all_lines_around_it() {
    let mut rig = Rig::on(fixture::canary());
    let (generation, ..) = opened(&rig.key(Key::Char('l')));
    let text = |n: usize| line(format!("{n} {}", if n % 30 == 10 { "ERROR" } else { "info" }));
    rig.send(Msg::Log { generation, lines: (0..100).map(text).collect() });
    rig.key(Key::Char('n'));
    assert!(rig.notice().contains("/ first"), "{}", rig.notice());
    rig.typed("/error");
    rig.key(Key::Enter);
    assert_eq!(logs(&rig).count(), 3);
    rig.key(Key::Char('n'));
    assert_eq!(
        (looked_at(&rig).as_str(), logs(&rig).count(), logs(&rig).found()),
        ("70 ERROR", 100, Some((3, 3)))
    );
    assert_eq!(logs(&rig).top(20), 61, "in the middle of the page");
    rig.key(Key::Char('N'));
    assert_eq!((looked_at(&rig).as_str(), logs(&rig).found()), ("40 ERROR", Some((2, 3))));
    rig.key(Key::Char('N'));
    rig.key(Key::Char('N'));
    assert_eq!(looked_at(&rig), "10 ERROR");
    assert!(rig.notice().contains("no older line matches"), "{}", rig.notice());
    rig.key(Key::Char('n'));
    assert_eq!(looked_at(&rig), "40 ERROR");
    // Lines that come move nothing, and those that match are found later.
    rig.send(Msg::Log { generation, lines: (100..140).map(text).collect() });
    assert_eq!(looked_at(&rig), "40 ERROR");
    for _ in 0..3 {
        rig.key(Key::Char('n'));
    }
    assert_eq!((looked_at(&rig).as_str(), logs(&rig).found()), ("130 ERROR", Some((5, 5))));
    // From between two, and from the end.
    rig.key(Key::Up);
    assert_eq!(looked_at(&rig), "129 info");
    rig.key(Key::Char('N'));
    assert_eq!(looked_at(&rig), "100 ERROR");
    rig.key(Key::Char('G'));
    assert_eq!((logs(&rig).back, logs(&rig).count()), (0, 140), "follows, and marks");
    rig.key(Key::Esc);
    assert!(!rig.model.filters.of(List::Logs).active() && logs(&rig).hits.is_none());
}

#[test]
fn names_of_instances_that_are_forgotten_take_no_room() {
    let mut logs = Logs::default();
    let filter = crate::tui::filter::Filter::default();
    for n in 0..10_000 {
        logs.take(of(&format!("web-9c1e0a77-{n}"), "x"), &filter);
    }
    let known: std::collections::BTreeSet<_> = logs.lines.iter().map(|l| l.instance.to_string()).collect();
    assert_eq!(known.len(), LOG_LINES);
    for _ in 0..2 * LOG_LINES {
        logs.take(line("x"), &filter);
    }
    logs.take(of("web-9c1e0a77-99999", "x"), &filter);
    assert!(logs.names() < 10, "{}", logs.names());
}
