//! Past rollouts, as a script and a terminal see them: `history`, `show` and `replay`.

use super::*;

#[test]
fn past_rollouts_are_told_from_the_journal() {
    let world = World::new("", BY_HAND);
    let said = world.ends(0, &["history"]);
    assert_eq!(said.out, "no rollout so far\n");
    world.ends(0, &["up"]);
    world.ends(0, &["deploy", "web", "1.1.0", "--detach", "--by", "ci#7"]);
    world.in_phase("25%");
    for _ in 0..40 {
        world.get("/").unwrap();
    }
    world.ends(0, &["pause", "web"]);
    // Proxies are asked for their counters every second.
    std::thread::sleep(Duration::from_millis(2500));
    let running: Value =
        serde_json::from_str(&world.ends(0, &["show", "web-2", "--output", "json"]).out).unwrap();
    assert_eq!((&running["status"], &running["ended_ms"]), (&"paused".into(), &Value::Null));
    world.ends(0, &["abort", "web", "--wait"]);

    // Another controller reads the same.
    world.kill_controller();
    let list: Value =
        serde_json::from_str(&world.ends(0, &["history", "web", "--output", "json"]).out).unwrap();
    assert_eq!(keys(&list), ["more", "rollouts", "schema"]);
    let rollouts = list["rollouts"].as_array().unwrap();
    assert_eq!(
        (rollouts.len(), &rollouts[0]["id"], &rollouts[1]["id"]),
        (2, &"web-2".into(), &"web-1".into())
    );
    assert_eq!(
        keys(&rollouts[0]),
        [
            "by",
            "ended_ms",
            "from",
            "id",
            "kind",
            "reason",
            "safe_after_ms",
            "service",
            "started_ms",
            "status",
            "strategy",
            "to"
        ]
    );
    assert_eq!((&rollouts[0]["status"], &rollouts[0]["from"]), (&"aborted".into(), &"1.0.0".into()));
    assert_eq!((&rollouts[1]["status"], &rollouts[1]["kind"]), (&"done".into(), &"first release".into()));
    let text = world.ends(0, &["history", "--limit", "1"]).out;
    assert!(text.contains("web-2") && !text.contains("web-1 ") && text.contains("older ones"), "{text}");

    let story: Value =
        serde_json::from_str(&world.ends(0, &["show", "web-2", "--output", "json"]).out).unwrap();
    assert_eq!(
        keys(&story),
        [
            "acts",
            "by",
            "counts",
            "cut",
            "downtimes",
            "ended_ms",
            "from",
            "id",
            "kind",
            "owed",
            "phases",
            "reason",
            "safe_after_ms",
            "schema",
            "service",
            "started_ms",
            "status",
            "strategy",
            "to"
        ]
    );
    assert!(story["by"].as_str().unwrap().ends_with("[ci#7]"), "{story}");
    let acts: Vec<&str> =
        story["acts"].as_array().unwrap().iter().map(|a| a["what"].as_str().unwrap()).collect();
    assert_eq!(acts, ["deploy", "pause", "abort", "safe"]);
    let phases = story["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 4);
    let reached = |n: usize| phases[n]["settled_ms"].is_u64() && phases[n]["left_ms"].is_u64();
    assert!(reached(0) && reached(1) && phases[2]["entered_ms"].is_null(), "{story}");
    let counts = story["counts"].as_array().unwrap();
    let requests: u64 = counts.iter().map(|c| c["requests"].as_u64().unwrap()).sum();
    assert!(counts.len() == 2 && requests >= 40, "{story}");

    let text = world.ends(0, &["show", "web-2"]).out;
    assert!(
        text.contains("web-2: canary from 1.0.0 to 1.1.0, aborted") && text.contains("candidate 1.1.0"),
        "{text}"
    );
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    for (args, what) in [
        (&["show", "web-9"][..], "there was no rollout web-9"),
        (&["show", "../x"], "rollout"),
        (&["history", "wbe"], "no service wbe"),
        (&["history", "--limit", "0"], "limit"),
    ] {
        let said = world.ends(2, args);
        assert!(said.err.contains(what), "{said:?}");
    }
}

/// A command in a terminal of 110 columns and 30 rows.
struct Terminal {
    _pair: portable_pty::PtyPair,
    keys: Box<dyn std::io::Write + Send>,
    child: Box<dyn portable_pty::Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn open(world: &World, args: &[&str]) -> Self {
        let size = portable_pty::PtySize { rows: 30, cols: 110, pixel_width: 0, pixel_height: 0 };
        let pair = portable_pty::native_pty_system().openpty(size).unwrap();
        let mut command = portable_pty::CommandBuilder::new(common::pilothouse());
        command.args(args);
        command.arg("--fleet");
        command.arg(world.file());
        command.env_clear();
        command.cwd("/");
        for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LOGNAME", "operator")] {
            command.env(name, value);
        }
        let some = |n| std::num::NonZeroU16::new(n).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(30), some(110), 0)));
        let (sink, mut reader) = (screen.clone(), pair.master.try_clone_reader().unwrap());
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                sink.lock().unwrap().process(&buf[..n]);
            }
        });
        let child = pair.slave.spawn_command(command).unwrap();
        let keys = pair.master.take_writer().unwrap();
        Self { _pair: pair, keys, child, screen }
    }

    fn sees(&self, what: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.screen.lock().unwrap().screen().contents();
            if what.iter().all(|w| text.contains(w)) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what:?}:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn presses(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_rollout_is_recorded_and_played_again() {
    let world = World::new("", BY_HAND);
    world.ends(0, &["up"]);
    world.ends(0, &["deploy", "web", "1.1.0", "--detach"]);
    world.in_phase("25%");
    world.ends(0, &["promote", "web"]);
    world.in_phase("50%");
    world.ends(0, &["abort", "web", "--wait"]);
    // Samples are written every second; a controller that is killed loses no more than that.
    std::thread::sleep(Duration::from_millis(2500));
    world.kill_controller();

    let mut terminal = Terminal::open(&world, &["replay", "web-2", "--speed", "16"]);
    terminal.sees(&["REPLAY web-2", "x16 stands", "aborted"]);
    terminal.presses("\x1b[H");
    terminal.sees(&[" 0:00/", "running"]);
    // The table of keys says what a replay can do, and what it cannot.
    terminal.sees(&["space stop/go", "+/- speed"]);
    terminal.presses("a");
    terminal.sees(&["this is a replay"]);
    terminal.presses("\x1b[F");
    terminal.sees(&["aborted", "100%"]);
    terminal.presses("q");
    assert_eq!(terminal.child.wait().unwrap().exit_code(), 0);

    let said = world.ends(1, &["replay", "web-2"]);
    assert!(said.err.contains("not a terminal"), "{said:?}");
    world.ends(2, &["replay", "web-2", "--speed", "3"]);
    let said = world.ends(2, &["replay", "web-9"]);
    assert!(said.err.contains("there was no rollout web-9"), "{said:?}");
    // What is lost is lost, and nothing else with it.
    world.kill_controller();
    for file in ["samples.db", "samples.db-wal", "samples.db-shm"] {
        let _ = std::fs::remove_file(world.state().join(file));
    }
    let said = world.ends(2, &["replay", "web-2"]);
    assert!(said.err.contains("pilothouse show web-2"), "{said:?}");
    assert!(world.ends(0, &["show", "web-2"]).out.contains("aborted"));
}
