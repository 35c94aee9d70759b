mod glance;
mod journal;
mod logs;

use proptest::prelude::*;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::api::{HealthView, Role, RolloutStatus, Snapshot};
use crate::client::Update;
use crate::text::Safe;
use crate::tui::fixture;
use crate::tui::keys::Key;
use crate::tui::model::{Planned, Replay};
use crate::tui::theme::{Graph, Palette};
use crate::tui::update::{Msg, update};

const COLOUR: Theme = Theme { palette: Palette::Dark, ascii: false, graph: Graph::Block };
const NO_COLOUR: Theme = Theme { palette: Palette::None, ascii: false, graph: Graph::Block };
const ASCII: Theme = Theme { palette: Palette::Dark, ascii: true, graph: Graph::Block };

fn model(snapshot: Snapshot, size: (u16, u16)) -> Model {
    let mut m = Model { name: "operator".into(), ..Model::default() };
    for msg in [
        Msg::Time { now_ms: 1_000, wall_ms: fixture::WALL_MS },
        Msg::Resize(size.0, size.1),
        Msg::Update(Update::Snapshot(Box::new(snapshot))),
        Msg::Drawn,
    ] {
        update(&mut m, msg);
    }
    m
}

fn press(m: &mut Model, keys: &str) {
    for c in keys.chars() {
        update(m, Msg::Key(if c == '\n' { Key::Enter } else { Key::Char(c) }));
        update(m, Msg::Drawn);
    }
}

fn picture(m: &mut Model, theme: &Theme) -> Buffer {
    m.settle();
    let area = screen(m);
    let mut buf = Buffer::empty(area);
    render(m, theme, area, &mut buf);
    buf
}

fn text(buf: &Buffer) -> String {
    let rows = (0..buf.area.height).map(|y| {
        let mut row = String::new();
        let mut x = 0;
        while x < buf.area.width {
            let symbol = buf[(x, y)].symbol();
            row.push_str(symbol);
            x += columns(symbol).max(1);
        }
        row.trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// One letter a cell: the colour's, `B` bold, `-` dim, `#` reversed, `!` on red, `.` plain.
fn styles(buf: &Buffer) -> String {
    let letter = |x, y| {
        let c = &buf[(x, y)];
        let plain = c.symbol() == " " && !c.modifier.contains(Modifier::REVERSED) && c.bg == Color::Reset;
        match c.fg {
            _ if plain => ' ',
            _ if c.bg == Color::Red => '!',
            _ if c.modifier.contains(Modifier::REVERSED) => '#',
            Color::Green => 'g',
            Color::Yellow => 'y',
            Color::LightRed => 'r',
            Color::Cyan => 'c',
            Color::LightMagenta => 'm',
            Color::LightCyan => 'a',
            _ if c.modifier.contains(Modifier::DIM) => '-',
            _ if c.modifier.contains(Modifier::BOLD) => 'B',
            _ => '.',
        }
    };
    let rows = (0..buf.area.height).map(|y| (0..buf.area.width).map(|x| letter(x, y)).collect::<String>());
    rows.map(|r| r.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Where `needle` starts.
fn find(buf: &Buffer, needle: &str) -> (u16, u16) {
    let rows = text(buf);
    for (y, row) in (0u16..).zip(rows.lines()) {
        if let Some((before, _)) = row.split_once(needle) {
            return (columns(before), y);
        }
    }
    panic!("{needle:?} is not in\n{rows}");
}

const SCENES: [&str; 32] = [
    "canary",
    "checked",
    "large_services",
    "large_fleet",
    "large_health",
    "replay",
    "tree",
    "trends",
    "empty",
    "undeployed",
    "lost",
    "abort",
    "deploy",
    "help",
    "palette",
    "welcome",
    "details",
    "sorted",
    "read_only",
    "filters",
    "production",
    "finished",
    "held",
    "many_hosts",
    "empty_place",
    "down",
    "preview",
    "compared",
    "followed",
    "one_host",
    "retry",
    "instead",
];

fn scene(name: &str, size: (u16, u16)) -> Model {
    match name {
        "canary" => model(fixture::canary(), size),
        "large_services" | "large_fleet" | "large_health" => {
            let mut m = model(fixture::canary(), size);
            press(
                &mut m,
                match name {
                    "large_services" => "1z",
                    "large_fleet" => "3sz",
                    _ => "4z",
                },
            );
            m
        }
        "replay" => {
            let mut m = model(fixture::canary(), size);
            m.replay = Some(Replay {
                rollout: "web-7".into(),
                at_ms: 83_000,
                length_ms: 512_000,
                speed: 4,
                paused: true,
            });
            m
        }
        "checked" => model(fixture::checked(), size),
        "trends" => glance::trends(size),
        "tree" => glance::tree(size),
        "empty" => model(fixture::empty(), size),
        "undeployed" => model(fixture::undeployed(), size),
        "production" => model(fixture::production(), size),
        "held" => model(fixture::held(), size),
        "many_hosts" => model(fixture::many_hosts(), size),
        "empty_place" => model(fixture::empty_place(), size),
        "down" => model(fixture::down(), size),
        "preview" => model(fixture::preview(), size),
        "compared" => model(fixture::compared(), size),
        "followed" => model(fixture::followed(), size),
        "one_host" => {
            let mut m = model(fixture::empty_place(), size);
            press(&mut m, "r");
            update(&mut m, Msg::Key(Key::Down));
            m
        }
        "retry" => {
            let mut m = model(fixture::held(), size);
            press(&mut m, "t");
            m
        }
        "instead" => {
            let mut m = model(fixture::canary(), size);
            press(&mut m, "d");
            planned(&mut m, "1.6.0");
            m
        }
        "lost" => {
            let mut m = model(fixture::canary(), size);
            update(&mut m, Msg::Time { now_ms: 43_000, wall_ms: fixture::WALL_MS + 42_000 });
            update(&mut m, Msg::Lost("no answer: nothing for 15 s".into()));
            m
        }
        "abort" => {
            let mut m = model(fixture::production(), size);
            press(&mut m, "a");
            m
        }
        "filters" => {
            let mut m = model(fixture::canary(), size);
            press(&mut m, "4/fail\n5/bob|alice\n3/9c1e(");
            m
        }
        "read_only" => {
            let mut m = model(fixture::held(), size);
            m.read_only = true;
            m
        }
        "details" => {
            let mut m = model(fixture::canary(), size);
            press(&mut m, "3\n");
            let instance = m.instance.clone().unwrap();
            update(&mut m, Msg::Details { instance, result: Ok(Box::new(fixture::details())) });
            m
        }
        "sorted" => {
            let mut m = model(fixture::canary(), size);
            press(&mut m, "3:sort cpu\n");
            m
        }
        "welcome" => {
            let mut m = model(fixture::canary(), size);
            m.welcome = true;
            m
        }
        "palette" => {
            let mut m = model(fixture::canary(), size);
            press(&mut m, ":r");
            m
        }
        "help" => {
            let mut m = model(fixture::canary(), size);
            press(&mut m, "?");
            m
        }
        "deploy" | "finished" => {
            let mut m = model(fixture::finished(), size);
            m.service = Some("web".into());
            m.rows_stale = true;
            if name == "deploy" {
                press(&mut m, "d");
                planned(&mut m, "1.6.0");
            }
            m
        }
        other => panic!("no scene {other}"),
    }
}

/// The version is typed, and its plan comes.
fn planned(m: &mut Model, version: &str) {
    press(m, &format!("{version}\n"));
    let planned = Planned { plan: fixture::plan(), fleet_hash: None };
    let (service, version) = ("web".into(), version.to_owned());
    update(m, Msg::Planned { service, version, result: Ok(Box::new(planned)) });
}

#[test]
fn whole_screens() {
    for name in SCENES {
        for size in [(40, 10), (80, 24), (200, 50)] {
            for (look, theme) in [("colour", COLOUR), ("no_color", NO_COLOUR), ("ascii", ASCII)] {
                let buf = picture(&mut scene(name, size), &theme);
                let mut out = text(&buf);
                if look == "ascii" {
                    assert!(out.is_ascii(), "{out}");
                }
                if size.0 == 80 && look != "ascii" {
                    out = format!("{out}\n{}\n{}", "=".repeat(80), styles(&buf));
                }
                insta::assert_snapshot!(format!("{name}_{}x{}_{look}", size.0, size.1), out);
            }
        }
    }
}

#[test]
fn header_rollout_and_verbs_stay_on_the_smallest_screen_that_is_promised() {
    let buf = picture(&mut scene("production", (40, 10)), &COLOUR);
    for part in
        ["shop", "PRODUCTION", "1.4.2", "25%", "a abort", "space pause", "p promote", "? help", "q detach"]
    {
        find(&buf, part);
    }
}

#[test]
fn the_production_badge_is_on_red_and_without_colour_reversed() {
    let buf = picture(&mut scene("production", (80, 24)), &COLOUR);
    let at = find(&buf, "PRODUCTION");
    assert_eq!((buf[at].bg, buf[at].fg), (Color::Red, Color::White));
    let buf = picture(&mut scene("production", (80, 24)), &NO_COLOUR);
    assert!(buf[at].modifier.contains(Modifier::REVERSED));
    assert_eq!(buf[at].bg, Color::Reset);
    let buf = picture(&mut scene("canary", (80, 24)), &COLOUR);
    assert_eq!(buf[find(&buf, "staging")].bg, Color::Reset);
}

#[test]
fn a_failing_probe_is_a_word_and_red_and_the_selected_row_is_reversed() {
    let mut m = scene("canary", (80, 24));
    press(&mut m, "3");
    let buf = picture(&mut m, &COLOUR);
    assert_eq!(buf[find(&buf, "FAIL 503")].fg, Color::LightRed);
    let (_, y) = find(&buf, "▶ node-1");
    assert!((1..79).all(|x| buf[(x, y)].modifier.contains(Modifier::REVERSED)));
    assert!(!buf[(10, y + 1)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_lost_picture_has_no_colours_left_but_the_header_shouts() {
    let buf = picture(&mut scene("lost", (80, 24)), &COLOUR);
    assert_eq!(buf[find(&buf, "LOST: picture is 42s old")].bg, Color::Red);
    let at = find(&buf, "canary 25%");
    assert!(buf[at].fg == Color::Reset && buf[at].modifier.contains(Modifier::DIM));
    let bar = text(&buf).lines().last().unwrap().to_owned();
    assert!(!bar.contains("abort") && bar.contains("detach"), "{bar}");
}

#[test]
fn a_failing_candidate_is_said_in_words_and_red_only_when_it_is_clearly_worse() {
    let with = |candidate: f32, stable: f32| {
        let mut s = fixture::canary();
        for v in s.services.iter_mut().flat_map(|s| &mut s.revisions) {
            if let Some(t) = &mut v.traffic {
                t.error_percent = if v.role == Role::Candidate { candidate } else { stable };
            }
        }
        picture(&mut model(s, (80, 24)), &COLOUR)
    };
    let buf = with(4.1, 0.02);
    assert_eq!(buf[find(&buf, "candidate FAILS 4.1% of its requests, stable 0.02%")].fg, Color::LightRed);
    assert_eq!(buf[find(&buf, "4.1% err")].fg, Color::LightRed);
    for (candidate, stable) in [(0.9, 0.0), (4.1, 2.1), (f32::NAN, 0.0)] {
        assert!(!text(&with(candidate, stable)).contains("FAILS"), "{candidate} {stable}");
    }
}

#[test]
fn the_verdict_is_said_with_its_numbers_and_coloured_by_what_it_means() {
    let with = |state: &str, size| {
        let mut s = fixture::canary();
        let web = s.services.iter_mut().find(|x| x.name.as_str() == "web").unwrap();
        web.rollout.as_mut().unwrap().verdict = Some(crate::api::VerdictView {
            state: state.into(),
            words: "12 of 240 requests failed, stable 3 of 9,120: 99.7% sure it is over 0.5 points worse"
                .into(),
            dry_run: false,
        });
        picture(&mut model(s, size), &COLOUR)
    };
    for size in [(80, 24), (200, 50)] {
        let buf = with("fail", size);
        assert_eq!(buf[find(&buf, "! verdict: fail: 12 of 240 requests failed")].fg, Color::LightRed);
        find(&buf, "points worse");
        find(&buf, "read back");
    }
    let buf = with("hold", (80, 24));
    assert_eq!(buf[find(&buf, "! verdict: on hold: 12 of 240")].fg, Color::Yellow);
    let buf = with("pass", (80, 24));
    assert_eq!(buf[find(&buf, "verdict: pass: 12 of 240")].fg, Color::Green);
    find(&with("wait", (80, 24)), "verdict: no verdict yet: 12 of 240");
    // Too small for everything: the keys are there.
    find(&with("fail", (40, 10)), "abort");
}

#[test]
fn alarms_are_loud_and_none_is_hidden() {
    let mut s = fixture::canary();
    s.alarms = vec!["the journal cannot be written: disk full".into(), "b".into(), "c".into()];
    let buf = picture(&mut model(s, (80, 24)), &COLOUR);
    assert_eq!(buf[find(&buf, "ALARM the journal")].bg, Color::Red);
    find(&buf, "(and 1 more)");
}

#[test]
fn an_unreachable_host_is_marked_in_header_title_and_row() {
    let mut s = fixture::canary();
    s.hosts[1].reachable = false;
    s.hosts[1].error = Some("connection timed out".into());
    let buf = picture(&mut model(s, (80, 24)), &COLOUR);
    for part in ["1 of 3 hosts LOST", "node-2 UNREACHABLE: connection timed out", "!node-2"] {
        assert_eq!(buf[find(&buf, part)].fg, Color::LightRed, "{part}");
    }
}

#[test]
fn korean_names_line_up() {
    let mut s = fixture::canary();
    s.instances[0].id = "서비스-1".into();
    s.instances[0].host = "노드-1".into();
    let buf = picture(&mut model(s, (100, 24)), &COLOUR);
    let x = find(&buf, "running   ok").0;
    let rows: Vec<u16> =
        (0..24).filter(|y| buf[(x, *y)].symbol() == "r" && buf[(x + 1, *y)].symbol() == "u").collect();
    assert!(rows.len() >= 7, "{}", text(&buf));
}

#[test]
fn every_status_is_a_word() {
    for (status, word) in [
        (RolloutStatus::Paused, "PAUSED"),
        (RolloutStatus::Frozen, "FROZEN"),
        (RolloutStatus::Aborting, "ABORTING"),
        (RolloutStatus::Done, "done"),
        (RolloutStatus::Aborted, "aborted"),
        (RolloutStatus::Failed, "FAILED"),
    ] {
        let mut s = fixture::canary();
        s.services[1].rollout.as_mut().unwrap().status = status;
        let mut m = model(s, (80, 24));
        m.service = Some("web".into());
        assert!(text(&picture(&mut m, &NO_COLOUR)).contains(word), "{word}");
    }
}

#[test]
fn of_many_phases_those_around_the_current_one_are_shown_and_the_rest_counted() {
    for (phase, size, expected) in [
        (0, (80, 24), "▶ node-01.example for 8m  · 29 more"),
        (12, (80, 24), "✓ 12 done  ▶ node-13.example for 20s  · 17 more"),
        (29, (80, 24), "✓ 28 done  ✓ node-29.example  ▶ node-30.example"),
        (12, (40, 10), "✓ 12 done  ▶ node-13.example  · 17 more"),
    ] {
        let mut s = fixture::many_hosts();
        s.services[1].rollout.as_mut().unwrap().phase = phase;
        find(&picture(&mut model(s, size), &COLOUR), expected);
    }
}

#[test]
fn the_worst_that_can_be_is_said_first_and_red() {
    let buf = picture(&mut scene("down", (80, 24)), &COLOUR);
    assert_eq!(buf[find(&buf, "! DOWN for 4s: NO instance serves web")].fg, Color::LightRed);
    let buf = picture(&mut scene("compared", (80, 24)), &COLOUR);
    assert_eq!(buf[find(&buf, "! candidate FAILS MORE")].fg, Color::LightRed);
    for size in [(40, 10), (80, 24), (200, 50)] {
        find(&picture(&mut scene("held", size), &NO_COLOUR), "# HELD BACK: node-2");
        find(&picture(&mut scene("empty_place", size), &NO_COLOUR), "! 1 place EMPTY for 4s on node-2");
    }
    let buf = picture(&mut scene("held", (80, 24)), &COLOUR);
    assert_eq!(buf[find(&buf, "#node-2")].fg, Color::Yellow);
}

#[test]
fn a_filter_stands_in_its_title_with_how_many_of_how_many_and_what_is_wrong() {
    let buf = picture(&mut scene("filters", (80, 24)), &COLOUR);
    let at = find(&buf, "/9c1e(▏");
    assert!(buf[at].modifier.contains(Modifier::REVERSED));
    find(&buf, "/9c1e(▏ 2 of 8");
    assert_eq!(buf[find(&buf, "! unclosed group")].fg, Color::LightRed);
    find(&buf, "/fail 1 of 8");
    find(&buf, "/bob|alice 2 of 5");
    let mut m = model(fixture::canary(), (80, 24));
    press(&mut m, "3/zzz\n");
    let buf = picture(&mut m, &COLOUR);
    assert_eq!(buf[find(&buf, "0 of 8")].fg, Color::Yellow);
    find(&buf, "no instance matches the filter (Esc clears it)");
}

#[test]
fn read_only_says_so_on_every_size_and_names_no_verb_anywhere() {
    for size in [(40, 10), (80, 24), (200, 50)] {
        for keys in ["", "?", ":", ":ab", ":pro"] {
            let mut m = scene("read_only", size);
            press(&mut m, keys);
            let buf = picture(&mut m, &COLOUR);
            assert_eq!(buf[find(&buf, "READ-ONLY")].fg, Color::Yellow, "{size:?} {keys}");
            let shown = text(&buf);
            for verb in
                ["a abort", "space pause", "p promote", "roll back", "promote full", "d deploy", "retry:"]
            {
                assert!(!shown.contains(verb), "{verb} on {size:?} after {keys:?}:\n{shown}");
            }
        }
    }
}

#[test]
fn details_show_names_of_the_environment_and_never_a_value() {
    let buf = picture(&mut scene("details", (200, 50)), &COLOUR);
    find(&buf, "DATABASE_URL=(hidden)");
    assert_eq!(buf[find(&buf, "! ended for want of memory (OOM)")].fg, Color::LightRed);
    assert_eq!(buf[find(&buf, "137, 5m ago")].fg, Color::LightRed);
    for part in
        ["10.0.0.1:20001 to 8080/tcp", "sha256:9c1e0a77", "restart policy: no", "io.pilothouse.fleet=shop"]
    {
        find(&buf, part);
    }
    // On a small screen the rest is a key away, and it is said that there is a rest.
    let mut m = scene("details", (40, 10));
    assert!(text(&picture(&mut m, &COLOUR)).contains("below: j"));
    press(&mut m, "G");
    let end = text(&picture(&mut m, &COLOUR));
    assert!(end.contains("none lately") && !end.contains("below"), "{end}");
    press(&mut m, "k");
    assert!(text(&picture(&mut m, &COLOUR)).contains("1 below"));
}

#[test]
fn what_is_sorted_by_is_in_the_title_and_its_caption_stands_out() {
    let buf = picture(&mut scene("sorted", (80, 24)), &COLOUR);
    find(&buf, "web 8 by cpu");
    assert_eq!(buf[find(&buf, "cpu  age")].fg, Color::LightCyan);
    let (x, y) = find(&buf, "age rst");
    assert!(buf[(x, y)].modifier.contains(Modifier::DIM));
}

#[test]
fn in_high_contrast_every_cell_is_bright_on_black_whatever_the_terminal_is() {
    let theme = Theme { palette: Palette::Contrast, ..Theme::default() };
    for name in ["canary", "help", "deploy", "details", "palette"] {
        for cell in picture(&mut scene(name, (80, 24)), &theme).content() {
            assert!(matches!(cell.bg, Color::Black | Color::Red), "{name}: {cell:?}");
            assert!(!matches!(cell.fg, Color::Reset | Color::Black), "{name}: {cell:?}");
            assert!(!cell.modifier.contains(Modifier::DIM), "{name}: {cell:?}");
        }
    }
}

#[test]
fn the_first_start_says_what_each_pane_is_until_the_first_key_which_counts() {
    for size in [(40, 10), (80, 24)] {
        let mut m = scene("welcome", size);
        let buf = picture(&mut m, &COLOUR);
        for pane in [
            "services  all services and",
            "rollout   the rollout of",
            "fleet     inst",
            "health    the last",
            "events    what",
        ] {
            assert!(buf[find(&buf, pane)].modifier.contains(Modifier::BOLD), "{pane}");
        }
        press(&mut m, "a");
        let asked = text(&picture(&mut m, &COLOUR));
        assert!(asked.contains("ABORT web?") && !asked.contains("what is what"), "{asked}");
    }
}

#[test]
fn the_palette_dims_what_is_not_possible_and_says_why() {
    let buf = picture(&mut scene("palette", (80, 24)), &COLOUR);
    let at = find(&buf, "resume");
    assert!(buf[at].modifier.contains(Modifier::DIM));
    find(&buf, "[resume is not possible: web-7 is running]");
    let chosen = find(&buf, "▶ rollback");
    assert_eq!(buf[(chosen.0 + 2, chosen.1)].fg, Color::LightCyan);
    assert!(!buf[(chosen.0 + 2, chosen.1)].modifier.contains(Modifier::DIM));
}

#[test]
fn the_bar_offers_what_the_keys_do() {
    let bar = |m: &mut Model| text(&picture(m, &COLOUR)).lines().last().unwrap().to_owned();
    let moving = bar(&mut scene("canary", (120, 24)));
    assert!(
        moving.contains("p promote") && moving.contains("d deploy") && !moving.contains("retry"),
        "{moving}"
    );
    let done = bar(&mut scene("finished", (120, 24)));
    assert!(done.contains("d deploy") && done.contains("r rollback") && !done.contains("abort"), "{done}");
    let asking = bar(&mut scene("abort", (120, 24)));
    assert!(asking.contains("y yes") && asking.contains("Esc") && !asking.contains("detach"), "{asking}");
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let name = prop_oneof!["[a-z]{0,12}", "\\PC{0,40}", Just("서비스".to_owned()), Just("x".repeat(300))];
    (0usize..10, proptest::collection::vec(name, 6), any::<(u16, f32, u64, u8)>()).prop_map(
        |(kind, names, odd)| {
            let mut s = match kind {
                0 => fixture::empty(),
                1 => fixture::undeployed(),
                2 => fixture::finished(),
                3 => fixture::crowd(200),
                4 => fixture::held(),
                5 => fixture::empty_place(),
                6 => fixture::compared(),
                7 => fixture::many_hosts(),
                _ => fixture::canary(),
            };
            let text = |n: usize| Safe::from(names[n].as_str());
            s.controller.fleet = text(0);
            s.environment = text(1);
            s.production = odd.3 % 2 == 0;
            s.alarms = (0..odd.3 % 7).map(|_| text(2)).collect();
            s.watchers = (0..odd.3 % 5).map(|_| text(3)).collect();
            for i in s.instances.iter_mut().take(3) {
                (i.id, i.host, i.state, i.probe) = (text(4), text(5), text(2), text(3));
                (i.started_ms, i.cpu_percent, i.weight) = (Some(odd.2), Some(odd.1), Some(odd.0));
                i.health = HealthView::Unknown;
            }
            for v in &mut s.services {
                v.drift = vec![text(1); usize::from(odd.3 % 3)];
                for r in &mut v.revisions {
                    (r.weight, r.actual_weight, r.share) = (odd.0, Some(odd.0), Some(odd.0));
                    r.revision.version = text(0);
                    if let Some(t) = &mut r.traffic {
                        (t.rate, t.error_percent, t.p95_ms) = (odd.1, odd.1, Some(odd.1));
                    }
                }
                if let Some(r) = &mut v.rollout {
                    r.phase = usize::from(odd.3);
                    r.reason = text(2);
                    r.gate_left_ms = Some(odd.2);
                    r.waiting = vec![text(3); 2];
                    r.started_ms = odd.2;
                    r.held.iter_mut().for_each(|h| *h = text(5));
                    r.testers = vec![text(0); usize::from(odd.3 % 2)];
                    if let Some(c) = &mut r.comparison {
                        (c.since_ms, c.candidate.failed, c.candidate.requests) = (odd.2, odd.2, odd.0.into());
                        c.candidate.p95_ms = Some(odd.1);
                    }
                    for (e, d) in r.empty.iter_mut().zip(&mut r.downtimes) {
                        (e.since_ms, e.host, d.ms) = (odd.2, text(4), odd.2);
                    }
                }
            }
            for e in &mut s.events {
                (e.text, e.by, e.at_ms) = (text(4), text(5), odd.2);
            }
            s
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_size_no_model_and_no_keys_panic(
        snapshot in any_snapshot(),
        size in prop_oneof![(0u16..12, 0u16..8), (0u16..250, 0u16..60)],
        keys in "[a-zA-Z0-9 :/?!(*\n]{0,12}",
        lost in any::<bool>(),
        ascii in any::<bool>(),
    ) {
        let mut m = model(snapshot, size);
        press(&mut m, &keys);
        if lost {
            update(&mut m, Msg::Lost("gone".into()));
        }
        update(&mut m, Msg::Tick);
        let buf = picture(&mut m, &Theme { ascii, ..Theme::default() });
        for cell in buf.content() {
            prop_assert!(!cell.symbol().chars().any(char::is_control));
            prop_assert!(!ascii || cell.symbol().is_ascii());
        }
    }
}
