//! Blue/green: the other colour in full, tried out before anyone sees it, then switched at once.

use super::{Around, Kind, gates, rule};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::Strategy;
use crate::fleet::read::Section;

pub(super) const KIND: Kind = Kind { name: "blue-green", also: &["redblack"], tables: TABLES, read };

const TABLES: &[Keys] = &[Keys {
    header: "[services.NAME.strategy] of type blue-green",
    schema: "/$defs/blue-green/properties",
    keys: &["type", "preview", "healthy_for", "pause"],
}];

#[expect(clippy::unnecessary_wraps, reason = "readers of other strategies can fail")]
fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Strategy> {
    Some(Strategy::BlueGreen {
        preview: rule::read(ctx, section, "preview", "X-Preview", around),
        gates: gates::read(ctx, section),
    })
}
