//! Traffic numbers: counters and latency histograms that proxies fill and the cockpit shows.

pub mod caddy_log;
pub mod envoy_log;
pub mod haproxy_log;
pub mod log_file;
pub mod log_socket;
pub mod loss;
pub mod nginx_log;
pub mod totals;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Cumulative counts of one instance (or, summed, of one revision).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests that ended, whatever way.
    pub requests: u64,
    /// Of these, the ones that failed: status 500 to 599, or no whole response.
    pub errors: u64,
    /// Attempts on this instance that failed and were tried again elsewhere; each counts against this instance,
    /// although the client saw a good answer (a proxy that retries hides failure).
    pub retries: u64,
    /// Response times; empty when the proxy gives none.
    pub latency: Histogram,
    /// Mean response time in milliseconds over the proxy's own last requests, when that is all it gives.
    pub mean_ms: Option<u32>,
    /// The requests whose client is known, in two halves by a hash of its address: all of one client are in the same.
    /// They tell whether the requests of a client fail together.
    #[serde(default)]
    pub halves: [Half; 2],
}

/// Requests of one half of the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// Requests.
    pub requests: u64,
    /// Of these, the ones that failed.
    pub bad: u64,
}

/// In which half the requests of a client are counted: the same for as long as this program is what it is.
#[must_use]
pub fn half_of(client: IpAddr) -> usize {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    usize::from(hasher.finish() & 1 == 1)
}

impl Counters {
    /// Adds `other` to `self`.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.retries += other.retries;
        self.latency.add(&other.latency);
        for (half, more) in self.halves.iter_mut().zip(&other.halves) {
            half.requests += more.requests;
            half.bad += more.bad;
        }
        self.mean_ms = match (self.mean_ms, other.mean_ms) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
    }

    /// What happened since `earlier`; an earlier count that is larger counts as zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            retries: self.retries.saturating_sub(earlier.retries),
            latency: self.latency.since(&earlier.latency),
            mean_ms: self.mean_ms,
            halves: [0, 1].map(|n| self.half(n).since(earlier.half(n))),
        }
    }

    /// Counts a request of `client`.
    pub fn count_client(&mut self, client: IpAddr, bad: bool) {
        if let Some(half) = self.halves.get_mut(half_of(client)) {
            half.requests += 1;
            half.bad += u64::from(bad);
        }
    }

    fn half(&self, n: usize) -> Half {
        self.halves.get(n).copied().unwrap_or_default()
    }

    /// Failed requests and hidden ones: what the instance did wrong.
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.errors + self.retries
    }
}

impl Half {
    fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            bad: self.bad.saturating_sub(earlier.bad),
        }
    }
}

/// Buckets per doubling: a bucket is at most 2^(1/4) − 1 = 19 % wide.
const PER_DOUBLING: f64 = 4.0;
/// Buckets: from 50 µs to about 50 µs · 2^20 = 52 s.
const BUCKETS: usize = 80;
/// Upper bound of the first bucket, in microseconds.
const FIRST_US: f64 = 50.0;

/// Response times in logarithmic buckets; a quantile is right to 19 %.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram {
    /// Sparse from the end: shorter than [`BUCKETS`] when the upper buckets are empty.
    buckets: Vec<u64>,
}

impl Histogram {
    /// Counts one response that took `us` microseconds.
    pub fn record(&mut self, us: u64) {
        self.record_many(us, 1);
    }

    /// Counts `n` responses that took `us` microseconds each.
    pub fn record_many(&mut self, us: u64, n: u64) {
        let i = bucket(us);
        if self.buckets.len() <= i && n > 0 {
            self.buckets.resize(i + 1, 0);
        }
        if let Some(b) = self.buckets.get_mut(i) {
            *b += n;
        }
    }

    /// Responses counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time in microseconds under which the fraction `q` (0 to 1) of responses stayed: the upper bound of that
    /// bucket. `None` when nothing was counted.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Some(upper_us(i));
            }
        }
        None
    }

    /// Responses that took longer than `us` microseconds: those in buckets above its own.
    #[must_use]
    pub fn above(&self, us: u64) -> u64 {
        self.buckets.iter().skip(bucket(us) + 1).sum()
    }

    /// Every other bound in microseconds, with all responses that took as long or less. The largest times have no bound.
    pub fn below(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut seen = 0;
        (0..BUCKETS - 1).filter_map(move |i| {
            seen += self.buckets.get(i).copied().unwrap_or(0);
            // Whole microseconds are counted: the largest one that is in the bucket.
            let bound = (FIRST_US * 2f64.powf(i as f64 / PER_DOUBLING)).floor() as u64;
            i.is_multiple_of(2).then_some((bound, seen))
        })
    }

    /// About the sum of all response times in microseconds: each counts as the middle of its bucket, which is
    /// 9 % off at most for times from 50 µs to 44 s.
    #[must_use]
    pub fn about_sum_us(&self) -> u64 {
        let middle = |i: usize| FIRST_US * 2f64.powf((i as f64 - 0.5) / PER_DOUBLING);
        self.buckets.iter().enumerate().map(|(i, n)| (middle(i) * *n as f64) as u64).sum()
    }

    /// Adds `other` to `self`.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let old = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        Self { buckets: self.buckets.iter().zip(old).map(|(a, b)| a.saturating_sub(b)).collect() }
    }
}

fn bucket(us: u64) -> usize {
    let i = ((us as f64 / FIRST_US).log2() * PER_DOUBLING).ceil();
    if i <= 0.0 { 0 } else { (i as usize).min(BUCKETS - 1) }
}

fn upper_us(i: usize) -> u64 {
    (FIRST_US * 2f64.powf(i as f64 / PER_DOUBLING)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_bucket() {
        let mut h = Histogram::default();
        (1..=1000u64).for_each(|ms| h.record(ms * 1000));
        for (q, want) in [(0.5, 500_000.0), (0.95, 950_000.0), (0.99, 990_000.0)] {
            let got = h.quantile_us(q).unwrap() as f64;
            assert!(got >= want && got <= want * 1.2, "{q}: {got} for {want}");
        }
        assert_eq!(Histogram::default().quantile_us(0.5), None);
        let slow = h.above(500_000);
        assert!((400..=500).contains(&slow), "about half, never one that is not: {slow}");
        assert_eq!((h.above(0), h.above(u64::MAX)), (1000, 0));
    }

    #[test]
    fn bounds_hold_what_they_say_and_the_sum_is_about_right() {
        let mut h = Histogram::default();
        let times: Vec<u64> = (0..4000).map(|n| 20 + n * n / 3).collect();
        times.iter().for_each(|us| h.record(*us));
        let below: Vec<(u64, u64)> = h.below().collect();
        assert_eq!(below.len(), 40);
        assert!(below.is_sorted() && below.windows(2).all(|w| w[0].0 < w[1].0), "{below:?}");
        for (bound, n) in below {
            assert_eq!(n, times.iter().filter(|us| **us <= bound).count() as u64, "{bound} µs");
        }
        let (sum, about) = (times.iter().sum::<u64>() as f64, h.about_sum_us() as f64);
        assert!((about / sum - 1.0).abs() < 0.09, "{about} for {sum}");
    }

    #[test]
    fn extremes_stay_in_range() {
        let mut h = Histogram::default();
        h.record(0);
        h.record(u64::MAX);
        assert_eq!(h.count(), 2);
        assert_eq!(h.buckets.len(), BUCKETS);
    }

    #[test]
    fn a_client_is_always_in_the_same_half_and_both_halves_have_some() {
        let mut c = Counters::default();
        for n in 0..200_u8 {
            let client = IpAddr::from([10, 0, 0, n]);
            assert_eq!(half_of(client), half_of(client));
            c.count_client(client, n % 2 == 0);
        }
        assert!(c.halves.iter().all(|h| (60..=140).contains(&h.requests)), "{:?}", c.halves);
        assert_eq!(c.halves[0].bad + c.halves[1].bad, 100);
        let mut twice = c.clone();
        twice.add(&c);
        assert_eq!(twice.since(&c).halves, c.halves);
    }

    #[test]
    fn since_is_the_inverse_of_add() {
        let mut a = Counters { requests: 3, errors: 1, ..Counters::default() };
        a.latency.record(7_000);
        let mut b = a.clone();
        let mut more = Counters { requests: 2, retries: 1, ..Counters::default() };
        more.latency.record(900_000);
        b.add(&more);
        assert_eq!(b.since(&a).latency.count(), 1);
        assert_eq!((b.since(&a).requests, b.bad()), (2, 2));
        assert_eq!(a.since(&b).requests, 0);
    }
}
