//! The phases of a rollout on one line: those that are over and how long each took, the one now and since when, those
//! to come and what they wait for. What does not fit is left out: first the times, then the phases far from the one now.

use std::cmp::Ordering;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::{Pen, width};
use crate::api::{PhaseView, RolloutStatus, RolloutView};
use crate::fleet::names::Millis;
use crate::tui::format;
use crate::tui::model::Model;
use crate::tui::theme::{Theme, Tone};

/// How long something took, as `show` says it: `35s`, `2m5s`, `1h10m`.
pub(super) fn took(from_ms: u64, to_ms: u64) -> String {
    Millis(to_ms.saturating_sub(from_ms) / 1000 * 1000).to_string()
}

/// `for 4m`: how long the phase now has lasted; empty when nobody knows, and when the rollout is over.
pub(super) fn lasts(model: &Model, r: &RolloutView) -> String {
    let entered = r.phases.get(r.phase).and_then(|p| p.entered_ms).filter(|_| !r.status.ended());
    entered.map_or_else(String::new, |at| format!("for {}", format::age(model.wall_ms.saturating_sub(at))))
}

/// What a phase that has not begun waits for at least: `10m+`, `promote`.
fn expected(p: &PhaseView) -> String {
    let by_hand = p.gates.iter().any(|g| g.as_str() == "promote");
    match (p.at_least_ms, by_hand) {
        (0, false) => String::new(),
        (0, true) => "promote".to_owned(),
        (ms, false) => format!("{}+", Millis(ms)),
        (ms, true) => format!("{}+ promote", Millis(ms)),
    }
}

/// One phase, as it stands on the line.
struct Item<'a> {
    mark: &'static str,
    name: &'a str,
    time: String,
    tone: Tone,
    when: Ordering,
}

impl Item<'_> {
    /// Columns, with the gap behind it.
    fn size(&self, times: Times) -> usize {
        let time = if times.shows(self.when) && !self.time.is_empty() { 1 + self.time.len() } else { 0 };
        4 + usize::from(width(self.name)) + time
    }
}

/// Which times there is room for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    All,
    /// Those that have been.
    Past,
    /// The one of the phase now.
    Now,
    None,
}

impl Times {
    fn shows(self, when: Ordering) -> bool {
        match self {
            Self::All => true,
            Self::Past => when != Ordering::Greater,
            Self::Now => when == Ordering::Equal,
            Self::None => false,
        }
    }
}

fn item<'a>(model: &Model, theme: &Theme, r: &'a RolloutView, n: usize, p: &'a PhaseView) -> Item<'a> {
    let g = theme.glyphs();
    let over = r.status == RolloutStatus::Done;
    let when = if over { Ordering::Less } else { n.cmp(&r.phase) };
    let later = r.phases.iter().skip(n + 1).find_map(|p| p.entered_ms);
    let (mark, time, tone) = match (when, p.entered_ms) {
        (Ordering::Less, Some(from)) => {
            let time = later.or(r.ended_ms).map_or_else(String::new, |to| took(from, to));
            (g.done, time, Tone::Ok)
        }
        // Somebody promoted past it. Without any times, nobody knows.
        (Ordering::Less, None) if later.is_some() => (g.todo, "skipped".to_owned(), Tone::Dim),
        (Ordering::Less, None) => (g.done, String::new(), Tone::Ok),
        (Ordering::Equal, from) if r.status.ended() => {
            let time = from.zip(r.ended_ms).map_or_else(String::new, |(from, to)| took(from, to));
            ("<", time, Tone::Warn)
        }
        (Ordering::Equal, _) => (g.now, lasts(model, r), Tone::Accent),
        // What goes back does not get there.
        (Ordering::Greater, _) if r.status == RolloutStatus::Aborting => (g.todo, String::new(), Tone::Dim),
        (Ordering::Greater, _) => (g.todo, expected(p), Tone::Dim),
    };
    Item { mark, name: p.name.as_str(), time, tone, when }
}

/// `✓ start 35s  ✓ 5% 2m5s  ▶ 25% for 4m  · 50% promote  · 100%`; of many phases, those around the one now:
/// `✓ 12 done  ▶ node-13 for 20s  · 17 more`.
pub(super) fn draw(model: &Model, theme: &Theme, r: &RolloutView, area: Rect, row: u16, buf: &mut Buffer) {
    let g = theme.glyphs();
    // What was taken back did not get to those.
    let ended = r.status.ended() && r.status != RolloutStatus::Done;
    let shown = if ended { r.phase + 1 } else { r.phases.len() };
    let items: Vec<Item<'_>> =
        r.phases.iter().enumerate().take(shown).map(|(n, p)| item(model, theme, r, n, p)).collect();
    let Some(end) = items.len().checked_sub(1) else { return };
    // The last one needs no gap behind it.
    let room = usize::from(area.width.saturating_sub(1)) + 2;
    let whole = |times: &Times| items.iter().map(|i| i.size(*times)).sum::<usize>() <= room;
    let all = [Times::All, Times::Past, Times::Now, Times::None].into_iter().find(whole);
    let (times, first, last) = match all {
        Some(times) => (times, 0, end),
        None => around(&items, r.phase.min(end), room),
    };
    let mut pen = Pen::new(buf, theme, area, row);
    if first > 0 {
        pen.text(g.done, Tone::Ok).skip(1).text(&done(first), Tone::Ok).skip(2);
    }
    for i in items.iter().take(last + 1).skip(first) {
        pen.text(i.mark, i.tone).skip(1).text(i.name, i.tone);
        if times.shows(i.when) && !i.time.is_empty() {
            let tone = if i.when == Ordering::Equal { i.tone } else { Tone::Dim };
            pen.skip(1).text(&i.time, tone);
        }
        pen.skip(2);
    }
    if last < end {
        pen.text(g.todo, Tone::Dim).skip(1).text(&more(end - last), Tone::Dim);
    }
}

fn done(n: usize) -> String {
    format!("{n} done")
}

fn more(n: usize) -> String {
    format!("{n} more")
}

/// The phases around `at` for which there is room, with the rest counted: which times, the first and the last.
fn around(items: &[Item<'_>], at: usize, room: usize) -> (Times, usize, usize) {
    let end = items.len().saturating_sub(1);
    let counted = |first: usize, last: usize| {
        let before = if first > 0 { 4 + done(first).len() } else { 0 };
        before + if last < end { 4 + more(end - last).len() } else { 0 }
    };
    let size = |n: usize, times| items.get(n).map_or(0, |i: &Item<'_>| i.size(times));
    let fits = size(at, Times::Now) + counted(at, at) <= room;
    let times = if fits { Times::Now } else { Times::None };
    let (mut first, mut last) = (at, at);
    let mut used = size(at, times);
    loop {
        let before = (first, last);
        if last < end && used + size(last + 1, times) + counted(first, last + 1) <= room {
            last += 1;
            used += size(last, times);
        }
        if first > 0 && used + size(first - 1, times) + counted(first - 1, last) <= room {
            first -= 1;
            used += size(first, times);
        }
        if (first, last) == before {
            return (times, first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    /// The line of `web`'s rollout, `columns` wide, after `change`.
    fn line(columns: u16, change: impl FnOnce(&mut RolloutView)) -> String {
        let mut s = fixture::canary();
        let r = s.services.iter_mut().find_map(|s| s.rollout.as_mut()).unwrap();
        change(r);
        let model = Model { wall_ms: fixture::WALL_MS, ..Model::default() };
        let area = Rect::new(0, 0, columns, 1);
        let mut buf = Buffer::empty(area);
        draw(&model, &Theme::default(), r, area, 0, &mut buf);
        let row: String = (0..columns).map(|x| buf[(x, 0)].symbol()).collect();
        row.trim_end().to_owned()
    }

    #[test]
    fn times_are_given_up_before_phases_are_those_to_come_first() {
        let same = |_: &mut RolloutView| {};
        assert_eq!(line(70, same), "✓ start 35s  ✓ 5% 3m5s  ▶ 25% for 4m  · 50% promote  · 100%");
        assert_eq!(line(55, same), "✓ start 35s  ✓ 5% 3m5s  ▶ 25% for 4m  · 50%  · 100%");
        assert_eq!(line(45, same), "✓ start  ✓ 5%  ▶ 25% for 4m  · 50%  · 100%");
        assert_eq!(line(37, same), "✓ start  ✓ 5%  ▶ 25%  · 50%  · 100%");
        assert_eq!(line(30, same), "✓ 2 done  ▶ 25%  · 2 more");
    }

    #[test]
    fn what_was_passed_over_took_no_time_and_is_not_called_done() {
        let skipped = |r: &mut RolloutView| {
            r.phase = 4;
            r.phases[4].entered_ms = Some(fixture::WALL_MS - 60_000);
        };
        assert_eq!(line(70, skipped), "✓ start 35s  ✓ 5% 3m5s  ✓ 25% 3m20s  · 50% skipped  ▶ 100% for 1m");
        // A controller that does not say when: done is done.
        let unknown = |r: &mut RolloutView| r.phases.iter_mut().for_each(|p| p.entered_ms = None);
        assert_eq!(line(70, unknown), "✓ start  ✓ 5%  ▶ 25%  · 50% promote  · 100%");
    }

    #[test]
    fn what_is_over_ends_where_it_ended() {
        let end = |status| {
            move |r: &mut RolloutView| {
                (r.status, r.ended_ms) = (status, Some(fixture::WALL_MS - 200_000));
            }
        };
        assert_eq!(line(70, end(RolloutStatus::Aborted)), "✓ start 35s  ✓ 5% 3m5s  < 25% 1m");
        let going_back = |r: &mut RolloutView| r.status = RolloutStatus::Aborting;
        assert_eq!(line(70, going_back), "✓ start 35s  ✓ 5% 3m5s  ▶ 25% for 4m  · 50%  · 100%");
        // A clock that was set back takes nothing from anybody.
        let back = |r: &mut RolloutView| r.phases[1].entered_ms = Some(fixture::WALL_MS);
        assert_eq!(line(70, back), "✓ start 8m  ✓ 5% 0s  ▶ 25% for 4m  · 50% promote  · 100%");
    }
}
