//! Writes text into a row of cells: clipped, measured in columns, and in ASCII when that is asked for.
//!
//! All drawing goes through here, so that no view can write outside its rectangle or lose the columns after a wide
//! character.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

use crate::tui::theme::{Theme, Tone};

/// Columns that `text` takes.
#[must_use]
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

/// One row to write into, from left to right.
pub(super) struct Pen<'a> {
    buf: &'a mut Buffer,
    theme: &'a Theme,
    x: u16,
    y: u16,
    end: u16,
    over: Style,
}

impl<'a> Pen<'a> {
    /// Row `row` (from 0) of `area`. A row outside takes nothing.
    pub(super) fn new(buf: &'a mut Buffer, theme: &'a Theme, area: Rect, row: u16) -> Self {
        let area_in = area.intersection(buf.area);
        let y = area.y.saturating_add(row);
        let end = if y < area_in.bottom() { area_in.right() } else { area_in.x };
        Self { buf, theme, x: area_in.x, y, end, over: Style::new() }
    }

    /// A style on top of all that follows (the selected row).
    pub(super) fn over(mut self, style: Style) -> Self {
        self.over = style;
        self
    }

    /// Columns left.
    pub(super) fn room(&self) -> u16 {
        self.end.saturating_sub(self.x)
    }

    /// Leaves `n` columns free.
    pub(super) fn skip(&mut self, n: u16) -> &mut Self {
        self.x = self.x.saturating_add(n).min(self.end);
        self
    }

    /// Writes `text`, cut with a mark when it does not fit.
    pub(super) fn text(&mut self, text: &str, tone: Tone) -> &mut Self {
        let room = self.room();
        let style = self.theme.style(tone).patch(self.over);
        self.x = put(self.buf, self.theme, (self.x, self.y), text, room, style);
        self
    }

    /// Writes `text` only when the whole of it fits.
    pub(super) fn whole(&mut self, text: &str, tone: Tone) -> &mut Self {
        if width(text) <= self.room() {
            self.text(text, tone);
        }
        self
    }

    /// Writes `text` into a column of exactly `w`, and leaves one column free after it.
    pub(super) fn column(&mut self, text: &str, w: u16, tone: Tone) -> &mut Self {
        let style = self.theme.style(tone).patch(self.over);
        let room = self.room().min(w);
        put(self.buf, self.theme, (self.x, self.y), text, room, style);
        self.skip(w.saturating_add(1))
    }

    /// Like [`Pen::column`], to the right.
    pub(super) fn number(&mut self, text: &str, w: u16, tone: Tone) -> &mut Self {
        let pad = w.saturating_sub(width(text)).min(self.room());
        self.skip(pad).column(text, w.saturating_sub(pad), tone)
    }

    /// Takes back the column that [`Pen::column`] leaves free.
    pub(super) fn back(&mut self) -> &mut Self {
        self.x = self.x.saturating_sub(1);
        self
    }

    /// Fills `n` columns with a one-column glyph.
    pub(super) fn fill(&mut self, glyph: &str, n: u16, tone: Tone) -> &mut Self {
        let style = self.theme.style(tone).patch(self.over);
        for _ in 0..n.min(self.room()) {
            if let Some(cell) = self.buf.cell_mut((self.x, self.y)) {
                cell.set_symbol(glyph).set_style(style);
            }
            self.x += 1;
        }
        self
    }

    /// Patches the style of the whole row.
    pub(super) fn wash(&mut self, area: Rect, style: Style) {
        let row = Rect { x: area.x, y: self.y, width: area.width, height: 1 };
        self.buf.set_style(row.intersection(area), style);
    }
}

/// Writes at most `room` columns and returns where it stopped.
fn put(buf: &mut Buffer, theme: &Theme, (x, y): (u16, u16), text: &str, room: u16, style: Style) -> u16 {
    if room == 0 || text.is_empty() || buf.cell((x, y)).is_none() {
        return x;
    }
    let ascii;
    let text = if theme.ascii && !text.is_ascii() {
        ascii = to_ascii(text);
        &ascii
    } else {
        text
    };
    // A text longer than four bytes a column for the whole room cannot fit; do not measure all of a huge line.
    if text.len() <= usize::from(room) * 4 && width(text) <= room
        || text.is_ascii() && text.len() <= usize::from(room)
    {
        return buf.set_stringn(x, y, text, room.into(), style).0;
    }
    let fits = width_up_to(text, room) <= room;
    if fits {
        return buf.set_stringn(x, y, text, room.into(), style).0;
    }
    let (x, y) = buf.set_stringn(x, y, text, usize::from(room - 1), style);
    buf.set_stringn(x, y, theme.glyphs().cut, 1, style).0
}

/// The width of `text`, counted no further than just past `limit`.
fn width_up_to(text: &str, limit: u16) -> u16 {
    let mut sum = 0u16;
    for g in text.graphemes(true) {
        sum = sum.saturating_add(width(g));
        if sum > limit {
            break;
        }
    }
    sum
}

/// Stand-ins for what we write ourselves; `?` for each column of anything else, so that columns stay where they are.
pub(super) fn to_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for g in text.graphemes(true) {
        match g {
            g if g.is_ascii() => out.push_str(g),
            "…" => out.push('~'),
            "→" => out.push('>'),
            "·" => out.push('.'),
            "—" | "–" => out.push('-'),
            g => (0..width(g)).for_each(|_| out.push('?')),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, w: u16, ascii: bool) -> String {
        let area = Rect::new(0, 0, w, 1);
        let mut buf = Buffer::empty(area);
        let theme = Theme { ascii, ..Theme::default() };
        Pen::new(&mut buf, &theme, area, 0).text(text, Tone::Plain);
        (0..w).map(|x| buf[(x, 0)].symbol()).collect()
    }

    #[test]
    fn cut_text_is_marked_and_wide_characters_are_not_halved() {
        assert_eq!(row("hello", 5, false), "hello");
        assert_eq!(row("hello", 4, false), "hel…");
        assert_eq!(row("서비스", 6, false), "서 비 스 ");
        assert_eq!(row("서비스", 5, false), "서 비 …");
        assert_eq!(row("서비스", 4, false), "서 … ");
        assert_eq!(row("서비스 →", 8, true), "?????? >");
    }

    #[test]
    fn a_column_after_a_wide_name_stays_where_it_is() {
        let area = Rect::new(0, 0, 12, 2);
        let mut buf = Buffer::empty(area);
        let theme = Theme::default();
        Pen::new(&mut buf, &theme, area, 0).column("서비스-1", 7, Tone::Plain).text("x", Tone::Plain);
        Pen::new(&mut buf, &theme, area, 1).column("web", 7, Tone::Plain).text("x", Tone::Plain);
        assert_eq!((buf[(8, 0)].symbol(), buf[(8, 1)].symbol()), ("x", "x"));
    }

    #[test]
    fn rows_outside_the_area_take_nothing() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 3, 1));
        let theme = Theme::default();
        Pen::new(&mut buf, &theme, Rect::new(0, 0, 9, 9), 4).text("abc", Tone::Plain).fill(
            "x",
            3,
            Tone::Plain,
        );
        assert_eq!(buf, Buffer::empty(Rect::new(0, 0, 3, 1)));
    }
}
