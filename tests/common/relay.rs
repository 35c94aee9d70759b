//! Stands between the controller and the address at which a proxy is asked, so that a test can take the answers away while
//! the proxy goes on serving its visitors.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// See the top of the file; it ends when it is dropped.
pub struct Relay {
    /// Where the controller asks.
    pub listen: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Where the proxy answers.
    to: SocketAddr,
    /// Whoever asks for a path that begins like this is hung up on.
    shut: Mutex<Option<&'static str>>,
    ends: AtomicBool,
}

impl Relay {
    pub fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).unwrap();
        let shared = Arc::new(Shared { to, shut: Mutex::new(None), ends: AtomicBool::new(false) });
        let mine = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if mine.ends.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&mine);
                // A connection that breaks is the affair of whoever asked.
                std::thread::spawn(move || pass_on(stream, &shared).is_ok());
            }
        });
        Self { listen, shared, thread: Some(thread) }
    }

    /// Hangs up on all who ask for a path that begins with `prefix`; on nobody with `None`.
    pub fn shut(&self, prefix: Option<&'static str>) {
        *self.shared.shut.lock().unwrap() = prefix;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes the thread up, which waits for somebody to come.
        if TcpStream::connect(self.listen).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn pass_on(mut asks: TcpStream, shared: &Shared) -> io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.contains(&b'\n') {
        let n = asks.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..n]);
    }
    let line = String::from_utf8_lossy(&head);
    let path = line.split(' ').nth(1).unwrap_or_default();
    if shared.shut.lock().unwrap().is_some_and(|prefix| path.starts_with(prefix)) {
        return Ok(());
    }
    let mut answers = TcpStream::connect(shared.to)?;
    answers.write_all(&head)?;
    let (mut more, mut to) = (asks.try_clone()?, answers.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut more, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let copied = io::copy(&mut answers, &mut asks);
    let _ = asks.shutdown(Shutdown::Both);
    copied.map(drop)
}
