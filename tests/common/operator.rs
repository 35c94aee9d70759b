//! Somebody in front of the real cockpit, in a real terminal.

use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtyPair, PtySize, native_pty_system};
use rustix::process::Pid;

use crate::common;
use crate::world::World;

/// Generous: these machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What a person leaves between two keys.
const PERSON: Duration = Duration::from_millis(400);

/// A cockpit in a terminal of its own.
pub struct Operator {
    pub pair: Option<PtyPair>,
    keys: Option<Box<dyn Write + Send>>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Operator {
    pub fn sit_down(world: &World, name: &str) -> Self {
        let pair = native_pty_system()
            .openpty(PtySize { rows: 30, cols: 110, pixel_width: 0, pixel_height: 0 })
            .unwrap();
        let mut command = CommandBuilder::new(common::pilothouse());
        command.arg("--fleet");
        command.arg(world.path().join("fleet.toml"));
        command.env_clear();
        command.cwd("/");
        for (key, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LOGNAME", name)] {
            command.env(key, value);
        }
        let some = |n| NonZeroU16::new(n).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(30), some(110), 0)));
        let mut reader = pair.master.try_clone_reader().unwrap();
        let sink = screen.clone();
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                sink.lock().unwrap().process(&buf[..n]);
            }
        });
        let child = pair.slave.spawn_command(command).unwrap();
        let keys = pair.master.take_writer().unwrap();
        Self { pair: Some(pair), keys: Some(keys), child, screen }
    }

    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub fn sees(&self, what: &str) {
        self.when(what, Duration::from_millis(20), |text| text.contains(what));
    }

    /// Looks so often until the screen is as is waited for, and says when it was.
    pub fn when(&self, what: &str, every: Duration, ok: impl Fn(&str) -> bool) -> Instant {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if ok(&text) {
                return Instant::now();
            }
            assert!(Instant::now() < end, "waited in vain for {what:?}:\n{text}");
            std::thread::sleep(every);
        }
    }

    pub fn presses(&mut self, keys: &str) {
        for key in keys.chars() {
            std::thread::sleep(PERSON);
            self.press(key);
        }
    }

    /// One key, now.
    pub fn press(&mut self, key: char) {
        let out = self.keys.as_mut().unwrap();
        out.write_all(key.to_string().as_bytes()).unwrap();
        out.flush().unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.process_id().unwrap()).unwrap()).unwrap()
    }

    pub fn is_gone(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the cockpit lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
