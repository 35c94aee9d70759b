//! Hooks: one-off runs of the candidate around a release. The intent is a fact before anything runs, the exit status is
//! the record; an intent of which nothing is known pauses, unless the hook may run twice.

use super::{OURSELVES, life};
use crate::fleet::model::Hook;
use crate::fleet::names::{InstanceId, Millis};
use crate::rollout::capacity::{Trust, in_rotation};
use crate::rollout::fact::Fact;
use crate::rollout::reconcile::artifacts_are_there;
use crate::rollout::state::{HookKind, HookRun, HookState, Kind, Rollout, ServiceState, Status};
use crate::rollout::target::target;
use crate::rollout::world::{Observed, RunState};
use crate::text::Safe;

/// How often an idempotent hook is run again when nobody knows whether it ran.
const ATTEMPTS: u32 = 3;

/// The hook as declared, when this rollout has to run it.
#[must_use]
pub fn declared<'a>(service: &'a ServiceState, r: &Rollout, kind: HookKind) -> Option<&'a Hook> {
    // Going back runs nothing: what a hook did cannot be undone by running it again. What runs already had its hooks.
    if r.kind == Kind::Rollback || r.plan.adopts {
        return None;
    }
    let hooks = &service.spec.hooks;
    match kind {
        HookKind::BeforeStart => hooks.before_start.as_ref(),
        HookKind::BeforeTraffic => hooks.before_traffic.as_ref(),
        HookKind::AfterPromote => hooks.after_promote.as_ref(),
    }
}

/// Whether nothing of `kind` stands in the way any more.
#[must_use]
pub fn passed(service: &ServiceState, r: &Rollout, kind: HookKind) -> bool {
    declared(service, r, kind).is_none() || last(r, kind).is_some_and(|h| h.state == HookState::Passed)
}

/// Whether something that cannot be undone was begun: from then on failures pause instead of going back.
#[must_use]
pub fn irreversible(service: &ServiceState, r: &Rollout) -> bool {
    r.hooks.iter().any(|h| declared(service, r, h.hook).is_some_and(|d| d.irreversible))
}

/// Whether a hook runs now.
#[must_use]
pub fn running(r: &Rollout) -> Option<&HookRun> {
    r.hooks.iter().find(|h| h.state == HookState::Begun)
}

fn last(r: &Rollout, kind: HookKind) -> Option<&HookRun> {
    r.hooks.iter().rfind(|h| h.hook == kind)
}

/// How the hook that runs now ended, when it did; or that nobody knows.
pub(super) fn ended(service: &ServiceState, r: &Rollout, obs: &Observed, now: Millis) -> Option<Vec<Fact>> {
    let run = running(r)?;
    let declared = declared(service, r, run.hook)?;
    let host = obs.hosts.get(&run.host).filter(|h| h.reachable)?;
    let end = |state, detail: String| Fact::HookEnded {
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        instance: run.instance.clone(),
        state,
        detail: Safe::new(&detail),
    };
    // Made, and not started: it did nothing yet, and somebody may be just about to start it.
    let seen = host.instances.get(&run.instance).filter(|s| !s.never_ran());
    match seen.map(|s| &s.state) {
        Some(RunState::Exited { code: Some(0), .. }) => {
            Some(vec![end(HookState::Passed, "exit 0".to_owned())])
        }
        Some(RunState::Exited { code, oom }) => {
            let how = match (oom, code) {
                (true, _) => "killed for lack of memory".to_owned(),
                (_, Some(code)) => format!("exit {code}"),
                (_, None) => "ended, nobody knows how".to_owned(),
            };
            Some(vec![end(HookState::Failed, how)])
        }
        Some(RunState::Running | RunState::Starting) => (now.since(run.began_at) > declared.timeout)
            .then(|| vec![end(HookState::Failed, format!("not done after {}", declared.timeout))]),
        // Begun by this very controller, and not there yet: it is being started. Otherwise nobody knows.
        None if obs.begun.contains(&run.instance)
            && !obs.failures.contains_key(&start_key(&run.instance)) =>
        {
            None
        }
        None if declared.idempotent && run.attempt < ATTEMPTS => {
            Some(vec![end(HookState::Unknown, "nobody knows whether it ran; it may run again".to_owned())])
        }
        None => Some(vec![end(HookState::Unknown, "nobody knows whether it ran".to_owned())]),
    }
}

/// The name under which failed starts of a hook are counted in [`Observed::failures`].
#[must_use]
pub fn start_key(instance: &InstanceId) -> String {
    format!("hook:{instance}")
}

/// What has to happen for the hook of `kind` before the rollout goes on: `None` when nothing stands in the way.
pub(super) fn gate(service: &ServiceState, r: &Rollout, kind: HookKind, obs: &Observed) -> Option<Vec<Fact>> {
    let declared = declared(service, r, kind)?;
    let attempt = match last(r, kind) {
        None => 1,
        Some(h) => match h.state {
            HookState::Passed => return None,
            HookState::Begun => return Some(Vec::new()),
            HookState::Unknown if declared.idempotent && h.attempt < ATTEMPTS => h.attempt + 1,
            HookState::Again => h.attempt + 1,
            HookState::Failed | HookState::Unknown => return Some(stuck(service, r, h)),
        },
    };
    if !artifacts_are_there(service, &r.to, obs) {
        return Some(Vec::new());
    }
    let out = |host: &&crate::fleet::names::HostName| obs.hosts.get(*host).is_some_and(|h| h.out);
    let Some(host) = service.spec.placement.keys().find(|h| !out(h)) else { return Some(Vec::new()) };
    Some(vec![Fact::HookBegun {
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        hook: kind,
        attempt,
        instance: InstanceId::of_hook(&r.id, kind.as_str(), attempt),
        host: host.clone(),
    }])
}

/// A hook that failed takes the release back, unless something irreversible was begun or nobody knows what happened:
/// then an operator decides.
fn stuck(service: &ServiceState, r: &Rollout, h: &HookRun) -> Vec<Fact> {
    let (name, rollout) = (service.spec.name.clone(), r.id.clone());
    let reason = format!("hook {} on {}: {}", h.hook.as_str(), h.host, h.detail);
    if h.state == HookState::Failed && !irreversible(service, r) {
        let reason = Safe::new(&reason);
        return vec![Fact::AbortRequested { service: name, rollout, reason, by: OURSELVES.into() }];
    }
    if r.status == Status::Paused {
        return Vec::new();
    }
    let why = if h.state == HookState::Unknown {
        ""
    } else {
        "; it is irreversible, so nothing goes back by itself"
    };
    let reason =
        Safe::new(&format!("{reason}{why}; retry runs it again, promote takes it as done, abort goes back"));
    vec![Fact::Paused { service: name, rollout, reason, by: OURSELVES.into() }]
}

/// Whether the candidate is as far as it must be before its first traffic.
pub(super) fn ready_for_traffic(service: &ServiceState, r: &Rollout, obs: &Observed) -> bool {
    let ready = in_rotation(service, &r.to, obs, Trust::Proved);
    let wanted: u32 = target(service, r).candidate.values().sum();
    let enough = if r.plan.limits.surge.is_some() { 1 } else { wanted };
    ready >= enough.max(1) && life::in_slot(service, r)
}
