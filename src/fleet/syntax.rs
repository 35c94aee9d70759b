//! Finds every mistake in the syntax, not only the first.
//!
//! The TOML parser goes on after an error, but a list or text that is never closed swallows the rest of the file.
//! Such a value is reported once, blanked out (which keeps all places as they are), and the rest is parsed again.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ctx::Ctx;
use super::problem::Span;

/// After this many there is no use in more: it is not a TOML file.
const MOST_ERRORS: usize = 20;

/// Reports all errors of syntax in `text` and returns what the rest of the walk should read: `text` itself, or the
/// same without the values that were never closed.
pub(super) fn report(ctx: &mut Ctx<'_>, text: &str) -> String {
    let mut text = text.to_owned();
    let mut found: Vec<(Span, String, &str)> = Vec::new();
    loop {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let unclosed = errors
            .iter()
            .filter(|e| {
                e.message().starts_with("unclosed array") || e.message().starts_with("unclosed inline")
            })
            .filter_map(|e| open_value(&text, table.get_ref(), e.span()?.start))
            .min_by_key(|s| s.start);
        // The parser stops at a key without a value.
        let stopped = errors
            .iter()
            .filter(|e| e.message().starts_with("key with no value"))
            .filter_map(toml::de::Error::span);
        let stopped = stopped.min_by_key(|s| s.start);
        drop(table);
        let end = [&unclosed, &stopped].into_iter().flatten().map(|s| s.start).min().unwrap_or(usize::MAX);
        for e in &errors {
            let span = e.span().unwrap_or(0..0);
            if span.start < end {
                let message = match text.get(span.clone()) {
                    Some(key) if e.message() == "duplicate key" => {
                        format!("'{key}' is declared a second time")
                    }
                    _ => e.message().to_owned(),
                };
                found.push((span, message, fix_for(e.message())));
            }
        }
        let next = match (unclosed, stopped) {
            (Some(span), _) if span.start == end => {
                let (what, fix) = match text.get(span.start..=span.start) {
                    Some("{") => ("table", "close it with '}'"),
                    _ => ("list", "close it with ']'"),
                };
                found.push((
                    span.start..span.start + 1,
                    format!("the {what} that starts here is never closed"),
                    fix,
                ));
                blank(&text, span.start, true)
            }
            (_, Some(span)) => {
                found.push((span.clone(), "this key has no value".into(), "write KEY = VALUE"));
                blank(&text, span.start, false)
            }
            _ => break,
        };
        if next == text || found.len() > MOST_ERRORS {
            break;
        }
        text = next;
    }
    // Errors in front of a blanked value are found again by each later round.
    found.sort_by_key(|(span, ..)| (span.start, span.end));
    // What follows on the same line is mostly a consequence; in one that is broken by a blanked value it always is.
    found.dedup_by_key(|(span, ..)| ctx.line(span));
    let more = found.len().saturating_sub(MOST_ERRORS);
    found.truncate(MOST_ERRORS);
    for (span, message, fix) in &found {
        ctx.syntax(span, message, fix);
    }
    if more > 0 {
        let end = text.len();
        ctx.syntax(&(end..end), &format!("and {more} more errors of syntax"), "repair those above first");
    }
    text
}

/// The first list or inline table that is never closed; `end` is where the parser missed the bracket.
fn open_value(text: &str, table: &DeTable<'_>, end: usize) -> Option<Span> {
    table.iter().find_map(|(_, v)| open_in(text, v, end))
}

fn open_in(text: &str, v: &Spanned<DeValue<'_>>, end: usize) -> Option<Span> {
    let span = v.span();
    let written = text.get(span.clone()).unwrap_or_default();
    // What the parser recovers may end anywhere, mostly not at a bracket.
    let open = |opening, closing| {
        written.starts_with(opening)
            && (!written.ends_with(closing) || (span.start + 1..=span.end).contains(&end))
    };
    match v.get_ref() {
        // The span of a table with a header is the header, which cannot be left open like this.
        DeValue::Array(_) if open('[', ']') => Some(span),
        DeValue::Table(_) if open('{', '}') => Some(span),
        DeValue::Array(items) => items.iter().find_map(|i| open_in(text, i, end)),
        DeValue::Table(t) => open_value(text, t, end),
        _ => None,
    }
}

/// `text` with spaces in place of the line of `start` and, with `onward`, of those up to the next line that looks
/// like a header or a key.
fn blank(text: &str, start: usize, onward: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let range = at..at + line.len();
        at = range.end;
        // A key at the very end of the text is missed one place behind it.
        let here = range.contains(&start) || (start >= text.len() && range.end == text.len());
        inside = here || (inside && onward && !starts_anew(line));
        if inside {
            out.extend(line.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(line);
        }
    }
    out
}

/// Whether a line cannot be an item of a list: `[header]` or `key = …`.
fn starts_anew(line: &str) -> bool {
    let line = line.trim();
    let word = |s: &str| {
        let s = s.trim();
        !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '[' | ']'))
    };
    match line.strip_prefix('[') {
        Some(header) => header.contains(']') && !header.contains([',', '"', '\'']),
        None => line.split_once('=').is_some_and(|(key, _)| word(key)),
    }
}

/// What to do about an error, by the parser's words for it.
fn fix_for(message: &str) -> &'static str {
    const FIXES: &[(&str, &str)] = &[
        ("unclosed table", "end the header with ']'"),
        ("missing comma", "put a comma between the items"),
        ("extra assignment", "put a comma in front of the next key"),
        ("string values must be quoted", "put the text into double quotes"),
        ("missing opening quote", "put a double quote in front of the text"),
        ("invalid basic string", "close the text with a double quote on the same line"),
        ("invalid literal string", "close the text with a single quote on the same line"),
        ("missing escaped value", "write \\\\ for a backslash, or put the text into single quotes"),
        ("duplicate key", "remove or rename one of the two"),
        ("invalid boolean", "write true or false"),
        ("missing value", "write KEY = VALUE"),
        ("missing key", "write KEY = VALUE"),
        ("unexpected key or value", "start a new line for each KEY = VALUE"),
    ];
    FIXES
        .iter()
        .find(|(start, _)| message.starts_with(start))
        .map_or("write KEY = VALUE on one line, with texts in double quotes", |(_, fix)| fix)
}
