//! Past rollouts, read from the journal: beside the loop that writes it, over a connection of its own that cannot write,
//! and never more than so much.

mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::api::{
    History, JournalPage, Past, PastAct, PastCount, PastDowntime, PastPhase, Role, RolloutStatus, Story,
};
use crate::fleet::names::{Bp, HostName, InstanceId, Millis, RevisionId, RolloutId, ServiceName, Version};
use crate::rollout::decide::{OURSELVES, gate_text};
use crate::rollout::fact::{By, Counted};
use crate::rollout::plan::Plan;
use crate::rollout::state::{Kind, Outcome};
use crate::text::Safe;

/// Most rollouts in one answer.
pub const MOST: usize = 200;
/// Most facts that are taken in for one answer.
const FACTS: usize = 200_000;
/// Most acts of one rollout that are told; a link that comes and goes all night makes many.
const ACTS: usize = 1000;
/// Readers at the same time.
const READERS: usize = 2;

/// The name of a fact, which the journal writes first. No index: it would cost every write.
const NAME: &str = "substr(body, 10, instr(substr(body, 10, 40), '\"') - 1)";
/// The facts that rollouts are told from.
const NAMES: &str = "('rollout_started', 'phase_entered', 'phase_settled', 'gates_opened', 'paused', 'resumed', \
     'frozen', 'thawed', 'verdict_reached', 'made_safe', 'last_words', 'abort_requested', 'abort_forced', 'host_held', \
     'hold_lifted', 'instance_replaced', 'promoted', 'rollout_ended', 'rollout_counted', 'next_queued', \
     'next_dropped')";

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite said no.
    #[error("the journal cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A fact is not what it should be.
    #[error("fact {seq} cannot be read: {source}")]
    Fact {
        /// Its number.
        seq: i64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The reader ended without an answer.
    #[error("the reader failed: {0}")]
    Gone(String),
}

/// Reads the journal at a path.
#[derive(Clone)]
pub struct Reader {
    path: PathBuf,
    turns: Arc<Semaphore>,
    pages: pages::Pages,
}

/// A fact, as far as a rollout's story needs it. What else there is, also what a later version adds, is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
enum Seen {
    RolloutStarted {
        service: ServiceName,
        rollout: RolloutId,
        kind: Kind,
        strategy: String,
        from: Option<RevisionId>,
        to: RevisionId,
        plan: Plan,
        by: By,
    },
    PhaseEntered {
        rollout: RolloutId,
        phase: usize,
        by: By,
    },
    PhaseSettled {
        rollout: RolloutId,
        phase: usize,
    },
    GatesOpened {
        rollout: RolloutId,
        full: bool,
        by: By,
    },
    Paused {
        rollout: RolloutId,
        reason: Safe,
        by: By,
    },
    Resumed {
        rollout: RolloutId,
        by: By,
    },
    Frozen {
        rollout: RolloutId,
        reason: Safe,
    },
    Thawed {
        rollout: RolloutId,
    },
    VerdictReached {
        rollout: RolloutId,
        verdict: crate::analysis::State,
        detail: Safe,
    },
    LastWords {
        rollout: RolloutId,
        instance: InstanceId,
        lines: Vec<Safe>,
    },
    MadeSafe {
        rollout: RolloutId,
        since_bad: Option<Millis>,
        since_abort: Millis,
    },
    AbortRequested {
        rollout: RolloutId,
        reason: Safe,
        by: By,
    },
    AbortForced {
        rollout: RolloutId,
        by: By,
    },
    HostHeld {
        rollout: RolloutId,
        host: HostName,
        by: By,
    },
    HoldLifted {
        rollout: RolloutId,
        host: HostName,
        by: By,
    },
    InstanceReplaced {
        rollout: RolloutId,
        instance: InstanceId,
        replaced: InstanceId,
        downtime: Millis,
    },
    Promoted {
        rollout: RolloutId,
    },
    RolloutEnded {
        rollout: RolloutId,
        outcome: Outcome,
        reason: Safe,
        owed: Vec<Safe>,
    },
    RolloutCounted {
        rollout: RolloutId,
        counts: Vec<Counted>,
    },
    NextQueued {
        service: ServiceName,
        revision: Queued,
        by: By,
    },
    NextDropped {
        service: ServiceName,
        reason: Safe,
    },
    #[serde(other)]
    Other,
}

/// A revision that was asked for in mid-rollout.
#[derive(Deserialize)]
struct Queued {
    version: Version,
}

impl Reader {
    /// A reader of the journal at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, turns: Arc::new(Semaphore::new(READERS)), pages: pages::Pages::default() }
    }

    /// The newest rollouts, of one service or of all; at most `limit` and at most [`MOST`].
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn history(&self, service: Option<ServiceName>, limit: usize) -> Result<History, HistoryError> {
        self.read(move |db| history(db, service.as_ref(), limit.clamp(1, MOST))).await
    }

    /// One rollout in full; `None` when the journal has no such rollout.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn story(&self, rollout: RolloutId) -> Result<Option<Story>, HistoryError> {
        self.read(move |db| story(db, &rollout)).await
    }

    /// The last `limit` events before a fact, or of all; at most 500.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn journal(&self, before: Option<u64>, limit: usize) -> Result<JournalPage, HistoryError> {
        let pages = self.pages.clone();
        self.read(move |db| pages.page(db, before, limit)).await
    }

    /// On a thread of its own: whoever steers never waits for a reader.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let gone = |e: &dyn std::fmt::Display| HistoryError::Gone(e.to_string());
        let turn = self.turns.clone().acquire_owned().await.map_err(|e| gone(&e))?;
        let path = self.path.clone();
        let job = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read(&open(&path)?)
        });
        job.await.map_err(|e| gone(&e))?
    }
}

fn open(path: &Path) -> Result<Connection, HistoryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

fn history(db: &Connection, service: Option<&ServiceName>, limit: usize) -> Result<History, HistoryError> {
    let sql = format!(
        "SELECT seq, json_extract(body, '$.rollout') FROM facts
         WHERE {NAME} = 'rollout_started' AND (?1 IS NULL OR json_extract(body, '$.service') = ?1)
         ORDER BY seq DESC LIMIT ?2"
    );
    let limit_and_one = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut starts: Vec<(i64, String)> = db
        .prepare(&sql)?
        .query_map(params![service.map(ServiceName::as_str), limit_and_one], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let more = starts.len() > limit;
    starts.truncate(limit);
    let Some((first, _)) = starts.last() else { return Ok(History { schema: 1, ..History::default() }) };
    let mut told = Told { only: starts.iter().map(|(_, id)| id.clone()).collect(), ..Told::default() };
    told.read(db, *first)?;
    let versions = versions(db, told.rollouts.values().flat_map(One::revisions))?;
    let rollouts =
        starts.iter().filter_map(|(_, id)| told.rollouts.remove(id)).map(|t| t.story(&versions).past);
    Ok(History { schema: 1, rollouts: rollouts.collect(), more: more || told.cut })
}

fn story(db: &Connection, rollout: &RolloutId) -> Result<Option<Story>, HistoryError> {
    // From the end: whoever asks mostly means one of the last.
    let sql = format!(
        "SELECT seq FROM facts WHERE {NAME} = 'rollout_started' AND json_extract(body, '$.rollout') = ?1
         ORDER BY seq DESC LIMIT 1"
    );
    let first = db.query_row(&sql, [rollout.as_str()], |r| r.get::<_, i64>(0)).optional()?;
    let Some(first) = first else { return Ok(None) };
    let mut told = Told { only: vec![rollout.to_string()], ..Told::default() };
    told.read(db, first)?;
    let cut = told.cut;
    let Some(one) = told.rollouts.remove(rollout.as_str()) else { return Ok(None) };
    let versions = versions(db, one.revisions())?;
    let mut story = one.story(&versions);
    story.cut |= cut;
    Ok(Some(story))
}

/// The readable tags of these revisions. Each is looked for from the end, as it became known not long before it was
/// rolled out.
fn versions<'a>(
    db: &Connection,
    revisions: impl Iterator<Item = &'a RevisionId>,
) -> Result<BTreeMap<String, String>, HistoryError> {
    let mut wanted: BTreeSet<&str> = revisions.map(RevisionId::as_str).collect();
    let sql = format!(
        "SELECT json_extract(body, '$.revision.id'), json_extract(body, '$.revision.version') FROM facts
         WHERE {NAME} = 'revision_known' ORDER BY seq DESC"
    );
    let mut select = db.prepare(&sql)?;
    let mut rows = select.query([])?;
    let mut found = BTreeMap::new();
    while !wanted.is_empty()
        && let Some(row) = rows.next()?
    {
        let (id, version): (String, String) = (row.get(0)?, row.get(1)?);
        if wanted.remove(id.as_str()) {
            found.insert(id, version);
        }
    }
    Ok(found)
}

/// The rollouts that are looked for, as far as they were read.
#[derive(Default)]
struct Told {
    only: Vec<String>,
    rollouts: BTreeMap<String, One>,
    cut: bool,
}

/// One rollout as it is put together.
struct One {
    story: Story,
    from: Option<RevisionId>,
    to: RevisionId,
    frozen: Option<Safe>,
    counts: Vec<Counted>,
}

impl Told {
    fn read(&mut self, db: &Connection, first: i64) -> Result<(), HistoryError> {
        let sql = format!(
            "SELECT seq, wall, body FROM facts WHERE seq >= ?1 AND {NAME} IN {NAMES} ORDER BY seq LIMIT {}",
            FACTS + 1
        );
        let mut select = db.prepare(&sql)?;
        let mut rows = select.query([first])?;
        let mut taken = 0;
        let mut ended = 0;
        while let Some(row) = rows.next()? {
            taken += 1;
            if taken > FACTS {
                self.cut = true;
                break;
            }
            let (seq, wall): (i64, i64) = (row.get(0)?, row.get(1)?);
            let body = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            let seen: Seen =
                serde_json::from_str(body).map_err(|source| HistoryError::Fact { seq, source })?;
            // What was counted is written after the end; the next rollout of the fleet comes later still.
            let is_start = matches!(seen, Seen::RolloutStarted { .. });
            if is_start && ended == self.only.len() {
                break;
            }
            ended += usize::from(self.take(wall.unsigned_abs(), seen));
        }
        Ok(())
    }

    /// Takes in one fact; whether it ended one of the rollouts.
    fn take(&mut self, at_ms: u64, seen: Seen) -> bool {
        if let Seen::RolloutStarted { service, rollout, kind, strategy, from, to, plan, by } = seen {
            if self.only.iter().any(|id| *id == rollout.as_str()) {
                let one = One::new(at_ms, (&service, &rollout), (kind, &strategy), (from, to), &plan, by);
                self.rollouts.insert(rollout.to_string(), one);
            }
            return false;
        }
        // What was asked for next belongs to the rollout of that service that is under way.
        let under_way = |one: &&mut One| {
            seen.queue_of().is_some_and(|s| one.story.past.service.as_str() == s.as_str())
                && !one.story.past.status.ended()
        };
        let found = match seen.rollout() {
            Some(id) => self.rollouts.get_mut(id.as_str()),
            None => self.rollouts.values_mut().find(under_way),
        };
        let Some(one) = found else { return false };
        let before = one.story.past.status.ended();
        one.take(at_ms, seen);
        !before && one.story.past.status.ended()
    }
}

impl Seen {
    fn rollout(&self) -> Option<&RolloutId> {
        match self {
            Self::RolloutStarted { rollout, .. }
            | Self::PhaseEntered { rollout, .. }
            | Self::PhaseSettled { rollout, .. }
            | Self::GatesOpened { rollout, .. }
            | Self::Paused { rollout, .. }
            | Self::Resumed { rollout, .. }
            | Self::Frozen { rollout, .. }
            | Self::Thawed { rollout }
            | Self::VerdictReached { rollout, .. }
            | Self::MadeSafe { rollout, .. }
            | Self::LastWords { rollout, .. }
            | Self::AbortRequested { rollout, .. }
            | Self::AbortForced { rollout, .. }
            | Self::HostHeld { rollout, .. }
            | Self::HoldLifted { rollout, .. }
            | Self::InstanceReplaced { rollout, .. }
            | Self::Promoted { rollout }
            | Self::RolloutEnded { rollout, .. }
            | Self::RolloutCounted { rollout, .. } => Some(rollout),
            Self::NextQueued { .. } | Self::NextDropped { .. } | Self::Other => None,
        }
    }

    /// The service whose queue it changes.
    fn queue_of(&self) -> Option<&ServiceName> {
        match self {
            Self::NextQueued { service, .. } | Self::NextDropped { service, .. } => Some(service),
            _ => None,
        }
    }
}

impl One {
    fn new(
        at_ms: u64,
        (service, rollout): (&ServiceName, &RolloutId),
        (kind, strategy): (Kind, &str),
        (from, to): (Option<RevisionId>, RevisionId),
        plan: &Plan,
        by: By,
    ) -> Self {
        let percent = |bp: Bp| f64::from(bp.get()) / 100.0;
        let mut phases: Vec<PastPhase> = plan
            .phases
            .iter()
            .map(|p| PastPhase {
                name: Safe::new(&p.name),
                weight: percent(p.weight),
                gates: p.gates.iter().map(|g| Safe::new(&gate_text(*g))).collect(),
                ..PastPhase::default()
            })
            .collect();
        if let Some(first) = phases.first_mut() {
            first.entered_ms = Some(at_ms);
            first.by = Some(by.clone());
        }
        let past = Past {
            id: Safe::new(rollout.as_str()),
            service: Safe::new(service.as_str()),
            kind: match kind {
                Kind::First => "first release".into(),
                Kind::Release => "release".into(),
                Kind::Rollback => "rollback".into(),
            },
            strategy: Safe::new(strategy),
            by: by.clone(),
            started_ms: at_ms,
            ..Past::default()
        };
        let mut one = Self {
            story: Story { schema: 1, past, phases, ..Story::default() },
            from,
            to,
            frozen: None,
            counts: Vec::new(),
        };
        one.act(at_ms, by, if kind == Kind::Rollback { "rollback" } else { "deploy" }, Safe::default());
        one
    }

    /// The revisions that have to be called by their versions.
    fn revisions(&self) -> impl Iterator<Item = &RevisionId> {
        self.from.iter().chain([&self.to]).chain(self.counts.iter().map(|c| &c.revision))
    }

    fn act(&mut self, at_ms: u64, by: Safe, what: &'static str, text: Safe) {
        if self.story.acts.len() < ACTS {
            self.story.acts.push(PastAct { at_ms, by, what: what.into(), text });
        } else {
            self.story.cut = true;
        }
    }

    fn stands(&mut self, status: RolloutStatus, reason: Safe) {
        self.story.past.status = status;
        self.story.past.reason = reason;
    }

    fn ends(&mut self, at_ms: u64, status: RolloutStatus, reason: Safe) {
        self.stands(status, reason);
        self.frozen = None;
        self.story.past.ended_ms = Some(at_ms);
        self.leave_phase(at_ms);
    }

    /// The phase that it is in is over.
    fn leave_phase(&mut self, at_ms: u64) {
        if let Some(p) = self.story.phases.iter_mut().rev().find(|p| p.entered_ms.is_some()) {
            p.left_ms.get_or_insert(at_ms);
        }
    }

    fn take(&mut self, at_ms: u64, seen: Seen) {
        let ours = || Safe::new(OURSELVES);
        match seen {
            Seen::PhaseEntered { phase, by, .. } => {
                self.leave_phase(at_ms);
                if let Some(p) = self.story.phases.get_mut(phase) {
                    p.entered_ms = Some(at_ms);
                    p.by = Some(by);
                }
            }
            Seen::PhaseSettled { phase, .. } => {
                if let Some(p) = self.story.phases.get_mut(phase) {
                    p.settled_ms = Some(at_ms);
                }
            }
            Seen::GatesOpened { full, by, .. } => {
                self.stands(RolloutStatus::Running, Safe::default());
                self.act(at_ms, by, if full { "promote_full" } else { "promote" }, Safe::default());
            }
            Seen::Paused { reason, by, .. } => {
                self.stands(RolloutStatus::Paused, reason.clone());
                self.act(at_ms, by, "pause", reason);
            }
            Seen::Resumed { by, .. } => {
                self.stands(RolloutStatus::Running, Safe::default());
                self.act(at_ms, by, "resume", Safe::default());
            }
            Seen::Frozen { reason, .. } => {
                self.frozen = Some(reason.clone());
                self.act(at_ms, ours(), "freeze", reason);
            }
            Seen::Thawed { .. } => {
                self.frozen = None;
                self.act(at_ms, ours(), "thaw", Safe::default());
            }
            Seen::VerdictReached { verdict, detail, .. } => {
                self.act(at_ms, ours(), "verdict", Safe::new(&format!("{verdict}: {detail}")));
            }
            Seen::LastWords { instance, lines, .. } => {
                for line in &lines {
                    self.act(at_ms, ours(), "log", Safe::new(&format!("{instance}: {line}")));
                }
            }
            Seen::MadeSafe { since_bad, since_abort, .. } => {
                self.story.past.safe_after_ms = Some(since_bad.unwrap_or(since_abort).0);
                let bad = since_bad.map(|d| format!(", {d} after its first bad answer")).unwrap_or_default();
                let text =
                    format!("the candidate got nothing any more {since_abort} after the decision{bad}");
                self.act(at_ms, ours(), "safe", Safe::new(&text));
            }
            Seen::AbortRequested { reason, by, .. } => {
                self.stands(RolloutStatus::Aborting, reason.clone());
                self.act(at_ms, by, "abort", reason);
            }
            Seen::AbortForced { by, .. } => self.act(at_ms, by, "abort_forced", Safe::default()),
            Seen::HostHeld { host, by, .. } => self.act(at_ms, by, "hold", Safe::new(host.as_str())),
            Seen::HoldLifted { host, by, .. } => self.act(at_ms, by, "lift", Safe::new(host.as_str())),
            Seen::InstanceReplaced { instance, replaced, downtime, .. } => {
                self.story.downtimes.push(PastDowntime {
                    instance: Safe::new(instance.as_str()),
                    replaced: Safe::new(replaced.as_str()),
                    downtime_ms: downtime.0,
                });
            }
            Seen::Promoted { .. } => self.ends(at_ms, RolloutStatus::Done, Safe::default()),
            Seen::RolloutEnded { outcome, reason, owed, .. } => {
                let status = match outcome {
                    Outcome::Done => RolloutStatus::Done,
                    Outcome::Aborted => RolloutStatus::Aborted,
                    Outcome::Failed => RolloutStatus::Failed,
                };
                self.ends(at_ms, status, reason);
                self.story.owed = owed;
            }
            Seen::RolloutCounted { counts, .. } => self.counts = counts,
            Seen::NextQueued { revision, by, .. } => {
                self.act(at_ms, by, "next", Safe::new(revision.version.as_str()));
            }
            Seen::NextDropped { reason, .. } => self.act(at_ms, ours(), "next_dropped", reason),
            Seen::RolloutStarted { .. } | Seen::Other => {}
        }
    }

    fn story(self, versions: &BTreeMap<String, String>) -> Story {
        let version = |id: &RevisionId| {
            versions.get(id.as_str()).map_or_else(|| Safe::new(id.as_str()), |v| Safe::new(v))
        };
        let mut story = self.story;
        story.past.from = self.from.as_ref().map(version);
        story.past.to = version(&self.to);
        if let (RolloutStatus::Running, Some(why)) = (story.past.status, self.frozen) {
            story.past.status = RolloutStatus::Frozen;
            story.past.reason = why;
        }
        story.counts = self
            .counts
            .iter()
            .map(|c| PastCount {
                role: if c.revision == self.to { Role::Candidate } else { Role::Stable },
                version: version(&c.revision),
                requests: c.requests,
                errors: c.errors,
                retries: c.retries,
            })
            .collect();
        story
    }
}

#[cfg(test)]
mod tests;
