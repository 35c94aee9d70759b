//! The mouse chooses and scrolls, and does nothing else.

use super::*;
use crate::tui::view;

fn at(rig: &Rig, pane: Pane, line: Option<usize>) -> (u16, u16) {
    let (w, h) = rig.model.size;
    let all = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
    let mut found = all.filter(|(x, y)| view::spot(&rig.model, *x, *y) == Some(view::Spot { pane, line }));
    found.next().unwrap_or_else(|| panic!("{pane:?} {line:?} is nowhere"))
}

fn press(rig: &mut Rig, pane: Pane, line: Option<usize>) -> Vec<Cmd> {
    let (x, y) = at(rig, pane, line);
    rig.send(Msg::Mouse(Mouse::Press(x, y)))
}

#[test]
fn a_click_chooses_a_service_an_instance_or_a_pane() {
    let mut rig = Rig::on(fixture::canary());
    let names: Vec<Safe> =
        rig.model.snapshot.as_ref().unwrap().services.iter().map(|s| s.name.clone()).collect();
    for (n, name) in names.iter().enumerate() {
        assert_eq!(press(&mut rig, Pane::Services, Some(n)), []);
        assert_eq!((rig.model.service.as_ref(), rig.model.focus), (Some(name), Pane::Services));
    }
    let web = names.iter().position(|n| n.as_str() == "web").unwrap();
    press(&mut rig, Pane::Services, Some(web));
    press(&mut rig, Pane::Fleet, Some(2));
    let chosen = rig.model.row(2).unwrap().id.clone();
    assert_eq!(rig.model.instance_view().unwrap().id, chosen);
    assert_eq!((rig.model.cursor, rig.model.focus), (2, Pane::Fleet));
    press(&mut rig, Pane::Events, None);
    assert_eq!(rig.model.focus, Pane::Events);
    // Below the last line, and where there is no pane, nothing is chosen.
    let service = rig.model.service.clone();
    rig.send(Msg::Resize(200, 60));
    press(&mut rig, Pane::Services, Some(names.len()));
    assert_eq!(rig.model.service, service);
    assert_eq!(rig.send(Msg::Mouse(Mouse::Press(0, 0))), []);
    assert_eq!(rig.send(Msg::Mouse(Mouse::Press(9_999, 9_999))), []);
}

#[test]
fn the_wheel_scrolls_what_is_under_it_and_answers_nothing() {
    let mut rig = Rig::on(fixture::canary());
    let fleet = at(&rig, Pane::Fleet, Some(0));
    rig.send(Msg::Mouse(Mouse::Down(fleet.0, fleet.1)));
    assert_eq!((rig.model.focus, rig.model.cursor), (Pane::Fleet, 3.min(rig.model.rows.len() - 1)));
    rig.send(Msg::Mouse(Mouse::Up(fleet.0, fleet.1)));
    assert_eq!(rig.model.cursor, 0);
    let (service, list) = (rig.model.service.clone(), at(&rig, Pane::Services, Some(0)));
    rig.send(Msg::Mouse(Mouse::Down(list.0, list.1)));
    assert_eq!(
        (rig.model.service.clone(), rig.model.focus),
        (service, Pane::Fleet),
        "no other service by rolling"
    );
    rig.key(Key::Char('?'));
    rig.send(Msg::Mouse(Mouse::Down(1, 5)));
    assert!(matches!(rig.model.overlay, Overlay::Help(3)));
    rig.key(Key::Char('?'));
    // A question stays as it is, whatever is clicked or rolled.
    rig.key(Key::Char('p'));
    for y in 0..24 {
        for x in 0..80 {
            for mouse in [Mouse::Press(x, y), Mouse::Up(x, y), Mouse::Down(x, y)] {
                assert_eq!(rig.send(Msg::Mouse(mouse)), []);
            }
        }
    }
    assert!(rig.asks());
}

#[test]
fn it_is_taken_and_given_back_by_name() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char(':'));
    rig.typed("mouse");
    assert_eq!(rig.key(Key::Enter), [Cmd::Mouse(true)]);
    rig.key(Key::Char(':'));
    rig.typed("mouse");
    assert_eq!(rig.key(Key::Enter), [Cmd::Mouse(false)]);
}
