//! Counters of sources that begin anew (a worker after a reload, a process after a restart), added up to ones that never go
//! backwards.

use std::collections::BTreeMap;

use super::Counters;
use crate::fleet::names::InstanceId;

/// Totals per instance, and what each source said last. `S` names a life of a source: what begins with nothing has another
/// name, or smaller counts.
#[derive(Clone, Debug)]
pub struct Totals<S> {
    totals: BTreeMap<InstanceId, Counters>,
    last: BTreeMap<(S, InstanceId), Counters>,
}

impl<S> Default for Totals<S> {
    fn default() -> Self {
        Self { totals: BTreeMap::new(), last: BTreeMap::new() }
    }
}

impl<S: Ord> Totals<S> {
    /// Takes what a source says of an instance now; what of it is new.
    pub fn take(&mut self, source: S, instance: &InstanceId, now: Counters) -> Counters {
        let key = (source, instance.clone());
        let fresh = match self.last.get(&key) {
            // Smaller counts are a new life under the same name: all of it is new.
            Some(last) if now.requests < last.requests || now.retries < last.retries => now.clone(),
            Some(last) => now.since(last),
            None => now.clone(),
        };
        self.totals.entry(instance.clone()).or_default().add(&fresh);
        self.last.insert(key, now);
        fresh
    }

    /// The totals, to be read or mended.
    pub fn all(&mut self) -> &mut BTreeMap<InstanceId, Counters> {
        &mut self.totals
    }

    /// Forgets what sources said that are gone.
    pub fn keep_sources(&mut self, there: impl Fn(&S) -> bool) {
        self.last.retain(|(source, _), _| there(source));
    }

    /// Forgets instances that nobody asks for any more.
    pub fn forget(&mut self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.totals.retain(|id, _| !gone(id));
        self.last.retain(|(_, id), _| !gone(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(requests: u64, errors: u64) -> Counters {
        Counters { requests, errors, ..Counters::default() }
    }

    #[test]
    fn what_begins_anew_is_added_and_what_is_forgotten_is_gone() {
        let (one, two): (InstanceId, InstanceId) =
            ("web-00000001-1".parse().unwrap(), "web-00000001-2".parse().unwrap());
        let mut t = Totals::default();
        t.take("a", &one, counters(10, 1));
        assert_eq!(t.take("a", &one, counters(12, 1)).requests, 2);
        t.take("b", &one, counters(5, 5));
        t.take("a", &one, counters(1, 0));
        assert_eq!((t.all()[&one].requests, t.all()[&one].errors), (18, 6));
        t.keep_sources(|s| *s == "b");
        t.take("a", &one, counters(3, 0));
        assert_eq!(t.all()[&one].requests, 21, "a source that was forgotten begins anew");
        t.take("b", &two, counters(7, 0));
        t.forget(&|id| *id == one);
        assert!(t.all().keys().eq([&two]));
    }
}
