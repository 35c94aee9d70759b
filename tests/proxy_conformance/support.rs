//! Backends, load and proxies for the conformance suite: all real, all on loopback, all gone at the end.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilothouse::fleet::model::{HealthCheck, Probe};
use pilothouse::fleet::names::{Bp, FleetName, InstanceId, Millis, RevisionId, ServiceName};
use pilothouse::proxy::{Direction, Proxy, ProxyError};
use pilothouse::rollout::world::{
    EndpointState, Route, RouteEndpoint, RouteReadback, Slot, SlotRoute, Slots,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const OWNER: &str = "test@here";

pub fn service() -> ServiceName {
    "web".parse().unwrap()
}

/// The service of the suite as a fleet file declares it: with a tester's header, and visitors that keep their places.
pub fn declared() -> Vec<pilothouse::fleet::model::Service> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.toml");
    let text = r#"
name = "shop"
[hosts.here]
engine = "process://"
[proxies.front]
type = "edge"
listen = "127.0.0.1:1"
[services.web]
command = ["true"]
port = 80
replicas = 1
host_ports = "21000-21003"
proxies = ["front"]
[services.web.health]
tcp = true
[services.web.strategy]
type = "canary"
sticky = true
tester = { header = "x-variant", value = "b" }
steps = [ { weight = 5, pause = "manual" } ]
"#;
    std::fs::write(&file, text).unwrap();
    let loaded = pilothouse::fleet::load(&file).unwrap_or_else(|p| panic!("{p}"));
    loaded.fleet.services.into_values().collect()
}

/// A port that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    ([127, 0, 0, 1], crate::ports::free_port()).into()
}

/// One instance: a server that says its id and counts.
pub struct Backend {
    pub id: InstanceId,
    pub revision: RevisionId,
    pub addr: SocketAddr,
    pub hits: Arc<AtomicU64>,
    /// Closes every connection after reading a request, also one that was kept alive; a check that merely connects
    /// still passes.
    pub hang_up: Arc<AtomicBool>,
    /// Answers 500 to `/health`.
    pub unhealthy: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Backend {
    pub async fn start(revision: u32, n: u32) -> Self {
        let revision: RevisionId = format!("{revision:08x}").parse().unwrap();
        let id = InstanceId::of(&service(), &revision, n);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (hits, hang_up) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (h, bad, name) = (Arc::clone(&hits), Arc::clone(&hang_up), id.to_string());
        let unhealthy = Arc::new(AtomicBool::new(false));
        let sick = Arc::clone(&unhealthy);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (h, bad, name) = (Arc::clone(&h), Arc::clone(&bad), name.clone());
                let sick = Arc::clone(&sick);
                connections.spawn(async move {
                    let answer = service_fn(|r: Request<hyper::body::Incoming>| {
                        let (h, name, bad) = (Arc::clone(&h), name.clone(), bad.load(Ordering::SeqCst));
                        let sick = sick.load(Ordering::SeqCst);
                        async move {
                            if bad {
                                h.fetch_add(1, Ordering::SeqCst);
                                return Err(std::io::Error::other("hung up"));
                            }
                            if r.uri().path() != "/health" {
                                h.fetch_add(1, Ordering::SeqCst);
                            } else if sick {
                                let answer = Response::builder().status(500);
                                return Ok(answer
                                    .body(Empty::new().map_err(|e| match e {}).boxed())
                                    .unwrap());
                            }
                            if r.uri().path() == "/slow" {
                                tokio::time::sleep(Duration::from_millis(1500)).await;
                            }
                            if r.uri().path() == "/echo" {
                                return Ok(Response::new(r.into_body().boxed()));
                            }
                            if r.headers().contains_key("upgrade") {
                                return Ok(upgrade(r));
                            }
                            let mut answer = Response::builder();
                            if r.headers().contains_key("x-set-cookies") {
                                answer = answer.header("set-cookie", "session=1; Path=/app; HttpOnly");
                                answer = answer.header("set-cookie", "theme=dark");
                            }
                            let _ = r.into_body().collect().await;
                            Ok(answer.body(Full::from(name).map_err(|e| match e {}).boxed()).unwrap())
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { id, revision, addr, hits, hang_up, unhealthy, task }
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// Stops listening and closes every connection, as a killed process does.
    pub async fn kill(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub fn endpoint(&self) -> RouteEndpoint {
        RouteEndpoint { instance: self.id.clone(), addr: self.addr, state: EndpointState::Ready }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers 101 and then echoes what it gets.
fn upgrade(
    r: Request<hyper::body::Incoming>,
) -> Response<http_body_util::combinators::BoxBody<Bytes, hyper::Error>> {
    tokio::spawn(async move {
        let Ok(up) = hyper::upgrade::on(r).await else { return };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(up));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        // The answer to the example key of RFC 6455, 1.3, which is what is sent here.
        .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        .body(Empty::new().map_err(|e| match e {}).boxed())
        .unwrap()
}

pub fn bp(percent: u16) -> Bp {
    Bp::percent(percent)
}

/// A route with these endpoints; `b` is slot b's share.
pub fn route(stable: Slot, a: &[&Backend], b: &[&Backend], b_share: Bp) -> Route {
    let slot = |backends: &[&Backend], weight| {
        let mut endpoints: Vec<_> = backends.iter().map(|b| b.endpoint()).collect();
        endpoints.sort();
        SlotRoute { revision: backends.first().map(|b| b.revision.clone()), weight, endpoints }
    };
    let health =
        HealthCheck { probe: Probe::Tcp, interval: Millis(200), timeout: Millis(1000), rise: 1, fall: 2 };
    Route {
        service: service(),
        stable,
        slots: Slots { a: slot(a, b_share.rest()), b: slot(b, b_share) },
        domains: vec![],
        health: Slots { a: health.clone(), b: health },
        rules: Vec::new(),
        sticky: false,
    }
}

/// A proxy under test.
pub struct Harness {
    pub fleet: FleetName,
    pub listen: SocketAddr,
    pub proxy: Arc<dyn Proxy>,
    pub dir: tempfile::TempDir,
    pub server: Box<dyn Server>,
}

/// The real server behind a harness: one file in `servers/` for each.
#[async_trait]
pub trait Server: Send + Sync {
    /// Starts it, with the operator's own configuration in `dir`; it may take a moment until it takes connections.
    async fn start(&mut self, dir: &Path);

    /// Ends it, and returns when it has ended.
    fn stop(&mut self, dir: &Path);

    /// A reload by somebody else, until it is in force.
    async fn reload(&self, h: &Harness);

    /// Whether its reloads close connections that are kept alive.
    fn closes_connections(&self) -> bool {
        false
    }

    /// Whether it looks at every header of a name, and not at the first only.
    fn sees_repeated_headers(&self) -> bool {
        true
    }

    /// Whether shares are thrown with dice; otherwise they are spread evenly.
    fn throws_dice(&self) -> bool {
        true
    }
}

impl Harness {
    /// A proxy with an operator's own configuration, in a directory that its workers may look into.
    pub fn directory() -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    /// Of fleet `shop`; started.
    pub async fn of(
        dir: tempfile::TempDir,
        listen: SocketAddr,
        proxy: Arc<dyn Proxy>,
        server: impl Server + 'static,
    ) -> Self {
        let fleet = "shop".parse().unwrap();
        let mut h = Self { fleet, listen, proxy, dir, server: Box::new(server) };
        h.start().await;
        h
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the proxy and waits until it takes connections.
    pub async fn start(&mut self) {
        self.server.start(self.dir.path()).await;
        for _ in 0..500 {
            if TcpStream::connect(self.listen).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let logs = std::fs::read_dir(self.path()).unwrap().flatten().map(|e| e.path());
        let logs = logs.filter(|p| p.extension().is_some_and(|e| e == "log"));
        panic!("the proxy does not listen: {:?}", logs.map(std::fs::read_to_string).collect::<Vec<_>>());
    }

    /// Ends the proxy.
    pub fn stop(&mut self) {
        self.server.stop(self.dir.path());
    }

    pub async fn restart(&mut self) {
        self.stop();
        self.start().await;
    }

    /// A reload by somebody else.
    pub async fn reload(&self) {
        self.server.reload(self).await;
    }

    /// Waits until nothing is in flight to a backend any more.
    pub async fn is_free(&self, backend: &Backend) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.read().await.in_flight(&backend.id) > 0 {
            assert!(Instant::now() < end, "{} is never free", backend.id);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The same, where what was sent before may still be followed by more: an old worker of nginx serves connections that
    /// were opened before it was told to end and not used yet.
    pub async fn is_drained(&self, backend: &Backend) {
        if self.server.closes_connections() {
            self.is_free(backend).await;
        }
    }

    /// Asserts that no request failed. Where a reload closes connections that are kept alive, a request that is on its way at
    /// that moment gets no answer: at most one for each of `connections` that reloads closed, and nothing else, is said
    /// and let pass there.
    pub fn lost_nothing(&self, done: u64, failed: &[String], connections: usize) {
        let closed = |why: &&String| why.contains("IncompleteMessage") || why.contains("ConnectionReset");
        let closed = failed.iter().filter(closed).count();
        if self.server.closes_connections() && closed == failed.len() {
            eprintln!("MEASURED reloads: {closed} of {done} requests met a closed connection");
            assert!(closed <= connections, "{closed} of {done}");
        } else {
            assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
        }
    }

    pub async fn up(&self, route: &Route) {
        self.apply(route, Direction::Up).await.unwrap();
        self.settled(route).await;
    }

    pub async fn apply(&self, route: &Route, direction: Direction) -> Result<(), ProxyError> {
        self.proxy.apply(std::slice::from_ref(route), direction).await
    }

    pub async fn read(&self) -> RouteReadback {
        self.proxy.read_back().await.unwrap().remove(&service()).expect("the proxy knows the service")
    }

    /// Asserts that the route is read back from every worker.
    pub async fn settled(&self, route: &Route) {
        let back = self.read().await;
        assert!(back.serves(route), "wanted {route:#?}\nread back {back:#?}");
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A child process that is told to end when it is stopped.
pub fn end(child: &mut Option<Child>) {
    if let Some(mut c) = child.take() {
        let pid = rustix::process::Pid::from_child(&c);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = c.wait();
    }
}

/// A client with keep-alive.
pub fn client() -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Requests until stopped; what failed is told in words.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub done: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(addr: SocketAddr, tasks: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = client();
        let task = |_| {
            let (stop, done, client) = (Arc::clone(&stop), Arc::clone(&done), client.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(why) = get(&client, addr, "/").await {
                        failed.push(why);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    // A load of some thousand requests a second: what is tested has to run beside it, on two cores.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                failed
            })
        };
        let tasks = (0..tasks).map(task).collect();
        Self { stop, done, tasks }
    }

    /// Waits until `n` more requests have ended.
    pub async fn more(&self, n: u64) {
        let until = self.done.load(Ordering::Relaxed) + n;
        while self.done.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the load: how many requests, and what failed.
    pub async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for t in self.tasks {
            failed.extend(t.await.unwrap());
        }
        (self.done.load(Ordering::Relaxed), failed)
    }
}

/// One GET; the body on 200, else what went wrong.
pub async fn get(
    client: &Client<HttpConnector, Empty<Bytes>>,
    addr: SocketAddr,
    path: &str,
) -> Result<String, String> {
    let uri = format!("http://{addr}{path}").parse().unwrap();
    let talk = async {
        let answer = client.get(uri).await.map_err(|e| format!("{e:?}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| format!("{status}: {e:?}"))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status == 200 { Ok(text) } else { Err(format!("{status}: {text}")) }
    };
    // Whoever waits for ever has been failed as well.
    let late = |_| Err("no answer within 30 s".to_owned());
    tokio::time::timeout(Duration::from_secs(30), talk).await.unwrap_or_else(late)
}

/// An answer of the instance whose id is its text, and the cookies it sets.
#[derive(Debug)]
pub struct Answer {
    pub body: String,
    pub cookies: Vec<String>,
}

impl Answer {
    /// The place it tells, after a look at everything else in the one cookie it sets.
    pub fn place(&self) -> u16 {
        let [cookie] = self.cookies.as_slice() else { panic!("not one cookie: {self:?}") };
        let rest = cookie.strip_prefix("ph_shop_web=").expect("the cookie of fleet shop, service web");
        let place = rest.strip_suffix("; Path=/; HttpOnly; SameSite=Lax").expect("its attributes");
        let place: u16 = place.parse().unwrap();
        assert!(place < 10_000);
        place
    }
}

/// One GET with these headers; an answer of 200, else what went wrong.
pub async fn ask(
    client: &Client<HttpConnector, Empty<Bytes>>,
    addr: SocketAddr,
    headers: &[(&str, &str)],
) -> Result<Answer, String> {
    let mut request = Request::get(format!("http://{addr}/"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.request(request.body(Empty::new()).unwrap()).await.map_err(|e| format!("{e:?}"))?;
    let status = answer.status();
    let cookies = answer.headers().get_all("set-cookie").iter();
    let cookies = cookies.map(|v| v.to_str().unwrap().to_owned()).collect();
    let body = answer.into_body().collect().await.map_err(|e| format!("{status}: {e:?}"))?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == 200 { Ok(Answer { body, cookies }) } else { Err(format!("{status}: {body}")) }
}

/// `n` requests over a few keep-alive connections; all must succeed.
pub async fn requests(addr: SocketAddr, n: usize) {
    let client = client();
    let task = |_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..n / 8 {
                get(&client, addr, "/").await.unwrap();
            }
        })
    };
    for t in (0..8).map(task).collect::<Vec<_>>() {
        t.await.unwrap();
    }
}

/// A client connection held by hand: one request at a time, no retry, no second connection.
pub struct Held(TcpStream);

impl Held {
    pub async fn open(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    /// Status and body of one request.
    pub async fn get(&mut self) -> (u16, String) {
        self.get_with("").await
    }

    /// Likewise, with more header lines.
    pub async fn get_with(&mut self, headers: &str) -> (u16, String) {
        self.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await
    }

    /// Likewise, of a host of this name.
    pub async fn get_from(&mut self, host: &str) -> (u16, String) {
        self.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }

    async fn send(&mut self, request: String) -> (u16, String) {
        self.0.write_all(request.as_bytes()).await.unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        loop {
            let n = self.0.read(&mut buffer).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            let length = text
                .to_ascii_lowercase()
                .split_once("content-length: ")
                .and_then(|(_, r)| r.split("\r\n").next().and_then(|l| l.parse::<usize>().ok()));
            let body = text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned());
            if n == 0 || body.as_ref().is_some_and(|b| length.is_some_and(|l| b.len() >= l)) {
                let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
                return (status, body.unwrap_or_default());
            }
        }
    }
}

/// Status and body of one POST, on a connection of its own.
pub async fn post(addr: SocketAddr, body: &str) -> (u16, String) {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    Held::open(addr).await.send(head + body).await
}

/// A websocket through the proxy, to the service's backend.
pub async fn websocket(h: &Harness) -> TcpStream {
    let mut s = TcpStream::connect(h.listen).await.unwrap();
    s.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(s.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    s
}

pub async fn echoes(s: &mut TcpStream) {
    s.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    s.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

/// A process that is stopped (every thread of it, really) until dropped.
pub struct Frozen(rustix::process::Pid);

impl Frozen {
    pub async fn new(pid: &str) -> Self {
        let frozen = Self(rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap());
        rustix::process::kill_process(frozen.0, rustix::process::Signal::STOP).unwrap();
        let stopped = || {
            std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
                let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            })
        };
        while !stopped() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}
