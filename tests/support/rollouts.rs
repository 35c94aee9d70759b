//! Rollouts with requests drawn at random, for the tests of the analysis and for its bench.
#![allow(dead_code, missing_docs)]

use pilothouse::analysis::{Count, Process, Settings, Split, State, Tick};

#[path = "random.rs"]
mod random;
pub use random::Random;

/// What the world does in one second.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// Requests of stable and of the candidate that arrive on average.
    pub arrive: (f64, f64),
    /// The chance of each to be bad.
    pub bad: (f64, f64),
}

/// A service that stays as it is: the candidate's requests a second, its share of all, and both rates of bad requests.
pub fn steady(candidate_rps: f64, share: f64, bad: (f64, f64)) -> Second {
    Second { arrive: (candidate_rps * (1.0 - share) / share, candidate_rps), bad }
}

impl Second {
    /// What is seen of it. Requests come in `session`s that are good or bad as a whole.
    pub fn draw(&self, random: &mut Random, session: u64) -> Tick {
        let mut count = |arrive: f64, bad: f64| {
            let sessions = random.poisson(arrive / session as f64);
            Count::new(sessions * session, random.binomial(sessions, bad) * session)
        };
        let stable = count(self.arrive.0, self.bad.0);
        Tick { stable, candidate: count(self.arrive.1, self.bad.1) }
    }
}

/// Stable's five minutes before a rollout.
pub fn history(random: &mut Random, before: &Second) -> Count {
    let n = random.poisson(300.0 * before.arrive.0);
    Count::new(n, random.binomial(n, before.bad.0))
}

/// Stable's hour before, in half minutes, split in two by client.
pub fn splits(random: &mut Random, before: &Second, session: u64) -> Vec<Split> {
    let half = Second {
        arrive: (15.0 * before.arrive.0, 15.0 * before.arrive.0),
        bad: (before.bad.0, before.bad.0),
    };
    (0..120)
        .map(|_| {
            let Tick { stable, candidate } = half.draw(random, session);
            Split { one: stable, other: candidate }
        })
        .collect()
}

/// Plays a rollout: the second in which it was called a failure, if it was.
pub fn fails_at(settings: Settings, seconds: u32, mut tick: impl FnMut(u32) -> Tick) -> Option<u32> {
    let mut process = Process::new(settings);
    (1..=seconds).find(|t| {
        process.tick(f64::from(*t), tick(*t));
        process.state() == State::Fail
    })
}
