//! A HAProxy that runs already: what the fleet file says of it.

use std::path::{Path, PathBuf};

use crate::proxy::found::{Found, Process, Setting};

const MASTER: &str = "/run/haproxy/master.sock";

pub(in crate::proxy) fn found(process: &Process) -> Option<Found> {
    if process.name != "haproxy" {
        return None;
    }
    let files: Vec<PathBuf> = process.after("-f").map(|f| process.path(f)).collect();
    // `PATH`, `unix@PATH`, and options after a comma.
    let master = process.after("-S").next().and_then(|s| s.split(',').next());
    let master = master.map(|s| s.strip_prefix("unix@").unwrap_or(s)).filter(|s| !s.contains(':'));
    let mut notes = Vec::new();
    if master.is_none() {
        notes.push(format!("start it in master-worker mode: haproxy -W -S {MASTER} -f …"));
    }
    let config: Vec<toml::Value> = files.iter().map(|f| f.to_string_lossy().into_owned().into()).collect();
    let mut settings = vec![
        Setting::text(
            "dir",
            "/etc/haproxy/pilothouse",
            "a directory for Pilothouse alone, to be loaded as one more -f",
        ),
        match master {
            Some(at) => Setting::path("master_socket", &process.path(at), "as it was started"),
            None => Setting::text("master_socket", MASTER, "as it is to be started"),
        },
        Setting { key: "config", value: toml::Value::Array(config).to_string(), why: "as it was started" },
    ];
    let program = process.program.as_deref();
    if let Some(program) = program.filter(|p| *p != Path::new("/usr/sbin/haproxy")) {
        settings.push(Setting::path("binary", program, "what runs now"));
    }
    Some(Found { kind: "haproxy", pid: process.pid, container: None, settings, notes })
}
