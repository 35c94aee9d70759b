//! The suite against a real Caddy, and what is Caddy's own.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilothouse::fleet::model::RuleBy;
use pilothouse::fleet::names::Bp;
use pilothouse::proxy::caddy::{self, Caddy, Settings};
use pilothouse::proxy::{Direction, Proxy as _, ProxyError};
use pilothouse::rollout::world::{EndpointState, Route, Slot};

use crate::suite;
use crate::support::{
    Backend, Frozen, Harness, Held, Load, bp, client, echoes, free_addr, get, requests, route, service,
    websocket,
};
use crate::visitors::{self, keeps, rule, sticky, with_rules};

// Without `checks`: Caddy knows no instance, so it cannot check one; Pilothouse's own probes decide.
conforms!(
    Harness::caddy().await;
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
    a_websocket_is_held_through_a_drain,
    before_the_first_release
);

conforms!(
    Harness::caddy().await;
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);

/// The settings of a harness's driver, as its files tell them.
fn settings(h: &Harness) -> Settings {
    let read = |path: &str| std::fs::read_to_string(h.path().join(path)).unwrap();
    let after = |text: &str, what: &str| {
        text.split(what).nth(1).unwrap().split([' ', '\n']).next().unwrap().parse().unwrap()
    };
    Settings {
        dir: h.path().join("own"),
        config: h.path().join("Caddyfile"),
        admin: after(&read("Caddyfile"), "admin "),
        status: after(&read("own/shop.caddy"), "http://"),
        binary: "caddy".into(),
        log: None,
    }
}

fn driver(h: &Harness, owner: &str) -> Arc<Caddy> {
    Arc::new(Caddy::new("front".parse().unwrap(), settings(h), h.fleet.clone(), owner.into()))
}

/// How often Caddy has loaded a configuration.
fn loads(h: &Harness) -> usize {
    std::fs::read_to_string(h.path().join("caddy.log")).unwrap().matches("autosaved config").count()
}

/// No change is a reload, but for a rule that was never used before: connections that are kept alive stay, and get the new
/// route with their next request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_reloads_nothing() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b, b2) = (Backend::start(1, 1).await, Backend::start(2, 1).await, Backend::start(2, 2).await);
    let before = loads(&h);
    h.up(&sticky(route(Slot::A, &[&a], &[&b, &b2], bp(50)))).await;
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
    assert_eq!((b.hits(), loads(&h)), (hits, before));
    took.sort();
    eprintln!("MEASURED an abort behind Caddy: {:?} at the median, {:?} at most", took[10], took[19]);
    let ruled = with_rules(back.clone());
    for want in [&ruled, &back, &ruled] {
        h.up(want).await;
    }
    assert_eq!(loads(&h), before + 1, "a rule is loaded once, and then switched on and off");
}

/// Scenario 10: somebody else reloads at every phase.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_10_a_reload_by_somebody_else_keeps_the_share() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    for percent in [0, 5, 50, 100, 0] {
        let want = route(Slot::A, &[&a], &[&b], bp(percent));
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
    h.settled(&want).await;
    keeps(&h, &a, &b).await;
}

/// Scenario 13: the operator's own file is broken when a release begins, and when it is aborted: nothing of that is loaded,
/// so neither fails. A rule that needs a reload is refused, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_broken_configuration_holds_nothing_back_and_is_not_loaded() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b, b2) = (Backend::start(1, 1).await, Backend::start(2, 1).await, Backend::start(2, 2).await);
    let good = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&good).await;
    let op = h.path().join("Caddyfile");
    let text = std::fs::read_to_string(&op).unwrap();
    std::fs::write(&op, format!("{text}\nexample.org {{\n    no_such_directive\n}}\n")).unwrap();
    let ours = h.path().join("own/shop_web.caddy");
    let before = std::fs::read_to_string(&ours).unwrap();
    let error = h.apply(&with_rules(good.clone()), Direction::Up).await.unwrap_err();
    assert!(
        matches!(&error, ProxyError::Refused(m) if m.as_str().contains("no_such_directive")),
        "{error:?}"
    );
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), before);
    h.settled(&good).await;
    h.up(&route(Slot::A, &[&a], &[&b, &b2], bp(60))).await;
    let back = route(Slot::A, &[&a], &[&b, &b2], Bp::ZERO);
    h.apply(&back, Direction::Back).await.unwrap();
    h.settled(&back).await;
    std::fs::write(&op, text).unwrap();
    h.up(&with_rules(good)).await;
}

/// Scenario 14: a drained instance gets nothing, through reloads and after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_14_a_drained_instance_gets_nothing_through_a_reload() {
    let Some(h) = Harness::caddy().await else { return };
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    want.slots.a.endpoints[0].state = EndpointState::Drain;
    h.up(&want).await;
    h.is_free(&a1).await;
    let load = Load::start(h.listen, 4);
    for _ in 0..4 {
        h.reload().await;
        load.more(50).await;
    }
    let (done, failed) = load.end().await;
    crate::results::failed("four own reloads", failed.len(), done);
    assert_eq!(a1.hits(), 0);
}

/// Scenario 22: a websocket lives through everything that a release does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_22_a_websocket_outlives_a_release() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let mut ws = websocket(&h).await;
    echoes(&mut ws).await;
    for percent in [5, 50, 100] {
        h.up(&route(Slot::A, &[&a], &[&b], bp(percent))).await;
        echoes(&mut ws).await;
    }
    let mut last = route(Slot::B, &[&a], &[&b], Bp::FULL);
    last.slots.a.endpoints[0].state = EndpointState::Drain;
    h.up(&last).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(h.read().await.in_flight(&a.id), 1, "the websocket, and nothing that is merely kept open");
    echoes(&mut ws).await;
    drop(ws);
    h.is_free(&a).await;
}

/// Files of another controller are never touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_owner_is_refused() {
    let Some(h) = Harness::caddy().await else { return };
    let a = Backend::start(1, 1).await;
    let mine = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&mine).await;
    let before = std::fs::read_to_string(h.path().join("own/shop.caddy")).unwrap();
    let other = driver(&h, "other@there");
    for direction in [Direction::Up, Direction::Back] {
        let error = other.apply(&[route(Slot::A, &[], &[], Bp::ZERO)], direction).await.unwrap_err();
        assert!(
            matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(crate::support::OWNER)),
            "{error:?}"
        );
    }
    assert!(matches!(other.prepare(&[service()]), Err(ProxyError::Foreign(_))));
    assert_eq!(std::fs::read_to_string(h.path().join("own/shop.caddy")).unwrap(), before);
    h.settled(&mine).await;
}

/// A Caddy that does not run, or hangs, is unknown, never "done"; an abort is on the disk for when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_down_or_hangs_is_unknown_and_goes_on_right() {
    let Some(mut h) = Harness::caddy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let (half, back) = (route(Slot::A, &[&a], &[&b], bp(50)), route(Slot::A, &[&a], &[&b], Bp::ZERO));
    h.up(&half).await;
    let config = h.path().join("Caddyfile").display().to_string();
    let runs_with_it = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("caddy") && line.split('\0').any(|a| a == config)
    };
    let mut pids =
        std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    let pid = pids.find(runs_with_it).expect("Caddy's process");
    let frozen = Frozen::new(&pid).await;
    let start = Instant::now();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    assert!(matches!(
        h.apply(&back, Direction::Back).await,
        Err(ProxyError::Unknown(_) | ProxyError::Refused(_))
    ));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    drop(frozen);
    h.settled(&back).await;
    h.up(&half).await;
    h.stop();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    assert!(h.apply(&back, Direction::Back).await.is_err());
    h.start().await;
    h.settled(&back).await;
}

/// Another reload of a service that no site serves is refused, with the line as it must be typed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_lines_are_named() {
    let Some(h) = Harness::caddy_with("respond 404").await else { return };
    let a = Backend::start(1, 1).await;
    let named = |result: Result<(), ProxyError>, line: &str| {
        assert!(matches!(&result, Err(ProxyError::Refused(m)) if m.as_str().contains(line)), "{result:?}");
    };
    let own = h.path().join("own");
    let line = caddy::site_line(&own, &h.fleet, &service());
    named(h.proxy.can(&service(), &[], false).await, &line);
    let services = crate::support::declared();
    let services: Vec<_> = services.iter().collect();
    let found = h.proxy.examine(&services).await;
    assert!(found.iter().any(|a| a.fails && a.what.as_str().contains(&line)), "{found:?}");
    let ruled = with_rules(route(Slot::A, &[&a], &[], Bp::ZERO));
    named(h.apply(&ruled, Direction::Up).await, &line);
    let bad = rule(RuleBy::Header, "x y", "1");
    named(h.proxy.can(&service(), &[bad], false).await, "knows no header");
    // And the line in the global options, without which there are no numbers.
    let op = h.path().join("Caddyfile");
    let text = std::fs::read_to_string(&op).unwrap();
    let options = caddy::options_line(&own, &h.fleet);
    std::fs::write(&op, text.replace(&options, "").replace("respond 404", &line)).unwrap();
    h.reload().await;
    let found = h.proxy.examine(&services).await;
    assert!(found.len() == 1 && !found[0].fails && found[0].cure.as_str().contains(&options), "{found:?}");
    std::fs::write(&op, text.replace("respond 404", &line)).unwrap();
    h.reload().await;
    assert_eq!(h.proxy.examine(&services).await, []);
    let server = caddy::server_line(&own, &h.fleet);
    std::fs::write(&op, text.replace(&server, "").replace("respond 404", &line)).unwrap();
    h.reload().await;
    let error = h.proxy.read_back().await.unwrap_err();
    assert!(matches!(&error, ProxyError::Unknown(m) if m.as_str().contains(&server)), "{error:?}");
}

/// What somebody changes by hand is seen, and set right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_hand_are_seen_and_set_right() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = sticky(with_rules(route(Slot::B, &[&a], &[&b], bp(70))));
    h.up(&want).await;
    let now = h.path().join("own/shop_web.now");
    for (gone, extra) in [("w/12", None), ("sticky", None), ("w/13", Some("../o"))] {
        std::fs::remove_file(now.join(gone)).unwrap();
        if let Some(to) = extra {
            std::os::unix::fs::symlink(to, now.join(gone)).unwrap();
        }
        let back = h.read().await;
        assert!(!back.serves(&want), "{gone} {extra:?}: {back:#?}");
        h.up(&want).await;
    }
    std::fs::remove_file(&now).unwrap();
    assert!(!h.proxy.read_back().await.unwrap().contains_key(&service()));
    h.up(&want).await;
    // A copy that followed the link stands in the way of nothing.
    std::fs::remove_file(&now).unwrap();
    std::fs::create_dir(&now).unwrap();
    h.up(&want).await;
    let site = h.path().join("own/shop_web.caddy");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.replace("lb_retries 1", "lb_retries 0")).unwrap();
    h.up(&want).await;
    assert_eq!(std::fs::read_to_string(&site).unwrap(), text);
}

/// The commands for an operator's hands work without Pilothouse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_sends_everything_to_stable() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(70))));
    h.up(&want).await;
    let script = h.proxy.by_hand(&want);
    let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
    assert!(out.status.success(), "{script}\n{out:?}");
    let back = h.read().await;
    assert!(back.highest(Slot::B) == Bp::ZERO && !back.reaches(Slot::B), "{back:#?}");
    h.reload().await;
    let before = b.hits();
    requests(h.listen, 160).await;
    assert_eq!(b.hits(), before);
    h.up(&want).await;
}

/// A directory that Caddy may not look into is not taken for a route that is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_caddy_does_not_see_is_not_in_force() {
    let Some(h) = Harness::caddy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(10))).await;
    // This Caddy looks into another copy of the directory from now on.
    let own = h.path().join("own");
    let copy = h.path().join("copy");
    let out = std::process::Command::new("cp").arg("-a").arg(&own).arg(&copy).output().unwrap();
    assert!(out.status.success());
    let elsewhere = Settings { dir: copy, ..settings(&h) };
    let other =
        Caddy::new("front".parse().unwrap(), elsewhere, h.fleet.clone(), crate::support::OWNER.into());
    let more = route(Slot::A, &[&a], &[&b], bp(20));
    assert!(other.apply(std::slice::from_ref(&more), Direction::Up).await.is_err());
    let _ = other.apply(std::slice::from_ref(&more), Direction::Back).await;
    let back = other.read_back().await.unwrap().remove(&service()).unwrap();
    assert!(!back.serves(&more), "{back:#?}");
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A second service, prepared before it was ever released, and what the operator adds to the reverse_proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_there_before_its_first_release() {
    let Some(h) = Harness::caddy().await else { return };
    let a = Backend::start(1, 1).await;
    let web = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&web).await;
    let own = h.path().join("own");
    let api: pilothouse::fleet::names::ServiceName = "api".parse().unwrap();
    h.proxy.prepare(&[service(), api.clone()]).unwrap();
    std::fs::write(own.join("shop_web.proxy"), "header_down X-Of-The-Operator yes\n").unwrap();
    let (op, listen) = (h.path().join("Caddyfile"), free_addr());
    let text = std::fs::read_to_string(&op).unwrap();
    let line = caddy::site_line(&own, &h.fleet, &api);
    std::fs::write(
        &op,
        format!("{text}\nhttp://{listen} {{\n    handle /* {{\n        {line}\n    }}\n}}\n"),
    )
    .unwrap();
    h.reload().await;
    h.settled(&web).await;
    assert!(get(&client(), listen, "/").await.unwrap_err().starts_with("503"));
    let answer = client().get(format!("http://{}/", h.listen).parse().unwrap()).await.unwrap();
    assert_eq!(answer.headers()["x-of-the-operator"], "yes");
    let b = Backend::start(2, 1).await;
    let other = Route { service: api, ..route(Slot::A, &[&b], &[], Bp::ZERO) };
    h.proxy.apply(&[web.clone(), other], Direction::Up).await.unwrap();
    assert_eq!(get(&client(), listen, "/").await.unwrap(), b.id.to_string());
    // And when it is taken down again, nobody is sent there.
    h.up(&web).await;
    assert!(get(&client(), listen, "/").await.unwrap_err().starts_with("503"));
}

/// Numbers need a log address; without one, and where it is taken, that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_log_lines_there_are_no_numbers_and_it_is_said() {
    let Some(h) = Harness::caddy().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let deaf = driver(&h, crate::support::OWNER);
    requests(h.listen, 80).await;
    assert_eq!(deaf.counters().await.unwrap()[&a.id].requests, 0);
    assert!(deaf.warning().unwrap().as_str().contains("no numbers per version"));
    let taken = std::net::UdpSocket::bind("127.255.255.255:0").unwrap();
    let log = Some(([127, 0, 0, 1], taken.local_addr().unwrap().port()).into());
    let deaf = Caddy::new(
        "lb".parse().unwrap(),
        Settings { log, ..settings(&h) },
        h.fleet.clone(),
        crate::support::OWNER.into(),
    );
    deaf.counters().await.unwrap();
    assert!(deaf.warning().unwrap().as_str().contains("cannot listen"));
    drop(taken);
    deaf.counters().await.unwrap();
    assert_eq!(deaf.warning(), None, "it heals when the address is free");
}

/// More instances than there are parts are refused; a rule whose value could mean something to Caddy is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_cannot_do_is_refused() {
    let Some(h) = Harness::caddy().await else { return };
    let a = Backend::start(1, 1).await;
    let mut want = route(Slot::A, &[&a], &[], Bp::ZERO);
    want.slots.a.endpoints = vec![want.slots.a.endpoints[0].clone(); 101];
    let error = h.apply(&want, Direction::Up).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Refused(m) if m.as_str().contains("more than 100")), "{error:?}");
    for value in ["{env.HOME}", "{$HOME}", "$1", "`", "\"", "#", "a}b{"] {
        let header = visitors::rule(RuleBy::Header, "x-odd", value);
        h.proxy.can(&service(), &[header], false).await.unwrap();
    }
}
