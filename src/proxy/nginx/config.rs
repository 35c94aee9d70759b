//! What Pilothouse writes for nginx: one file for the `http` block, and one per service for a `location`.
//!
//! Per service there are two upstreams, `ph_FLEET_SERVICE_a` and `_b`. The slot that is not stable also has stable's
//! servers, as `backup`: a request whose candidate does not answer is repeated there, and never the other way. Which
//! slot a request goes to is asked in the location, of the files of [`super::shares`].
//!
//! The first file also has a small server of our own on loopback, which says what a worker has loaded and where it
//! would send a place. Nothing is believed to be in force until it has said so.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::shares::{self, RULE};
use crate::fleet::model::{Rule, RuleBy};
use crate::fleet::names::{Bp, FleetName, ServiceName};
use crate::proxy::{Advice, files, place_cookie};
use crate::rollout::world::{EndpointState, Route, RouteEndpoint, Slot};
use crate::text::hex;

/// The host name by which our own server is asked.
pub(super) const STATUS_HOST: &str = "pilothouse.invalid";

/// Path of the file for the `http` block.
pub(super) fn http_path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("{fleet}.conf"))
}

/// Path of a service's file for a `location`.
pub(super) fn location_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.location"))
}

/// Path of what a generation routes, as data.
pub(super) fn routes_path(dir: &Path, fleet: &FleetName, generation: &str) -> PathBuf {
    dir.join(format!("{fleet}_{generation}.routes"))
}

/// The line for the `http` block.
#[must_use]
pub fn http_line(dir: &Path, fleet: &FleetName) -> String {
    format!("include {};", http_path(dir, fleet).display())
}

/// The line for the `location` that serves a service.
#[must_use]
pub fn location_line(dir: &Path, fleet: &FleetName, service: &ServiceName) -> String {
    format!("include {};", location_path(dir, fleet, service).display())
}

/// The line beside it that keeps visitors' places. nginx forgets the `add_header` lines of the server around it, so
/// that line is the operator's to place.
#[must_use]
pub fn cookie_line(fleet: &FleetName, service: &ServiceName) -> String {
    format!("add_header Set-Cookie ${} always;", variable(fleet, service, "cookie"))
}

/// The name of the log format that the operator's own `access_log` lines would need.
fn format_name(fleet: &FleetName) -> String {
    format!("ph_{}", fleet.as_str().replace('-', "_"))
}

/// The line for a `server` or `location` that has an `access_log` of its own, which keeps ours out of it.
fn log_line(fleet: &FleetName, log: SocketAddr) -> String {
    format!("access_log syslog:server={log},nohostname,tag=ph {};", format_name(fleet))
}

/// What in an operator's own configuration costs requests or information.
pub(super) fn hints(theirs: &str, fleet: &FleetName, log: Option<SocketAddr>) -> Vec<Advice> {
    let mut out = Vec::new();
    let words = || theirs.lines().map(str::trim);
    if !words().any(|l| l.starts_with("worker_shutdown_timeout")) {
        out.push(Advice::better(
            "old workers of nginx live as long as a client keeps a connection, and a drain waits for them",
            "add to the top of the configuration: worker_shutdown_timeout 30s;",
        ));
    }
    if let Some(log) = log {
        let line = log_line(fleet, log);
        let own = words().any(|l| l.starts_with("access_log ") && !l.contains(&format_name(fleet)));
        if own && !theirs.contains(&line) {
            out.push(Advice::better(
                "where a server or location has an access_log of its own, no numbers per version come from it",
                &format!("add beside each: {line}"),
            ));
        }
    }
    out
}

/// The name of a variable of a service, without the `$`. Short, whatever the service is called: it also names groups of
/// expressions, for which 32 characters are allowed, and 47 are too long for nginx's table of variables.
fn variable(fleet: &FleetName, service: &ServiceName, what: &str) -> String {
    format!("ph_{}_{what}", short(&format!("{fleet} {service}")))
}

/// The same for the fleet.
fn common(fleet: &FleetName, what: &str) -> String {
    format!("ph_{}_{what}", short(fleet.as_str()))
}

fn short(text: &str) -> String {
    hex(Sha256::digest(text.as_bytes()).get(..4).unwrap_or_default())
}

fn upstream(fleet: &FleetName, service: &ServiceName, slot: Slot) -> String {
    format!("ph_{fleet}_{service}_{}", slot.as_str())
}

/// The configuration of a fleet.
pub(super) struct Rendered {
    /// The text of the file for the `http` block.
    pub(super) text: String,
    /// Hash over it: what a worker says that it has loaded.
    pub(super) generation: String,
    /// What it routes, as data, without the shares.
    pub(super) routes: Vec<Route>,
}

/// Renders the file for the `http` block.
pub(super) fn render(
    routes: &[Route],
    fleet: &FleetName,
    owner: &str,
    dir: &Path,
    status: SocketAddr,
    log: Option<SocketAddr>,
) -> Rendered {
    let body = |generation: &str| {
        let mut out = files::header(fleet, owner);
        out.push_str(
            "\n# Written by Pilothouse and read by nobody but nginx; what you change here is undone.\n",
        );
        dice(&mut out, fleet);
        for route in routes {
            service(&mut out, route, fleet, status);
        }
        server(&mut out, routes, fleet, dir, status, generation);
        if let Some(log) = log {
            // The generation says whose an address was when the request was served.
            let _ = writeln!(
                out,
                "log_format {} 'ph {generation} $status $remote_addr [$upstream_addr] [$upstream_status] \
                 [$upstream_response_time]';\n{}",
                format_name(fleet),
                log_line(fleet, log)
            );
        }
        out
    };
    let digest = Sha256::digest(body("").as_bytes());
    let generation = hex(digest.get(..6).unwrap_or_default());
    let without_shares = |route: &Route| {
        let mut route = route.clone();
        (route.slots.a.weight, route.slots.b.weight) = (Bp::ZERO, Bp::ZERO);
        route
    };
    Rendered { text: body(&generation), routes: routes.iter().map(without_shares).collect(), generation }
}

/// Four digits, each thrown on its own, for every request; and what our own server may be asked for.
fn dice(out: &mut String, fleet: &FleetName) {
    for digit in 1..=4 {
        let chances: String = (0..9).map(|n| format!("10% {n}; ")).collect();
        let name = common(fleet, &format!("d{digit}"));
        let _ = writeln!(out, "split_clients \"${{request_id}}{digit}\" ${name} {{ {chances}* 9; }}");
    }
    for (what, pattern) in ASKED {
        let name = common(fleet, what);
        let _ = writeln!(out, "map $arg_{what} ${name} {{ default none; \"~^{pattern}$\" $arg_{what}; }}");
    }
}

/// What our own server takes as an answer to be looked up, and how that is written: no other file than a share's.
const ASKED: [(&str, &str); 3] = [("row", "[0-9][0-9]"), ("place", "[0-9][0-9][0-9][0-9]"), ("rule", RULE)];

fn service(out: &mut String, route: &Route, fleet: &FleetName, status: SocketAddr) {
    let name = &route.service;
    let var = |what: &str| variable(fleet, name, what);
    let digits: String = (1..=4).map(|d| format!("${}", common(fleet, &format!("d{d}")))).collect();
    let _ = writeln!(out, "\n# {name}");
    let (kept, place) = (var("kept"), var("place"));
    if route.sticky {
        // Two cookies of the name are none, and so is one that holds no place.
        let cookie = pattern(&place_cookie(fleet, name));
        let begin = format!("(?:^|;[ ]*){cookie}=");
        let _ = writeln!(
            out,
            "map $http_cookie ${kept} {{\n    default \"\";\n    \"~{begin}.*;[ ]*{cookie}=\" \"\";"
        );
        for digits in 1..=4 {
            let zeros = "0".repeat(4 - digits);
            let group = format!("{kept}{digits}");
            let _ = writeln!(
                out,
                "    \"~{begin}(?<{group}>[0-9]{{{digits}}})[ ]*(?:;|$)\" \"{zeros}${group}\";"
            );
        }
        let _ =
            writeln!(out, "}}\nmap ${kept} ${place} {{\n    \"\" \"{digits}\";\n    default ${kept};\n}}");
    } else {
        let _ = writeln!(out, "map \"\" ${place} {{\n    default \"{digits}\";\n}}");
    }
    let row = var("row");
    let _ = writeln!(
        out,
        "map ${place} ${row} {{\n    default \"none\";\n    \"~^(?<{row}_>[0-9]{{2}})\" ${row}_;\n}}"
    );
    let rule = var("rule");
    rules(out, &route.rules, &rule);
    let cookie = place_cookie(fleet, name);
    let given = format!("\"{cookie}=${place}; Path=/; HttpOnly; SameSite=Lax\"");
    let told = if route.sticky { given.as_str() } else { "\"\"" };
    // Whom a rule sends somewhere keeps no place; whoever has one is told nothing.
    let kept = if route.sticky { format!("${kept}") } else { String::new() };
    let _ = writeln!(
        out,
        "map \"${rule}:{kept}\" ${} {{\n    default \"\";\n    \"none:\" {told};\n}}",
        var("cookie")
    );
    // Where nothing was asked (a `rewrite ... break` before our include) it is stable.
    let _ = writeln!(
        out,
        "map ${} ${} {{\n    default {};\n    a {};\n    b {};\n}}",
        var("slot"),
        var("to"),
        upstream(fleet, name, route.stable),
        upstream(fleet, name, Slot::A),
        upstream(fleet, name, Slot::B)
    );
    for slot in Slot::BOTH {
        let _ = writeln!(out, "upstream {} {{", upstream(fleet, name, slot));
        servers(out, route, slot, status);
        out.push_str("}\n");
    }
}

/// The variable that is [`RULE`] when a rule matches: one map a rule, each falling back on the one before.
fn rules(out: &mut String, rules: &[Rule], variable: &str) {
    let mut before = "none".to_owned();
    for (n, rule) in rules.iter().enumerate() {
        let value = pattern(&rule.value);
        let (looks_at, expression) = match rule.by {
            RuleBy::Header => {
                let name = rule.name.to_ascii_lowercase().replace('-', "_");
                (format!("$http_{name}"), format!("^{value}$"))
            }
            RuleBy::Cookie => {
                let name = pattern(&rule.name);
                ("$http_cookie".to_owned(), format!("(?:^|;[ ]*){name}={value}[ ]*(?:;|$)"))
            }
        };
        let this = if n + 1 == rules.len() { variable.to_owned() } else { format!("{variable}{n}") };
        let _ = writeln!(
            out,
            "map {looks_at} ${this} {{\n    default {before};\n    \"~{expression}\" {RULE};\n}}"
        );
        before = format!("${this}");
    }
    if rules.is_empty() {
        let _ = writeln!(out, "map \"\" ${variable} {{\n    default none;\n}}");
    }
}

/// nginx takes words of 4,095 bytes; each of a value's can be written with four.
const LONGEST_VALUE: usize = 900;

/// Why nginx could not follow a rule, in words.
pub(super) fn unfit(rule: &Rule) -> Option<String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let (what, fits) = match rule.by {
        // nginx leaves other headers out.
        RuleBy::Header => ("header", rule.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')),
        RuleBy::Cookie => ("cookie", rule.name.chars().all(token)),
    };
    if rule.name.is_empty() || !fits {
        return Some(format!("nginx knows no {what} named {:?}; use letters, digits and '-'", rule.name));
    }
    let value = &rule.value;
    let odd = value.is_empty() || value.trim() != value || value.chars().any(char::is_control);
    if value.len() > LONGEST_VALUE {
        return Some(format!("the value of the {what} {} has more than {LONGEST_VALUE} bytes", rule.name));
    }
    (odd || (rule.by == RuleBy::Cookie && value.contains([' ', ';'])))
        .then(|| format!("the {what} {} cannot have the value {value:?}", rule.name))
}

/// An expression that matches exactly `text`, in a quoted word: whatever could mean something is written in hex.
fn pattern(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b == b'-' || b == b'_' {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "\\x{b:02X}");
        }
        out
    })
}

fn servers(out: &mut String, route: &Route, slot: Slot, status: SocketAddr) {
    let ready = |slot: Slot| {
        route.slots.get(slot).endpoints.iter().filter(|e| e.state == EndpointState::Ready).collect::<Vec<_>>()
    };
    // Who failed is left out for a second (the default, ten, would make one hang-up last long), but never all of stable's:
    // where every one has just failed they are tried all the same.
    let out_for_a_second = " max_fails=1 fail_timeout=1s";
    let line = |e: &RouteEndpoint, how: &str| format!("    server {}{how}; # {}\n", e.addr, e.instance);
    let (own, stable) = (ready(slot), ready(route.stable));
    for e in &own {
        out.push_str(&line(e, out_for_a_second));
    }
    let (behind, how) = match (slot == route.stable, own.len()) {
        (true, 0 | 1) => (&[][..], ""),
        (true, _) => (&own[..], " max_fails=0 backup"),
        (false, 0) => (&stable[..], out_for_a_second),
        (false, _) => (&stable[..], " max_fails=0 backup"),
    };
    for e in behind {
        out.push_str(&line(e, how));
    }
    if own.is_empty() && (slot == route.stable || stable.is_empty()) {
        // Answers 503.
        let _ = writeln!(out, "    server {status};");
    }
    for e in route.slots.get(slot).endpoints.iter().filter(|e| e.state == EndpointState::Drain) {
        let _ = writeln!(out, "    # {} {} drains", e.addr, e.instance);
    }
}

/// The two questions, and the third for those whom a rule sends: the answer is in the variable `slot`.
fn asks(
    route: &Route,
    fleet: &FleetName,
    dir: &Path,
    row: &str,
    place: &str,
    rule: &str,
    indent: &str,
) -> String {
    let slot = variable(fleet, &route.service, "slot");
    let link = shares::link(dir, fleet, &route.service);
    let (stable, other) = (route.stable.as_str(), route.stable.other().as_str());
    let question =
        |file: String| format!("{indent}if (-f \"{}/{file}\") {{ set ${slot} {other}; }}\n", link.display());
    format!(
        // Whatever the operator caches elsewhere, a share is looked up each time, and it is a symbolic link.
        "{indent}open_file_cache off;\n{indent}disable_symlinks off;\n{indent}set ${slot} {stable};\n{}{}{}",
        question(format!("{other}.{row}")),
        question(format!("{other}.{place}")),
        question(rule.to_owned())
    )
}

/// The server by which Pilothouse asks a worker, and which answers 503 where a service has no instance.
fn server(
    out: &mut String,
    routes: &[Route],
    fleet: &FleetName,
    dir: &Path,
    status: SocketAddr,
    generation: &str,
) {
    let _ = writeln!(
        out,
        "\nserver {{\n    listen {status} default_server;\n    access_log off;\n    return 503;\n}}\nserver {{\n    \
         listen {status};\n    server_name {STATUS_HOST};\n    access_log off;\n    default_type text/plain;\n    \
         location = / {{ return 200 \"$pid {generation}\\n\"; }}"
    );
    for route in routes {
        let slot = variable(fleet, &route.service, "slot");
        let asked = ASKED.map(|(what, _)| format!("${}", common(fleet, what)));
        let asked = asks(route, fleet, dir, &asked[0], &asked[1], &asked[2], "        ");
        let _ = writeln!(
            out,
            "    location = /{} {{\n{asked}        return 200 \"$pid {generation} ${slot}\\n\";\n    }}",
            route.service
        );
    }
    out.push_str("}\n");
}

/// The text of a service's file for a `location`.
pub(super) fn location(route: &Route, fleet: &FleetName, owner: &str, dir: &Path) -> String {
    let var = |what: &str| variable(fleet, &route.service, what);
    let (row, place) = (format!("${}", var("row")), format!("${}", var("place")));
    format!(
        "{}\n{}proxy_pass http://${};\n",
        files::header(fleet, owner),
        asks(route, fleet, dir, &row, &place, &format!("${}", var("rule")), ""),
        var("to")
    )
}

/// The generation that a file for the `http` block says it is.
pub(super) fn generation_in(text: &str) -> Option<&str> {
    text.lines().find_map(|l| l.trim().strip_prefix("location = / { return 200 \"$pid ")?.split('\\').next())
}
