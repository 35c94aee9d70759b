//! Printing: to standard output, for people or for programs.

use std::io::Write as _;

use color_eyre::eyre::WrapErr as _;

/// For whom a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs: JSON on standard output, one value a line
    Json,
}

/// Writes to standard output. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// When it cannot be written.
pub(super) fn say(text: &str) -> color_eyre::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(e).wrap_err("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes a line of JSON to standard output.
///
/// # Errors
/// When it cannot be written.
pub(super) fn say_json<T: serde::Serialize>(value: &T) -> color_eyre::Result<()> {
    let text = serde_json::to_string(value).wrap_err("cannot write as JSON")?;
    say(&format!("{text}\n"))
}

/// Writes to standard error; when that fails there is nowhere left to say so.
pub(super) fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
