//! What a fleet file cannot say and the machine it is used on can: ports that outgoing connections take.

use std::net::{IpAddr, UdpSocket};

use super::ctx::Ctx;
use super::hosts::Declared;
use super::model::Host;
use super::names::HostName;
use super::service::Draft;

/// Where Linux says which ports it gives to outgoing connections, of IPv6 too.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The machine that a fleet file is read on. The default knows nothing, and nothing is said about it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// First and last port that outgoing connections are given.
    pub outgoing: Option<(u16, u16)>,
}

impl Machine {
    /// The one this runs on.
    #[must_use]
    pub fn this() -> Self {
        Self { outgoing: std::fs::read_to_string(RANGE).ok().and_then(|text| range(&text)) }
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) if first <= last => Some((first, last)),
        _ => None,
    }
}

/// Whether outgoing connections of this machine may have `address` as their own.
fn is_here(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// Warns of ports that an outgoing connection may hold at the moment an instance is to listen there.
pub(super) fn check(
    ctx: &mut Ctx<'_>,
    machine: &Machine,
    hosts: &Declared<HostName, Host>,
    services: &[Draft],
) {
    let Some((low, high)) = machine.outgoing else { return };
    for draft in services {
        let Some(span) = &draft.range else { continue };
        let (first, last) = draft.service.host_ports;
        let placed = draft.service.placement.keys().filter_map(|name| hosts.items.get(name));
        let here = placed.map(|h| &h.value).find(|h| !h.out && is_here(h.address));
        let Some(host) = here.filter(|_| first <= high && low <= last) else { continue };
        let message = format!(
            "host_ports {first}-{last} lie among {low}-{high}, the ports that this machine gives to outgoing \
             connections: one of those may hold a port of {} when an instance is to start",
            host.name
        );
        let below = u32::from(low).checked_sub(u32::from(last) - u32::from(first) + 1).filter(|p| *p >= 1024);
        let fix = match below {
            Some(first) => {
                format!("write host_ports = \"{first}-{}\", or another range below {low}", low - 1)
            }
            None => format!("write a range outside of {low}-{high}"),
        };
        ctx.warn(span, &message, &fix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_read_and_nothing_else_is() {
        assert_eq!(range("32768\t60999\n"), Some((32_768, 60_999)));
        for bad in ["", "32768", "60999 32768", "1 2 3", "a b", "1 70000"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
