//! Facts as news: what a receiver is told. The body of a webhook, documented in docs/numbers.md.

use serde::Serialize;

use crate::api::Role;
use crate::controller::explain;
use crate::fleet::model::NotifyEvent;
use crate::fleet::names::ServiceName;
use crate::rollout::fact::{Counted, Fact, Record};
use crate::rollout::state::{Outcome, Rollout, ServiceState, State};
use crate::text::Safe;

/// Version of the body.
const SCHEMA: u32 = 1;

/// Something happened to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct News {
    /// Version of this type.
    pub schema: u32,
    /// The same each time it is told, and no other's: `FLEET-FACT-MILLISECONDS`.
    pub id: String,
    /// What.
    pub event: NotifyEvent,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// In this fleet.
    pub fleet: Safe,
    /// What its operators call the environment.
    pub environment: Safe,
    /// Of this service.
    pub service: Safe,
    /// Of this rollout.
    pub rollout: Safe,
    /// Name of its strategy.
    pub strategy: Safe,
    /// The version that served; `None` for a first release.
    pub from: Option<Safe>,
    /// The version it brings.
    pub to: Safe,
    /// The phase it is in.
    pub phase: Option<Phase>,
    /// Who did it: an operator's name or `pilothouse`.
    pub by: Safe,
    /// Why, when there is a reason.
    pub reason: Option<Safe>,
    /// In words.
    pub text: Safe,
    /// When it was taken back: from the first bad answer of the candidate that was counted (or from the decision, when none
    /// was) until it got nothing any more, in milliseconds.
    pub time_to_safe_ms: Option<u64>,
    /// What the proxies counted since it began; `None` when nobody did, or this controller began later.
    pub counts: Option<Vec<Count>>,
    /// Number of the fact.
    #[serde(skip)]
    pub seq: u64,
    #[serde(skip)]
    of: ServiceName,
}

/// The phase of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// From 1.
    pub number: usize,
    /// Of how many.
    pub count: usize,
    /// Its name.
    pub name: Safe,
    /// The candidate's share in it, in per cent.
    pub weight: f64,
}

/// Requests of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The part it plays.
    pub role: Role,
    /// Which.
    pub version: Safe,
    /// Requests that ended.
    pub requests: u64,
    /// Of these, the ones that failed.
    pub errors: u64,
    /// Attempts that failed and were tried again elsewhere.
    pub retries: u64,
}

/// A fact as news, given the state before it; `None` for what nobody outside is told.
#[must_use]
pub fn news(before: &State, record: &Record) -> Option<News> {
    let fact = &record.fact;
    let mut entered = None;
    let (event, reason) = match fact {
        Fact::RolloutStarted { .. } => (NotifyEvent::Started, None),
        Fact::PhaseEntered { phase, .. } => {
            entered = Some(*phase);
            (NotifyEvent::Phase, None)
        }
        Fact::Paused { reason, .. } => (NotifyEvent::Paused, Some(reason)),
        Fact::Resumed { .. } => (NotifyEvent::Resumed, None),
        Fact::Frozen { reason, .. } => (NotifyEvent::Frozen, Some(reason)),
        Fact::AbortRequested { reason, .. } => (NotifyEvent::Aborting, Some(reason)),
        Fact::Promoted { .. } => (NotifyEvent::Promoted, None),
        Fact::RolloutEnded { outcome, reason, .. } => {
            let event = match outcome {
                Outcome::Done => NotifyEvent::Promoted,
                Outcome::Aborted => NotifyEvent::Aborted,
                Outcome::Failed => NotifyEvent::Failed,
            };
            (event, Some(reason))
        }
        _ => return None,
    };
    let fleet = before.fleet.as_ref()?;
    let of = fact.service()?.clone();
    let s = before.services.get(&of)?;
    let said = explain::event(before, record)?;
    let safe = |text: &str| Safe::new(text);
    let (strategy, from, to, phase) = match (fact, &s.rollout) {
        (Fact::RolloutStarted { strategy, from, to, .. }, _) => {
            let version = |id| s.revisions.get(id).map(|r| safe(r.version.as_str()));
            (safe(strategy), from.as_ref().and_then(version), version(to).unwrap_or_default(), None)
        }
        (_, Some(r)) => {
            let from = r.from_version.as_ref().map(|v| safe(v.as_str()));
            let to = r.to_version.as_ref().map(|v| safe(v.as_str())).unwrap_or_default();
            (safe(&r.strategy), from, to, phase(r, entered.unwrap_or(r.phase)))
        }
        (_, None) => return None,
    };
    let made_safe = s.rollout.as_ref().and_then(|r| r.made_safe);
    let over = matches!(event, NotifyEvent::Aborted | NotifyEvent::Failed);
    Some(News {
        schema: SCHEMA,
        id: format!("{}-{}-{}", fleet.name, record.seq, record.wall_ms),
        event,
        at_ms: record.wall_ms,
        fleet: safe(fleet.name.as_str()),
        environment: safe(&fleet.environment),
        service: safe(of.as_str()),
        rollout: said.rollout.unwrap_or_default(),
        strategy,
        from,
        to,
        phase,
        by: said.by,
        reason: reason.filter(|r| !r.is_empty()).cloned(),
        text: said.text,
        time_to_safe_ms: made_safe.filter(|_| over).map(|(bad, abort)| bad.unwrap_or(abort).0),
        counts: None,
        seq: record.seq,
        of,
    })
}

fn phase(r: &Rollout, n: usize) -> Option<Phase> {
    let p = r.plan.phases.get(n)?;
    Some(Phase {
        number: n + 1,
        count: r.plan.phases.len(),
        name: Safe::new(&p.name),
        weight: f64::from(p.weight.get()) / 100.0,
    })
}

impl News {
    /// The service it is about.
    #[must_use]
    pub fn of(&self) -> &ServiceName {
        &self.of
    }

    /// Adds what the proxies counted, when it is about the rollout that was counted.
    pub fn count(&mut self, s: &ServiceState, counts: &[Counted]) {
        let Some(r) = s.rollout.as_ref().filter(|r| r.id.as_str() == self.rollout.as_str()) else { return };
        // What was counted before it began is another one's.
        if self.event == NotifyEvent::Started {
            return;
        }
        let count = |c: &Counted| {
            let candidate = c.revision == r.to;
            let version = if candidate { Some(self.to.clone()) } else { self.from.clone() };
            Count {
                role: if candidate { Role::Candidate } else { Role::Stable },
                version: version.unwrap_or_default(),
                requests: c.requests,
                errors: c.errors,
                retries: c.retries,
            }
        };
        self.counts = Some(counts.iter().map(count).collect());
    }

    /// In one line, for people in a chat.
    #[must_use]
    pub fn line(&self) -> String {
        let mut out = format!("[{} {}] {}", self.fleet, self.environment, self.text);
        if let Some(ms) = self.time_to_safe_ms {
            out += &format!("; safe after {:.1}s", ms as f64 / 1000.0);
        }
        let told = matches!(self.event, NotifyEvent::Aborted | NotifyEvent::Failed | NotifyEvent::Promoted);
        for c in self.counts.iter().flatten().filter(|_| told) {
            out += &format!("; {}: {} of {} requests failed", c.version, c.errors, c.requests);
            if c.retries > 0 {
                out += &format!(", {} were repeated elsewhere", c.retries);
            }
        }
        out
    }
}

/// For tests: one without a past.
#[cfg(test)]
pub(super) fn sample(seq: u64, event: NotifyEvent) -> News {
    News {
        schema: SCHEMA,
        id: format!("shop-{seq}-1790000000000"),
        event,
        at_ms: crate::controller::clock::wall_ms(),
        fleet: "shop".into(),
        environment: "staging".into(),
        service: "web".into(),
        rollout: "web-2".into(),
        strategy: "canary".into(),
        from: Some("1.4.2".into()),
        to: "1.5.0".into(),
        phase: Some(Phase { number: 2, count: 5, name: "25%".into(), weight: 25.0 }),
        by: "pilothouse".into(),
        reason: None,
        text: "web: phase 2 of 5: 25%".into(),
        time_to_safe_ms: None,
        counts: None,
        seq,
        of: "web".parse().unwrap(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_as_documented_and_a_line_says_what_it_came_to() {
        let count = |role, version: &str, requests, errors, retries| Count {
            role,
            version: version.into(),
            requests,
            errors,
            retries,
        };
        let mut n = sample(812, NotifyEvent::Aborted);
        n.at_ms = 1_790_000_000_000;
        n.reason = Some("verdict: 12 of 240 requests failed".into());
        n.text = "web: aborted: verdict: 12 of 240 requests failed".into();
        n.time_to_safe_ms = Some(4_120);
        n.counts = Some(vec![
            count(Role::Stable, "1.4.2", 9_120, 3, 0),
            count(Role::Candidate, "1.5.0", 240, 12, 7),
        ]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&n).unwrap());
        let documented = include_str!("../../../docs/numbers.md");
        for key in serde_json::to_value(&n).unwrap().as_object().unwrap().keys() {
            assert!(documented.contains(&format!("`{key}`")), "{key} is not explained in docs/numbers.md");
        }
        assert_eq!(
            n.line(),
            "[shop staging] web: aborted: verdict: 12 of 240 requests failed; safe after 4.1s; 1.4.2: 3 of 9120 requests \
             failed; 1.5.0: 12 of 240 requests failed, 7 were repeated elsewhere"
        );
    }
}
