//! `[services.NAME.checks.NAME]`: what is asked about a candidate while it takes requests.

use toml::de::DeValue;

use super::duration;
use crate::fleet::ctx::{At, Ctx};
use crate::fleet::hosts::name;
use crate::fleet::keys;
use crate::fleet::model::{Ask, CHECK_PLACEHOLDERS, Check, Limit};
use crate::fleet::names::{CheckName, Millis};
use crate::fleet::proxies::program;
use crate::fleet::read::Section;
use crate::fleet::suggest::nearest;

const TYPES: [&str; 3] = ["prometheus", "http", "command"];
const QUERY: &str = "query = 'sum(rate(http_requests_total{version=\"{version}\",code=~\"5..\"}[1m]))'";

/// The checks of a service, in the order of the file.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Vec<Check> {
    let tables = section.tables(ctx, "checks");
    let mut checks = Vec::new();
    for (written, table) in tables {
        let name = name::<CheckName>(ctx, &written);
        table.check_keys(ctx, &keys::CHECK);
        let ask = ask(ctx, &table);
        let interval = duration(ctx, &table, "interval", Millis::secs(1), Millis::secs(10));
        let timeout = duration(ctx, &table, "timeout", Millis(100), Millis::secs(5));
        let failures = table.whole(ctx, "failures", 1, 100).map_or(2, |f| f.value);
        let dry_run = table.flag(ctx, "dry_run").is_some_and(|f| f.value);
        if let (Some(name), Some(ask)) = (name, ask) {
            checks.push(Check { name, ask, interval, timeout, failures, dry_run });
        }
    }
    checks
}

fn ask(ctx: &mut Ctx<'_>, table: &Section<'_>) -> Option<Ask> {
    table.missing(ctx, "type", "type = \"prometheus\", \"http\" or \"command\"");
    let kind = table.text(ctx, "type")?;
    let why = format!("means nothing to type = \"{}\"", kind.value);
    let mut others = |keys: &[&str]| table.refuse(ctx, keys, &why, "remove the line, or change the type");
    match kind.value {
        "prometheus" => {
            others(&["command"]);
            prometheus(ctx, table)
        }
        "http" => {
            others(&["query", "min", "max", "command"]);
            table.missing(ctx, "url", "url = \"http://127.0.0.1:9000/gate?version={version}\"");
            Some(Ask::Http { url: url(ctx, table)? })
        }
        "command" => {
            others(&["url", "query", "min", "max"]);
            table.missing(ctx, "command", "command = [\"./smoke-test\", \"{version}\"]");
            Some(Ask::Command { argv: command(ctx, table)? })
        }
        other => {
            let fix = match nearest(other, TYPES) {
                Some(near) => format!("write type = \"{near}\""),
                None => "write \"prometheus\", \"http\" or \"command\"".to_owned(),
            };
            ctx.error(&kind.span, &format!("unknown type of check '{other}'"), &fix);
            None
        }
    }
}

fn prometheus(ctx: &mut Ctx<'_>, table: &Section<'_>) -> Option<Ask> {
    table.missing(ctx, "url", "url = \"http://127.0.0.1:9090\", where the Prometheus is");
    table.missing(ctx, "query", QUERY);
    let url = url(ctx, table);
    let query = table.filled(ctx, "query");
    if let Some(query) = &query {
        placeholders(ctx, query);
    }
    let (min, max) = (limit(ctx, table, "min"), limit(ctx, table, "max"));
    if !table.has("min") && !table.has("max") {
        let message = format!("nothing says which values are good{}", table.place());
        let span = table.key_span("query").unwrap_or_else(|| table.span.clone());
        ctx.mismatch(&span, &message, "add max = 0.05, or min, or both");
    }
    if let (Some(low), Some(high)) = (&min, &max)
        && low.value > high.value
    {
        let message = format!("no value is good{}: 'min' is above 'max'", table.place());
        ctx.error(&low.span, &message, "exchange them");
    }
    Some(Ask::Prometheus {
        url: url?.trim_end_matches('/').to_owned(),
        query: query?.value.to_owned(),
        min: min.map(|m| m.value),
        max: max.map(|m| m.value),
    })
}

/// A URL that can be asked.
fn url(ctx: &mut Ctx<'_>, table: &Section<'_>) -> Option<String> {
    let text = table.filled(ctx, "url")?;
    // A name and a password would be in the journal, and on every screen.
    if text.value.contains('@') {
        let span = table.key_span("url").unwrap_or_else(|| table.span.clone());
        let message = format!("'url'{} holds a name or a password", table.place());
        ctx.error_unseen(&span, &message, "ask through something that adds them, or with a command");
        return None;
    }
    placeholders(ctx, &text);
    let example = "write one like \"http://127.0.0.1:9090\"";
    match reqwest::Url::parse(text.value) {
        Ok(url) if !["http", "https"].contains(&url.scheme()) => {
            let message =
                format!("'url'{} cannot be asked: only http:// and https:// are spoken", table.place());
            ctx.error(&text.span, &message, example);
            None
        }
        Ok(_) => Some(text.value.to_owned()),
        Err(e) => {
            ctx.error(&text.span, &format!("'url'{} is no URL: {e}", table.place()), example);
            None
        }
    }
}

fn command(ctx: &mut Ctx<'_>, table: &Section<'_>) -> Option<Vec<String>> {
    let list = table.texts(ctx, "command")?;
    let Some(first) = list.value.first().filter(|f| !f.value.trim().is_empty()) else {
        let message = format!("'command'{} names no program", table.place());
        ctx.error(
            &list.span,
            &message,
            "write the program and its arguments: [\"./smoke-test\", \"{version}\"]",
        );
        return None;
    };
    list.value.iter().for_each(|arg| placeholders(ctx, arg));
    let mut argv: Vec<String> = list.value.iter().map(|a| a.value.to_owned()).collect();
    if let Some(file) = argv.first_mut() {
        *file = program(ctx, first.value).to_string_lossy().into_owned();
    }
    Some(argv)
}

/// Warns about `{verison}`; other braces are PromQL's.
fn placeholders(ctx: &mut Ctx<'_>, text: &At<&str>) {
    for part in text.value.split('{').skip(1) {
        let Some((word, _)) = part.split_once('}') else { continue };
        if !CHECK_PLACEHOLDERS.contains(&word)
            && let Some(near) = nearest(word, CHECK_PLACEHOLDERS)
        {
            let message = format!("'{{{word}}}' is not replaced by anything");
            ctx.warn(&text.span, &message, &format!("write {{{near}}}"));
        }
    }
}

/// A number, with decimals or without.
fn limit(ctx: &mut Ctx<'_>, table: &Section<'_>, key: &str) -> Option<At<Limit>> {
    let (_, v) = table.entries().find(|(k, _)| k.value == key)?;
    let span = v.span();
    let number = match v.get_ref() {
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
        DeValue::Float(n) => n.as_str().parse::<f64>().ok(),
        _ => None,
    };
    if let Some(value) = number.and_then(Limit::new) {
        return Some(At { value, span });
    }
    let message = format!("'{key}'{} must be a number", table.place());
    ctx.error(&span, &message, &format!("write {key} = 0.05"));
    None
}
