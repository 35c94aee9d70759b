//! What things look like: a palette and a glyph set, both chosen once at the start.
//!
//! Only the sixteen named colours are used, because an operator's terminal profile decides what they look like and
//! truecolor cannot be detected over SSH. Without colour the styles keep bold, dim and reverse: status is always a
//! word and a glyph as well. Colour is taken away here and not by crossterm, whose own `NO_COLOR` handling resets
//! bold and reverse along with it.

use ratatui::style::{Color, Modifier, Style};

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// For light text on a dark ground.
    #[default]
    Dark,
    /// For dark text on a light ground.
    Light,
    /// No colours.
    None,
}

/// What a piece of the screen means; the palette says what that looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary text.
    Plain,
    /// Less important text, rules and captions.
    Dim,
    /// More important text.
    Strong,
    /// Something is as it should be.
    Ok,
    /// Somebody should look.
    Warn,
    /// Something is wrong.
    Bad,
    /// The stable revision.
    Stable,
    /// The candidate.
    Candidate,
    /// The focused pane's title, and what is chosen in a list.
    Accent,
    /// The selected row of the focused pane.
    Selected,
    /// The badge of a production environment.
    Production,
    /// Something is wrong with the controller itself.
    Alarm,
    /// A key in the bar and in the help.
    Key,
}

/// A palette and a glyph set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Theme {
    /// The colours.
    pub palette: Palette,
    /// ASCII only, for terminals and locales without UTF-8.
    pub ascii: bool,
}

/// Characters that have an ASCII stand-in. All are one column wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glyphs {
    /// A phase that is over; something that is well.
    pub done: &'static str,
    /// The phase now; the chosen row.
    pub now: &'static str,
    /// A phase to come.
    pub todo: &'static str,
    /// From one version to another.
    pub arrow: &'static str,
    /// Filled part of a bar.
    pub full: &'static str,
    /// Empty part of a bar.
    pub empty: &'static str,
    /// Horizontal rule.
    pub rule: &'static str,
    /// Vertical rule.
    pub wall: &'static str,
    /// Between things of a list.
    pub dot: &'static str,
    /// Text was cut here.
    pub cut: &'static str,
    /// Left edge of the production badge.
    pub badge_left: &'static str,
    /// Right edge of the production badge.
    pub badge_right: &'static str,
    /// Where the next typed character goes.
    pub caret: &'static str,
}

const UNICODE: Glyphs = Glyphs {
    done: "✓",
    now: "▶",
    todo: "·",
    arrow: "→",
    full: "█",
    empty: "░",
    rule: "─",
    wall: "│",
    dot: "·",
    cut: "…",
    badge_left: "▐",
    badge_right: "▌",
    caret: "▏",
};

const ASCII: Glyphs = Glyphs {
    done: "+",
    now: ">",
    todo: ".",
    arrow: ">",
    full: "#",
    empty: ".",
    rule: "-",
    wall: "|",
    dot: "-",
    cut: "~",
    badge_left: "[",
    badge_right: "]",
    caret: "_",
};

impl Theme {
    /// The characters to draw with.
    #[must_use]
    pub fn glyphs(&self) -> &'static Glyphs {
        if self.ascii { &ASCII } else { &UNICODE }
    }

    /// What `tone` looks like.
    #[must_use]
    pub fn style(&self, tone: Tone) -> Style {
        use Color as C;
        let s = Style::new();
        let bold = s.add_modifier(Modifier::BOLD);
        let reverse = bold.add_modifier(Modifier::REVERSED);
        let light = self.palette == Palette::Light;
        let pick = |dark: C, day: C| if light { day } else { dark };
        let styled = match tone {
            Tone::Plain => s,
            Tone::Dim => s.add_modifier(Modifier::DIM),
            Tone::Strong => bold,
            Tone::Ok => s.fg(C::Green),
            Tone::Warn => bold.fg(pick(C::Yellow, C::Magenta)),
            Tone::Bad => bold.fg(pick(C::LightRed, C::Red)),
            Tone::Stable => s.fg(pick(C::Cyan, C::Blue)),
            Tone::Candidate => bold.fg(pick(C::LightMagenta, C::Magenta)),
            Tone::Accent => bold.fg(pick(C::LightCyan, C::Blue)),
            Tone::Selected => reverse,
            Tone::Production | Tone::Alarm => bold.fg(C::White).bg(C::Red),
            Tone::Key => bold.fg(pick(C::LightCyan, C::Blue)),
        };
        if self.palette != Palette::None {
            return styled;
        }
        let plain = Style { fg: None, bg: None, ..styled };
        match tone {
            Tone::Production | Tone::Alarm => plain.add_modifier(Modifier::REVERSED),
            _ => plain,
        }
    }

    /// Fades what was drawn: colours go, and the text is dim. Badges stay reversed, so that production stays visible.
    #[must_use]
    pub fn faded(&self) -> Style {
        Style::new()
            .fg(Color::Reset)
            .bg(Color::Reset)
            .remove_modifier(Modifier::BOLD)
            .add_modifier(Modifier::DIM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TONES: [Tone; 13] = [
        Tone::Plain,
        Tone::Dim,
        Tone::Strong,
        Tone::Ok,
        Tone::Warn,
        Tone::Bad,
        Tone::Stable,
        Tone::Candidate,
        Tone::Accent,
        Tone::Selected,
        Tone::Production,
        Tone::Alarm,
        Tone::Key,
    ];

    #[test]
    fn no_colour_keeps_bold_and_reverse_and_nothing_else() {
        let theme = Theme { palette: Palette::None, ascii: false };
        for tone in TONES {
            let s = theme.style(tone);
            assert_eq!((s.fg, s.bg), (None, None), "{tone:?}");
        }
        assert!(theme.style(Tone::Production).add_modifier.contains(Modifier::REVERSED));
        assert!(theme.style(Tone::Selected).add_modifier.contains(Modifier::REVERSED));
    }

    #[test]
    fn only_named_colours_are_used() {
        for palette in [Palette::Dark, Palette::Light] {
            for tone in TONES {
                let s = Theme { palette, ascii: false }.style(tone);
                for c in [s.fg, s.bg].into_iter().flatten() {
                    assert!(!matches!(c, Color::Rgb(..) | Color::Indexed(_)), "{tone:?}");
                }
            }
        }
    }
}
