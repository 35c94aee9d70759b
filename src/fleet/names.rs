//! Names and numbers of the domain as types, so that they cannot be mixed up or be illegal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name, version or number was refused; the text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

fn check_label(kind: &str, s: &str, max: usize) -> Result<(), Invalid> {
    let ok = !s.is_empty()
        && s.len() <= max
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-');
    if ok {
        Ok(())
    } else {
        Err(Invalid(format!(
            "a {kind} name has 1 to {max} characters out of a-z, 0-9 and '-', and neither starts nor ends with '-'"
        )))
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(s: &str) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(s)?;
                Ok(Self(s.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(s: String) -> Result<Self, Invalid> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(v: $name) -> Self {
                v.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_id!(
    /// Name of a fleet: one `fleet.toml`, one controller.
    FleetName, |s| check_label("fleet", s, 32)
);
text_id!(
    /// Name of a check of a service.
    CheckName, |s| check_label("check", s, 32)
);
text_id!(
    /// Name of a host in the fleet file.
    HostName, |s| check_label("host", s, 40)
);
text_id!(
    /// Name of a proxy in the fleet file.
    ProxyName, |s| check_label("proxy", s, 40)
);
text_id!(
    /// Name of a service in the fleet file.
    ServiceName, |s| check_label("service", s, 40)
);
text_id!(
    /// Name of somebody who is told about rollouts, in the fleet file.
    TargetName, |s| check_label("notify", s, 40)
);
text_id!(
    /// Readable tag of a revision: what an image tag may be, `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
    Version,
    |s| {
        let ok = (1..=128).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            && !s.starts_with(['.', '-']);
        if ok { Ok(()) } else {
            Err(Invalid("a version has 1 to 128 characters out of A-Z, a-z, 0-9, '_', '.' and '-', \
                and does not start with '.' or '-'".into()))
        }
    }
);
text_id!(
    /// Identity of a revision: eight hex digits of the hash over image digest and configuration.
    RevisionId,
    |s| {
        if s.len() == 8 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) { Ok(()) } else {
            Err(Invalid("a revision id is eight lower-case hex digits".into()))
        }
    }
);
text_id!(
    /// Identity of an instance: `SERVICE-REVISION-N`. Engines call it `FLEET-SERVICE-REVISION-N`.
    InstanceId, |s| check_label("instance", s, 80)
);
text_id!(
    /// Identity of a rollout: `SERVICE-N`, counted per service from 1.
    RolloutId, |s| check_label("rollout", s, 64)
);

impl InstanceId {
    /// The deterministic id of instance number `n` of a revision of a service.
    #[must_use]
    pub fn of(service: &ServiceName, revision: &RevisionId, n: u32) -> Self {
        Self(format!("{service}-{revision}-{n}"))
    }

    /// The id of an attempt to run a hook of a rollout: `SERVICE-N-HOOK-ATTEMPT`.
    #[must_use]
    pub fn of_hook(rollout: &RolloutId, hook: &str, attempt: u32) -> Self {
        Self(format!("{rollout}-{hook}-{attempt}"))
    }

    /// The name the engine knows it by; it includes the fleet so that two fleets can share an engine.
    #[must_use]
    pub fn engine_name(&self, fleet: &FleetName) -> String {
        format!("{fleet}-{self}")
    }
}

impl RolloutId {
    /// The id of the `n`th rollout of a service.
    #[must_use]
    pub fn of(service: &ServiceName, n: u64) -> Self {
        Self(format!("{service}-{n}"))
    }
}

/// A share of a service's requests in basis points: 0 to 10,000, where 10,000 is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Bp(u16);

impl Bp {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Everything.
    pub const FULL: Self = Self(10_000);

    /// `value` basis points, limited to [`Bp::FULL`].
    #[must_use]
    pub fn saturating(value: u64) -> Self {
        Self(u16::try_from(value).unwrap_or(u16::MAX).min(10_000))
    }

    /// `percent` per cent, limited to 100.
    #[must_use]
    pub fn percent(percent: u16) -> Self {
        Self::saturating(u64::from(percent) * 100)
    }

    /// The fraction `part ÷ whole`, rounded down; nothing when `whole` is 0.
    #[must_use]
    pub fn ratio(part: u64, whole: u64) -> Self {
        part.saturating_mul(10_000).checked_div(whole).map_or(Self::ZERO, Self::saturating)
    }

    /// Basis points, 0 to 10,000.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// What is left to 100 %.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(10_000 - self.0)
    }

    /// Instances that carry this share when `replicas` carry everything: rounded up, at least one.
    #[must_use]
    pub fn instances_of(self, replicas: u32) -> u32 {
        let needed = (u64::from(replicas) * u64::from(self.0)).div_ceil(10_000);
        u32::try_from(needed).unwrap_or(replicas).max(1)
    }

    /// As per cent for people: `5%`, `12.5%`, `0.25%`.
    #[must_use]
    pub fn human(self) -> String {
        let (whole, frac) = (self.0 / 100, self.0 % 100);
        match frac {
            0 => format!("{whole}%"),
            f if f % 10 == 0 => format!("{whole}.{}%", f / 10),
            f => format!("{whole}.{f:02}%"),
        }
    }
}

impl TryFrom<u16> for Bp {
    type Error = Invalid;
    fn try_from(v: u16) -> Result<Self, Invalid> {
        if v <= 10_000 { Ok(Self(v)) } else { Err(Invalid(format!("{v} basis points is more than 10,000"))) }
    }
}

impl From<Bp> for u16 {
    fn from(v: Bp) -> Self {
        v.0
    }
}

impl fmt::Display for Bp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.human())
    }
}

/// A span of time in whole milliseconds: all that the core knows of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// `n` seconds.
    #[must_use]
    pub const fn secs(n: u64) -> Self {
        Self(n * 1000)
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// `self` and `more` added up.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// As the standard library's type.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    /// `850ms`, `12s`, `2m`, `1h30m`, `3d4h`: the two largest units, as the fleet file is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        let text = match ms {
            0 => "0s".to_owned(),
            1..1000 => format!("{ms}ms"),
            _ => {
                let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
                let mut rest = ms;
                let mut out = String::new();
                let mut taken = 0;
                for (size, unit) in units {
                    if taken < 2 && rest >= size {
                        out.push_str(&format!("{}{unit}", rest / size));
                        rest %= size;
                        taken += 1;
                    } else if taken > 0 {
                        break;
                    }
                }
                if taken == 1 && ms < 10_000 && rest > 0 {
                    out = format!("{:.1}s", ms as f64 / 1000.0);
                }
                out
            }
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        assert!("web".parse::<ServiceName>().is_ok());
        for bad in ["", "-web", "web-", "Web", "w b", "wéb", &"x".repeat(41)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<ServiceName>(r#""a/b""#).is_err());
        assert!("1.4.2-rc.1".parse::<Version>().is_ok());
        assert!("../x".parse::<Version>().is_err());
    }

    #[test]
    fn basis_points_print_as_per_cent() {
        assert_eq!(Bp::percent(5).human(), "5%");
        assert_eq!(Bp::saturating(1250).human(), "12.5%");
        assert_eq!(Bp::saturating(25).human(), "0.25%");
        assert_eq!(Bp::ratio(1, 3).get(), 3333);
        assert_eq!(Bp::ratio(1, 0), Bp::ZERO);
        assert!(serde_json::from_str::<Bp>("10001").is_err());
    }

    #[test]
    fn millis_print_as_a_person_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (850, "850ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (12_345, "12s"),
            (120_000, "2m"),
            (5_400_000, "1h30m"),
            (273_600_000, "3d4h"),
            (86_400_000, "1d"),
            (86_460_000, "1d"),
        ] {
            assert_eq!(Millis(ms).to_string(), text);
        }
    }
}
