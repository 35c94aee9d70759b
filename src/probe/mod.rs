//! Health checks by Pilothouse itself: every instance, on its own endpoint, with rise and fall.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fleet::model::{HealthCheck, Probe};
use crate::fleet::names::Millis;
use crate::rollout::world::{Health, HealthVerdict};
use crate::text::Safe;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it passed.
    pub ok: bool,
    /// `200`, `connected`, `refused`, `timeout`, …
    pub result: Safe,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
}

/// Probes over fresh connections, so that a process that no longer accepts is noticed.
#[derive(Clone)]
pub struct Prober {
    http: reqwest::Client,
}

impl Prober {
    /// A prober.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pilothouse/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http })
    }

    /// Asks once; never takes longer than the check's timeout.
    pub async fn ask(&self, at: SocketAddr, check: &HealthCheck) -> Outcome {
        let started = Instant::now();
        let timeout = check.timeout.duration();
        let (ok, result) = match &check.probe {
            Probe::Http { path } => self.http(at, path, timeout).await,
            Probe::Tcp => tcp(at, timeout).await,
        };
        let latency_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        Outcome { ok, result: Safe::new(&result), latency_ms }
    }

    async fn http(&self, at: SocketAddr, path: &str, timeout: Duration) -> (bool, String) {
        match self.http.get(format!("http://{at}{path}")).timeout(timeout).send().await {
            Ok(response) => {
                let status = response.status();
                ((200..400).contains(&status.as_u16()), status.as_u16().to_string())
            }
            Err(e) if e.is_timeout() => (false, "timeout".into()),
            Err(e) if e.is_connect() => (false, "refused".into()),
            Err(_) => (false, "no answer".into()),
        }
    }
}

async fn tcp(at: SocketAddr, timeout: Duration) -> (bool, String) {
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(at)).await {
        Ok(Ok(_)) => (true, "connected".into()),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => (false, "refused".into()),
        Ok(Err(e)) => (false, e.kind().to_string()),
        Err(_) => (false, "timeout".into()),
    }
}

/// From a start to the second probe; each wait is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// When an instance is probed: at its interval, and more often between its start and its first pass. A process needs some
/// milliseconds before it listens, and nobody shall wait a whole interval for the second look.
#[derive(Clone, Debug)]
pub struct Pace {
    interval: Duration,
    wait: Duration,
    /// Since the failure that was counted last.
    waited: Option<Duration>,
    passed: bool,
}

impl Pace {
    /// Of something that has just started.
    #[must_use]
    pub fn new(check: &HealthCheck) -> Self {
        let interval = check.interval.duration();
        Self { interval, wait: FIRST_WAIT.min(interval), waited: None, passed: false }
    }

    /// Whether a probe counts: a failure that comes sooner than an interval after the last one says nothing new.
    pub fn counts(&mut self, ok: bool) -> bool {
        self.passed |= ok;
        let counts = self.passed || self.waited.is_none_or(|waited| waited >= self.interval);
        if counts {
            self.waited = Some(Duration::ZERO);
        }
        counts
    }

    /// How long to wait for the next probe.
    pub fn wait(&mut self) -> Duration {
        if self.passed {
            return self.interval;
        }
        let waited = self.waited.unwrap_or_default();
        // One of them is due an interval after the last that was counted.
        let wait = self.wait.min(self.interval.saturating_sub(waited));
        self.wait = (self.wait * 2).min(self.interval);
        self.waited = Some(waited + wait);
        wait
    }
}

/// Counts probes of one instance into a state, by rise and fall.
#[derive(Clone, Debug)]
pub struct Counter {
    rise: u32,
    fall: u32,
    passes: u32,
    failures: u32,
    verdict: HealthVerdict,
    since: Millis,
}

impl Counter {
    /// Nothing known yet.
    #[must_use]
    pub fn new(check: &HealthCheck, now: Millis) -> Self {
        Self {
            rise: check.rise.max(1),
            fall: check.fall.max(1),
            passes: 0,
            failures: 0,
            verdict: HealthVerdict::Unknown,
            since: now,
        }
    }

    /// Counts one probe.
    pub fn count(&mut self, outcome: &Outcome, now: Millis) -> Health {
        let next = if outcome.ok {
            self.passes = self.passes.saturating_add(1);
            self.failures = 0;
            (self.passes >= self.rise).then_some(HealthVerdict::Healthy)
        } else {
            self.failures = self.failures.saturating_add(1);
            self.passes = 0;
            (self.failures >= self.fall).then_some(HealthVerdict::Unhealthy)
        };
        if let Some(next) = next
            && next != self.verdict
        {
            self.verdict = next;
            self.since = now;
        }
        Health {
            verdict: self.verdict,
            since: self.since,
            last: outcome.result.clone(),
            latency_ms: outcome.latency_ms,
            failures: self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(probe: Probe) -> HealthCheck {
        HealthCheck { probe, interval: Millis(100), timeout: Millis(300), rise: 2, fall: 3 }
    }

    #[test]
    fn scenario_16_flapping_does_not_change_the_state() {
        let mut counter = Counter::new(&check(Probe::Tcp), Millis(0));
        let mut states = String::new();
        for (n, c) in "++.+.+..+...+++".chars().enumerate() {
            let outcome = Outcome { ok: c == '+', result: Safe::default(), latency_ms: 1 };
            let h = counter.count(&outcome, Millis(n as u64));
            states.push(match h.verdict {
                HealthVerdict::Unknown => '?',
                HealthVerdict::Healthy => 'H',
                HealthVerdict::Unhealthy => 'u',
            });
        }
        assert_eq!(states, "?HHHHHHHHHHuuHH");
    }

    #[test]
    fn what_has_just_started_is_looked_at_more_often_and_fails_no_sooner() {
        let times = |passes_at: u64| {
            let mut check = check(Probe::Tcp);
            check.interval = Millis(500);
            let (mut pace, mut now, mut probes, mut counted) = (Pace::new(&check), 0, Vec::new(), Vec::new());
            while now < 2500 {
                probes.push(now);
                if pace.counts(now >= passes_at) {
                    counted.push(now);
                }
                now += u64::try_from(pace.wait().as_millis()).unwrap();
            }
            (probes, counted)
        };
        let (probes, counted) = times(60);
        assert_eq!(probes, [0, 25, 75, 575, 1075, 1575, 2075], "its interval once it has passed");
        assert_eq!(counted, [0, 75, 575, 1075, 1575, 2075]);
        let (probes, counted) = times(10_000);
        assert_eq!(probes[..8], [0, 25, 75, 175, 375, 500, 1000, 1500]);
        assert_eq!(counted, [0, 500, 1000, 1500, 2000], "as it would be without");
    }

    #[tokio::test]
    async fn the_result_says_what_was_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let answers = ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 503 Sorry\r\ncontent-length: 0\r\n\r\n"];
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut held = Vec::new();
            for n in 0.. {
                let (mut s, _) = listener.accept().await.unwrap();
                let mut buf = [0; 512];
                let _ = s.read(&mut buf).await;
                match answers.get(n) {
                    Some(a) => s.write_all(a.as_bytes()).await.unwrap(),
                    None => held.push(s),
                }
            }
        });
        let prober = Prober::new().unwrap();
        let http = check(Probe::Http { path: "/health".into() });
        let first = prober.ask(at, &http).await;
        assert_eq!((first.ok, first.result.as_str()), (true, "204"));
        let second = prober.ask(at, &http).await;
        assert_eq!((second.ok, second.result.as_str()), (false, "503"));
        assert_eq!(prober.ask(at, &http).await.result.as_str(), "timeout");
        assert!(prober.ask(at, &check(Probe::Tcp)).await.ok);
        server.abort();
        let _ = server.await;
        assert_eq!(prober.ask(at, &http).await.result.as_str(), "refused");
    }
}
