//! The journal as people read it, backwards, a page at a time.
//!
//! What a fact meant depends on all that came before it, so it is told as the helm told it then: by going through the
//! journal from its beginning. What is told in one go is enough for many pages, and is kept for whoever asks for the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _};

use super::HistoryError;
use crate::api::{EventView, JournalPage};
use crate::controller::explain;
use crate::fleet::names::Millis;
use crate::rollout::fact::Record;
use crate::rollout::state::State;

/// Most events in a page.
const MOST: usize = 500;
/// Facts that are told in one go.
const TOLD: u64 = 5_000;

/// What was told last.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<Mutex<Arc<Told>>>);

/// The events of the facts from `from` up to, and without, `to`.
#[derive(Default)]
struct Told {
    from: u64,
    to: u64,
    events: Vec<EventView>,
}

impl Pages {
    /// The last `limit` events before a fact, or of all.
    pub(super) fn page(
        &self,
        db: &Connection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<JournalPage, HistoryError> {
        let newest =
            db.query_row("SELECT max(seq) FROM facts", [], |r| r.get::<_, Option<i64>>(0)).optional()?;
        let end = newest.flatten().unwrap_or_default().unsigned_abs() + 1;
        let before = before.unwrap_or(end).min(end);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told =
            if known.from < before && before <= known.to { known } else { Arc::new(tell(db, before)?) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = told.clone();
        Ok(told.page(before, limit.clamp(1, MOST)))
    }
}

impl Told {
    fn page(&self, before: u64, limit: usize) -> JournalPage {
        let end = self.events.partition_point(|e| e.seq < before);
        let start = end.saturating_sub(limit);
        let events = self.events.get(start..end).unwrap_or_default().to_vec();
        let older =
            if start > 0 { events.first().map(|e| e.seq) } else { Some(self.from).filter(|f| *f > 1) };
        JournalPage { events, before: older }
    }
}

/// Tells the last facts before one.
fn tell(db: &Connection, before: u64) -> Result<Told, HistoryError> {
    let from = before.saturating_sub(TOLD).max(1);
    let mut state = State::default();
    let mut events = VecDeque::new();
    let mut select = db.prepare("SELECT seq, at, wall, body FROM facts WHERE seq < ?1 ORDER BY seq")?;
    let mut rows = select.query([super::super::journal::signed(before)])?;
    while let Some(row) = rows.next()? {
        let (seq, at, wall): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let body = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
        let fact = serde_json::from_str(body).map_err(|source| HistoryError::Fact { seq, source })?;
        let at = Millis(at.unsigned_abs());
        let record = Record { seq: seq.unsigned_abs(), at, wall_ms: wall.unsigned_abs(), fact };
        if record.seq >= from {
            events.extend(explain::event(&state, &record));
        }
        state.apply(&record);
    }
    Ok(Told { from, to: before, events: events.into() })
}
