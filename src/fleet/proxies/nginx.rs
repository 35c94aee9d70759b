//! `type = "nginx"`.

use super::{Kind, loopback, path_or, program_or};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::{NginxSettings, ProxyKind};
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind {
    name: "nginx",
    keys: Keys {
        header: "[proxies.NAME] of type nginx",
        schema: "/$defs/nginx/properties",
        keys: &["type", "dir", "config", "pid", "status", "binary", "log", "container", "engine"],
    },
    read,
};

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "dir", "dir = \"/etc/nginx/pilothouse\", a directory that Pilothouse owns");
    section.missing(ctx, "status", "status = \"127.0.0.1:8404\", an address that nothing else uses");
    let dir = section.path(ctx, "dir");
    if let Some(dir) = &dir
        && dir.value.to_string_lossy().contains(|c: char| c.is_whitespace() || "\"'$;{}\\".contains(c))
    {
        let message = format!("nginx cannot be told of files in '{}'", dir.value.display());
        ctx.error(&dir.span, &message, "use a path without spaces, quotes, '$', ';', braces and backslashes");
    }
    let config = path_or(ctx, section, "config", "/etc/nginx/nginx.conf");
    let pid = path_or(ctx, section, "pid", "/run/nginx.pid");
    if let Some(written) = section.has("pid").then(|| section.filled(ctx, "pid")).flatten()
        && section.has("container")
    {
        let message = format!("'pid'{} is of no use with 'container'", section.place());
        ctx.error(&written.span, &message, "remove pid: nginx's master is found through the engine");
    }
    let binary = program_or(ctx, section, "binary", "nginx");
    let status = loopback(ctx, section, "status");
    let log = if section.has("log") { Some(loopback(ctx, section, "log")) } else { None };
    Some(ProxyKind::Nginx(NginxSettings {
        dir: dir?.value,
        config: config?,
        pid: pid?,
        status: status?,
        binary,
        log: log.flatten(),
    }))
}
