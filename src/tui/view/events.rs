//! Pane 5: what happened, newest at the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use crate::api::{EventView, Level};
use crate::tui::filter::List;
use crate::tui::format;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let back = format!("{} back", model.events_back);
    let Some(snapshot) = &model.snapshot else { return };
    let mut events = model.events();
    let mut title =
        if model.events_back > 0 { vec![(back, Tone::Warn)] } else { vec![("UTC".to_owned(), Tone::Dim)] };
    let counts = (events.len(), snapshot.events.len());
    title.extend(super::filter_title(model, theme, List::Events, counts));
    let inner = super::frame(model, theme, area, Pane::Events, &super::borrowed(&title), buf);
    let many = snapshot.services.len() > 1;
    events.truncate(events.len().saturating_sub(model.events_back));
    // From the newest up, until the pane is full: an event may take several rows, and on a small pane two at most.
    let room = usize::from(inner.width.saturating_sub(11));
    let most = if inner.height > 8 { 4 } else { 2 };
    let mut rows: Vec<(Option<&EventView>, String, Tone)> = Vec::new();
    for e in events.iter().rev().copied() {
        if rows.len() >= usize::from(inner.height) {
            break;
        }
        let tone = match e.level {
            Level::Info => Tone::Plain,
            Level::Warn => Tone::Warn,
            Level::Error => Tone::Bad,
        };
        let mut text = if e.level == Level::Info { String::new() } else { "! ".to_owned() };
        if let Some(service) = e.service.as_ref().filter(|_| many) {
            text.push_str(&format!("{service}: "));
        }
        text.push_str(e.text.as_str());
        if !e.by.is_empty() && e.by.as_str() != "pilothouse" && !e.text.as_str().contains(e.by.as_str()) {
            text.push_str(&format!(" ({})", e.by));
        }
        let mut lines = super::wrap(&text, room);
        if lines.len() > most {
            lines.truncate(most);
            if let Some(last) = lines.last_mut() {
                last.push_str(theme.glyphs().cut);
            }
        }
        for (n, line) in lines.into_iter().enumerate().rev() {
            rows.push(((n == 0).then_some(e), line, tone));
        }
    }
    rows.truncate(inner.height.into());
    let last = u16::try_from(rows.len()).unwrap_or(0);
    for (row, (event, line, tone)) in (0..inner.height).zip(rows.into_iter().rev()) {
        let mut pen = Pen::new(buf, theme, inner, row);
        // The last row of the event that is copied.
        if model.events_back > 0 && model.focus == Pane::Events && row + 1 == last {
            pen = pen.over(theme.style(Tone::Selected));
        }
        pen.column(&event.map(|e| format::clock(e.at_ms)).unwrap_or_default(), 8, Tone::Dim)
            .text(&line, tone);
    }
    if events.is_empty() {
        let none = snapshot.events.is_empty();
        let text =
            if none { "nothing has happened yet" } else { "no event matches the filter (Esc clears it)" };
        Pen::new(buf, theme, inner, 0).text(text, Tone::Dim);
    }
}
