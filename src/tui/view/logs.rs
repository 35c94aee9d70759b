//! The log pane: the last lines of an instance, a version or a service, followed.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_segmentation::UnicodeSegmentation as _;

use super::pen::{Pen, width};
use crate::api::Role;
use crate::text::Safe;
use crate::tui::filter::List;
use crate::tui::format;
use crate::tui::level::{Level, level};
use crate::tui::logs::{LOG_LINES, Line, Logs, Source, Whose};
use crate::tui::model::Model;
use crate::tui::theme::{Theme, Tone};

/// Widest mark of an instance.
const MARK: u16 = 10;

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some(logs) = &model.logs else { return };
    let mut inner = area;
    let head = super::cut_top(&mut inner, 1);
    title(model, theme, logs, head, buf);

    let top = logs.top(inner.height.into());
    let shown: Vec<(usize, &Line)> =
        (top..).take(inner.height.into()).map_while(|n| Some((n, logs.line(n)?))).collect();
    // What tells instances apart is needed where there can be several.
    let service = match &logs.whose {
        Whose::Instance(_) => None,
        Whose::Version { service, .. } | Whose::Service(service) => Some(service),
    };
    let marks: Vec<String> = match service {
        Some(service) => shown.iter().map(|(_, l)| mark(l.instance.as_str(), service.as_str())).collect(),
        None => vec![],
    };
    let widest = marks.iter().map(|m| width(m)).max().unwrap_or(0).min(MARK);
    for (row, (n, line)) in (0..inner.height).zip(&shown) {
        let looked_at = logs.back > 0 && logs.cursor() == Some(*n);
        let mark = marks.get(usize::from(row)).map(String::as_str);
        draw_line(
            model,
            theme,
            (logs, line, looked_at),
            (mark, widest),
            Rect { y: inner.y + row, height: 1, ..inner },
            buf,
        );
    }
    if logs.count() == 0 {
        let none = logs.lines.is_empty();
        let text = match logs.reads {
            Some((0, _)) if none => "no instance has written anything yet",
            _ if none => "no lines yet",
            _ => "no line matches the filter (Esc clears it)",
        };
        Pen::new(buf, theme, inner, 0).skip(1).text(text, Tone::Dim);
    }
}

fn title(model: &Model, theme: &Theme, logs: &Logs, head: Rect, buf: &mut Buffer) {
    let g = theme.glyphs();
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.fill(g.rule, 1, Tone::Dim).text(" logs ", Tone::Selected).skip(1);
    match &logs.whose {
        Whose::Instance(id) => pen.text(id.as_str(), Tone::Accent),
        Whose::Service(service) => pen.text(service.as_str(), Tone::Accent),
        Whose::Version { service, version } => {
            pen.text(service.as_str(), Tone::Accent).skip(1).text(version.as_str(), Tone::Accent)
        }
    };
    pen.skip(1);
    match logs.reads {
        Some((n, of)) if n < of => {
            pen.text(&format!("{n} of {}", format::count(of as usize, "instance")), Tone::Warn).skip(1);
        }
        Some((n, _)) => {
            pen.text(&format::count(n as usize, "instance"), Tone::Dim).skip(1);
        }
        None => {}
    }
    // What was searched for says where one is; it is what a narrow title must not lose.
    let found = logs.found().filter(|_| logs.in_context && model.filtering.is_none());
    if let Some((at, all)) = found {
        let filter = model.filters.of(List::Logs);
        pen.text(&format!("/{}", filter.text()), Tone::Selected);
        pen.text(&format!(" match {at} of {all} {} ", g.dot), Tone::Dim);
    }
    match (&logs.ended, logs.back) {
        (Some(why), _) => pen.text(&format!("ended: {why}"), Tone::Warn),
        (None, 0) => pen.text("following", Tone::Ok),
        (None, n) => pen.text(&format!("{} below; G follows again", format::count(n, "line")), Tone::Warn),
    };
    pen.skip(1);
    if logs.missed > 0 {
        pen.text(&format!("+{} not kept", logs.missed), Tone::Warn).skip(1);
    }
    if found.is_none() {
        for (text, tone) in super::filter_title(model, theme, List::Logs, (logs.count(), logs.lines.len())) {
            pen.text(&text, tone);
        }
    }
    pen.skip(1);
    if logs.dropped > 0 {
        pen.text(&format!("last {LOG_LINES}, {} older dropped", logs.dropped), Tone::Dim).skip(1);
    }
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Dim);
}

fn draw_line(
    model: &Model,
    theme: &Theme,
    (logs, line, looked_at): (&Logs, &Line, bool),
    (mark, widest): (Option<&str>, u16),
    row: Rect,
    buf: &mut Buffer,
) {
    let said = level(line.text.as_str()).map(Level::tone);
    let tone = match line.source {
        Source::Note => Tone::Dim,
        Source::Err => said.unwrap_or(Tone::Warn),
        Source::Out => said.unwrap_or(Tone::Plain),
    };
    let mut pen = Pen::new(buf, theme, row, 0);
    // The line that is copied, and that `n` goes on from.
    if looked_at {
        pen.wash(row, theme.style(Tone::Selected));
        pen = pen.over(theme.style(Tone::Selected));
    }
    // A mark as well: without colour the two streams must still differ.
    match line.source {
        Source::Err => pen.text("!", Tone::Warn),
        Source::Note => pen.text(theme.glyphs().rule, Tone::Dim),
        Source::Out => pen.skip(1),
    };
    if let Some(mark) = mark {
        pen.column(mark, widest, whose_tone(model, &line.instance));
    }
    let text = line.text.as_str();
    let from = match logs.left {
        0 => 0,
        n => text.grapheme_indices(true).nth(n).map_or(text.len(), |(at, _)| at),
    };
    let start = row.right().saturating_sub(pen.room());
    pen.text(text.get(from..).unwrap_or_default(), tone);
    // What was searched for stands out; where the whole line does, by not standing out.
    let found = if looked_at {
        Style::new().remove_modifier(Modifier::REVERSED).add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    } else {
        theme.style(Tone::Selected)
    };
    for span in model.filters.of(List::Logs).spans(text).filter(|s| s.end > from) {
        let before = width(text.get(from..span.start).unwrap_or_default());
        let x = start.saturating_add(before);
        if x >= row.right() {
            break;
        }
        let columns = width(text.get(span.start.max(from)..span.end).unwrap_or_default());
        buf.set_style(Rect { x, width: columns, ..row }.intersection(row), found);
    }
}

/// What tells an instance from the others of its service: the beginning of its revision and its number.
fn mark(instance: &str, service: &str) -> String {
    let rest = instance.strip_prefix(service).and_then(|r| r.strip_prefix('-')).unwrap_or(instance);
    match rest.split_once('-') {
        Some((revision, number)) if revision.len() == 8 && revision.is_ascii() => {
            format!("{}-{number}", revision.get(..4).unwrap_or(revision))
        }
        _ => rest.to_owned(),
    }
}

/// The colour of the part that an instance's version plays now.
fn whose_tone(model: &Model, instance: &Safe) -> Tone {
    match model.instance_named(instance).map(|i| i.role) {
        Some(Role::Candidate) => Tone::Candidate,
        Some(Role::Stable) => Tone::Stable,
        Some(Role::Old) => Tone::Plain,
        None => Tone::Dim,
    }
}
