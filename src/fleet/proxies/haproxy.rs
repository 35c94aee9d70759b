//! `type = "haproxy"`.

use super::{Kind, program_or, socket_address};
use crate::fleet::ctx::Ctx;
use crate::fleet::hosts::socket_fits;
use crate::fleet::keys::Keys;
use crate::fleet::model::{HaproxySettings, ProxyKind};
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind {
    name: "haproxy",
    keys: Keys {
        header: "[proxies.NAME] of type haproxy",
        schema: "/$defs/haproxy/properties",
        keys: &["type", "dir", "master_socket", "config", "binary", "log", "container", "engine"],
    },
    read,
};

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "dir", "dir = \"/etc/haproxy/pilothouse\", a directory that Pilothouse owns");
    section.missing(
        ctx,
        "master_socket",
        "master_socket = \"/run/haproxy/master.sock\", as given to haproxy -S",
    );
    section.missing(ctx, "config", "config = [\"/etc/haproxy/haproxy.cfg\"], your own files");
    let dir = section.path(ctx, "dir");
    let master_socket = section.path(ctx, "master_socket");
    if let Some(socket) = &master_socket {
        socket_fits(ctx, &socket.span, &socket.value);
    }
    let config = section.texts(ctx, "config");
    if let Some(files) = &config
        && files.value.is_empty()
    {
        let message = format!("'config'{} is empty", section.place());
        ctx.error(
            &files.span,
            &message,
            "write your own HAProxy files, for example config = [\"/etc/haproxy/haproxy.cfg\"]",
        );
    }
    let binary = program_or(ctx, section, "binary", "haproxy");
    let log = section.has("log").then(|| socket_address(ctx, section, "log"));
    Some(ProxyKind::Haproxy(HaproxySettings {
        dir: dir?.value,
        master_socket: master_socket?.value,
        config: config?.value.iter().map(|f| ctx.resolve(f.value)).collect(),
        binary,
        log: log.flatten().map(|a| a.value),
    }))
}
