//! The edge's process: one listener for clients, one Unix socket for the controller, the last routes on disk.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions, Permissions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use color_eyre::eyre::{Context as _, bail, eyre};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::body::Open;
use super::check::Checks;
use super::forward::Forwarder;
use super::table::State;
use super::wire::{Counts, Info, Paths, Routes};
use crate::fleet::names::{Bp, ProxyName};
use crate::proxy::files;

/// Longest wait for requests in flight when it stops.
const FINISH: Duration = Duration::from_secs(30);
/// A client must send its request's head within this.
const HEAD: Duration = Duration::from_secs(30);
/// Largest `PUT /routes`.
const MAX_ROUTES: usize = 16 << 20;

/// What one says that finds another of its name at work.
pub(super) const RUNS_ALREADY: &str = "runs already";

/// What one says that finds the routes of another controller.
pub(super) const BELONG_TO: &str = "belong to";

/// How an edge is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files are.
    pub dir: PathBuf,
    /// Address it serves on.
    pub listen: SocketAddr,
    /// Its name.
    pub name: ProxyName,
    /// The only controller it listens to.
    pub owner: String,
}

struct Edge {
    options: Options,
    paths: Paths,
    state: Arc<State>,
    forwarder: Forwarder,
    boot: String,
    checks: Mutex<Checks>,
    /// One change at a time, so that disk and memory agree.
    put: tokio::sync::Mutex<()>,
    /// Changes so far.
    puts: AtomicU64,
    stop: watch::Sender<bool>,
    /// Held for as long as the process lives.
    _lock: File,
}

/// Serves until it is told to stop, by `POST /stop`, SIGTERM or SIGINT; requests in flight are finished.
///
/// # Errors
/// When another edge of this name runs, the address is taken, or the directory cannot be used.
pub async fn serve(options: Options) -> color_eyre::Result<()> {
    let paths = Paths::of(&options.dir, &options.name).map_err(|e| eyre!(e))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.dir)
        .wrap_err_with(|| format!("cannot make {}", options.dir.display()))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&paths.lock)
        .wrap_err_with(|| format!("cannot open {}", paths.lock.display()))?;
    if lock.try_lock().is_err() {
        bail!("edge {} {RUNS_ALREADY} (it holds {})", options.name, paths.lock.display());
    }
    let saved = load(&paths, &options)?;
    let listen = options.listen;
    let clients = TcpListener::bind(listen).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            eyre!(
                "the address {listen} is taken by another process; stop that or change `listen` of this proxy"
            )
        }
        _ => eyre!("cannot listen on {listen}: {e}"),
    })?;
    // The lock is ours, so whatever socket is there is a dead edge's.
    let _ = std::fs::remove_file(&paths.socket);
    let admin = UnixListener::bind(&paths.socket)
        .wrap_err_with(|| format!("cannot listen on {}", paths.socket.display()))?;
    std::fs::set_permissions(&paths.socket, Permissions::from_mode(0o600))?;

    let seed = || RandomState::new().build_hasher().finish();
    let state = Arc::new(State::new(seed()));
    let (stop, mut stopping) = watch::channel(false);
    let edge = Arc::new(Edge {
        forwarder: Forwarder::new(Arc::clone(&state)),
        boot: format!("{:016x}", seed()),
        checks: Mutex::default(),
        put: tokio::sync::Mutex::new(()),
        puts: AtomicU64::new(0),
        stop,
        _lock: lock,
        options,
        paths,
        state,
    });
    edge.put_in_force(&saved);
    eprintln!("edge {}: serving on {listen}, {} routes", edge.options.name, saved.routes.len());
    let admin = tokio::spawn(serve_admin(Arc::clone(&edge), admin));
    let signals = tokio::spawn(wait_for_signal(edge.stop.clone()));
    loop {
        let (stream, from) = tokio::select! {
            accepted = clients.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, most likely: what runs must end first.
                    eprintln!("edge {}: cannot accept: {e}", edge.options.name);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            _ = stopping.wait_for(|s| *s) => break,
        };
        let _ = stream.set_nodelay(true);
        let open = Open::new(&edge.forwarder.open);
        let edge = Arc::clone(&edge);
        let answer = service_fn(move |request| {
            let edge = Arc::clone(&edge);
            async move { Ok::<_, std::convert::Infallible>(edge.forwarder.handle(request, from).await) }
        });
        let mut stop = stopping.clone();
        tokio::spawn(async move {
            let _open = open;
            let mut connection = pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(stream), answer)
                    .with_upgrades()
            );
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stop.wait_for(|s| *s) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(clients);
    let all_done = async {
        while edge.forwarder.open.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let left = tokio::time::timeout(FINISH, all_done).await.is_err();
    eprintln!("edge {}: stopped{}", edge.options.name, if left { ", some connections were cut" } else { "" });
    admin.abort();
    signals.abort();
    let _ = std::fs::remove_file(&edge.paths.socket);
    Ok(())
}

/// The routes of last time.
fn load(paths: &Paths, options: &Options) -> color_eyre::Result<Routes> {
    let none = || Routes { owner: options.owner.clone(), ..Routes::default() };
    let Some(text) =
        files::read(&paths.state).wrap_err_with(|| format!("cannot read {}", paths.state.display()))?
    else {
        return Ok(none());
    };
    let saved: Routes = match serde_json::from_str(&text) {
        Ok(saved) => saved,
        Err(e) => {
            // Serving nothing until the controller sets the routes again beats not starting.
            let aside = paths.state.with_extension("damaged");
            let _ = std::fs::rename(&paths.state, &aside);
            eprintln!(
                "edge {}: the saved routes are damaged ({e}); moved to {}",
                options.name,
                aside.display()
            );
            return Ok(none());
        }
    };
    if saved.owner != options.owner {
        bail!(
            "the routes in {} {BELONG_TO} {}, not to {}; move the file away if that is wrong",
            paths.state.display(),
            saved.owner,
            options.owner
        );
    }
    Ok(saved)
}

async fn wait_for_signal(stop: watch::Sender<bool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    let _ = stop.send(true);
}

async fn serve_admin(edge: Arc<Edge>, socket: UnixListener) {
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let edge = Arc::clone(&edge);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let edge = Arc::clone(&edge);
                async move { Ok::<_, std::convert::Infallible>(edge.admin(request).await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, body),
        Err(e) => answer(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}

impl Edge {
    async fn admin(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        match (request.method().clone(), request.uri().path()) {
            (Method::GET, "/info") => json(&Info {
                pid: std::process::id(),
                listen: self.options.listen,
                owner: self.options.owner.clone(),
                version: self.version(),
            }),
            (Method::GET, "/routes") => json(&self.state.read_back()),
            (Method::GET, "/counters") => {
                json(&Counts { boot: self.boot.clone(), counters: self.state.counters() })
            }
            (Method::PUT, "/routes") => self.put_routes(request).await,
            (Method::POST, "/stop") => {
                let _ = self.stop.send(true);
                answer(StatusCode::ACCEPTED, "stopping\n")
            }
            (Method::POST, path) if path.starts_with("/stable/") => {
                let service = path.trim_start_matches("/stable/").to_owned();
                self.to_stable(&service).await
            }
            _ => answer(StatusCode::NOT_FOUND, "no such thing\n"),
        }
    }

    async fn put_routes(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parameter = |name| query.split('&').find_map(|p| p.split_once('=').filter(|(n, _)| *n == name));
        let back = parameter("direction") == Some(("direction", "back"));
        let after = parameter("after").map(|(_, version)| version.to_owned());
        let body = match Limited::new(request.into_body(), MAX_ROUTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return answer(StatusCode::BAD_REQUEST, e.to_string()),
        };
        let wanted: Routes = match serde_json::from_slice(&body) {
            Ok(wanted) => wanted,
            Err(e) => return answer(StatusCode::BAD_REQUEST, format!("these are no routes: {e}")),
        };
        if wanted.owner != self.options.owner {
            let text = format!(
                "edge {name} belongs to {}, not to {}; if that is wrong, stop process {} and move {name}.json away",
                self.options.owner,
                wanted.owner,
                std::process::id(),
                name = self.options.name,
            );
            return answer(StatusCode::FORBIDDEN, text);
        }
        self.set(wanted, back, after).await
    }

    /// An operator's way out when there is no controller: all requests of a service to its stable slot.
    async fn to_stable(self: Arc<Self>, service: &str) -> Answer {
        let (fleet, mut routes) = self.state.routes();
        let Some(route) = routes.iter_mut().find(|r| r.service.as_str() == service) else {
            return answer(StatusCode::NOT_FOUND, "no such service\n");
        };
        route.rules.clear();
        route.slots.get_mut(route.stable).weight = Bp::FULL;
        route.slots.get_mut(route.stable.other()).weight = Bp::ZERO;
        let wanted = Routes { owner: self.options.owner.clone(), fleet, routes };
        self.set(wanted, true, None).await
    }

    /// Which routes are in force: changes with every `PUT`, and with every start.
    fn version(&self) -> String {
        format!("{}-{}", self.boot, self.puts.load(Ordering::SeqCst))
    }

    /// In a task of its own: a caller that hangs up must not leave it half done.
    async fn set(self: Arc<Self>, wanted: Routes, back: bool, after: Option<String>) -> Answer {
        let task = tokio::spawn(async move { self.set_now(&wanted, back, after.as_deref()).await });
        task.await.unwrap_or_else(|e| answer(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    }

    /// Towards safety (`back`) what is in force comes first; towards risk what survives a crash does.
    async fn set_now(&self, wanted: &Routes, back: bool, after: Option<&str>) -> Answer {
        let _one = self.put.lock().await;
        // A call that was given up on may arrive late: it must not undo what was set meanwhile.
        if after.is_some_and(|a| a != self.version()) {
            return answer(StatusCode::CONFLICT, "the routes were changed meanwhile; read them back\n");
        }
        self.puts.fetch_add(1, Ordering::SeqCst);
        if back {
            self.put_in_force(wanted);
        }
        let path = self.paths.state.clone();
        let written = match serde_json::to_string(wanted) {
            Ok(text) => tokio::task::spawn_blocking(move || files::write_atomic(&path, &text, 0o600)).await,
            Err(e) => return answer(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        };
        if let Err(e) = written.map_err(std::io::Error::other).and_then(|r| r) {
            let what = if back { "in force, but lost at a restart" } else { "nothing was changed" };
            let text = format!("cannot write {}: {e}; {what}", self.paths.state.display());
            return answer(StatusCode::INSUFFICIENT_STORAGE, text);
        }
        self.put_in_force(wanted);
        answer(StatusCode::NO_CONTENT, "")
    }

    fn put_in_force(&self, wanted: &Routes) {
        self.state.put(wanted.fleet.as_ref(), &wanted.routes);
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).follow(&self.state);
    }
}
