//! `[metrics]`: where Prometheus finds the controller's numbers.

use std::net::SocketAddr;

use super::ctx::{At, Ctx};
use super::keys;
use super::proxies::socket_address;
use super::read::Section;

/// The address to serve `/metrics` on.
pub(super) fn read(ctx: &mut Ctx<'_>, top: &Section<'_>) -> Option<At<SocketAddr>> {
    let section = top.table(ctx, "metrics")?;
    section.check_keys(ctx, &keys::METRICS);
    section.missing(ctx, "listen", "listen = \"127.0.0.1:9464\"");
    socket_address(ctx, &section, "listen")
}
