//! A/B: two revisions side by side for a set time, to be compared; somebody decides in the end.

use super::{Around, Kind, rule, share};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys::Keys;
use crate::fleet::model::{Choose, Strategy};
use crate::fleet::names::Millis;
use crate::fleet::read::Section;

pub(super) const KIND: Kind =
    Kind { name: "ab", also: &["abtest", "abtesting", "experiment"], tables: TABLES, read };

const TABLES: &[Keys] = &[Keys {
    header: "[services.NAME.strategy] of type ab",
    schema: "/$defs/ab/properties",
    keys: &["type", "duration", "share", "candidate"],
}];

const BY_RULE: &str = "candidate = { header = \"X-Variant\", value = \"b\" }";

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Strategy> {
    around.needs_proxy(ctx, &section.value_span("type"), "an A/B release", "write type = \"rolling\"");
    section.missing(ctx, "duration", "duration = \"1h\": for so long the two are compared");
    let duration = section.duration(ctx, "duration", Millis::secs(1));
    // Said once, above, of the strategy as a whole.
    let around = &Around { proxied: true, ..*around };
    let choose = match (section.has("share"), section.has("candidate")) {
        (true, true) => {
            let message = format!("both 'share' and 'candidate'{}", section.place());
            let fix =
                "keep one of them: a share of the visitors, or the requests that a header or cookie marks";
            ctx.error(&section.key_span("candidate")?, &message, fix);
            return None;
        }
        (false, false) => {
            nobody(ctx, section);
            return None;
        }
        (true, false) => Choose::Share(
            share::read(ctx, section, "share", "at 0 and at 100 there is nothing to compare")?.value,
        ),
        (false, true) => Choose::Rule(rule::read(ctx, section, "candidate", "X-Variant", around)?),
    };
    Some(Strategy::Ab { choose, duration: duration?.value })
}

/// Neither key is there. A `header` or `cookie` that stands here belongs one level deeper.
fn nobody(ctx: &mut Ctx<'_>, section: &Section<'_>) {
    if section.has("header") || section.has("cookie") {
        section.missing(ctx, "candidate", BY_RULE);
    } else {
        section.missing(ctx, "share", &format!("share = 20 (per cent of the visitors) or {BY_RULE}"));
    }
}
