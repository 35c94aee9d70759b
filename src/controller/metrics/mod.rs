//! `/metrics` for Prometheus, on the address that the fleet file names.
//!
//! A page is made outside of the loop that decides, which only hands a copy of its counts over; nothing of a rollout ever
//! waits for a scraper, nor for an address that is taken.

pub mod page;
pub mod tally;
pub mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::helm::Latest;
use super::input::Input;
use crate::text::Safe;
use page::Source;

/// An address that cannot be had is tried again so much later.
const AGAIN: Duration = Duration::from_secs(2);
/// Scrapers at a time; more wait for their connection to be accepted.
const AT_ONCE: usize = 8;
/// Longest conversation, and longest wait for the helm.
const CONVERSATION: Duration = Duration::from_secs(10);
/// Who asks again within this gets the same page: a scraper that spins costs the helm nothing.
const FRESH: Duration = Duration::from_millis(250);

/// The server's address, and what is wrong with it.
pub struct Exporter {
    address: watch::Sender<Option<SocketAddr>>,
    trouble: Arc<Mutex<Option<Safe>>>,
}

/// What a page is made with.
struct Pages {
    tx: mpsc::Sender<Input>,
    latest: Latest,
    last: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
}

impl Exporter {
    /// Serves nothing until it is told where.
    #[must_use]
    pub fn start(tx: mpsc::Sender<Input>, latest: Latest) -> Self {
        let (address, wanted) = watch::channel(None);
        let trouble = Arc::new(Mutex::new(None));
        let pages = Arc::new(Pages { tx, latest, last: tokio::sync::Mutex::new(None) });
        tokio::spawn(run(wanted, pages, Arc::clone(&trouble)));
        Self { address, trouble }
    }

    /// Serves there from now on, or nowhere.
    pub fn listen(&self, address: Option<SocketAddr>) {
        self.address.send_if_modified(|now| std::mem::replace(now, address) != address);
    }

    /// What does not work.
    #[must_use]
    pub fn trouble(&self) -> Option<Safe> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Follows the address until nobody can change it any more.
async fn run(
    mut wanted: watch::Receiver<Option<SocketAddr>>,
    pages: Arc<Pages>,
    trouble: Arc<Mutex<Option<Safe>>>,
) {
    loop {
        let address = *wanted.borrow_and_update();
        let say = |what: Option<Safe>| *trouble.lock().unwrap_or_else(PoisonError::into_inner) = what;
        let serving = async {
            let Some(address) = address else { return std::future::pending().await };
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        say(None);
                        serve(&listener, &pages).await;
                    }
                    Err(e) => say(Some(cannot_listen(address, &e))),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = serving => {}
            changed = wanted.changed() => {
                say(None);
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn cannot_listen(address: SocketAddr, e: &std::io::Error) -> Safe {
    let what = match e.kind() {
        std::io::ErrorKind::AddrInUse => "the address is taken by another process: stop that, or change",
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address: change",
        std::io::ErrorKind::PermissionDenied => "it is not allowed here: change",
        _ => return Safe::new(&format!("/metrics cannot be served on {address}: {e}")),
    };
    Safe::new(&format!(
        "/metrics cannot be served on {address}: {what} 'listen' in [metrics] and load the file with 'pilothouse up'; \
         rollouts go on without it"
    ))
}

/// Accepts until the listener fails.
async fn serve(listener: &TcpListener, pages: &Arc<Pages>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, or somebody who left again: neither is the listener's end.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = Arc::clone(pages);
        tokio::spawn(async move {
            // Whoever does not finish its question in time has its place taken.
            let _ = tokio::time::timeout(CONVERSATION, talk(stream, pages)).await;
            drop(place);
        });
    }
}

async fn talk(stream: TcpStream, pages: Arc<Pages>) {
    let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&request, &pages).await) }
    });
    // One question each: a connection that is kept would hold a place until the next scrape.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match pages.page().await {
            Some(page) => (StatusCode::OK, text::CONTENT_TYPE, page),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the controller did not answer in time\n"),
        },
        (_, "/metrics") => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        _ => plain(StatusCode::NOT_FOUND, "there is only /metrics\n"),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn plain(status: StatusCode, body: &'static str) -> (StatusCode, &'static str, Bytes) {
    (status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

impl Pages {
    async fn page(&self) -> Option<Bytes> {
        let mut last = self.last.lock().await;
        if let Some((_, page)) = last.as_ref().filter(|(made, _)| made.elapsed() < FRESH) {
            return Some(page.clone());
        }
        let (reply, answer) = oneshot::channel();
        self.tx.send(Input::Metrics(reply)).await.ok()?;
        let known = *tokio::time::timeout(CONVERSATION / 2, answer).await.ok()?.ok()?;
        let snapshot = self.latest.read().unwrap_or_else(PoisonError::into_inner).current();
        let page = Bytes::from(page::page(&Source { snapshot, known }).finish());
        *last = Some((Instant::now(), page.clone()));
        Some(page)
    }
}

#[cfg(test)]
mod tests;
