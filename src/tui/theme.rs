//! What things look like: a palette and a glyph set, both chosen once at the start.
//!
//! Only the sixteen named colours are used, because an operator's terminal profile decides what they look like and
//! truecolor cannot be detected over SSH; the exception is the palette for people who tell colours apart badly, which
//! must not depend on a profile. Without colour the styles keep bold, dim and reverse: status is always a word and a
//! glyph as well. Colour is taken away here and not by crossterm, whose own `NO_COLOR` handling resets bold and reverse
//! along with it.

use ratatui::style::{Color, Modifier, Style};

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// For light text on a dark ground.
    #[default]
    Dark,
    /// For dark text on a light ground.
    Light,
    /// White on black and nothing faint, whatever the terminal's own ground is.
    Contrast,
    /// Blue and orange in place of cyan, green and red; needs 256 colours and a dark ground.
    ColourBlind,
    /// The eight colours that every terminal has, and bold.
    Basic,
    /// No colours.
    None,
}

impl Palette {
    /// All, in the order in which they are offered.
    pub const ALL: [Self; 6] =
        [Self::Dark, Self::Light, Self::Contrast, Self::ColourBlind, Self::Basic, Self::None];

    /// What options and the palette call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Contrast => "contrast",
            Self::ColourBlind => "colour-blind",
            Self::Basic => "16",
            Self::None => "none",
        }
    }

    /// What it is for.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Dark => "for a dark ground",
            Self::Light => "for a light ground",
            Self::Contrast => "white on black, nothing faint",
            Self::ColourBlind => "blue and orange; 256 colours, dark ground",
            Self::Basic => "the colours that every terminal has",
            Self::None => "bold and reverse only",
        }
    }

    /// The palette of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// What little charts are drawn with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Graph {
    /// Blocks of eight heights: nearly every font has them.
    #[default]
    Block,
    /// Two columns of dots in one character: twice the time in the same room, for fonts that have them.
    Braille,
    /// Denser and denser signs.
    Ascii,
}

impl Graph {
    /// All, as they are offered.
    pub const ALL: [Self; 3] = [Self::Block, Self::Braille, Self::Ascii];

    /// What the settings call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Braille => "braille",
            Self::Ascii => "ascii",
        }
    }
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
    /// What charts are drawn with, where UTF-8 may be used.
    pub graph: Graph,
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
    /// A heading with something hidden below it.
    pub folded: &'static str,
    /// A heading with everything below it.
    pub unfolded: &'static str,
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
    folded: "▸",
    unfolded: "▾",
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
    folded: "+",
    unfolded: "-",
};

impl Theme {
    /// The characters to draw with.
    #[must_use]
    pub fn glyphs(&self) -> &'static Glyphs {
        if self.ascii { &ASCII } else { &UNICODE }
    }

    /// What charts are drawn with.
    #[must_use]
    pub fn graph(&self) -> Graph {
        if self.ascii { Graph::Ascii } else { self.graph }
    }

    /// What `tone` looks like.
    #[must_use]
    pub fn style(&self, tone: Tone) -> Style {
        let s = Style::new();
        let bold = s.add_modifier(Modifier::BOLD);
        let reverse = bold.add_modifier(Modifier::REVERSED);
        let named = self.colour(tone);
        let styled = match tone {
            Tone::Plain => s,
            Tone::Dim if self.palette == Palette::Contrast => s,
            Tone::Dim => s.add_modifier(Modifier::DIM),
            Tone::Ok | Tone::Stable => s,
            Tone::Strong | Tone::Candidate | Tone::Accent | Tone::Key => bold,
            // The candidate has the same colour there.
            Tone::Warn if self.palette == Palette::Light => bold.add_modifier(Modifier::UNDERLINED),
            Tone::Bad if self.palette == Palette::ColourBlind => bold.add_modifier(Modifier::UNDERLINED),
            Tone::Warn | Tone::Bad => bold,
            Tone::Selected => reverse,
            Tone::Production | Tone::Alarm if self.palette == Palette::None => reverse,
            Tone::Production | Tone::Alarm => bold.bg(Color::Red),
        };
        match named {
            Some(colour) => styled.fg(colour),
            None => styled,
        }
    }

    /// The colour of `tone`, if it has one.
    fn colour(&self, tone: Tone) -> Option<Color> {
        use Color as C;
        let of = |dark, light, contrast, blind: u8, basic| match self.palette {
            Palette::Dark => Some(dark),
            Palette::Light => Some(light),
            Palette::Contrast => Some(contrast),
            Palette::ColourBlind => Some(C::Indexed(blind)),
            Palette::Basic => Some(basic),
            Palette::None => None,
        };
        match tone {
            Tone::Plain | Tone::Dim | Tone::Strong | Tone::Selected => None,
            Tone::Ok => of(C::Green, C::Green, C::LightGreen, 36, C::Green),
            Tone::Warn => of(C::Yellow, C::Magenta, C::LightYellow, 228, C::Yellow),
            Tone::Bad => of(C::LightRed, C::Red, C::LightRed, 202, C::Red),
            Tone::Stable => of(C::Cyan, C::Blue, C::LightCyan, 75, C::Cyan),
            Tone::Candidate => of(C::LightMagenta, C::Magenta, C::LightMagenta, 214, C::Magenta),
            Tone::Accent | Tone::Key => of(C::LightCyan, C::Blue, C::LightYellow, 153, C::Cyan),
            Tone::Production | Tone::Alarm => (self.palette != Palette::None).then_some(C::White),
        }
    }

    /// What lies under everything, where that is not the terminal's own: text and ground.
    #[must_use]
    pub fn ground(&self) -> Option<(Color, Color)> {
        (self.palette == Palette::Contrast).then_some((Color::White, Color::Black))
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
        let theme = Theme { palette: Palette::None, ..Theme::default() };
        for tone in TONES {
            let s = theme.style(tone);
            assert_eq!((s.fg, s.bg), (None, None), "{tone:?}");
        }
        assert!(theme.style(Tone::Production).add_modifier.contains(Modifier::REVERSED));
        assert!(theme.style(Tone::Selected).add_modifier.contains(Modifier::REVERSED));
    }

    #[test]
    fn every_palette_tells_the_tones_apart_that_must_not_be_mistaken() {
        for palette in Palette::ALL {
            assert_eq!(Palette::named(palette.name()), Some(palette));
            let theme = Theme { palette, ..Theme::default() };
            let look = |tone| theme.style(tone);
            if palette != Palette::None {
                assert_ne!(look(Tone::Stable), look(Tone::Candidate), "{palette:?}");
                assert_ne!(look(Tone::Ok), look(Tone::Bad), "{palette:?}");
                assert_ne!(look(Tone::Warn), look(Tone::Bad), "{palette:?}");
                assert_ne!(look(Tone::Warn), look(Tone::Candidate), "{palette:?}");
            }
            assert_ne!(look(Tone::Production), look(Tone::Strong), "{palette:?}");
            assert_ne!(look(Tone::Selected), look(Tone::Plain), "{palette:?}");
        }
        let light = |c: &Color| matches!(c, Color::LightRed | Color::LightCyan | Color::LightMagenta);
        for tone in TONES {
            let basic = Theme { palette: Palette::Basic, ..Theme::default() }.style(tone);
            assert!(basic.fg.is_none_or(|c| !light(&c)), "{tone:?}");
            let contrast = Theme { palette: Palette::Contrast, ..Theme::default() }.style(tone);
            assert!(!contrast.add_modifier.contains(Modifier::DIM), "{tone:?}");
        }
    }

    #[test]
    fn only_named_colours_are_used() {
        for palette in Palette::ALL.into_iter().filter(|p| *p != Palette::ColourBlind) {
            for tone in TONES {
                let s = Theme { palette, ..Theme::default() }.style(tone);
                for c in [s.fg, s.bg].into_iter().flatten() {
                    assert!(!matches!(c, Color::Rgb(..) | Color::Indexed(_)), "{tone:?}");
                }
            }
        }
    }
}
