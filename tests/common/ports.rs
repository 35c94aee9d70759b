//! Ports for servers that are started a moment later.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// A loopback port that nobody uses just now, for TCP and UDP alike. Below those that the kernel hands out by itself: a
/// proxy of another test, connecting somewhere or sending log lines, would have it before the server that it is for.
pub fn free_port() -> u16 {
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 10_000 + u16::from_le_bytes(random) % 10_000;
        let here = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(here).is_ok() && UdpSocket::bind(here).is_ok() {
            return port;
        }
    }
}
