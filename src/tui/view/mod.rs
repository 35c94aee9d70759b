//! The picture: one pane per file, each a pure function of the model, and the layout that places them.
//!
//! Panes go in this order when the terminal gets smaller: health, services, events, fleet. The header, the rollout
//! and the verbs stay to the last.

mod again;
mod bar;
mod details;
mod dialogs;
mod events;
mod fleet;
mod header;
mod health;
mod help;
mod logs;
mod notes;
mod palette;
mod pen;
mod rollout;
mod services;
mod sparks;
#[cfg(test)]
mod tests;
mod timeline;
mod welcome;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use super::filter::List;
use super::format;
use super::keys::Action;
use super::model::{Link, Loudness, Model, Notice, Overlay, Pane};
use super::theme::{Theme, Tone};
use pen::Pen;

/// Columns that `text` takes on the screen.
#[must_use]
pub fn columns(text: &str) -> u16 {
    pen::width(text)
}

/// Where everything goes. A pane that is not shown has no rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Places {
    header: Rect,
    alarms: Rect,
    services: Option<Rect>,
    rollout: Option<Rect>,
    /// The rollout in one row, above a pane that has the screen.
    strip: Option<Rect>,
    fleet: Option<Rect>,
    health: Option<Rect>,
    events: Option<Rect>,
    logs: Option<Rect>,
    bar: Rect,
}

impl Places {
    fn body(&self) -> Rect {
        let top = self.alarms.bottom().max(self.header.bottom());
        Rect { y: top, height: self.bar.y.saturating_sub(top), ..self.header }
    }
}

/// Width from which two panes fit beside each other.
const WIDE: u16 = 70;
/// Rows of the rollout pane that show everything it has, its title included.
const ROLLOUT_ROWS: u16 = 8;
/// Fewest rows for which another pane is worth showing.
const LEAST: u16 = 4;

fn cut_top(area: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    let top = Rect { height: rows, ..*area };
    area.y += rows;
    area.height -= rows;
    top
}

fn cut_bottom(area: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    area.height -= rows;
    Rect { y: area.bottom(), height: rows, ..*area }
}

fn cut_left(area: &mut Rect, columns: u16) -> Rect {
    let columns = columns.min(area.width);
    let left = Rect { width: columns, ..*area };
    area.x += columns;
    area.width -= columns;
    left
}

fn cut_right(area: &mut Rect, columns: u16) -> Rect {
    let columns = columns.min(area.width);
    area.width -= columns;
    Rect { x: area.right(), width: columns, ..*area }
}

/// The first of `len` lines to show in `rows` rows, so that line `at` is in the middle where that is possible.
fn window(at: usize, len: usize, rows: usize) -> usize {
    at.saturating_sub(rows / 2).min(len.saturating_sub(rows))
}

fn places(model: &Model, area: Rect) -> Places {
    let mut rest = area;
    let header = cut_top(&mut rest, 1);
    let alarms = model.snapshot.as_ref().map_or(0, |s| s.alarms.len());
    // A bar of two rows on narrow screens, so that no verb is lost.
    let bar = cut_bottom(&mut rest, if area.width < 60 && area.height >= 9 { 2 } else { 1 });
    let most = if area.height >= 30 { 4 } else { 2 };
    let alarms = if rest.height > 4 { alarms.min(most) } else { alarms.min(1).min(rest.height.into()) };
    let alarms = cut_top(&mut rest, u16::try_from(alarms).unwrap_or(1));
    let mut p = Places { header, alarms, bar, ..Places::default() };
    if rest.height == 0 {
        return p;
    }
    if model.logs.is_some() {
        p.strip = Some(cut_top(&mut rest, 1));
        p.logs = Some(rest);
        return p;
    }
    let board = board(model, rest, p);
    if model.zoom || !board.shows(model.focus) {
        if model.focus != Pane::Rollout {
            p.strip = Some(cut_top(&mut rest, 1));
        }
        *p.place(model.focus) = Some(rest);
        return p;
    }
    board
}

impl Places {
    fn place(&mut self, pane: Pane) -> &mut Option<Rect> {
        match pane {
            Pane::Services => &mut self.services,
            Pane::Rollout => &mut self.rollout,
            Pane::Fleet => &mut self.fleet,
            Pane::Health => &mut self.health,
            Pane::Events => &mut self.events,
        }
    }

    fn shows(&self, pane: Pane) -> bool {
        match pane {
            // The list of services is also in the rollout's title: not having its pane is no reason to leave the board.
            Pane::Services | Pane::Rollout => true,
            Pane::Fleet => self.fleet.is_some(),
            Pane::Health => self.health.is_some(),
            Pane::Events => self.events.is_some(),
        }
    }
}

/// The panes beside and below each other.
fn board(model: &Model, mut rest: Rect, mut p: Places) -> Places {
    let wide = rest.width >= WIDE;
    // What is special about a rollout may take rows of the panes below, as long as these stay worth having.
    let special = notes::rows(model).min(if rest.height >= 26 { 6 } else { 3 });
    let wanted = ROLLOUT_ROWS + u16::from(rest.height >= 26) + u16::from(rest.height >= 40) + special;
    let top_rows = if rest.height >= wanted + LEAST { wanted } else { rest.height };
    let mut top = cut_top(&mut rest, top_rows);
    if wide {
        let services = model.snapshot.as_ref().map(|s| s.services.as_slice()).unwrap_or_default();
        p.services =
            Some(cut_left(&mut top, services::wanted(services).clamp(20, (rest.width * 3 / 10).max(20))));
    }
    p.rollout = Some(top);
    if rest.height >= 2 * LEAST + 2 {
        let rows = (rest.height * 2 / 5).clamp(LEAST + 1, 16);
        let mut tail = cut_bottom(&mut rest, rows);
        if wide {
            p.health = Some(cut_left(&mut tail, rest.width / 2));
        }
        p.events = Some(tail);
    }
    if rest.height >= LEAST {
        p.fleet = Some(rest);
    }
    p
}

/// What is at a place of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The pane.
    pub pane: Pane,
    /// Which line of its list, from 0, where it is a list that lines can be chosen from; it may be beyond the last.
    pub line: Option<usize>,
}

/// What is at a column and a row; nothing where there is no pane.
#[must_use]
pub fn spot(model: &Model, x: u16, y: u16) -> Option<Spot> {
    let mut p = places(model, screen(model));
    let at = |area: &Rect| area.contains((x, y).into());
    let (pane, area) = Pane::ALL.iter().find_map(|pane| Some((*pane, (*p.place(*pane)).filter(at)?)))?;
    let below = |head: u16| y.checked_sub(area.y + head).map(usize::from);
    let line = match pane {
        Pane::Services => below(1).map(|row| services::first(model, area) + row),
        Pane::Fleet => below(2).map(|row| fleet::visible(model, area).start + row),
        Pane::Rollout | Pane::Health | Pane::Events => None,
    };
    Some(Spot { pane, line })
}

fn screen(model: &Model) -> Rect {
    Rect::new(0, 0, model.size.0, model.size.1)
}

/// Lines that a page of what scrolls now has.
#[must_use]
pub fn page(model: &Model) -> usize {
    let p = places(model, screen(model));
    if matches!(model.overlay, Overlay::Help(_) | Overlay::Details(_)) {
        return p.body().height.into();
    }
    if let Some(logs) = p.logs {
        return logs.height.saturating_sub(1).into();
    }
    let rect = match model.focus {
        Pane::Services | Pane::Rollout => return 1,
        // Title and column captions.
        Pane::Fleet => p.fleet.map(|r| r.height.saturating_sub(2)),
        Pane::Health => p.health.map(|r| r.height.saturating_sub(1)),
        Pane::Events => p.events.map(|r| r.height.saturating_sub(1)),
    };
    rect.unwrap_or(1).into()
}

/// Lines of the help page.
#[must_use]
pub fn help_lines(model: &Model) -> usize {
    help::lines(model)
}

/// Lines of the details that are open.
#[must_use]
pub fn details_lines(model: &Model) -> usize {
    details::lines(model)
}

/// Every text on the screen that the passing of time changes, so that a second in which none does costs nothing.
#[must_use]
pub fn clocks(model: &Model) -> String {
    let mut out = header::link_text(model);
    if let Some(left) = model.service_view().and_then(|s| model.gate_left(s)) {
        out.push_str(&format::countdown(left));
    }
    let rollout = model.service_view().and_then(|s| s.rollout.as_ref());
    out.extend(rollout.map(|r| timeline::lasts(model, r)));
    if sparks::any(model) {
        // One point more.
        out.push_str(&crate::api::step(model.wall_ms).to_string());
    }
    let empty = rollout.iter().flat_map(|r| &r.empty).map(|e| e.since_ms);
    let compared = rollout.and_then(|r| r.comparison.as_ref()).filter(|c| !c.over).map(|c| c.since_ms);
    for since in empty.chain(compared) {
        out.push_str(&format::age(model.wall_ms.saturating_sub(since)));
    }
    if let Overlay::Details(d) = &model.overlay
        && let Some(started) = model.instance_named(&d.instance).and_then(|i| i.started_ms)
    {
        out.push_str(&format::age(model.wall_ms.saturating_sub(started)));
    }
    if let Some(rect) = places(model, screen(model)).fleet {
        for n in fleet::visible(model, rect) {
            if let Some(started) = model.row(n).and_then(|i| i.started_ms) {
                out.push_str(&format::age(model.wall_ms.saturating_sub(started)));
            }
        }
    }
    out
}

/// Draws everything into `area` of `buf`, which is blank.
pub fn render(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    let p = places(model, area);
    if model.snapshot.is_none() {
        nothing_yet(model, theme, p.body(), buf);
    } else {
        panes(model, theme, &p, buf);
        if !model.live() {
            buf.set_style(p.body(), theme.faded());
        }
    }
    header::draw(model, theme, p.header, buf);
    header::alarms(model, theme, p.alarms, buf);
    match &model.overlay {
        Overlay::None if model.welcome && model.snapshot.is_some() => {
            welcome::draw(model, theme, p.body(), buf);
        }
        Overlay::None => {}
        Overlay::Help(top) => help::draw(model, theme, *top, p.body(), buf),
        Overlay::Dialog(d) => dialogs::draw(model, theme, d, p.body(), buf),
        Overlay::Details(d) => details::draw(model, theme, d, p.body(), buf),
        Overlay::Palette(typed) => palette::draw(model, theme, typed, p.body(), buf),
    }
    notice(model, theme, p.body(), buf);
    bar::draw(model, theme, p.bar, buf);
    if let Some((text, ground)) = theme.ground() {
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                let Some(cell) = buf.cell_mut((x, y)) else { continue };
                if cell.fg == Color::Reset {
                    cell.fg = text;
                }
                if cell.bg == Color::Reset {
                    cell.bg = ground;
                }
            }
        }
    }
}

fn panes(model: &Model, theme: &Theme, p: &Places, buf: &mut Buffer) {
    type Draw = fn(&Model, &Theme, Rect, &mut Buffer);
    let parts: [(Option<Rect>, Draw); 7] = [
        (p.services, services::draw),
        (p.rollout, rollout::draw),
        (p.strip, rollout::strip),
        (p.fleet, fleet::draw),
        (p.health, health::draw),
        (p.events, events::draw),
        (p.logs, logs::draw),
    ];
    for (rect, draw) in parts {
        if let Some(rect) = rect {
            draw(model, theme, rect, buf);
        }
    }
}

/// A pane's title on a rule, with a wall on its left when it has a neighbour there. Returns what is below and right.
fn frame(
    model: &Model,
    theme: &Theme,
    area: Rect,
    pane: Pane,
    text: &[(&str, Tone)],
    buf: &mut Buffer,
) -> Rect {
    let g = theme.glyphs();
    let mut inner = area;
    let row = cut_top(&mut inner, 1);
    let focused = model.focus == pane && model.logs.is_none();
    let (key, name) = (model.keys.key(Action::Focus(pane)), pane.title());
    // One that has no key has a name, which is there already.
    let title = if key.starts_with(':') { format!(" {name} ") } else { format!(" {key} {name} ") };
    let mut pen = Pen::new(buf, theme, row, 0);
    pen.fill(g.rule, 1, Tone::Dim);
    let tone = if focused { Tone::Selected } else { Tone::Strong };
    pen.text(&title, tone);
    for (text, tone) in text {
        pen.text(text, *tone);
    }
    if !text.is_empty() {
        pen.skip(1);
    }
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Dim);
    if area.x > buf.area.x {
        for row in 0..inner.height {
            Pen::new(buf, theme, inner, row).fill(g.wall, 1, Tone::Dim);
        }
    }
    // One column free on both sides, so that neither the wall nor the edge touches text.
    let left = 1 + u16::from(area.x > buf.area.x);
    cut_left(&mut inner, left);
    inner
}

/// A title that was put together, as [`frame`] takes it.
fn borrowed(title: &[(String, Tone)]) -> Vec<(&str, Tone)> {
    title.iter().map(|(text, tone)| (text.as_str(), *tone)).collect()
}

/// What a pane's title says of its list's filter: the text, how many of how many it leaves, and what is wrong with it.
fn filter_title(
    model: &Model,
    theme: &Theme,
    list: List,
    (shown, all): (usize, usize),
) -> Vec<(String, Tone)> {
    let filter = model.filters.of(list);
    let typing = model.filtering == Some(list);
    if !typing && !filter.active() {
        return vec![];
    }
    let caret = if typing { theme.glyphs().caret } else { "" };
    let mut out = vec![
        (format!(" /{}{caret}", filter.text()), Tone::Selected),
        (format!(" {shown} of {all}"), if shown == 0 { Tone::Warn } else { Tone::Dim }),
    ];
    if let Some(wrong) = filter.wrong() {
        out.push((format!(" ! {wrong}"), Tone::Bad));
    }
    out
}

/// The line above the bar.
fn notice(model: &Model, theme: &Theme, body: Rect, buf: &mut Buffer) {
    // The palette says itself what is not possible.
    if let Overlay::Palette(_) = model.overlay {
        return;
    }
    let lost;
    let notice = match (&model.notice, &model.link) {
        (Some(notice), _) => notice,
        (None, Link::Lost { why, .. }) if model.snapshot.is_some() => {
            lost = Notice {
                loudness: Loudness::Bad,
                text: format!(
                    "Verbs are off: the controller cannot be heard. The proxies keep serving; this is the last \
                     picture, and it comes back by itself. ({why})"
                )
                .into(),
                until_ms: None,
            };
            &lost
        }
        (None, _) => return,
    };
    let (tone, mark) = match notice.loudness {
        Loudness::Good => (Tone::Ok, theme.glyphs().done),
        Loudness::Note => (Tone::Strong, theme.glyphs().dot),
        Loudness::Bad => (Tone::Bad, "!"),
    };
    let room = usize::from(body.width.saturating_sub(4));
    // A refusal is worth more than one line of a pane that stands behind it.
    let lines = wrap(notice.text.as_str(), room);
    let rows =
        u16::try_from(lines.len()).unwrap_or(1).min(if notice.loudness == Loudness::Bad { 3 } else { 1 });
    let mut above = body;
    let area = cut_bottom(&mut above, rows);
    blank(area, buf);
    for (n, line) in (0..area.height).zip(&lines) {
        let mut pen = Pen::new(buf, theme, area, n);
        pen.skip(1).text(if n == 0 { mark } else { " " }, tone).skip(1);
        let more = n + 1 == area.height && lines.len() > usize::from(area.height);
        pen.text(line, tone).text(if more { theme.glyphs().cut } else { "" }, tone);
    }
}

/// Before the first picture.
fn nothing_yet(model: &Model, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let lines: Vec<(String, Tone)> = match &model.link {
        Link::Connecting | Link::Live => vec![("connecting to the controller ...".into(), Tone::Strong)],
        Link::Lost { why, .. } => vec![
            ("no controller answers yet".into(), Tone::Bad),
            (why.as_str().into(), Tone::Plain),
            (String::new(), Tone::Plain),
            (
                "Trying again by itself. A rollout that was under way goes on without this screen;".into(),
                Tone::Plain,
            ),
            ("the proxies keep serving whatever they serve.".into(), Tone::Plain),
        ],
    };
    paragraph(theme, area, &lines, buf);
}

/// Wrapped lines, one below the other, with a margin.
fn paragraph(theme: &Theme, area: Rect, lines: &[(String, Tone)], buf: &mut Buffer) {
    let margin = u16::from(area.height > 6);
    let mut inner = area;
    cut_top(&mut inner, margin);
    cut_left(&mut inner, 1 + margin);
    let wrapped = lines.iter().flat_map(|(text, tone)| {
        wrap(text, usize::from(inner.width.saturating_sub(1))).into_iter().map(move |line| (line, *tone))
    });
    for (row, (line, tone)) in (0..inner.height).zip(wrapped) {
        Pen::new(buf, theme, inner, row).text(&line, tone);
    }
}

fn blank(area: Rect, buf: &mut Buffer) {
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            if let Some(cell) = buf.cell_mut((x, y)) {
                cell.reset();
            }
        }
    }
}

/// Breaks `text` between words into lines of at most `room` columns; a longer word is cut by whoever draws it. What
/// the text is indented by, the lines that follow are indented by as well.
fn wrap(text: &str, room: usize) -> Vec<String> {
    // What fits keeps its own spaces: columns of a plan stay columns.
    if usize::from(columns(text)) <= room {
        return vec![text.to_owned()];
    }
    let indent = text.len() - text.trim_start_matches(' ').len();
    let pad = " ".repeat(indent.min(room / 2));
    let mut lines = Vec::new();
    let mut line = pad.clone();
    let mut used = pad.len();
    let mut empty = true;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let w = usize::from(columns(word));
        if !empty && used + 1 + w > room {
            lines.push(std::mem::replace(&mut line, pad.clone()));
            used = pad.len();
            empty = true;
        }
        if !empty {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += w;
        empty = false;
    }
    lines.push(line);
    lines
}
