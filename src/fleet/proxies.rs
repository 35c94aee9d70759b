//! `[proxies.NAME]`: what all kinds have in common. One file per kind.

mod caddy;
mod edge;
mod envoy;
mod haproxy;
mod nginx;
mod traefik;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ctx::{At, Ctx};
use super::hosts::{Declared, name, socket_fits};
use super::keys::Keys;
use super::model::{Container, Proxy, ProxyKind};
use super::names::ProxyName;
use super::read::Section;
use super::suggest::nearest;

/// A kind of proxy in the fleet file.
pub(super) struct Kind {
    /// What `type` calls it.
    name: &'static str,
    /// The keys of its table.
    pub(super) keys: Keys,
    read: fn(&mut Ctx<'_>, &Section<'_>) -> Option<ProxyKind>,
}

/// All kinds.
pub(super) const KINDS: &[Kind] =
    &[haproxy::KIND, nginx::KIND, caddy::KIND, traefik::KIND, envoy::KIND, edge::KIND];

/// Reads all proxies.
pub(super) fn read_proxies(ctx: &mut Ctx<'_>, top: &Section<'_>) -> Declared<ProxyName, Proxy> {
    let mut out = Declared::named(top.names_in("proxies"));
    for (written, section) in top.tables(ctx, "proxies") {
        let name = name::<ProxyName>(ctx, &written);
        let kind = kind(ctx, &section);
        if let (Some(name), Some(kind)) = (name, kind) {
            let container = container(ctx, &section);
            out.items.insert(name.clone(), written.with(Proxy { name, kind, container }));
        }
    }
    out
}

/// `'haproxy', 'nginx' and 'edge'`
fn all_kinds() -> String {
    let names: Vec<String> = KINDS.iter().map(|k| format!("'{}'", k.name)).collect();
    match names.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}

fn kind(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "type", &format!("type = \"haproxy\"; this version knows {}", all_kinds()));
    let written = section.text(ctx, "type")?;
    if let Some(kind) = KINDS.iter().find(|k| k.name == written.value) {
        section.check_keys(ctx, &kind.keys);
        return (kind.read)(ctx, section);
    }
    let fix = match nearest(written.value, KINDS.iter().map(|k| k.name)) {
        Some(near) => format!("write type = \"{near}\""),
        None => format!("this version knows {}", all_kinds()),
    };
    ctx.error(&written.span, &format!("unknown type of proxy '{}'", written.value), &fix);
    None
}

/// The container that a proxy runs in, for the kinds that have the key.
fn container(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<Container> {
    let engine = if section.has("engine") { engine(ctx, section) } else { None };
    if section.has("container") {
        let name = section.filled(ctx, "container")?;
        if !is_container(name.value) {
            let message = format!("'{}' is not the name of a container", name.value);
            ctx.error(
                &name.span,
                &message,
                "write the name that docker ps shows, for example container = \"front\"",
            );
            return None;
        }
        let engine = engine.map_or_else(|| PathBuf::from(Container::SOCKET), |e| e.value);
        return Some(Container { name: name.value.to_owned(), engine });
    }
    if let Some(engine) = engine {
        let message = format!("'engine'{} is of no use without 'container'", section.place());
        ctx.error(&engine.span, &message, "add container = \"NAME\", or remove engine");
    }
    None
}

/// Whether Docker allows it as a name (or an id).
fn is_container(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// The socket of a Docker Engine.
fn engine(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<At<PathBuf>> {
    let text = section.filled(ctx, "engine")?;
    match text.value.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => {
            socket_fits(ctx, &text.span, Path::new(path));
            Some(text.with(PathBuf::from(path)))
        }
        _ => {
            let message = format!("'{}' is not the socket of a Docker Engine on this machine", text.value);
            ctx.error(&text.span, &message, &format!("write engine = \"unix://{}\"", Container::SOCKET));
            None
        }
    }
}

/// A path, or where it usually is.
fn path_or(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str, usual: &str) -> Option<PathBuf> {
    if section.has(key) { section.path(ctx, key).map(|p| p.value) } else { Some(PathBuf::from(usual)) }
}

/// A program, or where it usually is.
fn program_or(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str, usual: &str) -> PathBuf {
    let written = section.filled(ctx, key).map_or(usual, |b| b.value);
    program(ctx, written)
}

/// A program: a bare name is left for `PATH`, a relative path starts from the file's directory.
pub(super) fn program(ctx: &Ctx<'_>, written: &str) -> PathBuf {
    if written.contains('/') { ctx.resolve(written) } else { PathBuf::from(written) }
}

/// `ADDRESS:PORT` on this machine, the port not 0.
fn loopback(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str) -> Option<SocketAddr> {
    let addr = socket_address(ctx, section, key)?;
    if !addr.value.ip().is_loopback() {
        let message = format!("'{key}'{} is not on this machine: {}", section.place(), addr.value);
        ctx.error(&addr.span, &message, "write a loopback address, for example 127.0.0.1:8404");
    }
    Some(addr.value)
}

/// `ADDRESS:PORT`, the port not 0.
pub(super) fn socket_address(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str) -> Option<At<SocketAddr>> {
    let text = section.filled(ctx, key)?;
    let fix = match text.value.strip_prefix(':').or_else(|| text.value.strip_prefix("localhost:")) {
        Some(port) if port.parse::<u16>().is_ok_and(|p| p > 0) => {
            format!("write {key} = \"127.0.0.1:{port}\"")
        }
        _ => {
            format!("write an IP address and a port from 1 to 65535, for example {key} = \"127.0.0.1:8080\"")
        }
    };
    match text.value.parse::<SocketAddr>() {
        Ok(addr) if addr.port() > 0 => Some(text.with(addr)),
        Ok(_port_zero) => {
            ctx.error(&text.span, &format!("port 0 is not a port{}", section.place()), &fix);
            None
        }
        Err(_not_an_address) => {
            ctx.error(&text.span, &format!("'{}' is not an address with a port", text.value), &fix);
            None
        }
    }
}
