//! Request numbers per revision: over the last seconds, and since a rollout began.

use std::collections::{BTreeMap, VecDeque};

use crate::api::{ComparisonView, MeasuredView, TrafficView};
use crate::fleet::names::{Bp, InstanceId, Millis, ProxyName, RevisionId};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::loss::LogLoss;

/// How far the rates look back.
const WINDOW: Millis = Millis::secs(10);

type PerInstance = BTreeMap<InstanceId, Counters>;

/// What the proxies counted, in samples of about a second.
#[derive(Default)]
pub struct Numbers {
    /// The last counters of each proxy; they never go backwards.
    last: BTreeMap<ProxyName, PerInstance>,
    /// The sum over proxies, sampled.
    samples: VecDeque<(Millis, PerInstance)>,
    /// The sums when the rollout under way began, per service.
    marks: BTreeMap<String, PerInstance>,
    /// When a service's shares last changed: what was measured before says nothing about them.
    changed: BTreeMap<String, Millis>,
    /// What two revisions do side by side, per service: of the last rollout that compared any.
    side_by_side: BTreeMap<String, SideBySide>,
    /// What came and was lost of the log lines that each proxy's counters are made of, if they are.
    lines: BTreeMap<ProxyName, LogLoss>,
    /// When a proxy last lost too many between two looks, and how many.
    losing: BTreeMap<ProxyName, (Millis, LogLoss)>,
}

/// Counters over the time in which two revisions served side by side at the same shares.
struct SideBySide {
    rollout: String,
    /// Wall clock, milliseconds since 1970.
    since_ms: u64,
    from: PerInstance,
    /// `None` while they still do.
    until: Option<PerInstance>,
}

impl Numbers {
    /// Takes in one proxy's counters.
    pub fn take(&mut self, now: Millis, proxy: &ProxyName, counters: PerInstance) {
        self.last.insert(proxy.clone(), counters);
        let mut sum = PerInstance::new();
        for counters in self.last.values() {
            for (id, c) in counters {
                sum.entry(id.clone()).or_default().add(c);
            }
        }
        // Several proxies report within the same second: one sample of that.
        if self.samples.back().is_some_and(|(at, _)| now.since(*at) < Millis(500)) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, sum));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Takes in what came and was lost of the lines that the proxy's counters of the same moment are made of.
    pub fn lines(&mut self, now: Millis, proxy: &ProxyName, loss: Option<LogLoss>) {
        let Some(loss) = loss else {
            self.lines.remove(proxy);
            self.losing.remove(proxy);
            return;
        };
        let before = self.lines.insert(proxy.clone(), loss).unwrap_or_default();
        let lost = loss.since(&before);
        if lost.too_many() {
            self.losing.insert(proxy.clone(), (now, lost));
        }
    }

    /// What these proxies' lines came to so far.
    #[must_use]
    pub fn lines_of(&self, proxies: &[ProxyName]) -> BTreeMap<ProxyName, LogLoss> {
        proxies.iter().filter_map(|p| Some((p.clone(), *self.lines.get(p)?))).collect()
    }

    /// The proxies that lose lines, or did a moment ago, in words.
    #[must_use]
    pub fn losing(&self, now: Millis) -> Vec<Safe> {
        let lately = self.losing.iter().filter(|(_, (at, _))| now.since(*at) < WINDOW);
        lately.map(|(proxy, (_, lost))| Safe::new(&lost.words(proxy.as_str()))).collect()
    }

    /// Numbers of a rollout are counted from here.
    pub fn mark(&mut self, service: &str) {
        match self.samples.back() {
            Some((_, now)) => self.marks.insert(service.to_owned(), now.clone()),
            None => self.marks.remove(service),
        };
    }

    /// Forgets instances that nobody asks for any more.
    pub fn forget(&mut self, gone: &dyn Fn(&InstanceId) -> bool) {
        let samples = self.samples.iter_mut().map(|(_, sample)| sample);
        for counters in self.last.values_mut().chain(samples).chain(self.marks.values_mut()) {
            counters.retain(|id, _| !gone(id));
        }
    }

    /// What a revision's instances did since the mark, also those that are gone; `None` when nobody counts, or nobody
    /// did when the rollout began.
    #[must_use]
    pub fn counted(&self, service: &str, revision: &RevisionId) -> Option<Counters> {
        let (mark, (_, now)) = (self.marks.get(service)?, self.samples.back()?);
        Some(of_revision(now, service, revision.as_str()).since(&of_revision(
            mark,
            service,
            revision.as_str(),
        )))
    }

    /// Everything that was ever counted for a revision's instances, also those that are gone; `None` while one of the
    /// proxies has not said anything: what it counted before would look like news when it does.
    #[must_use]
    pub fn totals(&self, service: &str, revision: &RevisionId, proxies: &[ProxyName]) -> Option<Counters> {
        let (_, now) = self.samples.back().filter(|_| proxies.iter().all(|p| self.last.contains_key(p)))?;
        Some(of_revision(now, service, revision.as_str()))
    }

    /// The service's shares are others from `now` on.
    pub fn shares_changed(&mut self, service: &str, now: Millis) {
        self.changed.insert(service.to_owned(), now);
    }

    /// Tells whether `rollout` has two revisions side by side now, to be compared: what they do meanwhile is counted
    /// apart from the rest. To be called again and again; only a change counts.
    pub fn compare(&mut self, service: &str, rollout: &str, comparing: bool, wall_ms: u64) {
        let Some((_, now)) = self.samples.back() else { return };
        let known = self.side_by_side.get_mut(service).filter(|c| c.rollout == rollout);
        match (known, comparing) {
            (Some(c), false) if c.until.is_none() => c.until = Some(now.clone()),
            (None, true) => {
                let (rollout, from) = (rollout.to_owned(), now.clone());
                let begun = SideBySide { rollout, since_ms: wall_ms, from, until: None };
                self.side_by_side.insert(service.to_owned(), begun);
            }
            _ => {}
        }
    }

    /// What the two revisions of `rollout`, each with its version, did side by side; `None` when nobody counted.
    #[must_use]
    pub fn comparison(
        &self,
        service: &str,
        rollout: &str,
        [stable, candidate]: [(&str, &str); 2],
    ) -> Option<ComparisonView> {
        let c = self.side_by_side.get(service).filter(|c| c.rollout == rollout)?;
        let until = match &c.until {
            Some(until) => until,
            None => &self.samples.back()?.1,
        };
        // Instances that are gone by now count as well.
        let measured = |(revision, version): (&str, &str)| {
            let did = of_revision(until, service, revision).since(&of_revision(&c.from, service, revision));
            // A request that failed here and was tried elsewhere is counted where it ended.
            let requests = did.requests + did.retries;
            MeasuredView {
                version: version.into(),
                requests,
                failed: did.bad().min(requests),
                p95_ms: did.latency.quantile_us(0.95).map(|us| us as f32 / 1000.0),
            }
        };
        Some(ComparisonView {
            since_ms: c.since_ms,
            over: c.until.is_some(),
            stable: measured(stable),
            candidate: measured(candidate),
        })
    }

    /// Requests in the window since the shares last changed, for measured shares.
    #[must_use]
    pub fn recent(&self, service: &str, instances: &[&InstanceId]) -> u64 {
        let since = self.changed.get(service).copied().unwrap_or_default();
        let first = self.samples.iter().find(|(at, _)| *at >= since);
        match (first, self.samples.back()) {
            (Some((_, first)), Some((_, last))) => {
                sum(last, instances).since(&sum(first, instances)).requests
            }
            _ => 0,
        }
    }

    /// The numbers of a revision, given its instances; `None` when no proxy counts anything.
    #[must_use]
    pub fn view(&self, service: &str, instances: &[&InstanceId]) -> Option<TrafficView> {
        let (window, seconds) = self.window(instances)?;
        let now = &self.samples.back()?.1;
        let total = sum(now, instances);
        let since = match self.marks.get(service) {
            Some(mark) => total.since(&sum(mark, instances)),
            None => total,
        };
        let ms = |us: u64| us as f32 / 1000.0;
        let attempts = window.requests.max(1) as f32;
        Some(TrafficView {
            rate: (window.requests as f64 / seconds) as f32,
            error_percent: if window.requests == 0 && window.bad() == 0 {
                0.0
            } else {
                (window.bad() as f32 / attempts * 100.0).min(100.0)
            },
            p50_ms: window.latency.quantile_us(0.5).map(ms),
            p95_ms: window.latency.quantile_us(0.95).map(ms),
            mean_ms: window.mean_ms.filter(|_| window.requests > 0).map(|m| m as f32),
            requests: since.requests,
            errors: since.errors,
            retries: since.retries,
        })
    }

    fn window(&self, instances: &[&InstanceId]) -> Option<(Counters, f64)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.0.since(first.0).0 as f64 / 1000.0;
        (seconds > 0.0).then(|| (sum(&last.1, instances).since(&sum(&first.1, instances)), seconds))
    }
}

/// The instances of a revision are told by their names: those that are gone count as well.
fn of_revision(of: &PerInstance, service: &str, revision: &str) -> Counters {
    let prefix = format!("{service}-{revision}-");
    let ids: Vec<&InstanceId> = of.keys().filter(|id| id.as_str().starts_with(&prefix)).collect();
    sum(of, &ids)
}

fn sum(of: &PerInstance, instances: &[&InstanceId]) -> Counters {
    let mut total = Counters::default();
    for id in instances {
        if let Some(c) = of.get(id) {
            total.add(c);
        }
    }
    total
}

/// The measured share of `part` in `whole`; `None` with too few requests to say.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<Bp> {
    (whole >= 20).then(|| Bp::ratio(part, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(id: &InstanceId, requests: u64, errors: u64) -> PerInstance {
        [(id.clone(), Counters { requests, errors, ..Counters::default() })].into()
    }

    #[test]
    fn rates_look_back_ten_seconds_and_sum_over_proxies() {
        let (one, two): (ProxyName, ProxyName) = ("p1".parse().unwrap(), "p2".parse().unwrap());
        let id: InstanceId = "web-00000001-1".parse().unwrap();
        let mut n = Numbers::default();
        for s in 0..=30 {
            n.take(Millis::secs(s), &one, counters(&id, s * 10, s));
            n.take(Millis(s * 1000 + 100), &two, counters(&id, s * 30, 0));
            if s == 15 {
                n.mark("web");
            }
        }
        let v = n.view("web", &[&id]).unwrap();
        assert!((v.rate - 40.0).abs() < 1.0, "{v:?}");
        assert!((v.error_percent - 2.5).abs() < 0.1, "{v:?}");
        assert_eq!((v.requests, v.errors), (600, 15));
        assert_eq!(n.recent("web", &[&id]), 400);
        n.shares_changed("web", Millis::secs(28));
        assert_eq!(n.recent("web", &[&id]), 80, "only what came after the change");
        let counted = n.counted("web", &"00000001".parse().unwrap()).unwrap();
        assert_eq!((counted.requests, counted.errors), (600, 15));
        assert_eq!(n.counted("web", &"00000002".parse().unwrap()).unwrap().requests, 0);
        assert_eq!(n.counted("api", &"00000001".parse().unwrap()), None, "nobody looked when it began");
        assert_eq!(share(5, 19), None);
    }

    #[test]
    fn two_revisions_are_compared_only_while_they_are_side_by_side() {
        let proxy: ProxyName = "p1".parse().unwrap();
        let (a, b): (InstanceId, InstanceId) =
            ("web-0000000a-1".parse().unwrap(), "web-0000000b-1".parse().unwrap());
        let mut n = Numbers::default();
        let names = [("0000000a", "1.0"), ("0000000b", "2.0")];
        for s in 0..=30 {
            let retries = s;
            let mut now = counters(&a, s * 10, 0);
            now.insert(b.clone(), Counters { requests: s * 5, errors: s, retries, ..Counters::default() });
            n.take(Millis::secs(s), &proxy, now);
            n.compare("web", "web-2", (10..20).contains(&s), 1_000 * s);
        }
        let c = n.comparison("web", "web-2", names).unwrap();
        assert!(c.over && c.since_ms == 10_000, "{c:?}");
        assert_eq!((c.stable.requests, c.stable.failed), (100, 0));
        assert_eq!((c.candidate.requests, c.candidate.failed), (60, 20), "what the proxy hid counts");
        assert_eq!(n.comparison("web", "web-1", names), None, "another rollout's");
        n.compare("web", "web-3", true, 31_000);
        assert_eq!(n.comparison("web", "web-2", names), None);
        assert!(!n.comparison("web", "web-3", names).unwrap().over);
    }

    #[test]
    fn a_proxy_that_has_not_spoken_yet_is_waited_for() {
        let (one, two): (ProxyName, ProxyName) = ("p1".parse().unwrap(), "p2".parse().unwrap());
        let id: InstanceId = "web-0000000a-1".parse().unwrap();
        let both = [one.clone(), two.clone()];
        let revision = "0000000a".parse().unwrap();
        let mut n = Numbers::default();
        n.take(Millis::secs(1), &one, counters(&id, 100, 1));
        assert_eq!(n.totals("web", &revision, &both), None);
        assert_eq!(n.totals("web", &revision, &both[..1]).unwrap().requests, 100);
        n.take(Millis::secs(1), &two, counters(&id, 5_000, 1));
        assert_eq!(n.totals("web", &revision, &both).unwrap().requests, 5_100);
    }

    #[test]
    fn a_proxy_that_loses_lines_is_named_for_as_long_as_rates_look_back() {
        let (one, two): (ProxyName, ProxyName) = ("p1".parse().unwrap(), "p2".parse().unwrap());
        let mut n = Numbers::default();
        let so_far = |came, dropped| Some(LogLoss { came, dropped, ..LogLoss::default() });
        n.lines(Millis::secs(1), &one, so_far(1_000, 0));
        n.lines(Millis::secs(1), &two, None);
        assert!(n.losing(Millis::secs(1)).is_empty());
        n.lines(Millis::secs(2), &one, so_far(2_000, 500));
        n.lines(Millis::secs(3), &one, so_far(3_000, 500));
        let said = n.losing(Millis::secs(11));
        assert_eq!(said.len(), 1);
        assert!(
            said[0].as_str().starts_with("33.3% of the log lines of proxy p1 were lost (500 of 1,500"),
            "{said:?}"
        );
        assert!(n.losing(Millis::secs(12)).is_empty());
        assert_eq!(n.lines_of(&[one, two]).len(), 1);
    }

    #[test]
    fn a_share_of_few_requests_says_nothing() {
        assert_eq!(share(5, 19), None);
        assert_eq!(share(5, 100), Some(Bp::percent(5)));
    }
}
