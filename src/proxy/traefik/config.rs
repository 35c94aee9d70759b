//! What Pilothouse writes for Traefik: one file of routers, services and middlewares, as JSON, which is YAML too.
//!
//! For each service of the fleet, `FLEET_SERVICE` being the operator's own router, from which these routers hang:
//! ```text
//! rules      -> the candidate                         (a tester's header or cookie)
//! places     -> a or b, by the number in the cookie   (sticky)
//! newcomers  -> thrown a place, then a or b           (sticky)
//! the rest   -> a and b by weight
//! ```
//! each twice: for requests that may be repeated (`_get`), which fall back to stable when the candidate's answer is 502 or
//! 504, and for all others. An instance is a service of its own, so that Traefik's metrics tell one from another.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::places;
use crate::fleet::model::{Probe, Rule, RuleBy};
use crate::fleet::names::{Bp, FleetName, ServiceName};
use crate::proxy::{files, place_cookie};
use crate::rollout::world::{EndpointState, Route, RouteEndpoint, Slot};
use crate::text::hex;

/// The entry point at which Traefik is asked.
pub(super) const ENTRY_POINT: &str = "pilothouse";
/// The header in which middlewares that nothing uses carry what is in force.
pub(super) const MARK: &str = "X-Pilothouse";
/// The header in which a newcomer's place travels inside Traefik.
const PLACE: &str = "X-Pilothouse-Place";
/// Above everything an operator may have at our entry point.
const FIRST: u32 = 1_000_000;
/// Longest body of a request that may be repeated, in bytes; it is kept in memory meanwhile.
const LONGEST_BODY: u32 = 1_048_576;
/// Requests that may be repeated.
const GET: &str = "(Method(`GET`) || Method(`HEAD`) || Method(`OPTIONS`))";
const ANYTHING: &str = "PathPrefix(`/`)";
/// How long an instance that takes nothing new keeps a connection that nothing is on.
const IDLE: &str = "1s";

/// The file of a fleet.
pub(super) fn path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("pilothouse-{fleet}.yml"))
}

/// The file that an operator makes to take a service's candidate out by hand.
pub(super) fn by_hand_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("pilothouse-{fleet}-{service}-by-hand.yml"))
}

/// The operator's router that our routers hang from, and what all names of a service begin with.
pub(super) fn base(fleet: &FleetName, service: &ServiceName) -> String {
    format!("{fleet}_{service}")
}

/// The middleware that says which file is in force.
pub(super) fn generation_name(fleet: &FleetName) -> String {
    format!("pilothouse_{fleet}")
}

/// The middleware that says which route of a service is in force.
pub(super) fn route_name(base: &str) -> String {
    format!("{base}_route")
}

/// The router of [`by_hand`].
pub(super) fn by_hand_name(base: &str) -> String {
    format!("{base}_by-hand")
}

/// The service that is one endpoint: with the checks of Traefik's own, or asked whatever they say.
pub(super) fn endpoint_name(base: &str, slot: Slot, instance: &str, whatever: bool) -> String {
    format!("{base}_{}_{instance}{}", slot.as_str(), if whatever { "_any" } else { "" })
}

/// The file, and what names it.
pub(super) struct Rendered {
    /// The whole text.
    pub(super) text: String,
    /// Hash over it.
    pub(super) generation: String,
    /// What it routes.
    pub(super) routes: Vec<Route>,
}

/// What Traefik is told, by kind and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) routers: Map<String, Value>,
    pub(super) services: Map<String, Value>,
    pub(super) middlewares: Map<String, Value>,
}

/// Renders the file for these routes.
pub(super) fn render(routes: &[Route], fleet: &FleetName, owner: &str, api: SocketAddr) -> Rendered {
    let mut all = Parts::default();
    // Traefik asks nobody whose address it is that it listens on.
    let internal = |rule: &str, service: &str| json!({ "rule": rule, "entryPoints": [ENTRY_POINT], "service": service, "priority": FIRST });
    let name = generation_name(fleet);
    all.routers.insert(format!("{name}_api"), internal("PathPrefix(`/api`)", "api@internal"));
    all.routers.insert(format!("{name}_metrics"), internal("Path(`/metrics`)", "prometheus@internal"));
    for route in routes {
        let one = service(route, fleet, api);
        all.routers.extend(one.routers);
        all.services.extend(one.services);
        all.middlewares.extend(one.middlewares);
    }
    let transport = json!({
        "maxIdleConnsPerHost": 200,
        "forwardingTimeouts": { "dialTimeout": "1s", "idleConnTimeout": IDLE }
    });
    let body = |generation: &str| {
        let mut middlewares = all.middlewares.clone();
        middlewares.insert(name.clone(), mark(generation));
        let mut http = Map::new();
        http.insert("routers".into(), all.routers.clone().into());
        http.insert("middlewares".into(), middlewares.into());
        http.insert("serversTransports".into(), json!({ &name: transport }));
        // Traefik takes no empty list of services.
        if !all.services.is_empty() {
            http.insert("services".into(), all.services.clone().into());
        }
        let text = serde_json::to_string_pretty(&json!({ "http": http })).unwrap_or_default();
        // Traefik takes two opening braces for the beginning of a template; in JSON they stand in texts only.
        format!("{}\n{}\n", files::header(fleet, owner), text.replace("{{", "{\\u007b"))
    };
    let generation = hex(Sha256::digest(body("").as_bytes()).get(..8).unwrap_or_default());
    Rendered { text: body(&generation), generation, routes: routes.to_vec() }
}

/// A middleware that nothing uses, and that says something to whoever asks what is in force.
fn mark(text: &str) -> Value {
    json!({ "headers": { "customRequestHeaders": { MARK: text } } })
}

/// The routes in a file of ours; empty when there are none or it is not readable.
pub(super) fn routes_in(text: &str) -> Vec<Route> {
    let body = text.split_once('\n').map_or("", |(_, body)| body);
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let middlewares = parsed.pointer("/http/middlewares").and_then(Value::as_object);
    middlewares.into_iter().flatten().filter_map(|(_, m)| marked(m)).collect()
}

/// The route that a middleware carries.
pub(super) fn marked(middleware: &Value) -> Option<Route> {
    serde_json::from_str(mark_of(middleware)?).ok()
}

/// What a middleware carries.
pub(super) fn mark_of(middleware: &Value) -> Option<&str> {
    middleware.pointer("/headers/customRequestHeaders")?.get(MARK)?.as_str()
}

/// Which of the two ways a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It may be repeated.
    Get,
    /// It may not.
    Post,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Get, Self::Post];

    fn suffix(self) -> &'static str {
        match self {
            Self::Get => "_get",
            Self::Post => "",
        }
    }
}

struct Writer<'a> {
    route: &'a Route,
    base: String,
    parts: Parts,
}

/// What Traefik is told of one service.
pub(super) fn service(route: &Route, fleet: &FleetName, api: SocketAddr) -> Parts {
    let mut w = Writer { route, base: base(fleet, &route.service), parts: Parts::default() };
    let marked = serde_json::to_string(route).unwrap_or_default();
    w.parts.middlewares.insert(route_name(&w.base), mark(&marked));
    // What was not sent at all may be sent to the next one, whatever it is; nothing else is repeated by this.
    let again = json!({ "retry": { "attempts": 3, "retryNonIdempotentMethod": true } });
    w.parts.middlewares.insert(w.name("again"), again);
    w.service("none", json!({ "loadBalancer": { "servers": [] } }));
    for slot in Slot::BOTH {
        w.slot(slot, &generation_name(fleet));
    }
    let shares = Slot::BOTH.map(|slot| (slot, route.slots.get(slot).weight.get()));
    for way in Way::BOTH {
        let split = shares.iter().filter(|(_, share)| *share > 0);
        let split = split.map(|(slot, share)| (w.target(*slot, way), u32::from(*share)));
        let split = weighted(split.collect(), &w.name("none"));
        w.parts.services.insert(format!("{}{}", w.base, way.suffix()), split);
    }
    if !route.rules.is_empty() {
        let rules: Vec<String> = route.rules.iter().map(rule).collect();
        let candidate = route.stable.other();
        w.routers("rule", &rules.join(" || "), &w.base.clone(), 40, |w, way| w.target(candidate, way));
    }
    let nobody = shares.iter().all(|(_, share)| *share == 0);
    if route.sticky && !nobody {
        w.places(fleet, api);
    } else {
        w.routers("share", ANYTHING, &w.base.clone(), 10, |w, way| format!("{}{}", w.base, way.suffix()));
    }
    w.parts
}

impl Writer<'_> {
    fn name(&self, what: &str) -> String {
        format!("{}_{what}", self.base)
    }

    fn service(&mut self, what: &str, value: Value) {
        self.parts.services.insert(self.name(what), value);
    }

    /// A router for each way.
    fn routers(
        &mut self,
        what: &str,
        rule: &str,
        parent: &str,
        priority: u32,
        to: impl Fn(&Self, Way) -> String,
    ) {
        for way in Way::BOTH {
            let (rule, priority) = match way {
                Way::Get => (format!("{GET} && ({rule})"), priority + 1),
                Way::Post => (rule.to_owned(), priority),
            };
            let value = json!({
                "rule": rule, "parentRefs": [parent], "service": to(self, way), "priority": priority
            });
            self.parts.routers.insert(format!("{}{}", self.name(what), way.suffix()), value);
        }
    }

    fn ready(&self, slot: Slot) -> impl Iterator<Item = &RouteEndpoint> {
        self.route.slots.get(slot).endpoints.iter().filter(|e| e.state == EndpointState::Ready)
    }

    /// The path and query, the interval and the timeout of Traefik's own check.
    fn check(&self, slot: Slot) -> Option<Value> {
        let health = self.route.health.get(slot);
        match &health.probe {
            Probe::Http { path } => Some(json!({
                "path": path,
                "interval": format!("{}ms", health.interval.0.max(1)),
                "timeout": format!("{}ms", health.timeout.0.max(1)),
            })),
            Probe::Tcp => None,
        }
    }

    /// Where a request for `slot` goes: without anybody there, to stable; and without stable, to nobody.
    fn target(&self, slot: Slot, way: Way) -> String {
        let way_name = if way == Way::Get { "get" } else { "post" };
        if self.ready(slot).next().is_some() {
            self.name(&format!("{}_{way_name}", slot.as_str()))
        } else if slot == self.route.stable {
            self.name("none")
        } else {
            self.target(self.route.stable, way)
        }
    }

    /// A slot: its instances, those in rotation together, and that with the way out for each way. Traefik's check knows no
    /// number of failures, so where it has nobody left of stable all are asked all the same.
    fn slot(&mut self, slot: Slot, transport: &str) {
        let (route, check) = (self.route, self.check(slot));
        let mut groups = [(false, Vec::new()), (true, Vec::new())];
        for (whatever, members) in &mut groups {
            if *whatever && check.is_none() {
                continue;
            }
            for e in &route.slots.get(slot).endpoints {
                let name = endpoint_name(&self.base, slot, e.instance.as_str(), *whatever);
                let mut balancer = json!({
                    "servers": [{ "url": format!("http://{}", e.addr) }],
                    "serversTransport": transport,
                });
                if let (Some(check), false, Some(b)) = (&check, *whatever, balancer.as_object_mut()) {
                    b.insert("healthCheck".into(), check.clone());
                }
                if e.state == EndpointState::Ready {
                    members.push((name.clone(), 1));
                }
                self.parts.services.insert(name, json!({ "loadBalancer": balancer }));
            }
        }
        let [(_, checked), (_, whatever)] = groups;
        if checked.is_empty() {
            return;
        }
        let (all, any) = (self.name(slot.as_str()), self.name(&format!("{}_any", slot.as_str())));
        let none = self.name("none");
        let mut members = weighted(checked, &none);
        if let (Some(_), Some(w)) = (&check, members.pointer_mut("/weighted").and_then(Value::as_object_mut))
        {
            w.insert("healthCheck".into(), json!({}));
            self.parts.services.insert(any.clone(), weighted(whatever, &none));
        }
        self.parts.services.insert(all.clone(), members);
        let stable = route.stable;
        let own = if check.is_some() { any } else { all.clone() };
        let next = |w: &Self, way| if slot == stable { own.clone() } else { w.target(stable, way) };
        let get = json!({ "failover": {
            "service": all,
            "fallback": next(self, Way::Get),
            "errors": { "status": ["502", "504"], "maxRequestBodyBytes": LONGEST_BODY },
        }});
        self.service(&format!("{}_get", slot.as_str()), get);
        let mut post = match check {
            Some(_) => json!({ "failover": { "service": all, "fallback": next(self, Way::Post) } }),
            None => weighted(vec![(all, 1)], &none),
        };
        if let Some(post) = post.as_object_mut() {
            post.insert("middlewares".into(), json!([self.name("again")]));
        }
        self.service(&format!("{}_post", slot.as_str()), post);
    }

    /// Visitors with a place go where it says. The others are thrown one: Traefik asks itself, as it would ask somebody
    /// whether they may come in, and has the place as a header and as the cookie that the visitor is told.
    fn places(&mut self, fleet: &FleetName, api: SocketAddr) {
        let (route, base) = (self.route, self.base.clone());
        let cookie = place_cookie(fleet, &route.service);
        let edge = route.slots.b.weight.get();
        let ranges = [(Slot::B, 0, edge), (Slot::A, edge, Bp::FULL.get())];
        let new = self.name("new");
        for (slot, from, to) in ranges.into_iter().filter(|(_, from, to)| from < to) {
            let place = places::range(from, to);
            let has = format!(
                "HeaderRegexp(`Cookie`, {}) && !HeaderRegexp(`Cookie`, {})",
                quoted(&format!("(^|;[ \\t]*){cookie}=({place})[ \\t]*(;|$)")),
                // Two of them: none can be trusted.
                quoted(&format!("(^|;[ \\t]*){cookie}=.*;[ \\t]*{cookie}=")),
            );
            let s = slot.as_str();
            self.routers(&format!("keep-{s}"), &has, &base, 30, |w, way| w.target(slot, way));
            let thrown = format!("HeaderRegexp(`{PLACE}`, `^({place})$`)");
            self.routers(&format!("new-{s}"), &thrown, &new, 10, |w, way| w.target(slot, way));
        }
        let parent = json!({
            "rule": ANYTHING, "parentRefs": [base], "middlewares": [self.name("throw")], "priority": 10
        });
        self.parts.routers.insert(new, parent);
        let at = format!("/pilothouse/{fleet}/{}", route.service);
        let throw = json!({ "forwardAuth": {
            "address": format!("http://{api}{at}"),
            "authRequestHeaders": ["X-Forwarded-Host"],
            "authResponseHeaders": [PLACE],
            "addAuthCookiesToResponse": [cookie],
            "trustForwardHeader": false,
            "maxResponseBodySize": 4096,
        }});
        self.parts.middlewares.insert(self.name("throw"), throw);
        let asked = json!({
            "rule": format!("Path(`{at}`)"), "entryPoints": [ENTRY_POINT], "service": self.name("throw"),
            "priority": FIRST
        });
        self.parts.routers.insert(self.name("throw"), asked);
        // Anything inside Traefik that answers 200.
        let version = json!({ "replacePath": { "path": "/api/version" } });
        self.parts.middlewares.insert(self.name("version"), version);
        self.service(
            "ok",
            json!({
                "weighted": { "services": [{ "name": "api@internal", "weight": 1 }] },
                "middlewares": [self.name("version")],
            }),
        );
        let mut members = Vec::new();
        for (place, width) in places::thrown(edge) {
            let name = self.name(&format!("place-{place}"));
            let told = json!({ "headers": { "customResponseHeaders": {
                PLACE: place.to_string(),
                "Set-Cookie": format!("{cookie}={place}; Path=/; HttpOnly; SameSite=Lax"),
            }}});
            self.parts.middlewares.insert(name.clone(), told);
            let mut one = weighted(vec![(self.name("ok"), 1)], &self.name("none"));
            if let Some(one) = one.as_object_mut() {
                one.insert("middlewares".into(), json!([name]));
            }
            self.parts.services.insert(name.clone(), one);
            members.push((name, u32::from(width)));
        }
        let all = weighted(members, &self.name("none"));
        self.service("throw", all);
    }
}

/// A service that is some others, by weight; `none` where there are none.
fn weighted(members: Vec<(String, u32)>, none: &str) -> Value {
    let mut all: Vec<(String, u32)> = Vec::new();
    for (name, weight) in members {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += weight,
            None => all.push((name, weight)),
        }
    }
    if all.is_empty() {
        all.push((none.to_owned(), 1));
    }
    let services: Vec<Value> = all.iter().map(|(n, w)| json!({ "name": n, "weight": w })).collect();
    json!({ "weighted": { "services": services } })
}

/// A word of Traefik's rules with exactly this text.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn rule(rule: &Rule) -> String {
    match rule.by {
        RuleBy::Header => format!("Header({}, {})", quoted(&rule.name), quoted(&rule.value)),
        RuleBy::Cookie => {
            let (name, value) = (regex::escape(&rule.name), regex::escape(&rule.value));
            format!("HeaderRegexp(`Cookie`, {})", quoted(&format!("(^|;[ \\t]*){name}={value}[ \\t]*(;|$)")))
        }
    }
}

/// Why Traefik cannot follow a rule, in words.
pub(super) fn unfit(rule: &Rule) -> Option<String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let what = match rule.by {
        RuleBy::Header => "header",
        RuleBy::Cookie => "cookie",
    };
    if rule.name.is_empty() || !rule.name.chars().all(token) {
        return Some(format!("a {what} cannot be named {:?}", rule.name));
    }
    if rule.by == RuleBy::Header && rule.name.eq_ignore_ascii_case("host") {
        return Some("Traefik's rules do not see the header Host; choose another".to_owned());
    }
    let value = &rule.value;
    let odd = value.is_empty() || value.trim() != value || value.chars().any(char::is_control);
    (odd || (rule.by == RuleBy::Cookie && value.contains([' ', ';'])))
        .then(|| format!("the {what} {} cannot have the value {value:?}", rule.name))
}

/// What an operator puts into a file of its own to send everything to stable: one router, before all of ours.
pub(super) fn by_hand(route: &Route, fleet: &FleetName) -> String {
    let base = base(fleet, &route.service);
    let service = format!("{base}_{}_post", route.stable.as_str());
    let router = json!({
        "rule": ANYTHING, "parentRefs": [base], "service": service, "priority": FIRST
    });
    json!({ "http": { "routers": { by_hand_name(&base): router } } }).to_string()
}
