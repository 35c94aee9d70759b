//! Counts as CSV: a header that names the columns, then rows.

use std::borrow::Cow;

use super::rows::{COLUMNS, Cell, Cells, Reader, needed};
use crate::fleet::suggest::nearest;

/// Where each of [`COLUMNS`] stands, and how many columns there are.
pub(super) struct Header {
    places: [usize; COLUMNS.len()],
    count: usize,
}

/// Reads the header.
pub(super) fn header(reader: &mut Reader<'_>, line: &str, at: usize) -> Option<Header> {
    let cells = split(reader, line, at)?;
    let whole = at..at + line.len();
    if cells.iter().any(|c| c.text.parse::<f64>().is_ok()) {
        reader.wrong(
            &whole,
            "there is no header",
            &format!("write a first line that names the columns: {}", needed()),
        );
        return None;
    }
    if let [only] = cells.as_slice()
        && let Some(other) = [';', '\t', '|'].into_iter().find(|c| only.text.contains(*c))
    {
        let message = format!("columns are separated by {other:?}");
        reader.wrong(&whole, &message, &format!("separate them by commas: {}", needed()));
        return None;
    }
    let mut places = [None; COLUMNS.len()];
    for (n, cell) in cells.iter().enumerate() {
        let known = COLUMNS.iter().zip(&mut places).find(|(name, _)| **name == cell.text);
        let Some((name, place)) = known else { continue };
        if place.replace(n).is_some() {
            let message = format!("the column {name} is there twice");
            reader.wrong(&cell.span, &message, "leave one of them out, or give it another name");
            return None;
        }
    }
    let others = || cells.iter().filter(|c| !COLUMNS.contains(&c.text.as_ref()));
    for name in COLUMNS.iter().zip(&places).filter(|(_, place)| place.is_none()).map(|(name, _)| name) {
        let message = format!("there is no column {name}");
        match others().find(|c| nearest(&c.text, [*name]).is_some()) {
            Some(cell) => reader.wrong(&cell.span, &message, &format!("write {name} here")),
            None => reader.wrong(&whole, &message, &format!("add it: rows need {}", needed())),
        }
    }
    let [Some(a), Some(b), Some(c), Some(d), Some(e)] = places else { return None };
    Some(Header { places: [a, b, c, d, e], count: cells.len() })
}

/// The cells of a row that count.
pub(super) fn row<'a>(
    reader: &mut Reader<'_>,
    header: &Header,
    line: &'a str,
    at: usize,
) -> Option<Cells<'a>> {
    let mut cells = split(reader, line, at)?;
    let surplus = cells.get(header.count..).unwrap_or_default();
    let found = cells.len();
    if found < header.count || surplus.iter().any(|c| !c.text.is_empty()) {
        let values = if found == 1 { "1 value" } else { &format!("{found} values") };
        let message = format!("the row has {values}, and the header names {} columns", header.count);
        reader.wrong(
            &(at..at + line.len()),
            &message,
            "write one value for each column, separated by commas",
        );
        return None;
    }
    let mut take = |n: usize| cells.get_mut(n).map(std::mem::take);
    let [a, b, c, d, e] = header.places.map(&mut take);
    Some([a?, b?, c?, d?, e?])
}

/// A line's cells. What stands in double quotes may contain commas and, doubled, quotes.
fn split<'a>(reader: &mut Reader<'_>, line: &'a str, at: usize) -> Option<Vec<Cell<'a>>> {
    let mut cells = Vec::new();
    let mut from = 0;
    loop {
        let rest = line.get(from..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start().len();
        let quoted = rest.get(blank..).and_then(|r| r.strip_prefix('"'));
        let end = match quoted {
            None => rest.find(',').unwrap_or(rest.len()),
            Some(inner) => {
                let start = from + blank;
                let Some(closing) = closing(inner) else {
                    let span = at + start..at + line.len();
                    let fix = "close it on the same line, or leave the column out";
                    reader.wrong(&span, "the quote is not closed on this line", fix);
                    return None;
                };
                // Behind the opening quote, what stands between, and the closing one.
                let after = blank + 1 + closing + 1;
                let tail = rest.get(after..).unwrap_or_default();
                let next = tail.find(',').unwrap_or(tail.len());
                if tail.get(..next).is_some_and(|t| !t.trim().is_empty()) {
                    let span = at + start..at + from + after + next;
                    reader.wrong(
                        &span,
                        "there is something behind the closing quote",
                        "write \"\" for a quote inside quotes",
                    );
                    return None;
                }
                let text = inner.get(..closing).unwrap_or_default();
                let text = if text.contains('"') {
                    Cow::Owned(text.replace("\"\"", "\""))
                } else {
                    Cow::Borrowed(text)
                };
                cells.push(Cell { text: trimmed(text), span: at + start..at + from + after });
                after + next
            }
        };
        if quoted.is_none() {
            let text = rest.get(..end).unwrap_or_default();
            let start = at + from + (text.len() - text.trim_start().len()).min(end);
            let text = text.trim();
            cells.push(Cell { text: Cow::Borrowed(text), span: start..start + text.len() });
        }
        from += end + 1;
        if from > line.len() {
            return Some(cells);
        }
    }
}

/// Where the quote stands that closes what begins with `inner`.
fn closing(inner: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + inner.get(from..)?.find('"')?;
        if inner.as_bytes().get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        from = at + 2;
    }
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(t) => Cow::Borrowed(t.trim()),
        Cow::Owned(t) => Cow::Owned(t.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fleet::problem::Span;

    fn cells(line: &str) -> Option<Vec<(String, Span)>> {
        let mut reader = Reader::new(Path::new("f"), line, 0.0);
        let cells = split(&mut reader, line, 0)?;
        Some(cells.into_iter().map(|c| (c.text.into_owned(), c.span)).collect())
    }

    #[test]
    fn lines_are_split_at_commas_outside_quotes() {
        let texts = |line: &str| -> Vec<String> { cells(line).unwrap().into_iter().map(|c| c.0).collect() };
        assert_eq!(texts("a, b ,,\"c, d\", \"e\"\"f\" ,g\"h"), ["a", "b", "", "c, d", "e\"f", "g\"h"]);
        assert_eq!(texts("a,"), ["a", ""]);
        assert_eq!(texts(""), [""]);
        assert_eq!(texts("\"\",\"\"\"\""), ["", "\""]);
        for bad in ["a,\"b", "\"a\"b,c", "\"\"\""] {
            assert_eq!(cells(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans_cover_what_is_written() {
        let line = " ab , \"c\"\"d\" ,e";
        let spans: Vec<&str> = cells(line).unwrap().into_iter().map(|(_, s)| line.get(s).unwrap()).collect();
        assert_eq!(spans, ["ab", "\"c\"\"d\"", "e"]);
    }
}
