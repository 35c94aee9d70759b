//! Releases that something else is asked about: a real Prometheus, a URL, a command, on real parts under load.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/prometheus.rs"]
mod prometheus;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/world.rs"]
mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use load::Load;
use prometheus::Prometheus;
use serde_json::Value;
use tls::{Tls, serve};
use world::{Backends, LONG, Setup, World};

/// What a request comes over.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// Answers every request with a status and a body that a test can change.
struct Said {
    addr: SocketAddr,
    what: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Said {
    fn new(status: u16, body: &str) -> Self {
        Self::start(status, body, |stream| Box::new(stream))
    }

    /// One that has a certificate for `localhost`.
    fn tls(status: u16, body: &str) -> Self {
        let tls = Tls::new();
        Self::start(status, body, move |stream| Box::new(tls.accept(stream)))
    }

    fn start(
        status: u16,
        body: &str,
        accept: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let said = Self {
            addr: listener.local_addr().unwrap(),
            what: Arc::new(Mutex::new((status, body.to_owned()))),
            asked: Arc::default(),
        };
        let (what, asked) = (Arc::clone(&said.what), Arc::clone(&said.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut stream = accept(stream);
                let mut request = [0; 8192];
                // Whoever breaks off (a handshake that fails) asked nothing.
                let Ok(n @ 1..) = stream.read(&mut request) else { continue };
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                asked.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
                let (status, body) = what.lock().unwrap().clone();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        said
    }

    fn say(&self, status: u16, body: &str) {
        *self.what.lock().unwrap() = (status, body.to_owned());
    }
}

/// A fleet whose canary is asked about.
fn setup(checks: &str) -> Setup {
    let strategy = format!(
        "type = \"canary\"\nsteps = [ {{ weight = 5, healthy_for = \"0s\" }}, {{ weight = 50, pause = \"manual\" }} ]\n\n\
         [services.web.analysis]\ndry_run = true\nlatency = false\nsoak = \"0s\"\ninconclusive_after = \"5s\"\n\n{checks}"
    );
    Setup { strategy: Some(Box::leak(strategy.into_boxed_str())), ..Setup::default() }
}

fn world(name: &str, checks: &str) -> Option<World> {
    let world = World::new(name, Backends::ProcessEdge, &setup(checks))?;
    world.image("1.1.0");
    world.ok(&["up"]);
    Some(world)
}

fn rollout(world: &World) -> Option<Value> {
    Some(world.service()?["rollout"].clone()).filter(|r| !r.is_null())
}

fn reason(world: &World) -> String {
    rollout(world).unwrap()["reason"].as_str().unwrap().to_owned()
}

fn check(world: &World) -> Option<Value> {
    Some(rollout(world)?["checks"][0].clone()).filter(|c| !c.is_null())
}

/// In which phase it is, by name.
fn phase(world: &World) -> Option<String> {
    let r = rollout(world)?;
    Some(r["phases"][usize::try_from(r["phase"].as_u64()?).ok()?]["name"].as_str()?.to_owned())
}

#[test]
fn https_is_for_who_is_trusted_only() {
    let gate = Said::tls(200, "ok");
    let checks = format!(
        "[services.web.checks.gate]\ntype = \"http\"\nurl = \"https://localhost:{}/{{version}}\"\ninterval = \"1s\"",
        gate.addr.port()
    );
    let Some(world) = World::new("https", Backends::ProcessEdge, &setup(&checks)) else { return };
    let mut child = serve(&world, false, &[]);
    world.image("1.1.0");
    world.ok(&["up"]);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    let unknown = world.wait("an answer", || check(&world).filter(|c| c["answer"] == "unknown"));
    assert!(unknown["words"].as_str().unwrap().contains("UnknownIssuer"), "{unknown}");
    assert!(gate.asked.lock().unwrap().is_empty(), "nothing is said to who is not trusted");
    assert_eq!(phase(&world).as_deref(), Some("5%"));
    world.kill_controller();
    child.wait().unwrap();

    let mut child = serve(&world, true, &[]);
    let good = world.wait("a good answer", || check(&world).filter(|c| c["answer"] == "good"));
    assert_eq!(good["words"], "200 ok");
    assert_eq!(gate.asked.lock().unwrap().first().unwrap(), "GET /1.1.0 HTTP/1.1");
    world.ok(&["abort", "web", "--wait"]);
    world.assert_no_orphan();
    world.kill_controller();
    child.wait().unwrap();
}

#[test]
fn a_url_lets_it_go_on_and_takes_it_back() {
    let gate = Said::new(503, "warming up\n");
    let checks = format!(
        "[services.web.checks.gate]\ntype = \"http\"\nurl = \"http://{}/?version={{version}}&was={{stable_version}}\"\n\
         interval = \"1s\"",
        gate.addr
    );
    let Some(world) = world("url", &checks) else { return };
    let load = Load::paced(world.listen, 4, Duration::from_millis(10));
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    // Whoever cannot say anything is neither for it nor against it.
    let unknown = world.wait("an answer", || check(&world).filter(|c| c["answer"] == "unknown"));
    assert_eq!(unknown["words"], "503 warming up");
    assert_eq!(phase(&world).as_deref(), Some("5%"));
    gate.say(200, "ok");
    world.wait("the second step", || (phase(&world)? == "50%").then_some(()));
    gate.say(500, "error budget burnt\n");
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let said = reason(&world);
    assert_eq!(said, "check gate: 500 error budget burnt, 2 times in a row");
    let asked = gate.asked.lock().unwrap().first().cloned().unwrap();
    assert_eq!(asked, "GET /?version=1.1.0&was=1.0.0 HTTP/1.1");
    let story = world.ok(&["show", rollout(&world).unwrap()["id"].as_str().unwrap()]);
    assert!(story.contains("check gate: 500") && story.contains("got nothing any more"), "{story}");
    let history: Value = serde_json::from_str(&world.ok(&["history", "web", "--output", "json"])).unwrap();
    let safe = history["rollouts"][0]["safe_after_ms"].as_u64().expect("how long it took is written down");
    let before = gate.asked.lock().unwrap().len();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(gate.asked.lock().unwrap().len(), before, "nobody asks after the end");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{:?}", report.how);
    eprintln!("MEASURED a URL that says no: safe {safe} ms after the first bad answer was asked for");
    world.assert_no_orphan();
}

#[test]
fn a_command_is_told_what_it_is_about_and_decides() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("smoke");
    let text = "#!/bin/sh\necho \"$1 $PILOTHOUSE_SERVICE $PILOTHOUSE_STABLE_VERSION $PILOTHOUSE_CANDIDATES\"\n\
                [ ! -e \"${0%/*}/bad\" ]\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let checks = format!(
        "[services.web.checks.smoke]\ntype = \"command\"\ncommand = [\"{}\", \"{{version}}\"]\ninterval = \"1s\"\nfailures = 1",
        script.display()
    );
    let Some(world) = world("command", &checks) else { return };
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait("the second step", || (phase(&world)? == "50%").then_some(()));
    world.ok(&["promote", "web"]);
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    std::fs::write(dir.path().join("bad"), "").unwrap();
    world.image("1.2.0");
    let mut deploy = world.spawn(&["deploy", "web", "1.2.0"]);
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let said = reason(&world);
    assert!(said.starts_with("check smoke: 1.2.0 web 1.1.0 127[.]"), "{said}");
    world.assert_no_orphan();
}

/// Numbers of a real Prometheus, in PromQL, of this version. It vanishes in mid-rollout: that is not healthy, and not a
/// reason to go back either.
#[test]
fn scenario_40_a_prometheus_is_asked_in_promql_and_vanishes_in_mid_rollout() {
    let burn = |value: &str| format!("burn{{version=\"1.0.0\"}} 9\nburn{{version=\"1.1.0\"}} {value}\n");
    let app = Said::new(200, &burn("0.01"));
    let Some(binary) = common::require::program("prometheus") else { return };
    let checks = "[services.web.checks.burn]\ntype = \"prometheus\"\nurl = \"http://PROMETHEUS/\"\n\
                  query = 'max(burn{version=\"{version}\"})'\nmax = 0.05\ninterval = \"1s\"";
    let Some(world) = World::new("prometheus", Backends::ProcessEdge, &setup(checks)) else { return };
    let mut prometheus = Prometheus::start(&world, &binary, Some(app.addr));
    world.edit("PROMETHEUS", &prometheus.address.to_string());
    world.image("1.1.0");
    world.ok(&["up"]);
    // It scrapes once a second, but begins when it likes.
    world.wait("a first scrape", || prometheus.value("max(burn{version=\"1.1.0\"})"));
    let load = Load::paced(world.listen, 4, Duration::from_millis(10));
    let deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait("the second step", || (phase(&world)? == "50%").then_some(()));
    world.ok(&["abort", "web", "--wait"]);
    drop(deploy);

    // It is gone.
    prometheus.stop();
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait("a pause", || (rollout(&world)?["status"] == "paused").then_some(()));
    let said = reason(&world);
    assert!(said.starts_with("inconclusive after 5s at 5%: check burn (unknown: no connection: "), "{said}");
    let screen = world.ok(&["status"]);
    assert!(screen.contains("check burn: unknown: no connection"), "{screen}");
    // It is there again, and has nothing of this version.
    app.say(200, "burn{version=\"1.0.0\"} 9\n");
    std::thread::sleep(Duration::from_secs(4));
    prometheus.again(&world);
    world.wait("no data", || check(&world).filter(|c| c["words"] == "no data"));
    app.say(200, &burn("0.01"));
    world.wait("good", || check(&world).filter(|c| c["answer"] == "good"));
    world.ok(&["resume", "web"]);
    world.wait("the second step", || (phase(&world)? == "50%").then_some(()));
    app.say(200, &burn("0.07"));
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    assert_eq!(reason(&world), "check burn: 0.07, at most 0.05, 2 times in a row");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{:?}", report.how);
    world.assert_no_orphan();
}
