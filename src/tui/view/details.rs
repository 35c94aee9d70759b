//! All there is to know of one instance: what is watched all the time, and what its engine says when it is asked.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use crate::api::{HealthView, InstanceDetails, InstanceView, Role};
use crate::text::Safe;
use crate::tui::format;
use crate::tui::model::{Details, HostTrouble, Model, Overlay, health_word};
use crate::tui::theme::{Theme, Tone};

/// Probes that are shown.
const PROBES: usize = 8;
/// Columns for the names of things.
const NAMES: u16 = 12;

/// A name, and what there is to say; without a name it belongs to the line above.
type Line = (&'static str, String, Tone);

/// Lines there are.
pub(super) fn lines(model: &Model) -> usize {
    match &model.overlay {
        Overlay::Details(d) => content(model, d).len(),
        _ => 0,
    }
}

fn content(model: &Model, d: &Details) -> Vec<Line> {
    let mut out = Vec::new();
    match model.instance_named(&d.instance) {
        Some(i) => watched(model, i, &mut out),
        None => out.push(("state", "gone: it was removed".into(), Tone::Warn)),
    }
    match &d.told {
        None => out.push(("engine", "is asked ...".into(), Tone::Dim)),
        Some(Err(why)) => out.push(("engine", format!("! cannot tell more: {why}"), Tone::Bad)),
        Some(Ok(told)) => engine(model, told, &mut out),
    }
    probes(model, &d.instance, &mut out);
    out
}

fn watched(model: &Model, i: &InstanceView, out: &mut Vec<Line>) {
    let (role, tone) = match i.role {
        Role::Stable => ("stable", Tone::Stable),
        Role::Candidate => ("candidate", Tone::Candidate),
        Role::Old => ("old: kept for the way back", Tone::Dim),
    };
    out.push(("version", format!("{} ({role})", i.version), tone));
    let service = model.service_named(&i.service);
    let mut revisions = service.iter().flat_map(|s| &s.revisions);
    out.push(("revision", i.revision.as_str().into(), Tone::Plain));
    if let Some(r) = revisions.find(|r| r.revision.id == i.revision) {
        out.push(("digest", r.revision.digest.as_str().into(), Tone::Plain));
    }
    let trouble = match model.host_trouble(&i.host) {
        Some(HostTrouble::Unreachable) => ("  ! cannot be reached", Tone::Bad),
        Some(HostTrouble::Out) => ("  declared as gone", Tone::Warn),
        None => ("", Tone::Plain),
    };
    let hosts = model.snapshot.as_ref().map(|s| s.hosts.as_slice()).unwrap_or_default();
    let about = hosts.iter().find(|h| h.name == i.host).map(|h| format!(", {} at {}", h.engine, h.address));
    out.push(("host", format!("{}{}{}", i.host, about.unwrap_or_default(), trouble.0), trouble.1));
    let endpoint = i.endpoint.as_ref().map_or("not known yet", |e| e.as_str());
    out.push(("endpoint", endpoint.into(), Tone::Plain));
    let tone = match i.state.as_str() {
        "running" => Tone::Plain,
        "exited" | "gone" => Tone::Bad,
        _ => Tone::Warn,
    };
    let age = i.started_ms.map(|t| {
        let age = format::age(model.wall_ms.saturating_sub(t));
        format!(", started {age} ago at {} UTC", format::clock(t))
    });
    out.push(("state", format!("{}{}", i.state, age.unwrap_or_default()), tone));
    let tone = match i.health {
        HealthView::Healthy => Tone::Ok,
        HealthView::Unhealthy => Tone::Bad,
        HealthView::Unknown => Tone::Warn,
    };
    let took = i.probe_ms.map(|ms| format!(" in {}", format::latency(ms as f32))).unwrap_or_default();
    out.push(("health", format!("{} {}{took}", health_word(i.health), i.probe), tone));
    let share = i.weight.map_or("none".into(), format::percent);
    out.push(("share", format!("{share} of {}", i.service), Tone::Plain));
    let cpu = i.cpu_percent.filter(|c| c.is_finite()).map_or("-".into(), |c| format!("{c:.0}%"));
    let memory = i.memory_bytes.map_or("-".into(), format::bytes);
    out.push(("uses", format!("cpu {cpu}, memory {memory}"), Tone::Plain));
    let tone = if i.restarts > 0 { Tone::Warn } else { Tone::Plain };
    out.push(("restarts", i.restarts.to_string(), tone));
}

fn engine(model: &Model, told: &InstanceDetails, out: &mut Vec<Line>) {
    if told.oom {
        out.push(("last end", "! ended for want of memory (OOM)".into(), Tone::Bad));
    }
    if let Some(code) = told.exit_code {
        let ago = told.ended_ms.map(|t| format!(", {} ago", format::age(model.wall_ms.saturating_sub(t))));
        let tone = if code == 0 { Tone::Plain } else { Tone::Bad };
        out.push(("exit code", format!("{code}{}", ago.unwrap_or_default()), tone));
    }
    if let Some(error) = &told.error {
        out.push(("error", error.as_str().into(), Tone::Bad));
    }
    if !told.runs_as.is_empty() {
        out.push(("runs as", told.runs_as.as_str().into(), Tone::Plain));
    }
    out.push(("image", told.image.as_str().into(), Tone::Plain));
    let policy = if told.restart.is_empty() { "not known" } else { told.restart.as_str() };
    out.push(("if it exits", format!("restart policy: {policy}"), Tone::Plain));
    list("ports", told.ports.iter().map(|p| p.as_str().to_owned()), out);
    // Which are set is what one looks for; what they are set to is nobody's business on a screen.
    list("env", told.env.iter().map(|name| format!("{name}=(hidden)")), out);
    list("labels", told.labels.iter().map(|(name, value)| format!("{name}={value}")), out);
}

fn list(name: &'static str, items: impl Iterator<Item = String>, out: &mut Vec<Line>) {
    let before = out.len();
    for item in items {
        out.push((if out.len() == before { name } else { "" }, item, Tone::Plain));
    }
    if out.len() == before {
        out.push((name, "none".into(), Tone::Dim));
    }
}

fn probes(model: &Model, id: &Safe, out: &mut Vec<Line>) {
    let all = model.snapshot.as_ref().map(|s| s.probes.as_slice()).unwrap_or_default();
    let mut name = "last probes";
    for p in all.iter().rev().filter(|p| p.instance == *id).take(PROBES) {
        let (word, tone) = if p.ok { ("ok  ", Tone::Ok) } else { ("FAIL", Tone::Bad) };
        let took = format::latency(p.latency_ms as f32);
        let row = if p.failures > 0 { format!("  {}/{}", p.failures, p.fall) } else { String::new() };
        out.push((
            std::mem::take(&mut name),
            format!("{} {word} {} {took}{row}", format::clock(p.at_ms), p.result),
            tone,
        ));
    }
    if !name.is_empty() {
        out.push((name, "none lately".into(), Tone::Dim));
    }
}

pub(super) fn draw(model: &Model, theme: &Theme, d: &Details, body: Rect, buf: &mut Buffer) {
    super::blank(body, buf);
    let g = theme.glyphs();
    let lines = content(model, d);
    let mut area = body;
    let head = super::cut_top(&mut area, 1);
    let rows = usize::from(area.height);
    let top = d.top.min(lines.len().saturating_sub(rows));
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.fill(g.rule, 1, Tone::Dim).text(" instance ", Tone::Selected).skip(1);
    pen.text(d.instance.as_str(), Tone::Accent).skip(1);
    let below = lines.len().saturating_sub(top + rows);
    if below > 0 {
        pen.text(&format!("{below} below: j"), Tone::Warn).skip(1);
    }
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Dim);
    for (row, (name, text, tone)) in (0..area.height).zip(lines.iter().skip(top)) {
        let mut pen = Pen::new(buf, theme, area, row);
        pen.skip(1).column(name, NAMES, Tone::Dim).text(text, *tone);
    }
}
