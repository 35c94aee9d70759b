//! What is counted for `/metrics` and only ever grows: requests of each revision, probes, rollouts.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::ProbeView;
use crate::fleet::names::{InstanceId, ProxyName, ServiceName};
use crate::rollout::fact::Fact;
use crate::rollout::state::{Outcome, State};
use crate::traffic::Counters;
use crate::traffic::loss::LogLoss;
use crate::traffic::totals::Totals;

/// Service and revision, both as texts: instances that are gone by now are told by their names.
pub type Of = (String, String);

/// Rollouts of one service, over the whole journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollouts {
    /// That began.
    pub started: u64,
    /// That were promoted.
    pub done: u64,
    /// That went back.
    pub aborted: u64,
    /// That did neither.
    pub failed: u64,
}

/// See the top of the file.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// What was counted of each revision since this controller began. A number of before would look like news to whoever
    /// has seen the last controller's.
    pub requests: BTreeMap<Of, Counters>,
    /// Probes that passed and that failed, by revision and host.
    pub probes: BTreeMap<(Of, String), [u64; 2]>,
    /// Rollouts.
    pub rollouts: BTreeMap<ServiceName, Rollouts>,
    /// Log lines that came and were lost, by proxy.
    pub lines: BTreeMap<ProxyName, LogLoss>,
    /// What the proxies said last.
    last: Totals<ProxyName>,
    /// Proxies that have said anything.
    spoke: BTreeSet<ProxyName>,
}

impl Tally {
    /// Takes in one proxy's counters.
    pub fn take(&mut self, proxy: &ProxyName, counters: &BTreeMap<InstanceId, Counters>) {
        // What a proxy says first was counted before.
        let first = self.spoke.insert(proxy.clone());
        for (id, now) in counters {
            let fresh = self.last.take(proxy.clone(), id, now.clone());
            if let Some(of) = of(id.as_str()) {
                let total = self.requests.entry(of).or_default();
                if !first {
                    total.add(&fresh);
                }
            }
        }
    }

    /// Takes in what came and was lost of one proxy's log lines, if it has any.
    pub fn lines(&mut self, proxy: &ProxyName, loss: Option<LogLoss>) {
        match loss {
            Some(loss) => self.lines.insert(proxy.clone(), loss),
            None => self.lines.remove(proxy),
        };
    }

    /// An instance was probed.
    pub fn probed(&mut self, probe: &ProbeView) {
        let Some(of) = of(probe.instance.as_str()) else { return };
        let [passed, failed] = self.probes.entry((of, probe.host.to_string())).or_default();
        *if probe.ok { passed } else { failed } += 1;
    }

    /// A fact was written.
    pub fn happened(&mut self, fact: &Fact) {
        let Some(service) = fact.service() else { return };
        let count = |all: &mut Self, add: fn(&mut Rollouts)| {
            add(all.rollouts.entry(service.clone()).or_default());
        };
        match fact {
            Fact::RolloutStarted { .. } => count(self, |r| r.started += 1),
            Fact::Promoted { .. } | Fact::RolloutEnded { outcome: Outcome::Done, .. } => {
                count(self, |r| r.done += 1);
            }
            Fact::RolloutEnded { outcome: Outcome::Aborted, .. } => count(self, |r| r.aborted += 1),
            Fact::RolloutEnded { outcome: Outcome::Failed, .. } => count(self, |r| r.failed += 1),
            _ => {}
        }
    }

    /// Forgets revisions and services that are gone.
    pub fn forget(&mut self, state: &State) {
        let known: BTreeSet<Of> = state
            .services
            .iter()
            .flat_map(|(name, s)| s.revisions.keys().map(move |r| (name.to_string(), r.to_string())))
            .collect();
        self.requests.retain(|of, _| known.contains(of));
        self.probes.retain(|(of, _), _| known.contains(of));
        self.rollouts.retain(|name, _| state.services.contains_key(name));
    }

    /// Forgets instances that nobody asks for any more. Their revision keeps what they counted.
    pub fn forget_instances(&mut self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.last.forget(gone);
    }
}

/// The service and the revision of an instance; `None` for a hook's.
fn of(instance: &str) -> Option<Of> {
    let (rest, n) = instance.rsplit_once('-')?;
    let (service, revision) = rest.rsplit_once('-')?;
    let hex = revision.len() == 8 && revision.bytes().all(|b| b.is_ascii_hexdigit());
    (hex && n.bytes().all(|b| b.is_ascii_digit())).then(|| (service.to_owned(), revision.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: &str, requests: u64, errors: u64) -> BTreeMap<InstanceId, Counters> {
        [(id.parse().unwrap(), Counters { requests, errors, ..Counters::default() })].into()
    }

    #[test]
    fn counts_begin_with_the_controller_and_never_go_back() {
        let (one, two): (ProxyName, ProxyName) = ("p1".parse().unwrap(), "p2".parse().unwrap());
        let web = ("web".to_owned(), "0000000a".to_owned());
        let mut t = Tally::default();
        t.take(&one, &said("web-0000000a-1", 5_000, 40));
        t.take(&two, &said("web-0000000a-1", 70, 0));
        assert_eq!(t.requests[&web].requests, 0, "counted before this controller began");
        t.take(&one, &said("web-0000000a-1", 5_010, 41));
        t.take(&two, &said("web-0000000a-1", 75, 0));
        assert_eq!((t.requests[&web].requests, t.requests[&web].errors), (15, 1));
        let mut both = said("web-0000000a-1", 5_010, 41);
        both.extend(said("web-0000000b-1", 9, 9));
        t.take(&one, &both);
        let new = ("web".to_owned(), "0000000b".to_owned());
        assert_eq!(t.requests[&new].requests, 9, "who comes later has counted nothing before");
        t.forget_instances(&|id| id.as_str() == "web-0000000a-1");
        assert_eq!(t.requests[&web].requests, 15, "its revision still counts");
        t.take(&one, &said("web-0000000a-1", 3, 0));
        assert_eq!(t.requests[&web].requests, 18, "a proxy that began anew");
        t.forget(&State::default());
        assert!(t.requests.is_empty());
    }

    #[test]
    fn instances_are_told_from_hooks_by_their_names() {
        assert_eq!(of("my-web-0123abcd-12"), Some(("my-web".into(), "0123abcd".into())));
        assert_eq!(of("web-3-before-start-1"), None);
        assert_eq!(of("web"), None);
    }
}
