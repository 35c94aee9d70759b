//! The palette, over the lower panes: what is typed, and what it could mean, with the reason where it is not possible.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::tui::model::Model;
use crate::tui::palette::{Palette, hint, offers};
use crate::tui::theme::{Theme, Tone};

/// Offers in sight at once.
const ROWS: u16 = 12;

pub(super) fn draw(model: &Model, theme: &Theme, palette: &Palette, body: Rect, buf: &mut Buffer) {
    let g = theme.glyphs();
    let all = offers(model, &palette.input.text);
    let offered = u16::try_from(all.len()).unwrap_or(ROWS).clamp(1, ROWS);
    let mut above = body;
    let mut area = super::cut_bottom(&mut above, offered + 2 + u16::from(palette.complaint.is_some()));
    super::blank(area, buf);
    let head = super::cut_top(&mut area, 1);
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.fill(g.rule, 1, Tone::Accent).text(" command ", Tone::Selected).skip(1);
    let count = match all.len() {
        n if n > usize::from(ROWS) => format!("{n} of them, type a part of one "),
        _ => String::new(),
    };
    pen.text(&count, Tone::Dim);
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Accent);
    let line = super::cut_top(&mut area, 1);
    let mut pen = Pen::new(buf, theme, line, 0);
    pen.skip(1).text(&format!(":{}{}", palette.input.text, g.caret), Tone::Strong);
    if let Some(complaint) = &palette.complaint {
        let line = super::cut_top(&mut area, 1);
        Pen::new(buf, theme, line, 0).skip(1).text(&format!("! {complaint}"), Tone::Bad);
    }
    if all.is_empty() {
        Pen::new(buf, theme, area, 0).skip(3).text("nothing is called that", Tone::Dim);
    }
    let at = palette.cursor.unwrap_or(0);
    let top = super::window(at, all.len(), area.height.into());
    let name = |o: &crate::tui::palette::Offer| {
        let more = if o.argument.is_empty() { hint(o.binding.action) } else { "" };
        format!("{}{more}", o.text)
    };
    let in_sight = || all.iter().enumerate().skip(top).take(area.height.into());
    let names = in_sight().map(|(_, o)| width(&name(o))).max().unwrap_or(0).min(area.width * 2 / 5);
    let keys = in_sight().map(|(_, o)| width(o.binding.caption)).max().unwrap_or(0);
    for (row, (n, o)) in (0..area.height).zip(in_sight()) {
        let chosen = n == at;
        let off = o.why_not.is_some();
        let tone = match (off, chosen) {
            (true, _) => Tone::Dim,
            (false, true) => Tone::Accent,
            (false, false) => Tone::Plain,
        };
        let mut pen = Pen::new(buf, theme, area, row);
        pen.skip(1).column(if chosen { g.now } else { " " }, 1, Tone::Accent);
        pen.column(&name(o), names, tone);
        // The key is worth learning; where it is narrow the reason is worth more.
        if area.width >= 60 {
            pen.column(o.binding.caption, keys, if off { Tone::Dim } else { Tone::Key });
        }
        match &o.why_not {
            Some(why) => pen.text(&format!("[{why}]"), Tone::Dim),
            None => pen.text(&o.note, Tone::Plain),
        };
    }
}
