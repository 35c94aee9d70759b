//! A controller that answers from memory: for tests of the cockpit in a real terminal, and for looking at it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use futures_util::stream;
use pilothouse::api::{
    ApiError, Change, Delta, ErrorCode, EventView, JournalPage, LogEntry, MergedLog, Role, RolloutStatus,
    Snapshot, Verb, VerbKind, VerbReply, VerbRequest,
};
use pilothouse::text::Safe;
use pilothouse::tui::fixture;
use tokio::sync::broadcast;

/// What it knows and what it was asked.
pub struct Canned {
    snapshot: Mutex<Snapshot>,
    news: broadcast::Sender<String>,
    verbs: Mutex<Vec<(String, VerbRequest)>>,
    stale: Mutex<bool>,
}

fn event(name: &str, data: &impl serde::Serialize) -> String {
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(data).unwrap())
}

impl Canned {
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        let news = broadcast::channel(1024).0;
        Arc::new(Self {
            snapshot: Mutex::new(snapshot),
            news,
            verbs: Mutex::default(),
            stale: Mutex::default(),
        })
    }

    /// The verbs that came, with the service each was for.
    #[allow(dead_code)]
    pub fn verbs(&self) -> Vec<(String, VerbRequest)> {
        self.verbs.lock().unwrap().clone()
    }

    /// Refuse the next verb as stale.
    #[allow(dead_code)]
    pub fn refuse_next(&self) {
        *self.stale.lock().unwrap() = true;
    }

    /// Changes the picture and tells everybody.
    pub fn change(&self, f: impl FnOnce(&mut Snapshot)) {
        let mut now = self.snapshot.lock().unwrap();
        let mut next = now.clone();
        f(&mut next);
        let mut changes = now.changes_to(&next);
        changes.extend(next.events.iter().skip(now.events.len()).cloned().map(Change::Event));
        changes.extend(next.probes.iter().skip(now.probes.len()).cloned().map(Change::Probe));
        let delta = Delta { seq: now.seq + 1, changes };
        let text = event("delta", &delta);
        assert!(now.apply(delta));
        let _ = self.news.send(text);
    }

    /// Serves on a socket until dropped.
    pub async fn serve(self: Arc<Self>, socket: &Path) {
        let _ = std::fs::remove_file(socket);
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let app = Router::new()
            .route(
                "/v1/version",
                get(|State(c): State<Arc<Self>>| async move {
                    Json(c.snapshot.lock().unwrap().controller.clone())
                }),
            )
            .route(
                "/v1/snapshot",
                get(|State(c): State<Arc<Self>>| async move { Json(c.snapshot.lock().unwrap().clone()) }),
            )
            .route("/v1/stream", get(|State(c): State<Arc<Self>>| async move { c.stream() }))
            .route("/v1/services/{service}/verbs", post(verb))
            .route("/v1/services/{service}/plan", get(|| async { Json(fixture::plan()) }))
            .route("/v1/instances/{id}", get(|| async { Json(fixture::details()) }))
            .route("/v1/instances/{id}/logs", get(logs))
            .route("/v1/services/{service}/logs", get(merged))
            .route("/v1/journal", get(journal))
            .with_state(self);
        axum::serve(listener, app).await.unwrap();
    }

    fn stream(&self) -> Body {
        let now = self.snapshot.lock().unwrap();
        let news = self.news.subscribe();
        let first = event("snapshot", &*now);
        let rest = stream::unfold(news, |mut news| async move {
            let text = match tokio::time::timeout(Duration::from_secs(5), news.recv()).await {
                Ok(Ok(text)) => text,
                Ok(Err(_)) => return None,
                Err(_) => ": ping\n\n".into(),
            };
            Some((text, news))
        });
        let texts = stream::once(async move { first }).chain(rest);
        Body::from_stream(texts.map(|t| Ok::<_, std::io::Error>(Bytes::from(t))))
    }

    /// What a verb does to the picture.
    fn act(&self, service: &str, request: &VerbRequest) -> u64 {
        let mut decision = 0;
        self.change(|s| {
            let at = s.events.last().map_or(0, |e| e.at_ms) + 1000;
            let seq = s.events.last().map_or(0, |e| e.seq) + 1;
            let by = request.by.clone().unwrap_or_default();
            s.events.push(EventView {
                seq,
                at_ms: at,
                service: Some(service.into()),
                by,
                text: format!("{:?}", request.verb).into(),
                ..EventView::default()
            });
            let Some(view) = s.services.iter_mut().find(|v| v.name.as_str() == service) else { return };
            let Some(r) = &mut view.rollout else { return };
            r.decision += 1;
            decision = r.decision;
            match &request.verb {
                Verb::Pause => {
                    r.status = RolloutStatus::Paused;
                    r.reason = "paused by an operator".into();
                    view.verbs = vec![VerbKind::Promote, VerbKind::Resume, VerbKind::Abort];
                }
                Verb::Resume => {
                    r.status = RolloutStatus::Running;
                    view.verbs = vec![VerbKind::Promote, VerbKind::Pause, VerbKind::Abort];
                }
                Verb::Promote { .. } => {
                    r.phase = (r.phase + 1).min(r.phases.len() - 1);
                    let weight = r.phases[r.phase].weight;
                    for v in &mut view.revisions {
                        v.weight = if v.role == Role::Candidate { weight } else { 10_000 - weight };
                        v.actual_weight = Some(v.weight);
                    }
                }
                Verb::Abort | Verb::Rollback { .. } => {
                    r.status = RolloutStatus::Aborted;
                    r.ended_ms = Some(at);
                    view.revisions.retain(|v| v.role == Role::Stable);
                    view.revisions
                        .iter_mut()
                        .for_each(|v| (v.weight, v.actual_weight) = (10_000, Some(10_000)));
                    view.verbs = vec![VerbKind::Deploy];
                }
                Verb::Deploy { .. } | Verb::Retry { .. } => {}
            }
        });
        decision
    }
}

async fn verb(
    State(c): State<Arc<Canned>>,
    Segment(service): Segment<String>,
    Json(request): Json<VerbRequest>,
) -> Result<Json<VerbReply>, (StatusCode, Json<ApiError>)> {
    c.verbs.lock().unwrap().push((service.clone(), request.clone()));
    if std::mem::take(&mut *c.stale.lock().unwrap()) {
        let message: Safe = "bob promoted to 50% a moment ago".into();
        return Err((StatusCode::CONFLICT, Json(ApiError { code: ErrorCode::Stale, message, hint: None })));
    }
    let decision = c.act(&service, &request);
    Ok(Json(VerbReply { rollouts: vec![], decision, message: "accepted".into() }))
}

async fn logs(Segment(id): Segment<String>) -> Body {
    let lines = (0u32..40).map(move |n| {
        let text = format!("{n} {id} GET /cart 200 {}ms \u{1b}[31m", n % 7 + 2);
        let entry = LogEntry { stderr: n % 10 == 9, text: text.into(), at_ms: None };
        Ok::<_, std::io::Error>(Bytes::from(serde_json::to_string(&entry).unwrap() + "\n"))
    });
    Body::from_stream(stream::iter(lines).chain(stream::pending()))
}

/// Two instances, in turn.
async fn merged() -> Body {
    let lines = (0u32..40).map(move |n| {
        let instance = Safe::from(["web-7f3a0b11-1", "web-9c1e0a77-1"][n as usize % 2]);
        let text = format!("{n} {} GET /cart 200", if n % 10 == 9 { "ERROR" } else { "INFO" });
        let line = LogEntry { stderr: false, text: text.into(), at_ms: Some(n.into()) };
        let line = MergedLog::Line { instance, line };
        Ok::<_, std::io::Error>(Bytes::from(serde_json::to_string(&line).unwrap() + "\n"))
    });
    let first = serde_json::to_string(&MergedLog::Reads { instances: 2, of: 2 }).unwrap() + "\n";
    let first = stream::once(async { Ok(Bytes::from(first)) });
    Body::from_stream(first.chain(stream::iter(lines)).chain(stream::pending()))
}

/// The one page before the picture.
async fn journal() -> Json<JournalPage> {
    let event = EventView { seq: 1, text: "the very first event".into(), ..EventView::default() };
    Json(JournalPage { events: vec![event], before: None })
}
