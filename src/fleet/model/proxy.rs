//! Proxies as they are declared. The settings of each kind are what its driver is made from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fleet::names::ProxyName;

/// A proxy that moves the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Name of the proxy.
    pub name: ProxyName,
    /// Which kind, and how it is reached.
    pub kind: ProxyKind,
    /// The container that it runs in; `None` when it runs beside the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A container that a proxy runs in. Nobody but the operator starts or stops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The socket of the Docker Engine that runs it, on this machine.
    pub engine: PathBuf,
}

/// The kinds of proxies and their settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ProxyKind {
    /// A HAProxy in master-worker mode on this machine, 2.4 or newer.
    Haproxy(HaproxySettings),
    /// An open-source nginx on this machine, 1.11 or newer.
    Nginx(NginxSettings),
    /// A Traefik on this machine, 3.7 or newer.
    Traefik(TraefikSettings),
    /// An Envoy on this machine, 1.30 or newer.
    Envoy(EnvoySettings),
    /// A Caddy on this machine that is configured by a Caddyfile, 2.6 or newer.
    Caddy(CaddySettings),
    /// The embedded proxy, a process of its own (`pilothouse edge`), started by the controller when it is not running.
    Edge(EdgeSettings),
}

/// How one HAProxy is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaproxySettings {
    /// Directory that Pilothouse owns: `FLEET.cfg` (loaded as one more `-f`) and one map per service.
    pub dir: PathBuf,
    /// The master's socket (`-S`), through which every worker is reached.
    pub master_socket: PathBuf,
    /// The operator's own configuration files, given to `haproxy -c` before ours.
    pub config: Vec<PathBuf>,
    /// The binary used for `haproxy -c`.
    pub binary: PathBuf,
    /// Where the operator's frontend sends its log lines, for latency percentiles; optional.
    pub log: Option<SocketAddr>,
}

/// How one nginx is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NginxSettings {
    /// Directory that Pilothouse owns: `FLEET.conf` for the `http` block, `FLEET_SERVICE.location` for a location.
    pub dir: PathBuf,
    /// The operator's own configuration file (`nginx -c`).
    pub config: PathBuf,
    /// The file in which nginx's master leaves its process id.
    pub pid: PathBuf,
    /// A free address on loopback, at which nginx tells what it has loaded.
    pub status: SocketAddr,
    /// The binary used for `nginx -T`.
    pub binary: PathBuf,
    /// Where nginx sends its log lines, for numbers per version; optional.
    pub log: Option<SocketAddr>,
}

/// How one Traefik is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraefikSettings {
    /// Directory that Traefik's file provider watches; Pilothouse owns `pilothouse-FLEET.yml` in it.
    pub dir: PathBuf,
    /// Where Traefik's entry point `pilothouse` listens: there it is asked what it does.
    pub api: SocketAddr,
}

/// How one Envoy is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvoySettings {
    /// Directory that Pilothouse owns: `FLEET.clusters.yaml`, and a directory `FLEET_SERVICE` per service.
    pub dir: PathBuf,
    /// The address of its administration server, on loopback.
    pub admin: SocketAddr,
    /// The file to which the operator's listeners write their log lines, for latency percentiles; optional.
    pub log: Option<PathBuf>,
}

/// How one Caddy is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaddySettings {
    /// Directory that Pilothouse owns: `FLEET.caddy` beside the sites, `FLEET_SERVICE.caddy` for a site, and the routes.
    pub dir: PathBuf,
    /// The operator's own Caddyfile.
    pub config: PathBuf,
    /// Caddy's admin endpoint.
    pub admin: SocketAddr,
    /// A free address on loopback, at which Caddy tells what it has loaded.
    pub status: SocketAddr,
    /// The binary used for `caddy reload`.
    pub binary: PathBuf,
    /// Where Caddy sends its log lines (to this port, of loopback's broadcast address), for numbers per version; optional.
    pub log: Option<SocketAddr>,
}

impl Container {
    /// Where a Docker Engine listens unless somebody has changed that.
    pub const SOCKET: &str = "/var/run/docker.sock";
}

/// Where the embedded proxy serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeSettings {
    /// Address it serves on.
    pub listen: SocketAddr,
}

impl ProxyKind {
    /// What it is called in the fleet file.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Haproxy(_) => "haproxy",
            Self::Nginx(_) => "nginx",
            Self::Traefik(_) => "traefik",
            Self::Envoy(_) => "envoy",
            Self::Caddy(_) => "caddy",
            Self::Edge(_) => "edge",
        }
    }

    /// The directory that Pilothouse owns for it.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Haproxy(HaproxySettings { dir, .. })
            | Self::Nginx(NginxSettings { dir, .. })
            | Self::Traefik(TraefikSettings { dir, .. })
            | Self::Envoy(EnvoySettings { dir, .. })
            | Self::Caddy(CaddySettings { dir, .. }) => Some(dir),
            Self::Edge(_) => None,
        }
    }

    /// The addresses that nothing else may have: of which key, and which.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        match self {
            Self::Haproxy(s) => s.log.map(|log| ("log", log)).into_iter().collect(),
            Self::Nginx(NginxSettings { status, log, .. })
            | Self::Caddy(CaddySettings { status, log, .. }) => {
                [("status", *status)].into_iter().chain(log.map(|log| ("log", log))).collect()
            }
            Self::Traefik(s) => vec![("api", s.api)],
            Self::Envoy(s) => vec![("admin", s.admin)],
            Self::Edge(s) => vec![("listen", s.listen)],
        }
    }
}
