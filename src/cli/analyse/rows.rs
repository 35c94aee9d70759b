//! Recorded counts, read from CSV or JSON lines, with everything that is wrong in them.

use std::borrow::Cow;
use std::path::Path;

use super::{csv, json};
use crate::analysis::{Count, Tick};
use crate::fleet::problem::{Source, Span};
use crate::fleet::{Problem, Problems};
use crate::text::Safe;

/// What a row has to have, in the order of [`Cells`].
pub(super) const COLUMNS: [&str; 5] = ["t", "stable_n", "stable_bad", "candidate_n", "candidate_bad"];
/// Reading ends after this many mistakes: what is wrong once is often wrong in every row.
pub(super) const MOST_MISTAKES: usize = 20;
/// Counts are exact up to here (2^53).
const LARGEST: u64 = 9_007_199_254_740_992;
/// Most of what is quoted in a message, in characters.
pub(super) const QUOTED: usize = 40;

/// One row: what both revisions did up to `t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    /// Seconds, as they were written.
    pub(super) t: f64,
    /// What was counted since the row before.
    pub(super) tick: Tick,
}

/// A value as it is written, and where.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) span: Span,
}

/// A row's values, in the order of [`COLUMNS`].
pub(super) type Cells<'a> = [Cell<'a>; COLUMNS.len()];

/// `t,stable_n,stable_bad,candidate_n,candidate_bad`
pub(super) fn needed() -> String {
    COLUMNS.join(",")
}

/// Reads `text`, named `file` as it was named on the command line; time is counted from `start`.
///
/// # Errors
/// Everything that is wrong in it, up to the twentieth mistake.
pub(super) fn read(file: &Path, text: &str, start: f64) -> Result<Vec<Row>, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(file, text, start);
    let mut header = None;
    let mut begun = false;
    let mut next = 0;
    for line in text.split_inclusive('\n') {
        let at = next;
        next += line.len();
        let line = line.trim_end_matches(['\n', '\r']);
        if line.trim().is_empty() {
            continue;
        }
        if reader.hopeless || reader.found.len() >= MOST_MISTAKES {
            break;
        }
        let is_json = line.trim_start().starts_with(['{', '[']);
        if !begun && !is_json {
            begun = true;
            header = csv::header(&mut reader, line, at);
            if header.is_none() {
                break;
            }
            continue;
        }
        begun = true;
        let cells = match &header {
            Some(header) => csv::row(&mut reader, header, line, at),
            None => json::row(&mut reader, line, at),
        };
        if let Some(cells) = cells {
            reader.take(&cells);
        }
    }
    if reader.rows.is_empty() && reader.found.is_empty() {
        let message = if begun { "there is a header and no row" } else { "the file is empty" };
        let fix = format!("write a header, {}, and a row for each second; or an object a line", needed());
        reader.found.push(Problem::of_file(file, message, &fix));
    }
    Problems::judge(file, reader.found).map(|_| reader.rows)
}

/// What has been read so far.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    found: Vec<Problem>,
    rows: Vec<Row>,
    start: f64,
    /// The file is something else altogether: more of it would say the same again.
    hopeless: bool,
    /// The time before, as it was written, and its line.
    last: Option<(String, f64, usize)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str, start: f64) -> Self {
        Self {
            source: Source::new(file, text),
            found: Vec::new(),
            rows: Vec::new(),
            start,
            hopeless: false,
            last: None,
        }
    }

    /// Notes a mistake.
    pub(super) fn wrong(&mut self, span: &Span, message: &str, fix: &str) {
        let problem = self.source.problem(span, message, fix);
        self.found.push(problem);
    }

    /// Notes a mistake of a line that is not what was expected. When no line before it was, none after it will be.
    pub(super) fn not_a_row(&mut self, span: &Span, message: &str, fix: &str) {
        self.wrong(span, message, fix);
        self.hopeless = self.rows.is_empty();
    }

    fn take(&mut self, [t, stable_n, stable_bad, candidate_n, candidate_bad]: &Cells<'_>) {
        let t = self.time(t);
        let [_, names @ ..] = COLUMNS;
        let [sn, sb, cn, cb] = names;
        let stable = self.counted((sn, stable_n), (sb, stable_bad));
        let candidate = self.counted((cn, candidate_n), (cb, candidate_bad));
        if let (Some(t), Some(stable), Some(candidate)) = (t, stable, candidate) {
            self.rows.push(Row { t, tick: Tick { stable, candidate } });
        }
    }

    fn counted(&mut self, n: (&str, &Cell<'_>), bad: (&str, &Cell<'_>)) -> Option<Count> {
        let all = self.count(n);
        let failed = self.count(bad);
        let (all, failed) = (all?, failed?);
        if failed > all {
            let message = format!("{} is {failed}, more than the {all} of {}", bad.0, n.0);
            let fix = format!("{} counts the bad ones among {}: write at most {all}", bad.0, n.0);
            self.wrong(&bad.1.span, &message, &fix);
            return None;
        }
        Some(Count::new(all, failed))
    }

    fn count(&mut self, (name, cell): (&str, &Cell<'_>)) -> Option<u64> {
        let number = self.number(name, cell, "a whole number, 0 when there was none")?;
        let quoted = Safe::capped(&cell.text, QUOTED);
        if number < 0.0 {
            let fix = "a count is 0 or more; of a counter that began anew write what came since";
            self.wrong(&cell.span, &format!("{name} is {quoted}, less than 0"), fix);
            return None;
        }
        if number.fract() != 0.0 {
            let fix = "write a whole number; round what was estimated";
            self.wrong(&cell.span, &format!("{name} is {quoted}, not a whole number"), fix);
            return None;
        }
        if number > LARGEST as f64 {
            let fix = format!("write at most {LARGEST}");
            self.wrong(&cell.span, &format!("{name} is {quoted}, which is too large"), &fix);
            return None;
        }
        // Whole, and in the range in which both kinds of number are exact.
        Some(number as u64)
    }

    fn time(&mut self, cell: &Cell<'_>) -> Option<f64> {
        let t = self.number("t", cell, "seconds since the candidate's first request")?;
        let quoted = Safe::capped(&cell.text, QUOTED);
        let line = self.source.line(cell.span.start);
        if t < 0.0 {
            let fix = "write seconds since the candidate's first request";
            self.wrong(&cell.span, &format!("t is {quoted}, less than 0"), fix);
            return None;
        }
        if t < self.start {
            let message = format!("t is {quoted}, before --start {}", self.start);
            self.wrong(&cell.span, &message, "leave the row out, or give an earlier --start");
            return None;
        }
        // One step back is one mistake, however many rows follow it.
        let before = self.last.replace((quoted.to_string(), t, line));
        if let Some((written, before, at)) = before
            && t <= before
        {
            let message = format!("t is {quoted}, and {written} in line {at} before it");
            self.wrong(&cell.span, &message, "sort the rows by t, with one row for each time");
            return None;
        }
        // Not -0, which is written otherwise.
        Some(t + 0.0)
    }

    fn number(&mut self, name: &str, cell: &Cell<'_>, what: &str) -> Option<f64> {
        if cell.text.is_empty() {
            self.wrong(&cell.span, &format!("{name} is empty"), &format!("write {what}"));
            return None;
        }
        let number = cell.text.parse::<f64>().ok().filter(|n| n.is_finite());
        if number.is_none() {
            let message = format!("{name} is {}, not a number", Safe::capped(&cell.text, QUOTED));
            self.wrong(
                &cell.span,
                &message,
                &format!("write {what}; leave the row out when it is not known"),
            );
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str) -> Result<Vec<Row>, Problems> {
        read(Path::new("f"), text, 0.0)
    }

    proptest! {
        /// Whatever is in a file, it is rows or a mistake with a place in it, and never a panic.
        #[test]
        fn anything_is_rows_or_a_mistake(
            header in prop_oneof![Just(needed()), Just(String::new()), "[t,\" a-z_]{0,40}"],
            body in "([0-9,.\\-eNna\"{}:\\[t\u{feff}김\r\n ]{0,60})",
            json in any::<bool>(),
        ) {
            let text = if json { format!("{{\"t\":1,{body}}}") } else { format!("{header}\n{body}") };
            match rows(&text) {
                Ok(rows) => prop_assert!(!rows.is_empty()),
                Err(problems) => {
                    for p in problems.list() {
                        prop_assert!(!p.fix.is_empty());
                        prop_assert!(p.line <= text.lines().count());
                    }
                }
            }
        }

        /// What is written is what is read, in either form.
        #[test]
        fn counts_come_in_as_they_were_written(
            counts in prop::collection::vec((1_u32..90, [0_u64..1000, 0..1000], [0_u64..5, 0..5]), 1..20),
        ) {
            let (mut t, mut csv, mut json, mut meant) = (0.0, needed(), String::new(), Vec::new());
            for (dt, [sn, cn], [sb, cb]) in counts {
                t += f64::from(dt) / 4.0;
                let (sb, cb) = (sb.min(sn), cb.min(cn));
                csv += &format!("\n{t},{sn},{sb},{cn},{cb}");
                json += &format!(
                    "{{\"candidate_n\":{cn},\"candidate_bad\":{cb},\"t\":{t},\"x\":[1],\"stable_n\":{sn},\"stable_bad\":{sb}}}\n"
                );
                meant.push(Row { t, tick: Tick { stable: Count::new(sn, sb), candidate: Count::new(cn, cb) } });
            }
            prop_assert_eq!(rows(&csv).unwrap(), meant.clone());
            prop_assert_eq!(rows(&json).unwrap(), meant);
        }
    }

    #[test]
    fn a_file_that_is_wrong_in_every_row_does_not_fill_the_screen() {
        let text = format!("{}\n{}", needed(), "1,2,3,4\n".repeat(1000));
        assert_eq!(rows(&text).unwrap_err().errors(), MOST_MISTAKES);
        let prose = "a\n".repeat(1000);
        assert!(rows(&prose).unwrap_err().errors() <= COLUMNS.len());
        assert_eq!(rows("{\n  \"t\": 1\n}\n").unwrap_err().errors(), 1, "written over several lines");
    }
}
