//! CPU and memory of an instance, out of `/proc`.

use std::fs;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::files::{InstanceDir, Phase, Proc, proc_stat};
use crate::engine::{BoxStream, Usage};

/// From one figure to the next.
const EVERY: Duration = Duration::from_secs(2);
/// Clock ticks a second in `/proc/PID/stat`: fixed for user space on Linux, whatever the kernel's own rate.
const TICKS: f32 = 100.0;

/// A figure about every two seconds, until the directory is gone. Nothing comes while no process runs.
pub(super) fn watch(dir: InstanceDir) -> BoxStream<Usage> {
    let (send, mut receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut last: Option<(Proc, u64, Instant)> = None;
        while dir.path.exists() {
            let child = dir.status().ok().filter(|s| s.phase == Phase::Running).and_then(|s| s.child);
            let now = Instant::now();
            let stat = child.and_then(|c| proc_stat(c.pid).filter(|s| s.start == c.start).map(|s| (c, s)));
            if let Some((child, stat)) = stat {
                let cpu_percent = match last {
                    Some((before, cpu, at)) if before == child => {
                        let ticks = stat.cpu.saturating_sub(cpu) as f32;
                        let seconds = now.duration_since(at).as_secs_f32();
                        if seconds > 0.0 { ticks / TICKS / seconds * 100.0 } else { 0.0 }
                    }
                    _ => 0.0,
                };
                last = Some((child, stat.cpu, now));
                let usage = Usage { cpu_percent, memory_bytes: resident(child.pid).unwrap_or_default() };
                if send.send(usage).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = send.closed() => return,
            }
        }
    });
    Box::pin(futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_read() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(resident(me).unwrap() > 100_000);
    }
}
