//! From the model to bytes: draws into a buffer, compares with what is shown, writes the difference in one piece.
//!
//! Nothing is written when nothing differs, not even the cursor; and no question is asked of the terminal, because
//! the answer of a slow link would arrive among the keys.

use std::io::{self, Write};

use crossterm::queue;
use crossterm::style::{Attribute, ResetColor, SetAttribute};
use crossterm::terminal::{Clear, ClearType};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::encode::encode;
use super::model::Model;
use super::theme::Theme;
use super::view;

/// What is shown, and where it is written to.
pub struct Screen<W: Write> {
    out: W,
    shown: Buffer,
    next: Buffer,
    /// Nobody knows what is on the terminal.
    unknown: bool,
    /// Whether frames that come in several pieces are shown in one.
    synchronised: bool,
}

/// Frames of more bytes than these go through a slow link in several pieces, and would be seen half drawn.
const ONE_PIECE: usize = 512;
/// Synchronised output (DEC private mode 2026): what comes between is shown at once. Terminals that do not know it leave it
/// out.
const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";

impl<W: Write> Screen<W> {
    /// A screen that nothing was drawn on.
    pub fn new(out: W) -> Self {
        let none = Buffer::empty(Rect::ZERO);
        Self { out, shown: none.clone(), next: none, unknown: true, synchronised: false }
    }

    /// The same, where large frames are shown in one piece or not.
    #[must_use]
    pub fn synchronised(self, synchronised: bool) -> Self {
        Self { synchronised, ..self }
    }

    /// The next draw draws everything.
    pub fn forget(&mut self) {
        self.unknown = true;
    }

    /// Passes bytes on that show nothing.
    ///
    /// # Errors
    /// Whatever writing to the terminal gives.
    pub fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Draws the model; returns whether anything was written.
    ///
    /// # Errors
    /// Whatever writing to the terminal gives.
    pub fn draw(&mut self, model: &mut Model, theme: &Theme) -> io::Result<bool> {
        model.settle();
        let (w, h) = model.size;
        let area = Rect::new(0, 0, w, h);
        let all = self.unknown || area != self.shown.area;
        if all {
            self.shown = Buffer::empty(area);
            self.next = Buffer::empty(area);
        } else {
            self.next.reset();
        }
        view::render(model, theme, area, &mut self.next);
        if !all && self.next == self.shown {
            return Ok(false);
        }
        let cells = encode(&self.shown, &self.next);
        let together = self.synchronised && cells.len() > ONE_PIECE;
        if together {
            self.out.write_all(BEGIN)?;
        }
        if all {
            queue!(self.out, SetAttribute(Attribute::Reset), ResetColor, Clear(ClearType::All))?;
        }
        self.out.write_all(cells.as_bytes())?;
        if together {
            self.out.write_all(END)?;
        }
        self.out.flush()?;
        self.unknown = false;
        std::mem::swap(&mut self.shown, &mut self.next);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::api::{Change, Delta, Snapshot};
    use crate::client::Update;
    use crate::tui::fixture;
    use crate::tui::update::{Msg, update};

    #[derive(Clone, Default)]
    struct Counting {
        bytes: Rc<Cell<usize>>,
        flushes: Rc<Cell<usize>>,
    }

    impl Write for Counting {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.bytes.set(self.bytes.get() + buf.len());
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.flushes.set(self.flushes.get() + 1);
            Ok(())
        }
    }

    /// Twenty instances at 80×24, painted once; returns what that took.
    fn painted(snapshot: Snapshot) -> (Model, Screen<Counting>, Counting, usize) {
        let mut model = Model::default();
        update(&mut model, Msg::Time { now_ms: 0, wall_ms: fixture::WALL_MS });
        update(&mut model, Msg::Resize(80, 24));
        update(&mut model, Msg::Update(Update::Snapshot(Box::new(snapshot))));
        let out = Counting::default();
        let mut screen = Screen::new(out.clone());
        assert!(screen.draw(&mut model, &Theme::default()).unwrap());
        let first = out.bytes.replace(0);
        out.flushes.set(0);
        (model, screen, out, first)
    }

    #[test]
    fn a_frame_costs_what_changed() {
        let (mut model, mut screen, out, first) = painted(fixture::crowd(20));
        assert!((1_000..6_000).contains(&first), "first paint: {first} bytes");

        assert!(!screen.draw(&mut model, &Theme::default()).unwrap());
        assert_eq!((out.bytes.get(), out.flushes.get()), (0, 0), "nothing changed");

        let shown = model.row(0).unwrap().clone();
        let changed = crate::api::InstanceView { probe_ms: Some(99), ..shown };
        let seq = model.snapshot.as_ref().unwrap().seq + 1;
        let delta = Delta { seq, changes: vec![Change::Instance(Box::new(changed))] };
        update(&mut model, Msg::Update(Update::Delta(delta)));
        assert!(screen.draw(&mut model, &Theme::default()).unwrap());
        let one = out.bytes.replace(0);
        assert!(one > 0 && one <= 80, "one instance changed: {one} bytes");
    }

    /// Bytes for the charts in `seconds` of a rollout whose figures change every second, or of one that has ended;
    /// nothing else on the screen changes. The first minutes, in which the charts fill, are not counted.
    fn charts_cost(snapshot: Snapshot, seconds: u64) -> usize {
        let still = snapshot.clone();
        let (mut model, mut screen, out, _) = painted(snapshot);
        for n in 1..=300 + seconds {
            if n == 300 {
                out.bytes.set(0);
            }
            let ms = n * 1000;
            update(&mut model, Msg::Time { now_ms: ms, wall_ms: fixture::WALL_MS + ms });
            let mut next = (**model.snapshot.as_ref().unwrap()).clone();
            let traffic =
                next.services.iter_mut().flat_map(|s| &mut s.revisions).filter_map(|v| v.traffic.as_mut());
            for t in traffic {
                t.rate = 50.0 + (n * 7 % 400) as f32;
                t.error_percent = (n * 3 % 11) as f32 / 10.0;
                t.p95_ms = Some(20.0 + (n * 13 % 30) as f32);
            }
            for s in &next.services {
                model.trends.record(model.wall_ms, s);
            }
            // Only what the charts show is new: the same figures, the same clock for everything else.
            update(&mut model, Msg::Time { now_ms: 0, wall_ms: fixture::WALL_MS + ms });
            model.snapshot = Some(Box::new(aged(&still, ms)));
            screen.draw(&mut model, &Theme::default()).unwrap();
        }
        out.bytes.get()
    }

    /// The same picture `ms` later: whatever shows an age keeps it.
    fn aged(s: &Snapshot, ms: u64) -> Snapshot {
        let mut s = s.clone();
        let later = |t: &mut Option<u64>| *t = t.map(|t| t + ms);
        s.instances.iter_mut().for_each(|i| later(&mut i.started_ms));
        for r in s.services.iter_mut().filter_map(|s| s.rollout.as_mut()) {
            r.started_ms += ms;
            later(&mut r.ended_ms);
            r.phases.iter_mut().for_each(|p| later(&mut p.entered_ms));
        }
        s
    }

    #[test]
    fn charts_cost_a_slow_link_next_to_nothing() {
        // Exact, so that whoever makes them dearer sees by how much.
        let costs = [fixture::canary(), fixture::finished()].map(|s| charts_cost(s, 200));
        assert_eq!(costs, [1100, 1140], "in a rollout and at rest, in 200 seconds at 80x24");
    }

    #[test]
    fn no_key_costs_more_than_a_slow_link_carries() {
        use crate::tui::keys::Key;
        // At 25 kB/s and 200 ms 7,500 bytes are on the far side within half a second; 9,000 are within 0.56 s.
        let keys = "?\u{1b}123j45z\u{1b}v-+v/web\r\u{1b}:pro\u{1b}o3\r\u{1b}p\u{1b}r\u{1b}P\u{1b}d1.5.0\u{1b}a\u{1b}st:theme light\r";
        for (w, h, most) in [(80, 24, 7_500), (200, 50, 9_000)] {
            let (mut model, mut screen, out, _) = painted(fixture::crowd(1000));
            update(&mut model, Msg::Resize(w, h));
            screen.draw(&mut model, &Theme::default()).unwrap();
            out.bytes.set(0);
            for (n, c) in keys.chars().enumerate() {
                let key = match c {
                    '\u{1b}' => Key::Esc,
                    '\r' => Key::Enter,
                    c => Key::Char(c),
                };
                let now_ms = 1_000 + 500 * n as u64;
                update(&mut model, Msg::Time { now_ms, wall_ms: fixture::WALL_MS + now_ms });
                update(&mut model, Msg::Key(key));
                screen.draw(&mut model, &Theme::default()).unwrap();
                update(&mut model, Msg::Drawn);
                let bytes = out.bytes.replace(0);
                assert!(bytes <= most, "{w}x{h}: {bytes} bytes for {key:?}, key {n}");
            }
        }
    }

    #[test]
    fn a_frame_that_comes_in_pieces_is_shown_in_one() {
        for (synchronised, wanted) in [(true, true), (false, false)] {
            let mut model = Model::default();
            update(&mut model, Msg::Time { now_ms: 0, wall_ms: fixture::WALL_MS });
            update(&mut model, Msg::Resize(80, 24));
            update(&mut model, Msg::Update(Update::Snapshot(Box::new(fixture::canary()))));
            let mut screen = Screen::new(Vec::new()).synchronised(synchronised);
            screen.draw(&mut model, &Theme::default()).unwrap();
            let frame = std::mem::take(&mut screen.out);
            assert_eq!(frame.starts_with(BEGIN) && frame.ends_with(END), wanted);
            // The cursor of a list is a few cells: whoever is slow gets no more than these.
            update(&mut model, Msg::Key(crate::tui::keys::Key::Char('5')));
            screen.draw(&mut model, &Theme::default()).unwrap();
            assert!(!screen.out.is_empty() && screen.out.len() < ONE_PIECE, "{}", screen.out.len());
            assert!(!screen.out.starts_with(BEGIN));
        }
    }

    #[test]
    fn a_change_out_of_sight_writes_nothing() {
        let (mut model, mut screen, out, _) = painted(fixture::crowd(1000));
        let far = model.row(900).unwrap().clone();
        let changed = crate::api::InstanceView { probe_ms: Some(99), ..far };
        let seq = model.snapshot.as_ref().unwrap().seq + 1;
        update(
            &mut model,
            Msg::Update(Update::Delta(Delta { seq, changes: vec![Change::Instance(Box::new(changed))] })),
        );
        assert!(model.dirty);
        assert!(!screen.draw(&mut model, &Theme::default()).unwrap());
        assert_eq!(out.bytes.get(), 0);
    }

    #[test]
    fn a_resize_draws_everything_again_and_a_huge_claim_is_limited() {
        let (mut model, mut screen, out, first) = painted(fixture::canary());
        update(&mut model, Msg::Resize(81, 24));
        assert!(screen.draw(&mut model, &Theme::default()).unwrap());
        assert!(out.bytes.get() > first / 2);
        update(&mut model, Msg::Resize(u16::MAX, u16::MAX));
        assert!(screen.draw(&mut model, &Theme::default()).unwrap());
        update(&mut model, Msg::Resize(0, 0));
        assert!(screen.draw(&mut model, &Theme::default()).is_ok());
    }
}
