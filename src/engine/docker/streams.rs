//! What comes by itself: log lines, CPU and memory, hints of change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder, StatsOptionsBuilder};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::observe::is_running;
use super::{Inner, LABEL_FLEET};
use crate::engine::lines::Splitter;
use crate::engine::{BoxStream, EngineError, LogLine, Usage};
use crate::fleet::names::FleetName;
use crate::text::Safe;

/// How often to look whether an ended container was started again, while its log is followed.
const AGAIN: Duration = Duration::from_secs(1);
/// How far back the first events may be: those between the caller's last look and the connection. dockerd's clock
/// is asked in whole seconds.
const BACK: u64 = 2;

fn receiving<T: Send + 'static>(mut receive: mpsc::Receiver<T>) -> BoxStream<T> {
    Box::pin(futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

pub(super) fn logs(
    inner: Arc<Inner>,
    container: String,
    tail: usize,
    follow: bool,
) -> Result<BoxStream<LogLine>, EngineError> {
    let docker = inner.client.docker()?.clone();
    let (send, receive) = mpsc::channel(256);
    tokio::spawn(async move {
        let options =
            |follow| LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true).follow(follow);
        let mut wanted = options(follow).tail(&tail.to_string()).build();
        loop {
            if copy_lines(docker.logs(&container, Some(wanted)), &send).await.is_break() || !follow {
                return;
            }
            // dockerd ends the stream with the process; the instance may be started again.
            let since = loop {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = send.closed() => return,
                }
                match inner.inspect_container(&container).await {
                    Ok(None) => return,
                    Ok(Some(found)) if is_running(&found) => {
                        break super::observe::started_ms(&found).map_or(0, |ms| ms / 1000);
                    }
                    // Stopped, or dockerd is away: the instance is not removed.
                    _ => {}
                }
            };
            let since = i32::try_from(since).unwrap_or(i32::MAX);
            wanted = options(true).since(since).build();
        }
    });
    Ok(receiving(receive))
}

async fn copy_lines(
    mut frames: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    send: &mpsc::Sender<LogLine>,
) -> std::ops::ControlFlow<()> {
    let (mut out, mut err) = (Splitter::default(), Splitter::default());
    let mut last = None;
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            () = send.closed() => return std::ops::ControlFlow::Break(()),
        };
        let mut lines = Vec::new();
        let ended = match frame {
            Some(Ok(LogOutput::StdErr { message })) => {
                let (at, text) = stamped(&message);
                last = at.or(last);
                err.feed(text, |l| lines.push(line(true, at, l)));
                false
            }
            Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                let (at, text) = stamped(&message);
                last = at.or(last);
                out.feed(text, |l| lines.push(line(false, at, l)));
                false
            }
            Some(Ok(LogOutput::StdIn { .. })) => false,
            Some(Err(_)) | None => {
                out.finish(|l| lines.push(line(false, last, l)));
                err.finish(|l| lines.push(line(true, last, l)));
                true
            }
        };
        for line in lines {
            if send.send(line).await.is_err() {
                return std::ops::ControlFlow::Break(());
            }
        }
        if ended {
            return std::ops::ControlFlow::Continue(());
        }
    }
}

fn line(stderr: bool, at_ms: Option<u64>, bytes: &[u8]) -> LogLine {
    LogLine { stderr, text: Safe::log(&String::from_utf8_lossy(bytes)), at_ms }
}

/// The time that dockerd writes before each piece, also before the later pieces of a line that was too long for one.
fn stamped(piece: &[u8]) -> (Option<u64>, &[u8]) {
    let at = piece.iter().take(40).position(|b| *b == b' ');
    let stamp = at.and_then(|at| std::str::from_utf8(piece.get(..at)?).ok());
    match stamp.and_then(super::observe::unix_ms).zip(at) {
        Some((ms, at)) => (Some(ms), piece.get(at + 1..).unwrap_or_default()),
        None => (None, piece),
    }
}

pub(super) fn usage(inner: &Inner, container: &str) -> Result<BoxStream<Usage>, EngineError> {
    let options = StatsOptionsBuilder::default().stream(true).build();
    let figures = inner.client.docker()?.stats(container, Some(options));
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut figures = std::pin::pin!(figures);
        let mut last: Option<(u64, u64)> = None;
        let mut n = 0_u32;
        loop {
            let figure = tokio::select! {
                figure = figures.next() => figure,
                () = send.closed() => return,
            };
            let Some(Ok(figure)) = figure else { return };
            // dockerd sends one a second; the first comes at once.
            n = n.wrapping_add(1);
            if n.is_multiple_of(2) {
                continue;
            }
            if let Some(usage) = usage_of(&figure, &mut last)
                && send.send(usage).await.is_err()
            {
                return;
            }
        }
    });
    Ok(receiving(receive))
}

/// `None` while the container does not run. `last` is (container, system) CPU time of the figure before.
fn usage_of(figure: &ContainerStatsResponse, last: &mut Option<(u64, u64)>) -> Option<Usage> {
    let cpu = figure.cpu_stats.as_ref()?;
    let (own, system) = (cpu.cpu_usage.as_ref()?.total_usage?, cpu.system_cpu_usage?);
    let cores = cpu.online_cpus.unwrap_or(1).max(1);
    let cpu_percent = match last.replace((own, system)) {
        Some((o, s)) if system > s => {
            // The system's time is that of all cores together.
            own.saturating_sub(o) as f32 / (system - s) as f32 * cores as f32 * 100.0
        }
        _ => 0.0,
    };
    let memory = figure.memory_stats.as_ref()?;
    let cache =
        memory.stats.as_ref().and_then(|s| s.get("inactive_file").or_else(|| s.get("total_inactive_file")));
    // Pages that only cache files are not what the instance needs.
    let memory_bytes = memory.usage?.saturating_sub(cache.copied().unwrap_or_default());
    Some(Usage { cpu_percent, memory_bytes })
}

pub(super) fn changes(inner: Arc<Inner>, fleet: &FleetName) -> Result<BoxStream<()>, EngineError> {
    let label = format!("{LABEL_FLEET}={fleet}");
    let filters = HashMap::from([
        ("label", vec![label.as_str()]),
        ("type", vec!["container"]),
        ("event", vec!["create", "start", "die", "oom", "destroy", "health_status", "pause", "unpause"]),
    ]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = now.saturating_sub(BACK).to_string();
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    let events = inner.client.docker()?.events(Some(options));
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = send.closed() => return,
            };
            let Some(Ok(event)) = event else { return };
            if let Some(container) = event.actor.and_then(|a| a.id) {
                inner.cache().forget(&container);
            }
            // A hint that nobody has taken yet says the same.
            if let Err(mpsc::error::TrySendError::Closed(())) = send.try_send(()) {
                return;
            }
        }
    });
    Ok(receiving(receive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dockerd_puts_before_a_piece_is_its_time_and_nothing_else_is_taken_away() {
        let piece = b"1970-01-01T00:00:02.345678901Z  two\n";
        assert_eq!(stamped(piece), (Some(2345), b" two\n".as_slice()));
        for other in ["no time here\n", "", "1970-01-01T00:00:02.3Zx y", "2026-13-01T00:00:00Z x"] {
            assert_eq!(stamped(other.as_bytes()), (None, other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn cpu_is_in_per_cent_of_one_core_and_memory_without_cache() {
        let figure = |own: u64, system: u64| -> ContainerStatsResponse {
            serde_json::from_value(serde_json::json!({
                "cpu_stats": {"cpu_usage": {"total_usage": own}, "system_cpu_usage": system, "online_cpus": 2},
                "memory_stats": {"usage": 5000, "stats": {"inactive_file": 1000}}
            }))
            .unwrap()
        };
        let mut last = None;
        assert_eq!(usage_of(&figure(0, 0), &mut last).unwrap().cpu_percent, 0.0);
        // One second of two cores, of which the container had one whole core.
        let usage = usage_of(&figure(1_000_000_000, 2_000_000_000), &mut last).unwrap();
        assert!((usage.cpu_percent - 100.0).abs() < 0.01, "{usage:?}");
        assert_eq!(usage.memory_bytes, 4000);
        assert_eq!(usage_of(&ContainerStatsResponse::default(), &mut last), None);
    }
}
