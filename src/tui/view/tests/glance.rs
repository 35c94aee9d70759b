//! What is seen at a glance: charts, folded groups, and which key does it.

use super::*;
use crate::api::{Delta, InstanceView, STEP_MS};
use crate::tui::keys::custom;

/// The instances of all services under their hosts; one fails on a host that is folded, and another host is lost.
pub(super) fn tree(size: (u16, u16)) -> Model {
    let mut s = fixture::canary();
    s.instances.iter_mut().find(|i| i.host.as_str() == "node-2").unwrap().health = HealthView::Unhealthy;
    s.hosts[2].reachable = false;
    let other = InstanceView { id: "api-11112222-1".into(), service: "api".into(), ..s.instances[0].clone() };
    s.instances.insert(0, other);
    let mut m = model(s, size);
    press(&mut m, "sv:fold node-2\n:fold node-3\n");
    m
}

/// Two minutes and a half of the canary, in which the candidate begins to fail and to become slow.
pub(super) fn trends(size: (u16, u16)) -> Model {
    let mut first = fixture::canary();
    for t in first.services.iter_mut().flat_map(|s| &mut s.revisions).filter_map(|v| v.traffic.as_mut()) {
        t.error_percent = 0.0;
    }
    let mut m = model(first, size);
    for n in 1..=15u16 {
        let ms = u64::from(n) * STEP_MS;
        update(&mut m, Msg::Time { now_ms: 1_000 + ms, wall_ms: fixture::WALL_MS + ms });
        let now = m.snapshot.as_ref().unwrap();
        let mut next = (**now).clone();
        for v in next.services.iter_mut().flat_map(|s| &mut s.revisions) {
            let candidate = v.role == Role::Candidate;
            let bad = f32::from(n.saturating_sub(9)) * f32::from(u8::from(candidate));
            let t = v.traffic.as_mut().unwrap();
            t.rate = if candidate { 137.0 } else { 412.0 } * (0.7 + f32::from(n % 4) * 0.1);
            (t.error_percent, t.p95_ms) = (bad * 0.7, Some(38.0 + bad * 9.0));
        }
        let delta = Delta { seq: now.seq + 1, changes: now.changes_to(&next) };
        update(&mut m, Msg::Update(Update::Delta(delta)));
    }
    m
}

#[test]
fn charts_stand_where_there_is_room_and_failing_is_coloured() {
    let buf = picture(&mut scene("trends", (200, 50)), &COLOUR);
    let buf = &buf;
    let (x, y) = find(buf, "errors ");
    let row = |y: u16| (0..200).map(|x| buf[(x, y)].symbol()).collect::<String>();
    assert!(row(y).contains("stable") && row(y).contains("to 500/s"), "{}", row(y));
    assert!(row(y + 1).contains("candidate") && row(y + 1).contains("to 5.0%"), "{}", row(y + 1));
    let errors = |y: u16| (x + 9..x + 39).map(move |x| &buf[(x, y)]).filter(|c| c.symbol() != " ");
    assert!(errors(y).all(|c| c.symbol() == "▁" && c.modifier.contains(Modifier::DIM)));
    assert!(errors(y + 1).any(|c| c.symbol() == "▆") && errors(y + 1).all(|c| c.fg == Color::LightRed));
    // One row to spare: the candidate has it. None: there is nothing.
    let small = text(&picture(&mut scene("canary", (80, 24)), &NO_COLOUR));
    assert!(small.contains("candidate req ") && !small.contains("stable    req"), "{small}");
    assert!(!text(&picture(&mut scene("trends", (40, 10)), &NO_COLOUR)).contains("req "));
    // A cockpit that was just opened knows nothing of the minutes before: it shows no zeros.
    assert!(!text(&picture(&mut scene("canary", (200, 50)), &COLOUR)).contains('▁'));
}

#[test]
fn a_folded_group_says_what_is_wrong_in_it() {
    for size in [(80, 24), (200, 50)] {
        let buf = picture(&mut scene("tree", size), &COLOUR);
        assert_eq!(buf[find(&buf, "1 FAILING, 2 healthy")].fg, Color::LightRed);
        let (x, y) = find(&buf, "1 FAILING, 2 healthy");
        assert_eq!(buf[(2, y)].symbol(), " ", "below its service");
        assert!((0..x).any(|x| buf[(x, y)].symbol() == "▸"));
        find(&buf, "1 of the candidate");
        let name = find(&buf, "▸ node-2");
        assert_eq!(buf[(name.0 + 2, y)].fg, Color::LightRed);
        find(&buf, "▾ web");
    }
    let buf = picture(&mut scene("tree", (200, 50)), &COLOUR);
    assert_eq!(buf[find(&buf, "! UNREACHABLE:")].fg, Color::LightRed);
}

#[test]
fn whatever_names_a_key_names_the_configured_one() {
    let mut m = scene("held", (120, 30));
    let wish = |name, key| custom::Wish { name, keys: vec![key] };
    let none = custom::Wish { name: "deploy", keys: vec![] };
    m.keys = custom::table(&[wish("abort", "x"), wish("retry", "F5"), wish("fleet", "f"), none]).unwrap();
    let shown = text(&picture(&mut m, &COLOUR));
    for part in ["x abort", "F5 retry", "F5 takes it in again, x aborts", "─ f fleet web"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    assert!(
        !shown.contains("a abort") && !shown.contains("d deploy") && !shown.contains(":deploy"),
        "{shown}"
    );
    press(&mut m, "f");
    assert_eq!(m.focus, Pane::Fleet);
    press(&mut m, "?");
    let help = text(&picture(&mut m, &COLOUR));
    assert!(help.contains(" x  abort: all traffic") && help.contains(":deploy  deploy:"), "{help}");
    press(&mut m, "a");
    assert!(matches!(m.overlay, Overlay::Help(_)), "no key any more");
    press(&mut m, "x");
    find(&picture(&mut m, &COLOUR), "ABORT web?");
}
