//! The promise of the analysis, in simulated rollouts: how often it aborts what is within tolerance, whatever the world
//! does meanwhile, and how soon it finds what is not. All draws follow from seeds, so the numbers are the same each time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use pilothouse::analysis::{Rate, Settings, divisor};

#[path = "support/rollouts.rs"]
mod rollouts;
use rollouts::{Random, Second, fails_at, history, splits, steady};

/// How many of `runs` rollouts were aborted, and when. Each has a seed of its own and the history of its first second.
fn aborted(runs: u64, seconds: u32, world: impl Fn(u32) -> Second) -> Vec<u32> {
    (0..runs)
        .filter_map(|seed| {
            let mut random = Random(seed);
            let history = history(&mut random, &world(1));
            fails_at(Settings { history, ..Settings::default() }, seconds, |t| world(t).draw(&mut random, 1))
        })
        .collect()
}

/// The most of `runs` that may be aborted at 1 %: three standard deviations above the mean.
fn tolerable(runs: u64) -> usize {
    let mean = runs as f64 * Rate::ALPHA.fraction();
    (mean + 3.0 * mean.sqrt()) as usize
}

#[test]
fn a_candidate_like_stable_is_hardly_ever_aborted() {
    // ANALYSIS: 0.01 % on average over 48 settings, 0.3 % in the worst.
    for (rps, bad) in [(0.5, 0.001), (0.5, 0.05), (5.0, 0.01), (50.0, 0.05)] {
        let found = aborted(500, 180, |_| steady(rps, 0.05, (bad, bad)));
        assert!(found.len() <= 1, "{rps}/s, {bad}: {found:?}");
    }
}

#[test]
fn on_the_boundary_the_chance_is_below_alpha() {
    for (rps, share, bad) in [(5.0, 0.05, 0.01), (50.0, 0.25, 0.002)] {
        let found = aborted(1000, 150, |_| steady(rps, share, (bad, bad + 0.005)));
        assert!(found.len() <= tolerable(1000), "{rps}/s, {bad}: {found:?}");
    }
}

#[test]
fn bursts_that_hit_both_abort_nothing() {
    // Five seconds of failures every two minutes; in the second world the candidate fails wholly, stable in part.
    for candidate in [0.8, 1.0] {
        let found = aborted(400, 260, |t| {
            let burst = t % 120 >= 115;
            steady(5.0, 0.05, if burst { (0.8, candidate) } else { (0.01, 0.01) })
        });
        assert!(found.len() <= 1, "{candidate}: {found:?}");
    }
}

#[test]
fn a_base_rate_that_rises_with_the_share_aborts_nothing() {
    // Simpson: over the whole rollout the candidate has more failures for each request, in no second it has.
    let found = aborted(500, 200, |t| {
        let (share, bad) = if t < 100 { (0.05, 0.005) } else { (0.25, 0.04) };
        let all = 100.0;
        Second { arrive: (all * (1.0 - share), all * share), bad: (bad, bad) }
    });
    assert!(found.len() <= 1, "{found:?}");
    // And while it drifts all the time.
    let found = aborted(300, 200, |t| {
        let at = f64::from(t) / 200.0;
        let (share, bad) = (0.05 + 0.2 * at, 0.002 + 0.05 * at);
        Second { arrive: (100.0 * (1.0 - share), 100.0 * share), bad: (bad, bad) }
    });
    assert!(found.len() <= 1, "{found:?}");
}

#[test]
fn sessions_that_fail_together_need_the_divisor() {
    let runs = 150;
    let world = steady(50.0, 0.1, (0.05, 0.05));
    let play = |seed: u64, divide: &dyn Fn(&mut Random) -> f64| {
        let mut random = Random(seed);
        let history = history(&mut random, &world);
        let divisor = divide(&mut random);
        fails_at(Settings { history, divisor, ..Settings::default() }, 300, |_| world.draw(&mut random, 10))
    };
    let count =
        |divide: &dyn Fn(&mut Random) -> f64| (0..runs).filter(|seed| play(*seed, divide).is_some()).count();
    let with = count(&|random| divisor(&splits(random, &world, 10)).unwrap());
    let exact = count(&|_| 10.0);
    let without = count(&|_| 1.0);
    assert_eq!(exact, 0, "of {runs} with the divisor that is right");
    assert!(with <= 1, "{with} of {runs} with the divisor");
    assert!(without > 30, "{without} of {runs} without: the test would prove nothing");
}

#[test]
fn what_is_worse_is_found_in_time() {
    let runs = 300;
    let found = aborted(runs, 60, |_| steady(5.0, 0.05, (0.001, 0.05)));
    assert!(found.len() * 100 >= runs as usize * 95, "{} of {runs} within a minute", found.len());
    let mut sorted = found;
    sorted.sort_unstable();
    assert!((10..=30).contains(&sorted[sorted.len() / 2]), "{sorted:?}");
    // A candidate that does nothing right is found at once: no single second decides, the second one does.
    let found = aborted(100, 60, |_| steady(5.0, 0.05, (0.001, 1.0)));
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|t| (2..=6).contains(t)), "{found:?}");
}
