//! What dockerd says of a fleet's containers. Labels say who a container claims to be; the image it really runs is
//! taken from what dockerd itself recorded when it was made, never from a label.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary, HealthStatusEnum,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Inner, LABEL_FLEET, LABEL_INSTANCE, LABEL_PORT, LABEL_REVISION, LABEL_ROLLOUT, LABEL_SERVICE,
    LABEL_VERSION,
};
use crate::engine::EngineError;
use crate::fleet::names::{FleetName, InstanceId, RevisionId, RolloutId, ServiceName, Version};
use crate::rollout::world::{ObservedInstance, Restart, RunState};

const LIST: Duration = Duration::from_secs(5);
pub(super) const INSPECT: Duration = Duration::from_secs(3);
/// Inspections at the same time.
const PARALLEL: usize = 4;

/// What was seen of each container, by its id, and what its summary said then: an unchanged summary (which counts
/// the time it has been up) spares the inspection.
#[derive(Default)]
pub(super) struct Cache {
    seen: HashMap<String, (String, ObservedInstance)>,
}

impl Cache {
    /// Something happened to the container: look again, whatever its summary says.
    pub(super) fn forget(&mut self, container: &str) {
        self.seen.remove(container);
    }
}

impl Inner {
    pub(super) async fn observe(&self, fleet: &FleetName) -> Result<Vec<ObservedInstance>, EngineError> {
        let filters = HashMap::from([("label", vec![format!("{LABEL_FLEET}={fleet}")])]);
        let filters: HashMap<&str, Vec<&str>> =
            filters.iter().map(|(k, v)| (*k, v.iter().map(String::as_str).collect())).collect();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let docker = self.client.docker()?;
        let list = self.client.call("list containers", LIST, docker.list_containers(Some(options))).await;
        let list = list.map_err(|e| e.at(&self.client))?;

        let keys: Vec<(String, String)> =
            list.iter().filter_map(|s| Some((s.id.clone()?, fingerprint(s)))).collect();
        let known: Vec<Option<ObservedInstance>> = {
            let mut cache = self.cache();
            let fleet_ids: std::collections::HashSet<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
            // One engine serves one fleet's controller: what is not listed any more is gone.
            cache.seen.retain(|id, _| fleet_ids.contains(id.as_str()));
            keys.iter()
                .map(|(id, key)| cache.seen.get(id).filter(|(k, _)| k == key).map(|(_, i)| i.clone()))
                .collect()
        };
        let looks = keys.into_iter().zip(known).map(|((id, key), known)| async move {
            if let Some(instance) = known {
                return Ok(Some(instance));
            }
            let inspect = docker.inspect_container(&id, None);
            let found = self.client.find("look at a container", INSPECT, inspect).await;
            let Some(found) = found.map_err(|e| e.at(&self.client))? else { return Ok(None) };
            let instance = instance_of(&found);
            if let Some(instance) = &instance {
                self.cache().seen.insert(id, (key, instance.clone()));
            }
            Ok::<_, EngineError>(instance)
        });
        let mut found: Vec<ObservedInstance> = stream::iter(looks)
            .buffer_unordered(PARALLEL)
            .try_filter_map(|i| async { Ok(i) })
            .try_collect()
            .await?;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }
}

/// All that a summary says which can change.
fn fingerprint(s: &ContainerSummary) -> String {
    let networks = s.network_settings.as_ref().and_then(|n| n.networks.as_ref());
    let mut addresses: Vec<&str> =
        networks.into_iter().flat_map(|n| n.values()).filter_map(|e| e.ip_address.as_deref()).collect();
    addresses.sort_unstable();
    format!("{:?} {:?} {addresses:?}", s.state, s.status)
}

/// A label of a container.
pub(super) fn label<'a>(c: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    c.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
}

/// The instance that a container claims to be; `None` when its labels are not complete names.
pub(super) fn instance_of(c: &ContainerInspectResponse) -> Option<ObservedInstance> {
    described(c, Named::read(|name| label(c, name))?, endpoint(c))
}

/// Who an instance is, as its labels or its marker say.
pub(super) struct Named {
    pub(super) id: InstanceId,
    pub(super) service: ServiceName,
    pub(super) revision: RevisionId,
    pub(super) version: Version,
    pub(super) rollout: RolloutId,
}

impl Named {
    /// `None` when what is under the labels are not complete names.
    pub(super) fn read<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        Some(Self {
            id: label(LABEL_INSTANCE)?.parse().ok()?,
            service: label(LABEL_SERVICE)?.parse().ok()?,
            revision: label(LABEL_REVISION)?.parse().ok()?,
            version: label(LABEL_VERSION)?.parse().ok()?,
            rollout: label(LABEL_ROLLOUT)?.parse().ok()?,
        })
    }
}

/// The instance with all that dockerd says of its container.
pub(super) fn described(
    c: &ContainerInspectResponse,
    named: Named,
    endpoint: Option<SocketAddr>,
) -> Option<ObservedInstance> {
    let Named { id, service, revision, version, rollout } = named;
    let state = c.state.clone().unwrap_or_default();
    Some(ObservedInstance {
        adopts: None,
        id,
        service,
        revision,
        version,
        rollout,
        state: run_state(&state),
        endpoint,
        digest: digest_of(c)?,
        started_ms: started_ms(c),
        restarts: c.restart_count.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
        restart: restart_of(c),
        engine_health: state.health.as_ref().and_then(|h| match h.status {
            Some(HealthStatusEnum::HEALTHY) => Some(true),
            Some(HealthStatusEnum::UNHEALTHY) => Some(false),
            _ => None,
        }),
    })
}

/// The artifact that a container was made from, as dockerd recorded it: the digest, if it was made from
/// `REPOSITORY@DIGEST`, else the image id.
pub(super) fn digest_of(c: &ContainerInspectResponse) -> Option<String> {
    let made_from = c.config.as_ref().and_then(|config| config.image.as_deref());
    match made_from.and_then(|name| name.split_once('@')) {
        Some((_, digest)) => Some(digest.to_owned()),
        None => c.image.clone(),
    }
}

pub(super) fn is_running(c: &ContainerInspectResponse) -> bool {
    c.state.as_ref().and_then(|s| s.running).unwrap_or(false)
}

/// When it was last started, in milliseconds since 1970.
pub(super) fn started_ms(c: &ContainerInspectResponse) -> Option<u64> {
    c.state.as_ref()?.started_at.as_deref().and_then(unix_ms)
}

fn run_state(state: &ContainerState) -> RunState {
    match state.status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => RunState::Running,
        Some(ContainerStateStatusEnum::RESTARTING) => RunState::Starting,
        // Paused by hand: it answers nothing, and nobody knows when it will.
        Some(ContainerStateStatusEnum::PAUSED) => RunState::Running,
        // Made and never started: whoever made it died in between. It does not run, and nobody but us will start it.
        Some(ContainerStateStatusEnum::CREATED) => RunState::Exited { code: None, oom: false },
        _ => RunState::Exited {
            code: state.exit_code.and_then(|c| i32::try_from(c).ok()),
            oom: state.oom_killed.unwrap_or(false),
        },
    }
}

pub(super) fn restart_of(c: &ContainerInspectResponse) -> Restart {
    let policy = c.host_config.as_ref().and_then(|h| h.restart_policy.as_ref()).and_then(|p| p.name);
    match policy {
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => Restart::No,
        Some(_) => Restart::UnlessStopped,
    }
}

/// Where it is reached: the published port (known even while it is stopped), else its own address.
fn endpoint(c: &ContainerInspectResponse) -> Option<SocketAddr> {
    let port: u16 = label(c, LABEL_PORT)?.parse().ok()?;
    let host = c.host_config.as_ref();
    let bindings = host.and_then(|h| h.port_bindings.as_ref()).and_then(|b| b.get(&format!("{port}/tcp")));
    if let Some(binding) = bindings.and_then(Option::as_ref).and_then(|b| b.first()) {
        let ip: IpAddr = binding.host_ip.as_deref()?.parse().ok()?;
        return Some(SocketAddr::new(ip, binding.host_port.as_deref()?.parse().ok()?));
    }
    own_address(c, port)
}

/// Its own address, in the network it was made in.
pub(super) fn own_address(c: &ContainerInspectResponse, port: u16) -> Option<SocketAddr> {
    let networks = c.network_settings.as_ref()?.networks.as_ref()?;
    let mode = c.host_config.as_ref().and_then(|h| h.network_mode.as_deref()).unwrap_or("bridge");
    let wanted = if mode == "default" { "bridge" } else { mode };
    let network = networks.get(wanted).or_else(|| networks.values().next())?;
    Some(SocketAddr::new(network.ip_address.as_deref()?.parse().ok()?, port))
}

/// Milliseconds since 1970 of dockerd's `2026-01-02T03:04:05.678901234Z`; `None` for its zero time and for
/// anything else.
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (y, m, d) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.split(':').map(str::parse::<i64>);
    let (h, min, s) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    if !(1..=12).contains(&m) || !(1..=31).contains(&d) || y < 1970 {
        return None;
    }
    // Days from the civil date, counted in years that begin in March (Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms").
    let (y, m) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    let (era, of_era) = (y / 400, y % 400);
    let day = of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + d - 1;
    let days = era * 146_097 + day - 719_468;
    u64::try_from(((days * 24 + h) * 60 + min) * 60_000 + s * 1000 + millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerd_times_are_read() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_ms("2000-02-29T12:34:56.7Z"), Some(951_827_696_700));
        assert_eq!(unix_ms("2026-11-21T16:24:16.123456789Z"), Some(1_795_278_256_123));
        assert_eq!(unix_ms("0001-01-01T00:00:00Z"), None);
        assert_eq!(unix_ms("soon"), None);
    }
}
