//! The promise of the analysis, in simulated rollouts: how often it aborts what is within tolerance, whatever the world
//! does meanwhile, and how soon it finds what is not. All draws follow from seeds, so the numbers are the same each time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use pilothouse::analysis::{Rate, Settings, divisor};

use pilothouse::analysis::State;
use pilothouse::controller::evidence::Evidence;
use pilothouse::fleet::model::Analysis;
use pilothouse::fleet::names::Millis;
use pilothouse::traffic::Counters;

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

/// What `n` requests come to: some failed, each answered in 5 to 45 ms, most of them soon.
fn requests(random: &mut Random, n: u64, bad: f64, slower: f64) -> Counters {
    let mut c = Counters { requests: n, errors: random.binomial(n, bad), ..Counters::default() };
    for _ in 0..n {
        let part = random.between(0.0, 1.0);
        c.latency.record(((5_000.0 + 40_000.0 * part * part * part) * slower) as u64);
    }
    c
}

/// A release as the product judges it: failures, both quantiles of the response time and an absolute bound, ten minutes
/// each at 5, 25 and 50 % of `rps` requests a second. Whether it was taken back.
fn taken_back(seed: u64, rps: f64, bad: (f64, f64), slower: f64) -> bool {
    let mut random = Random(seed);
    let a = Analysis {
        tolerance: Rate::TOLERANCE,
        alpha: Rate::ALPHA,
        max_errors: "10%".parse().ok(),
        latency: true,
        soak: Millis(0),
        inconclusive_after: Millis::secs(600),
        early: false,
        dry_run: false,
    };
    let n = random.poisson(rps * 300.0);
    let before = requests(&mut random, n, bad.0, 1.0);
    let mut evidence = Evidence::begin("web-2".parse().unwrap(), 1, &a, &before, 1.0, Millis(0));
    for (phase, share) in [(1, 0.05), (2, 0.25), (3, 0.5)] {
        for second in 1..=600 {
            let now = Millis::secs(600 * (phase as u64 - 1) + second);
            let (s, c) = (random.poisson(rps * (1.0 - share)), random.poisson(rps * share));
            if s + c == 0 {
                continue;
            }
            let stable = requests(&mut random, s, bad.0, 1.0);
            let candidate = requests(&mut random, c, bad.1, slower);
            evidence.tick(now, &stable, &candidate);
            // A failure stays said.
            if second.is_multiple_of(60) && evidence.verdict().state == State::Fail {
                return true;
            }
        }
        evidence.enter(phase + 1, &a, Millis::secs(600 * phase as u64));
    }
    false
}

#[test]
fn a_good_candidate_of_a_quiet_service_is_hardly_ever_taken_back() {
    let back = (0..2_000).filter(|seed| taken_back(*seed, 0.5, (0.001, 0.001), 1.0)).count();
    eprintln!("MEASURED one request in two seconds, 0.1 % bad: {back} of 2000 taken back");
    assert!(back <= 20, "{back} of 2000: 1 % is promised");
    let back = (0..60).filter(|seed| taken_back(*seed, 10.0, (0.01, 0.01), 1.0)).count();
    eprintln!("MEASURED ten requests a second, 1 % bad: {back} of 60 taken back");
    assert!(back <= 1, "{back} of 60");
}

#[test]
fn one_that_fails_or_is_slow_is_taken_back() {
    let failing = (0..100).filter(|seed| taken_back(*seed, 10.0, (0.01, 0.05), 1.0)).count();
    let slow = (0..100).filter(|seed| taken_back(*seed, 10.0, (0.01, 0.01), 1.8)).count();
    eprintln!("MEASURED ten requests a second: 5 % bad {failing} of 100, 1.8 times slower {slow} of 100");
    assert!(failing >= 99 && slow >= 95, "{failing}, {slow}");
}
