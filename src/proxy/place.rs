//! Where a proxy's program runs: beside the controller, or in a container of a Docker Engine on the same machine.
//!
//! A container sees the same files under the same names (a directory of this machine, mounted where it is), so what is
//! written here is read there, and what it prints of its files means ours. Its programs are run in it, through the engine.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{ProxyError, processes};
use crate::engine::EngineError;
use crate::engine::docker::{Look, Theirs};
use crate::fleet::model::Container;
use crate::fleet::names::ProxyName;
use crate::text::Safe;

/// Longest wait for a proxy's own check of its configuration.
pub(super) const CHECK_DEADLINE: Duration = Duration::from_secs(10);

/// Where the programs of one proxy run.
pub(super) struct Place {
    proxy: ProxyName,
    container: Option<Theirs>,
    /// The container's first process, and when it was started.
    first: Mutex<Option<(u32, u64)>>,
}

/// A program that ran to its end.
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why one did not.
pub(super) struct NotEnded {
    /// In words.
    pub(super) why: String,
    /// Whether it may have begun: what it has done then is unknown.
    pub(super) begun: bool,
}

impl Place {
    pub(super) fn new(proxy: ProxyName, container: Option<&Container>) -> Self {
        let container = container.map(|c| Theirs::new(&c.engine, &c.name));
        Self { proxy, container, first: Mutex::default() }
    }

    /// Whether it is a container.
    pub(super) fn is_container(&self) -> bool {
        self.container.is_some()
    }

    /// Runs one of the proxy's own programs where the proxy is, and waits for its end.
    pub(super) async fn run<S: AsRef<OsStr> + Sync>(
        &self,
        program: &Path,
        args: &[S],
        deadline: Duration,
    ) -> Result<Ended, NotEnded> {
        let Some(container) = &self.container else { return here(program, args, deadline).await };
        let words = std::iter::once(program.as_os_str()).chain(args.iter().map(AsRef::as_ref));
        let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
        match container.run(&words, deadline).await {
            // What dockerd says when there is no such program, or it is none.
            Ok(ran) if matches!(ran.code, 126 | 127) => Err(NotEnded {
                why: format!(
                    "cannot run {} in container {}: {}",
                    program.display(),
                    container.name(),
                    [ran.stdout.trim(), ran.stderr.trim()].concat()
                ),
                begun: false,
            }),
            Ok(ran) => Ok(Ended { success: ran.code == 0, stdout: ran.stdout, stderr: ran.stderr }),
            Err(e) => Err(NotEnded { begun: matches!(e, EngineError::Unknown(_)), why: e.to_string() }),
        }
    }

    /// What the container is now; `None` where there is none.
    pub(super) async fn look(&self) -> Result<Option<Look>, ProxyError> {
        let Some(container) = &self.container else { return Ok(None) };
        container.look().await.map(Some).map_err(|e| {
            let why = Safe::new(&format!("proxy {}: {e}", self.proxy));
            match e {
                EngineError::Unknown(_) => ProxyError::Unknown(why),
                _ => ProxyError::Refused(why),
            }
        })
    }

    /// The container's first process, as this machine numbers it; `None` where there is no container. The engine is asked
    /// once for as long as it runs, so that a proxy is seen while the engine does not answer.
    pub(super) async fn first(&self) -> Result<Option<u32>, ProxyError> {
        if self.container.is_none() {
            return Ok(None);
        }
        let known = *self.known();
        if let Some((pid, at)) = known
            && processes::started(pid) == Some(at)
        {
            return Ok(Some(pid));
        }
        let Some(look) = self.look().await? else { return Ok(None) };
        let Some(at) = processes::started(look.pid) else {
            return Err(ProxyError::Unknown(Safe::new(&format!(
                "proxy {}: process {} of its container is not seen here; the controller has to run where it sees this \
                 machine's processes",
                self.proxy, look.pid
            ))));
        };
        *self.known() = Some((look.pid, at));
        Ok(Some(look.pid))
    }

    fn known(&self) -> MutexGuard<'_, Option<(u32, u64)>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the container sees `dir` under its own name, and, where a proxy of this kind is asked and tells at addresses on
    /// loopback, this machine's network. Nothing to ask where there is no container.
    pub(super) async fn sees(&self, dir: &Path, kind: &str) -> Result<(), ProxyError> {
        let Some(look) = self.look().await? else { return Ok(()) };
        let mut missing = String::new();
        if !seen_as_it_is(&look, dir) {
            let dir = dir.display();
            let _ = write!(
                missing,
                " does not see {dir} under that name: start it with --volume {dir}:{dir} (Compose: volumes: \
                 [\"{dir}:{dir}\"])"
            );
        }
        if on_loopback(kind) && !look.host_network {
            let and = if missing.is_empty() { "" } else { ", and" };
            let _ = write!(
                missing,
                "{and} has a network of its own, where it cannot be asked what it does: start it with --network host \
                 (Compose: network_mode: host)"
            );
        }
        if missing.is_empty() {
            return Ok(());
        }
        let name = self.container.as_ref().map_or("", Theirs::name);
        Err(ProxyError::Refused(Safe::new(&format!("proxy {}: container {name}{missing}", self.proxy))))
    }
}

/// Why a container does not fit a proxy of this kind, whose directory is to be `dir`; `None` when it does.
pub async fn misfit(kind: &str, name: &ProxyName, container: &Container, dir: &Path) -> Option<String> {
    let place = Place::new(name.clone(), Some(container));
    place.sees(dir, kind).await.err().map(|e| e.to_string())
}

/// Whether a proxy of this kind is asked and tells at addresses on loopback that Pilothouse writes down for it.
fn on_loopback(kind: &str) -> bool {
    matches!(kind, "nginx" | "caddy")
}

/// Whether what is in `dir` on this machine is in `dir` there: by the mount that is nearest to it.
fn seen_as_it_is(look: &Look, dir: &Path) -> bool {
    let covering = look.binds.iter().filter(|(_, there)| dir.starts_with(there));
    let nearest = covering.max_by_key(|(_, there)| there.components().count());
    nearest.is_some_and(|(here, there)| {
        let inside = dir.strip_prefix(there).unwrap_or(Path::new(""));
        let same = |a: &Path, b: &Path| {
            a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
        };
        same(&here.join(inside), dir)
    })
}

async fn here<S: AsRef<OsStr>>(program: &Path, args: &[S], deadline: Duration) -> Result<Ended, NotEnded> {
    let mut command = Command::new(program);
    command.args(args).kill_on_drop(true).stdin(Stdio::null());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match timeout(deadline, command.output()).await {
        Ok(Ok(out)) => {
            Ok(Ended { success: out.status.success(), stdout: text(&out.stdout), stderr: text(&out.stderr) })
        }
        Ok(Err(e)) => Err(NotEnded { why: format!("cannot run {}: {e}", program.display()), begun: false }),
        Err(_) => {
            let why = format!("{} did not end within {} s", program.display(), deadline.as_secs());
            Err(NotEnded { why, begun: true })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_seen_under_its_own_name_or_not_at_all() {
        let look = |binds: &[(&str, &str)]| Look {
            pid: 1,
            host_network: true,
            binds: binds.iter().map(|(a, b)| (a.into(), b.into())).collect(),
        };
        let dir = Path::new("/etc/nginx/pilothouse");
        let seen = |binds: &[(&str, &str)]| seen_as_it_is(&look(binds), dir);
        assert!(seen(&[("/etc/nginx/pilothouse", "/etc/nginx/pilothouse")]));
        assert!(seen(&[("/etc/nginx", "/etc/nginx")]), "one above is enough");
        assert!(!seen(&[("/srv/edge/pilothouse", "/etc/nginx/pilothouse")]), "another one of this machine");
        assert!(!seen(&[("/etc/nginx/pilothouse", "/pilothouse")]), "under another name");
        assert!(
            !seen(&[("/etc/nginx", "/etc/nginx"), ("/x", "/etc/nginx/pilothouse")]),
            "covered by another"
        );
        assert!(!seen(&[]));
    }

    #[tokio::test]
    async fn what_does_not_run_or_end_says_so() {
        let place = Place::new("front".parse().unwrap(), None);
        let missing = place.run(Path::new("/no/such"), &["-t"], CHECK_DEADLINE).await.err().unwrap();
        assert!(!missing.begun && missing.why.contains("cannot run /no/such"), "{}", missing.why);
        let slow = place.run(Path::new("sleep"), &["60"], Duration::from_millis(50)).await.err().unwrap();
        assert!(slow.begun && slow.why.contains("did not end"), "{}", slow.why);
        let ended = place.run(Path::new("sh"), &["-c", "echo a; echo b >&2; exit 3"], CHECK_DEADLINE).await;
        let ended = ended.ok().unwrap();
        assert_eq!((ended.success, ended.stdout.as_str(), ended.stderr.as_str()), (false, "a\n", "b\n"));
    }
}
