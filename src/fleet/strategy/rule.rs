//! `{ header = "X-Preview", value = "green" }`: requests that reach the candidate whatever its share.
//!
//! Names and values go into the configuration of proxies, so only what is harmless in all of them is taken.

use super::Around;
use crate::fleet::ctx::{At, Ctx};
use crate::fleet::keys::Keys;
use crate::fleet::model::{Rule, RuleBy};
use crate::fleet::read::Section;

/// The table of a rule, wherever one stands.
pub(in crate::fleet) const RULE: Keys = Keys {
    header: "a rule ('preview', 'tester', 'candidate')",
    schema: "/$defs/rule/properties",
    keys: &["header", "cookie", "value"],
};

/// Longest name and longest value, in characters.
const LONGEST: usize = 64;
/// Cookies that the proxies set themselves start with this.
const RESERVED: &str = "ph_";

/// The rule `key`; `header` is what the examples use.
pub(super) fn read(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    key: &str,
    header: &str,
    around: &Around<'_>,
) -> Option<Rule> {
    let span = section.key_span(key)?;
    around.needs_proxy(ctx, &span, &format!("'{key}'{}", section.place()), "remove it");
    let example = format!("{{ header = \"{header}\", value = \"yes\" }}");
    let table = section.inline_table(ctx, key, &example)?;
    table.check_keys(ctx, &RULE);
    let by = match (table.has("header"), table.has("cookie")) {
        (true, true) => {
            let message = format!("both 'header' and 'cookie'{}", table.place());
            ctx.error(&table.key_span("cookie")?, &message, "keep one of them");
            return None;
        }
        (false, false) => {
            let or = format!("header = \"{header}\", or cookie = \"{}\"", header.to_lowercase());
            table.missing(ctx, "header", &or);
            None
        }
        (true, false) => Some((RuleBy::Header, "header")),
        (false, true) => Some((RuleBy::Cookie, "cookie")),
    };
    table.missing(ctx, "value", "value = \"yes\": the exact value that is looked for");
    let value = table.text(ctx, "value").and_then(|v| value(ctx, &table, &v));
    let (by, name_key) = by?;
    let name = table.text(ctx, name_key)?;
    let name = name_of(ctx, by, name_key, &name)?;
    Some(Rule { by, name, value: value? })
}

fn name_of(ctx: &mut Ctx<'_>, by: RuleBy, key: &str, written: &At<&str>) -> Option<String> {
    let name = written.value;
    let problem = if name.is_empty() {
        Some((
            format!("the name of the {key} is empty"),
            format!("write a name, for example {key} = \"preview\""),
        ))
    } else if name.len() > LONGEST {
        let message = format!("the name of the {key} has more than {LONGEST} characters");
        Some((message, "write a shorter name".to_owned()))
    } else if !name.bytes().all(is_token) {
        let better: String = name.trim().trim_end_matches(':').chars().collect();
        let fix = if !better.is_empty() && better.bytes().all(is_token) {
            format!("write {key} = \"{better}\"")
        } else {
            "write letters, digits and '-', for example X-Preview (the characters of a token in RFC 9110)"
                .to_owned()
        };
        Some((format!("'{name}' is not the name of a {key}"), fix))
    } else if by == RuleBy::Cookie && name.starts_with(RESERVED) {
        let message = format!("cookies that start with {RESERVED} are those of Pilothouse: '{name}'");
        Some((message, "write another name".to_owned()))
    } else if by == RuleBy::Header && name.eq_ignore_ascii_case("cookie") {
        let message = "the Cookie header holds all cookies and never equals one value".to_owned();
        Some((message, "write cookie = \"NAME\" in place of header".to_owned()))
    } else {
        None
    };
    match problem {
        Some((message, fix)) => {
            ctx.error(&written.span, &message, &fix);
            None
        }
        None => Some(name.to_owned()),
    }
}

fn value(ctx: &mut Ctx<'_>, table: &Section<'_>, written: &At<&str>) -> Option<String> {
    let problem = if written.value.is_empty() {
        Some("is empty".to_owned())
    } else if written.value.len() > LONGEST {
        Some(format!("has more than {LONGEST} bytes"))
    } else {
        written.value.chars().find(|c| !fits_a_value(*c)).map(|c| match c {
            ' ' => "has a space".to_owned(),
            c if c.is_ascii_graphic() => format!("has a {c}"),
            _ => "has characters that are not visible ASCII".to_owned(),
        })
    };
    let Some(problem) = problem else { return Some(written.value.to_owned()) };
    let fix = format!(
        "write at most {LONGEST} letters, digits and signs, without spaces, quotes, commas, semicolons and backslashes"
    );
    ctx.error(&written.span, &format!("'value'{} {problem}", table.place()), &fix);
    None
}

/// A character of a token (RFC 9110, 5.6.2), which is what names of headers and of cookies are made of.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// What may stand in a cookie's value (RFC 6265, 4.1.1).
fn fits_a_value(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '"' | ';' | ',' | '\\')
}
