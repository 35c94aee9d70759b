//! What there is: which workers take connections, what each has loaded, and where it sends a request.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::Worker;
use super::shares::{self, Shares};
use super::{ASK_DEADLINE, Known, Nginx, Seen, TOGETHER, config, http_line, process};
use crate::proxy::{ProxyError, files, processes};
use crate::rollout::world::{EndpointState, Route};
use crate::text::Safe;

/// nginx's workers at one moment.
pub(super) struct Look {
    /// The master's process.
    pub(super) master: u32,
    /// Those that take connections; never empty.
    pub(super) current: Vec<Seen>,
    /// What those have loaded that only finish what they have, where it is known.
    pub(super) leaving: Vec<Option<String>>,
}

impl Look {
    /// Whether every worker that takes connections has loaded this generation.
    pub(super) fn has(&self, generation: &str) -> bool {
        self.current.iter().all(|(_, loaded)| loaded.as_deref() == Some(generation))
    }
}

impl Nginx {
    /// What our own server answers, by whichever worker.
    pub(super) async fn ask(&self, path: &str) -> Result<(u32, Vec<String>), ProxyError> {
        let status = self.settings.status;
        let talk = async {
            let mut stream = TcpStream::connect(status).await?;
            let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", config::STATUS_HOST);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.take(65_536).read_to_string(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = match timeout(ASK_DEADLINE, talk).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                let line = http_line(&self.settings.dir, &self.fleet);
                return Err(self.unknown(&format!(
                    "nginx does not answer at {status}: {e}; is {line:?} in its http block?"
                )));
            }
            Err(_) => return Err(self.unknown(&format!("nginx does not answer at {status} within 1 s"))),
        };
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut words = body.split_ascii_whitespace();
        match words.next().and_then(|pid| pid.parse().ok()) {
            Some(pid) => Ok((pid, words.map(str::to_owned).collect())),
            None => Err(self.unknown(&format!(
                "what answers at {status} is not what Pilothouse has written for nginx: {}",
                Safe::capped(answer.lines().next().unwrap_or("nothing"), 100)
            ))),
        }
    }

    /// The master and all of its workers.
    pub(super) async fn workers(&self) -> Result<(u32, Vec<Worker>), ProxyError> {
        let master = self.master().await?;
        Ok((master, self.workers_of(master)?))
    }

    fn workers_of(&self, master: u32) -> Result<Vec<Worker>, ProxyError> {
        process::workers(master).map_err(|e| self.unknown(&format!("cannot look at nginx's workers: {e}")))
    }

    /// The master's process, as this machine numbers it.
    async fn master(&self) -> Result<u32, ProxyError> {
        let Some(first) = self.place.first().await? else {
            return process::master(&self.settings.pid).map_err(|e| self.unknown(&e));
        };
        process::master_under(first).ok_or_else(|| {
            self.unknown(&format!("no nginx master runs under process {first}, the first of its container"))
        })
    }

    /// The workers, with what each has loaded. They answer as they like, so one that is not heard of is known by when it
    /// was started: with, or after, one that was.
    pub(super) async fn look(&self) -> Result<Look, ProxyError> {
        let mut heard = self.ask("/").await?;
        let (master, mut workers) = self.workers().await?;
        for _ in 0..workers.len().clamp(1, 16) * 2 {
            let (pid, words) = &heard;
            if let (Some(w), Some(generation)) = (workers.iter().find(|w| w.own == *pid), words.first()) {
                self.known().loaded.insert((w.pid, w.started), generation.clone());
            }
            let all = |known: &Known| workers.iter().all(|w| w.leaving || known.loaded(w).is_some());
            if all(&self.known()) {
                break;
            }
            heard = self.ask("/").await?;
            workers = self.workers_of(master)?;
        }
        self.no_other_master(master, heard.0)?;
        let mut known = self.known();
        known.loaded.retain(|id, _| workers.iter().any(|w| (w.pid, w.started) == *id));
        let (leaving, current): (Vec<_>, Vec<_>) = workers.into_iter().partition(|w| w.leaving);
        if current.is_empty() {
            return Err(self.unknown("nginx's master runs but has no worker that takes connections"));
        }
        let newest = current.iter().filter_map(|w| Some((w.started, known.loaded(w)?))).max();
        let since = newest.as_ref().and_then(|(_, g)| {
            let same = current.iter().filter(|w| known.loaded(w).as_ref() == Some(g));
            same.map(|w| w.started).min()
        });
        let current = current.into_iter().map(|w| {
            let inferred = newest.as_ref().filter(|_| since.is_some_and(|s| w.started + TOGETHER >= s));
            let loaded = known.loaded(&w).or(inferred.map(|(_, g)| g.clone()));
            (w, loaded)
        });
        let current: Vec<Seen> = current.collect();
        if current.iter().all(|(_, loaded)| loaded.is_none()) {
            return Err(self.unknown(&format!(
                "what answers at {} is another nginx than process {master} of {}",
                self.settings.status,
                self.settings.pid.display()
            )));
        }
        let leaving = leaving.into_iter().map(|w| known.loaded(&w)).collect();
        Ok(Look { master, current, leaving })
    }

    /// While nginx's program is being replaced two masters have workers that take connections, and the old one's cannot be
    /// told anything: what they do is unknown.
    fn no_other_master(&self, master: u32, heard: u32) -> Result<(), ProxyError> {
        // A container ends with its first process: nobody replaces a program there. And what it heard is a number of its own.
        if self.place.is_container() {
            return Ok(());
        }
        let mut old = self.settings.pid.as_os_str().to_owned();
        old.push(".oldbin");
        let other = match process::master(Path::new(&old)) {
            Ok(other) if other != master => Some(other),
            _ => processes::parent(heard).filter(|parent| *parent != master),
        };
        match other {
            Some(other) => Err(self.unknown(&format!(
                "another nginx, process {other}, takes connections as well as process {master} of {}; end the old one \
                 (kill -QUIT {other}) when its program has been replaced",
                self.settings.pid.display()
            ))),
            None => Ok(()),
        }
    }

    /// What a generation routes; `None` when nobody remembers.
    pub(super) fn routes(&self, generation: &str) -> Result<Option<Arc<Vec<Route>>>, ProxyError> {
        if let Some(routes) = self.known().routes(generation) {
            return Ok(Some(Arc::clone(routes)));
        }
        let path = config::routes_path(&self.settings.dir, &self.fleet, generation);
        let text = self.io(files::read(&path), "read", &path)?;
        let routes: Option<Vec<Route>> = text.and_then(|t| serde_json::from_str(&t).ok());
        Ok(routes.map(|routes| {
            let routes = Arc::new(routes);
            self.known().remember(generation, &routes);
            routes
        }))
    }

    /// Whether the files of a generation are as they were written: somebody may have changed them, and reloaded.
    pub(super) fn intact(&self, generation: &str, routes: &[Route]) -> Result<bool, ProxyError> {
        let s = &self.settings;
        let rendered = config::render(routes, &self.fleet, &self.owner, &s.dir, s.status, s.log);
        if rendered.generation != generation {
            return Ok(false);
        }
        for (path, text) in self.files(&rendered)?.iter().skip(1) {
            if self.io(files::read(path), "read", path)?.as_deref() != Some(text.as_str()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a service's requests come to, as a worker answers when it is asked at the ends of both ranges. `None` when
    /// that is not what the files say: a directory that nginx may not look into, say.
    pub(super) async fn shares(&self, route: &Route) -> Result<Option<Shares>, ProxyError> {
        let (dir, fleet, service) = (&self.settings.dir, &self.fleet, &route.service);
        let link = shares::link(dir, fleet, service);
        let Some(shares) = self.io(shares::read(dir, fleet, service), "read", &link)? else {
            return Ok(None);
        };
        let of_rule = if shares.rules { route.stable.other() } else { route.stable };
        let mut questions = vec![(format!("/{service}?row=none&place=none&rule={}", shares::RULE), of_rule)];
        for place in shares.edges() {
            let path = format!("/{service}?row={:02}&place={place:04}&rule=none", place / 100);
            questions.push((path, shares.slot(place, route.stable)));
        }
        for (path, slot) in questions {
            if self.ask(&path).await?.1.get(1).map(String::as_str) != Some(slot.as_str()) {
                return Ok(None);
            }
        }
        Ok(Some(shares))
    }

    /// An instance that an old worker may still send something to is not free, whether or not it has a connection to it
    /// just now: a client may have opened one that it has not used yet.
    pub(super) fn held_by_old_workers(
        &self,
        now: &Look,
        in_flight: &mut BTreeMap<SocketAddr, u32>,
    ) -> Result<(), ProxyError> {
        let addresses = |routes: &[Route], state: EndpointState| {
            let slots = routes.iter().flat_map(|r| [&r.slots.a, &r.slots.b]);
            let some = slots.flat_map(|s| &s.endpoints).filter(move |e| e.state == state);
            some.map(|e| e.addr).collect::<BTreeSet<_>>()
        };
        let mut draining = BTreeSet::new();
        for generation in now.current.iter().filter_map(|(_, g)| g.as_deref()) {
            let routes = self.routes(generation)?.unwrap_or_default();
            draining.extend(addresses(&routes, EndpointState::Drain));
        }
        for generation in &now.leaving {
            let routes = match generation {
                Some(generation) => self.routes(generation)?,
                None => None,
            };
            // Of whom nothing is known anything is possible.
            let used = routes.map_or_else(|| draining.clone(), |r| addresses(&r, EndpointState::Ready));
            for addr in used.intersection(&draining) {
                let held = in_flight.entry(*addr).or_default();
                *held = (*held).max(1);
            }
        }
        Ok(())
    }
}
