//! Commands by name: completing, choosing and running what the palette offers.

use crate::text::Safe;
use crate::tui::dialog::Ask;
use crate::tui::keys::{Action, Context};
use crate::tui::model::{Model, Overlay};
use crate::tui::palette::{Offer, offers};
use crate::tui::rows::{Column, Sort};
use crate::tui::theme::Palette;

use super::{Cmd, act, ask, fold, logs, open_palette};

/// The palette's choice, if it is open and offers one.
fn choice(model: &Model) -> Option<Offer> {
    match &model.overlay {
        Overlay::Palette(p) => p.choice(model),
        _ => None,
    }
}

/// Tab.
pub(super) fn complete(model: &mut Model) {
    let Some(offer) = choice(model) else { return };
    if let Some(palette) = open_palette(model) {
        palette.complete(&offer);
    }
}

/// The arrows.
pub(super) fn choose(model: &mut Model, by: isize) {
    let Overlay::Palette(palette) = &model.overlay else { return };
    let last = offers(model, &palette.input.text).len().saturating_sub(1);
    let next = match palette.cursor {
        None if by > 0 => 1.min(last),
        at => at.unwrap_or(0).saturating_add_signed(by.signum()).min(last),
    };
    if let Some(palette) = open_palette(model) {
        (palette.cursor, palette.complaint) = (Some(next), None);
    }
}

fn complain(model: &mut Model, why: impl Into<Safe>) -> Vec<Cmd> {
    if let Some(palette) = open_palette(model) {
        palette.complaint = Some(why.into());
    }
    vec![]
}

/// Enter. A verb runs only when its name stands there in full and nothing was typed in the same breath, so that no
/// pasted text runs one; what it does then is what its key does.
pub(super) fn run(model: &mut Model) -> Vec<Cmd> {
    let Overlay::Palette(palette) = &model.overlay else { return vec![] };
    let Some(offer) = palette.choice(model) else {
        let what = match palette.input.text.trim() {
            "" => "type a command".to_owned(),
            typed => format!("there is no command '{typed}'; Backspace takes letters back, Esc all of it"),
        };
        return complain(model, what);
    };
    let in_full = palette.in_full(&offer);
    if let Some(why) = &offer.why_not {
        return complain(model, format!("not now: {why}"));
    }
    if offer.steers() && !in_full {
        complete(model);
        return complain(model, format!("Enter once more for {}", offer.text));
    }
    if offer.steers() && !ask::quiet(model) {
        return complain(model, "that came too quickly to be meant: Enter once more, please");
    }
    if offer.binding.action == Action::Deploy && !ask::plausible(&offer.argument) {
        return complain(model, ask::no_version(&offer.argument));
    }
    if offer.binding.action == Action::Service && offer.argument.is_empty() {
        complete(model);
        return vec![];
    }
    model.overlay = Overlay::None;
    // What is about the panes needs to see them.
    let mut cmds = match offer.binding.contexts.contains(&Context::Logs) || model.logs.is_none() {
        true => vec![],
        false => logs::close(model),
    };
    cmds.extend(carry_out(model, offer.binding.action, offer.argument));
    cmds
}

fn carry_out(model: &mut Model, action: Action, argument: String) -> Vec<Cmd> {
    match (action, argument.is_empty()) {
        (Action::Deploy, false) => return ask::plan(model, argument),
        (Action::Rollback, false) => ask::open(model, Ask::Rollback { host: Some(argument.into()) }),
        (Action::Service, false) => act::select_service(model, Some(argument.into())),
        (Action::Theme, false) => {
            if let Some(palette) = Palette::named(&argument) {
                act::theme(model, palette);
            }
        }
        (Action::Fold | Action::Unfold, false) => fold::named(model, &argument, action == Action::Fold),
        (Action::Sort, false) => {
            let by = Column::ALL.into_iter().find(|c| c.caption() == argument);
            act::sort(model, Sort { by, reversed: false });
        }
        (Action::Filter, false) => {
            ask::filter(model);
            if let Some(list) = model.filtering.take() {
                ask::filter_by(model, list, &argument);
            }
        }
        _ => return act::act(model, action),
    }
    vec![]
}
