//! What every proxy must do, whatever it is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pilothouse::fleet::model::Probe;
use pilothouse::fleet::names::Bp;
use pilothouse::proxy::Direction;
use pilothouse::rollout::world::{EndpointState, Slot};

use crate::results;
use crate::support::{Backend, Harness, Load, bp, client, echoes, get, requests, route, websocket};

/// Shares are exact to the dice, whatever the number of instances.
pub async fn shares(h: &mut Harness) {
    let a = Backend::start(1, 1).await;
    let (b1, b2, b3) = (Backend::start(2, 1).await, Backend::start(2, 2).await, Backend::start(2, 3).await);
    let bs = [&b1, &b2, &b3];
    for percent in [1, 5, 25, 50, 99] {
        h.up(&route(Slot::A, &[&a], &bs, bp(percent))).await;
        let hits = || bs.iter().map(|b| b.hits()).sum::<u64>();
        let (a0, b0) = (a.hits(), hits());
        // Enough of them that two points are four standard deviations of a fair dice.
        let p = f64::from(percent) / 100.0;
        requests(h.listen, ((p * (1.0 - p) * 40_000.0) as usize).max(4800)).await;
        let (a1, b1) = ((a.hits() - a0) as f64, (hits() - b0) as f64);
        let share = 100.0 * b1 / (a1 + b1);
        results::note(&format!("share {percent} %"), &format!("{share:.2}"));
        assert!((share - f64::from(percent)).abs() < 2.0, "{percent} % was {share:.2} %");
    }
    assert!(bs.iter().all(|b| b.hits() > 0), "every instance of a slot is used");
}

/// Two hundred and one changes of weight, some of them in the direction of safety, and not one failed request.
pub async fn changes_lose_nothing(h: &mut Harness) {
    changes(h, 201).await;
}

/// The same for less, where the two hundred have been made elsewhere.
pub async fn some_changes_lose_nothing(h: &mut Harness) {
    changes(h, 21).await;
}

async fn changes(h: &Harness, n: u16) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], Bp::ZERO)).await;
    let load = Load::start(h.listen, 8);
    let mut aborts = Vec::new();
    for i in 0..n {
        let direction = if i % 3 == 2 { Direction::Back } else { Direction::Up };
        let want = route(Slot::A, &[&a], &[&b], if i % 3 == 2 { Bp::ZERO } else { bp(i * 7 % 101) });
        let start = std::time::Instant::now();
        h.apply(&want, direction).await.unwrap();
        if direction == Direction::Back {
            aborts.push(start.elapsed());
        }
        h.settled(&want).await;
        load.more(20).await;
    }
    aborts.sort();
    let (median, most) = (aborts[aborts.len() / 2], aborts[aborts.len() - 1]);
    results::note("abort", &format!("{median:.1?} at the median, {most:.1?} at most"));
    let (done, failed) = load.end().await;
    results::failed(&format!("{n} changes"), failed.len(), done);
    assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
    let before = b.hits();
    requests(h.listen, 400).await;
    assert_eq!(b.hits(), before, "a slot without weight gets nothing");
}

/// A draining endpoint gets nothing new; what it has is finished.
pub async fn drain(h: &mut Harness) {
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    h.up(&want).await;
    let load = Load::start(h.listen, 4);
    load.more(100).await;
    let listen = h.listen;
    let slow: Vec<_> =
        (0..4).map(|_| tokio::spawn(async move { get(&client(), listen, "/slow").await })).collect();
    let mut seen = 0;
    for _ in 0..200 {
        seen = h.read().await.in_flight(&a1.id);
        if seen > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(seen > 0, "requests in flight are reported");
    want.slots.a.endpoints[0].state = EndpointState::Drain;
    h.up(&want).await;
    load.more(20).await;
    h.is_drained(&a1).await;
    let before = a1.hits();
    load.more(400).await;
    assert_eq!(a1.hits(), before, "a draining endpoint got a new request");
    for s in slow {
        s.await.unwrap().expect("what was in flight is finished");
    }
    h.is_free(&a1).await;
    want.slots.a.endpoints[0].state = EndpointState::Ready;
    h.up(&want).await;
    load.more(200).await;
    assert!(a1.hits() > before, "back in rotation");
    let (done, failed) = load.end().await;
    results::failed("drain", failed.len(), done);
    // Into the drain, and out of it.
    h.lost_nothing(done, &failed, 2 * 4);
}

/// Endpoints come and go under load, slots alternate, and nothing is lost.
pub async fn slots_alternate(h: &mut Harness) {
    let mut stable = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&stable], &[], Bp::ZERO)).await;
    let load = Load::start(h.listen, 8);
    let mut slot = Slot::A;
    for revision in 2..5 {
        let next = Backend::start(revision, 1).await;
        let at = |stable_slot, share: Bp, old: Option<&Backend>| {
            let old: Vec<&Backend> = old.into_iter().collect();
            match slot {
                Slot::A => route(stable_slot, &old, &[&next], share),
                Slot::B => route(stable_slot, &[&next], &old, share.rest()),
            }
        };
        for percent in [5, 50, 100] {
            h.up(&at(slot, bp(percent), Some(&stable))).await;
            load.more(50).await;
        }
        h.up(&at(slot.other(), Bp::FULL, Some(&stable))).await;
        load.more(50).await;
        let mut out = at(slot.other(), Bp::FULL, Some(&stable));
        out.slots.get_mut(slot).endpoints[0].state = EndpointState::Drain;
        h.up(&out).await;
        h.is_free(&stable).await;
        h.up(&at(slot.other(), Bp::FULL, None)).await;
        stable.kill().await;
        load.more(100).await;
        stable = next;
        slot = slot.other();
    }
    let (done, failed) = load.end().await;
    results::failed("three releases", failed.len(), done);
    // A candidate comes, becomes stable, the old one drains and goes: four times three reloads.
    h.lost_nothing(done, &failed, 12 * 8);
}

/// A dead candidate's share falls to stable; a dead stable's share never falls to the candidate.
pub async fn dead_candidate(h: &mut Harness) {
    let (mut a, mut b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(50))).await;
    requests(h.listen, 80).await;
    b.kill().await;
    let client = client();
    let mut good = 0;
    for _ in 0..600 {
        good = if get(&client, h.listen, "/").await.is_ok() { good + 1 } else { 0 };
        if good == 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(good, 100, "stable takes over");
    let b = Backend::start(3, 1).await;
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
    a.kill().await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let before = b.hits();
    for _ in 0..200 {
        let _ = get(&client, h.listen, "/").await;
    }
    let share = b.hits() - before;
    assert!(share < 40, "a candidate with 5 % got {share} of 200 when stable died");
}

/// A candidate that hangs up on every request is hidden from clients by retries, and shows in the counters.
pub async fn hidden_failures_are_counted(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let b2 = Backend::start(2, 2).await;
    h.up(&route(Slot::A, &[&a], &[&b, &b2], bp(50))).await;
    requests(h.listen, 80).await;
    let before = h.proxy.counters().await.unwrap();
    b.hang_up.store(true, Ordering::SeqCst);
    let client = client();
    let (mut failed, attempts) = (0, b.hits());
    for _ in 0..200 {
        failed += u32::from(get(&client, h.listen, "/").await.is_err());
    }
    assert!(b.hits() > attempts, "the bad one was tried");
    let (mut bad, mut good) = Default::default();
    // Where counts come as log lines, those travel.
    for _ in 0..250 {
        let after = h.proxy.counters().await.unwrap();
        let of = |id| after[id].since(&before.get(id).cloned().unwrap_or_default());
        (bad, good) = (of(&b.id), of(&a.id));
        if bad.bad() > 0 && good.requests >= 60 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bad.bad() > 0, "{bad:?}, {failed} failed for clients");
    assert_eq!(good.bad(), 0, "stable did nothing wrong: {good:?}");
    assert!(good.requests >= 60, "{good:?}");
}

/// Candidates that all hang up on everything, as those do whose container died while something still accepts for
/// them: with all of the share on them no client sees it.
pub async fn candidates_that_all_hang_up_lose_nothing(h: &mut Harness) {
    let a = Backend::start(1, 1).await;
    let mut bad = Vec::new();
    for n in 1..=4 {
        bad.push(Backend::start(2, n).await);
    }
    h.up(&route(Slot::A, &[&a], &bad.iter().collect::<Vec<_>>(), Bp::FULL)).await;
    requests(h.listen, 80).await;
    assert_eq!(a.hits(), 0, "nobody needs stable yet");
    let before: u64 = bad.iter().map(Backend::hits).sum();
    for b in &bad {
        b.hang_up.store(true, Ordering::SeqCst);
    }
    let client = client();
    let mut failed = Vec::new();
    for _ in 0..300 {
        failed.extend(get(&client, h.listen, "/").await.err());
    }
    results::failed("hang up", failed.len(), 300);
    assert!(failed.is_empty(), "{} of 300 failed: {:?}", failed.len(), failed.first());
    let tried = bad.iter().map(Backend::hits).sum::<u64>() - before;
    assert!(tried >= 4, "the candidates were asked {tried} times");
    assert!(a.hits() >= 290, "stable answered {}", a.hits());
}

/// While half of the candidates drain the others carry about the same.
pub async fn the_candidates_that_stay_share_alike(h: &mut Harness) {
    let a = Backend::start(1, 1).await;
    let mut b = Vec::new();
    for n in 1..=4 {
        b.push(Backend::start(2, n).await);
    }
    let mut want = route(Slot::A, &[&a], &b.iter().collect::<Vec<_>>(), Bp::FULL);
    h.up(&want).await;
    requests(h.listen, 400).await;
    for one in &b {
        assert!((60..=140).contains(&one.hits()), "{:?}", b.iter().map(Backend::hits).collect::<Vec<_>>());
    }
    // The last ones: those that a way of going through them from the front would serve worst.
    for gone in &mut want.slots.b.endpoints[2..] {
        gone.state = EndpointState::Drain;
    }
    h.up(&want).await;
    let before: Vec<u64> = b.iter().map(Backend::hits).collect();
    requests(h.listen, 400).await;
    let got: Vec<u64> = b.iter().zip(before).map(|(one, before)| one.hits() - before).collect();
    assert_eq!(got[2] + got[3], 0, "{got:?}");
    assert!(got[..2].iter().all(|n| (120..=280).contains(n)), "{got:?}");
    assert_eq!(a.hits(), 0);
}

/// Counters never go backwards and count what the backends counted.
pub async fn counters(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(25))).await;
    h.proxy.counters().await.unwrap();
    requests(h.listen, 800).await;
    // A last answer is counted just after its client has it, and log lines travel.
    for _ in 0..100 {
        let c = h.proxy.counters().await.unwrap();
        let all: u64 = [&a.id, &b.id].iter().map(|id| c[*id].requests).sum();
        if all == 800 && c[&a.id].latency.count() == a.hits() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = h.proxy.counters().await.unwrap();
    for x in [&a, &b] {
        let c = &first[&x.id];
        assert_eq!((c.requests, c.errors, c.retries), (x.hits(), 0, 0));
        assert_eq!(c.latency.count(), x.hits(), "each request's latency");
    }
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    let second = h.proxy.counters().await.unwrap();
    assert!(second[&a.id].requests >= first[&a.id].requests);
}

/// A restart keeps what was set.
pub async fn restart_keeps(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let a2 = Backend::start(1, 2).await;
    let mut want = route(Slot::A, &[&a, &a2], &[&b], bp(25));
    h.up(&want).await;
    want.slots.a.endpoints[1].state = EndpointState::Drain;
    want.slots.a.weight = bp(60);
    want.slots.b.weight = bp(40);
    h.up(&want).await;
    h.restart().await;
    h.settled(&want).await;
    let before = a2.hits();
    requests(h.listen, 400).await;
    assert_eq!(a2.hits(), before, "the drain is kept");
    assert!(b.hits() > 80, "the share is kept");
}

/// Nothing has a weight before a first release, and nothing breaks.
pub async fn before_the_first_release(h: &mut Harness) {
    let mut want = route(Slot::A, &[], &[], Bp::ZERO);
    want.slots.a.weight = Bp::ZERO;
    h.up(&want).await;
    assert!(get(&client(), h.listen, "/").await.unwrap_err().starts_with("503"));
    let a = Backend::start(1, 1).await;
    h.up(&route(Slot::A, &[&a], &[], Bp::ZERO)).await;
    assert_eq!(get(&client(), h.listen, "/").await.unwrap(), a.id.to_string());
}

/// The proxy's own HTTP check is read back per endpoint: what answers is up, what does not is down.
pub async fn checks(h: &mut Harness) {
    let (a, mut b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let mut want = route(Slot::A, &[&a], &[&b], bp(5));
    for health in [&mut want.health.a, &mut want.health.b] {
        health.probe = Probe::Http { path: "/health?deep=1&x=%20".into() };
    }
    h.up(&want).await;
    let wait = async |a_up, b_up| {
        for _ in 0..500 {
            let back = h.read().await;
            let slots = &back.workers[0].slots;
            if (slots.a.endpoints[0].up, slots.b.endpoints[0].up) == (a_up, b_up) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("wanted {a_up:?} {b_up:?}, have {:#?}", h.read().await);
    };
    wait(Some(true), Some(true)).await;
    b.kill().await;
    wait(Some(true), Some(false)).await;
}

/// Scenario 22: a websocket lives through a drain, counts as in flight, and stops counting when it ends.
pub async fn scenario_22_a_websocket_is_held_through_a_drain(h: &mut Harness) {
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    h.up(&route(Slot::A, &[&a1], &[], Bp::ZERO)).await;
    let mut ws = websocket(h).await;
    echoes(&mut ws).await;
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    want.slots.a.endpoints[0].state = EndpointState::Drain;
    h.up(&want).await;
    let before = a1.hits();
    requests(h.listen, 80).await;
    assert_eq!(a1.hits(), before);
    echoes(&mut ws).await;
    assert_eq!(h.read().await.in_flight(&a1.id), 1);
    drop(ws);
    h.is_free(&a1).await;
}

/// Scenario 11: an instance that comes back at another address is used there, also after a restart, and the address is read
/// back.
pub async fn scenario_11_another_address_is_used_and_read_back(h: &mut Harness) {
    let (old, moved) = (Backend::start(1, 1).await, Backend::start(1, 1).await);
    let was = route(Slot::A, &[&old], &[], Bp::ZERO);
    h.up(&was).await;
    let want = route(Slot::A, &[&moved], &[], Bp::ZERO);
    assert!(!h.read().await.serves(&want), "same instance, another address");
    h.up(&want).await;
    assert!(!h.read().await.serves(&was));
    h.restart().await;
    h.settled(&want).await;
    let before = old.hits();
    requests(h.listen, 80).await;
    assert_eq!((old.hits(), moved.hits()), (before, 80));
}

/// Scenario 14: an instance that drains gets nothing while somebody else reloads, and nothing afterwards.
pub async fn scenario_14_a_drained_instance_gets_nothing_through_reloads(h: &mut Harness) {
    let (a1, a2) = (Backend::start(1, 1).await, Backend::start(1, 2).await);
    let mut want = route(Slot::A, &[&a1, &a2], &[], Bp::ZERO);
    h.up(&want).await;
    requests(h.listen, 80).await;
    want.slots.a.endpoints[0].state = EndpointState::Drain;
    h.up(&want).await;
    h.is_free(&a1).await;
    let (before, load) = (a1.hits(), Load::start(h.listen, 4));
    assert!(before > 0, "it was used");
    for _ in 0..4 {
        h.reload().await;
        load.more(50).await;
    }
    let (done, failed) = load.end().await;
    results::failed("four own reloads", failed.len(), done);
    assert_eq!(a1.hits(), before);
    // None of these reloads is ours. Some proxies close what is kept alive: at most each connection, each time.
    assert!(failed.len() <= 4 * 4, "{failed:?}");
    h.settled(&want).await;
}
