//! What Pilothouse writes for HAProxy: the text of the fleet's own configuration file and of the maps.
//!
//! Per service there are three backends. `ph_FLEET_SERVICE_a` and `_b` are the slots. The slot that is not stable
//! also has stable's servers, so a dead candidate's share falls to stable, never the other way.
//! `ph_FLEET_SERVICE` has stable's servers too: it is the map's default, where a lost entry lands.
//!
//! In the slot that is not stable a request is *given* to a candidate (`use-server`), and the balancing, which is
//! what chooses for every attempt after the first, hardly knows any server but stable's. As backups they would
//! be asked only once every candidate is known to be dead, and HAProxy does not hold a hang-up that it repeats
//! elsewhere against a server: a request would meet one dead candidate after the other and fail.
//!
//! A service has three maps, changed at run time: its shares, its rules, and the switch of its sticky places. The
//! backends tell a new visitor the place that the frontend gave them; whoever has one is told nothing, so that
//! caches in front see a cookie only where there must be one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{lines, rules};
use crate::fleet::model::{HealthCheck, Probe, Rule};
use crate::fleet::names::{FleetName, ServiceName};
use crate::proxy::{Extras, files};
use crate::rollout::world::{EndpointState, Route, RouteEndpoint, Slot};
use crate::text::hex;

/// How many values the dice has: shares are basis points.
pub(super) const DICE: u32 = 10_000;

/// Weight of a server that takes requests; a draining one has 0.
const READY_WEIGHT: u32 = 100;
/// Of a candidate in its slot, which rules give its requests to: more than none, as that means draining.
const GIVEN_WEIGHT: u32 = 1;
/// Of stable's servers there: the most that HAProxy takes.
const FALL_BACK_WEIGHT: u32 = 256;

/// How often the candidates are gone through at random before the first usable one is taken. Each time reaches one
/// with the probability that a random one is usable; what remains goes to the first, which must stay little while
/// some of them drain.
const PASSES: usize = 3;

/// Which of a service's three backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The map's default.
    Neutral,
    /// A slot's.
    Slot(Slot),
}

/// The name of a service's backend.
pub(super) fn backend(fleet: &FleetName, service: &ServiceName, place: Place) -> String {
    match place {
        Place::Neutral => format!("ph_{fleet}_{service}"),
        Place::Slot(s) => format!("ph_{fleet}_{service}_{}", s.as_str()),
    }
}

/// The service and place a backend's name stands for; `None` when it is not one of this fleet's.
///
/// Names of fleets and services have no `_`, so this is unambiguous.
pub(super) fn parse_backend(fleet: &FleetName, name: &str) -> Option<(ServiceName, Place)> {
    let rest = name.strip_prefix("ph_")?.strip_prefix(fleet.as_str())?.strip_prefix('_')?;
    let (service, place) = match rest.split_once('_') {
        None => (rest, Place::Neutral),
        Some((s, "a")) => (s, Place::Slot(Slot::A)),
        Some((s, "b")) => (s, Place::Slot(Slot::B)),
        Some(_) => return None,
    };
    Some((service.parse().ok()?, place))
}

/// Path of the map that splits a service's requests.
pub(super) fn map_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.map"))
}

/// Path of the map of a service's rules; empty while there are none.
pub(super) fn rules_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.rules"))
}

/// Path of a service's switch for sticky places: a map with one key while they are on, else empty.
pub(super) fn sticky_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.sticky"))
}

/// Path of the fleet's configuration file.
pub(super) fn cfg_path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("{fleet}.cfg"))
}

/// A range of the dice and the backend it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    /// First value, included.
    pub(super) lo: u32,
    /// Last value, included.
    pub(super) hi: u32,
    /// Where it goes.
    pub(super) backend: String,
}

impl MapEntry {
    /// `lo:hi`, as `map_int` wants it.
    pub(super) fn key(&self) -> String {
        format!("{}:{}", self.lo, self.hi)
    }
}

/// The map of a route in the order b, a; everything to the neutral backend while no slot has a weight.
/// `to` says which backend a slot's share goes to.
pub(super) fn map_entries(route: &Route, neutral: &str, to: impl Fn(Slot) -> String) -> Vec<MapEntry> {
    let b = u32::from(route.slots.b.weight.get());
    let a = u32::from(route.slots.a.weight.get());
    let mut entries = Vec::new();
    let mut from = 0;
    for (share, slot) in [(b, Slot::B), (a, Slot::A)] {
        if share > 0 {
            entries.push(MapEntry { lo: from, hi: from + share - 1, backend: to(slot) });
            from += share;
        }
    }
    if from < DICE {
        entries.push(MapEntry { lo: from, hi: DICE - 1, backend: neutral.to_owned() });
    }
    entries
}

/// Keys and values of a map, in order.
pub(super) type Pairs = Vec<(String, String)>;

/// The shares of a map as keys and values.
pub(super) fn pairs(entries: &[MapEntry]) -> Pairs {
    entries.iter().map(|e| (e.key(), e.backend.clone())).collect()
}

/// The map of a route's rules, all to backend `to`, and what is wrong with the first that no map can express.
pub(super) fn rule_pairs(rules: &[Rule], to: &str) -> (Pairs, Option<String>) {
    let mut wrong = None;
    let pairs = rules
        .iter()
        .filter_map(|r| rules::key(r).map_err(|e| wrong = wrong.take().or(Some(e))).ok())
        .map(|key| (key, to.to_owned()));
    (pairs.collect(), wrong)
}

/// The switch of a route's sticky places.
pub(super) fn sticky_pairs(sticky: bool) -> Pairs {
    if sticky { vec![(lines::ON.to_owned(), "1".to_owned())] } else { Vec::new() }
}

/// The text of a map file.
pub(super) fn map_text(pairs: &[(String, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key} {value}");
        text
    })
}

/// One `server` line as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where the instance listens.
    pub(super) addr: SocketAddr,
    /// Whether it takes new requests.
    pub(super) state: EndpointState,
    /// The weight that says so: 0 while it drains.
    pub(super) weight: u32,
}

/// The fleet's configuration, as text and as data.
pub(super) struct Rendered {
    /// The text of the file.
    pub(super) text: String,
    /// Hash over all that only a reload can change.
    pub(super) generation: String,
    /// Every server line, by backend and server name.
    pub(super) rows: BTreeMap<(String, String), Row>,
}

/// The marker's name in a neutral backend: it tells at run time which slot is stable and which text is loaded.
/// The dots keep it apart from every instance id.
pub(super) fn marker(stable: Slot, generation: &str) -> String {
    format!("pilothouse.{}.{generation}", stable.as_str())
}

/// Reads a marker's name back.
pub(super) fn parse_marker(name: &str) -> Option<(Slot, &str)> {
    let (slot, generation) = name.strip_prefix("pilothouse.")?.split_once('.')?;
    match slot {
        "a" => Some((Slot::A, generation)),
        "b" => Some((Slot::B, generation)),
        _ => None,
    }
}

/// Renders the configuration of all services of a fleet.
pub(super) fn render(routes: &[Route], fleet: &FleetName, owner: &str, log: Option<SocketAddr>) -> Rendered {
    let mut rows = BTreeMap::new();
    let structure = body(routes, fleet, None, &mut rows);
    let digest = Sha256::digest(structure.as_bytes());
    let generation = hex(digest.get(..4).unwrap_or_default());
    let mut text = files::header(fleet, owner);
    text.push_str(
        "\n# Generated; changes are overwritten. Load it with one more -f, and add to your frontend, per service, the\n\
         # line that begins with use_backend %[rand; the others, above it, only for rules (map_reg) and sticky places:\n",
    );
    for route in routes {
        for line in lines::frontend_lines(Path::new("DIR"), fleet, &route.service, Extras::ALL) {
            let _ = writeln!(text, "#   {line}");
        }
    }
    if let Some(log) = log {
        let _ = writeln!(
            text,
            "# For latency percentiles, in the same frontend:\n#   log {log} format raw local0\n#   log-format {}",
            crate::traffic::haproxy_log::LOG_FORMAT
        );
    }
    text.push_str(&body(routes, fleet, Some(&generation), &mut rows));
    Rendered { text, generation, rows }
}

/// The backends. Without a generation the result holds only what a reload is needed for: no weights, no marker.
fn body(
    routes: &[Route],
    fleet: &FleetName,
    generation: Option<&str>,
    rows: &mut BTreeMap<(String, String), Row>,
) -> String {
    let mut out = String::new();
    for route in routes {
        let stable = route.stable;
        for place in [Place::Neutral, Place::Slot(Slot::A), Place::Slot(Slot::B)] {
            let name = backend(fleet, &route.service, place);
            let _ = writeln!(out, "\nbackend {name}");
            let health = route.health.get(match place {
                Place::Neutral => stable,
                Place::Slot(s) => s,
            });
            let own = match place {
                Place::Neutral => &[][..],
                Place::Slot(s) => route.slots.get(s).endpoints.as_slice(),
            };
            common(&mut out, route, health);
            set_cookie(&mut out, &crate::proxy::place_cookie(fleet, &route.service));
            if place == Place::Neutral {
                let marker = marker(stable, generation.unwrap_or_default());
                let _ = writeln!(out, "    server {marker} 127.0.0.1:1 disabled");
            }
            let mut check =
                format!("check inter {} rise {} fall {}", ms(health.interval.0), health.rise, health.fall);
            let falls_back = place == Place::Slot(stable.other());
            // A candidate that refuses a connection is not tried again until its checks pass. Not so for stable,
            // which has nothing to fall back to.
            if falls_back {
                check.push_str(" observe layer4 error-limit 1 on-error mark-down");
            }
            let others: Vec<&RouteEndpoint> = if place == Place::Slot(stable) {
                Vec::new()
            } else {
                let of = route.slots.get(stable).endpoints.iter();
                of.filter(|e| own.iter().all(|o| o.instance != e.instance)).collect()
            };
            if falls_back && !others.is_empty() {
                give(&mut out, &name, own);
            }
            let mut servers = Servers { out: &mut out, backend: &name, weights: generation.is_some(), rows };
            for e in own {
                servers.line(e, &check, if falls_back { GIVEN_WEIGHT } else { READY_WEIGHT });
            }
            let primary = backend(fleet, &route.service, Place::Slot(stable));
            for e in others {
                let weight = if falls_back { FALL_BACK_WEIGHT } else { READY_WEIGHT };
                servers.line(e, &format!("track {primary}/{}", e.instance), weight);
            }
        }
    }
    out
}

/// The rules by which each request to the backend `name` is given to one of `own` that is usable, at random. HAProxy
/// itself skips a rule whose server is down; that one drains is known from its weight only.
fn give(out: &mut String, name: &str, own: &[RouteEndpoint]) {
    let mut rule = |e: &RouteEndpoint, chance: &str| {
        let server = &e.instance;
        let _ = writeln!(out, "    use-server {server} if {{ srv_uweight({name}/{server}) gt 0 }}{chance}");
    };
    if own.len() > 1 {
        for _ in 0..PASSES {
            for (i, e) in own.iter().enumerate() {
                let left = own.len() - i;
                rule(e, &if left > 1 { format!(" {{ rand({left}) eq 0 }}") } else { String::new() });
            }
        }
    }
    for e in own {
        rule(e, "");
    }
}

/// HAProxy takes no zero here.
fn ms(ms: u64) -> String {
    format!("{}ms", ms.max(1))
}

/// What all three backends share: retries that a client never sees (and that are counted), and the check.
fn common(out: &mut String, route: &Route, health: &HealthCheck) {
    // A state file of the operator's is older than the release: it would bring back addresses, ports and weights that
    // were right once.
    let _ = writeln!(
        out,
        "    mode http
    load-server-state-from-file none
    balance roundrobin
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response response-timeout
    http-request disable-l7-retry unless METH_GET
    timeout connect 500ms"
    );
    let _ = writeln!(out, "    timeout check {}", ms(health.timeout.0));
    // Written out for both kinds: what an operator's `defaults` say about checks is theirs, not ours.
    let probe = match &health.probe {
        Probe::Http { path } => format!(
            "    option httpchk\n    http-check send meth GET uri {} ver HTTP/1.1 hdr Host {}\n    \
             http-check expect status 200-399",
            escaped(path),
            route.service
        ),
        Probe::Tcp => "    option tcp-check\n    tcp-check connect".to_owned(),
    };
    let _ = writeln!(out, "{probe}");
}

/// Tells a visitor the place they were just given. Nothing sets it unless the service is sticky and they had none.
fn set_cookie(out: &mut String, cookie: &str) {
    let place = lines::PLACE;
    let _ = writeln!(
        out,
        "    http-response add-header Set-Cookie \"{cookie}=%[var({place})]; Path=/; HttpOnly; SameSite=Lax\" \
         if {{ var({place}) -m found }}"
    );
}

/// A path as one word of HAProxy's configuration: what could end the word or be expanded is percent-encoded.
fn escaped(path: &str) -> String {
    path.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"/._~?&=+-:@,;%!*()".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// Where the server lines of one backend go.
struct Servers<'a> {
    out: &'a mut String,
    backend: &'a str,
    /// Whether weights are written: they change at run time.
    weights: bool,
    rows: &'a mut BTreeMap<(String, String), Row>,
}

impl Servers<'_> {
    fn line(&mut self, endpoint: &RouteEndpoint, how: &str, ready: u32) {
        let RouteEndpoint { instance, addr, state } = endpoint;
        let weight = if *state == EndpointState::Ready { ready } else { 0 };
        let said = if self.weights { format!(" weight {weight}") } else { String::new() };
        let _ = writeln!(self.out, "    server {instance} {addr} {how}{said}");
        let key = (self.backend.to_owned(), instance.to_string());
        self.rows.insert(key, Row { addr: *addr, state: *state, weight });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::model::HealthCheck;
    use crate::fleet::names::{Bp, InstanceId, Millis};
    use crate::rollout::world::{SlotRoute, Slots};

    fn route(b_bp: u64) -> Route {
        let slot = |n: u32, weight| SlotRoute {
            revision: None,
            weight,
            endpoints: vec![RouteEndpoint {
                instance: InstanceId::of(&"web".parse().unwrap(), &format!("0000000{n}").parse().unwrap(), 1),
                addr: format!("127.0.0.1:900{n}").parse().unwrap(),
                state: EndpointState::Ready,
            }],
        };
        let b = Bp::saturating(b_bp);
        let health = HealthCheck {
            probe: Probe::Http { path: "/he alth#\"$x".into() },
            interval: Millis(500),
            timeout: Millis(300),
            rise: 1,
            fall: 2,
        };
        Route {
            service: "web".parse().unwrap(),
            stable: Slot::A,
            slots: Slots { a: slot(1, b.rest()), b: slot(2, b) },
            domains: vec![],
            health: Slots { a: health.clone(), b: health },
            rules: Vec::new(),
            sticky: false,
        }
    }

    fn fleet() -> FleetName {
        "shop-eu".parse().unwrap()
    }

    #[test]
    fn a_slot_that_is_not_stable_falls_back_to_stable_and_never_the_other_way() {
        let r = render(&[route(500)], &fleet(), "me", None);
        let of = |name: &str| {
            r.text.split("\nbackend ").find(|b| b.lines().next() == Some(name)).unwrap().to_owned()
        };
        assert!(of("ph_shop-eu_web_b").contains(
            "server web-00000001-1 127.0.0.1:9001 track ph_shop-eu_web_a/web-00000001-1 weight 256"
        ));
        assert!(of("ph_shop-eu_web_b").contains(
            "use-server web-00000002-1 if { srv_uweight(ph_shop-eu_web_b/web-00000002-1) gt 0 }\n"
        ));
        assert!(!of("ph_shop-eu_web_a").contains("use-server"));
        assert!(!of("ph_shop-eu_web_a").contains("web-00000002"));
        assert!(!of("ph_shop-eu_web").contains("web-00000002"));
        assert!(of("ph_shop-eu_web").contains("server pilothouse.a."));
        assert!(r.text.contains("uri /he%20alth%23%22%24x ver"));
        assert!(r.text.starts_with(&files::header(&"shop-eu".parse().unwrap(), "me")), "{}", r.text);
    }

    #[test]
    fn weights_and_drains_need_no_reload_and_all_else_does() {
        let base = render(&[route(500)], &fleet(), "me", None);
        let mut drained = route(2500);
        drained.slots.b.endpoints[0].state = EndpointState::Drain;
        let drained = render(&[drained], &fleet(), "me", None);
        assert_eq!(base.generation, drained.generation);
        assert_ne!(base.text, drained.text);
        let mut moved = route(500);
        moved.slots.b.endpoints[0].addr = "127.0.0.1:1234".parse().unwrap();
        assert_ne!(base.generation, render(&[moved], &fleet(), "me", None).generation);
        let mut promoted = route(500);
        promoted.stable = Slot::B;
        assert_ne!(base.generation, render(&[promoted], &fleet(), "me", None).generation);
    }

    #[test]
    fn a_map_covers_the_whole_dice() {
        let of = |r: &Route| map_text(&pairs(&map_entries(r, "n", |s| s.as_str().to_owned())));
        let text = |bp| of(&route(bp));
        assert_eq!(text(500), "0:499 b\n500:9999 a\n");
        assert_eq!(text(0), "0:9999 a\n");
        assert_eq!(text(10_000), "0:9999 b\n");
        let mut none = route(0);
        none.slots.a.weight = Bp::ZERO;
        assert_eq!(of(&none), "0:9999 n\n");
    }

    #[test]
    fn names_are_read_back() {
        for place in [Place::Neutral, Place::Slot(Slot::A), Place::Slot(Slot::B)] {
            let service: ServiceName = "web-x".parse().unwrap();
            assert_eq!(parse_backend(&fleet(), &backend(&fleet(), &service, place)), Some((service, place)));
        }
        for bad in ["ph_shop-eu_", "ph_shop_web", "ph_shop-eu_web_c", "ph_shop-eu_web_a_b", "web"] {
            assert_eq!(parse_backend(&fleet(), bad), None, "{bad}");
        }
        assert_eq!(parse_marker(&marker(Slot::B, "01ab")), Some((Slot::B, "01ab")));
        assert_eq!(parse_marker("pilothouse.c.1"), None);
    }
}
