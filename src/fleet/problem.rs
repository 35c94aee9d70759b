//! What is wrong in a file the operator wrote: where, what, and what to write instead.
//!
//! All problems of a file are collected and shown at once, so that one look is enough to repair it.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::text::Safe;

/// More problems than this are not listed one by one.
const MOST_PROBLEMS: usize = 200;
/// Longest part of a source line that is shown, in characters.
const EXCERPT_CHARS: usize = 100;
/// What of a longer line is shown before the offending text, in characters.
const EXCERPT_BEFORE: usize = 40;
/// Longest offending text that is kept, in characters.
const OFFENDING_CHARS: usize = 80;

/// Whether a problem stops the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but this is probably not what was meant.
    Warning,
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the file can still be used.
    pub severity: Severity,
    /// The file, as the operator named it.
    pub file: Safe,
    /// Line, counted from 1; 0 when the problem is the file as a whole.
    pub line: usize,
    /// Column in characters, counted from 1; 0 when the problem is a whole line or the file.
    pub column: usize,
    /// The text that is wrong; empty when something is missing, or when it must not be shown.
    pub offending: Safe,
    /// What is wrong.
    pub message: Safe,
    /// What to write or do instead.
    pub fix: Safe,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The source line of a problem, ready to print with a marker under the offending text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: Safe,
    /// Terminal columns before the marker.
    indent: usize,
    /// Terminal columns of the marker.
    width: usize,
}

impl Problem {
    /// A problem of a file as a whole, for example that it cannot be read.
    #[must_use]
    pub fn of_file(file: &Path, message: &str, fix: &str) -> Self {
        Self::of_line(file, 0, message, fix)
    }

    /// A problem of a whole line of which nothing may be shown.
    #[must_use]
    pub fn of_line(file: &Path, line: usize, message: &str, fix: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: Safe::from(file.to_string_lossy().as_ref()),
            line,
            column: 0,
            offending: Safe::default(),
            message: Safe::new(message),
            fix: Safe::new(fix),
            excerpt: None,
        }
    }

    /// The same as a warning.
    #[must_use]
    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same without its source line, which may hold a value that must not be shown.
    #[must_use]
    pub(super) fn without_excerpt(mut self) -> Self {
        self.excerpt = None;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if self.column > 0 {
            write!(f, "{}:", self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}", self.message)?;
        if let Some(e) = &self.excerpt {
            let gutter = self.line.to_string();
            let blank = " ".repeat(gutter.len());
            write!(f, "\n  {gutter} | {}", e.text)?;
            write!(f, "\n  {blank} | {}{}", " ".repeat(e.indent), "^".repeat(e.width))?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n  = {}", self.fix)?;
        }
        Ok(())
    }
}

/// Everything that is wrong in a file, sorted by place. Holds at least one [`Severity::Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// All of them, warnings included, sorted by file, line and column.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.0
    }

    /// How many stop the file from being used.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|p| p.severity == Severity::Error).count()
    }

    /// Splits what was found in `main` and the files it names: the warnings when nothing stops the file from being
    /// used, else everything.
    pub(crate) fn judge(main: &Path, mut found: Vec<Problem>) -> Result<Vec<Problem>, Self> {
        let main = Safe::from(main.to_string_lossy().as_ref());
        // The sort is stable: what is found first at a place is shown first.
        found.sort_by(|a, b| {
            let key = |p: &Problem| (p.file != main, p.line, p.column);
            key(a).0.cmp(&key(b).0).then_with(|| a.file.cmp(&b.file)).then(key(a).cmp(&key(b)))
        });
        found.dedup();
        // An error must not be hidden behind many warnings.
        let hopeless = found.iter().any(|p| p.severity == Severity::Error);
        let more = found.len().saturating_sub(MOST_PROBLEMS);
        if more > 0 {
            if hopeless {
                found.retain(|p| p.severity == Severity::Error);
            }
            found.truncate(MOST_PROBLEMS);
            let end = Problem::of_line(
                Path::new(main.as_str()),
                0,
                &format!("and {more} more problems"),
                "repair those above first",
            );
            found.push(if hopeless { end } else { end.warning() });
        }
        if hopeless { Err(Self(found)) } else { Ok(found) }
    }
}

impl From<Problem> for Problems {
    fn from(p: Problem) -> Self {
        Self(vec![p])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, p) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{p}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A text in which places can be found.
pub(crate) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    line_starts: Vec<usize>,
}

/// A range of bytes in a source.
pub(crate) type Span = std::ops::Range<usize>;

impl<'a> Source<'a> {
    /// `text`, named `file` as the operator named it.
    pub(crate) fn new(file: &'a Path, text: &'a str) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        Self { file, text, line_starts }
    }

    /// The line of a place, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset.min(self.text.len())).max(1)
    }

    /// An error at `span`.
    pub(crate) fn problem(&self, span: &Span, message: &str, fix: &str) -> Problem {
        let line = self.line(span.start);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let whole = self.text.get(start..).unwrap_or("").lines().next().unwrap_or("");
        let before = self.chars_between(start, span.start).min(whole.chars().count());
        let marked = self
            .chars_between(span.start, span.end.max(span.start))
            .min(whole.chars().count().saturating_sub(before));
        let offending: String = whole.chars().skip(before).take(marked).collect();
        Problem {
            column: before + 1,
            offending: Safe::capped(&offending, OFFENDING_CHARS),
            excerpt: excerpt(whole, before, marked),
            ..Problem::of_line(self.file, line, message, fix)
        }
    }

    /// Characters that start in a range of bytes.
    fn chars_between(&self, from: usize, to: usize) -> usize {
        let to = to.min(self.text.len());
        let bytes = self.text.as_bytes().get(from.min(to)..to).unwrap_or_default();
        bytes.iter().filter(|b| (**b & 0b1100_0000) != 0b1000_0000).count()
    }
}

/// The part of `line` around the marked characters.
fn excerpt(line: &str, before: usize, marked: usize) -> Option<Excerpt> {
    if line.trim().is_empty() {
        return None;
    }
    let total = line.chars().count();
    let skip = if total > EXCERPT_CHARS { before.saturating_sub(EXCERPT_BEFORE) } else { 0 };
    let lead = if skip > 0 { "…" } else { "" };
    let shown: String = line.chars().skip(skip).take(EXCERPT_CHARS).collect();
    let tail = if total > skip + EXCERPT_CHARS { "…" } else { "" };
    let clean = |s: &str| Safe::new(s).as_str().width();
    let ahead: String = shown.chars().take(before - skip).collect();
    let under: String = shown.chars().skip(before - skip).take(marked).collect();
    Some(Excerpt {
        indent: lead.width() + clean(&ahead),
        width: clean(&under).max(1),
        text: Safe::new(&format!("{lead}{shown}{tail}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Span) -> Problem {
        Source::new(Path::new("f.toml"), text).problem(&span, "wrong", "write it right")
    }

    #[test]
    fn a_column_counts_characters_and_the_marker_counts_terminal_columns() {
        let text = "서비스 = 4\nx = \"한국\" # here\n";
        let start = text.find("\"한국\"").unwrap();
        let p = at(text, start..start + "\"한국\"".len());
        assert_eq!((p.line, p.column, p.offending.as_str()), (2, 5, "\"한국\""));
        assert_eq!(
            p.to_string(),
            "f.toml:2:5: wrong\n  2 | x = \"한국\" # here\n    |     ^^^^^^\n  = write it right"
        );
    }

    #[test]
    fn escape_sequences_in_a_source_line_do_not_reach_the_terminal() {
        let p = at("x = \x1b[31mred\tend", 4..12);
        assert!(!p.to_string().contains('\x1b'), "{p:?}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_marker() {
        let text = format!("{}BAD{}", "a".repeat(5000), "b".repeat(5000));
        let shown = at(&text, 5000..5003).to_string();
        assert!(shown.lines().all(|l| l.chars().count() < 120), "{shown}");
        let lines: Vec<_> = shown.lines().collect();
        let at = lines[2].find('^').unwrap();
        let line: String = lines[1].chars().skip(at).take(3).collect();
        assert_eq!(line, "BAD");
    }

    #[test]
    fn places_outside_the_text_are_clamped() {
        for span in [0..0, 3..900, 900..901] {
            let p = at("ab\n", span);
            assert!(p.line >= 1 && p.column >= 1);
        }
        assert_eq!(at("", 0..0).line, 1);
    }
}
