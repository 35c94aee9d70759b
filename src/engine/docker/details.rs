//! What dockerd says of one container when somebody asks.

use bollard::models::ContainerInspectResponse;

use super::Inner;
use super::observe::{digest_of, is_running, restart_of, unix_ms};
use crate::engine::{Details, EngineError};
use crate::fleet::names::{FleetName, InstanceId};
use crate::text::Safe;

/// Names or labels that are passed on; of more, the first.
const MOST: usize = 200;

impl Inner {
    pub(super) async fn details(&self, fleet: &FleetName, id: &InstanceId) -> Result<Details, EngineError> {
        match self.ours(fleet, id).await? {
            Some((container, found)) => Ok(details(&container, &found)),
            None => Err(EngineError::Refused(Safe::from(format!(
                "{}: there is no container {}",
                self.client.at(),
                id.engine_name(fleet)
            )))),
        }
    }
}

fn details(container: &str, c: &ContainerInspectResponse) -> Details {
    let config = c.config.as_ref();
    let state = c.state.clone().unwrap_or_default();
    let mut env: Vec<Safe> = config
        .and_then(|c| c.env.as_ref())
        .into_iter()
        .flatten()
        // What stands behind the sign may be a secret.
        .filter_map(|line| line.split('=').next())
        .filter(|name| !name.is_empty())
        .map(Safe::new)
        .collect();
    env.sort();
    env.dedup();
    env.truncate(MOST);
    let mut labels: Vec<(Safe, Safe)> = config
        .and_then(|c| c.labels.as_ref())
        .into_iter()
        .flatten()
        .map(|(name, value)| (Safe::new(name), Safe::capped(value, 200)))
        .collect();
    labels.sort();
    labels.truncate(MOST);
    let ended = !is_running(c);
    Details {
        runs_as: Safe::new(container),
        image: config
            .and_then(|c| c.image.as_deref())
            .map(Safe::new)
            .unwrap_or_else(|| Safe::new(&digest_of(c).unwrap_or_default())),
        labels,
        env,
        ports: ports(c),
        restart: Some(restart_of(c)),
        exit_code: state.exit_code.filter(|_| ended).and_then(|code| i32::try_from(code).ok()),
        oom: state.oom_killed.unwrap_or(false),
        ended_ms: state.finished_at.as_deref().and_then(unix_ms),
        error: state.error.as_deref().filter(|e| !e.is_empty()).map(Safe::new),
    }
}

/// Every port with where it is reached from outside, if it is.
fn ports(c: &ContainerInspectResponse) -> Vec<Safe> {
    let bindings = c.host_config.as_ref().and_then(|h| h.port_bindings.as_ref());
    let mut out: Vec<Safe> = bindings
        .into_iter()
        .flatten()
        .flat_map(|(port, to)| {
            to.iter().flatten().map(move |b| {
                let ip = b.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("*");
                Safe::from(format!("{ip}:{} to {port}", b.host_port.as_deref().unwrap_or("any")))
            })
        })
        .collect();
    let exposed = c.config.as_ref().and_then(|c| c.exposed_ports.as_ref()).into_iter().flatten();
    let published =
        |port: &String| bindings.is_some_and(|b| b.get(port.as_str()).is_some_and(Option::is_some));
    out.extend(
        exposed.filter(|port| !published(port)).map(|port| Safe::from(format!("{port}, not published"))),
    );
    out.sort();
    out.truncate(MOST);
    out
}
