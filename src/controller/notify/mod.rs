//! Who is told about rollouts. Facts become news once they are written down; a task for each receiver tells them in order,
//! again and again within bounds. Nothing ever waits for it: the loop that decides puts news into a queue and goes on.
//!
//! Each receiver's last news that it has (or that was given up) is remembered by the number of its fact. A controller that
//! begins reads the facts again anyway, and what came after that number is still to be told: each at least once, and what
//! was delivered not again, except when the controller died between the answer and the remembering.

mod command;
mod cursors;
pub mod news;
mod send;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify as Bell, mpsc, watch};
use tokio::task::AbortHandle;

use super::clock::wall_ms;
use super::input::Input;
use crate::fleet::model::{Fleet, Notify};
use crate::fleet::names::TargetName;
use crate::https;
use crate::text::Safe;
use cursors::Cursors;
use news::News;
pub use send::look;

/// News that wait for one receiver; of more the oldest are given up.
const QUEUE: usize = 200;
/// The first pause between two attempts; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Attempts for the same news; the time within which it is given up is mostly shorter.
const ATTEMPTS: u32 = 50;

/// Counts of one receiver, for `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// News that it has.
    pub delivered: u64,
    /// News that it will never have.
    pub given_up: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// News that wait.
    pub waiting: usize,
}

/// What is still to be told, and how it stands.
#[derive(Default)]
struct Pending {
    queue: VecDeque<(News, Instant)>,
    told: Told,
    /// Why the last attempt failed; `None` when it did not.
    trouble: Option<String>,
    /// News were given up, and none was delivered since.
    gave_up: bool,
}

/// What the notifier and a receiver's task share.
struct Shared {
    pending: Mutex<Pending>,
    bell: Bell,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Counts and a queue: whole after each of their changes.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One receiver.
struct Target {
    settings: watch::Sender<Notify>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// See the top of the file.
pub struct Notifier {
    tx: mpsc::Sender<Input>,
    cursors: Arc<Cursors>,
    client: Arc<https::Client>,
    targets: BTreeMap<TargetName, Target>,
    /// News of the facts that were there when the controller began, until it is known who is to be told.
    backlog: VecDeque<News>,
    trouble: Option<Safe>,
    /// The first pause between two attempts.
    pause: Duration,
}

impl Notifier {
    /// Knows what was delivered, and nobody to tell yet. Failures are told to `tx`.
    #[must_use]
    pub fn open(dir: &Path, tx: mpsc::Sender<Input>) -> Self {
        let (cursors, trouble) = Cursors::open(dir);
        Self {
            tx,
            cursors: Arc::new(cursors),
            client: Arc::default(),
            targets: BTreeMap::new(),
            backlog: VecDeque::new(),
            trouble,
            pause: PAUSE,
        }
    }

    /// News of a fact that was there before: perhaps somebody does not have it yet.
    pub fn before(&mut self, news: News) {
        if self.backlog.len() >= QUEUE {
            self.backlog.pop_front();
        }
        self.backlog.push_back(news);
    }

    /// From now on these are told, as of fact number `seq`.
    pub fn targets(&mut self, fleet: &Fleet, seq: u64) {
        self.targets.retain(|name, _| fleet.notify.contains_key(name));
        self.cursors.keep(|name| fleet.notify.keys().any(|n| n.as_str() == name));
        for (name, declared) in &fleet.notify {
            if let Some(known) = self.targets.get(name) {
                known.settings.send_if_modified(|now| {
                    let changed = now != declared;
                    now.clone_from(declared);
                    changed
                });
                continue;
            }
            let shared = Arc::new(Shared { pending: Mutex::default(), bell: Bell::new() });
            match self.cursors.of(name.as_str()) {
                Some(cursor) => {
                    let missed: Vec<News> = self.backlog.iter().filter(|n| n.seq > cursor).cloned().collect();
                    enqueue(&shared, declared, &missed);
                }
                // Who is new is told what comes, not what was.
                None => self.cursors.set(name.as_str(), seq),
            }
            let (settings, following) = watch::channel(declared.clone());
            let worker = Worker {
                settings: following,
                shared: Arc::clone(&shared),
                client: Arc::clone(&self.client),
                cursors: Arc::clone(&self.cursors),
                tx: self.tx.clone(),
                pause: self.pause,
            };
            let task = tokio::spawn(worker.run()).abort_handle();
            self.targets.insert(name.clone(), Target { settings, shared, task });
        }
        self.backlog.clear();
    }

    /// Whether anybody is told anything.
    #[must_use]
    pub fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Tells everybody who wants to know.
    pub fn tell(&self, news: &[News]) {
        for target in self.targets.values() {
            enqueue(&target.shared, &target.settings.borrow(), news);
        }
    }

    /// What does not work, a line each.
    #[must_use]
    pub fn trouble(&self) -> Vec<Safe> {
        let mut out: Vec<Safe> = self.trouble.iter().cloned().collect();
        for (name, target) in &self.targets {
            let p = target.shared.pending();
            if let (true, Some(why)) = (p.gave_up, &p.trouble) {
                let text = format!("notify {name} is not told: {why} ({} given up)", p.told.given_up);
                out.push(Safe::new(&text));
            }
        }
        out
    }

    /// How it stands with each.
    #[must_use]
    pub fn told(&self) -> BTreeMap<TargetName, Told> {
        let one = |(name, t): (&TargetName, &Target)| {
            let p = t.shared.pending();
            (name.clone(), Told { waiting: p.queue.len(), ..p.told.clone() })
        };
        self.targets.iter().map(one).collect()
    }
}

/// Puts what a receiver wants into its queue.
fn enqueue(shared: &Shared, settings: &Notify, news: &[News]) {
    let mut p = shared.pending();
    for n in news.iter().filter(|n| settings.wants(n.event, n.of().as_str())) {
        if p.queue.len() >= QUEUE {
            p.queue.pop_front();
            p.told.given_up += 1;
            p.gave_up = true;
        }
        let old = Duration::from_millis(wall_ms().saturating_sub(n.at_ms));
        let left = Duration::from_millis(settings.retry_for.0).saturating_sub(old);
        p.queue.push_back((n.clone(), Instant::now() + left));
    }
    drop(p);
    shared.bell.notify_one();
}

/// Tells one receiver, in order.
struct Worker {
    settings: watch::Receiver<Notify>,
    shared: Arc<Shared>,
    client: Arc<https::Client>,
    cursors: Arc<Cursors>,
    tx: mpsc::Sender<Input>,
    pause: Duration,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let next = self.shared.pending().queue.front().cloned();
            match next {
                Some((news, until)) => self.tell(&news, until).await,
                None => self.shared.bell.notified().await,
            }
        }
    }

    /// Tells it until it is told, or given up.
    async fn tell(&mut self, news: &News, until: Instant) {
        for attempt in 1..=ATTEMPTS {
            let settings = self.settings.borrow_and_update().clone();
            match send::send(&self.client, &settings, news).await {
                Ok(()) => return self.over(news, None).await,
                Err(why) => {
                    let pause =
                        LONGEST_PAUSE.min(self.pause.saturating_mul(2_u32.saturating_pow(attempt - 1)));
                    {
                        let mut p = self.shared.pending();
                        p.told.failed_attempts += 1;
                        p.trouble = Some(why.clone());
                    }
                    if attempt == ATTEMPTS || Instant::now() + pause >= until {
                        return self.over(news, Some((attempt, why))).await;
                    }
                    // What was wrong may have been mended.
                    let _ = tokio::time::timeout(pause, self.settings.changed()).await;
                }
            }
        }
    }

    /// It is delivered, or given up after so many attempts.
    async fn over(&self, news: &News, failed: Option<(u32, String)>) {
        let name = self.settings.borrow().name.clone();
        let first = {
            let mut p = self.shared.pending();
            // A full queue may have dropped it meanwhile.
            if p.queue.front().is_some_and(|(n, _)| n.seq == news.seq) {
                p.queue.pop_front();
            }
            if failed.is_some() {
                p.told.given_up += 1;
            } else {
                p.told.delivered += 1;
                p.trouble = None;
            }
            !std::mem::replace(&mut p.gave_up, failed.is_some())
        };
        let (cursors, seq, target) = (Arc::clone(&self.cursors), news.seq, name.clone());
        let _ = tokio::task::spawn_blocking(move || cursors.set(target.as_str(), seq)).await;
        if let Some((attempts, error)) = failed.filter(|_| first) {
            let error =
                Safe::new(&format!("{} of {} is given up: {error}", news.event.as_str(), news.rollout));
            // Once for all that is given up in a row: an outage of theirs shall not fill our journal.
            let _ = self.tx.send(Input::Untold { target: name, attempts, error }).await;
        }
    }
}

#[cfg(test)]
mod tests;
