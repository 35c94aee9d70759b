//! Backends, load and proxies for the conformance suite: all real, all on loopback, all gone at the end.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilothouse::fleet::model::{HealthCheck, Probe};
use pilothouse::fleet::names::{Bp, FleetName, InstanceId, Millis, RevisionId, ServiceName};
use pilothouse::proxy::edge::Edge;
use pilothouse::proxy::haproxy::{Extras, Haproxy, Settings, ensure_files, frontend_lines};
use pilothouse::proxy::nginx::{self, Nginx};
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

/// A port that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
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
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (h, bad, name) = (Arc::clone(&h), Arc::clone(&bad), name.clone());
                connections.spawn(async move {
                    let answer = service_fn(|r: Request<hyper::body::Incoming>| {
                        let (h, name, bad) = (Arc::clone(&h), name.clone(), bad.load(Ordering::SeqCst));
                        async move {
                            if bad {
                                h.fetch_add(1, Ordering::SeqCst);
                                return Err(std::io::Error::other("hung up"));
                            }
                            if r.uri().path() != "/health" {
                                h.fetch_add(1, Ordering::SeqCst);
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
                            Ok(Response::new(Full::from(name).map_err(|e| match e {}).boxed()))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { id, revision, addr, hits, hang_up, task }
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
    pub kind: Kind,
}

pub enum Kind {
    Haproxy { binary: PathBuf, child: Option<Child> },
    Nginx { binary: PathBuf, child: Option<Child> },
    Edge(Arc<Edge>),
}

impl Harness {
    /// A running HAProxy with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn haproxy() -> Option<Self> {
        Self::haproxy_with(Extras::ALL).await
    }

    /// One whose operator added only these lines.
    pub async fn haproxy_with(extras: Extras) -> Option<Self> {
        Self::haproxy_of(extras, "").await
    }

    /// One whose operator has more lines in their `defaults`.
    pub async fn haproxy_of(extras: Extras, defaults: &str) -> Option<Self> {
        let binary = crate::require::program("haproxy")?;
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp").unwrap();
        let fleet: FleetName = "shop".parse().unwrap();
        let listen = free_addr();
        let own = dir.path().join("own");
        ensure_files(&own, &fleet, OWNER, &[service()]).unwrap();
        let log = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "defaults\n    mode http\n    timeout connect 1s\n    timeout client 30s\n    timeout server 10s\n    \
             timeout http-keep-alive 10s\n{defaults}frontend fe\n    bind {listen}\n    option idle-close-on-response\n    \
             log {log} format raw local0\n    log-format {}\n    {}\n",
            pilothouse::traffic::haproxy_log::LOG_FORMAT,
            frontend_lines(&own, &fleet, &service(), extras).join("\n    ")
        );
        std::fs::write(dir.path().join("op.cfg"), text).unwrap();
        let settings = Settings {
            dir: own,
            master_socket: dir.path().join("m.sock"),
            config: vec![dir.path().join("op.cfg")],
            binary: binary.clone(),
            log: Some(log),
        };
        let proxy = Arc::new(Haproxy::new("edge-lb".parse().unwrap(), settings, fleet.clone(), OWNER.into()));
        let mut h = Self { fleet, listen, proxy, dir, kind: Kind::Haproxy { binary, child: None } };
        h.start().await;
        Some(h)
    }

    /// A running nginx with an operator's own configuration; `None` (said loudly) when it is not installed.
    pub async fn nginx() -> Option<Self> {
        Self::nginx_of(true, "client_header_timeout 2s;").await
    }

    /// One whose operator may have left out the line for visitors' places, and has more lines in the `http` block.
    pub async fn nginx_of(cookie: bool, http: &str) -> Option<Self> {
        let binary = crate::require::program("nginx")?;
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp").unwrap();
        // The workers run as another user.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let fleet: FleetName = "shop".parse().unwrap();
        let (listen, at) = (free_addr(), dir.path().display());
        let log = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = nginx::Settings {
            dir: dir.path().join("own"),
            config: dir.path().join("op.conf"),
            pid: dir.path().join("nginx.pid"),
            status: free_addr(),
            binary: binary.clone(),
            log: Some(log),
        };
        let cookie = if cookie { nginx::cookie_line(&fleet, &service()) } else { String::new() };
        let text = format!(
            "daemon off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log notice;\nworker_processes 2;\nevents {{}}\n\
             http {{\n    {}\n    {http}\n    map $http_upgrade $op_connection {{ default upgrade; \"\" close; }}\n    \
             server {{\n        listen {listen};\n        location / {{\n            {}\n            {cookie}\n            \
             proxy_http_version 1.1;\n            proxy_set_header Upgrade $http_upgrade;\n            \
             proxy_set_header Connection $op_connection;\n        }}\n    }}\n}}\n",
            nginx::http_line(&settings.dir, &fleet),
            nginx::location_line(&settings.dir, &fleet, &service()),
        );
        std::fs::write(&settings.config, text).unwrap();
        let proxy = Arc::new(Nginx::new("front".parse().unwrap(), settings, fleet.clone(), OWNER.into()));
        proxy.prepare(&[service()]).unwrap();
        let mut h = Self { fleet, listen, proxy, dir, kind: Kind::Nginx { binary, child: None } };
        h.start().await;
        Some(h)
    }

    /// A running edge, started by its driver.
    pub async fn edge() -> Self {
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp").unwrap();
        let listen = free_addr();
        let edge = Arc::new(edge_in(dir.path(), listen, OWNER));
        let mut h = Self {
            fleet: "shop".parse().unwrap(),
            listen,
            proxy: Arc::clone(&edge) as Arc<dyn Proxy>,
            dir,
            kind: Kind::Edge(edge),
        };
        h.start().await;
        h
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn cfg(&self) -> PathBuf {
        self.path().join("own/shop.cfg")
    }

    pub fn master(&self) -> PathBuf {
        self.path().join("m.sock")
    }

    /// Starts the proxy and waits until it takes connections.
    pub async fn start(&mut self) {
        let dir = self.dir.path().to_owned();
        match &mut self.kind {
            Kind::Haproxy { binary, child } => {
                let log = std::fs::File::create(dir.join("haproxy.log")).unwrap();
                let mut command = Command::new(binary);
                command.args(["-W", "-db", "-S"]).arg(dir.join("m.sock"));
                command.arg("-f").arg(dir.join("op.cfg")).arg("-f").arg(dir.join("own/shop.cfg"));
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
                *child = Some(command.spawn().unwrap());
            }
            Kind::Nginx { binary, child } => {
                let mut command = Command::new(binary);
                command.arg("-c").arg(dir.join("op.conf"));
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                *child = Some(command.spawn().unwrap());
            }
            Kind::Edge(edge) => {
                edge.read_back().await.unwrap();
            }
        }
        for _ in 0..500 {
            if TcpStream::connect(self.listen).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "the proxy does not listen: {:?}",
            ["haproxy.log", "nginx.log"].map(|l| std::fs::read_to_string(dir.join(l)))
        );
    }

    /// Ends the proxy.
    pub fn stop(&mut self) {
        match &mut self.kind {
            Kind::Haproxy { child, .. } | Kind::Nginx { child, .. } => {
                if let Some(mut c) = child.take() {
                    let pid = rustix::process::Pid::from_child(&c);
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    let _ = c.wait();
                }
            }
            Kind::Edge(_) => {
                // It is no child of ours: end it by the pid it left, and wait until it lets go of its lock.
                let lock = std::fs::File::open(self.dir.path().join("front.lock"));
                let pid = pid_behind(&self.dir.path().join("front.sock"));
                if let (Ok(lock), Some(pid)) = (lock, pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    let _ = lock.lock();
                }
            }
        }
    }

    pub async fn restart(&mut self) {
        self.stop();
        self.start().await;
    }

    /// A reload by somebody else.
    pub async fn reload(&self) {
        if let Kind::Nginx { child: Some(master), .. } = &self.kind {
            let pids = |back: &RouteReadback| -> Vec<String> {
                back.workers.iter().flat_map(|w| w.worker.split(' ').map(str::to_owned)).collect()
            };
            let before = pids(&self.read().await);
            let pid = rustix::process::Pid::from_child(master);
            rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            loop {
                assert!(Instant::now() < end, "no new worker");
                tokio::time::sleep(Duration::from_millis(20)).await;
                let now = self.proxy.read_back().await.ok().and_then(|mut all| all.remove(&service()));
                if now.is_some_and(|now| pids(&now).iter().all(|pid| !before.contains(pid))) {
                    break;
                }
            }
            return;
        }
        let before = self.master_says("show proc").await;
        let _ = self.master_says("reload").await;
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.master_says("show proc").await;
            let worker = |t: &str| {
                t.split_once("# workers\n").map(|(_, w)| w.split_whitespace().next().map(str::to_owned))
            };
            if worker(&now).is_some() && worker(&now) != worker(&before) {
                return;
            }
        }
        panic!("no new worker");
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
        if matches!(self.kind, Kind::Nginx { .. }) {
            self.is_free(backend).await;
        }
    }

    /// Asserts that no request failed. A reload of nginx closes connections that are kept alive, and a request that is
    /// on its way at that moment gets no answer: at most one for each of `connections` that reloads closed, and nothing
    /// else, is said and let pass there.
    pub fn lost_nothing(&self, done: u64, failed: &[String], connections: usize) {
        let closed = |why: &&String| why.contains("IncompleteMessage") || why.contains("ConnectionReset");
        let closed = failed.iter().filter(closed).count();
        match self.kind {
            Kind::Nginx { .. } if closed == failed.len() => {
                eprintln!("MEASURED reloads of nginx: {closed} of {done} requests met a closed connection");
                assert!(closed <= connections, "{closed} of {done}");
            }
            _ => assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first()),
        }
    }

    pub async fn master_says(&self, command: &str) -> String {
        let mut text = String::new();
        if let Ok(mut s) = tokio::net::UnixStream::connect(self.master()).await {
            s.write_all(format!("{command}\n").as_bytes()).await.unwrap();
            s.shutdown().await.unwrap();
            let _ = s.read_to_string(&mut text).await;
        }
        text
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

/// A driver of an edge named `front`.
pub fn edge_in(dir: &Path, listen: SocketAddr, owner: &str) -> Edge {
    let program = env!("CARGO_BIN_EXE_pilothouse").into();
    let fleet = "shop".parse().unwrap();
    Edge::new("front".parse().unwrap(), listen, dir.to_owned(), program, owner.to_owned(), fleet)
}

/// The process that listens on a Unix socket, as the kernel says.
fn pid_behind(socket: &Path) -> Option<rustix::process::Pid> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid)
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
    let answer = client.get(uri).await.map_err(|e| format!("{e:?}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| format!("{status}: {e:?}"))?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == 200 { Ok(text) } else { Err(format!("{status}: {text}")) }
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
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
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
