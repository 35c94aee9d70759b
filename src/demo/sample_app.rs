//! The sample application: a small HTTP server that says which version it is and can misbehave on request, so that
//! the demo and the tests have something real to release, to break and to take back.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Longest wait for requests in flight after the listener was closed.
const FINISH: Duration = Duration::from_secs(8);

/// How the application behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address to listen on.
    pub address: IpAddr,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// The version it answers with.
    pub version: String,
    /// The name it gives itself in `/count`.
    pub instance: String,
    /// Delay before each answer of `/`.
    pub latency: Duration,
    /// This share of `/` requests, in per cent, is answered 500.
    pub fail_percent: u64,
    /// Failing starts only after this many requests.
    pub fail_after: u64,
    /// `/health` always says 503.
    pub never_healthy: bool,
    /// Wait before listening.
    pub start_delay: Duration,
    /// Exits with code 1 at this request; 0 for never.
    pub crash_after: u64,
    /// Added to `latency`.
    pub slow: Duration,
    /// After SIGTERM it still answers for this long, says 503 on `/health`, and closes each connection after its
    /// answer, so that a proxy which keeps connections open does not lose a request.
    pub linger: Duration,
}

impl Settings {
    /// A well-behaved application of `version` on `port` of the loopback address.
    #[must_use]
    pub fn well_behaved(version: &str, port: u16) -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port,
            version: version.to_owned(),
            instance: String::new(),
            latency: Duration::from_millis(3),
            fail_percent: 0,
            fail_after: 0,
            never_healthy: false,
            start_delay: Duration::ZERO,
            crash_after: 0,
            slow: Duration::ZERO,
            linger: Duration::from_millis(300),
        }
    }

    /// Adds the bad behaviour that the version's suffix names: `-failing`, `-unhealthy`, `-crashing`, `-slow`,
    /// `-slowstart`. Any other version behaves well.
    #[must_use]
    pub fn by_version(mut self) -> Self {
        match self.version.rsplit_once('-').map(|(_, suffix)| suffix) {
            Some("failing") => self.fail_percent = 20,
            Some("unhealthy") => self.never_healthy = true,
            Some("crashing") => self.crash_after = 3,
            Some("slow") => self.slow = Duration::from_millis(200),
            Some("slowstart") => self.start_delay = Duration::from_secs(5),
            _ => {}
        }
        self
    }
}

struct App {
    settings: Settings,
    seen: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    leaving: AtomicBool,
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// When the address cannot be bound or signals cannot be handled.
pub async fn run(settings: Settings) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    if !settings.start_delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(settings.start_delay) => {}
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        }
    }
    let wanted = SocketAddr::new(settings.address, settings.port);
    let listener = TcpListener::bind(wanted)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {wanted}: {e}")))?;
    println!("sample-app {} listens on {}", settings.version, listener.local_addr()?);

    let linger = settings.linger;
    let app = Arc::new(App {
        settings,
        seen: AtomicU64::new(0),
        served: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        leaving: AtomicBool::new(false),
    });
    let connections = GracefulShutdown::new();
    let mut leave_at = None;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve(&app, &connections, stream),
                // Out of file descriptors, or the peer gave up: neither is a reason to spin or to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(()) = term.recv(), if leave_at.is_none() => leave_at = Some(app.leave(linger)),
            Some(()) = int.recv(), if leave_at.is_none() => leave_at = Some(app.leave(linger)),
            () = sleep_until(leave_at) => break,
        }
    }
    drop(listener);
    let finished = tokio::time::timeout(FINISH, connections.shutdown()).await.is_ok();
    let (served, failed) = (app.served.load(Ordering::Relaxed), app.failed.load(Ordering::Relaxed));
    println!(
        "sample-app {} stops after {served} requests, {failed} failed{}",
        app.settings.version,
        if finished { "" } else { "; some were still in flight" }
    );
    Ok(())
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn serve(app: &Arc<App>, connections: &GracefulShutdown, stream: TcpStream) {
    // Without it an answer can wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let app = Arc::clone(app);
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(&request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let watched = connections.watch(connection);
    // A connection that breaks is the client's affair.
    tokio::spawn(async move { watched.await.is_ok() });
}

impl App {
    fn leave(&self, linger: Duration) -> tokio::time::Instant {
        self.leaving.store(true, Ordering::Relaxed);
        tokio::time::Instant::now() + linger
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match request.uri().path() {
            "/health" => self.health(),
            "/count" => (StatusCode::OK, self.count()),
            "/" => self.work().await,
            _ => (StatusCode::NOT_FOUND, "no such page\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if request.uri().path() == "/count" {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Ok(version) = HeaderValue::from_str(&self.settings.version) {
            headers.insert("x-version", version);
        }
        if self.leaving.load(Ordering::Relaxed) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn health(&self) -> (StatusCode, String) {
        if self.settings.never_healthy {
            (StatusCode::SERVICE_UNAVAILABLE, "never healthy\n".to_owned())
        } else if self.leaving.load(Ordering::Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, "leaving\n".to_owned())
        } else {
            (StatusCode::OK, "ok\n".to_owned())
        }
    }

    fn count(&self) -> String {
        serde_json::json!({
            "version": self.settings.version,
            "instance": self.settings.instance,
            "served": self.served.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
        })
        .to_string()
    }

    async fn work(&self) -> (StatusCode, String) {
        let n = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let s = &self.settings;
        if s.crash_after > 0 && n >= s.crash_after {
            eprintln!("sample-app {} crashes at request {n}, as it was told to", s.version);
            std::process::exit(1);
        }
        tokio::time::sleep(s.latency + s.slow).await;
        self.served.fetch_add(1, Ordering::Relaxed);
        if n > s.fail_after && scatter(n) % 100 < s.fail_percent {
            self.failed.fetch_add(1, Ordering::Relaxed);
            eprintln!("sample-app {} fails request {n}, as it was told to", s.version);
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{} failed\n", s.version));
        }
        (StatusCode::OK, s.version.clone())
    }
}

/// The output function of splitmix64 (Steele, Lea and Flood, 2014): failures are spread as if by chance, yet the
/// same on every run.
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_the_behaviour() {
        let of = |v| Settings::well_behaved(v, 0).by_version();
        assert_eq!(of("1.5.0-failing").fail_percent, 20);
        assert!(of("2-unhealthy").never_healthy);
        assert_eq!(of("2-crashing").crash_after, 3);
        assert_eq!(of("2-slow").slow, Duration::from_millis(200));
        assert_eq!(of("2-slowstart").start_delay, Duration::from_secs(5));
        assert_eq!(of("1.5.0-rc1"), Settings::well_behaved("1.5.0-rc1", 0));
    }

    #[test]
    fn about_a_fifth_fails_and_not_in_a_row() {
        let failed: Vec<u64> = (1..=10_000).filter(|n| scatter(*n) % 100 < 20).collect();
        assert!((1_800..=2_200).contains(&failed.len()), "{}", failed.len());
        assert!((1..=100).any(|n| scatter(n) % 100 < 20));
    }
}
