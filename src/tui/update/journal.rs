//! The events pane, further back than the picture goes.

use crate::api::{EventView, JournalPage};
use crate::client::ClientError;
use crate::tui::filter::List;
use crate::tui::model::{Model, Pane, sentence};
use crate::tui::rows::event_matches;
use crate::tui::view;

use super::Cmd;

/// Asks for the page before what is known, when somebody is about to see its end.
pub(super) fn more(model: &mut Model) -> Option<Cmd> {
    let looks = model.focus == Pane::Events && model.logs.is_none() && (model.zoom || model.events_back > 0);
    if !looks || !model.live() || model.replay.is_some() {
        return None;
    }
    let in_sight = model.events_back + view::page(model);
    if model.events().len() > in_sight {
        return None;
    }
    let oldest = model.snapshot.as_ref().and_then(|s| s.events.first()).map(|e| e.seq).filter(|seq| *seq > 1);
    model.journal.ask(oldest).map(|before| Cmd::Journal { before })
}

/// A page has come.
pub(super) fn came(model: &mut Model, result: Result<JournalPage, ClientError>) {
    let filter = model.filters.of(List::Events);
    model.journal.take(result.map_err(|e| sentence(&e)), |e| event_matches(e, filter));
}

/// Another filter.
pub(super) fn refilter(model: &mut Model) {
    let filter = model.filters.of(List::Events);
    model.journal.refilter(|e| event_matches(e, filter));
}

/// The first events of the picture, as many as may slide out of it with the next delta.
pub(super) fn may_slide(model: &Model, new: usize) -> Vec<EventView> {
    let events = model.snapshot.as_ref().map(|s| s.events.as_slice()).unwrap_or_default();
    if model.journal.open() { events.iter().take(new).cloned().collect() } else { vec![] }
}

/// Those of them that did.
pub(super) fn slide(model: &mut Model, mut events: Vec<EventView>) {
    let first = model.snapshot.as_ref().and_then(|s| s.events.first()).map(|e| e.seq);
    events.retain(|e| first.is_some_and(|first| e.seq < first));
    let filter = model.filters.of(List::Events);
    model.journal.slid(events, |e| event_matches(e, filter));
}
