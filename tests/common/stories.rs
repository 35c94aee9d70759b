//! What must hold in a release, told once for every pair of engine and proxy. The numbers of SCENARIOS are in the
//! names of the tests that tell them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::load::{Load, Report, Wrk};
use crate::world::{LONG, Setup, World, kill};

/// Requests counted at a step, so that two points are four standard deviations of a fair dice.
fn enough(percent: f64) -> u64 {
    let p = percent / 100.0;
    ((p * (1.0 - p) * 40_000.0) as u64).max(4_000)
}

/// Load from outside: `wrk` when it is there, and our own, which knows who answered.
pub struct Outside {
    wrk: Option<Wrk>,
    /// Whether a proxy that reloads closes connections which a request may be on its way on.
    closes: bool,
    pub own: Load,
}

impl Outside {
    pub fn start(world: &World) -> Self {
        let wrk =
            crate::common::require::program("wrk").map(|b| Wrk::start(&b, world.path(), world.listen, 12));
        let own = Load::start(world.listen, if wrk.is_some() { 2 } else { 6 });
        Self { wrk, own, closes: world.backends.closes_connections() }
    }

    /// Ends the load; nothing may have failed.
    pub fn assert_nothing_failed(self, what: &str) {
        let reports: Vec<Report> = self.wrk.map(Wrk::finish).into_iter().chain([self.own.finish()]).collect();
        let (requests, failed): (u64, u64) =
            reports.iter().fold((0, 0), |(n, f), r| (n + r.requests, f + r.failed));
        eprintln!("MEASURED {what}: {failed} of {requests} requests failed");
        assert!(requests > 0);
        // A release and its way back are four sets of instances, and each may be a reload.
        assert_only_closed(&reports, if self.closes { 14 * 4 } else { 0 }, what);
    }
}

/// That nothing failed, but for at most `closed` requests that met a connection which a reload was just closing.
fn assert_only_closed(reports: &[Report], closed: u64, what: &str) {
    let failed: u64 = reports.iter().map(|r| r.failed).sum();
    let met_closed = |how: &String| how.contains(" read") || how.contains("on a kept connection");
    let right = failed <= closed && reports.iter().flat_map(|r| &r.how).all(met_closed);
    assert!(right, "{what}: {reports:?}");
}

fn revision(status: &Value, version: &str) -> Value {
    let revisions = status["services"][0]["revisions"].as_array().unwrap();
    revisions.iter().find(|r| r["version"] == version).cloned().unwrap_or_default()
}

/// The share of `version` over the next requests, as the instances count them. One that ends meanwhile is counted for
/// as long as it answers.
pub fn share(world: &World, version: &str, requests: u64) -> (f64, u64) {
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    let mut served: BTreeMap<(bool, String), u64> = BTreeMap::new();
    let deadline = Instant::now() + LONG;
    loop {
        for (v, id, count) in world.counts_by_instance() {
            let before = *first.entry(id.clone()).or_insert(count);
            served.insert((v == version, id), count - before);
        }
        let total: u64 = served.values().sum();
        if total >= requests {
            let of_version: u64 = served.iter().filter(|((is, _), _)| *is).map(|(_, n)| n).sum();
            return (of_version as f64 * 100.0 / total as f64, total);
        }
        assert!(Instant::now() < deadline, "only {total} of {requests} requests in {LONG:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn up(world: &World) {
    world.ok(&["up"]);
    let status = world.status();
    assert_eq!(status["services"][0]["stable"]["version"], "1.0.0", "{status}");
    assert_eq!(status["services"][0]["drift"], serde_json::json!([]), "{status}");
}

/// A canary from 1.0.0 to 1.1.0 under load.
pub fn canary(world: &World) {
    world.image("1.1.0");
    up(world);
    let old = world.shown();
    assert_eq!(old.len(), 4);
    let load = Outside::start(world);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    let mut numbers = Vec::new();
    for percent in [5u64, 25, 50] {
        world.wait_for_share("1.1.0", percent);
        let (share, requests) = share(world, "1.1.0", enough(percent as f64));
        numbers.push(format!("{percent} % set, {share:.2} % of {requests}"));
        assert!((share - percent as f64).abs() <= 2.0, "{percent} % set, {share:.2} % of {requests} counted");
        let status = world.status();
        let candidate = revision(&status, "1.1.0");
        assert_eq!(status["schema"], 1);
        assert_eq!(status["services"][0]["rollout"]["status"], "running", "{status}");
        assert_eq!(status["services"][0]["rollout"]["phase"]["name"], format!("{percent}%"), "{status}");
        assert_eq!(candidate["role"], "candidate", "{status}");
        assert_eq!(candidate["weight"], percent as f64, "{status}");
        assert_eq!(candidate["actual_weight"], percent as f64, "{status}");
        assert_eq!(revision(&status, "1.0.0")["actual_weight"], (100 - percent) as f64, "{status}");
        world.ok(&["promote", "web"]);
    }
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    let (share, requests) = share(world, "1.1.0", 4_000);
    numbers.push(format!("100 % set, {share:.2} % of {requests}"));
    assert!(share > 99.99, "{share} % after the promotion");
    eprintln!("MEASURED canary shares: {}", numbers.join("; "));

    // The old ones are kept for a while, then drained, then stopped, and stay as the way back.
    let events = world.wait("the old instances are stopped", || {
        let events = world.events();
        let stopped = |id: &String| events.iter().any(|e| e.contains(&format!("{id} is stopped")));
        old.iter().all(stopped).then_some(events)
    });
    load.assert_nothing_failed("canary");
    let there = world.there();
    assert!(old.iter().all(|id| there.get(id) == Some(&false)), "{there:?}");
    for id in &old {
        let at = |what: &str| events.iter().position(|e| e.contains(&format!("{id} {what}")));
        let (drained, stopped) = (at("is drained"), at("is stopped"));
        assert!(drained.is_some() && drained < stopped, "{id}: {events:#?}");
    }
    let status = world.status();
    let service = &status["services"][0];
    assert_eq!(service["stable"]["version"], "1.1.0");
    assert_eq!(service["rollout"]["status"], "done");
    assert_eq!(service["drift"], serde_json::json!([]));
    let new = revision(&status, "1.1.0");
    assert_eq!((&new["role"], &new["actual_weight"]), (&"stable".into(), &100.0.into()), "{status}");
    assert_eq!(new["instances"].as_array().unwrap().len(), 4);
    assert!(
        new["instances"].as_array().unwrap().iter().all(|i| i["state"] == "running" && i["healthy"] == true)
    );
    assert_eq!(revision(&status, "1.0.0")["role"], "old", "{status}");
    world.assert_no_orphan();
    assert_eq!(world.there().len(), 8, "four that serve, four that are kept");
}

/// At 25 % the operator takes it back.
pub fn abort(world: &World) {
    world.image("1.1.0");
    up(world);
    let stable = world.there();
    let load = Outside::start(world);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait_for_share("1.1.0", 5);
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 25);
    std::thread::sleep(Duration::from_secs(1));
    let pressed = Instant::now();
    let mut abort = world.spawn(&["abort", "web", "--wait"]);
    // The candidate's own counters, for as long as it answers.
    let endpoints = world.endpoints("1.1.0");
    let mut last: Option<(u64, Instant)> = None;
    while abort.child.try_wait().unwrap().is_none() && pressed.elapsed() < LONG {
        let served: Option<u64> = endpoints
            .iter()
            .map(|e| crate::world::outside::count_of(*e)?["served"].as_u64())
            .sum::<Option<u64>>();
        match (served, last) {
            (Some(n), Some((before, _))) if n <= before => {}
            (Some(n), _) => last = Some((n, Instant::now())),
            (None, _) => {}
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(abort.end(LONG), 0, "{}", abort.said());
    let took = pressed.elapsed();
    assert_eq!(deploy.end(LONG), 3, "the deploy that was aborted: {}", deploy.said());
    let (_, sent) = load.own.of("1.1.0").expect("the candidate answered before");
    let since = |at: Instant| at.saturating_duration_since(pressed).as_millis();
    eprintln!(
        "MEASURED abort: last request to the candidate sent {} ms after the key, counted there {} ms after, all over after {} ms",
        since(sent),
        last.map_or(0, |(_, at)| since(at)),
        took.as_millis()
    );
    assert!(sent.saturating_duration_since(pressed) < Duration::from_secs(5));
    let (share, requests) = share(world, "1.0.0", 1_000);
    assert!(share > 99.99, "{share} % of {requests} on stable after the abort");
    load.assert_nothing_failed("abort");
    let status = world.status();
    assert_eq!(status["services"][0]["rollout"]["status"], "aborted", "{status}");
    assert_eq!(revision(&status, "1.0.0")["actual_weight"], 100.0, "{status}");
    world.assert_no_orphan();
    assert_eq!(world.there(), stable, "what was there before is there, nothing else");
}

/// Scenarios 1, 2 and 27: the controller is killed in every phase, and the next command brings it back.
pub fn killed_in_each_phase(world: &World) {
    world.image("1.1.0");
    world.image("1.2.0");
    up(world);
    let load = Load::start(world.listen, 4);
    let resume = |world: &World, phase: &str| {
        let killed = world.kill_controller();
        // Nobody steers now, and everything goes on being served.
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        world.ok(&["status"]);
        let now = world.controller().expect("status started a controller");
        assert_ne!(now, killed);
        eprintln!(
            "MEASURED kill -9 in phase {phase}: the next one answers after {} ms",
            began.elapsed().as_millis()
        );
    };
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    // What is killed before it has answered leaves whoever asked not knowing, and they are told so: another story.
    world.wait("the command was answered", || deploy.said().contains("has begun").then_some(()));
    for phase in ["start", "5%", "25%", "50%", "100%"] {
        // The last one may be over before it is seen.
        world.wait(&format!("phase {phase}"), || {
            world.phase("1.1.0").filter(|(p, s)| p == phase || p == "100%" || s == "done")
        });
        resume(world, phase);
    }
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    world.wait("the old instances are stopped", || {
        let there = world.there();
        (there.len() == 8 && there.values().filter(|runs| **runs).count() == 4).then_some(())
    });
    world.assert_no_orphan();
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");

    let mut deploy = world.spawn(&["deploy", "web", "1.2.0"]);
    world.wait("a share of the traffic", || world.phase("1.2.0").filter(|(p, _)| p == "25%"));
    world.ok(&["abort", "web"]);
    resume(world, "aborting");
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    world.wait_for_status("1.2.0", "aborted");
    world.assert_no_orphan();
    let status = world.status();
    assert_eq!(status["services"][0]["stable"]["version"], "1.1.0", "{status}");
    assert_eq!(revision(&status, "1.1.0")["actual_weight"], 100.0, "{status}");
    let report = load.finish();
    eprintln!("MEASURED kill -9: {} of {} requests failed", report.failed, report.requests);
    assert_eq!(report.failed, 0, "{report:?}");
}

/// Scenario 1: no controller lives longer than a moment, wherever that moment falls; the rollout comes to its end.
pub fn killed_again_and_again(world: &World) {
    world.image("1.1.0");
    up(world);
    let load = Load::start(world.listen, 3);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    let mut kills = 0u64;
    let began = Instant::now();
    while world.phase("1.1.0").is_none_or(|(_, status)| status != "done") {
        assert!(began.elapsed() < Duration::from_secs(90), "no end after {kills} kills");
        // Lives of 30 ms to 1 s, and a little longer each: what must hold for a while starts over with each.
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let life = 30 + u64::from(u16::from_ne_bytes(random)) % 1_000 + 20 * kills;
        std::thread::sleep(Duration::from_millis(life));
        if world.controller().is_some() {
            world.kill_controller();
            kills += 1;
        }
        world.ok(&["status"]);
    }
    let took = began.elapsed();
    world.wait("the old instances are stopped", || {
        let there = world.there();
        (there.len() == 8 && there.values().filter(|runs| **runs).count() == 4).then_some(())
    });
    world.assert_no_orphan();
    let report = load.finish();
    eprintln!(
        "MEASURED killed again and again: {kills} kills in {took:?}, {} of {} requests failed",
        report.failed, report.requests
    );
    assert!(kills >= 1, "{kills} kills");
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(world.status()["services"][0]["drift"], serde_json::json!([]));

    // Also on the way out: everything goes, and nothing is forgotten.
    let down = world.spawn(&["down"]);
    world.wait("it goes down", || world.events().iter().any(|e| e.starts_with("down:")).then_some(()));
    drop(down);
    let began = Instant::now();
    while !world.there().is_empty() {
        assert!(began.elapsed() < LONG, "still there: {:?}", world.there());
        if world.controller().is_some() && began.elapsed() < Duration::from_secs(5) {
            world.kill_controller();
        }
        world.ok(&["status"]);
        std::thread::sleep(Duration::from_millis(400));
    }
    world.wait("nothing is shown", || world.shown().is_empty().then_some(()));
}

/// Back and forth: to what still runs, and to what was stopped. Then the service is taken away, and nothing is left.
pub fn rollback(world: &World) {
    world.image("1.1.0");
    up(world);
    let load = Load::start(world.listen, 3);
    world.ok(&["deploy", "web", "1.1.0"]);
    let pressed = Instant::now();
    world.ok(&["rollback", "web", "--wait"]);
    let warm = pressed.elapsed();
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.0.0");
    world.wait("1.1.0 is stopped and kept", || {
        let there = world.there();
        (there.len() == 8 && there.values().filter(|runs| **runs).count() == 4).then_some(())
    });
    let pressed = Instant::now();
    world.ok(&["rollback", "web", "--wait"]);
    let cold = pressed.elapsed();
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    let (share, _) = share(world, "1.1.0", 500);
    assert!(share > 99.99, "{share}");
    let report = load.finish();
    eprintln!(
        "MEASURED rollback: warm {warm:?}, cold {cold:?}, {} of {} failed",
        report.failed, report.requests
    );
    assert_eq!(report.failed, 0, "{report:?}");
    world.assert_no_orphan();
    world.ok(&["down"]);
    assert!(world.there().is_empty(), "{:?}", world.there());
}

/// A candidate that takes its time is taken back while it works: what it has it finishes, then it is stopped.
pub fn slow_requests_are_finished(world: &World) {
    world.image("1.1.0-slow");
    up(world);
    let load = Load::start(world.listen, 8);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0-slow"]);
    world.wait_for_share("1.1.0-slow", 5);
    for percent in [25, 50] {
        world.ok(&["promote", "web"]);
        world.wait_for_share("1.1.0-slow", percent);
    }
    world.wait("enough of it", || load.of("1.1.0-slow").filter(|(n, _)| *n > 40));
    world.ok(&["abort", "web", "--wait"]);
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let report = load.finish();
    eprintln!("MEASURED abort of a slow candidate: {} of {} requests failed", report.failed, report.requests);
    assert_eq!(report.failed, 0, "{report:?}");
    let events = world.events();
    assert!(!events.iter().any(|e| e.contains("deadline passed")), "{events:#?}");
    world.assert_no_orphan();
}

/// What a step that must stay healthy for some time is told of.
pub fn watched() -> Setup {
    Setup {
        steps: r#"{ weight = 25, healthy_for = "8s" }, { weight = 50, pause = "manual" }"#,
        ..Setup::default()
    }
}

/// Scenario 40: nothing can be learnt from the proxy while a step is to stay healthy. Not healthy by silence: it waits,
/// says so, and when the proxy answers again the step is watched from the beginning.
pub fn metrics_vanish(world: &World) {
    world.image("1.1.0");
    up(world);
    let load = Load::start(world.listen, 3);
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    let quarter = || {
        let service = world.service()?;
        let r =
            service["revisions"].as_array()?.iter().find(|r| r["revision"]["version"] == "1.1.0")?.clone();
        let gate = service["rollout"]["waiting"] == serde_json::json!(["healthy for 8s"]);
        (r["weight"] == 2_500 && r["actual_weight"] == 2_500 && gate).then_some(())
    };
    world.wait("1.1.0 is watched at 25 %", quarter);
    let hidden = world.hide_proxy();
    world.wait_for_status("1.1.0", "frozen");
    let rollout = world.status()["services"][0]["rollout"].clone();
    assert_eq!(rollout["phase"]["name"], "25%", "{rollout}");
    assert!(rollout["reason"].as_str().unwrap().contains("proxy lb cannot be reached"), "{rollout}");
    // Longer than the step had to be healthy for.
    let (blind, before) = (Instant::now(), load.of("1.1.0").unwrap().0);
    while blind.elapsed() < Duration::from_secs(10) {
        let (phase, status) = world.phase("1.1.0").expect("the rollout");
        assert_eq!((phase.as_str(), status.as_str()), ("25%", "frozen"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = world.status();
    let candidate = revision(&status, "1.1.0");
    assert_eq!(candidate["weight"], 25.0, "{status}");
    assert!(candidate["actual_weight"].is_null(), "what cannot be read is not known: {status}");
    assert!(load.of("1.1.0").unwrap().0 > before, "visitors are answered all the while");
    drop(hidden);
    world.wait_for_share("1.1.0", 50);

    let events = world.snapshot().expect("a controller answers")["events"].as_array().unwrap().clone();
    // The last of each: HAProxy may have been started too late for the first release as well.
    let at = |kind: &str, text: &str| {
        let event = events.iter().rfind(|e| e["kind"] == kind && e["text"].as_str().unwrap().contains(text));
        event.unwrap_or_else(|| panic!("no {kind} {text} in {events:#?}"))["at_ms"].as_u64().unwrap()
    };
    let (settled, frozen, thawed, next) =
        (at("phase_settled", "25%"), at("frozen", "proxy lb"), at("thawed", ""), at("phase_entered", "50%"));
    eprintln!(
        "MEASURED proxy not to be asked: settled, {} ms later frozen, {} ms later it goes on, {} ms later the next step",
        frozen - settled,
        thawed - frozen,
        next - thawed
    );
    assert!(thawed - frozen >= 10_000, "frozen for {} ms", thawed - frozen);
    assert!(next - thawed >= 8_000, "watched for {} ms only", next - thawed);
    world.ok(&["promote", "web"]);
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    // Taking it away and giving it back may each be a reload.
    let closed = if world.backends.closes_connections() { 3 * 6 } else { 0 };
    assert_only_closed(&[load.finish()], closed, "a proxy that cannot be asked");
    world.assert_no_orphan();
}

/// A step that is judged by what its requests come to, after one that waits for an operator.
pub fn judged() -> Setup {
    let strategy = "type = \"canary\"\nsteps = [ { weight = 25, pause = \"manual\" }, { weight = 50, healthy_for = \"0s\" } ]\n\n\
                    [services.web.analysis]\nsoak = \"0s\"\ninconclusive_after = \"6s\"\nlatency = false";
    Setup { strategy: Some(strategy), ..Setup::default() }
}

/// Scenario 40: the proxy says what is in force, and nothing of what the requests came to. That nothing is heard of failures
/// is no verdict: it pauses, and goes on when there are numbers again.
pub fn counts_vanish(world: &World) {
    assert!(world.backends.counts_apart());
    world.image("1.1.0");
    up(world);
    let load = Load::paced(world.listen, 6, Duration::from_millis(5));
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait_for_share("1.1.0", 25);
    let hidden = world.hide_counts();
    // What was on its way when they went is over.
    let counted = || world.service()?["rollout"]["verdict"]["words"].as_str().map(str::to_owned);
    let mut last = (counted(), Instant::now());
    world.wait("nothing is counted any more", || {
        let now = counted();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(3)).then_some(())
    });
    world.ok(&["promote", "web"]);
    world.wait_for_status("1.1.0", "paused");
    let rollout = world.status()["services"][0]["rollout"].clone();
    let reason = rollout["reason"].as_str().unwrap();
    assert_eq!(rollout["phase"]["name"], "50%", "{rollout}");
    assert!(reason.starts_with("inconclusive after 6s at 50%"), "{rollout}");
    let before = load.answered();
    world.wait("visitors are answered all the while", || (load.answered() > before + 100).then_some(()));
    drop(hidden);
    // On a slow machine there may be too few numbers when the time is over again.
    world.wait("its end", || {
        if world.phase("1.1.0").is_some_and(|(_, status)| status == "paused") {
            world.ok(&["resume", "web"]);
        }
        deploy.child.try_wait().unwrap()
    });
    assert_eq!(deploy.end(LONG), 0, "{}", deploy.said());
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    let closed = if world.backends.closes_connections() { 6 * 6 } else { 0 };
    assert_only_closed(&[load.finish()], closed, "counts that vanish");
    world.assert_no_orphan();
}

/// A rollout of 1.1.0 that stands at 25 %.
pub fn at_a_quarter(world: &World) {
    world.image("1.1.0");
    up(world);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 25);
}

/// Whether there was an event of this kind.
pub fn has_event(world: &World, kind: &str) -> bool {
    world.events().iter().any(|e| e.starts_with(kind))
}

/// The same, from the beginning.
pub fn a_restart_at_a_quarter(world: &mut World) {
    at_a_quarter(world);
    proxy_restarts(world);
}

/// Scenario 10: the proxy is gone while a rollout stands at 25 %, and comes back. Meanwhile nothing is known and nothing goes
/// on; afterwards the share is what it was.
pub fn proxy_restarts(world: &mut World) {
    world.stop_proxy();
    world.wait_for_status("1.1.0", "frozen");
    assert!(has_event(world, "proxy_lost"), "{:#?}", world.events());
    let weight = revision(&world.status(), "1.1.0")["actual_weight"].clone();
    assert!(weight.is_null(), "what cannot be read back is not known: {weight}");
    world.start_proxy();
    // Before anybody may have set it again: what it began with is what was set.
    let load = Load::start(world.listen, 6);
    world.wait_for_share("1.1.0", 25);
    world.wait_for_status("1.1.0", "running");
    assert!(has_event(world, "proxy_back"), "{:#?}", world.events());
    let (share, requests) = share(world, "1.1.0", 4_000);
    eprintln!("MEASURED after the restart: 25 % set, {share:.2} % of {requests}");
    assert!((share - 25.0).abs() < 3.0, "{share} % of {requests}");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
    world.ok(&["abort", "web", "--wait"]);
    world.assert_no_orphan();
}

/// A candidate that can be told to take its time over every request.
pub fn slow_by_environment() -> Setup {
    Setup { steps: r#"{ weight = 50, pause = "manual" }"#, env_file: Some(String::new()), ..Setup::default() }
}

/// Scenario 22: a request that no drain outlasts. Its instance waits for the deadline, it is said what was left, and then the
/// abort goes on to its end.
pub fn a_drain_has_a_deadline(world: &World) {
    world.image("1.1.0");
    world.edit("deadline = \"10s\"", "deadline = \"3s\"");
    up(world);
    let stable = world.there();
    std::fs::write(world.path().join("web.env"), "SAMPLE_LATENCY_MS=60000\n").unwrap();
    let mut deploy = world.spawn(&["deploy", "web", "1.1.0"]);
    world.wait_for_share("1.1.0", 50);
    let held = world.wait("a request that the candidate holds", || {
        let mut stream = TcpStream::connect(world.listen).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: held\r\n\r\n").ok()?;
        let answer = stream.read(&mut [0]);
        answer.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock).then_some(stream)
    });
    let pressed = Instant::now();
    world.ok(&["abort", "web", "--wait"]);
    let took = pressed.elapsed();
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let events = world.events();
    let left: Vec<&String> = events.iter().filter(|e| e.contains("drain deadline passed with")).collect();
    eprintln!("MEASURED a request held through an abort: over after {took:?}; {left:?}");
    assert_eq!(left.len(), 1, "{events:#?}");
    assert!(took >= Duration::from_secs(3), "it was waited for: {took:?}");
    drop(held);
    assert_eq!(world.status()["services"][0]["rollout"]["status"], "aborted");
    world.assert_no_orphan();
    assert_eq!(world.there(), stable);
}

/// Hardly any wait after each step.
pub fn hasty() -> Setup {
    Setup {
        steps: r#"{ weight = 5, healthy_for = "100ms" }, { weight = 50, healthy_for = "100ms" }"#,
        ..timed()
    }
}

pub fn timed() -> Setup {
    Setup {
        steps: r#"{ weight = 5, healthy_for = "1s" }, { weight = 25, healthy_for = "1s" }, { weight = 50, healthy_for = "1s" }"#,
        keep: "1s",
        ..Setup::default()
    }
}

/// Steps that pass by themselves, and little patience.
pub fn short() -> Setup {
    Setup { progress_deadline: "4s", ..timed() }
}

/// A candidate that never becomes healthy, and one that crashes: no request to the one, no candidate left of either.
pub fn bad_candidates(world: &World) {
    world.image("1.1.0-unhealthy");
    world.image("1.1.0-crashing");
    up(world);
    let stable = world.there();
    let load = Load::start(world.listen, 3);

    let mut deploy = world.spawn(&["deploy", "web", "1.1.0-unhealthy"]);
    world.wait_for_status("1.1.0-unhealthy", "running");
    let mut most = 0;
    let mut seen = 0;
    while deploy.child.try_wait().unwrap().is_none() {
        for endpoint in world.endpoints("1.1.0-unhealthy") {
            if let Some(count) = crate::world::outside::count_of(endpoint) {
                seen += 1;
                most = most.max(count["served"].as_u64().unwrap());
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    assert!(seen > 0, "the candidate ran and was asked");
    assert_eq!(most, 0, "requests reached a candidate that never was healthy");
    assert!(load.of("1.1.0-unhealthy").is_none());
    let closed = if world.backends.closes_connections() { 3 * 4 } else { 0 };
    assert!(load.failed() <= closed, "{:?}", load.how());
    let rollout = world.status()["services"][0]["rollout"].clone();
    assert_eq!(rollout["status"], "aborted", "{rollout}");
    assert!(rollout["reason"].as_str().unwrap().contains("no progress"), "{rollout}");
    world.assert_no_orphan();
    assert_eq!(world.there(), stable);

    let mut deploy = world.spawn(&["deploy", "web", "1.1.0-crashing"]);
    assert_eq!(deploy.end(LONG), 3, "{}", deploy.said());
    let rollout = world.status()["services"][0]["rollout"].clone();
    assert_eq!(rollout["status"], "aborted", "{rollout}");
    assert!(rollout["reason"].as_str().unwrap().contains("exited with 1"), "{rollout}");
    let report = load.finish();
    eprintln!("MEASURED crash of a candidate: {} of {} requests failed", report.failed, report.requests);
    // Each crash may cost the request that caused it, and those beside it in the same instance.
    assert!(report.failed <= 6 + 2 * closed, "{report:?}");
    world.assert_no_orphan();
    assert_eq!(world.there(), stable);
}

/// Scenario 3 and 2: one controller, whoever is first; and a killed one blocks nobody.
pub fn one_controller(world: &World) {
    if let Some(pid) = world.controller() {
        kill(pid, Signal::TERM);
        world.wait("the controller ends", || world.controller().is_none().then_some(()));
    }
    for round in ["none ran", "one was killed"] {
        let mut all: Vec<_> = (0..20).map(|_| world.spawn(&["status"])).collect();
        for one in &mut all {
            assert_eq!(one.end(LONG), 0, "{round}: {}", one.said());
        }
        // Those that came second are on their way out.
        let serving = world.wait("exactly one controller", || {
            let serves = |pid: &u32| {
                let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&cmdline).contains("\0serve\0")
            };
            let serving: Vec<u32> = world.processes().into_iter().filter(serves).collect();
            (serving.len() == 1).then_some(serving)
        });
        assert_eq!(world.controller(), serving.first().copied());
        let started = world.events().iter().filter(|e| e.starts_with("controller_started")).count();
        eprintln!("MEASURED 20 at once, {round}: 1 controller, {started} starts in the journal");
        world.kill_controller();
    }
    // A second one is refused with who holds it.
    world.ok(&["status"]);
    let (code, said) = world.run(&["serve"]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(&format!("process {}", world.controller().unwrap())), "{said}");
}

/// Scenario 4: the one who deploys is a client; killing it changes nothing.
pub fn clients_die(world: &World) {
    world.image("1.1.0");
    up(world);
    let load = Load::start(world.listen, 2);
    let deploy = world.spawn(&["deploy", "web", "1.1.0", "--by", "ci#1"]);
    world.wait_for_share("1.1.0", 5);
    kill(deploy.child.id(), Signal::KILL);
    drop(deploy);
    // Another client follows by promoting, and is told to go as a CI system does it.
    for signal in [Signal::INT, Signal::TERM] {
        let decision = world.service().unwrap()["rollout"]["decision"].clone();
        let mut follower = world.spawn(&["promote", "web", "--wait", "--by", "ci#2"]);
        world.wait("promoted", || (world.service()?["rollout"]["decision"] != decision).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        kill(follower.child.id(), signal);
        let code = follower.end(LONG);
        assert_ne!(code, 0, "{signal:?}: {}", follower.said());
    }
    world.wait_for_share("1.1.0", 50);
    let (_, status) = world.phase("1.1.0").unwrap();
    assert_eq!(status, "running");
    world.ok(&["promote", "web", "--wait"]);
    assert_eq!(world.status()["services"][0]["stable"]["version"], "1.1.0");
    let report = load.finish();
    assert_eq!(report.failed, 0, "{report:?}");
    let events = world.events();
    let by = |kind: &str, who: &str| events.iter().any(|e| e.starts_with(kind) && e.contains(who));
    assert!(by("rollout_started", "ci#1"), "{events:#?}");
    assert!(by("promote", "ci#2"), "{events:#?}");
}

/// Scenario 35: a value of the env file reaches the application and is found nowhere else.
pub fn secret_stays_secret(world: &World, secret: &str) {
    up(world);
    world.ok(&["events"]);
    let snapshot = world.snapshot().unwrap().to_string();
    assert!(!snapshot.contains(secret), "in the snapshot");
    assert!(!world.status().to_string().contains(secret), "in the status");
    let mut files = 0;
    let mut dirs = vec![world.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && entry.file_name() != "web.env" {
                files += 1;
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
                assert!(!found, "in {}", entry.path().display());
            }
        }
    }
    assert!(files > 5, "the journal, its log, the lock, … were looked at: {files}");
    let mut looked = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        looked += 1;
        assert!(
            !String::from_utf8_lossy(&cmdline).contains(secret),
            "in the arguments of {:?}",
            entry.file_name()
        );
    }
    assert!(looked > 5);
}
