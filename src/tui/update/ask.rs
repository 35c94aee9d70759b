//! Opening, answering and leaving questions, and typing.

use crate::api::Verb;
use crate::client::ClientError;
use crate::text::Safe;
use crate::tui::dialog::{Ask, Dialog, Pick, QUIET_MS, single_hosts, stance};
use crate::tui::filter::List;
use crate::tui::model::{Loudness, Model, Overlay, Pane, Pending, Planned, sentence, word};
use crate::tui::palette::Palette;

use super::{Cmd, command, open_dialog, open_palette, open_pick, tell};

/// Opens a question about the selected service.
pub(super) fn open(model: &mut Model, ask: Ask) {
    let Some(service) = model.service_view() else { return };
    let ask = if let Ask::Pick(_) = ask { Ask::Pick(Pick::new(service)) } else { ask };
    let dialog = Dialog::open(model, service, ask);
    model.overlay = Overlay::Dialog(Box::new(dialog));
}

/// Pause needs no question: it is the safe direction.
pub(super) fn pause(model: &mut Model) -> Vec<Cmd> {
    let Some(service) = model.service_view() else { return vec![] };
    let (service, seen) = (service.name.clone(), stance(service));
    send(model, service, Verb::Pause, None, None, seen)
}

/// In mid-rollout a question. After an abort the same version is a deployment like the first: its plan is shown.
pub(super) fn retry(model: &mut Model) -> Vec<Cmd> {
    let Some(service) = model.service_view() else { return vec![] };
    let Some(r) = service.rollout.as_ref().filter(|r| r.status.ended()) else {
        open(model, Ask::Retry);
        return vec![];
    };
    let version = r.to.as_str().to_owned();
    plan(model, version)
}

/// Asks the controller for the plan of a version of the selected service, which is the question.
pub(super) fn plan(model: &mut Model, version: String) -> Vec<Cmd> {
    let Some(service) = model.service_view().map(|s| s.name.clone()) else { return vec![] };
    open(model, Ask::Planning { version: version.clone() });
    vec![Cmd::Plan { service, version }]
}

/// `y`, or Enter after the name was typed.
pub(super) fn confirm(model: &mut Model) -> Vec<Cmd> {
    let now = model.now_ms;
    let quiet_since = |t: Option<u64>| t.is_some_and(|t| now.saturating_sub(t) >= QUIET_MS);
    let after_key = quiet(model);
    let Overlay::Dialog(dialog) = &model.overlay else { return vec![] };
    let complaint = if let Some(changed) = dialog.moved_on(model) {
        Some(format!("not sent: it has changed since you opened this; {changed}. Esc, then look again"))
    } else if dialog.risky() && !(quiet_since(dialog.shown_ms) && after_key) {
        Some("that came too quickly to be an answer: once more, please".to_owned())
    } else {
        match &dialog.type_name {
            Some(typed) if typed.text != dialog.service.as_str() => {
                Some(format!("type {} and then Enter; Esc leaves everything as it is", dialog.service))
            }
            _ => model.can(dialog.verb()).err(),
        }
    };
    if let Some(complaint) = complaint {
        if let Some(dialog) = open_dialog(model) {
            dialog.complaint = Some(complaint.into());
        }
        return vec![];
    }
    let Overlay::Dialog(dialog) = std::mem::take(&mut model.overlay) else { return vec![] };
    let (verb, hash) = match dialog.ask {
        Ask::Abort => (Verb::Abort, None),
        Ask::Promote { full } => (Verb::Promote { full }, None),
        Ask::Resume => (Verb::Resume, None),
        Ask::Rollback { host } => {
            (Verb::Rollback { to: None, host: host.map(|h| h.as_str().to_owned()) }, None)
        }
        Ask::Retry => (Verb::Retry { host: None }, None),
        Ask::Deploy(p) => (Verb::Deploy { version: p.plan.to.as_str().to_owned() }, p.fleet_hash),
        Ask::Pick(_) | Ask::Planning { .. } => return vec![],
    };
    // Staleness never blocks the safe direction, so an abort carries no decision.
    let decision = dialog.decision.filter(|_| verb != Verb::Abort);
    send(model, dialog.service, verb, decision, hash, dialog.seen)
}

/// Whether the key now is not in one breath with the one before: pasted letters and bounced keys are.
pub(super) fn quiet(model: &Model) -> bool {
    model.input_ms.is_none_or(|t| model.now_ms.saturating_sub(t) >= QUIET_MS)
}

fn send(
    model: &mut Model,
    service: Safe,
    verb: Verb,
    decision: Option<u64>,
    fleet_hash: Option<String>,
    seen: Option<String>,
) -> Vec<Cmd> {
    // Nothing leads here without verbs; if something ever does, it ends here.
    if !model.steers() {
        return vec![];
    }
    model.counter += 1;
    let id = model.counter;
    let what = match &verb {
        Verb::Deploy { version } => format!("deploy {service} {version}"),
        Verb::Promote { full: true } => format!("promote {service} to the end"),
        Verb::Promote { full: false } => format!("promote {service}"),
        Verb::Pause => format!("pause {service}"),
        Verb::Resume => format!("resume {service}"),
        Verb::Abort => format!("abort {service}"),
        Verb::Rollback { host: Some(host), .. } => format!("roll {service} back on {host} alone"),
        Verb::Rollback { .. } => format!("roll {service} back"),
        Verb::Retry { .. } => format!("retry {service}"),
    };
    tell(model, Loudness::Note, format!("{what}: sent, waiting for the controller"));
    model.pending.push(Pending { id, service: service.clone(), what, seen });
    vec![Cmd::Send { id, service, verb, decision, fleet_hash }]
}

/// Enter in a question that takes text.
pub(super) fn accept(model: &mut Model) -> Vec<Cmd> {
    if model.filtering.take().is_some() {
        return vec![];
    }
    if open_palette(model).is_some() {
        return command::run(model);
    }
    if open_pick(model).is_none() {
        return confirm(model);
    }
    let Overlay::Dialog(dialog) = &model.overlay else { return vec![] };
    let (Ask::Pick(pick), Some(service)) = (&dialog.ask, model.service_named(&dialog.service)) else {
        return vec![];
    };
    let choice = pick.choice(service);
    let name = service.name.clone();
    let complaint = match (choice, model.can(dialog.verb())) {
        (_, Err(why)) => why,
        (None, _) => "type a version, or choose one with the arrows".into(),
        (Some(version), Ok(_)) if !plausible(&version) => no_version(&version),
        (Some(version), Ok(_)) => {
            if let Some(dialog) = open_dialog(model) {
                dialog.ask = Ask::Planning { version: version.clone() };
                dialog.complaint = None;
            }
            return vec![Cmd::Plan { service: name, version }];
        }
    };
    if let Some(dialog) = open_dialog(model) {
        dialog.complaint = Some(complaint.into());
    }
    vec![]
}

/// Why a text cannot be a version.
pub(super) fn no_version(text: &str) -> String {
    format!(
        "'{text}' is no version: a version has letters, digits, '_', '.' and '-', and starts with none of the last two"
    )
}

/// Whether it is worth asking the controller, which checks for itself.
pub(super) fn plausible(version: &str) -> bool {
    !version.starts_with(['.', '-'])
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The plan has come: show it, and ask.
pub(super) fn planned(
    model: &mut Model,
    service: &Safe,
    version: &str,
    result: Result<Box<Planned>, ClientError>,
) {
    let Overlay::Dialog(dialog) = &model.overlay else { return };
    if dialog.service != *service || dialog.ask != (Ask::Planning { version: version.to_owned() }) {
        return;
    }
    let Some(view) = model.service_named(service) else { return };
    let mut next = match result {
        Ok(planned) => {
            let decision = Some(planned.plan.decision);
            Dialog { decision, ..Dialog::open(model, view, Ask::Deploy(planned)) }
        }
        Err(e) => {
            let mut next = Dialog::open(model, view, Ask::Pick(Pick::new(view)));
            next.complaint = Some(sentence(&e));
            next
        }
    };
    next.guard(model);
    model.overlay = Overlay::Dialog(Box::new(next));
}

/// Esc.
pub(super) fn cancel(model: &mut Model) {
    if let Some(list) = model.filtering.take() {
        filter_by(model, list, "");
        return;
    }
    if let Overlay::Dialog(d) = std::mem::take(&mut model.overlay) {
        tell(model, Loudness::Note, format!("nothing was done: no {}", word(d.verb())));
    }
}

/// Begins to type the filter of the list that has the focus.
pub(super) fn filter(model: &mut Model) {
    let list = model.list();
    if list == List::Fleet {
        model.focus = Pane::Fleet;
    }
    model.filtering = Some(list);
}

/// Filters a list by a text; by none when it is empty.
pub(super) fn filter_by(model: &mut Model, list: List, text: &str) {
    model.filters.of_mut(list).set(text);
    refiltered(model, list);
}

/// The filter of a list is another one: its end is in sight again.
fn refiltered(model: &mut Model, list: List) {
    match list {
        List::Fleet => model.rows_stale = true,
        List::Health => model.health_back = 0,
        List::Events => {
            model.events_back = 0;
            super::journal::refilter(model);
        }
        List::Logs => {
            if let Some(logs) = &mut model.logs {
                logs.refilter(model.filters.of(list));
            }
        }
    }
}

/// A letter where text is typed, or a letter that is no answer.
pub(super) fn letter(model: &mut Model, c: char) {
    if let Some(list) = model.filtering {
        model.filters.of_mut(list).push(c);
        refiltered(model, list);
        return;
    }
    if let Some(palette) = open_palette(model) {
        palette.input.push(c);
        (palette.cursor, palette.complaint) = (None, None);
        return;
    }
    let Some(dialog) = open_dialog(model) else { return };
    dialog.complaint = None;
    match (&mut dialog.ask, &mut dialog.type_name) {
        (Ask::Pick(pick), _) => {
            pick.input.push(c);
            pick.cursor = None;
        }
        (_, Some(typed)) => typed.push(c),
        (Ask::Planning { .. }, None) => {}
        (_, None) => dialog.complaint = Some("y does it, Esc does not".into()),
    }
}

/// Backspace.
pub(super) fn erase(model: &mut Model) {
    if let Some(list) = model.filtering {
        model.filters.of_mut(list).pop();
        refiltered(model, list);
    } else if let Some(palette) = open_palette(model) {
        (palette.cursor, palette.complaint) = (None, None);
        // Nothing left to take back: the colon goes.
        if palette.input.text.pop().is_none() {
            model.overlay = Overlay::None;
        }
    } else if let Some(pick) = open_pick(model) {
        pick.input.text.pop();
        pick.cursor = None;
    } else if let Some(typed) = open_dialog(model).and_then(|d| d.type_name.as_mut()) {
        typed.text.pop();
    }
}

/// All that was typed.
pub(super) fn erase_all(model: &mut Model) {
    if let Some(list) = model.filtering {
        filter_by(model, list, "");
    } else if let Some(palette) = open_palette(model) {
        *palette = Palette::default();
    } else if let Some(pick) = open_pick(model) {
        *pick = Pick::default();
    } else if let Some(typed) = open_dialog(model).and_then(|d| d.type_name.as_mut()) {
        typed.text.clear();
    }
}

/// The arrows, where there is something to choose.
pub(super) fn choose(model: &mut Model, down: bool) {
    let Overlay::Dialog(dialog) = &model.overlay else { return };
    if let (Ask::Rollback { host }, Some(service)) = (&dialog.ask, model.service_named(&dialog.service)) {
        let hosts = single_hosts(model, service);
        let at = host.as_ref().and_then(|h| hosts.iter().position(|o| o == h));
        let next = match (at, down) {
            (None, true) => hosts.first(),
            (None, false) | (Some(0), false) => None,
            (Some(n), true) => hosts.get(n + 1).or(hosts.last()),
            (Some(n), false) => hosts.get(n - 1),
        };
        let next = next.cloned();
        if let Some(dialog) = open_dialog(model) {
            dialog.ask = Ask::Rollback { host: next };
            dialog.complaint = None;
        }
        return;
    }
    let (Ask::Pick(pick), Some(service)) = (&dialog.ask, model.service_named(&dialog.service)) else {
        return;
    };
    let n = pick.offered(service).len();
    let next = match (pick.cursor, down) {
        _ if n == 0 => None,
        (None, true) => Some(0),
        (None, false) => Some(n - 1),
        (Some(at), true) => Some((at + 1).min(n - 1)),
        (Some(at), false) => Some(at.saturating_sub(1)),
    };
    if let Some(pick) = open_pick(model) {
        pick.cursor = next;
    }
}

/// A paste counts only where text is typed that changes nothing by itself: the filter, the version and the palette.
pub(super) fn paste(model: &mut Model, text: &str) {
    if model.filtering.is_none() && open_pick(model).is_none() && open_palette(model).is_none() {
        tell(model, Loudness::Note, "a paste was ignored: keys are not read from pastes");
        return;
    }
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars().for_each(|c| letter(model, c));
}
