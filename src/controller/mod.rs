//! The controller: the shell around the core. It owns every rollout of its fleet, in its own process and session.
//!
//! | file | what |
//! | --- | --- |
//! | `helm` | the loop: takes in what happens, journals what follows, hands out what is to be done |
//! | `hands` | carries effects to engines and proxies, watches and probes |
//! | `journal`, `lock`, `keeper`, `reserve`, `secrets` | what is kept on disk |
//! | `server`, `peer`, `resolve`, `adopt` | the API |
//! | `analyst`, `evidence` | what requests say about a candidate |
//! | `notify` | who is told about rollouts |
//! | `view`, `explain`, `numbers`, `metrics` | what it looks like from outside |
//! | `crash` | dying on purpose, for the crash harness |
//! | `start` | a controller in the background, for commands that need one |

mod adopt;
mod analyst;
pub mod clock;
#[doc(hidden)]
pub mod crash;
#[doc(hidden)]
pub mod evidence;
mod explain;
mod hands;
mod helm;
pub mod history;
mod input;
mod inspector;
pub mod journal;
mod keeper;
pub mod lock;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod notify;
#[doc(hidden)]
pub mod numbers;
mod peer;
mod recorder;
mod reserve;
mod resolve;
mod samples;
pub mod secrets;
mod server;
pub mod start;
#[doc(hidden)]
pub mod view;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc};

use crate::api::{API_VERSION, Hello};
use crate::fleet::model::{EdgeSettings, Fleet, ProxyKind};
use crate::text::Safe;
use clock::{Clock, wall_ms};
use helm::{Helm, Parts};
use input::{Asked, Input, Request};
use journal::{Journal, JournalError};
use keeper::Keeper;
use lock::{Holder, Lock, LockError, Place};
use reserve::Reserve;
use secrets::Identity;

/// Why a controller cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else holds the fleet, or its directory cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something of the system failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

fn system(what: &str) -> impl FnOnce(std::io::Error) -> ServeError {
    let what = what.to_owned();
    move |source| ServeError::System { what, source }
}

/// Serves the fleet until it is told to stop (API, SIGTERM, SIGINT). Rollouts go on with the next controller.
///
/// With `leave_with`, the process id of a demo, everything is taken down when that process ends.
///
/// # Errors
/// [`ServeError`] when it cannot begin.
pub async fn serve(fleet: &Fleet, leave_with: Option<u32>) -> Result<(), ServeError> {
    crash::arm();
    let place = Place::of(fleet);
    place.prepare()?;
    let started_ms = wall_ms();
    let holder = Holder {
        pid: std::process::id(),
        since_ms: started_ms,
        user: peer::user_name(rustix::process::getuid().as_raw()),
        head: journal::Head::default(),
    };
    let lock = Lock::take(&place, holder)?;
    let journal_file = place.dir.join("journal.db");
    let (journal, records) = Journal::open(&journal_file, lock.head())?;
    let keeper = Keeper::start(lock, journal_file.clone()).map_err(system("a thread for the files"))?;
    let reserve = Reserve::take(&place.dir);
    let identity = Identity::load(&place.dir).map_err(system("the controller's identity"))?;
    let program: PathBuf = std::env::current_exe().map_err(system("finding this program"))?;
    let clock = Clock::from(records.last().map(|r| r.at).unwrap_or_default());
    let hello = Hello {
        api: API_VERSION,
        version: Safe::new(env!("CARGO_PKG_VERSION")),
        fleet: Safe::new(fleet.name.as_str()),
        pid: std::process::id(),
        started_ms,
    };
    let (tx, rx) = mpsc::channel(4096);
    let (asks, asked) = mpsc::channel(64);
    let (updates, _) = broadcast::channel(256);
    let latest = helm::Latest::default();
    let setup = hands::Setup {
        tx: tx.clone(),
        fleet: fleet.name.clone(),
        identity: identity.clone(),
        state_dir: place.dir.clone(),
        program,
        clock,
    };
    let hands = Arc::new(
        hands::Hands::new(setup)
            .map_err(std::io::Error::other)
            .map_err(system("the HTTP client for probes"))?,
    );
    hands.prepare(fleet).await;
    let listener = server::bind(&place.socket).map_err(system("the API's socket"))?;
    let helm = Helm::new(Parts {
        notifier: notify::Notifier::open(&place.dir, tx.clone()),
        exporter: metrics::Exporter::start(tx.clone(), latest.clone()),
        analyst: analyst::Analyst::open(&place.dir),
        journal,
        records,
        keeper,
        reserve,
        clock,
        hands: hands.clone(),
        hello: hello.clone(),
        latest: latest.clone(),
        updates: updates.clone(),
    });
    let samples_file = place.dir.join("samples.db");
    let recorder = tokio::spawn(recorder::run(samples_file.clone(), latest.clone(), updates.subscribe()));
    let latest_for_leaving = latest.clone();
    let (for_leaving, owner) = (hands.clone(), identity.owner.clone());
    let server = server::Server {
        hello,
        fleet: fleet.name.clone(),
        tx: tx.clone(),
        asks: asks.clone(),
        latest,
        updates,
        hands,
        identity,
        watchers: Arc::default(),
        history: history::Reader::new(journal_file),
        samples: samples_file.clone(),
    };
    let stopped = tx.clone();
    let api = tokio::spawn(async move {
        // A controller that nobody can talk to is of no use: the next one begins where this one ends.
        let _ = server::serve(listener, server).await;
        let _ = stopped.send(Input::Stop).await;
    });
    let (reply, _) = tokio::sync::oneshot::channel();
    let load =
        Request::Load { fleet: Box::new(fleet.clone()), by: Safe::new(crate::rollout::decide::OURSELVES) };
    let _ = asks.send((Box::new(load), reply)).await;
    let watched = latest_for_leaving;
    let leaving = tokio::spawn(leave(leave_with, asks, tx.clone(), watched));
    let signals = tokio::spawn(stop_on_signal(tx));
    // It waits for the disk: in a worker of the runtime what it has just handed out would wait behind it.
    let runtime = tokio::runtime::Handle::current();
    let helm = std::thread::Builder::new()
        .name("helm".into())
        .spawn(move || runtime.block_on(helm.run(rx, asked)))
        .map_err(system("a thread for the loop that decides"))?;
    let lock = tokio::task::spawn_blocking(move || helm.join().ok().flatten()).await.ok().flatten();
    signals.abort();
    leaving.abort();
    recorder.abort();
    if leave_with.is_some() {
        stop_edges(fleet, &place).await;
        for host in fleet.hosts.values() {
            let _ = for_leaving.engine(host).release(&fleet.name, &owner).await;
        }
    }
    api.abort();
    // Best effort: a socket that is left is replaced by the next controller. The lock is released last, so that it is
    // never the next controller's socket that is removed.
    let _ = std::fs::remove_file(&place.socket);
    drop(lock);
    Ok(())
}

/// How long a demo's leftovers may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Takes everything down once the process `pid` has ended, then stops. Never without one.
async fn leave(pid: Option<u32>, asks: mpsc::Sender<Asked>, tx: mpsc::Sender<Input>, latest: helm::Latest) {
    let Some(pid) = pid else { return };
    let path = PathBuf::from(format!("/proc/{pid}"));
    while path.exists() {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let (reply, _) = tokio::sync::oneshot::channel();
    let down = Request::Down { services: Vec::new(), by: Safe::new(crate::rollout::decide::OURSELVES) };
    let _ = asks.send((Box::new(down), reply)).await;
    let gone_by = Instant::now() + GONE_WITHIN;
    let left = || !latest.read().unwrap_or_else(PoisonError::into_inner).snapshot.instances.is_empty();
    while left() && Instant::now() < gone_by {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = tx.send(Input::Stop).await;
}

/// Ends the embedded proxies of a demo, which otherwise outlive the controller.
async fn stop_edges(fleet: &Fleet, place: &Place) {
    for proxy in fleet.proxies.values() {
        if let ProxyKind::Edge(EdgeSettings { listen }) = proxy.kind {
            let (dir, program) = (place.dir.clone(), PathBuf::new());
            let (name, nobody) = (proxy.name.clone(), String::new());
            let edge = crate::proxy::edge::Edge::new(name, listen, dir, program, nobody, fleet.name.clone());
            let _ = edge.stop().await;
        }
    }
}

async fn stop_on_signal(tx: mpsc::Sender<Input>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    let _ = tx.send(Input::Stop).await;
}
