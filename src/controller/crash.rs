//! Dying on purpose, for the test that does it at every step: with `PILOTHOUSE_CRASH_AT=n` in the environment of
//! `pilothouse serve`, the controller kills itself with SIGKILL at the n-th boundary between two steps that matter. No
//! fleet file and no request can ask for it, and commands that start a controller do not hand the variable on.

use std::sync::atomic::{AtomicU64, Ordering};

/// The variable; 1 is the first boundary.
pub const VARIABLE: &str = "PILOTHOUSE_CRASH_AT";

/// Boundaries until the end; 0 when there is none.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Reads the environment; called once, before the first boundary.
pub(super) fn arm() {
    let asked = std::env::var(VARIABLE).ok().and_then(|n| n.parse().ok());
    LEFT.store(asked.unwrap_or(0), Ordering::Relaxed);
}

/// A place between two steps: before and after each write of the journal, and before and after each effect.
pub(super) fn boundary() {
    if LEFT.load(Ordering::Relaxed) == 0 {
        return;
    }
    // Nobody else stores once it is armed; whoever takes the last one ends it for all.
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
