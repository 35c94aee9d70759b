//! What every message does to the model, and what is to be done outside because of it. No I/O here.

mod act;
mod ask;
mod calm;
mod command;
mod fold;
mod journal;
mod logs;
mod mouse;
#[cfg(test)]
mod tests;

use crate::api::{Change, ErrorCode, InstanceDetails, InstanceView, JournalPage, MergedLog, Verb, VerbReply};
use crate::client::{ClientError, Update};
use crate::text::Safe;

use super::dialog::{self, Ask};
use super::journal::Journal;
use super::keys::Key;
use super::logs::Whose;
use super::model::{Link, Loudness, Model, Notice, Overlay, Planned, sentence};
use super::palette::Palette;

/// How long a notice stays that nobody has to act on.
const NOTICE_MS: u64 = 8_000;

/// Largest picture, in columns and rows, whatever the terminal claims to be.
const MOST: (u16, u16) = (1000, 500);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Msg {
    /// The time, before whatever happened at it.
    Time {
        /// Monotonic, milliseconds.
        now_ms: u64,
        /// Wall clock, milliseconds since 1970.
        wall_ms: u64,
    },
    /// A second has passed.
    Tick,
    /// The terminal has this many columns and rows.
    Resize(u16, u16),
    /// A key.
    Key(Key),
    /// A bracketed paste.
    Paste(String),
    /// The mouse, where it is taken.
    Mouse(Mouse),
    /// The model was drawn.
    Drawn,
    /// News from the controller.
    Update(Update),
    /// The controller is lost.
    Lost(Safe),
    /// The answer to a verb.
    Answered {
        /// Number of the request.
        id: u64,
        /// What came back.
        result: Result<VerbReply, ClientError>,
    },
    /// The answer to a question for a plan.
    Planned {
        /// Service.
        service: Safe,
        /// Version.
        version: String,
        /// What came back.
        result: Result<Box<Planned>, ClientError>,
    },
    /// Log lines.
    Log {
        /// Of which opening of the pane.
        generation: u64,
        /// The lines, oldest first.
        lines: Vec<MergedLog>,
    },
    /// No more log lines come.
    LogEnd {
        /// Of which opening of the pane.
        generation: u64,
        /// Why.
        why: Safe,
    },
    /// What the engine says of an instance.
    Details {
        /// Which.
        instance: Safe,
        /// What came back.
        result: Result<Box<InstanceDetails>, ClientError>,
    },
    /// A part of the journal.
    Journal(Result<JournalPage, ClientError>),
    /// Something to tell the operator.
    Tell(Loudness, Safe),
}

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Cmd {
    /// Send a verb; [`Msg::Answered`] follows.
    Send {
        /// Number of the request.
        id: u64,
        /// Service.
        service: Safe,
        /// What.
        verb: Verb,
        /// Decided on what.
        decision: Option<u64>,
        /// Hash of the fleet file when the plan was shown; `None` to hash it when sending.
        fleet_hash: Option<String>,
    },
    /// Ask for a plan; [`Msg::Planned`] follows.
    Plan {
        /// Service.
        service: Safe,
        /// Version.
        version: String,
    },
    /// Follow logs, in place of any others.
    Follow {
        /// To be given back with each line.
        generation: u64,
        /// Whose.
        whose: Whose,
        /// Lines to begin with, of each instance.
        tail: u32,
    },
    /// Put a text into the clipboard of the terminal.
    Copy(String),
    /// Stop following.
    Unfollow,
    /// Ask what the engine says of an instance; [`Msg::Details`] follows.
    Details {
        /// Which.
        instance: Safe,
    },
    /// Ask for the events before a fact; [`Msg::Journal`] follows.
    Journal {
        /// Which fact.
        before: u64,
    },
    /// A delta was missed: subscribe again.
    Resubscribe,
    /// Take the mouse, or leave it to the terminal.
    Mouse(bool),
    /// Go back to the shell until continued.
    Suspend,
    /// Draw everything, whatever is believed to be on the screen.
    Redraw,
    /// Leave.
    Leave,
    /// Replay: go to this place, in milliseconds of the recording.
    Seek(u64),
}

/// What the mouse did, and at which column and row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mouse {
    /// The left button was pressed.
    Press(u16, u16),
    /// The wheel went towards the first line.
    Up(u16, u16),
    /// The wheel went towards the last line.
    Down(u16, u16),
}

/// Takes in one message.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Cmd> {
    match msg {
        Msg::Time { now_ms, wall_ms } => {
            model.now_ms = now_ms;
            model.wall_ms = wall_ms;
            return vec![];
        }
        Msg::Tick => {
            tick(model);
            return vec![];
        }
        Msg::Drawn => {
            (model.dirty, model.urgent) = (false, false);
            let now = model.now_ms;
            if let Overlay::Dialog(d) = &mut model.overlay {
                d.shown_ms.get_or_insert(now);
            }
            return vec![];
        }
        Msg::Update(update) => return news(model, update),
        _ => {}
    }
    (model.dirty, model.urgent) = (true, true);
    model.settle();
    let cmds = match msg {
        Msg::Key(key) => {
            let mut cmds = act::key(model, key);
            model.settle();
            cmds.extend(journal::more(model));
            model.input_ms = Some(model.now_ms);
            cmds
        }
        Msg::Paste(text) => {
            ask::paste(model, &text);
            model.input_ms = Some(model.now_ms);
            vec![]
        }
        Msg::Mouse(mouse) => {
            mouse::did(model, mouse);
            model.settle();
            model.input_ms = Some(model.now_ms);
            journal::more(model).into_iter().collect()
        }
        Msg::Resize(w, h) => {
            // Some terminals claim absurd sizes before they know their own.
            model.size = (w.min(MOST.0), h.min(MOST.1));
            vec![]
        }
        Msg::Lost(why) => {
            lost(model, why);
            vec![]
        }
        Msg::Answered { id, result } => {
            answered(model, id, result);
            vec![]
        }
        Msg::Planned { service, version, result } => {
            ask::planned(model, &service, &version, result);
            vec![]
        }
        Msg::Log { generation, lines } => {
            logs::came(model, generation, lines);
            vec![]
        }
        Msg::LogEnd { generation, why } => {
            if let Some(logs) = model.logs.as_mut().filter(|l| l.generation == generation) {
                logs.ended = Some(why);
            }
            vec![]
        }
        Msg::Details { instance, result } => {
            if let Overlay::Details(d) = &mut model.overlay
                && d.instance == instance
            {
                d.told = Some(result.map_err(|e| sentence(&e)));
            }
            vec![]
        }
        Msg::Journal(result) => {
            journal::came(model, result);
            journal::more(model).into_iter().collect()
        }
        Msg::Tell(loudness, text) => {
            tell(model, loudness, text);
            vec![]
        }
        Msg::Time { .. } | Msg::Tick | Msg::Drawn | Msg::Update(_) => vec![],
    };
    model.settle();
    cmds
}

/// Says something in the line above the bar.
pub(super) fn tell(model: &mut Model, loudness: Loudness, text: impl Into<Safe>) {
    let until_ms = (loudness != Loudness::Bad).then(|| model.now_ms + NOTICE_MS);
    model.notice = Some(Notice { loudness, text: text.into(), until_ms });
}

fn tick(model: &mut Model) {
    model.settle();
    if let Some(snapshot) = model.snapshot.as_ref().filter(|_| model.live()) {
        // Figures that stay the same are no news, and are measured all the same.
        snapshot.services.iter().for_each(|s| model.trends.record(model.wall_ms, s));
    }
    if model.notice.as_ref().and_then(|n| n.until_ms).is_some_and(|t| t <= model.now_ms) {
        model.notice = None;
        (model.dirty, model.urgent) = (true, true);
    }
    let clocks = super::view::clocks(model);
    if clocks != model.clocks {
        model.clocks = clocks;
        model.dirty = true;
    }
}

fn news(model: &mut Model, update: Update) -> Vec<Cmd> {
    model.heard_ms = model.now_ms;
    match update {
        Update::Snapshot(mut snapshot) => {
            model.trends.merge(std::mem::take(&mut snapshot.trends));
            let back = matches!(model.link, Link::Lost { .. }) && model.snapshot.is_some();
            for s in &snapshot.services {
                model.service_ms.insert(s.name.clone(), model.now_ms);
                model.trends.record(model.wall_ms, s);
            }
            // Nobody knows what happened between the two.
            model.journal = Journal::default();
            model.trends.retain(|name| snapshot.services.binary_search_by(|s| s.name.cmp(name)).is_ok());
            model.snapshot = Some(snapshot);
            model.link = Link::Live;
            model.rows_stale = true;
            model.counts_stale = true;
            (model.dirty, model.urgent) = (true, true);
            model.settle();
            if back {
                tell(model, Loudness::Good, "the controller is back; this is current again");
                return logs::follow_again(model);
            }
            vec![]
        }
        Update::Delta(delta) => {
            let shown = !delta.changes.is_empty();
            let new = delta.changes.iter().filter(|c| matches!(c, Change::Event(_))).count();
            let leaving = journal::may_slide(model, new);
            let mut events = 0;
            let mut probes = 0;
            let mut cmds = Vec::new();
            for change in &delta.changes {
                model.urgent |= calm::more_than_figures(model, change);
                match change {
                    Change::Service(s) => {
                        model.service_ms.insert(s.name.clone(), model.now_ms);
                        model.trends.record(model.wall_ms, s);
                        model.counts_stale = true;
                    }
                    Change::Instance(i) => {
                        model.counts_stale = true;
                        model.rows_stale |= !model.same_row(i);
                        cmds.extend(look_again(model, i));
                    }
                    Change::InstanceGone(_) => (model.counts_stale, model.rows_stale) = (true, true),
                    Change::Event(e) => events += usize::from(model.shows_event(e)),
                    Change::Probe(p) => probes += usize::from(model.shows_probe(p)),
                    Change::Watchers(_) | Change::Alarms(_) | Change::Environment(..) => {}
                    Change::ServiceGone(name) => {
                        model.service_ms.remove(name);
                        model.trends.retain(|n| n != name);
                        model.counts_stale = true;
                    }
                    Change::Host(_) | Change::HostGone(_) | Change::Proxy(_) | Change::ProxyGone(_) => {
                        model.counts_stale = true;
                    }
                }
            }
            if !model.snapshot.as_mut().is_some_and(|s| s.apply(delta)) {
                return vec![Cmd::Resubscribe];
            }
            journal::slide(model, leaving);
            // Whoever has scrolled back keeps looking at the same lines.
            if model.events_back > 0 {
                let most = model.events().len().saturating_sub(1);
                model.events_back = (model.events_back + events).min(most);
            }
            if model.health_back > 0 {
                model.health_back += probes;
            }
            model.dirty |= shown;
            cmds
        }
    }
}

/// An instance that is looked at closely was started or has ended: what its engine said is old.
fn look_again(model: &Model, new: &InstanceView) -> Option<Cmd> {
    let Overlay::Details(d) = &model.overlay else { return None };
    let old = model.instance_named(&d.instance).filter(|old| old.id == new.id)?;
    let other = (&old.state, old.restarts, old.started_ms) != (&new.state, new.restarts, new.started_ms);
    other.then(|| Cmd::Details { instance: new.id.clone() })
}

fn lost(model: &mut Model, why: Safe) {
    model.link = match &model.link {
        Link::Lost { since_ms, .. } => Link::Lost { since_ms: *since_ms, why },
        Link::Live => Link::Lost { since_ms: model.heard_ms, why },
        Link::Connecting => Link::Lost { since_ms: model.now_ms, why },
    };
}

fn answered(model: &mut Model, id: u64, result: Result<VerbReply, ClientError>) {
    let Some(at) = model.pending.iter().position(|p| p.id == id) else { return };
    let pending = model.pending.remove(at);
    match result {
        Ok(reply) => {
            let text = match reply.message.is_empty() {
                true => format!("{}: accepted", pending.what),
                false => format!("{}: {}", pending.what, reply.message),
            };
            tell(model, Loudness::Good, text);
        }
        Err(ClientError::Refused(e)) if e.code == ErrorCode::Stale => {
            let moved = model
                .service_named(&pending.service)
                .map(|s| dialog::changed(pending.seen.as_deref(), s))
                .unwrap_or_default();
            tell(
                model,
                Loudness::Bad,
                format!("{} NOT done: it has changed: {} ({moved})", pending.what, e.message),
            );
        }
        Err(e @ ClientError::NoAnswer { .. }) => {
            tell(model, Loudness::Bad, format!("{}: {}", pending.what, sentence(&e)));
        }
        Err(e) => tell(model, Loudness::Bad, format!("{} NOT done: {}", pending.what, sentence(&e))),
    }
}

/// The question that is open, if one is.
fn open_dialog(model: &mut Model) -> Option<&mut dialog::Dialog> {
    match &mut model.overlay {
        Overlay::Dialog(d) => Some(d),
        _ => None,
    }
}

/// The palette, if it is open.
fn open_palette(model: &mut Model) -> Option<&mut Palette> {
    match &mut model.overlay {
        Overlay::Palette(p) => Some(p),
        _ => None,
    }
}

/// The version picker, if it is open.
fn open_pick(model: &mut Model) -> Option<&mut dialog::Pick> {
    match open_dialog(model).map(|d| &mut d.ask) {
        Some(Ask::Pick(p)) => Some(p),
        _ => None,
    }
}
