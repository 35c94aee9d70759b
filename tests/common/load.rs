//! Load from outside, over connections that are kept alive, and strict: whatever is not a whole answer 200 is a failure.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What one generator saw.
#[derive(Debug)]
pub struct Report {
    pub requests: u64,
    pub failed: u64,
    pub how: Vec<String>,
}

#[derive(Default)]
struct Tally {
    ok: AtomicU64,
    failed: AtomicU64,
    how: Mutex<Vec<String>>,
    /// Per version that answered: how often, and when the last such request was sent.
    versions: Mutex<BTreeMap<String, (u64, Instant)>>,
    /// When the last good answer came, and the longest time without one.
    good: Mutex<Option<(Instant, Duration)>>,
}

/// Our own generator: knows which version answered each request, and when the request was sent.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(to: SocketAddr, connections: usize) -> Self {
        Self::of_host(to, "stories", connections, Duration::ZERO)
    }

    /// With a pause after each request.
    pub fn paced(to: SocketAddr, connections: usize, pause: Duration) -> Self {
        Self::of_host(to, "stories", connections, pause)
    }

    /// Asks for `host`.
    pub fn of_host(to: SocketAddr, host: &'static str, connections: usize, pause: Duration) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let threads = (0..connections)
            .map(|_| {
                let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
                std::thread::spawn(move || hammer(to, host, pause, &stop, &tally))
            })
            .collect();
        Self { stop, tally, threads }
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.tally.ok.load(Ordering::Relaxed)
    }

    /// Failures so far.
    pub fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Relaxed)
    }

    /// How the failures came about, so far.
    pub fn how(&self) -> Vec<String> {
        self.tally.how.lock().unwrap().clone()
    }

    /// How often `version` answered, and when the last such request was sent.
    pub fn of(&self, version: &str) -> Option<(u64, Instant)> {
        self.tally.versions.lock().unwrap().get(version).copied()
    }

    /// The versions that answered.
    pub fn versions(&self) -> Vec<String> {
        self.tally.versions.lock().unwrap().keys().cloned().collect()
    }

    /// The longest time between two good answers, whoever gave them.
    pub fn longest_gap(&self) -> Duration {
        self.tally.good.lock().unwrap().map_or(Duration::ZERO, |(_, gap)| gap)
    }

    pub fn finish(mut self) -> Report {
        self.end();
        let ok = self.tally.ok.load(Ordering::Relaxed);
        let failed = self.failed();
        Report { requests: ok + failed, failed, how: self.tally.how.lock().unwrap().clone() }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn hammer(to: SocketAddr, host: &str, pause: Duration, stop: &AtomicBool, tally: &Tally) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let answer = ask(&mut connection, to, host);
        match answer {
            Ok(version) => {
                tally.ok.fetch_add(1, Ordering::Relaxed);
                let (now, mut good) = (Instant::now(), tally.good.lock().unwrap());
                let (before, gap) = good.unwrap_or((now, Duration::ZERO));
                *good = Some((now, gap.max(now.saturating_duration_since(before))));
                drop(good);
                let mut versions = tally.versions.lock().unwrap();
                let entry = versions.entry(version).or_insert((0, sent));
                *entry = (entry.0 + 1, entry.1.max(sent));
                drop(versions);
                std::thread::sleep(pause);
            }
            Err(how) => {
                connection = None;
                tally.failed.fetch_add(1, Ordering::Relaxed);
                tally.how.lock().unwrap().push(format!("{how} after {:?}", sent.elapsed()));
                // A proxy that is gone would otherwise be asked ten thousand times a second.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// One request on the connection that is kept, or on a new one; the body of an answer 200.
fn ask(connection: &mut Option<BufReader<TcpStream>>, to: SocketAddr, host: &str) -> Result<String, String> {
    let fresh = connection.is_none();
    let say = |what: &str, e: std::io::Error| {
        format!("{what} on a {} connection: {e}", if fresh { "new" } else { "kept" })
    };
    if connection.is_none() {
        let stream =
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(|e| say("connect", e))?;
        stream.set_nodelay(true).map_err(|e| say("nodelay", e))?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| say("timeout", e))?;
        *connection = Some(BufReader::new(stream));
    }
    let stream = connection.as_mut().expect("just made");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(|e| say("write", e))?;
    let (mut status, mut length, mut close) = (String::new(), None, false);
    loop {
        let mut line = String::new();
        let n = stream.read_line(&mut line).map_err(|e| say("read", e))?;
        if n == 0 {
            return Err(say("read", std::io::Error::other("closed without an answer")));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if status.is_empty() {
            status = line;
        } else if let Some(n) = line.strip_prefix("content-length:") {
            length = n.trim().parse::<usize>().ok();
        } else if let Some(c) = line.strip_prefix("connection:") {
            close = c.trim() == "close";
        }
    }
    let mut body = vec![0; length.ok_or_else(|| format!("no length: {status}"))?];
    stream.read_exact(&mut body).map_err(|e| say("read body", e))?;
    if close {
        *connection = None;
    }
    if status.split(' ').nth(1) == Some("200") {
        Ok(String::from_utf8_lossy(&body).into_owned())
    } else {
        Err(format!("{status}: {}", String::from_utf8_lossy(&body).lines().next().unwrap_or_default()))
    }
}

/// `wrk`, a generator that is not ours.
pub struct Wrk {
    child: Option<Child>,
}

const SCRIPT: &str = r#"
done = function(s, latency, requests)
  io.write(string.format("PH %d %d %d %d %d %d\n", s.requests, s.errors.connect, s.errors.read, s.errors.write,
    s.errors.status, s.errors.timeout))
end
"#;

impl Wrk {
    /// Runs until it is finished; `dir` is for its script.
    pub fn start(binary: &Path, dir: &Path, to: SocketAddr, connections: u32) -> Self {
        let script = dir.join("count.lua");
        std::fs::write(&script, SCRIPT).unwrap();
        let mut command = Command::new(binary);
        command.args(["-t1", "-d600s", "--timeout", "10s", "-c", &connections.to_string(), "-s"]);
        command.arg(&script).arg(format!("http://{to}/"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self { child: Some(command.spawn().unwrap()) }
    }

    pub fn finish(mut self) -> Report {
        let mut child = self.child.take().expect("finished once");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        let line =
            text.lines().find_map(|l| l.strip_prefix("PH ")).unwrap_or_else(|| panic!("wrk said: {text}"));
        let n: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let how = ["connect", "read", "write", "status", "timeout"];
        let how = how.iter().zip(&n[1..]).filter(|(_, n)| **n > 0).map(|(w, n)| format!("{n} {w}")).collect();
        Report { requests: n[0], failed: n[1..].iter().sum(), how }
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
