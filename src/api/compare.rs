//! What an A/B release has measured: requests and failures of each revision over the same time, with the interval in
//! which the rate of failure lies. The arithmetic and the table, for the screen and for plain output alike.

use serde::{Deserialize, Serialize};

use crate::text::{Safe, thousands};

/// The standard normal quantile of 0.975: two-sided 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Two revisions over the same time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ComparisonView {
    /// Wall clock when counting began, milliseconds since 1970.
    pub since_ms: u64,
    /// Counting has ended: these numbers stay as they are.
    pub over: bool,
    /// The revision that served before.
    pub stable: MeasuredView,
    /// The one that is tried.
    pub candidate: MeasuredView,
}

/// What one revision did meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasuredView {
    /// Its readable tag.
    pub version: Safe,
    /// Requests that it answered, or was tried with.
    pub requests: u64,
    /// Of these, the ones that failed, those included that a proxy then tried elsewhere. Never more than `requests`.
    pub failed: u64,
    /// 95th percentile of its response times in milliseconds; `None` when the proxy gives none.
    pub p95_ms: Option<f32>,
}

/// Bounds of a share, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// The 95 % score interval of a share of which `failed` in `requests` were seen; `None` without requests. Unlike the
/// textbook's `p ± 1.96·√(p(1−p)/n)` it says something sensible of no failure at all, and never leaves 0 to 1.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
/// Statistical Association 22 (1927), 209–212. It is right for one look at numbers whose size was settled before;
/// whoever looks all the time and stops when it pleases is wrong more often than one time in twenty.
#[must_use]
pub fn wilson(failed: u64, requests: u64) -> Option<Interval> {
    if requests == 0 {
        return None;
    }
    let n = requests as f64;
    let p = failed.min(requests) as f64 / n;
    let z2 = Z * Z;
    let middle = p + z2 / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let whole = 1.0 + z2 / n;
    // At the ends the formula is exact, its floating-point form is not.
    let low = if failed == 0 { 0.0 } else { ((middle - half) / whole).max(0.0) };
    let high = if failed >= requests { 1.0 } else { ((middle + half) / whole).min(1.0) };
    Some(Interval { low, high })
}

impl MeasuredView {
    /// Where its rate of failure lies.
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        wilson(self.failed, self.requests)
    }
}

/// What the two intervals say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// One of the two had no requests.
    Nothing,
    /// The intervals overlap.
    NoDifference,
    /// The candidate fails more often.
    Worse,
    /// The candidate fails less often.
    Better,
}

impl ComparisonView {
    /// What it shows. Intervals that do not overlap are a stricter test than most: no difference shown is not the
    /// same as no difference.
    #[must_use]
    pub fn finding(&self) -> Finding {
        match (self.stable.interval(), self.candidate.interval()) {
            (Some(s), Some(c)) if c.low > s.high => Finding::Worse,
            (Some(s), Some(c)) if c.high < s.low => Finding::Better,
            (Some(_), Some(_)) => Finding::NoDifference,
            _ => Finding::Nothing,
        }
    }

    /// The finding in words.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.finding() {
            Finding::Worse => "candidate FAILS MORE: the intervals do not overlap".into(),
            Finding::Better => "candidate fails less: the intervals do not overlap".into(),
            Finding::NoDifference => "no difference in failures shown: the intervals overlap".into(),
            Finding::Nothing if self.candidate.requests == 0 => {
                "nothing to compare yet: no request reached the candidate".into()
            }
            Finding::Nothing => "nothing to compare yet: no request reached stable".into(),
        }
    }

    /// The table: captions, stable, candidate. What is worth least is on the right.
    #[must_use]
    pub fn table(&self) -> [String; 3] {
        let row = |role: &str, m: &MeasuredView| {
            let (rate, interval) = match m.interval() {
                Some(i) => {
                    let digits = digits(i.high);
                    let percent = |x: f64| format!("{:.digits$}", x * 100.0);
                    let rate = m.failed as f64 / m.requests as f64;
                    (format!("{}%", percent(rate)), format!("{}-{}%", percent(i.low), percent(i.high)))
                }
                None => ("-".to_owned(), "-".to_owned()),
            };
            let p95 = m.p95_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}ms"));
            line([role, &thousands(m.failed), &thousands(m.requests), &rate, &interval, &p95])
        };
        [
            line(["", "failed", "of", "rate", "95% sure", "p95"]),
            row("stable", &self.stable),
            row("candidate", &self.candidate),
        ]
    }
}

fn line([role, failed, of, rate, interval, p95]: [&str; 6]) -> String {
    format!("{role:<9} {failed:>6} {of:>9} {rate:>7} {interval:>12} {p95:>6}")
}

/// Digits after the point that a share needs as per cent, so that it and its bounds can be told apart.
fn digits(high: f64) -> usize {
    match high {
        h if h >= 0.01 => 1,
        h if h >= 0.001 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table I of R. G. Newcombe, "Two-sided confidence intervals for the single proportion: comparison of seven
    /// methods", Statistics in Medicine 17 (1998), 857–872, method 3 (score, without continuity correction).
    #[test]
    fn wilson_s_interval_is_newcombe_s_table() {
        for (failed, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let i = wilson(failed, of).unwrap();
            assert!((i.low - low).abs() < 5e-5 && (i.high - high).abs() < 5e-5, "{failed}/{of}: {i:?}");
        }
    }

    #[test]
    fn the_ends_are_exact_and_nothing_says_nothing() {
        assert_eq!(wilson(0, 0), None);
        assert_eq!(wilson(0, 7).unwrap().low, 0.0);
        assert_eq!(wilson(7, 7).unwrap().high, 1.0);
        // What a proxy hid may count more failures than requests.
        assert_eq!(wilson(9, 7), wilson(7, 7));
        let huge = wilson(3, u64::MAX).unwrap();
        assert!(huge.low >= 0.0 && huge.low <= huge.high && huge.high < 1e-15);
    }

    fn compared(stable: (u64, u64), candidate: (u64, u64)) -> ComparisonView {
        let m = |version: &str, (failed, requests)| MeasuredView {
            version: version.into(),
            requests,
            failed,
            p95_ms: Some(38.4),
        };
        ComparisonView {
            stable: m("1.4.2", stable),
            candidate: m("1.5.0", candidate),
            ..ComparisonView::default()
        }
    }

    #[test]
    fn a_difference_is_said_only_when_the_intervals_are_apart() {
        for (stable, candidate, finding) in [
            ((3, 9_120), (12, 240), Finding::Worse),
            ((500, 9_120), (1, 2_400), Finding::Better),
            ((3, 9_120), (1, 240), Finding::NoDifference),
            ((3, 9_120), (0, 0), Finding::Nothing),
        ] {
            assert_eq!(compared(stable, candidate).finding(), finding, "{stable:?} {candidate:?}");
        }
    }

    #[test]
    fn the_table_lines_up() {
        let table = compared((21, 1_012_034), (9, 3_010)).table();
        assert_eq!(
            table,
            [
                "          failed        of    rate     95% sure    p95",
                "stable        21 1,012,034  0.002% 0.001-0.003%   38ms",
                "candidate      9     3,010   0.30%   0.16-0.57%   38ms",
            ]
        );
    }
}
