//! Two cockpits, in terminals of their own, and the command line at one rollout on a real controller: how long after an act
//! of one the others show it. `PILOTHOUSE_BENCH_ACTS` (100) says how often.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

#[path = "../tests/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../tests/common/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../tests/common/operator.rs"]
mod operator;
#[allow(dead_code)]
#[path = "../tests/common/world.rs"]
mod world;

use operator::Operator;
use world::{Backends, Setup, World};

/// From one look at a screen to the next.
const LOOK: Duration = Duration::from_millis(1);

fn main() {
    let quick = std::env::args().any(|a| a == "--test");
    let asked = std::env::var("PILOTHOUSE_BENCH_ACTS").ok().and_then(|n| n.parse().ok());
    let acts: usize = if quick { 1 } else { asked.unwrap_or(100) };
    let world = World::new("together", Backends::ProcessEdge, &Setup::default()).expect("needs no parts");
    world.ok(&["up"]);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    let load = load::Load::paced(world.listen, 2, Duration::from_millis(5));
    let mut alice = Operator::sit_down(&world, "alice");
    let bob = Operator::sit_down(&world, "bob");
    let paused = |text: &str| text.contains("|| paused");
    for operator in [&alice, &bob] {
        operator.sees("canary 5%");
    }
    let mut rows: [(&str, Vec<Duration>); 4] = [
        ("a key (pause) until the one who pressed it sees it", vec![]),
        ("a key (pause) until the other sees it", vec![]),
        ("a command (resume) from its start until it has ended", vec![]),
        ("a command (resume) from its start until both see it", vec![]),
    ];
    for _ in 0..acts {
        // Not in step with anything that happens once a second.
        std::thread::sleep(Duration::from_millis(137));
        let pressed = Instant::now();
        alice.press(' ');
        let other = bob.when("paused", LOOK, paused);
        let own = alice.when("paused", LOOK, paused);
        rows[0].1.push(own - pressed);
        rows[1].1.push(other - pressed);
        std::thread::sleep(Duration::from_millis(211));
        let (started, ended) = std::thread::scope(|s| {
            let started = Instant::now();
            let command = s.spawn(|| {
                world.ok(&["resume", "web"]);
                Instant::now()
            });
            for operator in [&alice, &bob] {
                operator.when("resumed", LOOK, |text| !paused(text));
            }
            let seen = Instant::now();
            rows[3].1.push(seen - started);
            (started, command.join().unwrap())
        });
        rows[2].1.push(ended - started);
    }
    drop(load);
    world.ok(&["abort", "web", "--wait"]);
    println!("{:<60} {:>5} {:>10} {:>10} {:>10}", "two cockpits and a command", "n", "p50", "p99", "max");
    for (what, mut all) in rows {
        all.sort();
        let at = |part: f64| {
            let n = (all.len() as f64 * part).ceil() as usize;
            format!("{:.1} ms", all[n.clamp(1, all.len()) - 1].as_secs_f64() * 1000.0)
        };
        println!("{what:<60} {:>5} {:>10} {:>10} {:>10}", all.len(), at(0.5), at(0.99), at(1.0));
    }
}
