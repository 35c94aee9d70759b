//! The Docker engine: instances are containers, found again by a deterministic name and proven by labels and image.
//!
//! Nothing is remembered that dockerd does not say again (the cache only spares inspections), so that a restart of
//! either side needs nothing from the caller.

mod adopted;
mod auth;
mod client;
mod containers;
mod details;
mod images;
mod observe;
mod streams;
mod survey;
mod theirs;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptionsBuilder;

use self::adopted::Marker;
use self::client::Client;
use self::observe::Cache;
pub use self::survey::{Container, survey};
pub use self::theirs::{Look, Theirs};
use super::{Adoptable, BoxStream, Details, Engine, EngineError, LogLine, Usage, Wanted};
use crate::fleet::model::Run;
use crate::fleet::names::{FleetName, InstanceId, Millis, Version};
use crate::rollout::world::{InstanceSpec, ObservedInstance, Restart};
use crate::text::Safe;

const LABEL_FLEET: &str = "io.pilothouse.fleet";
const LABEL_SERVICE: &str = "io.pilothouse.service";
const LABEL_INSTANCE: &str = "io.pilothouse.instance";
const LABEL_REVISION: &str = "io.pilothouse.revision";
const LABEL_VERSION: &str = "io.pilothouse.version";
const LABEL_ROLLOUT: &str = "io.pilothouse.rollout";
const LABEL_DIGEST: &str = "io.pilothouse.digest";
/// Port that the application listens on: dockerd does not say which of the exposed ones it is.
const LABEL_PORT: &str = "io.pilothouse.port";
const LABEL_OWNER: &str = "io.pilothouse.owner";

/// Longest claim: a volume made, perhaps another one removed before.
const CLAIM: Duration = Duration::from_secs(10);

/// Runs instances as containers of one Docker Engine.
#[derive(Clone)]
pub struct DockerEngine {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    cache: Mutex<Cache>,
    /// What is known of adopted containers; `None` when it has to be asked for.
    adopted: tokio::sync::Mutex<Option<Vec<Marker>>>,
}

impl DockerEngine {
    /// The engine behind `socket`. Nothing is connected yet: an engine that is down shows in the calls, and works
    /// as soon as it is up.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        Self {
            inner: Arc::new(Inner {
                client: Client::new(socket),
                cache: Mutex::default(),
                adopted: tokio::sync::Mutex::default(),
            }),
        }
    }
}

impl Inner {
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn release(&self, fleet: &FleetName, owner: &str) -> Result<(), EngineError> {
        if self.claim(fleet, owner, false).await? == owner {
            self.remove_claim(&format!("pilothouse-owner-{fleet}")).await?;
        }
        Ok(())
    }

    async fn remove_claim(&self, name: &str) -> Result<(), EngineError> {
        let docker = self.client.docker()?;
        let options = RemoveVolumeOptionsBuilder::default().build();
        let removed = docker.remove_volume(name, Some(options));
        self.client.find("remove the claim", CLAIM, removed).await.map_err(|e| e.at(&self.client))?;
        Ok(())
    }

    async fn claim(&self, fleet: &FleetName, owner: &str, force: bool) -> Result<String, EngineError> {
        let name = format!("pilothouse-owner-{fleet}");
        let docker = self.client.docker()?;
        if force {
            self.remove_claim(&name).await?;
        }
        // Making a volume that exists already gives back the one that is there: the first wins, all learn who.
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(HashMap::from([
                (LABEL_FLEET.to_owned(), fleet.to_string()),
                (LABEL_OWNER.to_owned(), owner.to_owned()),
            ])),
            ..VolumeCreateRequest::default()
        };
        let made = self.client.call("claim", CLAIM, docker.create_volume(request)).await;
        let volume = made.map_err(|e| e.at(&self.client))?;
        volume.labels.get(LABEL_OWNER).cloned().ok_or_else(|| {
            EngineError::Foreign(Safe::from(format!(
                "volume {name} on {} was not made by pilothouse: remove it, or rename the fleet",
                self.client.at()
            )))
        })
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn resolve(&self, run: &Run, version: &Version) -> Result<Option<String>, EngineError> {
        self.inner.resolve(run, version).await
    }

    async fn ensure_artifact(&self, run: &Run, version: &Version, digest: &str) -> Result<(), EngineError> {
        self.inner.ensure(run, version, digest).await.map(drop)
    }

    async fn observe(&self, fleet: &FleetName) -> Result<Vec<ObservedInstance>, EngineError> {
        let mut all = self.inner.observe(fleet).await?;
        all.extend(self.inner.observe_adopted(fleet).await?);
        Ok(all)
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<ObservedInstance, EngineError> {
        match &spec.adopts {
            Some(container) => self.inner.adopt(spec, container).await,
            None => self.inner.start(spec).await,
        }
    }

    async fn stop(&self, fleet: &FleetName, id: &InstanceId, grace: Millis) -> Result<(), EngineError> {
        self.inner.stop(fleet, id, grace).await
    }

    async fn remove(&self, fleet: &FleetName, id: &InstanceId) -> Result<(), EngineError> {
        self.inner.remove(fleet, id).await
    }

    async fn let_go(&self, fleet: &FleetName, id: &InstanceId) -> Result<(), EngineError> {
        self.inner.let_go(fleet, id).await
    }

    async fn adoptable(&self, wanted: &Wanted<'_>) -> Result<Vec<Adoptable>, EngineError> {
        self.inner.adoptable(wanted).await
    }

    async fn set_restart(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        restart: Restart,
    ) -> Result<(), EngineError> {
        self.inner.set_restart(fleet, id, restart).await
    }

    async fn logs(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<LogLine>, EngineError> {
        let container = self.inner.must_be_ours(fleet, id).await?;
        streams::logs(Arc::clone(&self.inner), container, tail, follow)
    }

    async fn details(&self, fleet: &FleetName, id: &InstanceId) -> Result<Details, EngineError> {
        self.inner.details(fleet, id).await
    }

    async fn usage(&self, fleet: &FleetName, id: &InstanceId) -> Result<BoxStream<Usage>, EngineError> {
        let container = self.inner.must_be_ours(fleet, id).await?;
        streams::usage(&self.inner, &container)
    }

    async fn changes(&self, fleet: &FleetName) -> Result<BoxStream<()>, EngineError> {
        streams::changes(Arc::clone(&self.inner), fleet)
    }

    async fn claim(&self, fleet: &FleetName, owner: &str, force: bool) -> Result<String, EngineError> {
        self.inner.claim(fleet, owner, force).await
    }

    async fn release(&self, fleet: &FleetName, owner: &str) -> Result<(), EngineError> {
        self.inner.release(fleet, owner).await
    }

    async fn versions(&self, run: &Run) -> Result<Vec<Version>, EngineError> {
        self.inner.versions(run).await
    }
}
