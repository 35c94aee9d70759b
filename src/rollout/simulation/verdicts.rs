//! Stories of the analysis in the simulated world: what each verdict does to each strategy.

use super::strategies::{all_strategies, finish, id, released_with};
use super::*;
use crate::analysis;
use crate::fleet::model::{Analysis, Hook, Service, Strategy};
use crate::rollout::world::Verdict;

fn judged(service: &mut Service) {
    service.analysis = Some(Analysis {
        tolerance: analysis::Rate::TOLERANCE,
        alpha: analysis::Rate::ALPHA,
        max_errors: None,
        latency: false,
        soak: Millis::secs(2),
        inconclusive_after: Millis::secs(60),
        early: false,
        dry_run: false,
    });
}

fn canary() -> Strategy {
    let steps = steps(&[
        (25, Some(Gate::HealthyFor(Millis::secs(1)))),
        (50, Some(Gate::HealthyFor(Millis::secs(1)))),
    ]);
    Strategy::Canary { steps, sticky: false, tester: None }
}

impl Sim {
    /// The analysis says this of the rollout, at the share it is at.
    fn said(&mut self, state: analysis::State) {
        let r = self.service().active().unwrap();
        let verdict = Verdict {
            rollout: r.id.clone(),
            phase: r.phase,
            state,
            stable_fails: (state == analysis::State::Hold).then_some(self.now),
            first_bad: (state == analysis::State::Fail).then_some(self.now),
            counted_since: None,
            words: "12 of 240 requests failed".into(),
        };
        self.obs.verdicts.insert(web(), verdict);
    }

    fn status(&self) -> Option<Status> {
        self.service().rollout.as_ref().map(|r| r.status)
    }

    fn reason(&self) -> String {
        self.service().rollout.as_ref().map(|r| r.reason.to_string()).unwrap_or_default()
    }

    fn settled_in(&self, phase: usize) -> bool {
        self.service().active().is_some_and(|r| r.phase == phase && r.settled_at.is_some())
    }
}

fn started(change: impl Fn(&mut Service)) -> Sim {
    let mut sim = released_with(canary(), 2, 2, |s| {
        judged(s);
        change(s);
    });
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("the first share", 100, |s| s.settled_in(1));
    sim
}

#[test]
fn a_verdict_against_the_candidate_takes_it_back_whatever_the_strategy() {
    // Who is chosen by a header is nobody to compare with everybody else: there is no share, and no verdict.
    for (name, strategy) in all_strategies().into_iter().filter(|(name, _)| *name != "ab by header") {
        let mut sim = released_with(strategy, 2, 2, judged);
        sim.deploy(2, Kind::Release).unwrap();
        sim.run_until("a share", 400, |s| {
            s.service().active().is_some_and(|r| {
                let share = *s.service().weights.get(r.slot);
                share > Bp::ZERO && share < Bp::FULL
            }) || s.ended().is_some()
        });
        if sim.ended().is_some() {
            // Switched at once: there never was a time to compare.
            assert!(name.contains("blue"), "{name}\n{}", sim.explain());
            continue;
        }
        sim.said(analysis::State::Fail);
        finish(&mut sim, name);
        assert_eq!(sim.ended(), Some(Outcome::Aborted), "{name}");
        assert_eq!(sim.reason(), "12 of 240 requests failed", "{name}");
        let safe = sim.journal.iter().filter(|r| matches!(r.fact, Fact::MadeSafe { since_bad: Some(_), .. }));
        assert_eq!(safe.count(), 1, "{name}: how long it took is written down once");
    }
}

#[test]
fn each_share_waits_for_its_own_pass_and_the_soak() {
    let mut sim = started(|_| {});
    sim.said(analysis::State::Pass);
    // Passed, and not watched for long enough.
    sim.step();
    assert!(sim.settled_in(1));
    sim.run_until("the second share", 40, |s| s.settled_in(2));
    // What was said of the share before says nothing here.
    for _ in 0..40 {
        sim.step();
    }
    assert!(sim.settled_in(2), "{}", sim.explain());
    let said = decide::waiting(&sim.state, sim.service(), sim.service().active().unwrap(), &sim.obs, sim.now);
    assert!(said.iter().any(|w| w.as_str().contains("a passing verdict")), "{said:?}");
    sim.said(analysis::State::Pass);
    finish(&mut sim, "passed");
    assert_eq!(sim.ended(), Some(Outcome::Done));
    let told = sim.journal.iter().filter(|r| matches!(r.fact, Fact::VerdictReached { .. })).count();
    assert_eq!(told, 2, "each is written down once");
}

#[test]
fn a_pass_ends_a_pause_early_where_that_is_wanted_and_nothing_else() {
    let day = Gate::Pause(Millis::secs(86_400));
    for (early, gate, goes_on) in [(true, day, true), (false, day, false), (true, Gate::Manual, false)] {
        let steps = steps(&[(25, Some(gate)), (50, Some(Gate::HealthyFor(Millis::secs(1))))]);
        let strategy = Strategy::Canary { steps, sticky: false, tester: None };
        let mut sim = released_with(strategy, 2, 2, |s| {
            judged(s);
            s.analysis.as_mut().unwrap().early = early;
        });
        sim.deploy(2, Kind::Release).unwrap();
        sim.run_until("the first share", 100, |s| s.settled_in(1));
        for _ in 0..20 {
            sim.step();
        }
        assert!(sim.settled_in(1), "without a verdict it waits");
        sim.said(analysis::State::Pass);
        for _ in 0..20 {
            sim.step();
        }
        assert_eq!(sim.settled_in(2), goes_on, "{early}, {gate:?}\n{}", sim.explain());
    }
}

#[test]
fn scenario_inconclusive_pauses_and_neither_goes_on_nor_back() {
    let mut sim = started(|_| {});
    sim.said(analysis::State::Wait);
    sim.run_until("paused", 200, |s| s.status() == Some(Status::Paused));
    assert!(sim.reason().starts_with("inconclusive after 1m at 25%: 12 of 240"), "{}", sim.reason());
    // Resume waits as long again.
    sim.verb(Intent::Resume).unwrap();
    for _ in 0..100 {
        sim.step();
    }
    assert_eq!(sim.status(), Some(Status::Running), "{}", sim.explain());
    sim.run_until("paused again", 60, |s| s.status() == Some(Status::Paused));
    // Nothing was counted at all: the same.
    sim.obs.verdicts.clear();
    sim.verb(Intent::Resume).unwrap();
    sim.run_until("paused a third time", 200, |s| s.status() == Some(Status::Paused));
    assert!(sim.reason().contains("no requests of both versions"), "{}", sim.reason());
    sim.verb(Intent::Promote { full: false }).unwrap();
    sim.run_until("promoted without it", 60, |s| s.settled_in(2));
}

#[test]
fn what_was_not_counted_was_not_watched_and_pauses_in_the_end() {
    // Log lines are lost again and again: a pass stands, and the time at the share begins anew with each gap.
    let mut sim = started(|_| {});
    let lost = "0 of 90 failed, stable 0 of 270; 2.3% of the log lines of proxy lb were lost";
    for _ in 0..40 {
        sim.said(analysis::State::Pass);
        sim.obs.verdicts.get_mut(&web()).unwrap().counted_since = Some(sim.now);
        sim.step();
        assert!(sim.settled_in(1), "{}", sim.explain());
    }
    sim.run_until("the second share once it is over", 40, |s| s.settled_in(2));
    // It goes on: the same as when nothing is counted at all.
    for _ in 0..200 {
        if sim.status() == Some(Status::Paused) {
            break;
        }
        sim.said(analysis::State::Wait);
        let v = sim.obs.verdicts.get_mut(&web()).unwrap();
        (v.counted_since, v.words) = (Some(sim.now), lost.into());
        sim.step();
    }
    assert_eq!(sim.status(), Some(Status::Paused), "{}", sim.explain());
    assert!(sim.reason().starts_with(&format!("inconclusive after 1m at 50%: {lost}")), "{}", sim.reason());
    // A verdict against the candidate is none the less one.
    let mut sim = started(|_| {});
    sim.said(analysis::State::Fail);
    sim.obs.verdicts.get_mut(&web()).unwrap().counted_since = Some(sim.now);
    finish(&mut sim, "taken back");
    assert_eq!(sim.ended(), Some(Outcome::Aborted));
}

#[test]
fn while_stable_itself_fails_nobody_is_sent_to_it_and_nothing_is_promoted() {
    let mut sim = started(|_| {});
    sim.said(analysis::State::Hold);
    sim.run_until("paused", 100, |s| s.status() == Some(Status::Paused));
    assert!(sim.reason().contains("nothing sent back to it"), "{}", sim.reason());
    let weights = sim.service().weights.clone();
    // A verdict against the candidate in the meantime pauses as well.
    let mut sim = started(|_| {});
    sim.said(analysis::State::Fail);
    sim.obs.verdicts.get_mut(&web()).unwrap().stable_fails = Some(sim.now);
    sim.run_until("paused", 20, |s| s.status() == Some(Status::Paused));
    assert!(sim.reason().contains("stable is failing as well"), "{}", sim.reason());
    assert_eq!(sim.service().weights, weights);
    // It recovers: what was said of the candidate stays said.
    sim.obs.verdicts.get_mut(&web()).unwrap().stable_fails = None;
    finish(&mut sim, "taken back");
    assert_eq!(sim.ended(), Some(Outcome::Aborted));
}

#[test]
fn past_an_irreversible_hook_it_pauses_and_who_resumes_has_overruled_it() {
    let mut sim = started(|s| {
        let (run, timeout) = (vec!["migrate".into()], Millis::secs(60));
        s.hooks.before_start = Some(Hook { run, timeout, idempotent: false, irreversible: true });
    });
    sim.said(analysis::State::Fail);
    sim.run_until("paused", 20, |s| s.status() == Some(Status::Paused));
    assert!(sim.reason().contains("something irreversible was done"), "{}", sim.reason());
    sim.verb(Intent::Resume).unwrap();
    for _ in 0..20 {
        sim.step();
    }
    assert_eq!(sim.status(), Some(Status::Running), "{}", sim.explain());
    assert!(sim.settled_in(1), "it does not pass by being overruled");
    sim.verb(Intent::Promote { full: true }).unwrap();
    finish(&mut sim, "the operator's will");
    assert_eq!(sim.ended(), Some(Outcome::Done));
}

#[test]
fn a_dry_run_only_says_what_it_would_do() {
    let mut sim = started(|s| s.analysis.as_mut().unwrap().dry_run = true);
    sim.said(analysis::State::Fail);
    finish(&mut sim, "not judged");
    assert_eq!(sim.ended(), Some(Outcome::Done), "{}", sim.explain());
    assert!(sim.journal.iter().any(|r| matches!(r.fact, Fact::VerdictReached { .. })));
    // Neither does it keep anything else from what it does: a candidate that dies goes back.
    let mut sim = started(|s| s.analysis.as_mut().unwrap().dry_run = true);
    sim.said(analysis::State::Hold);
    sim.kill_one(&id(2));
    finish(&mut sim, "taken back");
    assert_eq!(sim.ended(), Some(Outcome::Aborted), "{}", sim.explain());
}

#[test]
fn the_way_back_is_never_in_question() {
    let mut sim = started(|_| {});
    sim.verb(Intent::Promote { full: true }).unwrap();
    finish(&mut sim, "promoted");
    sim.deploy(1, Kind::Rollback).unwrap();
    sim.said(analysis::State::Fail);
    finish(&mut sim, "rolled back");
    assert_eq!(sim.ended(), Some(Outcome::Done), "{}", sim.explain());
    assert_eq!(sim.service().stable, Some(id(1)));
}

#[test]
fn the_verdict_of_another_rollout_says_nothing() {
    let mut sim = started(|_| {});
    sim.said(analysis::State::Fail);
    sim.obs.verdicts.get_mut(&web()).unwrap().rollout = "web-1".parse().unwrap();
    for _ in 0..20 {
        sim.step();
    }
    assert!(sim.settled_in(1), "{}", sim.explain());
}

/// Whatever the analysis says, and whenever the controller dies: the rules hold, and it ends or waits for somebody.
#[test]
fn random_verdicts_never_break_a_rule() {
    for seed in 0..200 {
        let (name, strategy) = all_strategies().swap_remove(usize::try_from(seed % 9).unwrap_or(0));
        let mut sim = released_with(strategy, 2, 2, judged);
        sim.dice = Dice::new(seed);
        sim.deploy(2, Kind::Release).unwrap();
        for _ in 0..120 {
            if sim.ended().is_some() {
                break;
            }
            match sim.dice.below(40) {
                0 => sim.said(analysis::State::Fail),
                1 | 2 => sim.said(analysis::State::Hold),
                3..=6 => sim.said(analysis::State::Pass),
                7 => sim.said(analysis::State::Wait),
                8 => sim.crash(),
                _ => {}
            }
            if sim.ended().is_none() && sim.dice.below(30) == 0 {
                let _ = sim.verb(Intent::Resume);
            }
            sim.step();
        }
        if sim.ended().is_none() {
            sim.said(analysis::State::Pass);
            let _ = sim.verb(Intent::Promote { full: true });
            let _ = sim.verb(Intent::Resume);
            for _ in 0..600 {
                if sim.ended().is_some() {
                    break;
                }
                sim.step();
                if sim.status() == Some(Status::Paused) {
                    let _ = sim.verb(Intent::Promote { full: true });
                }
            }
        }
        assert!(sim.ended().is_some(), "{name}, seed {seed}\n{}", sim.explain());
    }
}
