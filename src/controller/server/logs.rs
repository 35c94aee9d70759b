//! Logs: of one instance, or of all instances of a service, merged by the time their lines were written.
//!
//! The merge follows what the helm publishes: instances that come later are taken in, and those that end are told of.
//! Nothing is read that the client does not take, so a slow one makes the engines wait, and no queue grows.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::{Path as UrlPath, Query, State as Shared};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::{Server, name};
use crate::api::{ApiError, ErrorCode, InstanceView, LogEntry, MergedLog, Role};
use crate::engine::{Engine, LogLine};
use crate::fleet::names::{FleetName, InstanceId, ServiceName};
use crate::rollout::state::State;
use crate::text::Safe;

/// Most lines of an instance to begin with.
const TAIL: usize = 10_000;
/// Most instances that are read at the same time: more than anybody can tell apart.
const MOST: usize = 32;
/// Lines that come within this time are put in order. An engine that looks at files does so more often.
const WINDOW: Duration = Duration::from_millis(200);
/// How long the first lines may wait for those of an instance whose engine does not answer.
const FIRST: Duration = Duration::from_secs(2);
/// How long a reader that does not follow waits for all lines.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look for instances that came or went.
const LOOK: Duration = Duration::from_millis(500);
/// How often to try an engine again that did not answer.
const AGAIN: Duration = Duration::from_secs(5);
/// Most lines, and bytes of them, that are held to be put in order.
const HELD: (usize, usize) = (16_000, 4 << 20);

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default = "default_tail")]
    tail: usize,
    #[serde(default)]
    follow: bool,
    version: Option<String>,
}

fn default_tail() -> usize {
    100
}

fn lines_of(body: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = axum::body::Body::from_stream(body.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn json<T: serde::Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

fn entry(l: LogLine) -> LogEntry {
    LogEntry { stderr: l.stderr, text: l.text, at_ms: l.at_ms }
}

/// Of one instance.
pub(super) async fn one(
    Shared(s): Shared<Server>,
    UrlPath(id): UrlPath<String>,
    Query(q): Query<Asked>,
) -> Result<Response, ApiError> {
    let (id, engine) = s.engine_of(&id).await?;
    let lines = engine.logs(&s.fleet, &id, q.tail.min(TAIL), q.follow).await;
    let lines = lines.map_err(|e| ApiError {
        code: ErrorCode::Unavailable,
        message: Safe::new(&format!("logs of {id}: {e}")),
        hint: None,
    })?;
    Ok(lines_of(lines.map(|l| Bytes::from(json(&entry(l))))))
}

/// Of a service's instances, or those of one of its versions.
pub(super) async fn merged(
    Shared(s): Shared<Server>,
    UrlPath(service): UrlPath<String>,
    Query(q): Query<Asked>,
) -> Result<Response, ApiError> {
    let service: ServiceName = name(&service, "service")?;
    let service = Safe::new(service.as_str());
    let shown = s.latest.read().unwrap_or_else(PoisonError::into_inner).snapshot.clone();
    let not_found = |message: String| ApiError {
        code: ErrorCode::NotFound,
        message: Safe::new(&message),
        hint: Some("pilothouse status lists services and their instances".into()),
    };
    if !shown.services.iter().any(|v| v.name == service) {
        return Err(not_found(format!("no service {service}")));
    }
    // Whoever follows may wait for the first.
    if !q.follow && chosen(&shown.instances, &service, q.version.as_deref()).is_empty() {
        let version = q.version.map(|v| format!(" {v}")).unwrap_or_default();
        return Err(not_found(format!("no instance of {service}{version}")));
    }
    let merge = Merge::new(s, service, q);
    let body = stream::unfold(merge, |mut merge| async move { Some((merge.next().await?, merge)) });
    Ok(lines_of(body))
}

/// The instances of a service that may have written something, those first that somebody most likely looks for.
fn chosen<'a>(all: &'a [InstanceView], service: &Safe, version: Option<&str>) -> Vec<&'a InstanceView> {
    let is = |i: &&InstanceView| {
        i.service == *service
            && version.is_none_or(|v| i.version.as_str() == v || i.revision.as_str() == v)
            && !matches!(i.state.as_str(), "pending" | "gone")
    };
    let rank = |i: &InstanceView| {
        let role = match i.role {
            Role::Candidate => 0,
            Role::Stable => 1,
            Role::Old => 2,
        };
        // One that exited says why with its last lines; one that was stopped says nothing new.
        (matches!(i.state.as_str(), "stopped" | "parked"), role)
    };
    let mut chosen: Vec<&InstanceView> = all.iter().filter(is).collect();
    chosen.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.id.cmp(&b.id)));
    chosen
}

/// Why an instance writes nothing more for now, in words; `Some(None)` when it runs, `None` when nobody knows.
fn stillness(i: &InstanceView) -> Option<Option<&'static str>> {
    match i.state.as_str() {
        "exited" => Some(Some("has exited")),
        "stopped" => Some(Some("is stopped")),
        "parked" => Some(Some("is out of use")),
        "starting" | "running" | "draining" => Some(None),
        _ => None,
    }
}

fn note(instance: &Safe, text: &str) -> MergedLog {
    MergedLog::Note { instance: instance.clone(), text: text.into() }
}

/// What a reader of one instance says.
enum Part {
    /// Its engine has answered; its lines come now.
    Opened,
    Line(LogLine),
    Failed(Safe),
}

/// An instance that is read.
struct Reading {
    job: AbortHandle,
    still: Option<&'static str>,
    restarts: u32,
    /// Its engine did not answer; when to ask again.
    again: Option<Instant>,
}

impl Reading {
    /// What has become of the instance since the last look, when that is worth a line.
    fn told(&mut self, i: &InstanceView) -> Option<&'static str> {
        // An engine may have started it again before anybody saw that it had ended.
        let again = i.restarts > self.restarts;
        self.restarts = i.restarts;
        let still = stillness(i).filter(|s| *s != self.still);
        self.still = still.unwrap_or(self.still);
        match still {
            Some(Some(why)) => Some(why),
            _ if again => Some("has ended and was started again"),
            Some(None) => Some("runs again"),
            None => None,
        }
    }
}

struct Merge {
    server: Server,
    service: Safe,
    version: Option<String>,
    tail: usize,
    follow: bool,
    reads: BTreeMap<Safe, Reading>,
    /// Those that were there at first: when one of them gets its place later, its past was not asked for.
    past: BTreeSet<Safe>,
    jobs: JoinSet<()>,
    tx: Option<mpsc::Sender<(Safe, Part)>>,
    rx: mpsc::Receiver<(Safe, Part)>,
    told: Option<(usize, usize)>,
    began: Instant,
    look_at: Instant,
    /// Of the first ones, those whose engine has not answered yet; `None` when their lines were sent.
    opening: Option<usize>,
}

impl Merge {
    fn new(server: Server, service: Safe, q: Asked) -> Self {
        let (tx, rx) = mpsc::channel(256);
        let began = Instant::now();
        Self {
            server,
            service,
            version: q.version,
            tail: q.tail.min(TAIL),
            follow: q.follow,
            reads: BTreeMap::new(),
            past: BTreeSet::new(),
            jobs: JoinSet::new(),
            tx: Some(tx),
            rx,
            told: None,
            began,
            look_at: began,
            opening: Some(0),
        }
    }

    /// What there is to send next; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let (mut out, mut after) = (Vec::new(), Vec::new());
            if self.tx.is_some() && Instant::now() >= self.look_at {
                (out, after) = self.look().await;
                self.look_at = Instant::now() + LOOK;
                if !self.follow {
                    self.tx = None;
                }
            }
            let hurry = !(out.is_empty() && after.is_empty());
            let more = self.gather(hurry, &mut out).await;
            out.append(&mut after);
            if !out.is_empty() {
                return Some(Bytes::from(out.iter().map(json).collect::<String>()));
            }
            if !more {
                return None;
            }
        }
    }

    /// Takes in who came and who went. What there is to say of it, before and after the lines that are on their way.
    async fn look(&mut self) -> (Vec<MergedLog>, Vec<MergedLog>) {
        while self.jobs.try_join_next().is_some() {}
        let shown = self.server.latest.read().unwrap_or_else(PoisonError::into_inner).snapshot.clone();
        let all = chosen(&shown.instances, &self.service, self.version.as_deref());
        let there: BTreeSet<&Safe> = all.iter().map(|i| &i.id).collect();
        let best: Vec<&InstanceView> = all.iter().take(MOST).copied().collect();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        self.reads.retain(|id, reading| {
            let stays = best.iter().any(|i| i.id == *id);
            if !stays {
                reading.job.abort();
            }
            if !there.contains(id) {
                after.push(note(id, "is removed"));
            }
            stays
        });
        let first = self.told.is_none();
        if first {
            self.past = there.iter().map(|id| (*id).clone()).collect();
        }
        self.past.retain(|id| there.contains(id));
        let mut wanted = Vec::new();
        for i in best {
            match self.reads.get_mut(&i.id) {
                None => wanted.push((i, first || !self.past.contains(&i.id))),
                Some(r) if r.again.is_some_and(|t| t <= Instant::now()) => wanted.push((i, true)),
                Some(r) => after.extend(r.told(i).map(|text| note(&i.id, text))),
            }
        }
        // Costs a copy of the state, so only when somebody is new.
        if !wanted.is_empty()
            && let Ok(state) = self.server.state().await
        {
            for (i, whole) in wanted {
                let new = !first && !self.reads.contains_key(&i.id) && whole;
                if self.open(&state, i, if whole { self.tail } else { 0 }) && new {
                    before.push(note(&i.id, &format!("is new: {} on {}", i.version, i.host)));
                }
            }
        }
        let count = (self.reads.len(), all.len());
        if self.told.replace(count) != Some(count) {
            let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
            before.insert(0, MergedLog::Reads { instances: number(count.0), of: number(count.1) });
        }
        (before, after)
    }

    /// Begins to read an instance; whether that is possible.
    fn open(&mut self, state: &State, i: &InstanceView, tail: usize) -> bool {
        let Ok(id) = i.id.as_str().parse::<InstanceId>() else { return false };
        let (Some(engine), Some(tx)) = (self.server.engine_in(state, &id), self.tx.clone()) else {
            return false;
        };
        let fleet = self.server.fleet.clone();
        let job = self.jobs.spawn(read((engine, fleet, id), tail, self.follow, i.id.clone(), tx));
        let still = stillness(i).flatten();
        let reading = Reading { job, still, restarts: i.restarts, again: None };
        let before = self.reads.insert(i.id.clone(), reading);
        if let (None, Some(opening)) = (before, &mut self.opening) {
            if *opening == 0 {
                self.began = Instant::now();
            }
            *opening += 1;
        }
        true
    }

    /// Waits for lines, and for others that were written at the same time. Whether there can be more.
    async fn gather(&mut self, hurry: bool, out: &mut Vec<MergedLog>) -> bool {
        let mut until = match (self.follow, self.opening) {
            (false, _) => self.began + PATIENCE,
            (true, Some(1..)) => self.began + FIRST,
            (true, _) if hurry => Instant::now() + WINDOW,
            (true, _) => self.look_at,
        };
        let mut held = Held::default();
        let more = loop {
            if held.full() {
                break true;
            }
            let (id, part) = match timeout_at(until, self.rx.recv()).await {
                Err(_) if self.follow => break true,
                Err(_) => {
                    held.notes.push(note(&self.service, "not all of it came in time"));
                    self.jobs.abort_all();
                    break false;
                }
                Ok(None) => break false,
                Ok(Some(part)) => part,
            };
            let empty = held.is_empty();
            self.take(id, part, &mut held);
            if self.follow {
                let soon = Instant::now() + WINDOW;
                match self.opening {
                    Some(0) => until = soon.min(self.began + FIRST + WINDOW),
                    Some(_) => {}
                    None if empty => until = soon,
                    None => {}
                }
            }
        };
        if self.told.is_some_and(|(reads, _)| reads > 0) {
            self.opening = None;
        }
        out.extend(held.in_order());
        more
    }

    fn take(&mut self, id: Safe, part: Part, held: &mut Held) {
        match part {
            Part::Line(line) => return held.push(id, line),
            Part::Opened => {}
            Part::Failed(why) => {
                if let Some(r) = self.reads.get_mut(&id)
                    && r.again.replace(Instant::now() + AGAIN).is_none()
                {
                    held.notes.push(note(&id, &format!("cannot be read now: {why}")));
                }
            }
        }
        if let Some(opening) = &mut self.opening {
            *opening = opening.saturating_sub(1);
        }
    }
}

/// Reads one instance for as long as somebody takes what it writes.
async fn read(
    (engine, fleet, id): (Arc<dyn Engine>, FleetName, InstanceId),
    tail: usize,
    follow: bool,
    shown: Safe,
    tx: mpsc::Sender<(Safe, Part)>,
) {
    let mut lines = match engine.logs(&fleet, &id, tail, follow).await {
        Ok(lines) => lines,
        Err(e) => {
            let _ = tx.send((shown, Part::Failed(Safe::new(&e.to_string())))).await;
            return;
        }
    };
    if tx.send((shown.clone(), Part::Opened)).await.is_err() {
        return;
    }
    while let Some(line) = lines.next().await {
        if tx.send((shown.clone(), Part::Line(line))).await.is_err() {
            return;
        }
    }
}

/// Lines that are put in order.
#[derive(Default)]
struct Held {
    lines: Vec<(u64, Safe, LogEntry)>,
    notes: Vec<MergedLog>,
    last: BTreeMap<Safe, u64>,
    bytes: usize,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.notes.is_empty()
    }

    fn full(&self) -> bool {
        self.lines.len() >= HELD.0 || self.bytes >= HELD.1
    }

    fn push(&mut self, id: Safe, line: LogLine) {
        self.bytes += line.text.as_str().len();
        // What an instance wrote stays in its order, also where a clock was set back or nobody noted the time.
        let last = self.last.entry(id.clone()).or_default();
        *last = line.at_ms.unwrap_or_default().max(*last);
        self.lines.push((*last, id, entry(line)));
    }

    fn in_order(mut self) -> impl Iterator<Item = MergedLog> {
        self.lines.sort_by_key(|(at, ..)| *at);
        let lines = self.lines.into_iter().map(|(_, instance, line)| MergedLog::Line { instance, line });
        lines.chain(self.notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, role: Role, state: &str) -> InstanceView {
        let version = if role == Role::Candidate { "2" } else { "1" };
        InstanceView {
            id: id.into(),
            service: "web".into(),
            version: version.into(),
            revision: format!("rev{version}").into(),
            role,
            state: state.into(),
            ..InstanceView::default()
        }
    }

    #[test]
    fn the_candidate_comes_first_and_what_was_stopped_last() {
        let mut all = vec![
            instance("web-a-1", Role::Stable, "running"),
            instance("web-a-2", Role::Stable, "stopped"),
            instance("web-b-1", Role::Candidate, "exited"),
            instance("web-b-2", Role::Candidate, "pending"),
            instance("web-b-3", Role::Candidate, "gone"),
            instance("web-b-4", Role::Candidate, "starting"),
        ];
        all.push(InstanceView { service: "api".into(), ..instance("api-a-1", Role::Stable, "running") });
        let ids = |version| -> Vec<&str> {
            chosen(&all, &"web".into(), version).iter().map(|i| i.id.as_str()).collect()
        };
        assert_eq!(ids(None), ["web-b-1", "web-b-4", "web-a-1", "web-a-2"]);
        assert_eq!(ids(Some("2")), ["web-b-1", "web-b-4"]);
        assert_eq!(ids(Some("rev1")), ["web-a-1", "web-a-2"]);
        assert_eq!(ids(Some("3")), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn an_end_is_told_also_when_nobody_saw_it() {
        let job = tokio::spawn(async {}).abort_handle();
        let mut reading = Reading { job, still: None, restarts: 0, again: None };
        let mut told = |state, restarts| {
            let i = InstanceView { restarts, ..instance("web-a-1", Role::Stable, state) };
            reading.told(&i)
        };
        assert_eq!(told("running", 0), None);
        assert_eq!(told("running", 1), Some("has ended and was started again"));
        assert_eq!(told("unknown", 1), None, "what nobody knows is no news");
        assert_eq!(told("exited", 1), Some("has exited"));
        assert_eq!(told("exited", 1), None);
        assert_eq!(told("starting", 2), Some("has ended and was started again"));
        assert_eq!(told("stopped", 2), Some("is stopped"));
        assert_eq!(told("running", 2), Some("runs again"));
    }

    #[test]
    fn lines_are_in_the_order_of_their_times_and_those_of_one_instance_stay_in_theirs() {
        let mut held = Held::default();
        let line = |at_ms, text: &str| LogLine { stderr: false, text: text.into(), at_ms };
        for (id, at, text) in [
            ("a", Some(10), "a10"),
            ("a", Some(30), "a30"),
            // Its clock was set back; then a line whose time nobody noted.
            ("a", Some(5), "a5"),
            ("a", None, "a?"),
            ("b", Some(20), "b20"),
            ("b", Some(40), "b40"),
        ] {
            held.push(id.into(), line(at, text));
        }
        held.notes.push(note(&"b".into(), "is removed"));
        let texts: Vec<String> = held
            .in_order()
            .map(|l| match l {
                MergedLog::Line { line, .. } => line.text.to_string(),
                MergedLog::Note { text, .. } => text.to_string(),
                MergedLog::Reads { .. } => String::new(),
            })
            .collect();
        assert_eq!(texts, ["a10", "b20", "a30", "a5", "a?", "b40", "is removed"]);
    }

    #[test]
    fn what_is_held_is_bounded_by_lines_and_by_bytes() {
        let line = |text: String| LogLine { stderr: false, text: text.into(), at_ms: None };
        let mut short = Held::default();
        (0..HELD.0).for_each(|_| short.push("a".into(), line("x".into())));
        let mut long = Held::default();
        (0..=HELD.1 / 4096).for_each(|_| long.push("a".into(), line("x".repeat(4096))));
        assert!(short.full() && long.full() && !Held::default().full());
    }
}
