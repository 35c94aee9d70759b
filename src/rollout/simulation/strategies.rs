//! Stories of the strategies beside canary, in the simulated world.

use super::*;
use crate::fleet::model::{Batch, Choose, Rule, RuleBy, Service, Strategy};

pub(super) fn id(n: u32) -> RevisionId {
    format!("{n:08x}").parse().unwrap()
}

pub(crate) fn rolling(batch: u32, max_unavailable: u32, max_surge: u32) -> Strategy {
    Strategy::Rolling {
        batch: Batch::Count(batch),
        max_unavailable,
        max_surge,
        min_healthy_time: Millis::secs(1),
        healthy_deadline: Millis::secs(60),
    }
}

pub(crate) fn in_place(batch: Batch) -> Strategy {
    Strategy::InPlace { batch, min_healthy_time: Millis::secs(1) }
}

fn rule() -> Rule {
    Rule { by: RuleBy::Header, name: "x-preview".into(), value: "green".into() }
}

pub(crate) fn all_strategies() -> Vec<(&'static str, Strategy)> {
    vec![
        ("in-place", in_place(Batch::Count(1))),
        ("in-place by host", in_place(Batch::Host)),
        ("rolling with a surge", rolling(1, 0, 1)),
        ("rolling with less", rolling(1, 1, 0)),
        ("rolling two at a time", rolling(2, 1, 1)),
        (
            "rolling by host",
            Strategy::Rolling {
                batch: Batch::Host,
                max_unavailable: 1,
                max_surge: 0,
                min_healthy_time: Millis(0),
                healthy_deadline: Millis::secs(60),
            },
        ),
        (
            "blue-green",
            Strategy::BlueGreen { preview: Some(rule()), gates: vec![Gate::HealthyFor(Millis::secs(1))] },
        ),
        (
            "canary",
            Strategy::Canary {
                steps: steps(&[(5, Some(Gate::Pause(Millis::secs(1)))), (50, None)]),
                sticky: true,
                tester: Some(rule()),
            },
        ),
        ("ab by share", Strategy::Ab { choose: Choose::Share(Bp::percent(30)), duration: Millis::secs(2) }),
        ("ab by header", Strategy::Ab { choose: Choose::Rule(rule()), duration: Millis::secs(2) }),
    ]
}

fn released(strategy: Strategy, hosts: usize, per_host: u32) -> Sim {
    released_with(strategy, hosts, per_host, |_| {})
}

pub(super) fn released_with(
    strategy: Strategy,
    hosts: usize,
    per_host: u32,
    change: impl Fn(&mut Service),
) -> Sim {
    let mut fleet = fleet_with(hosts, per_host, 2, strategy);
    fleet.services.values_mut().for_each(change);
    let mut sim = Sim::new(fleet, 1);
    sim.deploy(1, Kind::Release).unwrap();
    sim.run_until("first release", 60, |s| s.ended() == Some(Outcome::Done));
    sim
}

/// Opens whatever waits for an operator.
fn promote_when_asked(sim: &mut Sim) {
    let waits = sim.service().active().is_some_and(|r| {
        r.settled_at.is_some() && r.phase().is_some_and(|p| p.gates.contains(&Gate::Manual))
    });
    if waits {
        drop(sim.verb(Intent::Promote { full: false }));
    }
}

pub(super) fn finish(sim: &mut Sim, what: &str) {
    for _ in 0..600 {
        if sim.ended().is_some() && sim.service().next.is_none() {
            return;
        }
        promote_when_asked(sim);
        sim.step();
    }
    panic!("{what} does not end\n{}", sim.explain());
}

fn whole(sim: &Sim, n: u32) -> bool {
    sim.current_weight_of(&id(n)).iter().all(|w| *w == Bp::FULL)
        && sim.service().of(&id(n)).filter(|i| i.stage == Stage::Started && i.admitted).count()
            == sim.service().spec.replicas() as usize
}

#[test]
fn every_strategy_brings_the_new_version_and_takes_it_back_again() {
    for (name, strategy) in all_strategies() {
        for (hosts, per_host) in [(1, 1), (1, 3), (3, 1), (2, 2)] {
            let unavailable = matches!(&strategy, Strategy::Rolling { max_unavailable, max_surge, .. }
                if *max_unavailable >= hosts as u32 * per_host || *max_surge == 0 && hosts as u32 * per_host == 1);
            if unavailable {
                continue;
            }
            let what = format!("{name} on {hosts} x {per_host}");
            let mut sim = released(strategy.clone(), hosts, per_host);
            sim.deploy(2, Kind::Release).unwrap();
            finish(&mut sim, &what);
            assert_eq!(sim.ended(), Some(Outcome::Done), "{what}");
            assert!(whole(&sim, 2), "{what}\n{}", sim.explain());
            sim.deploy(1, Kind::Rollback).unwrap();
            finish(&mut sim, &format!("{what}, back"));
            assert_eq!(sim.ended(), Some(Outcome::Done), "{what}, back");
            assert!(whole(&sim, 1), "{what}, back\n{}", sim.explain());
            assert!(sim.orphans().is_empty());
        }
    }
}

#[test]
fn every_strategy_aborts_from_wherever_it_stands() {
    for (name, strategy) in all_strategies() {
        for after in 1..40 {
            let mut sim = released(strategy.clone(), 2, 2);
            sim.deploy(2, Kind::Release).unwrap();
            for _ in 0..after {
                promote_when_asked(&mut sim);
                sim.step();
            }
            if sim.ended().is_some() {
                break;
            }
            sim.verb(Intent::Abort).unwrap();
            finish(&mut sim, &format!("{name} aborted after {after} steps"));
            assert_eq!(sim.ended(), Some(Outcome::Aborted));
            assert!(whole(&sim, 1), "{name} after {after}\n{}", sim.explain());
            assert_eq!(sim.service().of(&id(2)).count(), 0, "{name} after {after}");
            assert!(sim.orphans().is_empty());
        }
    }
}

#[test]
fn rolling_never_takes_more_out_than_it_may() {
    // The rule itself is asserted at every departure; here what the shares were.
    let mut sim = released(rolling(1, 0, 1), 2, 2);
    sim.deploy(2, Kind::Release).unwrap();
    finish(&mut sim, "rolling");
    let decided: Vec<u16> = sim
        .journal
        .iter()
        .filter_map(|r| match &r.fact {
            Fact::WeightDecided { weights, .. } => Some(weights.b.get()),
            _ => None,
        })
        .collect();
    assert_eq!(decided, [0, 2500, 5000, 7500, 10_000]);
}

#[test]
fn in_place_keeps_the_port_and_says_how_long_it_was_empty() {
    let mut sim = released(in_place(Batch::Count(1)), 2, 1);
    let ports = |sim: &Sim, n| {
        let mut all: Vec<_> = sim.service().of(&id(n)).map(|i| (i.host.clone(), i.host_port)).collect();
        all.sort();
        all
    };
    let before = ports(&sim, 1);
    sim.deploy(2, Kind::Release).unwrap();
    finish(&mut sim, "in-place");
    assert_eq!(ports(&sim, 2), before);
    let downtimes = &sim.service().rollout.as_ref().unwrap().downtimes;
    assert_eq!(downtimes.len(), 2, "{downtimes:?}");
    assert!(downtimes.iter().all(|(_, d)| (Millis::secs(1)..Millis::secs(6)).contains(d)), "{downtimes:?}");
}

#[test]
fn one_host_goes_back_alone_and_may_try_again() {
    for strategy in [rolling(1, 0, 1), rolling(1, 1, 0), in_place(Batch::Count(1))] {
        let mut sim = released(strategy, 3, 1);
        sim.deploy(2, Kind::Release).unwrap();
        sim.run_until("two of three", 200, |s| s.service().weights.b >= Bp::percent(60));
        let held = sim.service().of(&id(2)).next().unwrap().host.clone();
        sim.verb(Intent::Hold(held.clone())).unwrap();
        let on = |s: &Sim, n: u32| {
            let held = held.clone();
            s.service()
                .of(&id(n))
                .filter(|i| i.host == held && i.stage == Stage::Started && i.admitted)
                .count()
        };
        sim.run_until("the host is back alone", 200, |s| on(s, 1) == 1 && on(s, 2) == 0);
        for _ in 0..100 {
            sim.step();
        }
        assert!(sim.service().active().is_some(), "it cannot end while a host is held");
        assert_eq!(sim.service().weights.b, Bp::ratio(2, 3), "the others went on");
        sim.verb(Intent::Retry(Some(held.clone()))).unwrap();
        finish(&mut sim, "after the hold");
        assert!(whole(&sim, 2), "{}", sim.explain());
    }
}

#[test]
fn a_newer_version_in_mid_rollout_sends_the_first_back_and_follows() {
    for (name, strategy) in all_strategies() {
        let mut sim = released(strategy, 2, 2);
        sim.deploy(2, Kind::Release).unwrap();
        for _ in 0..8 {
            sim.step();
        }
        sim.deploy(3, Kind::Release).unwrap();
        finish(&mut sim, name);
        assert_eq!(sim.service().stable, Some(id(3)), "{name}");
        assert!(whole(&sim, 3), "{name}\n{}", sim.explain());
        sim.run_until("clean", 400, |s| s.service().of(&id(2)).count() == 0);
        assert_eq!(sim.service().served.len(), 2, "the second never served everything");
    }
}

#[test]
fn rules_reach_the_candidate_only_while_it_is_ready_and_not_on_its_way_back() {
    let strategy = Strategy::BlueGreen { preview: Some(rule()), gates: vec![Gate::Manual] };
    let mut sim = released(strategy, 2, 1);
    let rules = |s: &Sim| {
        let workers = s.proxies.values().flat_map(|p| &p.workers).filter_map(|w| w.get(&web()));
        workers.map(|r| r.rules.len()).collect::<Vec<_>>()
    };
    sim.deploy(2, Kind::Release).unwrap();
    assert!(rules(&sim).iter().all(|n| *n == 0), "nothing is ready yet");
    sim.run_until("preview", 60, |s| s.service().active().unwrap().settled_at.is_some());
    assert!(rules(&sim).iter().all(|n| *n == 1));
    assert!(sim.weight_of(&id(2)).iter().all(|w| *w == Bp::ZERO));
    sim.verb(Intent::Abort).unwrap();
    sim.step();
    sim.step();
    assert!(rules(&sim).iter().all(|n| *n == 0));
    finish(&mut sim, "aborted");
}

#[test]
fn a_candidate_that_is_not_healthy_in_time_is_taken_back() {
    let mut sim = released(rolling(1, 1, 0), 2, 2);
    sim.sick.insert(id(2));
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("aborted", 400, |s| s.ended() == Some(Outcome::Aborted));
    let reason = sim.service().rollout.as_ref().unwrap().reason.clone();
    assert!(reason.as_str().contains("was not healthy within 1m"), "{reason}");
    assert!(whole(&sim, 1), "{}", sim.explain());
}

#[test]
fn an_abort_that_waits_for_a_short_stable_says_so() {
    for strategy in [rolling(1, 1, 0), rolling(1, 0, 1)] {
        let mut sim = released(strategy, 2, 2);
        sim.deploy(2, Kind::Release).unwrap();
        sim.run_until("half", 200, |s| s.service().weights.b >= Bp::percent(50));
        sim.sick.insert(id(1));
        sim.verb(Intent::Abort).unwrap();
        for _ in 0..100 {
            sim.step();
        }
        let s = sim.service();
        let r = s.active().expect("it cannot end while the candidate carries requests");
        let said = format!("{:?}", decide::waiting(&sim.state, s, r, &sim.obs, sim.now));
        let share = *s.weights.get(r.slot);
        assert!(share > Bp::ZERO);
        assert!(said.contains(&format!("{share} stays on the candidate: 0 of 4 instances")), "{said}");
        assert!(said.contains("of stable") && said.contains("node-1"), "{said}");
        sim.sick.clear();
        finish(&mut sim, "stable is well again");
        sim.run_until("stable is whole again", 300, |s| whole(s, 1));
    }
}

#[test]
fn what_is_lost_comes_back_by_itself_only_where_the_fleet_file_says_so() {
    for restore in [false, true] {
        let mut sim = released_with(all_strategies().remove(0).1, 2, 2, |s| s.restore = restore);
        for _ in 0..40 {
            sim.step();
        }
        // Removed by somebody, whole: no engine heals that.
        let victim = sim.service().instances.keys().next().unwrap().clone();
        sim.hosts.values_mut().for_each(|(_, processes, _)| drop(processes.remove(&victim)));
        for _ in 0..60 {
            sim.step();
        }
        let there = sim.hosts.values().any(|(_, processes, _)| processes.contains_key(&victim));
        assert_eq!(there, restore, "{}", sim.explain());
        let drift = decide::drift(sim.service(), &sim.obs);
        assert_eq!(drift.is_empty(), restore, "{drift:?}");
    }
}
