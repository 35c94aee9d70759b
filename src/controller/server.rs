//! The API server: HTTP over the Unix socket. It asks the helm and shows what the helm publishes; it decides nothing.

mod logs;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path as UrlPath, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::adopt;
use super::hands::Hands;
use super::helm::Latest;
use super::history::{HistoryError, Reader};
use super::input::{Asked, Input, Request};
use super::peer::actor;
use super::resolve;
use super::samples;
use super::secrets::Identity;
use super::view;
use crate::api::{
    ApiError, Delta, ErrorCode, FleetRequest, Hello, History, InstanceDetails, JournalPage, PlanView,
    RolloutStatus, Snapshot, Story, Verb, VerbReply, VerbRequest,
};
use crate::engine::Engine;
use crate::fleet::model::Fleet;
use crate::fleet::names::{FleetName, InstanceId, RolloutId, ServiceName, Version};
use crate::rollout::decide::Intent;
use crate::rollout::state::{Kind, ServiceState, State};
use crate::text::Safe;

/// A comment line is sent this often when nothing happens, so that a client can tell silence from loss.
const PING: Duration = Duration::from_secs(5);
/// Longest wait for the helm's answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What the server is made of.
#[derive(Clone)]
pub struct Server {
    /// Who we are.
    pub hello: Hello,
    /// The fleet.
    pub fleet: FleetName,
    /// Where inputs go.
    pub tx: mpsc::Sender<Input>,
    /// The helm's ear for those who want something.
    pub asks: mpsc::Sender<Asked>,
    /// What was published last.
    pub latest: Latest,
    /// What is published.
    pub updates: broadcast::Sender<Arc<Delta>>,
    /// Engines, for logs and to resolve versions.
    pub hands: Arc<Hands>,
    /// The key for environments.
    pub identity: Identity,
    /// Who watches.
    pub watchers: Arc<Watchers>,
    /// Past rollouts.
    pub history: Reader,
    /// The database of their recordings.
    pub samples: PathBuf,
}

/// Who watches the stream.
#[derive(Default)]
pub struct Watchers(Mutex<Vec<(u64, Safe, bool)>>);

/// Who connected.
#[derive(Clone, Debug)]
struct Peer {
    uid: u32,
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(cred) => Self { uid: cred.uid(), pid: cred.pid() },
            Err(_) => Self { uid: u32::MAX, pid: None },
        }
    }
}

impl Peer {
    fn name(&self, hint: Option<&Safe>) -> Safe {
        actor(self.uid, self.pid, hint)
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: UnixListener, server: Server) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/v1/version", get(version))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/stream", get(follow))
        .route("/v1/services/{service}/verbs", post(verb))
        .route("/v1/services/{service}/plan", get(plan))
        .route("/v1/instances/{id}", get(details))
        .route("/v1/instances/{id}/logs", get(logs::one))
        .route("/v1/services/{service}/logs", get(logs::merged))
        .route("/v1/history", get(history))
        .route("/v1/journal", get(journal))
        .route("/v1/rollouts/{id}", get(story))
        .route("/v1/rollouts/{id}/recording", get(recording))
        .route("/v1/up", post(up))
        .route("/v1/down", post(down))
        .route("/v1/stop", post(stop))
        .with_state(server);
    axum::serve(listener, routes.into_make_service_with_connect_info::<Peer>()).await
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self.code {
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Stale | ErrorCode::Refused | ErrorCode::Foreign => StatusCode::CONFLICT,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(self)).into_response()
    }
}

type Answer<T> = Result<Json<T>, ApiError>;

fn bad(message: impl AsRef<str>, hint: impl AsRef<str>) -> ApiError {
    ApiError {
        code: ErrorCode::BadRequest,
        message: Safe::new(message.as_ref()),
        hint: Some(Safe::new(hint.as_ref())).filter(|h| !h.is_empty()),
    }
}

/// A body that cannot be read is refused in the same form as everything else.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| bad(format!("the request cannot be read: {e}"), ""))
}

fn name<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| bad(format!("{what} {text:?}: {e}"), ""))
}

async fn version(Shared(s): Shared<Server>) -> Json<Hello> {
    Json(s.hello)
}

async fn snapshot(Shared(s): Shared<Server>) -> Json<Snapshot> {
    Json(s.current())
}

async fn stop(Shared(s): Shared<Server>) -> Answer<VerbReply> {
    s.tx.send(Input::Stop).await.map_err(|_closed| gone())?;
    Ok(Json(VerbReply { message: "the controller ends".into(), ..VerbReply::default() }))
}

fn gone() -> ApiError {
    ApiError { code: ErrorCode::Unavailable, message: "the controller is ending".into(), hint: None }
}

impl Server {
    fn current(&self) -> Snapshot {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).current()
    }

    async fn ask(&self, request: Request) -> Answer<VerbReply> {
        let (reply, answer) = oneshot::channel();
        self.asks.send((Box::new(request), reply)).await.map_err(|_closed| gone())?;
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => answer.map(Json),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(ApiError {
                code: ErrorCode::Unavailable,
                message: "the controller did not answer in time; it may or may not have been done".into(),
                hint: Some("look at the status before trying again".into()),
            }),
        }
    }

    /// Brings a version that was resolved now, if every proxy can do what its plan needs.
    async fn release(
        &self,
        fleet: Fleet,
        service: &ServiceName,
        version: &Version,
        decision: Option<u64>,
        by: Safe,
    ) -> Answer<VerbReply> {
        let revision = resolve::revision(&self.hands, &self.identity, &fleet, service, version).await?;
        resolve::fits(&self.hands, &self.state().await?, &fleet, &revision.spec).await?;
        let (fleet, revision) = (Box::new(fleet), Box::new(revision));
        self.ask(Request::Deploy { fleet, revision, kind: Kind::Release, decision, by }).await
    }

    /// Loads the fleet file that a client used, and refuses when it is no longer what the client read.
    async fn load(&self, file: &str, hash: &str) -> Result<Fleet, ApiError> {
        let path = std::path::PathBuf::from(file);
        if !path.is_absolute() {
            return Err(bad("the fleet file's path is not absolute", "send an absolute path"));
        }
        let loaded = tokio::task::spawn_blocking(move || crate::fleet::load(&path)).await;
        let fleet = match loaded {
            Ok(Ok(loaded)) => loaded.fleet.without_hosts_that_are_out(),
            Ok(Err(problems)) => return Err(bad(problems.to_string(), "pilothouse check shows the same")),
            Err(e) => return Err(bad(format!("the fleet file cannot be read: {e}"), "")),
        };
        if fleet.hash != hash {
            return Err(ApiError {
                code: ErrorCode::Stale,
                message: Safe::new(&format!("{file} was changed since you read it")),
                hint: Some("look at it again, then try again".into()),
            });
        }
        if fleet.name != self.fleet {
            let message =
                format!("the file declares fleet {}, this controller holds {}", fleet.name, self.fleet);
            return Err(bad(message, "check --fleet and state_dir"));
        }
        Ok(fleet)
    }
}

async fn verb(
    Shared(s): Shared<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    UrlPath(service): UrlPath<String>,
    bytes: Bytes,
) -> Answer<VerbReply> {
    let request: VerbRequest = body(&bytes)?;
    let service: ServiceName = name(&service, "service")?;
    let by = peer.name(request.by.as_ref());
    let decision = request.decision;
    let file = || match (&request.fleet_file, &request.fleet_hash) {
        (Some(f), Some(h)) => Ok((f.clone(), h.clone())),
        _ => Err(bad("this verb needs fleet_file and fleet_hash", "")),
    };
    let intent = match &request.verb {
        Verb::Promote { full } => Intent::Promote { full: *full },
        Verb::Pause => Intent::Pause,
        Verb::Resume => Intent::Resume,
        Verb::Abort => Intent::Abort,
        Verb::Deploy { version } => {
            let version: Version = name(version, "version")?;
            let (f, h) = file()?;
            let fleet = s.load(&f, &h).await?;
            return s.release(fleet, &service, &version, decision, by).await;
        }
        Verb::Rollback { host: Some(host), to: None } => Intent::Hold(name(host, "host")?),
        Verb::Rollback { host: Some(_), to: Some(_) } => {
            return Err(bad(
                "one host goes back to what it had before, not to another version",
                "leave out --to",
            ));
        }
        Verb::Retry { host } => {
            let host = host.as_deref().map(|h| name(h, "host")).transpose()?;
            let again = again(&s.current(), &service).filter(|_| host.is_none());
            if let Some(version) = again {
                let (f, h) = file()?;
                let fleet = s.load(&f, &h).await?;
                return s.release(fleet, &service, &version, decision, by).await;
            }
            Intent::Retry(host)
        }
        Verb::Rollback { to, host: None } => {
            let to: Option<Version> = to.as_deref().map(|t| name(t, "version")).transpose()?;
            let (service, by) = (service.clone(), by.clone());
            let kept = s
                .ask(Request::Rollback { service: service.clone(), to: to.clone(), decision, by: by.clone() })
                .await;
            // A version that is not kept is resolved like a deploy, and rolled out without gates.
            return match (kept, to) {
                (Err(e), Some(version)) if e.code == ErrorCode::NotFound => {
                    let (f, h) = file()?;
                    let fleet = s.load(&f, &h).await?;
                    let revision =
                        resolve::revision(&s.hands, &s.identity, &fleet, &service, &version).await?;
                    let (fleet, revision) = (Box::new(fleet), Box::new(revision));
                    s.ask(Request::Deploy { fleet, revision, kind: Kind::Rollback, decision, by }).await
                }
                (answer, _) => answer,
            };
        }
    };
    s.ask(Request::Verb { service, intent, decision, by }).await
}

/// The version that a retry brings: that of the last rollout, when it was taken back.
fn again(snapshot: &Snapshot, service: &ServiceName) -> Option<Version> {
    let view = snapshot.services.iter().find(|v| v.name.as_str() == service.as_str())?;
    let last = view.rollout.as_ref()?;
    matches!(last.status, RolloutStatus::Aborted | RolloutStatus::Failed)
        .then(|| last.to.as_str().parse().ok())?
}

async fn up(
    Shared(s): Shared<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    bytes: Bytes,
) -> Answer<VerbReply> {
    let request: FleetRequest = body(&bytes)?;
    let by = peer.name(request.by.as_ref());
    let fleet = s.load(&request.fleet_file, &request.fleet_hash).await?;
    let services = named(&request.services)?;
    if let Some(unknown) = services.iter().find(|n| !fleet.services.contains_key(n)) {
        return Err(bad(format!("the fleet file has no service {unknown}"), ""));
    }
    let snapshot = s.current();
    let mut first = Vec::new();
    for declared in fleet.services.values() {
        let wanted = services.is_empty() || services.contains(&declared.name);
        let serves = snapshot
            .services
            .iter()
            .any(|v| v.name.as_str() == declared.name.as_str() && (v.stable.is_some()));
        if !wanted || serves {
            continue;
        }
        if request.adopt {
            first.push(adopt::running(&s.hands, &s.identity, &fleet, declared).await?);
        } else if let Some(version) = &declared.version {
            let revision = resolve::revision(&s.hands, &s.identity, &fleet, &declared.name, version).await?;
            first.push((revision, Vec::new()));
        }
    }
    s.ask(Request::Up { fleet: Box::new(fleet), first, services, by }).await
}

async fn down(
    Shared(s): Shared<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    bytes: Bytes,
) -> Answer<VerbReply> {
    let request: FleetRequest = body(&bytes)?;
    let by = peer.name(request.by.as_ref());
    let services = named(&request.services)?;
    if request.adopt {
        if services.is_empty() {
            return Err(bad("name the services whose adopted instances may be stopped", "pilothouse status"));
        }
        return s.ask(Request::AllowStop { services, by }).await;
    }
    s.ask(Request::Down { services, by }).await
}

fn named(services: &[String]) -> Result<Vec<ServiceName>, ApiError> {
    services.iter().map(|n| name(n, "service")).collect()
}

#[derive(Deserialize)]
struct PlanQuery {
    version: String,
    fleet_file: Option<String>,
    fleet_hash: Option<String>,
    #[serde(default)]
    resolve: bool,
}

/// The plan is made from the file the client names, else from the one that was loaded last.
async fn plan(
    Shared(s): Shared<Server>,
    UrlPath(service): UrlPath<String>,
    Query(q): Query<PlanQuery>,
) -> Answer<PlanView> {
    let service: ServiceName = name(&service, "service")?;
    let version: Version = name(&q.version, "version")?;
    let state: State = s.state().await?;
    let fleet = match (&q.fleet_file, &q.fleet_hash) {
        (Some(f), Some(h)) => s.load(f, h).await?,
        _ => state.fleet.clone().ok_or_else(|| bad("no fleet file was loaded yet", "pilothouse up"))?,
    };
    let declared = resolve::declared(&fleet, &service)?;
    if q.resolve {
        resolve::artifact(&s.hands, &fleet, declared, &version).await?;
    }
    resolve::fits(&s.hands, &state, &fleet, declared).await?;
    Ok(Json(view::plan_view(&state, declared, &version, Kind::Release)))
}

#[derive(Deserialize)]
struct HistoryQuery {
    service: Option<String>,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    20
}

fn unreadable(e: &HistoryError) -> ApiError {
    ApiError { code: ErrorCode::Unavailable, message: Safe::new(&e.to_string()), hint: None }
}

async fn history(Shared(s): Shared<Server>, Query(q): Query<HistoryQuery>) -> Answer<History> {
    let service: Option<ServiceName> = q.service.as_deref().map(|n| name(n, "service")).transpose()?;
    let past = s.history.history(service.clone(), q.limit).await.map_err(|e| unreadable(&e))?;
    let known = |name: &ServiceName| s.current().services.iter().any(|v| v.name.as_str() == name.as_str());
    match service {
        Some(name) if past.rollouts.is_empty() && !known(&name) => Err(ApiError {
            code: ErrorCode::NotFound,
            message: Safe::new(&format!("there is and was no service {name}")),
            hint: Some("pilothouse history lists the rollouts of all services".into()),
        }),
        _ => Ok(Json(past)),
    }
}

#[derive(Deserialize)]
struct JournalQuery {
    before: Option<u64>,
    #[serde(default = "default_limit")]
    limit: usize,
}

async fn journal(Shared(s): Shared<Server>, Query(q): Query<JournalQuery>) -> Answer<JournalPage> {
    s.history.journal(q.before, q.limit).await.map(Json).map_err(|e| unreadable(&e))
}

async fn story(Shared(s): Shared<Server>, UrlPath(id): UrlPath<String>) -> Answer<Story> {
    let id: RolloutId = name(&id, "rollout")?;
    let story = s.history.story(id.clone()).await.map_err(|e| unreadable(&e))?;
    story.map(Json).ok_or_else(|| no_rollout(&id))
}

/// What was recorded, a frame a line. Read page by page as the client takes it.
async fn recording(Shared(s): Shared<Server>, UrlPath(id): UrlPath<String>) -> Result<Response, ApiError> {
    let id: RolloutId = name(&id, "rollout")?;
    let (tx, mut rx) = mpsc::channel::<Bytes>(64);
    let (path, rollout) = (s.samples.clone(), id.to_string());
    let job = tokio::task::spawn_blocking(move || {
        samples::read(&path, &rollout, |sample| {
            let what = if sample.whole { "snapshot" } else { "delta" };
            let line = format!("{{\"at_ms\":{},\"{what}\":{}}}\n", sample.at_ms, sample.body);
            tx.blocking_send(Bytes::from(line)).is_ok()
        })
    });
    let Some(first) = rx.recv().await else {
        let why = match job.await {
            Ok(Ok(_)) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        return Err(match why {
            None if s.history.story(id.clone()).await.is_ok_and(|found| found.is_none()) => no_rollout(&id),
            None => ApiError {
                code: ErrorCode::NotFound,
                message: Safe::new(&format!(
                    "there is no recording of {id}: it is older than the newest 50, or nothing was recorded"
                )),
                hint: Some(Safe::new(&format!("pilothouse show {id} tells it from the journal"))),
            },
            Some(why) => ApiError {
                code: ErrorCode::Unavailable,
                message: Safe::new(&format!("the recording of {id} cannot be read: {why}")),
                hint: Some(Safe::new(&format!("pilothouse show {id} tells it from the journal"))),
            },
        });
    };
    let rest = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|line| (line, rx)) });
    let lines = stream::iter([first]).chain(rest).map(Ok::<_, Infallible>);
    let body = axum::body::Body::from_stream(lines);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn no_rollout(id: &RolloutId) -> ApiError {
    ApiError {
        code: ErrorCode::NotFound,
        message: Safe::new(&format!("there was no rollout {id}")),
        hint: Some("pilothouse history lists them".into()),
    }
}

async fn details(Shared(s): Shared<Server>, UrlPath(id): UrlPath<String>) -> Answer<InstanceDetails> {
    let (id, engine) = s.engine_of(&id).await?;
    let details = engine.details(&s.fleet, &id).await.map_err(|e| ApiError {
        code: ErrorCode::Unavailable,
        message: Safe::new(&format!("details of {id}: {e}")),
        hint: None,
    })?;
    Ok(Json(view::details_view(&id, details)))
}

impl Server {
    /// An instance, a hook's included, and the engine it is on.
    async fn engine_of(&self, id: &str) -> Result<(InstanceId, Arc<dyn Engine>), ApiError> {
        let id: InstanceId = name(id, "instance")?;
        let state = self.state().await?;
        let engine = self.engine_in(&state, &id).ok_or_else(|| ApiError {
            code: ErrorCode::NotFound,
            message: Safe::new(&format!("no instance {id}")),
            hint: Some("pilothouse status lists them".into()),
        })?;
        Ok((id, engine))
    }

    /// The same, in a state that is at hand.
    fn engine_in(&self, state: &State, id: &InstanceId) -> Option<Arc<dyn Engine>> {
        let hook = |s: &ServiceState| {
            s.rollout.as_ref()?.hooks.iter().find(|h| h.instance == *id).map(|h| h.host.clone())
        };
        let at = |s: &ServiceState| s.instances.get(id).map(|i| i.host.clone()).or_else(|| hook(s));
        let host = state.services.values().find_map(at)?;
        Some(self.hands.engine(state.fleet.as_ref()?.hosts.get(&host)?))
    }

    async fn state(&self) -> Result<State, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.tx.send(Input::State(reply)).await.map_err(|_closed| gone())?;
        answer.await.map(|s| *s).map_err(|_closed| gone())
    }
}

#[derive(Deserialize)]
struct StreamQuery {
    name: Option<String>,
    #[serde(default)]
    usage: bool,
}

async fn follow(
    Shared(s): Shared<Server>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(q): Query<StreamQuery>,
) -> Response {
    let hint = q.name.as_deref().map(Safe::new);
    let ticket = Ticket::new(s.clone(), peer.name(hint.as_ref()), q.usage).await;
    let events = updates(s, ticket).map(Ok::<_, Infallible>);
    ([(header::CONTENT_TYPE, "text/event-stream")], axum::body::Body::from_stream(events)).into_response()
}

/// First a snapshot, then deltas. A client that is too slow for the deltas gets a new snapshot, never a queue.
fn updates(s: Server, ticket: Ticket) -> impl Stream<Item = Bytes> {
    // Subscribed before the snapshot is taken, so that nothing falls between the two.
    let rx = s.updates.subscribe();
    stream::unfold((s, ticket, rx, None::<u64>), |(s, ticket, mut rx, shown)| async move {
        let Some(shown) = shown else {
            let (text, seq) = snapshot_event(&s, &ticket);
            return Some((text, (s, ticket, rx, Some(seq))));
        };
        loop {
            let (text, seq) = match tokio::time::timeout(PING, rx.recv()).await {
                Err(_) => (Bytes::from_static(b": ping\n\n"), shown),
                Ok(Ok(delta)) if delta.seq <= shown => continue,
                Ok(Ok(delta)) if delta.seq == shown + 1 => (event("delta", &*delta), delta.seq),
                Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => snapshot_event(&s, &ticket),
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
            };
            return Some((text, (s, ticket, rx, Some(seq))));
        }
    })
}

fn snapshot_event(s: &Server, ticket: &Ticket) -> (Bytes, u64) {
    let (mut snapshot, trends) = {
        let latest = s.latest.read().unwrap_or_else(PoisonError::into_inner);
        (latest.current(), latest.trends.clone())
    };
    snapshot.trends = trends;
    snapshot.you = ticket.name.clone();
    (event("snapshot", &snapshot), snapshot.seq)
}

fn event<T: serde::Serialize>(kind: &str, data: &T) -> Bytes {
    // Our own types always serialise; an empty object would be noticed by the client as a gap.
    let json = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    Bytes::from(format!("event: {kind}\ndata: {json}\n\n"))
}

/// Somebody watching; they are gone when it is dropped.
struct Ticket {
    server: Server,
    id: u64,
    name: Safe,
}

impl Ticket {
    async fn new(server: Server, name: Safe, usage: bool) -> Self {
        let id = {
            let mut list = server.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
            let id = list.iter().map(|(id, ..)| *id).max().unwrap_or(0) + 1;
            list.push((id, name.clone(), usage));
            id
        };
        let told = server.watchers.input();
        let _ = server.tx.send(told).await;
        Self { server, id, name }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.server
            .watchers
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(id, ..)| *id != self.id);
        // A full queue is fine: the next one who comes or goes tells the helm the same.
        let _ = self.server.tx.try_send(self.server.watchers.input());
    }
}

impl Watchers {
    fn input(&self) -> Input {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<Safe> = list.iter().map(|(_, name, _)| name.clone()).collect();
        names.sort();
        Input::Watchers { names, usage: list.iter().any(|(.., usage)| *usage) }
    }
}

/// Binds the socket, 0600, in place of one that a dead controller left. The fleet's lock must be held.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // The directory is 0700 already; the umask makes sure for the moment until the mode is set.
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}
