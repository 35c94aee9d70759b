//! What is declared: `fleet.toml` → validated model, errors with line and column.
//!
//! The file is read with a parser that goes on after an error and is walked by hand, so that everything that is
//! wrong is shown at once, with what to write instead. docs/fleet-file.md is the reference for operators.

mod cross;
mod ctx;
pub mod env_file;
mod hosts;
pub mod keys;
mod machine;
mod metrics;
pub mod model;
pub mod names;
mod notify;
pub mod problem;
mod proxies;
mod read;
mod service;
mod strategy;
pub(crate) mod suggest;
mod syntax;
mod units;

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::text::hex;
use ctx::Ctx;
pub use machine::Machine;
use model::Fleet;
use names::FleetName;
pub use problem::{Problem, Problems, Severity};
use read::Section;

/// Larger files are neither fleet files nor environment files.
const MAX_BYTES: u64 = 1024 * 1024;

/// The variable that names the fleet file when there is none in the working directory.
pub const ENV_VAR: &str = "PILOTHOUSE_FLEET";

/// A fleet file that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it declares.
    pub fleet: Fleet,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Problem>,
    /// The file, absolute.
    pub file: PathBuf,
}

/// No fleet file was named and none is in the usual places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no fleet file: ./fleet.toml does not exist and ${ENV_VAR} is not set. \
     Name one with --fleet FILE, or write one (sample-fleet.toml is a start)"
)]
pub struct NotFound;

/// The fleet file to use: `explicit`, else `./fleet.toml`, else `$PILOTHOUSE_FLEET`.
///
/// # Errors
/// [`NotFound`] when none of them names a file. Whether a named file exists is for [`load`] to say.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, NotFound> {
    let named = std::env::var_os(ENV_VAR).filter(|v| !v.is_empty());
    match explicit {
        Some(file) => Ok(file.to_path_buf()),
        None if Path::new("fleet.toml").exists() => Ok(PathBuf::from("fleet.toml")),
        None => named.map(PathBuf::from).ok_or(NotFound),
    }
}

/// Reads and validates the fleet file at `path`.
///
/// # Errors
/// Everything that is wrong in it, or that it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let unreadable = |why: &str| {
        let message = format!("cannot read the fleet file: {why}");
        Problems::from(Problem::of_file(
            path,
            &message,
            "check the path given with --fleet, and its permissions",
        ))
    };
    let bytes = bytes_of(path).map_err(|why| unreadable(&why))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse_on(text, path, &Machine::this()),
        Err(e) => {
            let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|b| **b == b'\n').count() + 1;
            let message = "the line is not UTF-8 text";
            Err(Problem::of_line(path, line, message, "save the file as UTF-8").into())
        }
    }
}

/// The bytes of a file that an operator wrote, or why they cannot be had.
fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    // A FIFO or a device would block or never end.
    if !std::fs::metadata(path).map_err(|e| e.to_string())?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(bytes)
}

/// Validates `text` as the content of `file`. Relative paths in it start from the file's directory. Reads nothing
/// but the environment files it names.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(text: &str, file: &Path) -> Result<Loaded, Problems> {
    parse_on(text, file, &Machine::default())
}

/// As [`parse`], with warnings about what does not go well together with the machine.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse_on(text: &str, file: &Path, machine: &Machine) -> Result<Loaded, Problems> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let mut ctx = Ctx::new(problem::Source::new(file, text), self::ctx::base_of(&absolute));
    let readable = syntax::report(&mut ctx, text);
    let table = toml::de::DeTable::parse_recoverable(&readable).0.into_inner();
    let top = Section::top(&table);

    top.check_keys(&mut ctx, &keys::TOP);
    top.missing(&mut ctx, "name", "name = \"shop\", above all [tables]");
    let name = top.parsed::<FleetName>(&mut ctx, "name");
    let environment =
        top.filled(&mut ctx, "environment").map_or_else(|| "development".to_owned(), |e| e.value.to_owned());
    let production = top.flag(&mut ctx, "production").map(|p| p.value);
    let state_dir = top.path(&mut ctx, "state_dir").map(|p| p.value);
    let require_serve = top.flag(&mut ctx, "require_serve").is_some_and(|r| r.value);

    let metrics = metrics::read(&mut ctx, &top);
    let notify = notify::read(&mut ctx, &top);
    let hosts = hosts::read_hosts(&mut ctx, &top);
    let proxies = proxies::read_proxies(&mut ctx, &top);
    let services = service::read_all(&mut ctx, &top, &hosts, &proxies);
    if !top.has("services") && ctx.syntax_is_sound() {
        ctx.warn_unseen(&top.span, "the fleet has no services", "add a [services.NAME] table");
    }
    cross::check(&mut ctx, &hosts, &proxies, &services, metrics.as_ref());
    machine::check(&mut ctx, machine, &hosts, &services);

    let warnings = Problems::judge(file, ctx.finish())?;
    let Some(name) = name else {
        // Every way to have no name is reported above; this is for the case that one was forgotten.
        return Err(Problem::of_file(file, "the fleet has no name", "add name = \"shop\"").into());
    };
    let fleet = Fleet {
        name: name.value,
        production: production.unwrap_or(environment == "production"),
        environment,
        state_dir,
        require_serve,
        metrics: metrics.map(|m| m.value),
        notify,
        hosts: hosts.items.into_iter().map(|(n, h)| (n, h.value)).collect(),
        proxies: proxies.items.into_iter().map(|(n, p)| (n, p.value)).collect(),
        services: services.into_iter().map(|d| (d.service.name.clone(), d.service)).collect(),
        hash: hex(&Sha256::digest(text.as_bytes())),
    };
    Ok(Loaded { fleet, warnings, file: absolute })
}
