//! A steady load over keep-alive connections, which counts what it sends, what fails, and who answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Longest wait for an answer; one that takes longer has failed.
const ANSWER: Duration = Duration::from_secs(10);

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests sent.
    pub sent: u64,
    /// Of these, the ones without a good answer: no connection, no whole response, or a status of 400 and more.
    pub failed: u64,
    /// Good and bad answers by the version that gave them.
    pub by_version: BTreeMap<String, u64>,
    /// What went wrong the first few times.
    pub errors: Vec<String>,
}

#[derive(Default)]
struct Shared {
    count: Count,
    /// When the last answer of each version ended.
    last: BTreeMap<String, Instant>,
    /// When the last good answer ended, and the longest time without one.
    good: Option<(Instant, Duration)>,
}

/// A running load. It ends when this is dropped.
pub struct Load {
    shared: Arc<Mutex<Shared>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends about `per_second` requests a second to `http://at/`, from `connections` keep-alive connections.
    #[must_use]
    pub fn start(at: SocketAddr, connections: u32, per_second: u32) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let pause = Duration::from_secs_f64(f64::from(connections) / f64::from(per_second.max(1)));
        let tasks = (0..connections)
            .map(|n| {
                let shared = shared.clone();
                // Spread over the first pause, so that requests do not come in bursts.
                let offset = pause.mul_f64(f64::from(n) / f64::from(connections.max(1)));
                tokio::spawn(async move {
                    tokio::time::sleep(offset).await;
                    visitor(at, pause, &shared).await;
                })
            })
            .collect();
        Self { shared, tasks }
    }

    /// What was counted so far.
    #[must_use]
    pub fn count(&self) -> Count {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).count.clone()
    }

    /// When the last answer of `version` ended.
    #[must_use]
    pub fn last(&self, version: &str) -> Option<Instant> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).last.get(version).copied()
    }
}

impl Load {
    /// The longest time between two good answers, whoever gave them.
    #[must_use]
    pub fn gap(&self) -> Option<Duration> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).good.map(|(_, gap)| gap)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One visitor: a connection that is kept, and made again when the other side closed it.
async fn visitor(at: SocketAddr, pause: Duration, shared: &Mutex<Shared>) {
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection: Option<SendRequest<Empty<Bytes>>> = None;
    loop {
        tick.tick().await;
        let kept = match connection.take() {
            // A connection that the other side closed between two requests is no failure, and cannot be used.
            Some(mut c) => (c.ready().await.is_ok() && !c.is_closed()).then_some(c),
            None => None,
        };
        let result = tokio::time::timeout(ANSWER, ask(at, kept)).await;
        let ended = Instant::now();
        let mut s = shared.lock().unwrap_or_else(PoisonError::into_inner);
        s.count.sent += 1;
        let error = match result {
            Ok(Ok((status, version, next))) => {
                connection = next;
                *s.count.by_version.entry(version.clone()).or_default() += 1;
                s.last.insert(version.clone(), ended);
                if status < 400 {
                    let (before, gap) = s.good.unwrap_or((ended, Duration::ZERO));
                    s.good = Some((ended, gap.max(ended.saturating_duration_since(before))));
                }
                (status >= 400).then(|| format!("{version} answered {status}"))
            }
            Ok(Err(e)) => Some(e),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(error) = error {
            s.count.failed += 1;
            if s.count.errors.len() < 5 {
                s.count.errors.push(error);
            }
        }
    }
}

type Answer = (u16, String, Option<SendRequest<Empty<Bytes>>>);

async fn ask(at: SocketAddr, kept: Option<SendRequest<Empty<Bytes>>>) -> Result<Answer, String> {
    let mut sender = match kept {
        Some(s) => s,
        None => {
            let stream = TcpStream::connect(at).await.map_err(|e| format!("connecting: {e}"))?;
            let _ = stream.set_nodelay(true);
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|e| format!("connecting: {e}"))?;
            tokio::spawn(connection);
            sender
        }
    };
    let request =
        Request::get("/").header("host", at.to_string()).body(Empty::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| format!("asking: {e}"))?;
    let status = response.status().as_u16();
    let header = |name: &str| {
        response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    let version = match header("x-version") {
        v if v.is_empty() => "nobody".to_owned(),
        v => v,
    };
    let close = header("connection").eq_ignore_ascii_case("close");
    response.into_body().collect().await.map_err(|e| format!("reading: {e}"))?;
    Ok((status, version, (!close).then_some(sender)))
}
