//! Numbers and times as people read them on a narrow screen.

pub use crate::text::thousands;

/// `12:04:31` of a wall clock in milliseconds since 1970, UTC: what servers log in, and the same for all watchers.
#[must_use]
pub fn clock(ms: u64) -> String {
    let s = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// `11-21 12:04:31`: with the month and the day.
#[must_use]
pub fn date(ms: u64) -> String {
    // Counted in years that begin in March, in eras of 400 of them (Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms").
    let of_era = (ms / 86_400_000 + 719_468) % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{month:02}-{day:02} {}", clock(ms))
}

/// One unit: `45s`, `6m`, `3h`, `12d`.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..86_400 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// Time left: `0:07`, `6:12`, `1:06:12`. Rounded up, so that zero means over.
#[must_use]
pub fn countdown(ms: u64) -> String {
    let s = ms.div_ceil(1000);
    match s {
        0..3600 => format!("{}:{:02}", s / 60, s % 60),
        _ => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
    }
}

/// Basis points as per cent: `25%`, `24.6%`, `0.25%`.
#[must_use]
pub fn percent(bp: u16) -> String {
    let (whole, frac) = (bp / 100, bp % 100);
    match frac {
        0 => format!("{whole}%"),
        f if f % 10 == 0 => format!("{whole}.{}%", f / 10),
        f => format!("{whole}.{f:02}%"),
    }
}

/// Basis points as whole per cent; what is not nothing does not look like nothing, and what is not all not like all.
#[must_use]
pub fn whole(bp: u16) -> String {
    let near = (u32::from(bp) + 50) / 100;
    match bp {
        1..10_000 => format!("{}%", near.clamp(1, 99)),
        _ => format!("{near}%"),
    }
}

/// A measured share, to a tenth: `24.6%`.
#[must_use]
pub fn share(bp: u16) -> String {
    format!("{:.1}%", f64::from(bp) / 100.0)
}

/// Requests a second: `0.4/s`, `412/s`, `12k/s`.
#[must_use]
pub fn rate(per_second: f32) -> String {
    match per_second {
        r if !r.is_finite() => "?/s".into(),
        r if r < 9.95 => format!("{r:.1}/s"),
        r if r < 9_999.5 => format!("{r:.0}/s"),
        r => format!("{:.0}k/s", r / 1000.0),
    }
}

/// Failures in per cent: `0%`, `0.02%`, `4.1%`, `100%`.
#[must_use]
pub fn errors(percent: f32) -> String {
    match percent {
        p if !p.is_finite() => "?%".into(),
        p if p <= 0.0 => "0%".into(),
        p if p < 0.995 => format!("{p:.2}%"),
        p if p < 9.95 => format!("{p:.1}%"),
        p => format!("{p:.0}%"),
    }
}

/// Milliseconds of a response: `4ms`, `380ms`, `1.2s`.
#[must_use]
pub fn latency(ms: f32) -> String {
    match ms {
        m if !m.is_finite() => "?".into(),
        // Probes are timed in whole milliseconds.
        0.0 => "<1ms".into(),
        m if m < 0.95 => format!("{m:.1}ms"),
        m if m < 999.5 => format!("{m:.0}ms"),
        m => format!("{:.1}s", m / 1000.0),
    }
}

/// Bytes, to a whole unit: `41M`, `2G`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    for (size, unit) in UNITS {
        if n >= size {
            let tenths = n as f64 / size as f64;
            return if tenths < 9.95 && size > 1 << 20 {
                format!("{tenths:.1}{unit}")
            } else {
                format!("{tenths:.0}{unit}")
            };
        }
    }
    format!("{n}B")
}

/// `1 host`, `3 hosts`.
#[must_use]
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_calendars() {
        assert_eq!(date(0), "01-01 00:00:00");
        assert_eq!(date(951_782_400_000), "02-29 00:00:00");
        assert_eq!(date(1_795_273_445_000), "11-21 15:04:05");
        assert_eq!(date(1_798_761_599_000), "12-31 23:59:59");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(clock(43_471_000), "12:04:31");
        assert_eq!(
            [age(45_000), age(6 * 60_000), age(3 * 3_600_000), age(3 * 86_400_000)],
            ["45s", "6m", "3h", "3d"]
        );
        assert_eq!([countdown(0), countdown(6_100), countdown(372_000)], ["0:00", "0:07", "6:12"]);
        assert_eq!(
            [percent(2500), percent(1250), percent(25), percent(10_000)],
            ["25%", "12.5%", "0.25%", "100%"]
        );
        assert_eq!(
            [whole(0), whole(25), whole(3333), whole(9_990), whole(10_000)],
            ["0%", "1%", "33%", "99%", "100%"]
        );
        assert_eq!(
            [rate(0.4), rate(412.3), rate(12_345.0), rate(f32::NAN)],
            ["0.4/s", "412/s", "12k/s", "?/s"]
        );
        assert_eq!(
            [errors(0.0), errors(0.021), errors(4.12), errors(100.0)],
            ["0%", "0.02%", "4.1%", "100%"]
        );
        assert_eq!([latency(0.4), latency(38.2), latency(1234.0)], ["0.4ms", "38ms", "1.2s"]);
        assert_eq!([thousands(12), thousands(9_120), thousands(1_234_567)], ["12", "9,120", "1,234,567"]);
        assert_eq!([bytes(41 << 20), bytes(3 << 29), bytes(900)], ["41M", "1.5G", "900B"]);
    }
}
