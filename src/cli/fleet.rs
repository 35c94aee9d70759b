//! What every command that talks to a controller needs: the fleet file, and a connection.

use std::path::Path;

use super::Exit;
use super::out::complain;
use crate::api::{ApiError, ErrorCode, FleetRequest, Verb, VerbRequest};
use crate::client::{Client, ClientError};
use crate::controller::lock::LockError;
use crate::controller::start::{self, StartError};
use crate::fleet::{self, Loaded};
use crate::text::Safe;

/// A fleet file that was read, and the connection to its controller.
pub(super) struct Fleet {
    /// The file and what it declares.
    pub(super) loaded: Loaded,
    /// The controller.
    pub(super) client: Client,
}

/// Reads the fleet file; says what is wrong with it.
///
/// # Errors
/// The exit code to end with; everything has been said.
pub(super) fn load(explicit: Option<&Path>) -> Result<Loaded, Exit> {
    let file = fleet::find(explicit).map_err(|e| {
        complain(&format!("pilothouse: {e}\n"));
        Exit::Usage
    })?;
    fleet::load(&file).map_err(|problems| {
        complain(&format!("{problems}\n"));
        Exit::Usage
    })
}

impl Fleet {
    /// Reads the fleet file and connects to the controller, which is started when none runs.
    ///
    /// # Errors
    /// The exit code to end with; everything has been said.
    pub(super) async fn connect(explicit: Option<&Path>) -> Result<Self, Exit> {
        let loaded = load(explicit)?;
        let client = start::connect(&loaded.fleet, &loaded.file).await.map_err(|e| {
            complain(&format!("pilothouse: {e}\n"));
            match e {
                StartError::Lock(LockError::Held(_)) => Exit::Held,
                StartError::MustServe(_) => Exit::Usage,
                StartError::Lock(LockError::Directory { .. })
                | StartError::Failed(_)
                | StartError::Client(_) => Exit::Failed,
            }
        })?;
        Ok(Self { loaded, client })
    }

    /// The fleet file's path and hash, as it was read here.
    pub(super) fn read(&self) -> (String, String) {
        (self.file(), self.loaded.fleet.hash.clone())
    }

    /// The fleet file's path, absolute.
    fn file(&self) -> String {
        self.loaded.file.to_string_lossy().into_owned()
    }

    /// A verb, with the fleet file as it was read here.
    pub(super) fn verb(&self, verb: Verb, options: &VerbOptions) -> VerbRequest {
        VerbRequest {
            verb,
            decision: options.decision,
            fleet_file: Some(self.file()),
            fleet_hash: Some(self.loaded.fleet.hash.clone()),
            by: options.by.as_deref().map(Safe::new),
        }
    }

    /// A request about the whole fleet.
    pub(super) fn request(&self, services: &[String], by: Option<&str>) -> FleetRequest {
        FleetRequest {
            adopt: false,
            fleet_file: self.file(),
            fleet_hash: self.loaded.fleet.hash.clone(),
            services: services.to_vec(),
            by: by.map(Safe::new),
        }
    }
}

/// Options that all verbs share.
#[derive(clap::Args)]
pub(super) struct VerbOptions {
    /// Only if this still is the decision number (`status` shows it); refused when something changed since
    #[arg(long, value_name = "N")]
    pub(super) decision: Option<u64>,
    /// A name to show beside the login name, for example a CI job's
    #[arg(long, value_name = "NAME", env = "PILOTHOUSE_BY")]
    pub(super) by: Option<String>,
}

/// Says what went wrong and with which exit code to end.
pub(super) fn failed(e: &ClientError) -> Exit {
    complain(&format!("pilothouse: {e}\n"));
    match e {
        ClientError::Refused(ApiError { code, .. }) => match code {
            ErrorCode::BadRequest | ErrorCode::NotFound => Exit::Usage,
            ErrorCode::Foreign => Exit::Held,
            ErrorCode::Stale | ErrorCode::Refused | ErrorCode::Unavailable => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

/// Runs a command's future.
///
/// # Errors
/// When the runtime cannot be made, or the command fails in an unforeseen way.
pub(super) fn block_on<F>(command: F) -> color_eyre::Result<Exit>
where
    F: Future<Output = color_eyre::Result<Exit>>,
{
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
