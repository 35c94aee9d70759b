//! Pane 1: every service, with how it stands as a glyph and a word.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::api::{Role, RolloutStatus, ServiceView};
use crate::tui::format;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

/// How a service stands: `~ canary 25%`, `= stable`, `! failed`, `|| paused`.
pub(super) fn state(service: &ServiceView) -> (String, Tone) {
    let weight =
        service.revisions.iter().find(|r| r.role == Role::Candidate).map(|r| format::whole(r.weight));
    let weight = weight.unwrap_or_default();
    if let Some(r) = &service.rollout {
        match r.status {
            RolloutStatus::Running if !r.empty.is_empty() => {
                return (format!("! {} empty {weight}", r.empty.len()), Tone::Warn);
            }
            RolloutStatus::Running if !r.held.is_empty() => {
                return (format!("# {} held {weight}", r.held.len()), Tone::Warn);
            }
            RolloutStatus::Running => return (format!("~ {} {weight}", r.strategy), Tone::Candidate),
            RolloutStatus::Paused => return (format!("|| paused {weight}"), Tone::Warn),
            RolloutStatus::Frozen => return (format!("* frozen {weight}"), Tone::Warn),
            RolloutStatus::Aborting => return ("< aborting".into(), Tone::Bad),
            RolloutStatus::Failed => return ("! failed".into(), Tone::Bad),
            RolloutStatus::Done | RolloutStatus::Aborted => {}
        }
    }
    let Some(stable) = service.revisions.iter().find(|r| r.role == Role::Stable) else {
        return match &service.stable {
            Some(_) => ("= stable".into(), Tone::Ok),
            None => ("- not deployed".into(), Tone::Dim),
        };
    };
    if stable.healthy < stable.wanted {
        return (format!("! {}/{} healthy", stable.healthy, stable.wanted), Tone::Bad);
    }
    if !service.drift.is_empty() {
        return ("! drift".into(), Tone::Warn);
    }
    ("= stable".into(), Tone::Ok)
}

/// Columns for the names: what they need, as long as every state has room.
fn name_width(services: &[ServiceView], room: u16) -> u16 {
    let states = services.iter().take(MANY).map(|s| width(&state(s).0)).max().unwrap_or(0);
    let names = services.iter().take(MANY).map(|s| width(s.name.as_str())).max().unwrap_or(0);
    names.min(room.saturating_sub(states.max(12) + 3).max(4))
}

/// Services that are measured; a list of more than these is cut where it does not fit.
const MANY: usize = 64;

/// Columns that the pane wants: mark, name, state. A little jump when a state gets longer is better than a cut name,
/// but a share going from 5 % to 25 % moves nothing.
pub(super) fn wanted(services: &[ServiceView]) -> u16 {
    let states = services.iter().take(MANY).map(|s| width(&state(s).0)).max().unwrap_or(0);
    let names = services.iter().take(MANY).map(|s| width(s.name.as_str())).max().unwrap_or(0);
    1 + 2 + names + 1 + states.max(12) + 1
}

/// The place of the selected service.
fn chosen(model: &Model, services: &[ServiceView]) -> usize {
    services.iter().position(|s| Some(&s.name) == model.service.as_ref()).unwrap_or(0)
}

/// The first service in sight when the pane is `area`.
pub(super) fn first(model: &Model, area: Rect) -> usize {
    let services = model.snapshot.as_ref().map(|s| s.services.as_slice()).unwrap_or_default();
    // Below the title.
    super::window(chosen(model, services), services.len(), area.height.saturating_sub(1).into())
}

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let services = model.snapshot.as_ref().map(|s| s.services.as_slice()).unwrap_or_default();
    let inner = super::frame(model, theme, area, Pane::Services, &[], buf);
    let at = chosen(model, services);
    let top = first(model, area);
    let names = name_width(services, inner.width);
    for (row, (n, service)) in (0..inner.height).zip(services.iter().enumerate().skip(top)) {
        let chosen = n == at;
        let mut pen = Pen::new(buf, theme, inner, row);
        let (mark, tone) = if chosen { (theme.glyphs().now, Tone::Accent) } else { (" ", Tone::Plain) };
        pen.column(mark, 1, tone).column(service.name.as_str(), names, tone);
        let (text, tone) = state(service);
        pen.text(&text, tone);
    }
    if services.is_empty() {
        Pen::new(buf, theme, inner, 0).text("none declared", Tone::Dim);
    }
}
