//! Stories of containers that ran before Pilothouse did: routed, parked, taken back, let go, and never stopped unasked.

use super::fixture::{fleet_with, web};
use super::strategies::{in_place, rolling};
use super::*;
use crate::fleet::model::{Batch, Strategy};
use crate::rollout::decide::Taken;

/// What adopts the two containers of revision 1 that run on each of two hosts.
fn adopted(strategy: Strategy) -> Sim {
    let mut sim = Sim::new(fleet_with(2, 2, 1, strategy), 1);
    let revision = fixture::revision(&sim.fleet, 1);
    let on = |n: u32, host: &str, port: u16| Taken {
        host: host.parse().unwrap(),
        instance: InstanceId::of(&web(), &revision.id, n),
        host_port: Some(port),
        adopts: Some(format!("c{n}").as_str().into()),
        serving: None,
    };
    let taken = [on(1, "node-1", 9100), on(2, "node-1", 9101), on(3, "node-2", 9100), on(4, "node-2", 9101)];
    for fact in decide::adopt(&sim.state, &revision, &taken, &"sim".into()).unwrap() {
        sim.record(fact);
    }
    sim.run_until("adopted", 60, |s| s.ended() == Some(Outcome::Done));
    sim
}

fn steps() -> Strategy {
    Strategy::Canary { steps: fixture::steps(&[(25, None)]), sticky: false, tester: None }
}

fn running(sim: &Sim, revision: u32) -> usize {
    let id: RevisionId = format!("{revision:08x}").parse().unwrap();
    let processes = sim.hosts.values().flat_map(|(_, ps, _)| ps.values());
    processes.filter(|p| p.seen.revision == id && p.seen.state == RunState::Running).count()
}

#[test]
fn what_runs_is_routed_as_stable_and_nothing_is_started_or_stopped() {
    let sim = adopted(steps());
    assert_eq!(running(&sim, 1), 4);
    assert_eq!(sim.stops, 0);
    let s = sim.service();
    assert_eq!(s.instances.len(), 4);
    assert_eq!(s.weights.get(s.stable_slot), &Bp::FULL);
    assert!(s.instances.values().all(|i| i.external() && i.stage == Stage::Started));
}

#[test]
fn after_a_release_the_adopted_run_on_and_are_the_way_back() {
    for strategy in [steps(), rolling(1, 0, 1)] {
        let mut sim = adopted(strategy);
        sim.deploy(2, Kind::Release).unwrap();
        sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
        for _ in 0..150 {
            sim.step();
        }
        assert_eq!((running(&sim, 1), running(&sim, 2)), (4, 4), "{}", sim.explain());
        assert_eq!(sim.stops, 0);
        sim.deploy(1, Kind::Rollback).unwrap();
        sim.run_until("back", 60, |s| s.ended() == Some(Outcome::Done));
        assert_eq!(running(&sim, 1), 4);
        assert_eq!(sim.service().stable, Some("00000001".parse().unwrap()));
    }
}

#[test]
fn the_release_after_next_lets_go_of_what_was_adopted_and_it_runs_on() {
    let mut sim = adopted(steps());
    for n in [2, 3] {
        sim.deploy(n, Kind::Release).unwrap();
        sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
    }
    sim.run_until("let go", 60, |s| s.service().instances.values().all(|i| i.adopts.is_none()));
    assert!(sim.orphans().is_empty(), "nothing of it is left in the books: {}", sim.explain());
}

#[test]
fn once_allowed_they_are_stopped_when_nothing_needs_them() {
    let mut sim = adopted(steps());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
    for fact in decide::allow_stop(&sim.state, &web(), &"sim".into()).unwrap() {
        sim.record(fact);
    }
    assert!(decide::allow_stop(&sim.state, &web(), &"sim".into()).is_err(), "once is enough");
    sim.run_until("stopped", 200, |s| running(s, 1) == 0);
    assert_eq!(running(&sim, 2), 4);
}

#[test]
fn a_lost_journal_is_rebuilt_and_the_proxies_go_on_sending() {
    let mut sim = adopted(steps());
    // All that is left is the world.
    let taken: Vec<Taken> = sim
        .service()
        .instances
        .values()
        .map(|i| Taken {
            host: i.host.clone(),
            instance: i.id.clone(),
            host_port: i.host_port,
            adopts: i.adopts.clone(),
            serving: i.endpoint,
        })
        .collect();
    let revision = fixture::revision(&sim.fleet, 1);
    let fleet = sim.fleet.clone();
    sim.journal.clear();
    sim.state = State::default();
    sim.obs = Observed::default();
    sim.record(Fact::FleetLoaded { fleet: Box::new(fleet), by: "sim".into() });
    for fact in decide::adopt(&sim.state, &revision, &taken, &"sim".into()).unwrap() {
        sim.record(fact);
    }
    for _ in 0..40 {
        sim.step();
        assert_eq!(sim.current_weight_of(&revision.id), [Bp::FULL], "{}", sim.explain());
    }
    assert_eq!(sim.ended(), Some(Outcome::Done));
}

#[test]
fn down_lets_go_of_them() {
    let mut sim = adopted(steps());
    for fact in decide::down(&sim.state, &web(), &"sim".into()).unwrap() {
        sim.record(fact);
    }
    sim.run_until("down", 120, |s| s.service().instances.is_empty());
    assert_eq!(sim.stops, 0);
}

#[test]
fn in_place_is_refused_until_it_is_allowed() {
    let mut sim = adopted(in_place(Batch::Count(1)));
    let refusal = sim.deploy(2, Kind::Release).unwrap_err();
    assert!(refusal.message.contains("was adopted"), "{refusal:?}");
    for fact in decide::allow_stop(&sim.state, &web(), &"sim".into()).unwrap() {
        sim.record(fact);
    }
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
}

#[test]
fn what_serves_already_is_not_adopted_again() {
    let sim = adopted(steps());
    let revision = fixture::revision(&sim.fleet, 1);
    let refusal = decide::adopt(&sim.state, &revision, &[], &"sim".into()).unwrap_err();
    assert!(refusal.message.contains("serves already"), "{refusal:?}");
}
