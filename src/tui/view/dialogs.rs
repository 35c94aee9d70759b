//! Questions, over the panes: where this is, what is so now, what will be so then, and which key does it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use super::rollout::{harm, next, revision};
use super::{again, wrap};
use crate::api::{PlanView, Role, RolloutView, ServiceView};
use crate::tui::dialog::{Ask, Dialog, Pick, single_hosts};
use crate::tui::format;
use crate::tui::model::Model;
use crate::tui::theme::{Theme, Tone};

/// Phases of a plan that are shown; of more, the last and the first ones.
const MOST_PHASES: usize = 8;

pub(super) type Lines = Vec<(String, Tone)>;

/// Widest dialog that still reads well.
const WIDEST: u16 = 72;

pub(super) fn draw(model: &Model, theme: &Theme, dialog: &Dialog, body: Rect, buf: &mut Buffer) {
    let Some(service) = model.service_named(&dialog.service) else {
        super::blank(body, buf);
        Pen::new(buf, theme, body, 0).text("this service is gone; Esc goes back", Tone::Bad);
        return;
    };
    let width = body.width.min(WIDEST);
    let room = usize::from(width.saturating_sub(4));
    let title = title(dialog, service, theme);
    let mut lines = place(model);
    lines.extend(content(model, theme, dialog, service));
    let mut rows: Vec<(String, Tone)> = Vec::new();
    for (text, tone) in lines {
        rows.extend(wrap(&text, room).into_iter().map(|line| (line, tone)));
    }
    let mut answer: Lines = Vec::new();
    if let Some(changed) = dialog.moved_on(model) {
        answer.push((
            format!("! It has changed since you opened this: {changed}. Esc, then look again."),
            Tone::Bad,
        ));
    } else if let Err(why) = model.can(dialog.verb()) {
        answer.push((format!("! Not possible now: {why}"), Tone::Bad));
    }
    if let Some(complaint) = &dialog.complaint {
        answer.push((format!("! {complaint}"), Tone::Bad));
    }
    let choosing = !single_hosts(model, service).is_empty();
    answer.push(prompt(theme, dialog, choosing));
    let answer: Lines =
        answer.into_iter().flat_map(|(t, tone)| wrap(&t, room).into_iter().map(move |l| (l, tone))).collect();
    // Rules above and below; the answer is never cut, the text above it is when there is no room.
    let wanted = u16::try_from(rows.len() + answer.len() + 3).unwrap_or(u16::MAX);
    let height = wanted.min(body.height);
    let area =
        Rect { x: body.x + (body.width - width) / 2, y: body.y + (body.height - height) / 3, width, height };
    super::blank(area, buf);
    // On a small screen text is worth more than a frame.
    let inner = if body.height < 12 {
        let mut inner = area;
        let top = super::cut_top(&mut inner, 1);
        Pen::new(buf, theme, top, 0).text(&format!(" {title} "), Tone::Selected);
        super::cut_left(&mut inner, 1);
        inner
    } else {
        boxed(theme, area, &title, buf)
    };
    let space = usize::from(inner.height).saturating_sub(answer.len());
    let gap = usize::from(rows.len() < space);
    if rows.len() > space {
        rows.truncate(space);
        if let Some((last, _)) = rows.last_mut() {
            last.push_str(theme.glyphs().cut);
        }
    }
    for (row, (text, tone)) in (0..inner.height).zip(&rows) {
        Pen::new(buf, theme, inner, row).text(text, *tone);
    }
    let from = u16::try_from(rows.len() + gap).unwrap_or(0);
    for (row, (text, tone)) in (from..inner.height).zip(&answer) {
        Pen::new(buf, theme, inner, row).text(text, *tone);
    }
}

/// A frame with a title; what is inside has a column free on both sides.
fn boxed(theme: &Theme, area: Rect, title: &str, buf: &mut Buffer) -> Rect {
    let g = theme.glyphs();
    let mut inner = area;
    let top = super::cut_top(&mut inner, 1);
    let bottom = super::cut_bottom(&mut inner, 1);
    let mut pen = Pen::new(buf, theme, top, 0);
    pen.fill(g.rule, 2, Tone::Accent).text(&format!(" {title} "), Tone::Selected);
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Accent);
    Pen::new(buf, theme, bottom, 0).fill(g.rule, area.width, Tone::Accent);
    for row in 0..inner.height {
        let mut edge = inner;
        let left = super::cut_left(&mut edge, 1);
        let right = super::cut_right(&mut edge, 1);
        Pen::new(buf, theme, left, row).fill(g.wall, 1, Tone::Accent);
        Pen::new(buf, theme, right, row).fill(g.wall, 1, Tone::Accent);
    }
    super::cut_left(&mut inner, 2);
    super::cut_right(&mut inner, 2);
    inner
}

fn title(dialog: &Dialog, service: &ServiceView, theme: &Theme) -> String {
    let name = &service.name;
    let arrow = theme.glyphs().arrow;
    match &dialog.ask {
        Ask::Abort => format!("ABORT {name}?"),
        Ask::Promote { full: false } => format!("PROMOTE {name} to the next phase?"),
        Ask::Promote { full: true } => format!("PROMOTE {name} TO THE END?"),
        Ask::Resume => format!("RESUME {name}?"),
        Ask::Rollback { host: Some(host) } => format!("ROLL {name} BACK on {host} alone?"),
        Ask::Rollback { host: None } => format!("ROLL {name} BACK?"),
        Ask::Retry => format!("RETRY {name}?"),
        Ask::Pick(_) => format!("DEPLOY {name}: which version?"),
        Ask::Planning { version } => format!("DEPLOY {name} {version}"),
        Ask::Deploy(p) => {
            format!(
                "DEPLOY {name} {} {arrow} {}?",
                p.plan.from.as_ref().map_or("(nothing)", |v| v.as_str()),
                p.plan.to
            )
        }
    }
}

/// Where this is: the mistake to prevent is doing the right thing in the wrong place.
fn place(model: &Model) -> Lines {
    let Some(s) = &model.snapshot else { return vec![] };
    let fleet = &s.controller.fleet;
    vec![if s.production {
        (format!("in fleet {fleet}, {}: THIS IS PRODUCTION", s.environment), Tone::Bad)
    } else {
        (format!("in fleet {fleet}, {}", s.environment), Tone::Dim)
    }]
}

fn content(model: &Model, theme: &Theme, dialog: &Dialog, service: &ServiceView) -> Lines {
    let rollout = service.rollout.as_ref();
    let mut lines = Lines::new();
    match (&dialog.ask, rollout) {
        (Ask::Abort, Some(r)) => {
            lines.push(share(service, r));
            let stable = r.from.as_ref().map_or("nothing", |v| v.as_str());
            lines.push((
                format!("Then: all traffic goes back to {stable} at once, {}.", stable_health(service)),
                Tone::Strong,
            ));
            lines.push((
                format!("After that {} is taken away. Its rollout ends as aborted.", r.to),
                Tone::Plain,
            ));
        }
        (Ask::Promote { full }, Some(r)) => {
            lines.push(share(service, r));
            lines.push((candidate_health(service), Tone::Plain));
            if let Some(harm) = harm(service) {
                lines.push((format!("! {harm}"), Tone::Bad));
            }
            promote(model, service, r, *full, &mut lines);
        }
        (Ask::Resume, Some(r)) => {
            lines.push(share(service, r));
            if !r.reason.is_empty() {
                lines.push((format!("It stands because: {}", r.reason), Tone::Plain));
            }
            if let Some(harm) = harm(service) {
                lines.push((format!("! {harm}"), Tone::Bad));
            }
            lines.push((format!("Then: the rollout goes on by itself, next is {}.", next(r)), Tone::Strong));
        }
        (Ask::Rollback { host }, _) => again::rollback(model, theme, service, host.as_ref(), &mut lines),
        (Ask::Retry, Some(r)) => again::retry(service, r, &mut lines),
        (Ask::Pick(pick), _) => {
            again::instead(service, "the new version", &mut lines);
            picker(theme, service, pick, &mut lines);
        }
        (Ask::Planning { version }, _) => {
            lines.push((
                format!("asking the controller what a deployment of {version} would do ..."),
                Tone::Plain,
            ));
        }
        (Ask::Deploy(p), _) => {
            again::instead(service, p.plan.to.as_str(), &mut lines);
            plan(&p.plan, &mut lines);
        }
        (_, None) => lines.push(("the rollout is over".into(), Tone::Warn)),
    }
    lines
}

pub(super) fn share(service: &ServiceView, r: &RolloutView) -> (String, Tone) {
    let weight = revision(service, Role::Candidate)
        .map_or_else(|| "no share".to_owned(), |v| format::percent(v.actual_weight.unwrap_or(v.weight)));
    let phase = r.phases.get(r.phase).map(|p| p.name.as_str()).unwrap_or_default();
    let text = format!(
        "Now: {} has {weight} of the traffic; phase {}/{} ({phase}), {}.",
        r.to,
        r.phase + 1,
        r.phases.len(),
        r.status.as_str()
    );
    (text, Tone::Plain)
}

pub(super) fn stable_health(service: &ServiceView) -> String {
    revision(service, Role::Stable).map_or_else(
        || "whose health is not known".to_owned(),
        |v| format!("which has {} of {} healthy", v.healthy, format::count(v.wanted as usize, "instance")),
    )
}

fn candidate_health(service: &ServiceView) -> String {
    let Some(v) = revision(service, Role::Candidate) else {
        return "The candidate's health is not known.".into();
    };
    let traffic = v.traffic.map_or_else(String::new, |t| {
        format!(
            "; {}, {} errors, {} of {} failed",
            format::rate(t.rate),
            format::errors(t.error_percent),
            t.errors + t.retries,
            t.requests
        )
    });
    format!("Health: {} of {} healthy{traffic}.", v.healthy, format::count(v.wanted as usize, "instance"))
}

fn promote(model: &Model, service: &ServiceView, r: &RolloutView, full: bool, lines: &mut Lines) {
    let mut skipped: Vec<String> = r.waiting.iter().map(|w| w.as_str().to_owned()).collect();
    if let Some(left) = model.gate_left(service).map(format::countdown) {
        match skipped.last_mut() {
            Some(gate) => gate.push_str(&format!(" ({left} left)")),
            None => skipped.push(format!("{left} of waiting")),
        }
    }
    if full {
        skipped.extend(r.phases.iter().skip(r.phase + 1).filter(|p| !p.gates.is_empty()).map(|p| {
            format!("{} at {}", p.gates.iter().map(|g| g.as_str()).collect::<Vec<_>>().join(" and "), p.name)
        }));
        lines.push((
            format!("Then: {} gets 100% as fast as its health allows, and {} ends.", r.to, r.id),
            Tone::Strong,
        ));
    } else {
        match r.phases.get(r.phase + 1) {
            Some(p) => {
                let gates = p.gates.iter().map(|g| g.as_str()).collect::<Vec<_>>().join(" and ");
                let then = if gates.is_empty() { String::new() } else { format!(", then waits for {gates}") };
                let text = format!(
                    "Then: {} with {} of the traffic on {}{then}.",
                    r.to,
                    format::percent(p.weight),
                    format::count(p.instances as usize, "instance")
                );
                lines.push((text, Tone::Strong));
            }
            None => lines.push((format!("Then: {} serves alone, and {} ends.", r.to, r.id), Tone::Strong)),
        }
    }
    if !skipped.is_empty() {
        lines.push((format!("Skips: {}", skipped.join("; ")), Tone::Warn));
    }
}

fn picker(theme: &Theme, service: &ServiceView, pick: &Pick, lines: &mut Lines) {
    let g = theme.glyphs();
    lines.push((format!("version: {}{}", pick.input.text, g.caret), Tone::Strong));
    let offered = pick.offered(service);
    // Never more than fit an 80×24 screen along with the rest.
    let rows = 8;
    let top = super::window(pick.cursor.unwrap_or(0), offered.len(), rows);
    for (n, v) in offered.iter().enumerate().skip(top).take(rows) {
        let chosen = pick.cursor == Some(n);
        let is = |r: &Option<crate::api::RevisionRef>| r.as_ref().is_some_and(|r| r.version == **v);
        let note = if is(&service.stable) {
            "  (serves now)"
        } else if is(&service.previous) {
            "  (previous)"
        } else {
            ""
        };
        let mark = if chosen { g.now } else { " " };
        lines.push((format!("  {mark} {v}{note}"), if chosen { Tone::Accent } else { Tone::Plain }));
    }
    if offered.len() > top + rows {
        lines.push((format!("    and {} more: type a part of it", offered.len() - top - rows), Tone::Dim));
    }
    if offered.is_empty() && !service.known_versions.is_empty() {
        lines.push(("    not seen on any host yet; it will be looked for".into(), Tone::Dim));
    }
    lines.push(("Nothing happens before you have seen the plan and confirmed it.".into(), Tone::Dim));
}

fn plan(plan: &PlanView, lines: &mut Lines) {
    lines.push((format!("{}, {}:", plan.strategy, format::count(plan.phases.len(), "phase")), Tone::Plain));
    let names = plan.phases.iter().map(|p| p.name.as_str().chars().count()).max().unwrap_or(0);
    // What follows matters more than the twentieth batch.
    let hidden = plan.phases.len().saturating_sub(MOST_PHASES);
    for (n, p) in plan.phases.iter().enumerate() {
        if hidden > 0 && n + 1 == MOST_PHASES {
            lines.push((format!("  .. and {} more", format::count(hidden, "phase")), Tone::Dim));
        }
        if hidden > 0 && (MOST_PHASES - 1..MOST_PHASES - 1 + hidden).contains(&n) {
            continue;
        }
        let gates: Vec<&str> = p.gates.iter().map(|g| g.as_str()).collect();
        let gates = if gates.is_empty() { String::new() } else { format!("  then: {}", gates.join(", ")) };
        let text = format!(
            "  {}. {:names$}  {:>4} of traffic on {}{gates}",
            n + 1,
            p.name,
            format::percent(p.weight),
            format::count(p.instances as usize, "instance")
        );
        lines.push((text, Tone::Plain));
    }
    // A controller of an older version says less.
    if plan.replicas > 0 {
        let of = format::count(plan.replicas as usize, "instance");
        let lowest = match plan.lowest {
            Some(n) => format!("Never fewer than {n} of {of} in rotation"),
            None => "Nothing serves before it".to_owned(),
        };
        let short = plan.lowest.is_some_and(|n| n < plan.replicas);
        let extra = if plan.extra > 0 { format!("; up to {} more run", plan.extra) } else { String::new() };
        lines.push((format!("{lowest}{extra}."), if short { Tone::Warn } else { Tone::Plain }));
        lines.push((format!("Takes {}.", plan.takes), Tone::Plain));
    }
    lines.push((format!("Way back: {}", plan.way_back), Tone::Strong));
    lines.extend(plan.notes.iter().map(|n| (format!("! {n}"), Tone::Warn)));
    lines.extend(plan.not_promised.iter().map(|w| (format!("Does not promise {w}"), Tone::Dim)));
}

fn prompt(theme: &Theme, dialog: &Dialog, choosing: bool) -> (String, Tone) {
    let text = match (&dialog.ask, &dialog.type_name) {
        (Ask::Pick(_), _) => "Enter shows the plan, up and down choose, Esc goes back".to_owned(),
        (Ask::Planning { .. }, _) => "Esc goes back".to_owned(),
        (_, Some(typed)) => {
            format!("type {} and Enter: {}{}", dialog.service, typed.text, theme.glyphs().caret)
        }
        (Ask::Abort, None) => "y aborts, Esc does not".to_owned(),
        (Ask::Promote { .. }, None) => "y promotes, Esc does not".to_owned(),
        (Ask::Resume, None) => "y resumes, Esc does not".to_owned(),
        (Ask::Rollback { host: Some(h) }, None) => {
            format!("y rolls {h} back, up and down choose, Esc does nothing")
        }
        (Ask::Rollback { host: None }, None) if choosing => {
            "y takes everything back, up and down choose, Esc does nothing".to_owned()
        }
        (Ask::Rollback { host: None }, None) => "y rolls back, Esc does not".to_owned(),
        (Ask::Retry, None) => "y retries, Esc does not".to_owned(),
        (Ask::Deploy(_), None) => "y deploys, Esc does not".to_owned(),
    };
    (text, Tone::Key)
}
