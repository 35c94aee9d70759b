//! Latencies out of HAProxy's log lines, because its counters have means only.
//!
//! The operator's frontend sends them as datagrams to the address in the fleet file:
//! ```text
//! log 127.0.0.1:5140 format raw local0
//! log-format "ph %b/%s %ST %Ta %rc %ts %ci"
//! ```
//! that is backend, server, status, active time in milliseconds, retries (with `+` when another server was tried)
//! how the session ended, and the client's address, which may be missing. Only loopback is listened to; a line that is none of
//! ours is left out, and [`super::loss`] tells how many were lost.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::Counters;
use super::log_socket::{Lines, Listener, LogSocket};
use super::loss::{LogLoss, Taken};
use crate::fleet::names::InstanceId;

/// What the operator's frontend has after `log-format`.
pub const LOG_FORMAT: &str = "\"ph %b/%s %ST %Ta %rc %ts %ci\"";

/// One request, as its log line tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The backend that took it.
    pub backend: &'a str,
    /// The server that answered last.
    pub server: &'a str,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// From the first byte of the request to the last of the answer, in milliseconds.
    pub active_ms: u64,
    /// Further attempts.
    pub retries: u32,
    /// Whether another server was tried.
    pub redispatched: bool,
    /// HAProxy's two letters for how it ended; `--` is well.
    pub end: &'a str,
    /// Who asked.
    pub client: Option<IpAddr>,
}

/// Reads one line; a syslog header before the `ph` is skipped. `None` for anything else.
#[must_use]
pub fn parse(line: &str) -> Option<LogLine<'_>> {
    let mut words = line.split_ascii_whitespace().skip_while(|w| *w != "ph").skip(1);
    let (backend, server) = words.next()?.split_once('/')?;
    let status: i32 = words.next()?.parse().ok()?;
    // HAProxy marks a time of a request that never got so far with -1, and a still growing one with '+'.
    let active_ms = words.next()?.trim_start_matches('+').parse().ok()?;
    let retries = words.next()?;
    let end = words.next()?;
    Some(LogLine {
        backend,
        server,
        status: u16::try_from(status.max(0)).ok()?,
        active_ms,
        retries: retries.trim_start_matches('+').parse().ok()?,
        redispatched: retries.starts_with('+'),
        end,
        client: words.next().and_then(|c| c.parse().ok()),
    })
}

#[derive(Default)]
struct Seen {
    /// How our backends' names begin.
    prefix: String,
    /// Response times and clients per backend and server.
    counted: BTreeMap<(String, String), Counters>,
}

/// Listens until dropped and keeps response times and clients per backend and server.
pub struct LogListener(LogSocket<Seen>);

/// A name that only a forger or a mistake would have.
const MAX_SERVERS: usize = 10_000;

impl LogListener {
    /// Binds `addr` and starts to listen to lines of backends whose names begin with `prefix`. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the address is not a loopback one, or is taken.
    pub fn bind(addr: SocketAddr, prefix: String) -> io::Result<Self> {
        LogSocket::bind(addr, Seen { prefix, ..Seen::default() }).map(Self)
    }

    /// The response times and clients so far of each server in any backend, by server name. Requests are not counted
    /// here: lines can be lost.
    #[must_use]
    pub fn counted(&self) -> BTreeMap<String, Counters> {
        let seen = self.0.seen();
        let mut out: BTreeMap<String, Counters> = BTreeMap::new();
        for ((_, server), counted) in &seen.counted {
            out.entry(server.clone()).or_default().add(counted);
        }
        out
    }

    /// Forgets instances that nobody asks for any more.
    pub fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.0.seen().counted.retain(|(_, server), _| !server.parse().is_ok_and(|id| gone(&id)));
    }
}

impl Listener for LogListener {
    fn loss(&self) -> LogLoss {
        LogLoss { latency_only: true, ..self.0.loss() }
    }
}

/// Whether a line that cannot be read is about a request that one of our servers was to answer. A request that never got so
/// far as to have a time is no loss.
fn is_ours(line: &str, prefix: &str) -> bool {
    let mut words = line.split_ascii_whitespace().skip_while(|w| *w != "ph").skip(1);
    let Some((backend, server)) = words.next().and_then(|w| w.split_once('/')) else { return false };
    let timeless = words.nth(1).is_some_and(|w| w.starts_with('-'));
    backend.starts_with(prefix) && !server.starts_with('<') && !timeless
}

impl Lines for Seen {
    fn take(&mut self, line: &str, trusted: bool) -> Taken {
        if !trusted || !is_ours(line, &self.prefix) {
            return Taken::Other;
        }
        let Some(l) = parse(line) else { return Taken::Unread };
        let key = (l.backend.to_owned(), l.server.to_owned());
        if self.counted.len() >= MAX_SERVERS && !self.counted.contains_key(&key) {
            return Taken::Other;
        }
        // A client that hung up says nothing about the server.
        if !l.end.starts_with(['C', 'c']) {
            let counted = self.counted.entry(key).or_default();
            counted.latency.record(l.active_ms.saturating_mul(1000));
            if let Some(client) = l.client {
                counted.count_client(client, l.status >= 500 || l.end != "--");
            }
        }
        Taken::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_a_syslog_header() {
        let l = parse("ph ph_shop_web_b/web-1 200 12 +1 --").unwrap();
        assert_eq!((l.backend, l.server, l.status, l.active_ms), ("ph_shop_web_b", "web-1", 200, 12));
        assert!(l.redispatched && l.retries == 1 && l.end == "--");
        let l = parse("<134>Nov 21 16:23:35 haproxy[77]: ph ph_shop_web/<NOSRV> 503 0 0 SC\n").unwrap();
        assert_eq!((l.server, l.status, l.end, l.client), ("<NOSRV>", 503, "SC", None));
        let l = parse("ph ph_f_web/web-1 200 1 0 -- 10.1.2.3").unwrap();
        assert_eq!(l.client, "10.1.2.3".parse().ok());
        assert_eq!(parse("ph ph_f_web/web-1 200 1 0 -- -").unwrap().client, None);
    }

    #[test]
    fn other_lines_are_left_out_and_unreadable_ones_of_ours_are_told() {
        let mut seen = Seen { prefix: "ph_f_".to_owned(), ..Seen::default() };
        for (line, loopback) in [
            ("", true),
            ("ph", true),
            ("ph x 200 1 0 --", true),
            ("ph a/b 200 -1 0 --", true),
            ("ph other/b 200 1 0 --", true),
            ("ph ph_f_web/<NOSRV> 503 1 0 SC", true),
            ("ph ph_f_web/web-1 200 1 0 --", false),
            ("\u{1b}[2J", true),
        ] {
            assert_eq!(seen.take(line, loopback), Taken::Other, "{line}");
        }
        for line in ["ph ph_f_web/web-1 200", "ph ph_f_web/web-1 x 1 0 --", "ph ph_f_web/web-1 200 1s 0 --"] {
            assert_eq!(seen.take(line, true), Taken::Unread, "{line}");
        }
        assert_eq!(seen.take("ph ph_f_web/web-1 200 -1 0 CR", true), Taken::Other, "it never had a time");
        assert!(seen.counted.is_empty());
        assert_eq!(seen.take("ph ph_f_web/web-1 200 1 0 --", true), Taken::Counted);
        seen.take("ph ph_f_web/web-1 -1 1 0 CD", true);
        seen.take("ph ph_f_web/web-1 503 1 0 -- fd00::7", true);
        assert_eq!(seen.counted.values().map(|c| c.latency.count()).sum::<u64>(), 2);
        let halves: Vec<_> = seen.counted.values().flat_map(|c| c.halves).collect();
        assert_eq!(halves.iter().map(|h| (h.requests, h.bad)).max(), Some((1, 1)), "{halves:?}");
    }

    #[tokio::test]
    async fn datagrams_become_latencies() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = LogListener::bind(free, "ph_f_".into()).unwrap();
        assert!(LogListener::bind(free, String::new()).is_err());
        assert!(LogListener::bind("0.0.0.0:0".parse().unwrap(), String::new()).is_err());
        let out = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        out.send_to(b"ph ph_f_web_a/web-1 200 7 0 --\n", free).await.unwrap();
        out.send_to(b"rubbish\n", free).await.unwrap();
        out.send_to(b"ph ph_f_web_a/web-1 x\n", free).await.unwrap();
        while listener.loss().unread == 0 {
            tokio::task::yield_now().await;
        }
        assert!(listener.loss().latency_only && listener.loss().came == 3);
        let p50 = listener.counted()["web-1"].latency.quantile_us(0.5).unwrap();
        assert!((7_000..9_000).contains(&p50));
    }
}
