//! What a command at a version exactly is: a hash over the program's bytes and the arguments.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{refused, unknown};
use crate::engine::EngineError;
use crate::fleet::model::Run;
use crate::fleet::names::Version;
use crate::program;
use crate::text::hex;

/// Longest reading and hashing of a program.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// What tells one state of a file from another without reading it. The change time cannot be set at will.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Hashes of programs, kept for as long as the file has not changed.
#[derive(Default)]
pub(super) struct Hashes {
    known: Mutex<HashMap<PathBuf, (Stamp, [u8; 32])>>,
}

impl Hashes {
    /// `sha256:` and the hash over the program's bytes and its arguments with `{version}` filled in; ports and
    /// addresses are left open, they differ from instance to instance. `None` when there is no such program.
    pub(super) fn digest(
        &self,
        run: &Run,
        version: &Version,
        own: &Path,
    ) -> Result<Option<String>, EngineError> {
        let argv = template(run, version)?;
        let Some(program) = argv.first().and_then(|name| find(name, own)) else { return Ok(None) };
        let bytes = match self.program(&program) {
            Ok(hash) => hash,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unknown(format!("cannot read {}: {e}", program.display()))),
        };
        let mut hash = Sha256::new();
        hash.update(bytes);
        for arg in &argv {
            hash.update((arg.len() as u64).to_be_bytes());
            hash.update(arg.as_bytes());
        }
        Ok(Some(format!("sha256:{}", hex(&hash.finalize()))))
    }

    fn program(&self, path: &Path) -> io::Result<[u8; 32]> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        let stamp = Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, hash)) = known.get(path).filter(|(s, _)| *s == stamp) {
            return Ok(*hash);
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hash.update(buffer.get(..n).unwrap_or_default()),
                // A signal came in between; nothing was read and nothing is wrong.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        known.insert(path.to_owned(), (stamp, hash));
        Ok(hash)
    }
}

/// The arguments with `{version}` filled in.
pub(super) fn template(run: &Run, version: &Version) -> Result<Vec<String>, EngineError> {
    match run {
        Run::Command { argv } => Ok(argv.iter().map(|a| a.replace("{version}", version.as_str())).collect()),
        Run::Image { repository, .. } => Err(refused(format!(
            "a process host cannot run the image {repository}: give the service a command, or the host a docker engine"
        ))),
    }
}

/// The program's file. The bare name of this very program is `own`: a newcomer has not installed it yet.
pub(super) fn find(name: &str, own: &Path) -> Option<PathBuf> {
    if name == "pilothouse" {
        Some(own.to_owned()).filter(|p| program::usable(p))
    } else {
        program::find(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn run(argv: &[&str]) -> Run {
        Run::Command { argv: argv.iter().map(|s| (*s).to_owned()).collect() }
    }

    #[test]
    fn the_digest_knows_program_arguments_and_version() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("app");
        let put = |text: &str| {
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        };
        put("one");
        let name = program.to_str().unwrap();
        let (v1, v2) = ("1".parse().unwrap(), "2".parse().unwrap());
        let hashes = Hashes::default();
        let of = |argv: &[&str], v: &Version| hashes.digest(&run(argv), v, Path::new("/none")).unwrap();
        let first = of(&[name, "{version}", "{port}"], &v1).unwrap();
        assert!(first.starts_with("sha256:") && first.len() == 71);
        assert_eq!(of(&[name, "{version}", "{port}"], &v1).as_deref(), Some(first.as_str()));
        assert_ne!(of(&[name, "{version}", "{port}"], &v2).as_deref(), Some(first.as_str()));
        assert_eq!(of(&[name, "x"], &v1), of(&[name, "x"], &v2), "the version is not in it");
        assert_ne!(of(&[name, "ab", "c"], &v1), of(&[name, "a", "bc"], &v1));
        put("two");
        assert_ne!(of(&[name, "{version}", "{port}"], &v1).as_deref(), Some(first.as_str()));
        fs::remove_file(&program).unwrap();
        assert_eq!(of(&[name, "{version}", "{port}"], &v1), None);
    }

    #[test]
    fn programs_are_found_by_path_by_name_or_as_ourselves() {
        assert_eq!(find("/bin/sh", Path::new("/none")), Some("/bin/sh".into()));
        assert!(find("sh", Path::new("/none")).is_some());
        assert_eq!(find("pilothouse", Path::new("/bin/sh")), Some("/bin/sh".into()));
        assert_eq!(find("./sh", Path::new("/none")), None);
        assert_eq!(find("/etc", Path::new("/none")), None);
    }
}
