use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::*;
use crate::api::{Change, Delta, EventView, ProbeView, RolloutStatus, ServiceView};
use crate::client::Update;
use crate::tui::fixture;
use crate::tui::keys::{self, Key as Pressed};
use crate::tui::theme::{Graph, Palette, Theme};
use crate::tui::update::Cmd;
use crate::tui::view;

const THEME: Theme = Theme { palette: Palette::None, ascii: true, graph: Graph::Block };

/// A recording of `seconds`, ten frames a second: shares rise, probes and events come, a gate counts down, and half-way
/// there is a gap.
fn recording(seconds: u64) -> Vec<Frame> {
    let mut now = fixture::canary();
    now.seq = 100;
    let begin = fixture::WALL_MS;
    let mut frames = vec![Frame { at_ms: begin, what: Shown::Snapshot(Box::new(now.clone())) }];
    for n in 1..=seconds * 10 {
        let at_ms = begin + n * 100;
        let mut changes = Vec::new();
        if n.is_multiple_of(10) {
            let web: ServiceView = now.services.iter().find(|s| s.name.as_str() == "web").unwrap().clone();
            let mut web = web;
            for r in &mut web.revisions {
                r.share = Some(u16::try_from(n % 10_000).unwrap());
            }
            if let Some(r) = web.rollout.as_mut() {
                r.gate_left_ms = Some(60_000);
                r.status = RolloutStatus::Running;
            }
            changes.push(Change::Service(Box::new(web)));
        }
        let probe = ProbeView {
            at_ms,
            service: "web".into(),
            latency_ms: n as u32,
            ok: true,
            ..ProbeView::default()
        };
        changes.push(Change::Probe(probe));
        if n.is_multiple_of(7) {
            let text = format!("event {n}").as_str().into();
            changes.push(Change::Event(EventView { seq: n, at_ms, text, ..EventView::default() }));
        }
        let delta = Delta { seq: now.seq + 1, changes };
        assert!(now.apply(delta.clone()));
        if n == seconds * 5 {
            // Two numbers are missing; a whole picture takes their place.
            now.seq += 2;
            frames.push(Frame { at_ms, what: Shown::Snapshot(Box::new(now.clone())) });
        } else {
            frames.push(Frame { at_ms, what: Shown::Delta(delta) });
        }
    }
    frames
}

fn open(frames: Vec<Frame>) -> (Player, Model) {
    let mut model = Model::default();
    update(&mut model, Msg::Resize(110, 30));
    let mut player = Player::new(frames).unwrap();
    player.open(&mut model, "web-12".into(), 1);
    (player, model)
}

fn screen(model: &Model) -> String {
    let area = Rect::new(0, 0, 110, 30);
    let mut buf = Buffer::empty(area);
    view::render(model, &THEME, area, &mut buf);
    let row = |y| (0..110).map(|x| buf[(x, y)].symbol()).collect::<String>();
    (0..30).map(row).collect::<Vec<_>>().join("\n")
}

/// Presses a key, and does what follows from it as the loop does.
fn press(player: &mut Player, model: &mut Model, key: Pressed) {
    for cmd in update(model, Msg::Key(key)) {
        match cmd {
            Cmd::Seek(to) => player.seek(model, to),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn scrubbing_both_ways_shows_what_playing_to_that_point_shows() {
    // Long enough for several places to go back to.
    let frames = recording(130);
    let length = 130_000;
    let played = |to: u64| {
        let (mut player, mut model) = open(frames.clone());
        assert_eq!(player.length_ms(), length);
        // Step by step, as time passes.
        while model.replay.as_ref().unwrap().at_ms < to {
            let left = to - model.replay.as_ref().unwrap().at_ms;
            player.pass(&mut model, left.min(1700));
        }
        model.replay.as_mut().unwrap().paused = true;
        (screen(&model), model.snapshot, model.service_ms, model.now_ms, model.wall_ms)
    };
    let (mut player, mut model) = open(frames.clone());
    model.replay.as_mut().unwrap().paused = true;
    for to in [130_000, 64_990, 65_000, 200, 99_999, 0, 50_000, 49_900, 130_000, 12_345] {
        player.seek(&mut model, to);
        model.replay.as_mut().unwrap().paused = true;
        let (want, snapshot, service_ms, now_ms, wall_ms) = played(to);
        assert_eq!(screen(&model), want, "at {to}");
        assert_eq!((&model.snapshot, &model.service_ms), (&snapshot, &service_ms), "at {to}");
        assert_eq!((model.now_ms, model.wall_ms), (now_ms, wall_ms), "at {to}");
    }
    assert!(player.keys.len() >= 2, "it went back to places on the way");
}

#[test]
fn keys_stop_go_hurry_and_jump() {
    let (mut player, mut model) = open(recording(60));
    let at = |m: &Model| m.replay.as_ref().unwrap().at_ms;
    player.pass(&mut model, 1500);
    assert_eq!(at(&model), 1500);
    press(&mut player, &mut model, Pressed::Char(' '));
    player.pass(&mut model, 1500);
    assert_eq!(at(&model), 1500, "it stands");
    press(&mut player, &mut model, Pressed::Char(' '));
    press(&mut player, &mut model, Pressed::Char('+'));
    press(&mut player, &mut model, Pressed::Char('+'));
    player.pass(&mut model, 1000);
    assert_eq!(at(&model), 5500, "four times as fast");
    press(&mut player, &mut model, Pressed::Right);
    assert_eq!(at(&model), 15_500);
    press(&mut player, &mut model, Pressed::Left);
    press(&mut player, &mut model, Pressed::Left);
    assert_eq!(at(&model), 0);
    for _ in 0..20 {
        press(&mut player, &mut model, Pressed::Char('-'));
    }
    assert_eq!(model.replay.as_ref().unwrap().speed, 1);
    for _ in 0..20 {
        press(&mut player, &mut model, Pressed::Char('+'));
    }
    assert_eq!(model.replay.as_ref().unwrap().speed, 64);
    player.pass(&mut model, 60_000);
    let replay = model.replay.clone().unwrap();
    assert_eq!((replay.at_ms, replay.paused), (60_000, true), "at the end it stays");
    press(&mut player, &mut model, Pressed::Char(' '));
    assert_eq!((at(&model), model.replay.as_ref().unwrap().paused), (0, false), "and begins again");
    press(&mut player, &mut model, Pressed::End);
    assert_eq!(at(&model), 60_000);
    press(&mut player, &mut model, Pressed::Home);
    assert_eq!(at(&model), 0);
}

#[test]
fn no_verb_is_possible_and_the_header_says_what_this_is() {
    let (mut player, mut model) = open(recording(10));
    player.seek(&mut model, 3_000);
    let text = screen(&model);
    let header = text.lines().next().unwrap();
    assert!(header.contains("REPLAY web-12") && header.contains("0:03/0:10 x1"), "{header}");
    for key in ['a', 'p', 'P', 'r', 'd'] {
        assert_eq!(update(&mut model, Msg::Key(Pressed::Char(key))), [], "{key}");
        let notice = model.notice.clone().unwrap();
        assert!(notice.text.as_str().contains("this is a replay"), "{key}: {notice:?}");
    }
    assert_eq!(update(&mut model, Msg::Key(Pressed::Char('l'))), []);
    assert!(model.notice.as_ref().unwrap().text.as_str().contains("logs are not recorded"));
    let bar: Vec<&str> = keys::bar(&model).iter().map(|b| b.label).collect();
    assert!(bar.contains(&"stop/go") && bar.contains(&"speed") && !bar.contains(&"abort"), "{bar:?}");
    // The panes work as ever.
    press(&mut player, &mut model, Pressed::Char('5'));
    press(&mut player, &mut model, Pressed::Enter);
    assert!(screen(&model).contains("event 28"), "{}", screen(&model));
    assert_eq!(update(&mut model, Msg::Key(Pressed::Char('q'))), [Cmd::Leave]);
}

#[test]
fn what_nothing_can_be_seen_in_is_no_recording_and_clocks_never_go_back() {
    assert!(Player::new(vec![]).is_none());
    let delta = Frame { at_ms: 5, what: Shown::Delta(Delta::default()) };
    assert!(Player::new(vec![delta.clone()]).is_none());
    let whole = Frame { at_ms: 100, what: Shown::Snapshot(Box::default()) };
    let player = Player::new(vec![delta.clone(), whole, delta]).unwrap();
    assert_eq!((player.frames.len(), player.length_ms()), (2, 0));
}

#[test]
fn frames_are_read_as_they_are_written() {
    let frame = Frame { at_ms: 7, what: Shown::Delta(Delta { seq: 3, changes: vec![] }) };
    let text = serde_json::to_string(&frame).unwrap();
    assert_eq!(text, r#"{"at_ms":7,"delta":{"seq":3,"changes":[]}}"#);
    assert_eq!(serde_json::from_str::<Frame>(&text).unwrap(), frame);
    let _ = Update::Delta(Delta::default());
}
