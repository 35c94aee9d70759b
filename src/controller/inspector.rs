//! Keeps the checks of rollouts going: one task for each that is to be asked now.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::hands::Hands;
use crate::checks::{Question, Subject};
use crate::fleet::names::{CheckName, FleetName, RevisionId, RolloutId, ServiceName};
use crate::rollout::decide;
use crate::rollout::state::{Rollout, ServiceState, State};
use crate::rollout::world::Observed;

/// What is asked now, and by whom.
#[derive(Default)]
pub struct Inspector {
    asking: HashMap<(ServiceName, CheckName), (RolloutId, Question, JoinHandle<()>)>,
}

impl Inspector {
    /// Asks what is to be asked now, and nothing else any more. A question that became another, because instances came
    /// or went, is put anew at once.
    pub fn follow(&mut self, state: &State, obs: &mut Observed, hands: &Arc<Hands>) {
        let mut wanted = HashMap::new();
        for (name, service) in state.services.iter().filter(|(_, s)| !s.spec.checks.is_empty()) {
            let Some(r) = service.active() else { continue };
            let Some(fleet) = state.fleet.as_ref().filter(|_| decide::to_be_asked(service, r)) else {
                continue;
            };
            let Some(subject) = subject(&fleet.name, service, r) else { continue };
            for check in decide::checks(service, r) {
                let question = Question::new(check, &subject);
                wanted.insert((name.clone(), check.name.clone()), (r.id.clone(), question));
            }
        }
        self.asking.retain(|key, (rollout, question, task)| {
            let keep = wanted.get(key).is_some_and(|(r, q)| r == rollout && q == question);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, (rollout, question)) in wanted {
            self.asking.entry(key).or_insert_with_key(|(service, check)| {
                let task = hands.inspect(service.clone(), rollout.clone(), check.clone(), question.clone());
                (rollout, question, task)
            });
        }
        // What an ended rollout was told means nothing to the next one.
        obs.checks.retain(|name, _| state.services.get(name).and_then(ServiceState::active).is_some());
    }

    /// Whether this is being asked, for this rollout.
    #[must_use]
    pub fn asks(&self, service: &ServiceName, check: &CheckName, rollout: &RolloutId) -> bool {
        self.asking.get(&(service.clone(), check.clone())).is_some_and(|(r, ..)| r == rollout)
    }

    /// Asks nothing any more.
    pub fn end(&mut self) {
        self.asking.drain().for_each(|(_, (.., task))| task.abort());
    }
}

/// What is asked about; `None` where there is nothing to compare with.
fn subject(fleet: &FleetName, service: &ServiceState, r: &Rollout) -> Option<Subject> {
    let one = |id: &RevisionId| {
        let version = service.revisions.get(id)?.version.clone();
        Some((version, id.clone(), service.of(id).filter_map(|i| i.endpoint).collect()))
    };
    Some(Subject {
        fleet: fleet.clone(),
        service: service.spec.name.clone(),
        rollout: r.id.clone(),
        candidate: one(&r.to)?,
        stable: one(r.from.as_ref()?)?,
    })
}
