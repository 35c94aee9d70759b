//! Pane 5: what happened, newest at the bottom; scrolled back, as much as the journal has.

use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use crate::api::{EventView, Level};
use crate::text::Safe;
use crate::tui::filter::List;
use crate::tui::format;
use crate::tui::journal::Stop;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// One row of an event: its time on the first, its text, and whether it is the last of the event that is looked at.
struct Row {
    at_ms: Option<u64>,
    text: String,
    tone: Tone,
    chosen: bool,
}

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let back = format!("{} back", model.events_back);
    let Some(snapshot) = &model.snapshot else { return };
    let events = model.events();
    let mut title =
        if model.events_back > 0 { vec![(back, Tone::Warn)] } else { vec![("UTC".to_owned(), Tone::Dim)] };
    if let Some((text, tone)) = further(model) {
        title.push((format!(" {text}"), tone));
    }
    let counts = (events.len(), model.journal.len() + snapshot.events.len());
    title.extend(super::filter_title(model, theme, List::Events, counts));
    let inner = super::frame(model, theme, area, Pane::Events, &super::borrowed(&title), buf);
    // Where there is the whole screen, there are other days as well.
    let dated = model.zoom && inner.width >= 60;
    let time = if dated { 14 } else { 8 };
    let stamp = |at: u64| match at / DAY == model.wall_ms / DAY {
        _ if dated => format::date(at),
        true => format::clock(at),
        false => format::date(at).get(..5).unwrap_or_default().to_owned(),
    };
    let height = usize::from(inner.height);
    // An event may take several rows, and on a small pane two at most.
    let shape = Shape {
        room: usize::from(inner.width.saturating_sub(time + 3)),
        most: if height > 8 { 4 } else { 2 },
        many: snapshot.services.len() > 1,
    };
    // From the one that is looked at up, until the pane is full; where nothing is older, down as well.
    let (older, newer) = events.split_at(events.len().saturating_sub(model.events_back));
    let mut rows: VecDeque<Row> = VecDeque::new();
    for e in older.iter().rev() {
        if rows.len() >= height {
            break;
        }
        let chosen = rows.is_empty() && model.events_back > 0 && model.focus == Pane::Events;
        shape.rows(theme, e, chosen).into_iter().rev().for_each(|row| rows.push_front(row));
    }
    while rows.len() > height {
        rows.pop_front();
    }
    for e in newer {
        if rows.len() >= height {
            break;
        }
        rows.extend(shape.rows(theme, e, false));
    }
    for (row, line) in (0..inner.height).zip(&rows) {
        let mut pen = Pen::new(buf, theme, inner, row);
        if line.chosen {
            pen = pen.over(theme.style(Tone::Selected));
        }
        pen.column(&line.at_ms.map(stamp).unwrap_or_default(), time, Tone::Dim).text(&line.text, line.tone);
    }
    if events.is_empty() {
        let none = snapshot.events.is_empty();
        let text =
            if none { "nothing has happened yet" } else { "no event matches the filter (Esc clears it)" };
        Pen::new(buf, theme, inner, 0).text(text, Tone::Dim);
    }
}

/// What is to know of what lies further back.
fn further(model: &Model) -> Option<(String, Tone)> {
    if model.journal.asked {
        return Some(("reading further back".to_owned(), Tone::Dim));
    }
    match model.journal.stop.as_ref().filter(|_| model.events_back > 0 || model.zoom)? {
        Stop::Beginning => Some(("all there is".to_owned(), Tone::Dim)),
        Stop::Full => Some(("further back: pilothouse history, show".to_owned(), Tone::Dim)),
        Stop::Failed(why) => Some((format!("nothing older: {why}"), Tone::Warn)),
    }
}

/// How events are put into rows.
struct Shape {
    room: usize,
    most: usize,
    many: bool,
}

impl Shape {
    fn rows(&self, theme: &Theme, e: &EventView, chosen: bool) -> Vec<Row> {
        let tone = match e.level {
            Level::Info => Tone::Plain,
            Level::Warn => Tone::Warn,
            Level::Error => Tone::Bad,
        };
        let mut text = if e.level == Level::Info { String::new() } else { "! ".to_owned() };
        let named = |s: &&Safe| e.text.as_str().strip_prefix(s.as_str()).is_some_and(|t| t.starts_with(": "));
        if let Some(service) = e.service.as_ref().filter(|s| self.many && !named(s)) {
            text.push_str(&format!("{service}: "));
        }
        text.push_str(e.text.as_str());
        if !e.by.is_empty() && e.by.as_str() != "pilothouse" && !e.text.as_str().contains(e.by.as_str()) {
            text.push_str(&format!(" ({})", e.by));
        }
        let mut lines = super::wrap(&text, self.room);
        if lines.len() > self.most {
            lines.truncate(self.most);
            if let Some(last) = lines.last_mut() {
                last.push_str(theme.glyphs().cut);
            }
        }
        let last = lines.len().saturating_sub(1);
        let row =
            |(n, text)| Row { at_ms: (n == 0).then_some(e.at_ms), text, tone, chosen: chosen && n == last };
        lines.into_iter().enumerate().map(row).collect()
    }
}
