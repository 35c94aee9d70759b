//! Facts in words, for the events that people read.

use crate::analysis;
use crate::api::{EventView, Level};
use crate::fleet::names::{InstanceId, Millis};
use crate::rollout::fact::{Fact, Record};
use crate::rollout::state::{HookState, Instance, Kind, Outcome, ServiceState, State};
use crate::text::Safe;

/// A fact as an event, given the state before it; `None` for bookkeeping that nobody needs to read.
#[must_use]
pub fn event(before: &State, record: &Record) -> Option<EventView> {
    let (level, by, kind, text) = words(before, &record.fact)?;
    let service = record.fact.service();
    let rollout = match &record.fact {
        Fact::RolloutStarted { rollout, .. } => Some(rollout.to_string()),
        _ => service
            .and_then(|s| before.services.get(s))
            .and_then(|s| s.rollout.as_ref())
            .map(|r| r.id.to_string()),
    };
    Some(EventView {
        seq: record.seq,
        at_ms: record.wall_ms,
        service: service.map(|s| Safe::new(s.as_str())),
        rollout: rollout.map(Safe::from),
        by,
        level,
        kind: kind.into(),
        text: Safe::new(&text),
    })
}

/// Whether an instance was adopted and must not be stopped.
fn external(service: Option<&ServiceState>, instance: &InstanceId) -> bool {
    service.and_then(|s| s.instances.get(instance)).is_some_and(Instance::external)
}

/// `12 ms`, `4.1s`
fn time(d: Millis) -> String {
    if d.0 < 1000 { format!("{} ms", d.0) } else { format!("{:.1}s", d.0 as f64 / 1000.0) }
}

type Words = (Level, Safe, &'static str, String);

fn words(before: &State, fact: &Fact) -> Option<Words> {
    let service = fact.service().and_then(|s| before.services.get(s));
    let rollout = service.and_then(|s| s.rollout.as_ref());
    let candidate =
        || rollout.and_then(|r| r.to_version.as_ref()).map(ToString::to_string).unwrap_or_default();
    let ours = || Safe::new(crate::rollout::decide::OURSELVES);
    let info = |kind, text| Some((Level::Info, ours(), kind, text));
    let name = fact.service().map(ToString::to_string).unwrap_or_default();
    match fact {
        Fact::FleetLoaded { fleet, by } => Some((
            Level::Info,
            by.clone(),
            "fleet_loaded",
            format!("fleet file loaded: {} hosts, {} services", fleet.hosts.len(), fleet.services.len()),
        )),
        Fact::RolloutStarted { rollout, kind, strategy, from, to, by, .. } => {
            let version = |id| service.and_then(|s| s.revisions.get(id)).map(|r| r.version.to_string());
            let to = version(to).unwrap_or_else(|| to.to_string());
            let text = match (kind, from.as_ref().and_then(version)) {
                (Kind::Rollback, Some(from)) => format!("{name}: rollback {rollout} from {from} to {to}"),
                (_, Some(from)) => format!("{name}: {strategy} {rollout} from {from} to {to}"),
                (_, None) => format!("{name}: {strategy} {rollout} of {to}"),
            };
            Some((Level::Info, by.clone(), "rollout_started", text))
        }
        Fact::InstanceStarted { instance, endpoint, .. } => {
            info("instance_started", format!("{instance} runs at {endpoint}"))
        }
        Fact::InstanceAdmitted { instance, .. } => info("instance_healthy", format!("{instance} is healthy")),
        Fact::InstanceDrained { instance, left: 0, .. } => {
            info("instance_drained", format!("{instance} is drained"))
        }
        Fact::InstanceDrained { instance, left, .. } => Some((
            Level::Warn,
            ours(),
            "instance_drained",
            format!("{instance}: drain deadline passed with {left} requests in flight"),
        )),
        Fact::InstanceStopped { instance, .. } if external(service, instance) => {
            info("parked", format!("{instance} gets nothing any more and runs on: it was adopted"))
        }
        Fact::InstanceRemoved { instance, .. } if external(service, instance) => Some((
            Level::Warn,
            ours(),
            "let_go",
            format!("{instance} is no longer known here; its container was adopted, and runs on"),
        )),
        Fact::InstanceStopped { instance, .. } => info("instance_stopped", format!("{instance} is stopped")),
        Fact::InstanceRemoved { instance, .. } => info("instance_removed", format!("{instance} is removed")),
        Fact::InstanceRevived { instance, .. } => {
            info("instance_revived", format!("{instance} is started again"))
        }
        Fact::WeightDecided { weights, .. } => {
            let slot = rollout.filter(|r| r.active()).map(|r| r.slot)?;
            let share = weights.get(slot);
            info("weight_decided", format!("{name}: {} shall get {share}", candidate()))
        }
        Fact::PhaseEntered { phase, by, .. } => {
            let plan = &rollout?.plan.phases;
            let phase_name = plan.get(*phase).map(|p| p.name.clone()).unwrap_or_default();
            Some((
                Level::Info,
                by.clone(),
                "phase_entered",
                format!("{name}: phase {} of {}: {phase_name}", phase + 1, plan.len()),
            ))
        }
        Fact::PhaseSettled { weight, .. } => {
            let proxies = service.map_or(0, |s| s.spec.proxies.len());
            let where_read = match proxies {
                0 => String::new(),
                1 => " on its proxy".to_owned(),
                n => format!(" on {n} proxies"),
            };
            info("phase_settled", format!("{name}: {} at {weight}, read back{where_read}", candidate()))
        }
        Fact::GatesOpened { full, by, .. } => {
            let text = if *full {
                format!("{name}: promoted in full by {by}")
            } else {
                format!("{name}: promoted by {by}")
            };
            Some((Level::Info, by.clone(), "promote", text))
        }
        Fact::Paused { reason, by, .. } => {
            Some((Level::Warn, by.clone(), "paused", format!("{name}: paused: {reason}")))
        }
        Fact::Resumed { by, .. } => {
            Some((Level::Info, by.clone(), "resumed", format!("{name}: resumed by {by}")))
        }
        Fact::Frozen { reason, .. } => {
            Some((Level::Warn, ours(), "frozen", format!("{name}: nothing risky is done: {reason}")))
        }
        Fact::Thawed { .. } => info("thawed", format!("{name}: goes on")),
        Fact::VerdictReached { phase, verdict, detail, .. } => {
            let share =
                rollout.and_then(|r| r.plan.phases.get(*phase)).map(|p| p.name.clone()).unwrap_or_default();
            let level = match verdict {
                analysis::State::Fail => Level::Error,
                analysis::State::Hold => Level::Warn,
                analysis::State::Pass | analysis::State::Wait => Level::Info,
            };
            let dry = service.and_then(|s| s.spec.analysis).is_some_and(|a| a.dry_run);
            let dry = if dry { " (dry run: nothing is done about it)" } else { "" };
            Some((level, ours(), "verdict", format!("{name}: verdict {verdict} at {share}: {detail}{dry}")))
        }
        Fact::LastWords { instance, lines, .. } => {
            let lines: Vec<&str> = lines.iter().map(Safe::as_str).collect();
            Some((Level::Warn, ours(), "last_words", format!("{instance} wrote last: {}", lines.join(" | "))))
        }
        Fact::MadeSafe { since_bad, since_abort, .. } => {
            let bad = since_bad.map(|d| format!(", {} after its first bad answer", time(d)));
            info(
                "made_safe",
                format!(
                    "{name}: {} gets nothing any more: read back {} after the decision{}",
                    candidate(),
                    time(*since_abort),
                    bad.unwrap_or_default()
                ),
            )
        }
        Fact::AbortRequested { reason, by, .. } => {
            Some((Level::Error, by.clone(), "abort_requested", format!("{name}: abort: {reason}")))
        }
        Fact::AbortForced { by, .. } => Some((
            Level::Error,
            by.clone(),
            "abort_forced",
            format!("{name}: everything to stable, whatever it carries"),
        )),
        Fact::HostHeld { host, by, .. } => Some((
            Level::Warn,
            by.clone(),
            "host_held",
            format!("{name}: host {host} goes back to the version before, alone"),
        )),
        Fact::HoldLifted { host, by, .. } => {
            Some((Level::Info, by.clone(), "hold_lifted", format!("{name}: host {host} takes part again")))
        }
        Fact::InstanceReplaced { instance, replaced, downtime, .. } => info(
            "instance_replaced",
            format!(
                "{instance} took the place of {replaced}, which was empty for {:.1}s",
                downtime.0 as f64 / 1000.0
            ),
        ),
        Fact::HookBegun { hook, attempt, instance, host, .. } => {
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            info("hook_begun", format!("{name}: hook {} on {host} as {instance}{again}", hook.as_str()))
        }
        Fact::HookEnded { instance, state: HookState::Passed, detail, .. } => {
            info("hook_passed", format!("{instance}: {detail}"))
        }
        Fact::HookEnded { instance, detail, .. } => {
            Some((Level::Error, ours(), "hook_failed", format!("{instance}: {detail}")))
        }
        Fact::NextQueued { revision, by, .. } => Some((
            Level::Info,
            by.clone(),
            "next_queued",
            format!("{name}: {} follows when the rollout under way has ended", revision.version),
        )),
        Fact::NextDropped { reason, .. } => Some((
            Level::Error,
            ours(),
            "next_dropped",
            format!("{name}: what was to follow cannot: {reason}"),
        )),
        Fact::Promoted { .. } => {
            info("rollout_done", format!("{name}: {} serves everything: done", candidate()))
        }
        Fact::RolloutEnded { outcome, reason, owed, .. } => {
            let how = match outcome {
                Outcome::Done => "done",
                Outcome::Aborted => "aborted",
                Outcome::Failed => "failed",
            };
            let owed = owed.iter().map(|o| format!("; still owed: {o}")).collect::<String>();
            Some((Level::Warn, ours(), "rollout_ended", format!("{name}: {how}: {reason}{owed}")))
        }
        Fact::KeepEnded { revision, .. } => {
            let version = service.and_then(|s| s.revisions.get(revision)).map(|r| r.version.to_string());
            let version = version.unwrap_or_default();
            info(
                "keep_ended",
                format!("{name}: {version} is no longer kept running; it can still be started again"),
            )
        }
        Fact::Evicted { revision, .. } => {
            let version = service.and_then(|s| s.revisions.get(revision)).map(|r| r.version.to_string());
            info("evicted", format!("{name}: {} makes room", version.unwrap_or_default()))
        }
        Fact::InstancePlaced { instance, host, adopts: Some(container), .. } => info(
            "adopted",
            format!(
                "{instance} on {host} is the container {} that was there",
                container.as_str().get(..12).unwrap_or_default()
            ),
        ),
        Fact::StopAllowed { by, .. } => Some((
            Level::Warn,
            by.clone(),
            "stop_allowed",
            format!(
                "{name}: {by} allows adopted instances to be stopped and removed when nothing needs them"
            ),
        )),
        Fact::DownRequested { by, .. } => {
            Some((Level::Warn, by.clone(), "down", format!("{name}: taken down by {by}")))
        }
        Fact::ServiceGone { .. } => info("gone", format!("{name}: nothing is left")),
        Fact::HostSeen { host, reachable: true, .. } => {
            info("host_back", format!("host {host} answers again"))
        }
        Fact::HostSeen { host, detail, .. } => {
            Some((Level::Error, ours(), "host_lost", format!("host {host} cannot be reached: {detail}")))
        }
        Fact::ProxySeen { proxy, reachable: true, .. } => {
            info("proxy_back", format!("proxy {proxy} answers again"))
        }
        Fact::ProxySeen { proxy, detail, .. } => {
            Some((Level::Error, ours(), "proxy_lost", format!("proxy {proxy} cannot be reached: {detail}")))
        }
        Fact::ProxyDiffers { proxy, detail, .. } => Some((
            Level::Warn,
            ours(),
            "proxy_differs",
            format!("{name}: proxy {proxy} changed by itself ({detail}); put right"),
        )),
        Fact::EffectFailing { subject, count, error } => {
            Some((Level::Warn, ours(), "failing", format!("{subject} failed {count} times: {error}")))
        }
        Fact::ControllerStarted { version, pid } => {
            info("controller_started", format!("controller {version} (process {pid}) serves"))
        }
        Fact::RevisionKnown { .. }
        | Fact::InstancePlaced { .. }
        | Fact::InstanceLeaving { .. }
        | Fact::InstanceDiscarded { .. }
        | Fact::SlotTaken { .. }
        | Fact::SlotFreed { .. }
        | Fact::RolloutCounted { .. }
        | Fact::ClockReached {} => None,
    }
}
