//! `serve`: the controller in the foreground, or (from other commands) in the background.

use std::path::Path;

use super::Exit;
use super::fleet::load;
use super::out::complain;
use crate::controller::{self, ServeError, lock::LockError};

/// `serve`
#[derive(clap::Args)]
pub(super) struct Args {
    /// In a session of its own, as other commands start it
    #[arg(long, hide = true)]
    background: bool,
    /// End when this process does (a demo's controller)
    #[arg(long, hide = true, value_name = "PID")]
    leave_with: Option<u32>,
}

pub(super) fn run(file: Option<&Path>, a: &Args) -> color_eyre::Result<Exit> {
    let loaded = match load(file) {
        Ok(l) => l,
        Err(exit) => return Ok(exit),
    };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if a.background {
        // Fails only for a process that leads a group, which one started by a command does not.
        let _ = rustix::process::setsid();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let fleet = loaded.fleet.without_hosts_that_are_out();
    let served = runtime.block_on(controller::serve(&fleet, a.leave_with));
    match served {
        Ok(()) => Ok(Exit::Done),
        Err(e) => {
            complain(&format!("pilothouse: {e}\n"));
            Ok(match e {
                ServeError::Lock(LockError::Held(_)) => Exit::Held,
                _ => Exit::Failed,
            })
        }
    }
}
