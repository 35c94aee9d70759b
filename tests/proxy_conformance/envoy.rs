//! The suite against a real Envoy, and what is Envoy's own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pilothouse::fleet::model::{Rule, RuleBy};
use pilothouse::fleet::names::{Bp, ServiceName};
use pilothouse::proxy::envoy::{self, Envoy, Settings};
use pilothouse::proxy::{Direction, Proxy as _, ProxyError};
use pilothouse::rollout::world::{EndpointState, Route, Slot};

use crate::operators;
use crate::servers::envoy::{Operator, settings as settings_in};
use crate::suite;
use crate::support::{
    Backend, Frozen, Harness, Held, ask, bp, client, echoes, free_addr, get, requests, route, service,
    websocket,
};
use crate::visitors::{self, sticky, with_rules};

// Without `checks`: its instances are checked by Pilothouse alone.
conforms!(
    Harness::envoy().await;
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
    scenario_11_another_address_is_used_and_read_back,
    scenario_14_a_drained_instance_gets_nothing_through_reloads,
    scenario_22_a_websocket_is_held_through_a_drain,
    before_the_first_release
);

conforms!(
    Harness::envoy().await;
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);

fn settings(h: &Harness) -> Settings {
    settings_in(h.path(), std::fs::read_to_string(h.path().join("admin")).unwrap().parse().unwrap())
}

/// Another driver for the same Envoy.
fn driver(h: &Harness, settings: Settings, owner: &str) -> Envoy {
    Envoy::new("lb".parse().unwrap(), settings, h.fleet.clone(), owner.into())
}

fn routes_file(h: &Harness) -> std::path::PathBuf {
    h.path().join("own/shop_web/routes.json")
}

/// Puts a file in another's place, as an operator's editor or script does.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("by-hand");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Waits for something to become so.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process that runs this proxy.
fn pid(h: &Harness) -> String {
    let ours = format!("{}\0", h.path().join("op.yaml").display());
    let all =
        std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let is = |pid: &String| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&ours))
    };
    all.into_iter().find(is).expect("Envoy runs")
}

fn refused(result: &Result<(), ProxyError>, line: &str) {
    assert!(matches!(result, Err(ProxyError::Refused(m)) if m.as_str().contains(line)), "{result:?}");
}

/// A share closes no connection, and those that are open get the new one with their next request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_changes_without_a_reload() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut c = Held::open(h.listen).await;
        assert_eq!(c.get().await, (200, b.id.to_string()));
        held.push(c);
    }
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    let mut took = Vec::new();
    for _ in 0..20 {
        h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
        let start = Instant::now();
        h.apply(&back, Direction::Back).await.unwrap();
        took.push(start.elapsed());
        h.settled(&back).await;
    }
    let hits = b.hits();
    for c in &mut held {
        assert_eq!(c.get().await, (200, a.id.to_string()));
    }
    assert_eq!(b.hits(), hits);
    took.sort();
    eprintln!("MEASURED an abort behind Envoy: {:?} at the median, {:?} at most", took[10], took[19]);
}

/// Scenario 10: somebody else puts another process in Envoy's place (a hot restart) at every phase, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_10_a_hot_restart_by_somebody_else_keeps_the_share() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    for percent in [0, 50, 100] {
        let want = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(percent))));
        h.up(&want).await;
        h.reload().await;
        h.settled(&want).await;
        let before = b.hits();
        requests(h.listen, 400).await;
        let share = (b.hits() - before) as f64 / 4.0;
        assert!((share - f64::from(percent)).abs() < 12.0, "{percent} % was {share} %");
    }
    let want = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(10))));
    h.up(&want).await;
    h.reload().await;
    visitors::keeps(&h, &a, &b).await;
}

/// Scenario 12: what this Envoy cannot do is known before anything is begun, with what to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_12_a_plan_that_this_envoy_cannot_follow_is_refused() {
    let Some(h) = Harness::envoy_of(&Operator { places: false, ..Operator::ALL }).await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
    h.proxy.can(&service(), &with_rules(route(Slot::A, &[], &[], Bp::ZERO)).rules, false).await.unwrap();
    refused(&h.proxy.can(&service(), &[], true).await, &envoy::place_line());
}

/// What is missing in the operator's configuration is named as it must be typed, and nothing is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_lines_are_named() {
    let Some(h) = Harness::envoy_of(&Operator { routes: false, ..Operator::ALL }).await else { return };
    let a = Backend::start(1, 1).await;
    let plain = route(Slot::A, &[&a], &[], Bp::ZERO);
    let before = std::fs::read_to_string(routes_file(&h)).unwrap();
    let line = envoy::routes_line(&settings(&h).dir, &h.fleet, &service());
    refused(&h.proxy.can(&service(), &[], false).await, &line);
    refused(&h.apply(&plain, Direction::Up).await, &line);
    assert_eq!(std::fs::read_to_string(routes_file(&h)).unwrap(), before);
    let services = crate::support::declared();
    let found = h.proxy.examine(&services.iter().collect::<Vec<_>>()).await;
    assert!(found.iter().any(|f| f.fails && f.what.as_str().contains(&line)), "{found:?}");
    drop(h);
    let Some(h) = Harness::envoy_of(&Operator { clusters: false, ..Operator::ALL }).await else { return };
    let line = envoy::clusters_line(&settings(&h).dir, &h.fleet);
    refused(&h.apply(&plain, Direction::Up).await, &line);
}

/// Scenario 13: what Envoy refuses changes nothing: not the files, not the traffic; and it holds no abort back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_refused_configuration_changes_nothing() {
    let Some(mut h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let b2 = Backend::start(2, 2).await;
    let good = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&good).await;
    let files = || {
        ["routes.json", "endpoints_a.json", "endpoints_b.json"]
            .map(|f| std::fs::read_to_string(h.path().join("own/shop_web").join(f)).unwrap())
    };
    let before = files();
    let mut bad = route(Slot::A, &[&a], &[&b, &b2], bp(60));
    // A name that no header has, and no fleet file.
    bad.rules = vec![visitors::rule(RuleBy::Header, "x\ny", "1")];
    refused(&h.apply(&bad, Direction::Up).await, "Envoy refuses");
    assert_eq!(files(), before);
    until("what was is in force again", async || h.read().await.serves(&good)).await;
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.apply(&back, Direction::Back).await.unwrap();
    h.settled(&back).await;
    h.restart().await;
    h.settled(&back).await;
}

/// Scenario 13: files that somebody broke by hand are seen by Envoy's refusal, which keeps what it had; the next write puts
/// them right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_broken_files_are_put_right() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let good = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&good).await;
    for file in ["shop_web/routes.json", "shop_web/endpoints_b.json"] {
        put(&h.path().join("own").join(file), "{ \"version_info\": 7");
        requests(h.listen, 80).await;
        h.settled(&good).await;
        let more = route(Slot::A, &[&a], &[&b], bp(60));
        h.up(&more).await;
        h.up(&good).await;
    }
}

/// Scenario 22: while an old process still ends what it has (a hot restart), nobody knows to whom that goes: what drains is
/// not free until it has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_22_what_an_old_process_may_still_use_is_not_free() {
    let Some(h) = Harness::envoy().await else { return };
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    h.up(&route(Slot::A, &[&a1], &[], Bp::ZERO)).await;
    let mut ws = websocket(&h).await;
    echoes(&mut ws).await;
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    want.slots.a.endpoints[0].state = EndpointState::Drain;
    h.up(&want).await;
    let reload = h.reload();
    let look = async {
        let mut seen = Vec::new();
        for _ in 0..40 {
            // In between nobody answers: unknown.
            if let Ok(all) = h.proxy.read_back().await {
                seen.push(all[&service()].in_flight(&a1.id));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    };
    let (seen, ()) = futures_util::future::join(look, reload).await;
    assert!(!seen.is_empty() && seen.iter().all(|n| *n > 0), "{seen:?}");
    h.is_free(&a1).await;
}

/// What may not be sent twice is not: a POST that a candidate hangs up on fails, a GET is answered by stable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_sent_twice_is_not() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
    b.hang_up.store(true, Ordering::SeqCst);
    let post = || {
        let request = hyper::Request::post(format!("http://{}/", h.listen));
        client().request(request.body(http_body_util::Empty::new()).unwrap())
    };
    assert_eq!(post().await.unwrap().status(), 503);
    assert_eq!((a.hits(), b.hits()), (0, 1));
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string());
    // What was never sent may be.
    let mut b = b;
    b.kill().await;
    assert_eq!(post().await.unwrap().status(), 200);
}

/// Files of another controller are never touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_owner_is_refused() {
    let Some(h) = Harness::envoy().await else { return };
    let a = Backend::start(1, 1).await;
    let mine = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&mine).await;
    let before = std::fs::read_to_string(routes_file(&h)).unwrap();
    let other = driver(&h, settings(&h), "other@there");
    for direction in [Direction::Up, Direction::Back] {
        let error = other.apply(&[route(Slot::A, &[], &[], Bp::ZERO)], direction).await.unwrap_err();
        assert!(
            matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(crate::support::OWNER)),
            "{error:?}"
        );
    }
    assert!(matches!(other.prepare(&[service()]).await, Err(ProxyError::Foreign(_))));
    assert_eq!(std::fs::read_to_string(routes_file(&h)).unwrap(), before);
    h.settled(&mine).await;
}

/// An Envoy that does not run is unknown, never "done"; an abort is on the disk for when it starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_down_is_unknown_and_starts_right() {
    let Some(mut h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    h.stop();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    let before = std::fs::read_to_string(routes_file(&h)).unwrap();
    let more = h.apply(&route(Slot::A, &[&a], &[&b], bp(60)), Direction::Up).await;
    assert!(matches!(&more, Err(ProxyError::Unknown(_))), "{more:?}");
    assert_eq!(std::fs::read_to_string(routes_file(&h)).unwrap(), before, "nothing is raised blindly");
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    let aborted = h.apply(&back, Direction::Back).await;
    assert!(matches!(&aborted, Err(ProxyError::Unknown(_))), "{aborted:?}");
    h.start().await;
    h.settled(&back).await;
}

/// Scenario 40, and an Envoy that hangs: nothing is known of it, and nothing late undoes an abort.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_40_an_envoy_that_hangs_is_unknown_and_cannot_undo() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
    let frozen = Frozen::new(&pid(&h)).await;
    let start = Instant::now();
    let (read, counted) = (h.proxy.read_back().await, h.proxy.counters().await);
    let up = h.apply(&route(Slot::A, &[&a], &[&b], bp(50)), Direction::Up).await;
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    let aborted = h.apply(&back, Direction::Back).await;
    let took = start.elapsed();
    drop(frozen);
    assert!(matches!((&read, &counted), (Err(ProxyError::Unknown(_)), Err(ProxyError::Unknown(_)))));
    assert!(
        matches!((&up, &aborted), (Err(ProxyError::Unknown(_)), Err(ProxyError::Unknown(_)))),
        "{up:?} {aborted:?}"
    );
    assert!(took < Duration::from_secs(20), "each call ends: {took:?}");
    until("the abort is in force as soon as Envoy goes on", async || {
        h.proxy.read_back().await.is_ok_and(|all| all[&service()].serves(&back))
    })
    .await;
    let before = b.hits();
    requests(h.listen, 80).await;
    assert_eq!(b.hits(), before);
}

/// What somebody changes by hand is seen, and set right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_hand_are_seen_and_set_right() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = route(Slot::A, &[&a], &[&b], bp(5));
    h.up(&want).await;
    let text = std::fs::read_to_string(routes_file(&h)).unwrap();
    let split = r#"{"name":"ph_shop_web_b","weight":500}"#;
    assert!(text.contains(split), "{text}");
    for by_hand in [
        text.replace(split, r#"{"name":"ph_shop_web_b","weight":9500}"#),
        text.replace(split, r#"{"name":"ph_shop_web_a","weight":500}"#),
        text.replacen(
            r#""routes":["#,
            r#""routes":[{"match":{"prefix":"/x"},"route":{"cluster":"ph_shop_web_b"}},"#,
            1,
        ),
    ] {
        put(&routes_file(&h), &by_hand);
        until("what was changed by hand is seen", async || !h.read().await.serves(&want)).await;
        let seen = h.read().await;
        assert!(seen.reaches(Slot::B) && seen.in_flight(&b.id) > 0, "anything is possible: {seen:?}");
        h.apply(&want, Direction::Back).await.unwrap();
        h.settled(&want).await;
    }
    let file = h.path().join("own/shop_web/endpoints_b.json");
    let text = std::fs::read_to_string(&file).unwrap();
    put(&file, &text.replace(&b.addr.port().to_string(), &a.addr.port().to_string()));
    until("another instance is seen", async || !h.read().await.serves(&want)).await;
    h.up(&want).await;
}

/// The commands that are printed for an operator do what they say, with one service or all on a listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_by_hand_works() {
    let Some(mut h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    for (stable, served, other) in [(Slot::A, &a, &b), (Slot::B, &b, &a)] {
        let want = sticky(with_rules(route(stable, &[&a], &[&b], bp(50))));
        h.up(&want).await;
        let commands = h.proxy.by_hand(&want);
        assert!(Command::new("sh").arg("-c").arg(&commands).status().unwrap().success(), "{commands}");
        let share = |back: &pilothouse::rollout::world::RouteReadback| {
            (back.highest(stable.other()), back.reaches(stable.other()))
        };
        until("it is in force", async || share(&h.read().await) == (Bp::ZERO, false)).await;
        h.restart().await;
        assert_eq!(share(&h.read().await), (Bp::ZERO, false));
        let before = other.hits();
        for _ in 0..20 {
            let answer = ask(&client(), h.listen, &[("x-variant", "b")]).await.unwrap();
            assert_eq!(answer.body, served.id.to_string());
        }
        assert_eq!(other.hits(), before);
    }
}

/// A second service, prepared while Envoy runs and before it was ever released, on a listener that serves all of them by
/// their domains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_listener_serves_all_services_by_their_domains() {
    let Some(h) = Harness::envoy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let c = Backend::start(3, 1).await;
    let web = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&web).await;
    let api: ServiceName = "api".parse().unwrap();
    h.proxy.prepare(&[service(), api.clone()]).await.unwrap();
    let (s, listen) = (settings(&h), free_addr());
    let op = h.path().join("op.yaml");
    let all = operators::envoy_listener(
        listen,
        &envoy::all_routes_line(&s.dir, &h.fleet),
        "",
        &envoy::place_line(),
    );
    std::fs::write(&op, std::fs::read_to_string(&op).unwrap() + &all).unwrap();
    h.reload().await;
    h.settled(&web).await;
    let ask_for = async |host: &str| ask(&client(), listen, &[("host", host)]).await.map(|a| a.body);
    assert_ne!(ask_for("api.test").await.unwrap(), c.id.to_string(), "nobody knows of its domain yet");
    let of = |service: ServiceName, domains: &[&str], web: &Route| Route {
        service,
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        ..web.clone()
    };
    let other = of(api.clone(), &["api.test"], &route(Slot::A, &[&c], &[], Bp::ZERO));
    h.proxy.apply(&[other.clone(), web.clone()], Direction::Up).await.unwrap();
    let mut read = h.proxy.read_back().await.unwrap();
    assert!(read.remove(&service()).unwrap().serves(&web) && read.remove(&api).unwrap().serves(&other));
    h.proxy.can(&api, &[], true).await.unwrap();
    for host in ["api.test", "api.test:8080", "API.test"] {
        assert_eq!(ask_for(host).await.unwrap(), c.id.to_string(), "{host}");
    }
    // Whoever has no domains gets the rest.
    for _ in 0..20 {
        assert_ne!(ask_for("elsewhere").await.unwrap(), c.id.to_string());
    }
    // By hand: on both listeners.
    let commands = h.proxy.by_hand(&web);
    assert!(Command::new("sh").arg("-c").arg(&commands).status().unwrap().success(), "{commands}");
    until("by hand", async || h.read().await.highest(Slot::B) == Bp::ZERO).await;
    assert_eq!(h.read().await.workers.len(), 2, "each listener is read back");
    let before = b.hits();
    for _ in 0..20 {
        assert_eq!(ask_for("elsewhere").await.unwrap(), a.id.to_string());
    }
    assert_eq!((b.hits(), ask_for("api.test").await.unwrap()), (before, c.id.to_string()));
    // And when it is taken down again, nobody is sent there.
    h.up(&web).await;
    assert_ne!(ask_for("api.test").await.unwrap(), c.id.to_string());
}

/// The longest names there may be make files that Envoy loads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_names_make_files_that_load() {
    let Some(h) = Harness::envoy().await else { return };
    let long: ServiceName = format!("{}z", "y-".repeat(19)).parse().unwrap();
    let fleet = format!("{}z", "x-".repeat(15)).parse().unwrap();
    let s = Settings { dir: h.path().join("long"), ..settings(&h) };
    let proxy = Arc::new(Envoy::new("lb".parse().unwrap(), s.clone(), fleet, crate::support::OWNER.into()));
    proxy.prepare(std::slice::from_ref(&long)).await.unwrap();
    let fleet = format!("{}z", "x-".repeat(15)).parse().unwrap();
    let listen = free_addr();
    let listener = operators::envoy_listener(
        listen,
        &envoy::routes_line(&s.dir, &fleet, &long),
        "",
        &envoy::place_line(),
    );
    let text = operators::envoy(s.admin, &envoy::clusters_line(&s.dir, &fleet), &listener);
    std::fs::write(h.path().join("op.yaml"), text).unwrap();
    let mut h = h;
    h.listen = listen;
    h.restart().await;
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let mut want = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(50))));
    let longest = "x".repeat(64);
    want.rules = vec![
        Rule { by: RuleBy::Header, name: longest.clone(), value: "(.*)+[^a]{3}$%|?".into() },
        Rule { by: RuleBy::Cookie, name: "!#$%&'*+-.^_`|~".into(), value: longest },
    ];
    want.service = long.clone();
    proxy.apply(std::slice::from_ref(&want), Direction::Up).await.unwrap();
    assert!(proxy.read_back().await.unwrap()[&long].serves(&want));
    get(&client(), listen, "/").await.unwrap();
}

/// Response times need the log; without it, and where it cannot be read, that is said, and the counts are right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_log_there_are_no_response_times_and_it_is_said() {
    let Some(h) = Harness::envoy().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    requests(h.listen, 80).await;
    let deaf = driver(&h, Settings { log: None, ..settings(&h) }, crate::support::OWNER);
    let counted = deaf.counters().await.unwrap();
    assert_eq!((counted[&a.id].requests, counted[&a.id].latency.count()), (80, 0));
    assert!(deaf.warning().unwrap().as_str().contains("no percentiles"));
    let nowhere = h.path().join("nowhere");
    let deaf =
        driver(&h, Settings { log: Some(nowhere.join("x.log")), ..settings(&h) }, crate::support::OWNER);
    assert_eq!(deaf.counters().await.unwrap()[&a.id].requests, 80);
    assert!(deaf.warning().unwrap().as_str().contains("cannot read"));
    std::fs::create_dir(&nowhere).unwrap();
    deaf.counters().await.unwrap();
    assert_eq!(deaf.warning(), None, "it heals when the file can be made");
}

/// Counts go on over a restart, in which Envoy's own begin anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_never_go_backwards() {
    let Some(mut h) = Harness::envoy().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    // Fewer each time: a process that is as old and counted as much as the one before could be the same.
    let mut sum = 0;
    for n in [160, 80, 40] {
        requests(h.listen, n).await;
        sum += n as u64;
        until("all are counted", async || h.proxy.counters().await.unwrap()[&a.id].requests == sum).await;
        h.restart().await;
    }
    h.proxy.forget(&|_| true);
    assert!(h.proxy.counters().await.unwrap()[&a.id].requests == 0);
}

/// What a doctor finds: nothing where all is there; the line without which there are no response times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_names_the_line_that_is_missing() {
    let Some(h) = Harness::envoy().await else { return };
    let services = crate::support::declared();
    let services: Vec<_> = services.iter().collect();
    assert_eq!(h.proxy.examine(&services).await, []);
    drop(h);
    let Some(h) = Harness::envoy_of(&Operator { log: false, places: false, ..Operator::ALL }).await else {
        return;
    };
    let found = h.proxy.examine(&services).await;
    assert!(found.iter().any(|f| f.fails && f.what.as_str().contains(&envoy::place_line())), "{found:?}");
    let Some(h) = Harness::envoy_of(&Operator { log: false, ..Operator::ALL }).await else { return };
    let line = envoy::log_line(&h.path().join("access.log"));
    let found = h.proxy.examine(&services).await;
    assert!(found.len() == 1 && !found[0].fails && found[0].cure.as_str().contains(&line), "{found:?}");
}
