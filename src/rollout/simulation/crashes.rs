//! The controller dies at every boundary, once and twice: after each fact, and before and after each effect, for every
//! strategy, on the way up and on the way back. And controllers that are wrong on purpose, to see that this finds it.
//!
//! `PILOTHOUSE_SIM_CRASH_PAIRS` is the number of pairs per strategy and direction (200; `all` for every one).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::strategies::all_strategies;
use super::*;
use crate::fleet::model::Strategy;

/// A controller that is wrong in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// It is not.
    #[default]
    None,
    /// What a proxy is told counts as done, and is journalled, before it was told.
    DoneFirst,
    /// Whatever is to leave is stopped at once.
    RemoveFirst,
    /// The candidate gets its share as soon as it is placed.
    WeightFirst,
    /// A proxy is told of the services that are being rolled out, and of no other.
    ForgetsOthers,
    /// What one service goes back from, all go back from.
    DragsOthers,
}

/// What the harness does to a simulated controller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Harness {
    mutant: Mutant,
    /// Lanes do not wait for one another: here the hosts' are always ahead of the proxies', which is the worse order.
    hosts_first: bool,
    /// Boundaries of this life so far.
    seen: u64,
    /// At which boundary of each life to come it dies.
    at: VecDeque<u64>,
    deaths: u64,
}

impl Sim {
    /// A boundary; whether the controller has died there.
    pub(super) fn dies(&mut self) -> bool {
        self.harness.seen += 1;
        if self.harness.at.front() != Some(&self.harness.seen) {
            return false;
        }
        self.harness.at.pop_front();
        self.harness.seen = 0;
        self.harness.deaths += 1;
        self.crash();
        true
    }

    /// The facts that follow now; a mutant has its own.
    pub(super) fn decided(&self) -> Vec<Fact> {
        if self.harness.mutant == Mutant::WeightFirst
            && let Some(s) = self.state.services.get(&self.about)
            && let Some(r) = s.active().filter(|r| r.status == Status::Running)
            && s.slot_of(&r.to) == Some(r.slot)
            && s.stable.is_some()
            && s.of(&r.to).any(|i| i.stage == Stage::Placed)
            && let Some(goal) = r.phase().map(|p| p.weight)
            && *s.weights.get(r.slot) < goal
        {
            let mut weights = s.weights.clone();
            *weights.get_mut(r.slot) = goal;
            *weights.get_mut(r.slot.other()) = goal.rest();
            return vec![Fact::WeightDecided { service: self.about.clone(), weights }];
        }
        if self.harness.mutant == Mutant::DragsOthers {
            let mut active = self.state.services.values().filter_map(|s| Some((s, s.active()?)));
            let back = active.clone().any(|(_, r)| r.status == Status::Aborting);
            let dragged =
                active.find(|(s, r)| r.status == Status::Running && *s.weights.get(r.slot) > Bp::ZERO);
            if let Some((s, r)) = dragged.filter(|_| back) {
                let mut weights = Slots { a: Bp::ZERO, b: Bp::ZERO };
                *weights.get_mut(r.slot.other()) = Bp::FULL;
                return vec![Fact::WeightDecided { service: s.spec.name.clone(), weights }];
            }
        }
        decide::advance(&self.state, &self.obs, self.now)
    }

    /// What is to be done; a mutant does more.
    pub(super) fn effects(&self) -> Vec<Effect> {
        let mut effects = reconcile(&self.state, &self.obs);
        if self.harness.mutant == Mutant::RemoveFirst {
            let leaving = self
                .state
                .services
                .values()
                .flat_map(|s| s.instances.values())
                .filter(|i| i.stage == Stage::Leaving);
            effects.splice(
                0..0,
                leaving.map(|i| Effect::Stop {
                    host: i.host.clone(),
                    instance: i.id.clone(),
                    grace: Millis(0),
                }),
            );
        }
        if self.harness.mutant == Mutant::ForgetsOthers {
            for effect in &mut effects {
                if let Effect::Routes { routes, .. } = effect {
                    routes.retain(|r| self.state.services[&r.service].active().is_some());
                }
            }
        }
        if self.harness.hosts_first {
            effects.sort_by_key(|e| matches!(e, Effect::Routes { .. }));
        }
        effects
    }

    /// A mutant's journal runs ahead of what it does. Whether it has died of that.
    pub(super) fn says_done_first(&mut self, effect: &Effect) -> bool {
        let Effect::Routes { proxy, routes, .. } = effect else { return false };
        if self.harness.mutant != Mutant::DoneFirst {
            return false;
        }
        let mut as_if = self.proxies[proxy].clone();
        write(&mut as_if, routes);
        as_if.workers.truncate(1);
        self.obs.proxies.entry(proxy.clone()).or_default().routes = read_back(&as_if);
        for _ in 0..50 {
            let facts = decide::advance(&self.state, &self.obs, self.now);
            if facts.is_empty() {
                break;
            }
            facts.into_iter().for_each(|f| self.record(f));
        }
        self.dies()
    }
}

impl Harness {
    /// A controller that is wrong, and is not killed.
    pub(super) fn wrong(mutant: Mutant) -> Self {
        Self { mutant, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Abort,
}

fn id(n: u32) -> RevisionId {
    format!("{n:08x}").parse().unwrap()
}

/// Version 1 serves.
fn released(strategy: &Strategy) -> Sim {
    let mut fleet = fleet_with(2, 1, 1, strategy.clone());
    fleet.services.get_mut(&web()).unwrap().keep = Millis::secs(1);
    let mut sim = Sim::new(fleet, 1);
    sim.deploy(1, Kind::Release).unwrap();
    sim.run_until("first release", 60, |s| s.ended() == Some(Outcome::Done));
    sim
}

/// A release to version 2, or half of one and back; panics when a rule is broken or it does not end as it should.
fn release(start: &Sim, way: Way, mutant: Mutant, at: &[u64]) -> Sim {
    let mut sim = start.clone();
    sim.harness =
        Harness { mutant, hosts_first: true, at: at.iter().copied().collect(), ..Harness::default() };
    sim.deploy(2, Kind::Release).unwrap();
    for step in 0.. {
        assert!(step < 400, "it does not end\n{}", sim.explain());
        if sim.ended().is_some() && sim.service().next.is_none() {
            break;
        }
        let Some(r) = sim.service().active().cloned() else { break };
        let half = *sim.service().weights.get(r.slot) > Bp::ZERO || step >= 12;
        if way == Way::Abort && half && r.status == Status::Running {
            sim.verb(Intent::Abort).unwrap();
        } else if r.settled_at.is_some() && r.phase().is_some_and(|p| p.gates.contains(&Gate::Manual)) {
            drop(sim.verb(Intent::Promote { full: false }));
        }
        sim.step();
    }
    // Until what is kept is stopped, and what is not is gone.
    for _ in 0..30 {
        sim.step();
    }
    let (wanted, serves) = match way {
        Way::Up => (Outcome::Done, id(2)),
        Way::Abort => (Outcome::Aborted, id(1)),
    };
    assert_eq!(sim.ended(), Some(wanted), "{}", sim.explain());
    assert!(sim.current_weight_of(&serves).iter().all(|w| *w == Bp::FULL), "{}", sim.explain());
    let up = sim.service().of(&serves).filter(|i| i.stage == Stage::Started && i.admitted).count();
    assert_eq!(up, 2, "{}", sim.explain());
    assert_eq!(sim.orphans(), []);
    sim
}

#[derive(Debug, Default)]
struct Counts {
    boundaries: u64,
    runs: u64,
    deaths: u64,
    violations: Vec<String>,
}

impl Counts {
    fn run(&mut self, start: &Sim, way: Way, mutant: Mutant, at: &[u64]) -> bool {
        self.runs += 1;
        match catch_unwind(AssertUnwindSafe(|| release(start, way, mutant, at))) {
            Ok(sim) => {
                self.deaths += sim.harness.deaths;
                sim.harness.deaths > 0
            }
            Err(why) => {
                let why =
                    why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
                let first = why.and_then(|w| w.lines().next()).unwrap_or_default();
                self.violations.push(format!("{way:?} {at:?}: {first}"));
                true
            }
        }
    }

    /// Dies at every boundary until a run is left alone.
    fn singles(&mut self, start: &Sim, way: Way) {
        while self.run(start, way, Mutant::None, &[self.boundaries + 1]) {
            self.boundaries += 1;
            assert!(self.boundaries < 5_000, "a run is never left alone");
        }
    }

    fn pairs(&mut self, start: &Sim, way: Way) {
        let asked = std::env::var("PILOTHOUSE_SIM_CRASH_PAIRS").unwrap_or_else(|_| "200".to_owned());
        let all = self.boundaries * self.boundaries;
        let mut dice = Dice::new(7);
        for n in 0..asked.parse().unwrap_or(all).min(all) {
            let pair = if asked == "all" { n } else { dice.below(all) };
            self.run(start, way, Mutant::None, &[pair / self.boundaries + 1, pair % self.boundaries + 1]);
        }
    }
}

#[test]
fn scenario_1_every_strategy_survives_a_crash_at_every_boundary_and_at_pairs_of_them() {
    let mut broken = Vec::new();
    for (name, strategy) in all_strategies() {
        let start = released(&strategy);
        for way in [Way::Up, Way::Abort] {
            let mut counts = Counts::default();
            counts.singles(&start, way);
            counts.pairs(&start, way);
            println!(
                "simulated crashes: {name} {way:?}: {} boundaries, {} runs, {} deaths, {} violations",
                counts.boundaries,
                counts.runs,
                counts.deaths,
                counts.violations.len()
            );
            broken.extend(counts.violations.into_iter().map(|v| format!("{name} {v}")));
        }
    }
    assert!(broken.is_empty(), "{} violations: {:#?}", broken.len(), broken.get(..broken.len().min(10)));
}

/// A mutant that breaks no rule in any strategy would mean that the harness sees nothing.
fn assert_caught(mutant: Mutant) {
    let mut caught = Vec::new();
    for (name, strategy) in all_strategies() {
        let start = released(&strategy);
        for way in [Way::Up, Way::Abort] {
            let mut counts = Counts::default();
            while counts.violations.is_empty() && counts.run(&start, way, mutant, &[counts.boundaries + 1]) {
                counts.boundaries += 1;
            }
            let found = counts.violations.into_iter().filter(|v| v.contains("rule "));
            caught.extend(found.map(|v| format!("{name}, after {} runs: {v}", counts.runs)));
        }
    }
    println!("mutant {mutant:?}: caught {} times: {caught:#?}", caught.len());
    assert!(!caught.is_empty(), "{mutant:?} breaks no rule");
}

#[test]
fn a_controller_that_journals_done_before_it_acts_is_caught() {
    assert_caught(Mutant::DoneFirst);
}

#[test]
fn a_controller_that_removes_before_it_has_drained_is_caught() {
    assert_caught(Mutant::RemoveFirst);
}

#[test]
fn a_controller_that_gives_a_share_before_health_is_caught() {
    assert_caught(Mutant::WeightFirst);
}
