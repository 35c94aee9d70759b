//! `type = "edge"`: the embedded proxy.

use super::{Kind, socket_address};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::{EdgeSettings, ProxyKind};
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind {
    name: "edge",
    keys: Keys {
        header: "[proxies.NAME] of type edge",
        schema: "/$defs/edge/properties",
        keys: &["type", "listen"],
    },
    read,
};

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "listen", "listen = \"127.0.0.1:8080\"");
    Some(ProxyKind::Edge(EdgeSettings { listen: socket_address(ctx, section, "listen")?.value }))
}
