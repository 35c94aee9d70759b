//! What somebody asks for: decided, journalled, answered.

use super::Helm;
use crate::api::{ApiError, ErrorCode, VerbReply};
use crate::controller::input::Request;
use crate::fleet::model::Fleet;
use crate::fleet::names::{Bp, ServiceName, Version};
use crate::rollout::decide::{self, Intent, Refusal, Taken};
use crate::rollout::reconcile::route;
use crate::rollout::state::{Kind, Revision};
use crate::rollout::world::{RouteReadback, Slot};
use crate::text::Safe;

impl Helm {
    pub(super) fn request(&mut self, request: Request) -> Result<VerbReply, ApiError> {
        match request {
            Request::Verb { service, intent, decision, by } => {
                let facts =
                    decide::verb(&self.state, &service, intent.clone(), decision, &by).map_err(refused)?;
                self.record_with_consequences(facts)
                    .map_err(|why| self.unavailable(&why, &service, &intent))?;
                Ok(self.reply(&service, said(&intent)))
            }
            Request::Deploy { fleet, revision, kind, decision, by } => {
                self.nothing_is_lost(&[])?;
                let loaded = decide::load(&self.state, &fleet, &by).map_err(refused)?;
                // Refused before anything is written, so that a refused deploy changes nothing.
                decide::deploy(&self.state, &revision, kind, decision, &by).map_err(refused)?;
                self.record(loaded).map_err(|w| unwritten(&w))?;
                let facts = decide::deploy(&self.state, &revision, kind, decision, &by).map_err(refused)?;
                self.record(facts).map_err(|w| unwritten(&w))?;
                let s = self.state.services.get(&revision.spec.name);
                let message = match s.and_then(|s| s.next.as_ref().and(s.active())) {
                    Some(r) => {
                        let now = r.to_version.as_ref().map_or("the candidate", |v| v.as_str());
                        format!("{now} goes back first; then {} follows by itself", revision.version)
                    }
                    None => "the rollout has begun".to_owned(),
                };
                Ok(self.reply(&revision.spec.name, &message))
            }
            Request::Rollback { service, to, decision, by } => self.rollback(&service, to, decision, &by),
            Request::Up { fleet, first, services, by } => self.up(&fleet, first, &services, &by),
            Request::Down { services, by } => {
                let all: Vec<ServiceName> = self.state.services.keys().cloned().collect();
                let mut facts = Vec::new();
                for service in if services.is_empty() { &all } else { &services } {
                    facts.extend(decide::down(&self.state, service, &by).map_err(refused)?);
                }
                let message = if facts.is_empty() { "nothing was up" } else { "going down" };
                self.record(facts).map_err(|w| unwritten(&w))?;
                Ok(VerbReply { message: message.into(), ..VerbReply::default() })
            }
            Request::AllowStop { services, by } => {
                let mut facts = Vec::new();
                for service in &services {
                    facts.extend(decide::allow_stop(&self.state, service, &by).map_err(refused)?);
                }
                self.record(facts).map_err(|w| unwritten(&w))?;
                let message =
                    "what was adopted may be stopped and removed from now on, when nothing needs it any more";
                Ok(VerbReply { message: message.into(), ..VerbReply::default() })
            }
            Request::Load { fleet, by } => {
                if self.state.fleet.is_none() {
                    let facts = decide::load(&self.state, &fleet, &by).map_err(refused)?;
                    self.record(facts).map_err(|w| unwritten(&w))?;
                }
                Ok(VerbReply::default())
            }
        }
    }

    /// Refuses to write to proxies that send to services of which the journal knows nothing, beyond those that are being
    /// adopted: a lost journal would take their traffic away.
    fn nothing_is_lost(&self, adopted: &[&ServiceName]) -> Result<(), ApiError> {
        for (proxy, seen) in &self.obs.proxies {
            let sends = |r: &RouteReadback| Slot::BOTH.iter().any(|&s| r.highest(s) > Bp::ZERO);
            let unknown = seen.routes.iter().find(|(name, route)| {
                !self.state.services.contains_key(*name) && !adopted.contains(name) && sends(route)
            });
            if let Some((name, _)) = unknown {
                return Err(ApiError {
                    code: ErrorCode::Refused,
                    message: Safe::new(&format!(
                        "proxy {proxy} sends traffic to {name}, of which the journal knows nothing: was it lost?"
                    )),
                    hint: Some("take over all that runs, at once: pilothouse up --adopt".into()),
                });
            }
        }
        Ok(())
    }

    fn rollback(
        &mut self,
        service: &ServiceName,
        to: Option<Version>,
        decision: Option<u64>,
        by: &Safe,
    ) -> Result<VerbReply, ApiError> {
        let s = self.state.services.get(service);
        if s.is_some_and(|s| s.active().is_some()) {
            let facts = decide::verb(&self.state, service, Intent::Abort, None, by).map_err(refused)?;
            self.record_with_consequences(facts)
                .map_err(|why| self.unavailable(&why, service, &Intent::Abort))?;
            return Ok(self.reply(service, said(&Intent::Abort)));
        }
        let kept = s.and_then(|s| s.kept.as_ref().and_then(|k| s.revisions.get(&k.revision))).cloned();
        match kept {
            Some(revision) if to.as_ref().is_none_or(|v| *v == revision.version) => {
                let facts =
                    decide::deploy(&self.state, &revision, Kind::Rollback, decision, by).map_err(refused)?;
                self.record(facts).map_err(|w| unwritten(&w))?;
                Ok(self.reply(service, &format!("going back to {}", revision.version)))
            }
            _ => Err(ApiError {
                code: ErrorCode::NotFound,
                message: match &to {
                    Some(v) => Safe::new(&format!("{service} {v} is not kept")),
                    None => Safe::new(&format!("{service} has no version to go back to")),
                },
                hint: Some(Safe::new(&format!("name one: pilothouse rollback {service} --to VERSION"))),
            }),
        }
    }

    fn up(
        &mut self,
        fleet: &Fleet,
        first: Vec<(Revision, Vec<Taken>)>,
        services: &[ServiceName],
        by: &Safe,
    ) -> Result<VerbReply, ApiError> {
        let known = |f: &(Revision, Vec<Taken>)| !f.1.is_empty();
        let adopted: Vec<&ServiceName> = first.iter().filter(|f| known(f)).map(|f| &f.0.spec.name).collect();
        if !first.is_empty() {
            self.nothing_is_lost(&adopted)?;
        }
        let loaded = decide::load(&self.state, fleet, by).map_err(refused)?;
        self.record(loaded).map_err(|w| unwritten(&w))?;
        let mut rollouts = Vec::new();
        let mut adopted = 0;
        for (revision, taken) in first {
            let service = revision.spec.name.clone();
            let never =
                self.state.services.get(&service).is_none_or(|s| s.stable.is_none() && s.active().is_none());
            if never {
                let facts = decide::adopt(&self.state, &revision, &taken, by).map_err(refused)?;
                adopted += taken.len();
                self.record(facts).map_err(|w| unwritten(&w))?;
                rollouts.extend(self.reply(&service, "").rollouts);
            }
        }
        let mut started = 0;
        let all: Vec<ServiceName> = self.state.services.keys().cloned().collect();
        for service in all.iter().filter(|s| services.is_empty() || services.contains(s)) {
            let facts = decide::up(&self.state, service, &self.obs);
            started += facts.len();
            self.record(facts).map_err(|w| unwritten(&w))?;
        }
        let message = match (rollouts.len(), started) {
            (_, _) if adopted > 0 => format!("{adopted} running instances are being adopted"),
            (0, 0) => self.all_up(services),
            (r, 0) => format!("{r} first releases have begun"),
            (0, n) => format!("{n} instances are started"),
            (r, n) => format!("{r} first releases have begun, {n} instances are started"),
        };
        Ok(VerbReply { rollouts, decision: 0, message: Safe::new(&message) })
    }

    /// What there is to say when nothing was done: that all is there, or what would have to be decided first.
    fn all_up(&self, services: &[ServiceName]) -> String {
        let declared = self.state.fleet.iter().flat_map(|f| f.services.keys());
        let wanted = declared.filter(|s| services.is_empty() || services.contains(s));
        let absent = |s: &&ServiceName| {
            self.state.services.get(*s).is_none_or(|s| s.stable.is_none() && s.active().is_none())
        };
        let absent: Vec<&str> = wanted.filter(absent).map(ServiceName::as_str).collect();
        if absent.is_empty() {
            return "everything is up".to_owned();
        }
        format!(
            "nothing was started: no version is named for {} (deploy one, or take over what runs with --adopt)",
            absent.join(", ")
        )
    }

    fn reply(&self, service: &ServiceName, message: &str) -> VerbReply {
        let s = self.state.services.get(service);
        VerbReply {
            rollouts: s
                .and_then(|s| s.rollout.as_ref())
                .map(|r| Safe::new(r.id.as_str()))
                .into_iter()
                .collect(),
            decision: s.map_or(0, |s| s.decision),
            message: Safe::new(message),
        }
    }

    /// Nothing could be journalled. For an abort, the operator is told how to do it by hand.
    fn unavailable(&self, why: &Safe, service: &ServiceName, intent: &Intent) -> ApiError {
        let mut error = unwritten(why);
        if *intent == Intent::Abort
            && let (Some(s), Some(fleet)) = (self.state.services.get(service), &self.state.fleet)
        {
            let mut back = route(s, &self.obs);
            back.slots.get_mut(s.stable_slot).weight = Bp::FULL;
            back.slots.get_mut(s.stable_slot.other()).weight = Bp::ZERO;
            back.rules.clear();
            let commands: Vec<String> = s
                .spec
                .proxies
                .iter()
                .filter_map(|p| fleet.proxies.get(p))
                .map(|p| self.hands.proxy(p).by_hand(&back))
                .collect();
            error.hint =
                Some(Safe::new(&format!("to send everything to stable by hand: {}", commands.join(" && "))));
        }
        error
    }
}

fn said(intent: &Intent) -> &'static str {
    match intent {
        Intent::Promote { full: false } => "the gates of this phase are open",
        Intent::Promote { full: true } => "the gates of all phases are open; the safety rules still hold",
        Intent::Pause => "it stands still",
        Intent::Resume => "it goes on",
        Intent::Hold(_) => "its instances go back to the version before, the others stay",
        Intent::Retry(_) => "it goes on, with all of its hosts",
        Intent::Abort => "all traffic goes back to stable, then the candidate goes",
    }
}

fn refused(r: Refusal) -> ApiError {
    ApiError { code: r.code, message: Safe::new(&r.message), hint: Some(Safe::new(&r.hint)) }
}

fn unwritten(why: &Safe) -> ApiError {
    ApiError { code: ErrorCode::Unavailable, message: why.clone(), hint: None }
}
