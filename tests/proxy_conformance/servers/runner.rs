//! What runs a real server: a process of this machine, or a container whose only files are those of this machine.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::StreamExt as _;
use pilothouse::fleet::model::Container as Settings;

use crate::support::end;

const SOCKET: &str = "/var/run/docker.sock";

/// Runs one server.
pub struct Runner {
    child: Option<Child>,
    container: Option<Container>,
}

/// A container, made anew at each start.
pub struct Container {
    docker: Docker,
    name: String,
    image: String,
    /// Where drivers are told that its engine is.
    pub told: PathBuf,
    /// What it sees, under the same names.
    mounts: Vec<PathBuf>,
    /// `host`, or another one.
    pub network: &'static str,
    /// Whether its first process is one that only starts the server.
    pub wrapped: bool,
    runs: bool,
}

impl Runner {
    /// A process.
    pub fn here() -> Self {
        Self { child: None, container: None }
    }

    /// A container that sees `dir`; `None`, said loudly, without Docker.
    pub async fn container(dir: &Path, program: &Path) -> Option<Self> {
        let docker = Docker::connect_with_unix(SOCKET, 60, bollard::API_DEFAULT_VERSION).ok()?;
        if docker.ping().await.is_err() {
            crate::require::missing("docker", "no Docker Engine answers");
            return None;
        }
        let mut random = [0; 4];
        getrandom::fill(&mut random).unwrap();
        let name = format!("ph-proxy-{:08x}", u32::from_ne_bytes(random));
        let image = format!("{name}:test");
        import(&docker, &name).await;
        let mut mounts = vec![dir.to_owned(), "/usr".into(), "/etc".into()];
        // Some programs are kept elsewhere.
        let program = program.canonicalize().unwrap();
        if !program.starts_with("/usr") {
            mounts.push(program.parent().unwrap().to_owned());
        }
        let container = Container {
            docker,
            name,
            image,
            told: SOCKET.into(),
            mounts,
            network: "host",
            wrapped: false,
            runs: false,
        };
        Some(Self { child: None, container: Some(container) })
    }

    /// The same, changed.
    pub fn with(mut self, change: impl FnOnce(&mut Container)) -> Self {
        change(self.container.as_mut().unwrap());
        self
    }

    /// What a driver is told of it.
    pub fn settings(&self) -> Option<Settings> {
        let container = self.container.as_ref()?;
        Some(Settings { name: container.name.clone(), engine: container.told.clone() })
    }

    pub fn is_container(&self) -> bool {
        self.container.is_some()
    }

    /// The server's process; in a container there is none of ours.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts `command`, whose output goes to `log`.
    pub async fn start(&mut self, mut command: Command, log: &Path) {
        let Some(container) = &mut self.container else {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
            command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
            self.child = Some(command.spawn().unwrap());
            return;
        };
        container.start(&command, log).await;
    }

    /// Runs a program beside the server and waits for its end.
    pub async fn run(&self, command: &Command) {
        let c = self.container.as_ref().unwrap();
        let config = ExecConfig {
            cmd: Some(words(command)),
            env: Some(env(command)),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let id = c.docker.create_exec(&c.name, config).await.unwrap().id;
        let begun = c.docker.start_exec(&id, None).await.unwrap();
        let mut said = String::new();
        if let bollard::exec::StartExecResults::Attached { mut output, .. } = begun {
            while let Some(Ok(piece)) = output.next().await {
                said.push_str(&piece.to_string());
            }
        }
        let code = c.docker.inspect_exec(&id).await.unwrap().exit_code;
        assert_eq!(code, Some(0), "{command:?}: {said}");
    }

    /// Ends it, and returns when it has ended.
    pub fn stop(&mut self) {
        end(&mut self.child);
        if let Some(container) = &mut self.container
            && container.runs
        {
            container.runs = false;
            blocking(container.remove());
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop();
        if let Some(c) = &self.container {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            let _ = blocking(c.docker.remove_image(&c.image, Some(options), None));
        }
    }
}

/// From a test, and from where one ends.
fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

fn text(s: &OsStr) -> String {
    s.to_str().unwrap().to_owned()
}

fn words(command: &Command) -> Vec<String> {
    std::iter::once(command.get_program()).chain(command.get_args()).map(text).collect()
}

fn env(command: &Command) -> Vec<String> {
    let set = command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", text(name), text(value?))));
    set.chain(["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]).collect()
}

impl Container {
    async fn start(&mut self, command: &Command, log: &Path) {
        // With something behind it a shell stays the first process.
        let shell = if self.wrapped { "\"$@\" >>$LOG 2>&1; true" } else { "exec \"$@\" >>$LOG 2>&1" };
        let cmd = ["/bin/sh", "-c", shell, "sh"].map(str::to_owned).into_iter().chain(words(command));
        let bind = |dir: &PathBuf| {
            let (dir, mode) = (dir.display(), if dir.starts_with("/tmp") { "rw" } else { "ro" });
            format!("{dir}:{dir}:{mode}")
        };
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(cmd.collect()),
            env: Some(env(command).into_iter().chain([format!("LOG={}", log.display())]).collect()),
            working_dir: command.get_current_dir().map(|d| text(d.as_os_str())),
            host_config: Some(HostConfig {
                binds: Some(self.mounts.iter().map(bind).collect()),
                network_mode: Some(self.network.to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&self.name).build();
        self.docker.create_container(Some(options), body).await.unwrap();
        self.runs = true;
        if let Err(e) = self.docker.start_container(&self.name, None).await {
            let options = LogsOptionsBuilder::default().stderr(true).stdout(true).build();
            let said: Vec<_> = self.docker.logs(&self.name, Some(options)).collect().await;
            panic!("{e}: {said:?}");
        }
    }

    async fn remove(&self) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.docker.remove_container(&self.name, Some(options)).await;
        removed.unwrap_or_else(|e| eprintln!("container {} stays: {e}", self.name));
    }
}

/// An image with nothing in it but the directories that programs expect.
async fn import(docker: &Docker, repository: &str) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry = |kind: tar::EntryType, path: &str, to: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if path == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        match kind {
            tar::EntryType::Symlink => tar.append_link(&mut header, path, to).unwrap(),
            _ => tar.append_data(&mut header, path, std::io::empty()).unwrap(),
        }
    };
    for dir in
        ["usr", "etc", "tmp", "run", "root", "var", "var/lib", "var/lib/nginx", "var/log", "var/log/nginx"]
    {
        entry(tar::EntryType::Directory, dir, "");
    }
    // As Debian has them since they are all in /usr.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        entry(tar::EntryType::Symlink, dir, &format!("usr/{dir}"));
    }
    let mut bytes = tar.into_inner().unwrap();
    bytes.flush().unwrap();
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(repository).tag("test").build();
    let mut steps = docker.create_image(Some(options), Some(bollard::body_full(bytes.into())), None);
    while let Some(step) = steps.next().await {
        step.unwrap();
    }
}
