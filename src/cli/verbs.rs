//! `deploy`, `promote`, `pause`, `resume`, `abort`, `rollback`, `retry`: what operators and CI jobs do.

use std::path::Path;
use std::time::Duration;

use super::Exit;
use super::fleet::{Fleet, VerbOptions, failed};
use super::follow::{Following, follow};
use super::out::{Output, complain, say_json};
use crate::api::{Verb, VerbReply};

/// `deploy SERVICE VERSION`
#[derive(clap::Args)]
pub(super) struct DeployArgs {
    /// The service
    service: String,
    /// The version: the tag of the image
    version: String,
    /// Return as soon as the rollout has begun, instead of following it to its end
    #[arg(long, conflicts_with_all = ["wait", "timeout"])]
    detach: bool,
    /// Follow it to its end (the default): 0 done, 1 failed, 3 aborted
    #[arg(long)]
    wait: bool,
    /// Longest wait, for example 30m; then exit 4, and the rollout goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    common: VerbOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `promote SERVICE`
#[derive(clap::Args)]
pub(super) struct PromoteArgs {
    #[command(flatten)]
    on: On,
    /// Skip the gates of all remaining phases
    #[arg(long)]
    full: bool,
}

/// `rollback SERVICE`
#[derive(clap::Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    on: On,
    /// To this version instead of the one before
    #[arg(long, value_name = "VERSION", conflicts_with = "host")]
    to: Option<String>,
    /// Only the instances on this host, in mid-rollout: the others stay, until retry or abort
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

/// `retry SERVICE`
#[derive(clap::Args)]
pub(super) struct RetryArgs {
    #[command(flatten)]
    on: On,
    /// Only this host takes part again
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

/// What all verbs on a rollout take.
#[derive(clap::Args)]
pub(super) struct On {
    /// The service
    service: String,
    /// Follow the rollout to its end
    #[arg(long)]
    wait: bool,
    /// Longest wait, with --wait; then exit 4
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
    timeout: Option<Duration>,
    #[command(flatten)]
    common: VerbOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `90s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time like 90s, 5m or 1h30m".to_owned();
    let mut total = 0u64;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let n: u64 = digits.parse().map_err(|_bad| wrong())?;
        total = n.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        digits.clear();
    }
    if digits.is_empty() && total > 0 { Ok(Duration::from_secs(total)) } else { Err(wrong()) }
}

pub(super) async fn deploy(file: Option<&Path>, a: &DeployArgs) -> color_eyre::Result<Exit> {
    let on = On {
        service: a.service.clone(),
        wait: !a.detach,
        timeout: a.timeout,
        common: VerbOptions { decision: a.common.decision, by: a.common.by.clone() },
        output: a.output,
    };
    act(file, &on, Verb::Deploy { version: a.version.clone() }).await
}

pub(super) async fn promote(file: Option<&Path>, a: &PromoteArgs) -> color_eyre::Result<Exit> {
    act(file, &a.on, Verb::Promote { full: a.full }).await
}

pub(super) async fn pause(file: Option<&Path>, on: &On) -> color_eyre::Result<Exit> {
    act(file, on, Verb::Pause).await
}

pub(super) async fn resume(file: Option<&Path>, on: &On) -> color_eyre::Result<Exit> {
    act(file, on, Verb::Resume).await
}

pub(super) async fn abort(file: Option<&Path>, on: &On) -> color_eyre::Result<Exit> {
    act(file, on, Verb::Abort).await
}

pub(super) async fn rollback(file: Option<&Path>, a: &RollbackArgs) -> color_eyre::Result<Exit> {
    act(file, &a.on, Verb::Rollback { to: a.to.clone(), host: a.host.clone() }).await
}

pub(super) async fn retry(file: Option<&Path>, a: &RetryArgs) -> color_eyre::Result<Exit> {
    act(file, &a.on, Verb::Retry { host: a.host.clone() }).await
}

async fn act(file: Option<&Path>, on: &On, verb: Verb) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    // Events of before are not news; a follower starts from here.
    let after = match fleet.client.snapshot().await {
        Ok(s) => s.events.last().map_or(0, |e| e.seq),
        Err(_) => 0,
    };
    let mid_rollout = matches!(verb, Verb::Abort);
    let next = match &verb {
        Verb::Deploy { version } => Some(version.clone()),
        _ => None,
    };
    let request = fleet.verb(verb, &on.common);
    let reply: VerbReply = match fleet.client.verb(&on.service, &request).await {
        Ok(r) => r,
        Err(e) => return Ok(failed(&e)),
    };
    let rollout = reply.rollouts.first().cloned();
    if on.output == Output::Json && !on.wait {
        say_json(&reply)?;
    } else {
        let id = rollout.as_ref().map(|r| format!("{r}: ")).unwrap_or_default();
        complain(&format!("{id}{}\n", reply.message));
    }
    match rollout {
        Some(rollout) if on.wait => {
            let following = Following {
                service: &on.service,
                rollout,
                output: on.output,
                timeout: on.timeout,
                abort_wanted: mid_rollout,
                next,
                after,
            };
            follow(&fleet.client, following).await
        }
        _ => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_the_fleet_file() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "5", "m", "5x", "0s", "1h30"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
