//! The suite against a real nginx, and what is nginx's own.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilothouse::fleet::names::Bp;
use pilothouse::proxy::nginx::{self, Nginx, Settings};
use pilothouse::proxy::{Direction, Proxy as _, ProxyError};
use pilothouse::rollout::world::Slot;

use crate::suite;
use crate::support::{
    Backend, Harness, Held, Load, ask, bp, client, free_addr, get, requests, route, service,
};
use crate::visitors::{self, sticky, with_rules};

// Without `checks`: the open-source nginx has none of its own.
conforms!(
    Harness::nginx().await;
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
    Harness::nginx().await;
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);

fn settings(h: &Harness) -> Settings {
    let text = std::fs::read_to_string(h.path().join("own/shop.conf")).unwrap();
    let after =
        |what: &str| text.split(what).nth(1).unwrap().split([' ', ';', ',']).next().unwrap().to_owned();
    Settings {
        dir: h.path().join("own"),
        config: h.path().join("op.conf"),
        pid: h.path().join("nginx.pid"),
        status: after("listen ").parse().unwrap(),
        binary: "nginx".into(),
        log: None,
    }
}

fn workers(back: &pilothouse::rollout::world::RouteReadback) -> Vec<String> {
    back.workers.iter().map(|w| w.worker.clone()).collect()
}

/// A change of a share is no reload: the workers stay, and so do connections that are kept alive, which get the new share
/// with their next request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_changes_without_a_reload() {
    let Some(h) = Harness::nginx().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
    let before = workers(&h.read().await);
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
    assert_eq!(workers(&h.read().await), before);
    took.sort();
    eprintln!("MEASURED an abort behind nginx: {:?} at the median, {:?} at most", took[10], took[19]);
}

/// Shares do not depend on what the operator caches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_file_cache_does_not_keep_old_shares() {
    let cache = "open_file_cache max=1000; open_file_cache_valid 60s; open_file_cache_errors on;";
    let Some(h) = Harness::nginx_of(true, cache).await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    for share in [Bp::FULL, Bp::ZERO, bp(100), bp(0)] {
        h.up(&route(Slot::A, &[&a], &[&b], share)).await;
        let (before_a, before_b) = (a.hits(), b.hits());
        requests(h.listen, 80).await;
        let to_b = if share == Bp::FULL { 80 } else { 0 };
        assert_eq!((a.hits() - before_a, b.hits() - before_b), (80 - to_b, to_b));
    }
}

/// Scenario 10: somebody else reloads at every phase.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_10_a_reload_by_somebody_else_keeps_the_share() {
    let Some(h) = Harness::nginx().await else { return };
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
}

/// Scenario 13: the operator's own file is broken when a release begins, and when it is aborted. Nothing is changed by the
/// first; the second needs no reload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_broken_configuration_changes_nothing_and_holds_no_abort_back() {
    let Some(h) = Harness::nginx().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let good = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&good).await;
    let (op, ours) = (h.path().join("op.conf"), h.path().join("own/shop.conf"));
    let (text, before) = (std::fs::read_to_string(&op).unwrap(), std::fs::read_to_string(&ours).unwrap());
    std::fs::write(&op, format!("{text}no-such-directive;\n")).unwrap();
    let b2 = Backend::start(2, 2).await;
    let more = route(Slot::A, &[&a], &[&b, &b2], bp(60));
    let named = |result: Result<(), ProxyError>| {
        assert!(
            matches!(&result, Err(ProxyError::Refused(m)) if m.as_str().contains("no-such-directive")),
            "{result:?}"
        );
    };
    named(h.proxy.can(&service(), &[], false).await);
    named(h.apply(&more, Direction::Up).await);
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), before);
    h.settled(&good).await;
    // Back, with another set of instances as well: the share is in force, the rest is said.
    named(h.apply(&route(Slot::A, &[&a], &[&b, &b2], Bp::ZERO), Direction::Back).await);
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.settled(&back).await;
    let hits = b.hits();
    requests(h.listen, 160).await;
    assert_eq!(b.hits(), hits);
    h.apply(&back, Direction::Back).await.expect("shares alone need nothing of nginx");
    std::fs::write(&op, text).unwrap();
    h.up(&more).await;
}

/// Scenario 13: the check passes, the reload does not (an address is taken). Not done, said so, still serving.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_reload_that_fails_is_not_done() {
    let Some(h) = Harness::nginx().await else { return };
    let (a, b, b2) = (Backend::start(1, 1).await, Backend::start(2, 1).await, Backend::start(2, 2).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let op = h.path().join("op.conf");
    let text = std::fs::read_to_string(&op).unwrap();
    let more = format!("    server {{ listen {}; }}\n}}\n", taken.local_addr().unwrap());
    std::fs::write(&op, text.trim_end().strip_suffix('}').unwrap().to_owned() + &more).unwrap();
    let want = route(Slot::A, &[&a], &[&b, &b2], bp(60));
    let error = h.apply(&want, Direction::Up).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Unknown(m) if m.as_str().contains("error log")), "{error:?}");
    assert!(!h.read().await.serves(&want), "not done");
    requests(h.listen, 80).await;
    let aborted = h.apply(&route(Slot::A, &[&a], &[&b, &b2], Bp::ZERO), Direction::Back).await;
    assert!(matches!(&aborted, Err(ProxyError::Unknown(_))), "{aborted:?}");
    let before = b.hits();
    requests(h.listen, 160).await;
    assert_eq!(b.hits(), before, "the abort is in force");
    drop(taken);
    h.up(&want).await;
}

/// Scenario 13: two reloads in a row, the second before the first is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_reloads_on_top_of_each_other_end_in_the_last() {
    let Some(h) = Harness::nginx().await else { return };
    let (a, b, b2) = (Backend::start(1, 1).await, Backend::start(2, 1).await, Backend::start(2, 2).await);
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let pid: i32 = std::fs::read_to_string(h.path().join("nginx.pid")).unwrap().trim().parse().unwrap();
    let master = rustix::process::Pid::from_raw(pid).unwrap();
    for k in 0..6 {
        let candidates: &[&Backend] = if k % 2 == 0 { &[&b] } else { &[&b, &b2] };
        let want = route(Slot::A, &[&a], candidates, bp(10 * k + 5));
        rustix::process::kill_process(master, rustix::process::Signal::HUP).unwrap();
        h.up(&want).await;
        rustix::process::kill_process(master, rustix::process::Signal::HUP).unwrap();
        h.settled(&want).await;
    }
}

/// Scenario 14: a drained instance gets nothing, through the reload and after it, whatever connections were open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_14_a_drained_instance_gets_nothing_through_a_reload() {
    let Some(h) = Harness::nginx().await else { return };
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    want.slots.a.endpoints[0].state = pilothouse::rollout::world::EndpointState::Drain;
    h.up(&want).await;
    h.is_free(&a1).await;
    let before = a1.hits();
    let load = Load::start(h.listen, 4);
    for _ in 0..4 {
        h.reload().await;
        load.more(50).await;
    }
    let (done, failed) = load.end().await;
    crate::results::failed("four own reloads", failed.len(), done);
    assert_eq!(a1.hits(), before);
}

/// A connection that was opened before a reload and not used yet is served by the old worker, with what that knows: what
/// it may still use is not free, shares hold there too, and when it ends all is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_22_what_an_old_worker_may_still_use_is_not_free() {
    let Some(h) = Harness::nginx_of(true, "client_header_timeout 30s;").await else { return };
    let (a, b1, b2) = (Backend::start(1, 1).await, Backend::start(2, 1).await, Backend::start(2, 2).await);
    let mut want = route(Slot::A, &[&a], &[&b1, &b2], Bp::FULL);
    h.up(&want).await;
    let (mut one, mut two) = (Held::open(h.listen).await, Held::open(h.listen).await);
    // Taken by a worker, which has answered somebody else since.
    requests(h.listen, 80).await;
    for e in &mut want.slots.b.endpoints {
        e.state = pilothouse::rollout::world::EndpointState::Drain;
    }
    h.up(&want).await;
    assert!(h.read().await.in_flight(&b1.id) > 0, "the old worker may send something");
    let answer = one.get().await;
    assert!(answer == (200, b1.id.to_string()) || answer == (200, b2.id.to_string()), "{answer:?}");
    let back = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.apply(&back, Direction::Back).await.unwrap();
    assert_eq!(two.get().await, (200, a.id.to_string()), "an abort holds on old workers too");
    drop((one, two));
    h.up(&want).await;
    h.is_free(&b1).await;
    h.is_free(&b2).await;
}

/// Files of another controller are never touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_owner_is_refused() {
    let Some(h) = Harness::nginx().await else { return };
    let a = Backend::start(1, 1).await;
    let mine = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&mine).await;
    let before = std::fs::read_to_string(h.path().join("own/shop.conf")).unwrap();
    let other =
        Arc::new(Nginx::new("lb".parse().unwrap(), settings(&h), h.fleet.clone(), "other@there".into()));
    for direction in [Direction::Up, Direction::Back] {
        let error = other.apply(&[route(Slot::A, &[], &[], Bp::ZERO)], direction).await.unwrap_err();
        assert!(
            matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(crate::support::OWNER)),
            "{error:?}"
        );
    }
    assert!(matches!(other.prepare(&[service()]), Err(ProxyError::Foreign(_))));
    assert_eq!(std::fs::read_to_string(h.path().join("own/shop.conf")).unwrap(), before);
    h.settled(&mine).await;
}

/// An nginx that does not run is unknown, never "done"; an abort is on the disk for when it starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_down_is_unknown_and_starts_right() {
    let Some(mut h) = Harness::nginx().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    h.stop();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    let aborted = h.apply(&back, Direction::Back).await;
    assert!(matches!(&aborted, Err(ProxyError::Unknown(_))), "{aborted:?}");
    h.start().await;
    h.settled(&back).await;
}

/// What is missing in the operator's configuration is named as it must be typed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_lines_are_named() {
    let Some(h) = Harness::nginx_of(false, "").await else { return };
    let a = Backend::start(1, 1).await;
    let plain = route(Slot::A, &[&a], &[], Bp::ZERO);
    let named = |result: Result<(), ProxyError>, line: String| {
        assert!(matches!(&result, Err(ProxyError::Refused(m)) if m.as_str().contains(&line)), "{result:?}");
    };
    let cookie = nginx::cookie_line(&h.fleet, &service());
    named(h.proxy.can(&service(), &[], true).await, cookie.clone());
    named(h.apply(&sticky(plain.clone()), Direction::Up).await, cookie);
    h.up(&plain).await;
    let other = pilothouse::rollout::world::Route { service: "api".parse().unwrap(), ..plain.clone() };
    let line = nginx::location_line(&h.path().join("own"), &h.fleet, &other.service);
    named(h.proxy.apply(&[plain.clone(), other], Direction::Up).await, line);
    h.settled(&plain).await;
    let op = h.path().join("op.conf");
    let text = std::fs::read_to_string(&op).unwrap();
    let line = nginx::http_line(&h.path().join("own"), &h.fleet);
    std::fs::write(&op, text.replace(&line, "").replace("include", "#include")).unwrap();
    let b = Backend::start(2, 1).await;
    named(h.apply(&route(Slot::A, &[&a], &[&b], bp(5)), Direction::Up).await, line);
    h.settled(&plain).await;
    let bad = visitors::rule(pilothouse::fleet::model::RuleBy::Header, "x_y", "1");
    assert!(matches!(h.proxy.can(&service(), &[bad], false).await, Err(ProxyError::Refused(_))));
}

/// What somebody changes by hand is seen, and set right; what is lost leads to stable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_hand_are_seen_and_set_right() {
    let Some(h) = Harness::nginx().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = sticky(with_rules(route(Slot::B, &[&a], &[&b], bp(70))));
    let own = h.path().join("own");
    let share = own.join("shop_web.share");
    let rewrite = |name: &str, from: &str, to: &str| {
        let path = own.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    };
    let changes: [&dyn Fn(); 7] = [
        &|| std::fs::remove_file(share.join("b.07")).unwrap(),
        &|| std::fs::write(share.join("a.07"), "").unwrap(),
        &|| std::fs::remove_file(share.join("rule")).unwrap(),
        &|| std::fs::remove_file(&share).unwrap(),
        // A copy that followed the link.
        &|| {
            std::fs::remove_file(&share).unwrap();
            std::fs::create_dir(&share).unwrap();
            std::fs::write(share.join("a.99"), "").unwrap();
        },
        &|| rewrite("shop.conf", &format!("server {}", a.addr), "server 127.0.0.1:9"),
        &|| rewrite("shop_web.location", "_slot b;", "_slot a;"),
    ];
    for (n, change) in changes.iter().enumerate() {
        h.up(&want).await;
        change();
        assert!(!h.read().await.serves(&want), "change {n}");
        h.reload().await;
        assert!(!h.read().await.serves(&want), "change {n}, loaded");
        h.up(&want).await;
        let tester = ask(&client(), h.listen, &[("x-variant", "b")]).await.unwrap();
        assert_eq!(tester.body, a.id.to_string(), "change {n}");
    }
    std::fs::remove_file(&share).unwrap();
    let before = a.hits();
    requests(h.listen, 160).await;
    assert_eq!(a.hits(), before, "slot b is stable");
    h.up(&want).await;
    // What the operator is told to type in an emergency does what it says, also to a tester, and whatever is in the way.
    std::fs::remove_file(&share).unwrap();
    std::fs::create_dir(&share).unwrap();
    let script = h.proxy.by_hand(&want);
    let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
    assert!(out.status.success(), "{script}\n{out:?}");
    let safe = sticky(route(Slot::B, &[&a], &[&b], Bp::FULL));
    let back = h.read().await;
    assert_eq!(back.highest(Slot::A), Bp::ZERO, "{back:#?}");
    assert!(!back.reaches(Slot::A), "{back:#?}");
    h.reload().await;
    requests(h.listen, 160).await;
    assert_eq!(a.hits(), before);
    h.up(&safe).await;
}

/// A directory that nginx's workers may not look into is not taken for a share that is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_workers_cannot_see_is_not_in_force() {
    let Some(h) = Harness::nginx().await else { return };
    if !rustix::process::geteuid().is_root() {
        return; // They run as this user then, and see what it sees.
    }
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&want).await;
    let store = h.path().join("own/shop_web.shares");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!h.read().await.serves(&want));
    let error = h.apply(&want, Direction::Up).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Refused(m) if m.as_str().contains("do not see")), "{error:?}");
    let before = b.hits();
    requests(h.listen, 80).await;
    assert_eq!(b.hits(), before, "what cannot be seen leads to stable");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o755)).unwrap();
    h.settled(&want).await;
}

/// A second service, prepared before it was ever released: its location loads and answers 503, the first goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_there_before_its_first_release() {
    let Some(h) = Harness::nginx().await else { return };
    let a = Backend::start(1, 1).await;
    let web = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&web).await;
    let api: pilothouse::fleet::names::ServiceName = "api".parse().unwrap();
    h.proxy.prepare(&[service(), api.clone()]).unwrap();
    let op = h.path().join("op.conf");
    let (text, listen) = (std::fs::read_to_string(&op).unwrap(), free_addr());
    let line = nginx::location_line(&h.path().join("own"), &h.fleet, &api);
    let more = format!("    server {{ listen {listen}; location / {{ {line} }} }}\n}}\n");
    std::fs::write(&op, text.trim_end().strip_suffix('}').unwrap().to_owned() + &more).unwrap();
    h.reload().await;
    h.settled(&web).await;
    assert!(get(&client(), listen, "/").await.unwrap_err().starts_with("503"));
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string());
    let b = Backend::start(2, 1).await;
    let other = pilothouse::rollout::world::Route { service: api, ..route(Slot::A, &[&b], &[], Bp::ZERO) };
    h.proxy.apply(&[web.clone(), other], Direction::Up).await.unwrap();
    assert_eq!(get(&client(), listen, "/").await.unwrap(), b.id.to_string());
    // And when it is taken down again, nobody is sent there.
    h.up(&web).await;
    assert!(get(&client(), listen, "/").await.unwrap_err().starts_with("503"));
    let names: BTreeSet<String> =
        h.proxy.read_back().await.unwrap().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["api", "web"].map(String::from).into());
}

/// The longest names there may be make a configuration that nginx loads, and so do two fleets beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_names_make_a_configuration_that_loads() {
    let Some(h) = Harness::nginx().await else { return };
    let mut lines = String::new();
    for (fleet, service) in
        [("f".repeat(32), "s".repeat(40)), ("a--b".into(), "x".into()), ("a".into(), "b--x".into())]
    {
        let own = h.path().join(&fleet);
        let op = h.path().join(format!("{fleet}.conf"));
        // Of an nginx that does not run.
        let settings = Settings {
            dir: own.clone(),
            config: op.clone(),
            pid: h.path().join("x.pid"),
            status: free_addr(),
            log: Some(free_addr()),
            ..settings(&h)
        };
        let (fleet, name): (pilothouse::fleet::names::FleetName, pilothouse::fleet::names::ServiceName) =
            (fleet.parse().unwrap(), service.parse().unwrap());
        let driver = Nginx::new("lb".parse().unwrap(), settings, fleet.clone(), crate::support::OWNER.into());
        driver.prepare(std::slice::from_ref(&name)).unwrap();
        // With everything that a route can have.
        let a = Backend::start(1, 1).await;
        let full = sticky(with_rules(route(Slot::A, &[&a], &[], Bp::ZERO)));
        let full = pilothouse::rollout::world::Route { service: name.clone(), ..full };
        let text = format!(
            "pid {0}/x.pid; error_log {0}/x.log;\nevents {{}}\nhttp {{\n{1}\nserver {{ listen {2}; location / {{ {3} {4} }} }}\n}}\n",
            h.path().display(),
            nginx::http_line(&own, &fleet),
            free_addr(),
            nginx::location_line(&own, &fleet, &name),
            nginx::cookie_line(&fleet, &name)
        );
        std::fs::write(&op, text).unwrap();
        // nginx itself is none of this: what is published stays when it is accepted.
        let error = driver.apply(&[full], Direction::Up).await.unwrap_err();
        assert!(matches!(&error, ProxyError::Unknown(_)), "accepted, and not loaded by anybody: {error:?}");
        lines.push_str(&format!("{}\n", nginx::http_line(&own, &fleet)));
    }
    let all = h.path().join("all.conf");
    let text =
        format!("pid {0}/x.pid; error_log {0}/x.log;\nevents {{}}\nhttp {{\n{lines}}}\n", h.path().display());
    std::fs::write(&all, text).unwrap();
    let out = std::process::Command::new("nginx").arg("-t").arg("-c").arg(&all).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Whoever wrote files that nobody has checked yet may have been killed: the next one puts back what stood there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_checked_is_put_back() {
    let Some(h) = Harness::nginx().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&want).await;
    let conf = h.path().join("own/shop.conf");
    let good = std::fs::read_to_string(&conf).unwrap();
    let first = good.lines().next().unwrap().to_owned();
    for way in 0..2 {
        let before = serde_json::to_string(&[(&conf, Some(&good))]).unwrap();
        std::fs::write(h.path().join("own/shop.before"), before).unwrap();
        std::fs::write(&conf, format!("{first}\nno-such-directive;\n")).unwrap();
        if way == 0 {
            h.proxy.prepare(&[service()]).unwrap();
        } else {
            h.apply(&route(Slot::A, &[&a], &[&b], Bp::ZERO), Direction::Back).await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(&conf).unwrap(), good, "{way}");
        assert!(!h.path().join("own/shop.before").exists());
    }
}

/// Two masters take connections while nginx's program is replaced: what the old one does is unknown, and an abort holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_second_master_nothing_is_certain_but_an_abort_holds() {
    let Some(h) = Harness::nginx().await else { return };
    let Some(other) = Harness::nginx().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    std::fs::copy(other.path().join("nginx.pid"), h.path().join("nginx.pid.oldbin")).unwrap();
    let seen = h.proxy.read_back().await;
    assert!(matches!(&seen, Err(ProxyError::Unknown(m)) if m.as_str().contains("another nginx")), "{seen:?}");
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    assert!(h.apply(&back, Direction::Back).await.is_err());
    let before = b.hits();
    requests(h.listen, 160).await;
    assert_eq!(b.hits(), before);
    drop(other);
    h.settled(&back).await;
}

/// Numbers need a log address; without one, and where it is taken, that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_log_lines_there_are_no_numbers_and_it_is_said() {
    let Some(h) = Harness::nginx().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let deaf = Nginx::new("lb".parse().unwrap(), settings(&h), h.fleet.clone(), crate::support::OWNER.into());
    requests(h.listen, 80).await;
    assert_eq!(deaf.counters().await.unwrap()[&a.id].requests, 0);
    assert!(deaf.warning().unwrap().as_str().contains("no numbers per version"));
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let log = Some(taken.local_addr().unwrap());
    let deaf = Nginx::new(
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
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// What a doctor finds: nothing where all is there; the line that is missing; numbers that do not come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_names_the_line_that_is_missing() {
    let Some(h) = Harness::nginx().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let services = crate::support::declared();
    let service: Vec<_> = services.iter().collect();
    let found = h.proxy.examine(&service).await;
    assert!(found.len() == 1 && found[0].cure.as_str().contains("worker_shutdown_timeout"), "{found:?}");
    let op = h.path().join("op.conf");
    let text = std::fs::read_to_string(&op).unwrap();
    let line = nginx::location_line(&h.path().join("own"), &h.fleet, &service[0].name);
    let other = text.replace(&line, "proxy_pass http://127.0.0.1:9;\naccess_log /dev/null;");
    std::fs::write(&op, format!("worker_shutdown_timeout 30s;\n{other}")).unwrap();
    let found = h.proxy.examine(&service).await;
    let fails: Vec<_> = found.iter().filter(|a| a.fails).collect();
    assert!(!fails.is_empty() && fails.iter().any(|a| a.what.as_str().contains(&line)), "{found:?}");
    let cures: Vec<_> = found.iter().map(|a| a.cure.as_str()).collect();
    assert!(cures.iter().any(|c| c.contains("access_log syslog:server=")), "{found:?}");
    assert!(!cures.iter().any(|c| c.contains("worker_shutdown_timeout")), "{found:?}");
}
