//! Durations, shares and port ranges as a person writes them.
//!
//! Each parser's error is `(what is wrong, what to write instead)`.

use super::names::{Bp, Millis};

/// What is wrong with a value, and what to write instead.
pub(super) type Bad = (String, String);

/// From the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What people write in place of the units.
const WORDS: [(&str, &[&str]); 5] = [
    ("d", &["day", "days"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("m", &["min", "mins", "minute", "minutes"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("ms", &["msec", "msecs", "milli", "millis", "millisecond", "milliseconds"]),
];

/// Longer times are mistakes: 365 days.
const LONGEST: u64 = 365 * 86_400_000;

/// `500ms`, `1.5s`, `5m`, `1h30m`, `2d`: numbers with units, the larger unit first.
pub(super) fn duration(written: &str) -> Result<Millis, Bad> {
    let bad = || {
        let fix = match rescue(written) {
            Some(better) => format!("write \"{better}\""),
            None => {
                "write a number and a unit out of ms, s, m, h, d, for example \"30s\", \"5m\" or \"1h30m\""
                    .into()
            }
        };
        (format!("'{written}' is not a duration"), fix)
    };
    let mut rest = written;
    let mut total: u64 = 0;
    let mut smallest_so_far = u64::MAX;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at_checked(digits).ok_or_else(bad)?;
        let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters).ok_or_else(bad)?;
        let size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size).ok_or_else(bad)?;
        if size >= smallest_so_far {
            return Err(bad());
        }
        smallest_so_far = size;
        total = decimal(number, size).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        rest = after;
    }
    if total > LONGEST {
        return Err((format!("'{written}' is longer than a year"), "write at most \"365d\"".into()));
    }
    Ok(Millis(total))
}

/// `number` (digits, perhaps a point and digits) times `size`, when that is a whole number.
fn decimal(number: &str, size: u64) -> Option<u64> {
    let (whole, frac) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && frac.is_empty()) || frac.len() > 3 {
        return None;
    }
    let scale = 10u64.checked_pow(u32::try_from(frac.len()).ok()?)?;
    let frac: u64 = if frac.is_empty() { 0 } else { frac.parse().ok()? };
    let part = frac.checked_mul(size)?;
    if part % scale != 0 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(part / scale)
}

/// What somebody meant who wrote `90`, `5 minutes` or `5M`.
fn rescue(written: &str) -> Option<String> {
    let text = written.trim().to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, word) = text.split_at_checked(digits)?;
    let word = word.trim();
    let unit = match word {
        "" => "s",
        w if UNITS.iter().any(|(u, _)| *u == w) => w,
        w => WORDS.iter().find(|(_, words)| words.contains(&w)).map(|(u, _)| *u)?,
    };
    let better = format!("{number}{unit}");
    // What is suggested must be accepted.
    (better != written && duration(&better).is_ok()).then_some(better)
}

/// A share in per cent as it stands in the file as `key`: more than 0, less than 100, at most two decimals.
pub(super) fn share(written: &str, key: &str) -> Result<Bp, Bad> {
    let bad = |why: &str| {
        Err((
            format!("{written} is not a {key}: {why}"),
            "write a number of per cent from 0.01 to 99.99 with at most two decimals, for example 5 or 12.5"
                .into(),
        ))
    };
    let (whole, frac) = written.split_once('.').unwrap_or((written, ""));
    if written.starts_with(['-', '+']) {
        return bad("it has a sign");
    }
    if whole.is_empty() || !written.bytes().all(|b| b.is_ascii_digit() || b == b'.') || frac.contains('.') {
        return bad("it is not a plain decimal number");
    }
    let frac = frac.trim_end_matches('0');
    if frac.len() > 2 {
        return bad("it has more than two decimals");
    }
    let (Ok(whole), Ok(hundredths)) = (whole.parse::<u64>(), format!("{frac:0<2}").parse::<u64>()) else {
        return bad("it is too large");
    };
    match whole.checked_mul(100).and_then(|w| w.checked_add(hundredths)) {
        Some(0) => bad("it is 0"),
        Some(bp @ 1..10_000) => Ok(Bp::saturating(bp)),
        _ => bad("it is not below 100"),
    }
}

/// `FIRST-LAST`, both from 1 to 65535.
pub(super) fn port_range(written: &str) -> Result<(u16, u16), Bad> {
    let bad = || {
        (
            format!("'{written}' is not a range of ports"),
            "write the first and the last port, from 1 to 65535, for example \"9000-9015\"".into(),
        )
    };
    let (first, last) = written.split_once('-').ok_or_else(bad)?;
    let port = |s: &str| s.trim().parse::<u16>().ok().filter(|p| *p > 0 && !s.contains('+'));
    let (first, last) = port(first).zip(port(last)).ok_or_else(bad)?;
    if first > last {
        return Err((
            format!("the range of ports '{written}' ends before it starts"),
            format!("write \"{last}-{first}\""),
        ));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_printed() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("1.5s", 1500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("3d4h", 273_600_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(duration(text), Ok(Millis(ms)), "{text}");
            assert_eq!(duration(&Millis(ms).to_string()), Ok(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_says_what_was_meant() {
        for (text, fix) in [
            ("90", "write \"90s\""),
            ("5 minutes", "write \"5m\""),
            ("5M", "write \"5m\""),
            ("10 sec", "write \"10s\""),
            ("2 Hours", "write \"2h\""),
        ] {
            assert_eq!(duration(text).unwrap_err().1, fix, "{text}");
        }
        for text in [
            "",
            "m",
            "5x",
            "-5s",
            "1.s",
            ".5s",
            "1.5ms",
            "30m1h",
            "5s5s",
            "1 h",
            "9999999999999999999s",
            "５s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("400d").unwrap_err().1, "write at most \"365d\"");
    }

    #[test]
    fn shares_are_exact_and_below_everything() {
        for (text, bp) in
            [("5", 500), ("0.01", 1), ("12.5", 1250), ("99.99", 9999), ("12.500", 1250), ("33.33", 3333)]
        {
            assert_eq!(share(text, "share").map(Bp::get), Ok(bp), "{text}");
        }
        for text in [
            "0",
            "0.0",
            "100",
            "100.0",
            "0.001",
            "12.345",
            "-5",
            "+5",
            "1e1",
            "nan",
            "inf",
            "",
            ".5",
            "99999999999999999999",
            "5%",
        ] {
            assert!(share(text, "share").is_err(), "{text}");
        }
    }

    #[test]
    fn port_ranges_have_both_ends() {
        assert_eq!(port_range("9000-9015"), Ok((9000, 9015)));
        assert_eq!(port_range("1-65535"), Ok((1, 65_535)));
        for text in ["", "9000", "0-9", "9000-", "-9000", "9000-70000", "a-b", "9000-9001-9002", "+9000-9001"]
        {
            assert!(port_range(text).is_err(), "{text}");
        }
        assert_eq!(port_range("9015-9000").unwrap_err().1, "write \"9000-9015\"");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_printed_in_one_unit_is_read_back(text in "\\PC*", n in 0u64..100_000) {
            let _ = (duration(&text), share(&text, "share"), port_range(&text));
            proptest::prop_assert_eq!(duration(&format!("{n}s")).ok().map(|m| m.0), (n * 1000 <= LONGEST).then_some(n * 1000));
        }

        #[test]
        fn every_share_is_read_back_from_its_printed_form(bp in 1u64..10_000) {
            let text = Bp::saturating(bp).human();
            proptest::prop_assert_eq!(share(text.trim_end_matches('%'), "share"), Ok(Bp::saturating(bp)));
        }
    }
}
