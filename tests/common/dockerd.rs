//! A Docker Engine of the test's own, that can be stopped without disturbing anybody.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common;

/// Runs until it is dropped.
pub struct Dockerd {
    binary: PathBuf,
    child: Child,
    bridge: String,
    dir: tempfile::TempDir,
}

impl Dockerd {
    /// A new one with nothing in it; `None`, said loudly, when this machine cannot have one.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_on(test, None)
    }

    /// Likewise, with a disk of so many megabytes.
    pub fn start_on(test: &str, megabytes: Option<u32>) -> Option<Self> {
        let skip = |why: &str| common::skip("dockerd", test, why);
        let Some(binary) = crate::common::require::program("dockerd") else {
            skip("dockerd is not installed");
            return None;
        };
        if !rustix::process::getuid().is_root() {
            skip("a second dockerd needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("phd").tempdir_in("/tmp").unwrap();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let bridge = format!("phs{:02x}{:02x}", random[0], random[1]);
        let address = format!("10.{}.{}.1/24", 128 + random[0] % 100, random[1]);
        for args in [
            vec!["link", "add", &bridge, "type", "bridge"],
            vec!["addr", "add", &address, "dev", &bridge],
            vec!["link", "set", &bridge, "up"],
        ] {
            if !Command::new("ip").args(&args).status().is_ok_and(|s| s.success()) {
                let _ = Command::new("ip").args(["link", "del", &bridge]).stderr(Stdio::null()).status();
                skip(&format!("cannot make a bridge: ip {}", args.join(" ")));
                return None;
            }
        }
        // The machine's own settings are not ours.
        std::fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        if let Some(megabytes) = megabytes {
            let data = dir.path().join("data");
            std::fs::create_dir(&data).unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&data);
            if !mount.status().is_ok_and(|s| s.success()) {
                let _ = Command::new("ip").args(["link", "del", &bridge]).stderr(Stdio::null()).status();
                skip("cannot mount a small disk for it");
                return None;
            }
        }
        let child = spawn(&binary, dir.path(), &bridge);
        let mut it = Self { binary, child, bridge, dir };
        match it.wait() {
            Ok(()) => Some(it),
            Err(why) => {
                skip(&format!("a second dockerd does not start: {why}"));
                None
            }
        }
    }

    fn wait(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while !self.answers() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || began.elapsed() > Duration::from_secs(30) {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                return Err(format!("{:?}", log.lines().rev().take(5).collect::<Vec<_>>()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// `kill -9`; the containers go on.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on what it left.
    pub fn start_again(&mut self) {
        // Its containerd may outlive it; the next one waits for that for ever as long as this file is there.
        let pid = self.dir.path().join("exec/containerd/containerd.pid");
        if let Some(pid) = std::fs::read_to_string(&pid).ok().and_then(|t| t.trim().parse().ok()) {
            crate::world::kill(pid, Signal::TERM);
            std::thread::sleep(Duration::from_millis(500));
        }
        let _ = std::fs::remove_file(&pid);
        let _ = std::fs::remove_file(self.dir.path().join("pid"));
        self.child = spawn(&self.binary, self.dir.path(), &self.bridge);
        self.wait().unwrap();
    }

    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let ask = || {
            let mut s = std::os::unix::net::UnixStream::connect(self.socket())?;
            s.set_read_timeout(Some(Duration::from_secs(2)))?;
            s.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            s.read_to_string(&mut text)?;
            std::io::Result::Ok(text.contains(" 200 "))
        };
        ask().unwrap_or(false)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Fills its disk to the last byte, until what this returns is dropped.
    pub fn fill(&self) -> Full {
        use std::io::Write as _;
        let path = self.dir.path().join("data/filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            // Smaller and smaller, until not even one more byte finds room.
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        Full { path }
    }

    /// It takes connections and answers nothing, until what this returns is dropped.
    pub fn hang(&self) -> Hung {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        Hung { pid }
    }
}

fn spawn(binary: &Path, dir: &Path, bridge: &str) -> Child {
    let path = |name: &str| dir.join(name);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
    Command::new(binary)
        .arg("--config-file")
        .arg(path("daemon.json"))
        .arg("--data-root")
        .arg(path("data"))
        .arg("--exec-root")
        .arg(path("exec"))
        .arg("--pidfile")
        .arg(path("pid"))
        .arg("--host")
        .arg(format!("unix://{}", path("docker.sock").display()))
        .args(["--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false"])
        .arg("--live-restore")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Gives the disk back.
pub struct Full {
    path: PathBuf,
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Wakes it up.
pub struct Hung {
    pid: Pid,
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::CONT);
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(15) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it mounted would keep its directory from being removed.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = |m: &&str| Path::new(m).starts_with(self.dir.path());
        for mount in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(below) {
            let _ = Command::new("umount").arg(mount).stderr(Stdio::null()).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).stderr(Stdio::null()).status();
    }
}
