//! What there is: which workers take connections, what each has loaded, and where it sends a request.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::Worker;
use super::shares::{self, Shares};
use super::{ASK_DEADLINE, Known, Nginx, Seen, TOGETHER, config, http_line, process};
use crate::proxy::{ProxyError, files};
use crate::rollout::world::Route;
use crate::text::Safe;

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

    /// The master, and its workers that take connections.
    pub(super) fn workers(&self) -> Result<(u32, Vec<Worker>), ProxyError> {
        let master = process::master(&self.settings.pid).map_err(|e| self.unknown(&e))?;
        let workers = process::workers(master)
            .map_err(|e| self.unknown(&format!("cannot look at nginx's workers: {e}")))?;
        Ok((master, workers.into_iter().filter(|w| !w.leaving).collect()))
    }

    /// The workers that take connections, with what each has loaded. Workers answer as they like, so one that is not
    /// heard of is known by when it was started: with, or after, one that was.
    pub(super) async fn look(&self) -> Result<(u32, Vec<Seen>), ProxyError> {
        let mut heard = self.ask("/").await?;
        let (master, mut workers) = self.workers()?;
        for _ in 0..workers.len().clamp(1, 16) * 2 {
            let (pid, words) = &heard;
            if let (Some(w), Some(generation)) = (workers.iter().find(|w| w.pid == *pid), words.first()) {
                self.known().loaded.insert((w.pid, w.started), generation.clone());
            }
            let all = |known: &Known| workers.iter().all(|w| known.loaded.contains_key(&(w.pid, w.started)));
            if all(&self.known()) {
                break;
            }
            heard = self.ask("/").await?;
            workers = self.workers()?.1;
        }
        if workers.is_empty() {
            return Err(self.unknown("nginx's master runs but has no worker that takes connections"));
        }
        let mut known = self.known();
        known.loaded.retain(|id, _| workers.iter().any(|w| (w.pid, w.started) == *id));
        let newest = workers
            .iter()
            .filter_map(|w| known.loaded.get(&(w.pid, w.started)).map(|g| (w.started, g.clone())))
            .max();
        let since = newest.as_ref().and_then(|(_, g)| {
            let same = workers.iter().filter(|w| known.loaded.get(&(w.pid, w.started)) == Some(g));
            same.map(|w| w.started).min()
        });
        let seen = workers.into_iter().map(|w| {
            let inferred = since.filter(|s| w.started + TOGETHER >= *s).and(newest.as_ref());
            let loaded = known.loaded.get(&(w.pid, w.started)).or(inferred.map(|(_, g)| g)).cloned();
            (w, loaded)
        });
        let seen: Vec<Seen> = seen.collect();
        if seen.iter().all(|(_, loaded)| loaded.is_none()) {
            return Err(self.unknown(&format!(
                "what answers at {} is another nginx than process {master} of {}",
                self.settings.status,
                self.settings.pid.display()
            )));
        }
        Ok((master, seen))
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
}
