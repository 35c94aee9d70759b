//! What runs on an engine, whoever made it. For `pilothouse init`.

use std::path::Path;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::ListContainersOptionsBuilder;

use super::LABEL_FLEET;
use super::adopted::{LIST, split_tag};
use super::client::Client;
use super::observe::INSPECT;
use crate::engine::EngineError;
use crate::text::Safe;

/// A container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: Safe,
    /// The repository of its image, as it was started.
    pub repository: Safe,
    /// The tag of it.
    pub tag: Option<Safe>,
    /// TCP ports inside, and the host port each is published on; the lowest first.
    pub ports: Vec<(u16, Option<u16>)>,
    /// The network that it joined, where that is not the default one.
    pub network: Option<Safe>,
    /// The command of its health check, as one text.
    pub health: Option<Safe>,
    /// Names of variables that it was given and its image does not have. Never a value.
    pub env: Vec<Safe>,
}

/// Everything that runs on the engine at `socket` and is not Pilothouse's, by name.
///
/// # Errors
/// When it cannot be asked.
pub async fn survey(socket: &Path) -> Result<Vec<Container>, EngineError> {
    let client = Client::new(socket);
    let options = ListContainersOptionsBuilder::default().build();
    let list = client.docker()?.list_containers(Some(options));
    let list = client.call("list containers", LIST, list).await.map_err(|e| e.at(&client))?;
    let mut out = Vec::new();
    for summary in list {
        let ours = summary.labels.as_ref().is_some_and(|l| l.contains_key(LABEL_FLEET));
        let Some(id) = summary.id.filter(|_| !ours) else { continue };
        let look = client.docker()?.inspect_container(&id, None);
        let found = client.find("look at a container", INSPECT, look).await.map_err(|e| e.at(&client))?;
        let Some(found) = found else { continue };
        let theirs = match &found.image {
            Some(image) => {
                let look = client.docker()?.inspect_image(image);
                let image =
                    client.find("look at an image", INSPECT, look).await.map_err(|e| e.at(&client))?;
                image.and_then(|i| i.config?.env).unwrap_or_default()
            }
            None => Vec::new(),
        };
        out.push(container(&found, &theirs));
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn container(c: &ContainerInspectResponse, of_image: &[String]) -> Container {
    let config = c.config.clone().unwrap_or_default();
    let image = config.image.unwrap_or_default();
    let (repository, tag) = split_tag(&image);
    let bound = c.host_config.as_ref().and_then(|h| h.port_bindings.clone()).unwrap_or_default();
    let now = c.network_settings.as_ref().and_then(|n| n.ports.clone()).unwrap_or_default();
    let exposed = config.exposed_ports.unwrap_or_default();
    let mut ports: Vec<(u16, Option<u16>)> = Vec::new();
    for key in exposed.iter().chain(bound.keys()).chain(now.keys()) {
        let Some(port) = key.strip_suffix("/tcp").and_then(|p| p.parse().ok()) else { continue };
        let published = [&now, &bound].into_iter().find_map(|all| {
            all.get(key)?.as_ref()?.iter().find_map(|b| b.host_port.as_deref()?.parse().ok())
        });
        if !ports.iter().any(|(p, _)| *p == port) {
            ports.push((port, published));
        }
    }
    // What is published is what is meant.
    ports.sort_by_key(|(port, published)| (published.is_none(), *port));
    let mode = c.host_config.as_ref().and_then(|h| h.network_mode.as_deref());
    let network = mode.filter(|m| !["default", "bridge", "host", "none", ""].contains(m) && !m.contains(':'));
    let test = config.healthcheck.and_then(|h| h.test).unwrap_or_default();
    let health =
        test.split_first().filter(|(kind, _)| kind.starts_with("CMD")).map(|(_, words)| words.join(" "));
    let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
    let given = config.env.unwrap_or_default();
    let mut env: Vec<String> = given.iter().filter(|line| !of_image.contains(line)).map(name).collect();
    env.sort();
    Container {
        id: c.id.clone().unwrap_or_default(),
        name: Safe::new(c.name.as_deref().unwrap_or_default().trim_start_matches('/')),
        repository: Safe::new(repository),
        tag: tag.map(Safe::new),
        ports,
        network: network.map(Safe::new),
        health: health.map(|h| Safe::new(&h)),
        env: env.iter().map(|n| Safe::new(n)).collect(),
    }
}
