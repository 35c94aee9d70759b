//! The Docker engine against a real dockerd. Every container carries a fleet label that only its own test has.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptions, RemoveImageOptionsBuilder, RemoveVolumeOptions, TagImageOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use common::registry::{self, Registry};
use common::{docker_or_skip, eventually, get, pilothouse, spec, unique_fleet};
use futures_util::StreamExt;
use pilothouse::demo::image;
use pilothouse::engine::docker::DockerEngine;
use pilothouse::engine::{Engine, EngineError};
use pilothouse::fleet::model::{Address, Pull, Run};
use pilothouse::fleet::names::{FleetName, Millis, Version};
use pilothouse::rollout::world::{InstanceSpec, ObservedInstance, Restart, RunState};

const GRACE: Millis = Millis::secs(10);

struct Bench {
    engine: DockerEngine,
    docker: Docker,
    socket: PathBuf,
    fleet: FleetName,
    /// Carries the fleet's name, so that no other test's images are met.
    repository: String,
}

impl Bench {
    async fn open(name: &str) -> Option<Self> {
        let socket = docker_or_skip(name).await?;
        let fleet = unique_fleet();
        Some(Self {
            engine: DockerEngine::connect(&socket),
            docker: Docker::connect_with_unix(socket.to_str().unwrap(), 120, API_DEFAULT_VERSION).unwrap(),
            socket,
            repository: format!("pilothouse-test/{fleet}"),
            fleet,
        })
    }

    async fn build(&self, version: &str) -> String {
        image::build(&self.socket, &pilothouse(), &self.repository, &version.parse().unwrap()).await.unwrap()
    }

    fn run(&self) -> Run {
        Run::Image { repository: self.repository.clone(), args: vec![], pull: Pull::Missing }
    }

    async fn spec(&self, n: u32, version: &str) -> InstanceSpec {
        let digest =
            self.engine.resolve(&self.run(), &version.parse().unwrap()).await.unwrap().expect("a digest");
        let mut spec = spec(&self.fleet, n, self.run(), version, &digest);
        spec.port = 8080;
        spec
    }

    async fn containers(&self) -> Vec<String> {
        containers(&self.docker, &self.fleet).await
    }

    async fn close(self) {
        sweep(&self.docker, &self.fleet, &self.repository).await;
    }

    /// Runs `test` and cleans up whatever it does.
    async fn run_test<F: Future<Output = ()> + Send + 'static>(
        name: &str,
        test: impl FnOnce(std::sync::Arc<Self>) -> F,
    ) {
        let Some(bench) = Self::open(name).await else { return };
        let bench = std::sync::Arc::new(bench);
        let result = tokio::spawn(test(std::sync::Arc::clone(&bench))).await;
        match std::sync::Arc::try_unwrap(bench) {
            Ok(b) => b.close().await,
            Err(b) => sweep(&b.docker, &b.fleet, &b.repository).await,
        }
        result.unwrap();
    }
}

async fn containers(docker: &Docker, fleet: &FleetName) -> Vec<String> {
    let label = format!("io.pilothouse.fleet={fleet}");
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let list = docker.list_containers(Some(options)).await.unwrap();
    list.into_iter().filter_map(|c| c.id).collect()
}

async fn sweep(docker: &Docker, fleet: &FleetName, repository: &str) {
    for id in containers(docker, fleet).await {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let _ = docker.remove_container(&id, Some(options)).await;
    }
    let filters = HashMap::from([("reference", vec![repository])]);
    let options = bollard::query_parameters::ListImagesOptionsBuilder::default().filters(&filters).build();
    for image in docker.list_images(Some(options)).await.unwrap_or_default() {
        // By name: an image without one of its own might be shared.
        for tag in image.repo_tags {
            let _ = docker.remove_image(&tag, None::<RemoveImageOptions>, None).await;
        }
    }
    let _ = docker.remove_volume(&format!("pilothouse-owner-{fleet}"), None::<RemoveVolumeOptions>).await;
}

async fn answers(at: SocketAddr, body: &str) {
    eventually("an answer", || async { get(at, "/").await.filter(|(s, b)| *s == 200 && b == body) }).await;
}

async fn one(b: &Bench, want: &InstanceSpec) -> Option<ObservedInstance> {
    b.engine.observe(&b.fleet).await.unwrap().into_iter().find(|i| i.id == want.id)
}

#[tokio::test]
async fn an_instance_is_started_observed_stopped_started_again_and_removed() {
    Bench::run_test("start to remove", |b| async move {
        let id = b.build("1.0.0").await;
        let other = b.build("1.1.0").await;
        assert_ne!(id, other, "each version has an image id of its own");
        assert_eq!(b.build("1.0.0").await, id, "made once");
        let mut want = b.spec(1, "1.0.0").await;
        assert_eq!(want.digest, id, "without a registry the image id stands for the digest");
        want.env = BTreeMap::from([("SAMPLE_LATENCY_MS".to_owned(), "0".to_owned())]);
        b.engine.stop(&b.fleet, &want.id, GRACE).await.expect("stopping what never was is fine");
        b.engine.remove(&b.fleet, &want.id).await.expect("removing what never was is fine");
        assert_eq!(b.engine.observe(&b.fleet).await.unwrap(), []);

        let mut changes = b.engine.changes(&b.fleet).await.unwrap();
        let seen = b.engine.start(&want).await.unwrap();
        assert_eq!(
            (&seen.state, &seen.digest, seen.restart),
            (&RunState::Running, &want.digest, Restart::No)
        );
        assert_eq!(seen.endpoint, Some(SocketAddr::new(want.address, want.host_port.unwrap())));
        answers(seen.endpoint.unwrap(), "1.0.0").await;
        tokio::time::timeout(common::PATIENCE, changes.next()).await.expect("a hint").expect("a hint");
        assert_eq!(b.engine.start(&want).await.unwrap(), seen, "starting again changes nothing");
        assert_eq!(one(&b, &want).await.unwrap(), seen);

        let told = b.engine.details(&b.fleet, &want.id).await.unwrap();
        assert!(told.env.iter().any(|n| n.as_str() == "SAMPLE_LATENCY_MS"), "{told:?}");
        assert!(!format!("{told:?}").contains("SAMPLE_LATENCY_MS="), "names, never values: {told:?}");
        let label = (pilothouse::text::Safe::from("io.pilothouse.instance"), want.id.as_str().into());
        assert!(told.labels.contains(&label), "{told:?}");
        let port = format!("{}:{} to ", want.address, want.host_port.unwrap());
        assert!(told.ports.iter().any(|p| p.as_str().starts_with(&port)), "{told:?}");
        assert_eq!((told.exit_code, told.oom, told.runs_as.as_str().len()), (None, false, 64), "{told:?}");

        let count = get(seen.endpoint.unwrap(), "/count").await.unwrap().1;
        assert!(count.contains(want.id.as_str()), "{count}");
        let refused = b.engine.remove(&b.fleet, &want.id).await.unwrap_err();
        assert!(matches!(refused, EngineError::Refused(_)), "{refused}");

        b.engine.set_restart(&b.fleet, &want.id, Restart::UnlessStopped).await.unwrap();
        assert_eq!(one(&b, &want).await.unwrap().restart, Restart::UnlessStopped);
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        assert_eq!(one(&b, &want).await.unwrap().state, RunState::Exited { code: Some(0), oom: false });
        let told = b.engine.details(&b.fleet, &want.id).await.unwrap();
        assert!(told.exit_code == Some(0) && told.ended_ms.is_some(), "{told:?}");
        b.engine.stop(&b.fleet, &want.id, GRACE).await.expect("stopping twice is fine");

        let again = b.engine.start(&want).await.unwrap();
        assert_eq!((&again.state, again.restart), (&RunState::Running, Restart::No));
        assert_eq!(b.containers().await.len(), 1, "the kept one was started");
        answers(again.endpoint.unwrap(), "1.0.0").await;
        let mut usage = b.engine.usage(&b.fleet, &want.id).await.unwrap();
        let figure = tokio::time::timeout(common::PATIENCE, usage.next()).await.unwrap().unwrap();
        assert!(figure.memory_bytes > 100_000, "{figure:?}");

        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        let lines: Vec<_> = b.engine.logs(&b.fleet, &want.id, 100, false).await.unwrap().collect().await;
        let starts = lines.iter().filter(|l| !l.stderr && l.text.as_str().contains("listens on")).count();
        assert_eq!(starts, 2, "{lines:?}");
        b.engine.remove(&b.fleet, &want.id).await.unwrap();
        assert_eq!(b.engine.observe(&b.fleet).await.unwrap(), []);
        let versions: Vec<String> =
            b.engine.versions(&b.run()).await.unwrap().iter().map(Version::to_string).collect();
        assert_eq!(versions.len(), 2, "{versions:?}");
        assert!(versions.contains(&"1.1.0".to_owned()), "{versions:?}");
    })
    .await;
}

#[tokio::test]
async fn a_followed_log_goes_on_over_a_restart_and_ends_with_the_instance() {
    Bench::run_test("follow", |b| async move {
        b.build("1.0.0").await;
        let want = b.spec(1, "1.0.0").await;
        b.engine.start(&want).await.unwrap();
        let mut log = b.engine.logs(&b.fleet, &want.id, 10, true).await.unwrap();
        let next = async |log: &mut pilothouse::engine::BoxStream<pilothouse::engine::LogLine>,
                          what: &str| loop {
            let line = tokio::time::timeout(common::PATIENCE, log.next()).await.expect(what).expect(what);
            if line.text.as_str().contains(what) {
                break;
            }
        };
        next(&mut log, "listens on").await;
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        next(&mut log, "stops after").await;
        b.engine.start(&want).await.unwrap();
        next(&mut log, "listens on").await;
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        b.engine.remove(&b.fleet, &want.id).await.unwrap();
        let end = async { while log.next().await.is_some() {} };
        tokio::time::timeout(common::PATIENCE, end).await.expect("the stream ends");
    })
    .await;
}

#[tokio::test]
async fn a_container_that_crashes_is_seen_with_its_code_and_its_restarts() {
    Bench::run_test("crash", |b| async move {
        b.build("2-crashing").await;
        let mut want = b.spec(1, "2-crashing").await;
        let at = b.engine.start(&want).await.unwrap().endpoint.unwrap();
        eventually("health", || async { get(at, "/health").await.filter(|(s, _)| *s == 200) }).await;
        for _ in 0..3 {
            let _ = get(at, "/").await;
        }
        eventually("its end", || async {
            one(&b, &want).await.filter(|i| i.state == RunState::Exited { code: Some(1), oom: false })
        })
        .await;
        want.restart = Restart::UnlessStopped;
        let mut changes = b.engine.changes(&b.fleet).await.unwrap();
        b.engine.start(&want).await.unwrap();
        eventually("health", || async { get(at, "/health").await.filter(|(s, _)| *s == 200) }).await;
        for _ in 0..3 {
            let _ = get(at, "/").await;
        }
        // As a controller does: look when there is a hint.
        let restarted = async {
            while changes.next().await.is_some() {
                if one(&b, &want).await.is_some_and(|i| i.restarts == 1 && i.state == RunState::Running) {
                    return;
                }
            }
            panic!("the hints ended");
        };
        tokio::time::timeout(common::PATIENCE, restarted).await.expect("a restart is seen");
    })
    .await;
}

/// Scenario 8: the answer to a create got lost. What is there is looked at, and adopted only if it is ours.
#[tokio::test]
async fn a_container_that_was_made_and_never_started_is_adopted() {
    Bench::run_test("lost answer", |b| async move {
        b.build("1.0.0").await;
        let want = b.spec(1, "1.0.0").await;
        // What a create leaves whose answer never came: made, not started.
        b.engine.start(&want).await.unwrap();
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        let made = b.docker.inspect_container(&want.id.engine_name(&b.fleet), None).await.unwrap();
        b.engine.remove(&b.fleet, &want.id).await.unwrap();
        let config = made.config.unwrap();
        let body = ContainerCreateBody {
            image: config.image,
            env: config.env,
            labels: config.labels,
            host_config: made.host_config,
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&want.id.engine_name(&b.fleet)).build();
        let lost = b.docker.create_container(Some(options), body).await.unwrap().id;
        assert_eq!(one(&b, &want).await.unwrap().state, RunState::Exited { code: None, oom: false });

        let seen = b.engine.start(&want).await.unwrap();
        assert_eq!(seen.state, RunState::Running);
        assert_eq!(b.containers().await, [lost]);
        // Two at once: one makes it or finds it, both see the same.
        let second = b.spec(2, "1.0.0").await;
        let (x, y) = tokio::join!(b.engine.start(&second), b.engine.start(&second));
        assert!(x.is_ok() || y.is_ok(), "{x:?} {y:?}");
        assert_eq!(b.engine.start(&second).await.unwrap().state, RunState::Running);
        assert_eq!(b.containers().await.len(), 2);
    })
    .await;
}

/// Scenarios 8 and 32: a name that is taken, and labels that lie.
#[tokio::test]
async fn what_is_not_ours_is_reported_and_never_touched() {
    Bench::run_test("foreign", |b| async move {
        let real = b.build("1.0.0").await;
        let fake = b.build("6.6.6").await;
        let want = b.spec(1, "1.0.0").await;
        let name = want.id.engine_name(&b.fleet);
        let make = async |labels: HashMap<String, String>, image: &str, name: &str| {
            let options = CreateContainerOptionsBuilder::default().name(name).build();
            let body = ContainerCreateBody {
                image: Some(image.to_owned()),
                labels: Some(labels),
                ..ContainerCreateBody::default()
            };
            b.docker.create_container(Some(options), body).await.unwrap().id
        };
        let away = async |id: &str| b.docker.remove_container(id, None).await.unwrap();

        // The name, without any label of ours.
        let squatter = make(HashMap::new(), &real, &name).await;
        let error = b.engine.start(&want).await.unwrap_err();
        assert!(matches!(error, EngineError::Foreign(_)), "{error}");
        assert!(matches!(b.engine.stop(&b.fleet, &want.id, GRACE).await, Err(EngineError::Foreign(_))));
        assert!(matches!(b.engine.remove(&b.fleet, &want.id).await, Err(EngineError::Foreign(_))));
        assert_eq!(b.engine.observe(&b.fleet).await.unwrap(), []);
        away(&squatter).await;

        let labels = |digest: &str| {
            [
                ("fleet", b.fleet.as_str()),
                ("service", want.service.as_str()),
                ("instance", want.id.as_str()),
                ("revision", want.revision.as_str()),
                ("version", want.version.as_str()),
                ("rollout", want.rollout.as_str()),
                ("digest", digest),
                ("port", "8080"),
            ]
            .map(|(k, v)| (format!("io.pilothouse.{k}"), v.to_owned()))
            .into_iter()
            .collect::<HashMap<_, _>>()
        };
        // Every label right, the digest's too, another image.
        let forged = make(labels(&real), &fake, &name).await;
        let error = b.engine.start(&want).await.unwrap_err();
        assert!(matches!(error, EngineError::Foreign(_)), "{error}");
        assert_eq!(one(&b, &want).await.unwrap().digest, fake, "what it really is");
        away(&forged).await;

        // Every label right, the image too, another name: reported, but nothing is done to it.
        let elsewhere = make(labels(&real), &real, &format!("{name}-copy")).await;
        assert!(one(&b, &want).await.is_some());
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        b.engine.remove(&b.fleet, &want.id).await.unwrap();
        assert_eq!(b.containers().await, [elsewhere]);

        // Labels that are no names at all.
        let mut broken = labels(&real);
        broken.insert("io.pilothouse.version".into(), "\u{1b}[2J".into());
        make(broken, &real, &format!("{name}-broken")).await;
        assert_eq!(b.engine.observe(&b.fleet).await.unwrap().len(), 1);
    })
    .await;
}

/// Scenario 20: the tag moves between `resolve` and `ensure_artifact`.
#[tokio::test]
async fn a_tag_that_moves_changes_nothing_that_was_resolved() {
    Bench::run_test("retag", |b| async move {
        let first = b.build("1.0.0").await;
        let second = b.build("2.0.0").await;
        let version: Version = "1.0.0".parse().unwrap();
        assert_eq!(b.engine.resolve(&b.run(), &version).await.unwrap().as_ref(), Some(&first));
        let want = b.spec(1, "1.0.0").await;
        let name = |v: &str| format!("{}:{v}", b.repository);
        let retag = async |from: &str, to: &str| {
            let options = TagImageOptionsBuilder::default().repo(&b.repository).tag(to).build();
            b.docker.tag_image(&name(from), Some(options)).await.unwrap();
        };
        retag("1.0.0", "keep").await;
        retag("2.0.0", "1.0.0").await;
        b.engine.ensure_artifact(&b.run(), &version, &first).await.expect("it is still here under its id");
        let seen = b.engine.start(&want).await.unwrap();
        assert_eq!(seen.digest, first, "not what the tag says now");
        answers(seen.endpoint.unwrap(), "1.0.0").await;
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        b.engine.remove(&b.fleet, &want.id).await.unwrap();

        // And when the first is gone, the other one under its tag is not taken for it.
        let options = RemoveImageOptionsBuilder::default().build();
        b.docker.remove_image(&name("keep"), Some(options), None).await.unwrap();
        let error = b.engine.ensure_artifact(&b.run(), &version, &first).await.unwrap_err();
        assert!(matches!(&error, EngineError::Refused(t) if t.as_str().contains(&second)), "{error}");
        assert!(matches!(b.engine.start(&want).await, Err(EngineError::Refused(_))));
        assert_eq!(b.containers().await, [] as [String; 0]);
    })
    .await;
}

/// Scenario 23.
#[tokio::test]
async fn a_taken_port_is_refused_and_leaves_nothing_behind() {
    Bench::run_test("port taken", |b| async move {
        b.build("1.0.0").await;
        let old = b.spec(1, "1.0.0").await;
        let at = b.engine.start(&old).await.unwrap().endpoint.unwrap();
        let mut want = b.spec(2, "1.0.0").await;
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        want.host_port = Some(taken.local_addr().unwrap().port());
        let error = b.engine.start(&want).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::Refused(t) if t.as_str().contains("address already in use")),
            "{error}"
        );
        assert_eq!(b.containers().await.len(), 1);
        answers(at, "1.0.0").await;

        // A kept one whose port was taken meanwhile is kept.
        b.engine.stop(&b.fleet, &old.id, GRACE).await.unwrap();
        let _taken = eventually("the port", || async { TcpListener::bind(at).ok() }).await;
        assert!(matches!(b.engine.start(&old).await, Err(EngineError::Refused(_))));
        assert_eq!(b.containers().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_instance_can_be_reached_at_its_own_address() {
    Bench::run_test("container address", |b| async move {
        b.build("1.0.0").await;
        let mut want = b.spec(1, "1.0.0").await;
        (want.reach, want.host_port) = (Address::Container, None);
        let seen = b.engine.start(&want).await.unwrap();
        let at = seen.endpoint.expect("an address");
        assert_eq!(at.port(), 8080);
        assert!(!at.ip().is_loopback());
        answers(at, "1.0.0").await;
        b.engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        assert_eq!(one(&b, &want).await.unwrap().endpoint, None, "a stopped one has no address");
    })
    .await;
}

#[tokio::test]
async fn one_of_many_claimers_wins_and_all_learn_who() {
    Bench::run_test("claim", |b| async move {
        let owners: Vec<String> = (0..10).map(|n| format!("owner {n}")).collect();
        let told =
            futures_util::future::join_all(owners.iter().map(|o| b.engine.claim(&b.fleet, o, false))).await;
        let told: Vec<String> = told.into_iter().map(Result::unwrap).collect();
        assert!(told.iter().all(|t| *t == told[0]) && owners.contains(&told[0]), "{told:?}");
        assert_eq!(b.engine.claim(&b.fleet, "taker", true).await.unwrap(), "taker");
        assert_eq!(b.engine.claim(&b.fleet, "owner 0", false).await.unwrap(), "taker");
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_comes_up_later_works_without_a_new_connection() {
    let Some(socket) = docker_or_skip("late").await else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let engine = DockerEngine::connect(&path);
    let fleet = unique_fleet();
    assert!(matches!(engine.observe(&fleet).await, Err(EngineError::Unknown(_))));
    std::os::unix::fs::symlink(&socket, &path).unwrap();
    assert_eq!(engine.observe(&fleet).await.unwrap(), []);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(engine.observe(&fleet).await, Err(EngineError::Unknown(_))));
    std::os::unix::fs::symlink(&socket, &path).unwrap();
    assert_eq!(engine.observe(&fleet).await.unwrap(), []);
}

/// A way to dockerd that can be cut, and that can lose the answer to a create: the request arrives, the caller never
/// learns.
struct Relay {
    path: PathBuf,
    mode: tokio::sync::watch::Sender<Mode>,
    accept: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    LoseCreate,
    Cut,
}

impl Relay {
    fn to(socket: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (mode, seen) = tokio::sync::watch::channel(Mode::Pass);
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, socket) = (seen.clone(), socket.clone());
                tokio::spawn(async move { Self::connection(client, &socket, seen).await.is_some() });
            }
        });
        Self { path, mode, accept, _dir: dir }
    }

    /// One connection; `None` when it was broken off.
    async fn connection(
        mut client: tokio::net::UnixStream,
        socket: &Path,
        mut mode: tokio::sync::watch::Receiver<Mode>,
    ) -> Option<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let now = *mode.borrow_and_update();
        if now == Mode::Cut {
            return None;
        }
        let mut server = tokio::net::UnixStream::connect(socket).await.ok()?;
        let mut head = vec![0; 64 * 1024];
        let n = client.read(&mut head).await.ok()?;
        server.write_all(&head[..n]).await.ok()?;
        if now == Mode::LoseCreate && head.starts_with(b"POST /containers/create") {
            // The caller's body may come in a second piece; dockerd's answer proves that it has it all.
            let answer = async {
                let mut rest = vec![0; 64 * 1024];
                loop {
                    tokio::select! {
                        n = client.read(&mut rest) => server.write_all(&rest[..n.ok()?]).await.ok()?,
                        n = server.read(&mut head) => break n.ok(),
                    }
                }
            };
            let n = answer.await?;
            assert!(head[..n].starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&head[..n]));
            return None;
        }
        tokio::select! {
            done = tokio::io::copy_bidirectional(&mut client, &mut server) => done.ok().map(drop),
            _ = mode.wait_for(|m| *m == Mode::Cut) => None,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Scenario 8 once more, with the loss itself: dockerd makes the container, its answer never arrives.
#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_next_try_finds_what_was_made() {
    Bench::run_test("lost answer on the way", |b| async move {
        b.build("1.0.0").await;
        let want = b.spec(1, "1.0.0").await;
        let relay = Relay::to(b.socket.clone());
        let engine = DockerEngine::connect(&relay.path);
        relay.mode.send(Mode::LoseCreate).unwrap();
        let error = engine.start(&want).await.unwrap_err();
        assert!(matches!(error, EngineError::Unknown(_)), "{error}");
        assert_eq!(b.containers().await.len(), 1, "it was made all the same");
        relay.mode.send(Mode::Pass).unwrap();
        let seen = engine.start(&want).await.unwrap();
        assert_eq!(seen.state, RunState::Running);
        assert_eq!(b.containers().await.len(), 1, "and not a second time");
        answers(seen.endpoint.unwrap(), "1.0.0").await;
    })
    .await;
}

/// Scenario 9, as the engine sees a dockerd that restarts.
#[tokio::test]
async fn a_cut_connection_is_unknown_ends_the_hints_and_comes_back_by_itself() {
    Bench::run_test("cut", |b| async move {
        b.build("1.0.0").await;
        let want = b.spec(1, "1.0.0").await;
        let relay = Relay::to(b.socket.clone());
        let engine = DockerEngine::connect(&relay.path);
        let at = engine.start(&want).await.unwrap().endpoint.unwrap();
        let mut changes = engine.changes(&b.fleet).await.unwrap();
        tokio::time::timeout(common::PATIENCE, changes.next()).await.expect("a hint of the start").unwrap();
        relay.mode.send(Mode::Cut).unwrap();
        let ended = async { while changes.next().await.is_some() {} };
        tokio::time::timeout(common::PATIENCE, ended).await.expect("the hints end with the connection");
        assert!(matches!(engine.observe(&b.fleet).await, Err(EngineError::Unknown(_))));
        assert!(matches!(engine.stop(&b.fleet, &want.id, GRACE).await, Err(EngineError::Unknown(_))));
        answers(at, "1.0.0").await;
        relay.mode.send(Mode::Pass).unwrap();
        assert_eq!(engine.observe(&b.fleet).await.unwrap().len(), 1);
        let mut changes = engine.changes(&b.fleet).await.unwrap();
        engine.stop(&b.fleet, &want.id, GRACE).await.unwrap();
        tokio::time::timeout(common::PATIENCE, changes.next()).await.expect("a hint of the stop").unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_image_goes_through_a_registry_by_digest() {
    let Some(registry) = Registry::start("registry") else { return };
    let port = registry.port;
    Bench::run_test("registry", move |b| async move {
        b.build("1.0.0").await;
        let repository = format!("127.0.0.1:{port}/{}", b.repository);
        let push = async |from: &str, tag: &str| {
            registry::push(&b.docker, &format!("{}:{from}", b.repository), &repository, tag).await;
        };
        let forget = async |name: String| {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            let _ = b.docker.remove_image(&name, Some(options), None).await;
        };
        push("1.0.0", "1.0.0").await;
        let version: Version = "1.0.0".parse().unwrap();
        let run = |pull| Run::Image { repository: repository.clone(), args: vec![], pull };
        let local = b.engine.resolve(&run(Pull::Missing), &version).await.unwrap().unwrap();
        let remote = b.engine.resolve(&run(Pull::Always), &version).await.unwrap().unwrap();
        assert_eq!(local, remote, "a pushed image is known by its digest, not by its id");
        assert_eq!(b.engine.resolve(&run(Pull::Always), &"9".parse().unwrap()).await.unwrap(), None);

        let image = b.docker.inspect_image(&format!("{repository}:1.0.0")).await.unwrap().id.unwrap();
        assert_ne!(image, local);
        forget(format!("{repository}:1.0.0")).await;
        forget(format!("{repository}@{local}")).await;
        forget(format!("{}:1.0.0", b.repository)).await;
        assert!(b.docker.inspect_image(&image).await.is_err(), "nothing is left of it");
        assert_eq!(b.engine.resolve(&run(Pull::Never), &version).await.unwrap(), None);
        assert!(matches!(
            b.engine.ensure_artifact(&run(Pull::Never), &version, &local).await,
            Err(EngineError::Refused(_))
        ));
        assert_eq!(b.engine.resolve(&run(Pull::Missing), &version).await.unwrap().as_ref(), Some(&local));

        // The tag moves in the registry before it is pulled.
        b.build("2.0.0").await;
        push("2.0.0", "1.0.0").await;
        forget(format!("{repository}:1.0.0")).await;
        b.engine.ensure_artifact(&run(Pull::Missing), &version, &local).await.unwrap();
        let mut want = spec(&b.fleet, 1, run(Pull::Missing), "1.0.0", &local);
        want.port = 8080;
        let seen = b.engine.start(&want).await.unwrap();
        assert_eq!(seen.digest, local);
        // What the image itself says, not what its instance is told.
        let inside = b.docker.inspect_image(&format!("{repository}@{local}")).await.unwrap();
        assert_eq!(inside.id, Some(image));

        let none = format!("sha256:{}", "0".repeat(64));
        let error = b.engine.ensure_artifact(&run(Pull::Missing), &version, &none).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused(_)), "{error}");
        drop(registry);
        let error = b.engine.resolve(&run(Pull::Always), &version).await.unwrap_err();
        assert!(matches!(error, EngineError::Unknown(_)), "{error}");
        let error = b.engine.ensure_artifact(&run(Pull::Missing), &version, &none).await.unwrap_err();
        assert!(matches!(error, EngineError::Unknown(_)), "{error}");
        b.engine
            .ensure_artifact(&run(Pull::Missing), &version, &local)
            .await
            .expect("what is here needs no registry");
        b.engine.stop(&b.fleet, &want.id, Millis(1000)).await.unwrap();
        b.engine.remove(&b.fleet, &want.id).await.unwrap();
        forget(format!("{repository}@{local}")).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    })
    .await;
}
