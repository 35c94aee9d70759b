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
    for entry in entries(pid, &[ESTABLISHED, SYN_SENT])? {
        let counts = match whose {
            Whose::User(user) => entry.uid == *user,
            Whose::Sockets(sockets) => sockets.contains(&u64::from(entry.inode)),
        };
        if counts {
            *out.entry(entry.far).or_default() += 1;
        }
    }
    Ok(out)
}

/// The user whose process listens at an address in this process's network; `None` when nobody does.
pub(super) fn listener(addr: SocketAddr) -> io::Result<Option<u32>> {
    let at = |e: &Entry| {
        e.near.port() == addr.port() && (e.near.ip() == addr.ip() || e.near.ip().is_unspecified())
    };
    Ok(entries(std::process::id(), &[LISTEN])?.into_iter().find(at).map(|e| e.uid))
}

/// States of a TCP socket, as the kernel numbers them (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    near: SocketAddr,
    far: SocketAddr,
    state: u8,
    uid: u32,
    inode: u32,
}

/// The sockets in these states, in the network of process `pid`.
///
/// The kernel is asked for these states alone where that can be: a machine that serves has thousands of sockets that are
/// over and wait. Of 15,000 such, on a busy machine, the lines took 0.2 to 1.0 s and the answer 0.08 to 0.1 s.
fn entries(pid: u32, states: &[u8]) -> io::Result<Vec<Entry>> {
    let network = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).ok();
    let ours = network("self");
    if ours.is_some()
        && ours == network(&pid.to_string())
        && let Ok(found) = diag::ask(states)
    {
        return Ok(found);
    }
    let text = table(pid)?;
    Ok(text.lines().filter_map(entry).filter(|e| states.contains(&e.state)).collect())
}

/// The kernel's lines for a process's network.
fn table(pid: u32) -> io::Result<String> {
    let mut out = String::new();
    for family in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{family}")) {
            Ok(text) => out.push_str(&text),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound && family == "tcp6" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(out)
}

/// A line of `/proc/net/tcp`.
fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let near = address(words.nth(1)?)?;
    let far = address(words.next()?)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let uid = words.nth(3)?.parse().ok()?;
    Some(Entry { near, far, state, uid, inode: words.nth(1)?.parse().ok()? })
}

/// The kernel's answers about sockets: netlink, `sock_diag(7)`.
mod diag {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::Duration;

    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    };

    use super::Entry;

    const IPV4: u8 = 2;
    const IPV6: u8 = 10;
    const TCP: u8 = 6;
    /// `SOCK_DIAG_BY_FAMILY`, and `NLM_F_REQUEST | NLM_F_DUMP`.
    const BY_FAMILY: u16 = 20;
    const DUMP: u16 = 0x301;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    /// The kernel answers at once, or not at all.
    const DEADLINE: Duration = Duration::from_secs(2);

    /// The TCP sockets of this process's network that are in these states.
    pub(super) fn ask(states: &[u8]) -> io::Result<Vec<Entry>> {
        let wanted = states.iter().fold(0_u32, |all, state| all | 1 << state);
        let mut out = Vec::new();
        for family in [IPV4, IPV6] {
            // A kernel that has no such family says so, and there is nothing in it.
            let fd = socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                Some(netlink::SOCK_DIAG),
            )?;
            set_socket_timeout(&fd, Timeout::Recv, Some(DEADLINE))?;
            send(&fd, &question(family, wanted), SendFlags::empty())?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                let (n, _) = recv(&fd, &mut buffer[..], RecvFlags::empty())?;
                if !messages(buffer.get(..n).unwrap_or_default(), &mut out)? {
                    break;
                }
            }
        }
        Ok(out)
    }

    /// `struct nlmsghdr` and `struct inet_diag_req_v2`.
    fn question(family: u8, states: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(72);
        out.extend(72_u32.to_ne_bytes());
        out.extend(BY_FAMILY.to_ne_bytes());
        out.extend(DUMP.to_ne_bytes());
        out.extend(1_u32.to_ne_bytes());
        out.extend(0_u32.to_ne_bytes());
        out.extend([family, TCP, 0, 0]);
        out.extend(states.to_ne_bytes());
        out.resize(72, 0);
        out
    }

    /// Reads what came in one piece; whether more is to come.
    pub(super) fn messages(mut bytes: &[u8], out: &mut Vec<Entry>) -> io::Result<bool> {
        while let Some(length) = word(bytes, 0).map(|n| n as usize).filter(|n| (16..=bytes.len()).contains(n))
        {
            match half(bytes, 4) {
                Some(DONE) => return Ok(false),
                Some(ERROR) => return Err(io::Error::other("the kernel refuses to tell of sockets")),
                _ => out.extend(bytes.get(16..length).and_then(entry)),
            }
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(true)
    }

    /// `struct inet_diag_msg`.
    fn entry(m: &[u8]) -> Option<Entry> {
        let port = |at: usize| Some(u16::from_be_bytes(m.get(at..at + 2)?.try_into().ok()?));
        let ip = |at: usize| match *m.first()? {
            IPV4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(m.get(at..at + 4)?).ok()?))),
            _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(m.get(at..at + 16)?).ok()?).to_canonical()),
        };
        Some(Entry {
            near: SocketAddr::new(ip(8)?, port(4)?),
            far: SocketAddr::new(ip(24)?, port(6)?),
            state: *m.get(1)?,
            uid: word(m, 64)?,
            inode: word(m, 68)?,
        })
    }

    fn word(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn half(bytes: &[u8], at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    }
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
        let (near, far) = ("127.0.0.1:45796".parse().unwrap(), "127.0.0.2:8080".parse().unwrap());
        assert_eq!(entry(line), Some(Entry { near, far, state: ESTABLISHED, uid: 33, inode: 4711 }));
        assert_eq!(entry(&line.replace(" 01 ", " 06 ")).unwrap().state, 6, "it is over");
        assert_eq!(entry(&line.replace("0200007F", "x")), None);
        assert_eq!((inode("socket:[4711]"), inode("pipe:[4711]")), (Some(4711), None));
        assert_eq!(address("0000000000000000FFFF00000100007F:0050"), "127.0.0.1:80".parse().ok());
        assert_eq!(address("00000000000000000000000001000000:0050"), "[::1]:80".parse().ok());
    }

    /// Both ways of asking say the same of sockets that do not change.
    #[test]
    fn the_kernel_says_the_same_in_both_ways() {
        let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
        let also = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let places = [listener.local_addr().unwrap(), also.local_addr().unwrap()];
        let open = places.map(|at| std::net::TcpStream::connect(at).unwrap());
        let mut ours: Vec<SocketAddr> = open.iter().map(|s| s.local_addr().unwrap()).collect();
        ours.extend(places);
        let of = |mut all: Vec<Entry>| {
            all.retain(|e| ours.contains(&e.near) && (e.state == LISTEN || ours.contains(&e.far)));
            all.sort_by_key(|e| (e.near, e.far));
            all
        };
        let text = of(table(std::process::id()).unwrap().lines().filter_map(entry).collect());
        // Two that listen, and both ends of two that are open; of those that nobody has accepted yet the inode is 0.
        assert_eq!(text.len(), 6, "{text:?}");
        assert_eq!(of(diag::ask(&[ESTABLISHED, SYN_SENT, LISTEN]).unwrap()), text);
        assert_eq!(diag::ask(&[LISTEN]).unwrap().iter().find(|e| e.state != LISTEN), None);
    }

    #[test]
    fn nonsense_of_the_kernel_is_no_socket() {
        let mut out = Vec::new();
        assert!(diag::messages(&[], &mut out).unwrap());
        assert!(diag::messages(&[255; 64], &mut out).unwrap(), "longer than what there is");
        assert!(diag::messages(&[0; 64], &mut out).unwrap(), "shorter than its own head");
        let message = |kind: u16, body: usize| {
            let length = u32::try_from(16 + body).unwrap().to_ne_bytes();
            [&length[..], &kind.to_ne_bytes(), &[0; 10], &vec![2; body]].concat()
        };
        assert!(diag::messages(&message(20, 8), &mut out).unwrap() && out.is_empty(), "cut off");
        assert!(diag::messages(&message(20, 72), &mut out).unwrap());
        assert_eq!(out.len(), 1);
        assert!(!diag::messages(&[message(3, 4), message(20, 72)].concat(), &mut out).unwrap());
        assert!(diag::messages(&message(2, 20), &mut out).is_err());
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
