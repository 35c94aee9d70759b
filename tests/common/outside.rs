//! The world of a test, seen from outside: images, containers and processes, by the engine's word and not by ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Backends, World, engine_at, repository};
use crate::common;

impl World {
    // --- images ---------------------------------------------------------------------------------------------------

    /// Makes the image of `version`, once for all tests of this build. With a registry it is there afterwards, and on no
    /// host under the name that it has there.
    pub fn image(&self, version: &str) {
        let Some(socket) = &self.docker else { return };
        let lock =
            std::fs::File::create(std::env::temp_dir().join(format!("{}.lock", repository()))).unwrap();
        lock.lock().unwrap();
        let parsed = version.parse().unwrap();
        let (program, repository) = (common::pilothouse(), repository());
        let build = pilothouse::demo::image::build(socket, &program, &repository, &parsed);
        self.runtime.block_on(build).unwrap();
        // What an older build of ours left: its layer is as large as the binary.
        let label = format!("io.pilothouse.sample.repository={repository}");
        let filters = HashMap::from([("label", vec![label.as_str()]), ("dangling", vec!["true"])]);
        let options =
            bollard::query_parameters::PruneImagesOptionsBuilder::default().filters(&filters).build();
        let _ = self.runtime.block_on(engine_at(socket).prune_images(Some(options)));
        if let Some(remote) = &self.remote {
            let engine = engine_at(socket);
            let local = format!("{repository}:{version}");
            self.runtime.block_on(common::registry::push(&engine, &local, remote, version));
            self.forget(socket, &format!("{remote}:{version}"), false);
        }
    }

    /// In the registry `tag` means from now on what `version` is.
    pub fn move_tag(&self, tag: &str, version: &str) {
        self.image(version);
        let socket = self.docker.as_ref().expect("a world with docker");
        let remote = self.remote.as_ref().expect("a world with a registry");
        let local = format!("{}:{version}", repository());
        self.runtime.block_on(common::registry::push(&engine_at(socket), &local, remote, tag));
        self.forget(socket, &format!("{remote}:{tag}"), false);
    }

    /// Takes a name of an image away, and the image with its last name; whether dockerd did.
    pub(super) fn forget(&self, socket: &Path, name: &str, force: bool) -> bool {
        let options = bollard::query_parameters::RemoveImageOptionsBuilder::default().force(force).build();
        self.runtime.block_on(engine_at(socket).remove_image(name, Some(options), None)).is_ok()
    }

    /// The images that the hosts pulled: engine, id and names of each.
    pub fn pulled(&self) -> Vec<(PathBuf, String, Vec<String>)> {
        let Some(remote) = &self.remote else { return Vec::new() };
        let filters = HashMap::from([("reference", vec![remote.as_str()])]);
        let options =
            bollard::query_parameters::ListImagesOptionsBuilder::default().filters(&filters).build();
        let mut found = Vec::new();
        for socket in self.engines() {
            let list = self.runtime.block_on(engine_at(socket).list_images(Some(options.clone())));
            found.extend(list.unwrap().into_iter().map(|image| {
                let names = image.repo_tags.into_iter().chain(image.repo_digests);
                let ours = names.filter(|name| name.starts_with(remote.as_str())).collect();
                (socket.to_owned(), image.id, ours)
            }));
        }
        found
    }

    /// What `docker image prune --all` does, among the images of this world: those that no container has, running or
    /// not, are gone afterwards. How many that were.
    pub fn prune_images(&self) -> usize {
        let containers = self.containers();
        let used: BTreeSet<&str> = containers.iter().filter_map(|(_, c)| c.image_id.as_deref()).collect();
        let pulled = self.pulled();
        let unused: Vec<_> = pulled.iter().filter(|(_, id, _)| !used.contains(id.as_str())).collect();
        for (socket, id, names) in &unused {
            for name in names {
                assert!(self.forget(socket, name, false), "{name} of {id}");
            }
        }
        unused.len()
    }

    /// What `docker container prune` does, among the containers of this world: those that do not run are gone.
    pub fn prune_containers(&self) {
        for (socket, container) in self.containers() {
            let runs = container.state.is_some_and(|s| s.to_string().eq_ignore_ascii_case("running"));
            if !runs {
                let id = container.id.unwrap_or_default();
                self.runtime.block_on(engine_at(socket).remove_container(&id, None)).unwrap();
            }
        }
    }

    // --- instances ------------------------------------------------------------------------------------------------

    /// The engine of the first host.
    pub(super) fn engine(&self) -> bollard::Docker {
        engine_at(self.docker.as_ref().expect("a world with docker"))
    }

    /// The sockets of the hosts' engines.
    pub(super) fn engines(&self) -> impl Iterator<Item = &Path> {
        self.docker.iter().chain(&self.second_docker).map(PathBuf::as_path)
    }

    /// A container of the service's image that somebody ran by hand, published on `port` of host `n`; gone when the value
    /// is.
    pub fn by_hand(&self, version: &str, n: usize, port: u16) -> ByHand {
        use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
        self.image(version);
        let engine = self.engine();
        let name = common::unique("by-hand");
        let binding = PortBinding { host_ip: Some(self.host_address(n)), host_port: Some(port.to_string()) };
        let body = ContainerCreateBody {
            image: Some(format!("{}:{version}", repository())),
            env: Some(vec!["PORT=8080".to_owned(), format!("PILOTHOUSE_VERSION={version}")]),
            exposed_ports: Some(vec!["8080/tcp".to_owned()]),
            host_config: Some(HostConfig {
                port_bindings: Some(HashMap::from([("8080/tcp".to_owned(), Some(vec![binding]))])),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = bollard::query_parameters::CreateContainerOptionsBuilder::default().name(&name).build();
        self.runtime.block_on(async {
            engine.create_container(Some(options), body).await.unwrap();
            engine.start_container(&name, None).await.unwrap();
        });
        ByHand { engine, name }
    }

    /// Removes what Pilothouse wrote beside adopted containers, as 'docker volume prune' does.
    pub fn forget_adopted(&self) {
        use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};
        let label = format!("io.pilothouse.fleet={}", self.fleet);
        let filters = HashMap::from([("label", vec![label.as_str(), "io.pilothouse.adopts"])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let engine = self.engine();
        let list = self.runtime.block_on(engine.list_volumes(Some(options))).unwrap();
        let volumes = list.volumes.unwrap_or_default();
        assert!(!volumes.is_empty(), "nothing was written beside them");
        for volume in volumes {
            let options = RemoveVolumeOptionsBuilder::default().build();
            self.runtime.block_on(engine.remove_volume(&volume.name, Some(options))).unwrap();
        }
    }

    /// Since when a container runs, as its engine says; `None` when it does not.
    pub fn runs_since(&self, container: &ByHand) -> Option<String> {
        let found = self.runtime.block_on(container.engine.inspect_container(&container.name, None)).ok()?;
        let state = found.state?;
        state.started_at.filter(|_| state.running == Some(true))
    }

    /// Every instance that the engine has, running or not: id and whether it runs. By label, or by directory.
    pub fn there(&self) -> BTreeMap<String, bool> {
        match self.backends {
            Backends::DockerHaproxy => {
                let list = self.containers();
                let id = |c: &bollard::models::ContainerSummary| {
                    c.labels
                        .as_ref()
                        .and_then(|l| l.get("io.pilothouse.instance"))
                        .cloned()
                        .unwrap_or_default()
                };
                let runs = |c: &bollard::models::ContainerSummary| {
                    c.state.as_ref().is_some_and(|s| s.to_string().eq_ignore_ascii_case("running"))
                };
                list.iter().map(|(_, c)| (id(c), runs(c))).collect()
            }
            _ => {
                let mut found = BTreeMap::new();
                for host in std::fs::read_dir(self.state_dir().join("hosts")).into_iter().flatten().flatten()
                {
                    for dir in std::fs::read_dir(host.path()).into_iter().flatten().flatten() {
                        let name = dir.file_name().to_string_lossy().into_owned();
                        if name.starts_with("web-") || name.starts_with("api-") {
                            let text = std::fs::read(dir.path().join("status.json")).unwrap_or_default();
                            let status: Value = serde_json::from_slice(&text).unwrap_or_default();
                            found.insert(name, status["phase"] == "running");
                        }
                    }
                }
                found
            }
        }
    }

    pub(super) fn containers(&self) -> Vec<(&Path, bollard::models::ContainerSummary)> {
        let label = format!("io.pilothouse.fleet={}", self.fleet);
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = bollard::query_parameters::ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let of = |socket| {
            let list = self.runtime.block_on(engine_at(socket).list_containers(Some(options.clone())));
            list.unwrap_or_default().into_iter().map(move |c| (socket, c))
        };
        self.engines().flat_map(of).collect()
    }

    /// What `status` shows, by id.
    pub fn shown(&self) -> BTreeSet<String> {
        let status = self.status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let revisions: Vec<Value> =
            services.iter().flat_map(|s| s["revisions"].as_array().cloned().unwrap_or_default()).collect();
        let instances = revisions.iter().flat_map(|r| r["instances"].as_array().cloned().unwrap_or_default());
        instances.map(|i| i["id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Scenario 27: what the engine has is what status shows.
    pub fn assert_no_orphan(&self) {
        let mut last = (BTreeSet::new(), BTreeSet::new());
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            last = (self.there().into_keys().collect(), self.shown());
            if last.0 == last.1 {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("the engine has {:?}, status shows {:?}", last.0, last.1);
    }

    /// Version, id and requests served of each instance that answers.
    pub fn counts_by_instance(&self) -> Vec<(String, String, u64)> {
        let snapshot = self.snapshot().expect("a controller answers");
        let instances = snapshot["instances"].as_array().unwrap();
        let ask = |i: &Value| {
            let answer = count_of(i["endpoint"].as_str()?.parse().ok()?)?;
            Some((
                answer["version"].as_str()?.to_owned(),
                i["id"].as_str()?.to_owned(),
                answer["served"].as_u64()?,
            ))
        };
        instances.iter().filter_map(ask).collect()
    }

    /// Endpoints of the instances of `version`.
    pub fn endpoints(&self, version: &str) -> Vec<SocketAddr> {
        let snapshot = self.snapshot().expect("a controller answers");
        let instances = snapshot["instances"].as_array().unwrap();
        let of = instances.iter().filter(|i| i["version"] == version);
        of.filter_map(|i| i["endpoint"].as_str()?.parse().ok()).collect()
    }

    /// Every process that was started for this world and still lives.
    pub fn processes(&self) -> Vec<u32> {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
        pids.filter(|pid| self.is_ours(*pid) || self.is_app(*pid)).collect()
    }

    /// Whether it is a process instance of ours: it listens on one of our addresses.
    pub(super) fn is_app(&self, pid: u32) -> bool {
        let address = format!("\0{}.", self.net);
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| {
            let c = String::from_utf8_lossy(&c);
            c.contains("sample-app") && c.contains(&address)
        })
    }

    pub(super) fn tell(&self) {
        eprintln!("--- what is left of fleet {} in {}", self.fleet, self.path().display());
        if let Some(s) = self.snapshot() {
            for e in s["events"].as_array().into_iter().flatten() {
                eprintln!("event {} {} {} ({})", e["at_ms"], e["kind"], e["text"], e["by"]);
            }
            eprintln!("services {}", s["services"]);
            eprintln!("hosts {} proxies {} alarms {}", s["hosts"], s["proxies"], s["alarms"]);
            for i in s["instances"].as_array().into_iter().flatten() {
                eprintln!("instance {i}");
            }
        }
        eprintln!("engine has {:?}", self.there());
        for file in ["state/controller.log", "proxy.log"] {
            let text = std::fs::read_to_string(self.path().join(file)).unwrap_or_default();
            let from = text.len().saturating_sub(3000);
            eprintln!("--- {file}\n{}", text.get(from..).unwrap_or_default());
        }
    }
}

/// See [`World::by_hand`].
pub struct ByHand {
    engine: bollard::Docker,
    pub name: String,
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let options =
            bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        // Not the world's runtime, which may be gone: a test's values are dropped in any order.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(self.engine.remove_container(&self.name, Some(options)));
    }
}

/// What an instance answers to `/count`.
pub fn count_of(endpoint: SocketAddr) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&endpoint, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /count HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}
