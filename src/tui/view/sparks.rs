//! The last minutes of each version as little charts: requests, failures, response time. Time goes from left to right,
//! ten seconds a point. What was not measured is empty, which is not zero.
//!
//! A chart that scrolls is drawn anew with every point. These grow to the right, one cell at a time, and are moved to
//! the left by a quarter when they are full: that is what a slow link can carry.

use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use super::rollout::harm;
use crate::api::{Point, RevisionView, Role, ServiceView, step};
use crate::tui::format;
use crate::tui::model::Model;
use crate::tui::theme::{Graph, Theme, Tone};

/// Widest and narrowest chart, in columns.
const MOST: u16 = 60;
const LEAST: u16 = 5;
/// Columns of the role in front, as in the line with the numbers.
const HEAD: u16 = 10;
/// Room from which names are written out, and the scale is said.
const ROOMY: u16 = 110;
/// Failures in per cent and milliseconds that the scale reaches at least: less is not worth a mountain.
const LEAST_ERRORS: f32 = 1.0;
const LEAST_TIME: f32 = 10.0;

/// Columns of each chart in a pane of `room`; `None` when there is no room for any.
fn cells(room: u16) -> Option<u16> {
    // A name, a space, the chart, and what is free behind it.
    let around = if room >= ROOMY { 8 + 1 + 1 + 8 + 2 } else { 3 + 1 + 1 };
    let each = (room.saturating_sub(HEAD) / 3).checked_sub(around)?;
    (each >= LEAST).then_some(each.min(MOST))
}

/// The versions of `service` that have charts and that there is a row for, in the order of the roles. When there is
/// only one row, the version that is being watched has it.
pub(super) fn shown<'a>(
    model: &Model,
    service: &'a ServiceView,
    room: u16,
    rows: usize,
) -> Vec<&'a RevisionView> {
    if cells(room).is_none() {
        return vec![];
    }
    let measured =
        |v: &&RevisionView| v.role != Role::Old && model.trends.of(&service.name, &v.revision.id).is_some();
    let mut all: Vec<&RevisionView> = service.revisions.iter().filter(measured).collect();
    all.sort_by_key(|v| v.role as u8);
    let over = all.len().saturating_sub(rows);
    all.drain(..over);
    all
}

/// Whether there may be a chart in sight, which grows with the time.
pub(super) fn any(model: &Model) -> bool {
    model
        .service_view()
        .is_some_and(|s| s.revisions.iter().any(|v| model.trends.of(&s.name, &v.revision.id).is_some()))
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `most`: a scale that changes seldom.
fn scale(most: f32, least: f32) -> f32 {
    let most = most.max(least);
    let power = 10f32.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= most).unwrap_or(most)
}

/// One to `levels`: what is nothing is the lowest, and anything is more than that.
fn level(value: f32, top: f32, levels: u8) -> u8 {
    if value <= 0.0 || top <= 0.0 {
        return 1;
    }
    let steps = f32::from(levels - 1);
    // Bounded by `steps`, so the cast is exact.
    (1 + (value / top * steps).ceil().min(steps) as u8).max(2)
}

/// What is measured in each step of the window, the oldest first; `None` where nothing was, and where nothing can have
/// been yet.
fn window(model: &Model, points: &VecDeque<Point>, width: usize) -> Vec<Option<Point>> {
    // A lost controller's picture stands still. What is not over has no point yet.
    let last = points.back().map_or(0, |p| p.step + 1);
    let now = if model.live() { step(model.wall_ms).max(last.saturating_sub(1)) } else { last };
    let quarter = (width as u64 / 4).max(1);
    let end = now.div_ceil(quarter) * quarter;
    let begin = end.saturating_sub(width as u64);
    let mut out = vec![None; width];
    for p in points.iter().filter(|p| p.step >= begin && p.step < now) {
        let at = usize::try_from(p.step - begin).ok();
        if let Some(place) = at.and_then(|at| out.get_mut(at)) {
            *place = Some(*p);
        }
    }
    out
}

/// A chart as text, one character a column.
fn chart(values: &[Option<f32>], top: f32, graph: Graph) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const SIGNS: [char; 7] = ['.', ':', '-', '=', '+', '*', '#'];
    let pick = |set: &[char], v: &Option<f32>| {
        let levels = u8::try_from(set.len()).unwrap_or(u8::MAX);
        let at = v.map(|v| usize::from(level(v, top, levels)) - 1);
        at.and_then(|at| set.get(at)).copied().unwrap_or(' ')
    };
    match graph {
        Graph::Block => values.iter().map(|v| pick(&BLOCKS, v)).collect(),
        Graph::Ascii => values.iter().map(|v| pick(&SIGNS, v)).collect(),
        Graph::Braille => values.chunks(2).map(|pair| braille(pair, top)).collect(),
    }
}

/// Two points in one character, each a column of up to four dots.
fn braille(pair: &[Option<f32>], top: f32) -> char {
    // From the lowest dot up, as Unicode numbers them.
    const DOTS: [[u32; 4]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];
    let dots = pair.iter().zip(DOTS).flat_map(|(v, column)| {
        let height = v.map_or(0, |v| level(v, top, 4));
        column.into_iter().take(height.into())
    });
    let bits: u32 = dots.sum();
    if bits == 0 { ' ' } else { char::from_u32(0x2800 + bits).unwrap_or(' ') }
}

/// One row for each of `views`, which [`shown`] has chosen.
pub(super) fn draw(
    model: &Model,
    theme: &Theme,
    service: &ServiceView,
    views: &[&RevisionView],
    area: Rect,
    buf: &mut Buffer,
) {
    let room = area.width.saturating_sub(1);
    let Some(cells) = cells(room) else { return };
    let graph = theme.graph();
    let points = usize::from(cells) * if graph == Graph::Braille { 2 } else { 1 };
    let windows: Vec<Vec<Option<Point>>> = views
        .iter()
        .map(|v| {
            let points_of = model.trends.of(&service.name, &v.revision.id);
            points_of.map_or_else(|| vec![None; points], |p| window(model, p, points))
        })
        .collect();
    // Two versions can be compared only on one scale; not so their requests, of which each has its share.
    let most = |of: fn(&Point) -> f32| windows.iter().flatten().flatten().map(of).fold(0.0, f32::max);
    let errors_top = scale(most(|p| p.errors), LEAST_ERRORS);
    let time_top = scale(most(|p| p.time.unwrap_or(0.0)), LEAST_TIME);
    for ((row, v), window) in (0..area.height).zip(views).zip(&windows) {
        let (role, tone) = match v.role {
            Role::Candidate => ("candidate", Tone::Candidate),
            Role::Stable | Role::Old => ("stable", Tone::Stable),
        };
        let values = |of: fn(&Point) -> Option<f32>| -> Vec<Option<f32>> {
            window.iter().map(|p| p.as_ref().and_then(of)).collect()
        };
        let (rate, errors) = (values(|p| Some(p.rate)), values(|p| Some(p.errors)));
        let rate_top = scale(rate.iter().flatten().copied().fold(0.0, f32::max), 1.0);
        let failing = errors.iter().flatten().any(|e| *e > 0.0);
        let errors_tone = match v.role {
            Role::Candidate if harm(service).is_some() => Tone::Bad,
            _ if failing => Tone::Warn,
            _ => Tone::Dim,
        };
        let short = room < ROOMY;
        let time = match v.traffic.is_some_and(|t| t.p95_ms.is_none()) {
            true if short => "avg",
            true => "mean",
            false => "p95",
        };
        let charts = [
            (if short { "req" } else { "requests" }, rate, rate_top, format::rate(rate_top), tone),
            (
                if short { "err" } else { "errors" },
                errors,
                errors_top,
                format::errors(errors_top),
                errors_tone,
            ),
            (time, values(|p| p.time), time_top, format::latency(time_top), tone),
        ];
        let mut pen = Pen::new(buf, theme, area, row);
        pen.column(role, HEAD - 1, tone);
        for (name, values, top, said, tone) in charts {
            pen.column(name, if short { 3 } else { 8 }, Tone::Dim);
            pen.column(&chart(&values, top, graph), cells, tone);
            if !short {
                let measured = values.iter().any(Option::is_some);
                let said = if measured { format!("to {said}") } else { String::new() };
                pen.column(&said, 8, Tone::Dim).skip(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::STEP_MS;

    #[test]
    fn nothing_measured_is_empty_zero_is_the_lowest_and_anything_is_more() {
        let values = [None, Some(0.0), Some(0.001), Some(5.0), Some(10.0), Some(99.0)];
        assert_eq!(chart(&values, 10.0, Graph::Block), " ▁▂▅██");
        assert_eq!(chart(&values, 10.0, Graph::Ascii), " .:=##");
        assert_eq!(chart(&values, 10.0, Graph::Braille), "⢀⣴⣿");
        assert_eq!(chart(&[Some(1.0), None], 10.0, Graph::Braille), "⡄");
    }

    #[test]
    fn scales_are_round_and_change_seldom() {
        for (most, top) in [(0.0, 1.0), (0.3, 1.0), (1.1, 2.0), (2.0, 2.0), (49.0, 50.0), (51.0, 100.0)] {
            assert_eq!(scale(most, 1.0), top, "{most}");
        }
        assert!(scale(f32::MAX, 1.0) >= f32::MAX);
    }

    #[test]
    fn a_chart_grows_to_the_right_and_moves_by_a_quarter_when_it_is_full() {
        let points: VecDeque<Point> = (0..200).map(|step| Point { step, ..Point::default() }).collect();
        let mut model = Model { link: crate::tui::model::Link::Live, ..Model::default() };
        let mut steps = |now: u64| -> Vec<Option<u64>> {
            model.wall_ms = now * STEP_MS;
            let here = points.iter().copied().filter(|p| p.step <= now).collect();
            window(&model, &here, 8).iter().map(|p| p.map(|p| p.step)).collect()
        };
        let row = |from: u64, n: u64| -> Vec<Option<u64>> {
            (from..from + 8).map(|s| (s < from + n).then_some(s)).collect()
        };
        assert_eq!(steps(100), row(92, 8));
        assert_eq!(steps(101), row(94, 7), "one cell of the next two is filled");
        assert_eq!(steps(102), row(94, 8));
        // The point of the step that is not over yet is not shown.
        assert!(!steps(101).contains(&Some(101)));
    }

    #[test]
    fn a_lost_picture_stands_still() {
        let points: VecDeque<Point> = (0..20).map(|step| Point { step, ..Point::default() }).collect();
        let mut model = Model { wall_ms: 20 * STEP_MS, ..Model::default() };
        let before = window(&model, &points, 8);
        model.wall_ms = 500 * STEP_MS;
        assert_eq!(window(&model, &points, 8), before);
        assert!(before.contains(&points.back().copied()));
    }

    #[test]
    fn a_narrow_pane_has_no_charts() {
        assert_eq!(cells(38), None);
        assert_eq!(cells(55), Some(10));
        assert_eq!(cells(400), Some(MOST));
    }
}
