//! Questions to Envoy's administration server, and what its answers mean.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// One Envoy's administration server.
pub(super) struct Admin(pub(super) SocketAddr);

impl Admin {
    /// The body of an answer; in words when there is none.
    async fn get(&self, path: &str) -> Result<Bytes, String> {
        let at = self.0;
        let talk = async {
            let stream =
                TcpStream::connect(at).await.map_err(|e| format!("Envoy does not answer at {at}: {e}"))?;
            let broken = |e: hyper::Error| format!("Envoy's answer at {at} broke off: {e}");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            let connection = tokio::spawn(connection);
            let request = Request::get(path).header("host", at.to_string()).body(Empty::<Bytes>::new());
            let request = request.map_err(|e| format!("cannot ask for {path}: {e}"))?;
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
            connection.abort();
            match status.is_success() {
                true => Ok(body),
                false => {
                    Err(format!("what answers at {at} says {status} to {path}; is it Envoy's admin address?"))
                }
            }
        };
        let late = |_| Err(format!("Envoy does not answer at {at} within {} s", DEADLINE.as_secs()));
        timeout(DEADLINE, talk).await.unwrap_or_else(late)
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let body = self.get(path).await?;
        let at = self.0;
        serde_json::from_slice(&body)
            .map_err(|e| format!("what answers at {at} is no Envoy that Pilothouse knows: {path}: {e}"))
    }

    /// What all listeners have loaded of route configurations that came as files.
    pub(super) async fn routes(&self) -> Result<Vec<Value>, String> {
        let dump: Value = self.json("/config_dump?resource=dynamic_route_configs").await?;
        let configs = dump.get("configs").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(configs.into_iter().filter_map(|mut c| c.get_mut("route_config").map(Value::take)).collect())
    }

    /// The configuration of all listeners, static ones and others.
    pub(super) async fn listeners(&self) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        for which in ["static_listeners", "dynamic_listeners"] {
            let dump: Value = self.json(&format!("/config_dump?resource={which}")).await?;
            all.extend(dump.get("configs").and_then(Value::as_array).cloned().unwrap_or_default());
        }
        Ok(all)
    }

    /// The instances of all clusters, with what each has done.
    pub(super) async fn clusters(&self) -> Result<Vec<Cluster>, String> {
        Ok(self.json::<Clusters>("/clusters?format=json").await?.cluster_statuses)
    }

    /// Which versions are in force, and a little more.
    pub(super) async fn state(&self) -> Result<State, String> {
        let filter = "%5C.%28version_text%7Cupdate_rejected%7Cparent_connections%7Cuptime%29%24";
        let body = self.get(&format!("/stats?filter={filter}")).await?;
        Ok(State::read(&String::from_utf8_lossy(&body)))
    }

    /// How often Envoy writes what it has to say to a log file; `None` when it does not tell.
    pub(super) async fn flushes_every(&self) -> Option<String> {
        let info: Value = self.json("/server_info").await.ok()?;
        let options = info.get("command_line_options")?;
        options.get("file_flush_interval")?.as_str().map(str::to_owned)
    }
}

/// What Envoy says of the resources that it reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// By resource: `cds`, the name of a cluster, or the name of a route configuration with each of its readers' versions.
    pub(super) versions: BTreeMap<String, Vec<String>>,
    /// How many were refused, by resource.
    pub(super) refused: BTreeMap<String, u64>,
    /// Connections of the process before, which still ends what it has (a hot restart).
    pub(super) old_connections: u64,
    /// Seconds since it was started.
    pub(super) uptime: u64,
}

impl State {
    fn read(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            let value = value.trim().trim_matches('"');
            let number = || value.parse().unwrap_or(0);
            match name.rsplit_once('.') {
                Some(("server", "parent_connections")) => out.old_connections = number(),
                Some(("server", "uptime")) => out.uptime = number(),
                Some((whose, "version_text")) => {
                    out.versions.entry(resource(whose)).or_default().push(value.to_owned());
                }
                Some((whose, "update_rejected")) => {
                    *out.refused.entry(resource(whose)).or_default() += number()
                }
                _ => {}
            }
        }
        out
    }
}

/// The resource that a name of a statistic is about: `http.front.rds.ph_shop_web`, `cluster.ph_shop_web_a`.
fn resource(name: &str) -> String {
    let routes = name.rsplit_once(".rds.").map(|(_, routes)| routes);
    let cluster = name.strip_prefix("cluster.").or_else(|| name.strip_prefix("cluster_manager."));
    routes.or(cluster).unwrap_or(name).to_owned()
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<Cluster>,
}

/// A cluster.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cluster {
    /// Its name.
    pub(super) name: String,
    /// Its instances.
    #[serde(default)]
    pub(super) host_statuses: Vec<Host>,
}

/// An instance in a cluster.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Host {
    address: Address,
    #[serde(default)]
    stats: Vec<Stat>,
    #[serde(default)]
    health_status: HealthStatus,
    /// The name that was given to it: the instance.
    #[serde(default)]
    pub(super) hostname: String,
    /// 0 for those of the cluster itself, 1 for those behind them.
    #[serde(default)]
    pub(super) priority: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    /// Missing where an operator's own is a Unix socket.
    socket_address: Option<SocketAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct SocketAddress {
    address: String,
    port_value: u16,
}

/// Numbers of 64 bits are written as text.
#[derive(Clone, Debug, Deserialize)]
struct Stat {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct HealthStatus {
    #[serde(default)]
    eds_health_status: String,
    #[serde(default)]
    failed_outlier_check: bool,
}

impl Host {
    /// Where it is.
    pub(super) fn addr(&self) -> Option<SocketAddr> {
        let SocketAddress { address, port_value } = self.address.socket_address.as_ref()?;
        Some((address.parse::<std::net::IpAddr>().ok()?, *port_value).into())
    }

    /// One of its statistics.
    pub(super) fn stat(&self, name: &str) -> u64 {
        self.stats.iter().find(|s| s.name == name).and_then(|s| s.value.parse().ok()).unwrap_or(0)
    }

    /// Whether it takes nothing new.
    pub(super) fn drains(&self) -> bool {
        self.health_status.eds_health_status == "DRAINING"
    }

    /// Whether it failed so often just now that it is left out for a moment.
    pub(super) fn left_out(&self) -> bool {
        self.health_status.failed_outlier_check
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_say_what_is_in_force() {
        let state = State::read(
            "http.a.b.rds.ph_shop_web.version_text: \"ph-1\"\nhttp.other.rds.ph_shop_web.version_text: \"ph-2\"\n\
             cluster.ph_shop_web_a.version_text: \"ph-3\"\ncluster_manager.cds.version_text: \"\"\n\
             http.a.b.rds.ph_shop_web.update_rejected: 2\nhttp.other.rds.ph_shop_web.update_rejected: 1\n\
             server.parent_connections: 7\nserver.uptime: 12\nlistener_manager.lds.update_rejected: 0\nodd\n",
        );
        assert_eq!(state.versions["ph_shop_web"], ["ph-1", "ph-2"]);
        assert_eq!(state.versions["ph_shop_web_a"], ["ph-3"]);
        assert_eq!(state.versions["cds"], [""]);
        assert_eq!((state.refused["ph_shop_web"], state.old_connections, state.uptime), (3, 7, 12));
    }
}
