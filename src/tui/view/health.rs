//! Pane 4: the last probes, newest at the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::api::ProbeView;
use crate::tui::format;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let back = format!("{} back", model.health_back);
    let title: &[(&str, Tone)] =
        if model.health_back > 0 { &[(back.as_str(), Tone::Warn)] } else { &[("UTC", Tone::Dim)] };
    let inner = super::frame(model, theme, area, Pane::Health, title, buf);
    let Some(snapshot) = &model.snapshot else { return };
    let wanted = |p: &&ProbeView| model.all_services || Some(&p.service) == model.service.as_ref();
    let mut shown: Vec<&ProbeView> = snapshot
        .probes
        .iter()
        .rev()
        .filter(wanted)
        .skip(model.health_back)
        .take(inner.height.into())
        .collect();
    shown.reverse();
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
    for (row, p) in (0..inner.height).zip(shown) {
        let mut pen = Pen::new(buf, theme, inner, row);
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
    if snapshot.probes.is_empty() {
        Pen::new(buf, theme, inner, 0).text("no probe yet", Tone::Dim);
    }
}
