//! Making, starting, stopping and removing containers. Each call looks before it acts, and acts on the container's
//! id, so that what was looked at is what is touched.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerUpdateBody, HostConfig, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};

use super::client::Fail;
use super::observe::{INSPECT, digest_of, instance_of, is_running, label};
use super::{
    Inner, LABEL_DIGEST, LABEL_FLEET, LABEL_INSTANCE, LABEL_PORT, LABEL_REVISION, LABEL_ROLLOUT,
    LABEL_SERVICE, LABEL_VERSION,
};
use crate::engine::{EngineError, identity};
use crate::fleet::model::{Address, Run};
use crate::fleet::names::{FleetName, InstanceId, Millis};
use crate::rollout::world::{InstanceSpec, ObservedInstance, Restart};
use crate::text::Safe;

const CREATE: Duration = Duration::from_secs(20);
const START: Duration = Duration::from_secs(20);
const REMOVE: Duration = Duration::from_secs(20);
const UPDATE: Duration = Duration::from_secs(5);
/// Added to the grace of a stop.
const STOP_EXTRA: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) async fn inspect_container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let call = self.client.docker()?.inspect_container(name, None);
        self.client.find("look at a container", INSPECT, call).await.map_err(|e| e.at(&self.client))
    }

    /// The container with the instance's name, if it is there and its labels say the same; the id with it.
    pub(super) async fn ours(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
    ) -> Result<Option<(String, ContainerInspectResponse)>, EngineError> {
        let name = id.engine_name(fleet);
        let Some(found) = self.inspect_container(&name).await? else {
            return self.adopted_as(fleet, id).await;
        };
        let same = label(&found, LABEL_FLEET) == Some(fleet.as_str())
            && label(&found, LABEL_INSTANCE) == Some(id.as_str());
        match found.id.clone() {
            Some(container) if same => Ok(Some((container, found))),
            _ => Err(self.foreign(&name, "it does not carry this instance's labels")),
        }
    }

    /// The id of the instance's container; an error when there is none.
    pub(super) async fn must_be_ours(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
    ) -> Result<String, EngineError> {
        match self.ours(fleet, id).await? {
            Some((container, _)) => Ok(container),
            None => Err(self.refused(&format!("there is no container {}", id.engine_name(fleet)))),
        }
    }

    fn foreign(&self, name: &str, why: &str) -> EngineError {
        EngineError::Foreign(Safe::from(format!(
            "{}: a container named {name} exists, but {why}: left alone; rename or remove it",
            self.client.at()
        )))
    }

    pub(super) async fn start(&self, spec: &InstanceSpec) -> Result<ObservedInstance, EngineError> {
        let name = spec.id.engine_name(&spec.fleet);
        for _ in 0..2 {
            if let Some((container, found)) = self.ours(&spec.fleet, &spec.id).await? {
                return self.start_existing(spec, &name, &container, &found).await;
            }
            // By digest or id, never by tag: a tag that moves meanwhile changes nothing.
            let image = self.ensure(&spec.run, &spec.version, &spec.digest).await?;
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let create = self.client.docker()?.create_container(Some(options), body(spec, image));
            match self.client.call(&format!("create {name}"), CREATE, create).await {
                Ok(made) => return self.start_made(spec, &name, &made.id).await,
                // Somebody else, or an earlier call whose answer was lost, made it meanwhile: look again.
                Err(Fail::Refused { status: 409, .. }) => {}
                Err(e) => return Err(e.at(&self.client)),
            }
        }
        Err(EngineError::Unknown(Safe::from(format!(
            "{}: {name} cannot be made because it exists, and cannot be found: look again",
            self.client.at()
        ))))
    }

    async fn start_existing(
        &self,
        spec: &InstanceSpec,
        name: &str,
        container: &str,
        found: &ContainerInspectResponse,
    ) -> Result<ObservedInstance, EngineError> {
        if label(found, LABEL_REVISION) != Some(spec.revision.as_str()) {
            return Err(self.foreign(name, "it is another revision"));
        }
        let runs = digest_of(found).unwrap_or_default();
        if runs != spec.digest {
            return Err(self.foreign(name, &format!("it runs {runs}, not {}", spec.digest)));
        }
        if !is_running(found) {
            self.update_restart(container, spec.restart).await?;
            return self.start_made(spec, name, container).await;
        }
        self.read_back(name, container).await
    }

    async fn start_made(
        &self,
        spec: &InstanceSpec,
        name: &str,
        container: &str,
    ) -> Result<ObservedInstance, EngineError> {
        let start = self.client.docker()?.start_container(container, None);
        self.cache().forget(container);
        if let Err(e) = self.client.call(&format!("start {name}"), START, start).await {
            let refused = e.status().is_some();
            let error = e.at(&self.client);
            if refused {
                self.clean_up(&spec.fleet, &spec.id, container).await?;
            }
            return Err(error);
        }
        self.read_back(name, container).await
    }

    /// Removes a container that was made and never ran (its port was taken, its program is missing): it would be
    /// in the way of the next attempt, which may want another port. One that ran before is kept.
    async fn clean_up(&self, fleet: &FleetName, id: &InstanceId, container: &str) -> Result<(), EngineError> {
        let Some((_, found)) = self.ours(fleet, id).await? else { return Ok(()) };
        let started = found.state.as_ref().and_then(|s| s.started_at.as_deref()).unwrap_or_default();
        let never = started.is_empty() || started.starts_with("0001-");
        if never && !is_running(&found) && found.id.as_deref() == Some(container) {
            self.delete(container).await?;
        }
        Ok(())
    }

    async fn read_back(&self, name: &str, container: &str) -> Result<ObservedInstance, EngineError> {
        let found = self.inspect_container(container).await?;
        found.as_ref().and_then(instance_of).ok_or_else(|| {
            EngineError::Unknown(Safe::from(format!(
                "{}: {name} was started and cannot be read back: look again",
                self.client.at()
            )))
        })
    }

    pub(super) async fn stop(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        grace: Millis,
    ) -> Result<(), EngineError> {
        let Some((container, _)) = self.ours(fleet, id).await? else { return Ok(()) };
        let seconds = i32::try_from(grace.0.div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let stop = self.client.docker()?.stop_container(&container, Some(options));
        self.cache().forget(&container);
        let what = format!("stop {}", id.engine_name(fleet));
        let stopped = self.client.find(&what, grace.duration() + STOP_EXTRA, stop).await;
        stopped.map_err(|e| e.at(&self.client))?;
        match self.inspect_container(&container).await? {
            Some(found) if is_running(&found) => Err(EngineError::Unknown(Safe::from(format!(
                "{}: {} was stopped and runs again",
                self.client.at(),
                id.engine_name(fleet)
            )))),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove(&self, fleet: &FleetName, id: &InstanceId) -> Result<(), EngineError> {
        let Some((container, found)) = self.ours(fleet, id).await? else { return Ok(()) };
        if is_running(&found) {
            return Err(self.refused(&format!("{} runs: stop it first", id.engine_name(fleet))));
        }
        self.delete(&container).await?;
        self.let_go(fleet, id).await
    }

    /// Never by force: one that was started meanwhile stays.
    async fn delete(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().v(true).force(false).build();
        let remove = self.client.docker()?.remove_container(container, Some(options));
        self.cache().forget(container);
        match self.client.find("remove a container", REMOVE, remove).await {
            Ok(_) => Ok(()),
            // Somebody else is at it: look again.
            Err(Fail::Refused { what, text, .. }) if text.contains("already in progress") => {
                Err(Fail::Unknown { what, text }.at(&self.client))
            }
            Err(e) => Err(e.at(&self.client)),
        }
    }

    pub(super) async fn set_restart(
        &self,
        fleet: &FleetName,
        id: &InstanceId,
        restart: Restart,
    ) -> Result<(), EngineError> {
        let container = self.must_be_ours(fleet, id).await?;
        self.update_restart(&container, restart).await
    }

    async fn update_restart(&self, container: &str, restart: Restart) -> Result<(), EngineError> {
        let body =
            ContainerUpdateBody { restart_policy: Some(policy(restart)), ..ContainerUpdateBody::default() };
        let update = self.client.docker()?.update_container(container, body);
        self.cache().forget(container);
        self.client.call("set a restart policy", UPDATE, update).await.map_err(|e| e.at(&self.client))?;
        Ok(())
    }
}

fn policy(restart: Restart) -> RestartPolicy {
    let name = match restart {
        Restart::No => RestartPolicyNameEnum::NO,
        Restart::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
    };
    RestartPolicy { name: Some(name), maximum_retry_count: None }
}

/// What says of a container, or of the volume beside an adopted one, whose and which instance it is.
pub(super) fn labels_of(spec: &InstanceSpec) -> HashMap<String, String> {
    let labels = [
        (LABEL_FLEET, spec.fleet.to_string()),
        (LABEL_SERVICE, spec.service.to_string()),
        (LABEL_INSTANCE, spec.id.to_string()),
        (LABEL_REVISION, spec.revision.to_string()),
        (LABEL_VERSION, spec.version.to_string()),
        (LABEL_ROLLOUT, spec.rollout.to_string()),
        (LABEL_PORT, spec.port.to_string()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn body(spec: &InstanceSpec, image: String) -> ContainerCreateBody {
    let mut labels = labels_of(spec);
    labels.insert(LABEL_DIGEST.to_owned(), spec.digest.clone());
    let mut env = spec.env.clone();
    env.insert("PORT".to_owned(), spec.port.to_string());
    env.extend(identity(spec).map(|(name, value)| (name.to_owned(), value)));
    let port = format!("{}/tcp", spec.port);
    let bindings = match (spec.reach, spec.host_port) {
        (Address::Published, Some(host_port)) => Some(HashMap::from([(
            port.clone(),
            Some(vec![PortBinding {
                host_ip: Some(spec.address.to_string()),
                host_port: Some(host_port.to_string()),
            }]),
        )])),
        _ => None,
    };
    let args = match &spec.run {
        Run::Image { args, .. } => args.clone(),
        Run::Command { argv } => argv.clone(),
    };
    ContainerCreateBody {
        image: Some(image),
        cmd: (!args.is_empty()).then_some(args),
        env: Some(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels),
        exposed_ports: Some(vec![port]),
        host_config: Some(HostConfig {
            port_bindings: bindings,
            restart_policy: Some(policy(spec.restart)),
            network_mode: spec.network.clone(),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
