//! The commands as a script sees them: exit codes, messages, JSON. The real binary with process instances behind the
//! embedded proxy, each test with a fleet, a state directory and a loopback network of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

mod common;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/init.rs"]
mod init;
#[path = "cli/past.rs"]
mod past;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Waits for `promote` at each step.
const BY_HAND: &str = r#"{ weight = 25, pause = "manual" }, { weight = 50, pause = "manual" }"#;

/// A fleet file in a directory of its own; everything that was started for it is gone at the end.
struct World {
    dir: tempfile::TempDir,
    fleet: String,
    /// `127.A.B`: nobody else's addresses.
    net: String,
}

/// What a command said, and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl World {
    fn new(top: &str, steps: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("phc").tempdir_in("/tmp").unwrap();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let net = format!("127.{}.{}", 16 + random[0] % 200, random[1]);
        let fleet = common::unique("cli");
        let text = format!(
            r#"name = "{fleet}"
state_dir = "state"
{top}

[hosts.here]
engine = "process://"
address = "{net}.1"

[proxies.lb]
type = "edge"
listen = "{net}.100:8080"

[services.web]
command = ["{program}", "sample-app", "--port", "{{port}}", "--address", "{{address}}", "--version", "{{version}}", "--behaviour-by-version"]
version = "1.0.0"
replicas = 2
host_ports = "21000-21003"
proxies = ["lb"]
keep = "1s"

[services.web.health]
http = "/health"
interval = "200ms"
timeout = "2s"
rise = 2
fall = 3

[services.web.drain]
deadline = "5s"
stop_grace = "2s"

[services.web.strategy]
type = "canary"
steps = [ {steps} ]
"#,
            program = common::pilothouse().display()
        );
        std::fs::write(dir.path().join("fleet.toml"), text).unwrap();
        Self { dir, fleet, net }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("fleet.toml")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.state().join("control.sock")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(common::pilothouse());
        command.args(args).arg("--fleet").arg(self.file());
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .env_remove("PILOTHOUSE_FLEET")
            .env_remove("PILOTHOUSE_BY");
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        run(&mut self.command(args))
    }

    /// Runs a command that must end with `code`.
    fn ends(&self, code: i32, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, code, "pilothouse {}: {said:?}", args.join(" "));
        said
    }

    /// Starts a command in the background.
    fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ends(0, &["status", "--output", "json"]).out).unwrap()
    }

    fn rollout(&self) -> Value {
        self.status()["services"][0]["rollout"].clone()
    }

    fn wait<T>(&self, what: &str, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "never happened: {what}; {:#}", self.status());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the rollout's phase is `name` and its share was read back; its decision.
    fn in_phase(&self, name: &str) -> u64 {
        self.wait(&format!("phase {name}"), |w| {
            let service = w.status()["services"][0].clone();
            let set = |r: &Value| r["weight"] == r["actual_weight"];
            let candidate =
                service["revisions"].as_array()?.iter().find(|r| r["role"] == "candidate")?.clone();
            let there =
                service["rollout"]["phase"]["name"] == name && candidate["weight"] != 0.0 && set(&candidate);
            there.then(|| service["rollout"]["decision"].as_u64())?
        })
    }

    /// The answer of whatever serves a request through the proxy.
    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(format!("{}.100:8080", self.net))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// `events --output json`, a line each.
    fn events(&self) -> Vec<Value> {
        let said = self.ends(0, &["events", "--output", "json"]);
        said.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// The process that holds the fleet's lock, if it lives.
    fn controller(&self) -> Option<u32> {
        let lock = std::fs::read_to_string(self.state().join("lock")).ok()?;
        let pid = serde_json::from_str::<Value>(&lock).ok()?["pid"].as_u64()?;
        alive(u32::try_from(pid).ok()?).then_some(u32::try_from(pid).ok()?)
    }

    /// Ends the controller for good.
    fn kill_controller(&self) {
        while let Some(pid) = self.controller() {
            signal(pid, Signal::KILL);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes that have this world's directory or addresses among their arguments.
    fn processes(&self) -> Vec<u32> {
        let (dir, net) = (self.dir.path().display().to_string(), format!("{}.", self.net));
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id())
            .filter(|pid: &u32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("pilothouse") && (line.contains(&dir) || line.contains(&net))
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The controller first, or it would start again what is taken away.
        self.kill_controller();
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn run(command: &mut Command) -> Said {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    end(child)
}

/// Waits for a command's end, and kills it when it takes too long. What it says fits into a pipe.
fn end(mut child: Child) -> Said {
    let deadline = Instant::now() + PATIENCE;
    let code = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code().unwrap_or(-1),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                break -2;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    Said { code, out, err }
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn keys(v: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        v.as_object().unwrap_or_else(|| panic!("no object: {v}")).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn bad_usage_and_bad_fleet_files_end_with_2() {
    let world = World::new("", BY_HAND);
    for args in [
        &["no-such-command"][..],
        &["deploy", "web"],
        &["deploy", "web", "1.1.0", "--timeout", "soon"],
        &["deploy", "web", "1.1.0", "--detach", "--wait"],
        &["abort", "web", "--timeout", "5m"],
        &["status", "--output", "yaml"],
        &["promote", "web", "--decision", "latest"],
    ] {
        assert!(world.ends(2, args).out.is_empty(), "{args:?}: mistakes are said on standard error");
    }
    // Nothing of this needed a controller.
    assert!(world.controller().is_none());

    let nowhere = tempfile::tempdir().unwrap();
    let said = run(Command::new(common::pilothouse())
        .arg("status")
        .current_dir(nowhere.path())
        .env_remove("PILOTHOUSE_FLEET"));
    assert_eq!(said.code, 2);
    assert!(said.err.contains("there is no fleet file") && said.err.contains("--fleet FILE"), "{said:?}");

    let file = world.file();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("replicas = 2", "replicas = \"two\"\nreplica = 2")).unwrap();
    for command in ["check", "status", "up", "serve"] {
        let said = world.ends(2, &[command]);
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains("fleet.toml:") && all.contains("replica"), "{command}: {all}");
    }
    assert!(world.controller().is_none(), "a broken file starts no controller");
}

#[test]
fn what_is_not_there_is_named() {
    let world = World::new("", BY_HAND);
    let said = world.ends(2, &["deploy", "wbe", "1.1.0"]);
    assert!(
        said.err.contains("no service wbe") && said.err.contains("services in the file: web"),
        "{said:?}"
    );
    for args in [&["abort", "wbe"][..], &["promote", "wbe"], &["pause", "wbe"], &["rollback", "wbe"]] {
        let said = world.ends(2, args);
        assert!(said.err.contains("wbe"), "{said:?}");
    }
    // It is declared, and nothing was deployed yet.
    let said = world.ends(2, &["abort", "web"]);
    assert!(said.err.contains("web was never deployed"), "{said:?}");
    let said = world.ends(2, &["deploy", "web", "not a version"]);
    assert!(said.err.contains("version"), "{said:?}");

    // The socket: for its owner only, in a directory of its owner only.
    let mode = |p: PathBuf| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(world.socket()), mode(world.state())), (0o600, 0o700));
    for private in ["lock", "journal.db", "controller.log"] {
        assert_eq!(mode(world.state().join(private)), 0o600, "{private}");
    }

    // curl would do: it is plain HTTP.
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let hello: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(hello["fleet"], world.fleet.as_str());
    assert_eq!(hello["pid"].as_u64(), world.controller().map(u64::from));

    // A controller whose socket is gone still holds the fleet: nobody starts a second one beside it.
    let holder = world.controller().unwrap();
    std::fs::remove_file(world.socket()).unwrap();
    for args in [&["status"][..], &["serve"]] {
        let said = world.ends(5, args);
        assert!(
            said.err.contains("held by")
                && said.err.contains(&holder.to_string())
                && said.err.contains("since"),
            "{args:?}: {said:?}"
        );
    }
    assert_eq!(world.controller(), Some(holder));
    // A dead holder never blocks.
    signal(holder, Signal::KILL);
    world.ends(0, &["status"]);
    assert_ne!(world.controller(), Some(holder));
}

#[test]
fn a_rollout_by_hand_with_its_codes_and_its_json() {
    let world = World::new("", BY_HAND);
    let said = world.ends(0, &["up"]);
    assert!(said.out.contains("1.0.0 serves everything"), "{said:?}");
    world.ends(0, &["up"]);

    for (args, hint) in [
        (&["abort", "web"][..], "pilothouse rollback web"),
        (&["promote", "web"], "pilothouse deploy web VERSION"),
        (&["pause", "web"], "pilothouse deploy web VERSION"),
        (&["deploy", "web", "1.0.0"], "nothing to do"),
    ] {
        let said = world.ends(1, args);
        assert!(said.err.contains(hint), "{said:?}");
    }

    // It goes on after the wait is over.
    let said = world.ends(4, &["deploy", "web", "1.1.0", "--timeout", "1s", "--by", "ci#7"]);
    assert!(said.err.contains("has not ended in time; it goes on"), "{said:?}");
    let seen = world.in_phase("25%");

    // The documented form, key by key.
    let status = world.status();
    assert_eq!(keys(&status), ["fleet", "schema", "services"]);
    assert_eq!((&status["schema"], &status["fleet"]), (&1.into(), &world.fleet.as_str().into()));
    let service = &status["services"][0];
    assert_eq!(keys(service), ["drift", "name", "revisions", "rollout", "stable"]);
    assert_eq!(keys(&service["stable"]), ["digest", "version"]);
    assert_eq!(service["stable"]["version"], "1.0.0");
    let rollout = &service["rollout"];
    assert_eq!(
        keys(rollout),
        ["decision", "from", "id", "phase", "reason", "status", "strategy", "to"],
        "{rollout}"
    );
    assert_eq!(keys(&rollout["phase"]), ["count", "index", "name"]);
    assert_eq!(
        (&rollout["id"], &rollout["from"], &rollout["to"], &rollout["strategy"]),
        (&"web-2".into(), &"1.0.0".into(), &"1.1.0".into(), &"canary".into())
    );
    let revisions = service["revisions"].as_array().unwrap();
    for r in revisions {
        assert_eq!(
            keys(r),
            ["actual_weight", "instances", "role", "share", "slot", "version", "weight"],
            "{r}"
        );
        assert_eq!(r["weight"], r["actual_weight"]);
        for i in r["instances"].as_array().unwrap() {
            assert_eq!(keys(i), ["endpoint", "healthy", "host", "id", "restarts", "state"], "{i}");
            assert_eq!((&i["host"], &i["healthy"]), (&"here".into(), &true.into()), "{i}");
        }
    }
    let weight = |role: &str| revisions.iter().find(|r| r["role"] == role).unwrap()["weight"].as_f64();
    assert_eq!((weight("stable"), weight("candidate")), (Some(75.0), Some(25.0)));

    // A second client sees what the first one does.
    let mut watcher = world.spawn(&["events", "web", "--follow", "--output", "json"]);
    let (line, lines) = std::sync::mpsc::channel();
    let out = BufReader::new(watcher.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| line.send(l)));
    let until = |kind: &str| loop {
        let next = lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no event {kind}: {e}"));
        let event: Value = serde_json::from_str(&next).unwrap();
        let (service, seq) = (&event["service"], event["seq"].as_u64());
        assert!(*service == "web" && seq.is_some() && event["text"].is_string(), "{event}");
        if event["kind"] == kind {
            return event;
        }
    };
    until("rollout_started");
    world.ends(0, &["promote", "web", "--decision", &seen.to_string(), "--by", "ci#7"]);
    let promoted = until("promote");
    assert!(promoted["by"].as_str().unwrap().ends_with("[ci#7]"), "{promoted}");
    world.in_phase("50%");

    // Decided on what is no longer so: refused, with what changed. The safe direction is never refused.
    let said = world.ends(1, &["promote", "web", "--decision", &seen.to_string()]);
    assert!(
        said.err.contains(&format!("decided on {seen}"))
            && said.err.contains("(50%)")
            && said.err.contains("look again"),
        "{said:?}"
    );
    assert_eq!(world.rollout()["phase"]["name"], "50%");
    let said = world.ends(1, &["deploy", "web", "1.1.0"]);
    assert!(said.err.contains("web-2") && said.err.contains("being rolled out already"), "{said:?}");
    let said = world.ends(0, &["abort", "web", "--decision", &seen.to_string(), "--wait"]);
    assert!(said.out.contains("abort"), "{said:?}");
    assert_eq!(world.rollout()["status"], "aborted");
    until("abort_requested");
    until("rollout_ended");
    watcher.kill().unwrap();
    watcher.wait().unwrap();

    // Whoever waited for a deploy that another one aborts gets 3.
    let deploy = world.spawn(&["deploy", "web", "1.2.0"]);
    world.in_phase("25%");
    world.ends(0, &["abort", "web"]);
    assert_eq!(end(deploy).code, 3);

    // One that fails by itself ends with 3 as well, and says why.
    let deploy = world.spawn(&["deploy", "web", "1.3.0-crashing"]);
    world.wait("it crashes and is taken back", |w| {
        let _ = w.get("/");
        w.events().iter().any(|e| e["kind"] == "abort_requested" && e["rollout"] == "web-4").then_some(())
    });
    let said = end(deploy);
    assert!(said.code == 3 && said.out.contains("exited with 1"), "{said:?}");

    // Everything so far, one JSON object a line, numbered upwards.
    let said = world.ends(0, &["events", "--output", "json"]);
    let seqs: Vec<u64> = said
        .out
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.len() > 20 && seqs.is_sorted(), "{seqs:?}");
    let said = world.ends(0, &["down"]);
    assert!(said.out.contains("nothing is left"), "{said:?}");
}

#[test]
fn a_plan_says_what_a_deploy_would_do_and_does_nothing() {
    let world = World::new("", r#"{ weight = 50, pause = "30s" }, { weight = 75, pause = "manual" }"#);
    let plan = |args: &[&str]| world.ends(0, &[&["plan", "web"], args].concat());
    let first = plan(&["1.0.0"]).out;
    assert!(
        first.contains("first release to 1.0.0") && first.contains("nothing serves before it"),
        "{first}"
    );
    world.ends(0, &["up"]);
    let seen = world.status();

    let text = plan(&["1.1.0"]).out;
    for part in [
        "web: canary from 1.0.0 to 1.1.0, 4 phases",
        "2 50%    here   2 with 50%   1 with 50%",
        "then pause 30s",
        "never fewer than 2 of 2 instances in rotation (100%)",
        "up to 2 instances beyond the 2 instances declared",
        // 30 s, and 200 ms between the probes of each of two batches.
        "at least 30s, and until promoted at 75%",
        "instant: one weight change, until 1s after it has ended",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");

    let json: Value = serde_json::from_str(&plan(&["1.1.0", "--output", "json"]).out).unwrap();
    assert_eq!(
        keys(&json),
        [
            "at_least_ms",
            "by_hand",
            "decision",
            "extra",
            "from",
            "lowest",
            "lowest_percent",
            "not_promised",
            "notes",
            "phases",
            "replicas",
            "schema",
            "service",
            "strategy",
            "to",
            "way_back"
        ]
    );
    assert_eq!(keys(&json["phases"][1]), ["gates", "hosts", "name", "weight"]);
    assert_eq!(
        json["phases"][1]["hosts"],
        serde_json::json!([{ "host": "here", "stable": 2, "candidate": 1, "stable_weight": 50.0, "candidate_weight": 50.0 }])
    );
    assert_eq!(
        (&json["lowest"], &json["extra"], &json["at_least_ms"]),
        (&2.into(), &2.into(), &30_400.into())
    );

    for (args, what) in [
        (&["plan", "wbe", "1.1.0"][..], "services in the file: web"),
        (&["plan", "web", "not a version"], "version"),
        (&["plan", "web"], "VERSION"),
    ] {
        let said = world.ends(2, args);
        assert!(said.err.contains(what), "{said:?}");
    }
    // A version that nobody has: the program is not there.
    let file = std::fs::read_to_string(world.file()).unwrap();
    let program = common::pilothouse().display().to_string();
    std::fs::write(world.file(), file.replace(&program, "/nonexistent/{version}/app")).unwrap();
    let said = world.run(&["plan", "web", "9.9.9"]);
    assert!(said.code == 2 && said.out.is_empty() && said.err.contains("/nonexistent"), "{said:?}");
    assert_eq!(world.status(), seen, "a plan changes nothing");
}

#[test]
fn require_serve_insists_and_a_served_rollout_outlives_its_controller() {
    let steps = r#"{ weight = 25, healthy_for = "1s" }, { weight = 50, healthy_for = "2s" }"#;
    let world = World::new("require_serve = true", steps);
    let said = world.ends(2, &["status"]);
    assert!(said.err.contains("require_serve = true") && said.err.contains("pilothouse serve"), "{said:?}");
    assert!(world.controller().is_none());

    let serve = || {
        let child = world.spawn(&["serve"]);
        world.wait("the controller answers", |w| (w.run(&["status"]).code == 0).then_some(()));
        child
    };
    let first = serve();
    assert_eq!(world.controller(), Some(first.id()), "in the foreground: no second process");
    world.ends(0, &["up"]);
    world.ends(0, &["deploy", "web", "1.1.0", "--detach"]);
    world.in_phase("25%");
    signal(first.id(), Signal::TERM);
    let said = end(first);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!world.socket().exists());
    // Nobody steers now, everybody is served.
    let answer = world.get("/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    world.ends(2, &["status"]);

    let second = serve();
    world.wait("the rollout goes on to its end", |w| {
        let service = w.status()["services"][0].clone();
        (service["rollout"]["status"] == "done" && service["stable"]["version"] == "1.1.0").then_some(())
    });
    assert_eq!(world.rollout()["id"], "web-2", "the same rollout");
    world.ends(0, &["down"]);
    signal(second.id(), Signal::INT);
    assert_eq!(end(second).code, 0);
}

#[test]
fn production_asks_for_the_name() {
    let world = World::new("environment = \"production\"", BY_HAND);
    world.ends(0, &["up"]);
    let said = world.ends(2, &["down"]);
    assert!(said.err.contains(&format!("--confirm {}", world.fleet)), "{said:?}");
    // Somebody else's name is not this fleet's, and the fleet's is not the service's.
    for args in [
        &["down", "--confirm", "another"][..],
        &["down", "web", "--confirm", &world.fleet],
        &["down", "--confirm", ""],
    ] {
        let said = world.ends(2, args);
        assert!(said.err.contains("nothing was done"), "{said:?}");
    }
    let service = world.status()["services"][0].clone();
    assert_eq!(service["stable"]["version"], "1.0.0");
    assert_eq!(service["revisions"][0]["instances"].as_array().unwrap().len(), 2);
    let said = world.ends(0, &["down", "web", "--confirm", "web"]);
    assert!(said.out.contains("nothing is left"), "{said:?}");
}
