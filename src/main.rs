//! The `pilothouse` binary: arguments, error hooks, dispatch; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pilothouse::cli::main()
}
