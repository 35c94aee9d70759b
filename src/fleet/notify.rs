//! `[notify.NAME]`: who is told about rollouts, and how.
//!
//! Lines with an address or a token in them are never shown: both may be secrets.

use std::collections::BTreeMap;

use super::ctx::{At, Ctx};
use super::env_file::is_name;
use super::hosts::name;
use super::keys::{self, Keys};
use super::model::{Given, Notify, NotifyEvent, NotifyKind};
use super::names::{Millis, ServiceName, TargetName};
use super::problem::Span;
use super::proxies::program;
use super::read::Section;
use super::suggest::nearest;

const KINDS: &str = "this version knows 'webhook', 'slack' and 'command'";

/// Everybody who is told.
pub(super) fn read(ctx: &mut Ctx<'_>, top: &Section<'_>) -> BTreeMap<TargetName, Notify> {
    let mut out = BTreeMap::new();
    let services = top.names_in("services");
    for (written, section) in top.tables(ctx, "notify") {
        let name = name::<TargetName>(ctx, &written);
        let to = kind(ctx, &section);
        let events = events(ctx, &section);
        let services = of_services(ctx, &section, &services);
        let timeout = section.duration(ctx, "timeout", Millis(100)).map_or(Millis::secs(10), |d| d.value);
        let retry_for = section.duration(ctx, "retry_for", Millis(0)).map_or(Millis::secs(600), |d| d.value);
        if let (Some(name), Some(to)) = (name, to) {
            out.insert(name.clone(), Notify { name, to, events, services, timeout, retry_for });
        }
    }
    out
}

fn kind(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<NotifyKind> {
    section.missing(ctx, "type", &format!("type = \"webhook\"; {KINDS}"));
    let written = section.text(ctx, "type")?;
    let known: &Keys = match written.value {
        "webhook" => &keys::WEBHOOK,
        "slack" => &keys::SLACK,
        "command" => &keys::NOTIFY_COMMAND,
        other => {
            let fix = match nearest(other, ["webhook", "slack", "command"]) {
                Some(near) => format!("write type = \"{near}\""),
                None => KINDS.to_owned(),
            };
            ctx.error(&written.span, &format!("unknown type of notification '{other}'"), &fix);
            return None;
        }
    };
    // Its own message says more than that the key is unknown.
    if written.value != "slack" || !section.has("url") {
        section.check_keys_unseen(ctx, known);
    }
    match written.value {
        "webhook" => {
            let url = url(ctx, section, true);
            let token = given(ctx, section, "token");
            let token_header = token_header(ctx, section, token.is_some());
            Some(NotifyKind::Webhook { url: url?, token, token_header })
        }
        "slack" => Some(NotifyKind::Slack { url: url(ctx, section, false)? }),
        _ => Some(NotifyKind::Command { argv: argv(ctx, section)? }),
    }
}

/// `KEY_file` or `KEY_env`.
fn given(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str) -> Option<Given> {
    let (file_key, env_key) = (format!("{key}_file"), format!("{key}_env"));
    if section.has(&file_key) && section.has(&env_key) {
        refuse(ctx, section, &env_key, &format!("keep it or {file_key}"));
    }
    if section.has(&file_key) {
        let path = section.path(ctx, &file_key)?;
        if section.text(ctx, &file_key).is_some_and(|t| t.value.contains("://")) {
            let message = format!("'{file_key}'{} is an address and no path", section.place());
            ctx.error_unseen(
                &key_of(section, &file_key),
                &message,
                "put the address into a file, and name that",
            );
            return None;
        }
        return Some(Given::File(path.value));
    }
    let text = section.filled(ctx, &env_key)?;
    if !is_name(text.value) {
        let message = format!("'{env_key}'{} is not the name of an environment variable", section.place());
        ctx.error_unseen(
            &key_of(section, &env_key),
            &message,
            "write a name out of A-Z, a-z, 0-9 and _, never the value itself",
        );
        return None;
    }
    Some(Given::Env(text.value.to_owned()))
}

/// Where a key stands: what is said points at it and not at its value, which may be a secret.
fn key_of(section: &Section<'_>, key: &str) -> Span {
    section.key_span(key).unwrap_or_else(|| section.span.clone())
}

/// One key too many.
fn refuse(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str, fix: &str) {
    let message = format!("'{key}'{} stands beside another that says the same", section.place());
    ctx.error_unseen(&key_of(section, key), &message, fix);
}

/// Where to: out of a file or the environment, or as it is where that is no secret.
fn url(ctx: &mut Ctx<'_>, section: &Section<'_>, plain: bool) -> Option<Given> {
    let secret = section.has("url_file") || section.has("url_env");
    if !section.has("url") {
        if !secret {
            section.missing(
                ctx,
                "url_file",
                "url_file = \"/etc/pilothouse/hook-url\" (or url_env = \"NAME\")",
            );
        }
        return given(ctx, section, "url");
    }
    if secret {
        refuse(ctx, section, "url", "keep one of url, url_file and url_env");
    }
    let (place, span) = (section.place(), &key_of(section, "url"));
    if !plain {
        let message = format!("'url'{place}: whoever knows the address of a channel can write there");
        ctx.error_unseen(span, &message, "put it into a file, and name that with url_file");
        return None;
    }
    if !section.is_text("url") {
        ctx.error_unseen(span, &format!("'url'{place} must be a text"), "put it into quotes");
        return None;
    }
    let value = &section.filled(ctx, "url")?.value;
    let Some(url) = reqwest::Url::parse(value).ok().filter(|u| u.has_host()) else {
        let fix = "write https:// or http://, a host, and a path";
        ctx.error_unseen(span, &format!("'url'{place} is not an address"), fix);
        return None;
    };
    if !matches!(url.scheme(), "http" | "https") {
        ctx.error_unseen(span, &format!("'url'{place} is neither http:// nor https://"), "write https://");
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message = format!("'url'{place} holds a password, and what stands here is kept in the journal");
        ctx.error_unseen(span, &message, "put the whole address into a file, and name that with url_file");
        return None;
    }
    if url.query().is_some() {
        let message = format!("if what follows the ? in 'url'{place} is a secret, it is kept in the journal");
        ctx.warn_unseen(span, &message, "put the whole address into a file, and name that with url_file");
    }
    Some(Given::Plain((*value).to_owned()))
}

fn token_header(ctx: &mut Ctx<'_>, section: &Section<'_>, has_token: bool) -> Option<String> {
    let text = section.filled(ctx, "token_header")?;
    if text.value.parse::<reqwest::header::HeaderName>().is_err() {
        let message = format!("'{}' cannot be the name of a header", text.value);
        ctx.error(&text.span, &message, "write one like X-Token");
        return None;
    }
    if !has_token && !section.has("token_file") && !section.has("token_env") {
        let message = format!("'token_header'{} has no token to carry", section.place());
        ctx.error(&text.span, &message, "add token_file = \"PATH\" or token_env = \"NAME\"");
    }
    Some(text.value.to_owned())
}

fn argv(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<Vec<String>> {
    section.missing(ctx, "run", "run = [\"/usr/local/bin/tell\"]");
    let list = section.texts(ctx, "run")?;
    let Some(first) = list.value.first().filter(|f| !f.value.trim().is_empty()) else {
        let message = format!("'run'{} names no program", section.place());
        ctx.error(
            &list.span,
            &message,
            "write the program and its arguments, for example [\"./tell\", \"ops\"]",
        );
        return None;
    };
    let mut argv: Vec<String> = list.value.iter().map(|a| a.value.to_owned()).collect();
    if let Some(file) = argv.first_mut() {
        *file = program(ctx, first.value).to_string_lossy().into_owned();
    }
    Some(argv)
}

fn events(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Vec<NotifyEvent> {
    let Some(list) = section.texts(ctx, "events") else { return NotifyEvent::ALL.into() };
    let words = || NotifyEvent::ALL.iter().map(|e| e.as_str());
    if section.is_empty_list("events") {
        let message = format!("'events'{} is empty: nobody would be told anything", section.place());
        ctx.error(&list.span, &message, "name some, or remove the line for all");
    }
    let mut out = Vec::new();
    for At { value, span } in &list.value {
        match NotifyEvent::ALL.iter().find(|e| e.as_str() == *value) {
            Some(event) if out.contains(event) => {
                ctx.error(span, &format!("'{value}' stands there twice"), "remove one of them");
            }
            Some(event) => out.push(*event),
            None => {
                let all = words().collect::<Vec<_>>().join(", ");
                let fix = nearest(value, words())
                    .map_or(format!("write some of {all}"), |near| format!("write \"{near}\""));
                ctx.error(span, &format!("unknown event '{value}'"), &fix);
            }
        }
    }
    out
}

fn of_services(ctx: &mut Ctx<'_>, section: &Section<'_>, declared: &[&str]) -> Vec<ServiceName> {
    let Some(list) = section.texts(ctx, "services") else { return Vec::new() };
    if section.is_empty_list("services") {
        let message = format!("'services'{} is empty", section.place());
        ctx.error(&list.span, &message, "name some, or remove the line for all");
    }
    let mut out = Vec::new();
    for At { value, span } in &list.value {
        if declared.contains(value) {
            out.extend(value.parse().ok());
            continue;
        }
        let fix = match nearest(value, declared.iter().copied()) {
            Some(near) => format!("write \"{near}\" instead"),
            None => "write the name of a [services.NAME] table".to_owned(),
        };
        ctx.mismatch(span, &format!("unknown service '{value}'{}", section.place()), &fix);
    }
    out
}
