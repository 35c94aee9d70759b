//! What the log pane holds: lines of one instance or of many, bounded, filtered, and a place among them that stays where
//! it is while others come.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::api::MergedLog;
use crate::text::Safe;

use super::filter::Filter;
use super::format;

/// Log lines kept.
pub const LOG_LINES: usize = 2000;
/// Characters of a log line kept.
pub const LOG_CHARS: usize = 1000;
/// Lines kept above the place that somebody looks at: about what a screen shows.
const ABOVE: u64 = 100;
/// Names remembered before those are forgotten that no line carries any more.
const NAMES: usize = 64;

/// Whose lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One instance's.
    Instance(Safe),
    /// Of all instances of a version.
    Version {
        /// Of this service.
        service: Safe,
        /// The version.
        version: Safe,
    },
    /// Of all instances of a service.
    Service(Safe),
}

impl Default for Whose {
    fn default() -> Self {
        Self::Service(Safe::default())
    }
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Not from the instance: something about its log.
    Note,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub instance: Arc<Safe>,
    /// Where from.
    pub source: Source,
    /// What.
    pub text: Safe,
}

/// What the log pane shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Whose lines.
    pub whose: Whose,
    /// The instance that was selected when the pane was opened: where widening begins and ends.
    pub home: Option<Safe>,
    /// Which opening of the pane they belong to: lines of an earlier one are ignored.
    pub generation: u64,
    /// The lines, oldest first; at most [`LOG_LINES`].
    pub lines: VecDeque<Line>,
    /// Lines that were pushed out.
    pub dropped: u64,
    /// Lines that came and were not kept, because the place that is looked at would have been pushed out.
    pub missed: usize,
    /// Which of the lines the filter leaves, counted from the first that ever came; only while there is a filter.
    pub hits: Option<VecDeque<u64>>,
    /// All lines are shown, and the filter only marks what it finds.
    pub in_context: bool,
    /// Lines (of those shown) between the one that is looked at and the last there is; 0 follows.
    pub back: usize,
    /// Columns scrolled to the right.
    pub left: usize,
    /// How many instances are read, of how many; `None` before that is known, and for one instance.
    pub reads: Option<(u32, u32)>,
    /// Why no more lines come.
    pub ended: Option<Safe>,
    names: Vec<Arc<Safe>>,
}

impl Logs {
    /// An open pane without lines yet.
    #[must_use]
    pub fn new(whose: Whose, home: Option<Safe>, generation: u64) -> Self {
        Self { whose, home, generation, ..Self::default() }
    }

    /// Takes in what came.
    pub fn take(&mut self, came: MergedLog, filter: &Filter) {
        let (instance, source, text) = match came {
            MergedLog::Reads { instances, of } => {
                self.reads = Some((instances, of));
                return;
            }
            MergedLog::Line { instance, line } => {
                (instance, if line.stderr { Source::Err } else { Source::Out }, line.text)
            }
            MergedLog::Note { instance, text } => (instance, Source::Note, text),
        };
        let text =
            if text.as_str().len() > LOG_CHARS { Safe::capped(text.as_str(), LOG_CHARS) } else { text };
        let instance = self.name(instance);
        self.push(Line { instance, source, text }, filter);
    }

    /// A name is kept once, not once a line.
    fn name(&mut self, name: Safe) -> Arc<Safe> {
        if let Some(known) = self.names.iter().find(|n| ***n == name) {
            return Arc::clone(known);
        }
        if self.names.len() >= NAMES {
            self.names.retain(|n| Arc::strong_count(n) > 1);
        }
        let name = Arc::new(name);
        self.names.push(Arc::clone(&name));
        name
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    fn push(&mut self, line: Line, filter: &Filter) {
        let full = self.lines.len() >= LOG_LINES;
        if full && self.back > 0 && self.place().is_some_and(|n| n <= self.dropped + ABOVE) {
            self.missed += 1;
            return;
        }
        if let missed @ 1.. = std::mem::take(&mut self.missed) {
            let text =
                format!("{} not kept: they came while you looked further up", format::count(missed, "line"));
            let gap = Line { instance: Arc::default(), source: Source::Note, text: text.into() };
            self.push(gap, filter);
        }
        let hit = filter.matches([line.text.as_str()]);
        let number = self.dropped + self.lines.len() as u64;
        self.lines.push_back(line);
        if let Some(hits) = self.hits.as_mut().filter(|_| hit) {
            hits.push_back(number);
        }
        if self.back > 0 && (hit || self.all_shown()) {
            self.back += 1;
        }
        if full {
            self.lines.pop_front();
            let hits = self.hits.as_mut();
            if let Some(hits) = hits.filter(|h| h.front() == Some(&self.dropped)) {
                hits.pop_front();
            }
            self.dropped += 1;
        }
        self.back = self.back.min(self.count().saturating_sub(1));
    }

    fn all_shown(&self) -> bool {
        self.in_context || self.hits.is_none()
    }

    /// Looks at all lines again, through another filter.
    pub fn refilter(&mut self, filter: &Filter) {
        let numbered = self.lines.iter().zip(self.dropped..);
        let hits = || numbered.filter(|(l, _)| filter.matches([l.text.as_str()])).map(|(_, n)| n).collect();
        self.hits = filter.active().then(hits);
        self.in_context = false;
        self.back = 0;
    }

    /// Lines that are shown.
    #[must_use]
    pub fn count(&self) -> usize {
        let hits = self.hits.as_ref().filter(|_| !self.in_context);
        hits.map_or(self.lines.len(), VecDeque::len)
    }

    /// The line `n` of those.
    #[must_use]
    pub fn line(&self, n: usize) -> Option<&Line> {
        let at = match self.hits.as_ref().filter(|_| !self.in_context) {
            None => n,
            Some(hits) => usize::try_from(hits.get(n)?.checked_sub(self.dropped)?).ok()?,
        };
        self.lines.get(at)
    }

    /// The line that is looked at, among those shown.
    #[must_use]
    pub fn cursor(&self) -> Option<usize> {
        self.count().checked_sub(self.back + 1)
    }

    /// The same, counted from the first line that ever came.
    fn place(&self) -> Option<u64> {
        let at = self.cursor()?;
        match self.hits.as_ref().filter(|_| !self.in_context) {
            None => Some(self.dropped + at as u64),
            Some(hits) => hits.get(at).copied(),
        }
    }

    /// The first line to show in `rows` rows. With all lines around what was found it stands in the middle, else last;
    /// at the beginning there is always a page.
    #[must_use]
    pub fn top(&self, rows: usize) -> usize {
        let end = self.cursor().map_or(0, |at| at + 1);
        let below = if self.in_context && self.back > 0 { rows / 2 } else { 0 };
        let end = (end + below).max(rows).min(self.count());
        end.saturating_sub(rows)
    }

    /// Goes on to the next line that the filter finds, newer or older, with all lines around it. From the list of what
    /// was found first to the one that is looked at, as it stands there without its surroundings. Whether there was one.
    pub fn seek(&mut self, newer: bool) -> bool {
        let (Some(hits), Some(place)) = (&self.hits, self.place()) else { return false };
        let found = match (self.in_context, newer) {
            (false, _) => Some(place),
            (true, true) => hits.iter().copied().find(|n| *n > place),
            (true, false) => hits.iter().rev().copied().find(|n| *n < place),
        };
        let Some(found) = found else { return false };
        let last = self.dropped + self.lines.len() as u64;
        self.in_context = true;
        self.back = usize::try_from(last.saturating_sub(found + 1)).unwrap_or(0);
        true
    }

    /// Which of the found lines is looked at, from 1, and how many there are.
    #[must_use]
    pub fn found(&self) -> Option<(usize, usize)> {
        let (hits, place) = (self.hits.as_ref()?, self.place()?);
        Some((hits.partition_point(|n| *n <= place), hits.len()))
    }
}
