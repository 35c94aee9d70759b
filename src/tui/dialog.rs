//! Questions before something happens, and the rules for answering them.
//!
//! The safe direction is fast: abort is confirmed by the next key. For the rest the confirming key counts only when
//! it comes a moment after the question was drawn and a moment after any other key, so that pasted letters or a
//! bounced key never confirm; and Enter alone never does.

use crate::api::{Role, RolloutStatus, RolloutView, ServiceView, VerbKind};
use crate::text::Safe;

use super::model::{Input, Model, Planned};

/// A confirming key must come this long after the question was drawn, and after the key before it.
pub const QUIET_MS: u64 = 150;

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialog {
    /// The service it is about.
    pub service: Safe,
    /// What is asked.
    pub ask: Ask,
    /// The decision that the verb carries: what the operator saw when the question opened, or the plan's.
    pub decision: Option<u64>,
    /// The decision of the rollout in view when what is asked was put together.
    pub view: Option<u64>,
    /// The rollout that was under way then.
    pub rollout: Option<Safe>,
    /// How the rollout stood then, in words.
    pub seen: Option<String>,
    /// When it was drawn first.
    pub shown_ms: Option<u64>,
    /// The service's name must be typed; what was typed so far.
    pub type_name: Option<Input>,
    /// Why the last answer did not count.
    pub complaint: Option<Safe>,
}

/// What a dialog asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Give all traffic back to stable?
    Abort,
    /// Next phase, or all of them?
    Promote {
        /// Past all gates.
        full: bool,
    },
    /// Go on?
    Resume,
    /// Go back to the previous version? In mid-rollout: everything, or one host alone?
    Rollback {
        /// This host alone; `None` for everything.
        host: Option<Safe>,
    },
    /// Held hosts take part again?
    Retry,
    /// Which version?
    Pick(Pick),
    /// The plan of that version has been asked for.
    Planning {
        /// The version.
        version: String,
    },
    /// Do it as planned?
    Deploy(Box<Planned>),
}

/// Choosing a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pick {
    /// What was typed.
    pub input: Input,
    /// The chosen line of the list; `None` takes what was typed.
    pub cursor: Option<usize>,
}

impl Pick {
    /// Nothing typed, and the newest version that does not serve already.
    #[must_use]
    pub fn new(service: &ServiceView) -> Self {
        let stable = service.stable.as_ref().map(|s| &s.version);
        let cursor = service.known_versions.iter().position(|v| Some(v) != stable);
        Self { input: Input::default(), cursor }
    }

    /// The versions that contain what was typed.
    #[must_use]
    pub fn offered<'a>(&self, service: &'a ServiceView) -> Vec<&'a Safe> {
        service.known_versions.iter().filter(|v| v.as_str().contains(&self.input.text)).collect()
    }

    /// What Enter takes now.
    #[must_use]
    pub fn choice(&self, service: &ServiceView) -> Option<String> {
        let picked = self.cursor.and_then(|n| self.offered(service).get(n).map(|v| v.as_str().to_owned()));
        picked.or_else(|| Some(self.input.text.clone()).filter(|t| !t.is_empty()))
    }
}

impl Dialog {
    /// Opens a question about the selected service.
    #[must_use]
    pub fn open(model: &Model, service: &ServiceView, ask: Ask) -> Self {
        let mut dialog = Self {
            service: service.name.clone(),
            decision: service.rollout.as_ref().map(|r| r.decision),
            view: service.rollout.as_ref().map(|r| r.decision),
            rollout: service.rollout.as_ref().filter(|r| !r.status.ended()).map(|r| r.id.clone()),
            seen: stance(service),
            ask,
            shown_ms: None,
            type_name: None,
            complaint: None,
        };
        dialog.guard(model);
        dialog
    }

    /// In production, what cannot be taken back in one step asks for the service's name.
    pub fn guard(&mut self, model: &Model) {
        let production = model.snapshot.as_ref().is_some_and(|s| s.production);
        let heavy = matches!(self.ask, Ask::Promote { full: true } | Ask::Deploy(_));
        self.type_name = (production && heavy).then(Input::default);
    }

    /// Whether the answer must not come in a hurry.
    #[must_use]
    pub fn risky(&self) -> bool {
        !matches!(self.ask, Ask::Abort)
    }

    /// The verb it would send.
    #[must_use]
    pub fn verb(&self) -> VerbKind {
        match self.ask {
            Ask::Abort => VerbKind::Abort,
            Ask::Promote { .. } => VerbKind::Promote,
            Ask::Resume => VerbKind::Resume,
            Ask::Rollback { .. } => VerbKind::Rollback,
            Ask::Retry => VerbKind::Retry,
            Ask::Pick(_) | Ask::Planning { .. } | Ask::Deploy(_) => VerbKind::Deploy,
        }
    }

    /// Whether `y` answers it now: it asks yes or no, and no name has to be typed.
    #[must_use]
    pub fn yes_no(&self) -> bool {
        self.type_name.is_none() && !matches!(self.ask, Ask::Pick(_) | Ask::Planning { .. })
    }

    /// What is different now from when it opened, in words.
    #[must_use]
    pub fn moved_on(&self, model: &Model) -> Option<String> {
        if self.ask == Ask::Abort {
            return None;
        }
        let service = model.service_named(&self.service)?;
        // Going back in mid-rollout needs only that rollout, like abort: batches that follow each other every few
        // seconds must not keep an operator from taking a host out.
        if let (Ask::Rollback { host }, Some(seen)) = (&self.ask, &self.rollout) {
            let same = |r: &&RolloutView| r.id == *seen && !r.status.ended();
            let held = |r: &RolloutView| host.as_ref().is_some_and(|h| r.held.contains(h));
            return match service.rollout.as_ref().filter(same) {
                Some(r) if !held(r) => None,
                _ => Some(changed(self.seen.as_deref(), service)),
            };
        }
        let now = service.rollout.as_ref().map(|r| r.decision);
        (now != self.view).then(|| changed(self.seen.as_deref(), service))
    }
}

/// Hosts of which one can be rolled back alone in the rollout under way: the selected instance's first, then those
/// that run the candidate, by name.
#[must_use]
pub fn single_hosts(model: &Model, service: &ServiceView) -> Vec<Safe> {
    let Some(r) = service.rollout.as_ref().filter(|r| !r.status.ended() && r.from.is_some()) else {
        return vec![];
    };
    let instances = model.snapshot.as_ref().map(|s| s.instances.as_slice()).unwrap_or_default();
    let ours = instances.iter().filter(|i| i.service == service.name && !r.held.contains(&i.host));
    let mut hosts: Vec<(bool, &Safe)> = ours.map(|i| (i.role != Role::Candidate, &i.host)).collect();
    hosts.sort_unstable();
    let selected = model.instance_view().filter(|i| i.service == service.name).map(|i| &i.host);
    let mut out: Vec<Safe> = Vec::new();
    for host in selected
        .filter(|h| hosts.iter().any(|(_, o)| o == h))
        .into_iter()
        .chain(hosts.iter().map(|(_, h)| *h))
    {
        if !out.contains(host) {
            out.push(host.clone());
        }
    }
    out
}

/// `you saw: …; now: …`.
#[must_use]
pub fn changed(seen: Option<&str>, service: &ServiceView) -> String {
    let none = "no rollout".to_owned();
    let now = stance(service).unwrap_or_else(|| none.clone());
    format!("you saw: {}; now: {now}", seen.map_or(none, str::to_owned))
}

/// How a service's rollout stands, in a few words: `canary to 1.5.0, running, phase 3/5 25%`.
#[must_use]
pub fn stance(service: &ServiceView) -> Option<String> {
    let r = service.rollout.as_ref()?;
    let status = r.status.as_str();
    Some(match (r.status, r.phases.get(r.phase)) {
        (RolloutStatus::Running | RolloutStatus::Paused | RolloutStatus::Frozen, Some(p)) => {
            format!(
                "{} to {}, {status}, phase {}/{} ({})",
                r.strategy,
                r.to,
                r.phase + 1,
                r.phases.len(),
                p.name
            )
        }
        _ => format!("{} to {}, {status}", r.strategy, r.to),
    })
}
