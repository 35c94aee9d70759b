//! `batch` of the strategies that replace instances where they are: so many, or all of one host.

use super::Around;
use crate::fleet::ctx::Ctx;
use crate::fleet::model::Batch;
use crate::fleet::read::Section;
use crate::fleet::service::MOST_INSTANCES;

const EXAMPLE: &str = "write batch = 1, or batch = \"host\" for all of one host";

/// `batch = 2` or `batch = "host"`; one at a time when it is not written.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Batch {
    let default = Batch::Count(1);
    if section.is_text("batch") {
        let Some(text) = section.text(ctx, "batch") else { return default };
        if text.value == "host" {
            return Batch::Host;
        }
        let fix = match text.value.trim().parse::<u32>() {
            Ok(n) if n > 0 => format!("write batch = {n}"),
            _ => EXAMPLE.to_owned(),
        };
        let message = format!("'batch'{} cannot be '{}'", section.place(), text.value);
        ctx.error(&text.span, &message, &fix);
        return default;
    }
    let Some(count) = section.whole(ctx, "batch", 1, MOST_INSTANCES) else { return default };
    if let Some(replicas) = around.replicas.filter(|r| count.value > *r) {
        let message =
            format!("a batch of {} is more than {} has: {replicas} in all", count.value, around.service);
        ctx.mismatch(&count.span, &message, &format!("write batch = {replicas}, or fewer"));
    }
    Batch::Count(count.value)
}
