//! Operators at a live rollout: the real cockpit in real terminals, on a real controller. Terminals that go away change
//! nothing, everybody sees the same, and whoever pressed a key is in the events.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use futures_util::StreamExt as _;
use pilothouse::client::{Client, Update};
use rustix::process::{Signal, kill_process};

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/operator.rs"]
mod operator;
#[path = "common/world.rs"]
mod world;

use operator::Operator;
use world::{Backends, Setup, World};

fn rollout(world: &World) -> serde_json::Value {
    world.service().unwrap()["rollout"].clone()
}

#[test]
fn scenario_5_terminals_that_go_away_change_nothing_and_whoever_pressed_is_in_the_events() {
    let Some(world) = World::new("cockpits", Backends::ProcessEdge, &Setup::default()) else { return };
    world.ok(&["up"]);
    let mut alice = Operator::sit_down(&world, "alice");
    alice.sees("live");
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    let mut bob = Operator::sit_down(&world, "bob");
    for operator in [&alice, &bob] {
        operator.sees("canary 5%");
    }
    alice.sees("bob");
    let before = rollout(&world);

    // One is killed, the other's connection drops: the terminal is closed and SIGHUP comes.
    kill_process(alice.pid(), Signal::KILL).unwrap();
    alice.is_gone();
    kill_process(bob.pid(), Signal::HUP).unwrap();
    bob.is_gone();
    bob.pair = None;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(rollout(&world), before, "the rollout is what it was");

    // Whoever comes next sees the same rollout, and goes on with it.
    let mut carol = Operator::sit_down(&world, "carol");
    carol.sees("canary 5%");
    carol.sees("waits for promote");
    carol.presses("p");
    carol.sees("PROMOTE web");
    carol.presses("y");
    world.wait_for_share("1.1.0", 25);
    carol.sees("canary 25%");
    carol.presses("a");
    carol.sees("ABORT web");
    carol.presses("y");
    world.wait_for_status("1.1.0", "aborted");
    carol.sees("aborted");
    let events = world.events().join("\n");
    for said in ["promoted by", "aborted by"] {
        let line = events.lines().find(|l| l.contains(said)).unwrap_or_else(|| panic!("{said}:\n{events}"));
        assert!(line.contains("carol"), "{line}");
    }
    world.assert_no_orphan();
}

/// What the controller tells whoever begins to watch of the minutes before: points of each revision of `web`.
fn minutes_before(world: &World) -> Vec<usize> {
    let socket = world.state_dir().join("control.sock");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = Client::connect(&socket).await.unwrap();
        let mut updates = Box::pin(client.stream("late", false).await.unwrap());
        let Some(Ok(Update::Snapshot(s))) = updates.next().await else { panic!("no snapshot") };
        let web = s.services.iter().find(|s| s.name.as_str() == "web").unwrap();
        let points = web.revisions.iter().filter_map(|v| s.trends.of(&web.name, &v.revision.id));
        points.map(|p| p.len()).collect()
    })
}

#[test]
fn who_comes_late_sees_the_minutes_before_and_a_new_controller_knows_when_each_phase_began() {
    let Some(world) = World::new("late", Backends::ProcessEdge, &Setup::default()) else { return };
    world.ok(&["up"]);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    let load = load::Load::start(world.listen, 2);
    // Two points are complete when a third has begun.
    world.wait("some points of both", || {
        let points = minutes_before(&world);
        (points.len() == 2 && points.iter().all(|n| *n >= 3)).then_some(())
    });
    let alice = Operator::sit_down(&world, "alice");
    alice.sees("candidate req");
    alice.sees("▁");
    alice.sees("▶ 5% for ");
    let entered = |world: &World| rollout(world)["phases"][1]["entered_ms"].clone();
    let before = entered(&world);
    assert!(before.is_u64(), "{before}");
    drop(load);
    world.kill_controller();
    // Any command starts the next one.
    world.status();
    assert_eq!(entered(&world), before);
    let bob = Operator::sit_down(&world, "bob");
    bob.sees("▶ 5% for ");
    world.ok(&["abort", "web"]);
    world.wait_for_status("1.1.0", "aborted");
    bob.sees("< 5% ");
}

#[test]
fn scenario_39_a_verb_decided_on_what_is_no_longer_so_is_not_sent() {
    let Some(world) = World::new("stale", Backends::ProcessEdge, &Setup::default()) else { return };
    world.ok(&["up"]);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    let mut alice = Operator::sit_down(&world, "alice");
    alice.sees("waits for promote");
    alice.presses("p");
    alice.sees("PROMOTE web");
    // While alice reads the question, somebody else promotes.
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 25);
    alice.presses("y");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.phase("1.1.0").unwrap().0, "25%", "her answer was to another question");
    world.ok(&["abort", "web", "--wait"]);
}
