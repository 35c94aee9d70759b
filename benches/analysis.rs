//! How soon the analysis finds a candidate that is worse, beside the fixed windows that others use, how often each aborts
//! one that is not, and what a block costs.
//!
//! `PILOTHOUSE_BENCH_ROLLOUTS` (50) says how many rollouts of ten minutes are played for each number; 200 take half a minute.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use pilothouse::analysis::{Count, Process, Rate, Settings, State, Tick, UpperBound};

#[path = "../tests/support/rollouts.rs"]
mod rollouts;
use rollouts::{Random, history, steady};

/// Seconds of a rollout.
const ROLLOUT_S: u32 = 600;
/// The candidate's share of all requests.
const SHARE: f64 = 0.05;
/// The candidate's requests a second, and rates of bad requests: stable's, then its own.
const WORSE: [(f64, f64, f64); 10] = [
    (0.5, 0.001, 1.0),
    (0.5, 0.01, 0.2),
    (0.5, 0.01, 0.05),
    (5.0, 0.001, 1.0),
    (5.0, 0.01, 0.2),
    (5.0, 0.01, 0.05),
    (50.0, 0.01, 0.05),
    (50.0, 0.01, 0.02),
    (500.0, 0.01, 0.02),
    (500.0, 0.05, 0.06),
];
/// Worlds in which nothing must be aborted.
const ARRIVE: [f64; 4] = [0.5, 5.0, 50.0, 500.0];
const BAD: [f64; 3] = [0.001, 0.01, 0.05];

/// The peers' rule: the candidate's success rate over each minute, and how many bad minutes abort.
struct Window {
    name: &'static str,
    least: f64,
    failures: u32,
}

/// Argo Rollouts fails when more measurements failed than its `failureLimit` (a total, not in a row), Flagger when as many
/// as its `threshold`.
const WINDOWS: [Window; 3] = [
    Window { name: "60 s >= 99 %, 1 failure", least: 0.99, failures: 1 },
    Window { name: "60 s >= 99 %, 5 failures", least: 0.99, failures: 5 },
    Window { name: "60 s >= 95 %, limit 3", least: 0.95, failures: 4 },
];
const METHODS: usize = 1 + WINDOWS.len();

/// When each method aborted one rollout.
fn play(seed: u64, rps: f64, stable: f64, candidate: f64) -> [Option<u32>; METHODS] {
    let mut random = Random(seed);
    let world = steady(rps, SHARE, (stable, candidate));
    let history = history(&mut random, &world);
    let mut process = Process::new(Settings { history, ..Settings::default() });
    let mut at = [None; METHODS];
    let mut minute = Count::default();
    let mut failed = [0; WINDOWS.len()];
    for t in 1..=ROLLOUT_S {
        let tick = world.draw(&mut random, 1);
        process.tick(f64::from(t), tick);
        if process.state() == State::Fail {
            at[0].get_or_insert(t);
        }
        minute.add(tick.candidate);
        if t % 60 == 0 {
            for (n, window) in WINDOWS.iter().enumerate() {
                let good = minute.n - minute.bad;
                failed[n] += u32::from((good as f64) < window.least * minute.n as f64);
                if failed[n] >= window.failures {
                    at[n + 1].get_or_insert(t);
                }
            }
            minute = Count::default();
        }
        if at.iter().all(Option::is_some) {
            break;
        }
    }
    at
}

/// Per cent of rollouts that each method aborted.
fn aborted(runs: u64, rps: f64, stable: f64, candidate: f64) -> [f64; METHODS] {
    let mut counts = [0.0; METHODS];
    for seed in 0..runs {
        for (count, at) in counts.iter_mut().zip(play(seed, rps, stable, candidate)) {
            *count += f64::from(u8::from(at.is_some()));
        }
    }
    counts.map(|c| c * 100.0 / runs as f64)
}

fn main() {
    // `cargo test --benches` only wants to know whether it runs.
    let quick = std::env::args().any(|a| a == "--test");
    let asked = std::env::var("PILOTHOUSE_BENCH_ROLLOUTS").ok().and_then(|n| n.parse().ok());
    let runs = if quick { 1 } else { asked.unwrap_or(50) };
    println!("{runs} rollouts of {ROLLOUT_S} s each, share 5 %, tolerance 0.5 points, alpha 1 %\n");
    let line = |what: &str, cells: [String; METHODS]| {
        print!("{what:<34}");
        cells.iter().for_each(|c| print!("{c:>26}"));
        println!();
    };
    let names = [0, 1, 2].map(|n: usize| WINDOWS[n].name.to_owned());
    let [a, b, c] = names;

    let title = "req/s, stable -> candidate bad";
    line(title, ["this".to_owned(), a, b, c]);
    println!("median seconds to the abort; share found in brackets where below 95 %");
    for (rps, stable, candidate) in WORSE {
        let mut times: [Vec<u32>; METHODS] = Default::default();
        for seed in 0..runs {
            for (all, at) in times.iter_mut().zip(play(seed, rps, stable, candidate)) {
                all.extend(at);
            }
        }
        let cells = times.map(|mut all| {
            all.sort_unstable();
            let share = all.len() as u64 * 100 / runs;
            match all.get(all.len() / 2) {
                None => "-".to_owned(),
                Some(median) if share < 95 => format!("{median} ({share})"),
                Some(median) => median.to_string(),
            }
        });
        line(&format!("{rps}, {} -> {} %", stable * 100.0, candidate * 100.0), cells);
    }

    println!("\naborted wrongly, per cent: mean (worst) of {} worlds", ARRIVE.len() * BAD.len());
    for (name, more) in
        [("the same", 0.0), ("+0.3 points, tolerated", 0.003), ("+0.5 points, the boundary", 0.005)]
    {
        let worlds: Vec<[f64; METHODS]> =
            ARRIVE.iter().flat_map(|rps| BAD.map(|bad| aborted(runs, *rps, bad, bad + more))).collect();
        let cells = std::array::from_fn(|n| {
            let mean = worlds.iter().map(|w| w[n]).sum::<f64>() / worlds.len() as f64;
            let worst = worlds.iter().map(|w| w[n]).fold(0.0, f64::max);
            format!("{mean:.2} ({worst:.1})")
        });
        line(name, cells);
    }

    println!();
    cost(if quick { 10 } else { 100_000 });
}

/// What a block costs: the verdict alone, and with the upper bound for the screen.
fn cost(blocks: u32) {
    let history = Count::new(30_000, 300);
    let mut random = Random(1);
    let world = steady(5.0, SHARE, (0.01, 0.01));
    let ticks: Vec<Tick> = (0..1000).map(|_| world.draw(&mut random, 1)).collect();
    for bounded in [false, true] {
        let mut process = Process::new(Settings { history, ..Settings::default() });
        let mut bound = UpperBound::new(Rate::TOLERANCE, Rate::ALPHA_PASS);
        let start = Instant::now();
        let mut closed = 0;
        for (t, tick) in (1..=blocks).zip(ticks.iter().cycle()) {
            if let Some(block) = process.tick(f64::from(t), *tick) {
                closed += 1;
                if bounded {
                    bound.observe(&block);
                }
            }
        }
        let us = start.elapsed().as_secs_f64() * 1e6 / f64::from(closed.max(1));
        black_box((process.state(), bound.difference()));
        println!("a block{}: {us:.1} us", if bounded { " with the upper bound" } else { "" });
    }
}
