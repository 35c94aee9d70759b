//! The first row: which fleet, how dangerous it is here, who else watches, and whether this picture is current. The
//! controller's own alarms come right below it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::tui::format;
use crate::tui::model::{Link, Model};
use crate::tui::theme::{Theme, Tone};

/// `live`, or how long the controller has been lost.
pub(super) fn link_text(model: &Model) -> String {
    if let Some(r) = &model.replay {
        // A countdown rounds up, which nobody expects of a time that goes forward.
        let time = |ms: u64| format::countdown(ms / 1000 * 1000);
        let stands = if r.paused { "stands" } else { "plays" };
        let text = format!("{}/{} x{} {stands}", time(r.at_ms), time(r.length_ms), r.speed);
        let day = format::clock(model.wall_ms);
        return if model.size.0 < WIDE {
            format!(" REPLAY {text} ")
        } else {
            format!(" REPLAY {} {day} {text} ", r.rollout)
        };
    }
    match &model.link {
        Link::Live => "live".into(),
        Link::Connecting => "connecting".into(),
        Link::Lost { since_ms, .. } if model.snapshot.is_some() => {
            let age = format::age(model.now_ms.saturating_sub(*since_ms));
            if model.size.0 < WIDE {
                format!(" LOST {age} ago ")
            } else {
                format!(" LOST: picture is {age} old ")
            }
        }
        Link::Lost { .. } => " NO CONTROLLER ".into(),
    }
}

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let g = theme.glyphs();
    let link = link_text(model);
    let link_tone = match model.link {
        _ if model.replay.is_some() => Tone::Selected,
        Link::Live => Tone::Ok,
        Link::Connecting => Tone::Warn,
        Link::Lost { .. } => Tone::Alarm,
    };
    // The right end first: it must never be pushed out.
    let mark = if model.read_only { "READ-ONLY " } else { "" };
    let right = width(&link) + width(mark) + 2;
    let mut left = area;
    let end = super::cut_right(&mut left, right.min(area.width));
    Pen::new(buf, theme, end, 0).skip(1).text(mark, Tone::Warn).text(&link, link_tone);

    let mut pen = Pen::new(buf, theme, left, 0);
    let Some(s) = &model.snapshot else {
        pen.skip(1).text("PILOTHOUSE", Tone::Strong);
        return;
    };
    pen.skip(1);
    if area.width >= WIDE {
        pen.text("PILOTHOUSE", Tone::Dim).skip(1);
    }
    pen.text(s.controller.fleet.as_str(), Tone::Strong).skip(1);
    let name = s.environment.as_str();
    if s.production {
        let upper = if name.is_empty() { "PRODUCTION".to_owned() } else { name.to_uppercase() };
        pen.text(&format!("{}{upper}{}", g.badge_left, g.badge_right), Tone::Production);
    } else {
        pen.text(name, Tone::Strong);
    }
    pen.skip(2);
    let c = model.counts;
    if c.lost_hosts > 0 {
        pen.whole(&format!("{} of {} LOST", c.lost_hosts, format::count(s.hosts.len(), "host")), Tone::Bad)
            .skip(2);
    } else {
        pen.whole(&format::count(s.hosts.len(), "host"), Tone::Plain).skip(2);
    }
    if c.lost_proxies > 0 {
        let all = s.proxies.len();
        let text = format!("{} of {all} {} LOST", c.lost_proxies, if all == 1 { "proxy" } else { "proxies" });
        pen.whole(&text, Tone::Bad).skip(2);
    }
    if c.unhealthy > 0 {
        pen.whole(&format!("{} FAIL", c.unhealthy), Tone::Bad).skip(2);
    }
    pen.whole(&format::count(c.instances, "instance"), Tone::Plain).skip(2);
    if c.rollouts > 0 {
        pen.whole(&format::count(c.rollouts, "rollout"), Tone::Candidate).skip(2);
    }
    let others: Vec<&str> = model.others().map(|w| w.as_str()).collect();
    if !others.is_empty() {
        let text = format!("{} {} watching", others.join(", "), if others.len() == 1 { "is" } else { "are" });
        let room = pen.room();
        let text = if width(&text) <= room { text } else { format!("{} watching", others.len()) };
        if width(&text) <= room {
            pen.skip(room - width(&text) - u16::from(width(&text) < room)).text(&text, Tone::Plain);
        }
    }
}

/// Width from which the program's name is shown.
const WIDE: u16 = 64;

pub(super) fn alarms(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let alarms = model.snapshot.as_ref().map(|s| s.alarms.as_slice()).unwrap_or_default();
    let hidden = alarms.len().saturating_sub(area.height.into());
    for (row, alarm) in (0..area.height).zip(alarms) {
        let more = if hidden > 0 && row + 1 == area.height {
            format!(" (and {hidden} more)")
        } else {
            String::new()
        };
        let mut pen = Pen::new(buf, theme, area, row);
        pen.text(&format!(" ALARM {alarm}{more}"), Tone::Alarm);
        let rest = pen.room();
        pen.fill(" ", rest, Tone::Alarm);
    }
}
