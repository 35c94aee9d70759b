//! What one HAProxy worker has in force, and what that means for the routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cli::Master;
use super::config::{self, DICE, MapEntry, Pairs, Place, Rendered};
use super::lines::{self, Lines, ON};
use super::{parse, rules};
use crate::fleet::model::{Rule, RuleBy};
use crate::fleet::names::{Bp, FleetName, InstanceId, ServiceName};
use crate::proxy::ProxyError;
use crate::rollout::world::{EndpointReadback, EndpointState, Route, Slot, SlotReadback, Slots, WorkerRoute};

/// From here on, keys of a map match no dice. An old worker whose servers are not the route's any more sends a
/// slot's share elsewhere; the shares it was told are then kept under `DECLARED + value`.
const DECLARED: u32 = 20_000;

/// The bits of `srv_admin_state` that mean maintenance, whoever ordered it; the others mean draining.
const MAINTENANCE: u32 = 0b110_0111;

/// Longest wait for a worker that answers nothing to be gone.
const ENDING: Duration = Duration::from_secs(1);

/// One server line as a worker has it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    addr: Option<SocketAddr>,
    weight: u32,
    admin: u32,
    running: bool,
    checked: bool,
    /// One of stable's in the other slot, for what a candidate drops.
    fall_back: bool,
    /// Whether rules give it its requests, and not the balancing.
    given: bool,
    in_flight: u32,
}

impl Live {
    fn state(&self) -> EndpointState {
        // A candidate is given its requests by rules, which only a weight of 0 or maintenance stops.
        let stopped = if self.given { self.admin & MAINTENANCE != 0 } else { self.admin != 0 };
        if self.weight == 0 || stopped { EndpointState::Drain } else { EndpointState::Ready }
    }

    fn usable(&self) -> bool {
        self.state() == EndpointState::Ready && self.running
    }
}

/// A service as a worker has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    /// From the marker in the neutral backend.
    stable: Slot,
    /// The map; `None` when no frontend of this worker has loaded it.
    pub(super) map: Option<Vec<MapEntry>>,
    /// The map of rules; `None` likewise.
    pub(super) rules: Option<Pairs>,
    /// The switch of sticky places; `None` likewise.
    pub(super) sticky: Option<Pairs>,
    /// What the frontends do with them.
    pub(super) lines: Lines,
    /// Server lines by place and name.
    rows: BTreeMap<(Place, String), Live>,
}

/// A worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    /// Its process id.
    pub(super) pid: u32,
    /// Whether it accepts new connections.
    pub(super) current: bool,
    /// The generation of the configuration it has loaded; `None` when that has no service.
    pub(super) generation: Option<String>,
    /// The services it has.
    pub(super) services: BTreeMap<ServiceName, Service>,
    /// Connections of clients, of any frontend.
    clients: u64,
}

impl Worker {
    /// Asks a worker for everything. `None` when it is gone.
    pub(super) async fn read(
        master: &Master,
        proc: &parse::Proc,
        dir: &Path,
        fleet: &FleetName,
    ) -> Result<Option<Self>, ProxyError> {
        // A worker that is just ending is still listed, and says nothing, until its master notices. With half an
        // answer it must not look like one without our services.
        let start = Instant::now();
        let (stat, state) = loop {
            let Some(stat) = master.worker(proc.pid, &["show stat"]).await? else { return Ok(None) };
            let Some(state) = master.worker(proc.pid, &["show servers state"]).await? else {
                return Ok(None);
            };
            if stat.starts_with("# pxname,") && state.contains("# be_id ") {
                break (stat, state);
            }
            if start.elapsed() > ENDING {
                return Err(master.garbled(proc.pid));
            }
            sleep(Duration::from_millis(20)).await;
        };
        let mut worker = Self::from_answers(proc, fleet, &stat, &state);
        let Some(uses) = master.worker(proc.pid, &["show map"]).await? else { return Ok(None) };
        let uses = parse::uses(&uses);
        for (name, s) in &mut worker.services {
            let show = async |path: PathBuf| {
                master.worker(proc.pid, &[&format!("show map {}", path.display())]).await
            };
            let Some(map) = show(config::map_path(dir, fleet, name)).await? else { return Ok(None) };
            s.map = parse::map(&map);
            for (path, pairs) in [
                (config::rules_path(dir, fleet, name), &mut s.rules),
                (config::sticky_path(dir, fleet, name), &mut s.sticky),
            ] {
                // An abort waits for every question: none is asked of services that have no such line.
                if uses.is_empty() || uses.contains_key(path.display().to_string().as_str()) {
                    let Some(answer) = show(path).await? else { return Ok(None) };
                    *pairs = parse::pairs(&answer);
                }
            }
            s.lines = lines::seen(&uses, dir, fleet, name);
        }
        Ok(Some(worker))
    }

    fn from_answers(proc: &parse::Proc, fleet: &FleetName, stat: &str, state: &str) -> Self {
        let mut worker = Self {
            pid: proc.pid,
            current: proc.current,
            generation: None,
            services: BTreeMap::new(),
            clients: 0,
        };
        let mut scur = BTreeMap::new();
        parse::stats(stat, |row| {
            let (backend, server) = (row.text("pxname"), row.text("svname"));
            if server == "FRONTEND" {
                worker.clients += row.number("scur");
            } else if let Some((service, place)) = config::parse_backend(fleet, backend) {
                let service_entry = worker.services.entry(service.clone()).or_default();
                if server != "BACKEND" {
                    if let (Place::Neutral, Some((stable, generation))) =
                        (place, config::parse_marker(server))
                    {
                        service_entry.stable = stable;
                        worker.generation = Some(generation.to_owned());
                    } else {
                        let in_flight = u32::try_from(row.number("scur")).unwrap_or(u32::MAX);
                        let tracks = place != Place::Neutral && !row.text("tracked").is_empty();
                        scur.insert((service, place, server.to_owned()), (in_flight, tracks));
                    }
                }
            }
        });
        for s in parse::servers_state(state) {
            let Some((service, place)) = config::parse_backend(fleet, &s.backend) else { continue };
            let key = (service, place, s.server);
            let Some(&(in_flight, fall_back)) = scur.get(&key) else { continue };
            let live = Live {
                addr: s.addr,
                weight: s.weight,
                admin: s.admin,
                running: s.running,
                checked: s.checked,
                fall_back,
                given: false,
                in_flight,
            };
            let (service, place, server) = key;
            worker.services.entry(service).or_default().rows.insert((place, server), live);
        }
        for service in worker.services.values_mut() {
            service.mark_given();
        }
        worker
    }

    /// What this worker does for `name`. `None` for an old worker that never served it.
    pub(super) fn route(&self, fleet: &FleetName, name: &ServiceName) -> Option<WorkerRoute> {
        let service = self.services.get(name)?;
        if service.map.is_none() && !self.current {
            return None;
        }
        let shares = service.shares(fleet, name);
        let slots = Slots { a: Slot::A, b: Slot::B };
        let read = |slot: Slot| SlotReadback {
            weight: *shares.get(slot),
            endpoints: self.endpoints(service, fleet, name, slot),
        };
        Some(WorkerRoute {
            worker: self.pid.to_string(),
            current: self.current,
            stable: service.stable,
            slots: Slots { a: read(slots.a), b: read(slots.b) },
            rules: service.rules(fleet, name, self.current),
            sticky: service.lines.extras.sticky && service.sticky.iter().flatten().any(|(key, _)| key == ON),
        })
    }

    fn endpoints(
        &self,
        service: &Service,
        fleet: &FleetName,
        name: &ServiceName,
        slot: Slot,
    ) -> Vec<EndpointReadback> {
        let mut out: Vec<EndpointReadback> = service
            .rows
            .iter()
            .filter(|((place, _), live)| *place == Place::Slot(slot) && !live.fall_back)
            .filter_map(|((_, server), live)| {
                let instance: InstanceId = server.parse().ok()?;
                let all = || service.rows.iter().filter(|((_, s), _)| s == server).map(|(_, l)| l);
                let ready = all().any(|l| l.state() == EndpointState::Ready);
                let mut in_flight: u32 = all().map(|l| l.in_flight).sum();
                // An old worker's idle connections each bring one more request, which nothing on it can stop but
                // the map: where that still leads to this instance, it is not free yet.
                if !self.current && self.clients > 0 && service.reaches(fleet, name, server) {
                    in_flight = in_flight.max(1);
                }
                Some(EndpointReadback {
                    instance,
                    addr: live.addr?,
                    state: if ready { EndpointState::Ready } else { EndpointState::Drain },
                    // Old workers no longer check.
                    up: (self.current && live.checked).then_some(live.running),
                    in_flight,
                })
            })
            .collect();
        out.sort_by(|a, b| a.instance.cmp(&b.instance));
        out
    }

    /// The map that puts `route` in force on this worker.
    pub(super) fn wanted_map(&self, fleet: &FleetName, route: &Route) -> Vec<MapEntry> {
        let of = |place| config::backend(fleet, &route.service, place);
        let neutral = of(Place::Neutral);
        let plain = plain_map(fleet, route);
        if self.current {
            return plain;
        }
        let mut entries = config::map_entries(route, &neutral, |s| of(self.place(route, s)));
        if entries != plain {
            entries.extend(plain.into_iter().map(|e| MapEntry {
                lo: e.lo + DECLARED,
                hi: e.hi + DECLARED,
                ..e
            }));
        }
        entries
    }

    /// Where this worker has to send what belongs to `slot`: an old one may have other servers there by now.
    fn place(&self, route: &Route, slot: Slot) -> Place {
        let Some(service) = self.services.get(&route.service).filter(|_| !self.current) else {
            return Place::Slot(slot);
        };
        let live = live_addrs(route);
        [Place::Slot(slot), Place::Slot(slot.other()), Place::Neutral]
            .into_iter()
            .find(|p| service.leads_to(*p, &live))
            .unwrap_or(Place::Slot(slot))
    }

    /// The map of rules that puts `route`'s in force on this worker, and what is wrong with the first that none can.
    pub(super) fn wanted_rules(&self, fleet: &FleetName, route: &Route) -> (Pairs, Option<String>) {
        let to = config::backend(fleet, &route.service, self.place(route, route.stable.other()));
        config::rule_pairs(&route.rules, &to)
    }

    /// The commands that bring this (current) worker's servers to what `rendered` says.
    pub(super) fn server_commands(&self, fleet: &FleetName, rendered: &Rendered) -> Vec<String> {
        let mut commands = Vec::new();
        for ((backend, server), row) in &rendered.rows {
            let Some((service, place)) = config::parse_backend(fleet, backend) else { continue };
            let live = self.services.get(&service).and_then(|s| s.rows.get(&(place, server.clone())));
            let Some(live) = live else { continue };
            if live.weight != row.weight {
                commands.push(format!("set server {backend}/{server} weight {}", row.weight));
            }
            // Bits 0 and 3 were set by hand; others are inherited or come from the file.
            if live.admin & 0b1001 != 0 && row.state == EndpointState::Ready {
                commands.push(format!("set server {backend}/{server} state ready"));
            }
        }
        commands
    }
}

/// The map that puts `route` in force on a worker that was started with its servers.
pub(super) fn plain_map(fleet: &FleetName, route: &Route) -> Vec<MapEntry> {
    let of = |place| config::backend(fleet, &route.service, place);
    config::map_entries(route, &of(Place::Neutral), |s| of(Place::Slot(s)))
}

/// Where requests may still be sent according to `route`.
fn live_addrs(route: &Route) -> BTreeSet<SocketAddr> {
    Slot::BOTH
        .into_iter()
        .flat_map(|s| &route.slots.get(s).endpoints)
        .filter(|e| e.state == EndpointState::Ready)
        .map(|e| e.addr)
        .collect()
}

impl Service {
    /// As `config` writes the rules: to the candidates' servers, where there is something to fall back to.
    fn mark_given(&mut self) {
        let candidates = Place::Slot(self.stable.other());
        if self.at(candidates).any(|(_, live)| live.fall_back) {
            for ((place, _), live) in &mut self.rows {
                live.given = *place == candidates && !live.fall_back;
            }
        }
    }

    fn at(&self, place: Place) -> impl Iterator<Item = (&String, &Live)> {
        self.rows.iter().filter(move |((p, _), _)| *p == place).map(|((_, name), live)| (name, live))
    }

    /// The servers that a request coming to `place` may be sent to at first: its own, or when none is usable those
    /// that it falls back to.
    fn candidates(&self, place: Place) -> Vec<(&String, &Live)> {
        let usable = |back| self.at(place).filter(move |(_, l)| l.usable() && l.fall_back == back);
        let own: Vec<_> = usable(false).collect();
        if own.is_empty() { usable(true).collect() } else { own }
    }

    /// Whether every request that comes to `place` ends at one of `live`.
    fn leads_to(&self, place: Place, live: &BTreeSet<SocketAddr>) -> bool {
        let candidates = self.candidates(place);
        !candidates.is_empty() && candidates.iter().all(|(_, l)| l.addr.is_some_and(|a| live.contains(&a)))
    }

    /// How many of the dice's values each backend gets; what no entry matches is the neutral backend's.
    fn dice(&self, offset: u32, neutral: &str) -> BTreeMap<String, u32> {
        let mut out = BTreeMap::new();
        let entries = self.map.as_deref().unwrap_or_default();
        let mut at = 0;
        while at < DICE {
            let value = at + offset;
            // HAProxy takes the first range that matches; the answer holds up to the next boundary of any range.
            let hit = entries.iter().find(|e| (e.lo..=e.hi).contains(&value));
            let next = entries
                .iter()
                .flat_map(|e| [e.lo, e.hi.saturating_add(1)])
                .filter(|&b| b > value)
                .min()
                .map_or(DICE, |b| (b - offset).min(DICE));
            *out.entry(hit.map_or(neutral, |e| &e.backend).to_owned()).or_default() += next - at;
            at = next;
        }
        out
    }

    /// The rules that are followed, sorted. An entry that Pilothouse would not have written is shown as it is, as a
    /// rule that no route has.
    fn rules(&self, fleet: &FleetName, name: &ServiceName, current: bool) -> Vec<Rule> {
        let rule = |(key, to): &(String, String)| {
            // An old worker is told another place when it has nothing alive in the candidate's.
            let right = match config::parse_backend(fleet, to) {
                Some((service, Place::Slot(slot))) => service == *name && (slot != self.stable || !current),
                Some((service, Place::Neutral)) => service == *name && !current,
                None => false,
            };
            let foreign = || Rule { by: RuleBy::Header, name: key.clone(), value: to.clone() };
            rules::parse(key).filter(|_| right).unwrap_or_else(foreign)
        };
        let mut rules: Vec<Rule> = self.rules.iter().flatten().map(rule).collect();
        rules.sort();
        rules
    }

    fn shares(&self, fleet: &FleetName, name: &ServiceName) -> Slots<Bp> {
        let of = |place| config::backend(fleet, name, place);
        let told = self.map.iter().flatten().any(|e| e.lo >= DECLARED);
        let dice = self.dice(if told { DECLARED } else { 0 }, &of(Place::Neutral));
        let share = |slot| Bp::saturating(dice.get(&of(Place::Slot(slot))).copied().unwrap_or(0).into());
        if self.map.is_none() { Slots::default() } else { Slots { a: share(Slot::A), b: share(Slot::B) } }
    }

    /// Whether the maps as they are can lead to `server`.
    fn reaches(&self, fleet: &FleetName, name: &ServiceName, server: &str) -> bool {
        let dice = self.dice(0, &config::backend(fleet, name, Place::Neutral));
        dice.keys().chain(self.rules.iter().flatten().map(|(_, to)| to)).any(|backend| {
            config::parse_backend(fleet, backend)
                .is_some_and(|(_, place)| self.candidates(place).iter().any(|(s, _)| *s == server))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(map: &[(u32, u32, &str)]) -> Service {
        let entry = |&(lo, hi, b): &(u32, u32, &str)| MapEntry { lo, hi, backend: b.into() };
        Service { map: Some(map.iter().map(entry).collect()), ..Service::default() }
    }

    fn shares(map: &[(u32, u32, &str)]) -> (u16, u16) {
        let s = service(map).shares(&"f".parse().unwrap(), &"web".parse().unwrap());
        (s.a.get(), s.b.get())
    }

    #[test]
    fn shares_are_what_the_dice_really_hits() {
        assert_eq!(shares(&[(0, 499, "ph_f_web_b"), (500, 9999, "ph_f_web_a")]), (9500, 500));
        assert_eq!(shares(&[(500, 9999, "ph_f_web_a")]), (9500, 0), "a lost entry is nobody's share");
        assert_eq!(
            shares(&[(0, 9999, "ph_f_web_a"), (0, 499, "ph_f_web_b")]),
            (10_000, 0),
            "first match wins"
        );
        assert_eq!(shares(&[(9000, 30_000, "ph_f_web_a"), (0, 8999, "ph_f_web")]), (1000, 0));
        assert_eq!(shares(&[]), (0, 0));
        assert_eq!(shares(&[(9999, 5, "ph_f_web_a"), (0, u32::MAX, "ph_f_web_b")]), (0, 10_000));
    }

    #[test]
    fn an_old_worker_says_the_shares_it_was_told() {
        let told = [(0, 9999, "ph_f_web_a"), (20_000, 20_499, "ph_f_web_b"), (20_500, 29_999, "ph_f_web_a")];
        assert_eq!(shares(&told), (9500, 500));
    }

    #[test]
    fn rules_are_those_that_lead_to_the_candidate() {
        let (fleet, name) = ("f".parse().unwrap(), "web".parse().unwrap());
        let rule = |value: &str| Rule { by: RuleBy::Header, name: "x-v".into(), value: value.into() };
        let entry = |value: &str, to: &str| (rules::key(&rule(value)).unwrap(), to.to_owned());
        let of = |entries: Vec<_>, current| {
            let service = Service { rules: Some(entries), ..Service::default() };
            service.rules(&fleet, &name, current)
        };
        assert_eq!(
            of(vec![entry("c", "ph_f_web_b"), entry("b", "ph_f_web_b")], true),
            [rule("b"), rule("c")]
        );
        let astray = vec![entry("b", "ph_f_web_a")];
        assert_ne!(of(astray.clone(), true), [rule("b")], "somebody sent it to stable by hand");
        assert_eq!(of(astray, false), [rule("b")], "an old worker has nothing alive in b");
        assert_ne!(of(vec![entry("b", "ph_f_api_b")], false), [rule("b")]);
        assert_eq!(of(vec![(".*".into(), "ph_f_web_b".into())], true).len(), 1, "not ours, and not hidden");
    }

    #[test]
    fn a_frontend_that_does_not_use_the_map_gives_no_share() {
        let s = Service::default();
        assert_eq!(s.shares(&"f".parse().unwrap(), &"web".parse().unwrap()), Slots::default());
    }
}
