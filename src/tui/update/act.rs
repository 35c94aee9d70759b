//! Keys: what the table says they do.

use crate::text::Safe;
use crate::tui::dialog::{Ask, Pick};
use crate::tui::filter::List;
use crate::tui::keys::{self, Action, Key};
use crate::tui::model::{Details, Link, Loudness, Model, Overlay, Pane, Replay};
use crate::tui::palette;
use crate::tui::replay::{SPEEDS, STEP_MS};
use crate::tui::rows::Sort;
use crate::tui::theme::Palette;
use crate::tui::view;

use super::{Cmd, ask, command, fold, logs, tell};

/// A key was pressed.
pub(super) fn key(model: &mut Model, key: Key) -> Vec<Cmd> {
    // A notice that had to be seen has been seen, unless the key came in the same breath.
    model.notice = None;
    // The key counts all the same: whoever is in a hurry knows what for.
    model.welcome = false;
    match (keys::dispatch(model, key), key) {
        (Some(Ok(action)), _) => act(model, action),
        (Some(Err(why)), _) => {
            refuse(model, why);
            vec![]
        }
        (None, _) if keys::verb_of_others(model, key) => {
            tell(model, Loudness::Note, "this cockpit is READ-ONLY: it has no verbs");
            vec![]
        }
        (None, Key::Char(c)) => {
            ask::letter(model, c);
            vec![]
        }
        (None, _) => vec![],
    }
}

fn refuse(model: &mut Model, why: String) {
    match super::open_dialog(model) {
        Some(dialog) => dialog.complaint = Some(format!("not sent: {why}. Esc, then look again").into()),
        None => tell(model, Loudness::Bad, why),
    }
}

pub(super) fn act(model: &mut Model, action: Action) -> Vec<Cmd> {
    match action {
        Action::Abort => ask::open(model, Ask::Abort),
        Action::Pause => return ask::pause(model),
        Action::Resume => ask::open(model, Ask::Resume),
        Action::Promote => ask::open(model, Ask::Promote { full: false }),
        Action::PromoteFull => ask::open(model, Ask::Promote { full: true }),
        Action::Rollback => ask::open(model, Ask::Rollback { host: None }),
        Action::Retry => return ask::retry(model),
        Action::Deploy => ask::open(model, Ask::Pick(Pick::default())),
        Action::Confirm => return ask::confirm(model),
        Action::Accept => return ask::accept(model),
        Action::Cancel => ask::cancel(model),
        Action::Erase => ask::erase(model),
        Action::EraseAll => ask::erase_all(model),
        Action::Palette => model.overlay = Overlay::Palette(palette::Palette::default()),
        Action::Complete => command::complete(model),
        // Only the palette knows which.
        Action::Service => {}
        Action::Logs | Action::LogsOfVersion | Action::LogsOfService | Action::Widen => {
            return logs::open(model, action);
        }
        Action::NextMatch => logs::seek(model, true),
        Action::PreviousMatch => logs::seek(model, false),
        Action::Filter => ask::filter(model),
        Action::Scope => {
            model.all_services = !model.all_services;
            model.rows_stale = true;
        }
        Action::Open if model.focus == Pane::Fleet && model.instance_view().is_some() => {
            return details(model);
        }
        Action::Open if model.focus == Pane::Fleet && model.group(model.cursor).is_some() => {
            // What a filter shows is not folded.
            if model.folds() {
                fold::toggle(model);
            }
        }
        Action::Details => return details(model),
        Action::Copy => return copy(model),
        Action::Theme => {
            let at = Palette::ALL.iter().position(|p| *p == model.palette).unwrap_or(0);
            theme(model, Palette::ALL.get(at + 1).copied().unwrap_or_default());
        }
        Action::Mouse => {
            model.mouse = !model.mouse;
            let text = if model.mouse {
                "the mouse is taken: wheel and clicks; :mouse gives it back, for selecting text"
            } else {
                "the mouse is the terminal's again: it selects text"
            };
            tell(model, Loudness::Note, text);
            return vec![Cmd::Mouse(model.mouse)];
        }
        Action::Sort => sort(model, model.sort.next()),
        Action::Reverse => sort(model, Sort { reversed: !model.sort.reversed, ..model.sort }),
        Action::Journal => (model.focus, model.zoom) = (Pane::Events, true),
        Action::Open | Action::Zoom => model.zoom = !model.zoom,
        Action::Help => {
            let open = matches!(model.overlay, Overlay::Help(_));
            model.overlay = if open { Overlay::None } else { Overlay::Help(0) };
        }
        Action::Back => return back(model),
        Action::Detach => return vec![Cmd::Leave],
        Action::Suspend => return vec![Cmd::Suspend],
        Action::Redraw => return vec![Cmd::Redraw],
        Action::NextPane => focus(model, 1),
        Action::PreviousPane => focus(model, Pane::ALL.len() - 1),
        Action::Focus(pane) => model.focus = pane,
        Action::Tree => fold::tree(model),
        Action::Fold => fold::fold(model),
        Action::Unfold => fold::unfold(model),
        Action::NextService if in_tree(model) => fold::unfold(model),
        Action::PreviousService if in_tree(model) => fold::fold(model),
        Action::NextService => service(model, 1),
        Action::PreviousService => service(model, -1),
        Action::Up => scroll(model, -1),
        Action::Down => scroll(model, 1),
        Action::PageUp => scroll(model, -page(model)),
        Action::PageDown => scroll(model, page(model)),
        Action::Top => scroll(model, isize::MIN / 2),
        Action::Bottom => scroll(model, isize::MAX / 2),
        Action::PlayPause => return play_pause(model),
        Action::Faster => speed(model, 1),
        Action::Slower => speed(model, -1),
        Action::StepBack => return step(model, |r| r.at_ms.saturating_sub(STEP_MS)),
        Action::StepOn => return step(model, |r| r.at_ms.saturating_add(STEP_MS)),
        Action::Begin => return step(model, |_| 0),
        Action::Finish => return step(model, |r| r.length_ms),
        Action::Left => logs::sideways(model, -16),
        Action::Right => logs::sideways(model, 16),
    }
    vec![]
}

/// Whether the arrows to the sides move in a tree.
fn in_tree(model: &Model) -> bool {
    model.focus == Pane::Fleet && model.folds()
}

/// At the end it begins again.
fn play_pause(model: &mut Model) -> Vec<Cmd> {
    let Some(replay) = &mut model.replay else { return vec![] };
    replay.paused = !replay.paused;
    let over = !replay.paused && replay.at_ms >= replay.length_ms;
    if over { vec![Cmd::Seek(0)] } else { vec![] }
}

fn speed(model: &mut Model, by: isize) {
    let Some(replay) = &mut model.replay else { return };
    let at = SPEEDS.iter().position(|s| *s >= replay.speed).unwrap_or(0);
    let to = at.saturating_add_signed(by).min(SPEEDS.len() - 1);
    replay.speed = SPEEDS.get(to).copied().unwrap_or(replay.speed);
}

fn step(model: &Model, to: impl FnOnce(&Replay) -> u64) -> Vec<Cmd> {
    model.replay.as_ref().map(|r| Cmd::Seek(to(r).min(r.length_ms))).into_iter().collect()
}

/// It is asked for; whether the terminal takes it, nobody can say.
fn copy(model: &mut Model) -> Vec<Cmd> {
    let Some(text) = model.selected() else { return vec![] };
    tell(model, Loudness::Good, format!("copied (OSC 52, if your terminal takes it): {text}"));
    vec![Cmd::Copy(text)]
}

/// All there is to know of the selected instance; what only its engine knows is asked for.
fn details(model: &mut Model) -> Vec<Cmd> {
    let Some(instance) = model.instance_view().map(|i| i.id.clone()) else { return vec![] };
    model.overlay = Overlay::Details(Box::new(Details { instance: instance.clone(), ..Details::default() }));
    if model.replay.is_some() {
        if let Overlay::Details(d) = &mut model.overlay {
            d.told = Some(Err("what engines say is not recorded".into()));
        }
        return vec![];
    }
    vec![Cmd::Details { instance }]
}

pub(super) fn theme(model: &mut Model, palette: Palette) {
    model.palette = palette;
    tell(model, Loudness::Note, format!("theme {}: {}", palette.name(), palette.about()));
}

pub(super) fn sort(model: &mut Model, by: Sort) {
    model.sort = by;
    model.rows_stale = true;
}

fn back(model: &mut Model) -> Vec<Cmd> {
    if let Overlay::Details(_) = model.overlay {
        model.overlay = Overlay::None;
        return vec![];
    }
    let list = model.list();
    if list == List::Logs && model.filters.of(list).active() {
        ask::filter_by(model, list, "");
    } else if model.logs.is_some() {
        return logs::close(model);
    } else if model.zoom {
        model.zoom = false;
    } else {
        let active = |l: &List| model.filters.of(*l).active();
        let all = [list, List::Fleet, List::Health, List::Events];
        if let Some(list) = all.into_iter().find(active) {
            ask::filter_by(model, list, "");
        }
    }
    vec![]
}

fn focus(model: &mut Model, by: usize) {
    let at = Pane::ALL.iter().position(|p| *p == model.focus).unwrap_or(0);
    if let Some(pane) = Pane::ALL.get((at + by) % Pane::ALL.len()) {
        model.focus = *pane;
    }
}

fn service(model: &mut Model, by: isize) {
    let Some(snapshot) = &model.snapshot else { return };
    let names: Vec<&Safe> = snapshot.services.iter().map(|s| &s.name).collect();
    let at = names.iter().position(|n| Some(*n) == model.service.as_ref()).unwrap_or(0);
    let to = at.saturating_add_signed(by).min(names.len().saturating_sub(1));
    let next = names.get(to).map(|n| (*n).clone());
    select_service(model, next);
}

/// Looks at another service.
pub(super) fn select_service(model: &mut Model, next: Option<Safe>) {
    if next != model.service {
        model.service = next;
        model.cursor = 0;
        model.instance = None;
        model.tree.chosen = None;
        model.health_back = 0;
        model.rows_stale = true;
    }
}

/// Lines of a page in what scrolls now.
fn page(model: &Model) -> isize {
    isize::try_from(view::page(model).saturating_sub(1).max(1)).unwrap_or(1)
}

pub(super) fn scroll(model: &mut Model, by: isize) {
    if let Overlay::Dialog(_) = model.overlay {
        ask::choose(model, by > 0);
        return;
    }
    if let Overlay::Palette(_) = model.overlay {
        command::choose(model, by);
        return;
    }
    let help = view::help_lines(model);
    if let Overlay::Help(top) = &mut model.overlay {
        *top = top.saturating_add_signed(by).min(help);
        return;
    }
    if let Overlay::Details(_) = model.overlay {
        // A page has its title.
        let most = view::details_lines(model).saturating_sub(view::page(model).saturating_sub(1));
        if let Overlay::Details(d) = &mut model.overlay {
            d.top = d.top.saturating_add_signed(by).min(most);
        }
        return;
    }
    if let Some(logs) = &mut model.logs {
        logs::scroll(logs, by);
        return;
    }
    match model.focus {
        Pane::Services | Pane::Rollout => service(model, by),
        Pane::Fleet => {
            let to = model.cursor.saturating_add_signed(by);
            model.select_row(to);
        }
        Pane::Health => {
            let most = model.probes().0.len();
            model.health_back = model.health_back.saturating_add_signed(-by).min(most.saturating_sub(1));
        }
        Pane::Events => {
            let most = model.events().len();
            model.events_back = model.events_back.saturating_add_signed(-by).min(most.saturating_sub(1));
        }
    }
}

impl Link {
    /// Why verbs are off, in a word for the header; `None` when they are on.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Connecting => Some("connecting"),
            Self::Lost { .. } => Some("LOST"),
        }
    }
}
