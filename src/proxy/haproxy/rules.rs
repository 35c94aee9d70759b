//! Rules (a header or cookie with an exact value) as entries of a map that HAProxy matches against a request's head.
//!
//! The operator's line looks `req.hdrs` up, all headers as one text (`name: value`, CR, LF, each), with `map_reg`. So
//! one line serves any header and any cookie that a fleet file ever names, and a rule comes and goes at run time. A
//! lookup by name, `req.fhdr(NAME)`, would need a line, a file and a reload per name.
//!
//! The expressions use only what PCRE and POSIX read alike, whichever HAProxy was built with, and hold no white
//! space, which would end a key. They can be read back: [`parse`] is the inverse of [`key`].

use std::fmt::Write as _;

use crate::fleet::model::{Rule, RuleBy};

/// Where a header's line begins: at the first, or after the line feed of the one before.
const BEGIN: &str = "(^|[[:cntrl:]])";
/// Between a header's name and value; HAProxy writes exactly this.
const COLON: &str = ":[[:blank:]]";
/// A header's value ends with its line.
const END: &str = "[[:cntrl:]]";
/// A cookie header, and the cookies before the one that is meant.
const COOKIES: &str = "cookie:[[:blank:]]([^[:cntrl:]]*;[[:blank:]]*)?";
/// A cookie's value ends with its line or before the next cookie.
const COOKIE_END: &str = "[[:blank:]]*(;|[[:cntrl:]])";
const BLANK: &str = "[[:blank:]]";

/// The key of `rule` in a service's map of rules.
///
/// # Errors
/// In words, when no request could ever match it, or when it would end the key.
pub(super) fn key(rule: &Rule) -> Result<String, String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let what = match rule.by {
        RuleBy::Header => "header",
        RuleBy::Cookie => "cookie",
    };
    if rule.name.is_empty() || !rule.name.chars().all(token) {
        return Err(format!("a {what} cannot be named {:?}", rule.name));
    }
    let value = &rule.value;
    if value.is_empty() || value.trim() != value || value.chars().any(|c| c.is_control()) {
        return Err(format!("the {what} {} cannot have the value {value:?}", rule.name));
    }
    if rule.by == RuleBy::Cookie && value.contains([' ', ';']) {
        return Err(format!("the cookie {} cannot have the value {value:?}", rule.name));
    }
    let value = literal(value);
    Ok(match rule.by {
        // HAProxy has lower-cased the names by then; as it was written it must be read back, all the same.
        RuleBy::Header => format!("{BEGIN}{}{COLON}{value}{END}", any_case(&rule.name)),
        RuleBy::Cookie => format!("{BEGIN}{COOKIES}{}={value}{COOKIE_END}", literal(&rule.name)),
    })
}

/// The rule whose key this is; `None` when Pilothouse did not write it.
pub(super) fn parse(text: &str) -> Option<Rule> {
    let inner = text.strip_prefix(BEGIN)?;
    let rule = if let Some(cookie) = inner.strip_prefix(COOKIES).and_then(|i| i.strip_suffix(COOKIE_END)) {
        let (name, value) = cookie.split_once('=')?;
        Rule { by: RuleBy::Cookie, name: plain(name)?, value: plain(value)? }
    } else {
        let (name, value) = inner.strip_suffix(END)?.split_once(COLON)?;
        Rule { by: RuleBy::Header, name: plain(name)?, value: plain(value)? }
    };
    (key(&rule).as_deref() == Ok(text)).then_some(rule)
}

/// An expression that matches exactly `text`.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            ' ' => out.push_str(BLANK),
            '^' | '\\' => {
                let _ = write!(out, "\\{c}");
            }
            // In brackets nothing else is special, in any dialect. Bytes above ASCII are themselves.
            c if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '-' && c != '_' => {
                let _ = write!(out, "[{c}]");
            }
            c => out.push(c),
        }
        out
    })
}

/// As [`literal`], and upper case also matches its lower case.
fn any_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_uppercase() {
            let _ = write!(out, "[{c}{}]", c.to_ascii_lowercase());
        } else {
            out.push_str(&literal(c.encode_utf8(&mut [0; 4])));
        }
        out
    })
}

/// The text that [`literal`] or [`any_case`] was given.
fn plain(mut expression: &str) -> Option<String> {
    let mut out = String::new();
    while let Some(c) = expression.chars().next() {
        let rest = expression.strip_prefix(c)?;
        expression = if let Some(rest) = expression.strip_prefix(BLANK) {
            out.push(' ');
            rest
        } else if c == '[' {
            let meant = rest.chars().next()?;
            out.push(meant);
            let rest = rest.strip_prefix(meant)?;
            let rest = match meant.is_ascii_uppercase() {
                true => rest.strip_prefix(meant.to_ascii_lowercase())?,
                false => rest,
            };
            rest.strip_prefix(']')?
        } else if c == '\\' {
            let meant = rest.chars().next()?;
            out.push(meant);
            rest.strip_prefix(meant)?
        } else {
            out.push(c);
            rest
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(by: RuleBy, name: &str, value: &str) -> Rule {
        Rule { by, name: name.into(), value: value.into() }
    }

    #[test]
    fn a_key_is_one_word_that_can_be_read_back() {
        assert_eq!(
            key(&rule(RuleBy::Header, "X-v", "b.1")).unwrap(),
            "(^|[[:cntrl:]])[Xx]-v:[[:blank:]]b[.]1[[:cntrl:]]"
        );
        for r in [
            rule(RuleBy::Header, "X-Variant", "b"),
            rule(RuleBy::Header, "x^v", "a b;c\\d^e]f[g\"h'i#j{k}l:m é"),
            rule(RuleBy::Header, "A]", "x"),
            rule(RuleBy::Cookie, "ph.try", "b=c]"),
            rule(RuleBy::Cookie, "Variant", "\\^[[:blank:]]"),
        ] {
            let Ok(k) = key(&r) else {
                assert_eq!(r.name, "A]");
                continue;
            };
            assert!(!k.contains(char::is_whitespace), "{k}");
            assert_eq!(parse(&k), Some(r), "{k}");
        }
    }

    #[test]
    fn what_no_request_can_carry_is_refused() {
        for (by, name, value) in [
            (RuleBy::Header, "x y", "b"),
            (RuleBy::Header, "", "b"),
            (RuleBy::Header, "x", "b\n0x1 (.*) other"),
            (RuleBy::Header, "x", " b"),
            (RuleBy::Header, "x", ""),
            (RuleBy::Cookie, "x", "a;b"),
            (RuleBy::Cookie, "x=y", "b"),
        ] {
            assert!(key(&rule(by, name, value)).is_err(), "{name:?} {value:?}");
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_no_rule_of_ours() {
        for text in ["", ".*", "(^|[[:cntrl:]])x:[[:blank:]].*[[:cntrl:]]", "(^|[[:cntrl:]])[", "x-variant"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_has_a_key_is_read_back(name in "[!-~]{1,12}", value in "[ -~é]{1,20}", cookie: bool) {
            let by = if cookie { RuleBy::Cookie } else { RuleBy::Header };
            let r = rule(by, &name, &value);
            if let Ok(k) = key(&r) {
                proptest::prop_assert_eq!(parse(&k), Some(r));
            }
        }

        #[test]
        fn garbage_never_panics(text in "(?s).{0,80}") {
            let _ = parse(&text);
        }
    }
}
