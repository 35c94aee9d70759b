//! What happened before the events of the picture: fetched page by page as somebody scrolls back, and never more than
//! so much of it.

use crate::api::{EventView, JournalPage};
use crate::text::Safe;

/// Most events kept.
pub const KEPT: usize = 5_000;
/// Events of a page.
pub const PAGE: u32 = 200;

/// Why there is nothing further back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The journal begins here.
    Beginning,
    /// As much as is kept here.
    Full,
    /// It could not be fetched.
    Failed(Safe),
}

/// Events older than those of the picture, without a gap between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// The oldest first.
    events: Vec<EventView>,
    /// Which of them the filter leaves.
    shown: Vec<u32>,
    /// Before which fact the next page ends, once one has come.
    before: Option<u64>,
    /// A page is on its way.
    pub asked: bool,
    /// Why no other is.
    pub stop: Option<Stop>,
}

impl Journal {
    /// The events that the filter leaves, the oldest first.
    pub fn shown(&self) -> impl Iterator<Item = &EventView> {
        self.shown.iter().filter_map(|n| self.events.get(*n as usize))
    }

    /// Events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Before which fact to ask for a page, given the oldest event of the picture; `None` when there is nothing to ask.
    pub fn ask(&mut self, oldest: Option<u64>) -> Option<u64> {
        if self.asked || self.stop.is_some() {
            return None;
        }
        let before = self.before.or(oldest)?;
        self.asked = true;
        Some(before)
    }

    /// Takes a page in.
    pub fn take(&mut self, page: Result<JournalPage, Safe>, shows: impl Fn(&EventView) -> bool) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        match page {
            Err(why) => self.stop = Some(Stop::Failed(why)),
            Ok(page) => {
                self.before = page.before;
                let mut events = page.events;
                events.append(&mut self.events);
                self.events = events;
                self.stop = match page.before {
                    None => Some(Stop::Beginning),
                    Some(_) if self.events.len() >= KEPT => Some(Stop::Full),
                    Some(_) => None,
                };
                self.refilter(shows);
            }
        }
    }

    /// Events that have slid out of the picture: they belong here while anything does.
    pub fn slid(&mut self, events: Vec<EventView>, shows: impl Fn(&EventView) -> bool) {
        for event in events {
            if shows(&event) {
                self.shown.push(u32::try_from(self.events.len()).unwrap_or(u32::MAX));
            }
            self.events.push(event);
        }
        // What is furthest from now goes first; it can be fetched again.
        if self.events.len() > 2 * KEPT {
            self.events.drain(..KEPT);
            self.before = self.events.first().map(|e| e.seq);
            self.stop = Some(Stop::Full);
            self.refilter(shows);
        }
    }

    /// Whether what slides out of the picture belongs here.
    #[must_use]
    pub fn open(&self) -> bool {
        self.asked || !self.events.is_empty()
    }

    /// Looks at all of them again.
    pub fn refilter(&mut self, shows: impl Fn(&EventView) -> bool) {
        let numbered = (0u32..).zip(&self.events);
        self.shown = numbered.filter(|(_, e)| shows(e)).map(|(n, _)| n).collect();
    }
}
