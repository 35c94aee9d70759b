//! Canary: a small share first, then more, with something that must hold before each next step.

use super::{Around, Kind, gates, rule, share};
use crate::fleet::ctx::{At, Ctx};
use crate::fleet::keys::Keys;
use crate::fleet::model::{Step, Strategy};
use crate::fleet::names::Bp;
use crate::fleet::read::Section;
use crate::fleet::service::MOST_INSTANCES;

pub(super) const KIND: Kind = Kind { name: "canary", also: &["progressive", "linear"], tables: TABLES, read };

const TABLES: &[Keys] = &[
    Keys {
        header: "[services.NAME.strategy] of type canary",
        schema: "/$defs/canary/properties",
        keys: &["type", "steps", "sticky", "tester"],
    },
    STEP,
];

const STEP: Keys = Keys {
    header: "a step of a canary",
    schema: "/$defs/canary_step/properties",
    keys: &["weight", "instances", "healthy_for", "pause"],
};

const EXAMPLE: &str =
    "steps = [ { weight = 5, healthy_for = \"30s\" }, { weight = 50, pause = \"manual\" } ]";

/// 5, 25, 50 per cent, each healthy for ten seconds.
pub(super) fn default_steps() -> Vec<Step> {
    [5, 25, 50].map(|p| Step { weight: Bp::percent(p), instances: None, gates: vec![gates::DEFAULT] }).into()
}

fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Strategy> {
    let sticky = section.flag(ctx, "sticky").filter(|s| s.value);
    if let Some(sticky) = &sticky {
        let what = format!("'sticky'{}", section.place());
        around.needs_proxy(ctx, &sticky.span, &what, "remove it");
    }
    let tester = rule::read(ctx, section, "tester", "X-Tester", around);
    let steps = if section.has("steps") { steps(ctx, section, around)? } else { default_steps() };
    Some(Strategy::Canary { steps, sticky: sticky.is_some(), tester })
}

fn steps(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Vec<Step>> {
    let written = section.table_list(ctx, "steps", EXAMPLE)?;
    if written.value.is_empty() {
        let fix = format!("write {EXAMPLE}, or remove the line for 5, 25, 50 per cent");
        ctx.error(&written.span, &format!("'steps'{} is empty", section.place()), &fix);
        return None;
    }
    let mut steps = Vec::new();
    let mut last: Option<Bp> = None;
    let mut most: Option<u32> = None;
    for step in &written.value {
        step.check_keys(ctx, &STEP);
        step.missing(ctx, "weight", "weight = 5");
        let weight = share::read(ctx, step, "weight", "100 follows by itself");
        if let (Some(w), Some(last)) = (&weight, last)
            && w.value <= last
        {
            let message = format!("the weight {} does not rise: the step before has {last}", w.value);
            ctx.error(
                &w.span,
                &message,
                &format!("write a weight above {last}, or put the steps in rising order"),
            );
        }
        last = weight.as_ref().map(|w| w.value).or(last);
        let instances = instances(ctx, step, weight.as_ref(), most, around);
        most = instances.or(most);
        steps.push(Step {
            weight: weight.map_or(Bp::ZERO, |w| w.value),
            instances,
            gates: gates::read(ctx, step),
        });
    }
    Some(steps)
}

/// `instances` of a step: enough for its weight, no fewer than in a step before, no more than the service has.
fn instances(
    ctx: &mut Ctx<'_>,
    step: &Section<'_>,
    weight: Option<&At<Bp>>,
    before: Option<u32>,
    around: &Around<'_>,
) -> Option<u32> {
    let written = step.whole(ctx, "instances", 1, MOST_INSTANCES)?;
    let n = written.value;
    let few = |n: u32| if n == 1 { "1 instance".to_owned() } else { format!("{n} instances") };
    if let Some(replicas) = around.replicas {
        let needs = weight.map_or(1, |w| w.value.instances_of(replicas));
        if n > replicas {
            let message =
                format!("{} in a step are more than {} has: {replicas} in all", few(n), around.service);
            ctx.mismatch(&written.span, &message, &format!("write instances = {replicas}, or fewer"));
            return None;
        }
        if let Some(weight) = weight.filter(|_| n < needs) {
            let message = format!(
                "{} cannot carry {} of what {replicas} carry: that needs {needs}",
                few(n),
                weight.value
            );
            let fix = format!("write instances = {needs}, or remove it for as many as are needed");
            ctx.mismatch(&written.span, &message, &fix);
            return None;
        }
    }
    if let Some(before) = before.filter(|b| n < *b) {
        let message = format!("the instances fall to {n}: a step before has {before}");
        ctx.error(&written.span, &message, &format!("write instances = {before}, or more"));
        return None;
    }
    Some(n)
}
