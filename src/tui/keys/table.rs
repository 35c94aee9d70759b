//! The lines of the key table: what each key and each `:command` does, where, and what bar, help and palette say of it.

use super::Action as A;
use super::Context as C;
use super::Group as G;
use super::Key as K;
use super::{Action, Binding, Context, Group, Key};
use crate::tui::model::Pane;

const VIEWS: &[Context] = &[C::Board, C::Logs, C::Details];
const VIEWS_HELP: &[Context] = &[C::Board, C::Logs, C::Help, C::Details];
const VERBS: &[Context] = &[C::Board, C::Logs, C::Details, C::Replay];
const LISTS: &[Context] = &[C::Board, C::Logs, C::Replay];
const MOVES: &[Context] = &[C::Board, C::Logs, C::Help, C::Details, C::Replay];
const BOARD: &[Context] = &[C::Board];
const PANES: &[Context] = &[C::Board, C::Replay];
const REPLAY: &[Context] = &[C::Replay];
/// Where letters are something else than commands.
const BUSY: &[Context] = &[C::Confirm, C::Choose, C::Name, C::Pick, C::Wait, C::Filter, C::Palette];
pub(super) const EVERYWHERE: &[Context] = &[
    C::Board,
    C::Logs,
    C::Help,
    C::Confirm,
    C::Choose,
    C::Name,
    C::Pick,
    C::Wait,
    C::Filter,
    C::Palette,
    C::Details,
    C::Replay,
];

#[allow(clippy::too_many_arguments)]
const fn bind(
    keys: &'static [Key],
    caption: &'static str,
    label: &'static str,
    help: &'static str,
    action: Action,
    contexts: &'static [Context],
    group: Group,
    bar: u8,
) -> Binding {
    Binding { keys, caption, label, help, action, contexts, group, bar, names: &[] }
}

impl Binding {
    /// The same line, which the palette knows by these names.
    const fn named(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }
}

/// The table. A key may have several lines in a context: the first that is possible now counts. A line without keys is
/// there for the palette.
#[rustfmt::skip]
pub const TABLE: &[Binding] = &[
    bind(&[K::Char('y')], "y", "yes, do it", "", A::Confirm, &[C::Confirm, C::Choose], G::Answer, 1),
    bind(&[K::Enter], "Enter", "do it, once the name is typed", "", A::Accept, &[C::Name], G::Answer, 1),
    bind(&[K::Enter], "Enter", "show the plan", "", A::Accept, &[C::Pick], G::Answer, 1),
    bind(&[K::Enter], "Enter", "do it", "", A::Accept, &[C::Palette], G::Answer, 1),
    bind(&[K::Tab], "Tab", "complete", "", A::Complete, &[C::Palette], G::Answer, 3),
    bind(&[K::Up, K::Ctrl('p')], "up/down", "choose", "", A::Up, &[C::Pick, C::Choose, C::Palette], G::Answer, 3),
    bind(&[K::Down, K::Ctrl('n')], "down", "choose", "", A::Down, &[C::Pick, C::Choose, C::Palette], G::Answer, 0),
    bind(&[K::Tab], "down", "choose", "", A::Down, &[C::Pick, C::Choose], G::Answer, 0),
    bind(&[K::Esc, K::Char('n'), K::Char('q')], "Esc", "no, go back", "", A::Cancel, &[C::Confirm, C::Choose, C::Wait], G::Answer, 2),
    bind(&[K::Esc], "Esc", "no, go back", "", A::Cancel, &[C::Name, C::Pick], G::Answer, 2),
    bind(&[K::Esc], "Esc", "go back", "", A::Cancel, &[C::Palette], G::Answer, 2),
    bind(&[K::Enter], "Enter", "keep the filter", "", A::Accept, &[C::Filter], G::Answer, 1),
    bind(&[K::Esc], "Esc", "no filter", "", A::Cancel, &[C::Filter], G::Answer, 2),
    bind(&[K::Backspace, K::Ctrl('h')], "", "", "", A::Erase, &[C::Name, C::Pick, C::Filter, C::Palette], G::Answer, 0),
    bind(&[K::Ctrl('u')], "", "", "", A::EraseAll, &[C::Name, C::Pick, C::Filter, C::Palette], G::Answer, 0),

    bind(&[K::Char('a'), K::Ctrl('x')], "a", "abort", "abort: all traffic back to stable, at once (asks: y does it)", A::Abort, MOVES, G::Steer, 1).named(&["abort"]),
    bind(&[K::Ctrl('x')], "Ctrl-X", "abort", "abort from anywhere, also while something else is asked or typed (asks: y does it)", A::Abort, BUSY, G::Steer, 4),
    bind(&[K::Char(' ')], "space", "pause", "pause: stay at this share, at once", A::Pause, VIEWS, G::Steer, 2).named(&["pause"]),
    bind(&[K::Char(' ')], "space", "resume", "resume a paused rollout (asks)", A::Resume, VIEWS, G::Steer, 2).named(&["resume"]),
    bind(&[K::Char('p')], "p", "promote", "promote: go to the next phase now (asks)", A::Promote, VERBS, G::Steer, 3).named(&["promote"]),
    bind(&[K::Char('P')], "P", "full", "promote --full: to 100 %, past all gates (asks)", A::PromoteFull, VERBS, G::Steer, 11).named(&["promote full", "promote --full"]),
    bind(&[K::Char('r')], "r", "rollback", "roll back: to the previous version; in mid-rollout everything, or one host alone (asks)", A::Rollback, VERBS, G::Steer, 4).named(&["rollback", "roll back"]),
    bind(&[K::Char('t')], "t", "retry", "retry: held hosts take part again; after an abort, the same version once more (asks)", A::Retry, VERBS, G::Steer, 5).named(&["retry"]),
    bind(&[K::Char('d')], "d", "deploy", "deploy: choose a version, see the plan, confirm; takes a rollout under way back first", A::Deploy, VERBS, G::Steer, 8).named(&["deploy"]),

    bind(&[K::Char(' ')], "space", "stop/go", "replay: stand still, or go on", A::PlayPause, REPLAY, G::Look, 1).named(&["play"]),
    bind(&[K::Right], "left/right", "10 s", "replay: ten seconds back or on", A::StepOn, REPLAY, G::Look, 2),
    bind(&[K::Left], "left", "", "replay: ten seconds back or on", A::StepBack, REPLAY, G::Look, 0),
    bind(&[K::Char('+'), K::Char('=')], "+/-", "speed", "replay: faster or slower", A::Faster, REPLAY, G::Look, 3).named(&["faster"]),
    bind(&[K::Char('-')], "-", "", "replay: faster or slower", A::Slower, REPLAY, G::Look, 0).named(&["slower"]),
    bind(&[K::Home], "Home/End", "ends", "replay: to the beginning or the end", A::Begin, REPLAY, G::Look, 4).named(&["begin"]),
    bind(&[K::End], "End", "", "replay: to the beginning or the end", A::Finish, REPLAY, G::Look, 0).named(&["end"]),
    bind(&[K::Char('l')], "l", "logs", "logs, followed: of the selected instance; in panes 1 and 2 of all of the service", A::Logs, &[C::Board, C::Details, C::Replay], G::Look, 9).named(&["logs"]),
    bind(&[K::Char('v')], "v", "wider", "logs: of the instance, of all of its version, of all of the service, and back", A::Widen, &[C::Logs], G::Look, 7).named(&["wider"]),
    bind(&[], ":logs", "", "logs version, logs service: of all instances of the version (the candidate's), of the service", A::LogsOfVersion, VIEWS, G::Look, 0).named(&["logs version"]),
    bind(&[], ":logs", "", "logs version, logs service: of all instances of the version (the candidate's), of the service", A::LogsOfService, VIEWS, G::Look, 0).named(&["logs service"]),
    bind(&[K::Char('n')], "n/N", "match", "logs: to the next or the last line that / finds, with all lines around it", A::NextMatch, &[C::Logs], G::Look, 6),
    bind(&[K::Char('N')], "N", "", "logs: to the next or the last line that / finds, with all lines around it", A::PreviousMatch, &[C::Logs], G::Look, 0),
    bind(&[K::Esc, K::Char('q'), K::Char('l')], "Esc", "back", "back from logs or a large pane", A::Back, &[C::Logs], G::Look, 6),
    bind(&[K::Esc], "Esc", "back", "back from logs or a large pane", A::Back, PANES, G::Look, 0),
    bind(&[K::Char('/')], "/", "filter", "filter the list: text or a regular expression, !text for the others; Esc clears", A::Filter, LISTS, G::Look, 10).named(&["filter"]),
    bind(&[K::Char(':')], ":", "command", "every verb, pane and option by name; Tab completes", A::Palette, MOVES, G::Look, 12),
    bind(&[K::Char('c')], "c", "copy", "copy the selected instance's id, log line, event or probe to the terminal's clipboard", A::Copy, VERBS, G::Look, 15).named(&["copy"]),
    bind(&[K::Char('s')], "s", "scope", "instances and probes of this service, or of all", A::Scope, PANES, G::Look, 14).named(&["scope"]),
    bind(&[K::Enter], "Enter", "open", "fleet: details of the selected instance, or fold and unfold; other panes: the whole screen", A::Open, PANES, G::Look, 13),
    bind(&[], ":details", "", "details of the selected instance: image, ports, names in its environment, exits", A::Details, PANES, G::Look, 0).named(&["details"]),
    bind(&[K::Esc, K::Char('q'), K::Enter], "Esc", "back", "", A::Back, &[C::Details], G::Answer, 2),
    bind(&[K::Char('z')], "z", "", "give the focused pane the whole screen, or take it back", A::Zoom, PANES, G::Look, 0).named(&["zoom"]),
    bind(&[], ":journal", "", "events on the whole screen: scrolling back goes through all that ever happened", A::Journal, BOARD, G::Look, 0).named(&["journal"]),
    bind(&[K::Char('o')], "o", "", "sort instances by the next column", A::Sort, PANES, G::Look, 0).named(&["sort"]),
    bind(&[K::Char('v')], "v", "", "view instances as a tree under their hosts (and services), or as a list", A::Tree, PANES, G::Look, 0).named(&["tree"]),
    bind(&[K::Char('-')], "-", "", "fold the host or service of the selected instance (:fold NAME, :fold all)", A::Fold, BOARD, G::Look, 0).named(&["fold"]),
    bind(&[K::Char('+'), K::Char('=')], "+", "", "unfold what is selected (:unfold NAME, :unfold all)", A::Unfold, BOARD, G::Look, 0).named(&["unfold"]),
    bind(&[], ":theme", "", "other colours: dark, light, contrast, colour-blind, 16, none", A::Theme, MOVES, G::Look, 0).named(&["theme"]),
    bind(&[], ":mouse", "", "the mouse: the wheel scrolls, a click chooses; once more to select text with it again", A::Mouse, MOVES, G::Look, 0).named(&["mouse"]),
    bind(&[], ":reverse", "", "sort the other way round", A::Reverse, PANES, G::Look, 0).named(&["reverse"]),

    bind(&[K::Left], "left", "", "previous service; in a tree of instances: fold", A::PreviousService, BOARD, G::Move, 0),
    bind(&[K::Right], "right", "", "next service; in a tree of instances: unfold", A::NextService, BOARD, G::Move, 0),
    bind(&[], ":service", "", "a service by its name", A::Service, MOVES, G::Move, 0).named(&["service"]),
    bind(&[K::Tab], "Tab", "", "next pane", A::NextPane, PANES, G::Move, 0),
    bind(&[K::BackTab], "Shift-Tab", "", "previous pane", A::PreviousPane, PANES, G::Move, 0),
    bind(&[K::Char('1')], "1", "", "pane: all services and how they stand", A::Focus(Pane::Services), PANES, G::Move, 0).named(&["services"]),
    bind(&[K::Char('2')], "2", "", "pane: the rollout of the selected service", A::Focus(Pane::Rollout), PANES, G::Move, 0).named(&["rollout"]),
    bind(&[K::Char('3')], "3", "", "pane: instances", A::Focus(Pane::Fleet), PANES, G::Move, 0).named(&["fleet", "instances"]),
    bind(&[K::Char('4')], "4", "", "pane: the last probes", A::Focus(Pane::Health), PANES, G::Move, 0).named(&["health", "probes"]),
    bind(&[K::Char('5')], "5", "", "pane: what happened", A::Focus(Pane::Events), PANES, G::Move, 0).named(&["events"]),
    bind(&[K::Up, K::Char('k')], "k, up", "", "up", A::Up, MOVES, G::Move, 0),
    bind(&[K::Down, K::Char('j')], "j, down", "", "down", A::Down, MOVES, G::Move, 0),
    bind(&[K::PageUp, K::Ctrl('u'), K::Ctrl('b')], "PgUp", "", "a page up", A::PageUp, MOVES, G::Move, 0),
    bind(&[K::PageDown, K::Ctrl('d'), K::Ctrl('f')], "PgDn", "", "a page down", A::PageDown, MOVES, G::Move, 0),
    bind(&[K::Char('g')], "g", "", "to the first line", A::Top, MOVES, G::Move, 0),
    bind(&[K::Home], "g", "", "to the first line", A::Top, VIEWS_HELP, G::Move, 0),
    bind(&[K::Char('G')], "G", "", "to the last line; logs follow again", A::Bottom, MOVES, G::Move, 0),
    bind(&[K::End], "G", "", "to the last line; logs follow again", A::Bottom, VIEWS_HELP, G::Move, 0),
    bind(&[K::Left], "left", "", "long log lines to the left", A::Left, &[C::Logs], G::Move, 0),
    bind(&[K::Right], "right", "", "long log lines to the right", A::Right, &[C::Logs], G::Move, 0),

    bind(&[K::Char('?'), K::Esc, K::Char('q'), K::Enter], "?", "close", "", A::Help, &[C::Help], G::Answer, 2),
    bind(&[K::Char('?')], "?", "help", "this page", A::Help, VERBS, G::Leave, 6).named(&["help"]),
    bind(&[K::Char('q')], "q", "detach", "leave; the rollout goes on", A::Detach, PANES, G::Leave, 7).named(&["detach", "quit", "q"]),
    bind(&[K::Ctrl('c')], "Ctrl-C", "", "leave from anywhere; the rollout goes on", A::Detach, EVERYWHERE, G::Leave, 0),
    bind(&[K::Ctrl('z')], "Ctrl-Z", "", "to the shell; fg comes back", A::Suspend, EVERYWHERE, G::Leave, 0).named(&["suspend"]),
    bind(&[K::Ctrl('l')], "Ctrl-L", "", "draw everything again", A::Redraw, EVERYWHERE, G::Leave, 0).named(&["redraw"]),
];
