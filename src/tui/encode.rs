//! From changed cells to bytes: the shortest moves and the fewest attributes that are right on every terminal. Half of
//! what a screen sends over a slow link is moves and colours, not text.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr as _;

/// How what follows is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

const PLAIN: Look = Look { fg: Color::Reset, bg: Color::Reset, modifier: Modifier::empty() };

/// Modifiers that a theme may use, and their codes.
const CODES: [(Modifier, u8); 5] = [
    (Modifier::BOLD, 1),
    (Modifier::DIM, 2),
    (Modifier::ITALIC, 3),
    (Modifier::UNDERLINED, 4),
    (Modifier::REVERSED, 7),
];

/// Erases from the cursor to the end of the row (EL, ECMA-48 8.3.41).
const ERASE: &str = "\x1b[K";

/// The bytes that make `shown`, which is on the screen, into `next`. It begins and ends without attributes.
pub(super) fn encode(shown: &Buffer, next: &Buffer) -> String {
    let mut out = String::new();
    let mut look = PLAIN;
    // Where the cursor is; `None` when that is not sure.
    let mut at: Option<(u16, u16)> = None;
    // The row that is blank from some column on, and erased from there.
    let mut erased: Option<u16> = None;
    let mut tail = Tail::default();
    for (x, y, cell) in shown.diff_iter(next) {
        if erased == Some(y) {
            continue;
        }
        if at != Some((x, y)) {
            move_to(&mut out, at, (x, y));
        }
        if blank(cell) && tail.is_worth_erasing(shown, next, x, y) {
            // What is erased takes the ground that is set.
            if look != PLAIN {
                out.push_str("\x1b[m");
                look = PLAIN;
            }
            out.push_str(ERASE);
            erased = Some(y);
            at = Some((x, y));
            continue;
        }
        let next = Look { fg: cell.fg, bg: cell.bg, modifier: cell.modifier };
        if next != look {
            attributes(&mut out, look, next);
            look = next;
        }
        out.push_str(cell.symbol());
        // Terminals disagree on how wide some characters are, so after one of these the next move is absolute.
        at = (cell.symbol().width() == 1).then_some((x + 1, y));
    }
    if look != PLAIN {
        out.push_str("\x1b[m");
    }
    out
}

/// Whether a cell is as it is after erasing.
fn blank(cell: &Cell) -> bool {
    let look = Look { fg: cell.fg, bg: cell.bg, modifier: cell.modifier };
    cell.symbol() == " " && look == PLAIN
}

/// From where on a row is blank, found once a row.
#[derive(Default)]
struct Tail(Option<(u16, u16)>);

impl Tail {
    /// Whether the row is blank from `x` on, and more cells of that have to be written than erasing costs.
    fn is_worth_erasing(&mut self, shown: &Buffer, next: &Buffer, x: u16, y: u16) -> bool {
        let area = next.area;
        let blank_at = |x: u16| next.cell((x, y)).is_some_and(blank);
        let from = match self.0 {
            Some((row, from)) if row == y => from,
            _ => {
                (area.left()..area.right()).rev().take_while(|x| blank_at(*x)).last().unwrap_or(area.right())
            }
        };
        self.0 = Some((y, from));
        let changed = || (x..area.right()).filter(|x| shown.cell((*x, y)) != next.cell((*x, y)));
        x >= from && changed().take(ERASE.len() + 1).count() > ERASE.len()
    }
}

fn move_to(out: &mut String, at: Option<(u16, u16)>, (x, y): (u16, u16)) {
    let done = match at {
        // Writing to a string cannot fail.
        Some((from, row)) if row == y && x > from => match x - from {
            1 => out.write_str("\x1b[C"),
            n => write!(out, "\x1b[{n}C"),
        },
        _ if x == 0 => write!(out, "\x1b[{}H", y + 1),
        _ => write!(out, "\x1b[{};{}H", y + 1, x + 1),
    };
    debug_assert!(done.is_ok());
}

fn attributes(out: &mut String, from: Look, to: Look) {
    let mut codes: Vec<String> = Vec::new();
    let mut base = from;
    // Attributes can only be taken away all together on every terminal.
    if !to.modifier.contains(from.modifier) {
        codes.push(if to == PLAIN { String::new() } else { "0".into() });
        base = PLAIN;
    }
    for (modifier, code) in CODES {
        if to.modifier.contains(modifier) && !base.modifier.contains(modifier) {
            codes.push(code.to_string());
        }
    }
    if to.fg != base.fg {
        codes.push(colour(to.fg, 30));
    }
    if to.bg != base.bg {
        codes.push(colour(to.bg, 40));
    }
    out.push_str("\x1b[");
    out.push_str(&codes.join(";"));
    out.push('m');
}

/// The code of a colour; `base` is 30 for text and 40 for the ground.
fn colour(c: Color, base: u8) -> String {
    let named = match c {
        Color::Reset => 9,
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::LightRed => 61,
        Color::LightGreen => 62,
        Color::LightYellow => 63,
        Color::LightBlue => 64,
        Color::LightMagenta => 65,
        Color::LightCyan => 66,
        Color::White => 67,
        Color::Indexed(n) => return format!("{};5;{n}", base + 8),
        Color::Rgb(r, g, b) => return format!("{};2;{r};{g};{b}", base + 8),
    };
    (base + named).to_string()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use proptest::prelude::*;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    fn bytes(before: &Buffer, after: &Buffer) -> String {
        encode(before, after)
    }

    #[test]
    fn a_change_costs_its_move_its_colour_and_itself() {
        let area = Rect::new(0, 0, 20, 3);
        let before = Buffer::empty(area);
        let mut after = before.clone();
        after.set_string(0, 1, "ab", Style::new());
        assert_eq!(bytes(&before, &after), "\x1b[2Hab");
        after.set_string(6, 1, "ok", Style::new().fg(Color::LightRed).add_modifier(Modifier::BOLD));
        assert_eq!(bytes(&before, &after), "\x1b[2Hab\x1b[4C\x1b[1;91mok\x1b[m");
        assert_eq!(bytes(&after, &after), "");
        let mut korean = before.clone();
        korean.set_string(3, 0, "서비", Style::new());
        assert_eq!(bytes(&before, &korean), "\x1b[1;4H서\x1b[1;6H비", "nobody knows how wide it is shown");
    }

    #[test]
    fn the_blank_end_of_a_row_is_erased_where_that_is_shorter() {
        let area = Rect::new(0, 0, 40, 2);
        let text = |s: &str, style: Style| {
            let mut b = Buffer::empty(area);
            b.set_string(0, 0, s, style);
            b
        };
        let before = text("a long line of text", Style::new());
        assert_eq!(bytes(&before, &text("a", Style::new())), "\x1b[1;3H\x1b[K");
        assert_eq!(bytes(&before, &Buffer::empty(area)), "\x1b[1H\x1b[K");
        assert_eq!(bytes(&text("abc", Style::new()), &Buffer::empty(area)), "\x1b[1H   ");
        let reversed = text("abcdefgh", Style::new().add_modifier(Modifier::REVERSED));
        let half = {
            let mut b = text("abcd", Style::new().add_modifier(Modifier::REVERSED));
            b.set_string(0, 0, "x", Style::new().add_modifier(Modifier::REVERSED));
            b
        };
        assert_eq!(bytes(&reversed, &half), "\x1b[1H\x1b[7mx\x1b[3C\x1b[m\x1b[K");
        // A ground of its own is not what erasing leaves.
        let ground = text(&" ".repeat(40), Style::new().bg(Color::Red));
        assert!(!bytes(&before, &ground).contains("\x1b[K"));
    }

    /// What a terminal makes of it.
    fn shown(parser: &vt100::Parser, buf: &Buffer) -> Result<(), String> {
        let vt = |c: Color| match c {
            Color::Reset => vt100::Color::Default,
            Color::Red => vt100::Color::Idx(1),
            Color::LightCyan => vt100::Color::Idx(14),
            Color::Indexed(n) => vt100::Color::Idx(n),
            other => panic!("{other:?}"),
        };
        for y in 0..buf.area.height {
            for x in 0..buf.area.width {
                let (want, have) = (&buf[(x, y)], parser.screen().cell(y, x).unwrap());
                let text = if have.has_contents() { have.contents() } else { " " };
                let same = text == want.symbol()
                    && have.fgcolor() == vt(want.fg)
                    && have.bgcolor() == vt(want.bg)
                    && have.bold() == want.modifier.contains(Modifier::BOLD)
                    && have.dim() == want.modifier.contains(Modifier::DIM)
                    && have.underline() == want.modifier.contains(Modifier::UNDERLINED)
                    && have.inverse() == want.modifier.contains(Modifier::REVERSED);
                if !same {
                    return Err(format!("{x},{y}: {want:?} is shown as {have:?}"));
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_terminal_shows_what_was_meant_whatever_was_there(
            frames in proptest::collection::vec(
                proptest::collection::vec((0u16..12, 0u16..4, "[a-c ]{1,6}", 0usize..4, 0usize..3, 0u8..16), 0..12),
                1..5,
            )
        ) {
            let area = Rect::new(0, 0, 12, 4);
            let size = |n| NonZeroU16::new(n).unwrap();
            let mut parser = vt100::Parser::new(size(4), size(12), 0);
            let mut before = Buffer::empty(area);
            let colours = [Color::Reset, Color::Red, Color::LightCyan, Color::Indexed(214)];
            for frame in frames {
                let mut after = before.clone();
                for (x, y, text, fg, bg, modifiers) in frame {
                    let mut style = Style::reset().fg(colours[fg]).bg(colours[bg]);
                    let some = [Modifier::BOLD, Modifier::DIM, Modifier::UNDERLINED, Modifier::REVERSED];
                    for (n, modifier) in some.into_iter().enumerate() {
                        // A terminal that is bold is not dim at the same time.
                        if modifiers >> n & 1 == 1 && !(n == 1 && modifiers & 1 == 1) {
                            style = style.add_modifier(modifier);
                        }
                    }
                    after.set_string(x, y, &text, style);
                }
                parser.process(bytes(&before, &after).as_bytes());
                let seen = shown(&parser, &after);
                prop_assert!(seen.is_ok(), "{seen:?}");
                before = after;
            }
        }
    }
}
