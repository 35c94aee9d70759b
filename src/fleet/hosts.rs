//! `[hosts.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::ctx::{At, Ctx};
use super::keys;
use super::model::{Engine, Host};
use super::names::HostName;
use super::problem::Span;
use super::read::{Section, rename};
use super::suggest::nearest;

/// Longest path that fits into a Unix socket address on Linux.
const SOCKET_PATH_BYTES: usize = 107;

/// Tables of one kind: those that could be read, and all names that were declared, for references.
pub(super) struct Declared<N, T> {
    /// What could be read, by name, with the place of the name.
    pub(super) items: BTreeMap<N, At<T>>,
    /// Every name that has a table, also where the table is wrong.
    pub(super) names: BTreeSet<String>,
}

impl<N: Ord, T> Declared<N, T> {
    pub(super) fn named(names: Vec<&str>) -> Self {
        Self { items: BTreeMap::new(), names: names.into_iter().map(str::to_owned).collect() }
    }

    /// Reports a reference to something that is not declared.
    pub(super) fn unknown(&self, ctx: &mut Ctx<'_>, kind: &str, written: &At<&str>, place: &str) {
        let fix = match nearest(written.value, self.names.iter().map(String::as_str)) {
            Some(near) => format!("write \"{near}\" instead"),
            None if self.names.is_empty() => format!("add a table [{}.{}]", plural(kind), written.value),
            None => {
                let names: Vec<_> = self.names.iter().map(String::as_str).collect();
                format!(
                    "write one of {}, or add a table [{}.{}]",
                    names.join(", "),
                    plural(kind),
                    written.value
                )
            }
        };
        ctx.mismatch(&written.span, &format!("unknown {kind} '{}'{place}", written.value), &fix);
    }
}

fn plural(kind: &str) -> &str {
    if kind == "proxy" { "proxies" } else { "hosts" }
}

/// Checks the name of a table.
pub(super) fn name<N: std::str::FromStr<Err = super::names::Invalid>>(
    ctx: &mut Ctx<'_>,
    written: &At<&str>,
) -> Option<N> {
    match written.value.parse() {
        Ok(n) => Some(n),
        Err(e) => {
            let fix = rename(written.value, &[])
                .map_or("write a name like web-1".to_owned(), |b| format!("write {b}"));
            ctx.error(&written.span, &format!("'{}' is not a name: {e}", written.value), &fix);
            None
        }
    }
}

/// Reads all hosts.
pub(super) fn read_hosts(ctx: &mut Ctx<'_>, top: &Section<'_>) -> Declared<HostName, Host> {
    let mut out = Declared::named(top.names_in("hosts"));
    for (written, section) in top.tables(ctx, "hosts") {
        let name = name::<HostName>(ctx, &written);
        section.check_keys(ctx, &keys::HOST);
        section.missing(ctx, "engine", "engine = \"unix:///var/run/docker.sock\" (or \"process://\")");
        let engine = engine(ctx, &section);
        let address = section.has("address").then(|| address(ctx, &section));
        let out_of_order = section.flag(ctx, "out").is_some_and(|f| f.value);
        let (Some(name), Some(engine)) = (name, engine) else { continue };
        let host = Host {
            name: name.clone(),
            engine,
            address: address.flatten().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            out: out_of_order,
        };
        out.items.insert(name, written.with(host));
    }
    same_place(ctx, &out);
    out
}

fn engine(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<Engine> {
    let text = section.filled(ctx, "engine")?;
    let (scheme, path) = text.value.split_once("://").unwrap_or(("", text.value));
    match scheme {
        "unix" if path.starts_with('/') => {
            let socket = PathBuf::from(path);
            socket_fits(ctx, &text.span, &socket);
            Some(Engine::Docker { socket })
        }
        "process" if path.is_empty() => Some(Engine::Process { dir: None }),
        "process" if path.starts_with('/') => Some(Engine::Process { dir: Some(PathBuf::from(path)) }),
        "unix" | "process" => {
            let fix = format!(
                "write engine = \"{scheme}:///{}\"",
                path.trim_start_matches('.').trim_start_matches('/')
            );
            ctx.error(&text.span, &format!("the path of engine '{}' is not absolute", text.value), &fix);
            None
        }
        "" if path.starts_with('/') => {
            let message = format!("'{}' is not an engine: it has no scheme", text.value);
            ctx.error(&text.span, &message, &format!("write engine = \"unix://{path}\""));
            None
        }
        _ => {
            let fix = match nearest(scheme, ["unix", "process"]) {
                Some(near) => format!("write engine = \"{near}://{path}\""),
                None => "this version knows \"unix:///var/run/docker.sock\" (a Docker Engine's socket) and \
                         \"process://\" (child processes on this machine)"
                    .to_owned(),
            };
            ctx.error(&text.span, &format!("unknown engine '{}'", text.value), &fix);
            None
        }
    }
}

fn address(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<IpAddr> {
    let text = section.filled(ctx, "address")?;
    match text.value.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            let message = format!("nothing can be reached at '{ip}'");
            ctx.error(
                &text.span,
                &message,
                "write the address at which proxies reach the host, for example \"10.0.0.11\"",
            );
            None
        }
        Ok(ip) => Some(ip),
        Err(_not_an_address) => {
            let fix = match text.value.parse::<SocketAddr>() {
                Ok(with_port) => {
                    format!("write address = \"{}\"; ports come from 'host_ports'", with_port.ip())
                }
                Err(_name) => {
                    "write an IP address, for example \"10.0.0.11\" (names are not looked up)".to_owned()
                }
            };
            ctx.error(&text.span, &format!("'{}' is not an IP address", text.value), &fix);
            None
        }
    }
}

pub(super) fn socket_fits(ctx: &mut Ctx<'_>, span: &Span, path: &Path) {
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES {
        let message = format!("the socket's path has {bytes} bytes; the system allows {SOCKET_PATH_BYTES}");
        ctx.error(span, &message, "use a shorter path, for example a symbolic link to the directory");
    }
}

/// Two hosts that are one engine: they fail together, and a process directory cannot be shared.
fn same_place(ctx: &mut Ctx<'_>, hosts: &Declared<HostName, Host>) {
    let mut seen: BTreeMap<&PathBuf, &HostName> = BTreeMap::new();
    for (name, host) in &hosts.items {
        let (Engine::Docker { socket: path } | Engine::Process { dir: Some(path) }) = &host.value.engine
        else {
            continue;
        };
        let Some(other) = seen.insert(path, name) else { continue };
        if matches!(host.value.engine, Engine::Process { .. }) {
            let message = format!("hosts '{other}' and '{name}' keep their processes in the same directory");
            ctx.error(&host.span, &message, "give each its own directory, or write engine = \"process://\"");
        } else {
            let message =
                format!("hosts '{other}' and '{name}' are the same Docker Engine and fail together");
            ctx.warn(&host.span, &message, "declare each engine once");
        }
    }
}
