//! Rates: parts of a whole, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of a whole, more than 0 and less than 1.
///
/// Written down as text, so that it is read back bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

// It is never NaN.
impl Eq for Rate {}

/// What is wrong with a rate, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// It is no number.
    #[error("it is not a number: write a fraction such as 0.005, or the same in per cent, 0.5%")]
    NotANumber,
    /// It is 0, 1 or outside.
    #[error("it must be more than 0 and less than 1 (100%): write a fraction such as 0.005, or 0.5%")]
    Outside,
}

impl Rate {
    /// 0.005: half a point, the tolerance when nobody says anything else.
    pub const TOLERANCE: Self = Self(0.005);
    /// 0.01: the chance of ever aborting a candidate that is within tolerance.
    pub const ALPHA: Self = Self(0.01);
    /// 0.05: the same for a pass, and 95 % for the upper bound.
    pub const ALPHA_PASS: Self = Self(0.05);
    /// 0.05: how many more of the candidate's answers may be slower than stable's median.
    pub const SLOWER_MEDIAN: Self = Self(0.05);
    /// 0.02: the same for stable's 95th percentile.
    pub const SLOWER_TAIL: Self = Self(0.02);

    /// A rate, when `fraction` is more than 0 and less than 1.
    #[must_use]
    pub fn new(fraction: f64) -> Option<Self> {
        (fraction > 0.0 && fraction < 1.0).then_some(Self(fraction))
    }

    /// As a fraction, between 0 and 1.
    #[must_use]
    pub const fn fraction(self) -> f64 {
        self.0
    }

    /// `ln(1/rate)`: the evidence at which a process of this level decides.
    #[must_use]
    pub fn threshold(self) -> f64 {
        (1.0 / self.0).ln()
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    /// `0.005` or `0.5%`; a space before the sign is allowed.
    fn from_str(written: &str) -> Result<Self, BadRate> {
        let text = written.trim();
        let (number, whole) = match text.strip_suffix('%') {
            Some(per_cent) => (per_cent.trim_end(), 100.0),
            None => (text, 1.0),
        };
        let number =
            number.parse::<f64>().map_err(|_not_said: std::num::ParseFloatError| BadRate::NotANumber)?;
        if number.is_nan() {
            return Err(BadRate::NotANumber);
        }
        Self::new(number / whole).ok_or(BadRate::Outside)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_per_cents_mean_the_same() {
        for (written, meant) in
            [("0.005", 0.005), ("0.5%", 0.005), (" 0.5 % ", 0.005), ("1%", 0.01), ("5e-3", 0.005)]
        {
            assert_eq!(written.parse::<Rate>().map(Rate::fraction), Ok(meant), "{written}");
        }
        for bad in ["0", "1", "100%", "-0.1", "2", "0%", "inf", "-inf"] {
            assert_eq!(bad.parse::<Rate>(), Err(BadRate::Outside), "{bad}");
        }
        for bad in ["", "%", "half", "NaN", "0,5", "0.5%%", "5 points"] {
            assert_eq!(bad.parse::<Rate>(), Err(BadRate::NotANumber), "{bad}");
        }
        assert_eq!((Rate::new(f64::NAN), Rate::new(1.0), Rate::new(0.0)), (None, None, None));
    }
}
