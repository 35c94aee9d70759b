//! The mouse, where somebody wants it: the wheel scrolls what is under it, a click chooses. Nothing is asked, answered or
//! done with it: a click that slips must not be a verb.

use super::{Mouse, act};
use crate::tui::model::{Model, Overlay, Pane};
use crate::tui::view::{self, Spot};

/// Lines for a step of the wheel.
const STEP: isize = 3;

pub(super) fn did(model: &mut Model, mouse: Mouse) {
    match mouse {
        Mouse::Press(x, y) => press(model, view::spot(model, x, y)),
        Mouse::Up(x, y) => wheel(model, -1, view::spot(model, x, y)),
        Mouse::Down(x, y) => wheel(model, 1, view::spot(model, x, y)),
    }
}

/// Whether the panes are what is seen and meant.
fn on_the_board(model: &Model) -> bool {
    matches!(model.overlay, Overlay::None) && model.filtering.is_none() && model.logs.is_none()
}

fn press(model: &mut Model, spot: Option<Spot>) {
    model.welcome = false;
    let Some(spot) = spot.filter(|_| on_the_board(model)) else { return };
    model.focus = spot.pane;
    match (spot.pane, spot.line) {
        (Pane::Services, Some(n)) => {
            let named = model.snapshot.as_ref().and_then(|s| s.services.get(n)).map(|s| s.name.clone());
            if named.is_some() {
                act::select_service(model, named);
            }
        }
        (Pane::Fleet, Some(n)) if n < model.rows.len() => model.select_row(n),
        _ => {}
    }
}

fn wheel(model: &mut Model, direction: isize, spot: Option<Spot>) {
    // A question is chosen in with keys.
    if matches!(model.overlay, Overlay::Dialog(_)) {
        return;
    }
    if on_the_board(model) {
        let Some(spot) = spot else { return };
        // Another service, or none of its rows, is nothing to come to by rolling.
        if matches!(spot.pane, Pane::Services | Pane::Rollout) {
            return;
        }
        model.focus = spot.pane;
    }
    act::scroll(model, direction * STEP);
}
