//! The terminal: taken over on start, given back however this ends.
//!
//! Given back on leaving, on an error, on a panic of the screen's own thread (a panic elsewhere must not rip the
//! screen away), on SIGTERM and SIGHUP, and for as long as the program is stopped with Ctrl-Z.

use std::io::{self, Write as _};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::style::{Attribute, ResetColor, SetAttribute};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, terminal};
use rustix::event::{PollFd, PollFlags, Timespec};

/// Whether the terminal is ours now. There is one terminal per process, so this is one flag.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether the terminal sends what the mouse does.
static MOUSE: AtomicBool = AtomicBool::new(false);
/// Presses and the wheel (1000), written as decimal numbers (1006). Not every movement: that would be bytes on a slow link
/// for nothing.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";
/// What a background thread said when it panicked; it must not be printed over the screen.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Holds the terminal; dropping gives it back.
#[derive(Debug)]
pub(super) struct Guard(());

impl Guard {
    /// Raw mode, alternate screen, no cursor, bracketed paste.
    pub(super) fn take() -> io::Result<Self> {
        // From here on whatever happens gives it back.
        TAKEN.store(true, Ordering::SeqCst);
        let guard = Self(());
        guard.enter()?;
        Ok(guard)
    }

    fn enter(&self) -> io::Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        terminal::enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
        self.mouse(MOUSE.load(Ordering::SeqCst))
    }

    /// Takes the mouse, or leaves it to the terminal, which selects text with it.
    pub(super) fn mouse(&self, on: bool) -> io::Result<()> {
        let was = MOUSE.swap(on, Ordering::SeqCst);
        if on || was {
            let mut out = io::stdout();
            out.write_all(if on { MOUSE_ON } else { MOUSE_OFF }.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    /// Stops this program the way the terminal's own Ctrl-Z does, and comes back when it is continued.
    pub(super) async fn stopped(&self, continued: &mut tokio::signal::unix::Signal) -> io::Result<()> {
        give_back();
        // The whole foreground group, as the terminal would: a wrapper such as sudo has to stop as well.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        // The signal may take effect a moment after the call; and where nobody could continue us (an orphaned
        // process group) the kernel ignores it. Either way we go on after this.
        let _ = tokio::time::timeout(Duration::from_millis(500), continued.recv()).await;
        self.enter()
    }

    /// Takes the terminal again after this program was stopped by somebody else (`kill -STOP`, a debugger).
    pub(super) fn retake(&self) -> io::Result<()> {
        let raw = rustix::termios::tcgetattr(rustix::stdio::stdin())
            .is_ok_and(|t| !t.local_modes.contains(rustix::termios::LocalModes::ICANON));
        // Going through the ordinary mode would hold back keys that are on their way, so only when it is needed.
        if !raw {
            // crossterm remembers the settings it found first and would not set raw mode twice.
            terminal::disable_raw_mode()?;
        }
        self.enter()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once. Errors are ignored: a terminal that is gone needs nothing.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // The settings first: this works even when writing blocks.
    let _ = terminal::disable_raw_mode();
    let mut out = io::stdout();
    if MOUSE.load(Ordering::SeqCst) {
        let _ = out.write_all(MOUSE_OFF.as_bytes());
    }
    let _ = execute!(
        out,
        SetAttribute(Attribute::Reset),
        ResetColor,
        DisableBracketedPaste,
        cursor::Show,
        LeaveAlternateScreen
    );
    let _ = out.flush();
}

/// For a screen that hangs in a write to a terminal that takes nothing: give back what works without writing.
pub(super) fn give_back_settings() {
    let _ = terminal::disable_raw_mode();
}

/// From now on a panic of this thread gives the terminal back before it is reported, and a panic of another thread is
/// kept for [`last_panic`] while the terminal is ours.
pub(super) fn hook_panics() {
    let ui: ThreadId = thread::current().id();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if thread::current().id() == ui {
            give_back();
        } else if TAKEN.load(Ordering::SeqCst) {
            *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
            return;
        }
        before(info);
    }));
}

/// What a background thread said when it panicked last.
pub(super) fn last_panic() -> Option<String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Calls `gone` when the terminal behind standard input hangs up. crossterm's event stream neither ends nor fails
/// then: it spins.
pub(super) fn watch_hang_up(gone: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("hang-up".into()).spawn(move || {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
            let limit = Timespec { tv_sec: 3600, tv_nsec: 0 };
            match rustix::event::poll(&mut fds, Some(&limit)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // Only hang-up and errors are reported when nothing is asked for.
                Ok(_) | Err(_) => break,
            }
        }
        gone();
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use portable_pty::{CommandBuilder, PtySize, native_pty_system};

    use super::*;

    /// Set where this test runs itself once more, in a terminal.
    const INSIDE: &str = "PILOTHOUSE_TEST_IN_A_TERMINAL";

    #[test]
    fn a_panic_of_the_screen_gives_the_terminal_back_and_is_reported() {
        if std::env::var_os(INSIDE).is_some() {
            hook_panics();
            let _guard = Guard::take().unwrap();
            panic!("the screen has a fault");
        }
        let pair = native_pty_system().openpty(PtySize::default()).unwrap();
        let termios = || format!("{:?}", pair.master.get_termios().unwrap());
        let before = termios();
        let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
        let this = "tui::term::tests::a_panic_of_the_screen_gives_the_terminal_back_and_is_reported";
        command.args(["--exact", this, "--nocapture"]);
        command.env(INSIDE, "1");
        command.env("TERM", "xterm");
        let mut child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let mut shown = Vec::new();
        let mut buf = [0; 4096];
        // The slave is still open here, so the end of the child is what ends this.
        while !String::from_utf8_lossy(&shown).contains("test result") {
            let n = reader.read(&mut buf).unwrap();
            shown.extend_from_slice(&buf[..n]);
        }
        assert!(!child.wait().unwrap().success());
        let shown = String::from_utf8_lossy(&shown).into_owned();
        let (taken, given_back) =
            (shown.find("\u{1b}[?1049h").unwrap(), shown.find("\u{1b}[?1049l").unwrap());
        let reported = shown.find("the screen has a fault").unwrap();
        assert!(taken < given_back && given_back < reported, "{shown:?}");
        assert_eq!(termios(), before);
    }
}
