//! Connections, as the kernel lists them: who listens at an address, and how many connections a user's processes have to
//! an instance.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Connections that processes of `uid` have or open, in the network of process `pid`, by the address at the far end.
pub(super) fn connections(pid: u32, uid: u32) -> io::Result<BTreeMap<SocketAddr, u32>> {
    let mut out = BTreeMap::new();
    let text = table(&pid.to_string())?;
    for far in text.lines().filter_map(|line| connection(line, uid)) {
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
        assert_eq!(self::listener(addr).unwrap(), Some(uid));
        assert_eq!(connections(me, uid + 1).unwrap().get(&addr), None);
        drop(open);
        assert_eq!(count(), 0);
    }
}
