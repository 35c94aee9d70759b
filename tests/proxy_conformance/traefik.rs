//! The suite against a real Traefik, and what is Traefik's own.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pilothouse::fleet::names::Bp;
use pilothouse::proxy::traefik::{Settings, Traefik};
use pilothouse::proxy::{Direction, Proxy as _, ProxyError};
use pilothouse::rollout::world::Slot;

use crate::servers::traefik::write_router;
use crate::suite;
use crate::support::{
    Backend, Frozen, Harness, Held, Load, OWNER, ask, bp, client, get, post, requests, route, service,
};
use crate::visitors::{self, sticky, with_rules};

conforms!(
    Harness::traefik().await;
    suite: shares,
    changes_lose_nothing,
    drain,
    slots_alternate,
    dead_candidate,
    hidden_failures_are_counted,
    candidates_that_all_hang_up_lose_nothing,
    the_candidates_that_stay_share_alike,
    counters,
    restart_keeps,
    checks,
    scenario_11_another_address_is_used_and_read_back,
    scenario_14_a_drained_instance_gets_nothing_through_reloads,
    scenario_22_a_websocket_is_held_through_a_drain,
    before_the_first_release
);

conforms!(
    Harness::traefik().await;
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);

/// The driver of a second controller, or one with other settings.
fn driver(h: &Harness, settings: Settings, owner: &str) -> Traefik {
    Traefik::new("lb".parse().unwrap(), settings, h.fleet.clone(), owner.into())
}

fn settings(h: &Harness) -> Settings {
    let text = std::fs::read_to_string(h.path().join("traefik.yml")).unwrap();
    let api = text.split("pilothouse:\n    address: \"").nth(1).unwrap().split('"').next().unwrap();
    Settings { dir: h.path().join("own"), api: api.parse().unwrap() }
}

fn ours(h: &Harness) -> String {
    std::fs::read_to_string(h.path().join("own/pilothouse-shop.yml")).unwrap()
}

/// Asserts that this was refused, or is unknown, with these words.
fn says(result: &Result<(), ProxyError>, unknown: bool, words: &str) {
    let fits = match result {
        Err(ProxyError::Refused(m)) => !unknown && m.as_str().contains(words),
        Err(ProxyError::Unknown(m)) => unknown && m.as_str().contains(words),
        _ => false,
    };
    assert!(fits, "wanted {words:?}: {result:?}");
}

/// An abort, from the call to the read-back, with and without the wait that Traefik has by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_is_in_force_when_it_returns_whatever_traefik_waits_for() {
    for (throttle, aborts) in [("10ms", 20), ("2s", 3)] {
        let Some(h) = Harness::traefik_of(true, throttle).await else { return };
        let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
        let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
        let mut took = Vec::new();
        for _ in 0..aborts {
            h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
            let mut held = Held::open(h.listen).await;
            assert_eq!(held.get().await, (200, b.id.to_string()));
            let start = Instant::now();
            h.apply(&back, Direction::Back).await.unwrap();
            took.push(start.elapsed());
            // A connection that was there before follows with its next request.
            assert_eq!(held.get().await, (200, a.id.to_string()));
            h.settled(&back).await;
        }
        took.sort();
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        eprintln!(
            "MEASURED an abort behind Traefik, throttled {throttle}: {median:?} at the median, {most:?} at most"
        );
        let services = crate::support::declared();
        let found = h.proxy.examine(&services.iter().collect::<Vec<_>>()).await;
        let told = found.iter().any(|a| a.cure.as_str().contains("providersThrottleDuration"));
        if throttle == "2s" {
            assert!(told && found.iter().all(|a| !a.fails), "{found:?}");
        }
    }
}

/// Scenario 10: somebody else changes something at every phase.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_10_a_change_by_somebody_else_keeps_the_share() {
    let Some(h) = Harness::traefik().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::ZERO)).await;
    let load = Load::start(h.listen, 4);
    for percent in [0, 5, 50, 100, 0] {
        let want = route(Slot::A, &[&a], &[&b], bp(percent));
        h.up(&want).await;
        h.reload().await;
        h.settled(&want).await;
        let (before_a, before) = (a.hits(), b.hits());
        load.more(400).await;
        let (in_a, in_b) = ((a.hits() - before_a) as f64, (b.hits() - before) as f64);
        let share = 100.0 * in_b / (in_a + in_b);
        assert!((share - f64::from(percent)).abs() < 3.0, "{percent} % was {share} %");
    }
    let (done, failed) = load.end().await;
    assert!(failed.is_empty(), "{} of {done}: {:?}", failed.len(), failed.first());
}

/// Scenario 13: a file of the operator's cannot be read, which holds all back. Nothing is changed by going up, now or
/// later; the way back is in force as soon as it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_file_that_cannot_be_read_is_not_taken_for_done() {
    let Some(h) = Harness::traefik().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let good = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&good).await;
    let (broken, before) = (h.path().join("own/zz.yml"), ours(&h));
    std::fs::write(&broken, "http: { nonsense: 1 }\n").unwrap();
    says(&h.apply(&route(Slot::A, &[&a], &[&b], bp(60)), Direction::Up).await, true, "its log says which");
    assert_eq!(ours(&h), before);
    h.settled(&good).await;
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    says(&h.apply(&back, Direction::Back).await, true, "its log says which");
    assert!(!h.read().await.serves(&back), "not done");
    requests(h.listen, 80).await;
    std::fs::remove_file(&broken).unwrap();
    for _ in 0..500 {
        if h.read().await.serves(&back) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    h.settled(&back).await;
    let hits = b.hits();
    requests(h.listen, 80).await;
    assert_eq!(b.hits(), hits);
}

/// Scenario 16: Traefik's own check counts one failure as the end. While it says so of everything that stable has, stable
/// is asked all the same, and what may not be repeated too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_16_a_check_that_fails_everywhere_stops_nobody() {
    let Some(h) = Harness::traefik().await else { return };
    let (a1, a2, b) = (Backend::start(1, 1).await, Backend::start(1, 2).await, Backend::start(2, 1).await);
    let mut want = route(Slot::A, &[&a1, &a2], &[&b], bp(50));
    for health in [&mut want.health.a, &mut want.health.b] {
        health.probe = pilothouse::fleet::model::Probe::Http { path: "/health".into() };
        health.interval = pilothouse::fleet::names::Millis(50);
    }
    for x in [&a1, &a2, &b] {
        x.unhealthy.store(true, Ordering::SeqCst);
    }
    h.up(&want).await;
    for _ in 0..500 {
        let back = h.read().await;
        let ends = back.workers[0].slots.a.endpoints.iter().chain(&back.workers[0].slots.b.endpoints);
        if ends.clone().all(|e| e.up == Some(false)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (hits, before) = (a1.hits() + a2.hits(), b.hits());
    requests(h.listen, 80).await;
    for _ in 0..20 {
        assert_eq!(post(h.listen, "x").await.0, 200);
    }
    assert_eq!(a1.hits() + a2.hits() - hits, 100, "stable answered everything");
    assert_eq!(b.hits(), before, "a candidate of which the check says that it is down gets nothing");
}

/// Only what may be repeated is: a POST that a candidate has read and not answered fails, and reaches nobody else; one that
/// nobody took goes to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_repeated_is_not() {
    let Some(h) = Harness::traefik().await else { return };
    let (a, mut b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
    assert_eq!(post(h.listen, "x").await, (200, b.id.to_string()));
    b.hang_up.store(true, Ordering::SeqCst);
    let before = b.hits();
    assert_eq!(post(h.listen, "x").await.0, 502);
    assert_eq!((a.hits(), b.hits() - before), (0, 1), "once, and nowhere else");
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string(), "a GET is repeated");
    // A large body is neither kept nor cut.
    let (b2, b3) = (Backend::start(2, 2).await, Backend::start(2, 3).await);
    b.kill().await;
    h.up(&route(Slot::A, &[&a], &[&b, &b2, &b3], Bp::FULL)).await;
    let body = "x".repeat(3_000_000);
    for _ in 0..9 {
        let (status, _) = post(h.listen, &body).await;
        assert_eq!(status, 200, "a server that takes no connection is passed over");
    }
}

/// A newcomer's place costs them none of the application's own cookies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_comes_beside_the_applications_own_cookies() {
    let Some(h) = Harness::traefik().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&sticky(route(Slot::A, &[&a], &[&b], bp(50)))).await;
    let answer = ask(&client(), h.listen, &[("x-set-cookies", "1")]).await.unwrap();
    let own: Vec<_> = answer.cookies.iter().filter(|c| !c.starts_with("ph_shop_web=")).collect();
    assert_eq!(own, ["session=1; Path=/app; HttpOnly", "theme=dark"], "{answer:?}");
    assert_eq!(answer.cookies.len(), 3);
    // A place that a visitor claims to have been thrown is none.
    for n in 0..20 {
        let (place, header) = (n * 500, (n * 500).to_string());
        let answer = ask(&client(), h.listen, &[("x-pilothouse-place", &header)]).await.unwrap();
        let told = answer.place();
        assert_eq!(told < 5000, answer.body == b.id.to_string(), "claimed {place}, told {told}");
    }
}

/// Files of another controller are never touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_owner_is_refused() {
    let Some(h) = Harness::traefik().await else { return };
    let a = Backend::start(1, 1).await;
    let mine = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&mine).await;
    let before = ours(&h);
    let other = driver(&h, settings(&h), "other@there");
    for direction in [Direction::Up, Direction::Back] {
        let error = other.apply(&[route(Slot::A, &[], &[], Bp::ZERO)], direction).await.unwrap_err();
        assert!(matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(OWNER)), "{error:?}");
    }
    assert!(matches!(other.prepare(&[service()]).await, Err(ProxyError::Foreign(_))));
    assert_eq!(ours(&h), before);
    h.settled(&mine).await;
}

/// A Traefik that does not run, or hangs, is unknown, never "done"; an abort is on the disk for when it starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_down_or_hangs_is_unknown_and_starts_right() {
    let Some(mut h) = Harness::traefik().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    let pid = std::fs::read_to_string(h.path().join("traefik.pid")).unwrap();
    let frozen = Frozen::new(&pid).await;
    let start = Instant::now();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    assert!(matches!(h.proxy.counters().await, Err(ProxyError::Unknown(_))));
    assert!(start.elapsed() < Duration::from_secs(20), "within a deadline");
    drop(frozen);
    h.stop();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    let before = ours(&h);
    says(&h.apply(&route(Slot::A, &[&a], &[&b], bp(60)), Direction::Up).await, true, "does not answer");
    assert_eq!(ours(&h), before, "who cannot be asked is told nothing");
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    says(&h.apply(&back, Direction::Back).await, true, "does not answer");
    h.start().await;
    h.settled(&back).await;
}

/// What is missing in the operator's configuration is named as it must be typed, and a doctor finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_lines_are_named() {
    let Some(h) = Harness::traefik_of(false, "10ms").await else { return };
    let a = Backend::start(1, 1).await;
    let want = route(Slot::A, &[&a], &[], Bp::ZERO);
    let line = "http: routers: shop_web: rule:";
    let before = ours(&h);
    says(&h.apply(&want, Direction::Up).await, false, line);
    assert_eq!(ours(&h), before);
    let services = crate::support::declared();
    let services: Vec<_> = services.iter().collect();
    let found = h.proxy.examine(&services).await;
    assert!(found.iter().any(|a| a.fails && a.what.as_str().contains(line)), "{found:?}");
    // With a service of its own it is no parent.
    let own = h.path().join("own/op.yml");
    let text = "http: { routers: { shop_web: { rule: 'PathPrefix(`/`)', entryPoints: [web], service: shop_web } } }\n";
    std::fs::write(&own, text).unwrap();
    let mut told = Ok(());
    for _ in 0..200 {
        told = h.proxy.can(&service(), &[], false).await;
        if matches!(&told, Err(e) if !e.to_string().contains(line)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    says(&told, false, "`service:`");
    write_router(&settings(&h).dir, &h.fleet);
    for _ in 0..200 {
        if h.proxy.can(&service(), &[], true).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    h.up(&want).await;
    assert_eq!(h.proxy.examine(&services).await, []);
    let host = visitors::rule(pilothouse::fleet::model::RuleBy::Header, "Host", "x");
    let mut bad = want.clone();
    bad.rules = vec![host];
    says(&h.apply(&bad, Direction::Up).await, false, "Host");
    h.settled(&want).await;
}

/// Scenario 12: what this Traefik cannot do is known before anything is begun, with what to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_12_a_plan_that_this_traefik_cannot_follow_is_refused() {
    let Some(h) = Harness::traefik_of(false, "10ms").await else { return };
    says(&h.proxy.can(&service(), &[], false).await, false, "http: routers: shop_web: rule:");
    write_router(&settings(&h).dir, &h.fleet);
    let rules = with_rules(route(Slot::A, &[], &[], Bp::ZERO)).rules;
    let end = Instant::now() + Duration::from_secs(5);
    // The router is enough for everything, as soon as Traefik has read it.
    while let Err(e) = h.proxy.can(&service(), &rules, true).await {
        assert!(Instant::now() < end, "{e}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let host = visitors::rule(pilothouse::fleet::model::RuleBy::Header, "Host", "x");
    says(&h.proxy.can(&service(), &[host], false).await, false, "Host");
}

/// What somebody changes by hand is seen, and set right; and what an operator is told to type in an emergency does what it
/// says, also to a tester.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_hand_are_seen_and_set_right() {
    let Some(h) = Harness::traefik().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = sticky(with_rules(route(Slot::B, &[&a], &[&b], bp(70))));
    let changes = [
        (format!("http://{}", a.addr), "http://127.0.0.1:9".to_owned()),
        ("\"service\": \"shop_web_a_get\"".into(), "\"service\": \"shop_web_b_get\"".into()),
        ("X-Variant".into(), "X-Other".into()),
        ("ph_shop_web=700;".into(), "ph_shop_web=701;".into()),
        ("\"priority\": 40,".into(), "\"priority\": 1,".into()),
        (
            "\"shop_web_none\": {".into(),
            "\"shop_web_more\": { \"loadBalancer\": { \"servers\": [] } }, \"shop_web_none\": {".into(),
        ),
    ];
    for (n, (from, to)) in changes.iter().enumerate() {
        h.up(&want).await;
        let text = ours(&h);
        assert!(text.contains(from.as_str()), "{from} in {text}");
        // The rules are named in what is said of the route as well, which stays.
        let change = |line: &str| match line.contains("\"X-Pilothouse\"") {
            true => line.to_owned(),
            false => line.replace(from.as_str(), to),
        };
        let changed = text.lines().map(change).collect::<Vec<_>>().join("\n");
        std::fs::write(h.path().join("own/pilothouse-shop.yml"), changed).unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        // Written in place it is empty for a moment, and the way to ask is gone.
        let read = async || h.proxy.read_back().await.ok().and_then(|mut all| all.remove(&service()));
        while read().await.is_none_or(|back| back.serves(&want)) {
            assert!(Instant::now() < end, "change {n}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(h.read().await.reaches(Slot::A), "change {n}: the worst is assumed");
    }
    // With the file goes the way to ask, and comes back.
    std::fs::remove_file(h.path().join("own/pilothouse-shop.yml")).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while h.proxy.read_back().await.is_ok() {
        assert!(Instant::now() < end, "it still answers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    h.up(&want).await;
    let tester = || async { ask(&client(), h.listen, &[("x-variant", "b")]).await.unwrap().body };
    assert_eq!(tester().await, a.id.to_string());
    let script = h.proxy.by_hand(&want);
    let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
    assert!(out.status.success(), "{script}\n{out:?}");
    let end = Instant::now() + Duration::from_secs(5);
    while h.read().await.reaches(Slot::A) {
        assert!(Instant::now() < end, "{:?}", h.read().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = a.hits();
    requests(h.listen, 80).await;
    assert_eq!(tester().await, b.id.to_string());
    assert_eq!(a.hits(), before);
    h.up(&sticky(route(Slot::B, &[&a], &[&b], Bp::FULL))).await;
    assert!(!h.path().join("own/pilothouse-shop-web-by-hand.yml").exists());
    h.up(&want).await;
    assert_eq!(tester().await, a.id.to_string());
}

/// A second service, prepared before it was ever released, answers 503 and the first goes on; taken down it does again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_there_before_its_first_release() {
    let Some(h) = Harness::traefik().await else { return };
    let a = Backend::start(1, 1).await;
    let web = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&web).await;
    let api: pilothouse::fleet::names::ServiceName = "api".parse().unwrap();
    h.proxy.prepare(&[service(), api.clone()]).await.unwrap();
    let text =
        "http: { routers: { shop_api: { rule: 'Host(`api`)', priority: 100, entryPoints: [web] } } }\n";
    std::fs::write(h.path().join("own/api.yml"), text).unwrap();
    let status = async || {
        let mut held = Held::open(h.listen).await;
        held.get_from("api").await
    };
    let end = Instant::now() + Duration::from_secs(5);
    while status().await.0 != 503 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string());
    let b = Backend::start(2, 1).await;
    let other = pilothouse::rollout::world::Route { service: api, ..route(Slot::A, &[&b], &[], Bp::ZERO) };
    h.proxy.apply(&[web.clone(), other], Direction::Up).await.unwrap();
    assert_eq!(status().await, (200, b.id.to_string()));
    h.up(&web).await;
    assert_eq!(status().await.0, 503);
    assert_eq!(h.proxy.read_back().await.unwrap().len(), 2);
}

/// The longest names there may be, and those that look like others, make a file that Traefik takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_names_make_a_file_that_traefik_takes() {
    let Some(h) = Harness::traefik().await else { return };
    let a = Backend::start(1, 1).await;
    let mut drivers = Vec::new();
    for (fleet, service) in
        [("f".repeat(32), "s".repeat(40)), ("a--b".into(), "x".into()), ("a".into(), "b--x".into())]
    {
        let (fleet, name): (pilothouse::fleet::names::FleetName, pilothouse::fleet::names::ServiceName) =
            (fleet.parse().unwrap(), service.parse().unwrap());
        let text = format!(
            "http: {{ routers: {{ {fleet}_{name}: {{ rule: 'Host(`{fleet}`)', entryPoints: [web] }} }} }}\n"
        );
        std::fs::write(h.path().join(format!("own/{fleet}.yml")), text).unwrap();
        let driver = Traefik::new("lb".parse().unwrap(), settings(&h), fleet.clone(), OWNER.into());
        driver.prepare(std::slice::from_ref(&name)).await.unwrap();
        let mut full = sticky(with_rules(route(Slot::A, &[&a], &[], Bp::ZERO)));
        full.rules.push(visitors::rule(pilothouse::fleet::model::RuleBy::Header, "x-t", "{{ .x }} \"`\\ {{"));
        full.rules.sort();
        drivers.push((driver, fleet, pilothouse::rollout::world::Route { service: name, ..full }));
    }
    for (driver, fleet, full) in &drivers {
        let end = Instant::now() + Duration::from_secs(5);
        while driver.can(&full.service, &full.rules, true).await.is_err() {
            assert!(Instant::now() < end, "{fleet}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        driver.apply(std::slice::from_ref(full), Direction::Up).await.unwrap();
        let back = driver.read_back().await.unwrap().remove(&full.service).unwrap();
        assert!(back.serves(full), "{fleet}: {back:#?}");
    }
}

/// Scenario 40: without numbers it is said that there are none, and none are made up; when they come back they go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_40_numbers_that_are_not_there_are_missed() {
    let Some(mut h) = Harness::traefik().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let file = h.path().join("traefik.yml");
    let with = std::fs::read_to_string(&file).unwrap();
    let (head, tail) = with.split_once("metrics:").unwrap();
    let without = format!("{head}providers:{}", tail.split_once("providers:").unwrap().1);
    for (text, counts) in [(&without, 0), (&with, 80), (&without, 80)] {
        std::fs::write(&file, text).unwrap();
        h.restart().await;
        requests(h.listen, 80).await;
        let end = Instant::now() + Duration::from_secs(2);
        while h.proxy.counters().await.unwrap()[&a.id].requests < counts && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(h.proxy.counters().await.unwrap()[&a.id].requests, counts);
        let said = h.proxy.warning().is_some_and(|w| w.as_str().contains("manualRouting"));
        assert_eq!(said, *text == without);
    }
}

/// Counters go on over a restart of Traefik, which begins with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_go_on_over_a_restart() {
    let Some(mut h) = Harness::traefik().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    for round in 1..=2_u64 {
        requests(h.listen, 80).await;
        let end = Instant::now() + Duration::from_secs(5);
        while h.proxy.counters().await.unwrap()[&a.id].requests < 80 * round {
            assert!(Instant::now() < end, "{:?}", h.proxy.counters().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(h.proxy.counters().await.unwrap()[&a.id].requests, 80 * round);
        h.restart().await;
    }
    assert_eq!(h.proxy.warning(), None);
    h.proxy.forget(&|id| *id == a.id);
}
