//! What `/metrics` says: docs/numbers.md has the table for operators.
//!
//! Labels are names that the fleet file or the route holds now (services, hosts, proxies, the two or three revisions of a
//! service), and words of a fixed set: a page grows with the fleet, never with its past.

use std::collections::BTreeMap;

use super::tally::{Of, Tally};
use super::text::{Kind, Page};
use crate::api::{HealthView, InstanceView, RevisionView, Role, RolloutStatus, RolloutView, Snapshot};
use crate::controller::notify::Told;
use crate::fleet::names::{Bp, Millis, ProxyName, ServiceName, TargetName};
use crate::rollout::state::State;
use crate::rollout::world::{Observed, Slot};

/// What a page is made of.
pub struct Source {
    /// What front ends see now.
    pub snapshot: Snapshot,
    /// What the helm knows beside that.
    pub known: Known,
}

/// What no snapshot has.
pub struct Known {
    /// What was counted.
    pub tally: Tally,
    /// What the proxies were read back doing.
    pub actual: Vec<Actual>,
    /// How long it took to make the last rollout of a service safe: from its first bad answer, and from the decision.
    pub safe: BTreeMap<ServiceName, (Option<Millis>, Millis)>,
    /// How it stands with each receiver of notifications.
    pub told: BTreeMap<TargetName, Told>,
}

/// A share that one proxy was read back giving.
pub struct Actual {
    /// The service and the revision that has the slot.
    pub of: Of,
    /// The proxy.
    pub proxy: ProxyName,
    /// Its share, of the worker that deviates most from what was set.
    pub share: Bp,
}

/// The shares that every proxy that can be asked was read back with.
#[must_use]
pub fn actual(state: &State, obs: &Observed) -> Vec<Actual> {
    let mut out = Vec::new();
    for s in state.services.values() {
        let name = &s.spec.name;
        for slot in Slot::BOTH {
            let Some(revision) = s.slots.get(slot) else { continue };
            let set = *s.weights.get(slot);
            for proxy in &s.spec.proxies {
                let seen = obs.proxies.get(proxy).filter(|p| p.reachable);
                let Some(route) = seen.and_then(|p| p.routes.get(name)) else { continue };
                let ends = [route.lowest(slot), route.highest(slot)];
                let share = ends.into_iter().max_by_key(|w| w.get().abs_diff(set.get())).unwrap_or(set);
                out.push(Actual {
                    of: (name.to_string(), revision.to_string()),
                    proxy: proxy.clone(),
                    share,
                });
            }
        }
    }
    out
}

/// How long it took to make the last rollout of each service safe.
#[must_use]
pub fn safe(state: &State) -> BTreeMap<ServiceName, (Option<Millis>, Millis)> {
    let one = |(name, s): (&ServiceName, &crate::rollout::state::ServiceState)| {
        Some((name.clone(), s.rollout.as_ref()?.made_safe?))
    };
    state.services.iter().filter_map(one).collect()
}

/// The labels that tell a revision.
struct Names<'a> {
    service: &'a str,
    version: &'a str,
    revision: &'a str,
    role: &'static str,
    slot: &'a str,
}

/// The page.
#[must_use]
pub fn page(from: &Source) -> Page {
    let s = &from.snapshot;
    let mut page = Page::new(s.controller.fleet.as_str());
    controller(&mut page, s);
    let revisions: Vec<(Names<'_>, &RevisionView)> = s
        .services
        .iter()
        .flat_map(|service| service.revisions.iter().map(move |r| (names(service.name.as_str(), r), r)))
        .collect();
    shares(&mut page, from, &revisions);
    instances(&mut page, from, &revisions);
    requests(&mut page, from, &revisions);
    lines(&mut page, from);
    rollouts(&mut page, from);
    notifications(&mut page, from);
    page
}

fn names<'a>(service: &'a str, r: &'a RevisionView) -> Names<'a> {
    Names {
        service,
        version: r.revision.version.as_str(),
        revision: r.revision.id.as_str(),
        role: role(r.role),
        slot: r.slot.as_ref().map_or("", |s| s.as_str()),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Stable => "stable",
        Role::Candidate => "candidate",
        Role::Old => "old",
    }
}

impl<'a> Names<'a> {
    /// What never changes while the revision is there: for what is counted.
    fn counted(&self) -> [(&'static str, &'a str); 3] {
        [("service", self.service), ("version", self.version), ("revision", self.revision)]
    }

    fn with_role(&self) -> [(&'static str, &'a str); 4] {
        let [service, version, revision] = self.counted();
        [service, version, revision, ("role", self.role)]
    }

    fn with_slot(&self) -> [(&'static str, &'a str); 5] {
        let [service, version, revision, role] = self.with_role();
        [service, version, revision, role, ("slot", self.slot)]
    }

    fn of(&self) -> Of {
        (self.service.to_owned(), self.revision.to_owned())
    }
}

fn ratio(bp: u16) -> f64 {
    f64::from(bp) / 10_000.0
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn yes(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn controller(page: &mut Page, s: &Snapshot) {
    page.family("pilothouse_build_info", Kind::Gauge, "The controller's version; always 1.")
        .sample(&[("version", s.controller.version.as_str())], 1.0);
    page.family(
        "pilothouse_controller_start_time_seconds",
        Kind::Gauge,
        "When the controller began to serve, in seconds since 1970.",
    )
    .sample(&[], seconds(s.controller.started_ms));
    page.family(
        "pilothouse_controller_alarms",
        Kind::Gauge,
        "Things that keep the controller from working properly; the cockpit and `status` say which.",
    )
    .sample(&[], s.alarms.len() as f64);
    let mut f = page.family("pilothouse_host_reachable", Kind::Gauge, "Whether the host's engine answers.");
    s.hosts.iter().filter(|h| !h.out).for_each(|h| f.sample(&[("host", h.name.as_str())], yes(h.reachable)));
    let mut f = page.family("pilothouse_proxy_reachable", Kind::Gauge, "Whether the proxy can be asked.");
    s.proxies.iter().for_each(|p| f.sample(&[("proxy", p.name.as_str())], yes(p.reachable)));
    let mut f = page.family(
        "pilothouse_drift",
        Kind::Gauge,
        "Differences between what should run of a service and what does.",
    );
    s.services.iter().for_each(|v| f.sample(&[("service", v.name.as_str())], v.drift.len() as f64));
}

fn shares(page: &mut Page, from: &Source, revisions: &[(Names<'_>, &RevisionView)]) {
    let mut f = page.family(
        "pilothouse_version_info",
        Kind::Gauge,
        "Role and slot of a revision in the route, or kept; always 1.",
    );
    revisions.iter().for_each(|(n, _)| f.sample(&n.with_slot(), 1.0));
    let mut f = page.family(
        "pilothouse_weight_set_ratio",
        Kind::Gauge,
        "The share of the service's requests that was set for a revision in the route.",
    );
    let routed = || revisions.iter().filter(|(_, r)| r.slot.is_some());
    routed().for_each(|(n, r)| f.sample(&n.with_slot(), ratio(r.weight)));
    let mut f = page.family(
        "pilothouse_weight_actual_ratio",
        Kind::Gauge,
        "The share that a proxy was read back with, of the worker that deviates most; missing while it cannot be asked.",
    );
    for (n, _) in routed() {
        let of = n.of();
        for a in from.known.actual.iter().filter(|a| a.of == of) {
            let [service, version, revision, role, slot] = n.with_slot();
            let labels = [service, version, revision, role, slot, ("proxy", a.proxy.as_str())];
            f.sample(&labels, ratio(a.share.get()));
        }
    }
    let mut f = page.family(
        "pilothouse_share_measured_ratio",
        Kind::Gauge,
        "The part of the service's requests that a revision had over the last ten seconds; missing without traffic.",
    );
    routed().for_each(|(n, r)| {
        if let Some(share) = r.share {
            f.sample(&n.with_slot(), ratio(share));
        }
    });
}

fn instances(page: &mut Page, from: &Source, revisions: &[(Names<'_>, &RevisionView)]) {
    let mut f =
        page.family("pilothouse_instances_wanted", Kind::Gauge, "Instances of a revision that should run.");
    revisions.iter().for_each(|(n, r)| f.sample(&n.with_role(), f64::from(r.wanted)));
    let mut by_host: BTreeMap<(&str, &str, &str), Vec<&InstanceView>> = BTreeMap::new();
    for i in &from.snapshot.instances {
        let key = (i.service.as_str(), i.revision.as_str(), i.host.as_str());
        by_host.entry(key).or_default().push(i);
    }
    let hosts_of = |n: &Names<'_>| {
        let (service, revision) = (n.service.to_owned(), n.revision.to_owned());
        by_host.iter().filter(move |((s, r, _), _)| *s == service && *r == revision)
    };
    let mut f = page.family(
        "pilothouse_instances",
        Kind::Gauge,
        "Instances of a revision on a host, by what the probes say of them.",
    );
    for (n, _) in revisions {
        for ((_, _, host), all) in hosts_of(n) {
            for (word, health) in [
                ("healthy", HealthView::Healthy),
                ("unhealthy", HealthView::Unhealthy),
                ("unknown", HealthView::Unknown),
            ] {
                let [service, version, revision, role] = n.with_role();
                let labels = [service, version, revision, role, ("host", *host), ("health", word)];
                f.sample(&labels, all.iter().filter(|i| i.health == health).count() as f64);
            }
        }
    }
    let mut f = page.family(
        "pilothouse_probe_duration_seconds",
        Kind::Gauge,
        "How long the last probe took, of the instance of a revision on a host whose took longest.",
    );
    for (n, _) in revisions {
        for ((_, _, host), all) in hosts_of(n) {
            if let Some(slowest) = all.iter().filter_map(|i| i.probe_ms).max() {
                let [service, version, revision] = n.counted();
                f.sample(&[service, version, revision, ("host", *host)], seconds(slowest.into()));
            }
        }
    }
    let mut f = page.family(
        "pilothouse_probe_results_total",
        Kind::Counter,
        "Probes of a revision's instances on a host, by result.",
    );
    for (n, _) in revisions {
        let of = n.of();
        for ((_, host), results) in from.known.tally.probes.iter().filter(|((o, _), _)| *o == of) {
            for (word, count) in ["pass", "fail"].iter().zip(results) {
                let [service, version, revision] = n.counted();
                let labels = [service, version, revision, ("host", host.as_str()), ("result", *word)];
                f.sample(&labels, *count as f64);
            }
        }
    }
}

fn requests(page: &mut Page, from: &Source, revisions: &[(Names<'_>, &RevisionView)]) {
    let counted: Vec<_> = revisions
        .iter()
        .filter_map(|(n, _)| Some((n.counted(), from.known.tally.requests.get(&n.of())?)))
        .collect();
    let mut f = page.family(
        "pilothouse_requests_total",
        Kind::Counter,
        "Requests to a revision that ended, whatever way, as its proxies counted them.",
    );
    counted.iter().for_each(|(labels, c)| f.sample(labels, c.requests as f64));
    let mut f = page.family(
        "pilothouse_request_errors_total",
        Kind::Counter,
        "Requests that failed: status 500 to 599, or no whole response.",
    );
    counted.iter().for_each(|(labels, c)| f.sample(labels, c.errors as f64));
    let mut f = page.family(
        "pilothouse_request_retries_total",
        Kind::Counter,
        "Attempts that failed and that the proxy repeated elsewhere: failures that no client saw.",
    );
    counted.iter().for_each(|(labels, c)| f.sample(labels, c.retries as f64));
    let mut f = page.family(
        "pilothouse_request_duration_seconds",
        Kind::Histogram,
        "Response times of a revision; missing where the proxies tell none. The sum is made from the buckets.",
    );
    for (labels, c) in counted.iter().filter(|(_, c)| c.latency.count() > 0) {
        let buckets: Vec<(f64, u64)> = c.latency.below().map(|(us, n)| (us as f64 / 1e6, n)).collect();
        f.histogram(labels, &buckets, c.latency.about_sum_us() as f64 / 1e6, c.latency.count());
    }
}

fn lines(page: &mut Page, from: &Source) {
    let known = || {
        let of = |p| from.known.tally.lines.iter().find(|(name, _)| name.as_str() == p);
        from.snapshot.proxies.iter().filter_map(move |p| of(p.name.as_str()))
    };
    let mut f = page.family(
        "pilothouse_log_lines_total",
        Kind::Counter,
        "Datagrams with log lines that came from a proxy; missing for one that counts by itself.",
    );
    known().for_each(|(proxy, l)| f.sample(&[("proxy", proxy.as_str())], l.came as f64));
    let mut f = page.family(
        "pilothouse_log_lines_lost_total",
        Kind::Counter,
        "Log lines of a proxy that were lost: dropped before they were read, or unread because they say nothing.",
    );
    for (proxy, l) in known() {
        for (reason, n) in [("dropped", l.dropped), ("unread", l.unread)] {
            f.sample(&[("proxy", proxy.as_str()), ("reason", reason)], n as f64);
        }
    }
}

const STATUSES: [RolloutStatus; 7] = [
    RolloutStatus::Running,
    RolloutStatus::Paused,
    RolloutStatus::Frozen,
    RolloutStatus::Aborting,
    RolloutStatus::Done,
    RolloutStatus::Aborted,
    RolloutStatus::Failed,
];

fn rollouts(page: &mut Page, from: &Source) {
    let all: Vec<(&str, &RolloutView)> =
        from.snapshot.services.iter().filter_map(|s| Some((s.name.as_str(), s.rollout.as_ref()?))).collect();
    let under_way = || all.iter().filter(|(_, r)| !r.status.ended());
    let mut f = page.family(
        "pilothouse_rollout_status",
        Kind::Gauge,
        "How the service's rollout stands, the one under way or the last: 1 for one of the statuses.",
    );
    for (service, r) in &all {
        for status in STATUSES {
            f.sample(&[("service", *service), ("status", status.as_str())], yes(r.status == status));
        }
    }
    let mut f = page.family(
        "pilothouse_rollout_phase_info",
        Kind::Gauge,
        "What is being rolled out and how far it is; always 1, missing while nothing is.",
    );
    for (service, r) in under_way() {
        let phase = r.phases.get(r.phase).map_or("", |p| p.name.as_str());
        f.sample(
            &[
                ("service", *service),
                ("strategy", r.strategy.as_str()),
                ("from", r.from.as_ref().map_or("", |v| v.as_str())),
                ("to", r.to.as_str()),
                ("phase", phase),
                ("status", r.status.as_str()),
            ],
            1.0,
        );
    }
    let mut f = page.family(
        "pilothouse_rollout_phase",
        Kind::Gauge,
        "The phase of the rollout under way, from 1; missing while nothing is rolled out.",
    );
    under_way().for_each(|(service, r)| f.sample(&[("service", *service)], (r.phase + 1) as f64));
    let mut f = page.family("pilothouse_rollout_phases", Kind::Gauge, "Phases of the rollout under way.");
    under_way().for_each(|(service, r)| f.sample(&[("service", *service)], r.phases.len() as f64));
    let mut f = page.family(
        "pilothouse_rollout_gate_left_seconds",
        Kind::Gauge,
        "Time until the timed gate of the phase opens; missing when it waits for nothing that has a time.",
    );
    for (service, r) in under_way() {
        if let Some(left) = r.gate_left_ms {
            f.sample(&[("service", *service)], seconds(left));
        }
    }
    let mut f = page.family(
        "pilothouse_rollout_start_time_seconds",
        Kind::Gauge,
        "When the service's rollout began, the one under way or the last, in seconds since 1970.",
    );
    all.iter().for_each(|(service, r)| f.sample(&[("service", *service)], seconds(r.started_ms)));
    let mut f = page.family(
        "pilothouse_rollout_end_time_seconds",
        Kind::Gauge,
        "When it ended, in seconds since 1970; missing while it is under way.",
    );
    for (service, r) in &all {
        if let Some(ended) = r.ended_ms {
            f.sample(&[("service", *service)], seconds(ended));
        }
    }
    let mut f = page.family(
        "pilothouse_rollout_verdict",
        Kind::Gauge,
        "What the analysis says of the rollout under way: 1 for one of the states; missing when nobody judges it.",
    );
    for (service, r) in under_way() {
        if let Some(verdict) = &r.verdict {
            for state in ["wait", "pass", "fail", "hold"] {
                f.sample(&[("service", *service), ("state", state)], yes(verdict.state.as_str() == state));
            }
        }
    }
    let mut f = page.family(
        "pilothouse_rollout_time_to_safe_seconds",
        Kind::Gauge,
        "How long it took until the candidate of the last rollout got nothing any more, since the decision to take it \
         back and since its first bad answer; missing when it was not taken back.",
    );
    for (service, (since_bad, since_abort)) in &from.known.safe {
        let service = ("service", service.as_str());
        f.sample(&[service, ("since", "decision")], seconds(since_abort.0));
        if let Some(bad) = since_bad {
            f.sample(&[service, ("since", "first_error")], seconds(bad.0));
        }
    }
    let counts = &from.known.tally.rollouts;
    let mut f = page.family(
        "pilothouse_rollouts_started_total",
        Kind::Counter,
        "Rollouts that began, over the whole journal.",
    );
    counts.iter().for_each(|(service, n)| f.sample(&[("service", service.as_str())], n.started as f64));
    let mut f = page.family(
        "pilothouse_rollouts_ended_total",
        Kind::Counter,
        "Rollouts that ended, by outcome, over the whole journal.",
    );
    for (service, n) in counts {
        for (outcome, count) in [("done", n.done), ("aborted", n.aborted), ("failed", n.failed)] {
            f.sample(&[("service", service.as_str()), ("outcome", outcome)], count as f64);
        }
    }
}

fn notifications(page: &mut Page, from: &Source) {
    let mut f = page.family(
        "pilothouse_notifications_total",
        Kind::Counter,
        "News for a receiver, by result: delivered, given_up; and failed_attempt for each attempt that failed.",
    );
    for (target, t) in &from.known.told {
        let results =
            [("delivered", t.delivered), ("given_up", t.given_up), ("failed_attempt", t.failed_attempts)];
        for (result, count) in results {
            f.sample(&[("target", target.as_str()), ("result", result)], count as f64);
        }
    }
    let mut f =
        page.family("pilothouse_notifications_waiting", Kind::Gauge, "News that wait for a receiver.");
    for (target, t) in &from.known.told {
        f.sample(&[("target", target.as_str())], t.waiting as f64);
    }
}
