//! Pane 2: the rollout of the selected service: where it is, what share each version has, what happens next. When
//! none is under way: what serves, how the last one ended, and what can be done.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use super::{notes, paragraph, sparks, timeline, wrap};
use crate::api::{RevisionView, Role, RolloutStatus, RolloutView, ServiceView, VerbKind};
use crate::tui::format;
use crate::tui::keys::Action;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

/// Failures of the candidate in per cent that are worth a warning, when they are also more than twice stable's.
const LOUD_ERRORS: f32 = 1.0;

pub(super) fn revision(service: &ServiceView, role: Role) -> Option<&RevisionView> {
    service.revisions.iter().find(|r| r.role == role)
}

/// A candidate that clearly fails more often than stable, in words.
pub(super) fn harm(service: &ServiceView) -> Option<String> {
    let traffic = |role| revision(service, role).and_then(|r| r.traffic);
    let candidate = traffic(Role::Candidate)?.error_percent;
    let stable = traffic(Role::Stable).map_or(0.0, |t| t.error_percent);
    (candidate > LOUD_ERRORS && candidate > 2.0 * stable).then(|| {
        format!(
            "candidate FAILS {} of its requests, stable {} (last 10 s)",
            format::errors(candidate),
            format::errors(stable)
        )
    })
}

/// What the analysis says, or where nobody judges what can be seen, in at most two lines.
fn verdict(service: &ServiceView, r: &RolloutView, room: usize) -> Option<(Vec<String>, Tone)> {
    let (text, tone) = match &r.verdict {
        Some(v) => match v.state.as_str() {
            "fail" => (format!("! {}", v.line()), Tone::Bad),
            "hold" => (format!("! {}", v.line()), Tone::Warn),
            "pass" => (v.line(), Tone::Ok),
            _ => (v.line(), Tone::Plain),
        },
        None => (format!("! {}", harm(service)?), Tone::Bad),
    };
    let mut lines = wrap(&text, room);
    lines.truncate(2);
    Some((lines, tone))
}

/// What the checks say: each that is not good in a line of its own, the good ones in one.
fn checks(r: &RolloutView, room: usize, cut: &str) -> Vec<(String, Tone)> {
    let mut lines = Vec::new();
    let mut good = Vec::new();
    for c in &r.checks {
        let line = match c.answer.as_str() {
            "good" => {
                good.push(c.name.as_str());
                continue;
            }
            "bad" if !c.dry_run => (format!("! {}", c.line()), Tone::Bad),
            _ => (c.line(), Tone::Warn),
        };
        lines.push(line);
    }
    match good.as_slice() {
        [] => {}
        [one] => lines.push((format!("check {one}: good"), Tone::Ok)),
        all => lines.push((format!("checks good: {}", all.join(", ")), Tone::Ok)),
    }
    let first = |(text, tone): (String, Tone)| {
        let mut wrapped = wrap(&text, room).into_iter();
        let line = wrapped.next()?;
        Some((if wrapped.next().is_some() { line + cut } else { line }, tone))
    };
    lines.into_iter().filter_map(first).collect()
}

/// The phase after this one, or what comes at the end.
pub(super) fn next(r: &RolloutView) -> String {
    match r.phases.get(r.phase + 1) {
        Some(p) => p.name.as_str().to_owned(),
        None => format!("{} serves alone", r.to),
    }
}

/// How the rollout stands and what happens next, in one sentence.
fn status(model: &Model, service: &ServiceView, r: &RolloutView) -> (String, Tone) {
    let because =
        |fallback: &str| if r.reason.is_empty() { fallback.to_owned() } else { r.reason.as_str().to_owned() };
    let from = r.from.as_ref().map_or("nothing", |v| v.as_str());
    match r.status {
        RolloutStatus::Running => {
            let gates: Vec<&str> = r.waiting.iter().map(|w| w.as_str()).collect();
            let left = model.gate_left(service).map(format::countdown);
            let text = match (left, gates.is_empty()) {
                (Some(left), true) => format!("gate opens in {left}, then {}", next(r)),
                (Some(left), false) => format!("{left} left: {}; then {}", gates.join(", "), next(r)),
                // A count of what is there is no gate.
                (None, false)
                    if gates.first().is_some_and(|g| g.starts_with(|c: char| c.is_ascii_digit())) =>
                {
                    format!("so far {}; then {}", gates.join(", "), next(r))
                }
                (None, false) => format!("waits for {}; then {}", gates.join(", "), next(r)),
                (None, true) if !r.held.is_empty() && r.phase + 1 >= r.phases.len() => {
                    "all that may go has gone; it ends after retry or abort".to_owned()
                }
                (None, true) => format!("{}; then {}", because("under way"), next(r)),
            };
            (format!("running: {text}"), Tone::Plain)
        }
        RolloutStatus::Paused => (format!("|| PAUSED: {}", because("by an operator")), Tone::Warn),
        RolloutStatus::Frozen => (
            format!("* FROZEN: {}; goes on by itself when it can", because("something is out of reach")),
            Tone::Warn,
        ),
        RolloutStatus::Aborting => {
            (format!("< ABORTING: all traffic goes back to {from} ({})", because("asked for")), Tone::Bad)
        }
        RolloutStatus::Done => (format!("= done: {} serves", r.to), Tone::Ok),
        RolloutStatus::Aborted => {
            (format!("< aborted: {from} serves ({})", because("asked for")), Tone::Warn)
        }
        RolloutStatus::Failed => (format!("! FAILED: {}", because("no reason given")), Tone::Bad),
    }
}

pub(super) fn draw(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some(service) = model.service_view() else {
        let inner = super::frame(model, theme, area, Pane::Rollout, &[], buf);
        let lines = empty_fleet(model);
        paragraph(theme, inner, &lines, buf);
        return;
    };
    let g = theme.glyphs();
    let many = model.snapshot.as_ref().map_or(0, |s| s.services.len());
    let at = model.snapshot.as_ref().and_then(|s| s.services.iter().position(|x| x.name == service.name));
    let name = match at {
        // The list of services is not on narrow screens; its place in the list is.
        Some(n) if area.width < super::WIDE && many > 1 => format!("{} ({}/{many})", service.name, n + 1),
        _ => service.name.as_str().to_owned(),
    };
    let live = service.rollout.as_ref().filter(|r| !r.status.ended());
    let Some(r) = live else {
        let title = [(name.as_str(), Tone::Accent), (" no rollout under way", Tone::Dim)];
        let inner = super::frame(model, theme, area, Pane::Rollout, &title, buf);
        idle(model, theme, service, inner, buf);
        return;
    };
    let from = r.from.as_ref().map_or("first release of", |v| v.as_str());
    let phase = format!(" phase {}/{}", r.phase + 1, r.phases.len());
    let strategy = format!(" {} ", r.strategy);
    let arrow = if r.from.is_some() { format!(" {} ", g.arrow) } else { " ".into() };
    let title = [
        (name.as_str(), Tone::Accent),
        (strategy.as_str(), Tone::Plain),
        (from, Tone::Stable),
        (arrow.as_str(), Tone::Plain),
        (r.to.as_str(), Tone::Candidate),
        (phase.as_str(), Tone::Plain),
    ];
    let inner = super::frame(model, theme, area, Pane::Rollout, &title, buf);
    under_way(model, theme, service, r, inner, buf);
}

/// Rows, most important first: what does not fit is left out from the end, and the order on the screen is kept.
fn under_way(
    model: &Model,
    theme: &Theme,
    service: &ServiceView,
    r: &RolloutView,
    area: Rect,
    buf: &mut Buffer,
) {
    let (text, tone) = status(model, service, r);
    let room = usize::from(area.width.saturating_sub(1));
    let mut row = 0;
    timeline::draw(model, theme, r, area, row, buf);
    row += 1;
    let urgent = notes::urgent(model, service, r);
    let compared = notes::comparison(model, r);
    // The sentences may take what the bars, the table and the weights do not need.
    let judged = verdict(service, r, room).map_or(1, |(lines, _)| lines.len());
    let checks = checks(r, room, theme.glyphs().cut);
    let judged = judged + checks.len();
    let fixed = 3 + judged + compared.len() + usize::from(compared.is_empty());
    let mut spare = usize::from(area.height).saturating_sub(fixed).max(1);
    // What somebody has to do something about comes first where there is not room for both.
    let sentences = urgent.into_iter().chain([(text, tone)]).chain(notes::next(service));
    for (mut lines, tone) in sentences.map(|(text, tone)| (wrap(&text, room), tone)) {
        let cut = lines.len() > spare.max(1);
        lines.truncate(spare.max(1));
        spare = spare.saturating_sub(lines.len());
        for (n, line) in lines.iter().enumerate() {
            let mut pen = Pen::new(buf, theme, area, row);
            pen.text(line, tone);
            if cut && n + 1 == lines.len() {
                pen.text(theme.glyphs().cut, tone);
            }
            row += 1;
        }
    }
    let versions = shown(service).map(|v| width(v.revision.version.as_str())).max().unwrap_or(0);
    for v in shown(service) {
        revision_line(theme, service, v, versions, area, row, buf);
        row += 1;
    }
    if let Some((lines, tone)) = verdict(service, r, room) {
        for line in lines {
            Pen::new(buf, theme, area, row).text(&line, tone);
            row += 1;
        }
    }
    for (text, tone) in checks.iter().chain(&compared) {
        Pen::new(buf, theme, area, row).text(text, *tone);
        row += 1;
    }
    if let Some(v) = revision(service, Role::Candidate) {
        weights(theme, v, area, row, buf);
        row += 1;
    }
    let mut rest = Rect { y: area.y.saturating_add(row), height: area.height.saturating_sub(row), ..area };
    let mut notes = notes::quiet(model, service, r);
    notes.extend(r.owed.iter().map(|o| (format!("owed: {o}"), Tone::Warn)));
    notes.extend(service.drift.iter().map(|d| (format!("drift: {d}"), Tone::Warn)));
    // Whatever is said in words comes first, and who began it.
    charts(model, theme, service, notes.len() + 1, &mut rest, buf);
    for (text, tone) in notes.iter().take(rest.height.into()) {
        Pen::new(buf, theme, super::cut_top(&mut rest, 1), 0).text(text, *tone);
    }
    if rest.height > 0 {
        let by =
            format!("{} by {}, {} ago", r.id, r.by, format::age(model.wall_ms.saturating_sub(r.started_ms)),);
        Pen::new(buf, theme, rest, rest.height - 1).text(&by, Tone::Dim);
    }
}

/// The last minutes of each version, in the rows that `taken` others leave.
fn charts(
    model: &Model,
    theme: &Theme,
    service: &ServiceView,
    taken: usize,
    rest: &mut Rect,
    buf: &mut Buffer,
) {
    let rows = usize::from(rest.height).saturating_sub(taken);
    let views = sparks::shown(model, service, rest.width.saturating_sub(1), rows);
    let area = super::cut_top(rest, u16::try_from(views.len()).unwrap_or(0));
    sparks::draw(model, theme, service, &views, area, buf);
}

/// Stable, then the candidate.
fn shown(service: &ServiceView) -> impl Iterator<Item = &RevisionView> {
    [Role::Stable, Role::Candidate].into_iter().filter_map(|role| revision(service, role))
}

/// `candidate 1.5.0 ██████░░░░░░  25%  137/s  0.03% err  p95 41ms  2/2 ok`
fn revision_line(
    theme: &Theme,
    service: &ServiceView,
    v: &RevisionView,
    versions: u16,
    area: Rect,
    row: u16,
    buf: &mut Buffer,
) {
    let g = theme.glyphs();
    let (role, tone) = match v.role {
        Role::Stable => ("stable", Tone::Stable),
        Role::Candidate => ("candidate", Tone::Candidate),
        Role::Old => ("old", Tone::Dim),
    };
    let loud = v.role == Role::Candidate && harm(service).is_some();
    let versions = versions.min(if area.width < 60 { 9 } else { 24 });
    let share = format::percent(v.actual_weight.unwrap_or(v.weight));
    let mut fields: Vec<(String, u16, Tone)> = vec![(share.clone(), width(&share).max(4), tone)];
    let ill = if v.healthy < v.wanted { Tone::Bad } else { Tone::Plain };
    let healthy = (format!("{}/{} ok", v.healthy, v.wanted), 6, ill);
    if let Some(t) = v.traffic {
        let errors = (
            format!("{} err", format::errors(t.error_percent)),
            9,
            if loud { Tone::Bad } else { Tone::Plain },
        );
        let time = match (t.p95_ms, t.mean_ms) {
            (Some(p95), _) => format!("p95 {}", format::latency(p95)),
            (None, Some(mean)) => format!("mean {}", format::latency(mean)),
            (None, None) => String::new(),
        };
        // In the order in which they are given up, from the end.
        fields.extend([errors, (format::rate(t.rate), 6, Tone::Plain), (time, 8, Tone::Plain), healthy]);
        // The table of a comparison counts from another moment: two counts that differ would puzzle.
        let compared = service.rollout.as_ref().is_some_and(|r| r.comparison.is_some());
        fields.extend((!compared).then(|| {
            (
                format!(
                    "{} of {} failed",
                    format::thousands(t.errors + t.retries),
                    format::thousands(t.requests)
                ),
                24,
                Tone::Dim,
            )
        }));
    } else {
        fields.extend([("no traffic".into(), 10, Tone::Dim), healthy]);
    }
    // The version has to start where its neighbours do, so the role has a fixed column.
    let head = 9 + 1 + versions + 1;
    let free = area.width.saturating_sub(head);
    let mut taken = 0;
    fields.retain(|(_, w, _)| {
        let fits = taken + w + 1 + 5 <= free;
        if fits {
            taken += w + 1;
        }
        fits
    });
    // On screen the numbers stand in the order that reads best: share, rate, errors, time.
    if fields.len() > 2 && v.traffic.is_some() {
        fields.swap(1, 2);
    }
    let bar = free.saturating_sub(taken).min(48);
    let weight = v.actual_weight.unwrap_or(v.weight);
    let full = (u32::from(bar) * u32::from(weight) + 5_000) / 10_000;
    // A share that is not zero must be seen, and one that is not all must not look like all.
    let full = match weight {
        0 => 0,
        10_000 => u32::from(bar),
        _ => full.clamp(1, u32::from(bar).saturating_sub(1).max(1)),
    };
    let full = u16::try_from(full).unwrap_or(bar).min(bar);
    let mut pen = Pen::new(buf, theme, area, row);
    pen.column(role, 9, tone).column(v.revision.version.as_str(), versions, tone);
    pen.fill(g.full, full, tone).fill(g.empty, bar - full, Tone::Dim);
    for (text, w, tone) in fields {
        pen.skip(1).number(&text, w, tone).back();
    }
}

/// `set 25%  read back 25%  measured 24.6%`: three ways to know a share; they should agree.
fn weights(theme: &Theme, v: &RevisionView, area: Rect, row: u16, buf: &mut Buffer) {
    let mut pen = Pen::new(buf, theme, area, row);
    pen.text("set ", Tone::Dim).text(&format::percent(v.weight), Tone::Plain).skip(2);
    match v.actual_weight {
        Some(w) if w == v.weight => {
            pen.text("read back ", Tone::Dim).text(&format::percent(w), Tone::Plain);
        }
        Some(w) => {
            pen.text(&format!("read back {} (not yet as set)", format::percent(w)), Tone::Warn);
        }
        None => {
            pen.text("read back: not known", Tone::Warn);
        }
    }
    pen.skip(2);
    if let Some(share) = v.share {
        pen.text("measured ", Tone::Dim).text(&format::share(share), Tone::Plain).skip(2);
    }
    let tone = if v.healthy < v.wanted { Tone::Bad } else { Tone::Ok };
    pen.whole(&format!("{}/{} healthy", v.healthy, v.wanted), tone);
}

/// No rollout under way.
fn idle(model: &Model, theme: &Theme, service: &ServiceView, area: Rect, buf: &mut Buffer) {
    let mut rest = area;
    let room = usize::from(area.width.saturating_sub(1));
    let mut say = |text: String, tone: Tone, rest: &mut Rect| {
        for line in wrap(&text, room) {
            if rest.height > 0 {
                Pen::new(buf, theme, super::cut_top(rest, 1), 0).text(&line, tone);
            }
        }
    };
    if let Some(r) = &service.rollout {
        let (text, tone) = status(model, service, r);
        let ended = r.ended_ms.map_or_else(String::new, |end| {
            let ago = format::age(model.wall_ms.saturating_sub(end));
            format!(" ({} by {}, took {}, ended {ago} ago)", r.id, r.by, timeline::took(r.started_ms, end))
        });
        say(format!("{text}{ended}"), tone, &mut rest);
        for owed in &r.owed {
            say(format!("still owed: {owed}"), Tone::Warn, &mut rest);
        }
        for (text, tone) in notes::downtime(model, r).into_iter().chain(notes::comparison(model, r)) {
            say(text, tone, &mut rest);
        }
    }
    let Some(stable) = &service.stable else {
        say(format!("Nothing of {} runs yet.", service.name), Tone::Strong, &mut rest);
        if model.steers() && service.verbs.contains(&VerbKind::Deploy) {
            say(
                format!(
                    "Press {} to choose a version and see its plan; nothing happens before you confirm.",
                    model.keys.key(Action::Deploy)
                ),
                Tone::Plain,
                &mut rest,
            );
        } else {
            say("'pilothouse up' starts what the fleet file declares.".into(), Tone::Plain, &mut rest);
        }
        for hint in &model.demo_hint {
            say(hint.as_str().into(), Tone::Accent, &mut rest);
        }
        return;
    };
    if let Some(v) = revision(service, Role::Stable) {
        let row = super::cut_top(&mut rest, 1);
        if row.height > 0 {
            revision_line(theme, service, v, width(v.revision.version.as_str()), row, 0, buf);
        }
    } else if rest.height > 0 {
        Pen::new(buf, theme, super::cut_top(&mut rest, 1), 0)
            .text(&format!("{} serves", stable.version), Tone::Stable);
    }
    let mut say = |text: String, tone: Tone, rest: &mut Rect| {
        for line in wrap(&text, room) {
            if rest.height > 0 {
                Pen::new(buf, theme, super::cut_top(rest, 1), 0).text(&line, tone);
            }
        }
    };
    let back = model.keys.key(Action::Rollback);
    let key = if model.steers() { format!(" ({back})") } else { String::new() };
    match &service.previous {
        Some(p) if service.previous_warm => {
            say(format!("way back: {}, at once: it still runs{key}", p.version), Tone::Plain, &mut rest);
        }
        Some(p) => say(
            format!("way back: {}, its instances are started first{key}", p.version),
            Tone::Plain,
            &mut rest,
        ),
        None => say("way back: none, there is no previous version".into(), Tone::Dim, &mut rest),
    }
    for drift in &service.drift {
        say(format!("drift: {drift}"), Tone::Warn, &mut rest);
    }
    let others: Vec<&str> =
        service.known_versions.iter().filter(|v| **v != stable.version).map(|v| v.as_str()).take(6).collect();
    if model.steers() && !others.is_empty() && service.verbs.contains(&VerbKind::Deploy) {
        let key = model.keys.key(Action::Deploy);
        say(format!("can be deployed ({key}): {}", others.join(", ")), Tone::Plain, &mut rest);
    }
    for hint in &model.demo_hint {
        say(hint.as_str().into(), Tone::Accent, &mut rest);
    }
    charts(model, theme, service, 0, &mut rest, buf);
    if let Some(r) = service.rollout.as_ref().filter(|_| rest.height > 0) {
        timeline::draw(model, theme, r, rest, 0, buf);
    }
}

/// Nothing is declared: say what to do.
fn empty_fleet(model: &Model) -> Vec<(String, Tone)> {
    let fleet = model.snapshot.as_ref().map(|s| s.controller.fleet.as_str()).unwrap_or_default();
    let mut lines = vec![
        (format!("Fleet {fleet} runs nothing yet."), Tone::Strong),
        ("1. Declare services in fleet.toml ('pilothouse check' finds mistakes in it).".into(), Tone::Plain),
        ("2. In another terminal: pilothouse up".into(), Tone::Plain),
        ("They appear here by themselves.".into(), Tone::Plain),
    ];
    lines.extend(model.demo_hint.iter().map(|h| (h.as_str().to_owned(), Tone::Accent)));
    lines
}

/// The rollout in one row, above whatever has the screen.
pub(super) fn strip(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let mut pen = Pen::new(buf, theme, area, 0);
    pen.skip(1);
    let Some(service) = model.service_view() else {
        pen.text("no service", Tone::Dim);
        return;
    };
    pen.text(service.name.as_str(), Tone::Accent).skip(1);
    let Some(r) = service.rollout.as_ref().filter(|r| !r.status.ended()) else {
        let (text, tone) = super::services::state(service);
        pen.text(&text, tone).skip(1);
        if let Some(stable) = &service.stable {
            pen.text(stable.version.as_str(), Tone::Stable);
        }
        return;
    };
    let weight =
        revision(service, Role::Candidate).map(|v| format::percent(v.actual_weight.unwrap_or(v.weight)));
    pen.text(r.to.as_str(), Tone::Candidate)
        .skip(1)
        .text(&weight.unwrap_or_default(), Tone::Candidate)
        .skip(2);
    if harm(service).is_some() {
        pen.text("! candidate FAILS", Tone::Bad).skip(2);
    }
    let (text, tone) = status(model, service, r);
    pen.text(&text, tone);
}
