//! What did not run for lack of a part, said where whoever runs the tests will see it.

use std::io::Write as _;

/// Prints `line`, and appends it to the file that `PILOTHOUSE_SKIPPED_LOG` names: runners hide what passing tests print.
pub fn skipped(line: &str) {
    eprintln!("{line}");
    let Some(log) = std::env::var_os("PILOTHOUSE_SKIPPED_LOG") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
    // One write a line: tests append at the same time.
    let written = file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
    written.unwrap_or_else(|e| panic!("cannot write to PILOTHOUSE_SKIPPED_LOG ({}): {e}", log.display()));
}
