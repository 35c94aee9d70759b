//! A loopback socket on which a proxy's log lines arrive as datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;

use crate::text::Safe;
use tokio::task::JoinHandle;

/// What is made of the lines.
pub trait Lines: Send + 'static {
    /// Counts one line; `trusted` when it came from this machine.
    fn take(&mut self, line: &str, trusted: bool);
}

/// Listens until dropped.
pub struct LogSocket<T> {
    seen: Arc<Mutex<T>>,
    task: JoinHandle<()>,
}

impl<T: Lines> LogSocket<T> {
    /// Binds `addr` and starts to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is not a loopback one, or is taken.
    pub fn bind(addr: SocketAddr, lines: T) -> io::Result<Self> {
        if !addr.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only a loopback address is listened to",
            ));
        }
        let std = std::net::UdpSocket::bind(addr)?;
        std.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(std)?;
        let seen = Arc::new(Mutex::new(lines));
        let into = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
                let text = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
                let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                for line in text.lines() {
                    seen.take(line, from.ip().is_loopback());
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// What was made of the lines so far.
    pub fn seen(&self) -> MutexGuard<'_, T> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for LogSocket<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener that begins at its first use, where an address is configured, and is tried again while that is taken.
pub struct LogPort<L> {
    addr: Option<SocketAddr>,
    heard: Mutex<Heard<L>>,
}

enum Heard<L> {
    Waiting,
    On(L),
    Failed(Safe),
}

impl<L> LogPort<L> {
    /// Nothing is listened to yet.
    pub fn new(addr: Option<SocketAddr>) -> Self {
        Self { addr, heard: Mutex::new(Heard::Waiting) }
    }

    /// What the listener says, which `bind` makes when there is none. What goes wrong costs what lines tell, nothing else.
    pub fn ask<T>(
        &self,
        bind: impl FnOnce(SocketAddr) -> io::Result<L>,
        say: impl FnOnce(&L) -> T,
    ) -> Option<T> {
        let addr = self.addr?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*heard, Heard::On(_)) {
            *heard = match bind(addr) {
                Ok(listener) => Heard::On(listener),
                Err(e) => Heard::Failed(Safe::new(&format!("cannot listen for log lines on {addr}: {e}"))),
            };
        }
        match &*heard {
            Heard::On(listener) => Some(say(listener)),
            _ => None,
        }
    }

    /// The same, where there is a listener already.
    pub fn heard(&self, say: impl FnOnce(&L)) {
        if let Heard::On(listener) = &*self.heard.lock().unwrap_or_else(PoisonError::into_inner) {
            say(listener);
        }
    }

    /// Why nothing is heard although an address is configured.
    pub fn failure(&self) -> Option<Safe> {
        match &*self.heard.lock().unwrap_or_else(PoisonError::into_inner) {
            Heard::Failed(why) => Some(why.clone()),
            Heard::Waiting | Heard::On(_) => None,
        }
    }
}
