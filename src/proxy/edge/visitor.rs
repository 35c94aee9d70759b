//! What a request says about its visitor: a rule it follows, the place it has, and how it is told a new one.

use hyper::header::{self, HeaderMap, HeaderValue};

use crate::fleet::model::{Rule, RuleBy};

/// Places are 0 to one less than this, as a throw of the dice is.
const PLACES: u16 = 10_000;

/// Whether a request has the header or cookie of `rule`, with exactly its value.
pub(super) fn follows(headers: &HeaderMap, rule: &Rule) -> bool {
    match rule.by {
        RuleBy::Header => headers.get_all(&rule.name).iter().any(|v| v == rule.value.as_str()),
        RuleBy::Cookie => cookies(headers).any(|(name, value)| (name, value) == (&rule.name, &rule.value)),
    }
}

/// The place in the cookie named `name`: one to four digits. Two cookies of that name say nothing.
pub(super) fn place(headers: &HeaderMap, name: &str) -> Option<u16> {
    let mut all = cookies(headers).filter(|(n, _)| *n == name).map(|(_, value)| value);
    let value = all.next().filter(|_| all.next().is_none())?;
    let digits = (1..=4).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|place| digits && *place < PLACES)
}

/// Tells a visitor their place: until their browser ends, on every path, out of reach of scripts.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, place: u16) {
    let text = format!("{name}={place}; Path=/; HttpOnly; SameSite=Lax");
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.append(header::SET_COOKIE, value);
    }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| std::str::from_utf8(v.as_bytes()).ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookies: &[&'static str]) -> HeaderMap {
        cookies.iter().map(|c| (header::COOKIE, HeaderValue::from_static(c))).collect()
    }

    #[test]
    fn a_place_is_one_number_below_ten_thousand() {
        for (cookies, want) in [
            (&["a=1; ph=42;b=2"][..], Some(42)),
            (&["a=1", "ph=9999"], Some(9999)),
            (&["ph=0"], Some(0)),
            (&["ph=10000"], None),
            (&["ph=-1"], None),
            (&["ph=+1"], None),
            (&["ph="], None),
            (&["ph=x"], None),
            (&["ph=1; ph=2"], None),
            (&["xph=1"], None),
            (&[], None),
        ] {
            assert_eq!(place(&with(cookies), "ph"), want, "{cookies:?}");
        }
    }

    #[test]
    fn a_rule_wants_the_exact_value() {
        let rule = |by, value: &str| Rule { by, name: "X-Variant".into(), value: value.into() };
        let mut headers = with(&["a=1; X-Variant=b"]);
        assert!(follows(&headers, &rule(RuleBy::Cookie, "b")));
        assert!(!follows(&headers, &rule(RuleBy::Cookie, "bc")));
        assert!(!follows(&headers, &rule(RuleBy::Header, "b")));
        headers.append("x-variant", HeaderValue::from_static("other"));
        headers.append("x-variant", HeaderValue::from_static("b, c"));
        assert!(!follows(&headers, &rule(RuleBy::Header, "b")));
        assert!(follows(&headers, &rule(RuleBy::Header, "b, c")), "any line of the header");
    }

    #[test]
    fn what_is_told_is_understood() {
        let mut headers = HeaderMap::new();
        set_cookie(&mut headers, "ph_shop_web", 500);
        assert_eq!(headers[header::SET_COOKIE], "ph_shop_web=500; Path=/; HttpOnly; SameSite=Lax");
    }
}
