//! Text from outside, made safe once, where it enters.
//!
//! Log lines, container names, labels, error bodies and operators' names may carry escape sequences or
//! bidirectional controls that rewrite what a terminal or a CI log shows. [`Safe`] is the only text type the
//! wire and the screen accept for such data, and it cannot be built without cleaning.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest text kept from one outside field, in characters; the rest is cut and marked with `…`.
pub const MAX_CHARS: usize = 4096;

/// Text without control, bidirectional-control or line-separator characters.
///
/// Each offending character is replaced by `·` (U+00B7), so that tampering stays visible; a tab becomes one
/// space. Deserialising cleans as well: a client does not have to trust its controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Safe(String);

impl Safe {
    /// Cleans `raw` and cuts it after [`MAX_CHARS`] characters.
    #[must_use]
    pub fn new(raw: &str) -> Self {
        Self::capped(raw, MAX_CHARS)
    }

    /// Cleans `raw` and cuts it after `max` characters.
    #[must_use]
    pub fn capped(raw: &str, max: usize) -> Self {
        let mut out = String::with_capacity(raw.len().min(max * 4));
        for (n, c) in raw.chars().enumerate() {
            if n >= max {
                out.push('…');
                break;
            }
            out.push(match c {
                '\t' => ' ',
                c if is_unsafe(c) => '·',
                c => c,
            });
        }
        Self(out)
    }

    /// Cleans a line that an application wrote. Colours and the like (SGR, ECMA-48 8.3.117: `ESC [ 1;31 m`) are meant for a
    /// terminal and mean nothing here: they are left out. Whatever else begins with an escape stays visible.
    #[must_use]
    pub fn log(raw: &str) -> Self {
        let mut plain = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            let end = after.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'));
            match end.and_then(|end| after.get(end..)?.strip_prefix('m')) {
                Some(left) => rest = left,
                None => {
                    plain.push('\u{1b}');
                    plain.push('[');
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        Self::new(&plain)
    }

    /// The cleaned text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// A count as people read it: `9,120`.
#[must_use]
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (k, c) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// C0, DEL, C1, line and paragraph separators, and every character that reorders or hides text (the Unicode
/// bidi controls, zero-width marks other than the joiners that emoji need, and tag characters).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061C}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for Safe {
    fn from(raw: &str) -> Self {
        Self::new(raw)
    }
}

impl From<String> for Safe {
    fn from(raw: String) -> Self {
        Self::new(&raw)
    }
}

impl AsRef<str> for Safe {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Safe {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(d)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_bidi_controls_become_visible_dots() {
        assert_eq!(Safe::new("a\x1b[31mb\r\n\u{9b}c\u{202e}d\u{7f}").as_str(), "a·[31mb···c·d·");
        assert_eq!(Safe::new("tab\there").as_str(), "tab here");
    }

    #[test]
    fn the_colours_of_a_log_line_are_left_out_and_nothing_else() {
        for (raw, plain) in [
            ("\x1b[1;31mERROR\x1b[0m no\x1b[m room", "ERROR no room"),
            ("\x1b[38:5:208morange\x1b[48;2;1;2;3m", "orange"),
            ("\x1b[2J\x1b[31Hx \x1b[?25l", "·[2J·[31Hx ·[?25l"),
            ("\x1b]0;title\x07 \x1b[31", "·]0;title· ·[31"),
            ("\x1b[\x1b[31mm", "·[m"),
            ("[31m", "[31m"),
        ] {
            assert_eq!(Safe::log(raw).as_str(), plain, "{raw:?}");
        }
    }

    #[test]
    fn korean_emoji_and_combining_marks_are_kept() {
        let s = "서비스 👩\u{200d}💻 e\u{301}";
        assert_eq!(Safe::new(s).as_str(), s);
    }

    #[test]
    fn a_long_field_is_cut_and_says_so() {
        let s = Safe::capped(&"x".repeat(90_000), 10);
        assert_eq!(s.as_str(), "xxxxxxxxxx…");
    }

    #[test]
    fn deserialising_cleans() {
        let s: Safe = serde_json::from_str(r#""x\u001b[2Jy""#).unwrap();
        assert_eq!(s.as_str(), "x·[2Jy");
    }

    proptest::proptest! {
        #[test]
        fn nothing_unsafe_survives(raw in "(?s)(.|\x1b\\[[0-9;]*m)*") {
            for cleaned in [Safe::new(&raw), Safe::log(&raw)] {
                proptest::prop_assert!(!cleaned.as_str().chars().any(is_unsafe));
            }
        }
    }
}
