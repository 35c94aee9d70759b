//! nginx's processes, as the kernel shows them: which workers take connections, and which only finish what they have.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::proxy::processes;

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    /// Its process.
    pub(super) pid: u32,
    /// The same process as it numbers itself: in a container, another number.
    pub(super) own: u32,
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
    if is_master(pid) {
        Ok(pid)
    } else {
        Err(format!("process {pid} of {} is no nginx master; does nginx run?", pid_file.display()))
    }
}

/// Whether a process is a master.
pub(super) fn is_master(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"nginx: master")
}

/// The master among a process and its descendants: the first process of a container may be one that only starts others.
pub(super) fn master_under(first: u32) -> Option<u32> {
    if is_master(first) {
        return Some(first);
    }
    processes::with_descendants(first).into_iter().find(|pid| is_master(*pid))
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
    Ok(processes::children(master)?.into_iter().filter_map(worker).collect())
}

fn worker(pid: u32) -> Option<Worker> {
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title);
    let state = title.strip_prefix("nginx: worker process")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
    let uid = line("Uid:")?.split_ascii_whitespace().nth(1)?;
    // One number for each nested namespace; the innermost, its own, is the last.
    let own = line("NSpid:").and_then(|l| l.split_ascii_whitespace().last()?.parse().ok());
    Some(Worker {
        pid,
        own: own.unwrap_or(pid),
        started: processes::started(pid)?,
        leaving: state.contains("shutting down"),
        uid: uid.parse().ok()?,
    })
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
        assert!(workers(std::process::id()).unwrap().is_empty());
        assert_eq!(master_under(std::process::id()), None);
    }
}
