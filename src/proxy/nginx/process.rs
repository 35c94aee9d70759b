//! nginx's processes, as the kernel shows them: which workers take connections, which only finish what they have, and how
//! many connections they have to an instance.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

/// Connections that processes of `uid` have or open, in the network of process `pid`, by the address at the far end.
pub(super) fn connections(pid: u32, uid: u32) -> io::Result<BTreeMap<SocketAddr, u32>> {
    let mut out = BTreeMap::new();
    for family in ["tcp", "tcp6"] {
        let text = match fs::read_to_string(format!("/proc/{pid}/net/{family}")) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound && family == "tcp6" => continue,
            Err(e) => return Err(e),
        };
        for far in text.lines().skip(1).filter_map(|line| connection(line, uid)) {
            *out.entry(far).or_default() += 1;
        }
    }
    Ok(out)
}

/// The far end of a line of `/proc/net/tcp`, when it is a connection of `uid` that stands or is being opened.
fn connection(line: &str, uid: u32) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    let far = words.nth(2)?;
    let state = words.next()?;
    let whose: u32 = words.nth(3)?.parse().ok()?;
    (matches!(state, "01" | "02") && whose == uid).then(|| address(far)).flatten()
}

/// `0100007F:1F90`: each four bytes of the address as a number of this machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            "   1: 0100007F:B2E4 0200007F:1F90 01 00000000:00000000 00:00000000 00000000    33        0 1 1";
        assert_eq!(connection(line, 33), "127.0.0.2:8080".parse().ok());
        assert_eq!(connection(line, 34), None);
        assert_eq!(connection(&line.replace(" 01 ", " 06 "), 33), None, "it is over");
        assert_eq!(connection(&line.replace("0200007F", "x"), 33), None);
        assert_eq!(address("0000000000000000FFFF00000100007F:0050"), "127.0.0.1:80".parse().ok());
        assert_eq!(address("00000000000000000000000001000000:0050"), "[::1]:80".parse().ok());
    }

    #[test]
    fn own_connections_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (me, uid) = (std::process::id(), rustix::process::getuid().as_raw());
        let count = || connections(me, uid).unwrap().get(&addr).copied().unwrap_or(0);
        let open = [(); 2].map(|()| std::net::TcpStream::connect(addr).unwrap());
        assert_eq!(count(), 2);
        assert_eq!(connections(me, uid + 1).unwrap().get(&addr), None);
        drop(open);
        assert_eq!(count(), 0);
    }

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
