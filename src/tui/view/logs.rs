//! The log pane: the last lines of one instance, followed.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_segmentation::UnicodeSegmentation as _;

use super::pen::Pen;
use crate::tui::filter::List;
use crate::tui::format;
use crate::tui::model::{LOG_LINES, Model};
use crate::tui::theme::{Theme, Tone};

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some(logs) = &model.logs else { return };
    let g = theme.glyphs();
    let mut inner = area;
    let head = super::cut_top(&mut inner, 1);
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.fill(g.rule, 1, Tone::Dim)
        .text(" logs ", Tone::Selected)
        .skip(1)
        .text(logs.instance.as_str(), Tone::Accent);
    pen.skip(1);
    match (&logs.ended, logs.back) {
        (Some(why), _) => pen.text(&format!("ended: {why}"), Tone::Warn),
        (None, 0) => pen.text("following", Tone::Ok),
        (None, n) => pen.text(&format!("{} below; G follows again", format::count(n, "line")), Tone::Warn),
    };
    pen.skip(1);
    for (text, tone) in super::filter_title(model, theme, List::Logs, (logs.count(), logs.lines.len())) {
        pen.text(&text, tone);
    }
    pen.skip(1);
    if logs.dropped > 0 {
        pen.text(&format!("last {LOG_LINES}, {} older dropped", logs.dropped), Tone::Dim).skip(1);
    }
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Dim);

    let end = logs.count().saturating_sub(logs.back);
    let top = end.saturating_sub(inner.height.into());
    for (row, line) in (0..inner.height).zip((top..end).filter_map(|n| logs.line(n))) {
        let tone = if line.stderr { Tone::Warn } else { Tone::Plain };
        let mut pen = Pen::new(buf, theme, inner, row);
        // The line that is copied.
        if logs.back > 0 && usize::from(row) + 1 == end - top {
            pen.wash(inner, theme.style(Tone::Selected));
            pen = pen.over(theme.style(Tone::Selected));
        }
        // A mark as well: without colour the two streams must still differ.
        pen.text(if line.stderr { "!" } else { " " }, tone);
        let text = line.text.as_str();
        let from = match logs.left {
            0 => 0,
            n => text.grapheme_indices(true).nth(n).map_or(text.len(), |(at, _)| at),
        };
        pen.text(text.get(from..).unwrap_or_default(), tone);
    }
    if logs.count() == 0 {
        let none = logs.lines.is_empty();
        let text = if none { "no lines yet" } else { "no line matches the filter (Esc clears it)" };
        Pen::new(buf, theme, inner, 0).skip(1).text(text, Tone::Dim);
    }
}
