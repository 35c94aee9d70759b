//! What is no evidence because log lines were lost: they could be the very ones that failed.
//!
//! Lines that are lost say nothing, so nothing is *passed* by the ones that came beside them: neither in that interval nor in
//! the next, in which what was written meanwhile may still have waited in the buffer. Against a candidate the ones that came
//! count as ever: the kernel throws away what finds no room, whosever line it is, and rates of what is left are those of
//! all. Were some lost more often than others, the worst of it would be a good candidate that is taken back; to keep back
//! an abort would leave a bad one in its place for as long as the machine is too busy to read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Bad;
use crate::fleet::names::{Millis, ProxyName};
use crate::traffic::loss::LogLoss;

/// Which counts of an interval cannot be counted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    failures: bool,
    latency: bool,
}

impl Gap {
    /// Where a proxy's own counters tell what failed, only response times are missing.
    fn of(lost: &LogLoss) -> Self {
        Self { failures: !lost.latency_only, latency: true }
    }

    fn and(self, other: Self) -> Self {
        Self { failures: self.failures || other.failures, latency: self.latency || other.latency }
    }

    pub(super) fn covers(self, bad: Bad) -> bool {
        match bad {
            Bad::Failed => self.failures,
            Bad::Slower(_) => self.latency,
        }
    }
}

/// What was lost at one share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lost {
    /// In the interval that ends now, and in the one before.
    now: Gap,
    before: Gap,
    /// Of the proxies that lost too many lines, what came and was lost while they did.
    proxies: BTreeMap<ProxyName, LogLoss>,
    /// When the last interval ended in which something that is judged was missing.
    last: Option<Millis>,
    /// Whether that was the last of all.
    pub(super) going_on: bool,
}

impl Lost {
    /// What a proxy lost since the last tick.
    pub(super) fn take(&mut self, proxy: &ProxyName, lost: &LogLoss) {
        if lost.too_many() {
            self.now = self.now.and(Gap::of(lost));
            self.proxies.entry(proxy.clone()).or_default().add(lost);
        }
    }

    /// An interval ends; what of it cannot be counted on.
    pub(super) fn tick(&mut self) -> Gap {
        let gap = self.now.and(self.before);
        self.before = std::mem::take(&mut self.now);
        gap
    }

    /// Whether something that is judged was missing in the interval that has ended at `now`.
    pub(super) fn missed(&mut self, missed: bool, now: Millis) {
        self.going_on = missed;
        if missed {
            self.last = Some(now);
        }
    }

    /// Since when everything was counted; `None` when it always was.
    pub(super) fn counted_since(&self) -> Option<Millis> {
        self.last
    }

    /// Another share: what was lost before says nothing about it, but what waits in the buffer is still to come.
    pub(super) fn enter(&mut self) {
        *self = Self { now: self.now, before: self.before, ..Self::default() };
    }

    /// In words; empty when nothing that is judged was missing.
    pub(super) fn words(&self) -> String {
        if self.last.is_none() {
            return String::new();
        }
        let words: Vec<String> =
            self.proxies.iter().map(|(proxy, lost)| lost.words(proxy.as_str())).collect();
        format!("; {}: nothing is passed by what is left", words.join("; "))
    }
}
