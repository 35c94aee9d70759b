//! The suite against a real HAProxy, and what is HAProxy's own.

use std::sync::Arc;
use std::time::Duration;

use pilothouse::fleet::model::Probe;
use pilothouse::fleet::names::{Bp, Millis};
use pilothouse::proxy::Extras;
use pilothouse::proxy::haproxy::{Haproxy, Settings, frontend_lines};
use pilothouse::proxy::{Direction, Proxy as _, ProxyError};
use pilothouse::rollout::world::Slot;

use crate::suite;
use crate::support::{Backend, Frozen, Harness, Held, Load, ask, bp, client, get, requests, route, service};
use crate::visitors::{self, sticky, with_rules};

conforms!(
    Harness::haproxy().await;
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
    Harness::haproxy().await;
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);

/// Scenario 10: somebody else reloads at every phase.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_10_a_reload_by_somebody_else_keeps_the_share() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::ZERO)).await;
    let load = Load::start(h.listen, 4);
    for percent in [5, 50, 100, 0] {
        let want = route(Slot::A, &[&a], &[&b], bp(percent));
        h.up(&want).await;
        h.reload().await;
        h.settled(&want).await;
        load.more(50).await;
    }
    let (done, failed) = load.end().await;
    assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
}

/// Scenario 22, and the trap of an empty slot: clients whose idle connections are held by workers that never heard of the
/// candidate find a live instance, and what such a worker may still use is not free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_22_what_an_old_worker_may_still_use_is_not_free() {
    let Some(h) = Harness::haproxy().await else { return };
    let v1 = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&v1], &[], Bp::ZERO)).await;
    let mut first = Vec::new();
    for _ in 0..5 {
        let mut c = Held::open(h.listen).await;
        assert_eq!(c.get().await.0, 200);
        first.push(c);
    }
    // A candidate appears and takes all: the old worker has no server for it, and must not answer 503.
    let v2 = Backend::start(2, 1).await;
    h.up(&route(Slot::A, &[&v1], &[&v2], Bp::FULL)).await;
    assert!(h.read().await.workers.len() > 1, "the old worker is still there");
    for c in first.iter_mut().take(3) {
        assert_eq!(c.get().await, (200, v1.id.to_string()));
    }
    // v1 gets no share, but the old worker would still send it the two idle connections' next requests.
    assert!(h.read().await.in_flight(&v1.id) > 0, "an instance that an old worker may use is not free");
    drop(first);
    for _ in 0..200 {
        if h.read().await.workers.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(h.read().await.in_flight(&v1.id), 0);

    // v2 is stable in b now, v1 is gone, and idle connections wait on a worker that has a = v1, b = v2.
    h.up(&route(Slot::B, &[&v1], &[&v2], Bp::FULL)).await;
    let mut second = Vec::new();
    for _ in 0..6 {
        let mut c = Held::open(h.listen).await;
        assert_eq!(c.get().await, (200, v2.id.to_string()));
        second.push(c);
    }
    h.up(&route(Slot::B, &[], &[&v2], Bp::FULL)).await;
    drop(v1);
    // v3 comes into slot a, where the old workers have nothing alive: they keep to v2.
    let v3 = Backend::start(3, 1).await;
    let want = route(Slot::B, &[&v3], &[&v2], Bp::ZERO);
    h.up(&want).await;
    for c in second.iter_mut().take(3) {
        assert_eq!(c.get().await, (200, v2.id.to_string()));
    }
    // Aborted: no share for v3 on any worker, at once.
    let back = route(Slot::B, &[&v3], &[&v2], Bp::FULL);
    h.apply(&back, Direction::Back).await.unwrap();
    h.settled(&back).await;
    for c in &mut second[3..] {
        assert_eq!(c.get().await, (200, v2.id.to_string()));
    }
    assert_eq!(v3.hits(), 0);
}

/// Idle connections on an old worker do not reach a candidate whose weight is 0 again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_holds_on_old_workers_too() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::FULL)).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut c = Held::open(h.listen).await;
        assert_eq!(c.get().await.1, b.id.to_string());
        held.push(c);
    }
    h.reload().await;
    h.apply(&route(Slot::A, &[&a], &[&b], Bp::ZERO), Direction::Back).await.unwrap();
    let before = b.hits();
    for c in &mut held {
        assert_eq!(c.get().await, (200, a.id.to_string()));
    }
    assert_eq!(b.hits(), before);
}

/// An abort supposes which number the map's next version will have. Where that is wrong it costs a second conversation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_holds_when_versions_of_the_map_are_not_numbered_as_supposed() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let map = h.path().join("own/shop_web.map");
    let (up, back) = (route(Slot::A, &[&a], &[&b], bp(25)), route(Slot::A, &[&a], &[&b], Bp::ZERO));
    h.up(&up).await;
    let aborts = async || {
        let before = h.master_says(&format!("@1 show map {}", map.display())).await;
        assert!(before.contains("0:2499"), "{before}");
        h.apply(&back, Direction::Back).await.unwrap();
        h.settled(&back).await;
        let hits = b.hits();
        requests(h.listen, 160).await;
        assert_eq!(b.hits(), hits);
        h.up(&up).await;
    };
    aborts().await;
    // Somebody else prepared one, and did not put it in force; then one, and filled it with something else.
    h.master_says(&format!("@1 prepare map {}", map.display())).await;
    aborts().await;
    let said = h.master_says(&format!("@1 prepare map {}", map.display())).await;
    let number = said.trim().strip_prefix("New version created: ").unwrap();
    h.master_says(&format!("@1 add map @{number} {} 0:9999 ph_shop_web_b", map.display())).await;
    aborts().await;
    // A new worker counts from the beginning; so does a new HAProxy.
    h.reload().await;
    aborts().await;
    h.master_says(&format!("@1 prepare map {}", map.display())).await;
    h.reload().await;
    aborts().await;
}

/// A map entry that got lost (or the whole map) leads to stable, and is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_map_entries_lead_to_stable() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = route(Slot::B, &[&a], &[&b], bp(70));
    h.up(&want).await;
    let map = h.path().join("own/shop_web.map");
    h.master_says(&format!("@1 clear map {}", map.display())).await;
    assert!(!h.read().await.serves(&want), "the loss is seen");
    let before = a.hits();
    requests(h.listen, 160).await;
    assert_eq!(a.hits(), before, "slot b is stable");
    h.up(&want).await;
    // And what the operator is told to type in an emergency does what it says, also to a tester.
    let want = with_rules(want);
    h.up(&want).await;
    let script = h.proxy.by_hand(&want);
    if crate::require::program("socat").is_some() {
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success(), "{script}\n{out:?}");
        h.settled(&route(Slot::B, &[&a], &[&b], Bp::FULL)).await;
        h.reload().await;
        h.settled(&route(Slot::B, &[&a], &[&b], Bp::FULL)).await;
    }
}

/// Scenario 13: what HAProxy's check refuses changes nothing: not the file, not the map, not the traffic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_refused_configuration_changes_nothing() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let good = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&good).await;
    let before = std::fs::read_to_string(h.cfg()).unwrap();
    let op = h.path().join("op.cfg");
    let text = std::fs::read_to_string(&op).unwrap();
    std::fs::write(&op, format!("{text}    no-such-keyword\n")).unwrap();
    let error = h.apply(&route(Slot::A, &[&a], &[&b], bp(5)), Direction::Up).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Refused(m) if m.as_str().contains("no-such-keyword")), "{error:?}");
    assert_eq!(std::fs::read_to_string(h.cfg()).unwrap(), before);
    h.settled(&good).await;
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string());
    std::fs::write(&op, text).unwrap();
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
}

/// Files of another controller are never touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_owner_is_refused() {
    let Some(h) = Harness::haproxy().await else { return };
    let a = Backend::start(1, 1).await;
    let mine = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&mine).await;
    let before = std::fs::read_to_string(h.cfg()).unwrap();
    let settings = Settings {
        dir: h.path().join("own"),
        master_socket: h.master(),
        config: vec![h.path().join("op.cfg")],
        binary: "haproxy".into(),
        log: None,
    };
    let other =
        Arc::new(Haproxy::new("lb".parse().unwrap(), settings, h.fleet.clone(), "other@there".into()));
    for direction in [Direction::Up, Direction::Back] {
        let error = other.apply(&[route(Slot::A, &[], &[], Bp::ZERO)], direction).await.unwrap_err();
        assert!(
            matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(crate::support::OWNER)),
            "{error:?}"
        );
    }
    assert_eq!(std::fs::read_to_string(h.cfg()).unwrap(), before);
    h.settled(&mine).await;
    // An empty file is nobody's.
    std::fs::write(h.cfg(), "").unwrap();
    other.apply(std::slice::from_ref(&mine), Direction::Up).await.unwrap();
    h.settled(&mine).await;
}

/// Log lines cannot be received: numbers without percentiles, and it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_log_address_costs_percentiles_only() {
    let Some(h) = Harness::haproxy().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        dir: h.path().join("own"),
        master_socket: h.master(),
        config: vec![],
        binary: "haproxy".into(),
        log: Some(taken.local_addr().unwrap()),
    };
    let deaf = Haproxy::new("lb".parse().unwrap(), settings, h.fleet.clone(), crate::support::OWNER.into());
    assert_eq!(deaf.warning(), None);
    requests(h.listen, 80).await;
    let mut seen = 0;
    for _ in 0..200 {
        let c = deaf.counters().await.unwrap();
        assert_eq!(c[&a.id].latency.count(), 0);
        seen = c[&a.id].requests;
        if seen == 80 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(seen, 80);
    assert!(deaf.warning().unwrap().as_str().contains("no percentiles"));
    drop(taken);
    deaf.counters().await.unwrap();
    assert_eq!(deaf.warning(), None, "it heals when the address is free");
}

/// A HAProxy that does not run is unknown, never "done"; the files are ready for when it starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_down_is_unknown_and_starts_right() {
    let Some(mut h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    h.stop();
    assert!(matches!(h.proxy.read_back().await, Err(ProxyError::Unknown(_))));
    assert!(matches!(h.proxy.counters().await, Err(ProxyError::Unknown(_))));
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    assert!(matches!(h.apply(&back, Direction::Back).await, Err(ProxyError::Unknown(_))));
    h.start().await;
    h.settled(&back).await;
}

/// A frontend without our line is said, with the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_frontend_line_is_named() {
    let Some(h) = Harness::haproxy().await else { return };
    let a = Backend::start(1, 1).await;
    let mut want = route(Slot::A, &[&a], &[], Bp::ZERO);
    want.service = "api".parse().unwrap();
    let error = h.apply(&want, Direction::Up).await.unwrap_err();
    assert!(
        matches!(&error, ProxyError::Refused(m) if m.as_str().contains("use_backend %[rand(10000),map_int(")),
        "{error:?}"
    );
    assert_ne!(want.service, service());
}

/// Scenario 13: the check passes, the reload fails (an address is taken). Not done, said so, still serving; an abort
/// works all the same; and once the cause is gone the same call succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_13_a_reload_that_fails_is_not_done() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b, b2) = (Backend::start(1, 1).await, Backend::start(2, 1).await, Backend::start(2, 2).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let op = h.path().join("op.cfg");
    let text = std::fs::read_to_string(&op).unwrap();
    std::fs::write(&op, format!("{text}frontend other\n    bind {}\n", taken.local_addr().unwrap())).unwrap();
    let want = route(Slot::A, &[&a], &[&b, &b2], bp(60));
    let error = h.apply(&want, Direction::Up).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Unknown(_)), "{error:?}");
    assert!(!h.proxy.read_back().await.is_ok_and(|r| r[&service()].serves(&want)), "not done");
    requests(h.listen, 80).await;
    let aborted = h.apply(&route(Slot::A, &[&a], &[&b, &b2], Bp::ZERO), Direction::Back).await;
    assert!(matches!(&aborted, Err(ProxyError::Unknown(_))), "{aborted:?}");
    let before = b.hits();
    requests(h.listen, 160).await;
    assert_eq!(b.hits(), before, "the abort is in force");
    drop(taken);
    h.up(&want).await;
}

/// A worker that hangs makes the call unknown; its late write cannot undo what was set afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_worker_is_unknown_and_cannot_undo() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
    let frozen = Frozen::new(&h.read().await.workers[0].worker).await;
    let up = h.apply(&route(Slot::A, &[&a], &[&b], bp(50)), Direction::Up).await;
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    let aborted = h.apply(&back, Direction::Back).await;
    drop(frozen);
    assert!(
        matches!((&up, &aborted), (Err(ProxyError::Unknown(_)), Err(ProxyError::Unknown(_)))),
        "{up:?} {aborted:?}"
    );
    h.apply(&back, Direction::Back).await.unwrap();
    h.settled(&back).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    h.settled(&back).await;
    h.reload().await;
    h.settled(&back).await;
}

/// An abort reaches the worker that serves, also when an old one hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_does_not_wait_for_a_hung_old_worker() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    let mut held = Held::open(h.listen).await;
    held.get().await;
    let old = h.read().await.workers[0].worker.clone();
    h.reload().await;
    let frozen = Frozen::new(&old).await;
    let aborted = h.apply(&route(Slot::A, &[&a], &[&b], Bp::ZERO), Direction::Back).await;
    let before = b.hits();
    requests(h.listen, 400).await;
    let hits = b.hits() - before;
    drop(frozen);
    assert!(matches!(aborted, Err(ProxyError::Unknown(_))), "{aborted:?}");
    assert_eq!(hits, 0, "the worker that serves was reached");
    h.up(&route(Slot::A, &[&a], &[&b], Bp::ZERO)).await;
    assert_eq!(held.get().await.1, a.id.to_string());
}

/// Scenario 10: somebody else reloads while visitors keep their places and testers look at the candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_10_a_reload_by_somebody_else_keeps_rules_and_places() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(10))));
    h.up(&want).await;
    let load = Load::start(h.listen, 4);
    for _ in 0..3 {
        h.reload().await;
        h.settled(&want).await;
        visitors::keeps(&h, &a, &b).await;
    }
    let off = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.apply(&off, Direction::Back).await.unwrap();
    h.reload().await;
    h.settled(&off).await;
    let before = b.hits();
    load.more(200).await;
    assert_eq!(b.hits(), before);
    let (done, failed) = load.end().await;
    assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
}

/// Rules come and go without a reload, on the workers that idle connections still hold as well; so do places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_places_end_on_old_workers_too() {
    const TESTER: &str = "X-Variant: b\r\n";
    const FIRST: &str = "Cookie: ph_shop_web=0\r\n";
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::ZERO)).await;
    let mut held = Vec::new();
    for _ in 0..9 {
        let mut c = Held::open(h.listen).await;
        assert_eq!(c.get_with(TESTER).await, (200, a.id.to_string()));
        held.push(c);
    }
    let current = h.read().await.workers[0].worker.clone();
    let on = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(1))));
    h.up(&on).await;
    assert_eq!(h.read().await.workers[0].worker, current, "no reload for rules and places");
    h.reload().await;
    let back = h.read().await;
    assert!(back.workers.len() > 1 && back.serves(&on), "{back:#?}");
    // An old worker closes a connection after one more answer.
    for mut c in held.drain(..3) {
        assert_eq!(c.get_with(TESTER).await, (200, b.id.to_string()));
    }
    for mut c in held.drain(..3) {
        assert_eq!(c.get_with(FIRST).await, (200, b.id.to_string()));
    }
    let off = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.apply(&off, Direction::Back).await.unwrap();
    assert!(h.read().await.workers.len() > 1, "the old worker is still there");
    h.settled(&off).await;
    let before = b.hits();
    for c in &mut held {
        assert_eq!(c.get_with(&format!("{TESTER}{FIRST}")).await, (200, a.id.to_string()));
    }
    assert_eq!(b.hits(), before);
}

/// A worker that never heard of the candidate, or whose candidate is another by now, gives testers a live answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_on_old_workers_find_a_live_instance() {
    const TESTER: &str = "X-Variant: b\r\n";
    let Some(h) = Harness::haproxy().await else { return };
    let v1 = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&v1], &[], Bp::ZERO)).await;
    let mut first = Held::open(h.listen).await;
    first.get().await;
    let v2 = Backend::start(2, 1).await;
    let want = with_rules(route(Slot::A, &[&v1], &[&v2], Bp::ZERO));
    h.up(&want).await;
    let mut second = Held::open(h.listen).await;
    assert_eq!(second.get_with(TESTER).await, (200, v2.id.to_string()));
    assert!(h.read().await.workers.len() > 1, "the first worker is still there");
    assert_eq!(first.get_with(TESTER).await, (200, v1.id.to_string()));
    // The candidate went away for good, and another came.
    h.up(&route(Slot::A, &[&v1], &[], Bp::ZERO)).await;
    drop(v2);
    let v3 = Backend::start(3, 1).await;
    h.up(&with_rules(route(Slot::A, &[&v1], &[&v3], Bp::ZERO))).await;
    assert!(h.read().await.workers.len() > 1, "the second worker is still there");
    assert_eq!(second.get_with(TESTER).await, (200, v1.id.to_string()));
    assert_eq!(get_as_tester(&h).await, v3.id.to_string());
}

async fn get_as_tester(h: &Harness) -> String {
    ask(&client(), h.listen, &[("x-variant", "b")]).await.unwrap().body
}

/// What somebody changes by hand is seen, and set right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_rules_and_places_by_hand_are_seen() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let plain = route(Slot::A, &[&a], &[&b], bp(10));
    let full = sticky(with_rules(plain.clone()));
    let own = h.path().join("own/shop_web");
    let own = own.display();
    for (want, command) in [
        (&full, format!("clear map {own}.rules")),
        (&full, format!("add map {own}.rules (.*) ph_shop_web_b")),
        (&full, format!("clear map {own}.sticky")),
        (&plain, format!("add map {own}.sticky on 1")),
        (
            &plain,
            format!("add map {own}.rules (^|[[:cntrl:]])x-variant:[[:blank:]]b[[:cntrl:]] ph_shop_web_b"),
        ),
    ] {
        h.up(want).await;
        h.master_says(&format!("@1 {command}")).await;
        assert!(!h.read().await.serves(want), "{command}");
        h.up(want).await;
    }
    assert_eq!(get_as_tester(&h).await, a.id.to_string());
}

/// Scenario 12: an operator's `defaults` name an algorithm that keeps each client on one server, and so knows only 0 and
/// 100 %. Our backends have their own, and the split is none of theirs: shares are as exact as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_12_balance_source_in_the_defaults_does_not_bend_shares() {
    let defaults = "    balance source\n    hash-type consistent\n";
    let Some(h) = Harness::haproxy_of(Extras::ALL, defaults).await else { return };
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    let (b1, b2, b3) = (Backend::start(2, 1).await, Backend::start(2, 2).await, Backend::start(2, 3).await);
    let (stable, candidate) = ([&a1, &a2], [&b1, &b2, &b3]);
    h.up(&route(Slot::A, &stable, &candidate, bp(10))).await;
    requests(h.listen, 4800).await;
    let hits = |of: &[&Backend]| of.iter().map(|b| b.hits()).sum::<u64>() as f64;
    let share = 100.0 * hits(&candidate) / (hits(&candidate) + hits(&stable));
    eprintln!("MEASURED balance source in the defaults: 10 % set, {share:.2} %");
    assert!((share - 10.0).abs() < 2.0, "10 % was {share:.2} %");
    for b in stable.iter().chain(&candidate) {
        assert!(b.hits() > 0, "all of these requests came from one client, and still {} has its part", b.id);
    }
}

/// Checks of an operator's `defaults` that no instance would pass are not ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_in_the_defaults_are_not_ours() {
    let http = "    option httpchk GET /nope\n    http-check expect status 599\n";
    let tcp = "    option tcp-check\n    tcp-check connect\n    tcp-check expect string never-said\n";
    for defaults in [http, tcp] {
        let Some(h) = Harness::haproxy_of(Extras::ALL, defaults).await else { return };
        let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
        for probe in [Probe::Tcp, Probe::Http { path: "/health".into() }] {
            let mut want = route(Slot::A, &[&a], &[&b], bp(50));
            for health in [&mut want.health.a, &mut want.health.b] {
                (health.probe, health.timeout) = (probe.clone(), Millis(300));
            }
            h.up(&want).await;
            // Two failed checks, 200 ms apart and each at most 300 ms long, take a server down.
            tokio::time::sleep(Duration::from_millis(1300)).await;
            let slots = h.read().await.workers[0].slots.clone();
            for slot in [slots.a, slots.b] {
                assert_eq!(slot.endpoints[0].up, Some(true), "{probe:?} under {defaults}");
            }
        }
        assert_eq!(a.hits() + b.hits(), 0, "a check asked for something else than its path");
    }
}

/// Scenario 12: what this HAProxy cannot do is known before anything is begun, with what to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_12_a_plan_that_this_haproxy_cannot_follow_is_refused() {
    let Some(mut h) = Harness::haproxy_with(Extras::default()).await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let plain = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&plain).await;
    let (rules, name) = (with_rules(plain.clone()).rules, service());
    let all = frontend_lines(&h.path().join("own"), &h.fleet, &name, Extras::ALL);
    let named = |result: Result<(), ProxyError>| {
        let Err(ProxyError::Refused(text)) = result else { panic!("{result:?}") };
        [&all[0], &all[1], &all[2]].map(|line| text.as_str().contains(line.as_str()))
    };
    h.proxy.can(&name, &[], false).await.expect("shares need nothing more");
    assert_eq!(named(h.proxy.can(&name, &rules, false).await), [true, false, false]);
    assert_eq!(named(h.proxy.can(&name, &[], true).await), [false, true, true]);
    h.settled(&plain).await;
    let evil = visitors::rule(pilothouse::fleet::model::RuleBy::Header, "x-z", "b\n(.*)");
    assert!(matches!(h.proxy.can(&name, &[evil], false).await, Err(ProxyError::Refused(_))));

    let op = h.path().join("op.cfg");
    let text = std::fs::read_to_string(&op).unwrap();
    std::fs::write(&op, text.replace(&all[3], &all.join("\n    "))).unwrap();
    h.reload().await;
    h.proxy.can(&name, &rules, true).await.expect("the lines are there");
    h.up(&sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(10))))).await;
    h.stop();
    let unknown = h.proxy.can(&name, &rules, true).await;
    assert!(
        matches!(unknown, Err(ProxyError::Unknown(_))),
        "who cannot be asked has not refused: {unknown:?}"
    );
}

/// Lines that are missing, or stand where no request gets to, are named as they must be typed; shares and other
/// services do not suffer, and an abort does not need them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_lines_for_rules_and_places_are_named() {
    let Some(h) = Harness::haproxy_with(Extras::default()).await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let plain = route(Slot::A, &[&a], &[&b], bp(25));
    h.up(&plain).await;
    let all = frontend_lines(&h.path().join("own"), &h.fleet, &service(), Extras::ALL);
    let refused = async |want: &pilothouse::rollout::world::Route| {
        let error = h.apply(want, Direction::Up).await.unwrap_err();
        assert!(!h.read().await.serves(want), "not done");
        let ProxyError::Refused(text) = error else { panic!("{error:?}") };
        [&all[0], &all[1], &all[2]].map(|line| text.as_str().contains(line.as_str()))
    };
    assert_eq!(refused(&with_rules(plain.clone())).await, [true, false, false]);
    assert_eq!(refused(&sticky(plain.clone())).await, [false, true, true]);
    let full = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(60))));
    assert_eq!(refused(&full).await, [true, true, true]);
    assert_eq!(h.read().await.workers[0].slots.b.weight, bp(60), "the share is set all the same");
    let back = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.apply(&back, Direction::Back).await.unwrap();
    h.settled(&back).await;

    // Typed below the plain line they are never reached.
    let op = h.path().join("op.cfg");
    let text = std::fs::read_to_string(&op).unwrap();
    std::fs::write(&op, format!("{text}    {}\n", all[..3].join("\n    "))).unwrap();
    h.reload().await;
    assert_eq!(refused(&full).await, [true, true, true]);
    // Typed above it they are.
    std::fs::write(&op, text.replace(&all[3], &all.join("\n    "))).unwrap();
    h.reload().await;
    h.up(&full).await;
    assert_eq!(get_as_tester(&h).await, b.id.to_string());
}

/// A rule that no request can follow, or that would break out of its map, is refused in words; the others hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_cannot_be_followed_is_refused() {
    let Some(h) = Harness::haproxy().await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let mut want = with_rules(route(Slot::A, &[&a], &[&b], Bp::ZERO));
    let evil = "b[[:cntrl:]] ph_shop_web_b\n(.*)";
    want.rules.push(visitors::rule(pilothouse::fleet::model::RuleBy::Header, "x-z", evil));
    let error = h.apply(&want, Direction::Up).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Refused(m) if m.as_str().contains("header x-z")), "{error:?}");
    assert_eq!(get_as_tester(&h).await, b.id.to_string());
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string());
}

/// What a doctor finds: nothing where all is there; the line that is missing; what else could be better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_names_the_line_that_is_missing() {
    let Some(h) = Harness::haproxy().await else { return };
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let services = crate::support::declared();
    let service: Vec<_> = services.iter().collect();
    let before = std::fs::read_to_string(h.cfg()).unwrap();
    let found = h.proxy.examine(&service).await;
    assert!(found.iter().all(|a| !a.fails), "{found:?}");
    // The operator of the suite has no limit for old workers.
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].cure.as_str().contains("hard-stop-after"), "{found:?}");
    let op = h.path().join("op.cfg");
    let text = std::fs::read_to_string(&op).unwrap();
    let line = frontend_lines(&h.path().join("own"), &h.fleet, &crate::support::service(), Extras::default());
    let without: String =
        text.lines().filter(|l| !l.contains("use_backend")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&op, without.replace("option idle-close-on-response", "")).unwrap();
    h.reload().await;
    let found = h.proxy.examine(&service).await;
    let fails: Vec<_> = found.iter().filter(|a| a.fails).collect();
    assert!(!fails.is_empty() && fails.iter().any(|a| a.what.as_str().contains(&line[0])), "{found:?}");
    assert!(found.iter().any(|a| a.cure.as_str().contains("idle-close-on-response")), "{found:?}");
    assert_eq!(std::fs::read_to_string(h.cfg()).unwrap(), before, "nothing is changed");
}

/// Scenario 11: the operator has HAProxy remember its servers in a file, and that is older than the release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_11_a_state_file_revives_no_old_port() {
    let Some(h) = Harness::haproxy_of(Extras::ALL, "    load-server-state-from-file global\n").await else {
        return;
    };
    let (old, moved) = (Backend::start(1, 1).await, Backend::start(1, 1).await);
    h.up(&route(Slot::A, &[&old], &[], Bp::ZERO)).await;
    let (op, state) = (h.path().join("op.cfg"), h.path().join("servers"));
    let remembered = h.master_says("@1 show servers state").await;
    assert!(remembered.contains(&old.addr.port().to_string()), "{remembered}");
    std::fs::write(&state, remembered).unwrap();
    let text = std::fs::read_to_string(&op).unwrap();
    std::fs::write(&op, format!("global\n    server-state-file {}\n{text}", state.display())).unwrap();
    let want = route(Slot::A, &[&moved], &[], Bp::ZERO);
    h.up(&want).await;
    let before = old.hits();
    for _ in 0..2 {
        h.reload().await;
        h.settled(&want).await;
        requests(h.listen, 80).await;
    }
    assert_eq!((old.hits(), moved.hits()), (before, 160));
}
