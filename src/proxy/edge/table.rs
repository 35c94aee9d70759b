//! Which instance a request goes to, and what is counted of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;

use super::forward::ATTEMPTS;
use super::visitor;
use crate::fleet::model::HealthCheck;
use crate::fleet::names::{FleetName, InstanceId, ServiceName};
use crate::proxy::place_cookie;
use crate::rollout::world::{
    EndpointReadback, EndpointState, Route, RouteReadback, Slot, SlotReadback, Slots, WorkerRoute,
};
use crate::traffic::Counters;

/// How long an endpoint that could not be connected to is avoided.
const AVOID: Duration = Duration::from_secs(1);
/// Instances that are no longer routed are remembered up to this many.
const REMEMBERED: usize = 2000;

/// What is known of one instance, whatever routes it is in.
pub(super) struct Stats {
    /// Since the process started.
    pub(super) counters: Mutex<Counters>,
    /// Requests and tunnels now.
    pub(super) in_flight: AtomicU32,
    /// 0 not checked yet, 1 up, 2 down.
    up: AtomicU8,
    /// Milliseconds after [`State::start`] until which it is avoided.
    avoid_until: AtomicU64,
}

impl Stats {
    /// Notes what the check says.
    pub(super) fn set_up(&self, up: bool) {
        self.up.store(if up { 1 } else { 2 }, Ordering::Relaxed);
    }

    fn up(&self) -> Option<bool> {
        match self.up.load(Ordering::Relaxed) {
            0 => None,
            n => Some(n == 1),
        }
    }

    /// Counts something.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// An endpoint of a route.
pub(super) struct Endpoint {
    /// Where it listens.
    pub(super) addr: SocketAddr,
    /// Its instance.
    pub(super) instance: InstanceId,
    state: EndpointState,
    /// What is counted.
    pub(super) stats: Arc<Stats>,
}

/// A service's route with its endpoints at hand.
pub(super) struct Service {
    /// As it was put.
    pub(super) route: Route,
    /// The name of the cookie that holds a visitor's place.
    pub(super) cookie: String,
    slots: Slots<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
}

/// All routes; replaced as a whole.
#[derive(Default)]
pub(super) struct Table {
    fleet: Option<FleetName>,
    services: Vec<Arc<Service>>,
}

/// The edge's memory.
pub(super) struct State {
    table: RwLock<Arc<Table>>,
    stats: Mutex<BTreeMap<InstanceId, Arc<Stats>>>,
    start: Instant,
    dice: AtomicU64,
}

impl State {
    /// No routes yet; `seed` for the dice.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            table: RwLock::default(),
            stats: Mutex::default(),
            start: Instant::now(),
            dice: AtomicU64::new(seed),
        }
    }

    /// Puts the routes of a fleet in force, all at once.
    pub(super) fn put(&self, fleet: Option<&FleetName>, routes: &[Route]) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let mut service = |route: &Route| {
            let mut slot = |s: Slot| {
                let endpoint = |e: &crate::rollout::world::RouteEndpoint| {
                    let stats = stats.entry(e.instance.clone()).or_insert_with(|| Arc::new(Stats::new()));
                    Arc::new(Endpoint {
                        addr: e.addr,
                        instance: e.instance.clone(),
                        state: e.state,
                        stats: Arc::clone(stats),
                    })
                };
                route.slots.get(s).endpoints.iter().map(endpoint).collect::<Vec<_>>()
            };
            let slots = Slots { a: slot(Slot::A), b: slot(Slot::B) };
            let cookie = match fleet {
                Some(fleet) => place_cookie(fleet, &route.service),
                None => format!("ph_{}", route.service),
            };
            Arc::new(Service { route: route.clone(), cookie, slots, next: AtomicUsize::new(0) })
        };
        let table = Table { fleet: fleet.cloned(), services: routes.iter().map(&mut service).collect() };
        if stats.len() > REMEMBERED {
            // One reference is this map's; more mean a route, the old table or a request.
            stats.retain(|_, s| Arc::strong_count(s) > 1);
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// The table in force now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every endpoint, with its service's route and how it is checked.
    pub(super) fn endpoints(&self) -> Vec<(Arc<Endpoint>, Arc<Service>, HealthCheck)> {
        let table = self.table();
        let of = |s: &Arc<Service>| {
            let in_slot = |slot: Slot| {
                let check = s.route.health.get(slot).clone();
                let all = s.slots.get(slot).iter().map(|e| (Arc::clone(e), Arc::clone(s), check.clone()));
                all.collect::<Vec<_>>()
            };
            Slot::BOTH.into_iter().flat_map(in_slot).collect::<Vec<_>>()
        };
        table.services.iter().flat_map(of).collect()
    }

    /// The fleet and the routes as they were put.
    pub(super) fn routes(&self) -> (Option<FleetName>, Vec<Route>) {
        let table = self.table();
        (table.fleet.clone(), table.services.iter().map(|s| s.route.clone()).collect())
    }

    /// What is counted, per instance.
    pub(super) fn counters(&self) -> BTreeMap<InstanceId, Counters> {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |s: &Arc<Stats>| s.counters.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stats.iter().map(|(id, s)| (id.clone(), of(s))).collect()
    }

    /// What is in force, as the driver reads it back.
    pub(super) fn read_back(&self) -> BTreeMap<ServiceName, RouteReadback> {
        let worker = |s: &Service| {
            let slot = |slot: Slot| SlotReadback {
                weight: s.route.slots.get(slot).weight,
                endpoints: s
                    .slots
                    .get(slot)
                    .iter()
                    .map(|e| EndpointReadback {
                        instance: e.instance.clone(),
                        addr: e.addr,
                        state: e.state,
                        up: e.stats.up(),
                        in_flight: e.stats.in_flight.load(Ordering::Relaxed),
                    })
                    .collect(),
            };
            WorkerRoute {
                worker: std::process::id().to_string(),
                current: true,
                stable: s.route.stable,
                slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
                rules: s.route.rules.clone(),
                sticky: s.route.sticky,
            }
        };
        let table = self.table();
        let back = |s: &Arc<Service>| (s.route.service.clone(), RouteReadback { workers: vec![worker(s)] });
        table.services.iter().map(back).collect()
    }

    /// A throw of the dice: 0 to 9,999, each as likely. Not random but the multiples of the golden ratio, modulo one:
    /// any few hundred throws in a row are spread evenly, and so is every n-th of them, so that a quiet service gets its
    /// share as well, and whoever comes in regular turns.
    fn throw(&self) -> u16 {
        let z = self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        u16::try_from(((z >> 32) * 10_000) >> 32).unwrap_or(0)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Avoids an endpoint for a moment: it could not be connected to.
    pub(super) fn avoid(&self, endpoint: &Endpoint) {
        let until = self.now_ms() + u64::try_from(AVOID.as_millis()).unwrap_or(1000);
        endpoint.stats.avoid_until.store(until, Ordering::Relaxed);
    }

    /// The slot a new request of `service` belongs to, and the place that its visitor has to be told; `None` when no
    /// slot has a share. A rule decides before the place in a visitor's cookie, and that before the dice.
    pub(super) fn choose_slot(&self, service: &Service, headers: &HeaderMap) -> Option<(Slot, Option<u16>)> {
        let route = &service.route;
        let (a, b) = (route.slots.a.weight.get(), route.slots.b.weight.get());
        if a == 0 && b == 0 {
            return None;
        }
        if route.rules.iter().any(|rule| visitor::follows(headers, rule)) {
            return Some((route.stable.other(), None));
        }
        let has = route.sticky.then(|| visitor::place(headers, &service.cookie)).flatten();
        let place = has.unwrap_or_else(|| self.throw());
        let slot = if place < b || a == 0 { Slot::B } else { Slot::A };
        Some((slot, (route.sticky && has.is_none()).then_some(place)))
    }

    /// An endpoint for a request of `slot` that was not tried yet. A candidate that has none falls back to stable,
    /// never the other way; stable's are tried even when they look dead, as there is nothing else.
    pub(super) fn choose(
        &self,
        service: &Service,
        slot: Slot,
        tried: &[SocketAddr],
    ) -> Option<Arc<Endpoint>> {
        let stable = service.route.stable;
        let now = self.now_ms();
        let looks_alive =
            |e: &Endpoint| e.stats.up() != Some(false) && e.stats.avoid_until.load(Ordering::Relaxed) <= now;
        let pick = |slot: Slot, even_dead: bool| {
            let usable: Vec<&Arc<Endpoint>> = service
                .slots
                .get(slot)
                .iter()
                .filter(|e| e.state == EndpointState::Ready && !tried.contains(&e.addr))
                .filter(|e| even_dead || looks_alive(e))
                .collect();
            let n = service.next.fetch_add(1, Ordering::Relaxed).checked_rem(usable.len())?;
            usable.get(n).map(|e| Arc::clone(e))
        };
        // A candidate whose instances die one after the other must not use up all attempts: the last is stable's.
        let last = tried.len() + 1 >= ATTEMPTS && slot != stable;
        let own = if last { None } else { pick(slot, false) };
        let falls_back = || if slot == stable { None } else { pick(stable, false) };
        own.or_else(falls_back)
            .or_else(|| if last { pick(slot, false) } else { None })
            .or_else(|| pick(stable, true))
    }
}

impl Stats {
    fn new() -> Self {
        Self {
            counters: Mutex::default(),
            in_flight: AtomicU32::new(0),
            up: AtomicU8::new(0),
            avoid_until: AtomicU64::new(0),
        }
    }
}

impl Table {
    /// The service for a `Host` header: the one that names the host, else the one that names none.
    pub(super) fn by_host(&self, host: Option<&str>) -> Option<&Arc<Service>> {
        let host = host.map(without_port).unwrap_or_default();
        let named = |s: &&Arc<Service>| s.route.domains.iter().any(|d| d.eq_ignore_ascii_case(host));
        self.services.iter().find(named).or_else(|| self.services.iter().find(|s| s.route.domains.is_empty()))
    }
}

/// `example.org` out of `example.org:80`; `[::1]` out of `[::1]:80`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::model::{Probe, Rule, RuleBy};
    use crate::fleet::names::{Bp, Millis};
    use crate::rollout::world::{RouteEndpoint, SlotRoute};

    fn route(name: &str, domains: &[&str], a: &[u16], b: &[u16], b_bp: u64) -> Route {
        let slot = |ports: &[u16], weight| SlotRoute {
            revision: None,
            weight,
            endpoints: ports
                .iter()
                .map(|p| RouteEndpoint {
                    instance: format!("web-{p}").parse().unwrap(),
                    addr: SocketAddr::from(([127, 0, 0, 1], *p)),
                    state: EndpointState::Ready,
                })
                .collect(),
        };
        let share = Bp::saturating(b_bp);
        let health =
            HealthCheck { probe: Probe::Tcp, interval: Millis(1), timeout: Millis(1), rise: 1, fall: 1 };
        Route {
            service: name.parse().unwrap(),
            stable: Slot::A,
            slots: Slots { a: slot(a, share.rest()), b: slot(b, share) },
            domains: domains.iter().map(|d| (*d).to_owned()).collect(),
            health: Slots { a: health.clone(), b: health },
            rules: Vec::new(),
            sticky: false,
        }
    }

    fn state(r: Route) -> (State, Arc<Service>) {
        let state = State::new(7);
        state.put(Some(&"shop".parse().unwrap()), &[r]);
        let service = Arc::clone(state.table().by_host(None).unwrap());
        (state, service)
    }

    fn slot(state: &State, service: &Service) -> Slot {
        state.choose_slot(service, &HeaderMap::new()).unwrap().0
    }

    #[test]
    fn visitors_move_one_way_as_the_weight_rises() {
        for stable in Slot::BOTH {
            let candidate = stable.other();
            let at = |percent: u64, place: Option<u16>| {
                let b = if candidate == Slot::B { percent * 100 } else { 10_000 - percent * 100 };
                let mut r = route("web", &[], &[1], &[2], b);
                (r.stable, r.sticky) = (stable, true);
                let (state, service) = state(r);
                let mut headers = HeaderMap::new();
                if let Some(place) = place {
                    headers.insert("cookie", format!("ph_shop_web={place}").parse().unwrap());
                }
                state.choose_slot(&service, &headers).unwrap()
            };
            for place in (0..10_000).step_by(7) {
                let seen: Vec<bool> =
                    [0, 10, 30, 100].iter().map(|&p| at(p, Some(place)).0 == candidate).collect();
                assert!(seen.is_sorted() && !seen[0] && seen[3], "{place}: {seen:?}");
                assert_eq!(at(30, Some(place)).1, None, "a place that is known is not told again");
            }
            let (slot, told) = at(30, None);
            assert_eq!(at(30, told).0, slot);
        }
    }

    #[test]
    fn a_rule_decides_before_place_and_dice() {
        let mut r = route("web", &[], &[1], &[2], 0);
        r.sticky = true;
        r.rules = vec![Rule { by: RuleBy::Header, name: "X-Variant".into(), value: "b".into() }];
        let (state, service) = state(r);
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "ph_shop_web=9999".parse().unwrap());
        assert_eq!(state.choose_slot(&service, &headers), Some((Slot::A, None)));
        headers.insert("x-variant", "b".parse().unwrap());
        assert_eq!(state.choose_slot(&service, &headers), Some((Slot::B, None)));
        let mut none = service.route.clone();
        none.slots.a.weight = Bp::ZERO;
        let (state, service) = super::tests::state(none);
        assert_eq!(state.choose_slot(&service, &headers), None, "not before a first release");
    }

    #[test]
    fn the_dice_is_exact_to_a_tenth_of_a_per_cent() {
        let (state, service) = state(route("web", &[], &[1], &[2], 500));
        let hits = (0..1_000_000).filter(|_| slot(&state, &service) == Slot::B).count();
        assert!((49_000..51_000).contains(&hits), "{hits}");
        for n in 0..200 {
            let hits = (0..500).filter(|_| slot(&state, &service) == Slot::B).count();
            assert!((22..=28).contains(&hits), "{hits} of 500 for 5 %, window {n}");
        }
        let every_12th = (0..12_000).filter(|n| slot(&state, &service) == Slot::B && n % 12 == 0).count();
        assert!((45..=55).contains(&every_12th), "{every_12th} of 1,000 for a visitor in regular turns");
        let (none, service) = super::tests::state(route("web", &[], &[1], &[2], 0));
        assert!((0..100_000).all(|_| slot(&none, &service) == Slot::A));
    }

    #[test]
    fn a_candidate_falls_back_to_stable_and_never_the_other_way() {
        let (state, service) = state(route("web", &[], &[1], &[2, 3], 500));
        let port = |slot, tried: &[u16]| {
            let tried: Vec<_> = tried.iter().map(|p| SocketAddr::from(([127, 0, 0, 1], *p))).collect();
            state.choose(&service, slot, &tried).map(|e| e.addr.port())
        };
        let mut both = [port(Slot::B, &[]), port(Slot::B, &[])];
        both.sort();
        assert_eq!(both, [Some(2), Some(3)], "round robin");
        assert_eq!(port(Slot::B, &[2]), Some(3));
        assert_eq!(port(Slot::B, &[2, 3]), Some(1));
        assert_eq!(port(Slot::A, &[1]), None, "a dead stable never loads the candidate");
        service.slots.a[0].stats.set_up(false);
        assert_eq!(port(Slot::A, &[]), Some(1), "stable is tried though it looks dead");
        service.slots.b[0].stats.set_up(false);
        state.avoid(&service.slots.b[1]);
        assert_eq!(port(Slot::B, &[]), Some(1));
    }

    #[test]
    fn a_draining_endpoint_is_never_chosen() {
        let mut r = route("web", &[], &[1, 2], &[], 0);
        r.slots.a.endpoints[0].state = EndpointState::Drain;
        let (state, service) = state(r);
        assert!((0..10).all(|_| state.choose(&service, Slot::A, &[]).unwrap().addr.port() == 2));
    }

    #[test]
    fn services_are_found_by_host() {
        let state = State::new(1);
        state.put(None, &[route("api", &["api.example.org"], &[1], &[], 0), route("web", &[], &[2], &[], 0)]);
        let table = state.table();
        let name = |host| table.by_host(host).map(|s| s.route.service.to_string());
        assert_eq!(name(Some("API.example.org:8080")).as_deref(), Some("api"));
        assert_eq!(name(Some("other")).as_deref(), Some("web"));
        assert_eq!(name(None).as_deref(), Some("web"));
        assert_eq!(without_port("[::1]:80"), "[::1]");
    }
}
