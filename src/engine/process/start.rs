//! Starting an instance: look first, write what it is, start its shim, read back.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use super::artifact::{find, template};
use super::files::{InstanceDir, Phase, Spec, Status};
use super::{Inner, clean, foreign, refused, unknown};
use crate::engine::{EngineError, identity};
use crate::fleet::names::InstanceId;
use crate::program::DEFAULT_PATH;
use crate::rollout::world::{InstanceSpec, ObservedInstance};

/// Longest wait for the shim's first word.
const SHIM: Duration = Duration::from_secs(10);
/// How long a fresh process is watched, so that one that dies at once is seen at once.
const FIRST_LOOK: Duration = Duration::from_millis(150);
const POLL: Duration = Duration::from_millis(5);

/// Marks an instance as being started for as long as it lives.
struct Starting<'a> {
    inner: &'a Inner,
    id: InstanceId,
}

impl<'a> Starting<'a> {
    /// `None` when another call is starting it.
    fn mark(inner: &'a Inner, id: &InstanceId) -> Option<Self> {
        let new = inner.starting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        new.then(|| Self { inner, id: id.clone() })
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.inner.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Inner {
    pub(super) async fn start(&self, want: &InstanceSpec) -> Result<ObservedInstance, EngineError> {
        self.make_dir()?;
        let Some(mark) = Starting::mark(self, &want.id) else {
            return Err(unknown(format!("instance {} is being started already", want.id)));
        };
        let dir = self.instance(&want.id);
        let spec = self.spec(want)?;
        if let Some((dir, have)) = self.ours(&want.fleet, &want.id)? {
            if (&have.digest, &have.revision, &have.service) != (&spec.digest, &spec.revision, &spec.service)
            {
                return Err(foreign(format!(
                    "instance {} exists already with revision {} ({}), wanted {} ({}): left alone",
                    want.id, have.revision, have.digest, spec.revision, spec.digest
                )));
            }
            let failed = |e: io::Error| unknown(format!("cannot look at {}: {e}", dir.path.display()));
            match dir.try_look().map_err(failed)? {
                None => {
                    drop(mark);
                    return self.observe_one(&dir, have);
                }
                // A killed shim may have left its process: it still has the port.
                Some(look) => {
                    super::blocking(super::OBSERVE, move || super::observe::bury(&dir, &look)).await?
                }
            }
        }
        let written = dir
            .create()
            .and_then(|()| dir.write_restart(want.restart))
            .and_then(|()| dir.write_status(&Status::default()))
            .and_then(|()| dir.write_spec(&spec));
        written.map_err(|e| refused(format!("cannot write {}: {e}", dir.path.display())))?;
        self.launch(&dir, want, &spec).await?;
        drop(mark);
        self.observe_one(&dir, spec)
    }

    fn spec(&self, want: &InstanceSpec) -> Result<Spec, EngineError> {
        let template = template(&want.run, &want.version)?;
        let program: PathBuf =
            template.first().and_then(|n| find(n, &self.shim_program)).ok_or_else(|| {
                let name = template.first().map_or("", String::as_str);
                refused(format!("there is no program {name:?}: give an absolute path, or a name in PATH"))
            })?;
        let endpoint = SocketAddr::new(want.address, want.host_port.unwrap_or(want.port));
        let fill = |a: &String| {
            a.replace("{port}", &endpoint.port().to_string()).replace("{address}", &endpoint.ip().to_string())
        };
        Ok(Spec {
            fleet: want.fleet.clone(),
            service: want.service.clone(),
            id: want.id.clone(),
            revision: want.revision.clone(),
            version: want.version.clone(),
            rollout: want.rollout.clone(),
            digest: want.digest.clone(),
            program,
            argv: template.iter().map(fill).collect(),
            endpoint,
        })
    }

    async fn launch(&self, dir: &InstanceDir, want: &InstanceSpec, spec: &Spec) -> Result<(), EngineError> {
        let mut shim = Command::from(clean::command(&self.shim_program));
        shim.arg("shim").arg(&dir.path).current_dir("/");
        shim.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        shim.env_clear().env("PATH", DEFAULT_PATH).envs(&want.env);
        shim.env("PORT", spec.endpoint.port().to_string()).env("HOST", spec.endpoint.ip().to_string());
        for (name, value) in identity(want) {
            shim.env(name, value);
        }
        let mut shim = shim
            .spawn()
            .map_err(|e| refused(format!("cannot start {}: {e}", self.shim_program.display())))?;
        let mut deadline = Instant::now() + SHIM;
        let mut runs = false;
        loop {
            let status = dir.status().unwrap_or_default();
            if status.phase == Phase::Exited {
                break;
            }
            // From here on it is only watched for a moment: however slow the machine, what is reported has started.
            if status.phase == Phase::Running && !runs {
                runs = true;
                deadline = Instant::now() + FIRST_LOOK;
            }
            if let Ok(Some(ended)) = shim.try_wait() {
                if dir.status().unwrap_or_default().phase == Phase::Exited {
                    break;
                }
                return Err(refused(format!("the shim of instance {} ended at once: {ended}", want.id)));
            }
            if Instant::now() > deadline {
                if runs || status.shim.is_some() {
                    break;
                }
                return Err(unknown(format!(
                    "the shim of instance {} has not answered in {SHIM:?}",
                    want.id
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        // It is our child for as long as we live, and must not stay a zombie.
        tokio::spawn(async move { shim.wait().await.is_ok() });
        Ok(())
    }
}
