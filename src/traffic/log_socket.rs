//! A loopback socket on which a proxy's log lines arrive as datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::loss::{Drops, LogLoss, Taken, WANTED_ROOM, make_room};
use crate::text::Safe;

/// What is made of the lines.
pub trait Lines: Send + 'static {
    /// Counts one line; `trusted` when it came from this machine. Whether it says anything.
    fn take(&mut self, line: &str, trusted: bool) -> Taken;
}

/// Listens until dropped.
pub struct LogSocket<T> {
    seen: Arc<Mutex<T>>,
    /// What came.
    loss: Arc<Mutex<LogLoss>>,
    /// What did not.
    drops: Mutex<Drops>,
    task: JoinHandle<()>,
}

impl<T: Lines> LogSocket<T> {
    /// Binds `addr` and starts to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is not a loopback one, or is taken, or when nobody would know what is lost.
    pub fn bind(addr: SocketAddr, lines: T) -> io::Result<Self> {
        Self::bind_with(addr, lines, WANTED_ROOM)
    }

    fn bind_with(addr: SocketAddr, lines: T, room: u64) -> io::Result<Self> {
        if !addr.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only a loopback address is listened to",
            ));
        }
        let std = std::net::UdpSocket::bind(addr)?;
        std.set_nonblocking(true)?;
        let room = make_room(&std, room)?;
        let drops = Mutex::new(Drops::of(&std, addr.is_ipv6())?);
        let socket = UdpSocket::from_std(std)?;
        let seen = Arc::new(Mutex::new(lines));
        let loss = Arc::new(Mutex::new(LogLoss { room, ..LogLoss::default() }));
        let (into, tally) = (Arc::clone(&seen), Arc::clone(&loss));
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
                let text = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
                let (mut seen, mut loss) = (locked(&into), locked(&tally));
                loss.came += 1;
                for line in text.lines() {
                    match seen.take(line, from.ip().is_loopback()) {
                        Taken::Counted => loss.counted += 1,
                        Taken::Unread => loss.unread += 1,
                        Taken::Other => {}
                    }
                }
            }
        });
        Ok(Self { seen, loss, drops, task })
    }

    /// What was made of the lines so far.
    pub fn seen(&self) -> MutexGuard<'_, T> {
        locked(&self.seen)
    }

    /// How many lines came and were lost so far. Asked for after [`Self::seen`]: what was thrown away before a line that
    /// is in there is in here.
    pub fn loss(&self) -> LogLoss {
        let dropped = locked(&self.drops).total();
        LogLoss { dropped, ..*locked(&self.loss) }
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Drop for LogSocket<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What listens to one proxy's lines.
pub trait Listener {
    /// How many came and were lost so far.
    fn loss(&self) -> LogLoss;
}

/// A listener that begins at its first use, where an address is configured, and is tried again while that is taken.
pub struct LogPort<L> {
    addr: Option<SocketAddr>,
    heard: Mutex<Heard<L>>,
    /// What had come and was lost when it was asked last, and the time before.
    loss: Mutex<Option<[LogLoss; 2]>>,
}

enum Heard<L> {
    Waiting,
    On(L),
    Failed(Safe),
}

impl<L: Listener> LogPort<L> {
    /// Nothing is listened to yet.
    pub fn new(addr: Option<SocketAddr>) -> Self {
        Self { addr, heard: Mutex::new(Heard::Waiting), loss: Mutex::new(None) }
    }

    /// What the listener says, which `bind` makes when there is none. What goes wrong costs what lines tell, nothing else.
    pub fn ask<T>(
        &self,
        bind: impl FnOnce(SocketAddr) -> io::Result<L>,
        say: impl FnOnce(&L) -> T,
    ) -> Option<T> {
        let addr = self.addr?;
        let mut heard = locked(&self.heard);
        if !matches!(&*heard, Heard::On(_)) {
            *heard = match bind(addr) {
                Ok(listener) => Heard::On(listener),
                Err(e) => Heard::Failed(Safe::new(&format!("cannot listen for log lines on {addr}: {e}"))),
            };
        }
        match &*heard {
            Heard::On(listener) => {
                let said = say(listener);
                let now = listener.loss();
                let mut loss = locked(&self.loss);
                *loss = Some([now, loss.map_or(LogLoss::default(), |[last, _]| last)]);
                Some(said)
            }
            _ => None,
        }
    }

    /// The same, where there is a listener already.
    pub fn heard(&self, say: impl FnOnce(&L)) {
        if let Heard::On(listener) = &*locked(&self.heard) {
            say(listener);
        }
    }

    /// What is wrong with the lines of `proxy`, for people: why nothing is heard although an address is configured, so that
    /// there are no `numbers`; else that too many are lost.
    pub fn trouble(&self, numbers: &str, proxy: &str) -> Option<Safe> {
        match &*locked(&self.heard) {
            Heard::Failed(why) => Some(Safe::new(&format!("no {numbers}: {why}"))),
            Heard::Waiting | Heard::On(_) => self.losing(proxy),
        }
    }

    /// How many lines had come and were lost when it was asked last; `None` when nothing is listened to.
    pub fn loss(&self) -> Option<LogLoss> {
        locked(&self.loss).map(|[now, _]| now)
    }

    /// What was lost between the last two times, when that is too much, of this proxy.
    fn losing(&self, proxy: &str) -> Option<Safe> {
        let [now, before] = (*locked(&self.loss))?;
        Some(now.since(&before)).filter(LogLoss::too_many).map(|lost| Safe::new(&lost.words(proxy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts lines; those that begin with `?` say nothing.
    #[derive(Default)]
    struct Kept(u64);

    impl Lines for Kept {
        fn take(&mut self, line: &str, trusted: bool) -> Taken {
            assert!(trusted);
            match line.chars().next() {
                Some('?') => return Taken::Unread,
                Some('-') => return Taken::Other,
                _ => {}
            }
            self.0 += 1;
            Taken::Counted
        }
    }

    impl Listener for LogSocket<Kept> {
        fn loss(&self) -> LogLoss {
            LogSocket::loss(self)
        }
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// A port that nobody has now.
    fn free() -> SocketAddr {
        std::net::UdpSocket::bind(any()).unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn what_is_not_read_in_time_is_counted_to_the_last_datagram() {
        const SENT: u64 = 5_000;
        let addr = free();
        let socket = LogSocket::bind_with(addr, Kept::default(), 64 << 10).unwrap();
        let other = LogSocket::bind_with(free(), Kept::default(), 64 << 10).unwrap();
        let out = std::net::UdpSocket::bind(any()).unwrap();
        // Nothing is awaited, so nothing is read meanwhile.
        for _ in 0..SENT {
            out.send_to(b"one", addr).unwrap();
        }
        let lost = socket.loss().dropped;
        assert!(lost > SENT / 2 && lost < SENT, "{lost}");
        while socket.loss().came < SENT - lost {
            tokio::task::yield_now().await;
        }
        out.send_to(b"?\n-\ntwo", addr).unwrap();
        while socket.loss().unread == 0 {
            tokio::task::yield_now().await;
        }
        let (loss, read) = (socket.loss(), SENT - lost + 1);
        assert_eq!((loss.came, loss.dropped, loss.counted, loss.unread), (read, lost, read, 1));
        assert_eq!((socket.seen().0, loss.lost()), (read, lost + 1));
        assert_eq!(other.loss().dropped, 0, "each socket has its own");
    }

    #[tokio::test]
    async fn a_port_says_what_was_lost_since_it_was_asked_before() {
        let port = LogPort::new(Some(free()));
        let ask = || port.ask(|addr| LogSocket::bind_with(addr, Kept::default(), 4 << 10), |s| s.seen().0);
        assert_eq!((port.loss(), port.losing("lb")), (None, None));
        ask().unwrap();
        assert_eq!(port.losing("lb"), None);
        let out = std::net::UdpSocket::bind(any()).unwrap();
        for _ in 0..500 {
            out.send_to(b"one", port.addr.unwrap()).unwrap();
        }
        ask().unwrap();
        let said = port.losing("lb").unwrap();
        assert!(said.as_str().contains("log lines of proxy lb were lost"), "{said}");
        ask().unwrap();
        assert_eq!(port.losing("lb"), None, "it is over");
        assert!(port.loss().unwrap().dropped > 0, "and not forgotten");
    }
}
