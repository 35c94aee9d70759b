//! The process engine: instances are processes on this machine, each watched over by a small shim of its own.
//!
//! A newcomer without Docker gets a real fleet from it. Nothing here remembers anything: all that is known of an
//! instance is in its directory (see `files`), so that a controller that starts again sees what is there.

mod artifact;
mod changes;
pub(crate) mod clean;
mod files;
mod log;
mod observe;
mod shim;
mod start;
mod usage;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use self::shim::run as shim;

use self::artifact::Hashes;
use self::files::{InstanceDir, Spec};
use super::{BoxStream, Details, Engine, EngineError, LogLine, Usage};
use crate::fleet::model::Run;
use crate::fleet::names::{FleetName, InstanceId, Millis, Version};
use crate::rollout::world::{InstanceSpec, ObservedInstance, Restart};
use crate::text::Safe;

/// Longest look at all instances.
const OBSERVE: Duration = Duration::from_secs(5);
/// Added to the grace of a stop.
const STOP_EXTRA: Duration = Duration::from_secs(5);
/// How often a stopping instance is looked at.
const POLL: Duration = Duration::from_millis(15);

/// Runs instances as processes on this machine.
pub struct ProcessEngine {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    shim_program: PathBuf,
    hashes: Hashes,
    /// Instances between their spec and their shim's first word: a look at them would see them as ended.
    starting: Mutex<BTreeSet<InstanceId>>,
}

impl ProcessEngine {
    /// An engine that keeps its instances under `dir` (made when needed) and starts them through
    /// `shim_program shim DIR`, which is normally this very program.
    #[must_use]
    pub fn new(dir: PathBuf, shim_program: PathBuf) -> Self {
        let inner = Inner { dir, shim_program, hashes: Hashes::default(), starting: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    fn instance(&self, id: &InstanceId) -> InstanceDir {
        InstanceDir::new(self.dir.join(id.as_str()))
    }

    /// The instance's directory if there is such an instance of this fleet.
    fn ours(&self, fleet: &FleetName, id: &InstanceId) -> Result<Option<(InstanceDir, Spec)>, EngineError> {
        let dir = self.instance(id);
        match dir.spec() {
            Ok(None) => Ok(None),
            Ok(Some(spec)) if spec.fleet == *fleet && spec.id == *id => Ok(Some((dir, spec))),
            Ok(Some(spec)) => Err(foreign(format!(
                "{} holds instance {} of fleet {}, not of {fleet}: left alone",
                dir.path.display(),
                spec.id,
                spec.fleet
            ))),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(foreign(format!("{} is not one of ours ({e}): left alone", dir.path.display())))
            }
            Err(e) => Err(unknown(format!("cannot read {}: {e}", dir.path.display()))),
        }
    }

    fn must_be_ours(&self, fleet: &FleetName, id: &InstanceId) -> Result<(InstanceDir, Spec), EngineError> {
        self.ours(fleet, id)?
            .ok_or_else(|| refused(format!("there is no instance {id} in {}", self.dir.display())))
    }

    fn is_starting(&self, id: &InstanceId) -> bool {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

pub(super) fn unknown(text: impl AsRef<str>) -> EngineError {
    EngineError::Unknown(Safe::new(text.as_ref()))
}

pub(super) fn refused(text: impl AsRef<str>) -> EngineError {
    EngineError::Refused(Safe::new(text.as_ref()))
}

pub(super) fn foreign(text: impl AsRef<str>) -> EngineError {
    EngineError::Foreign(Safe::new(text.as_ref()))
}

#[async_trait]
impl Engine for ProcessEngine {
    async fn resolve(&self, run: &Run, version: &Version) -> Result<Option<String>, EngineError> {
        let (inner, run, version) = (Arc::clone(&self.inner), run.clone(), version.clone());
        blocking(artifact::DEADLINE, move || inner.hashes.digest(&run, &version, &inner.shim_program)).await
    }

    async fn ensure_artifact(&self, run: &Run, version: &Version, digest: &str) -> Result<(), EngineError> {
        match self.resolve(run, version).await? {
            Some(found) if found == digest => Ok(()),
            Some(found) => Err(refused(format!(
                "the program of version {version} has changed: it is now {found}, expected {digest}; \
                 deploy it under another version"
            ))),
            None => Err(refused(format!("the program of version {version} is not on this machine"))),
        }
    }

    async fn observe(&self, fleet: &FleetName) -> Result<Vec<ObservedInstance>, EngineError> {
        let (inner, fleet) = (Arc::clone(&self.inner), fleet.clone());
        blocking(OBSERVE, move || inner.observe(&fleet)).await
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<ObservedInstance, EngineError> {
        self.ensure_artifact(&spec.run, &spec.version, &spec.digest).await?;
        self.inner.start(spec).await
    }

    async fn stop(&self, fleet: &FleetName, id: &InstanceId, grace: Millis) -> Result<(), EngineError> {
        let Some((dir, _)) = self.inner.ours(fleet, id)? else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + grace.duration() + STOP_EXTRA;
        let mut told = false;
        loop {
            match dir.try_look() {
                Ok(Some(look)) => return blocking(OBSERVE, move || observe::bury(&dir, &look)).await,
                Ok(None) if !told => told = tell(&dir, grace).is_ok(),
                Ok(None) => {}
                Err(e) => return Err(unknown(format!("cannot look at {}: {e}", dir.path.display()))),
            }
            if tokio::time::Instant::now() > deadline {
                return Err(unknown(format!("instance {id} has not ended {STOP_EXTRA:?} after its grace")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn remove(&self, fleet: &FleetName, id: &InstanceId) -> Result<(), EngineError> {
        let Some((dir, _)) = self.inner.ours(fleet, id)? else { return Ok(()) };
        if self.inner.is_starting(id) {
            return Err(refused(format!("instance {id} is being started: stop it first")));
        }
        let name = dir.path.display().to_string();
        let failed = |e: io::Error| unknown(format!("cannot remove {name}: {e}"));
        let look = dir.try_look().map_err(failed)?;
        let Some(look) = look else {
            return Err(refused(format!("instance {id} runs: stop it first")));
        };
        let path = dir.path.clone();
        let _look = blocking(OBSERVE, move || observe::bury(&dir, &look).map(|()| look)).await?;
        // Renamed first, so that half a directory is never taken for an instance.
        let gone = self.inner.dir.join(format!(".gone-{id}-{}", std::process::id()));
        match fs::rename(&path, &gone).and_then(|()| fs::remove_dir_all(&gone)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(()),
        }
    }

    async fn set_restart(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        restart: Restart,
    ) -> Result<(), EngineError> {
        let (dir, _) = self.inner.must_be_ours(fleet, id)?;
        dir.write_restart(restart).map_err(|e| unknown(format!("cannot write {}: {e}", dir.path.display())))
    }

    async fn logs(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<LogLine>, EngineError> {
        let (dir, _) = self.inner.must_be_ours(fleet, id)?;
        Ok(log::read(dir.path, tail, follow))
    }

    async fn details(&self, fleet: &FleetName, id: &InstanceId) -> Result<Details, EngineError> {
        let (dir, spec) = self.inner.must_be_ours(fleet, id)?;
        blocking(OBSERVE, move || {
            dir.status()
                .map(|status| observe::details(&dir, spec, &status))
                .map_err(|e| unknown(format!("cannot look at {}: {e}", dir.path.display())))
        })
        .await
    }

    async fn usage(&self, fleet: &FleetName, id: &InstanceId) -> Result<BoxStream<Usage>, EngineError> {
        let (dir, _) = self.inner.must_be_ours(fleet, id)?;
        Ok(usage::watch(dir))
    }

    async fn changes(&self, _fleet: &FleetName) -> Result<BoxStream<()>, EngineError> {
        self.inner.make_dir()?;
        Ok(changes::watch(self.inner.dir.clone()))
    }

    async fn claim(&self, fleet: &FleetName, owner: &str, force: bool) -> Result<String, EngineError> {
        self.inner.make_dir()?;
        self.inner
            .claim(fleet, owner, force)
            .map_err(|e| unknown(format!("cannot claim {}: {e}", self.inner.dir.display())))
    }

    async fn versions(&self, _run: &Run) -> Result<Vec<Version>, EngineError> {
        Ok(Vec::new())
    }
}

impl Inner {
    fn make_dir(&self) -> Result<(), EngineError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|e| refused(format!("cannot make {}: {e}", self.dir.display())))
    }

    /// The marker is written elsewhere and then linked: it appears with its content, or not at all.
    fn claim(&self, fleet: &FleetName, owner: &str, force: bool) -> io::Result<String> {
        let marker = self.dir.join(format!("owner-{fleet}"));
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(e.to_string()))?;
        let draft = self.dir.join(format!(".owner-{:016x}", u64::from_ne_bytes(nonce)));
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(owner.as_bytes())?;
        file.sync_all()?;
        let placed = if force { fs::rename(&draft, &marker) } else { fs::hard_link(&draft, &marker) };
        if !force {
            fs::remove_file(&draft)?;
        }
        match placed {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => fs::read_to_string(&marker),
        }
    }
}

/// Gives the shim the order to stop. An error means that nobody reads the orders (any more).
fn tell(dir: &InstanceDir, grace: Millis) -> io::Result<()> {
    // Without a reader, opening fails rather than waits.
    let mut pipe = fs::OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default())
        .open(dir.file("control"))?;
    pipe.write_all(format!("stop {}\n", grace.0).as_bytes())
}

async fn blocking<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(e)) => Err(unknown(format!("the process engine broke off: {e}"))),
        Err(_) => Err(unknown(format!("the file system did not answer within {deadline:?}"))),
    }
}
