//! Releases that are judged by what their requests come to, on real parts, under load from outside.
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
#[path = "common/world.rs"]
mod world;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use load::Load;
use rustix::process::Signal;
use serde_json::Value;
use world::{Backends, LONG, Setup, World};

/// A small share, and time enough at it for whatever happens there.
const CANARY: &str = "type = \"canary\"\nsteps = [ { weight = 5, pause = \"45s\" } ]\n\n[services.web.analysis]\nlatency = false\nsoak = \"0s\"";
/// Nothing to wait for but the verdict.
const HASTY: &str = "type = \"canary\"\nsteps = [ { weight = 50, healthy_for = \"0s\" } ]\n\n[services.web.analysis]\nsoak = \"0s\"\ninconclusive_after = \"2s\"\nlatency = false";
/// So strict that a good candidate is watched for a long time.
const STRICT: &str = "type = \"canary\"\nsteps = [ { weight = 25, healthy_for = \"0s\" } ]\n\n[services.web.analysis]\ntolerance = \"0.001%\"\nlatency = false";

/// A pass comes soon, where everything is counted for twenty seconds.
const WATCHED: &str = "type = \"canary\"\nsteps = [ { weight = 50, healthy_for = \"0s\" } ]\n\n[services.web.analysis]\ntolerance = \"5%\"\nsoak = \"20s\"\ninconclusive_after = \"30s\"\nlatency = false";

fn setup(strategy: &'static str) -> Setup {
    Setup { strategy: Some(strategy), ..Setup::default() }
}

fn up(world: &World) {
    world.ok(&["up"]);
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.0.0");
}

fn verdict(world: &World) -> Option<Value> {
    Some(world.service()?["rollout"]["verdict"].clone()).filter(|v| !v.is_null())
}

/// Failed and all requests of the candidate, as the verdict says: `0 of 1,234 failed, …`.
fn counted(world: &World) -> Option<(u64, u64)> {
    let words = verdict(world)?["words"].as_str()?.replace(',', "");
    let mut parts = words.split(' ');
    Some((parts.next()?.parse().ok()?, parts.nth(1)?.parse().ok()?))
}

/// A fifth of its requests fail at 5 %: it is found out and taken back by itself, and nobody meets it any more.
fn failing(world: &World, what: &str) {
    world.image("1.1.0-failing");
    up(world);
    let load = Load::paced(world.listen, 8, Duration::from_millis(10));
    std::thread::sleep(Duration::from_secs(3));
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0-failing"]);
    assert_eq!(deploy.end(LONG), 3, "{what}: {}", deploy.said());
    let (met, last) = load.of("1.1.0-failing").expect("somebody met it");
    let after = load.answered();
    std::thread::sleep(Duration::from_secs(1));
    assert!(load.answered() > after, "stable goes on serving");
    assert_eq!(load.of("1.1.0-failing"), Some((met, last)), "{what}: nobody meets it after that");
    let failed = load.finish().failed;
    assert!(failed > 0, "{what}: what failed was seen by the clients");

    let status = world.status();
    assert_eq!(status["services"][0]["stable"]["version"], "1.0.0", "{status}");
    let rollout = &status["services"][0]["rollout"];
    assert_eq!(rollout["status"], "aborted", "{status}");
    let reason = rollout["reason"].as_str().unwrap();
    assert!(reason.contains("requests failed, stable 0 of"), "{reason}");
    let history: Value = serde_json::from_str(&world.ok(&["history", "web", "--output", "json"])).unwrap();
    let safe = history["rollouts"][0]["safe_after_ms"].as_u64().expect("how long it took is written down");
    assert!((1..45_000).contains(&safe), "{safe} ms: before the pause of the step was over");
    let story = world.ok(&["show", rollout["id"].as_str().unwrap()]);
    assert!(story.contains("log: web-"), "what it wrote last: {story}");
    assert!(story.contains("verdict: fail:") && story.contains("got nothing any more"), "{story}");
    eprintln!(
        "MEASURED {what}: safe after {safe} ms, {failed} requests failed, {met} good answers of it; {reason}"
    );
    world.assert_no_orphan();
}

/// Nobody sends requests: no data is not healthy, and somebody has to decide.
fn quiet(world: &World, what: &str) {
    world.image("1.1.0");
    up(world);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait("a pause", || (world.service()?["rollout"]["status"] == "paused").then_some(()));
    let reason = world.service().unwrap()["rollout"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("inconclusive after 2s at 50%"), "{what}: {reason}");
    world.ok(&["promote", "web"]);
    assert_eq!(deploy.end(LONG), 0, "{what}: {}", deploy.said());
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
}

/// What was seen before a kill counts after it.
fn killed(world: &World, what: &str) {
    world.image("1.1.0");
    up(world);
    let load = Load::paced(world.listen, 4, Duration::from_millis(10));
    let deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    let before = world.wait("a few hundred requests", || counted(world).filter(|(_, n)| *n > 200));
    world.kill_controller();
    // Whoever looks next starts another one.
    world.wait("another controller", || world.run(&["status"]).0.eq(&0).then_some(()));
    let after = world.wait("the verdict again", || counted(world));
    assert!(after.0 == 0 && after.1 >= before.1, "{what}: {before:?}, then {after:?}: the evidence goes on");
    world.wait("more requests", || counted(world).filter(|(_, n)| *n > after.1 + 50));
    world.ok(&["abort", "web", "--wait"]);
    drop(deploy);
    let report = load.finish();
    assert_eq!(report.failed, 0, "{what}: {:?}", report.how);
    world.assert_no_orphan();
}

/// The address at which the controller hears the proxy's log lines.
fn log(world: &World) -> SocketAddr {
    let text = std::fs::read_to_string(world.path().join("fleet.toml")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("log = \"")).expect("a proxy with a log");
    line.trim_end_matches('"').parse().unwrap()
}

/// Stops the controller until its receive buffer is full, whatever its size: the lines of real requests that come now find no
/// room.
fn overflow(world: &World, log: SocketAddr) {
    let pid = world.controller().expect("a controller runs");
    let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
    world::kill(pid, Signal::STOP);
    for _ in 0..60_000 {
        flood.send_to(b"somebody else's", log).unwrap();
    }
    world::kill(pid, Signal::CONT);
}

/// Lines are lost again and again: the ones that come promote nobody, and in the end somebody has to decide.
fn losing(world: &World, what: &str) {
    world.image("1.1.0");
    up(world);
    let load = Load::paced(world.listen, 8, Duration::from_millis(10));
    let log = log(world);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait("both versions are judged", || verdict(world));
    let words = "of the log lines of proxy lb were lost";
    let mut alarmed = 0;
    let reason = world.wait("a pause", || {
        // The alarm stands for ten seconds: the next gap comes when it is over, and before the soak is.
        let snapshot = world.snapshot()?;
        if !snapshot["alarms"].to_string().contains(words) {
            overflow(world, log);
            world.wait("an alarm", || world.snapshot()?["alarms"].to_string().contains(words).then_some(()));
            alarmed += 1;
        }
        let rollout = snapshot["services"][0]["rollout"].clone();
        assert_eq!(rollout["to"], "1.1.0");
        assert_ne!(rollout["status"], "done", "{what}: promoted by what was left");
        (rollout["status"] == "paused").then(|| rollout["reason"].as_str().unwrap().to_owned())
    });
    eprintln!("MEASURED {what}: {reason}");
    assert!(reason.starts_with("inconclusive after 30s at 50%"), "{what}: {reason}");
    assert!(reason.contains(words) && reason.contains("were not read in time"), "{what}: {reason}");
    assert!(alarmed > 1, "{what}: lines were lost {alarmed} times");
    // Nothing else was in its way.
    world.ok(&["resume", "web"]);
    assert_eq!(deploy.end(LONG), 0, "{what}: {}", deploy.said());
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    drop(load.finish());
    world.assert_no_orphan();
}

/// A proxy, and what is told behind it.
macro_rules! behind {
    ($proxy:ident, $backends:ident: $($name:ident($strategy:expr))*) => {
        mod $proxy {
            use super::*;
            $(#[test]
            fn $name() {
                let Some(world) = World::new(stringify!($name), Backends::$backends, &setup($strategy)) else { return };
                super::$name(&world, concat!(stringify!($proxy), ": ", stringify!($name)));
            })*
        }
    };
}

behind!(haproxy, DockerHaproxy: failing(CANARY) quiet(HASTY) killed(STRICT));
behind!(nginx, ProcessNginx: failing(CANARY) quiet(HASTY) losing(WATCHED));
behind!(caddy, ProcessCaddy: failing(CANARY) quiet(HASTY));
behind!(traefik, ProcessTraefik: failing(CANARY) quiet(HASTY));
behind!(envoy, ProcessEnvoy: failing(CANARY) quiet(HASTY));
behind!(edge, ProcessEdge: failing(CANARY) quiet(HASTY) killed(STRICT));
