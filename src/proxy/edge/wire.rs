//! What the edge's process and its driver say to each other: JSON over HTTP on a Unix socket.
//!
//! `GET /info`, `PUT /routes?after=VERSION[&direction=back]`, `GET /routes`, `GET /counters`, `POST /stop`, and for an
//! operator's hand `POST /stable/SERVICE`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fleet::names::{FleetName, InstanceId, ProxyName};
use crate::rollout::world::Route;
use crate::traffic::Counters;

/// Longest path a Unix socket can have here, in bytes.
const SOCKET_MAX: usize = 107;

/// Answer to `GET /info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Info {
    /// Its process id.
    pub(super) pid: u32,
    /// Where it serves.
    pub(super) listen: SocketAddr,
    /// Whose it is.
    pub(super) owner: String,
    /// Which routes are in force; `PUT /routes?after=VERSION` is refused when they are others by then.
    pub(super) version: String,
}

/// Body of `PUT /routes`, and what is kept on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Routes {
    /// Whoever set them.
    pub(super) owner: String,
    /// The fleet, which the cookies of visitors are named after. Routes that an older version saved have none.
    #[serde(default)]
    pub(super) fleet: Option<FleetName>,
    /// All of them.
    pub(super) routes: Vec<Route>,
}

/// Answer to `GET /counters`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Another one means that all counts began anew.
    pub(super) boot: String,
    /// Per instance, since the process started.
    pub(super) counters: BTreeMap<InstanceId, Counters>,
}

/// The files of one edge.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// Admin socket.
    pub(super) socket: PathBuf,
    /// Last routes.
    pub(super) state: PathBuf,
    /// Held while it runs.
    pub(super) lock: PathBuf,
    /// What it writes to standard error.
    pub(super) log: PathBuf,
}

impl Paths {
    /// The files of edge `name` in `dir`; an error in words when the socket's path is too long to be one.
    pub(super) fn of(dir: &Path, name: &ProxyName) -> Result<Self, String> {
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        let socket = file("sock");
        let bytes = socket.as_os_str().len();
        if bytes > SOCKET_MAX {
            return Err(format!(
                "the socket path {} has {bytes} bytes, more than the {SOCKET_MAX} a Unix socket can have; \
                 use a shorter state_dir",
                socket.display()
            ));
        }
        Ok(Self { socket, state: file("json"), lock: file("lock"), log: file("log") })
    }
}
