//! Stories of rollouts in the simulated world, by name.

use super::super::world::Means;
use super::*;

fn manual() -> Vec<Step> {
    steps(&[(5, Some(Gate::Manual)), (25, Some(Gate::Manual)), (50, Some(Gate::Manual))])
}

fn timed() -> Vec<Step> {
    steps(&[
        (5, Some(Gate::Pause(Millis::secs(5)))),
        (25, Some(Gate::HealthyFor(Millis::secs(3)))),
        (50, None),
    ])
}

fn released(steps: Vec<Step>) -> Sim {
    let mut sim = Sim::new(fleet(3, 2, 2, steps), 1);
    sim.deploy(1, Kind::Release).unwrap();
    sim.run_until("first release", 60, |s| s.ended() == Some(Outcome::Done));
    sim
}

fn id(n: u32) -> RevisionId {
    format!("{n:08x}").parse().unwrap()
}

fn at_phase(n: usize) -> impl Fn(&Sim) -> bool {
    move |s| s.service().active().is_some_and(|r| r.phase == n && r.settled_at.is_some())
}

#[test]
fn a_first_release_skips_the_steps() {
    let sim = released(manual());
    assert_eq!(sim.service().rollout.as_ref().unwrap().plan.phases.len(), 2);
    assert_eq!(sim.current_weight_of(&id(1)), [Bp::FULL, Bp::FULL]);
    assert!(sim.orphans().is_empty());
}

#[test]
fn a_canary_goes_through_its_weights_and_keeps_the_old_one_warm_then_stopped() {
    let mut sim = released(timed());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("canary", 200, |s| s.ended() == Some(Outcome::Done));
    let decided: Vec<Bp> = sim
        .journal
        .iter()
        .filter_map(|r| match &r.fact {
            Fact::WeightDecided { weights, .. } => Some(weights.b),
            _ => None,
        })
        .collect();
    for step in [5, 25, 50, 100] {
        assert!(decided.contains(&Bp::percent(step)), "{decided:?}");
    }
    assert!(decided.is_sorted(), "never down: {decided:?}");
    assert_eq!(sim.service().stable_slot, Slot::B);
    assert_eq!(sim.stops, 0, "the old one is warm");
    sim.run_until("cooled", 300, |s| s.service().of(&id(1)).all(|i| i.stage == Stage::Stopped));
    assert!(sim.service().slots.a.is_none());
    let stopped = sim.service().of(&id(1)).filter(|i| i.stage == Stage::Stopped).count();
    assert_eq!(stopped, 6, "kept, stopped");
}

#[test]
fn slots_alternate_and_the_kept_revision_is_evicted_by_the_next_deploy() {
    let mut sim = released(vec![]);
    for n in 2..=5 {
        sim.deploy(n, Kind::Release).unwrap();
        sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
        assert_eq!(sim.service().stable, Some(id(n)));
        let slot = if n % 2 == 0 { Slot::B } else { Slot::A };
        assert_eq!(sim.service().stable_slot, slot);
    }
    sim.run_until("only two revisions left", 300, |s| s.service().revisions.len() == 2);
    assert!(sim.orphans().is_empty());
}

#[test]
fn abort_goes_back_from_every_phase() {
    for phase in 0..4 {
        let mut sim = released(manual());
        sim.deploy(2, Kind::Release).unwrap();
        for p in 1..=phase {
            sim.run_until("phase", 60, at_phase(p));
            sim.verb(Intent::Promote { full: false }).unwrap();
            sim.step();
        }
        sim.step();
        sim.verb(Intent::Abort).unwrap();
        sim.step();
        sim.step();
        assert!(sim.weight_of(&id(2)).iter().all(|w| *w == Bp::ZERO), "phase {phase}: traffic goes first");
        sim.run_until("aborted", 120, |s| s.ended() == Some(Outcome::Aborted));
        assert!(sim.orphans().is_empty());
        assert_eq!(sim.service().of(&id(2)).count(), 0);
        assert_eq!(sim.service().of(&id(1)).filter(|i| i.stage == Stage::Started).count(), 6);
        assert!(sim.service().revisions.keys().eq([&id(1)]), "nothing is left of what was taken back");
    }
}

#[test]
fn abort_is_not_frozen_by_an_unreachable_host_and_says_what_it_owes() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("5 %", 60, at_phase(1));
    sim.set_reachable(Some("node-1"), None, false);
    sim.verb(Intent::Abort).unwrap();
    for _ in 0..400 {
        sim.step_without_trouble();
    }
    assert!(sim.weight_of(&id(2)).iter().all(|w| *w == Bp::ZERO));
    assert_eq!(sim.ended(), Some(Outcome::Aborted));
    assert!(sim.service().rollout.as_ref().unwrap().owed.iter().any(|o| o.as_str().contains("node-1")));
    assert!(sim.service().revisions.contains_key(&id(2)), "its instances are still to be removed");
    sim.run_until("what was owed is done", 120, |s| s.service().of(&id(2)).count() == 0);
    assert!(sim.service().revisions.keys().eq([&id(1)]));
    assert!(sim.orphans().is_empty());
}

#[test]
fn a_candidate_that_dies_is_taken_back_by_itself() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("start", 60, at_phase(1));
    sim.kill_one(&id(2));
    sim.run_until("aborted", 120, |s| s.ended() == Some(Outcome::Aborted));
    assert!(sim.service().rollout.as_ref().unwrap().reason.as_str().contains("exited with 137"));
}

#[test]
fn a_candidate_that_never_becomes_healthy_gets_no_traffic_and_runs_into_the_deadline() {
    let mut sim = released(manual());
    sim.sick.insert(id(2));
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("aborted", 1500, |s| s.ended() == Some(Outcome::Aborted));
    let reason = sim.service().rollout.as_ref().unwrap().reason.clone();
    assert!(
        reason.as_str().starts_with("no progress for 10m: 0 of 1 candidate instances healthy"),
        "{reason}"
    );
    let weighted = sim
        .journal
        .iter()
        .any(|r| matches!(&r.fact, Fact::WeightDecided { weights, .. } if weights.b > Bp::ZERO));
    assert!(!weighted);
}

#[test]
fn rollback_to_a_warm_revision_is_one_weight_change() {
    let mut sim = released(vec![]);
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 200, |s| s.ended() == Some(Outcome::Done));
    sim.deploy(1, Kind::Rollback).unwrap();
    sim.step();
    sim.step();
    assert!(sim.weight_of(&id(1)).iter().all(|w| *w == Bp::FULL));
    sim.run_until("done", 20, |s| s.ended() == Some(Outcome::Done));
    assert_eq!(sim.stops, 0);
}

#[test]
fn rollback_to_a_stopped_revision_starts_it_again_first() {
    let mut sim = released(vec![]);
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 200, |s| s.ended() == Some(Outcome::Done));
    sim.run_until("cooled", 300, |s| s.service().of(&id(1)).all(|i| i.stage == Stage::Stopped));
    sim.deploy(1, Kind::Rollback).unwrap();
    sim.run_until("done", 60, |s| s.ended() == Some(Outcome::Done));
    assert_eq!(sim.service().of(&id(1)).count(), 6, "the same instances, started again");
}

#[test]
fn a_proxy_out_of_reach_freezes_the_way_up_only() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("start", 60, at_phase(1));
    sim.set_reachable(None, Some("lb-2"), false);
    sim.verb(Intent::Promote { full: false }).unwrap();
    for _ in 0..20 {
        sim.step_without_trouble();
    }
    assert!(sim.service().active().unwrap().frozen.is_some());
    assert_eq!(sim.current_weight_of(&id(2)), [Bp::percent(5), Bp::percent(5)]);
    sim.verb(Intent::Abort).unwrap();
    sim.step_without_trouble();
    sim.step_without_trouble();
    assert_eq!(
        sim.current_weight_of(&id(2)),
        [Bp::ZERO, Bp::percent(5)],
        "what can be reached goes back at once"
    );
    sim.run_until("aborted", 120, |s| s.ended() == Some(Outcome::Aborted));
    assert!(sim.weight_of(&id(2)).iter().all(|w| *w == Bp::ZERO));
}

#[test]
fn a_verb_decided_on_an_older_state_is_refused_but_abort_and_pause_never_are() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("start", 60, at_phase(1));
    let old = Some(sim.service().decision - 1);
    let verb = |sim: &Sim, intent| decide::verb(&sim.state, &web(), intent, old, &"op".into());
    let refused = verb(&sim, Intent::Promote { full: false }).unwrap_err();
    assert_eq!(refused.code, crate::rollout::decide::ErrorCode::Stale);
    assert!(refused.message.contains("phase 2 (5%)"), "{}", refused.message);
    assert!(verb(&sim, Intent::Pause).is_ok());
    assert!(verb(&sim, Intent::Abort).is_ok());
}

#[test]
fn a_short_stable_keeps_its_limit_on_abort_until_the_operator_insists() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("5 %", 60, at_phase(1));
    for phase in 2..=3 {
        sim.verb(Intent::Promote { full: false }).unwrap();
        sim.run_until("half on the candidate", 60, at_phase(phase));
    }
    sim.sick.insert(id(1));
    sim.step();
    sim.verb(Intent::Abort).unwrap();
    sim.step();
    assert_eq!(sim.service().weights.b, Bp::percent(50), "nothing goes to what is failing");
    sim.verb(Intent::Abort).unwrap();
    sim.step();
    assert_eq!(sim.service().weights.b, Bp::percent(50), "two who abort in the same second do not insist");
    let seen = Some(sim.service().decision);
    for f in decide::verb(&sim.state, &web(), Intent::Abort, seen, &"op".into()).unwrap() {
        sim.record(f);
    }
    sim.step();
    assert_eq!(sim.service().weights.b, Bp::ZERO);
}

#[test]
fn down_takes_everything_away() {
    let mut sim = released(manual());
    for f in decide::down(&sim.state, &web(), &"op".into()).unwrap() {
        sim.record(f);
    }
    sim.run_until("gone", 120, |s| !s.service().down);
    assert!(sim.service().instances.is_empty());
    assert!(sim.orphans().is_empty());
}

#[test]
fn up_starts_what_was_lost() {
    let mut sim = released(manual());
    sim.kill_one(&id(1));
    sim.step();
    assert_eq!(decide::drift(sim.service(), &sim.obs).len(), 1);
    for f in decide::up(&sim.state, &web(), &sim.obs) {
        sim.record(f);
    }
    sim.run_until("whole again", 60, |s| {
        decide::drift(s.service(), &s.obs).is_empty() && s.service().of(&id(1)).all(|i| i.admitted)
    });
}

#[test]
fn scenario_29_what_was_changed_by_hand_is_drift_and_nothing_is_done_about_it() {
    let mut sim = released(manual());
    assert!(decide::drift(sim.service(), &sim.obs).is_empty());
    let before = reconcile(&sim.state, &sim.obs);
    let means = Means { digest: Some("sha256:other".into()), env_same: false };
    sim.obs.means.insert(id(1), means);
    let mut forged = sim.obs.hosts.values().next().unwrap().instances.values().next().unwrap().clone();
    forged.id = "web-00000009-9".parse().unwrap();
    sim.obs.hosts.values_mut().next().unwrap().instances.insert(forged.id.clone(), forged);
    let drift: Vec<String> = decide::drift(sim.service(), &sim.obs).iter().map(ToString::to_string).collect();
    assert_eq!(drift.len(), 3, "{drift:?}");
    assert!(drift[0].starts_with("the tag 1.1.0 means another artifact now"), "{drift:?}");
    assert!(drift[1].starts_with("the env file is not what it was"), "{drift:?}");
    assert!(drift[2].contains("web-00000009-9 on node-1 carries our labels and is not ours"), "{drift:?}");
    assert_eq!(reconcile(&sim.state, &sim.obs), before, "nothing is done about it");
    assert!(decide::up(&sim.state, &web(), &sim.obs).is_empty());
}

fn scaled(fleet: &mut Fleet) {
    for s in fleet.services.values_mut() {
        s.placement.values_mut().for_each(|n| *n = 4);
        s.host_ports = (9000, 9030);
    }
}

#[test]
fn an_abort_while_a_raise_is_under_way_waits_for_it_before_anything_is_taken_away() {
    for kind in [Kind::Release, Kind::Rollback] {
        let mut sim = released(vec![]);
        if kind == Kind::Rollback {
            sim.deploy(2, Kind::Release).unwrap();
            sim.run_until("release", 200, |s| s.ended() == Some(Outcome::Done));
        }
        let to = if kind == Kind::Rollback { 1 } else { 2 };
        sim.faults.write_slow = 100;
        sim.deploy(to, kind).unwrap();
        sim.run_until("a raise is under way", 300, |s| {
            s.weight_of(&id(to)).iter().all(|w| *w == Bp::ZERO)
                && s.service().rollout.as_ref().is_some_and(|r| *s.service().weights.get(r.slot) == Bp::FULL)
        });
        sim.verb(Intent::Abort).unwrap();
        // Rule 3 is asserted at every stop, against the world itself.
        sim.run_until("aborted", 300, |s| s.ended() == Some(Outcome::Aborted));
        assert!(sim.current_weight_of(&id(to)).iter().all(|w| *w == Bp::ZERO));
    }
}

#[test]
fn an_abort_after_the_declaration_grew_gives_everything_back() {
    let mut sim = released(manual());
    sim.load(scaled).unwrap();
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("5 %", 60, at_phase(1));
    sim.verb(Intent::Promote { full: false }).unwrap();
    sim.run_until("25 %", 60, at_phase(2));
    sim.verb(Intent::Abort).unwrap();
    sim.run_until("aborted", 60, |s| s.ended() == Some(Outcome::Aborted));
}

#[test]
fn a_rollback_keeps_what_is_declared_now_and_replaces_what_died_meanwhile() {
    let mut sim = released(vec![]);
    sim.load(scaled).unwrap();
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
    sim.kill_one(&id(1));
    sim.step();
    sim.deploy(1, Kind::Rollback).unwrap();
    sim.run_until("done", 60, |s| s.ended() == Some(Outcome::Done));
    assert_eq!(sim.service().spec.replicas(), 12);
    assert_eq!(sim.service().of(&id(1)).filter(|i| i.admitted).count(), 12);
}

#[test]
fn a_host_that_is_out_counts_for_nothing_and_blocks_nothing() {
    let mut sim = released(vec![]);
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 300, |s| s.ended() == Some(Outcome::Done));
    let node: HostName = "node-3".parse().unwrap();
    sim.load(|f| f.hosts.get_mut(&node).unwrap().out = true).unwrap();
    assert!(decide::up(&sim.state, &web(), &sim.obs).is_empty(), "nothing is started there");
    sim.run_until("nothing is on it", 120, |s| s.service().instances.values().all(|i| i.host != node));
    sim.deploy(1, Kind::Rollback).unwrap();
    sim.run_until("rolled back", 120, |s| s.ended() == Some(Outcome::Done));
    sim.deploy(3, Kind::Release).unwrap();
    sim.run_until("released", 300, |s| s.ended() == Some(Outcome::Done));
    assert!(sim.service().instances.values().all(|i| i.host != node));
}

#[test]
fn an_abort_that_cannot_stop_a_container_ends_and_says_so() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("5 %", 60, at_phase(1));
    sim.faults.stop_never = true;
    sim.verb(Intent::Abort).unwrap();
    sim.run_until("aborted", 400, |s| s.ended() == Some(Outcome::Aborted));
    let owed = format!("{:?}", sim.service().rollout.as_ref().unwrap().owed);
    assert!(owed.contains("still to be stopped (no)"), "{owed}");
    sim.faults.stop_never = false;
    sim.run_until("cleaned up", 60, |s| s.service().of(&id(2)).count() == 0);
}

#[test]
fn an_abort_is_not_over_while_the_candidate_has_to_carry_a_share() {
    let mut sim = released(manual());
    sim.deploy(2, Kind::Release).unwrap();
    for phase in 1..=3 {
        sim.run_until("phase", 60, at_phase(phase));
        sim.verb(Intent::Promote { full: false }).unwrap();
        sim.step();
    }
    sim.sick.insert(id(1));
    sim.step();
    let share = sim.service().weights.b;
    assert!(share >= Bp::percent(50));
    sim.set_reachable(None, Some("lb-2"), false);
    sim.verb(Intent::Abort).unwrap();
    for _ in 0..400 {
        sim.step_without_trouble();
    }
    assert_eq!((sim.ended(), sim.service().weights.b), (None, share));
}

#[test]
fn each_revision_is_checked_as_it_was_deployed() {
    let mut sim = released(manual());
    sim.load(|f| f.services.get_mut(&web()).unwrap().health.probe = Probe::Http { path: "/new".into() })
        .unwrap();
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("5 %", 60, at_phase(1));
    let route = super::super::reconcile::route(sim.service(), &sim.obs);
    assert_eq!(route.health.a.probe, Probe::Tcp);
    assert_eq!(route.health.b.probe, Probe::Http { path: "/new".into() });
}

#[test]
fn a_rollback_while_the_kept_one_is_taken_out_starts_the_same_instances_again() {
    let mut sim = released(vec![]);
    sim.deploy(2, Kind::Release).unwrap();
    sim.run_until("release", 200, |s| s.ended() == Some(Outcome::Done));
    sim.run_until("leaving", 400, |s| s.service().of(&id(1)).any(|i| i.stage == Stage::Drained));
    sim.deploy(1, Kind::Rollback).unwrap();
    sim.run_until("done", 200, |s| s.ended() == Some(Outcome::Done));
    assert_eq!(sim.service().of(&id(1)).count(), 6);
}

#[test]
fn a_freeze_says_what_was_not_looked_at_yet() {
    let lb: ProxyName = "lb-2".parse().unwrap();
    for (error, said) in [
        (None, "proxy lb-2 was not looked at yet"),
        (Some("connection refused"), "proxy lb-2 cannot be reached: connection refused"),
    ] {
        let mut sim = released(manual());
        sim.deploy(2, Kind::Release).unwrap();
        sim.set_reachable(None, Some("lb-2"), false);
        sim.obs.proxies.get_mut(&lb).unwrap().error = error.map(Into::into);
        sim.step_without_trouble();
        assert_eq!(sim.service().active().unwrap().frozen.as_ref().map(|f| f.as_str()), Some(said));
    }
}

#[test]
fn a_proxy_in_use_cannot_be_taken_out_of_the_file() {
    let mut sim = released(manual());
    let refused = sim.load(|f| drop(f.services.get_mut(&web()).unwrap().proxies.pop())).unwrap_err();
    assert!(refused.message.contains("lb-2"), "{}", refused.message);
}

#[test]
fn no_free_port_is_said() {
    let mut sim = released(manual());
    sim.load(|f| f.services.get_mut(&web()).unwrap().host_ports = (9000, 9001)).unwrap();
    sim.deploy(2, Kind::Release).unwrap();
    for _ in 0..10 {
        sim.step();
    }
    let s = sim.service();
    let waiting = decide::waiting(&sim.state, s, s.active().unwrap(), &sim.obs, sim.now);
    assert!(format!("{waiting:?}").contains("no port of 9000-9001 is free on node-1"), "{waiting:?}");
}

impl Sim {
    /// A step in which reachability stays as the story set it.
    fn step_without_trouble(&mut self) {
        let reach: Vec<bool> =
            self.hosts.values().map(|h| h.0).chain(self.proxies.values().map(|p| p.reachable)).collect();
        self.step_with(&reach);
    }
}
