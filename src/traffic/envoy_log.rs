//! Response times out of Envoy's log lines, because its counters tell them per cluster only.
//!
//! The operator's listener writes a line per request to a file:
//! ```text
//! ph INSTANCE STATUS CLIENT MICROSECONDS
//! ```
//! The instance is the one that answered in the end, and the time from when the request was sent to it until its answer was
//! there. Lines of requests that nobody answered, and of whoever else logs to the file, are left out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Counters;
use super::log_socket::Lines;
use super::loss::Taken;
use crate::fleet::names::InstanceId;

/// The format of a line, as Envoy takes it.
pub const FORMAT: &str = "ph %UPSTREAM_HOST_NAME% %RESPONSE_CODE% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
                          %COMMON_DURATION(US_TX_BEG:US_RX_END:us)%";

/// One request, as its log line tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Who answered.
    pub instance: InstanceId,
    /// Status sent to the client; 0 when there was none.
    pub status: u16,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// How long the answer took, in microseconds; `None` when there was no whole one.
    pub took_us: Option<u64>,
}

/// Reads one line; `None` for anything else.
#[must_use]
pub fn parse(line: &str) -> Option<LogLine> {
    let mut words = line.strip_prefix("ph ")?.split(' ');
    let (instance, status) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (client, took) = (words.next()?.parse().ok(), words.next()?);
    words.next().is_none().then(|| LogLine { instance, status, client, took_us: took.parse().ok() })
}

/// What was counted so far, per instance: response times, and who asked.
#[derive(Debug, Default)]
pub struct Counted(BTreeMap<InstanceId, Counters>);

impl Counted {
    /// A copy of all of it.
    #[must_use]
    pub fn all(&self) -> BTreeMap<InstanceId, Counters> {
        self.0.clone()
    }

    /// Forgets instances that nobody asks for any more.
    pub fn forget(&mut self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.0.retain(|id, _| !gone(id));
    }
}

impl Lines for Counted {
    fn take(&mut self, line: &str, trusted: bool) -> Taken {
        let Some(line) = trusted.then(|| parse(line)).flatten() else { return Taken::Other };
        let counters = self.0.entry(line.instance).or_default();
        if let Some(us) = line.took_us {
            counters.latency.record(us);
        }
        if let Some(client) = line.client {
            counters.count_client(client, line.status == 0 || line.status >= 500);
        }
        Taken::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_what_is_none_is_left_out() {
        let read = parse("ph web-00000002-1 200 10.0.0.7 4711").unwrap();
        assert_eq!((read.instance.as_str(), read.status, read.took_us), ("web-00000002-1", 200, Some(4711)));
        assert_eq!(read.client, Some([10, 0, 0, 7].into()));
        assert_eq!(parse("ph web-00000002-1 503 - -").unwrap().took_us, None);
        for odd in
            ["", "ph", "ph - 503 10.0.0.7 -", "ph web-00000002-1 x 1 1", "ph web-00000002-1 200 ::1 5 more"]
        {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn response_times_and_clients_are_counted_per_instance() {
        let mut counted = Counted::default();
        counted.take("ph web-00000002-1 200 10.0.0.7 4711", true);
        counted.take("ph web-00000002-1 503 10.0.0.7 -", true);
        counted.take("ph web-00000002-1 503 10.0.0.7 1", false);
        counted.take("something else", true);
        let all = counted.all();
        let one = all.values().next().unwrap();
        assert_eq!((all.len(), one.latency.count()), (1, 1));
        assert_eq!(one.halves.iter().map(|h| (h.requests, h.bad)).max(), Some((2, 1)));
        counted.forget(&|_| true);
        assert!(counted.all().is_empty());
    }
}
