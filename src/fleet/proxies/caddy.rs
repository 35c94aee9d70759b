//! `type = "caddy"`.

use std::net::SocketAddr;

use super::{Kind, loopback, path_or, program_or};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::{CaddySettings, ProxyKind};
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind {
    name: "caddy",
    keys: Keys {
        header: "[proxies.NAME] of type caddy",
        schema: "/$defs/caddy/properties",
        keys: &["type", "dir", "config", "admin", "status", "binary", "log", "container", "engine"],
    },
    read,
};

/// Where Caddy's admin endpoint is unless somebody has changed that.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2019);

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "dir", "dir = \"/etc/caddy/pilothouse\", a directory that Pilothouse owns");
    section.missing(ctx, "status", "status = \"127.0.0.1:8404\", an address that nothing else uses");
    let dir = section.path(ctx, "dir");
    if let Some(dir) = &dir
        && dir.value.to_string_lossy().contains(|c: char| c.is_whitespace() || "\"'`$;{}[]*?\\#".contains(c))
    {
        let message = format!("Caddy cannot be told of files in '{}'", dir.value.display());
        let fix =
            "use a path without spaces, quotes, '$', ';', '#', '*', '?', braces, brackets and backslashes";
        ctx.error(&dir.span, &message, fix);
    }
    let config = path_or(ctx, section, "config", "/etc/caddy/Caddyfile");
    let binary = program_or(ctx, section, "binary", "caddy");
    let admin = if section.has("admin") { loopback(ctx, section, "admin") } else { Some(ADMIN) };
    let status = loopback(ctx, section, "status");
    let log = if section.has("log") { Some(loopback(ctx, section, "log")) } else { None };
    if let Some(text) = section.has("log").then(|| section.filled(ctx, "log")).flatten()
        && log.flatten().is_some_and(|log| log.is_ipv6())
    {
        let message = format!("'log'{} must be an IPv4 address", section.place());
        ctx.error(&text.span, &message, "write log = \"127.0.0.1:5141\"");
    }
    Some(ProxyKind::Caddy(CaddySettings {
        dir: dir?.value,
        config: config?,
        admin: admin?,
        status: status?,
        binary,
        log: log.flatten(),
    }))
}
