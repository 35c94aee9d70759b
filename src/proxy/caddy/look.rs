//! What Caddy says: through our own server what it has loaded and where it would send a place, through its admin endpoint
//! its whole configuration; and how it is told to load that anew.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Caddy, server_line, tree};
use crate::proxy::ProxyError;
use crate::rollout::world::Route;
use crate::text::Safe;

/// Longest wait for an answer.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// Longest wait for a reload.
const RELOAD_DEADLINE: Duration = Duration::from_secs(20);
/// Most of a configuration that is read.
const LONGEST: u64 = 64 << 20;

/// What our own server answers.
pub(super) struct Answer {
    /// The files that Caddy has loaded.
    pub(super) generation: String,
    /// What it found.
    pub(super) found: String,
}

/// One request, and the body of its answer of 200.
async fn get(addr: SocketAddr, path: &str) -> io::Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(LONGEST).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = timeout(ASK_DEADLINE, talk)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 1 s")))?;
    let first = answer.lines().next().unwrap_or("nothing");
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) if first.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("{:?} is not what should be there", Safe::capped(first, 100)))),
    }
}

impl Caddy {
    /// What our own server answers.
    pub(super) async fn ask(&self, path: &str) -> Result<Answer, ProxyError> {
        let status = self.settings.status;
        let body = get(status, path).await;
        let words: Vec<&str> = body.as_deref().unwrap_or_default().split(' ').collect();
        match (&body, words.as_slice()) {
            (Ok(_), ["ok", generation, found]) => Ok(Answer {
                generation: (*generation).to_owned(),
                found: found.trim_start_matches('/').to_owned(),
            }),
            (Err(e), _) => Err(self.unknown(&format!(
                "Caddy does not answer at {status}: {e}; is {:?} in {}?",
                server_line(&self.settings.dir, &self.fleet),
                self.settings.config.display()
            ))),
            (Ok(_), _) => Err(self
                .unknown(&format!("what answers at {status} is not what Pilothouse has written for Caddy"))),
        }
    }

    /// The whole configuration that Caddy has loaded.
    pub(super) async fn loaded(&self) -> Result<String, ProxyError> {
        let admin = self.settings.admin;
        get(admin, "/config/").await.map_err(|e| {
            self.unknown(&format!(
                "Caddy's admin endpoint does not answer at {admin}: {e}; is it another one (admin = \"...\" in the fleet \
                 file), or switched off (admin off)?"
            ))
        })
    }

    /// Tells Caddy to load the operator's configuration anew; it stays as it is when that is refused.
    pub(super) async fn reload(&self) -> Result<(), ProxyError> {
        let s = &self.settings;
        let admin = s.admin.to_string();
        let args = [OsStr::new("reload"), OsStr::new("--config"), s.config.as_os_str()].into_iter();
        let args = args.chain(["--adapter", "caddyfile", "--address", &admin].map(OsStr::new));
        let args: Vec<&OsStr> = args.collect();
        let out = match self.place.run(&s.binary, &args, RELOAD_DEADLINE).await {
            Ok(out) => out,
            Err(e) if e.begun => return Err(self.unknown(&e.why)),
            Err(e) => return Err(self.refused(&e.why)),
        };
        if out.success {
            return Ok(());
        }
        let last = out.stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no reason given");
        Err(self.refused(&format!("Caddy refuses its configuration, the old one stays: {last}")))
    }

    /// Whether Caddy itself finds what a route says: its directory, and in it an instance of the right slot.
    pub(super) async fn sees(&self, route: &Route) -> Result<bool, ProxyError> {
        let found = async |what: &str| {
            Ok::<_, ProxyError>(self.ask(&format!("/{}?{what}", route.service)).await?.found)
        };
        let name = self.io(tree::Tree::of(route), "write down", &self.settings.dir)?.name;
        if found("is").await? != format!("is/{name}") {
            return Ok(false);
        }
        let (stable, other) = (tree::ready(route, route.stable), tree::ready(route, route.stable.other()));
        let other = if other.is_empty() { &stable } else { &other };
        // One place of each slot that has any.
        let places =
            [0, 9_999].into_iter().filter(|&p| p == 0 || tree::slot_of(route, p) != tree::slot_of(route, 0));
        for place in places {
            let slot = tree::slot_of(route, place);
            let wanted: &[SocketAddr] = if slot == route.stable { &stable } else { other };
            let what = format!("w/{:02}/{:02}/{:02}", place / 100, place % 100, place % 97);
            let found = found(&what).await?;
            let first = found.rsplit('/').next().and_then(|list| list.split(',').next());
            let addr = first.and_then(|a| a.parse::<SocketAddr>().ok());
            let right = match addr {
                Some(addr) => wanted.contains(&addr),
                None => wanted.is_empty() && found == "none",
            };
            if !right {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
