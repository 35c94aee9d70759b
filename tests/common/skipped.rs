//! What did not run for lack of a part, and what was measured, said where whoever runs the tests will see it: runners hide
//! what passing tests print.

use std::io::Write as _;

/// Prints `line`, and appends it to the file that `PILOTHOUSE_SKIPPED_LOG` names.
pub fn skipped(line: &str) {
    eprintln!("{line}");
    append("PILOTHOUSE_SKIPPED_LOG", line);
}

/// Appends `line` to the file that this variable of the environment names, where it is set.
pub fn append(variable: &str, line: &str) {
    let Some(log) = std::env::var_os(variable) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
    // One write a line: tests append at the same time.
    let written = file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
    written.unwrap_or_else(|e| panic!("cannot write to {variable} ({}): {e}", log.display()));
}
