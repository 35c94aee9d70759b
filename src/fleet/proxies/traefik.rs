//! `type = "traefik"`.

use super::{Kind, loopback};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::{ProxyKind, TraefikSettings};
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind {
    name: "traefik",
    keys: Keys {
        header: "[proxies.NAME] of type traefik",
        schema: "/$defs/traefik/properties",
        keys: &["type", "dir", "api", "container", "engine"],
    },
    read,
};

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "dir", "dir = \"/etc/traefik/dynamic\", the directory of Traefik's file provider");
    section.missing(ctx, "api", "api = \"127.0.0.1:8404\", where Traefik's entry point 'pilothouse' listens");
    let dir = section.path(ctx, "dir");
    let api = loopback(ctx, section, "api");
    Some(ProxyKind::Traefik(TraefikSettings { dir: dir?.value, api: api? }))
}
