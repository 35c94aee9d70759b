//! Images on real parts: a registry on loopback, Docker Engines that have to pull from it, and HAProxy.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/dockerd.rs"]
mod dockerd;
#[path = "common/load.rs"]
mod load;
#[path = "common/world.rs"]
mod world;

use common::registry::Registry;
use dockerd::Dockerd;
use load::Load;
use serde_json::{Value, json};
use world::{Backends, LONG, Setup, World};

const ROLLING: &str = "type = \"rolling\"\nmax_surge = 1\nmin_healthy_time = \"100ms\"";
const CANARY: &str = "type = \"canary\"\nsteps = [ { weight = 25, healthy_for = \"100ms\" } ]";

/// The only service of `status --output json`.
fn service(world: &World) -> Value {
    world.status()["services"][0].clone()
}

/// Waits until four instances run and four of the version before are stopped.
fn one_is_kept(world: &World) {
    world.wait("the version before is stopped and kept", || {
        let there = world.there();
        (there.len() == 8 && there.values().filter(|runs| **runs).count() == 4).then_some(())
    });
}

#[test]
fn scenario_21_a_rollback_after_a_prune_needs_no_registry() {
    let Some(mut registry) = Registry::start("prune") else { return };
    let setup =
        Setup { registry: Some(registry.port), strategy: Some(CANARY), keep: "500ms", ..Setup::default() };
    let Some(world) = World::new("prune", Backends::DockerHaproxy, &setup) else { return };
    world.image("1.1.0");
    world.image("1.2.0");
    world.ok(&["up"]);
    world.ok(&["deploy", "web", "1.1.0"]);
    one_is_kept(&world);
    world.ok(&["deploy", "web", "1.2.0"]);
    one_is_kept(&world);
    let load = Load::start(world.listen, 3);
    assert_eq!(world.pulled().len(), 3, "{:?}", world.pulled());
    assert_eq!(world.prune_images(), 1, "of the version that nobody can go back to any more");
    assert_eq!(world.pulled().len(), 2, "the one that serves and the one before: {:?}", world.pulled());
    registry.stop();
    world.ok(&["rollback", "web", "--wait"]);
    let now = service(&world);
    assert_eq!((&now["stable"]["version"], &now["drift"]), (&json!("1.1.0"), &json!([])), "{now}");
    one_is_kept(&world);
    world.assert_no_orphan();
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
}

#[test]
fn scenario_21_a_way_back_that_was_pruned_is_said() {
    let Some(mut registry) = Registry::start("prune all") else { return };
    let setup =
        Setup { registry: Some(registry.port), strategy: Some(CANARY), keep: "500ms", ..Setup::default() };
    let Some(world) = World::new("prune all", Backends::DockerHaproxy, &setup) else { return };
    world.image("1.1.0");
    world.ok(&["up"]);
    world.ok(&["deploy", "web", "1.1.0"]);
    one_is_kept(&world);
    let load = Load::start(world.listen, 3);
    // What holds the image is a container that does not run, and those can be pruned too.
    assert_eq!(service(&world)["drift"], json!([]));
    world.prune_containers();
    assert_eq!(world.prune_images(), 1);
    registry.stop();
    let on = |n: u32| {
        format!(
            "2 kept instances of 1.0.0 gone from node-{n}: a rollback makes them anew, and has to pull the image if that \
             is gone too"
        )
    };
    let all = json!([on(1), on(2)]);
    world.wait("it is said", || (service(&world)["drift"] == all).then_some(()));

    // Without a registry there is no way back: said with the cause, and nothing that serves is touched.
    let serving = world.there();
    let (code, text) = world.run(&["rollback", "web", "--wait"]);
    assert_eq!(code, 3, "{text}");
    let reason = service(&world)["rollout"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("the artifact cannot be had on node-"), "{reason}");
    assert!(reason.contains("connection refused"), "{reason}");
    assert_eq!(world.there(), serving);
    assert_eq!(service(&world)["stable"]["version"], "1.1.0");

    // With one there is, and the last failure is no reason to give up.
    registry.go_on();
    world.ok(&["rollback", "web", "--wait"]);
    one_is_kept(&world);
    let now = service(&world);
    assert_eq!((&now["stable"]["version"], &now["drift"]), (&json!("1.0.0"), &json!([])), "{now}");
    world.assert_no_orphan();
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
}

fn full_disk(strategy: &'static str) {
    let Some(registry) = Registry::start("disk full") else { return };
    let Some(dockerd) = Dockerd::start_on("disk full", Some(400)) else { return };
    let setup = Setup {
        registry: Some(registry.port),
        second_docker: Some(dockerd.socket()),
        strategy: Some(strategy),
        ..Setup::default()
    };
    let Some(world) = World::new("disk full", Backends::DockerHaproxy, &setup) else { return };
    world.image("1.1.0");
    world.ok(&["up"]);
    let stable = world.there();
    let load = Load::start(world.listen, 3);
    let full = dockerd.fill();
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    while deploy.child.try_wait().unwrap().is_none() {
        assert_eq!(world.there(), stable, "nothing comes, nothing goes");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let now = service(&world);
    let reason = now["rollout"]["reason"].as_str().unwrap();
    eprintln!("MEASURED disk full: {reason}");
    assert!(reason.contains("node-2") && reason.contains("no space left on device"), "{reason}");
    assert!(!reason.contains("node-1"), "{reason}");
    drop(full);
    let events = world.events();
    let begun = events.iter().position(|e| e.starts_with("rollout_started") && e.contains("1.1.0")).unwrap();
    let changes = ["instance_started", "instance_healthy", "weight_decided", "phase_settled"];
    let changed: Vec<&String> =
        events[begun..].iter().filter(|e| changes.iter().any(|c| e.starts_with(c))).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    assert_eq!((&now["stable"]["version"], &now["drift"]), (&json!("1.0.0"), &json!([])), "{now}");

    // With room again the same release goes through.
    world.ok(&["deploy", "web", "1.1.0"]);
    assert_eq!(service(&world)["stable"]["version"], "1.1.0");
    world.assert_no_orphan();
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
}

#[test]
fn scenario_19_a_full_disk_on_one_host_changes_nothing_on_any() {
    full_disk(CANARY);
}

#[test]
fn scenario_19_a_full_disk_takes_nothing_out_of_a_rolling_release() {
    full_disk(ROLLING);
}

/// Scenario 20, while it serves: the tag means another image in the registry now, and no engine has that.
#[test]
fn scenario_20_a_tag_that_moved_in_the_registry_is_drift() {
    let Some(registry) = Registry::start("moved tag") else { return };
    let setup = Setup { registry: Some(registry.port), strategy: Some(ROLLING), ..Setup::default() };
    for pull in ["missing", "always"] {
        let Some(world) = World::new("moved tag", Backends::DockerHaproxy, &setup) else { return };
        world.edit("pull = \"missing\"", &format!("pull = \"{pull}\""));
        world.ok(&["up"]);
        assert_eq!(service(&world)["drift"], json!([]), "{pull}");
        world.move_tag("1.0.0", "1.1.0");
        // A registry is asked seldom; a controller that has just started asks at once.
        world.kill_controller();
        let drift = world.wait("the drift is seen", || {
            let drift = service(&world)["drift"].as_array()?.clone();
            (!drift.is_empty()).then_some(drift)
        });
        assert_eq!(drift.len(), 1, "{pull}: {drift:?}");
        assert!(drift[0].as_str().unwrap().contains("the tag 1.0.0 means another artifact now"), "{drift:?}");
        world.assert_no_orphan();
    }
}
