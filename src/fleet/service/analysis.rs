//! `[services.NAME.analysis]`: how a release is judged by what its requests come to.

use super::duration;
use crate::analysis::Rate;
use crate::fleet::ctx::Ctx;
use crate::fleet::keys;
use crate::fleet::model::Analysis;
use crate::fleet::names::Millis;
use crate::fleet::read::Section;
use crate::fleet::suggest::nearest;

/// The analysis of a service. `proxied`: there is somebody who counts its requests.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, proxied: bool) -> Option<Analysis> {
    let table = section.table(ctx, "analysis")?;
    table.check_keys(ctx, &keys::ANALYSIS);
    if !proxied && let Some(span) = section.key_span("analysis") {
        let message =
            format!("'analysis'{} has nothing to look at: no proxy counts requests", section.place());
        ctx.error(&span, &message, "name the service's proxies, or remove the table");
    }
    let tolerance = rate(ctx, &table, "tolerance").unwrap_or(Rate::TOLERANCE);
    let alpha = rate(ctx, &table, "alpha").unwrap_or(Rate::ALPHA);
    let max_errors = rate(ctx, &table, "max_errors");
    let latency = table.flag(ctx, "latency").is_none_or(|f| f.value);
    let soak = duration(ctx, &table, "soak", Millis(0), Millis::secs(30));
    let inconclusive_after = duration(ctx, &table, "inconclusive_after", Millis::secs(1), Millis::secs(600));
    let early = early(ctx, &table);
    let dry_run = table.flag(ctx, "dry_run").is_some_and(|f| f.value);
    if soak > inconclusive_after
        && let Some(span) = table.key_span("soak").or_else(|| table.key_span("inconclusive_after"))
    {
        let message = format!(
            "the soak time ({soak}) is longer than the time after which it pauses without a verdict ({inconclusive_after})"
        );
        ctx.error(&span, &message, "write a shorter soak, or a longer inconclusive_after");
    }
    Some(Analysis { tolerance, alpha, max_errors, latency, soak, inconclusive_after, early, dry_run })
}

/// Whether a pass ends a pause before its time.
fn early(ctx: &mut Ctx<'_>, table: &Section<'_>) -> bool {
    let Some(text) = table.text(ctx, "promote") else { return false };
    match text.value {
        "gates" => false,
        "auto" => true,
        other => {
            let fix = match nearest(other, ["gates", "auto"]) {
                Some(near) => format!("write promote = \"{near}\""),
                None => "write \"gates\" (the default: a pass is one gate beside the others) or \"auto\" (it ends a pause early)"
                    .to_owned(),
            };
            ctx.error(&text.span, &format!("unknown promote '{other}'{}", table.place()), &fix);
            false
        }
    }
}

fn rate(ctx: &mut Ctx<'_>, table: &Section<'_>, key: &str) -> Option<Rate> {
    let text = table.text(ctx, key)?;
    match text.value.parse::<Rate>() {
        Ok(rate) => Some(rate),
        Err(e) => {
            let said = e.to_string();
            let (what, fix) =
                said.split_once(": ").unwrap_or((&said, "write a part of all, such as \"0.5%\""));
            let what = what.strip_prefix("it ").unwrap_or(what);
            ctx.error(&text.span, &format!("'{key}'{} {what}", table.place()), fix);
            None
        }
    }
}
