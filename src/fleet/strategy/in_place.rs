//! In-place: stop, replace on the same host and port, start. The one strategy with downtime.

use super::{Around, Kind, batch};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::Strategy;
use crate::fleet::names::Millis;
use crate::fleet::read::Section;

pub(super) const KIND: Kind =
    Kind { name: "in-place", also: &["recreate", "stopfirst"], tables: TABLES, read };

const TABLES: &[Keys] = &[Keys {
    header: "[services.NAME.strategy] of type in-place",
    schema: "/$defs/in-place/properties",
    keys: &["type", "batch", "min_healthy_time"],
}];

#[expect(clippy::unnecessary_wraps, reason = "readers of other strategies can fail")]
fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Strategy> {
    Some(Strategy::InPlace {
        batch: batch::read(ctx, section, around),
        min_healthy_time: section
            .duration(ctx, "min_healthy_time", Millis(0))
            .map_or(Millis::secs(5), |d| d.value),
    })
}
