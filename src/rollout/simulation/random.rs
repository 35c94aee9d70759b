//! Thousands of random stories: one to three services that share hosts and proxies, each with its own strategy, verbs
//! and faults.

use proptest::prelude::*;

use super::crashes::{Harness, Mutant};
use super::fixture::{fleet_of, names, number_of, service};
use super::strategies::all_strategies;
use super::*;
use crate::fleet::model::{Batch, Choose, Hook, Hooks, Rule, RuleBy, Service, Strategy};

fn random_strategy(dice: &mut Dice, replicas: u32) -> Strategy {
    let gates = [
        None,
        Some(Gate::Manual),
        Some(Gate::Pause(Millis::secs(2))),
        Some(Gate::HealthyFor(Millis::secs(2))),
    ];
    let pick = |d: &mut Dice| gates[d.below(4) as usize];
    let rule = || Rule { by: RuleBy::Cookie, name: "tester".into(), value: "1".into() };
    let batch = |d: &mut Dice| {
        if d.chance(30) { Batch::Host } else { Batch::Count(1 + d.below(u64::from(replicas)) as u32) }
    };
    match dice.below(5) {
        0 => Strategy::InPlace { batch: batch(dice), min_healthy_time: Millis(500 * dice.below(4)) },
        1 => {
            let max_unavailable = dice.below(u64::from(replicas)) as u32;
            let max_surge = dice.below(3) as u32;
            Strategy::Rolling {
                batch: batch(dice),
                max_unavailable,
                max_surge: if max_unavailable == 0 { max_surge.max(1) } else { max_surge },
                min_healthy_time: Millis(500 * dice.below(4)),
                healthy_deadline: Millis::secs(120),
            }
        }
        2 => Strategy::BlueGreen {
            preview: dice.chance(50).then(rule),
            gates: pick(dice).into_iter().collect(),
        },
        3 => Strategy::Canary {
            steps: steps(&[(5, pick(dice)), (30, pick(dice)), (60, pick(dice))]),
            sticky: dice.chance(50),
            tester: dice.chance(50).then(rule),
        },
        _ => Strategy::Ab {
            choose: if dice.chance(50) { Choose::Rule(rule()) } else { Choose::Share(Bp::percent(20)) },
            duration: Millis::secs(2),
        },
    }
}

/// A service on some of the hosts, behind some of the proxies.
fn random_service(dice: &mut Dice, n: usize, hosts: &[HostName], proxies: &[ProxyName]) -> Service {
    fn some<T: Clone>(dice: &mut Dice, of: &[T]) -> Vec<T> {
        let first = dice.below(of.len() as u64) as usize;
        let chosen = of.iter().enumerate().filter(|(n, _)| *n == first || dice.chance(60));
        chosen.map(|(_, one)| one.clone()).collect()
    }
    let per_host = 1 + dice.below(3) as u32;
    let placement: BTreeMap<HostName, u32> = some(dice, hosts).into_iter().map(|h| (h, per_host)).collect();
    let strategy = random_strategy(dice, placement.values().sum());
    let mut service =
        service(["web", "api", "jobs"][n], 9000 + 100 * n as u16, placement, some(dice, proxies), strategy);
    let mut hook = || {
        let (idempotent, irreversible) = (dice.chance(50), dice.chance(20));
        let hook = Hook { run: vec!["x".into()], timeout: Millis::secs(60), idempotent, irreversible };
        dice.chance(20).then_some(hook)
    };
    service.hooks = Hooks { before_start: hook(), before_traffic: hook(), after_promote: hook() };
    service
}

/// What an operator may think of, or a controller suffer.
fn random_verb(sim: &mut Sim, dice: &mut Dice) {
    match dice.below(16) {
        0 => drop(sim.verb(Intent::Promote { full: false })),
        1 => drop(sim.verb(Intent::Promote { full: true })),
        2 => drop(sim.verb(Intent::Pause)),
        3 => drop(sim.verb(Intent::Resume)),
        4 if dice.chance(30) => drop(sim.verb(Intent::Abort)),
        5 => drop(sim.deploy(1 + dice.below(4) as u32, Kind::Release)),
        6 => {
            if let Some(k) = &sim.service().kept {
                let n = number_of(&k.revision);
                drop(sim.deploy(n, Kind::Rollback));
            }
        }
        7 => sim.crash(),
        8 => {
            let hosts: Vec<HostName> = sim.service().spec.placement.keys().cloned().collect();
            let host = hosts[dice.below(hosts.len() as u64) as usize].clone();
            drop(sim.verb(Intent::Hold(host)));
        }
        9 => drop(sim.verb(Intent::Retry(None))),
        _ => {}
    }
}

/// What an operator does who wants a rollout to come to an end; whether it has.
fn lead_to_the_end(sim: &mut Sim, n: u32) -> bool {
    if sim.service().active().is_some_and(|r| !r.held.is_empty()) {
        drop(sim.verb(Intent::Retry(None)));
    }
    match sim.service().active().map(|r| r.status) {
        // A pause that comes back (candidate and stable both failing) is for the operator to end.
        Some(Status::Paused) if n > 600 => drop(sim.verb(Intent::Abort)),
        Some(Status::Paused) => drop(sim.verb(Intent::Resume)),
        // Not all the time: a promotion counts as progress.
        Some(Status::Running) if sim.service().active().is_some_and(|r| r.settled_at.is_some()) => {
            drop(sim.verb(Intent::Promote { full: false }));
        }
        Some(_) => {}
        None => return sim.service().next.is_none(),
    }
    false
}

impl Sim {
    /// Does something about every service in turn.
    fn each(&mut self, mut act: impl FnMut(&mut Self)) {
        let names: Vec<ServiceName> = self.fleet.services.keys().cloned().collect();
        for name in names {
            self.about = name;
            act(self);
        }
    }

    /// Whether something is true of every service.
    fn all(&mut self, mut so: impl FnMut(&mut Self) -> bool) -> bool {
        let mut all = true;
        self.each(|sim| all &= so(sim));
        all
    }
}

/// An abort that owed something is still cleaning up; a kept revision is cooling.
fn at_rest(sim: &Sim) -> bool {
    let s = sim.service();
    let stable = s.stable.clone().unwrap();
    sim.orphans().is_empty()
        && s.kept.as_ref().is_none_or(|k| k.warm_until.is_none())
        && s.instances.values().all(|i| i.revision == stable || i.stage == Stage::Stopped)
        && sim.weight_of(&stable).iter().all(|w| *w == Bp::FULL)
}

/// One random story: verbs, faults and crashes; then the faults stop, and it must come to an end.
fn random_story(seed: u64) {
    let mut dice = Dice::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
    let hosts = names("node", 1 + dice.below(3) as usize);
    let proxies = names("lb", 1 + dice.below(2) as usize);
    let services = 1 + dice.below(3) as usize;
    let services = (0..services).map(|n| random_service(&mut dice, n, &hosts, &proxies)).collect();
    let mut sim = Sim::new(fleet_of(&hosts, &proxies, services), seed);
    sim.each(|sim| sim.deploy(1, Kind::Release).unwrap());
    let mut released = false;
    for _ in 0..150 {
        released = sim.all(|sim| sim.ended() == Some(Outcome::Done));
        if released {
            break;
        }
        sim.step();
    }
    assert!(released, "first release: {}", sim.explain());
    sim.faults = Faults {
        effect_fails: dice.below(30),
        write_slow: if dice.chance(50) { dice.below(60) } else { 0 },
        stop_never: false,
        write_late: if dice.chance(30) { dice.below(20) } else { 0 },
        unreachable: dice.below(10),
        instance_dies: if dice.chance(50) { dice.below(3) } else { 0 },
        crash: dice.below(10),
    };
    for _ in 0..dice.below(80) {
        sim.each(|sim| random_verb(sim, &mut dice));
        sim.step();
    }
    sim.faults = Faults::default();
    // Longer than the progress deadline: a rollout that waits for a stable that lost an instance ends by it.
    for n in 0..2400 {
        sim.step();
        if sim.all(|sim| lead_to_the_end(sim, n)) {
            break;
        }
    }
    sim.each(|sim| assert!(sim.ended().is_some(), "liveness of {}: {}", sim.about, sim.explain()));
    for n in 0.. {
        if sim.all(|sim| at_rest(sim)) {
            break;
        }
        assert!(n < 900, "never at rest: {}", sim.explain());
        sim.step();
    }
}

/// Two services on the same hosts behind the same proxy, of which one goes up and the other goes back meanwhile.
fn side_by_side(strategies: [Strategy; 2], mutant: Mutant) {
    let (hosts, proxies) = (names::<HostName>("node", 2), names::<ProxyName>("lb", 1));
    let placement: BTreeMap<HostName, u32> = hosts.iter().map(|h| (h.clone(), 1)).collect();
    let [one, other] = strategies;
    let services = vec![
        service("web", 9000, placement.clone(), proxies.clone(), one),
        service("api", 9100, placement, proxies.clone(), other),
    ];
    let mut sim = Sim::new(fleet_of(&hosts, &proxies, services), 1);
    sim.each(|sim| sim.deploy(1, Kind::Release).unwrap());
    for _ in 0..60 {
        sim.step();
    }
    assert!(sim.all(|sim| sim.ended() == Some(Outcome::Done)), "{}", sim.explain());
    sim.harness = Harness::wrong(mutant);
    sim.about = web();
    sim.deploy(2, Kind::Release).unwrap();
    for _ in 0..6 {
        sim.step();
    }
    sim.each(|sim| drop(sim.deploy(2, Kind::Release)));
    for n in 0..600 {
        sim.step();
        sim.about = "api".parse().unwrap();
        let half = sim.service().active().is_some_and(|r| *sim.service().weights.get(r.slot) > Bp::ZERO);
        if half && sim.service().active().is_some_and(|r| r.status == Status::Running) {
            sim.verb(Intent::Abort).unwrap();
        }
        if sim.all(|sim| lead_to_the_end(sim, n)) {
            break;
        }
    }
    sim.about = web();
    assert_eq!(sim.ended(), Some(Outcome::Done), "rule: {}", sim.explain());
}

#[test]
fn a_service_that_goes_back_does_not_disturb_one_that_goes_up() {
    for (name, one) in all_strategies() {
        for (_, other) in all_strategies() {
            println!("{name}");
            side_by_side([one.clone(), other], Mutant::None);
        }
    }
}

#[test]
fn a_controller_that_lets_one_service_disturb_another_is_caught() {
    for mutant in [Mutant::ForgetsOthers, Mutant::DragsOthers] {
        let caught = all_strategies().into_iter().filter(|(_, strategy)| {
            let story = || side_by_side([strategy.clone(), strategy.clone()], mutant);
            let Err(why) = std::panic::catch_unwind(story) else { return false };
            let why = why.downcast_ref::<String>().map_or("", String::as_str);
            why.starts_with("rule")
        });
        let caught: Vec<_> = caught.map(|(name, _)| name).collect();
        println!("mutant {mutant:?}: caught with {caught:?}");
        assert!(!caught.is_empty(), "{mutant:?} breaks no rule");
    }
}

#[test]
fn one_seed() {
    if let Some(seed) = std::env::var("PILOTHOUSE_SEED").ok().and_then(|s| s.parse().ok()) {
        random_story(seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PILOTHOUSE_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(5000),
        failure_persistence: None,
        // The same sequences every time, so that a change is judged and not the dice; PILOTHOUSE_DICE=N rolls others.
        rng_seed: proptest::test_runner::RngSeed::Fixed(
            std::env::var("PILOTHOUSE_DICE").ok().and_then(|n| n.parse().ok()).unwrap_or(1),
        ),
        ..ProptestConfig::default()
    })]
    // Two halves, so that two cores share them.
    #[test]
    fn whatever_happens_the_safety_rules_hold_and_it_ends(seed: u64) {
        random_story(seed | 1);
    }

    #[test]
    fn whatever_else_happens_the_safety_rules_hold_and_it_ends(seed: u64) {
        random_story(seed & !1);
    }
}
