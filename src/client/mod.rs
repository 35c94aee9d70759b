//! The API client that every front end uses: the cockpit, the commands, the tests.
//!
//! Everything is pulled: nothing is read from the socket that the caller did not ask for, so a slow screen makes the
//! controller send a fresh snapshot later, and never fills a queue here. Every call has a deadline; a deadline that
//! passed means *not known*, never *failed*.

mod sse;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;

use crate::api::{
    API_VERSION, ApiError, Delta, FleetRequest, Frame, Hello, History, InstanceDetails, JournalPage,
    LogEntry, MergedLog, PlanView, Snapshot, Story, Verb, VerbReply, VerbRequest,
};
use crate::text::Safe;

/// Longest wait for the answer to a question.
const ASK: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a verb: the controller journals it before it answers.
const ACT: Duration = Duration::from_secs(15);
/// Silence on the stream after which the controller counts as lost; it sends a comment every 5 s.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest answer that is read.
const MAX_BODY: usize = 64 << 20;
/// Longest log line that is read; `Safe` cuts it further.
const MAX_LINE: usize = 256 << 10;

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket: nothing was done.
    #[error("no controller answers at {}: {why}", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system said.
        why: Safe,
    },
    /// The request may or may not have been carried out.
    #[error("no answer to {what} ({why}); it may or may not have been done: look before trying again")]
    NoAnswer {
        /// What was asked.
        what: Safe,
        /// What was seen instead.
        why: Safe,
    },
    /// The controller refused, and did nothing.
    #[error("{0}")]
    Refused(ApiError),
    /// Client and controller speak different versions: watching and aborting still work.
    #[error(
        "the controller speaks version {theirs} of the API and this binary version {ours}: only watching and abort \
         are possible; use the same version of pilothouse on both sides"
    )]
    Version {
        /// The controller's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The answer makes no sense.
    #[error("cannot read the answer to {what}: {why}")]
    Garbled {
        /// What was asked.
        what: Safe,
        /// What is wrong.
        why: Safe,
    },
}

/// One message of [`Client::stream`].
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// Everything, first and after a gap.
    Snapshot(Box<Snapshot>),
    /// What changed since.
    Delta(Delta),
}

/// Messages of the controller, in order. Ends after its first error.
pub type Updates = BoxStream<'static, Result<Update, ClientError>>;
/// Log lines, oldest first. Ends after its first error.
pub type LogLines = BoxStream<'static, Result<LogEntry, ClientError>>;

/// Log lines of several instances. Ends after its first error.
pub type MergedLines = BoxStream<'static, Result<MergedLog, ClientError>>;

/// Frames of a recording. Ends after its first error.
pub type Frames = BoxStream<'static, Result<Frame, ClientError>>;

/// A connection to a controller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    socket: PathBuf,
    hello: Hello,
}

impl Client {
    /// Connects to the controller behind `socket` and exchanges versions, within 5 s.
    ///
    /// A controller of another version is not an error here, see [`Client::compatible`].
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let fail = |why: String| ClientError::Unreachable { socket: socket.to_owned(), why: why.into() };
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .connect_timeout(ASK)
            .build()
            .map_err(|e| fail(chain(&e)))?;
        let base = Url::parse("http://pilothouse/").map_err(|e| fail(e.to_string()))?;
        let mut client = Self { http, base, socket: socket.to_owned(), hello: Hello::default() };
        client.hello = client.hello().await?;
        Ok(client)
    }

    /// Who answered when the connection was made.
    #[must_use]
    pub fn controller(&self) -> &Hello {
        &self.hello
    }

    /// Whether both sides speak the same version of the API. If not, every verb but abort is refused here.
    #[must_use]
    pub fn compatible(&self) -> bool {
        self.hello.api == API_VERSION
    }

    /// Who the controller is.
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        self.ask(Method::GET, self.url(&["v1", "version"]), None::<&()>, ASK).await
    }

    /// Everything there is to see now.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.ask(Method::GET, self.url(&["v1", "snapshot"]), None::<&()>, ASK).await
    }

    /// Asks for a verb on a service. `Ok` means accepted and journalled, not yet done.
    pub async fn verb(&self, service: &str, request: &VerbRequest) -> Result<VerbReply, ClientError> {
        if request.verb != Verb::Abort {
            self.must_match()?;
        }
        self.ask(Method::POST, self.url(&["v1", "services", service, "verbs"]), Some(request), ACT).await
    }

    /// Creates what is declared and missing.
    pub async fn up(&self, request: &FleetRequest) -> Result<VerbReply, ClientError> {
        self.must_match()?;
        self.ask(Method::POST, self.url(&["v1", "up"]), Some(request), ACT).await
    }

    /// Takes the fleet, or some services of it, away.
    pub async fn down(&self, request: &FleetRequest) -> Result<VerbReply, ClientError> {
        self.must_match()?;
        self.ask(Method::POST, self.url(&["v1", "down"]), Some(request), ACT).await
    }

    /// Ends the controller; rollouts wait for the next one.
    pub async fn stop(&self) -> Result<(), ClientError> {
        self.send(Method::POST, self.url(&["v1", "stop"]), None::<&()>, ACT).await.map(drop)
    }

    /// What a deployment of `version` would do, by the fleet file at a path with a hash, else by the one that was
    /// loaded last. With `resolve` only for a version that is there.
    pub async fn plan(
        &self,
        service: &str,
        version: &str,
        fleet: Option<(&str, &str)>,
        resolve: bool,
    ) -> Result<PlanView, ClientError> {
        let mut url = self.url(&["v1", "services", service, "plan"]);
        url.query_pairs_mut()
            .append_pair("version", version)
            .append_pair("resolve", if resolve { "true" } else { "false" });
        if let Some((file, hash)) = fleet {
            url.query_pairs_mut().append_pair("fleet_file", file).append_pair("fleet_hash", hash);
        }
        self.ask(Method::GET, url, None::<&()>, ACT).await
    }

    /// The newest rollouts, of one service or of all.
    pub async fn history(&self, service: Option<&str>, limit: usize) -> Result<History, ClientError> {
        let mut url = self.url(&["v1", "history"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        self.ask(Method::GET, url, None::<&()>, ACT).await
    }

    /// The last `limit` events before a fact of the journal.
    pub async fn journal(&self, before: u64, limit: u32) -> Result<JournalPage, ClientError> {
        let mut url = self.url(&["v1", "journal"]);
        url.query_pairs_mut()
            .append_pair("before", &before.to_string())
            .append_pair("limit", &limit.to_string());
        self.ask(Method::GET, url, None::<&()>, ACT).await
    }

    /// One rollout in full.
    pub async fn story(&self, rollout: &str) -> Result<Story, ClientError> {
        self.ask(Method::GET, self.url(&["v1", "rollouts", rollout]), None::<&()>, ACT).await
    }

    /// What was recorded of a rollout, in order.
    pub async fn recording(&self, rollout: &str) -> Result<Frames, ClientError> {
        let what = "recording";
        let response = self.open(self.url(&["v1", "rollouts", rollout, "recording"]), what).await?;
        Ok(lines(what, sse::Lines::new(self.body(response, what, Some(SILENCE)), MAX_BODY)))
    }

    /// The last `tail` log lines of an instance, and with `follow` those that come. Dropping the stream ends it.
    pub async fn logs(&self, instance: &str, tail: u32, follow: bool) -> Result<LogLines, ClientError> {
        let mut url = self.url(&["v1", "instances", instance, "logs"]);
        url.query_pairs_mut()
            .append_pair("tail", &tail.to_string())
            .append_pair("follow", &follow.to_string());
        let what = "logs";
        let response = self.open(url, what).await?;
        // A quiet application is no fault, so following has no deadline; fetching a tail has one.
        let silence = if follow { None } else { Some(SILENCE) };
        Ok(lines(what, sse::Lines::new(self.body(response, what, silence), MAX_LINE)))
    }

    /// The last `tail` log lines of each instance of a service, or of one of its versions, merged; and with `follow` those
    /// that come, also of instances that come later.
    pub async fn merged_logs(
        &self,
        service: &str,
        version: Option<&str>,
        tail: u32,
        follow: bool,
    ) -> Result<MergedLines, ClientError> {
        let mut url = self.url(&["v1", "services", service, "logs"]);
        url.query_pairs_mut()
            .append_pair("tail", &tail.to_string())
            .append_pair("follow", &follow.to_string());
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", version);
        }
        let what = "logs";
        let response = self.open(url, what).await?;
        let silence = if follow { None } else { Some(SILENCE) };
        Ok(lines(what, sse::Lines::new(self.body(response, what, silence), MAX_LINE)))
    }

    /// What the engine says of an instance.
    pub async fn details(&self, instance: &str) -> Result<InstanceDetails, ClientError> {
        self.ask(Method::GET, self.url(&["v1", "instances", instance]), None::<&()>, ACT).await
    }

    /// First a snapshot, then what changes. `name` is shown to the others; `usage` asks for CPU and memory of
    /// instances too. Ends with [`ClientError::NoAnswer`] after 15 s of silence.
    pub async fn stream(&self, name: &str, usage: bool) -> Result<Updates, ClientError> {
        let mut url = self.url(&["v1", "stream"]);
        url.query_pairs_mut().append_pair("name", name).append_pair("usage", &usage.to_string());
        let what = "stream";
        let response = self.open(url, what).await?;
        let events = sse::Events::new(self.body(response, what, Some(SILENCE)), MAX_BODY);
        Ok(stream::unfold(Some(events), move |events| async move {
            let mut events = events?;
            loop {
                let event = match events.next().await? {
                    Ok(event) => event,
                    Err(e) => return Some((Err(e), None)),
                };
                let update = match event.name.as_str() {
                    "snapshot" => serde_json::from_slice(&event.data).map(|s| Update::Snapshot(Box::new(s))),
                    "delta" => serde_json::from_slice(&event.data).map(Update::Delta),
                    // A later controller may send more kinds; they change nothing that we show.
                    _ => continue,
                };
                return Some(match update {
                    Ok(update) => (Ok(update), Some(events)),
                    Err(e) => (Err(garbled(what, &e.to_string())), None),
                });
            }
        })
        .boxed())
    }

    fn must_match(&self) -> Result<(), ClientError> {
        if self.compatible() {
            Ok(())
        } else {
            Err(ClientError::Version { theirs: self.hello.api, ours: API_VERSION })
        }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // `push` percent-encodes, so a name can never reach another path.
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn open(&self, url: Url, what: &'static str) -> Result<Response, ClientError> {
        let sent = tokio::time::timeout(ASK, self.http.get(url).send());
        let response =
            sent.await.map_err(|_late| no_answer(what, late(ASK)))?.map_err(|e| self.transport(what, &e))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(what, response).await) }
    }

    async fn send<B: serde::Serialize + Sync>(
        &self,
        method: Method,
        url: Url,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let what = url.path().to_owned();
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = async {
            let response = request.send().await.map_err(|e| self.transport(&what, &e))?;
            if !response.status().is_success() {
                return Err(refusal(&what, response).await);
            }
            let bytes = response.bytes().await.map_err(|e| no_answer(&what, chain(&e)))?;
            Ok(bytes.to_vec())
        };
        tokio::time::timeout(deadline, answer).await.map_err(|_late| no_answer(&what, late(deadline)))?
    }

    async fn ask<B: serde::Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let what = url.path().to_owned();
        let bytes = self.send(method, url, body, deadline).await?;
        serde_json::from_slice(&bytes).map_err(|e| garbled(&what, &e.to_string()))
    }

    /// Only a failed `connect` proves that nothing was done.
    fn transport(&self, what: &str, e: &reqwest::Error) -> ClientError {
        if e.is_connect() {
            ClientError::Unreachable { socket: self.socket.clone(), why: root(e).into() }
        } else {
            no_answer(what, chain(e))
        }
    }

    fn body(&self, response: Response, what: &'static str, silence: Option<Duration>) -> sse::Body {
        let body = stream::unfold(Some(response), move |response| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let mut response = response?;
                let chunk = match silence {
                    None => response.chunk().await,
                    Some(limit) => match tokio::time::timeout(limit, response.chunk()).await {
                        Ok(chunk) => chunk,
                        Err(_) => return Some((Err(no_answer(what, late(limit))), None)),
                    },
                };
                match chunk {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(response))),
                    Ok(None) => None,
                    Err(e) => Some((Err(no_answer(what, chain(&e))), None)),
                }
            })
        });
        body.boxed()
    }
}

/// A JSON value a line.
fn lines<T: DeserializeOwned + Send + 'static>(
    what: &'static str,
    lines: sse::Lines,
) -> BoxStream<'static, Result<T, ClientError>> {
    stream::unfold(Some(lines), move |lines| async move {
        let mut lines = lines?;
        loop {
            let line = match lines.next().await? {
                Ok(line) if line.is_empty() => continue,
                Ok(line) => line,
                Err(e) => return Some((Err(e), None)),
            };
            return Some(match serde_json::from_slice(&line) {
                Ok(entry) => (Ok(entry), Some(lines)),
                Err(e) => (Err(garbled(what, &e.to_string())), None),
            });
        }
    })
    .boxed()
}

async fn refusal(what: &str, response: Response) -> ClientError {
    let status = response.status();
    let body = tokio::time::timeout(ASK, response.bytes()).await;
    let body = match body {
        Ok(Ok(bytes)) => bytes,
        _ => return no_answer(what, format!("status {status}, and its text did not arrive")),
    };
    serde_json::from_slice(&body).map_or_else(
        |_| {
            garbled(what, &format!("status {status}: {}", Safe::capped(&String::from_utf8_lossy(&body), 200)))
        },
        ClientError::Refused,
    )
}

fn late(after: Duration) -> String {
    format!("nothing for {} s", after.as_secs())
}

fn no_answer(what: &str, why: String) -> ClientError {
    ClientError::NoAnswer { what: what.into(), why: why.into() }
}

fn garbled(what: &str, why: &str) -> ClientError {
    ClientError::Garbled { what: what.into(), why: why.into() }
}

/// The innermost cause: what the system said, without the layers between.
fn root(e: &dyn std::error::Error) -> String {
    let mut e = e;
    while let Some(inner) = e.source() {
        e = inner;
    }
    e.to_string()
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut e = e.source();
    while let Some(inner) = e {
        out.push_str(": ");
        out.push_str(&inner.to_string());
        e = inner.source();
    }
    out
}

#[cfg(test)]
mod tests;
