//! Engines: where instances run. One small trait, one file (or folder) per engine.

pub mod docker;
mod lines;
pub mod process;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Stream;

use crate::fleet::model::{self, Address, Run};
use crate::fleet::names::{FleetName, InstanceId, Millis, Version};
use crate::rollout::world::{InstanceSpec, ObservedInstance, Restart};
use crate::text::Safe;

/// A stream that can be boxed and sent around.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// Why a call to an engine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No answer in time, or no connection: what happened is unknown. Look before trying again.
    #[error("{0}")]
    Unknown(Safe),
    /// The engine answered and refused: it certainly did not happen.
    #[error("{0}")]
    Refused(Safe),
    /// Something with the name exists that is not ours, or not what the journal says. Never touched.
    #[error("{0}")]
    Foreign(Safe),
}

/// CPU and memory of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU in per cent of one core.
    pub cpu_percent: f32,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// One line an instance wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whether it came from standard error.
    pub stderr: bool,
    /// The line, cleaned and cut.
    pub text: Safe,
    /// When it was written, by its host's clock, in milliseconds since 1970; `None` where nobody noted it.
    pub at_ms: Option<u64>,
}

/// What an engine says of one instance when somebody asks, beyond what is watched all the time. No value of its
/// environment: names only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The engine's own name for it: a container id, or `pid 4711`.
    pub runs_as: Safe,
    /// What it was made from: an image, or a program.
    pub image: Safe,
    /// Its labels, sorted.
    pub labels: Vec<(Safe, Safe)>,
    /// Names in its environment, sorted.
    pub env: Vec<Safe>,
    /// Its ports, in words (`127.0.0.1:9000 to 8080/tcp`).
    pub ports: Vec<Safe>,
    /// What the engine does when it exits by itself.
    pub restart: Option<Restart>,
    /// How it exited last.
    pub exit_code: Option<i32>,
    /// Whether it was ended for want of memory.
    pub oom: bool,
    /// Wall clock when it ended last, milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// What the engine says went wrong.
    pub error: Option<Safe>,
}

/// What a service needs of something that runs already.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How the service is run: the repository counts.
    pub run: &'a Run,
    /// Port that it listens on.
    pub port: u16,
    /// How it is to be reached.
    pub reach: Address,
    /// The host's address.
    pub address: IpAddr,
}

/// Something that runs on an engine and is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoptable {
    /// The engine's own id of it.
    pub container: Safe,
    /// Its name, for people.
    pub name: Safe,
    /// The tag it was made from.
    pub version: Option<Version>,
    /// The artifact it runs.
    pub digest: String,
    /// Where it is reached; `None` when the wanted port cannot be.
    pub endpoint: Option<SocketAddr>,
}

/// Where instances run. Every call ends within a deadline of the engine's own choosing; a deadline that passes is
/// [`EngineError::Unknown`]. Every call is absolute and may be repeated.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The exact artifact that `run` at `version` means on this engine now: an image digest (`sha256:…`) from the
    /// registry, the image id when there is no registry, or the hash of a program. `None` when it does not have it
    /// and nobody can say.
    async fn resolve(&self, run: &Run, version: &Version) -> Result<Option<String>, EngineError>;

    /// Makes sure that exactly `digest` is there and usable, pulling it when it is missing, and verifies it.
    async fn ensure_artifact(&self, run: &Run, version: &Version, digest: &str) -> Result<(), EngineError>;

    /// Every instance with this fleet's label, running or not.
    async fn observe(&self, fleet: &FleetName) -> Result<Vec<ObservedInstance>, EngineError>;

    /// Brings the instance into being and starts it, after having looked whether it is already there; reads it back.
    /// A kept, stopped instance with the same id and digest is started again as it is. One that adopts something makes
    /// that the instance.
    async fn start(&self, spec: &InstanceSpec) -> Result<ObservedInstance, EngineError>;

    /// Ends it: SIGTERM, after `grace` SIGKILL. Done when it no longer runs; fine when it never did.
    async fn stop(&self, fleet: &FleetName, id: &InstanceId, grace: Millis) -> Result<(), EngineError>;

    /// Removes a stopped instance and all that belongs to it. Fine when it is gone. Refuses a running one.
    async fn remove(&self, fleet: &FleetName, id: &InstanceId) -> Result<(), EngineError>;

    /// Forgets an instance that was adopted; what it was goes on running. Fine when there is none.
    async fn let_go(&self, _fleet: &FleetName, _id: &InstanceId) -> Result<(), EngineError> {
        Ok(())
    }

    /// What runs here, is nobody's and could be an instance of the service. Empty where nothing can run but by us.
    async fn adoptable(&self, _wanted: &Wanted<'_>) -> Result<Vec<Adoptable>, EngineError> {
        Ok(Vec::new())
    }

    /// Sets what the engine does when the instance exits by itself.
    async fn set_restart(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        restart: Restart,
    ) -> Result<(), EngineError>;

    /// The last `tail` lines and, with `follow`, what comes after; ends when the instance is removed.
    async fn logs(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<LogLine>, EngineError>;

    /// What there is to know of one instance, for people.
    async fn details(&self, fleet: &FleetName, id: &InstanceId) -> Result<Details, EngineError>;

    /// CPU and memory about every two seconds for as long as the stream is held.
    async fn usage(&self, fleet: &FleetName, id: &InstanceId) -> Result<BoxStream<Usage>, EngineError>;

    /// A hint that something about this fleet's instances changed: observe again. Ends when the connection does;
    /// the caller observes and subscribes again.
    async fn changes(&self, fleet: &FleetName) -> Result<BoxStream<()>, EngineError>;

    /// Claims the engine for this fleet's controller: writes a labelled marker naming `owner` when there is none,
    /// and returns who holds it (equal to `owner` on success). With `force` an older claim is replaced.
    async fn claim(&self, fleet: &FleetName, owner: &str, force: bool) -> Result<String, EngineError>;

    /// Gives up `owner`'s claim; fine when it has none. Only a demo, which leaves nothing, does so.
    async fn release(&self, _fleet: &FleetName, _owner: &str) -> Result<(), EngineError> {
        Ok(())
    }

    /// The versions of `run` that are already on this engine, newest first, for an operator to choose from. Empty
    /// when the engine has no such list.
    async fn versions(&self, _run: &Run) -> Result<Vec<Version>, EngineError> {
        Ok(Vec::new())
    }
}

/// The engine of a declared host. `state_dir` is the controller's (instances of a process host without a directory
/// of its own are kept under `hosts/HOST` in it), `program` this very binary. Nothing is connected or made yet.
#[must_use]
pub fn open(host: &model::Host, state_dir: &Path, program: &Path) -> Arc<dyn Engine> {
    match &host.engine {
        model::Engine::Docker { socket } => Arc::new(docker::DockerEngine::connect(socket)),
        model::Engine::Process { dir } => {
            let dir = dir.clone().unwrap_or_else(|| state_dir.join("hosts").join(host.name.as_str()));
            Arc::new(process::ProcessEngine::new(dir, program.to_owned()))
        }
    }
}

/// What every instance may know of itself, whatever runs it.
fn identity(want: &InstanceSpec) -> [(&'static str, String); 4] {
    [
        ("PILOTHOUSE_SERVICE", want.service.to_string()),
        ("PILOTHOUSE_VERSION", want.version.to_string()),
        ("PILOTHOUSE_REVISION", want.revision.to_string()),
        ("PILOTHOUSE_INSTANCE", want.id.to_string()),
    ]
}
