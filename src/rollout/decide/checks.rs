//! What the checks of a rollout mean for it: bad answers in a row take it back, a phase waits for good ones, and what
//! nobody knows is not good.

use crate::fleet::model::{Check, Strategy};
use crate::fleet::names::{Bp, Millis};
use crate::rollout::state::{Kind, Rollout, ServiceState, Status};
use crate::rollout::world::{Answer, CheckSeen, Observed};
use crate::text::Safe;

/// The checks of a rollout: only a new revision in place of one that serves is in question, the way back never.
#[must_use]
pub fn checks<'a>(service: &'a ServiceState, r: &Rollout) -> &'a [Check] {
    if r.kind == Kind::Release && r.from.is_some() { &service.spec.checks } else { &[] }
}

/// Those that something is done about.
fn acting<'a>(service: &'a ServiceState, r: &Rollout) -> impl Iterator<Item = &'a Check> {
    checks(service, r).iter().filter(|c| !c.dry_run)
}

/// Whether the checks are to be asked now: while the candidate takes requests.
#[must_use]
pub fn to_be_asked(service: &ServiceState, r: &Rollout) -> bool {
    let stands = matches!(r.status, Status::Running | Status::Paused);
    // Who is chosen by a header is no share; where there is no proxy, what runs does its work.
    let unseen = service.spec.proxies.is_empty() || matches!(service.spec.strategy, Strategy::Ab { .. });
    let takes = *service.weights.get(r.slot) > Bp::ZERO || unseen && r.settled_at.is_some();
    stands && takes && !checks(service, r).is_empty()
}

/// What is known of a check of this rollout.
#[must_use]
pub fn seen<'a>(
    service: &ServiceState,
    r: &Rollout,
    obs: &'a Observed,
    check: &Check,
) -> Option<&'a CheckSeen> {
    obs.checks.get(&service.spec.name)?.get(&check.name).filter(|s| s.rollout == r.id)
}

/// The check that has failed, if one has, in words.
pub(super) fn failed(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Safe> {
    acting(service, r).find_map(|c| {
        let seen = seen(service, r, obs, c).filter(|s| s.bad >= c.failures)?;
        let times = if seen.bad > 1 { format!(", {} times in a row", seen.bad) } else { String::new() };
        Some(Safe::new(&format!("check {}: {}{times}", c.name, seen.words)))
    })
}

/// When the first of the bad answers was asked for that stand now.
pub(super) fn first_bad(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Millis> {
    acting(service, r).filter_map(|c| seen(service, r, obs, c)?.first_bad).min()
}

/// Checks without a good answer to a question that was put since `since`, in words.
pub(super) fn open(service: &ServiceState, r: &Rollout, obs: &Observed, since: Millis) -> Vec<Safe> {
    let mut out = Vec::new();
    for c in acting(service, r) {
        let now = seen(service, r, obs, c).filter(|s| s.asked_at >= since);
        if now.is_some_and(|s| s.answer == Answer::Good) {
            continue;
        }
        let words = now.map_or("not asked in this phase yet".to_owned(), |s| {
            let unknown = if s.answer == Answer::Unknown { "unknown: " } else { "" };
            format!("{unknown}{}", s.words)
        });
        out.push(Safe::new(&format!("check {} ({words})", c.name)));
    }
    out
}
