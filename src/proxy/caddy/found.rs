//! A Caddy that runs already: what the fleet file says of it.

use std::path::{Path, PathBuf};

use crate::proxy::found::{Found, Process, Setting, free};

pub(in crate::proxy) fn found(process: &Process) -> Option<Found> {
    if process.name != "caddy" {
        return None;
    }
    let config = process.after("--config").next().map(|c| process.path(c));
    let mut notes = Vec::new();
    if config.as_ref().is_some_and(|c| c.extension().is_some_and(|e| e == "json")) {
        notes.push(
            "it is configured by JSON: Pilothouse needs one that is configured by a Caddyfile".to_owned(),
        );
    }
    let why = if config.is_some() { "as it was started" } else { "a guess: it was started without --config" };
    let config = config.unwrap_or_else(|| PathBuf::from("/etc/caddy/Caddyfile"));
    let mut settings = vec![
        Setting::text("dir", "/etc/caddy/pilothouse", "a directory for Pilothouse alone"),
        Setting::path("config", &config, why),
        Setting::text("status", &free(8404), "where Pilothouse's own lines listen; nothing else does now"),
        Setting::text("log", &free(5140), "where it sends what is counted; nothing else listens there now"),
    ];
    let program = process.program.as_deref();
    if let Some(program) = program.filter(|p| *p != Path::new("/usr/bin/caddy")) {
        settings.push(Setting::path("binary", program, "what runs now"));
    }
    Some(Found { kind: "caddy", pid: process.pid, container: None, settings, notes })
}
