//! The safety rules, asserted at every decision, every effect and every step.

use super::*;

impl Sim {
    /// Rules that bind decisions.
    pub(super) fn check_fact(&self, fact: &Fact) {
        // Before its first release a service is not there yet.
        let Some(s) = fact.service().and_then(|name| self.state.services.get(name)) else { return };
        match fact {
            Fact::WeightDecided { weights, .. } => {
                let sum = weights.a.get() + weights.b.get();
                assert!(sum == 10_000 || (sum == 0 && (s.stable.is_none() || s.down)), "rule 2: {weights:?}");
                if s.active().is_none() && !s.down && s.stable.is_some() {
                    let before = *s.weights.get(s.stable_slot);
                    assert_eq!(before, Bp::FULL, "rule 1: shares change although nothing is rolled out");
                }
                let Some(r) = s.active() else { return };
                let up = *weights.get(r.slot) > *s.weights.get(r.slot);
                if up && *weights.get(r.slot) > Bp::ZERO {
                    assert!(decide::hook_passed(s, r, HookKind::BeforeTraffic), "traffic before its hook");
                }
                if up && s.stable.as_ref() != Some(&r.to) {
                    assert!(
                        r.frozen.is_none() && r.status == Status::Running,
                        "rule 6: raised while out of reach"
                    );
                    let healthy = |id| {
                        let n = s.of(id).filter(|i| i.stage == Stage::Started && healthy(s, i, &self.obs));
                        u32::try_from(n.count()).unwrap()
                    };
                    // A shortage, declared by the strategy or made by the world, is split in proportion.
                    let shared = match (r.plan.limits.surge, &s.stable) {
                        (Some(_), Some(stable)) => {
                            let serves = |i: &&super::super::state::Instance| {
                                i.stage == Stage::Started && i.admitted && !known_bad(i, &self.obs)
                            };
                            let stable = u32::try_from(s.of(stable).filter(serves).count()).unwrap();
                            let least = s.spec.replicas() - r.plan.limits.unavailable;
                            healthy(&r.to).max(least).min(healthy(&r.to) + stable)
                        }
                        _ => s.spec.replicas(),
                    };
                    let carries = Bp::ratio(u64::from(healthy(&r.to)), u64::from(shared));
                    // What a lost journal knew is taken over as the proxies have it: nothing is raised there.
                    let as_it_was = r.plan.adopts
                        && self.journal.iter().all(|r| !matches!(r.fact, Fact::PhaseSettled { .. }));
                    assert!(
                        as_it_was || *weights.get(r.slot) <= carries,
                        "rule 1: {weights:?} with {carries}"
                    );
                    let goal = r.phase().unwrap().weight;
                    assert!(*weights.get(r.slot) <= goal, "more than the phase says");
                }
            }
            Fact::InstanceLeaving { instance, .. } => {
                let (Some(r), Some(i)) = (s.active(), s.instances.get(instance)) else { return };
                let sends = s.slot_of(&i.revision).is_some_and(|slot| *s.weights.get(slot) > Bp::ZERO);
                if self.fleet.hosts[&i.host].out || !sends || !healthy(s, i, &self.obs) {
                    return;
                }
                let others = s.instances.values().filter(|o| {
                    o.id != i.id && o.stage == Stage::Started && o.admitted && !known_bad(o, &self.obs)
                });
                let least = s.spec.replicas() - r.plan.limits.unavailable;
                assert!(others.count() >= least as usize, "rule 2: {instance} leaves, too few stay");
            }
            Fact::InstancePlaced { .. } | Fact::InstanceRevived { .. } => {
                if let (Some(r), Fact::InstancePlaced { revision, .. }) = (s.active(), fact) {
                    let first = decide::hook_passed(s, r, HookKind::BeforeStart);
                    assert!(*revision != r.to || first, "started before its hook");
                }
                let surge = s.active().and_then(|r| r.plan.limits.surge);
                let live = s.instances.values().filter(|i| i.stage <= Stage::Drained).count();
                if let (Some(surge), Fact::InstancePlaced { .. }) = (surge, fact) {
                    assert!(live < (s.spec.replicas() + surge) as usize, "more than the surge allows");
                }
            }
            Fact::Promoted { .. } => {
                let r = s.active().unwrap();
                assert_eq!(*s.weights.get(r.slot), Bp::FULL, "promoted without all of the traffic");
            }
            _ => {}
        }
    }

    /// What is decided for a service is what would be decided if there were no other: none disturbs another.
    pub(super) fn check_alone(&self, facts: &[Fact]) {
        // Costs as much as deciding itself, so not every time.
        if self.state.services.len() < 2 || !(self.now.0 / 500).is_multiple_of(4) {
            return;
        }
        for name in self.state.services.keys() {
            let of: Vec<&Fact> = facts.iter().filter(|f| f.service() == Some(name)).collect();
            // What became of instances is decided first, for all services together: the others wait for it.
            if of.is_empty() && !facts.is_empty() {
                continue;
            }
            let mut alone = self.state.clone();
            alone.services.retain(|n, _| n == name);
            let expected = decide::advance(&alone, &self.obs, self.now);
            assert!(
                of.iter().copied().eq(&expected),
                "rule: {name} is disturbed by another service: {of:?} and not {expected:?}"
            );
        }
    }

    /// When there is nothing more to decide, an abort that is not over has words for what it waits for.
    pub(super) fn check_words(&self) {
        for s in self.state.services.values() {
            let Some(r) = s.active().filter(|r| r.status == Status::Aborting) else { continue };
            let waiting = decide::waiting(&self.state, s, r, &self.obs, self.now);
            assert!(!waiting.is_empty(), "{} has no words for what it waits for\n{s:#?}", r.id);
        }
    }

    /// Rules that bind effects, held against the world itself and not what is known of it.
    pub(super) fn check_effect(&self, effect: &Effect) {
        match effect {
            Effect::Routes { proxy, routes, .. } => {
                for (name, s) in &self.state.services {
                    let has = routes.iter().any(|r| r.service == *name);
                    let serves = s.spec.proxies.contains(proxy) && s.stable.is_some() && !s.down;
                    assert!(has || !serves, "rule 2: {proxy} is to forget {name}");
                }
            }
            Effect::Start { service, instance, .. } => {
                let s = &self.state.services[service];
                let digest = &s.revisions[&s.instances[instance].revision].digest;
                let its = |n: &HostName| s.spec.placement.contains_key(n) && !self.fleet.hosts[n].out;
                for (name, (_, _, images)) in self.hosts.iter().filter(|(n, _)| its(n)) {
                    assert!(images.contains(digest), "rule 4: started before {name} had the artifact");
                }
            }
            Effect::Stop { instance, .. } => {
                for (name, p) in &self.proxies {
                    for (n, worker) in p.workers.iter().enumerate() {
                        for route in worker.values() {
                            for slot in Slot::BOTH {
                                let s = route.slots.get(slot);
                                let sends = s.weight > Bp::ZERO
                                    && s.endpoints
                                        .iter()
                                        .any(|e| e.instance == *instance && e.state == EndpointState::Ready);
                                // An old worker is waited for until the deadline; a late write is put right, not foreseen.
                                let excused = n > 0 || self.faults.write_late > 0;
                                assert!(
                                    !sends || excused,
                                    "rule 3: {instance} stopped while {name} sends to it"
                                );
                            }
                        }
                    }
                }
                self.is_ours(instance);
                self.may_be_touched(instance);
            }
            Effect::Remove { instance, host } => {
                self.may_be_touched(instance);
                self.is_ours(instance);
                let running =
                    self.hosts[host].1.get(instance).is_some_and(|p| p.seen.state == RunState::Running);
                assert!(!running || !self.hosts[host].0, "removed while running");
            }
            _ => {}
        }
    }

    /// What was adopted is never stopped or removed before somebody allowed it.
    fn may_be_touched(&self, instance: &InstanceId) {
        let i = self.state.services.values().find_map(|s| s.instances.get(instance));
        let mut seen = self.hosts.values().filter_map(|(_, ps, _)| ps.get(instance));
        let unknown = i.is_none() && seen.any(|p| p.seen.adopts.is_some());
        assert!(!unknown, "{instance} was adopted and let go of");
        assert!(!i.is_some_and(crate::rollout::state::Instance::external), "{instance} was adopted");
    }

    fn is_ours(&self, instance: &InstanceId) {
        let has = |s: &super::super::state::ServiceState| {
            s.instances.contains_key(instance)
                || s.removed.contains(instance)
                || s.rollout.iter().flat_map(|r| &r.hooks).any(|h| h.instance == *instance)
        };
        assert!(self.state.services.values().any(has), "rule 5: {instance} is not ours");
    }

    /// What must hold in the world after every step, once something serves.
    pub(super) fn check_world(&self) {
        self.state.services.values().for_each(|s| self.check_service(s));
    }

    fn check_service(&self, s: &super::super::state::ServiceState) {
        if self.excused_until.get(&s.spec.name).is_some_and(|until| self.now < *until) {
            return;
        }
        if s.stable.is_none() || s.down {
            return;
        }
        // In place and with nobody else to serve: that is the downtime this strategy declares.
        if s.active().is_some_and(|r| r.plan.limits.unavailable >= s.spec.replicas()) {
            return;
        }
        for (name, p) in self.proxies.iter().filter(|(name, _)| s.spec.proxies.contains(name)) {
            let Some(route) = p.workers[0].get(&s.spec.name) else {
                panic!("rule 2: {name} lost its route to {}", s.spec.name)
            };
            for slot in Slot::BOTH {
                let has = route.slots.get(slot);
                if has.weight == Bp::ZERO {
                    continue;
                }
                let serving = has.endpoints.iter().filter(|e| e.state == EndpointState::Ready).any(|e| {
                    self.hosts.values().any(|(_, ps, _)| {
                        ps.get(&e.instance).is_some_and(|p| p.seen.state == RunState::Running)
                    })
                });
                assert!(
                    serving,
                    "rule 2: {name} sends {} to slot {slot:?}, where nothing runs\n{}",
                    has.weight,
                    self.explain()
                );
            }
        }
    }
}
