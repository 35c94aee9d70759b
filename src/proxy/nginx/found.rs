//! An nginx that runs already: what the fleet file says of it.

use std::path::{Path, PathBuf};

use crate::proxy::found::{Found, Process, Setting, free};

pub(in crate::proxy) fn found(process: &Process) -> Option<Found> {
    // The master writes its command line over its arguments.
    let command = process.args.first()?.strip_prefix("nginx: master process ")?;
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let started = Process { args: words, ..process.clone() };
    let config =
        started.after("-c").next().map_or(PathBuf::from("/etc/nginx/nginx.conf"), |c| process.path(c));
    let text = process.read(&config);
    let pid = text.lines().find_map(|l| l.trim().strip_prefix("pid ")?.split(';').next().map(str::trim));
    let why =
        if pid.is_some() { "as its configuration has it" } else { "a guess: its configuration names none" };
    let pid = process.path(pid.unwrap_or("/run/nginx.pid"));
    let mut settings = vec![
        Setting::text("dir", "/etc/nginx/pilothouse", "a directory for Pilothouse alone"),
        Setting::path("config", &config, "as it was started"),
        Setting::path("pid", &pid, why),
        Setting::text("status", &free(8404), "where Pilothouse's own lines listen; nothing else does now"),
        Setting::text(
            "log",
            &free(5140),
            "where its lines send what is counted; nothing else listens there now",
        ),
    ];
    let program = process.program.as_deref();
    if let Some(program) = program.filter(|p| *p != Path::new("/usr/sbin/nginx")) {
        settings.push(Setting::path("binary", program, "what runs now"));
    }
    Some(Found { kind: "nginx", pid: process.pid, container: None, settings, notes: Vec::new() })
}
