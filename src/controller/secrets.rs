//! The controller's own secrets: who it is to engines and proxies, and the key under which environments are hashed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::fleet::model::{Run, Service};
use crate::fleet::names::{Invalid, RevisionId, Version};
use crate::rollout::state::Revision;
use crate::text::hex;

/// Made once per state directory.
#[derive(Clone)]
pub struct Identity {
    /// Name under which engines and proxies are claimed: machine, directory, and a random part.
    pub owner: String,
    key: Vec<u8>,
}

impl Identity {
    /// Reads `DIR/identity`, or makes it.
    ///
    /// # Errors
    /// When the file cannot be read or made.
    pub fn load(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join("identity");
        let mut seed = Vec::new();
        match OpenOptions::new().read(true).open(&path) {
            Ok(mut f) => {
                f.read_to_end(&mut seed)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                seed = vec![0; 48];
                getrandom::fill(&mut seed).map_err(|e| std::io::Error::other(e.to_string()))?;
                let mut f = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                f.write_all(&seed)?;
                f.sync_all()?;
            }
            Err(e) => return Err(e),
        }
        let (tag, key) = seed
            .split_at_checked(16)
            .filter(|(_, key)| key.len() >= 32)
            .ok_or_else(|| std::io::Error::other(format!("{} is cut short; remove it", path.display())))?;
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let owner = format!("{}:{}:{}", machine.trim(), dir.display(), hex(tag));
        Ok(Self { owner, key: key.to_owned() })
    }

    /// A keyed hash over the values of an environment: it tells whether they changed, and nothing else.
    #[must_use]
    pub fn env_hash(&self, env: &BTreeMap<String, String>) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        for (name, value) in env {
            for part in [name, value] {
                mac.update(&(part.len() as u64).to_le_bytes());
                mac.update(part.as_bytes());
            }
        }
        hex(&mac.finalize().into_bytes())
    }

    /// The revision of a service that is this version, artifact and environment.
    ///
    /// # Errors
    /// Never for what the model allows.
    pub fn revision(
        &self,
        spec: &Service,
        version: &Version,
        digest: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<Revision, Invalid> {
        let env_hash = self.env_hash(env);
        let run = match &spec.run {
            Run::Image { repository, args, .. } => format!("image {repository} {args:?}"),
            Run::Command { argv } => format!("command {argv:?}"),
        };
        let configuration = format!("{:?} {:?} {:?} {:?}", spec.port, spec.address, spec.network, spec.env);
        let id = revision_id([digest, version.as_str(), &run, &configuration, &env_hash])?;
        Ok(Revision { id, version: version.clone(), digest: digest.to_owned(), spec: spec.clone(), env_hash })
    }
}

/// The identity of what `parts` make out: the start of the hash over them.
///
/// # Errors
/// Never: eight hexadecimal digits are a name.
pub(super) fn revision_id<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<RevisionId, Invalid> {
    let mut h = Sha256::new();
    for part in parts {
        h.update((part.len() as u64).to_le_bytes());
        h.update(part.as_bytes());
    }
    let id: String = hex(&h.finalize()).chars().take(8).collect();
    id.parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::simulation::{fleet, web};

    #[test]
    fn the_identity_stays_and_a_changed_value_is_seen_without_being_stored() {
        let dir = tempfile::tempdir().unwrap();
        let one = Identity::load(dir.path()).unwrap();
        let two = Identity::load(dir.path()).unwrap();
        assert_eq!(one.owner, two.owner);
        let env = |v: &str| [("TOKEN".to_owned(), v.to_owned())].into();
        assert_eq!(one.env_hash(&env("s3cret")), two.env_hash(&env("s3cret")));
        assert_ne!(one.env_hash(&env("s3cret")), one.env_hash(&env("other")));
        let other = Identity::load(tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(one.env_hash(&env("s3cret")), other.env_hash(&env("s3cret")), "keyed");
    }

    #[test]
    fn the_same_artifact_with_another_environment_is_another_revision() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load(dir.path()).unwrap();
        let spec = fleet(1, 1, 1, vec![]).services[&web()].clone();
        let version: Version = "1.0.0".parse().unwrap();
        let id =
            |env: &BTreeMap<String, String>| identity.revision(&spec, &version, "sha256:1", env).unwrap();
        let secret: BTreeMap<_, _> = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
        assert_eq!(id(&BTreeMap::new()).id, id(&BTreeMap::new()).id);
        assert_ne!(id(&BTreeMap::new()).id, id(&secret).id);
        assert!(!serde_json::to_string(&id(&secret)).unwrap().contains("s3cret"));
    }
}
