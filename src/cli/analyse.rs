//! `analyse`: the verdict over counts that were recorded, so that a team can try its tolerance on last week's numbers.
//! It needs no fleet file and no controller.

mod csv;
mod json;
mod rows;

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use serde_json::Number;

use super::Exit;
use super::out::{Output, complain, say};
use super::table::labelled;
use crate::analysis::{Count, Process, Rate, Settings, State, UpperBound};
use crate::fleet::names::Millis;
use crate::fleet::{Problem, Problems};
use rows::Row;

/// Larger files are not counts: a week of seconds has 40 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// A first row that is later than this after the start is probably wall clock.
const LATE_S: f64 = 3600.0;

/// `analyse FILE`
#[derive(clap::Args)]
#[command(
    after_help = "Rows are CSV with a header, or JSON objects, one a line: t, stable_n, stable_bad, candidate_n, \
                  candidate_bad. t is the end of the row's time in seconds. Other columns are ignored.\n\nExit codes: 0, \
                  2 when something is wrong with the input, 3 when the last state is fail."
)]
pub(super) struct Args {
    /// The recorded counts; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How much higher the candidate's rate may be than stable's: 0.005, or 0.5%
    #[arg(long, value_name = "RATE", default_value_t = Rate::TOLERANCE, allow_hyphen_values = true)]
    tolerance: Rate,
    /// The chance of ever failing a candidate that is within the tolerance
    #[arg(long, value_name = "RATE", default_value_t = Rate::ALPHA, allow_hyphen_values = true)]
    alpha: Rate,
    /// Stable's requests before the first row, and how many of them were bad
    #[arg(long, value_name = "N,K", default_value = "0,0", allow_hyphen_values = true)]
    history: History,
    /// By what all counts are divided because requests of one client fail together, at least 1
    #[arg(long, value_name = "D", default_value = "1", allow_hyphen_values = true, value_parser = divisor)]
    divisor: f64,
    /// The time from which t counts, for rows with wall clock
    #[arg(long, value_name = "T", default_value = "0", allow_hyphen_values = true, value_parser = start)]
    start: f64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `N,K`
#[derive(Clone, Copy)]
struct History(Count);

impl FromStr for History {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let whole = |text: &str| text.trim().parse::<u64>().ok();
        let both = written.split_once(',').and_then(|(n, bad)| whole(n).zip(whole(bad)));
        let (n, bad) = both.ok_or(
            "write two whole numbers with a comma between them: stable's requests, and the bad ones among them, \
             for example 3000,12",
        )?;
        if bad > n {
            return Err(format!(
                "{bad} bad requests are more than the {n} of which they are a part: write all requests first, \
                 then the bad ones among them"
            ));
        }
        Ok(Self(Count::new(n, bad)))
    }
}

fn divisor(written: &str) -> Result<f64, String> {
    let number = written.trim().parse::<f64>().ok().filter(|d| d.is_finite() && *d >= 1.0);
    number.ok_or_else(|| "write a number that is at least 1, for example 2.5".to_owned())
}

fn start(written: &str) -> Result<f64, String> {
    let number = written.trim().parse::<f64>().ok().filter(|t| t.is_finite() && *t >= 0.0);
    number.ok_or_else(|| "write a time in seconds, 0 or more, on the clock of t".to_owned())
}

pub(super) fn run(a: &Args) -> color_eyre::Result<Exit> {
    let rows = match text_of(&a.file).and_then(|text| rows::read(&named(&a.file), &text, a.start)) {
        Ok(rows) => rows,
        Err(problems) => {
            complain(&format!("{problems}\n"));
            if problems.errors() >= rows::MOST_MISTAKES {
                complain("there may be more: reading ended here\n");
            }
            return Ok(Exit::Usage);
        }
    };
    let verdict = Verdict::over(&rows, a);
    match a.output {
        Output::Text => say(&verdict.table())?,
        Output::Json => say(&verdict.lines()?)?,
    }
    if let Some(first) = rows.first().filter(|r| r.t - a.start > LATE_S) {
        let what = format!(
            "the first row is at t = {} and time counts from {}: what was known before is forgotten by then. Is it wall \
             clock? Give the time of the candidate's first request with --start.",
            first.t, a.start
        );
        complain(&labelled("warning: ", &what));
    }
    complain(&labelled("verdict: ", &verdict.sentence()));
    Ok(if verdict.state() == State::Fail { Exit::Aborted } else { Exit::Done })
}

/// What a file is called in messages.
fn named(file: &Path) -> PathBuf {
    if is_stdin(file) { "<stdin>".into() } else { file.to_path_buf() }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn text_of(file: &Path) -> Result<String, Problems> {
    let name = named(file);
    let wrong = |message: &str, fix: &str| Problems::from(Problem::of_file(&name, message, fix));
    let unreadable = |e: &std::io::Error| {
        wrong(
            &format!("cannot read the counts: {e}"),
            "name a file that can be read, or - for standard input",
        )
    };
    let mut bytes = Vec::new();
    let read = if is_stdin(file) {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong("there are more than 256 MiB", "take a shorter time, or rows of several seconds"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        Problem::of_line(&name, line, "the line is not UTF-8 text", "save the file as UTF-8").into()
    })
}

/// What is said of one row.
struct Said {
    t: f64,
    log_fail: f64,
    log_pass: f64,
    state: State,
}

/// What is said of all rows.
struct Verdict {
    said: Vec<Said>,
    stable: Count,
    candidate: Count,
    /// Blocks that were bet on.
    blocks: usize,
    /// The upper bound of the difference of rates.
    bound: Option<f64>,
    tolerance: Rate,
    /// What a pass needs.
    pass_at: f64,
    start: f64,
}

/// One row as JSON.
#[derive(Serialize)]
struct Line {
    t: Number,
    log_fail: f64,
    log_pass: f64,
    state: State,
}

impl Verdict {
    fn over(rows: &[Row], a: &Args) -> Self {
        let settings = Settings {
            tolerance: a.tolerance,
            alpha: a.alpha,
            divisor: a.divisor,
            history: a.history.0,
            ..Settings::default()
        };
        let mut process = Process::new(settings);
        let mut bound = UpperBound::new(a.tolerance, settings.alpha_pass);
        let (mut stable, mut candidate, mut blocks) = (Count::default(), Count::default(), 0);
        let said = rows
            .iter()
            .map(|row| {
                stable.add(row.tick.stable);
                candidate.add(row.tick.candidate);
                if let Some(block) = process.tick(row.t - a.start, row.tick) {
                    blocks += 1;
                    bound.observe(&block);
                }
                let (log_fail, log_pass) = (process.log_fail(), process.log_pass());
                Said { t: row.t, log_fail, log_pass, state: process.state() }
            })
            .collect();
        Self {
            said,
            stable,
            candidate,
            blocks,
            bound: bound.difference(),
            tolerance: a.tolerance,
            pass_at: settings.alpha_pass.threshold(),
            start: a.start,
        }
    }

    /// What the last row says.
    fn state(&self) -> State {
        self.said.last().map_or(State::Wait, |s| s.state)
    }

    /// A header and a line for each row, in columns that a program can split at blanks.
    fn table(&self) -> String {
        let cells = |s: &Said| [s.t.to_string(), format!("{:.6}", s.log_fail), format!("{:.6}", s.log_pass)];
        let header = ["t", "log_fail", "log_pass"];
        let mut widths = header.map(str::len);
        for row in &self.said {
            for (width, cell) in widths.iter_mut().zip(cells(row)) {
                *width = (*width).max(cell.len());
            }
        }
        let [t, fail, pass] = widths;
        let mut out = format!("{:>t$}  {:>fail$}  {:>pass$}  state\n", "t", "log_fail", "log_pass");
        for row in &self.said {
            let [a, b, c] = cells(row);
            let _ = writeln!(out, "{a:>t$}  {b:>fail$}  {c:>pass$}  {}", row.state);
        }
        out
    }

    /// A line of JSON for each row.
    fn lines(&self) -> color_eyre::Result<String> {
        // The numbers that the table has, not more.
        let six = |number: f64| format!("{number:.6}").parse::<f64>().unwrap_or(number);
        let mut out = String::new();
        for row in &self.said {
            let line = Line {
                t: number(row.t),
                log_fail: six(row.log_fail),
                log_pass: six(row.log_pass),
                state: row.state,
            };
            out.push_str(&serde_json::to_string(&line)?);
            out.push('\n');
        }
        Ok(out)
    }

    /// The verdict in one sentence.
    fn sentence(&self) -> String {
        let since = |state| {
            let from = self.said.iter().rev().take_while(|s| s.state == state).last();
            from.map_or_else(String::new, |s| format!(" since t = {}", s.t))
        };
        let state = self.state();
        let verdict = match state {
            State::Fail => format!("fail{}", since(State::Fail)),
            State::Pass => format!("pass{}", since(State::Pass)),
            State::Hold => {
                format!("hold{}: stable itself fails, and nothing is decided meanwhile", since(State::Hold))
            }
            State::Wait => "wait: inconclusive so far".to_owned(),
        };
        let of = |c: Count| format!("{} of {}{} bad", c.bad, c.n, per_cent(c));
        let seen = rate(self.candidate).zip(rate(self.stable)).map(|(c, s)| c - s);
        let difference = match seen {
            Some(d) if d < 0.0 => format!("-{}", points(-d)),
            Some(d) => format!("+{}", points(d)),
            None => "not known".to_owned(),
        };
        let tolerance = self.tolerance.fraction();
        let bound = match self.bound {
            // The bound is one of a difference that stays the same.
            Some(bound)
                if seen.is_some_and(|d| d > bound) || (state == State::Fail && bound <= tolerance) =>
            {
                "none, for the difference did not stay the same".to_owned()
            }
            Some(bound) => format!("{} (95 %)", points(bound)),
            None => "not known yet".to_owned(),
        };
        let more = match state {
            State::Wait if self.blocks == 0 => {
                "; no row could be bet on: it takes a request of the candidate beside three of stable, and a history of \
                 stable (--history, or earlier rows) that is not nearly all bad"
                    .to_owned()
            }
            State::Wait => self.outlook(),
            State::Pass | State::Fail | State::Hold => String::new(),
        };
        format!(
            "{verdict}; candidate {}, stable {}; difference {difference}, upper bound {bound}, tolerance {}{more}.",
            of(self.candidate),
            of(self.stable),
            points(tolerance)
        )
    }

    /// How long it takes until a pass when all goes on as it did, for a candidate that gains.
    fn outlook(&self) -> String {
        let Some(last) = self.said.last().filter(|s| s.log_pass > 0.0) else { return String::new() };
        let left = (self.pass_at / last.log_pass - 1.0) * (last.t - self.start);
        if left.is_finite() && (1.0..1e7).contains(&left) {
            // Parts of a second, and of a minute beside hours, are noise.
            let unit = if left > 3600.0 { 60_000.0 } else { 1000.0 };
            let ms = (left * 1000.0 / unit).ceil() * unit;
            format!("; at this pace a pass takes about {} more", Millis(ms as u64))
        } else {
            String::new()
        }
    }
}

/// A time as JSON: whole when it is.
fn number(t: f64) -> Number {
    let whole = (t.fract() == 0.0 && t < 9e15).then(|| Number::from(t as u64));
    whole.or_else(|| Number::from_f64(t)).unwrap_or_else(|| Number::from(0))
}

fn rate(count: Count) -> Option<f64> {
    (count.n > 0).then(|| count.bad as f64 / count.n as f64)
}

/// ` (0.42 %)`
fn per_cent(count: Count) -> String {
    rate(count).map_or_else(String::new, |r| format!(" ({} %)", hundredths(r)))
}

/// `0.5 points`
fn points(difference: f64) -> String {
    let number = hundredths(difference);
    if number == "1" { "1 point".to_owned() } else { format!("{number} points") }
}

/// A part of 1 as per cent, with two decimals at most; a little is not nothing.
fn hundredths(part: f64) -> String {
    let text = format!("{:.2}", part * 100.0);
    if part > 0.0 && text == "0.00" {
        return "less than 0.01".to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
