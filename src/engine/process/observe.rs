//! What is true of the instances in the engine's directory, and the end of those whose shim was killed.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::files::{InstanceDir, Look, Phase, Spec, Status, boot, proc_stat};
use super::{Inner, unknown};
use crate::engine::{Details, EngineError};
use crate::fleet::names::{FleetName, InstanceId};
use crate::rollout::world::{ObservedInstance, RunState};
use crate::text::Safe;

/// Longest wait for a killed process to be gone.
const GONE: Duration = Duration::from_secs(2);

impl Inner {
    pub(super) fn observe(&self, fleet: &FleetName) -> Result<Vec<ObservedInstance>, EngineError> {
        let failed = |e: io::Error| unknown(format!("cannot read {}: {e}", self.dir.display()));
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().and_then(|n| n.parse::<InstanceId>().ok()) else { continue };
            let dir = self.instance(&id);
            // What cannot be read is not ours to report; `start` says so when it gets in the way.
            let Ok(Some(spec)) = dir.spec() else { continue };
            if spec.fleet == *fleet && spec.id == id {
                found.push(self.observe_one(&dir, spec)?);
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    pub(super) fn observe_one(&self, dir: &InstanceDir, spec: Spec) -> Result<ObservedInstance, EngineError> {
        let failed = |e: io::Error| unknown(format!("cannot look at {}: {e}", dir.path.display()));
        // The lock comes first: a shim says how it ended before it lets go.
        let (status, state) = match dir.try_look().map_err(failed)? {
            None => {
                let status = dir.status().map_err(failed)?;
                let state = match status.phase {
                    Phase::Starting => RunState::Starting,
                    Phase::Running => RunState::Running,
                    Phase::Exited => RunState::Exited { code: status.code, oom: false },
                };
                (status, state)
            }
            Some(_) if self.is_starting(&spec.id) => (dir.status().map_err(failed)?, RunState::Starting),
            Some(look) => {
                let buried = bury(dir, &look);
                let status = dir.status().map_err(failed)?;
                let state = match buried {
                    Ok(()) => RunState::Exited { code: status.code, oom: false },
                    // It cannot be ended and so it runs; the other instances can still be seen.
                    Err(_) => RunState::Running,
                };
                (status, state)
            }
        };
        Ok(ObservedInstance {
            adopts: None,
            restart: dir.restart(),
            id: spec.id,
            service: spec.service,
            revision: spec.revision,
            version: spec.version,
            rollout: spec.rollout,
            state,
            endpoint: Some(spec.endpoint),
            digest: spec.digest,
            started_ms: status.started_ms,
            restarts: status.restarts,
            engine_health: None,
        })
    }
}

/// What there is to know of an instance. Only names are read of what its process has in its environment.
pub(super) fn details(dir: &InstanceDir, spec: Spec, status: &Status) -> Details {
    let child = status.child.filter(|c| c.runs());
    let environ = child.and_then(|c| fs::read(format!("/proc/{}/environ", c.pid)).ok()).unwrap_or_default();
    let name = |line: &[u8]| {
        let name = line.split(|b| *b == b'=').next().unwrap_or_default();
        (!name.is_empty()).then(|| Safe::new(&String::from_utf8_lossy(name)))
    };
    let mut env: Vec<Safe> = environ.split(|b| *b == 0).filter_map(name).collect();
    env.sort();
    env.dedup();
    Details {
        runs_as: child.map(|c| format!("pid {}", c.pid).into()).unwrap_or_default(),
        image: Safe::new(&spec.program.display().to_string()),
        env,
        ports: vec![Safe::from(format!("{}/tcp", spec.endpoint))],
        restart: Some(dir.restart()),
        exit_code: status.code.filter(|_| status.phase == Phase::Exited),
        ..Details::default()
    }
}

/// Makes sure that an instance without a shim is really at its end: when the shim was killed before it could say
/// so, what it left running is killed and recorded as ended, with no exit code.
///
/// Blocks for up to two seconds.
pub(super) fn bury(dir: &InstanceDir, _look: &Look) -> Result<(), EngineError> {
    let failed = |e: io::Error| unknown(format!("cannot look at {}: {e}", dir.path.display()));
    let status = dir.status().map_err(failed)?;
    if status.phase == Phase::Exited {
        return Ok(());
    }
    let deadline = Instant::now() + GONE;
    loop {
        let left = orphans(&status);
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(unknown(format!("process {left:?} of {} cannot be ended", dir.path.display())));
        }
        for pid in left.into_iter().filter_map(Pid::from_raw) {
            // Gone already is what was wanted.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let code = if status.child.is_some() { None } else { status.code };
    dir.write_status(&Status { phase: Phase::Exited, child: None, code, ..status }).map_err(failed)
}

/// The processes that a killed shim left. A pid alone proves nothing, it may be somebody else's by now: boot and
/// start time must match, or, for what the program itself started, the session, which only the shim could have
/// opened.
fn orphans(status: &Status) -> Vec<i32> {
    let (Some(shim), Some(child)) = (status.shim, status.child) else { return Vec::new() };
    if status.boot != boot() {
        return Vec::new();
    }
    let mut left: Vec<i32> = Vec::new();
    if child.runs() {
        left.push(child.pid);
    }
    if proc_stat(shim.pid).is_some_and(|s| s.start != shim.start) {
        // The shim's pid, and with it perhaps the session's number, belongs to another now.
        return left;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return left };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if let Some(stat) = proc_stat(pid)
            && stat.session == shim.pid
            && stat.group == child.pid
            && stat.state != 'Z'
            && stat.start >= shim.start
            && !left.contains(&pid)
        {
            left.push(pid);
        }
    }
    left
}
