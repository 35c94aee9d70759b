//! `[services.NAME.hooks]`: what runs once around a release.

use super::{duration, run};
use crate::fleet::ctx::Ctx;
use crate::fleet::keys;
use crate::fleet::model::{Hook, Hooks};
use crate::fleet::names::Millis;
use crate::fleet::read::Section;

const EXAMPLE: &str = "{ run = [\"./migrate\", \"--up\"], timeout = \"5m\" }";

/// The hooks of a service. `is_process`: what runs is a program, not the arguments of an image.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, is_process: bool) -> Hooks {
    let Some(table) = section.table(ctx, "hooks") else { return Hooks::default() };
    table.check_keys(ctx, &keys::HOOKS);
    Hooks {
        before_start: hook(ctx, &table, "before_start", is_process),
        before_traffic: hook(ctx, &table, "before_traffic", is_process),
        after_promote: hook(ctx, &table, "after_promote", is_process),
    }
}

fn hook(ctx: &mut Ctx<'_>, hooks: &Section<'_>, key: &str, is_process: bool) -> Option<Hook> {
    let table = hooks.inline_table(ctx, key, EXAMPLE)?;
    table.check_keys(ctx, &keys::HOOK);
    table.missing(ctx, "run", "run = [\"./migrate\", \"--up\"]");
    let timeout = duration(ctx, &table, "timeout", Millis::secs(1), Millis::secs(300));
    let idempotent = table.flag(ctx, "idempotent").is_some_and(|f| f.value);
    let irreversible = table.flag(ctx, "irreversible").is_some_and(|f| f.value);
    let run =
        if is_process { run::program_and_arguments(ctx, &table, "run") } else { arguments(ctx, &table) }?;
    Some(Hook { run, timeout, idempotent, irreversible })
}

/// The arguments that the image is given in place of its own.
fn arguments(ctx: &mut Ctx<'_>, table: &Section<'_>) -> Option<Vec<String>> {
    let list = table.texts(ctx, "run")?;
    if list.value.first().is_none_or(|f| f.value.trim().is_empty()) {
        let message = format!("'run'{} is empty", table.place());
        ctx.error(
            &list.span,
            &message,
            "write what the image is to run, for example [\"migrate\", \"--up\"]",
        );
        return None;
    }
    Some(list.value.iter().map(|a| a.value.to_owned()).collect())
}
