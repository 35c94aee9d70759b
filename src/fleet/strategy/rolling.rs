//! Rolling: a batch at a time, never below what may be missing, never above what may be too many.

use super::{Around, Kind, batch};
use crate::fleet::ctx::{At, Ctx};
use crate::fleet::keys::Keys;
use crate::fleet::model::Strategy;
use crate::fleet::names::Millis;
use crate::fleet::read::Section;
use crate::fleet::service::MOST_INSTANCES;

pub(super) const KIND: Kind =
    Kind { name: "rolling", also: &["rollingupdate", "startfirst"], tables: TABLES, read };

const TABLES: &[Keys] = &[Keys {
    header: "[services.NAME.strategy] of type rolling",
    schema: "/$defs/rolling/properties",
    keys: &["type", "batch", "max_unavailable", "max_surge", "min_healthy_time", "healthy_deadline"],
}];

const MIN_HEALTHY_TIME: Millis = Millis::secs(10);
const HEALTHY_DEADLINE: Millis = Millis::secs(300);

#[expect(clippy::unnecessary_wraps, reason = "readers of other strategies can fail")]
fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Strategy> {
    let batch = batch::read(ctx, section, around);
    let unavailable = section.whole(ctx, "max_unavailable", 0, MOST_INSTANCES);
    let surge = section.whole(ctx, "max_surge", 0, MOST_INSTANCES);
    let healthy = section.duration(ctx, "min_healthy_time", Millis(0));
    let deadline = section.duration(ctx, "healthy_deadline", Millis(1));
    room_to_move(ctx, section, around, unavailable.as_ref(), surge.as_ref());
    last_healthy_one(ctx, around, unavailable.as_ref());
    if !(section.has("healthy_deadline") && deadline.is_none()) {
        in_time(ctx, section, healthy.as_ref(), deadline.as_ref());
    }
    Some(Strategy::Rolling {
        batch,
        max_unavailable: unavailable.map_or(0, |n| n.value),
        max_surge: surge.map_or(1, |n| n.value),
        min_healthy_time: healthy.map_or(MIN_HEALTHY_TIME, |d| d.value),
        healthy_deadline: deadline.map_or(HEALTHY_DEADLINE, |d| d.value),
    })
}

/// With neither one more nor one fewer than the replicas, nothing can be replaced.
fn room_to_move(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    around: &Around<'_>,
    unavailable: Option<&At<u32>>,
    surge: Option<&At<u32>>,
) {
    let refused = section.has("max_unavailable") && unavailable.is_none();
    let Some(surge) = surge.filter(|n| n.value == 0 && !refused) else { return };
    if unavailable.is_some_and(|n| n.value > 0) {
        return;
    }
    let message = format!(
        "max_surge = 0 and max_unavailable = 0{}: with neither one more nor one fewer nothing can be replaced",
        section.place()
    );
    let more = "write max_surge = 1 (one more runs meanwhile)";
    let fix = match around.replicas {
        Some(1) => more.to_owned(),
        _ => format!("{more}, or max_unavailable = 1 (one fewer serves meanwhile)"),
    };
    ctx.error(&surge.span, &message, &fix);
}

fn last_healthy_one(ctx: &mut Ctx<'_>, around: &Around<'_>, unavailable: Option<&At<u32>>) {
    let Some((unavailable, replicas)) = unavailable.zip(around.replicas) else { return };
    if unavailable.value < replicas.max(1) {
        return;
    }
    let of = if replicas == 1 { "of 1 instance".to_owned() } else { format!("of {replicas} instances") };
    let message = format!(
        "max_unavailable = {} {of} would take the last healthy one out of rotation, which never happens",
        unavailable.value
    );
    let fix = match replicas {
        0 | 1 => {
            "remove the line (one more runs meanwhile), or write type = \"in-place\" and accept the downtime"
                .to_owned()
        }
        n => format!("write max_unavailable = {}, or fewer", n - 1),
    };
    ctx.mismatch(&unavailable.span, &message, &fix);
}

/// An instance has to become healthy and stay so for a while: all of it within its deadline.
fn in_time(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    healthy: Option<&At<Millis>>,
    deadline: Option<&At<Millis>>,
) {
    let time = healthy.map_or(MIN_HEALTHY_TIME, |d| d.value);
    let limit = deadline.map_or(HEALTHY_DEADLINE, |d| d.value);
    let Some(at) = deadline.or(healthy).filter(|_| limit <= time) else { return };
    let by_default = |written: bool| if written { "" } else { ", the default" };
    let message = format!(
        "the healthy_deadline ({limit}{}) is not longer than the min_healthy_time ({time}{}){}: every instance would \
         fail",
        by_default(deadline.is_some()),
        by_default(healthy.is_some()),
        section.place()
    );
    let verb = if deadline.is_some() { "write" } else { "add" };
    let fix = match Millis(time.0.saturating_mul(2).max(HEALTHY_DEADLINE.0)) {
        // Longer durations than a year are refused; so is the suggestion then.
        longer if longer <= Millis::secs(365 * 86_400) => format!(
            "{verb} healthy_deadline = \"{longer}\" (it includes the start), or a shorter min_healthy_time"
        ),
        _ => "write a shorter min_healthy_time".to_owned(),
    };
    ctx.error(&at.span, &message, &fix);
}
