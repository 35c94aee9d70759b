//! Requests out of nginx's log lines, because the server counts nothing per upstream server.
//!
//! What Pilothouse writes for nginx sends a line per request to the address in the fleet file:
//! ```text
//! ph GENERATION STATUS CLIENT [UPSTREAM_ADDR] [UPSTREAM_STATUS] [UPSTREAM_RESPONSE_TIME]
//! ```
//! The generation says which configuration served it, and so whose an address was. nginx tried the addresses in turn
//! (`, ` between them, ` : ` where it began anew); the last of ours answered, the ones before it failed and were hidden from
//! the client. An answer that is cut off in its middle looks like a whole one here. Only loopback is listened to; a line
//! that is none of ours is left out. Datagrams can be lost: counts are those of the lines that came, and [`super::loss`] tells
//! how many did not.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::Counters;
use super::log_socket::{Lines, Listener, LogSocket};
use super::loss::{LogLoss, Taken};
use crate::fleet::names::InstanceId;

/// A client that went away before the answer.
const CLIENT_CLOSED: u16 = 499;

/// One request, as its log line tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The configuration that served it.
    pub generation: &'a str,
    /// Status sent to the client.
    pub status: u16,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// What was tried, in turn.
    pub tried: Vec<Attempt>,
}

/// One attempt to have a request answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where; `None` for what is no address (an upstream none of whose servers was tried).
    pub addr: Option<SocketAddr>,
    /// What came back; `None` when nothing did.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
}

/// What comes after the `ph ` of a line and a syslog header before it; `None` for a line that has none.
fn after_mark(line: &str) -> Option<&str> {
    let at = if line.starts_with("ph ") { 0 } else { line.find(" ph ")? + 1 };
    line.get(at..)?.strip_prefix("ph ")
}

/// Reads one line; a syslog header before the `ph` is skipped. `None` for anything else.
#[must_use]
pub fn parse(line: &str) -> Option<LogLine<'_>> {
    let rest = after_mark(line)?;
    let (head, lists) = rest.split_once(" [")?;
    let mut words = head.split(' ');
    let (generation, status, client) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let mut lists = lists.strip_suffix(']')?.split("] [");
    let (addresses, mut statuses) = (list(lists.next()?), list(lists.next()?));
    let mut times = list(lists.next()?);
    let tried = addresses.map(|addr| Attempt {
        addr: addr.parse().ok(),
        status: statuses.next().and_then(|s| s.parse().ok()),
        took_ms: times.next().and_then(ms),
    });
    let tried = tried.collect();
    Some(LogLine { generation, status, client: client.parse().ok(), tried })
}

/// The parts of one of nginx's lists.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(", ").flat_map(|t| t.split(" : ")).map(str::trim)
}

/// `0.012` seconds.
fn ms(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.')?;
    let part: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

/// Nobody knows what a generation routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten;

/// Says which instance had an address in a generation; `None` for an address that is none of ours.
pub type Whose = Box<dyn Fn(&str, SocketAddr) -> Result<Option<InstanceId>, Forgotten> + Send>;

struct Seen {
    whose: Whose,
    counted: BTreeMap<InstanceId, Counters>,
}

/// Listens until dropped and counts requests per instance.
pub struct LogListener(LogSocket<Seen>);

impl LogListener {
    /// Binds `addr` and starts to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is not a loopback one, or is taken.
    pub fn bind(addr: SocketAddr, whose: Whose) -> io::Result<Self> {
        LogSocket::bind(addr, Seen { whose, counted: BTreeMap::new() }).map(Self)
    }

    /// What was counted so far, per instance.
    #[must_use]
    pub fn counted(&self) -> BTreeMap<InstanceId, Counters> {
        self.0.seen().counted.clone()
    }

    /// Forgets instances that nobody asks for any more.
    pub fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.0.seen().counted.retain(|id, _| !gone(id));
    }
}

impl Listener for LogListener {
    fn loss(&self) -> LogLoss {
        self.0.loss()
    }
}

impl Lines for Seen {
    fn take(&mut self, line: &str, trusted: bool) -> Taken {
        if !trusted || after_mark(line).is_none() {
            return Taken::Other;
        }
        let Some(l) = parse(line) else { return Taken::Unread };
        // What else the operator's configuration asks (a page for errors, say) is none of ours; who answered is judged by
        // its own answer, whatever is made of it for the client.
        let mut ours: Vec<(InstanceId, Attempt)> = Vec::new();
        for t in &l.tried {
            match t.addr.map(|addr| (self.whose)(l.generation, addr)) {
                Some(Ok(Some(id))) => ours.push((id, *t)),
                Some(Err(Forgotten)) => return Taken::Unread,
                Some(Ok(None)) | None => {}
            }
        }
        let Some(((id, last), before)) = ours.split_last() else { return Taken::Other };
        for (id, _) in before {
            self.counted.entry(id.clone()).or_default().retries += 1;
        }
        let c = self.counted.entry(id.clone()).or_default();
        c.requests += 1;
        let failed = last.status.unwrap_or(l.status) >= 500;
        c.errors += u64::from(failed);
        // A client that hung up says nothing about the server.
        if l.status == CLIENT_CLOSED {
            return Taken::Counted;
        }
        if let Some(took) = last.took_ms {
            c.latency.record(took.saturating_mul(1000));
        }
        if let Some(client) = l.client {
            c.count_client(client, failed);
        }
        Taken::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of generations `g` and `h`, whose instances have the ports 1 to 9.
    fn seen() -> Seen {
        let whose = |generation: &str, addr: SocketAddr| {
            if !["g", "h"].contains(&generation) {
                return Err(Forgotten);
            }
            let (service, revision) = ("web".parse().unwrap(), "0000001a".parse().unwrap());
            Ok((addr.port() < 10).then(|| InstanceId::of(&service, &revision, u32::from(addr.port()))))
        };
        Seen { whose: Box::new(whose), counted: BTreeMap::new() }
    }

    const PLAIN: &str = "ph 1a2b 200 10.0.0.9 [127.0.0.1:9001] [200] [0.012]";

    #[test]
    fn lines_are_read_with_and_without_a_syslog_header() {
        let l = parse(PLAIN).unwrap();
        let attempt = Attempt { addr: "127.0.0.1:9001".parse().ok(), status: Some(200), took_ms: Some(12) };
        assert_eq!((l.generation, l.status), ("1a2b", 200));
        assert_eq!((l.client, l.tried), ("10.0.0.9".parse().ok(), vec![attempt]));
        let header = "<190>Nov 22 06:21:43 ph: ";
        let l = parse("<190>Nov 22 06:21:43 ph: ph 1 502 unix: [[::1]:9, 127.0.0.1:8 : 127.0.0.1:7] [502, - : 200] [0.001, - : 2.5]").unwrap();
        assert_eq!((l.tried.len(), l.client, l.tried[2].took_ms), (3, None, Some(2500)));
        assert_eq!((l.tried[1].status, l.tried[1].took_ms), (None, None));
        assert_eq!(parse(&format!("{header}{PLAIN}")), parse(PLAIN));
    }

    #[test]
    fn other_lines_are_left_out_and_those_of_ours_that_say_nothing_are_told() {
        let mut seen = seen();
        let others = [
            "",
            "ph",
            "\u{1b}[2J",
            "ph 1 200 - [-] [-] [-]",
            "ph g 503 - [unix:/run/x] [503] [0.000]",
            "ph g 200 - [127.0.0.1:10] [200] [0.000]",
        ];
        for line in others {
            assert_eq!(seen.take(line, true), Taken::Other, "{line}");
        }
        assert_eq!(seen.take(PLAIN, false), Taken::Other);
        for line in
            ["ph g x - [127.0.0.1:1] [200] [0.1]", "ph g 200 [", "ph x 200 - [127.0.0.1:1] [200] [0.000]"]
        {
            assert_eq!(seen.take(line, true), Taken::Unread, "{line}");
        }
        assert!(seen.counted.is_empty());
        assert_eq!(seen.take("ph g 200 - [127.0.0.1:1] [200] [0.000]", true), Taken::Counted);
    }

    #[test]
    fn each_attempt_counts_against_who_failed_it() {
        let mut seen = seen();
        seen.take("ph g 200 10.0.0.9 [127.0.0.1:1, 127.0.0.1:2] [502, 200] [0.001, 0.002]", true);
        seen.take("ph g 502 10.0.0.9 [127.0.0.1:1] [502] [0.001]", true);
        seen.take("ph g 499 10.0.0.9 [127.0.0.1:2] [-] [0.100]", true);
        seen.take("ph h 200 10.0.0.9 [127.0.0.1:2] [200] [-]", true);
        // Hidden by the operator's own page for errors, from a file or from somewhere else.
        seen.take("ph g 200 10.0.0.9 [127.0.0.1:3] [500] [0.001]", true);
        seen.take("ph g 200 10.0.0.9 [127.0.0.1:3 : 10.0.0.7:80] [500 : 200] [0.001 : 0.002]", true);
        let of = |port: u16| {
            seen.counted[&(seen.whose)("g", ([127, 0, 0, 1], port).into()).unwrap().unwrap()].clone()
        };
        let (one, two) = (of(1), of(2));
        assert_eq!((one.requests, one.errors, one.retries, one.latency.count()), (1, 1, 1, 1));
        assert_eq!((two.requests, two.errors, two.retries, two.latency.count()), (3, 0, 0, 1));
        assert_eq!((of(3).requests, of(3).errors, of(3).retries), (2, 2, 0));
        assert_eq!(one.halves.iter().map(|h| (h.requests, h.bad)).max(), Some((1, 1)));
    }
}
