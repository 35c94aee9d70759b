//! What every strategy must hold on real parts, under load from outside: the way up, the way back, bad candidates.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::load::Load;
use crate::stories::{Outside, up};
use crate::world::{LONG, Setup, World};

pub const ROLLING: &str =
    "type = \"rolling\"\nmax_surge = 1\nmin_healthy_time = \"500ms\"\nhealthy_deadline = \"20s\"";
pub const ROLLING_DOWN: &str = "type = \"rolling\"\nmax_unavailable = 1\nmax_surge = 0\nmin_healthy_time = \"500ms\"\nhealthy_deadline = \"20s\"";
pub const BLUE_GREEN: &str =
    "type = \"blue-green\"\npreview = { header = \"X-Preview\", value = \"green\" }\npause = \"manual\"";
pub const CANARY: &str = "type = \"canary\"\nsticky = true\ntester = { cookie = \"tester\", value = \"yes\" }\nsteps = [ { weight = 5, pause = \"1s\" }, { weight = 50, pause = \"manual\" } ]";
pub const AB: &str =
    "type = \"ab\"\ncandidate = { header = \"X-Variant\", value = \"b\" }\nduration = \"2s\"";
pub const IN_PLACE: &str = "type = \"in-place\"\nmin_healthy_time = \"500ms\"";

pub fn setup(strategy: &'static str) -> Setup {
    Setup { strategy: Some(strategy), progress_deadline: "20s", ..Setup::default() }
}

fn rollout(world: &World) -> Value {
    world.status()["services"][0]["rollout"].clone()
}

/// Promotes whenever the rollout waits for that and nothing else, until the command that follows it has ended.
fn promote_until_over(world: &World, deploy: &mut crate::world::Running) -> i32 {
    let deadline = Instant::now() + 2 * LONG;
    while deploy.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        let waits =
            world.service().is_some_and(|s| s["rollout"]["waiting"] == serde_json::json!(["promote"]));
        if waits {
            let _ = world.run(&["promote", "web"]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    deploy.end(LONG)
}

fn answered_by(world: &World, header: Option<(&str, &str)>) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(world.listen).unwrap();
    let extra = header.map(|(n, v)| format!("{n}: {v}\r\n")).unwrap_or_default();
    write!(stream, "GET / HTTP/1.1\r\nHost: web\r\n{extra}Connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let version =
        text.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("x-version: ").map(str::to_owned));
    version.unwrap_or_default()
}

/// Up to 1.1.0, back to 1.0.0, and up again but aborted in the middle: nothing fails.
pub fn up_back_and_abort(world: &World, what: &str) {
    world.image("1.1.0");
    world.image("1.2.0");
    up(world);
    let load = Outside::start(world);
    let began = Instant::now();
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    assert_eq!(promote_until_over(world, &mut deploy), 0, "{what}: {}", deploy.said());
    let took = began.elapsed();
    let status = world.status();
    assert_eq!(status["services"][0]["stable"]["version"], "1.1.0", "{what}: {status}");
    assert_eq!(status["services"][0]["drift"], serde_json::json!([]), "{what}: {status}");
    assert_eq!(answered_by(world, None), "1.1.0");
    world.assert_no_orphan();

    let began = Instant::now();
    world.ok(&["rollback", "web", "--wait"]);
    eprintln!(
        "MEASURED {what}: up in {:.1} s, back in {:.1} s",
        took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let status = world.status();
    assert_eq!(status["services"][0]["stable"]["version"], "1.0.0", "{what}: {status}");
    assert_eq!(answered_by(world, None), "1.0.0");
    world.assert_no_orphan();

    let mut deploy = world.spawn(&["deploy", "web", "1.2.0"]);
    world.wait("the next candidate is healthy", || {
        let s = world.service()?;
        let healthy =
            s["revisions"].as_array()?.iter().find(|r| r["role"] == "candidate")?["healthy"].as_u64()?;
        (healthy > 0).then_some(())
    });
    let began = Instant::now();
    world.ok(&["abort", "web", "--wait"]);
    eprintln!("MEASURED {what}: aborted in {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(deploy.end(LONG), 3, "{what}: {}", deploy.said());
    let status = world.status();
    assert_eq!(status["services"][0]["stable"]["version"], "1.0.0", "{what}: {status}");
    assert_eq!(status["services"][0]["drift"], serde_json::json!([]), "{what}: {status}");
    assert_eq!(answered_by(world, None), "1.0.0");
    load.assert_nothing_failed(what);
    world.assert_no_orphan();
}

/// A rule reaches the candidate while it is looked at, and nobody afterwards.
pub fn rules(world: &World, what: &str, rule: (&str, &str), looked_at: &str) {
    world.image("1.1.0");
    up(world);
    let load = Load::start(world.listen, 3);
    assert_eq!(answered_by(world, Some(rule)), "1.0.0", "nothing is there yet");
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait("the phase in which it is looked at", || {
        let s = world.service()?;
        let index = usize::try_from(s["rollout"]["phase"].as_u64()?).ok()?;
        (s["rollout"]["phases"][index]["name"] == looked_at
            && s["rollout"]["waiting"].as_array()?.iter().any(|w| w == "promote"))
        .then_some(())
    });
    for _ in 0..20 {
        assert_eq!(answered_by(world, Some(rule)), "1.1.0", "{what}");
        assert_eq!(answered_by(world, Some((rule.0, "else"))), "1.0.0", "{what}");
    }
    assert!(load.of("1.1.0").is_none(), "{what}: somebody without the rule was answered by the candidate");
    world.ok(&["abort", "web", "--wait"]);
    assert_eq!(deploy.end(LONG), 3);
    assert_eq!(answered_by(world, Some(rule)), "1.0.0", "{what}: an abort clears the rule");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{what}: {:?}", report.how);
    world.assert_no_orphan();
}

/// Slow to start, dead on the third request, never healthy.
pub fn bad_candidates(world: &World, what: &str) {
    for bad in ["1.1.0-slowstart", "1.1.0-crashing", "1.1.0-unhealthy"] {
        world.image(bad);
    }
    up(world);
    let load = Load::start(world.listen, 3);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0-slowstart"]);
    assert_eq!(promote_until_over(world, &mut deploy), 0, "{what}: {}", deploy.said());
    world.ok(&["rollback", "web", "--wait"]);
    let stable = world.service().unwrap()["stable"]["version"].clone();
    assert_eq!(stable, "1.0.0");
    assert_eq!(load.failed(), 0, "{what}: a slow start");
    for (bad, why) in [("1.1.0-crashing", "exited with 1"), ("1.1.0-unhealthy", "not healthy within")] {
        let before = load.failed();
        let mut deploy = world.spawn(&["deploy", "web", bad]);
        assert_eq!(promote_until_over(world, &mut deploy), 3, "{what}: {}", deploy.said());
        let rollout = rollout(world);
        assert_eq!(rollout["status"], "aborted", "{what}: {rollout}");
        let reason = rollout["reason"].as_str().unwrap();
        // Who sees it first, the engine or the probe, is open.
        let known = [why, "no progress", "became unhealthy"].iter().any(|w| reason.contains(w));
        assert!(known, "{what}: {reason}");
        let failed = load.failed() - before;
        eprintln!(
            "MEASURED {what}, {bad}: {failed} failed: {:?}",
            load.how().get(usize::try_from(before).unwrap()..)
        );
        // Not even the request that a candidate dies of: stable answers it.
        assert_eq!(failed, 0, "{what}, {bad}");
        let status = world.status();
        assert_eq!(status["services"][0]["drift"], serde_json::json!([]), "{what}, {bad}: {status}");
        world.assert_no_orphan();
    }
    assert!(load.finish().requests > 0);
}

/// With one instance and no other place the downtime is what was shown, within one probe interval.
pub fn downtime(world: &World) {
    world.image("1.1.0");
    up(world);
    let port = world.endpoints("1.0.0");
    let load = Load::start(world.listen, 2);
    std::thread::sleep(Duration::from_millis(500));
    world.ok(&["deploy", "web", "1.1.0"]);
    std::thread::sleep(Duration::from_millis(500));
    let outside = load.longest_gap();
    let report = load.finish();
    assert_eq!(world.endpoints("1.1.0"), port, "the same host and port");
    let shown = world.service().unwrap()["rollout"]["downtimes"][0]["ms"].as_u64().unwrap();
    eprintln!(
        "MEASURED in-place downtime: shown {shown} ms, from outside {} ms; {} of {} requests failed",
        outside.as_millis(),
        report.failed,
        report.requests
    );
    assert!(report.failed > 0, "somebody was turned away");
    let differ = u128::from(shown).abs_diff(outside.as_millis());
    assert!(differ <= 200, "shown {shown} ms, measured {} ms", outside.as_millis());
}

/// One host goes back alone; the rest stays; then it takes part again.
pub fn one_host_back(world: &World) {
    world.image("1.1.0");
    up(world);
    let load = Outside::start(world);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0", "--timeout", "3m"]);
    world.wait("half of it", || {
        let s = world.service()?;
        let new =
            s["revisions"].as_array()?.iter().find(|r| r["role"] == "candidate")?["healthy"].as_u64()?;
        (new >= 2).then_some(())
    });
    world.ok(&["rollback", "web", "--host", "node-2"]);
    let on = |host: &str| -> Vec<String> {
        let instances = world.snapshot().unwrap()["instances"].as_array().unwrap().clone();
        let here = instances.iter().filter(|i| i["host"] == host && i["state"] == "running");
        here.map(|i| i["version"].as_str().unwrap().to_owned()).collect()
    };
    world.wait("the host is back alone, the other is not", || {
        (on("node-2") == ["1.0.0", "1.0.0"] && on("node-1") == ["1.1.0", "1.1.0"]).then_some(())
    });
    let held = world.service().unwrap()["rollout"]["held"].clone();
    assert_eq!(held, serde_json::json!(["node-2"]));
    assert!(deploy.child.try_wait().unwrap().is_none(), "it cannot end: {}", deploy.said());
    world.ok(&["retry", "web", "--host", "node-2"]);
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    assert_eq!(on("node-2"), ["1.1.0", "1.1.0"]);
    load.assert_nothing_failed("one host back, then again");
    world.assert_no_orphan();
}

/// A newer version in mid-rollout: the first goes back, the second follows; nothing fails.
pub fn newer_in_mid_rollout(world: &World) {
    world.image("1.1.0");
    world.image("1.2.0");
    up(world);
    let load = Outside::start(world);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait("the first is under way", || {
        let s = world.service()?;
        s["revisions"]
            .as_array()?
            .iter()
            .any(|r| r["role"] == "candidate" && r["healthy"].as_u64() > Some(0))
            .then_some(())
    });
    world.ok(&["deploy", "web", "1.2.0", "--detach"]);
    world.wait("the second serves", || {
        let s = world.service()?;
        if s["rollout"]["waiting"] == serde_json::json!(["promote"]) {
            let _ = world.run(&["promote", "web"]);
        }
        (s["stable"]["version"] == "1.2.0" && s["rollout"]["status"] == "done").then_some(())
    });
    load.assert_nothing_failed("a newer version in mid-rollout");
    world.assert_no_orphan();
}

/// A hook runs once before anything is touched, its log is kept; a failing one takes the release back.
pub fn hooks(world: &World, failing: &str) {
    world.image("1.1.0");
    up(world);
    let first = world.service().unwrap()["rollout"]["hooks"].clone();
    assert_eq!(first[0]["state"], "passed", "{first}");
    let load = Load::start(world.listen, 2);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    let hooks = world.service().unwrap()["rollout"]["hooks"].clone();
    assert_eq!(hooks[0]["hook"], "before-start", "{hooks}");
    assert_eq!(hooks[0]["state"], "passed", "{hooks}");
    let log = world.ok(&["logs", hooks[0]["instance"].as_str().unwrap()]);
    assert!(log.contains("pilothouse"), "{log}");

    let file = world.path().join("fleet.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed =
        |line: &str| if line.starts_with("before_start") { failing.to_owned() } else { line.to_owned() };
    std::fs::write(&file, text.lines().map(changed).collect::<Vec<_>>().join("\n")).unwrap();
    world.image("1.2.0");
    let mut deploy = world.spawn(&["deploy", "web", "1.2.0"]);
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let rollout = rollout(world);
    assert!(rollout["reason"].as_str().unwrap().contains("hook before-start"), "{rollout}");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{:?}", report.how);
    assert_eq!(world.service().unwrap()["stable"]["version"], "1.1.0");
}
