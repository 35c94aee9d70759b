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
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
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
