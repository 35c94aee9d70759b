//! What the analysis of a rollout means for it: evidence against the candidate takes it back, no verdict in time pauses
//! it, and while stable itself fails nobody is sent anywhere.

use super::OURSELVES;
use super::checks;
use super::waiting::closed_gates;
use crate::analysis;
use crate::fleet::model::{Analysis, Gate};
use crate::fleet::names::{Bp, Millis};
use crate::rollout::fact::Fact;
use crate::rollout::state::{Kind, Rollout, ServiceState, Status};
use crate::rollout::world::{Observed, Verdict};
use crate::text::Safe;

/// After this time in a phase without a good answer of a check it pauses, where the analysis has no time of its own.
const INCONCLUSIVE_AFTER: Millis = Millis::secs(600);
/// How long stable may fail by itself before the rollout waits for somebody.
const STABLE_FAILS_FOR: Millis = Millis::secs(30);

/// How a rollout is judged, if it is: only a new revision beside one that serves. The way back is never in question.
#[must_use]
pub fn judged(service: &ServiceState, r: &Rollout) -> Option<Analysis> {
    let compared = r.kind == Kind::Release && r.from.is_some();
    service.spec.analysis.filter(|_| compared && !service.spec.proxies.is_empty())
}

/// The same, where something is done about what it says.
fn acting(service: &ServiceState, r: &Rollout) -> Option<Analysis> {
    judged(service, r).filter(|a| !a.dry_run)
}

/// What the analysis says of this rollout.
#[must_use]
pub fn verdict<'a>(service: &ServiceState, r: &Rollout, obs: &'a Observed) -> Option<&'a Verdict> {
    judged(service, r)?;
    obs.verdicts.get(&service.spec.name).filter(|v| v.rollout == r.id)
}

/// A verdict that was not written down yet. That evidence is inconclusive (again) is no verdict. A check that has failed
/// is one as well: whoever goes on after it has overruled it.
pub(super) fn news(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Fact> {
    let (phase, verdict, detail) = match (checks::failed(service, r, obs), verdict(service, r, obs)) {
        (Some(words), _) => (r.phase, analysis::State::Fail, words),
        (None, Some(v)) => (v.phase, v.state, v.words.clone()),
        (None, None) => return None,
    };
    let said = match verdict {
        // Once is enough, in whichever phase.
        analysis::State::Fail => r.verdict.is_some_and(|(_, said)| said == analysis::State::Fail),
        _ => r.verdict == Some((phase, verdict)),
    };
    (verdict != analysis::State::Wait && !said).then(|| Fact::VerdictReached {
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        phase,
        verdict,
        detail,
    })
}

/// Why the candidate has failed by what its requests came to, or by what a check says.
pub(super) fn failed(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Safe> {
    if r.overruled {
        return None;
    }
    if let Some(words) = checks::failed(service, r, obs) {
        return Some(words);
    }
    acting(service, r)?;
    verdict(service, r, obs).filter(|v| v.state == analysis::State::Fail).map(|v| v.words.clone())
}

/// Whether stable fails by itself: sending everything back to it would help nobody.
pub(super) fn stable_fails(service: &ServiceState, r: &Rollout, obs: &Observed) -> bool {
    acting(service, r).is_some() && verdict(service, r, obs).is_some_and(|v| v.stable_fails.is_some())
}

/// Whether the gate of the phase is open: passed at this share, and watched there for the soak time.
pub(super) fn passed(
    service: &ServiceState,
    r: &Rollout,
    obs: &Observed,
    settled_at: Millis,
    now: Millis,
) -> bool {
    if judged(service, r).is_none() {
        return true;
    }
    let pass = verdict(service, r, obs)
        .is_some_and(|v| v.phase == r.phase && v.state == analysis::State::Pass && v.stable_fails.is_none());
    pass && soak_left(service, r, obs, settled_at, now).is_none()
}

/// Whether a pass ends the pause of the phase before its time.
pub(super) fn ends_pauses(
    service: &ServiceState,
    r: &Rollout,
    obs: &Observed,
    settled_at: Millis,
    now: Millis,
) -> bool {
    acting(service, r).is_some_and(|a| a.early) && passed(service, r, obs, settled_at, now)
}

/// Time until the soak is over. What was not counted was not watched: it is for a time without a gap.
pub(super) fn soak_left(
    service: &ServiceState,
    r: &Rollout,
    obs: &Observed,
    settled_at: Millis,
    now: Millis,
) -> Option<Millis> {
    let soak = judged(service, r)?.soak;
    let counted = verdict(service, r, obs).filter(|v| v.phase == r.phase).and_then(|v| v.counted_since);
    let since = settled_at.max(counted.unwrap_or(settled_at));
    Some(since.plus(soak).since(now)).filter(|left| *left > Millis(0))
}

/// A pause, when stable has failed for too long, or no verdict came in time and nothing else is waited for.
pub(super) fn pauses(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Fact> {
    if r.status != Status::Running {
        return None;
    }
    let a = acting(service, r);
    let v = verdict(service, r, obs).filter(|_| a.is_some());
    let pause = |reason: String| {
        let (service, rollout) = (service.spec.name.clone(), r.id.clone());
        Some(Fact::Paused { service, rollout, reason: Safe::new(&reason), by: OURSELVES.into() })
    };
    if let Some((v, since)) = v.and_then(|v| v.stable_fails.map(|since| (v, since)))
        && now.since(since.max(r.resumed_at)) > STABLE_FAILS_FOR
    {
        return pause(format!(
            "{}; nothing is promoted, and nothing sent back to it, until somebody decides",
            v.words
        ));
    }
    let settled_at = r.settled_at.filter(|_| !r.gates_opened)?;
    let closed = closed_gates(service, r, obs, settled_at, now);
    let only_verdicts = closed.iter().all(|g| matches!(g, Gate::Verdict | Gate::Checks));
    let most = judged(service, r).map_or(INCONCLUSIVE_AFTER, |a| a.inconclusive_after);
    if closed.is_empty() || !only_verdicts || now.since(settled_at.max(r.resumed_at)) <= most {
        return None;
    }
    let mut words = Vec::new();
    if closed.contains(&Gate::Verdict) {
        words.push(v.map_or("no requests of both versions were counted".into(), |v| v.words.clone()));
    }
    if closed.contains(&Gate::Checks) {
        words.extend(checks::open(service, r, obs, settled_at));
    }
    let words: Vec<&str> = words.iter().map(Safe::as_str).collect();
    let words = words.join("; ");
    pause(format!(
        "inconclusive after {most} at {}: {words}; promote, abort, or resume to wait as long again",
        r.phase().map(|p| p.name.clone()).unwrap_or_default()
    ))
}

/// How long it took until the candidate got nothing any more: to be asked once that was read back.
pub(super) fn made_safe(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Fact> {
    let first_bad = first_bad(service, r, obs);
    // Who is chosen by a rule is no share, and meets what is bad all the same.
    let had_any = first_bad.is_some() || r.plan.phases.iter().take(r.phase + 1).any(|p| p.weight > Bp::ZERO);
    (had_any && r.made_safe.is_none()).then(|| Fact::MadeSafe {
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        since_bad: first_bad.map(|at| now.since(at)),
        since_abort: now.since(r.abort_at),
    })
}

/// The first moment that spoke against the candidate.
fn first_bad(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Millis> {
    let counted = verdict(service, r, obs).and_then(|v| v.first_bad);
    counted.into_iter().chain(checks::first_bad(service, r, obs)).min()
}
