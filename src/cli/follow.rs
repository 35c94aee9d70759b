//! Following a rollout to its end, as lines.

use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::out::{Output, complain, say, say_json};
use super::{Exit, special};
use crate::api::{Change, EventView, Level, RolloutStatus, Snapshot};
use crate::client::{Client, ClientError, Update};
use crate::controller::clock::utc;
use crate::text::Safe;

/// How long a controller may be away before following it is given up.
const AWAY: Duration = Duration::from_secs(60);

/// What is followed, and how it is printed.
pub(super) struct Following<'a> {
    /// The service.
    pub(super) service: &'a str,
    /// The rollout.
    pub(super) rollout: Safe,
    /// For whom.
    pub(super) output: Output,
    /// Longest wait; then exit 4.
    pub(super) timeout: Option<Duration>,
    /// Whether an abort is what was asked for.
    pub(super) abort_wanted: bool,
    /// The version that is to follow the rollout, when that has to go back first; then the follower goes with it.
    pub(super) next: Option<String>,
    /// The last event that was seen before; 0 to show all of the rollout's.
    pub(super) after: u64,
}

/// Prints a rollout's events until it has ended.
///
/// # Errors
/// When nothing can be printed.
pub(super) async fn follow(client: &Client, mut f: Following<'_>) -> color_eyre::Result<Exit> {
    let deadline = f.timeout.map(|t| Instant::now() + t);
    let mut lost: Option<Instant> = None;
    loop {
        let step = watch(client, &mut f, &mut lost);
        let result = match deadline {
            Some(at) => match tokio::time::timeout_at(at.into(), step).await {
                Ok(r) => r,
                Err(_) => {
                    complain(&format!("pilothouse: {} has not ended in time; it goes on\n", f.rollout));
                    return Ok(Exit::Waiting);
                }
            },
            None => step.await,
        };
        match result? {
            Some(exit) => return Ok(exit),
            None => {
                let since = *lost.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY {
                    complain(
                        "pilothouse: the controller is gone; the rollout goes on when one serves again\n",
                    );
                    return Ok(Exit::Failed);
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

/// One connection; `None` when it was lost.
async fn watch(
    client: &Client,
    f: &mut Following<'_>,
    lost: &mut Option<Instant>,
) -> color_eyre::Result<Option<Exit>> {
    let Ok(mut updates) = client.stream("deploy", false).await else { return Ok(None) };
    let mut snapshot = Snapshot::default();
    while let Some(update) = updates.next().await {
        let events = match update {
            Err(ClientError::Garbled { what, why }) => {
                complain(&format!("pilothouse: cannot read {what}: {why}\n"));
                return Ok(Some(Exit::Failed));
            }
            Err(_) => return Ok(None),
            Ok(Update::Snapshot(s)) => {
                *lost = None;
                snapshot = *s;
                snapshot.events.clone()
            }
            Ok(Update::Delta(d)) => {
                let events = d.changes.iter().filter_map(|c| match c {
                    Change::Event(e) => Some(e.clone()),
                    _ => None,
                });
                let events = events.collect();
                if !snapshot.apply(d) {
                    return Ok(None);
                }
                events
            }
        };
        let service = snapshot.services.iter().find(|s| s.name.as_str() == f.service);
        if let Some(r) = service.and_then(|s| s.rollout.as_ref())
            && f.next.as_deref() == Some(r.to.as_str())
        {
            f.next = None;
            f.rollout = r.id.clone();
        }
        for event in events {
            let ours = event.service.as_ref().is_some_and(|s| s.as_str() == f.service)
                && event.rollout.as_ref() == Some(&f.rollout);
            if ours && event.seq > f.after {
                f.after = event.seq;
                print(&event, f.output)?;
            }
        }
        let Some((service, r)) = service.and_then(|s| Some((s, s.rollout.as_ref()?))) else { continue };
        if r.id != f.rollout {
            complain(&format!("pilothouse: {} has ended, {} follows it\n", f.rollout, r.id));
            return Ok(Some(Exit::Failed));
        }
        if r.status.ended() && f.output == Output::Text {
            for line in special::downtimes(r).into_iter().chain(special::comparison(r)) {
                say(&format!("{line}\n"))?;
            }
        }
        if let Some(next) = f.next.as_ref().filter(|_| r.status.ended()) {
            if service.next.is_some() {
                continue;
            }
            complain(&format!(
                "pilothouse: {next} does not follow: {} is {}\n",
                f.rollout,
                r.status.as_str()
            ));
            return Ok(Some(Exit::Failed));
        }
        match r.status {
            RolloutStatus::Done if f.abort_wanted => return Ok(Some(Exit::Failed)),
            RolloutStatus::Done => return Ok(Some(Exit::Done)),
            RolloutStatus::Aborted if f.abort_wanted => return Ok(Some(Exit::Done)),
            RolloutStatus::Aborted => return Ok(Some(Exit::Aborted)),
            RolloutStatus::Failed => return Ok(Some(Exit::Failed)),
            RolloutStatus::Running
            | RolloutStatus::Paused
            | RolloutStatus::Frozen
            | RolloutStatus::Aborting => {}
        }
    }
    Ok(None)
}

/// Prints one event.
///
/// # Errors
/// When it cannot be written.
pub(super) fn print(event: &EventView, output: Output) -> color_eyre::Result<()> {
    match output {
        Output::Json => say_json(event),
        Output::Text => {
            let level = match event.level {
                Level::Info => "",
                Level::Warn => "warning: ",
                Level::Error => "ERROR: ",
            };
            let at = utc(event.at_ms);
            let time = at.split(' ').nth(1).unwrap_or(&at);
            say(&format!("{time} {level}{} ({})\n", event.text, event.by))
        }
    }
}
