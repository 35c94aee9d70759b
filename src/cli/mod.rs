//! The command line: one file per command.

mod analyse;
mod check;
mod cockpit;
mod demo;
mod doctor;
mod edge;
mod fleet;
mod follow;
mod history;
mod init;
mod out;
mod plan;
mod replay;
mod sample_app;
mod serve;
mod settings;
mod shim;
mod special;
mod status;
mod table;
mod tails;
mod up_down;
mod verbs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a command ended; DESIGN's table, stable for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: failed.
    Failed = 1,
    /// 2: bad usage or bad fleet file.
    Usage = 2,
    /// 3: the rollout was aborted or rolled back.
    Aborted = 3,
    /// 4: it waits for a decision.
    Waiting = 4,
    /// 5: someone else holds the fleet.
    Held = 5,
}

impl From<Exit> for ExitCode {
    fn from(e: Exit) -> Self {
        Self::from(e as u8)
    }
}

#[derive(Parser)]
#[command(name = "pilothouse", version, about, max_term_width = 100)]
struct Args {
    /// The fleet file [default: ./fleet.toml, else $PILOTHOUSE_FLEET]
    #[arg(long, global = true, value_name = "FILE")]
    fleet: Option<PathBuf>,
    #[command(flatten)]
    cockpit: cockpit::Look,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// See the main job live on this machine: a fleet, load, and versions to deploy
    Demo(demo::Args),
    /// Look at what runs here and write a fleet file for it
    Init(init::Args),
    /// Check the fleet file and print every error in it
    Check(check::Args),
    /// Say what is missing for releases to work, and what to do about it; changes nothing
    Doctor(doctor::Args),
    /// Create what is missing; never changes a version
    Up(up_down::UpArgs),
    /// Take services away
    Down(up_down::DownArgs),
    /// Show what deploying a version would do
    Plan(plan::Args),
    /// Roll out a version
    Deploy(verbs::DeployArgs),
    /// Let a rollout go to its next phase
    Promote(verbs::PromoteArgs),
    /// Let a rollout stand still
    Pause(verbs::On),
    /// Let a paused rollout go on
    Resume(verbs::On),
    /// Give all traffic back to stable, then take the candidate away
    Abort(verbs::On),
    /// Go back to the version before
    Rollback(verbs::RollbackArgs),
    /// Go on with hosts that were held back, or try an aborted version once more
    Retry(verbs::RetryArgs),
    /// Show how the fleet stands
    Status(status::Args),
    /// Show past rollouts
    History(history::HistoryArgs),
    /// Show one rollout in full: phases, who did what, requests
    Show(history::ShowArgs),
    /// Play a past rollout in the cockpit, as it was seen
    Replay(replay::Args),
    /// Show what happened
    Events(tails::EventsArgs),
    /// Show health checks
    Health(tails::HealthArgs),
    /// Show what instances write
    Logs(tails::LogsArgs),
    /// Say what the analysis makes of recorded counts
    #[command(alias = "analyze")]
    Analyse(analyse::Args),
    /// Run the controller in the foreground
    Serve(serve::Args),
    /// Run an embedded proxy (the controller starts it by itself)
    Edge(edge::Args),
    /// Open the cockpit on the controller behind a given socket
    #[command(hide = true)]
    Cockpit(cockpit::Args),
    /// Watch over one process instance (the process engine starts it by itself)
    #[command(hide = true)]
    Shim(shim::Args),
    /// The sample application that the demo and the tests release
    #[command(hide = true)]
    SampleApp(sample_app::Args),
}

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let file = args.fleet.as_deref();
    let result = match args.command {
        None => cockpit::open(file, &args.cockpit),
        Some(Command::Demo(a)) => demo::run(&a),
        Some(Command::Init(a)) => fleet::block_on(init::run(file, &a)),
        Some(Command::Check(a)) => check::run(file, &a),
        Some(Command::Doctor(a)) => fleet::block_on(doctor::run(file, &a)),
        Some(Command::Up(a)) => fleet::block_on(up_down::up(file, &a)),
        Some(Command::Down(a)) => fleet::block_on(up_down::down(file, &a)),
        Some(Command::Plan(a)) => fleet::block_on(plan::run(file, &a)),
        Some(Command::Deploy(a)) => fleet::block_on(verbs::deploy(file, &a)),
        Some(Command::Promote(a)) => fleet::block_on(verbs::promote(file, &a)),
        Some(Command::Pause(a)) => fleet::block_on(verbs::pause(file, &a)),
        Some(Command::Resume(a)) => fleet::block_on(verbs::resume(file, &a)),
        Some(Command::Abort(a)) => fleet::block_on(verbs::abort(file, &a)),
        Some(Command::Rollback(a)) => fleet::block_on(verbs::rollback(file, &a)),
        Some(Command::Retry(a)) => fleet::block_on(verbs::retry(file, &a)),
        Some(Command::Status(a)) => fleet::block_on(status::run(file, &a)),
        Some(Command::History(a)) => fleet::block_on(history::history(file, &a)),
        Some(Command::Show(a)) => fleet::block_on(history::show(file, &a)),
        Some(Command::Replay(a)) => replay::run(file, &a, &args.cockpit),
        Some(Command::Events(a)) => fleet::block_on(tails::events(file, &a)),
        Some(Command::Health(a)) => fleet::block_on(tails::health(file, &a)),
        Some(Command::Logs(a)) => fleet::block_on(tails::logs(file, &a)),
        Some(Command::Analyse(a)) => analyse::run(&a),
        Some(Command::Serve(a)) => serve::run(file, &a),
        Some(Command::Cockpit(a)) => cockpit::run(a.socket(), a.options(file)),
        Some(Command::Edge(a)) => edge::run(&a),
        Some(Command::Shim(a)) => shim::run(&a),
        Some(Command::SampleApp(a)) => sample_app::run(&a),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(report) => {
            eprintln!("pilothouse: {report:#}");
            Exit::Failed.into()
        }
    }
}
