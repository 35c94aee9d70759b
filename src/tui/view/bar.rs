//! The last row: what can be done now, out of the key table. What is given up first when it gets narrow is in the
//! table as well.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::tui::keys::{self, Action, Binding};
use crate::tui::model::Model;
use crate::tui::theme::{Theme, Tone};

fn size(b: &Binding) -> u16 {
    width(b.caption) + 1 + width(b.label)
}

/// Puts bindings into rows of `room` columns; gives up the least important until all fit.
fn fit(mut items: Vec<&'static Binding>, room: u16, rows: u16) -> Vec<Vec<&'static Binding>> {
    loop {
        let mut out: Vec<Vec<&'static Binding>> = vec![vec![]];
        let mut used = 0;
        for b in &items {
            let need = size(b) + if used == 0 { 0 } else { 2 };
            if used + need > room && used > 0 {
                out.push(vec![]);
                used = 0;
            }
            used += size(b) + if used == 0 { 0 } else { 2 };
            if let Some(row) = out.last_mut() {
                row.push(b);
            }
        }
        let least = items.iter().map(|b| b.bar).max();
        if out.len() <= usize::from(rows) || items.len() <= 1 {
            return out;
        }
        if let Some(at) = items.iter().rposition(|b| Some(b.bar) == least) {
            items.remove(at);
        }
    }
}

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    super::blank(area, buf);
    let mut items = keys::bar(model);
    items.dedup_by_key(|b| b.action);
    let rows = fit(items, area.width.saturating_sub(2), area.height);
    for (row, items) in (0..area.height).zip(rows) {
        let mut pen = Pen::new(buf, theme, area, row);
        pen.skip(1);
        for b in items {
            let tone = if b.action == Action::Abort { Tone::Bad } else { Tone::Key };
            pen.text(b.caption, tone).skip(1).text(b.label, Tone::Plain).skip(2);
        }
    }
}
