//! The first start: what each pane is, in a line each, out of the key table. Any key goes on.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::pen::Pen;
use crate::tui::keys::Action;
use crate::tui::model::{Model, Pane};
use crate::tui::theme::{Theme, Tone};

pub(super) fn draw(model: &Model, theme: &Theme, body: Rect, buf: &mut Buffer) {
    let g = theme.glyphs();
    let mut above = body;
    let rows = u16::try_from(Pane::ALL.len()).unwrap_or(5) + 3;
    let mut area = super::cut_bottom(&mut above, rows);
    super::blank(area, buf);
    let head = super::cut_top(&mut area, 1);
    let mut pen = Pen::new(buf, theme, head, 0);
    pen.fill(g.rule, 1, Tone::Accent).text(" what is what ", Tone::Selected).skip(1);
    pen.text("any key goes on ", Tone::Key);
    let rest = pen.room();
    pen.fill(g.rule, rest, Tone::Accent);
    let key = |action| model.keys.key(action);
    for pane in Pane::ALL {
        let line = model.keys.lines().iter().find(|b| b.action == Action::Focus(pane));
        let about = line.map_or("", |b| b.help.trim_start_matches("pane: "));
        let row = super::cut_top(&mut area, 1);
        let mut pen = Pen::new(buf, theme, row, 0);
        pen.skip(1)
            .text(&format!("{} ", key(Action::Focus(pane))), Tone::Key)
            .column(pane.title(), 9, Tone::Strong)
            .text(about, Tone::Plain);
    }
    let row = super::cut_top(&mut area, 1);
    let verbs = if model.steers() {
        format!("{} y aborts, from anywhere; ", key(Action::Abort))
    } else {
        String::new()
    };
    let (help, filter) = (key(Action::Help), key(Action::Filter));
    let text = format!("{verbs}{help} explains every key, : takes commands, {filter} filters");
    Pen::new(buf, theme, row, 0).skip(1).text(&text, Tone::Plain);
    let row = super::cut_top(&mut area, 1);
    Pen::new(buf, theme, row, 0)
        .skip(1)
        .text(&format!("{} leaves; rollouts go on without this screen", key(Action::Detach)), Tone::Plain);
}
