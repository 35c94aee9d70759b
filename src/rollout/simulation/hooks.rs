//! Stories of hooks in the simulated world.

use super::strategies::{all_strategies, finish, id, released_with};
use super::*;
use crate::fleet::model::{Hook, Hooks, Service};

fn hook(idempotent: bool, irreversible: bool) -> Hook {
    Hook { run: vec!["migrate".into()], timeout: Millis::secs(60), idempotent, irreversible }
}

fn all(service: &mut Service) {
    let one = || Some(hook(false, false));
    service.hooks = Hooks { before_start: one(), before_traffic: one(), after_promote: one() };
}

fn before_start(idempotent: bool, irreversible: bool) -> impl Fn(&mut Service) {
    move |s| s.hooks.before_start = Some(hook(idempotent, irreversible))
}

#[test]
fn every_strategy_runs_each_hook_once_and_in_its_place() {
    for (name, strategy) in all_strategies() {
        let mut sim = released_with(strategy, 2, 2, all);
        sim.hook_runs.clear();
        sim.deploy(2, Kind::Release).unwrap();
        finish(&mut sim, name);
        assert_eq!(sim.ended(), Some(Outcome::Done), "{name}\n{}", sim.explain());
        let ran: Vec<_> = sim.hook_runs.keys().map(InstanceId::as_str).collect();
        assert_eq!(
            ran,
            ["web-2-after-promote-1", "web-2-before-start-1", "web-2-before-traffic-1"],
            "{name}"
        );
        // What they left is taken away by the next release, which runs its own.
        sim.deploy(3, Kind::Release).unwrap();
        finish(&mut sim, name);
        sim.run_until("clean", 400, |s| s.orphans().is_empty());
    }
}

#[test]
fn a_hook_that_is_seen_made_and_not_yet_started_has_not_ended() {
    let mut sim = released_with(all_strategies().remove(0).1, 2, 1, all);
    sim.hook_made_first = true;
    sim.hook_runs.clear();
    sim.deploy(2, Kind::Release).unwrap();
    finish(&mut sim, "released");
    assert_eq!(sim.ended(), Some(Outcome::Done), "{}", sim.explain());
    assert_eq!(sim.hook_runs.len(), 3);
}

#[test]
fn a_hook_that_fails_takes_the_release_back_before_anything_started() {
    let mut sim = released_with(all_strategies().remove(0).1, 2, 1, |_| {});
    sim.load(|f| before_start(false, false)(f.services.get_mut(&web()).unwrap())).unwrap();
    sim.hook_exits = 3;
    sim.deploy(2, Kind::Release).unwrap();
    finish(&mut sim, "aborted");
    assert_eq!(sim.ended(), Some(Outcome::Aborted));
    let reason = sim.service().rollout.as_ref().unwrap().reason.clone();
    assert_eq!(reason.as_str(), "hook before-start on node-1: exit 3");
    assert!(
        !sim.journal.iter().any(|r| matches!(&r.fact, Fact::InstanceLeaving { .. })),
        "nothing was touched"
    );
    assert_eq!(sim.service().of(&id(2)).count(), 0);
}

#[test]
fn scenario_28_past_an_irreversible_hook_nothing_goes_back_by_itself() {
    let mut sim = released_with(all_strategies().remove(7).1, 2, 1, |_| {});
    sim.load(|f| before_start(false, true)(f.services.get_mut(&web()).unwrap())).unwrap();
    sim.sick.insert(id(2));
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("paused", 1500, |s| s.service().active().is_some_and(|r| r.status == Status::Paused));
    let reason = sim.service().active().unwrap().reason.clone();
    assert!(reason.as_str().contains("something irreversible was done"), "{reason}");
    sim.verb(Intent::Abort).unwrap();
    finish(&mut sim, "the operator's own abort");
    assert_eq!(sim.ended(), Some(Outcome::Aborted));
}

#[test]
fn nobody_knows_whether_a_hook_ran_so_it_pauses_unless_it_may_run_again() {
    for idempotent in [false, true] {
        let mut sim = released_with(all_strategies().remove(7).1, 2, 1, |_| {});
        sim.load(|f| before_start(idempotent, false)(f.services.get_mut(&web()).unwrap())).unwrap();
        sim.deploy(2, Kind::Release).unwrap();
        // Killed between the intent and the run.
        while !sim.journal.iter().any(|r| matches!(&r.fact, Fact::HookBegun { .. })) {
            sim.decide_once();
        }
        sim.crash();
        if idempotent {
            finish(&mut sim, "run again");
            assert_eq!(sim.ended(), Some(Outcome::Done));
            assert_eq!(
                sim.hook_runs.keys().map(InstanceId::as_str).collect::<Vec<_>>(),
                ["web-2-before-start-2"]
            );
            continue;
        }
        sim.run_until("paused", 100, |s| s.service().active().is_some_and(|r| r.status == Status::Paused));
        assert!(sim.service().active().unwrap().reason.as_str().contains("nobody knows whether it ran"));
        assert!(sim.hook_runs.is_empty(), "it is not run again by itself");
        sim.verb(Intent::Retry(None)).unwrap();
        finish(&mut sim, "run again because an operator said so");
        assert_eq!(sim.ended(), Some(Outcome::Done));
    }
}

impl Sim {
    /// One round of looking and deciding; nothing is done.
    fn decide_once(&mut self) {
        self.now = self.now.plus(Millis(500));
        self.observe();
        let facts = decide::advance(&self.state, &self.obs, self.now);
        let begun = facts.iter().any(|f| matches!(f, Fact::HookBegun { .. }));
        if facts.is_empty() {
            self.act();
        } else {
            facts.into_iter().for_each(|f| self.record(f));
        }
        assert!(!begun || self.hook_runs.is_empty());
    }
}
