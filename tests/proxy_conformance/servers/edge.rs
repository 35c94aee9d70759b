//! The embedded proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pilothouse::proxy::Proxy as _;
use pilothouse::proxy::edge::Edge;

use crate::support::{Harness, OWNER, Server, free_addr};

struct Running(Arc<Edge>);

impl Harness {
    /// A running edge, started by its driver.
    pub async fn edge() -> Self {
        let (dir, listen) = (Self::directory(), free_addr());
        let edge = Arc::new(edge_in(dir.path(), listen, OWNER));
        Self::of(dir, listen, edge.clone(), Running(edge)).await
    }
}

#[async_trait]
impl Server for Running {
    async fn start(&mut self, _dir: &Path) {
        self.0.read_back().await.unwrap();
    }

    fn stop(&mut self, dir: &Path) {
        // It is no child of ours: end it by the pid it left, and wait until it lets go of its lock.
        let lock = std::fs::File::open(dir.join("front.lock"));
        let pid = pid_behind(&dir.join("front.sock"));
        if let (Ok(lock), Some(pid)) = (lock, pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = lock.lock();
        }
    }

    /// It has nothing to load anew.
    async fn reload(&self, _h: &Harness) {}

    fn throws_dice(&self) -> bool {
        false
    }
}

/// A driver of an edge named `front`.
pub fn edge_in(dir: &Path, listen: SocketAddr, owner: &str) -> Edge {
    let program = env!("CARGO_BIN_EXE_pilothouse").into();
    let fleet = "shop".parse().unwrap();
    Edge::new("front".parse().unwrap(), listen, dir.to_owned(), program, owner.to_owned(), fleet)
}

/// The process that listens on a Unix socket, as the kernel says.
fn pid_behind(socket: &Path) -> Option<rustix::process::Pid> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid)
}
