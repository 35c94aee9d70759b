//! Pane 3: instances, the candidate's first, or as a tree. Only the rows in sight are put together.

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
use crate::tui::tree::Group;

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
    // The heading says it.
    shown.retain(|(c, _)| *c != C::Host || !model.tree.on);
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
    let filter = super::filter_title(model, theme, List::Fleet, (model.shown(), model.in_scope));
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
    let indent = if model.tree.on { 2 * (1 + u16::from(model.all_services)) } else { 0 };
    let columns = columns(model, inner.width.saturating_sub(2 + indent));
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.skip(2 + indent);
    for (c, w) in &columns {
        let tone = if model.sort.by == Some(*c) { Tone::Accent } else { Tone::Dim };
        match c {
            C::Share | C::Cpu | C::Memory | C::Age | C::Restarts => pen.number(c.caption(), *w, tone),
            _ => pen.column(c.caption(), *w, tone),
        };
    }
    for (row, n) in (0..inner.height).zip(visible(model, area)) {
        if let Some(i) = model.row(n) {
            instance(model, theme, i, (n == model.cursor, indent), &columns, inner, row, buf);
        } else if let Some(g) = model.group(n) {
            heading(model, theme, g, n == model.cursor, inner, row, buf);
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

/// The row of the cursor, reversed where it moves now, with its mark.
fn begin<'a>(
    model: &Model,
    theme: &'a Theme,
    chosen: bool,
    area: Rect,
    row: u16,
    buf: &'a mut Buffer,
) -> Pen<'a> {
    let mut pen = Pen::new(buf, theme, area, row);
    if chosen && model.focus == Pane::Fleet {
        pen.wash(area, theme.style(Tone::Selected));
        pen = pen.over(theme.style(Tone::Selected));
    }
    pen.column(if chosen { theme.glyphs().now } else { " " }, 1, Tone::Accent);
    pen
}

/// `▸ node-2  3 healthy, 1 FAILING, 1 of the candidate`
fn heading(model: &Model, theme: &Theme, g: &Group, chosen: bool, area: Rect, row: u16, buf: &mut Buffer) {
    let glyphs = theme.glyphs();
    let t = g.tally;
    let trouble = g.key.host.as_ref().and_then(|h| model.host_trouble(h));
    let lost = trouble == Some(HostTrouble::Unreachable);
    let tone = if lost || t.failing > 0 {
        Tone::Bad
    } else if t.unknown > 0 || t.starting > 0 {
        Tone::Warn
    } else {
        Tone::Strong
    };
    let mark = if g.folded { glyphs.folded } else { glyphs.unfolded };
    let widths = model.widths;
    let names = if model.all_services { widths.service.max(widths.host + 2) } else { widths.host };
    let mut pen = begin(model, theme, chosen, area, row, buf);
    pen.skip(2 * g.depth).column(mark, 1, Tone::Accent);
    pen.column(g.key.name().as_str(), (names + 1).clamp(6, 30).saturating_sub(2 * g.depth), tone);
    match trouble {
        Some(HostTrouble::Unreachable) => {
            pen.text("! UNREACHABLE: ", Tone::Bad);
        }
        Some(HostTrouble::Out) => {
            pen.text("out, ", Tone::Dim);
        }
        None => {}
    }
    let said = [
        (t.failing, "FAILING", Tone::Bad),
        (t.healthy, "healthy", Tone::Ok),
        (t.unknown, "not known", Tone::Warn),
        (t.starting, "starting", Tone::Warn),
        (t.stopped, "stopped", Tone::Dim),
    ];
    // What is wrong comes first, for a narrow screen.
    for (k, (n, word, tone)) in said.into_iter().filter(|(n, ..)| *n > 0).enumerate() {
        pen.text(if k > 0 { ", " } else { "" }, Tone::Dim).text(&format!("{n} {word}"), tone);
    }
    if t.candidates > 0 {
        pen.text(", ", Tone::Dim).text(&format!("{} of the candidate", t.candidates), Tone::Candidate);
    }
    if g.key.host.is_none()
        && let Some(service) = model.service_named(&g.key.service)
    {
        let (text, tone) = super::services::state(service);
        pen.skip(2).text(&text, tone);
    }
}

#[allow(clippy::too_many_arguments)]
fn instance(
    model: &Model,
    theme: &Theme,
    i: &InstanceView,
    (chosen, indent): (bool, u16),
    columns: &[(Column, u16)],
    area: Rect,
    row: u16,
    buf: &mut Buffer,
) {
    let mut pen = begin(model, theme, chosen, area, row, buf);
    pen.skip(indent);
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
