//! What changed from one snapshot to the next.

use serde::{Deserialize, Serialize};

use super::{EventView, HostView, InstanceView, ProbeView, ProxyView, ServiceView, Snapshot};
use crate::text::Safe;

/// Events and probes that a snapshot keeps.
pub const TAIL: usize = 500;

/// The changes that lead from the state with `seq` − 1 to the one with `seq`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Number of the state after it.
    pub seq: u64,
    /// What changed, in the order in which it is to be applied.
    pub changes: Vec<Change>,
}

/// One change. A view replaces the one with the same name or id, or is new.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A host.
    Host(HostView),
    /// A host is no longer declared.
    HostGone(Safe),
    /// A proxy.
    Proxy(ProxyView),
    /// A proxy is no longer declared.
    ProxyGone(Safe),
    /// A service.
    Service(Box<ServiceView>),
    /// A service is gone.
    ServiceGone(Safe),
    /// An instance.
    Instance(Box<InstanceView>),
    /// An instance is gone.
    InstanceGone(Safe),
    /// Something happened.
    Event(EventView),
    /// An instance was probed.
    Probe(ProbeView),
    /// Who is watching.
    Watchers(Vec<Safe>),
    /// What is wrong with the controller itself.
    Alarms(Vec<Safe>),
    /// Environment and production flag (a changed fleet file was loaded).
    Environment(Safe, bool),
}

impl Snapshot {
    /// Applies a delta. `false` when there is a gap: ask for a new snapshot.
    pub fn apply(&mut self, delta: Delta) -> bool {
        if delta.seq != self.seq + 1 {
            return false;
        }
        self.seq = delta.seq;
        for change in delta.changes {
            self.apply_one(change);
        }
        true
    }

    fn apply_one(&mut self, change: Change) {
        match change {
            Change::Host(v) => put(&mut self.hosts, v, |x| &x.name),
            Change::HostGone(n) => self.hosts.retain(|x| x.name != n),
            Change::Proxy(v) => put(&mut self.proxies, v, |x| &x.name),
            Change::ProxyGone(n) => self.proxies.retain(|x| x.name != n),
            Change::Service(v) => put(&mut self.services, *v, |x| &x.name),
            Change::ServiceGone(n) => self.services.retain(|x| x.name != n),
            Change::Instance(v) => {
                put(&mut self.instances, *v, |x| &x.id);
            }
            Change::InstanceGone(n) => self.instances.retain(|x| x.id != n),
            Change::Event(v) => push(&mut self.events, v),
            Change::Probe(v) => push(&mut self.probes, v),
            Change::Watchers(v) => self.watchers = v,
            Change::Alarms(v) => self.alarms = v,
            Change::Environment(name, production) => {
                self.environment = name;
                self.production = production;
            }
        }
    }

    /// The changes that lead from `self` to `next`, except for events and probes, which are only ever added.
    #[must_use]
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let mut out = Vec::new();
        if (&self.environment, self.production) != (&next.environment, next.production) {
            out.push(Change::Environment(next.environment.clone(), next.production));
        }
        diff(&self.hosts, &next.hosts, |x| &x.name, Change::Host, Change::HostGone, &mut out);
        diff(&self.proxies, &next.proxies, |x| &x.name, Change::Proxy, Change::ProxyGone, &mut out);
        let service = |v| Change::Service(Box::new(v));
        diff(&self.services, &next.services, |x| &x.name, service, Change::ServiceGone, &mut out);
        let instance = |v| Change::Instance(Box::new(v));
        diff(&self.instances, &next.instances, |x| &x.id, instance, Change::InstanceGone, &mut out);
        if self.watchers != next.watchers {
            out.push(Change::Watchers(next.watchers.clone()));
        }
        if self.alarms != next.alarms {
            out.push(Change::Alarms(next.alarms.clone()));
        }
        out
    }
}

/// Replaces the element with the same key, or inserts it in key order. Lists are kept sorted by key.
fn put<T>(list: &mut Vec<T>, value: T, key: impl Fn(&T) -> &Safe) {
    match list.binary_search_by(|x| key(x).cmp(key(&value))) {
        Ok(i) => {
            if let Some(slot) = list.get_mut(i) {
                *slot = value;
            }
        }
        Err(i) => list.insert(i, value),
    }
}

fn push<T>(list: &mut Vec<T>, value: T) {
    list.push(value);
    if list.len() > TAIL {
        list.drain(..list.len() - TAIL);
    }
}

/// Both lists are sorted by key, so one pass finds what is new, changed or gone.
fn diff<T: Clone + PartialEq>(
    old: &[T],
    new: &[T],
    key: impl Fn(&T) -> &Safe,
    put: impl Fn(T) -> Change,
    gone: impl Fn(Safe) -> Change,
    out: &mut Vec<Change>,
) {
    let mut old = old.iter().peekable();
    for n in new {
        while let Some(o) = old.next_if(|o| key(o) < key(n)) {
            out.push(gone(key(o).clone()));
        }
        let same = old.next_if(|o| key(o) == key(n));
        if same != Some(n) {
            out.push(put(n.clone()));
        }
    }
    out.extend(old.map(|o| gone(key(o).clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, state: &str) -> InstanceView {
        InstanceView { id: id.into(), state: state.into(), ..InstanceView::default() }
    }

    #[test]
    fn applying_the_difference_gives_the_next_snapshot() {
        let old = Snapshot {
            instances: vec![instance("a", "running"), instance("b", "running"), instance("d", "running")],
            ..Snapshot::default()
        };
        let mut next = old.clone();
        next.instances = vec![instance("a", "running"), instance("b", "exited"), instance("c", "starting")];
        next.alarms = vec!["x".into()];
        let changes = old.changes_to(&next);
        assert_eq!(changes.len(), 4, "{changes:?}");
        let mut got = old.clone();
        assert!(got.apply(Delta { seq: 1, changes }));
        next.seq = 1;
        assert_eq!(got, next);
    }

    #[test]
    fn a_gap_is_noticed() {
        let mut s = Snapshot::default();
        assert!(!s.apply(Delta { seq: 2, changes: vec![] }));
    }

    #[test]
    fn tails_are_bounded() {
        let mut s = Snapshot::default();
        for seq in 1..=(TAIL as u64 + 10) {
            let event = EventView { seq, ..EventView::default() };
            assert!(s.apply(Delta { seq, changes: vec![Change::Event(event)] }));
        }
        assert_eq!(s.events.len(), TAIL);
        assert_eq!(s.events.first().map(|e| e.seq), Some(11));
    }
}
