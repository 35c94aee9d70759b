//! The cockpit: a terminal screen that is one more client of the controller.
//!
//! | part | what it is |
//! | --- | --- |
//! | `model` | all that is known; no I/O, no clock |
//! | `rows` | the order of the instances and the counts, derived from the model |
//! | `tree` | instances under their hosts and services, and what of that is folded |
//! | `update` | what each message does to the model, and what is to be done outside |
//! | `palette` | commands by name: what is offered for a text, and what it means |
//! | `filter` | what a list is filtered by |
//! | `journal` | what happened before the events of the picture |
//! | `logs`, `level` | the lines of the log pane, and how serious one is |
//! | `dialog` | questions before something happens, and what counts as an answer |
//! | `keys` | the one table of keys: dispatch, bar, help page and palette |
//! | `view` | the picture, one pane per file, each a pure function of the model |
//! | `theme` | palettes and glyphs |
//! | `screen`, `encode` | the picture's difference, as bytes |
//! | `term` | the terminal, taken and given back |
//! | `clipboard` | copying to the terminal at the other end |
//! | `link` | the connection, kept up |
//! | `replay` | a past rollout in place of a connection |
//! | `app` | the loop that joins them |

mod app;
mod clipboard;
pub mod dialog;
mod encode;
pub mod filter;
#[doc(hidden)]
pub mod fixture;
mod format;
pub mod journal;
pub mod keys;
pub mod level;
mod link;
pub mod logs;
pub mod model;
pub mod palette;
pub mod replay;
pub mod rows;
pub mod screen;
mod term;
pub mod theme;
pub mod tree;
pub mod update;
pub mod view;

use std::io::IsTerminal as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use color_eyre::eyre::{WrapErr as _, eyre};

use crate::text::Safe;
pub use keys::{Table, custom};
use model::{Loudness, Model, Notice};
pub use replay::SPEEDS;
use theme::Theme;
pub use theme::{Graph, Palette};

/// How the cockpit is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The fleet file; sent, with the SHA-256 of its bytes, with deploy and rollback.
    pub fleet_file: Option<PathBuf>,
    /// What others see as our name; the login name by default.
    pub name: Option<String>,
    /// Which colours; by the settings and the surroundings when nothing is asked for.
    pub colours: Option<Palette>,
    /// Nothing moves by itself more often than once in two seconds; the settings decide when nothing is asked for.
    pub reduced_motion: Option<bool>,
    /// Take the mouse; the settings decide when nothing is asked for.
    pub mouse: bool,
    /// ASCII only, even where the locale has UTF-8.
    pub ascii: bool,
    /// Say what each pane is when a user starts it for the first time.
    pub welcome: bool,
    /// Watch only: there are no verbs.
    pub read_only: bool,
    /// Lines for an empty area, such as which versions to try.
    pub demo_hint: Option<Vec<Safe>>,
    /// What the operator's own file says, where nothing above was asked for.
    pub settings: Settings,
}

/// An operator's own settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which colours; `None` for what suits the surroundings.
    pub colours: Option<Palette>,
    /// ASCII only.
    pub ascii: bool,
    /// What charts are drawn with; `None` for what the terminal can show.
    pub graph: Option<Graph>,
    /// Nothing moves by itself more often than once in two seconds.
    pub reduced_motion: Option<bool>,
    /// Take the mouse.
    pub mouse: bool,
    /// Large frames are shown in one piece (DEC mode 2026); `None` for what suits the surroundings.
    pub synchronised: Option<bool>,
    /// What each key does.
    pub keys: Table,
    /// Why the file was not used, in one line.
    pub trouble: Option<Safe>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The operator left; rollouts go on.
    Detached,
    /// SIGTERM or SIGINT.
    Signal,
    /// The terminal is gone.
    HungUp,
}

/// Opens the cockpit on the controller behind `socket` and returns when the operator leaves, with the terminal as it
/// was. A controller that is not there (yet) is waited for.
///
/// Makes its own runtime, so it must not be called inside of one.
///
/// # Errors
/// When standard input or output is no terminal, or one that cannot place text (`TERM=dumb`), and when the terminal
/// fails.
pub fn run(socket: PathBuf, options: Options) -> color_eyre::Result<End> {
    // The controller has another working directory.
    let fleet_file = options.fleet_file.clone().map(|f| std::path::absolute(&f).unwrap_or(f));
    open(options, |model, theme| app::App::new(socket, model, theme, fleet_file))
}

/// Plays a past rollout, until the operator leaves. Nothing is connected, and no verb is possible.
///
/// Makes its own runtime, so it must not be called inside of one.
///
/// # Errors
/// As [`run`].
pub fn replay(
    player: replay::Player,
    rollout: Safe,
    speed: u32,
    options: Options,
) -> color_eyre::Result<End> {
    open(options, |model, theme| app::App::replaying(player, rollout, speed, model, theme))
}

fn open(options: Options, app: impl FnOnce(Model, Theme) -> app::App) -> color_eyre::Result<End> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(eyre!("not a terminal: use 'pilothouse status --watch'"));
    }
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    if env("TERM").is_none_or(|t| t == "dumb") {
        return Err(eyre!("this terminal (TERM=dumb) cannot show a screen: use 'pilothouse status --watch'"));
    }
    let theme = choose_theme(&options, env);
    // The theme has decided already; crossterm would drop bold and reverse along with the colour.
    crossterm::style::force_color_output(true);
    // Multiplexers draw themselves: some leave the mode out, others send the whole pane for it.
    let multiplexed = env("TMUX").is_some() || env("STY").is_some() || env("ZELLIJ").is_some();
    let synchronised = options.settings.synchronised.unwrap_or(!multiplexed);
    let name = options.name.or_else(|| env("LOGNAME")).or_else(|| env("USER")).unwrap_or_default();
    let model = Model {
        name: Safe::capped(&name, 40),
        read_only: options.read_only,
        palette: theme.palette,
        welcome: options.welcome && first_start(env),
        reduced_motion: options.reduced_motion.or(options.settings.reduced_motion).unwrap_or(false),
        mouse: options.mouse || options.settings.mouse,
        keys: options.settings.keys,
        notice: options.settings.trouble.clone().map(|text| Notice {
            loudness: Loudness::Bad,
            text,
            until_ms: None,
        }),
        demo_hint: options.demo_hint.unwrap_or_default(),
        ..Model::default()
    };
    term::hook_panics();
    // The screen has this thread to itself; everything else is on the other one, so that reading a large snapshot
    // never delays a key.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("cockpit")
        .enable_all()
        .build()
        .wrap_err("cannot start the cockpit's runtime")?;
    let (end, words) = runtime.block_on(async {
        tokio::spawn(app::watchdog());
        let mut app = app(model, theme);
        app.synchronised = synchronised;
        let end = app.run().await;
        let mut words = app.last_word().await;
        words.extend(farewell(&app.model));
        (end, words)
    });
    runtime.shutdown_background();
    let end = end.wrap_err("the terminal failed")?;
    if end != End::HungUp {
        let text = words.iter().map(|w| Safe::new(w).as_str().to_owned() + "\n").collect::<String>();
        // Nobody may be left to read it.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    }
    Ok(end)
}

/// What to know after leaving: that rollouts go on.
fn farewell(model: &Model) -> Vec<String> {
    if model.replay.is_some() {
        return vec![];
    }
    let Some(snapshot) = &model.snapshot else { return vec!["Detached; no controller was reached.".into()] };
    let moving: Vec<String> = snapshot
        .services
        .iter()
        .filter(|s| s.rollout.as_ref().is_some_and(|r| !r.status.ended()))
        .filter_map(|s| dialog::stance(s).map(|stance| format!("Detached; {} goes on: {stance}.", s.name)))
        .collect();
    if moving.is_empty() { vec!["Detached; no rollout is under way.".into()] } else { moving }
}

/// Whether this user starts a cockpit for the first time here, which is written down: an empty file beside the state
/// directories. Where it cannot be, every start is like the second.
fn first_start(env: impl Fn(&str) -> Option<String>) -> bool {
    let home = || env("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let Some(dir) = env("XDG_STATE_HOME").map(PathBuf::from).or_else(home) else { return false };
    let dir = dir.join("pilothouse");
    // As private as what the controller keeps there.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    let seen = std::fs::OpenOptions::new().write(true).create_new(true).open(dir.join(".cockpit-seen"));
    made.is_ok() && seen.is_ok()
}

fn choose_theme(options: &Options, env: impl Fn(&str) -> Option<String>) -> Theme {
    // Consoles and hardware, which have eight colours and show no faint text.
    let console = env("TERM").is_some_and(|t| t == "linux" || t == "ansi" || t.starts_with("vt"));
    let palette = match options.colours {
        Some(palette) => palette,
        None if env("NO_COLOR").is_some() => Palette::None,
        None => options.settings.colours.unwrap_or(if console { Palette::Basic } else { Palette::Dark }),
    };
    let locale =
        env("LC_ALL").or_else(|| env("LC_CTYPE")).or_else(|| env("LANG")).unwrap_or_default().to_lowercase();
    let utf8 = locale.contains("utf-8") || locale.contains("utf8");
    // The fonts of consoles have neither.
    let graph = options.settings.graph.unwrap_or(if console { Graph::Ascii } else { Graph::default() });
    Theme { palette, ascii: options.ascii || options.settings.ascii || !utf8, graph }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_is_the_first_and_no_place_to_remember_it_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().display().to_string();
        let env = |name: &str| (name == "HOME").then(|| home.clone());
        assert!(first_start(env));
        assert!(!first_start(env));
        assert!(!first_start(|_| None));
        assert!(!first_start(|_| Some("/dev/null".into())));
    }

    fn theme(options: &Options, vars: &[(&str, &str)]) -> Theme {
        choose_theme(options, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn locale_and_no_color_decide_unless_something_is_asked_for() {
        let auto = Options::default();
        assert_eq!(theme(&auto, &[("LANG", "ko_KR.UTF-8")]), Theme::default());
        assert!(theme(&auto, &[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]).ascii);
        assert!(theme(&auto, &[]).ascii);
        assert_eq!(theme(&auto, &[("TERM", "linux")]).palette, Palette::Basic);
        assert_eq!(
            theme(&auto, &[("NO_COLOR", "1"), ("LC_CTYPE", "C.utf8")]),
            Theme { palette: Palette::None, ..Theme::default() }
        );
        // What is asked for, what the surroundings say, what the operator's file says, what is left.
        let settings = Settings { colours: Some(Palette::Contrast), ..Settings::default() };
        let file = Options { settings, ..Options::default() };
        assert_eq!(theme(&file, &[("TERM", "linux")]).palette, Palette::Contrast);
        assert_eq!(theme(&file, &[("NO_COLOR", "1")]).palette, Palette::None);
        let asked = Options { colours: Some(Palette::Light), ..file };
        assert_eq!(theme(&asked, &[("NO_COLOR", "1")]).palette, Palette::Light);
        let light = Options { colours: Some(Palette::Light), ascii: true, ..Options::default() };
        assert_eq!(
            theme(&light, &[("NO_COLOR", "1"), ("LANG", "C.UTF-8")]),
            Theme { palette: Palette::Light, ascii: true, ..Theme::default() }
        );
    }
}
