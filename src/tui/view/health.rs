//! Pane 4: the last probes, newest at the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::api::ProbeView;
use crate::tui::filter::List;
use crate::tui::format;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let back = format!("{} back", model.health_back);
    let (mut shown, all) = model.probes();
    let mut title =
        if model.health_back > 0 { vec![(back, Tone::Warn)] } else { vec![("UTC".to_owned(), Tone::Dim)] };
    title.extend(super::filter_title(model, theme, List::Health, (shown.len(), all)));
    let inner = super::frame(model, theme, area, Pane::Health, &super::borrowed(&title), buf);
    shown.truncate(shown.len().saturating_sub(model.health_back));
    let shown = shown.split_off(shown.len().saturating_sub(inner.height.into()));
    let hosts = shown.iter().map(|p| width(p.host.as_str())).max().unwrap_or(0).min(inner.width / 4);
    // The service is known when only its probes are shown, and the end of an id is what tells instances apart.
    let id = |p: &ProbeView| -> String {
        let id = p.instance.as_str();
        let short = id.strip_prefix(p.service.as_str()).and_then(|rest| rest.strip_prefix('-'));
        short.filter(|_| !model.all_services).unwrap_or(id).to_owned()
    };
    let names = shown.iter().map(|p| width(&id(p))).max().unwrap_or(0).min(inner.width / 3);
    // Where it is tight the host goes: the instance says more.
    let hosts = if inner.width < 46 { 0 } else { hosts };
    let none = shown.is_empty();
    let last = u16::try_from(shown.len()).unwrap_or(0);
    for (row, p) in (0..inner.height).zip(shown) {
        let mut pen = Pen::new(buf, theme, inner, row);
        // The probe that is copied.
        if model.health_back > 0 && model.focus == Pane::Health && row + 1 == last {
            pen = pen.over(theme.style(Tone::Selected));
        }
        pen.column(&format::clock(p.at_ms), 8, Tone::Dim);
        if hosts > 0 {
            pen.column(p.host.as_str(), hosts, Tone::Plain);
        }
        pen.column(&id(p), names, Tone::Plain);
        let (word, tone) = if p.ok { ("ok", Tone::Ok) } else { ("FAIL", Tone::Bad) };
        pen.column(word, 4, tone).text(p.result.as_str(), tone).skip(1);
        pen.text(&format::latency(p.latency_ms as f32), Tone::Plain).skip(1);
        if p.failures > 0 {
            pen.text(&format!("{}/{}", p.failures, p.fall), Tone::Bad);
        }
    }
    if none {
        let text = if all == 0 { "no probe yet" } else { "no probe matches the filter (Esc clears it)" };
        Pen::new(buf, theme, inner, 0).text(text, Tone::Dim);
    }
}
