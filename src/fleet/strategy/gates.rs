//! `healthy_for` and `pause`: what must hold before a rollout goes on.

use crate::fleet::ctx::Ctx;
use crate::fleet::model::Gate;
use crate::fleet::names::Millis;
use crate::fleet::read::Section;
use crate::fleet::units;

/// What is waited for when nothing is named.
pub(super) const DEFAULT: Gate = Gate::HealthyFor(Millis::secs(10));

/// The gates in `section`; never empty.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Vec<Gate> {
    let mut gates = Vec::new();
    if let Some(d) = section.duration(ctx, "healthy_for", Millis(0)) {
        gates.push(Gate::HealthyFor(d.value));
    }
    if section.entries().any(|(k, v)| k.value == "pause" && v.get_ref().is_integer()) {
        // Reports the missing unit, with the number that was meant.
        section.duration(ctx, "pause", Millis(0));
    } else if let Some(pause) = section.text(ctx, "pause") {
        match pause.value {
            "manual" => gates.push(Gate::Manual),
            text => match units::duration(text) {
                Ok(d) => gates.push(Gate::Pause(d)),
                Err((message, fix)) => {
                    let fix = format!("{fix}, or \"manual\" to wait for an operator");
                    ctx.error(&pause.span, &message, &fix);
                }
            },
        }
    }
    if gates.is_empty() {
        gates.push(DEFAULT);
    }
    gates
}
