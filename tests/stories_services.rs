//! Two services of one fleet, behind one proxy: each is released as if the other were not there.
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

use std::time::{Duration, Instant};

use load::Load;
use serde_json::{Value, json};
use world::{API, Backends, LONG, Setup, World};

/// Slow enough to be aborted in its middle, whatever the machine does besides.
const ROLLING: &str =
    "type = \"rolling\"\nmax_surge = 1\nmin_healthy_time = \"1s\"\nhealthy_deadline = \"40s\"";

fn setup() -> Setup {
    Setup { api: Some(ROLLING), keep: "1s", ..Setup::default() }
}

/// What must not change of a service by what happens to another: shares, set and read back, and the instances.
fn standing(world: &World, service: &str) -> Value {
    let snapshot = world.snapshot().expect("a controller answers");
    let of = |list: &Value, key: &str| -> Vec<Value> {
        list.as_array().unwrap().iter().filter(|x| x[key] == service).cloned().collect()
    };
    let shown = of(&snapshot["services"], "name")[0].clone();
    let revisions: Vec<Value> = shown["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| json!([r["revision"]["version"], r["role"], r["slot"], r["weight"], r["actual_weight"]]))
        .collect();
    let instances: Vec<Value> = of(&snapshot["instances"], "service")
        .iter()
        .map(|i| json!([i["id"], i["host"], i["endpoint"], i["state"], i["health"], i["restarts"]]))
        .collect();
    let rollout = &shown["rollout"];
    json!({ "revisions": revisions, "instances": instances, "status": rollout["status"], "phase": rollout["phase"] })
}

/// The events about `service` after event number `from`.
fn events_of(world: &World, service: &str, from: u64) -> Vec<String> {
    let events = world.snapshot().expect("a controller answers")["events"].as_array().unwrap().clone();
    let later = events.iter().filter(|e| e["service"] == service && e["seq"].as_u64() > Some(from));
    later.map(|e| format!("{}: {}", e["kind"], e["text"])).collect()
}

fn last_event(world: &World) -> u64 {
    let snapshot = world.snapshot().expect("a controller answers");
    snapshot["events"].as_array().unwrap().iter().filter_map(|e| e["seq"].as_u64()).max().unwrap_or(0)
}

/// The share that is set for `version` of a service, in basis points; 0 while it has no slot.
fn weight(world: &World, service: &str, version: &str) -> Option<u64> {
    let revisions = world.service_named(service)?["revisions"].as_array()?.clone();
    let found = revisions.iter().find(|r| r["revision"]["version"] == version);
    Some(found.and_then(|r| r["weight"].as_u64()).unwrap_or(0))
}

/// Waits until a rolling release of `api` to `version` has a share, but not all of it, and answers its visitors.
fn in_its_middle(world: &World, api: &Load, version: &str) {
    world.wait(&format!("api {version} in its middle"), || {
        let share = weight(world, "api", version)?;
        assert!(share < 10_000, "it was over before it could be aborted");
        (share >= 2_500 && api.of(version).is_some()).then_some(())
    });
}

/// One service of `status --output json`.
fn listed(status: &Value, service: &str) -> Value {
    let found: Vec<&Value> =
        status["services"].as_array().unwrap().iter().filter(|s| s["name"] == service).collect();
    assert_eq!(found.len(), 1, "{service}: {status}");
    found[0].clone()
}

/// That `version` serves alone, with four instances, and nothing differs.
fn assert_serves(world: &World, service: &str, version: &str, rollout: &str) {
    let status = world.status();
    let s = listed(&status, service);
    assert_eq!(s["stable"]["version"], version, "{status}");
    assert_eq!(s["rollout"]["status"], rollout, "{status}");
    assert_eq!(s["drift"], json!([]), "{status}");
    let stable = s["revisions"].as_array().unwrap().iter().find(|r| r["role"] == "stable").unwrap().clone();
    assert_eq!((&stable["weight"], &stable["actual_weight"]), (&json!(100.0), &json!(100.0)), "{status}");
    let running = stable["instances"].as_array().unwrap().iter().filter(|i| i["state"] == "running").count();
    assert_eq!(running, 4, "{status}");
}

fn two_services(world: &World) {
    for version in ["1.1.0", "2.1.0", "2.2.0"] {
        world.image(version);
    }
    world.ok(&["up"]);
    assert_serves(world, "web", "1.0.0", "done");
    assert_serves(world, "api", "2.0.0", "done");
    let web = Load::start(world.listen, 3);
    let api = Load::of_host(world.listen, API, 3, Duration::ZERO);

    // Both at once. The canary of web stands at a quarter while api is in the middle of rolling.
    let mut web_deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait_for_share("1.1.0", 5);
    let mut api_deploy = world.spawn(&["deploy", "api", "2.1.0"]);
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 25);
    in_its_middle(world, &api, "2.1.0");
    let status = world.status();
    for (service, strategy, from, to) in
        [("web", "canary", "1.0.0", "1.1.0"), ("api", "rolling", "2.0.0", "2.1.0")]
    {
        let r = listed(&status, service)["rollout"].clone();
        let shown = [&r["status"], &r["strategy"], &r["from"], &r["to"]];
        assert_eq!(shown, [&json!("running"), &json!(strategy), &json!(from), &json!(to)], "{status}");
    }

    // api is aborted: nothing is decided about web, and what is seen of it never changes.
    let (before, seen, quarter) = (standing(world, "web"), last_event(world), web.of("1.1.0").unwrap().0);
    let (all, began) = (web.answered(), Instant::now());
    let mut abort = world.spawn(&["abort", "api", "--wait"]);
    let mut looks = 0;
    while abort.child.try_wait().unwrap().is_none() && began.elapsed() < LONG {
        assert_eq!(standing(world, "web"), before, "after {looks} looks");
        looks += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(abort.end(LONG), 0, "{}", abort.said());
    assert_eq!(api_deploy.end(LONG), 3, "the deploy that was aborted: {}", api_deploy.said());
    world.wait("enough requests for a share", || (web.answered() - all >= 4_000).then_some(()));
    assert_eq!(standing(world, "web"), before);
    assert_eq!(events_of(world, "web", seen), [] as [String; 0], "an abort of api decides nothing about web");
    let share = (web.of("1.1.0").unwrap().0 - quarter) as f64 * 100.0 / (web.answered() - all) as f64;
    eprintln!(
        "MEASURED two services: api aborted in {:?}, {looks} looks at web; 25 % set, {share:.2} % of {} requests",
        began.elapsed(),
        web.answered() - all
    );
    assert!((share - 25.0).abs() <= 3.0, "{share} %");
    assert_serves(world, "api", "2.0.0", "aborted");

    // The other way round: web is aborted while api rolls, and api goes on to its end without a step back.
    let mut api_deploy = world.spawn(&["deploy", "api", "2.2.0"]);
    in_its_middle(world, &api, "2.2.0");
    let mut share = weight(world, "api", "2.2.0").unwrap();
    let mut abort = world.spawn(&["abort", "web", "--wait"]);
    while api_deploy.child.try_wait().unwrap().is_none() && began.elapsed() < 2 * LONG {
        let now = weight(world, "api", "2.2.0").unwrap();
        assert!(now >= share, "the share of api fell from {share} to {now} when web was aborted");
        share = now;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(api_deploy.end(LONG), 0, "{}", api_deploy.said());
    assert_eq!(abort.end(LONG), 0, "{}", abort.said());
    assert_eq!(web_deploy.end(LONG), 3, "the deploy that was aborted: {}", web_deploy.said());
    assert_serves(world, "web", "1.0.0", "aborted");
    assert_serves(world, "api", "2.2.0", "done");

    // And web goes all the way while nothing happens to api.
    let (before, seen) = (standing(world, "api"), last_event(world));
    let mut web_deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    for percent in [5, 25, 50] {
        world.wait_for_share("1.1.0", percent);
        world.ok(&["promote", "web"]);
    }
    assert_eq!(web_deploy.end(LONG), 0, "{}", web_deploy.said());
    assert_serves(world, "web", "1.1.0", "done");
    let settled = ["keep_ended", "instance_drained", "instance_stopped"];
    let others = events_of(world, "api", seen);
    let strange: Vec<&String> = others.iter().filter(|e| !settled.iter().any(|k| e.contains(k))).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(standing(world, "api")["revisions"][0], before["revisions"][0]);

    // Nobody was answered by the other service.
    assert_eq!(web.versions(), ["1.0.0", "1.1.0"]);
    assert_eq!(api.versions(), ["2.0.0", "2.1.0", "2.2.0"]);
    for (load, what) in [(web, "web"), (api, "api")] {
        let report = load.finish();
        eprintln!("MEASURED two services, {what}: {} of {} requests failed", report.failed, report.requests);
        assert_eq!(report.failed, 0, "{what}: {report:?}");
    }
    world.assert_no_orphan();
}

#[test]
fn two_services_on_processes_do_not_touch_each_other() {
    let Some(world) = World::new("two services", Backends::ProcessEdge, &setup()) else { return };
    two_services(&world);
}

#[test]
fn two_services_on_docker_do_not_touch_each_other() {
    let Some(world) = World::new("two services", Backends::DockerHaproxy, &setup()) else { return };
    two_services(&world);
}
