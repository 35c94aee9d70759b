//! Starting a process that outlives us without giving it what we inherited ourselves. Descriptors 0 to 2 are
//! replaced by whoever starts it, and all that Rust opens is closed on exec; what is left are those that our own
//! starter passed on (a test runner's descriptor 3, a job server's 3 and 4), and whoever waits for their end would
//! wait for as long as the instance lives.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Closed on exec, in the octal flags of `/proc/PID/fdinfo`; the same value on all architectures but the oldest.
const CLOEXEC: u64 = 0o2_000_000;

/// A command that runs `program` in place of a shell that closes what we inherited, when we did inherit something.
/// Only descriptors up to 9 can be named in a portable shell.
pub(crate) fn command(program: &Path) -> Command {
    let inherited = inherited();
    if inherited.is_empty() {
        return Command::new(program);
    }
    let closed: String = inherited.iter().map(|n| format!(" {n}<&-")).collect();
    let mut shell = Command::new("/bin/sh");
    // Descriptors on the same line as `exec` are closed for good, and the shell becomes the program.
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\"{closed}")).arg(program);
    shell
}

fn inherited() -> Vec<u32> {
    (3..=9).filter(|n| passes_exec(*n)).collect()
}

fn passes_exec(fd: u32) -> bool {
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { return false };
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:"));
    flags.and_then(|f| u64::from_str_radix(f.trim(), 8).ok()).is_some_and(|f| f & CLOEXEC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rust_opens_is_not_passed_on_and_the_standard_ones_are() {
        use std::os::fd::AsRawFd;
        let file = fs::File::open("/dev/null").unwrap();
        assert!(!passes_exec(file.as_raw_fd().try_into().unwrap()));
        assert!(passes_exec(1));
    }
}
