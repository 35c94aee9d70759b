//! A small fleet to simulate.

use std::collections::BTreeMap;

use super::{Process, Sim};
use crate::fleet::model::{
    Address, Drain, EdgeSettings, Engine, Fleet, Gate, HealthCheck, Host, Probe, Proxy, ProxyKind, Run,
    Service, Step, Strategy,
};
use crate::fleet::names::InstanceId;
use crate::fleet::names::{Bp, HostName, Millis, ProxyName, RevisionId, ServiceName};
use crate::rollout::state::Revision;
use crate::rollout::world::{ObservedInstance, Restart, RunState};

pub(crate) fn web() -> ServiceName {
    "web".parse().unwrap()
}

pub(crate) fn fleet(hosts: usize, per_host: u32, proxies: usize, steps: Vec<Step>) -> Fleet {
    fleet_with(hosts, per_host, proxies, Strategy::Canary { steps, sticky: false, tester: None })
}

pub(crate) fn fleet_with(hosts: usize, per_host: u32, proxies: usize, strategy: Strategy) -> Fleet {
    let host_names = names::<HostName>("node", hosts);
    let proxy_names = names::<ProxyName>("lb", proxies);
    let placement = host_names.iter().map(|h| (h.clone(), per_host)).collect();
    let web = service("web", 9000, placement, proxy_names.clone(), strategy);
    fleet_of(&host_names, &proxy_names, vec![web])
}

/// `PREFIX-1` and so on.
pub(crate) fn names<T: std::str::FromStr<Err: std::fmt::Debug>>(prefix: &str, n: usize) -> Vec<T> {
    (1..=n).map(|n| format!("{prefix}-{n}").parse().unwrap()).collect()
}

/// A service whose ports on each host begin at `port`.
pub(crate) fn service(
    name: &str,
    port: u16,
    placement: BTreeMap<HostName, u32>,
    proxies: Vec<ProxyName>,
    strategy: Strategy,
) -> Service {
    let per_host = placement.values().copied().max().unwrap_or(0);
    Service {
        name: name.parse().unwrap(),
        run: Run::Command { argv: vec!["app".into()] },
        version: None,
        versions: vec![],
        placement,
        port: 8080,
        host_ports: (port, port + u16::try_from(per_host * 3).unwrap()),
        address: Address::Published,
        network: None,
        env: BTreeMap::new(),
        env_file: None,
        health: HealthCheck {
            probe: Probe::Tcp,
            interval: Millis::secs(1),
            timeout: Millis(500),
            rise: 2,
            fall: 3,
        },
        drain: Drain { deadline: Millis::secs(30), stop_grace: Millis::secs(10) },
        strategy,
        hooks: crate::fleet::model::Hooks::default(),
        analysis: None,
        checks: Vec::new(),
        progress_deadline: Millis::secs(600),
        keep: Millis::secs(60),
        restore: false,
        proxies,
        domains: vec![],
    }
}

/// A fleet of these services.
pub(crate) fn fleet_of(hosts: &[HostName], proxies: &[ProxyName], services: Vec<Service>) -> Fleet {
    let host = |(n, name): (usize, &HostName)| {
        let address = format!("10.0.0.{}", n + 1).parse().unwrap();
        (
            name.clone(),
            Host { name: name.clone(), engine: Engine::Process { dir: None }, address, out: false },
        )
    };
    let proxy = |name: &ProxyName| {
        let listen = "127.0.0.1:80".parse().unwrap();
        (
            name.clone(),
            Proxy { name: name.clone(), kind: ProxyKind::Edge(EdgeSettings { listen }), container: None },
        )
    };
    Fleet {
        name: "shop".parse().unwrap(),
        environment: "test".into(),
        production: false,
        state_dir: None,
        require_serve: false,
        metrics: None,
        notify: BTreeMap::new(),
        hosts: hosts.iter().enumerate().map(host).collect(),
        proxies: proxies.iter().map(proxy).collect(),
        services: services.into_iter().map(|s| (s.name.clone(), s)).collect(),
        hash: "0".into(),
    }
}

pub(crate) fn revision(fleet: &Fleet, n: u32) -> Revision {
    revision_of(fleet, &web(), n)
}

/// Services may be made of the same image, never of the same revision: their configuration is part of that.
pub(crate) fn revision_of(fleet: &Fleet, service: &ServiceName, n: u32) -> Revision {
    let place = service_number(service);
    Revision {
        id: format!("{place:04x}{n:04x}").parse().unwrap(),
        version: format!("1.{n}.0").parse().unwrap(),
        digest: format!("sha256:{n}"),
        spec: fleet.services[service].clone(),
        env_hash: String::new(),
    }
}

/// 0 for `web`, so that its revisions are plain numbers.
fn service_number(service: &ServiceName) -> u32 {
    if *service == web() { 0 } else { service.as_str().bytes().map(u32::from).sum() }
}

/// The `n` of [`revision_of`].
pub(crate) fn number_of(revision: &RevisionId) -> u32 {
    u32::from_str_radix(revision.as_str(), 16).unwrap() & 0xffff
}

pub(crate) fn steps(gates: &[(u16, Option<Gate>)]) -> Vec<Step> {
    gates
        .iter()
        .map(|(w, g)| Step { weight: Bp::percent(*w), instances: None, gates: g.iter().copied().collect() })
        .collect()
}

impl Sim {
    /// A hook runs and is over at once. A container that exists is not made again.
    pub(super) fn run_hook(&mut self, host: &HostName, service: &ServiceName, instance: &InstanceId) {
        let r = self.state.services[service].active().unwrap();
        let (to, rollout) = (r.to.clone(), r.id.clone());
        let revision = self.state.services[service].revisions[&to].clone();
        let (_, processes, _) = self.hosts.get_mut(host).unwrap();
        let made = processes.get(instance).map(|p| p.seen.never_ran());
        if made == Some(false) {
            return;
        }
        let only_made = self.hook_made_first && made.is_none();
        let code = (!only_made).then_some(self.hook_exits);
        let state = RunState::Exited { code, oom: false };
        let seen = ObservedInstance {
            adopts: None,
            id: instance.clone(),
            service: service.clone(),
            revision: to,
            version: revision.version,
            rollout,
            state,
            endpoint: None,
            digest: revision.digest,
            started_ms: None,
            restarts: 0,
            restart: Restart::No,
            engine_health: None,
        };
        processes.insert(instance.clone(), Process { seen, up_since: self.now });
        if only_made {
            return;
        }
        let runs = self.hook_runs.entry(instance.clone()).or_default();
        *runs += 1;
        assert_eq!(*runs, 1, "{instance} ran twice");
    }
}
