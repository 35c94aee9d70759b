//! What a plan means for whoever has to say yes to it: the least that serves, what it needs, how long it takes, what it
//! cannot promise, the way back. The screen's dialog and `plan` on the command line show the same, so it is said here.

use super::{Phase, Plan};
use crate::fleet::model::{Gate, Hook, Service};
use crate::fleet::names::{Bp, HostName, Millis};

/// What a plan means. Counts are of instances, and hold when nothing fails on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Instances and shares by host, phase by phase.
    pub phases: Vec<Vec<OnHost>>,
    /// The fewest healthy instances in rotation at any moment; `None` for a first release: nothing serves before it.
    pub lowest: Option<u32>,
    /// The most instances that run at any moment beyond the replicas.
    pub extra: u32,
    /// It takes this long or longer: timed gates, and the probes that an instance must pass.
    pub at_least: Millis,
    /// Names of the phases that wait for somebody to promote.
    pub by_hand: Vec<String>,
    /// Names of the phases that wait for good answers of the checks.
    pub checked: Vec<String>,
    /// Names of the phases that wait until the analysis has passed them, and after which time they pause without that.
    pub judged: Option<(Vec<String>, Millis)>,
    /// What it cannot promise, in words; empty when there is nothing to say.
    pub not_promised: Vec<String>,
    /// How to go back on it.
    pub way_back: WayBack,
}

/// One host in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHost {
    /// Which.
    pub host: HostName,
    /// Instances of stable in rotation.
    pub stable: u32,
    /// Instances of the candidate in rotation.
    pub candidate: u32,
    /// The part of the service's requests that stable's instances here take.
    pub stable_share: Bp,
    /// The part that the candidate's instances here take.
    pub candidate_share: Bp,
}

/// How to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// Stable stays whole until the end, and runs on for this long after it.
    AtOnce(Millis),
    /// Up to so many instances of stable have to be started again.
    Restarts(u32),
    /// There is nothing to go back to.
    Nothing,
}

/// What going from one phase to the next means.
struct Step {
    /// The fewest in rotation on the way, and at both ends.
    lowest: u32,
    /// The most that run on the way, and at both ends.
    most: u32,
    /// One after the other: how often instances have to become healthy.
    rounds: u32,
}

/// What `plan` means for `service`; `has_stable` when something serves before it.
#[must_use]
pub fn outlook(service: &Service, plan: &Plan, has_stable: bool) -> Outlook {
    let replicas = service.replicas();
    let probes = service.health.interval.0.saturating_mul(u64::from(service.health.rise.max(1) - 1));
    let (mut stable, mut candidate) = if has_stable { (replicas, 0) } else { (0, 0) };
    let (mut lowest, mut most, mut at_least) = (stable, stable, Millis(0));
    for phase in &plan.phases {
        let next = (phase.stable.values().sum(), phase.candidate.values().sum());
        let step = step(plan, replicas, (stable, candidate), next);
        lowest = lowest.min(step.lowest);
        most = most.max(step.most);
        at_least =
            at_least.plus(Millis(probes.saturating_mul(u64::from(step.rounds)))).plus(gated(service, phase));
        (stable, candidate) = next;
    }
    let by_hand = plan.phases.iter().filter(|p| p.gates.contains(&Gate::Manual)).map(|p| p.name.clone());
    let with = |gate: Gate| -> Vec<String> {
        plan.phases.iter().filter(|p| p.gates.contains(&gate)).map(|p| p.name.clone()).collect()
    };
    let judged = with(Gate::Verdict);
    let lowest = has_stable.then_some(lowest);
    let way_back = way_back(service, plan, has_stable);
    Outlook {
        phases: plan.phases.iter().map(on_hosts).collect(),
        lowest,
        extra: most.saturating_sub(replicas),
        at_least,
        by_hand: by_hand.collect(),
        checked: with(Gate::Checks),
        judged: service.analysis.filter(|_| !judged.is_empty()).map(|a| (judged, a.inconclusive_after)),
        not_promised: not_promised(service, plan, lowest, way_back),
        way_back,
    }
}

impl Outlook {
    /// The fewest in rotation, as people read it: `4 of 4 instances (100%)`.
    #[must_use]
    pub fn lowest_text(&self, replicas: u32) -> Option<String> {
        let lowest = self.lowest?;
        let share = Bp::ratio(u64::from(lowest), u64::from(replicas));
        Some(format!("{lowest} of {} ({share})", instances(replicas)))
    }

    /// How long it takes: `at least 2m30s, and until promoted at 25%`.
    #[must_use]
    pub fn takes(&self) -> String {
        let time = match self.at_least {
            Millis(0) => "as long as its instances need to become healthy".to_owned(),
            d => format!("at least {d}"),
        };
        let time = match &self.judged {
            Some((phases, most)) => {
                format!(
                    "{time}, and until the analysis has passed {} (each pauses after {most})",
                    list(phases)
                )
            }
            None => time,
        };
        let time = match self.checked.as_slice() {
            [] => time,
            phases => format!("{time}, and until the checks are good at {}", list(phases)),
        };
        match self.by_hand.as_slice() {
            [] => time,
            phases => format!("{time}, and until promoted at {}", list(phases)),
        }
    }
}

impl WayBack {
    /// In words.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::AtOnce(Millis(0)) => "instant: one weight change, until it has ended".to_owned(),
            Self::AtOnce(keep) => {
                format!("instant: one weight change, until {keep} after it has ended")
            }
            Self::Restarts(1) => "1 restart".to_owned(),
            Self::Restarts(n) => format!("up to {n} restarts"),
            Self::Nothing => "none: nothing served before".to_owned(),
        }
    }
}

/// `5%, 25% and 50%`.
fn list(names: &[String]) -> String {
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// `1 instance`, `4 instances`.
fn instances(n: u32) -> String {
    if n == 1 { "1 instance".to_owned() } else { format!("{n} instances") }
}

/// How long the gates of a phase keep it, once its target is reached: this long or longer.
#[must_use]
pub fn gated(service: &Service, phase: &Phase) -> Millis {
    phase.gates.iter().filter_map(|g| timed(service, g)).max().unwrap_or_default()
}

fn timed(service: &Service, gate: &Gate) -> Option<Millis> {
    match gate {
        Gate::HealthyFor(d) | Gate::Pause(d) => Some(*d),
        Gate::Verdict => service.analysis.map(|a| a.soak),
        Gate::Manual | Gate::Checks => None,
    }
}

/// The way from one phase's (stable, candidate) to the next one's, as fast and as low as the limits allow: what comes
/// takes the room there is and the room that is made, what goes leaves as soon as it may.
fn step(plan: &Plan, replicas: u32, from: (u32, u32), to: (u32, u32)) -> Step {
    let limits = &plan.limits;
    let (mut stable, mut candidate) = from;
    let mut step = Step { lowest: stable + candidate, most: stable + candidate, rounds: 0 };
    while stable > to.0 || candidate < to.1 {
        let here = stable + candidate;
        let (leaving, coming) = (stable.saturating_sub(to.0), to.1.saturating_sub(candidate));
        let room = match limits.surge {
            _ if limits.in_place => 0,
            None => coming,
            Some(surge) => (replicas + surge).saturating_sub(here).min(coming),
        };
        let spare = here.saturating_sub(replicas.saturating_sub(limits.unavailable));
        let mut goes = spare.min(leaving);
        let mut comes = (room + goes).min(coming);
        if goes == 0 && comes == 0 {
            // No fleet file has limits that let nothing move; whatever a plan says, this comes to an end.
            (goes, comes) = (leaving.min(1), if leaving == 0 { coming } else { 0 });
        }
        step.lowest = step.lowest.min(here - goes);
        step.most = step.most.max(here + room.min(comes));
        step.rounds += u32::from(comes > 0);
        (stable, candidate) = (stable - goes, candidate + comes);
    }
    step.lowest = step.lowest.min(to.0 + to.1);
    step.most = step.most.max(to.0 + to.1);
    step
}

fn on_hosts(phase: &Phase) -> Vec<OnHost> {
    let part = |share: Bp, n: u32, all: u32| {
        Bp::ratio(u64::from(share.get()) * u64::from(n), u64::from(all) * u64::from(Bp::FULL.get()))
    };
    let (stable, candidate) = (phase.stable.values().sum(), phase.candidate.values().sum());
    let mut hosts: Vec<&HostName> = phase.stable.keys().chain(phase.candidate.keys()).collect();
    hosts.sort();
    hosts.dedup();
    let on = |host: &HostName| {
        let here = |of: &super::Placement| of.get(host).copied().unwrap_or(0);
        let (s, c) = (here(&phase.stable), here(&phase.candidate));
        OnHost {
            host: host.clone(),
            stable: s,
            candidate: c,
            stable_share: part(phase.weight.rest(), s, stable),
            candidate_share: part(phase.weight, c, candidate),
        }
    };
    hosts.into_iter().map(on).collect()
}

fn way_back(service: &Service, plan: &Plan, has_stable: bool) -> WayBack {
    if !has_stable {
        return WayBack::Nothing;
    }
    let whole = service.replicas();
    let left = plan.phases.iter().map(|p| p.stable.values().sum::<u32>()).min().unwrap_or(whole);
    match whole.saturating_sub(left) {
        0 => WayBack::AtOnce(service.keep),
        gone => WayBack::Restarts(gone),
    }
}

fn not_promised(service: &Service, plan: &Plan, lowest: Option<u32>, way_back: WayBack) -> Vec<String> {
    let mut out = Vec::new();
    let replicas = service.replicas();
    let short = lowest.filter(|l| *l < replicas);
    match short {
        Some(0) => out.push(
            "that anything serves at every moment: nothing does while an instance is replaced".to_owned(),
        ),
        Some(l) => out.push(format!(
            "full capacity: {l} of {} carry everything while others are replaced",
            instances(replicas)
        )),
        None => {}
    }
    if plan.limits.in_place && short.is_some_and(|l| l > 0) {
        out.push(
            "that every instance's place serves at every moment: the downtime of each is measured".into(),
        );
    }
    if let WayBack::Restarts(_) = way_back {
        out.push(
            "a way back at once: stable gets back what it still carries, the rest when it is started again"
                .into(),
        );
    }
    let split = plan.phases.iter().any(|p| p.weight > Bp::ZERO && p.weight < Bp::FULL);
    if split && !plan.sticky && !service.proxies.is_empty() {
        out.push("one version to one visitor: while the traffic is split, requests may see either".into());
    }
    if lowest.is_some() && !service.proxies.is_empty() {
        out.push(format!(
            "an answer to a request that takes longer than {} when its instance leaves",
            service.drain.deadline
        ));
    }
    let hooks = &service.hooks;
    let irreversible = |h: &Option<Hook>| h.as_ref().is_some_and(|h| h.irreversible);
    for (hook, name) in [
        (&hooks.before_start, "before_start"),
        (&hooks.before_traffic, "before_traffic"),
        (&hooks.after_promote, "after_promote"),
    ] {
        if irreversible(hook) {
            out.push(format!("to go back by itself once the hook {name} has begun: it is irreversible"));
        }
    }
    if service.proxies.is_empty() {
        out.push("anything about traffic: the service has no proxy, so its instances just run".into());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::model::{Batch, Choose, Strategy};
    use crate::rollout::plan::{Limits, plan, spread};
    use crate::rollout::simulation::fixture;

    const PAUSE: Gate = Gate::Pause(Millis::secs(60));

    /// Four replicas on two hosts, probed every second, healthy after two passes.
    fn service(gates: &[(u16, Option<Gate>)]) -> Service {
        fixture::fleet(2, 2, 1, fixture::steps(gates)).services[&fixture::web()].clone()
    }

    /// One by one (or `batch` at a time), as a rolling or in-place plan has it.
    fn replaced(service: &Service, batch: usize, limits: Limits) -> Plan {
        let n = service.replicas();
        let at = |k: u32| Phase {
            name: format!("{k} of {n}"),
            stable: spread(&service.placement, n - k),
            candidate: spread(&service.placement, k),
            weight: Bp::ratio(u64::from(k), u64::from(n)),
            gates: vec![Gate::HealthyFor(Millis::secs(10))],
        };
        Plan { phases: (batch as u32..=n).step_by(batch).map(at).collect(), limits, ..Plan::default() }
    }

    fn limits(surge: u32, unavailable: u32) -> Limits {
        Limits { surge: Some(surge), unavailable, ..Limits::default() }
    }

    #[test]
    fn a_canary_never_takes_from_stable_and_needs_as_many_again() {
        let s = service(&[(25, Some(PAUSE)), (50, Some(Gate::Manual))]);
        let o = outlook(&s, &plan(&s, true), true);
        assert_eq!((o.lowest, o.extra), (Some(4), 4));
        assert_eq!(o.lowest_text(4).unwrap(), "4 of 4 instances (100%)");
        // A minute's pause, and a second between the two probes of each of three batches (1, 2, 4 instances).
        assert_eq!(o.at_least, Millis::secs(63));
        assert_eq!(o.takes(), "at least 1m3s, and until promoted at 50%");
        let each = plan(&s, true).phases.iter().map(|p| gated(&s, p).0 / 1000).collect::<Vec<_>>();
        assert_eq!(each, [0, 60, 0, 0]);
        assert_eq!(o.way_back, WayBack::AtOnce(s.keep));
        assert_eq!(o.way_back.text(), "instant: one weight change, until 1m after it has ended");
        let said = o.not_promised.join("\n");
        assert!(said.contains("requests may see either") && !said.contains("capacity"), "{said}");
    }

    #[test]
    fn shares_are_per_host() {
        let s = service(&[(25, Some(PAUSE))]);
        let o = outlook(&s, &plan(&s, true), true);
        let at_25 = &o.phases[1];
        assert_eq!(at_25.len(), 2);
        assert_eq!((at_25[0].stable, at_25[0].candidate), (2, 1));
        assert_eq!(
            (at_25[0].stable_share.human(), at_25[0].candidate_share.human()),
            ("37.5%".into(), "25%".into())
        );
        assert_eq!((at_25[1].candidate, at_25[1].candidate_share), (0, Bp::ZERO));
    }

    #[test]
    fn a_sticky_canary_keeps_visitors() {
        let mut s = service(&[(25, Some(PAUSE))]);
        let Strategy::Canary { sticky, .. } = &mut s.strategy else { panic!() };
        *sticky = true;
        let o = outlook(&s, &plan(&s, true), true);
        assert!(!o.not_promised.join(" ").contains("one version to one visitor"), "{:?}", o.not_promised);
    }

    #[test]
    fn a_first_release_has_nothing_before_it_and_needs_nothing_beyond() {
        let s = service(&[(25, Some(PAUSE))]);
        let o = outlook(&s, &plan(&s, false), false);
        assert_eq!((o.lowest, o.extra, o.way_back), (None, 0, WayBack::Nothing));
        assert_eq!(o.at_least, Millis::secs(1));
    }

    #[test]
    fn rolling_is_as_low_as_unavailable_and_as_high_as_surge() {
        let s = service(&[]);
        // (batch, surge, unavailable) -> (lowest, extra, rounds of a second beside 10 s a phase)
        for (batch, surge, unavailable, lowest, extra, rounds) in [
            (1, 0, 1, 3, 0, 4),
            (1, 1, 0, 4, 1, 4),
            (2, 0, 2, 2, 0, 2),
            (2, 1, 0, 4, 1, 4),
            (2, 1, 1, 3, 1, 2),
            (4, 4, 0, 4, 4, 1),
        ] {
            let o = outlook(&s, &replaced(&s, batch, limits(surge, unavailable)), true);
            let phases = 4 / batch as u64;
            let case = format!("batch {batch}, surge {surge}, unavailable {unavailable}");
            assert_eq!((o.lowest, o.extra), (Some(lowest), extra), "{case}");
            assert_eq!(o.at_least, Millis::secs(phases * 10 + rounds), "{case}");
            assert_eq!(o.way_back, WayBack::Restarts(4), "{case}");
        }
    }

    #[test]
    fn in_place_stands_still_in_between_and_says_so() {
        let s = service(&[]);
        let in_place = |batch: usize| Limits {
            in_place: true,
            unavailable: batch as u32,
            surge: Some(0),
            ..Limits::default()
        };
        let one = outlook(&s, &replaced(&s, 1, in_place(1)), true);
        assert_eq!((one.lowest, one.extra), (Some(3), 0));
        assert!(
            one.not_promised.join(" ").contains("downtime of each is measured"),
            "{:?}",
            one.not_promised
        );
        let all = outlook(&s, &replaced(&s, 4, in_place(4)), true);
        assert_eq!(all.lowest_text(4).unwrap(), "0 of 4 instances (0%)");
        assert!(all.not_promised[0].contains("nothing does"), "{:?}", all.not_promised);
    }

    /// The plans of the strategies as they are made, not as these tests imagine them.
    #[test]
    fn every_strategy_has_the_outlook_that_it_is_chosen_for() {
        let with = |strategy: Strategy| {
            let mut s = service(&[]);
            s.strategy = strategy;
            let o = outlook(&s, &plan(&s, true), true);
            (o.lowest.unwrap(), o.extra, o.way_back)
        };
        let (batch, min_healthy_time) = (Batch::Count(2), Millis::secs(5));
        let at_once = WayBack::AtOnce(Millis::secs(60));
        let rolling = |max_unavailable, max_surge| Strategy::Rolling {
            batch,
            max_unavailable,
            max_surge,
            min_healthy_time,
            healthy_deadline: Millis::secs(60),
        };
        assert_eq!(with(Strategy::InPlace { batch, min_healthy_time }), (2, 0, WayBack::Restarts(4)));
        assert_eq!(
            with(Strategy::InPlace { batch: Batch::Host, min_healthy_time }),
            (2, 0, WayBack::Restarts(4))
        );
        assert_eq!(with(rolling(1, 0)), (3, 0, WayBack::Restarts(4)));
        assert_eq!(with(rolling(0, 1)), (4, 1, WayBack::Restarts(4)));
        assert_eq!(with(Strategy::BlueGreen { preview: None, gates: vec![Gate::Manual] }), (4, 4, at_once));
        let choose = Choose::Share(Bp::percent(50));
        assert_eq!(with(Strategy::Ab { choose, duration: Millis::secs(60) }), (4, 4, at_once));
        // Going back is made by the same limits.
        let mut s = service(&[]);
        s.strategy = Strategy::InPlace { batch: Batch::Count(1), min_healthy_time };
        let back = outlook(&s, &crate::rollout::plan::back(&s), true);
        assert_eq!((back.lowest, back.extra), (Some(3), 0));
    }

    #[test]
    fn limits_that_let_nothing_move_still_come_to_an_end() {
        let s = service(&[]);
        let o = outlook(&s, &replaced(&s, 1, limits(0, 0)), true);
        assert_eq!(o.lowest, Some(3));
        let more = Plan {
            phases: vec![Phase {
                name: "x".into(),
                stable: s.placement.clone(),
                candidate: s.placement.clone(),
                weight: Bp::FULL,
                gates: vec![],
            }],
            limits: limits(0, 0),
            ..Plan::default()
        };
        assert_eq!(outlook(&s, &more, true).extra, 4);
    }

    #[test]
    fn what_hooks_and_missing_proxies_mean_is_said() {
        let mut s = service(&[(25, Some(PAUSE))]);
        s.proxies.clear();
        s.hooks.before_start =
            Some(Hook { run: vec![], timeout: Millis(1), idempotent: false, irreversible: true });
        let said = outlook(&s, &plan(&s, true), true).not_promised.join("\n");
        assert!(said.contains("before_start") && said.contains("no proxy"), "{said}");
        assert!(!said.contains("requests may see either"), "{said}");
    }
}
