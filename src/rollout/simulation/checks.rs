//! Stories of the checks in the simulated world: what each answer does to each strategy.

use super::strategies::{all_strategies, finish, released_with};
use super::*;
use crate::fleet::model::{Ask, Check, Hook, Service, Strategy};
use crate::rollout::world::{Answer, CheckSeen};

fn checked(service: &mut Service) {
    let ask = Ask::Http { url: "http://127.0.0.1:9/".into() };
    let (interval, timeout) = (Millis::secs(1), Millis::secs(1));
    let check = |name: &str, dry_run| Check {
        name: name.parse().unwrap(),
        ask: ask.clone(),
        interval,
        timeout,
        failures: 2,
        dry_run,
    };
    service.checks = vec![check("smoke", false), check("rehearsed", true)];
}

fn canary() -> Strategy {
    let steps = steps(&[
        (25, Some(Gate::HealthyFor(Millis::secs(1)))),
        (50, Some(Gate::HealthyFor(Millis::secs(1)))),
    ]);
    Strategy::Canary { steps, sticky: false, tester: None }
}

impl Sim {
    /// Every check that is asked now answers this; the one that is only shown always says bad.
    fn answered(&mut self, answer: Answer) {
        let Some(r) = self.service().active() else { return };
        let (id, ask) = (r.id.clone(), decide::to_be_asked(self.service(), r));
        if !ask {
            return;
        }
        let seen = self.obs.checks.entry(web()).or_default();
        for (name, answer) in [("smoke", answer), ("rehearsed", Answer::Bad)] {
            let name = name.parse().unwrap();
            let before = seen.remove(&name);
            seen.insert(
                name,
                CheckSeen::after(before, id.clone(), self.now, answer, "0.07, at most 0.05".into()),
            );
        }
    }

    fn steps_with(&mut self, n: usize, answer: Answer) {
        for _ in 0..n {
            self.answered(answer);
            self.step();
        }
    }

    fn stands(&self) -> (Option<Status>, String) {
        let r = self.service().rollout.as_ref();
        (r.map(|r| r.status), r.map(|r| r.reason.to_string()).unwrap_or_default())
    }

    fn waits_in(&self, phase: usize) -> bool {
        self.service().active().is_some_and(|r| r.phase == phase && r.settled_at.is_some())
    }
}

fn started(change: impl Fn(&mut Service)) -> Sim {
    let mut sim = released_with(canary(), 2, 2, |s| {
        checked(s);
        change(s);
    });
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("the first share", 100, |s| s.waits_in(1));
    sim
}

#[test]
fn bad_answers_in_a_row_take_it_back_whatever_the_strategy() {
    for (name, strategy) in all_strategies() {
        let mut sim = released_with(strategy, 2, 2, checked);
        sim.deploy(2, Kind::Release).unwrap();
        for _ in 0..400 {
            if sim.ended().is_some() {
                break;
            }
            sim.answered(Answer::Bad);
            sim.step();
        }
        assert_eq!(sim.ended(), Some(Outcome::Aborted), "{name}\n{}", sim.explain());
        let reason = sim.stands().1;
        assert!(reason.starts_with("check smoke: 0.07, at most 0.05, "), "{name}: {reason}");
        assert!(reason.ends_with("times in a row"), "{name}: {reason}");
        let safe = sim.journal.iter().filter(|r| matches!(r.fact, Fact::MadeSafe { since_bad: Some(_), .. }));
        assert_eq!(safe.count(), 1, "{name}: how long it took is written down once");
    }
}

#[test]
fn each_phase_waits_for_a_good_answer_of_its_own_whatever_the_strategy() {
    for (name, strategy) in all_strategies() {
        let gated: usize = {
            let mut sim = released_with(strategy.clone(), 2, 2, checked);
            sim.deploy(2, Kind::Release).unwrap();
            let plan = &sim.service().active().unwrap().plan;
            plan.phases.iter().filter(|p| p.gates.contains(&Gate::Checks)).count()
        };
        // An A/B release ends by somebody's word anyway.
        assert_eq!(gated == 0, name.starts_with("ab"), "{name}");
        let mut sim = released_with(strategy, 2, 2, checked);
        sim.deploy(2, Kind::Release).unwrap();
        // Without an answer it stands in the first such phase.
        let mut phases = std::collections::BTreeSet::new();
        for _ in 0..200 {
            sim.step();
            phases.extend(sim.service().active().filter(|r| r.settled_at.is_some()).map(|r| r.phase));
        }
        if gated > 0 {
            assert_eq!(sim.ended(), None, "{name}");
            let r = sim.service().active().unwrap();
            assert!(r.plan.phases[r.phase].gates.contains(&Gate::Checks), "{name}\n{}", sim.explain());
            let waits = decide::waiting(&sim.state, sim.service(), r, &sim.obs, sim.now);
            assert_eq!(waits, ["check smoke (not asked in this phase yet)".into()], "{name}");
            // A good answer opens one phase and not the next.
            let before = r.phase;
            sim.answered(Answer::Good);
            for _ in 0..100 {
                sim.step();
            }
            match sim.service().active() {
                Some(r) => assert_eq!(r.phase, before + 1, "{name}\n{}", sim.explain()),
                None => assert_eq!(gated, 1, "{name}"),
            }
        }
        sim.steps_with(300, Answer::Good);
        if sim.ended().is_none() {
            sim.verb(Intent::Promote { full: true }).unwrap();
        }
        finish(&mut sim, name);
        assert_eq!(sim.ended(), Some(Outcome::Done), "{name}\n{}", sim.explain());
    }
}

#[test]
fn scenario_40_what_nobody_knows_is_not_good_and_not_bad() {
    let mut sim = started(|_| {});
    sim.answered(Answer::Bad);
    // Not knowing neither adds to the bad answers nor makes up for them.
    sim.steps_with(50, Answer::Unknown);
    assert!(sim.waits_in(1), "{}", sim.explain());
    let r = sim.service().active().unwrap();
    let waits = decide::waiting(&sim.state, sim.service(), r, &sim.obs, sim.now);
    assert_eq!(waits, ["check smoke (unknown: 0.07, at most 0.05)".into()]);
    sim.run_until("a pause", 2_000, |s| s.stands().0 == Some(Status::Paused));
    let reason = sim.stands().1;
    assert!(reason.starts_with("inconclusive after 10m at 25%: check smoke (unknown"), "{reason}");
    sim.verb(Intent::Resume).unwrap();
    sim.steps_with(1, Answer::Bad);
    finish(&mut sim, "the second bad one");
    assert_eq!(sim.ended(), Some(Outcome::Aborted));
}

#[test]
fn a_good_answer_makes_up_for_bad_ones_and_one_that_is_only_shown_decides_nothing() {
    let mut sim = started(|_| {});
    for _ in 0..20 {
        sim.steps_with(1, Answer::Bad);
        sim.steps_with(1, Answer::Good);
    }
    sim.steps_with(100, Answer::Good);
    assert_eq!(sim.ended(), Some(Outcome::Done), "{}", sim.explain());
}

#[test]
fn past_an_irreversible_hook_it_pauses_and_who_resumes_has_overruled_the_check() {
    let mut sim = started(|s| {
        let (run, timeout) = (vec!["migrate".into()], Millis::secs(60));
        s.hooks.before_start = Some(Hook { run, timeout, idempotent: false, irreversible: true });
    });
    sim.steps_with(3, Answer::Bad);
    let (status, reason) = sim.stands();
    assert_eq!(status, Some(Status::Paused), "{}", sim.explain());
    assert!(reason.contains("something irreversible was done"), "{reason}");
    sim.verb(Intent::Resume).unwrap();
    sim.steps_with(20, Answer::Bad);
    assert_eq!(sim.stands().0, Some(Status::Running), "{}", sim.explain());
    assert!(sim.waits_in(1), "it does not pass by being overruled");
    sim.verb(Intent::Promote { full: true }).unwrap();
    sim.steps_with(200, Answer::Bad);
    assert_eq!(sim.ended(), Some(Outcome::Done), "{}", sim.explain());
}

#[test]
fn a_first_release_and_the_way_back_are_not_asked_about() {
    let mut sim = started(|_| {});
    assert_eq!(sim.service().stable.as_ref().map(ToString::to_string), Some("00000001".into()));
    sim.verb(Intent::Promote { full: true }).unwrap();
    finish(&mut sim, "promoted");
    sim.deploy(1, Kind::Rollback).unwrap();
    for _ in 0..100 {
        sim.step();
        let asked = sim.service().active().is_some_and(|r| decide::to_be_asked(sim.service(), r));
        assert!(!asked, "{}", sim.explain());
    }
    assert_eq!(sim.ended(), Some(Outcome::Done), "{}", sim.explain());
}

#[test]
fn random_answers_and_crashes_never_break_a_rule() {
    for seed in 0..200 {
        let (name, strategy) = all_strategies().swap_remove(usize::try_from(seed % 9).unwrap_or(0));
        let mut sim = released_with(strategy, 2, 2, checked);
        sim.dice = Dice::new(seed);
        sim.deploy(2, Kind::Release).unwrap();
        for _ in 0..200 {
            if sim.ended().is_some() {
                break;
            }
            match sim.dice.below(12) {
                0 => sim.answered(Answer::Bad),
                1 => sim.answered(Answer::Unknown),
                2..=5 => sim.answered(Answer::Good),
                6 => {
                    sim.crash();
                    // Whoever starts next knows of no answers.
                    sim.obs.checks.clear();
                }
                _ => {}
            }
            sim.step();
        }
        for _ in 0..600 {
            if sim.ended().is_some() {
                break;
            }
            sim.answered(Answer::Good);
            let _ = sim.verb(Intent::Promote { full: true });
            sim.step();
        }
        assert!(sim.ended().is_some(), "{name}, seed {seed}\n{}", sim.explain());
    }
}
