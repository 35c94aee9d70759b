//! An image of the sample application, made without a toolchain and without a registry: this very executable and
//! the shared libraries it needs, on top of nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use color_eyre::eyre::{Result, WrapErr, eyre};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::fleet::names::Version;

/// Longest making of an image.
const BUILD: Duration = Duration::from_secs(300);
/// Size of the pieces the image is sent in.
const PIECE: usize = 256 * 1024;

/// What the image was made of: the executable's size and time, so that it is not made again without need.
const LABEL_SOURCE: &str = "io.pilothouse.sample.source";

/// Makes `repository:version` on the engine behind `docker_socket` out of `executable` (the pilothouse binary) and
/// the libraries it needs, and returns the image id. An image that was made of the same executable is kept. Each
/// version of each repository has an id of its own. The application listens on all addresses of the container, on
/// `PORT` (8080), and behaves as its version says.
///
/// The image is imported as one layer rather than built step by step: a build mounts a file system for every step,
/// which took 4 s where the import takes 0.2 s.
///
/// # Errors
/// When the engine cannot be reached or refuses, or the executable or its libraries cannot be read.
pub async fn build(
    docker_socket: &Path,
    executable: &Path,
    repository: &str,
    version: &Version,
) -> Result<String> {
    let name = format!("{repository}:{version}");
    let docker =
        Docker::connect_with_unix(&docker_socket.to_string_lossy(), BUILD.as_secs(), API_DEFAULT_VERSION)
            .wrap_err_with(|| format!("cannot reach docker at {}", docker_socket.display()))?;
    let source = source(executable).wrap_err_with(|| format!("cannot read {}", executable.display()))?;
    let make = async {
        if let Some(id) = made_of(&docker, &name, &source).await? {
            return Ok(id);
        }
        import(&docker, executable, repository, version, &source).await?;
        let made = made_of(&docker, &name, &source).await?;
        made.ok_or_else(|| eyre!("the image was made, and is not there"))
    };
    tokio::time::timeout(BUILD, make)
        .await
        .wrap_err_with(|| format!("no image within {} s", BUILD.as_secs()))?
        .wrap_err_with(|| format!("cannot make the image {name}"))
}

fn source(executable: &Path) -> io::Result<String> {
    let meta = std::fs::metadata(executable)?;
    Ok(format!("{}-{}.{:09}", meta.size(), meta.mtime(), meta.mtime_nsec()))
}

/// The id of the image, if it is there and was made of `source`.
async fn made_of(docker: &Docker, name: &str, source: &str) -> Result<Option<String>> {
    match docker.inspect_image(name).await {
        Ok(image) => {
            let labels = image.config.and_then(|c| c.labels).unwrap_or_default();
            Ok(image.id.filter(|_| labels.get(LABEL_SOURCE).is_some_and(|s| s == source)))
        }
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(e) => Err(e).wrap_err("cannot look at the image"),
    }
}

async fn import(
    docker: &Docker,
    executable: &Path,
    repository: &str,
    version: &Version,
    source: &str,
) -> Result<()> {
    // A few pieces are under way at a time: the image is never in memory as a whole.
    let (send, mut receive) = mpsc::channel::<io::Result<Bytes>>(4);
    let executable = executable.to_owned();
    let writer = tokio::task::spawn_blocking(move || {
        if let Err(e) = needed(&executable).and_then(|l| write_layer(Sender(send.clone()), &executable, &l)) {
            // Breaks the request off; without it dockerd would make half an image.
            let _ = send.blocking_send(Err(e));
        }
    });
    let body = bollard::body_try_stream(futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx)));
    let changes = vec![
        format!("ENV HOST=0.0.0.0 PORT=8080 PILOTHOUSE_VERSION={version}"),
        format!(
            "LABEL io.pilothouse.sample=1 io.pilothouse.sample.repository={repository} {LABEL_SOURCE}={source}"
        ),
        "EXPOSE 8080".to_owned(),
        r#"ENTRYPOINT ["/pilothouse", "sample-app", "--behaviour-by-version"]"#.to_owned(),
    ];
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(repository)
        .tag(version.as_str())
        .changes(changes)
        .build();
    let mut steps = docker.create_image(Some(options), Some(body), None);
    while let Some(step) = steps.next().await {
        step.wrap_err("docker broke off the import")?;
    }
    drop(steps);
    writer.await?;
    Ok(())
}

/// The one layer of the image.
fn write_layer(to: Sender, executable: &Path, libraries: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::with_capacity(PIECE, to));
    let program = (executable, Path::new("pilothouse"));
    let files = libraries.iter().filter_map(|l| Some((l.as_path(), l.strip_prefix("/").ok()?)));
    for (from, inside) in std::iter::once(program).chain(files) {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
        let mut file = File::open(from).map_err(named)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata().map_err(named)?.len());
        header.set_mode(0o755);
        header.set_mtime(1);
        tar.append_data(&mut header, inside, &mut file).map_err(named)?;
    }
    tar.into_inner()?.flush()
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "docker takes no more of the image")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files that `executable` needs to run, at the paths where it looks for them: the ELF interpreter and what it
/// would load. Empty for a static executable.
fn needed(executable: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let Some(interpreter) = interpreter(executable)? else { return Ok(BTreeSet::new()) };
    let listed = Command::new(&interpreter).arg("--list").arg(executable).stdin(Stdio::null()).output();
    let mut files = match listed {
        Ok(out) if out.status.success() => parse_list(&String::from_utf8_lossy(&out.stdout)),
        // An interpreter that cannot list (musl before 1.2): what this process has loaded is the best guess left.
        _ => mapped(&std::fs::read_to_string("/proc/self/maps")?),
    };
    files.insert(interpreter);
    Ok(files)
}

/// Lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or with the path alone. The kernel's own
/// library has no path.
fn parse_list(text: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let line = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = line.split_once(" (").map_or(line, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}

fn mapped(maps: &str) -> BTreeSet<PathBuf> {
    let libraries =
        maps.lines().filter_map(|l| l.split_ascii_whitespace().nth(5)).filter(|p| p.contains(".so"));
    libraries.map(PathBuf::from).filter(|p| p.is_absolute()).collect()
}

/// The interpreter that a 64-bit little-endian ELF file names in its `PT_INTERP` program header (System V ABI,
/// chapter 5); `None` for a static one.
fn interpreter(executable: &Path) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u64 = 3;
    let bad = || {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is no 64-bit ELF file", executable.display()))
    };
    let mut file = File::open(executable)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(bad());
    }
    let (table, size, count) = (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2));
    for n in 0..count {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(table + n * size))?;
        file.read_exact(&mut entry)?;
        if number(&entry, 0, 4) == PT_INTERP {
            let mut path = vec![0; usize::try_from(number(&entry, 32, 8).min(4096)).unwrap_or_default()];
            file.seek(SeekFrom::Start(number(&entry, 8, 8)))?;
            file.read_exact(&mut path)?;
            let text = String::from_utf8_lossy(&path);
            return Ok(Some(PathBuf::from(text.trim_end_matches('\0'))));
        }
    }
    Ok(None)
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes.iter().skip(at).take(len).rev().fold(0, |n, b| (n << 8) | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_interpreter_lists_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibx.so => not found\n";
        let files: Vec<_> = parse_list(text).into_iter().collect();
        assert_eq!(
            files,
            [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
    }

    #[test]
    fn this_test_needs_what_it_has_loaded() {
        let me = std::env::current_exe().unwrap();
        let Some(interpreter) = interpreter(&me).unwrap() else { return };
        assert!(interpreter.exists());
        let files = needed(&me).unwrap();
        assert!(files.iter().all(|f| f.exists()), "{files:?}");
        assert!(files.iter().any(|f| f.to_string_lossy().contains("libc.so")), "{files:?}");
        assert!(interpreter_of_text().is_err());
    }

    fn interpreter_of_text() -> io::Result<Option<PathBuf>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "x".repeat(100))?;
        interpreter(file.path())
    }
}
