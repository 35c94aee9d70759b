//! The suite against a real edge process, and what is the edge's own.

use std::time::Duration;

use pilothouse::fleet::names::Bp;
use pilothouse::proxy::{Direction, Proxy as _, ProxyError};
use pilothouse::rollout::world::Slot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::servers::edge::edge_in;
use crate::suite;
use crate::support::{Backend, Frozen, Harness, Load, bp, client, free_addr, get, requests, route};
use crate::visitors::{self, with_rules};

conforms!(
    Some(Harness::edge().await);
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
    scenario_22_a_websocket_is_held_through_a_drain,
    before_the_first_release
);

conforms!(
    Some(Harness::edge().await);
    visitors: rules_reach_the_candidate,
    rules_fall_back_to_stable,
    visitors_move_one_way,
    strangers_are_given_a_place,
    rules_and_places_survive
);

async fn pid_of(h: &Harness) -> u32 {
    edge_in(h.path(), h.listen, crate::support::OWNER).pid().await.unwrap()
}

/// A second driver finds the running process instead of starting another, and a foreign one may not touch it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_found_again_and_belongs_to_one() {
    let h = Harness::edge().await;
    let a = Backend::start(1, 1).await;
    let want = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&want).await;
    let pid = pid_of(&h).await;
    let again = edge_in(h.path(), h.listen, crate::support::OWNER);
    assert_eq!(again.pid().await.unwrap(), pid);
    again.apply(std::slice::from_ref(&want), Direction::Up).await.unwrap();
    let other = edge_in(h.path(), h.listen, "other@there");
    let error = other.apply(&[route(Slot::A, &[], &[], Bp::ZERO)], Direction::Back).await.unwrap_err();
    assert!(
        matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(crate::support::OWNER)),
        "{error:?}"
    );
    h.settled(&want).await;
    assert_eq!(pid_of(&h).await, pid);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(h.path().join("front.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What is left on disk belongs to its controller as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_routes_belong_to_one() {
    let mut h = Harness::edge().await;
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    h.stop();
    let other = edge_in(h.path(), h.listen, "other@there");
    let error = other.read_back().await.unwrap_err();
    assert!(
        matches!(&error, ProxyError::Foreign(m) if m.as_str().contains(crate::support::OWNER)),
        "{error:?}"
    );
}

/// Eight drivers at once start one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_starts_make_one_process() {
    let mut h = Harness::edge().await;
    h.stop();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let edge = edge_in(h.path(), h.listen, crate::support::OWNER);
            tokio::spawn(async move {
                edge.read_back().await.unwrap();
                edge.pid().await.unwrap()
            })
        })
        .collect();
    let mut pids = std::collections::BTreeSet::new();
    for t in tasks {
        pids.insert(t.await.unwrap());
    }
    assert_eq!(pids.len(), 1);
}

/// What stands in the way of a start is said in words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_address_and_a_long_path_are_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let edge = edge_in(dir.path(), taken.local_addr().unwrap(), "me");
    let error = edge.read_back().await.unwrap_err();
    assert!(matches!(&error, ProxyError::Refused(m) if m.as_str().contains("is taken")), "{error:?}");
    let edge = edge_in(&dir.path().join("x".repeat(120)), free_addr(), "me");
    let error = edge.read_back().await.unwrap_err();
    assert!(matches!(&error, ProxyError::Refused(m) if m.as_str().contains("107")), "{error:?}");
}

/// Bodies are streamed: what was sent comes back before the request has ended, and a large one is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_streamed_both_ways() {
    let h = Harness::edge().await;
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let mut s = TcpStream::connect(h.listen).await.unwrap();
    s.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await
        .unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.contains("first") {
        let n = s.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(h.read().await.in_flight(&a.id), 1, "in flight until the body is done");
    s.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    while !text.ends_with("0\r\n\r\n") {
        let n = s.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(text.contains("last"));
    let large = vec![b'x'; 8 << 20];
    let answer =
        reqwest::Client::new().post(format!("http://{}/echo", h.listen)).body(large.clone()).send().await;
    assert_eq!(answer.unwrap().bytes().await.unwrap(), large);
}

/// A POST to an instance that is gone goes to another: nothing of its body had been sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_retried_when_nothing_was_sent() {
    let h = Harness::edge().await;
    let (a1, mut a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    for health in [&mut want.health.a, &mut want.health.b] {
        health.interval = pilothouse::fleet::names::Millis(60_000);
    }
    h.up(&want).await;
    let http = reqwest::Client::new();
    for i in 0..40 {
        if i == 10 {
            a2.kill().await;
        }
        let answer = http.post(format!("http://{}/echo", h.listen)).body("hello").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "hello"));
    }
    assert!(h.proxy.counters().await.unwrap()[&a2.id].retries > 0, "and it was counted");
}

/// Told to stop, it finishes what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_loses_nothing_in_flight() {
    let h = Harness::edge().await;
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let listen = h.listen;
    let slow = tokio::spawn(async move { get(&client(), listen, "/slow").await });
    while h.read().await.in_flight(&a.id) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge_in(h.path(), h.listen, crate::support::OWNER).stop().await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), a.id.to_string());
}

/// Killed with no warning, it comes back with its routes when its driver next looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_it_is_started_again_with_its_routes() {
    let mut h = Harness::edge().await;
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = route(Slot::A, &[&a], &[&b], bp(25));
    h.up(&want).await;
    let counted = {
        requests(h.listen, 80).await;
        h.proxy.counters().await.unwrap()[&a.id].requests
    };
    let pid = pid_of(&h).await;
    h.stop();
    h.settled(&want).await;
    assert_ne!(pid_of(&h).await, pid);
    let load = Load::start(h.listen, 2);
    load.more(50).await;
    assert!(load.end().await.1.is_empty());
    assert!(h.proxy.counters().await.unwrap()[&a.id].requests > counted, "counters go on");
}

/// What an operator is told to type in an emergency does what it says, and survives a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand() {
    let mut h = Harness::edge().await;
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = with_rules(route(Slot::B, &[&a], &[&b], bp(40)));
    h.up(&want).await;
    let script = h.proxy.by_hand(&want);
    if crate::require::program("curl").is_some() {
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success(), "{script}\n{out:?}");
        h.settled(&route(Slot::B, &[&a], &[&b], Bp::FULL)).await;
        h.restart().await;
        h.settled(&route(Slot::B, &[&a], &[&b], Bp::FULL)).await;
    }
}

/// An edge that hangs is unknown, not absent: nobody starts a second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_edge_is_unknown() {
    let h = Harness::edge().await;
    let a = Backend::start(1, 1).await;
    let want = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&want).await;
    let pid = pid_of(&h).await;
    let frozen = Frozen::new(&pid.to_string()).await;
    let hung = (h.proxy.read_back().await, h.apply(&want, Direction::Back).await);
    drop(frozen);
    assert!(matches!(hung, (Err(ProxyError::Unknown(_)), Err(ProxyError::Unknown(_)))), "{hung:?}");
    h.up(&want).await;
    assert_eq!(pid_of(&h).await, pid);
}

/// Saved routes that cannot be read are put aside; the edge starts and can be given new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_routes_are_put_aside() {
    let mut h = Harness::edge().await;
    let a = Backend::start(1, 1).await;
    let want = route(Slot::A, &[&a], &[], Bp::ZERO);
    h.up(&want).await;
    h.stop();
    std::fs::write(h.path().join("front.json"), "{\"owner\"").unwrap();
    h.start().await;
    assert!(h.proxy.read_back().await.unwrap().is_empty());
    assert!(h.path().join("front.damaged").exists());
    h.up(&want).await;
}

/// Routes saved before there were rules and places still load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_of_an_older_version_are_kept() {
    let mut h = Harness::edge().await;
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = route(Slot::A, &[&a], &[&b], bp(5));
    h.up(&want).await;
    h.stop();
    let file = h.path().join("front.json");
    let mut saved: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    saved.as_object_mut().unwrap().remove("fleet").unwrap();
    for name in ["rules", "sticky"] {
        saved["routes"][0].as_object_mut().unwrap().remove(name).unwrap();
    }
    std::fs::write(&file, saved.to_string()).unwrap();
    h.start().await;
    h.settled(&want).await;
    h.up(&visitors::sticky(want)).await;
}

/// A write that was given up on and arrives late is refused: the routes are others by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_write_cannot_undo() {
    let h = Harness::edge().await;
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
    let ask = async |head: String, body: &str| {
        let mut s = tokio::net::UnixStream::connect(h.path().join("front.sock")).await.unwrap();
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        s.write_all(text.as_bytes()).await.unwrap();
        let mut text = String::new();
        s.read_to_string(&mut text).await.unwrap();
        text
    };
    let info = ask("GET /info".into(), "").await;
    let version = info.split_once("\"version\":\"").unwrap().1.split('"').next().unwrap().to_owned();
    let saved = std::fs::read_to_string(h.path().join("front.json")).unwrap();
    let safe = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.apply(&safe, Direction::Back).await.unwrap();
    let late = ask(format!("PUT /routes?direction=up&after={version}"), &saved).await;
    assert!(late.starts_with("HTTP/1.1 409"), "{late}");
    h.settled(&safe).await;
}
