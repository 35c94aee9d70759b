//! What a rollout has to say beyond phase and shares: hosts held back, places that are empty, what comes next, how long
//! nobody was there, who sees the candidate already, and what a comparison shows. The urgent things apart from the rest.

use crate::api::{Finding, InstanceView, Role, RolloutStatus, RolloutView, ServiceView};
use crate::text::Safe;
use crate::tui::format;
use crate::tui::keys::Action;
use crate::tui::model::Model;
use crate::tui::theme::Tone;

use super::rollout::revision;

type Lines = Vec<(String, Tone)>;

/// Names in a list before the rest is counted.
const NAMED: usize = 3;

/// `node-1`, `node-1 and node-2`, `node-1, node-2, node-3 and 27 more`.
pub(super) fn listed(names: &[Safe]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(|n| n.as_str()).collect();
    match (shown.as_slice(), names.len().saturating_sub(NAMED)) {
        ([one, two], 0) => format!("{one} and {two}"),
        (_, 0) => shown.join(", "),
        (_, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What somebody has to know, or to do something about.
pub(super) fn urgent(model: &Model, service: &ServiceView, r: &RolloutView) -> Lines {
    let mut lines = Lines::new();
    let stable = r.from.as_ref().map_or("nothing", |v| v.as_str());
    if !r.empty.is_empty() {
        lines.push(empty(model, service, r));
    }
    if !r.held.is_empty() && r.status != RolloutStatus::Aborting {
        let keeps = if r.held.len() == 1 { "keeps" } else { "keep" };
        let them = if r.held.len() == 1 { "it" } else { "them" };
        let end = if model.steers() {
            let (retry, abort) = (model.keys.key(Action::Retry), model.keys.key(Action::Abort));
            format!("so it cannot end. {retry} takes {them} in again, {abort} aborts")
        } else {
            "so it cannot end before somebody retries or aborts".to_owned()
        };
        let text = format!("# HELD BACK: {} {keeps} {stable}, {end}", listed(&r.held));
        lines.push((text, Tone::Warn));
    }
    lines
}

/// What begins by itself when this has ended.
pub(super) fn next(service: &ServiceView) -> Option<(String, Tone)> {
    service.next.as_ref().map(|next| (format!("next: {next} follows by itself"), Tone::Strong))
}

/// Nobody is there now.
fn empty(model: &Model, service: &ServiceView, r: &RolloutView) -> (String, Tone) {
    let since = r.empty.iter().map(|e| e.since_ms).min().unwrap_or(model.wall_ms);
    let age = format::age(model.wall_ms.saturating_sub(since));
    let mut hosts: Vec<Safe> = r.empty.iter().map(|e| e.host.clone()).collect();
    hosts.dedup();
    let instances = model.snapshot.as_ref().map(|s| s.instances.as_slice()).unwrap_or_default();
    let serves = |i: &&InstanceView| i.service == service.name && i.weight.is_some_and(|w| w > 0);
    match instances.iter().filter(serves).count() {
        0 => (
            format!(
                "! DOWN for {age}: NO instance serves {} while {} restarts",
                service.name,
                listed(&hosts)
            ),
            Tone::Bad,
        ),
        n => {
            let others =
                if n == 1 { "1 other instance serves".to_owned() } else { format!("{n} others serve") };
            let places = format::count(r.empty.len(), "place");
            (format!("! {places} EMPTY for {age} on {}; {others}", listed(&hosts)), Tone::Warn)
        }
    }
}

/// What is good to know.
pub(super) fn quiet(model: &Model, service: &ServiceView, r: &RolloutView) -> Lines {
    let mut lines = Lines::new();
    if !r.testers.is_empty() && !r.status.ended() && r.status != RolloutStatus::Aborting {
        let share = revision(service, Role::Candidate).map_or(0, |v| v.actual_weight.unwrap_or(v.weight));
        let marks: Vec<&str> = r.testers.iter().map(|t| t.as_str()).collect();
        let marks = marks.join(" or ");
        lines.push(match share {
            0 => (format!("{} is seen only with {marks}", r.to), Tone::Plain),
            10_000 => return lines,
            _ => (format!("whoever sends {marks} sees {}", r.to), Tone::Plain),
        });
    }
    lines.extend(downtime(model, r));
    lines
}

/// How long places were empty, once they no longer are.
pub(super) fn downtime(model: &Model, r: &RolloutView) -> Option<(String, Tone)> {
    let instances = model.snapshot.as_ref().map(|s| s.instances.as_slice()).unwrap_or_default();
    let place = |id: &Safe| {
        let at = instances.binary_search_by(|i| i.id.cmp(id)).ok();
        at.and_then(|n| instances.get(n)).map_or_else(|| id.clone(), |i| i.host.clone())
    };
    let time = |ms: u64| format::latency(ms as f32);
    let longest = r.downtimes.iter().max_by_key(|d| d.ms)?;
    let text = if r.downtimes.len() <= NAMED {
        let each = r.downtimes.iter().map(|d| format!("{} for {}", place(&d.instance), time(d.ms)));
        format!("was empty: {}", each.collect::<Vec<_>>().join(", "))
    } else {
        let shortest = r.downtimes.iter().map(|d| d.ms).min().unwrap_or_default();
        format!(
            "was empty: {} places, {} to {} each, longest {}",
            r.downtimes.len(),
            time(shortest),
            time(longest.ms),
            place(&longest.instance)
        )
    };
    Some((text, Tone::Plain))
}

/// The table of an A/B release, and what it shows.
pub(super) fn comparison(model: &Model, r: &RolloutView) -> Lines {
    let Some(c) = &r.comparison else { return vec![] };
    let finding = c.finding();
    let tone = match finding {
        Finding::Worse => Tone::Bad,
        Finding::Better => Tone::Ok,
        Finding::NoDifference | Finding::Nothing => Tone::Plain,
    };
    let mark = if finding == Finding::Worse { "! " } else { "" };
    let since = match c.over {
        true => "ended".to_owned(),
        false => format!("for {}", format::age(model.wall_ms.saturating_sub(c.since_ms))),
    };
    let [head, stable, candidate] = c.table();
    // What it shows comes first, for a screen that has no room for the table.
    vec![
        (format!("{mark}{}", c.verdict()), tone),
        (format!("{since:<9}{}", head.get(9..).unwrap_or_default()), Tone::Dim),
        (stable, Tone::Stable),
        (candidate, Tone::Candidate),
    ]
}

/// Rows that these lines want beyond what every rollout has.
pub(super) fn rows(model: &Model) -> u16 {
    let Some(service) = model.service_view() else { return 0 };
    let Some(r) = &service.rollout else { return 0 };
    if r.status.ended() {
        return u16::from(r.comparison.is_some()) * 4;
    }
    // Urgent things seldom fit one line.
    let urgent = 2 * urgent(model, service, r).len() + usize::from(service.next.is_some());
    let judged = 2 * usize::from(r.verdict.is_some()) + r.checks.len();
    let n = urgent + judged + quiet(model, service, r).len() + comparison(model, r).len();
    u16::try_from(n).unwrap_or(u16::MAX)
}
