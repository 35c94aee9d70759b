//! Pane 3: instances, the stable ones first. Only the rows in sight are put together.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use crate::api::{HealthView, InstanceView, Role};
use crate::tui::filter::List;
use crate::tui::format;
use crate::tui::model::{HostTrouble, Model, Pane, health_word};
use crate::tui::rows::Column;
use crate::tui::theme::{Theme, Tone};

/// Rows of the list that are in sight when the pane is `area`.
pub(super) fn visible(model: &Model, area: Rect) -> Range<usize> {
    // Title and captions.
    let rows = usize::from(area.height.saturating_sub(2));
    let top = super::window(model.cursor, model.rows.len(), rows);
    top..(top + rows).min(model.rows.len())
}

use Column as C;

/// Given up one after the other when it gets narrow.
const GIVE_UP: [Column; 7] = [C::Memory, C::Cpu, C::Restarts, C::Age, C::Share, C::Host, C::State];

/// The columns for a pane of `room`, with their widths.
fn columns(model: &Model, room: u16) -> Vec<(Column, u16)> {
    let w = model.widths;
    let roomy = room > 110;
    let size = |c: Column| match c {
        // One more for the mark of a host that cannot be reached.
        C::Host => (w.host + 1).clamp(5, if roomy { 30 } else { 13 }),
        C::Instance => w.instance.clamp(8, if roomy { 48 } else { 22 }),
        C::Version => w.version.clamp(7, if roomy { 24 } else { 10 }),
        C::State => 8,
        C::Health => 14,
        C::Share => 6,
        C::Cpu => 4,
        C::Memory => 5,
        C::Age => 4,
        C::Restarts => 3,
    };
    let mut shown: Vec<(Column, u16)> = Column::ALL.into_iter().map(|c| (c, size(c))).collect();
    let total = |s: &[(Column, u16)]| s.iter().map(|(_, w)| w + 1).sum::<u16>();
    for column in GIVE_UP {
        if total(&shown) <= room {
            break;
        }
        shown.retain(|(c, _)| *c != column);
    }
    // What is left over separates the columns a little more.
    let gaps = u16::try_from(shown.len()).unwrap_or(1).max(1);
    let extra = (room.saturating_sub(total(&shown)) / gaps).min(3);
    shown.iter_mut().for_each(|(_, w)| *w += extra);
    shown
}

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some(snapshot) = &model.snapshot else { return };
    let scope = match &model.service {
        Some(name) if !model.all_services => name.as_str(),
        _ => "all services",
    };
    let mut title = vec![(scope.to_owned(), Tone::Accent)];
    let filter = super::filter_title(model, theme, List::Fleet, (model.rows.len(), model.in_scope));
    if filter.is_empty() {
        title.push((format!(" {}", model.in_scope), Tone::Dim));
    }
    title.extend(filter);
    if let Some(by) = model.sort.by {
        let turned = if model.sort.reversed { ", reversed" } else { "" };
        title.push((format!(" by {}{turned}", by.caption()), Tone::Plain));
    }
    let lost: Vec<String> = snapshot
        .hosts
        .iter()
        .filter(|h| !h.reachable && !h.out)
        .map(|h| match &h.error {
            Some(e) => format!("{} UNREACHABLE: {e}", h.name),
            None => format!("{} UNREACHABLE", h.name),
        })
        .collect();
    let lost = if lost.is_empty() { String::new() } else { format!(" ! {}", lost.join(", ")) };
    if !lost.is_empty() {
        title.push((lost, Tone::Bad));
    }
    let mut inner = super::frame(model, theme, area, Pane::Fleet, &super::borrowed(&title), buf);
    let head = super::cut_top(&mut inner, 1);
    let columns = columns(model, inner.width.saturating_sub(2));
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.skip(2);
    for (c, w) in &columns {
        let tone = if model.sort.by == Some(*c) { Tone::Accent } else { Tone::Dim };
        match c {
            C::Share | C::Cpu | C::Memory | C::Age | C::Restarts => pen.number(c.caption(), *w, tone),
            _ => pen.column(c.caption(), *w, tone),
        };
    }
    for (row, n) in (0..inner.height).zip(visible(model, area)) {
        if let Some(i) = model.row(n) {
            instance(model, theme, i, n == model.cursor, &columns, inner, row, buf);
        }
    }
    if model.rows.is_empty() {
        let text = match (!model.filters.of(List::Fleet).active(), &model.service) {
            (false, _) => "no instance matches the filter (Esc clears it)".to_owned(),
            (true, Some(name)) => format!("no instance of {name} yet"),
            (true, None) => "no instances yet".to_owned(),
        };
        Pen::new(buf, theme, inner, 0).skip(2).text(&text, Tone::Dim);
    }
}

#[allow(clippy::too_many_arguments)]
fn instance(
    model: &Model,
    theme: &Theme,
    i: &InstanceView,
    chosen: bool,
    columns: &[(Column, u16)],
    area: Rect,
    row: u16,
    buf: &mut Buffer,
) {
    let focused = chosen && model.focus == Pane::Fleet;
    let mut pen = Pen::new(buf, theme, area, row);
    if focused {
        pen.wash(area, theme.style(Tone::Selected));
        pen = pen.over(theme.style(Tone::Selected));
    }
    pen.column(if chosen { theme.glyphs().now } else { " " }, 1, Tone::Accent);
    for (c, w) in columns {
        match cell(model, i, *c) {
            (text, tone, true) => pen.number(&text, *w, tone),
            (text, tone, false) => pen.column(&text, *w, tone),
        };
    }
}

/// Text, tone, and whether it is a number.
fn cell(model: &Model, i: &InstanceView, column: Column) -> (String, Tone, bool) {
    let trouble = model.host_trouble(&i.host);
    let number = |text: Option<String>| (text.unwrap_or_else(|| "-".into()), Tone::Plain, true);
    match column {
        C::Host => match trouble {
            Some(HostTrouble::Unreachable) => (format!("!{}", i.host), Tone::Bad, false),
            Some(HostTrouble::Out) => (format!("-{}", i.host), Tone::Dim, false),
            None if model.held(i) => (format!("#{}", i.host), Tone::Warn, false),
            None => (i.host.as_str().into(), Tone::Plain, false),
        },
        C::Instance => (i.id.as_str().into(), Tone::Plain, false),
        C::Version => {
            let tone = match i.role {
                Role::Stable => Tone::Stable,
                Role::Candidate => Tone::Candidate,
                Role::Old => Tone::Dim,
            };
            (i.version.as_str().into(), tone, false)
        }
        C::State => {
            let tone = match i.state.as_str() {
                "running" => Tone::Plain,
                "stopped" | "parked" => Tone::Dim,
                "exited" | "gone" => Tone::Bad,
                _ => Tone::Warn,
            };
            (i.state.as_str().into(), tone, false)
        }
        C::Health if matches!(i.state.as_str(), "stopped" | "parked") => ("-".into(), Tone::Dim, false),
        C::Health => {
            let tone = match i.health {
                HealthView::Healthy => Tone::Ok,
                HealthView::Unhealthy => Tone::Bad,
                HealthView::Unknown => Tone::Warn,
            };
            let mut text = health_word(i.health).to_owned();
            if !i.probe.is_empty() {
                text.push(' ');
                text.push_str(i.probe.as_str());
            }
            if let Some(ms) = i.probe_ms {
                text.push_str(&format!(" {}", format::latency(ms as f32)));
            }
            (text, tone, false)
        }
        C::Share => number(i.weight.map(format::percent)),
        C::Cpu => number(i.cpu_percent.filter(|c| c.is_finite()).map(|c| format!("{c:.0}%"))),
        C::Memory => number(i.memory_bytes.map(format::bytes)),
        C::Age => number(i.started_ms.map(|t| format::age(model.wall_ms.saturating_sub(t)))),
        C::Restarts => {
            let tone = if i.restarts > 0 { Tone::Warn } else { Tone::Plain };
            (i.restarts.to_string(), tone, true)
        }
    }
}
