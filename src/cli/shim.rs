//! `pilothouse shim DIR`: the process engine's watcher of one instance. Nobody types this.

use std::path::PathBuf;

use color_eyre::eyre::{Result, WrapErr};

use super::Exit;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The instance's directory
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Exit> {
    crate::engine::process::shim(&args.dir)
        .wrap_err_with(|| format!("cannot watch over the instance in {}", args.dir.display()))?;
    Ok(Exit::Done)
}
