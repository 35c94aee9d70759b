//! Commands by name: the same questions as by key, and nothing from what is pasted.

use super::*;

/// A command by a person, Enter included.
fn command(rig: &mut Rig, text: &str) -> Vec<Cmd> {
    rig.key(Key::Char(':'));
    rig.typed(text);
    rig.key(Key::Enter)
}

fn said(rig: &Rig) -> String {
    match &rig.model.overlay {
        Overlay::Palette(p) => p.complaint.as_ref().map(ToString::to_string).unwrap_or_default(),
        _ => "no palette".into(),
    }
}

fn question(rig: &Rig) -> Option<Ask> {
    match &rig.model.overlay {
        Overlay::Dialog(d) => Some(d.ask.clone()),
        _ => None,
    }
}

#[test]
fn a_verb_by_name_asks_what_its_key_asks() {
    for (name, key, ready) in [
        ("abort", 'a', fixture::canary()),
        ("promote", 'p', fixture::canary()),
        ("promote full", 'P', fixture::canary()),
        ("promote --full", 'P', fixture::production()),
        ("rollback", 'r', fixture::canary()),
        ("deploy", 'd', fixture::canary()),
        ("retry", 't', fixture::held()),
    ] {
        let (mut typed, mut pressed) = (Rig::on(ready.clone()), Rig::on(ready));
        pressed.key(Key::Char(key));
        assert_eq!(command(&mut typed, name), [], "{name}");
        let (Overlay::Dialog(a), Overlay::Dialog(b)) = (&typed.model.overlay, &pressed.model.overlay) else {
            panic!("{name}: {:?}", typed.model.overlay)
        };
        assert_eq!((&a.ask, a.decision, &a.type_name), (&b.ask, b.decision, &b.type_name), "{name}");
    }
    let mut rig = Rig::on(fixture::canary());
    command(&mut rig, "promote");
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Promote { full: false }, Some(40))));
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(
        sent(&command(&mut rig, "pause")),
        Some((Verb::Pause, None)),
        "pause asks nothing, as its key"
    );
}

#[test]
fn a_verb_that_is_not_there_in_full_is_completed_first() {
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(command(&mut rig, "pa"), []);
    assert_eq!(said(&rig), "Enter once more for pause");
    assert_eq!(sent(&rig.key(Key::Enter)), Some((Verb::Pause, None)));

    let mut rig = Rig::on(fixture::canary());
    command(&mut rig, "pro");
    rig.key(Key::Esc);
    assert!(!rig.asks() && rig.model.overlay == Overlay::None);
    rig.key(Key::Char(':'));
    rig.typed("pro");
    rig.key(Key::Down);
    rig.key(Key::Tab);
    rig.key(Key::Enter);
    assert_eq!(question(&rig), Some(Ask::Promote { full: true }));
}

#[test]
fn deploy_with_a_version_asks_for_its_plan_and_a_host_is_chosen_for_rollback() {
    let mut rig = Rig::on(fixture::canary());
    let cmds = command(&mut rig, "deploy 1.6.0");
    assert_eq!(cmds, [Cmd::Plan { service: "web".into(), version: "1.6.0".into() }]);
    assert_eq!(question(&rig), Some(Ask::Planning { version: "1.6.0".into() }));
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(command(&mut rig, "deploy ../x"), []);
    assert!(said(&rig).contains("is no version"), "{}", said(&rig));
    let mut rig = Rig::on(fixture::canary());
    command(&mut rig, "rollback node-2");
    assert_eq!(question(&rig), Some(Ask::Rollback { host: Some("node-2".into()) }));
    let mut rig = Rig::on(fixture::canary());
    command(&mut rig, "rollback node-99");
    assert!(said(&rig).contains("no command"), "{}", said(&rig));
}

#[test]
fn what_is_not_possible_says_why_and_stays_open() {
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(command(&mut rig, "resume"), []);
    assert!(said(&rig).starts_with("not now: "), "{}", said(&rig));
    rig.send(Msg::Lost("silence".into()));
    rig.key(Key::Ctrl('u'));
    rig.typed("abort");
    rig.key(Key::Enter);
    assert!(said(&rig).contains("lost"), "{}", said(&rig));
}

#[test]
fn a_paste_runs_nothing_bracketed_or_in_one_breath_or_byte_by_byte() {
    for text in ["pause\n", "abort\ny", "promote\ny", "deploy 1.6.0\ny\n", "promote full\ny\nweb\n"] {
        let mut rig = Rig::on(fixture::production());
        rig.key(Key::Char(':'));
        assert_eq!(rig.send(Msg::Paste(text.into())), [], "{text:?}");
        assert!(matches!(rig.model.overlay, Overlay::Palette(_)), "{text:?}");
        assert_eq!(rig.send(Msg::Key(Key::Enter)), [], "in the same breath");
        assert!(matches!(rig.model.overlay, Overlay::Palette(_)), "{text:?}");

        for between in [0, 50, 140] {
            let mut rig = Rig::on(fixture::production());
            let mut cmds = Vec::new();
            for c in format!(":{text}").chars() {
                rig.now += between;
                let key = if c == '\n' { Key::Enter } else { Key::Char(c) };
                cmds.extend(rig.send(Msg::Key(key)));
            }
            assert!(!cmds.iter().any(|c| matches!(c, Cmd::Send { .. })), "{text:?} {between} ms: {cmds:?}");
            assert!(!rig.asks(), "{text:?} {between} ms");
        }
    }
}

#[test]
fn panes_services_and_the_filter_are_reached_by_name_also_from_the_logs() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('l'));
    assert!(rig.model.logs.is_some());
    assert_eq!(command(&mut rig, "events"), [Cmd::Unfollow]);
    assert_eq!((rig.model.focus, rig.model.logs.is_some()), (Pane::Events, false));
    command(&mut rig, "service api");
    assert_eq!(rig.model.service.as_ref().unwrap().as_str(), "api");
    command(&mut rig, "serv wo");
    rig.key(Key::Ctrl('u'));
    rig.typed("service wo");
    rig.key(Key::Enter);
    assert_eq!(rig.model.service.as_ref().unwrap().as_str(), "worker");
    command(&mut rig, "service web");
    command(&mut rig, "filter bob");
    assert_eq!((rig.model.events().len(), rig.model.rows.len()), (1, 8), "the list in focus");
    command(&mut rig, "fleet");
    command(&mut rig, "filter 9c1e");
    assert_eq!((rig.model.rows.len(), rig.model.focus), (2, Pane::Fleet));
    assert_eq!(command(&mut rig, "q"), [Cmd::Leave]);
}

#[test]
fn backspace_leaves_an_empty_palette_and_q_and_y_are_letters_in_it() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char(':'));
    assert_eq!(rig.typed("qy?a"), []);
    assert!(matches!(&rig.model.overlay, Overlay::Palette(p) if p.input.text == "qy?a"));
    (0..4).for_each(|_| drop(rig.key(Key::Backspace)));
    assert!(matches!(rig.model.overlay, Overlay::Palette(_)));
    rig.key(Key::Backspace);
    assert_eq!(rig.model.overlay, Overlay::None);
    rig.key(Key::Char(':'));
    assert_eq!(rig.key(Key::Ctrl('c')), [Cmd::Leave]);
}

#[test]
fn the_theme_is_another_by_name_or_the_next_one() {
    use crate::tui::theme::Palette;
    let mut rig = Rig::on(fixture::canary());
    command(&mut rig, "theme colour-blind");
    assert_eq!(rig.model.palette, Palette::ColourBlind);
    command(&mut rig, "theme");
    assert_eq!(rig.model.palette, Palette::Basic);
    command(&mut rig, "theme bright");
    assert!(said(&rig).contains("no command"), "{}", said(&rig));
}
