//! A registry on loopback, for images that hosts have to pull.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use crate::common;

const BINARY: &str = "/usr/bin/docker-registry";

/// Ended, and forgotten with all that is in it, when it is dropped.
pub struct Registry {
    child: Option<Child>,
    pub port: u16,
    dir: tempfile::TempDir,
}

impl Registry {
    /// An empty one that answers; `None`, said loudly, when it is not installed.
    pub fn start(test: &str) -> Option<Self> {
        if !Path::new(BINARY).exists() {
            let why = format!("{BINARY} is not installed (apt-get install docker-registry)");
            common::skip("registry", test, &why);
            return None;
        }
        let mut registry = Self { child: None, port: common::free_port(), dir: tempfile::tempdir().unwrap() };
        registry.go_on();
        Some(registry)
    }

    /// Starts it, also again, on what it has.
    pub fn go_on(&mut self) {
        let config = self.dir.path().join("c.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{}'}}\n",
            self.dir.path().join("data").display(),
            self.port
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + common::PATIENCE;
        while !self.answers() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let ask = || {
            let mut s = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            s.set_read_timeout(Some(Duration::from_secs(5)))?;
            s.write_all(b"GET /v2/ HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            s.read_to_string(&mut text)?;
            std::io::Result::Ok(text.contains(" 200 "))
        };
        ask().unwrap_or(false)
    }

    /// Nobody answers any more.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives the image `from` the name `repository:tag` and pushes it to the registry that the repository names.
pub async fn push(docker: &bollard::Docker, from: &str, repository: &str, tag: &str) {
    let options =
        bollard::query_parameters::TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
    docker.tag_image(from, Some(options)).await.unwrap();
    let options = bollard::query_parameters::PushImageOptionsBuilder::default().tag(tag).build();
    let steps: Vec<_> = docker.push_image(repository, Some(options), None).collect().await;
    assert!(steps.iter().all(Result::is_ok), "{steps:?}");
}
