//! One request through the edge: choose, forward, retry, count. Bodies are streamed both ways, never held.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::body::{DownBody, Guard, Open, UpBody, Upload, millis};
use super::headers::{clean, forwarded, upgrade_of};
use super::table::State;
use super::visitor;

/// Longest wait for a connection to an instance.
const CONNECT: Duration = Duration::from_millis(500);
/// Longest silence from an instance before its answer begins.
const HEADER: Duration = Duration::from_secs(30);
/// Different instances tried for one request.
pub(super) const ATTEMPTS: usize = 3;

/// Forwards requests.
pub(super) struct Forwarder {
    state: Arc<State>,
    client: Client<HttpConnector, UpBody>,
    start: Instant,
    /// Connections of clients now, upgraded ones included.
    pub(super) open: Arc<AtomicU64>,
}

impl Forwarder {
    /// A forwarder over `state`'s routes.
    pub(super) fn new(state: Arc<State>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .build(connector);
        Self { state, client, start: Instant::now(), open: Arc::default() }
    }

    /// Answers one request of `client`.
    pub(super) async fn handle(
        &self,
        mut request: Request<Incoming>,
        client: SocketAddr,
    ) -> Response<DownBody> {
        if request.method() == Method::CONNECT {
            return text(StatusCode::METHOD_NOT_ALLOWED, "this proxy opens no tunnels");
        }
        let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
        let host = host.or_else(|| request.uri().host().map(str::to_owned));
        let table = self.state.table();
        let Some(service) = table.by_host(host.as_deref()) else {
            return text(StatusCode::NOT_FOUND, "no service for this host");
        };
        let Some((slot, new_place)) = self.state.choose_slot(service, request.headers()) else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the service has no release yet");
        };
        let upgrade = upgrade_of(request.headers());
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        clean(&mut parts.headers);
        parts.headers.remove(header::EXPECT);
        forwarded(&mut parts.headers, client, host.as_deref());
        if let Some(protocol) = &upgrade {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol.clone());
        }
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let repeatable =
            body.is_end_stream() && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let body = Arc::new(Upload {
            body: Mutex::new(body),
            started: AtomicBool::new(false),
            moved_ms: AtomicU64::new(self.now_ms()),
        });
        let (mut tried, mut last) = (Vec::new(), None);
        while tried.len() < ATTEMPTS {
            let Some(endpoint) = self.state.choose(service, slot, &tried) else { break };
            tried.push(endpoint.addr);
            let Ok(uri) = Uri::try_from(format!("http://{}{path}", endpoint.addr)) else {
                return text(StatusCode::BAD_REQUEST, "the path cannot be forwarded");
            };
            let mut attempt = Request::new(UpBody(Arc::clone(&body), self.start));
            *attempt.method_mut() = parts.method.clone();
            *attempt.uri_mut() = uri;
            *attempt.version_mut() = Version::HTTP_11;
            *attempt.headers_mut() = parts.headers.clone();
            let guard = Guard::new(&endpoint, client.ip());
            let error = tokio::select! {
                answer = self.client.request(attempt) => match answer {
                    Ok(answer) => {
                        let client_side = client_side.filter(|_| answer.status() == StatusCode::SWITCHING_PROTOCOLS);
                        let mut answer = self.answer(answer, guard, client_side);
                        if let Some(place) = new_place {
                            visitor::set_cookie(answer.headers_mut(), &service.cookie, place);
                        }
                        return answer;
                    }
                    Err(e) => e,
                },
                () = self.silent(&body) => {
                    guard.failed();
                    return text(StatusCode::GATEWAY_TIMEOUT, "the instance did not answer in time");
                }
            };
            let connecting = error.is_connect();
            if connecting {
                self.state.avoid(&endpoint);
            }
            let again = if connecting { !body.started.load(Ordering::Relaxed) } else { repeatable };
            let more = again && tried.len() < ATTEMPTS && self.state.choose(service, slot, &tried).is_some();
            if more {
                guard.retried();
            } else if !connecting && body_failed(&error) {
                // The client's own upload broke off: nobody's fault behind the edge.
                drop(guard);
                return text(StatusCode::BAD_REQUEST, "the request's body broke off");
            } else {
                guard.failed();
            }
            last = Some(connecting);
            if !more {
                break;
            }
        }
        match last {
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no instance takes requests"),
            Some(true) => text(StatusCode::BAD_GATEWAY, "no instance could be connected to"),
            Some(false) => text(StatusCode::BAD_GATEWAY, "the instance hung up without an answer"),
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.start)
    }

    /// Ends when neither the upload moved nor an answer began for [`HEADER`].
    async fn silent(&self, body: &Upload) {
        let limit = u64::try_from(HEADER.as_millis()).unwrap_or(u64::MAX);
        loop {
            let quiet = self.now_ms().saturating_sub(body.moved_ms.load(Ordering::Relaxed));
            if quiet >= limit {
                return;
            }
            tokio::time::sleep(Duration::from_millis(limit - quiet)).await;
        }
    }

    fn answer(
        &self,
        mut answer: Response<Incoming>,
        mut guard: Guard,
        client_side: Option<hyper::upgrade::OnUpgrade>,
    ) -> Response<DownBody> {
        guard.status = Some(answer.status());
        *answer.version_mut() = Version::HTTP_11;
        let Some(client_side) = client_side else {
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                guard.failed();
                return text(StatusCode::BAD_GATEWAY, "the instance switched protocols unasked");
            }
            clean(answer.headers_mut());
            let (parts, body) = answer.into_parts();
            return Response::from_parts(parts, DownBody::Upstream { body, guard });
        };
        let protocol = upgrade_of(answer.headers());
        let server_side = hyper::upgrade::on(&mut answer);
        clean(answer.headers_mut());
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            answer.headers_mut().insert(header::UPGRADE, protocol);
        }
        let open = Open::new(&self.open);
        tokio::spawn(async move {
            let (_guard, _open) = (guard, open);
            if let (Ok(a), Ok(b)) = tokio::join!(client_side, server_side) {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(a), &mut TokioIo::new(b)).await;
            }
        });
        let (parts, _) = answer.into_parts();
        Response::from_parts(parts, DownBody::Text(Full::default()))
    }
}

/// A short answer of the edge's own.
pub(super) fn text(status: StatusCode, what: &str) -> Response<DownBody> {
    let mut answer = Response::new(DownBody::Text(Full::from(format!("{status}: {what}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Whether the error came from reading the client's body.
fn body_failed(error: &hyper_util::client::legacy::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(e) = source {
        if e.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user) {
            return true;
        }
        source = e.source();
    }
    false
}
