//! The help page: the key table, with what is not possible now and why.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use crate::tui::keys::{Binding, Context, Group, possible};
use crate::tui::model::Model;
use crate::tui::theme::{Theme, Tone};

const GROUPS: [(Group, &str); 4] = [
    (Group::Steer, "STEER (the safe direction is fast, the risky one asks)"),
    (Group::Look, "LOOK"),
    (Group::Move, "MOVE"),
    (Group::Leave, "HELP AND LEAVE"),
];

const SIGNS: [(&str, &str); 8] = [
    ("~ canary 25%", "a rollout is under way, its candidate has 25 % of the requests"),
    ("# 1 held 50%", "one host was rolled back alone; it cannot end before a retry or an abort"),
    ("! 1 empty 50%", "in place: one instance has left, and the one that takes its place does not serve yet"),
    ("|| paused", "waits for an operator"),
    ("* frozen", "something is out of reach; goes on by itself"),
    ("< aborting", "all traffic goes back to stable"),
    ("! failed", "needs an operator"),
    ("set / read back / measured", "the share asked for, what the proxy says, what the requests say"),
];

fn bindings(model: &Model, group: Group) -> impl Iterator<Item = &'static Binding> + use<> {
    let mut last = None;
    let (replay, read_only) = (model.replay.is_some(), model.read_only);
    // What belongs to the other kind of screen is no help here.
    let here = move |b: &&Binding| match (replay, b.contexts) {
        (false, only) => only != [Context::Replay] && b.exists(read_only),
        (true, many) => many.contains(&Context::Replay) && b.exists(read_only),
    };
    // Lines that differ only in where they count are one line for people.
    model
        .keys
        .lines()
        .iter()
        .filter(here)
        .filter(move |b| b.group == group && last.replace(b.help) != Some(b.help))
}

/// Lines there are.
pub(super) fn lines(model: &Model) -> usize {
    GROUPS.iter().map(|(g, _)| bindings(model, *g).count() + 2).sum::<usize>() + SIGNS.len() + 1
}

pub(super) fn draw(model: &Model, theme: &Theme, top: usize, area: Rect, buf: &mut Buffer) {
    super::blank(area, buf);
    let mut lines: Vec<(&str, String, Tone)> = Vec::new();
    for (group, title) in GROUPS {
        if group == Group::Steer && model.read_only {
            lines.push(("", "READ-ONLY: this cockpit has no verbs".to_owned(), Tone::Strong));
        } else {
            lines.push(("", title.to_owned(), Tone::Strong));
        }
        for b in bindings(model, group) {
            match possible(model, b.action) {
                Ok(()) => lines.push((b.caption, b.help.to_owned(), Tone::Plain)),
                Err(why) => lines.push((b.caption, format!("{}  [not now: {why}]", b.help), Tone::Dim)),
            }
        }
        lines.push(("", String::new(), Tone::Plain));
    }
    lines.push(("", "SIGNS".into(), Tone::Strong));
    lines.extend(SIGNS.iter().map(|(sign, help)| ("", format!("{sign}: {help}"), Tone::Plain)));
    let most = lines.len().saturating_sub(area.height.into());
    let top = top.min(most);
    for (row, (key, text, tone)) in (0..area.height).zip(lines.iter().skip(top)) {
        let mut pen = Pen::new(buf, theme, area, row);
        pen.skip(1);
        if !key.is_empty() {
            pen.number(key, 9, if *tone == Tone::Dim { Tone::Dim } else { Tone::Key }).skip(1);
        }
        pen.text(text, *tone);
    }
    if top < most {
        let mut last = area;
        let row = super::cut_bottom(&mut last, 1);
        let mut end = row;
        let end = super::cut_right(&mut end, 12);
        Pen::new(buf, theme, end, 0).text(" j for more ", Tone::Selected);
    }
}
