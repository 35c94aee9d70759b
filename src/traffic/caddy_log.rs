//! Requests out of Caddy's log lines, because the server counts nothing per instance.
//!
//! What Pilothouse writes for Caddy sends a line of JSON for each attempt to have a request answered: the debug line
//! `upstream roundtrip` of `http.handlers.reverse_proxy`. A header that our own `reverse_proxy` gives to the instance says
//! whose it was: `X-Pilothouse-Attempt: TOKEN REQUEST ADDRESS`, with a token that clients do not know, where the address begins with `tcp4/` or `tcp6/` at the first
//! attempt and with `tcp/` at the second. A first attempt that failed and was followed by one elsewhere was hidden from the
//! client. An answer that is cut off in its middle looks like a whole one here. Only loopback is listened to; a line that is
//! none of ours is left out. Datagrams can be lost: counts are those of the lines that came, and [`super::loss`] tells how
//! many did not.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::Counters;
use super::log_socket::{Lines, Listener, LogSocket};
use super::loss::{LogLoss, Taken};
use crate::fleet::names::InstanceId;

/// The header by which an attempt is known, in Go's spelling.
pub const HEADER: &str = "X-Pilothouse-Attempt";
/// First attempts whose second is awaited; of more, the oldest counts as hidden.
const AWAITED: usize = 1024;

#[derive(Deserialize)]
struct Line {
    msg: String,
    /// Seconds.
    #[serde(default)]
    duration: f64,
    status: Option<u16>,
    error: Option<String>,
    request: Asked,
}

#[derive(Deserialize)]
struct Asked {
    remote_ip: Option<IpAddr>,
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, Vec<String>>,
}

/// One attempt, as its log line tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The request: the same for its attempts.
    pub request: String,
    /// Where.
    pub addr: SocketAddr,
    /// Whether it is the first.
    pub first: bool,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// What came back; else why nothing did.
    pub answer: Result<u16, String>,
    /// Whether Caddy tries again elsewhere when nothing came back.
    pub repeated: bool,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// Reads one line; `None` for anything else, and for what has another token.
#[must_use]
pub fn parse(line: &str, token: &str) -> Option<Attempt> {
    let l: Line = serde_json::from_str(line).ok().filter(|l: &Line| l.msg == "upstream roundtrip")?;
    let attempt = l.request.headers.get(HEADER)?.first()?.strip_prefix(token)?.strip_prefix(' ')?;
    let (request, address) = attempt.split_once(' ')?;
    let (network, addr) = address.split_once('/')?;
    let first = network != "tcp";
    let answer = match (l.status, l.error) {
        (_, Some(why)) => Err(why),
        (Some(status), None) => Ok(status),
        (None, None) => return None,
    };
    // A request with another method is repeated only when it cannot have been sent.
    let unsent = answer.as_ref().is_err_and(|why| why.starts_with("dial "));
    Some(Attempt {
        request: request.to_owned(),
        addr: addr.parse().ok()?,
        first,
        client: l.request.remote_ip,
        repeated: first && (unsent || l.request.method == "GET"),
        answer,
        took_us: (l.duration * 1e6) as u64,
    })
}

/// Says which instance has an address.
pub type Whose = Box<dyn Fn(SocketAddr) -> Option<InstanceId> + Send>;

struct Seen {
    token: String,
    whose: Whose,
    counted: BTreeMap<InstanceId, Counters>,
    /// Requests whose first attempt failed, and at which instance.
    awaited: VecDeque<(String, InstanceId)>,
}

/// Listens until dropped and counts requests per instance.
pub struct LogListener(LogSocket<Seen>);

impl LogListener {
    /// Binds `addr` and starts to listen for lines with `token`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is not a loopback one, or is taken.
    pub fn bind(addr: SocketAddr, token: String, whose: Whose) -> io::Result<Self> {
        let seen = Seen { token, whose, counted: BTreeMap::new(), awaited: VecDeque::new() };
        LogSocket::bind(addr, seen).map(Self)
    }

    /// What was counted so far, per instance.
    #[must_use]
    pub fn counted(&self) -> BTreeMap<InstanceId, Counters> {
        self.0.seen().counted.clone()
    }

    /// Forgets instances that nobody asks for any more.
    pub fn forget(&self, gone: &dyn Fn(&InstanceId) -> bool) {
        let mut seen = self.0.seen();
        seen.counted.retain(|id, _| !gone(id));
        seen.awaited.retain(|(_, id)| !gone(id));
    }
}

impl Listener for LogListener {
    fn loss(&self) -> LogLoss {
        self.0.loss()
    }
}

impl Seen {
    fn hidden(&mut self, id: InstanceId) {
        self.counted.entry(id).or_default().retries += 1;
    }

    fn take_attempt(&mut self, id: InstanceId, a: &Attempt) {
        let cancelled = a.answer.as_ref().is_err_and(|why| why.contains("context canceled"));
        if a.answer.is_err() && a.repeated && !cancelled {
            self.awaited.push_back((a.request.clone(), id));
            if self.awaited.len() > AWAITED
                && let Some((_, id)) = self.awaited.pop_front()
            {
                self.hidden(id);
            }
            return;
        }
        let at = self.awaited.iter().position(|(request, _)| *request == a.request);
        let before = at.and_then(|at| self.awaited.remove(at)).map(|(_, id)| id);
        // The body went with the first attempt, so the second was none: the failure is the first's.
        let bodiless = a.answer.as_ref().is_err_and(|why| why.contains("closed Body"));
        let id = match before {
            Some(before) if bodiless => before,
            Some(before) if before != id => {
                self.hidden(before);
                id
            }
            _ => id,
        };
        let c = self.counted.entry(id).or_default();
        c.requests += 1;
        // A client that hung up says nothing about the server.
        if cancelled {
            return;
        }
        let failed = !matches!(a.answer, Ok(status) if status < 500);
        c.errors += u64::from(failed);
        c.latency.record(a.took_us);
        if let Some(client) = a.client {
            c.count_client(client, failed);
        }
    }
}

impl Lines for Seen {
    fn take(&mut self, line: &str, trusted: bool) -> Taken {
        // Whoever else has a `reverse_proxy` in this Caddy is in the same log, without our header.
        let Some(a) = parse(line, &self.token).filter(|_| trusted) else { return Taken::Other };
        let Some(id) = (self.whose)(a.addr) else { return Taken::Unread };
        self.take_attempt(id, &a);
        Taken::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    /// Whose instances have the ports 1 to 9.
    fn seen() -> Seen {
        let whose = |addr: SocketAddr| {
            let n = u32::from(addr.port());
            (n < 10).then(|| InstanceId::of(&"web".parse().unwrap(), &"0000001a".parse().unwrap(), n))
        };
        Seen {
            token: TOKEN.into(),
            whose: Box::new(whose),
            counted: BTreeMap::new(),
            awaited: VecDeque::new(),
        }
    }

    fn line(method: &str, attempt: &str, end: &str) -> String {
        format!(
            r#"{{"level":"debug","msg":"upstream roundtrip","duration":0.0125,"request":{{"remote_ip":"10.0.0.9","method":"{method}","headers":{{"Cookie":[],"X-Pilothouse-Attempt":["{TOKEN} {attempt}"]}}}},{end}}}"#
        )
    }

    #[test]
    fn lines_are_read() {
        let a = parse(&line("GET", "u1 tcp4/127.0.0.1:1", r#""status":200"#), TOKEN).unwrap();
        assert_eq!((a.request.as_str(), a.addr, a.first), ("u1", "127.0.0.1:1".parse().unwrap(), true));
        assert_eq!((a.answer, a.took_us, a.client), (Ok(200), 12_500, "10.0.0.9".parse().ok()));
        let a = parse(&line("POST", "u1 tcp/[::1]:1", r#""error":"EOF""#), TOKEN).unwrap();
        assert_eq!((a.first, a.repeated, a.answer), (false, false, Err("EOF".into())));
        assert!(!parse(&line("POST", "u tcp4/[::1]:1", r#""error":"EOF""#), TOKEN).unwrap().repeated);
        let unsent = line("POST", "u tcp4/[::1]:1", r#""error":"dial tcp4: refused""#);
        assert!(parse(&unsent, TOKEN).unwrap().repeated);
    }

    #[test]
    fn other_lines_are_left_out_and_those_of_unknown_instances_are_told() {
        let mut seen = seen();
        let good = line("GET", "u1 tcp4/127.0.0.1:1", r#""status":200"#);
        for odd in ["", "{}", "\u{1b}[2J", r#"{"msg":"selected upstream"}"#] {
            assert_eq!(seen.take(odd, true), Taken::Other, "{odd}");
        }
        assert_eq!(seen.take(&good, false), Taken::Other);
        assert_eq!(seen.take(&good.replace("roundtrip", "x"), true), Taken::Other);
        assert_eq!(seen.take(&good.replace("X-Pilothouse", "X"), true), Taken::Other);
        assert_eq!(seen.take(&good.replace(TOKEN, "0"), true), Taken::Other, "a client sent it");
        assert_eq!(seen.take(&good.replace(":1\"", ":10\""), true), Taken::Unread);
        assert!(seen.counted.is_empty());
        assert_eq!(seen.take(&good, true), Taken::Counted);
    }

    #[test]
    fn each_attempt_counts_against_who_failed_it() {
        let mut seen = seen();
        for (method, attempt, end) in [
            // Hidden: a second attempt elsewhere.
            ("GET", "u1 tcp4/127.0.0.1:1", r#""error":"EOF""#),
            ("GET", "u1 tcp/127.0.0.1:2", r#""status":200"#),
            // The only instance, tried twice.
            ("GET", "u2 tcp4/127.0.0.1:1", r#""error":"EOF""#),
            ("GET", "u2 tcp/127.0.0.1:1", r#""error":"EOF""#),
            // Never sent, and its body is gone: no fault of the second.
            ("POST", "u3 tcp4/127.0.0.1:3", r#""error":"dial tcp4: connection refused""#),
            ("POST", "u3 tcp/127.0.0.1:2", r#""error":"http: invalid Read on closed Body""#),
            ("POST", "u4 tcp4/127.0.0.1:3", r#""error":"EOF""#),
            ("GET", "u5 tcp4/127.0.0.1:2", r#""error":"context canceled""#),
            ("GET", "u6 tcp4/127.0.0.1:2", r#""status":500"#),
        ] {
            seen.take(&line(method, attempt, end), true);
        }
        let of = |port: u16| {
            let c = &seen.counted[&(seen.whose)(([127, 0, 0, 1], port).into()).unwrap()];
            (c.requests, c.errors, c.retries, c.latency.count())
        };
        assert_eq!((of(1), of(2), of(3)), ((1, 1, 1, 1), (3, 1, 0, 2), (2, 2, 0, 2)));
        assert!(seen.awaited.is_empty());
        // A second attempt that never comes: the first counts once it is too old.
        for n in 0..=AWAITED {
            seen.take(&line("GET", &format!("v{n} tcp4/127.0.0.1:4"), r#""error":"EOF""#), true);
        }
        assert_eq!(seen.counted[&(seen.whose)(([127, 0, 0, 1], 4).into()).unwrap()].retries, 1);
    }
}
