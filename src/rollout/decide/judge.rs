//! What the analysis of a rollout means for it: evidence against the candidate takes it back, no verdict in time pauses
//! it, and while stable itself fails nobody is sent anywhere.

use super::OURSELVES;
use super::waiting::closed_gates;
use crate::analysis;
use crate::fleet::model::{Analysis, Gate};
use crate::fleet::names::{Bp, Millis};
use crate::rollout::fact::Fact;
use crate::rollout::state::{Kind, Rollout, ServiceState, Status};
use crate::rollout::world::{Observed, Verdict};
use crate::text::Safe;

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

/// A verdict that was not written down yet. That evidence is inconclusive (again) is no verdict.
pub(super) fn news(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Fact> {
    let v = verdict(service, r, obs)?;
    let said = r.verdict == Some((v.phase, v.state));
    (v.state != analysis::State::Wait && !said).then(|| Fact::VerdictReached {
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        phase: v.phase,
        verdict: v.state,
        detail: v.words.clone(),
    })
}

/// Why the candidate has failed by what its requests came to.
pub(super) fn failed(service: &ServiceState, r: &Rollout, obs: &Observed) -> Option<Safe> {
    acting(service, r).filter(|_| !r.overruled)?;
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
    let Some(a) = judged(service, r) else { return true };
    let pass = verdict(service, r, obs)
        .is_some_and(|v| v.phase == r.phase && v.state == analysis::State::Pass && v.stable_fails.is_none());
    pass && now.since(settled_at) >= a.soak
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

/// Time until the soak is over.
pub(super) fn soak_left(
    service: &ServiceState,
    r: &Rollout,
    settled_at: Millis,
    now: Millis,
) -> Option<Millis> {
    let soak = judged(service, r)?.soak;
    Some(settled_at.plus(soak).since(now)).filter(|left| *left > Millis(0))
}

/// A pause, when stable has failed for too long, or no verdict came in time and nothing else is waited for.
pub(super) fn pauses(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Fact> {
    let a = acting(service, r).filter(|_| r.status == Status::Running)?;
    let v = verdict(service, r, obs);
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
    let only_verdict = closed_gates(service, r, obs, settled_at, now) == [Gate::Verdict];
    if !only_verdict || now.since(settled_at.max(r.resumed_at)) <= a.inconclusive_after {
        return None;
    }
    let words = v.map_or_else(|| "no requests of both versions were counted".into(), |v| v.words.clone());
    pause(format!(
        "inconclusive after {} at {}: {words}; promote, abort, or resume to wait as long again",
        a.inconclusive_after,
        r.phase().map(|p| p.name.clone()).unwrap_or_default()
    ))
}

/// How long it took until the candidate got nothing any more: to be asked once that was read back.
pub(super) fn made_safe(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Fact> {
    let had_any = r.plan.phases.iter().take(r.phase + 1).any(|p| p.weight > Bp::ZERO);
    (had_any && r.made_safe.is_none()).then(|| Fact::MadeSafe {
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        since_bad: verdict(service, r, obs).and_then(|v| v.first_bad).map(|at| now.since(at)),
        since_abort: now.since(r.abort_at),
    })
}
