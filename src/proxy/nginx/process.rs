//! nginx's processes, as the kernel shows them: which workers take connections, and which only finish what they have.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    /// Its process.
    pub(super) pid: u32,
    /// When it was started, in the kernel's ticks (10 ms) since boot: with the pid, its identity.
    pub(super) started: u64,
    /// Whether it takes no new connections: it finishes what it has and ends.
    pub(super) leaving: bool,
    /// The user it runs as.
    pub(super) uid: u32,
}

/// The master's process, from the file that nginx leaves.
pub(super) fn master(pid_file: &Path) -> Result<u32, String> {
    let text = fs::read_to_string(pid_file)
        .map_err(|e| format!("cannot read {}: {e}; does nginx run?", pid_file.display()))?;
    let pid = text.trim().parse().map_err(|_e| format!("{} holds no process id", pid_file.display()))?;
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if title.starts_with(b"nginx: master") {
        Ok(pid)
    } else {
        Err(format!("process {pid} of {} is no nginx master; does nginx run?", pid_file.display()))
    }
}

/// The parent of a process; `None` when it has ended.
pub(super) fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|(parent, _)| parent)
}

/// Tells the master to load its configuration.
pub(super) fn reload(master: u32) -> Result<(), String> {
    let pid = i32::try_from(master).ok().and_then(Pid::from_raw);
    pid.ok_or(rustix::io::Errno::SRCH).and_then(|pid| kill_process(pid, Signal::HUP)).map_err(|e| {
        format!(
            "cannot signal nginx's master, process {master}: {e}; the controller needs the right to do so"
        )
    })
}

/// The workers of a master. What is not a worker (a cache manager, say) is left out, and so is one that ends meanwhile.
pub(super) fn workers(master: u32) -> io::Result<Vec<Worker>> {
    let path = format!("/proc/{master}/task/{master}/children");
    let children = match fs::read_to_string(&path) {
        Ok(text) => text.split_ascii_whitespace().filter_map(|p| p.parse().ok()).collect(),
        // Not every kernel lists children.
        Err(e) if e.kind() == io::ErrorKind::NotFound => children(master)?,
        Err(e) => return Err(e),
    };
    Ok(children.into_iter().filter_map(worker).collect())
}

fn children(master: u32) -> io::Result<Vec<u32>> {
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if stat(pid).is_some_and(|(parent, _)| parent == master) {
            out.push(pid);
        }
    }
    Ok(out)
}

fn worker(pid: u32) -> Option<Worker> {
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title);
    let state = title.strip_prefix("nginx: worker process")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?;
    Some(Worker {
        pid,
        started: stat(pid)?.1,
        leaving: state.contains("shutting down"),
        uid: uid.parse().ok()?,
    })
}

/// The parent of a process, and when it was started.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state, parent, ..., start (the 22nd of all).
    let mut rest = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    let parent = rest.nth(1)?.parse().ok()?;
    Some((parent, rest.nth(17)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_master_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        assert!(master(&file).unwrap_err().contains("does nginx run?"));
        fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        assert!(master(&file).unwrap_err().contains("is no nginx master"));
        fs::write(&file, "x").unwrap();
        assert!(master(&file).unwrap_err().contains("holds no process id"));
        let (parent, started) = stat(std::process::id()).unwrap();
        assert!(parent > 0 && started > 0);
        assert!(workers(std::process::id()).unwrap().is_empty());
    }
}
