//! Operators at one rollout on a real controller. Two cockpits, in terminals of their own, and the command line: how long
//! after an act of one the others show it. One cockpit at the end of a link of 25 kB/s and 200 ms (there and back): how long
//! after each key its effect is seen. `PILOTHOUSE_BENCH_ACTS` (100) says how often they act; the walk over the link is made
//! a tenth as often.

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

use operator::{Link, Operator};
use world::{Backends, Setup, World};

/// From one look at a screen to the next.
const LOOK: Duration = Duration::from_millis(1);

/// A key, what it is for, and whether a screen shows it.
type Step = (&'static str, &'static str, fn(&str) -> bool);

/// What is pressed at the end of the link, and what is seen then.
const WALK: &[Step] = &[
    ("?", "help", |s| s.contains("STEER (")),
    ("?", "help away", |s| !s.contains("STEER (")),
    ("z", "large", |s| !s.contains("4 health")),
    ("z", "board", |s| s.contains("4 health")),
    ("/", "filter", |s| s.contains("/▏")),
    ("4", "a letter of it", |s| s.contains("/4▏")),
    ("\x1b", "no filter", |s| !s.contains("/4")),
    (":", "palette", |s| s.contains("goes back") || s.contains("complete")),
    ("\x1b", "palette away", |s| s.contains("q detach")),
    ("l", "logs", |s| s.contains("logs")),
    ("\x1b", "logs away", |s| s.contains("4 health")),
    (" ", "pause", |s| s.contains("|| paused")),
    (" ", "resume, asked", |s| s.contains("RESUME web")),
    ("y", "resume", |s| !s.contains("|| paused") && !s.contains("RESUME web")),
    ("p", "promote, asked", |s| s.contains("PROMOTE web")),
    ("\x1b", "promote, not", |s| !s.contains("PROMOTE web")),
    ("a", "abort, asked", |s| s.contains("ABORT web")),
    ("\x1b", "abort, not", |s| !s.contains("ABORT web")),
];

/// At the end of a slow link: per step, bytes and time of each walk.
fn link(world: &World, walks: usize) {
    let slow = Link { bytes_a_second: 25_000, delay: Duration::from_millis(100) };
    let mut carol = Operator::behind(world, "carol", (80, 24), Some(slow));
    carol.sees("canary 5%");
    std::thread::sleep(Duration::from_secs(1));
    // On the first start it explains itself until a key is pressed.
    carol.press('1');
    let mut all: Vec<(&str, Vec<(usize, Duration)>)> =
        WALK.iter().map(|(_, what, _)| (*what, vec![])).collect();
    for _ in 0..walks {
        carol.press('3');
        for (n, (key, what, seen)) in WALK.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(700));
            let ((before, _), pressed) = (carol.shown(), Instant::now());
            carol.press(key.chars().next().unwrap());
            carol.when(what, LOOK, |text| carol.shown().0 > before && seen(text));
            // Seen is what has come whole: the link sends something every 20 ms as long as there is anything.
            let whole = loop {
                let now = carol.shown();
                std::thread::sleep(Duration::from_millis(50));
                if carol.shown().0 == now.0 {
                    break now;
                }
            };
            all[n].1.push((whole.0 - before, whole.1 - pressed));
        }
    }
    println!(
        "\n{:<60} {:>5} {:>10} {:>10} {:>10}",
        "a key at the end of 25 kB/s and 200 ms", "n", "bytes", "p50", "max"
    );
    for (what, mut all) in all {
        all.sort_by_key(|(_, took)| *took);
        let (bytes, middle) = all[all.len() / 2];
        let ms = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1000.0);
        println!(
            "{what:<60} {:>5} {bytes:>10} {:>10} {:>10}",
            all.len(),
            ms(middle),
            ms(all[all.len() - 1].1)
        );
    }
}

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
    println!("{:<60} {:>5} {:>10} {:>10} {:>10}", "two cockpits and a command", "n", "p50", "p99", "max");
    for (what, mut all) in rows {
        all.sort();
        let at = |part: f64| {
            let n = (all.len() as f64 * part).ceil() as usize;
            format!("{:.1} ms", all[n.clamp(1, all.len()) - 1].as_secs_f64() * 1000.0)
        };
        println!("{what:<60} {:>5} {:>10} {:>10} {:>10}", all.len(), at(0.5), at(0.99), at(1.0));
    }
    link(&world, acts.div_ceil(10));
    drop(load);
    world.ok(&["abort", "web", "--wait"]);
}
