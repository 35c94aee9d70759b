//! The method against its reference, its promise by enumeration, and its state written down and read back.

use std::array::from_fn;

use super::block::{Alternative, log_e, shape};
use super::*;
use random::Random;

#[path = "../../tests/support/random.rs"]
mod random;

fn tick(ns: u64, ks: u64, nc: u64, kc: u64) -> Tick {
    Tick { stable: Count::new(ns, ks), candidate: Count::new(nc, kc) }
}

fn rate(fraction: f64) -> Rate {
    Rate::new(fraction).unwrap()
}

fn after(history: Count) -> Process {
    Process::new(Settings { history, ..Settings::default() })
}

/// A vector of the reference: name, stable's history, ticks at 1, 2, … seconds, evidence after each, state at the end.
type Vector = (&'static str, (u64, u64), &'static [[u64; 4]], &'static [(f64, f64)], State);

const VECTORS: [Vector; 6] = [
    (
        "V1 zero errors",
        (300, 0),
        &[[95, 0, 5, 0]; 5],
        &[
            (-0.238634, 0.011528),
            (-0.355619, 0.023426),
            (-0.442189, 0.035650),
            (-0.513169, 0.048412),
            (-0.573006, 0.061635),
        ],
        State::Wait,
    ),
    (
        "V2 all fail",
        (300, 3),
        &[[19, 0, 1, 1]; 4],
        &[(1.465515, -0.427907), (3.594408, -0.537327), (5.950277, -0.623275), (8.376205, -0.712007)],
        State::Fail,
    ),
    (
        "V3 open blocks, gaps",
        (0, 0),
        &[[2, 0, 0, 0], [2, 0, 1, 0], [0, 0, 2, 1], [4, 1, 0, 0], [9, 0, 1, 1], [9, 0, 2, 1]],
        &[
            (0.0, 0.0),
            (0.0, 0.0),
            (0.0, 0.0),
            (-0.305103, -0.277536),
            (0.397990, -0.336463),
            (1.258840, -0.378758),
        ],
        State::Wait,
    ),
    (
        "V4 shared burst",
        (1000, 10),
        &[
            [95, 1, 5, 0],
            [95, 76, 5, 5],
            [95, 80, 5, 5],
            [95, 1, 5, 1],
            [95, 0, 5, 0],
            [95, 1, 5, 1],
            [95, 2, 5, 2],
        ],
        &[
            (-0.269802, 0.026987),
            (-0.783844, -0.678145),
            (-0.783844, -0.678145),
            (-0.783844, -0.678145),
            (-0.783844, -0.678145),
            (-0.783844, -0.678145),
            (-0.287605, -0.709311),
        ],
        State::Wait,
    ),
    (
        "V5 share 5->25",
        (950, 5),
        &[[950, 5, 50, 1], [950, 4, 50, 0], [750, 9, 250, 8], [750, 8, 250, 9], [750, 7, 250, 12]],
        &[
            (-0.341242, -0.291341),
            (-0.732601, -0.180870),
            (-0.227195, -1.180964),
            (1.090055, -1.795544),
            (3.410353, -2.507315),
        ],
        State::Wait,
    ),
    (
        "V6 big, +1pt",
        (9500, 95),
        &[[9500, 93, 500, 9], [9500, 99, 500, 11], [9500, 90, 500, 14], [9500, 96, 500, 10]],
        &[(-0.822861, -0.926195), (-0.667779, -1.663183), (0.611021, -2.676716), (0.731764, -3.081436)],
        State::Wait,
    ),
];

fn six(number: f64) -> String {
    format!("{number:.6}")
}

#[test]
fn a_block_is_worth_what_the_reference_says() {
    let worth =
        |seen: Tick, stable, candidate| six(log_e(&seen, 1.0, Alternative { stable, candidate }, 0.005));
    assert_eq!(worth(tick(19, 0, 1, 1), 0.01, 0.9), "3.579956");
    assert_eq!(worth(tick(95, 1, 5, 0), 0.01, 0.01), "0.025459");
}

#[test]
fn the_references_vectors_agree_to_six_decimals() {
    for (name, (n, bad), ticks, expected, state) in VECTORS {
        let mut process = after(Count::new(n, bad));
        for (t, ([ns, ks, nc, kc], (fail, pass))) in (1_u32..).zip(ticks.iter().zip(expected)) {
            process.tick(f64::from(t), tick(*ns, *ks, *nc, *kc));
            let said = (six(process.log_fail()), six(process.log_pass()));
            assert_eq!(said, (six(*fail), six(*pass)), "{name} at {t}");
        }
        assert_eq!(process.state(), state, "{name}");
    }
}

/// One row of a fixture: when, what, and what the reference made of it.
struct Row {
    t: f64,
    seen: Tick,
    log_fail: f64,
    log_pass: f64,
    verdict: String,
}

fn fixture(text: &str) -> (Settings, Vec<Row>) {
    let mut settings = Settings::default();
    for (key, value) in text
        .lines()
        .take_while(|l| l.starts_with('#'))
        .flat_map(|l| l.split(' '))
        .filter_map(|w| w.split_once('='))
    {
        match key {
            "tolerance" => settings.tolerance = value.parse().unwrap(),
            "alpha" => settings.alpha = value.parse().unwrap(),
            "divisor" => settings.divisor = value.parse().unwrap(),
            "history" => {
                let (n, bad) = value.split_once(',').unwrap();
                settings.history = Count::new(n.parse().unwrap(), bad.parse().unwrap());
            }
            other => panic!("{other} is no setting"),
        }
    }
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let whole = |n: usize| cells[n].parse().unwrap();
        Row {
            t: cells[0].parse().unwrap(),
            seen: tick(whole(1), whole(2), whole(3), whole(4)),
            log_fail: cells[5].parse().unwrap(),
            log_pass: cells[6].parse().unwrap(),
            verdict: cells[7].to_lowercase(),
        }
    };
    (settings, text.lines().skip_while(|l| l.starts_with('#')).skip(1).map(row).collect())
}

fn fixtures() -> [(&'static str, Settings, Vec<Row>); 3] {
    [
        ("quiet", include_str!("../../tests/analysis/quiet.csv")),
        ("busy", include_str!("../../tests/analysis/busy.csv")),
        ("sessions", include_str!("../../tests/analysis/sessions.csv")),
    ]
    .map(|(name, text)| {
        let (settings, rows) = fixture(text);
        (name, settings, rows)
    })
}

#[test]
fn random_ticks_agree_with_the_reference() {
    let mut seen = std::collections::BTreeSet::new();
    for (name, settings, rows) in fixtures() {
        let mut process = Process::new(settings);
        assert!(rows.len() > 200);
        for row in rows {
            process.tick(row.t, row.seen);
            let apart =
                (process.log_fail() - row.log_fail).abs().max((process.log_pass() - row.log_pass).abs());
            assert!(apart < 2e-9, "{name} at {}: {} {}", row.t, process.log_fail(), process.log_pass());
            let state = process.state();
            // The reference keeps its last verdict while it skips blocks.
            assert!(state == State::Hold || state.as_str() == row.verdict, "{name} at {}: {state}", row.t);
            seen.insert(state.as_str());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["fail", "hold", "pass", "wait"]);
}

/// The chance of each number of bad requests among `n`.
fn binomial(n: u64, p: f64) -> Vec<f64> {
    let mut row = vec![1.0];
    for _ in 0..n {
        let kept = row.iter().map(|x| x * (1.0 - p)).chain([0.0]);
        row = kept.zip(std::iter::once(0.0).chain(row.iter().map(|x| x * p))).map(|(a, b)| a + b).collect();
    }
    row
}

/// The expectation of what a block is worth, by enumeration of everything that can happen in it.
fn expectation(ns: u64, nc: u64, stable: f64, candidate: f64, worth: impl Fn(&Tick) -> f64) -> f64 {
    let (s, c) = (binomial(ns, stable), binomial(nc, candidate));
    let mut sum = 0.0;
    for (ks, ps) in (0..).zip(&s) {
        for (kc, pc) in (0..).zip(&c) {
            sum += ps * pc * worth(&tick(ns, ks, nc, kc)).exp();
        }
    }
    sum
}

/// The promise rests on this: nobody can expect to win anything against a true hypothesis, whatever is bet on.
#[test]
fn no_bet_has_an_expectation_above_one_on_the_boundary_or_within() {
    let mut random = Random(7);
    let mut largest: f64 = 0.0;
    for n in 0..600 {
        let tolerance = random.between(0.001, 0.2);
        let (ns, nc) = (random.whole(1, 24), random.whole(1, 8));
        let ts = random.between(0.0005, 0.7);
        let edge = ts + tolerance;
        let failing = n % 2 == 0;
        let tc = if failing { random.between(edge, 0.999) } else { random.between(0.0005, edge) };
        // The world is another one than was guessed.
        let stable = random.between(0.0, 1.0 - tolerance);
        let margin = if n % 3 == 0 { random.between(0.0, 1.0) } else { 0.0 };
        let boundary = stable + tolerance;
        let candidate =
            if failing { boundary * (1.0 - margin) } else { boundary + (1.0 - boundary) * margin };
        let at = Alternative { stable: ts, candidate: tc };
        let bare = |t: &Tick| log_e(t, 1.0, at, tolerance);
        let expected = [
            expectation(ns, nc, stable, candidate, bare),
            expectation(ns, nc, stable, candidate, |t| shape(bare(t))),
            expectation(ns, nc, stable, candidate, |t| shape(log_e(t, 3.7, at, tolerance))),
        ];
        for e in expected {
            assert!(e <= 1.0 + 1e-9, "{ns} {nc} {at:?} ±{tolerance} at {stable} {candidate}: {e}");
        }
        if margin == 0.0 {
            largest = largest.max(expected[0]);
        }
    }
    // And the bound is used up: nearly all of what may be won is.
    assert!(largest > 0.999, "{largest}");
}

#[test]
fn a_bet_in_the_wrong_direction_is_not_made() {
    // Stable is better than the smallest rate that is told apart from 0, and the tolerance is smaller still.
    let at = Alternative { stable: 1e-9, candidate: 2e-9 + 1e-9 };
    assert_eq!(log_e(&tick(1000, 0, 1000, 0), 1.0, at, 1e-9), 0.0);
}

#[test]
fn a_block_loses_at_most_ln_10_and_wins_at_most_the_cap() {
    for log in [f64::NEG_INFINITY, -800.0, -3.0, 0.0, 1.0, 29.9, 30.1, 700.0, f64::INFINITY] {
        let shaped = shape(log);
        assert!((-10.0_f64.ln() - 1e-12..=2.5).contains(&shaped), "{log} {shaped}");
    }
    assert_eq!(shape(0.0), 0.0);
    // So one block can never decide, whatever happens in it.
    let mut process = after(Count::new(100_000, 0));
    process.tick(1.0, tick(100_000, 0, 100_000, 100_000));
    assert_eq!(process.state(), State::Wait);
    process.tick(2.0, tick(100_000, 0, 100_000, 100_000));
    assert_eq!(process.state(), State::Fail);
}

#[test]
fn a_failure_stays_one() {
    let mut process = after(Count::new(300, 3));
    for t in 1..=4 {
        process.tick(f64::from(t), tick(19, 0, 1, 1));
    }
    assert_eq!(process.state(), State::Fail);
    let fell = process.log_fail();
    for t in 5..=600 {
        process.tick(f64::from(t), tick(190, 2, 100, 0));
    }
    assert!(process.log_fail() < 0.0 && fell > 4.7, "{} {fell}", process.log_fail());
    assert_eq!(process.state(), State::Fail);
}

#[test]
fn a_pass_is_taken_back_when_the_evidence_is() {
    let mut process = after(Count::new(10_000, 0));
    let mut bound = UpperBound::new(Rate::TOLERANCE, Rate::ALPHA_PASS);
    let mut step = |process: &mut Process, t: u32, seen| {
        if let Some(block) = process.tick(f64::from(t), seen) {
            bound.observe(&block);
        }
        (process.state(), bound.difference())
    };
    let passed = (1..=200)
        .map(|t| (t, step(&mut process, t, tick(950, 1, 50, 0))))
        .find(|(_, (state, _))| *state == State::Pass);
    let (t, (_, below)) = passed.unwrap();
    assert!(below.is_some_and(|d| d <= 0.005), "{below:?}");
    let worse = (t + 1..t + 60)
        .map(|t| step(&mut process, t, tick(950, 1, 50, 1)))
        .find(|(state, _)| *state != State::Pass)
        .unwrap();
    assert!(worse.0 == State::Wait && worse.1.is_none_or(|d| d > 0.005), "{worse:?}");
}

#[test]
fn while_stable_fails_nothing_is_decided_and_nothing_is_learnt() {
    let mut process = after(Count::new(1000, 10));
    process.tick(1.0, tick(95, 1, 5, 0));
    assert_eq!((process.state(), process.holding_since()), (State::Wait, None));
    // The block that shows it counts still; the three after it do not.
    assert!(process.tick(2.0, tick(95, 76, 5, 5)).is_some());
    assert_eq!((process.state(), process.holding_since()), (State::Hold, Some(2.0)));
    let known = *process.estimates();
    let evidence = (process.log_fail(), process.log_pass());
    // Each such block begins the count anew.
    for (t, stable) in [(3.0, 80), (4.0, 1), (5.0, 0), (6.0, 1)] {
        assert_eq!(process.tick(t, tick(95, stable, 5, 5)), None, "{t}");
        assert_eq!((process.state(), process.holding_since()), (State::Hold, Some(2.0)), "{t}");
        assert_eq!(
            (*process.estimates(), (process.log_fail(), process.log_pass())),
            (known, evidence),
            "{t}"
        );
    }
    // A second without enough requests changes nothing.
    assert_eq!(process.tick(6.5, tick(1, 0, 0, 0)), None);
    assert_eq!(process.state(), State::Hold);
    assert!(process.tick(7.0, tick(95, 1, 5, 0)).is_some());
    assert_eq!((process.state(), process.holding_since()), (State::Wait, None));
}

#[test]
fn a_phase_closes_its_block_and_bets_only_on_what_can_be_compared() {
    let mut open = after(Count::new(300, 3));
    assert_eq!(open.tick(1.0, tick(2, 0, 4, 4)), None);
    let block = open.close(1.5).unwrap();
    assert_eq!(block.seen, tick(2, 0, 4, 4));
    assert!(open.log_fail() > 1.0);
    assert_eq!(open.close(2.0), None, "there is nothing to close");

    // Without a request of stable there is nothing to compare with, but something to learn.
    let mut alone = after(Count::new(300, 3));
    alone.tick(1.0, tick(0, 0, 50, 50));
    let before = *alone.estimates();
    assert_eq!(alone.close(1.0), None);
    assert!(alone.log_fail().abs() < 1e-12 && *alone.estimates() != before);
    // What was before the phase is not part of the block after it.
    let after = alone.tick(2.0, tick(10, 0, 1, 0)).unwrap();
    assert_eq!(after.seen, tick(10, 0, 1, 0));
}

#[test]
fn nonsense_does_no_harm() {
    let mut process = Process::new(Settings { divisor: f64::NAN, ..Settings::default() });
    process.tick(5.0, tick(100, 1, 5, 0));
    for t in [f64::NAN, f64::INFINITY, -1.0, 2.0, 5.0] {
        process.tick(t, Tick { stable: Count::new(u64::MAX, 3), candidate: Count::new(2, 900) });
        process.tick(t, tick(u64::MAX, u64::MAX, u64::MAX, u64::MAX));
        assert!(process.log_fail().is_finite() && process.log_pass().is_finite(), "{t}: {process:?}");
    }
    // Hopeless tolerances and histories make no bet.
    for (tolerance, bad) in [(0.9999, 0), (0.01, 10_000)] {
        let history = Count::new(10_000, bad);
        let mut process =
            Process::new(Settings { tolerance: rate(tolerance), history, ..Settings::default() });
        assert_eq!(process.tick(1.0, tick(100, 0, 100, 100)), None);
        assert!(process.log_fail().abs() < 1e-12);
    }
}

/// A process that is written down after each tick and read back is the same to the last bit.
#[test]
fn a_checkpoint_goes_on_bit_for_bit() {
    let mut ended = 0;
    for (name, settings, rows) in fixtures() {
        let mut whole = Process::new(settings);
        let mut torn = whole.clone();
        let mut bound = UpperBound::new(settings.tolerance, Rate::ALPHA_PASS);
        let mut torn_bound = bound.clone();
        for row in rows {
            let (a, b) = (whole.tick(row.t, row.seen), torn.tick(row.t, row.seen));
            a.iter().for_each(|block| bound.observe(block));
            b.iter().for_each(|block| torn_bound.observe(block));
            torn = serde_json::from_str(&serde_json::to_string(&torn).unwrap()).unwrap();
            torn_bound = serde_json::from_str(&serde_json::to_string(&torn_bound).unwrap()).unwrap();
            // Debug prints all of a number; equality would hold for 0 and -0.
            assert_eq!(
                format!("{whole:?}{bound:?}"),
                format!("{torn:?}{torn_bound:?}"),
                "{name} at {}",
                row.t
            );
            ended += 1;
        }
    }
    assert!(ended > 600);
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let good = serde_json::to_value(after(Count::new(10, 1))).unwrap();
    for (key, bad) in [
        ("log_fail", serde_json::json!("NaN")),
        ("log_pass", serde_json::json!("much")),
        ("fails", serde_json::json!(["0", "0"])),
        ("passes", serde_json::json!(["0", "0", "x"])),
        ("reserve", serde_json::json!(null)),
    ] {
        let mut damaged = good.clone();
        damaged[key] = bad;
        assert!(serde_json::from_value::<Process>(damaged).is_err(), "{key}");
    }
    assert!(serde_json::from_value::<Process>(good).is_ok());
}

#[test]
fn several_metrics_fail_on_their_average_and_pass_together() {
    let mut failing = after(Count::new(300, 3));
    let mut fine = after(Count::new(10_000, 0));
    let mut all = Combined::new(Rate::ALPHA, Rate::ALPHA_PASS);
    assert_eq!(all.look([]), State::Wait);
    for t in 1..=3 {
        failing.tick(f64::from(t), tick(19, 0, 1, 1));
        fine.tick(f64::from(t), tick(950, 0, 50, 0));
        all.look([&failing, &fine]);
        let average = f64::midpoint(failing.log_fail().exp(), fine.log_fail().exp()).ln();
        assert!((all.log_fail() - average).abs() < 1e-12);
        assert_eq!(all.log_pass(), failing.log_pass().min(fine.log_pass()));
    }
    // One of two has to be twice as sure as it alone would: alone it has failed already.
    assert_eq!((failing.state(), all.state()), (State::Fail, State::Fail));
    let mut ten = Combined::new(Rate::ALPHA, Rate::ALPHA_PASS);
    let none: [Process; 9] = from_fn(|_| after(Count::default()));
    assert_eq!(ten.look(none.iter().chain([&failing])), State::Wait);

    // A failure stays, and one that passes does not speak for the others.
    let mut pass = after(Count::new(10_000, 0));
    (1..=120).for_each(|t| _ = pass.tick(f64::from(t), tick(950, 1, 50, 0)));
    assert_eq!(pass.state(), State::Pass);
    assert_eq!(all.look([&pass]), State::Fail);
    let mut two = Combined::new(Rate::ALPHA, Rate::ALPHA_PASS);
    assert_eq!(two.look([&pass, &fine]), State::Wait);
    assert_eq!(two.look([&pass, &pass]), State::Pass);
    // Where stable fails in one metric, none decides.
    (4..=5).for_each(|t| _ = fine.tick(f64::from(t), tick(950, 900, 50, 50)));
    assert_eq!(two.look([&pass, &fine]), State::Hold);
    let again: Combined = serde_json::from_str(&serde_json::to_string(&two).unwrap()).unwrap();
    assert_eq!(again, two);
}

#[test]
fn the_bound_comes_down_as_evidence_comes_in_and_goes_by_points_of_its_grid() {
    let mut random = Random(11);
    let mut process = after(Count::new(5000, 50));
    let mut bound = UpperBound::new(rate(0.0187), Rate::ALPHA_PASS);
    assert_eq!(bound.difference(), None);
    let mut seen = Vec::new();
    for t in 1..=400 {
        let (ks, kc) = (random.binomial(190, 0.01), random.binomial(60, 0.02));
        if let Some(block) = process.tick(f64::from(t), tick(190, ks, 60, kc)) {
            bound.observe(&block);
        }
        seen.push(bound.difference());
    }
    assert_eq!(seen[0], None, "{seen:?}");
    // One point worse in truth: never said to be less, and known to within another.
    assert!(seen.iter().flatten().all(|d| *d >= 0.01), "{seen:?}");
    assert!(seen.last().unwrap().is_some_and(|d| d <= 0.02), "{:?}", seen.last());
    assert!(seen.contains(&Some(0.0187)), "the tolerance is a point of the grid: {seen:?}");
}

#[test]
fn the_divisor_tells_sessions_from_requests() {
    let mut random = Random(3);
    // Half a minute of `sessions` clients, each with `size` requests that fail together.
    let mut half = |sessions: u64, size: u64| {
        let failed = random.binomial(sessions, 0.05);
        Count::new(sessions * size, failed * size)
    };
    let mut batches = |sessions: u64, size: u64| -> Vec<Split> {
        (0..200).map(|_| Split { one: half(sessions, size), other: half(sessions, size) }).collect()
    };
    let (alone, tens) = (divisor(&batches(1000, 1)).unwrap(), divisor(&batches(100, 10)).unwrap());
    assert!((1.0..1.3).contains(&alone), "{alone}");
    assert!((7.5..12.5).contains(&tens), "{tens}");
    // By hand: (0.2 − 0)² / (0.1 · 0.9 · 2/10) and nothing of the batches that tell nothing.
    let told = Split { one: Count::new(10, 2), other: Count::new(10, 0) };
    let idle = Split { one: Count::new(10, 1), other: Count::default() };
    let good = Split { one: Count::new(10, 0), other: Count::new(30, 0) };
    assert!((divisor(&[told, idle, good]).unwrap() - 0.04 / 0.018).abs() < 1e-12);
    let even = Split { one: Count::new(10, 1), other: Count::new(10, 1) };
    assert_eq!(divisor(&[even]), Some(1.0), "it never makes evidence stronger");
    assert_eq!((divisor(&[]), divisor(&[idle, good])), (None, None));
}
