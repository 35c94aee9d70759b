//! Real programs that a test needs: missing ones are reported loudly, or fail when `PILOTHOUSE_REQUIRE` names them.

#[path = "skipped.rs"]
pub mod skipped;

use std::path::PathBuf;

/// The path of `program`, looked up in `PATH` and the system directories.
///
/// # Panics
/// When it is missing and `PILOTHOUSE_REQUIRE` (a comma-separated list) contains it.
pub fn program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|p| p.is_file());
    if found.is_none() {
        missing(program, "not installed");
    }
    found
}

/// Says that a part is missing, and why.
///
/// # Panics
/// When `PILOTHOUSE_REQUIRE` contains it.
pub fn missing(part: &str, why: &str) {
    let required = std::env::var("PILOTHOUSE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| r.trim() == part), "{part} is required: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    skipped::skipped(&format!("SKIPPED {part}: {test}: {why}; this test proved nothing"));
}
