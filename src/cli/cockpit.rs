//! Opens the cockpit on a given controller.

use std::path::{Path, PathBuf};

use super::fleet::{block_on, load};
use super::out::complain;
use super::{Exit, settings};
use crate::controller::lock::Place;
use crate::controller::start;
use crate::tui::{self, Options, Palette};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The controller's socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    #[command(flatten)]
    look: Look,
}

/// How the cockpit looks, and what it may do.
#[derive(clap::Args)]
pub(super) struct Look {
    /// Watch only
    #[arg(long)]
    read_only: bool,
    /// ASCII only
    #[arg(long)]
    ascii: bool,
    /// Take the mouse: the wheel scrolls, a click chooses (:mouse gives it back for selecting text)
    #[arg(long)]
    mouse: bool,
    /// Colours: auto, dark, light, contrast, colour-blind, 16, none
    #[arg(long, value_name = "NAME", value_parser = theme, env = "PILOTHOUSE_THEME")]
    theme: Option<Theme>,
    /// Nothing moves by itself more often than once in two seconds
    #[arg(
        long,
        env = "PILOTHOUSE_REDUCED_MOTION",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    reduced_motion: Option<bool>,
}

/// A palette; none for what suits the surroundings.
#[derive(Clone, Copy)]
struct Theme(Option<Palette>);

fn theme(name: &str) -> Result<Theme, String> {
    let palette = Palette::named(name);
    if palette.is_some() || name == "auto" {
        return Ok(Theme(palette));
    }
    let all: Vec<&str> = Palette::ALL.iter().map(|p| p.name()).collect();
    Err(format!("one of: auto, {}", all.join(", ")))
}

impl Args {
    /// What the cockpit is opened with.
    pub(super) fn options(&self, fleet: Option<&Path>) -> Options {
        self.look.options(fleet)
    }

    /// Where the controller is.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Look {
    /// What the cockpit is opened with.
    pub(super) fn options(&self, fleet: Option<&Path>) -> Options {
        let mut settings = settings::read();
        if self.theme.is_some() {
            // Whatever was asked for, if only for what suits the surroundings.
            settings.colours = None;
        }
        Options {
            fleet_file: fleet.map(Path::to_owned),
            colours: self.theme.and_then(|t| t.0),
            reduced_motion: self.reduced_motion,
            settings,
            mouse: self.mouse,
            ascii: self.ascii,
            read_only: self.read_only,
            welcome: true,
            ..Options::default()
        }
    }
}

/// Opens the cockpit on the fleet's controller, which is started when none runs.
pub(super) fn open(fleet: Option<&Path>, look: &Look) -> color_eyre::Result<Exit> {
    let loaded = match load(fleet) {
        Ok(l) => l,
        Err(exit) => return Ok(exit),
    };
    let connected = block_on(async {
        match start::connect(&loaded.fleet, &loaded.file).await {
            Ok(_) => Ok(Exit::Done),
            Err(e) => {
                complain(&format!("pilothouse: {e}\n"));
                Ok(Exit::Failed)
            }
        }
    })?;
    if connected != Exit::Done {
        return Ok(connected);
    }
    run(&Place::of(&loaded.fleet).socket, look.options(Some(&loaded.file)))
}

/// Leaving is success, however it came about: nothing was asked of the fleet.
pub(super) fn run(socket: &Path, options: Options) -> color_eyre::Result<Exit> {
    tui::run(socket.to_owned(), options).map(|_| Exit::Done)
}
