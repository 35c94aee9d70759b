//! The embedded reverse proxy: a process of its own (`pilothouse edge`) that outlives the controller and loads its
//! last routes from disk. Here is the driver, which starts it when it does not answer and finds it again later.

mod body;
mod check;
mod forward;
mod headers;
mod server;
mod table;
mod visitor;
mod wire;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

pub use self::server::{Options, serve};
use self::wire::{Counts, Info, Paths, Routes};
use super::{Advice, Direction, Proxy, ProxyError, advice};
use crate::fleet::model::Service;
use crate::fleet::names::{FleetName, InstanceId, ProxyName, ServiceName};
use crate::rollout::world::{Route, RouteReadback};
use crate::text::Safe;
use crate::traffic::Counters;
use crate::traffic::totals::Totals;

/// Longest wait for one answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longest wait for a started edge to answer.
const START: Duration = Duration::from_secs(5);
/// A change is tried this often when others come in between.
const ATTEMPTS: usize = 5;
/// After a failed start, this long passes before the next.
const START_AGAIN: Duration = Duration::from_secs(2);

/// The driver of one edge.
pub struct Edge {
    name: ProxyName,
    listen: SocketAddr,
    dir: PathBuf,
    program: PathBuf,
    owner: String,
    fleet: FleetName,
    /// Counts over all lives of the process.
    counts: Mutex<Totals<String>>,
    starting: tokio::sync::Mutex<Option<(Instant, ProxyError)>>,
}

enum Failed {
    /// Nobody listens: it can be started.
    Absent,
    /// The routes are not those any more that the change was meant for.
    Outdated,
    /// Anything else.
    Because(ProxyError),
}

impl Edge {
    /// A driver for edge `name` of `fleet`, whose files are in `dir`; `program` is the pilothouse binary. Touches
    /// nothing yet.
    #[must_use]
    pub fn new(
        name: ProxyName,
        listen: SocketAddr,
        dir: PathBuf,
        program: PathBuf,
        owner: String,
        fleet: FleetName,
    ) -> Self {
        Self {
            name,
            listen,
            dir,
            program,
            owner,
            fleet,
            counts: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
        }
    }

    /// Stops the process; requests in flight are finished. Fine when none runs.
    ///
    /// # Errors
    /// [`ProxyError::Unknown`] when it does not answer.
    pub async fn stop(&self) -> Result<(), ProxyError> {
        match self.ask(Method::POST, "/stop", Bytes::new()).await {
            Ok(_) | Err(Failed::Absent | Failed::Outdated) => Ok(()),
            Err(Failed::Because(e)) => Err(e),
        }
    }

    /// The process id of the running edge.
    ///
    /// # Errors
    /// [`ProxyError::Unknown`] when it does not answer.
    pub async fn pid(&self) -> Result<u32, ProxyError> {
        self.get::<Info>("/info").await.map(|i| i.pid)
    }

    fn paths(&self) -> Result<Paths, ProxyError> {
        Paths::of(&self.dir, &self.name).map_err(|e| self.refused(&e))
    }

    fn refused(&self, what: &str) -> ProxyError {
        ProxyError::Refused(Safe::new(&format!("edge {}: {what}", self.name)))
    }

    fn unknown(&self, what: &str) -> ProxyError {
        ProxyError::Unknown(Safe::new(&format!("edge {}: {what}", self.name)))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ProxyError> {
        let body = self.ask_started(Method::GET, path, Bytes::new()).await.map_err(|e| self.error(e))?;
        serde_json::from_slice(&body)
            .map_err(|e| self.unknown(&format!("its answer to {path} is no answer: {e}")))
    }

    /// Asks, and when nobody listens starts the process and asks again.
    async fn ask_started(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failed> {
        match self.ask(method.clone(), path, body.clone()).await {
            Err(Failed::Absent) => {
                self.start().await.map_err(Failed::Because)?;
                self.ask(method, path, body).await
            }
            other => other,
        }
    }

    /// A failure in words.
    fn error(&self, failed: Failed) -> ProxyError {
        match failed {
            Failed::Because(e) => e,
            Failed::Absent => self.unknown("it does not answer although it was started"),
            Failed::Outdated => self.unknown("somebody else changes its routes at the same time"),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failed> {
        let socket = self.paths().map_err(Failed::Because)?.socket;
        let unknown = |what: String| Failed::Because(self.unknown(&what));
        let talk = async {
            let stream = UnixStream::connect(&socket).await.map_err(|e| match e.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failed::Absent,
                _ => unknown(format!("cannot connect to {}: {e}", socket.display())),
            })?;
            let broken = |e: hyper::Error| unknown(format!("{} broke off: {e}", socket.display()));
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            let connection = tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "edge")
                .body(Full::new(body))
                .map_err(|e| unknown(e.to_string()))?;
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
            connection.abort();
            Ok((status, body))
        };
        let (status, body) = timeout(DEADLINE, talk)
            .await
            .unwrap_or_else(|_| Err(unknown(format!("no answer within {} s", DEADLINE.as_secs()))))?;
        let said = || String::from_utf8_lossy(&body).into_owned();
        match status {
            s if s.is_success() => Ok(body),
            StatusCode::CONFLICT => Err(Failed::Outdated),
            StatusCode::FORBIDDEN => Err(Failed::Because(ProxyError::Foreign(Safe::new(&said())))),
            _ => Err(Failed::Because(self.refused(&said()))),
        }
    }

    /// Starts the process: cleared environment, a session of its own, errors into its log.
    async fn start(&self) -> Result<(), ProxyError> {
        let mut last = self.starting.lock().await;
        if let Some((when, error)) = &*last
            && when.elapsed() < START_AGAIN
        {
            return Err(error.clone());
        }
        let result = self.spawn().await;
        *last = result.as_ref().err().map(|e| (Instant::now(), e.clone()));
        result
    }

    async fn spawn(&self) -> Result<(), ProxyError> {
        let paths = self.paths()?;
        std::fs::create_dir_all(&self.dir)
            .map_err(|e| self.refused(&format!("cannot make {}: {e}", self.dir.display())))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&paths.log)
            .map_err(|e| self.refused(&format!("cannot write {}: {e}", paths.log.display())))?;
        let mut child = tokio::process::Command::new(&self.program)
            .arg("edge")
            .arg("--dir")
            .arg(&self.dir)
            .args(["--listen", &self.listen.to_string(), "--name", self.name.as_str(), "--own-session"])
            .args(["--owner", &self.owner])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| self.refused(&format!("cannot start {}: {e}", self.program.display())))?;
        let began = Instant::now();
        while began.elapsed() < START {
            if !matches!(self.ask(Method::GET, "/info", Bytes::new()).await, Err(Failed::Absent)) {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                let said = last_words(&paths.log);
                if said.contains(server::BELONG_TO) {
                    return Err(ProxyError::Foreign(Safe::new(&said)));
                }
                // One that lost a race for the lock ends; the winner is about to answer.
                if !said.contains(server::RUNS_ALREADY) {
                    return Err(self.refused(&format!("it did not start ({status}): {said}")));
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(self.unknown(&format!("it was started but does not answer: {}", last_words(&paths.log))))
    }
}

/// The last line of a log.
fn last_words(log: &Path) -> String {
    let text = super::files::read(log).ok().flatten().unwrap_or_default();
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().to_owned()
}

#[async_trait]
impl Proxy for Edge {
    async fn apply(&self, routes: &[Route], direction: Direction) -> Result<(), ProxyError> {
        let fleet = Some(self.fleet.clone());
        let wanted = Routes { owner: self.owner.clone(), fleet, routes: routes.to_vec() };
        let body: Bytes = serde_json::to_vec(&wanted).map_err(|e| self.refused(&e.to_string()))?.into();
        let direction = match direction {
            Direction::Up => "up",
            Direction::Back => "back",
        };
        let mut last = Failed::Outdated;
        for _ in 0..ATTEMPTS {
            let version = self.get::<Info>("/info").await?.version;
            let path = format!("/routes?direction={direction}&after={version}");
            match self.ask_started(Method::PUT, &path, body.clone()).await {
                Ok(_) => return Ok(()),
                // A late write of ours (or a restart) came in between: look again, then set what is wanted now.
                Err(Failed::Outdated) => last = Failed::Outdated,
                Err(e) => {
                    last = e;
                    break;
                }
            }
        }
        Err(self.error(last))
    }

    async fn read_back(&self) -> Result<BTreeMap<ServiceName, RouteReadback>, ProxyError> {
        self.get("/routes").await
    }

    async fn counters(&self) -> Result<BTreeMap<InstanceId, Counters>, ProxyError> {
        let now: Counts = self.get("/counters").await?;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, c) in now.counters {
            counts.take(now.boot.clone(), &id, c);
        }
        counts.keep_sources(|boot| *boot == now.boot);
        Ok(counts.all().clone())
    }

    fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).forget(gone);
    }

    /// One that does not run is not started for it.
    async fn examine(&self, services: &[&Service]) -> Vec<Advice> {
        match self.ask(Method::GET, "/info", Bytes::new()).await {
            Ok(_) => advice::asked(self, services).await,
            Err(Failed::Absent) => match TcpListener::bind(self.listen) {
                Ok(_) => vec![],
                Err(e) => vec![Advice {
                    cure: Safe::new("give it another 'listen', or end what listens there"),
                    ..Advice::fails(&format!("it does not run, and cannot listen on {}: {e}", self.listen))
                }],
            },
            Err(e) => vec![Advice::fails(&self.error(e).to_string())],
        }
    }

    fn by_hand(&self, route: &Route) -> String {
        format!(
            "# all requests of {service} to slot {slot} (stable), in force at once and after a restart:\n\
             curl -fsS --unix-socket '{dir}/{name}.sock' -X POST http://edge/stable/{service}\n",
            service = route.service,
            slot = route.stable.as_str(),
            dir = self.dir.display(),
            name = self.name,
        )
    }
}
