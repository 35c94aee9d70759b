//! Hints that an instance changed, from inotify: a status that was written, a lock that was let go (which is how a
//! killed shim is noticed), a directory that came or went.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::engine::BoxStream;

/// Hints closer together than this become one.
const SETTLE: Duration = Duration::from_millis(30);
/// How often to hint when the kernel does not tell (its limit on watchers is per user and easily reached).
const BLIND: Duration = Duration::from_millis(500);

pub(super) fn watch(dir: PathBuf) -> BoxStream<()> {
    let (send, mut receive) = mpsc::channel(1);
    // Set up before returning: what happens from now on is not missed.
    let watcher = Watcher::open(&dir);
    tokio::spawn(async move {
        let mut watcher = watcher.ok();
        loop {
            let seen = async {
                match &mut watcher {
                    Some(w) => w.seen(&dir).await,
                    None => {
                        tokio::time::sleep(BLIND).await;
                        Ok(true)
                    }
                }
            };
            let hint = tokio::select! {
                seen = seen => seen,
                () = send.closed() => return,
            };
            match hint {
                Err(_) => watcher = None,
                Ok(false) => {}
                Ok(true) => {
                    tokio::time::sleep(SETTLE).await;
                    // A hint that nobody has taken yet says the same.
                    if let Err(mpsc::error::TrySendError::Closed(())) = send.try_send(()) {
                        return;
                    }
                }
            }
        }
    });
    Box::pin(futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

struct Watcher {
    fd: AsyncFd<OwnedFd>,
}

impl Watcher {
    fn open(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "unsound only for a type that can change its descriptor; an OwnedFd cannot, \
            and the replacement is an unsafe function"
        )]
        let watcher = Self { fd: AsyncFd::new(fd)? };
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
        inotify::add_watch(watcher.fd.get_ref(), dir, flags)?;
        for entry in fs::read_dir(dir)?.flatten() {
            watcher.add(&entry.path());
        }
        Ok(watcher)
    }

    /// Watches one instance: files put in place by a rename, and files closed after having been open for writing,
    /// as the lock is by a shim and never by one who only looks.
    fn add(&self, path: &Path) {
        if path.is_dir() {
            let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
            // One that cannot be watched is still seen by the caller's own slow look.
            let _ = inotify::add_watch(self.fd.get_ref(), path, flags);
        }
    }

    /// Waits for events; whether any of them is worth a look.
    async fn seen(&mut self, dir: &Path) -> io::Result<bool> {
        let mut ready = self.fd.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut new = Vec::new();
        let mut worth = false;
        {
            let mut events = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(e) => return Err(e.into()),
                    Ok(event) => {
                        let name = event.file_name().map(|n| OsStr::from_bytes(n.to_bytes()).to_owned());
                        let name = name.unwrap_or_default();
                        if event.events().contains(inotify::ReadFlags::ISDIR) {
                            new.push(dir.join(&name));
                        }
                        let bytes = name.as_bytes();
                        worth |= bytes == b"lock"
                            || bytes == b"status.json"
                            || bytes == b"restart"
                            || event.events().contains(inotify::ReadFlags::ISDIR);
                    }
                }
            }
        }
        ready.clear_ready();
        for path in new {
            self.add(&path);
        }
        Ok(worth)
    }
}
