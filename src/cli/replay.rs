//! `replay`: a past rollout in the cockpit, as it was seen.

use std::path::Path;

use futures_util::StreamExt as _;

use super::Exit;
use super::cockpit::Look;
use super::fleet::{Fleet, block_on, failed};
use super::out::complain;
use crate::api::Frame;
use crate::text::Safe;
use crate::tui;

/// `replay ROLLOUT`
#[derive(clap::Args)]
pub(super) struct Args {
    /// The rollout, as `history` and `status` call it: SERVICE-N
    rollout: String,
    /// How fast it begins; + and - change it
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = speed)]
    speed: u32,
}

fn speed(text: &str) -> Result<u32, String> {
    let known = |n: &u32| tui::SPEEDS.contains(n);
    text.parse().ok().filter(known).ok_or_else(|| {
        let all: Vec<String> = tui::SPEEDS.iter().map(ToString::to_string).collect();
        format!("one of: {}", all.join(", "))
    })
}

pub(super) fn run(file: Option<&Path>, a: &Args, look: &Look) -> color_eyre::Result<Exit> {
    let mut frames = Vec::new();
    let exit = block_on(async {
        match load(file, &a.rollout).await {
            Ok(found) => {
                frames = found;
                Ok(Exit::Done)
            }
            Err(exit) => Ok(exit),
        }
    })?;
    if exit != Exit::Done {
        return Ok(exit);
    }
    match tui::replay::Player::new(frames) {
        Some(player) => {
            tui::replay(player, Safe::new(&a.rollout), a.speed, look.options(file)).map(|_| Exit::Done)
        }
        None => {
            complain(&format!(
                "pilothouse: nothing was recorded of {0}; pilothouse show {0} tells it from the journal\n",
                Safe::new(&a.rollout)
            ));
            Ok(Exit::Usage)
        }
    }
}

async fn load(file: Option<&Path>, rollout: &str) -> Result<Vec<Frame>, Exit> {
    let fleet = Fleet::connect(file).await?;
    let mut recording = fleet.client.recording(rollout).await.map_err(|e| failed(&e))?;
    let mut frames = Vec::new();
    while let Some(frame) = recording.next().await {
        frames.push(frame.map_err(|e| failed(&e))?);
    }
    Ok(frames)
}
