//! Connections, as the kernel lists them: who listens at an address, and how many a proxy has to an instance where it does
//! not tell itself what is in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::processes;

/// Whose connections are counted.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// Those of every process of this user.
    User(u32),
    /// Those of one process: the sockets it has open, by inode.
    Sockets(BTreeSet<u64>),
}

/// The sockets that a process has open; the user it runs as where that may not be looked at.
pub(super) fn of_process(pid: u32) -> io::Result<Whose> {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => {
            let links = entries.flatten().filter_map(|e| fs::read_link(e.path()).ok());
            Ok(Whose::Sockets(links.filter_map(|to| inode(to.to_str()?)).collect()))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let uids = status.lines().find_map(|l| l.strip_prefix("Uid:"));
            let uid = uids.and_then(|u| u.split_ascii_whitespace().nth(1)).and_then(|u| u.parse().ok());
            uid.map(Whose::User)
                .ok_or_else(|| io::Error::other("the kernel does not say whose process it is"))
        }
        Err(e) => Err(e),
    }
}

/// Those of a process and of all that it has started: whoever they run as.
pub(super) fn of_family(first: u32) -> io::Result<Whose> {
    let mut all = BTreeSet::new();
    for pid in processes::with_descendants(first) {
        match of_process(pid) {
            Ok(Whose::Sockets(some)) => all.extend(some),
            Ok(user) => return Ok(user),
            Err(e) if e.kind() == io::ErrorKind::NotFound && pid != first => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Whose::Sockets(all))
}

/// `socket:[4711]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Connections that are open or being opened, in the network of process `pid`, by the address at the far end.
pub(super) fn connections(pid: u32, whose: &Whose) -> io::Result<BTreeMap<SocketAddr, u32>> {
    let mut out = BTreeMap::new();
    let text = table(&pid.to_string())?;
    for far in text.lines().filter_map(|line| connection(line, whose)) {
        *out.entry(far).or_default() += 1;
    }
    Ok(out)
}

/// The user whose process listens at an address in this process's network; `None` when nobody does.
pub(super) fn listener(addr: SocketAddr) -> io::Result<Option<u32>> {
    let text = table("self")?;
    let found = text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let near = address(words.nth(1)?)?;
        let listens = words.nth(1)? == "0A";
        let uid = words.nth(3)?.parse().ok()?;
        (listens && near.port() == addr.port() && (near.ip() == addr.ip() || near.ip().is_unspecified()))
            .then_some(uid)
    });
    Ok(found)
}

/// The kernel's lines for a process's network.
fn table(process: &str) -> io::Result<String> {
    let mut out = String::new();
    for family in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{process}/net/{family}")) {
            Ok(text) => out.push_str(&text),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound && family == "tcp6" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(out)
}

/// The far end of a line of `/proc/net/tcp`, when it is one of these connections and stands or is being opened.
fn connection(line: &str, whose: &Whose) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    let far = words.nth(2)?;
    let state = words.next()?;
    let uid: u32 = words.nth(3)?.parse().ok()?;
    let inode: u64 = words.nth(1)?.parse().ok()?;
    let counts = match whose {
        Whose::User(user) => uid == *user,
        Whose::Sockets(sockets) => sockets.contains(&inode),
    };
    (matches!(state, "01" | "02") && counts).then(|| address(far)).flatten()
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
        let line = "   1: 0100007F:B2E4 0200007F:1F90 01 00000000:00000000 00:00000000 00000000    33        0 4711 1";
        assert_eq!(connection(line, &Whose::User(33)), "127.0.0.2:8080".parse().ok());
        assert_eq!(connection(line, &Whose::User(34)), None);
        assert!(connection(line, &Whose::Sockets([4711].into())).is_some());
        assert_eq!(connection(line, &Whose::Sockets([4712].into())), None);
        assert_eq!((inode("socket:[4711]"), inode("pipe:[4711]")), (Some(4711), None));
        assert_eq!(connection(&line.replace(" 01 ", " 06 "), &Whose::User(33)), None, "it is over");
        assert_eq!(connection(&line.replace("0200007F", "x"), &Whose::User(33)), None);
        assert_eq!(address("0000000000000000FFFF00000100007F:0050"), "127.0.0.1:80".parse().ok());
        assert_eq!(address("00000000000000000000000001000000:0050"), "[::1]:80".parse().ok());
    }

    #[test]
    fn own_connections_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (me, uid) = (std::process::id(), rustix::process::getuid().as_raw());
        let count = |whose: &Whose| connections(me, whose).unwrap().get(&addr).copied().unwrap_or(0);
        let open = [(); 2].map(|()| std::net::TcpStream::connect(addr).unwrap());
        assert_eq!(count(&Whose::User(uid)), 2);
        assert_eq!(count(&Whose::User(uid + 1)), 0);
        assert_eq!(count(&of_process(me).unwrap()), 2);
        assert_eq!(self::listener(addr).unwrap(), Some(uid));
        assert_eq!(count(&Whose::Sockets(BTreeSet::new())), 0);
        drop(open);
        assert_eq!(count(&Whose::User(uid)), 0);
    }
}
