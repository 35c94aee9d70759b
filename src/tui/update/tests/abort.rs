//! Abort: two keys, from anywhere.

use super::*;

#[test]
fn abort_is_two_keys_and_the_second_counts_at_once() {
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(rig.send(Msg::Key(Key::Char('a'))), []);
    let cmds = rig.send(Msg::Key(Key::Char('y')));
    assert_eq!(sent(&cmds), Some((Verb::Abort, None)));
    assert!(!rig.asks());
}

#[test]
fn abort_works_from_logs_and_help_and_never_minds_that_things_moved_on() {
    for open in ['l', '?'] {
        let mut rig = Rig::on(fixture::canary());
        rig.key(Key::Char(open));
        rig.key(Key::Char('a'));
        rig.change(move_on);
        assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Abort, None)), "{open}");
    }
}

#[test]
fn abort_is_two_keys_while_something_else_is_typed_or_asked_too() {
    let typing: [&[Key]; 6] = [
        &[Key::Char('3'), Key::Char('/'), Key::Char('x')],
        &[Key::Char(':'), Key::Char('d')],
        &[Key::Char('d'), Key::Char('1')],
        &[Key::Char('p')],
        &[Key::Char('r')],
        &[Key::Char('l'), Key::Char('/'), Key::Char('e')],
    ];
    for keys in typing {
        let mut rig = Rig::on(fixture::canary());
        for key in keys {
            rig.key(*key);
        }
        assert_eq!(rig.send(Msg::Key(Key::Ctrl('x'))), [], "{keys:?}");
        assert!(rig.asks(), "{keys:?}");
        let cmds = rig.send(Msg::Key(Key::Char('y')));
        assert_eq!(sent(&cmds), Some((Verb::Abort, None)), "{keys:?}");
    }
    // Production asks for a name before everything that goes all the way; not before this.
    let mut rig = Rig::on(fixture::canary());
    rig.change(|s| s.production = true);
    rig.key(Key::Char('P'));
    rig.typed("we");
    rig.send(Msg::Key(Key::Ctrl('x')));
    assert_eq!(sent(&rig.send(Msg::Key(Key::Char('y')))), Some((Verb::Abort, None)));
    // Where there is nothing to abort it says so, and what was typed stays.
    let mut rig = Rig::on(fixture::canary());
    rig.change(|s| s.services.iter_mut().for_each(|s| s.verbs.retain(|v| *v != VerbKind::Abort)));
    rig.key(Key::Char(':'));
    rig.typed("dep");
    rig.key(Key::Ctrl('x'));
    assert!(
        matches!(&rig.model.overlay, Overlay::Palette(_)) && !rig.notice().is_empty(),
        "{}",
        rig.notice()
    );
}
