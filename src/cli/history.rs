//! `history` and `show`: what became of past rollouts, from the journal.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Exit;
use super::fleet::{Fleet, failed};
use super::out::{Output, say, say_json};
use super::table::{cut, labelled, pad, table};
use crate::api::{History, Past, PastAct, PastPhase, Role, Story};
use crate::controller::clock::wall_ms;
use crate::fleet::names::Millis;

/// `history [SERVICE]`
#[derive(clap::Args)]
pub(super) struct HistoryArgs {
    /// Only of this service
    service: Option<String>,
    /// Most rollouts to print, the newest first; 200 at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `show ROLLOUT`
#[derive(clap::Args)]
pub(super) struct ShowArgs {
    /// The rollout, as `history` and `status` call it: SERVICE-N
    rollout: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn history(file: Option<&Path>, a: &HistoryArgs) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    match fleet.client.history(a.service.as_deref(), a.limit.into()).await {
        Ok(h) => {
            match a.output {
                Output::Json => say_json(&h)?,
                Output::Text => say(&list(&h, &Clock::here()))?,
            }
            Ok(Exit::Done)
        }
        Err(e) => Ok(failed(&e)),
    }
}

pub(super) async fn show(file: Option<&Path>, a: &ShowArgs) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    match fleet.client.story(&a.rollout).await {
        Ok(s) => {
            match a.output {
                Output::Json => say_json(&s)?,
                Output::Text => say(&text(&s, &Clock::here()))?,
            }
            Ok(Exit::Done)
        }
        Err(e) => Ok(failed(&e)),
    }
}

/// The time where the reader is.
struct Clock {
    zone: TimeZone,
    now_ms: u64,
}

impl Clock {
    fn here() -> Self {
        Self { zone: TimeZone::system(), now_ms: wall_ms() }
    }

    fn format(&self, ms: u64, format: &str) -> String {
        let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.map_or_else(|| "?".to_owned(), |at| at.to_zoned(self.zone.clone()).strftime(format).to_string())
    }

    /// `15:04:05`, with the day before it when it is another one than that of `start`.
    fn time(&self, ms: u64, start: u64) -> String {
        let same = self.format(ms, "%F") == self.format(start, "%F");
        self.format(ms, if same { "%T" } else { "%m-%d %T" })
    }
}

fn took(from: u64, to: u64) -> String {
    let ms = to.saturating_sub(from);
    // Parts of a second are noise beside minutes.
    Millis(if ms < 10_000 { ms } else { ms / 1000 * 1000 }).to_string()
}

/// `canary from 1.4.2 to 1.5.0`
fn what(p: &Past) -> String {
    let how = if p.kind.as_str() == "release" { p.strategy.as_str() } else { p.kind.as_str() };
    match &p.from {
        Some(from) => format!("{how} from {from} to {}", p.to),
        None => format!("{how} of {}", p.to),
    }
}

fn list(h: &History, clock: &Clock) -> String {
    if h.rollouts.is_empty() {
        return "no rollout so far\n".to_owned();
    }
    let id_width = h.rollouts.iter().map(|p| p.id.as_str().len()).max().unwrap_or(0).clamp(7, 24);
    let left = |id: &str, at: &str, took: &str, how: &str| {
        format!("{}  {}  {}  {}  ", pad(&cut(id, id_width), id_width), pad(at, 16), pad(took, 6), pad(how, 8))
    };
    let mut out = format!("{}what\n", left("rollout", "started", "took", "outcome"));
    for p in &h.rollouts {
        let took = took(p.started_ms, p.ended_ms.unwrap_or(clock.now_ms));
        let at = clock.format(p.started_ms, "%F %R");
        let reason = if p.reason.is_empty() { String::new() } else { format!(": {}", p.reason) };
        let label = left(p.id.as_str(), &at, &took, p.status.as_str());
        let safe = p.safe_after_ms.map(|ms| format!("; safe after {}", Millis(ms))).unwrap_or_default();
        out.push_str(&labelled(&label, &format!("{}, by {}{reason}{safe}", what(p), p.by)));
    }
    if h.more {
        out.push_str("there are older ones: --limit N, or the name of a service\n");
    }
    out
}

fn text(s: &Story, clock: &Clock) -> String {
    let p = &s.past;
    let mut out = labelled("", &format!("{}: {}, {}", p.id, what(p), p.status.as_str()));
    out.push('\n');
    let start = clock.format(p.started_ms, "%F %T %:z");
    out.push_str(&labelled("  started  ", &format!("{start} by {}", p.by)));
    match p.ended_ms {
        Some(end) => out.push_str(&labelled("  took     ", &took(p.started_ms, end))),
        None => out.push_str(&labelled("  so far   ", &took(p.started_ms, clock.now_ms))),
    }
    if !p.reason.is_empty() {
        out.push_str(&labelled("  because  ", p.reason.as_str()));
    }
    for owed in &s.owed {
        out.push_str(&labelled("  owed     ", owed.as_str()));
    }
    out.push('\n');
    out.push_str(&phases(s, clock));
    out.push('\n');
    let by_width =
        s.acts.iter().map(|a| super::table::columns(a.by.as_str())).max().unwrap_or(0).clamp(3, 24);
    let time_width = s.acts.iter().map(|a| clock.time(a.at_ms, p.started_ms).len()).max().unwrap_or(0);
    let act = |a: &PastAct| {
        let time = pad(&clock.time(a.at_ms, p.started_ms), time_width);
        let by = pad(&cut(a.by.as_str(), by_width), by_width);
        let text = if a.text.is_empty() { String::new() } else { format!(": {}", a.text) };
        labelled(&format!("  {time}  {by}  "), &format!("{}{text}", words(a.what.as_str())))
    };
    out.extend(s.acts.iter().map(act));
    out.push('\n');
    out.push_str(&counts(s));
    for d in &s.downtimes {
        let place = format!("{} in place of {}", d.instance, d.replaced);
        out.push_str(&labelled("  downtime  ", &format!("{}: {place}", Millis(d.downtime_ms))));
    }
    if s.cut {
        out.push_str("  There was more than is told here.\n");
    }
    out
}

fn words(what: &str) -> String {
    match what {
        "promote_full" => "promote --full".to_owned(),
        "abort_forced" => "abort, whatever stable carries".to_owned(),
        "next_dropped" => "next one given up".to_owned(),
        other => other.to_owned(),
    }
}

fn phases(s: &Story, clock: &Clock) -> String {
    let header = ["phase", "share", "entered", "settled", "stayed", "let in by"].map(str::to_owned).to_vec();
    let row = |(n, ph): (usize, &PastPhase)| {
        let end = ph.left_ms.unwrap_or(clock.now_ms);
        let none = || "-".to_owned();
        vec![
            format!("{} {}", n + 1, cut(ph.name.as_str(), 16)),
            format!("{}%", ph.weight),
            ph.entered_ms.map_or_else(none, |at| clock.time(at, s.past.started_ms)),
            ph.settled_ms
                .zip(ph.entered_ms)
                .map_or_else(none, |(at, from)| format!("after {}", took(from, at))),
            ph.entered_ms.map_or_else(none, |from| took(from, end)),
            ph.by.as_ref().map_or_else(none, |by| by.as_str().to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> =
        std::iter::once(header).chain(s.phases.iter().enumerate().map(row)).collect();
    table(2, &rows)
}

fn counts(s: &Story) -> String {
    if s.counts.is_empty() {
        return match s.past.ended_ms {
            Some(_) => labelled(
                "  ",
                "Requests were not counted: the service has no proxy, or the controller began in between.",
            ),
            None => String::new(),
        };
    }
    let header = ["revision", "requests", "failed", "retried"].map(str::to_owned).to_vec();
    let rows = s.counts.iter().map(|c| {
        let role = if c.role == Role::Candidate { "candidate" } else { "stable" };
        let share = |n: u64| match (n, c.requests) {
            (0, _) | (_, 0) => n.to_string(),
            // A few in many are not none.
            (n, all) if n * 10_000 < all => format!("{n} (<0.01%)"),
            (n, all) => format!("{n} ({:.2}%)", n as f64 * 100.0 / all as f64),
        };
        vec![
            format!("{role} {}", cut(c.version.as_str(), 30)),
            c.requests.to_string(),
            share(c.errors),
            share(c.retries),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    table(2, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PastCount, PastDowntime, RolloutStatus};
    use crate::cli::table::columns;

    const START: u64 = 1_795_273_445_000;

    fn clock() -> Clock {
        Clock { zone: TimeZone::fixed(jiff::tz::offset(1)), now_ms: START + 3_600_000 }
    }

    fn past(id: &str, by: &str, reason: &str) -> Past {
        Past {
            id: id.into(),
            service: "web".into(),
            kind: "release".into(),
            strategy: "canary".into(),
            from: Some("1.4.2".into()),
            to: "1.5.0".into(),
            by: by.into(),
            started_ms: START,
            ended_ms: Some(START + 750_400),
            status: RolloutStatus::Aborted,
            reason: reason.into(),
            safe_after_ms: None,
        }
    }

    fn story() -> Story {
        let phase =
            |name: &str, weight, entered: Option<u64>, settled: Option<u64>, left: Option<u64>, by: &str| {
                PastPhase {
                    name: name.into(),
                    weight,
                    gates: vec![],
                    entered_ms: entered.map(|t| START + t),
                    by: entered.map(|_| by.into()),
                    settled_ms: settled.map(|t| START + t),
                    left_ms: left.map(|t| START + t),
                }
            };
        let act = |t: u64, by: &str, what: &str, text: &str| PastAct {
            at_ms: START + t,
            by: by.into(),
            what: what.into(),
            text: text.into(),
        };
        Story {
            schema: 1,
            past: past("web-12", "김철수 [ci#7]", "web-9c1e0a77-1 on node-1 exited with 1"),
            owed: vec!["node-3 could not be reached: its instance is taken away when it can".into()],
            phases: vec![
                phase("start", 0.0, Some(0), Some(2_300), Some(2_300), "김철수 [ci#7]"),
                phase("25%", 25.0, Some(2_300), Some(3_100), Some(750_400), "pilothouse"),
                phase("50%", 50.0, None, None, None, ""),
            ],
            acts: vec![
                act(0, "김철수 [ci#7]", "deploy", ""),
                act(
                    60_000,
                    "pilothouse",
                    "freeze",
                    "host node-3 cannot be reached: connection refused, and it was there before",
                ),
                act(86_400_000, "bob", "promote_full", ""),
            ],
            counts: vec![
                PastCount {
                    role: Role::Stable,
                    version: "1.4.2".into(),
                    requests: 91_200,
                    errors: 3,
                    retries: 0,
                },
                PastCount {
                    role: Role::Candidate,
                    version: "1.5.0".into(),
                    requests: 30_400,
                    errors: 1240,
                    retries: 7,
                },
            ],
            downtimes: vec![PastDowntime {
                instance: "web-9c1e0a77-1".into(),
                replaced: "web-7f3a0b11-1".into(),
                downtime_ms: 3_200,
            }],
            cut: false,
        }
    }

    #[test]
    fn lists_fit_80_columns_and_nothing_is_lost() {
        let mut running = past("api-3", "bob", "");
        (running.ended_ms, running.status, running.from) = (None, RolloutStatus::Running, None);
        running.kind = "first release".into();
        let rollouts =
            vec![running, past("web-12", "김철수 [ci#7]", "web-9c1e0a77-1 on node-1 exited with 1")];
        let text = list(&History { schema: 1, rollouts, more: true }, &clock());
        assert!(text.lines().all(|l| columns(l) <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_story_fits_80_columns_and_wide_names_line_up() {
        let text = text(&story(), &clock());
        assert!(text.lines().all(|l| columns(l) <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_nobody_counted_is_said() {
        let s = Story { counts: vec![], ..story() };
        assert!(text(&s, &clock()).contains("Requests were not counted"));
    }
}
