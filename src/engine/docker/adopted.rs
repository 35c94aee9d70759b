//! Containers that ran before Pilothouse did and were adopted. Labels cannot be given to a container that runs, so what
//! one is to us is written on a volume beside it: dockerd still says everything again after a restart of either side.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, Volume, VolumeCreateRequest};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder,
};

use super::containers::labels_of;
use super::images::familiar;
use super::observe::{self, INSPECT, digest_of};
use super::{Inner, LABEL_FLEET, LABEL_INSTANCE, LABEL_PORT};
use crate::engine::{Adoptable, EngineError, Wanted};
use crate::fleet::model::{Address, Run};
use crate::fleet::names::{FleetName, InstanceId};
use crate::rollout::world::{InstanceSpec, ObservedInstance};
use crate::text::Safe;

/// The container that a volume is about.
const LABEL_ADOPTS: &str = "io.pilothouse.adopts";
/// Where it is reached, as far as its own settings leave that open.
const LABEL_ADDRESS: &str = "io.pilothouse.address";
const LABEL_REACH: &str = "io.pilothouse.reach";

pub(super) const LIST: Duration = Duration::from_secs(5);
const MARK: Duration = Duration::from_secs(10);

/// What one adopted container is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    volume: String,
    instance: InstanceId,
    container: String,
    labels: HashMap<String, String>,
}

impl Marker {
    fn of(volume: &Volume) -> Option<Self> {
        let labels = volume.labels.clone();
        Some(Self {
            volume: volume.name.clone(),
            instance: labels.get(LABEL_INSTANCE)?.parse().ok()?,
            container: labels.get(LABEL_ADOPTS)?.clone(),
            labels,
        })
    }

    fn get(&self, label: &str) -> Option<&str> {
        self.labels.get(label).map(String::as_str)
    }

    /// The instance that the container is, as dockerd sees it now.
    fn instance(&self, c: &ContainerInspectResponse) -> Option<ObservedInstance> {
        let reach =
            if self.get(LABEL_REACH) == Some("container") { Address::Container } else { Address::Published };
        let (port, host) = (self.get(LABEL_PORT)?.parse().ok()?, self.get(LABEL_ADDRESS)?.parse().ok()?);
        let seen = observe::described(
            c,
            observe::Named::read(|name| self.get(name))?,
            reached(c, port, reach, host),
        )?;
        Some(ObservedInstance { adopts: Some(Safe::new(&self.container)), ..seen })
    }
}

impl Inner {
    /// Asked once, and again after a change of ours: nobody else makes or removes them.
    async fn markers(&self, fleet: &FleetName) -> Result<Vec<Marker>, EngineError> {
        let mut known = self.adopted.lock().await;
        if let Some(markers) = &*known {
            return Ok(markers.clone());
        }
        let label = format!("{LABEL_FLEET}={fleet}");
        let filters = HashMap::from([("label", vec![label.as_str(), LABEL_ADOPTS])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let list = self.client.docker()?.list_volumes(Some(options));
        let list = self.client.call("list volumes", LIST, list).await.map_err(|e| e.at(&self.client))?;
        let markers: Vec<Marker> = list.volumes.iter().flatten().filter_map(Marker::of).collect();
        *known = Some(markers.clone());
        Ok(markers)
    }

    /// The adopted containers as they are now.
    pub(super) async fn observe_adopted(
        &self,
        fleet: &FleetName,
    ) -> Result<Vec<ObservedInstance>, EngineError> {
        let mut out = Vec::new();
        for marker in self.markers(fleet).await? {
            if let Some(found) = self.inspect_container(&marker.container).await? {
                out.extend(marker.instance(&found));
            }
        }
        Ok(out)
    }

    /// The container that was adopted as `id`, if it is there.
    pub(super) async fn adopted_as(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
    ) -> Result<Option<(String, ContainerInspectResponse)>, EngineError> {
        let Some(marker) = self.markers(fleet).await?.into_iter().find(|m| m.instance == *id) else {
            return Ok(None);
        };
        let found = self.inspect_container(&marker.container).await?;
        Ok(found.and_then(|c| c.id.clone().map(|id| (id, c))))
    }

    /// Makes `container` the instance, after having looked that it runs what it should; starts it when it does not run.
    pub(super) async fn adopt(
        &self,
        spec: &InstanceSpec,
        container: &str,
    ) -> Result<ObservedInstance, EngineError> {
        let Some(found) = self.inspect_container(container).await? else {
            return Err(self.refused(&format!("the container {container} that was adopted is gone")));
        };
        let runs = digest_of(&found).unwrap_or_default();
        if runs != spec.digest {
            return Err(EngineError::Foreign(Safe::from(format!(
                "{}: the container {container} runs {runs}, not {}: it cannot be {}",
                self.client.at(),
                spec.digest,
                spec.id
            ))));
        }
        let marked = self.markers(&spec.fleet).await?.iter().any(|m| m.instance == spec.id);
        if !marked {
            self.mark(spec, container).await?;
        }
        if !observe::is_running(&found) {
            let start = self.client.docker()?.start_container(container, None);
            self.client
                .call("start an adopted container", MARK, start)
                .await
                .map_err(|e| e.at(&self.client))?;
        }
        let seen = self.observe_adopted(&spec.fleet).await?;
        seen.into_iter().find(|i| i.id == spec.id).ok_or_else(|| {
            EngineError::Unknown(Safe::from(format!(
                "{}: {} was adopted and cannot be read back: look again",
                self.client.at(),
                spec.id
            )))
        })
    }

    async fn mark(&self, spec: &InstanceSpec, container: &str) -> Result<(), EngineError> {
        let name = format!("pilothouse-adopted-{}", spec.id.engine_name(&spec.fleet));
        let reach = if spec.reach == Address::Container { "container" } else { "published" };
        let mut labels = labels_of(spec);
        labels.extend(
            [
                (LABEL_ADDRESS, spec.address.to_string()),
                (LABEL_REACH, reach.to_owned()),
                (LABEL_ADOPTS, container.to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        // Held until it is made: a look that began before would be remembered as what is there now.
        let mut known = self.adopted.lock().await;
        *known = None;
        let made = self.client.docker()?.create_volume(request);
        let made = self.client.call("mark an adopted container", MARK, made).await;
        let made = made.map_err(|e| e.at(&self.client))?;
        if made.labels.get(LABEL_ADOPTS).map(String::as_str) != Some(container) {
            return Err(EngineError::Foreign(Safe::from(format!(
                "volume {name} on {} is about another container: remove it",
                self.client.at()
            ))));
        }
        Ok(())
    }

    /// Forgets what was adopted as `id`; the container is not touched.
    pub(super) async fn let_go(&self, fleet: &FleetName, id: &InstanceId) -> Result<(), EngineError> {
        for marker in self.markers(fleet).await?.into_iter().filter(|m| m.instance == *id) {
            let mut known = self.adopted.lock().await;
            *known = None;
            let options = RemoveVolumeOptionsBuilder::default().build();
            let removed = self.client.docker()?.remove_volume(&marker.volume, Some(options));
            let removed = self.client.find("forget an adopted container", MARK, removed).await;
            removed.map_err(|e| e.at(&self.client))?;
        }
        Ok(())
    }

    /// What runs here of the service's image and is nobody's: not ours, nor another fleet's.
    pub(super) async fn adoptable(&self, wanted: &Wanted<'_>) -> Result<Vec<Adoptable>, EngineError> {
        let Run::Image { repository, .. } = wanted.run else { return Ok(Vec::new()) };
        let options = ListContainersOptionsBuilder::default().build();
        let list = self.client.docker()?.list_containers(Some(options));
        let list = self.client.call("list containers", LIST, list).await.map_err(|e| e.at(&self.client))?;
        let mut out = Vec::new();
        for summary in list {
            let ours = summary.labels.as_ref().is_some_and(|l| l.contains_key(LABEL_FLEET));
            let Some(id) = summary.id.filter(|_| !ours) else { continue };
            let call = self.client.docker()?.inspect_container(&id, None);
            let found = self.client.find("look at a container", INSPECT, call).await;
            let Some(found) = found.map_err(|e| e.at(&self.client))? else { continue };
            let made_from = found.config.as_ref().and_then(|c| c.image.clone()).unwrap_or_default();
            let (name, tag) = split_tag(&made_from);
            let Some(digest) = digest_of(&found).filter(|_| familiar(name) == familiar(repository)) else {
                continue;
            };
            let endpoint = reached(&found, wanted.port, wanted.reach, wanted.address);
            out.push(Adoptable {
                container: Safe::new(&id),
                name: Safe::new(found.name.as_deref().unwrap_or(&id).trim_start_matches('/')),
                version: tag.and_then(|t| t.parse().ok()),
                digest,
                endpoint,
            });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }
}

/// Name and tag of an image as a container was made from it. A colon before the last slash belongs to a registry's port.
pub(super) fn split_tag(image: &str) -> (&str, Option<&str>) {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
        _ => (name, None),
    }
}

/// Where a container is reached on `port`: as published, or at its own address. One that is published on every address
/// of the host is reached at `host`.
fn reached(c: &ContainerInspectResponse, port: u16, reach: Address, host: IpAddr) -> Option<SocketAddr> {
    if reach == Address::Container {
        return observe::own_address(c, port);
    }
    let key = format!("{port}/tcp");
    let now = c.network_settings.as_ref().and_then(|n| n.ports.as_ref()).and_then(|p| p.get(&key));
    let wanted = c.host_config.as_ref().and_then(|h| h.port_bindings.as_ref()).and_then(|b| b.get(&key));
    let bindings = now.and_then(Option::as_ref).or_else(|| wanted.and_then(Option::as_ref))?;
    let at = |b: &bollard::models::PortBinding| {
        let ip: Option<IpAddr> = b.host_ip.as_deref().and_then(|ip| ip.parse().ok());
        let ip = ip.filter(|ip| !ip.is_unspecified()).unwrap_or(host);
        Some(SocketAddr::new(ip, b.host_port.as_deref()?.parse().ok()?))
    };
    // Published on another address of the host, loopback for instance, it cannot be reached from where the proxies are.
    bindings.iter().filter_map(at).find(|a| a.ip() == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_port_is_no_tag() {
        assert_eq!(split_tag("shop/web:1.0"), ("shop/web", Some("1.0")));
        assert_eq!(split_tag("127.0.0.1:5000/web"), ("127.0.0.1:5000/web", None));
        assert_eq!(split_tag("127.0.0.1:5000/web:2@sha256:ab"), ("127.0.0.1:5000/web", Some("2")));
        assert_eq!(split_tag("sha256:abcd"), ("sha256", Some("abcd")), "no repository is called so");
    }
}
