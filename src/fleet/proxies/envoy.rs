//! `type = "envoy"`.

use std::path::PathBuf;

use super::{Kind, loopback};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::{EnvoySettings, ProxyKind};
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind {
    name: "envoy",
    keys: Keys {
        header: "[proxies.NAME] of type envoy",
        schema: "/$defs/envoy/properties",
        keys: &["type", "dir", "admin", "log", "container", "engine"],
    },
    read,
};

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<ProxyKind> {
    section.missing(ctx, "dir", "dir = \"/etc/envoy/pilothouse\", a directory that Pilothouse owns");
    section.missing(ctx, "admin", "admin = \"127.0.0.1:9901\", the address of Envoy's administration server");
    let dir = yaml_path(ctx, section, "dir");
    let admin = loopback(ctx, section, "admin");
    let log = if section.has("log") { Some(yaml_path(ctx, section, "log")?) } else { None };
    Some(ProxyKind::Envoy(EnvoySettings { dir: dir?, admin: admin?, log }))
}

/// A path that stands in the operator's configuration as it is.
fn yaml_path(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let path = section.path(ctx, key)?;
    let odd = |c: char| c.is_whitespace() || "\"'#,:{}[]\\".contains(c);
    if path.value.to_string_lossy().contains(odd) {
        let message = format!("Envoy's configuration cannot simply name '{}'", path.value.display());
        ctx.error(
            &path.span,
            &message,
            "use a path without spaces, quotes, '#', ',', ':', brackets and backslashes",
        );
    }
    Some(path.value)
}
