//! The one table of keys: dispatch, the bar and the help page come from it, so that they cannot disagree.
//!
//! A split escape sequence on a slow link arrives as `Esc`, `[` or `O`, and a letter out of A–D, F, H, P–S or `~`.
//! So none of these letters acts on its own: the only one bound, `P`, opens a question.

pub mod custom;
mod table;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::api::VerbKind;

use super::dialog::{self, Ask, Dialog};
use super::filter::List;
use super::model::{Model, Overlay, Pane};
pub use custom::Table;
pub use table::TABLE;

/// A key, without what terminals add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A printable character; a capital when shifted.
    Char(char),
    /// With Control.
    Ctrl(char),
    /// Enter
    Enter,
    /// Escape
    Esc,
    /// Tab
    Tab,
    /// Shift and Tab
    BackTab,
    /// Arrow
    Up,
    /// Arrow
    Down,
    /// Arrow
    Left,
    /// Arrow
    Right,
    /// Page up
    PageUp,
    /// Page down
    PageDown,
    /// Home
    Home,
    /// End
    End,
    /// Backspace
    Backspace,
    /// A function key, from 1.
    F(u8),
}

impl Key {
    /// The key of a terminal event; `None` for releases and whatever else we have no use for.
    #[must_use]
    pub fn from_event(e: KeyEvent) -> Option<Self> {
        if e.kind == KeyEventKind::Release {
            return None;
        }
        let control = e.modifiers.contains(KeyModifiers::CONTROL);
        let other = e.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META);
        Some(match e.code {
            // Alt and a letter is what Esc and a letter look like when they arrive together: neither is wanted.
            KeyCode::Char(_) if other => return None,
            KeyCode::Char(c) if control => Self::Ctrl(c.to_ascii_lowercase()),
            KeyCode::Char(c) => Self::Char(c),
            KeyCode::Enter => Self::Enter,
            KeyCode::Esc => Self::Esc,
            KeyCode::Tab => Self::Tab,
            KeyCode::BackTab => Self::BackTab,
            KeyCode::Up => Self::Up,
            KeyCode::Down => Self::Down,
            KeyCode::Left => Self::Left,
            KeyCode::Right => Self::Right,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Home => Self::Home,
            KeyCode::End => Self::End,
            KeyCode::Backspace => Self::Backspace,
            KeyCode::F(n) => Self::F(n),
            _ => return None,
        })
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask: give all traffic back?
    Abort,
    /// Pause at once.
    Pause,
    /// Ask: go on?
    Resume,
    /// Ask: next phase?
    Promote,
    /// Ask: all the way?
    PromoteFull,
    /// Ask: back to the previous version, or one host alone?
    Rollback,
    /// Ask: held hosts again, or an aborted version once more?
    Retry,
    /// Ask: which version?
    Deploy,
    /// Open the log pane.
    Logs,
    /// The logs of all instances of a version.
    LogsOfVersion,
    /// The logs of all instances of a service.
    LogsOfService,
    /// From an instance's logs to those of its version, then of its service, then back.
    Widen,
    /// To the next line that the filter finds, with all lines around it.
    NextMatch,
    /// To the one before.
    PreviousMatch,
    /// Type a filter.
    Filter,
    /// Type a command.
    Palette,
    /// Complete what is typed.
    Complete,
    /// Instances of all services, or of this one.
    Scope,
    /// Details of the selected instance, else the large pane.
    Open,
    /// Details of the selected instance.
    Details,
    /// Copy what is selected.
    Copy,
    /// Other colours.
    Theme,
    /// Take the mouse, or leave it to the terminal.
    Mouse,
    /// Sort by the next column.
    Sort,
    /// Sort the other way round.
    Reverse,
    /// The events pane on the whole screen.
    Journal,
    /// Instances under their hosts, or as a list.
    Tree,
    /// Fold the group of the selected instance.
    Fold,
    /// Unfold the selected group.
    Unfold,
    /// Give the focused pane the whole screen, or take it back.
    Zoom,
    /// Open or close the help page.
    Help,
    /// Leave; the rollout goes on.
    Detach,
    /// Stop this program and go back to the shell.
    Suspend,
    /// Draw everything again.
    Redraw,
    /// The next pane.
    NextPane,
    /// The pane before.
    PreviousPane,
    /// This pane.
    Focus(Pane),
    /// The next service.
    NextService,
    /// The service before.
    PreviousService,
    /// A service by its name.
    Service,
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// To the first line.
    Top,
    /// To the last line.
    Bottom,
    /// To the left (long log lines).
    Left,
    /// To the right.
    Right,
    /// Back to where one came from.
    Back,
    /// Yes.
    Confirm,
    /// No.
    Cancel,
    /// Take what was typed or chosen.
    Accept,
    /// Take back the last character.
    Erase,
    /// Take back all that was typed.
    EraseAll,
    /// Replay: stand still, or go on.
    PlayPause,
    /// Replay: faster.
    Faster,
    /// Replay: slower.
    Slower,
    /// Replay: a step back.
    StepBack,
    /// Replay: a step on.
    StepOn,
    /// Replay: to the beginning.
    Begin,
    /// Replay: to the end.
    Finish,
}

/// Where keys mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// The panes.
    Board,
    /// The log pane.
    Logs,
    /// The help page.
    Help,
    /// A question with yes and no.
    Confirm,
    /// A question with yes and no, and something to choose before.
    Choose,
    /// A question that waits for a name and Enter.
    Name,
    /// A question that waits for a version and Enter.
    Pick,
    /// A question that waits for the controller.
    Wait,
    /// Typing a filter.
    Filter,
    /// Typing a command.
    Palette,
    /// Details of an instance.
    Details,
    /// The panes, of a past rollout that is played.
    Replay,
}

/// The context that keys go to now.
#[must_use]
pub fn context(model: &Model) -> Context {
    match &model.overlay {
        Overlay::Help(_) => Context::Help,
        Overlay::Palette(_) => Context::Palette,
        Overlay::Details(_) => Context::Details,
        Overlay::Dialog(d) => match (&d.ask, &d.type_name) {
            (Ask::Pick(_), _) => Context::Pick,
            (Ask::Planning { .. }, _) => Context::Wait,
            (_, Some(_)) => Context::Name,
            (Ask::Rollback { .. }, None) if choosing(model, d) => Context::Choose,
            (_, None) => Context::Confirm,
        },
        Overlay::None if model.filtering.is_some() => Context::Filter,
        Overlay::None if model.replay.is_some() => Context::Replay,
        Overlay::None if model.logs.is_some() => Context::Logs,
        Overlay::None => Context::Board,
    }
}

/// Whether the question about going back leaves a choice.
fn choosing(model: &Model, d: &Dialog) -> bool {
    model.service_named(&d.service).is_some_and(|s| !dialog::single_hosts(model, s).is_empty())
}

/// The parts of the help page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Verbs.
    Steer,
    /// What is shown.
    Look,
    /// Moving about.
    Move,
    /// The program itself.
    Leave,
    /// Answers to questions: in the bar, not in the help.
    Answer,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The keys that do it.
    pub keys: &'static [Key],
    /// How bar and help name them.
    pub caption: &'static str,
    /// What the bar says.
    pub label: &'static str,
    /// What the help page says.
    pub help: &'static str,
    /// What is done.
    pub action: Action,
    /// Where.
    pub contexts: &'static [Context],
    /// Part of the help page.
    pub group: Group,
    /// Place in the queue for the bar: 1 is given up last, 0 is never there.
    pub bar: u8,
    /// What the palette calls it, the usual name first; a line without names is not in the palette.
    pub names: &'static [&'static str],
}

/// Whether `action` can be done now; if not, why not.
pub fn possible(model: &Model, action: Action) -> Result<(), String> {
    let verb = |kind| model.can(kind).map(drop);
    match action {
        Action::Abort if matches!(&model.overlay, Overlay::Dialog(d) if d.ask == Ask::Abort) => {
            Err("it is asked already: y does it".into())
        }
        Action::Abort => verb(VerbKind::Abort),
        Action::Pause => verb(VerbKind::Pause),
        Action::Resume => verb(VerbKind::Resume),
        Action::Promote | Action::PromoteFull => verb(VerbKind::Promote),
        Action::Rollback => verb(VerbKind::Rollback),
        Action::Retry => verb(VerbKind::Retry),
        Action::Deploy => verb(VerbKind::Deploy),
        Action::Widen | Action::NextMatch | Action::PreviousMatch if model.logs.is_none() => {
            Err("open logs first".into())
        }
        Action::Logs | Action::LogsOfVersion | Action::LogsOfService | Action::Widen => {
            logs_of(model, action)
        }
        Action::NextMatch | Action::PreviousMatch if !model.filters.of(List::Logs).finds() => {
            Err("nothing is searched for: / first, then n goes through what it finds".into())
        }
        Action::Copy if model.selected().is_none() => Err("nothing is selected that could be copied".into()),
        Action::Details if model.instance_view().is_none() => Err("no instance is selected".into()),
        Action::Fold | Action::Unfold if model.filters.of(List::Fleet).active() => {
            Err("a filter shows all that it leaves; without it (Esc) groups can be folded".into())
        }
        Action::Fold if model.rows.is_empty() => Err("there is no instance to fold".into()),
        Action::Unfold if !model.tree.on => Err("nothing is folded".into()),
        Action::Confirm => match &model.overlay {
            Overlay::Dialog(d) if d.moved_on(model).is_some() => {
                Err("it has changed since you opened this".into())
            }
            Overlay::Dialog(d) => verb(d.verb()),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether there are logs to show now, and whose they are.
fn logs_of(model: &Model, action: Action) -> Result<(), String> {
    if model.replay.is_some() {
        return Err("logs are not recorded".into());
    }
    if !model.live() {
        return Err("logs come from the controller, which is lost".into());
    }
    match model.logs_of(action) {
        Some(_) => Ok(()),
        None if action == Action::Logs && !matches!(model.focus, Pane::Services | Pane::Rollout) => {
            Err("no instance is selected".into())
        }
        None => Err("there is no instance yet whose logs could be shown".into()),
    }
}

impl Binding {
    /// Whether there is such a line at all: where one only looks there are no verbs, possible or not.
    #[must_use]
    pub fn exists(&self, read_only: bool) -> bool {
        !read_only || self.group != Group::Steer
    }
}

/// Whether `key` would be a verb here, were this cockpit not for looking only.
#[must_use]
pub fn verb_of_others(model: &Model, key: Key) -> bool {
    let context = context(model);
    let is = |b: &Binding| b.contexts.contains(&context) && b.keys.contains(&key);
    model.keys.lines().iter().any(|b| !b.exists(model.read_only) && is(b))
}

/// What `key` does now. `Err` when it would do something that is not possible, with the reason.
pub fn dispatch(model: &Model, key: Key) -> Option<Result<Action, String>> {
    let context = context(model);
    let mut first = None;
    let here = |b: &&Binding| b.exists(model.read_only) && b.contexts.contains(&context);
    for b in model.keys.lines().iter().filter(here).filter(|b| b.keys.contains(&key)) {
        match possible(model, b.action) {
            Ok(()) => return Some(Ok(b.action)),
            Err(why) => first = first.or(Some(Err(why))),
        }
    }
    first
}

/// What the bar offers now, in the order of the table.
#[must_use]
pub fn bar(model: &Model) -> Vec<&'static Binding> {
    let context = context(model);
    model
        .keys
        .lines()
        .iter()
        .filter(|b| b.exists(model.read_only))
        .filter(|b| {
            b.bar > 0
                && !b.keys.is_empty()
                && b.contexts.contains(&context)
                && possible(model, b.action).is_ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::table::EVERYWHERE;
    use super::*;

    #[test]
    fn no_end_of_a_split_escape_sequence_acts_without_a_question() {
        for c in custom::ENDS {
            for b in TABLE.iter().filter(|b| b.keys.contains(&Key::Char(*c))) {
                assert!(matches!(b.action, Action::PromoteFull | Action::Bottom), "{c} does {:?}", b.action);
            }
        }
        // `G` only moves a selection; A to D, F and H, the ends of arrow keys, Home and End, have no line at all.
        for c in ['A', 'B', 'C', 'D', 'F', 'H', '[', 'O'] {
            assert!(!TABLE.iter().any(|b| b.keys.contains(&Key::Char(c))), "{c}");
        }
    }

    #[test]
    fn a_risky_verb_is_never_on_a_key_that_ends_a_line() {
        for b in TABLE.iter().filter(|b| b.keys.contains(&Key::Enter)) {
            assert!(!matches!(b.action, Action::Confirm), "{}", b.caption);
        }
    }

    #[test]
    fn every_line_of_the_help_has_a_caption_and_a_text() {
        for b in TABLE.iter().filter(|b| b.group != Group::Answer) {
            assert!(!b.keys.is_empty() || b.caption.starts_with(':') && !b.names.is_empty(), "{b:?}");
            assert!(!b.caption.is_empty() && !b.help.is_empty(), "{b:?}");
        }
    }

    #[test]
    fn no_key_has_two_meanings_in_one_context() {
        for context in EVERYWHERE {
            for (n, b) in TABLE.iter().enumerate().filter(|(_, b)| b.contexts.contains(context)) {
                for other in TABLE.iter().skip(n + 1).filter(|o| o.contexts.contains(context)) {
                    let same = b.keys.iter().find(|k| other.keys.contains(k));
                    let pause = b.action == Action::Pause && other.action == Action::Resume;
                    assert!(same.is_none() || pause, "{same:?} in {context:?}");
                }
            }
        }
    }

    #[test]
    fn alt_and_releases_are_no_keys() {
        let alt = KeyEvent::new(KeyCode::Char('y'), KeyModifiers::ALT);
        assert_eq!(Key::from_event(alt), None);
        let mut release = KeyEvent::new(KeyCode::Char('y'), KeyModifiers::NONE);
        release.kind = KeyEventKind::Release;
        assert_eq!(Key::from_event(release), None);
    }
}
