//! The loop: signals first, then keys, then news; draws after every key at once, and otherwise ten times a second at
//! most, and only when something has changed.

use std::io::{self, BufWriter, Stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossterm::event::{Event, EventStream, MouseButton, MouseEventKind};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::End;
use super::clipboard::Between;
use super::journal::PAGE;
use super::keys::Key;
use super::link::Link;
use super::logs::Whose;
use super::model::{Loudness, Model, Planned};
use super::replay::Player;
use super::screen::Screen;
use super::term::{self, Guard};
use super::theme::Theme;
use super::update::{Cmd, Mouse, Msg, update};
use crate::api::{MergedLog, Verb, VerbReply, VerbRequest};
use crate::client::{Client, ClientError};
use crate::text::{Safe, hex};

/// Shortest time between two frames that no key asked for.
const FRAME: Duration = Duration::from_millis(100);
/// The same where nothing but figures has changed, while there is a rollout to watch.
const FIGURES: Duration = Duration::from_secs(1);
/// And while there is none.
const REST: Duration = Duration::from_secs(5);
/// The first of these for those who asked for less motion.
const CALM: Duration = Duration::from_secs(2);
/// After a key, news of more than figures are drawn at once for so long.
const WAITED_FOR_MS: u64 = 500;
/// News on their way to the screen.
const QUEUE: usize = 64;
/// Messages or keys taken in before the next frame may be drawn.
const BATCH: usize = 256;
/// After a signal to end, a screen that hangs in a write is ended.
const HANG: Duration = Duration::from_secs(4);
/// How long leaving waits for the answer to a verb that is on its way.
pub(super) const LAST_WORD: Duration = Duration::from_secs(3);

type Answer = (u64, Result<VerbReply, ClientError>);

pub(super) struct App {
    pub(super) model: Model,
    theme: Theme,
    fleet_file: Option<PathBuf>,
    link: Link,
    client: watch::Receiver<Option<Client>>,
    news: mpsc::Receiver<Msg>,
    jobs: JoinSet<()>,
    verbs: JoinSet<Answer>,
    link_job: Option<AbortHandle>,
    log_job: Option<AbortHandle>,
    started: Instant,
    gone: Arc<Notify>,
    /// A past rollout, in place of a controller.
    player: Option<Player>,
    /// When the player was last let go on.
    played: Instant,
    /// What a copied text has to go through.
    between: Between,
    /// Whether large frames are shown in one piece.
    pub(super) synchronised: bool,
}

impl App {
    pub(super) fn new(socket: PathBuf, model: Model, theme: Theme, fleet_file: Option<PathBuf>) -> Self {
        let (tx, news) = mpsc::channel(QUEUE);
        let (client_tx, client) = watch::channel(None);
        let link = Link {
            socket,
            name: model.name.clone(),
            news: tx,
            client: client_tx,
            again: Arc::new(Notify::new()),
        };
        Self {
            model,
            theme,
            fleet_file,
            link,
            client,
            news,
            jobs: JoinSet::new(),
            verbs: JoinSet::new(),
            link_job: None,
            log_job: None,
            started: Instant::now(),
            gone: Arc::new(Notify::new()),
            player: None,
            played: Instant::now(),
            between: Between::of(|name| std::env::var(name).ok().filter(|v| !v.is_empty())),
            synchronised: false,
        }
    }

    /// The same screen on a past rollout: nothing is connected.
    pub(super) fn replaying(
        mut player: Player,
        rollout: Safe,
        speed: u32,
        mut model: Model,
        theme: Theme,
    ) -> Self {
        player.open(&mut model, rollout, speed);
        Self { player: Some(player), ..Self::new(PathBuf::new(), model, theme, None) }
    }

    /// Runs until the operator leaves or the terminal does.
    pub(super) async fn run(&mut self) -> io::Result<End> {
        let mut signals = Signals::new()?;
        let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
        let gone = Arc::clone(&self.gone);
        term::watch_hang_up(move || gone.notify_one())?;
        let guard = Guard::take()?;
        guard.mouse(self.model.mouse)?;
        let size = crossterm::terminal::size()?;
        self.take_in(Msg::Resize(size.0, size.1));
        if self.player.is_none() {
            self.link_job = Some(self.jobs.spawn(self.link.clone().run()));
        }
        let end = self.steer(&guard, &mut signals, &mut continued).await;
        drop(guard);
        match end {
            // A terminal that is gone gives EIO; that is no failure of ours.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(End::HungUp),
            other => other,
        }
    }

    async fn steer(
        &mut self,
        guard: &Guard,
        signals: &mut Signals,
        continued: &mut Signal,
    ) -> io::Result<End> {
        let out: BufWriter<Stdout> = BufWriter::with_capacity(64 << 10, io::stdout());
        let mut screen = Screen::new(out).synchronised(self.synchronised);
        let mut keys = Keys::start();
        let mut tick = interval(if self.player.is_some() { FRAME } else { Duration::from_secs(1) });
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let gone = Arc::clone(&self.gone);
        let frame = if self.model.reduced_motion { CALM } else { FRAME };
        let mut last = None;
        let mut at_once = true;
        loop {
            let pause = self.pause(frame);
            let due = last.map_or_else(Instant::now, |t: Instant| t + pause);
            self.theme.palette = self.model.palette;
            if self.model.dirty && (at_once || Instant::now() >= due) {
                self.clock();
                screen.draw(&mut self.model, &self.theme)?;
                update(&mut self.model, Msg::Drawn);
                last = Some(Instant::now());
                at_once = false;
                continue;
            }
            let mut cmds = Vec::new();
            tokio::select! {
                biased;
                () = gone.notified() => return Ok(End::HungUp),
                end = signals.end() => return Ok(end),
                _ = continued.recv() => {
                    guard.retake()?;
                    let (w, h) = crossterm::terminal::size()?;
                    cmds = self.take_in(Msg::Resize(w, h));
                    screen.forget();
                    at_once = true;
                }
                event = keys.events.recv() => {
                    let mut event = event;
                    for _ in 0..BATCH {
                        match event {
                            None => return Ok(End::HungUp),
                            Some(Err(e)) => return Err(e),
                            Some(Ok(event)) => cmds.extend(self.input(event)),
                        }
                        match keys.events.try_recv() {
                            Ok(more) => event = Some(more),
                            Err(_) => break,
                        }
                    }
                    at_once = true;
                }
                Some(answer) = self.verbs.join_next() => {
                    let msg = match answer {
                        Ok((id, result)) => Msg::Answered { id, result },
                        Err(e) => failed(&e),
                    };
                    cmds = self.take_in(msg);
                    at_once = true;
                }
                Some(job) = self.jobs.join_next() => {
                    if let Err(e) = job && e.is_panic() {
                        cmds = self.take_in(failed(&e));
                    }
                    if self.link_job.as_ref().is_some_and(AbortHandle::is_finished) {
                        self.take_in(Msg::Lost("the connection's own task failed; it starts again".into()));
                        self.link_job = Some(self.jobs.spawn(self.link.clone().run()));
                    }
                }
                Some(msg) = self.news.recv() => {
                    let live = self.model.live();
                    cmds = self.take_in(msg);
                    for _ in 1..QUEUE {
                        let Ok(msg) = self.news.try_recv() else { break };
                        cmds.extend(self.take_in(msg));
                    }
                    // The first picture, and that it is the last one for now, wait for no pause; nor does what follows a key.
                    at_once |= live != self.model.live() || self.model.urgent && self.lately();
                }
                () = sleep_until(due), if self.model.dirty => {}
                _ = tick.tick() => cmds = self.take_in(Msg::Tick),
            }
            for cmd in cmds {
                match cmd {
                    Cmd::Leave => return Ok(End::Detached),
                    Cmd::Redraw => screen.forget(),
                    Cmd::Mouse(on) => guard.mouse(on)?,
                    Cmd::Copy(text) => screen.pass(self.between.sequence(&text).as_bytes())?,
                    Cmd::Suspend => {
                        // An event stream that lives on would go on reading the shell's input.
                        keys.stop().await;
                        guard.stopped(continued).await?;
                        keys = Keys::start();
                        let (w, h) = crossterm::terminal::size()?;
                        self.take_in(Msg::Resize(w, h));
                        screen.forget();
                        at_once = true;
                    }
                    other => self.carry_out(other),
                }
            }
        }
    }

    /// Whether a key was pressed just now: what it did is waited for.
    fn lately(&self) -> bool {
        let since = |at: u64| self.model.now_ms.saturating_sub(at);
        self.model.input_ms.is_some_and(|at| since(at) < WAITED_FOR_MS)
    }

    /// How long after a frame the next may be drawn that no key asked for.
    fn pause(&self, frame: Duration) -> Duration {
        let moving = self.model.counts.rollouts > 0 || !self.model.live();
        match (self.model.urgent || self.player.is_some(), moving) {
            (true, _) => frame,
            (false, true) => FIGURES.max(frame),
            (false, false) => REST.max(frame),
        }
    }

    fn clock(&mut self) {
        if let Some(player) = &mut self.player {
            let elapsed = self.played.elapsed();
            // What is less than a millisecond is kept for the next time.
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.played += Duration::from_millis(ms);
            player.pass(&mut self.model, ms);
            return;
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        update(&mut self.model, Msg::Time { now_ms: ms(self.started.elapsed()), wall_ms: ms(wall) });
    }

    fn take_in(&mut self, msg: Msg) -> Vec<Cmd> {
        self.clock();
        update(&mut self.model, msg)
    }

    fn input(&mut self, event: Event) -> Vec<Cmd> {
        match event {
            Event::Key(key) => Key::from_event(key).map_or_else(Vec::new, |key| self.take_in(Msg::Key(key))),
            Event::Paste(text) => self.take_in(Msg::Paste(text)),
            Event::Resize(w, h) => self.take_in(Msg::Resize(w, h)),
            Event::Mouse(e) => {
                let did = match e.kind {
                    MouseEventKind::Down(MouseButton::Left) => Mouse::Press(e.column, e.row),
                    MouseEventKind::ScrollUp => Mouse::Up(e.column, e.row),
                    MouseEventKind::ScrollDown => Mouse::Down(e.column, e.row),
                    _ => return vec![],
                };
                self.take_in(Msg::Mouse(did))
            }
            _ => vec![],
        }
    }

    fn carry_out(&mut self, cmd: Cmd) {
        let client = self.client.borrow().clone();
        let news = self.link.news.clone();
        match cmd {
            Cmd::Send { id, service, verb, decision, fleet_hash } => {
                let (file, by) = (self.fleet_file.clone(), self.model.name.clone());
                let socket = self.link.socket.clone();
                self.verbs.spawn(async move {
                    let Some(client) = client else { return (id, Err(nobody(socket))) };
                    let request = match request(verb, decision, file, fleet_hash, by).await {
                        Ok(request) => request,
                        Err(e) => return (id, Err(e)),
                    };
                    (id, client.verb(service.as_str(), &request).await)
                });
            }
            Cmd::Plan { service, version } => {
                let (file, socket) = (self.fleet_file.clone(), self.link.socket.clone());
                self.jobs.spawn(async move {
                    let result = match client {
                        None => Err(nobody(socket)),
                        Some(client) => plan(&client, &service, &version, file).await,
                    };
                    let _ = news.send(Msg::Planned { service, version, result: result.map(Box::new) }).await;
                });
            }
            Cmd::Follow { generation, whose, tail } => {
                self.stop_log();
                let socket = self.link.socket.clone();
                self.log_job = Some(self.jobs.spawn(async move {
                    let why = match client {
                        None => nobody(socket).to_string().into(),
                        Some(client) => follow(&client, generation, whose, tail, &news).await,
                    };
                    let _ = news.send(Msg::LogEnd { generation, why }).await;
                }));
            }
            Cmd::Details { instance } => {
                let socket = self.link.socket.clone();
                self.jobs.spawn(async move {
                    let result = match client {
                        None => Err(nobody(socket)),
                        Some(client) => client.details(instance.as_str()).await,
                    };
                    let _ = news.send(Msg::Details { instance, result: result.map(Box::new) }).await;
                });
            }
            Cmd::Journal { before } => {
                let socket = self.link.socket.clone();
                self.jobs.spawn(async move {
                    let result = match client {
                        None => Err(nobody(socket)),
                        Some(client) => client.journal(before, PAGE).await,
                    };
                    let _ = news.send(Msg::Journal(result)).await;
                });
            }
            Cmd::Unfollow => self.stop_log(),
            Cmd::Seek(to) => {
                if let Some(player) = &mut self.player {
                    player.seek(&mut self.model, to);
                }
            }
            Cmd::Resubscribe => self.link.again.notify_one(),
            Cmd::Leave | Cmd::Redraw | Cmd::Suspend | Cmd::Copy(_) | Cmd::Mouse(_) => {}
        }
    }

    fn stop_log(&mut self) {
        if let Some(job) = self.log_job.take() {
            job.abort();
        }
    }

    /// After the screen is gone: waits a little for the answers to verbs that are on their way, so that an abort
    /// sent just before leaving is not cut off. Returns what came back, in words.
    pub(super) async fn last_word(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        let deadline = Instant::now() + LAST_WORD;
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, self.verbs.join_next()).await {
            let Ok((id, result)) = answer else { continue };
            let what =
                self.model.pending.iter().position(|p| p.id == id).map(|n| self.model.pending.remove(n).what);
            let what = what.unwrap_or_default();
            out.push(match result {
                Ok(reply) => format!("{what}: {}", reply.message),
                Err(e) => format!("{what}: {e}"),
            });
        }
        out.extend(self.model.pending.drain(..).map(|p| format!("{}: sent, but no answer came", p.what)));
        out
    }
}

fn nobody(socket: PathBuf) -> ClientError {
    ClientError::Unreachable { socket, why: "the connection is lost".into() }
}

fn failed(e: &tokio::task::JoinError) -> Msg {
    let why = term::last_panic().unwrap_or_else(|| e.to_string());
    Msg::Tell(
        Loudness::Bad,
        Safe::capped(&format!("a part of this screen failed, please report it: {why}"), 400),
    )
}

/// Reads the fleet file's hash for verbs that load it.
async fn hash(file: &std::path::Path) -> Result<String, ClientError> {
    let bytes = tokio::fs::read(file).await.map_err(|e| ClientError::Garbled {
        what: "the fleet file".into(),
        why: format!("{}: {e}", file.display()).into(),
    })?;
    Ok(hex(&Sha256::digest(&bytes)))
}

async fn request(
    verb: Verb,
    decision: Option<u64>,
    file: Option<PathBuf>,
    fleet_hash: Option<String>,
    by: Safe,
) -> Result<VerbRequest, ClientError> {
    let file =
        file.filter(|_| matches!(verb, Verb::Deploy { .. } | Verb::Rollback { .. } | Verb::Retry { .. }));
    let fleet_hash = match (&file, fleet_hash) {
        (None, _) => None,
        (Some(_), Some(hash)) => Some(hash),
        (Some(file), None) => Some(hash(file).await?),
    };
    let fleet_file = file.map(|f| f.display().to_string());
    Ok(VerbRequest { verb, decision, fleet_file, fleet_hash, by: Some(by) })
}

async fn plan(
    client: &Client,
    service: &Safe,
    version: &str,
    file: Option<PathBuf>,
) -> Result<Planned, ClientError> {
    let fleet_hash = match &file {
        Some(file) => Some(hash(file).await?),
        None => None,
    };
    let file = file.map(|f| f.display().to_string());
    let fleet = file.as_deref().zip(fleet_hash.as_deref());
    let plan = client.plan(service.as_str(), version, fleet, false).await?;
    Ok(Planned { plan, fleet_hash })
}

async fn follow(client: &Client, generation: u64, whose: Whose, tail: u32, news: &mpsc::Sender<Msg>) -> Safe {
    let lines = match &whose {
        Whose::Service(service) => client.merged_logs(service.as_str(), None, tail, true).await,
        Whose::Version { service, version } => {
            client.merged_logs(service.as_str(), Some(version.as_str()), tail, true).await
        }
        Whose::Instance(instance) => client.logs(instance.as_str(), tail, true).await.map(|lines| {
            let instance = instance.clone();
            let line = move |line| MergedLog::Line { instance: instance.clone(), line };
            lines.map(move |l| l.map(&line)).boxed()
        }),
    };
    let lines = match lines {
        Ok(lines) => lines,
        Err(e) => return e.to_string().into(),
    };
    let mut chunks = lines.ready_chunks(BATCH);
    while let Some(chunk) = chunks.next().await {
        let mut lines = Vec::with_capacity(chunk.len());
        let mut end = None;
        for line in chunk {
            match line {
                Ok(line) => lines.push(line),
                Err(e) => end = Some(e.to_string().into()),
            }
        }
        if news.send(Msg::Log { generation, lines }).await.is_err() {
            break;
        }
        if let Some(end) = end {
            return end;
        }
    }
    "no more lines".into()
}

/// What the terminal sends. The event stream has a task of its own: polled any other way than by awaiting it, it
/// keeps the wrong waker, and the next key is seen a second late.
struct Keys {
    events: mpsc::Receiver<io::Result<Event>>,
    job: tokio::task::JoinHandle<()>,
}

impl Keys {
    fn start() -> Self {
        let (tx, events) = mpsc::channel(BATCH);
        let job = tokio::spawn(async move {
            let mut stream = EventStream::new();
            while let Some(event) = stream.next().await {
                if tx.send(event).await.is_err() {
                    break;
                }
            }
        });
        Self { events, job }
    }

    /// Ends only when nobody reads the terminal's input any more.
    async fn stop(self) {
        self.job.abort();
        let _ = self.job.await;
    }
}

struct Signals {
    hang_up: Signal,
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) -> End {
        tokio::select! {
            _ = self.hang_up.recv() => End::HungUp,
            _ = self.term.recv() => End::Signal,
            _ = self.interrupt.recv() => End::Signal,
        }
    }
}

/// Ends the process when the screen does not: it may hang in a write to a terminal that takes nothing (flow control,
/// a dead link), where no signal reaches its loop.
pub(super) async fn watchdog() -> io::Result<()> {
    let mut signals = Signals::new()?;
    let end = signals.end().await;
    tokio::time::sleep(HANG + LAST_WORD).await;
    term::give_back_settings();
    std::process::exit(if end == End::HungUp { 129 } else { 143 });
}
