//! Time: the controller's own, which only goes forward, and the wall's, which is for people.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fleet::names::Millis;

/// Controller time: goes on from where the journal ended, stands still while no controller runs, and does not know the
/// wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Millis,
    started: Instant,
}

impl Clock {
    /// A clock that goes on from `base`.
    #[must_use]
    pub fn from(base: Millis) -> Self {
        Self { base, started: Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.base.plus(Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Wall clock, milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-21 15:04:05Z`.
#[must_use]
pub fn utc(wall_ms: u64) -> String {
    let secs = wall_ms / 1000;
    let (day, rest) = (secs / 86_400, secs % 86_400);
    let (y, m, d) = civil(day);
    format!("{y:04}-{m:02}-{d:02} {:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days since 1970 to year, month, day in the Gregorian calendar, by counting 400-year eras from 0000-03-01.
fn civil(day: u64) -> (u64, u64, u64) {
    let z = day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (yoe + era * 400 + u64::from(m <= 2), m, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_795_273_445_000), "2026-11-21 15:04:05Z");
    }

    #[test]
    fn controller_time_goes_on_from_where_it_was() {
        let clock = Clock::from(Millis::secs(100));
        assert!(clock.now() >= Millis::secs(100));
    }
}
