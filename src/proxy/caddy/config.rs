//! What Pilothouse writes for Caddy: Caddyfiles that the operator's own imports, once.
//!
//! `FLEET_SERVICE.caddy` stands in the site that serves a service and has everything a request needs: its place, the
//! questions (see [`super::tree`]) and the `reverse_proxy`. `FLEET.caddy` stands beside the sites and is a server of our own
//! on loopback, by which Caddy says what it has loaded and where it would send a place. `FLEET.options` stands in the
//! global options and sends log lines. None of them changes while releases go on, but for a rule that was never used
//! before.
//!
//! Facts of Caddy this rests on (2.6): placeholders of `map` are evaluated whenever they are used, so an upstream
//! `{ph_..._next}` is another one at a second attempt, as `{http.reverse_proxy.upstream.address}` is then the first; the
//! network of an address (`tcp4`) is part of that; a `file` matcher takes `*`, and says what it found.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::tree;
use crate::fleet::model::{Rule, RuleBy};
use crate::fleet::names::{FleetName, ServiceName};
use crate::proxy::{files, place_cookie};
use crate::text::hex;
use crate::traffic::caddy_log::HEADER;

/// Rules that a service's file has at most; the ones that were used last.
const RULES: usize = 16;
/// Begins the lines that say which rules a file has, as data.
const KNOWS: &str = "# knows ";

/// Path of the file beside the sites.
pub(super) fn server_path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("{fleet}.caddy"))
}

/// Path of the file in the global options.
pub(super) fn options_path(dir: &Path, fleet: &FleetName) -> PathBuf {
    dir.join(format!("{fleet}.options"))
}

/// Path of a service's file.
pub(super) fn site_path(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.caddy"))
}

/// The line beside the sites.
#[must_use]
pub fn server_line(dir: &Path, fleet: &FleetName) -> String {
    format!("import {}", server_path(dir, fleet).display())
}

/// The line in the global options, for numbers.
#[must_use]
pub fn options_line(dir: &Path, fleet: &FleetName) -> String {
    format!("import {}", options_path(dir, fleet).display())
}

/// The line in the site that serves a service.
#[must_use]
pub fn site_line(dir: &Path, fleet: &FleetName, service: &ServiceName) -> String {
    format!("import {}", site_path(dir, fleet, service).display())
}

/// Begins all names of a service's placeholders. Short, whatever the service is called.
fn prefix(fleet: &FleetName, service: &ServiceName) -> String {
    let digest = Sha256::digest(format!("{fleet} {service}").as_bytes());
    format!("ph_{}", hex(digest.get(..4).unwrap_or_default()))
}

/// What only a configuration that has a service's file contains, as Caddy tells it.
pub(super) fn mark(fleet: &FleetName, service: &ServiceName) -> String {
    format!("{}_place", prefix(fleet, service))
}

/// Why Caddy could not follow a rule, in words.
pub(super) fn unfit(rule: &Rule) -> Option<String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let header = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let (what, fits) = match rule.by {
        RuleBy::Header => ("header", rule.name.chars().all(header)),
        RuleBy::Cookie => ("cookie", rule.name.chars().all(token)),
    };
    if rule.name.is_empty() || !fits {
        return Some(format!("Caddy knows no {what} named {:?}; use letters, digits and '-'", rule.name));
    }
    let value = &rule.value;
    let odd = value.is_empty() || value.trim() != value || value.chars().any(char::is_control);
    (odd || (rule.by == RuleBy::Cookie && value.contains([' ', ';'])))
        .then(|| format!("the {what} {} cannot have the value {value:?}", rule.name))
}

/// An expression that matches exactly `text`: whatever could mean something, to Caddy or in the expression, is written
/// in hex.
fn pattern(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            out.push(c);
        } else if c.is_ascii() {
            let _ = write!(out, "\\x{:02X}", u32::from(c));
        } else {
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
        out
    })
}

/// The rules that a service's file has, as it says itself.
pub(super) fn known_rules(text: &str) -> Vec<Rule> {
    let lines = text.lines().filter_map(|l| l.strip_prefix(KNOWS));
    lines.filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// The rules of a file that has `known` and shall have `wanted`.
pub(super) fn rules(known: Vec<Rule>, wanted: &[Rule]) -> Vec<Rule> {
    let mut all = known;
    all.extend(wanted.iter().filter(|r| !all.contains(r)).cloned().collect::<Vec<_>>());
    // The oldest that nobody wants leave.
    while all.len() > RULES.max(wanted.len()) {
        let Some(old) = all.iter().position(|r| !wanted.contains(r)) else { break };
        all.remove(old);
    }
    all
}

/// The text of a service's file.
pub(super) fn site(
    fleet: &FleetName,
    owner: &str,
    dir: &Path,
    service: &ServiceName,
    rules: &[Rule],
) -> String {
    let p = prefix(fleet, service);
    let root = tree::link(dir, fleet, service);
    let root = root.display();
    let mut out = format!("{}\n", files::header(fleet, owner));
    for rule in rules {
        let _ = writeln!(out, "{KNOWS}{}", serde_json::to_string(rule).unwrap_or_default());
    }
    // Every hex digit of a version 4 UUID is thrown but two. Of those that are decimal, the first six are the dice.
    let digits = "[a-f]*([0-9])".repeat(6);
    let _ = write!(
        out,
        r#"# Written by Pilothouse; what you change here is undone. Settings of your own for the reverse_proxy (header_up, say)
# belong into {own}, which is yours.
route {{
    map {{http.request.uuid}} {{{p}_hex}} {{
        ~^(.{{8}})-(.{{4}})-4(.{{3}})-.(.{{3}})-(.{{12}})$ "${{1}}${{2}}${{3}}${{4}}${{5}}"
    }}
    map {{{p}_hex}} {{{p}_dice}} {{
        ~^{digits} "${{1}}${{2}}/${{3}}${{4}}/${{5}}${{6}}"
        default 00/00/00
    }}
    vars {p}_place {{{p}_dice}}
    vars {p}_slot w
"#,
        own = dir.join(format!("{fleet}_{service}.proxy")).display(),
    );
    for (n, rule) in rules.iter().enumerate() {
        let value = pattern(&rule.value);
        let (header, expression) = match rule.by {
            RuleBy::Header => (rule.name.as_str(), format!("^{value}$")),
            RuleBy::Cookie => ("Cookie", format!("(?:^|;[ ]*){}={value}[ ]*(?:;|$)", pattern(&rule.name))),
        };
        let _ = write!(
            out,
            "    @{p}_rule{n} {{\n        header_regexp {p}_rule{n} {header} \"{expression}\"\n        file {{\n            \
             root {root}\n            try_files {}\n        }}\n    }}\n    vars @{p}_rule{n} {p}_slot o\n",
            tree::rule_file(rule)
        );
    }
    let cookie = place_cookie(fleet, service);
    let name = pattern(&cookie);
    let begin = format!("(?:^|[;,][ ]*){name}=");
    let kept = |before: &str, digits: &str, end: &str| {
        format!("        \"~{begin}{digits}[ ]*(?:[;,]|$)\" \"{before}{end}\"\n")
    };
    // Two cookies of the name are none, and so is one that holds no place.
    let kept = [
        format!("        \"~{begin}.*[;,][ ]*{name}=\" \"\"\n"),
        kept("00/0", "([0-9])", "${1}"),
        kept("00/", "([0-9]{2})", "${1}"),
        kept("0", "([0-9])([0-9]{2})", "${1}/${2}"),
        kept("", "([0-9]{2})([0-9]{2})", "${1}/${2}"),
    ]
    .concat();
    // Whom a rule sends somewhere keeps no place; whoever has one is told nothing.
    let _ = write!(
        out,
        r#"    @{p}_keeps {{
        file {{
            root {root}
            try_files sticky
        }}
        vars {p}_slot w
    }}
    route @{p}_keeps {{
        map {{http.request.header.Cookie}} {{{p}_kept}} {{
{kept}            default ""
        }}
        @{p}_new vars_regexp {{{p}_kept}} ^$
        map {{vars.{p}_place}} {{{p}_told}} {{
            ~^(..)/(..)/ "${{1}}${{2}}"
        }}
        header @{p}_new +Set-Cookie "{cookie}={{{p}_told}}; Path=/; HttpOnly; SameSite=Lax"
        map "{{{p}_kept}}+{{vars.{p}_place}}" {{{p}_mine}} {{
            ~^[+](.*)$ "${{1}}"
            ~^(.*)[+]...../(..)$ "${{1}}/${{2}}"
        }}
        vars {p}_place {{{p}_mine}}
    }}
    map "{{vars.{p}_slot}}/{{vars.{p}_place}}" {{{p}_path}} {{
        ~^o/../(.*)$ "o/${{1}}"
        ~^(.*)$ "${{1}}"
    }}
    vars {p}_at {{{p}_path}}
    # A second time: the link may have been replaced between the look and the find.
    @{p}_to file {{
        root {root}
        try_files {{vars.{p}_at}}/* {{vars.{p}_at}}/* {{vars.{p}_at}}/*
    }}
    route @{p}_to {{
        vars {p}_list {{http.matchers.file.relative}}
        map "{{http.reverse_proxy.upstream.address}} {{vars.{p}_list}}" {{{p}_next}} {{
            "~^tcp[46]/.*/[^/,]*,([^/,]*)$" "tcp/${{1}}"
            "~/([[][^/,]*),[^/,]*$" "tcp6/${{1}}"
            "~/([^/,]*),[^/,]*$" "tcp4/${{1}}"
        }}
        reverse_proxy {{{p}_next}} {{
            lb_retries 1
            lb_try_interval 1ms
            header_up {HEADER} "{token} {{http.request.uuid}} {{http.reverse_proxy.upstream.address}}"
            transport http {{
                dial_timeout 2s
                keepalive 1s
            }}
            import {own}*
        }}
    }}
    respond 503
}}
"#,
        own = dir.join(format!("{fleet}_{service}.proxy")).display(),
        token = token(owner),
    );
    out
}

/// What only our own `reverse_proxy` knows: a client of another site could send the header as well, and would be counted.
/// Not secret from whoever may read Caddy's configuration, or is given requests by it.
pub(super) fn token(owner: &str) -> String {
    let digest = Sha256::digest(format!("attempts of {owner}"));
    hex(digest.get(..8).unwrap_or_default())
}

/// The text of the file in the global options.
pub(super) fn options(fleet: &FleetName, owner: &str, log: Option<SocketAddr>) -> String {
    let mut out = format!("{}\n", files::header(fleet, owner));
    if let Some(log) = log {
        let log = heard_at(log);
        let _ = write!(
            out,
            "log ph_{fleet} {{\n    output net udp/{log}\n    level DEBUG\n    include http.handlers.reverse_proxy\n    \
             format filter {{\n        wrap json\n        fields {{\n            headers delete\n            \
             request>tls delete\n        }}\n    }}\n}}\n"
        );
    }
    out
}

/// Where Caddy sends its lines for a log address. To loopback's broadcast address: while nobody listens at another one every
/// second line is an error, which Caddy then writes into its own log.
pub(super) fn heard_at(log: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 255, 255, 255], log.port()))
}

/// The text of the file beside the sites, and its generation: a hash over all that there is, which our server answers.
pub(super) fn server(
    fleet: &FleetName,
    owner: &str,
    dir: &Path,
    status: SocketAddr,
    services: &BTreeSet<ServiceName>,
    others: &[String],
) -> (String, String) {
    let body = |generation: &str| {
        let mut out =
            format!("{}\nhttp://{status} {{\n    bind {}\n", files::header(fleet, owner), status.ip());
        for service in services {
            let root = tree::link(dir, fleet, service);
            let p = prefix(fleet, service);
            let _ = write!(
                out,
                "    @{p}_ask {{\n        path /{service}\n        vars_regexp {{http.request.uri.query}} \
                 ^(is|sticky|rule[.][0-9a-f]+|(w|o)/[0-9]{{2}}/[0-9]{{2}}(/[0-9]{{2}})?)$\n        file {{\n            \
                 root {}\n            try_files {{http.request.uri.query}} {{http.request.uri.query}}/*\n        }}\n    \
                 }}\n    respond @{p}_ask \"ok {generation} {{http.matchers.file.relative}}\"\n",
                root.display()
            );
        }
        let _ = writeln!(out, "    respond \"ok {generation} none\"\n}}");
        out
    };
    let digest = Sha256::digest([&[body("")], others].concat().concat().as_bytes());
    let generation = hex(digest.get(..6).unwrap_or_default());
    (body(&generation), generation)
}
