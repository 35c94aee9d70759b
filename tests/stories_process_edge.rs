//! The stories on a machine with nothing but this program: instances are processes, the proxy is the embedded one.
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
#[path = "common/stories.rs"]
mod stories;
#[path = "common/world.rs"]
mod world;

use load::Load;
use rustix::process::Signal;
use world::{Backends, Setup, World, kill};

fn world(test: &str, setup: &Setup) -> Option<World> {
    World::new(test, Backends::ProcessEdge, setup)
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

#[test]
fn scenario_10_an_edge_that_is_killed_comes_back_with_its_share() {
    let Some(world) = world("edge killed", &Setup::default()) else { return };
    stories::at_a_quarter(&world);
    let edge = || {
        let is_edge = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| String::from_utf8_lossy(&c).contains("\0edge\0--dir\0"))
        };
        world.processes().into_iter().find(is_edge)
    };
    let killed = edge().expect("an edge serves");
    kill(killed, Signal::KILL);
    world.wait("another edge", || edge().filter(|now| *now != killed));
    world.wait("it serves", || std::net::TcpStream::connect(world.listen).ok());
    world.wait_for_share("1.1.0", 25);
    let load = Load::start(world.listen, 6);
    let (share, requests) = stories::share(&world, "1.1.0", 4_000);
    eprintln!("MEASURED after the edge was killed: 25 % set, {share:.2} % of {requests}");
    assert!((share - 25.0).abs() < 3.0, "{share} % of {requests}");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 50);
    world.ok(&["abort", "web", "--wait"]);
    world.assert_no_orphan();
}

#[test]
fn slow_requests_of_a_candidate_that_goes_are_finished() {
    let Some(world) = world("slow", &Setup::default()) else { return };
    stories::slow_requests_are_finished(&world);
}

#[test]
fn logs_of_a_service_are_in_order_and_follow_a_rollout() {
    let Some(world) = world("logs", &Setup::default()) else { return };
    stories::up(&world);
    let text = world.ok(&["logs", "web", "--output", "json"]);
    let all: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let at: Vec<u64> = all.iter().map(|l| l["at_ms"].as_u64().unwrap()).collect();
    assert!(at.is_sorted(), "{text}");
    let mut instances: Vec<&str> = all.iter().map(|l| l["instance"].as_str().unwrap()).collect();
    instances.sort_unstable();
    instances.dedup();
    assert_eq!(instances.len(), 4, "{text}");

    let follow = world.spawn(&["logs", "web", "--follow"]);
    let listening = |version: &str| follow.said().matches(&format!("sample-app {version} listens")).count();
    world.wait("the lines that are there", || (listening("1.0.0") == 4).then_some(()));
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.wait("the candidate's first line", || (listening("1.1.0") == 1).then_some(()));
    assert!(follow.said().contains(" is new: 1.1.0 on node-"), "{}", follow.said());
    let candidates = world.ok(&["logs", "web", "--version", "1.1.0"]);
    assert!(candidates.contains("1.1.0 listens") && !candidates.contains("1.0.0"), "{candidates}");
    let (code, said) = world.run(&["logs", "web", "--version", "9.9.9"]);
    assert!(code == 2 && said.contains("no instance of web 9.9.9"), "{code}: {said}");

    world.ok(&["abort", "web", "--wait"]);
    world.wait("its end", || follow.said().contains(" is removed").then_some(()));
    assert_eq!(listening("1.0.0"), 4, "nothing twice: {}", follow.said());
}

#[test]
fn the_journal_is_told_backwards_by_another_controller_as_by_the_one_that_wrote_it() {
    let Some(world) = world("journal", &Setup::default()) else { return };
    stories::up(&world);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.ok(&["abort", "web", "--wait"]);
    let seen = world.snapshot().unwrap()["events"].as_array().unwrap().clone();
    assert!(seen.len() > 20, "{seen:?}");
    world.kill_controller();
    world.ok(&["status"]);
    let (mut told, mut before) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/journal?limit=7{before}")).unwrap();
        let mut events = page["events"].as_array().unwrap().clone();
        events.append(&mut told);
        told = events;
        match page["before"].as_u64() {
            Some(seq) => before = format!("&before={seq}"),
            None => break,
        }
    }
    assert_eq!(told[..seen.len()], seen[..]);
    assert!(told[seen.len()..].iter().any(|e| e["kind"] == "controller_started"), "{told:?}");
}
