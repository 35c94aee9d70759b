//! Taking over what runs already: containers that somebody ran by hand, and instances whose controller lost its journal.
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

use std::collections::BTreeMap;

use load::Load;
use serde_json::Value;
use world::{Backends, Setup, World};

const STEPS: &str = "{ weight = 50, pause = \"300ms\" }";

fn setup() -> Setup {
    Setup { steps: STEPS, replicas: 2, keep: "1s", ..Setup::default() }
}

fn states(world: &World, version: &str) -> Vec<String> {
    let Some(snapshot) = world.snapshot() else { return Vec::new() };
    let instances: Vec<Value> = snapshot["instances"].as_array().unwrap().clone();
    let of = instances.iter().filter(|i| i["version"] == version);
    of.map(|i| i["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn containers_that_were_run_by_hand_become_stable_and_are_never_stopped_unasked() {
    let Some(world) = World::new("adoption", Backends::DockerHaproxy, &setup()) else { return };
    let (code, said) = world.run(&["up", "--adopt"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing to adopt: no container of"), "{said}");

    let by_hand = [world.by_hand("1.0.0", 1, 31000), world.by_hand("1.0.0", 2, 31000)];
    let since = || by_hand.each_ref().map(|c| world.runs_since(c));
    let began = since();
    assert!(began.iter().all(Option::is_some), "{began:?}");
    let said = world.ok(&["up", "--adopt"]);
    assert!(said.contains("2 running instances are being adopted"), "{said}");
    assert_eq!(world.endpoints("1.0.0").len(), 2);
    let load = Load::start(world.listen, 2);
    world.image("1.1.0");
    world.ok(&["deploy", "web", "1.1.0"]);
    // Past the time for which what was stable is kept running.
    world.wait("the adopted are parked", || (states(&world, "1.0.0") == ["parked", "parked"]).then_some(()));
    assert_eq!(since(), began, "never restarted");

    // The engine forgets them, as after 'docker volume prune', and the controller begins anew: known all the same.
    world.kill_controller();
    world.forget_adopted();
    world.ok(&["rollback", "web", "--wait"]);
    assert_eq!(world.service().unwrap()["stable"]["version"], "1.0.0");
    assert_eq!(since(), began);

    let report = load.finish();
    assert_eq!(report.failed, 0, "{:?}", report.how);
    assert!(report.requests > 100);
    world.ok(&["down", "web"]);
    assert_eq!(since(), began, "down lets go of them, running");
    assert!(world.there().is_empty(), "{:?}", world.there());

    // Adopted again, and this time allowed to be stopped.
    world.ok(&["up", "--adopt"]);
    let said = world.ok(&["down", "web", "--adopted"]);
    assert!(said.contains("may be stopped and removed"), "{said}");
    world.ok(&["deploy", "web", "1.1.0"]);
    world.wait("they are stopped", || since().iter().all(Option::is_none).then_some(()));
}

/// What `init` writes about containers that run can be used, and nothing was touched for it.
#[test]
fn what_runs_is_written_down_by_init() {
    let Some(world) = World::new("init", Backends::DockerHaproxy, &setup()) else { return };
    let running = [world.by_hand("1.0.0", 1, 31000), world.by_hand("1.0.0", 2, 31000)];
    let since = || running.each_ref().map(|c| world.runs_since(c));
    let began = since();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.toml");
    let name = common::unique("init");
    let (code, said) = world.run(&["--fleet", file.to_str().unwrap(), "init", "--name", &name]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("haproxy runs as process") && said.contains("up --adopt"), "{said}");
    let loaded = pilothouse::fleet::load(&file).unwrap_or_else(|p| panic!("{p}"));
    let ours = loaded.fleet.services.values().find(|s| {
        matches!(&s.run, pilothouse::fleet::model::Run::Image { repository, .. } if *repository == world::repository())
    });
    // Another test's may be there as well; ours are at least these two.
    let ours = ours.unwrap_or_else(|| panic!("{said}"));
    assert!(ours.replicas() >= 2 && ours.port == 8080, "{ours:?}");
    assert!(
        loaded
            .fleet
            .proxies
            .values()
            .any(|p| matches!(p.kind, pilothouse::fleet::model::ProxyKind::Haproxy(_)))
    );
    assert_eq!(since(), began, "nothing was touched");
}

#[test]
fn two_versions_are_not_guessed_between() {
    let Some(world) = World::new("adoption of two", Backends::DockerHaproxy, &setup()) else { return };
    world.image("0.9.0");
    let _running = [world.by_hand("1.0.0", 1, 31000), world.by_hand("0.9.0", 2, 31000)];
    world.edit("version = \"1.0.0\"", "");
    let (code, said) = world.run(&["up", "--adopt"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("more than one version of web runs") && said.contains("0.9.0 (by-hand"), "{said}");
    world.edit("port = 8080", "port = 8080\nversion = \"0.9.0\"");
    world.ok(&["up", "--adopt"]);
    assert_eq!(world.service().unwrap()["stable"]["version"], "0.9.0");
}

#[test]
fn a_lost_journal_is_rebuilt_from_what_runs() {
    for backends in [Backends::ProcessEdge, Backends::DockerHaproxy] {
        let Some(world) = World::new("a lost journal", backends, &setup()) else { continue };
        world.ok(&["up"]);
        let load = Load::start(world.listen, 2);
        let before: BTreeMap<String, bool> = world.there();
        world.kill_controller();
        for file in ["journal.db", "journal.db-wal", "journal.db-shm", "lock"] {
            let _ = std::fs::remove_file(world.state_dir().join(file));
        }
        // A release that knows nothing of them would take their traffic away.
        world.ok(&["status"]);
        world.wait("the proxy was looked at", || {
            world.snapshot()?["proxies"][0]["reachable"].as_bool().filter(|r| *r).map(drop)
        });
        let (code, said) = world.run(&["deploy", "web", "1.0.0"]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("sends traffic to web") && said.contains("up --adopt"), "{said}");
        let said = world.ok(&["up", "--adopt"]);
        assert!(said.contains("2 running instances are being adopted"), "{said}");
        assert_eq!(world.there(), before, "the same instances");
        world.image("1.1.0");
        world.ok(&["deploy", "web", "1.1.0"]);
        let report = load.finish();
        assert_eq!(report.failed, 0, "{backends:?}: {:?}", report.how);
        world.assert_no_orphan();
    }
}
