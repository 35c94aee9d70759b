//! `[services.NAME]`: reads one service and what hangs below it.

mod analysis;
mod checks;
mod env;
mod hooks;
mod placement;
mod run;

use super::ctx::{At, Ctx};
use super::hosts::{self, Declared};
use super::keys;
use super::model::{Address, Drain, HealthCheck, Host, Probe, Proxy, Run, Service, Strategy};
use super::names::{HostName, Millis, ProxyName, ServiceName, Version};
use super::problem::Span;
use super::read::{Section, list};
use super::strategy::{self, Around};
use super::suggest::nearest;
use super::units;

/// Most instances of one service on one host; more is a typing mistake.
pub(super) const MOST_INSTANCES: u32 = 10_000;

/// A service as far as it could be read, with the places that later checks point at.
pub(super) struct Draft {
    /// The service; parts that were wrong hold a default, and nothing is built from it then.
    pub(super) service: Service,
    /// Where its name stands.
    pub(super) name: Span,
    /// Where its host ports stand, when it has valid ones and uses them.
    pub(super) range: Option<Span>,
    /// Whether its strategy could be read; what depends on it is not judged otherwise.
    pub(super) strategy_is_known: bool,
    /// Its proxies that exist.
    pub(super) proxies: Vec<At<ProxyName>>,
    /// Its domains that are valid.
    pub(super) domains: Vec<At<String>>,
}

/// Reads all services.
pub(super) fn read_all(
    ctx: &mut Ctx<'_>,
    top: &Section<'_>,
    hosts: &Declared<HostName, Host>,
    proxies: &Declared<ProxyName, Proxy>,
) -> Vec<Draft> {
    top.tables(ctx, "services")
        .into_iter()
        .filter_map(|(written, section)| {
            let name = hosts::name::<ServiceName>(ctx, &written);
            // A service with a bad name is still read, so that all of its errors are shown.
            let stand_in = || "unnamed".parse().ok();
            let draft = read(ctx, &section, &written, name.clone().or_else(stand_in)?, hosts, proxies);
            name.map(|_| draft)
        })
        .collect()
}

fn read(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    written: &At<&str>,
    name: ServiceName,
    hosts: &Declared<HostName, Host>,
    proxies: &Declared<ProxyName, Proxy>,
) -> Draft {
    section.check_keys(ctx, &keys::SERVICE);
    let run = run::read(ctx, section);
    let is_process = section.has("command") && !section.has("image");
    let address = address(ctx, section, is_process);
    let placement = placement::read(ctx, section, run.as_ref(), hosts);
    let around = Around {
        service: &section.title,
        replicas: (!placement.is_empty()).then(|| placement.values().sum()),
        proxied: section.has("proxies") && !section.is_empty_list("proxies"),
    };
    let strategy = match section.table(ctx, "strategy") {
        Some(s) => strategy::read(ctx, &s, &around),
        None => Some(strategy::default()),
    };
    let range = host_ports(ctx, section, address, strategy.as_ref());
    let port = section.whole(ctx, "port", 1, 65_535).and_then(|p| u16::try_from(p.value).ok());
    if !is_process {
        section.missing(ctx, "port", "port = 8080, the port the application listens on inside the container");
    }
    let proxies = own_proxies(ctx, section, proxies);
    let has_proxies = section.has("proxies") && !(proxies.is_empty());
    let health = health(ctx, section, has_proxies);
    let env_file = env::file(ctx, section, is_process);
    let env = env::table(ctx, section, is_process, env_file.as_ref());
    let network = section.filled(ctx, "network").map(|n| n.value.to_owned());
    let version = section.parsed::<Version>(ctx, "version").map(|v| v.value);
    let versions = section.texts(ctx, "versions").map(|list| {
        let mut versions = Vec::new();
        for text in list.value {
            match text.value.parse::<Version>() {
                Ok(v) => versions.push(v),
                Err(e) => ctx.error(&text.span, &e.to_string(), "write versions like \"1.4.2\""),
            }
        }
        versions
    });
    let hooks = hooks::read(ctx, section, is_process);
    let analysis = analysis::read(ctx, section, around.proxied);
    let checks = checks::read(ctx, section);
    let progress_deadline = duration(ctx, section, "progress_deadline", Millis::secs(1), Millis::secs(600));
    let keep = duration(ctx, section, "keep", Millis(0), Millis::secs(300));
    let restore = restore(ctx, section);
    let drain = drain(ctx, section);
    let domains = domains(ctx, section);
    let host_ports = range.as_ref().map_or((0, 0), |r| r.value);
    let strategy_is_known = strategy.is_some();
    let service = Service {
        name,
        run: run.unwrap_or(Run::Command { argv: Vec::new() }),
        version,
        versions: versions.unwrap_or_default(),
        placement,
        // A process listens on the host port it is given; a container's port is its own.
        port: port.unwrap_or(host_ports.0),
        host_ports,
        address,
        network,
        env,
        env_file: env_file.map(|f| f.value),
        health,
        drain,
        strategy: strategy.unwrap_or_else(strategy::default),
        hooks,
        analysis,
        checks,
        progress_deadline,
        keep,
        restore,
        proxies: proxies.iter().map(|p| p.value.clone()).collect(),
        domains: domains.iter().map(|d| d.value.clone()).collect(),
    };
    let range = range.map(|r| r.span);
    Draft { service, name: written.span.clone(), range, strategy_is_known, proxies, domains }
}

fn duration(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str, least: Millis, default: Millis) -> Millis {
    section.duration(ctx, key, least).map_or(default, |d| d.value)
}

/// What is done about an instance that ended or is gone.
fn restore(ctx: &mut Ctx<'_>, section: &Section<'_>) -> bool {
    let Some(text) = section.text(ctx, "drift") else { return false };
    match text.value {
        "show" => false,
        "restore" => true,
        other => {
            let fix = match nearest(other, ["show", "restore"]) {
                Some(near) => format!("write drift = \"{near}\""),
                None => "write \"show\" (the default: 'up' puts it right) or \"restore\"".to_owned(),
            };
            ctx.error(&text.span, &format!("unknown drift '{other}'{}", section.place()), &fix);
            false
        }
    }
}

fn address(ctx: &mut Ctx<'_>, section: &Section<'_>, is_process: bool) -> Address {
    let Some(text) = section.text(ctx, "address") else { return Address::Published };
    match text.value {
        "published" => Address::Published,
        "container" if is_process => {
            let message = format!(
                "address = \"container\"{} does not fit a command: a process has no address of its own",
                section.place()
            );
            ctx.error(&text.span, &message, "remove the line; processes are reached on 'host_ports'");
            Address::Published
        }
        "container" => Address::Container,
        other => {
            let fix = match nearest(other, ["published", "container"]) {
                Some(near) => format!("write address = \"{near}\""),
                None => "write \"published\" (at the host's address, the default) or \"container\" (at the container's own)".into(),
            };
            ctx.error(&text.span, &format!("unknown address '{other}'{}", section.place()), &fix);
            Address::Published
        }
    }
}

/// The range, when it is valid and needed. `strategy` says how much room it needs, unless that is unknown.
fn host_ports(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    address: Address,
    strategy: Option<&Strategy>,
) -> Option<At<(u16, u16)>> {
    let in_place = strategy.is_some_and(|s| s.revisions_on_ports() == 1);
    if address == Address::Published {
        let room = if in_place { "a port for each instance" } else { "room for two revisions" };
        let example = format!("host_ports = \"9000-9015\", with {room} on each host");
        section.missing(ctx, "host_ports", &example);
    } else if let Some(span) = section.key_span("host_ports") {
        let message =
            format!("'host_ports'{} is not used: address = \"container\" publishes nothing", section.place());
        ctx.warn(&span, &message, "remove the line");
        return None;
    }
    if let Some(first) = section.number("host_ports") {
        let (message, last) = if in_place {
            ("one port is not a range: each instance on a host has its own", first)
        } else {
            ("one port is not a range: old and new run side by side", first.saturating_add(15))
        };
        let fix = format!("write host_ports = \"{first}-{last}\"");
        ctx.error(&section.value_span("host_ports"), message, &fix);
        return None;
    }
    let text = section.text(ctx, "host_ports")?;
    match units::port_range(text.value) {
        Ok(range) => Some(text.with(range)),
        Err((message, fix)) => {
            ctx.error(&text.span, &message, &fix);
            None
        }
    }
}

fn own_proxies(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    declared: &Declared<ProxyName, Proxy>,
) -> Vec<At<ProxyName>> {
    let mut out: Vec<At<ProxyName>> = Vec::new();
    let written = section.texts(ctx, "proxies").map(|l| l.value).unwrap_or_default();
    for text in &written {
        if !declared.names.contains(text.value) {
            declared.unknown(ctx, "proxy", text, &section.place());
        } else if out.iter().any(|p| p.value.as_str() == text.value) {
            ctx.error(&text.span, &format!("proxy '{}' is named twice", text.value), "remove one of the two");
        } else if let Ok(name) = text.value.parse() {
            out.push(text.with(name));
        }
    }
    out
}

fn health(ctx: &mut Ctx<'_>, section: &Section<'_>, has_proxies: bool) -> HealthCheck {
    let default =
        HealthCheck { probe: Probe::Tcp, interval: Millis::secs(1), timeout: Millis(500), rise: 2, fall: 3 };
    if has_proxies {
        let example = format!(
            "a table [services.{}.health] with http = \"/health\" or tcp = true: traffic is given only to what is healthy",
            own_name(section)
        );
        section.missing(ctx, "health", &example);
    }
    let Some(table) = section.table(ctx, "health") else { return default };
    table.check_keys(ctx, &keys::HEALTH);
    let http = table.text(ctx, "http");
    let tcp = table.flag(ctx, "tcp");
    if let (Some(_), Some(tcp)) = (&http, &tcp) {
        let message = format!("both 'http' and 'tcp'{}", table.place());
        ctx.error(&tcp.span, &message, "keep one of them: 'http' says more about the application");
    } else if let Some(tcp) = tcp.as_ref().filter(|t| !t.value) {
        ctx.error(&tcp.span, "tcp = false checks nothing", "write tcp = true or http = \"/health\"");
    } else if !table.has("http") && !table.has("tcp") {
        table.missing(ctx, "http", "http = \"/health\", or tcp = true");
    }
    let probe = match &http {
        Some(path) if !path.value.starts_with('/') || !path.value.chars().all(fits_a_path) => {
            let message = format!("'{}' is not a path to ask for", path.value);
            let path_only = path.value.rsplit_once("://").and_then(|(_, r)| r.split_once('/'));
            let path_only = path_only.map_or(path.value, |(_, p)| p).trim_start_matches('/');
            let better: String = path_only.chars().take_while(|c| fits_a_path(*c)).collect();
            ctx.error(&path.span, &message, &format!("write http = \"/{better}\" (other characters as %XX)"));
            Probe::Tcp
        }
        Some(path) => Probe::Http { path: path.value.to_owned() },
        None => Probe::Tcp,
    };
    let interval = duration(ctx, &table, "interval", Millis(10), default.interval);
    let timeout = duration(ctx, &table, "timeout", Millis(1), default.timeout);
    if timeout.0 > interval.0.saturating_mul(10)
        && let Some(span) = table.key_span("timeout").or_else(|| table.key_span("interval"))
    {
        let message = format!("the timeout ({timeout}) is more than ten times the interval ({interval})");
        ctx.warn(&span, &message, "a dead instance is noticed late: write a shorter timeout");
    }
    let count = |ctx: &mut Ctx<'_>, key, default| table.whole(ctx, key, 1, 1000).map_or(default, |n| n.value);
    let rise = count(ctx, "rise", default.rise);
    let fall = count(ctx, "fall", default.fall);
    HealthCheck { probe, interval, timeout, rise, fall }
}

/// What may stand in a request line and, unquoted, in a proxy's configuration.
fn fits_a_path(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '#')
}

/// `web` of `[services.web]`.
fn own_name<'s>(section: &'s Section<'_>) -> &'s str {
    section.title.trim_end_matches(']').rsplit_once('.').map_or("NAME", |(_, name)| name)
}

fn drain(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Drain {
    let default = Drain { deadline: Millis::secs(30), stop_grace: Millis::secs(10) };
    let Some(table) = section.table(ctx, "drain") else { return default };
    table.check_keys(ctx, &keys::DRAIN);
    Drain {
        deadline: duration(ctx, &table, "deadline", Millis(0), default.deadline),
        stop_grace: duration(ctx, &table, "stop_grace", Millis(0), default.stop_grace),
    }
}

fn domains(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Vec<At<String>> {
    let mut out: Vec<At<String>> = Vec::new();
    let written = section.texts(ctx, "domains").map(|l| l.value).unwrap_or_default();
    for text in &written {
        let name = text.value;
        let labels = name.split('.').all(|l| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
                && !l.starts_with('-')
                && !l.ends_with('-')
        });
        if !labels || name.len() > 253 {
            let bare = name.rsplit("://").next().unwrap_or(name).split(['/', ':']).next().unwrap_or_default();
            let fix = match bare.to_ascii_lowercase() {
                b if b != name && !b.is_empty() && b.is_ascii() && !b.contains(['*', ' ']) => format!("write \"{b}\""),
                _ => "write a plain host name in lower case, for example \"shop.example\" (no wildcard, no port; \
                      other alphabets as xn--…)"
                    .to_owned(),
            };
            ctx.error(&text.span, &format!("'{name}' is not a host name"), &fix);
        } else if out.iter().any(|d| d.value == name) {
            ctx.error(&text.span, &format!("domain '{name}' is named twice"), "remove one of the two");
        } else {
            out.push(text.with(name.to_owned()));
        }
    }
    out
}

/// Says which of two keys that exclude each other to keep; `true` when both are there.
fn exclusive(ctx: &mut Ctx<'_>, section: &Section<'_>, a: &str, b: &str, why: &str) -> bool {
    let (Some(_), Some(second)) = (section.key_span(a), section.key_span(b)) else { return false };
    let message = format!("both {}{}", list([a, b]).replace(", ", " and "), section.place());
    ctx.error(&second, &message, &format!("keep one of them: {why}"));
    true
}
