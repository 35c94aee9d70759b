//! The stories against a real Docker Engine and a real HAProxy, with the real binary.
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
#[path = "common/stories.rs"]
mod stories;
#[path = "common/world.rs"]
mod world;

use std::time::{Duration, Instant};

use load::Load;
use pilothouse::proxy::Extras;
use world::{Backends, LONG, Setup, World};

fn world(test: &str, setup: &Setup) -> Option<World> {
    World::new(test, Backends::DockerHaproxy, setup)
}

#[test]
fn scenario_1_a_controller_killed_in_each_phase_goes_on() {
    let Some(world) = world("killed", &stories::timed()) else { return };
    stories::killed_in_each_phase(&world);
}

#[test]
fn scenario_2_and_3_there_is_one_controller() {
    let Some(world) = world("one controller", &Setup::default()) else { return };
    stories::one_controller(&world);
}

#[test]
fn scenario_4_clients_that_are_killed_change_nothing() {
    let Some(world) = world("clients die", &Setup::default()) else { return };
    stories::clients_die(&world);
}

#[test]
fn scenario_35_a_secret_is_nowhere_but_in_the_application() {
    let secret = common::unique("geheim");
    let setup = Setup { env_file: Some(format!("API_TOKEN={secret}\n")), ..Setup::default() };
    let Some(world) = world("secret", &setup) else { return };
    stories::secret_stays_secret(&world, &secret);
}

/// The pid of HAProxy's worker that takes connections.
fn worker(world: &World) -> Option<String> {
    let procs = world.haproxy_says("show proc");
    let current = procs.lines().skip_while(|l| !l.starts_with("# workers")).nth(1)?;
    current.split_ascii_whitespace().next().map(str::to_owned)
}

#[test]
fn scenario_10_a_reload_and_a_restart_of_haproxy_keep_the_share() {
    let Some(mut world) = world("reload", &Setup::default()) else { return };
    stories::at_a_quarter(&world);
    let load = stories::Outside::start(&world);
    for _ in 0..4 {
        let before = worker(&world);
        world.reload_proxy();
        world.wait("a new worker", || worker(&world).filter(|w| Some(w) != before.as_ref()));
        // Also before anybody looked: what the files say is what was set.
        world.wait_for_share("1.1.0", 25);
        std::thread::sleep(Duration::from_millis(200));
    }
    load.assert_nothing_failed("4 reloads in mid-canary");

    stories::proxy_restarts(&mut world);
}

#[test]
fn a_share_that_is_changed_by_hand_is_put_right() {
    let Some(world) = world("by hand", &Setup::default()) else { return };
    stories::at_a_quarter(&world);
    assert!(!stories::has_event(&world, "proxy_differs"));
    let worker = worker(&world).unwrap();
    let map = world.path().join("own").join(format!("{}_web.map", world.fleet));
    let entries = world.haproxy_says(&format!("@!{worker} show map {}", map.display()));
    // What goes to stable's slot goes to the candidate's.
    let mut changed = 0;
    for line in entries.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [reference, _, backend] = words[..]
            && let Some(stem) = backend.strip_suffix("_a")
        {
            let command = format!("@!{worker} set map {} #{reference} {stem}_b", map.display());
            world.haproxy_says(&command);
            changed += 1;
        }
    }
    let began = Instant::now();
    assert!(changed > 0, "{entries}");
    world.wait("the event", || stories::has_event(&world, "proxy_differs").then_some(()));
    world.wait_for_share("1.1.0", 25);
    eprintln!("MEASURED change by hand: put right after {} ms", began.elapsed().as_millis());
    let entries = world.haproxy_says(&format!("@!{worker} show map {}", map.display()));
    assert!(entries.lines().any(|l| l.ends_with("_a")), "{entries}");
    let load = Load::start(world.listen, 6);
    let (share, requests) = stories::share(&world, "1.1.0", 4_000);
    assert!((share - 25.0).abs() < 3.0, "{share} % of {requests}");
    assert_eq!(load.finish().failed, 0);
}

/// Scenario 12: planning knows what the proxy lacks. Nothing is started for a release that it could not carry.
#[test]
fn scenario_12_a_release_that_the_proxy_cannot_follow_is_refused() {
    let strategy = "type = \"blue-green\"\npreview = { header = \"X-Preview\", value = \"green\" }\nhealthy_for = \"1s\"";
    let setup = Setup { strategy: Some(strategy), extras: Extras::default(), ..Setup::default() };
    let Some(mut world) = world("cannot follow", &setup) else { return };
    world.image("1.1.0");
    stories::up(&world);
    let (there, before) = (world.there(), world.events().len());
    let line =
        format!("map_reg({}", world.path().join("own").join(format!("{}_web.rules", world.fleet)).display());
    for verb in ["plan", "deploy"] {
        let (code, said) = world.run(&[verb, "web", "1.1.0"]);
        assert_eq!(code, 1, "{verb}: {said}");
        assert!(said.contains("follows the rules of web") && said.contains(&line), "{verb}: {said}");
    }
    assert_eq!(world.there(), there);
    assert_eq!(world.events().len(), before, "{:#?}", world.events());

    // With the line that was named it goes through.
    world.stop_proxy();
    world.extras = Extras::ALL;
    world.start_proxy();
    world.ok(&["plan", "web", "1.1.0"]);
    world.ok(&["deploy", "web", "1.1.0"]);
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    world.assert_no_orphan();
}

#[test]
fn scenario_23_a_port_that_is_taken_leaves_stable_as_it_is() {
    let Some(world) = world("port taken", &stories::timed()) else { return };
    world.image("1.1.0");
    stories::up(&world);
    let stable = world.there();
    let load = Load::start(world.listen, 3);
    let taken = std::net::TcpListener::bind(format!("{}:21002", world.host_address(1))).unwrap();
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let rollout = world.status()["services"][0]["rollout"].clone();
    assert_eq!(rollout["status"], "aborted", "{rollout}");
    let reason = rollout["reason"].as_str().unwrap();
    assert!(reason.contains("does not start") && reason.contains("21002"), "{reason}");
    world.assert_no_orphan();
    assert_eq!(world.there(), stable);
    drop(taken);
    world.ok(&["deploy", "web", "1.1.0"]);
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
}

#[test]
fn scenario_7_and_26_a_docker_that_hangs_freezes_and_never_keeps_an_abort() {
    let Some(dockerd) = dockerd::Dockerd::start("docker hangs") else { return };
    let setup = Setup { docker: Some(dockerd.socket()), ..Setup::default() };
    let Some(world) = world("docker hangs", &setup) else { return };
    stories::at_a_quarter(&world);
    let load = Load::start(world.listen, 3);
    let hung = dockerd.hang();
    let began = Instant::now();
    world.wait_for_status("1.1.0", "frozen");
    eprintln!("MEASURED docker hangs: frozen after {} ms", began.elapsed().as_millis());
    // The proxy goes on serving both.
    let before = load.of("1.1.0").unwrap().0;
    world.wait("the candidate still serves", || (load.of("1.1.0")?.0 > before).then_some(()));
    assert!(stories::has_event(&world, "host_lost"), "{:#?}", world.events());

    let pressed = Instant::now();
    let mut abort = world.spawn(&["abort", "web", "--wait"]);
    world.wait("everything is on stable", || {
        let service = world.service()?;
        let revisions = service["revisions"].as_array()?.clone();
        revisions.iter().any(|r| r["role"] == "stable" && r["actual_weight"] == 10_000).then_some(())
    });
    let back = pressed.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let sent = load.of("1.1.0").unwrap().1.saturating_duration_since(pressed);
    eprintln!(
        "MEASURED abort while docker hangs: read back after {} ms, last request to the candidate after {} ms",
        back.as_millis(),
        sent.as_millis()
    );
    assert!(sent < Duration::from_secs(5), "{sent:?}");
    assert_eq!(abort.end(Duration::from_secs(120)), 0, "{}", abort.said());
    eprintln!("MEASURED abort while docker hangs: ended with what it owes after {:?}", pressed.elapsed());
    let rollout = world.service().unwrap()["rollout"].clone();
    assert_eq!(rollout["status"], "aborted", "{rollout}");
    let owed = rollout["owed"].as_array().unwrap();
    assert!(owed.iter().any(|o| o.as_str().unwrap().contains("still to be stopped")), "{rollout}");

    drop(hung);
    world.assert_no_orphan();
    world.wait("what was owed is done", || (world.there().len() == 4).then_some(()));
    world.wait("nothing of it is shown", || world.endpoints("1.1.0").is_empty().then_some(()));
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
}

#[test]
fn scenario_1_a_controller_killed_again_and_again_goes_on() {
    let Some(world) = world("killed often", &stories::hasty()) else { return };
    stories::killed_again_and_again(&world);
}

#[test]
fn a_rollback_is_instant_while_warm_and_works_when_cold() {
    let Some(world) = world("rollback", &Setup { keep: "4s", ..stories::timed() }) else { return };
    stories::rollback(&world);
}

/// Somebody else reloads HAProxy again and again, with whatever is in the files just then, while a rollout goes on.
#[test]
fn scenario_14_reloads_all_the_time_neither_stop_a_rollout_nor_lose_a_request() {
    let Some(world) = world("reloads all the time", &stories::timed()) else { return };
    world.image("1.1.0");
    stories::up(&world);
    let load = stories::Outside::start(&world);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    let began = Instant::now();
    let mut reloads = 0;
    while deploy.child.try_wait().unwrap().is_none() && began.elapsed() < LONG {
        world.reload_proxy();
        reloads += 1;
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    load.assert_nothing_failed(&format!("{reloads} reloads by somebody else in one canary"));
    world.wait_for_share("1.1.0", 100);
    world.assert_no_orphan();
}

#[test]
fn slow_requests_of_a_candidate_that_goes_are_finished() {
    let Some(world) = world("slow", &Setup::default()) else { return };
    stories::slow_requests_are_finished(&world);
}

/// Another controller with the same fleet, from another directory: it may look, and touches nothing.
#[test]
fn scenario_3_a_controller_elsewhere_touches_nothing_that_is_held() {
    let Some(world) = world("elsewhere", &Setup::default()) else { return };
    world.image("1.1.0");
    stories::up(&world);
    let (there, load) = (world.there(), Load::start(world.listen, 2));
    let own = world.path().join("own").join(format!("{}.cfg", world.fleet));
    let before = std::fs::read_to_string(&own).unwrap();
    let file = world.path().join("elsewhere.toml");
    let text = std::fs::read_to_string(world.path().join("fleet.toml")).unwrap();
    std::fs::write(&file, text.replace("\"state\"", "\"elsewhere\"")).unwrap();
    let file = file.display().to_string();
    for args in [&["--fleet", &file, "up"][..], &["--fleet", &file, "deploy", "web", "1.1.0"]] {
        let (code, said) = world.run(args);
        assert_eq!(code, 5, "{args:?}: {said}");
        assert!(said.contains("is held by the controller"), "{said}");
    }
    assert_eq!(world.there(), there);
    assert_eq!(std::fs::read_to_string(&own).unwrap(), before);
    assert_eq!(load.finish().failed, 0);
}

#[test]
fn scenario_9_a_docker_that_dies_and_comes_back_in_mid_canary_costs_nothing() {
    let Some(mut dockerd) = dockerd::Dockerd::start("docker dies") else { return };
    let setup = Setup { docker: Some(dockerd.socket()), by_container_address: true, ..Setup::default() };
    let Some(world) = world("docker dies", &setup) else { return };
    stories::at_a_quarter(&world);
    let load = Load::start(world.listen, 3);
    dockerd.kill();
    let began = Instant::now();
    world.wait_for_status("1.1.0", "frozen");
    eprintln!("MEASURED docker dies: frozen after {} ms", began.elapsed().as_millis());
    dockerd.start_again();
    world.wait_for_status("1.1.0", "running");
    world.wait_for_share("1.1.0", 25);
    world.ok(&["promote", "web", "--full", "--wait"]);
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    world.assert_no_orphan();
    let report = load.finish();
    eprintln!(
        "MEASURED docker dies and comes back: {} of {} requests failed",
        report.failed, report.requests
    );
    assert_eq!(report.failed, 0, "{report:?}");
}
