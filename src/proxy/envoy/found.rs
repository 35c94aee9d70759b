//! An Envoy that runs already: what the fleet file says of it.

use crate::proxy::found::{Found, Process, Setting};

pub(in crate::proxy) fn found(process: &Process) -> Option<Found> {
    // It renames itself after its threads.
    if process.name != "envoy" {
        return None;
    }
    let settings = vec![
        Setting::text("dir", "/etc/envoy/pilothouse", "a directory for Pilothouse alone"),
        Setting::text("admin", "127.0.0.1:9901", "a guess: the address of 'admin' in its configuration"),
    ];
    Some(Found { kind: "envoy", pid: process.pid, container: None, settings, notes: Vec::new() })
}
