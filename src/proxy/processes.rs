//! Processes of this machine, as the kernel shows them.

use std::fs;
use std::io;

/// The parent of a process; `None` when it has ended.
pub(super) fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|(parent, _)| parent)
}

/// When a process was started, in ticks (10 ms) since boot: with its number, its identity. `None` when it has ended.
pub(super) fn started(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, started)| started)
}

/// The processes that a process has started and that still run.
pub(super) fn children(parent: u32) -> io::Result<Vec<u32>> {
    let mut out = Vec::new();
    // Each thread has its own.
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        match fs::read_to_string(thread?.path().join("children")) {
            Ok(text) => out.extend(text.split_ascii_whitespace().filter_map(|p| p.parse::<u32>().ok())),
            // Not every kernel lists children; or the thread has ended.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return among_all(parent),
            Err(e) => return Err(e),
        }
    }
    Ok(out)
}

fn among_all(parent: u32) -> io::Result<Vec<u32>> {
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if self::parent(pid) == Some(parent) {
            out.push(pid);
        }
    }
    Ok(out)
}

/// A process, and those that it and they have started, nearest first.
pub(super) fn with_descendants(first: u32) -> Vec<u32> {
    let mut out = vec![first];
    let mut some = vec![first];
    // Bounded: what is looked at changes meanwhile.
    for _ in 0..8 {
        some = some.into_iter().flat_map(|pid| children(pid).unwrap_or_default()).collect();
        out.extend(&some);
    }
    out
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
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn families_are_seen() {
        let me = std::process::id();
        let shell = Command::new("sh").args(["-c", "sleep 60 & wait"]).stdin(Stdio::null()).spawn();
        let mut shell = shell.unwrap();
        assert!(started(me).unwrap() > 0);
        assert_eq!(parent(shell.id()), Some(me));
        assert!(children(me).unwrap().contains(&shell.id()) && among_all(me).unwrap().contains(&shell.id()));
        let family = loop {
            let family = with_descendants(shell.id());
            if family.len() > 1 {
                break family;
            }
            std::thread::yield_now();
        };
        assert_eq!((family.len(), family[0]), (2, shell.id()));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(family[1]).unwrap()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        shell.wait().unwrap();
        assert_eq!((parent(shell.id()), started(shell.id())), (None, None));
    }
}
