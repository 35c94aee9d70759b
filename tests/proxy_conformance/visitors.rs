//! What every proxy must do for visitors that are told apart: rules and sticky places.

use pilothouse::fleet::model::{Rule, RuleBy};
use pilothouse::fleet::names::Bp;
use pilothouse::proxy::Direction;
use pilothouse::rollout::world::{EndpointState, Route, Slot};

use crate::support::{Answer, Backend, Harness, ask, bp, client, route};

pub fn rule(by: RuleBy, name: &str, value: &str) -> Rule {
    Rule { by, name: name.into(), value: value.into() }
}

/// `route` with a header and a cookie for testers.
pub fn with_rules(mut route: Route) -> Route {
    route.rules = vec![rule(RuleBy::Header, "X-Variant", "b"), rule(RuleBy::Cookie, "try", "new.1")];
    route.rules.sort();
    route
}

pub fn sticky(mut route: Route) -> Route {
    route.sticky = true;
    route
}

/// What one visitor with these headers gets; it must be an answer.
async fn visit(h: &Harness, headers: &[(&str, &str)]) -> Answer {
    ask(&client(), h.listen, headers).await.unwrap()
}

/// A header and a cookie reach a candidate without weight, with exactly their values; without them nobody does; and
/// once the rules are gone nobody does either.
pub async fn rules_reach_the_candidate(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let odd = "a b;c\\d^e]f[g\"h'i#j$k{l}(.*)|é";
    for (stable, candidate, slot) in [(&a, &b, Slot::A), (&b, &a, Slot::B)] {
        let weight = if slot == Slot::A { Bp::ZERO } else { Bp::FULL };
        let mut want = with_rules(route(slot, &[&a], &[&b], weight));
        want.rules.push(rule(RuleBy::Header, "x-odd", odd));
        want.rules.sort();
        h.up(&want).await;
        for headers in [
            &[("X-Variant", "b")][..],
            &[("x-variant", "b"), ("accept", "*/*")],
            // nginx before 1.23 sees the first header of a name only.
            if h.server.sees_repeated_headers() {
                &[("x-variant", "other"), ("X-VARIANT", "b")]
            } else {
                &[("X-VARIANT", "b")]
            },
            &[("cookie", "try=new.1")],
            &[("cookie", "a=1; try=new.1;b=2")],
            &[("cookie", "a=1"), ("cookie", "try=new.1")],
            &[("x-odd", odd)],
        ] {
            for _ in 0..5 {
                let answer = visit(h, headers).await;
                assert_eq!((answer.body, answer.cookies), (candidate.id.to_string(), vec![]), "{headers:?}");
            }
        }
        let before = candidate.hits();
        for headers in [
            &[][..],
            &[("x-variant", "bc")],
            &[("x-variant", "B")],
            &[("x-variant", "")],
            &[("x-variant", "a b")],
            &[("x-variants", "b"), ("x-my-x-variant", "b")],
            &[("x-other", "x-variant: b")],
            &[("try", "new.1"), ("cookie", "x-variant=b")],
            &[("cookie", "try=new.12")],
            &[("cookie", "try=newx1")],
            &[("cookie", "Try=new.1; retry=new.1; x=try=new.1")],
            &[("accept", "text/html; try=new.1; q=1")],
            &[("x-odd", "a b;c")],
        ] {
            for _ in 0..5 {
                assert_eq!(visit(h, headers).await.body, stable.id.to_string(), "{headers:?}");
            }
        }
        assert_eq!(candidate.hits(), before);
        let none = route(slot, &[&a], &[&b], weight);
        assert!(!h.read().await.serves(&none), "the rules are read back");
        h.apply(&none, Direction::Back).await.unwrap();
        h.settled(&none).await;
        for headers in [&[("x-variant", "b")], &[("cookie", "try=new.1")], &[("x-odd", odd)]] {
            assert_eq!(visit(h, headers).await.body, stable.id.to_string());
        }
        assert_eq!(candidate.hits(), before);
    }
}

/// Whoever a rule sends to a candidate that is dead, draining or not there gets stable's answer, and no error.
pub async fn rules_fall_back_to_stable(h: &mut Harness) {
    let (a, mut b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = with_rules(route(Slot::A, &[&a], &[&b], Bp::ZERO));
    h.up(&want).await;
    // Over a connection of its own each time: a reload may close one that is kept.
    let tester = async || ask(&client(), h.listen, &[("x-variant", "b")]).await.map(|answer| answer.body);
    for _ in 0..10 {
        assert_eq!(tester().await.unwrap(), b.id.to_string());
    }
    let mut draining = want.clone();
    draining.slots.b.endpoints[0].state = EndpointState::Drain;
    h.up(&draining).await;
    h.is_drained(&b).await;
    for _ in 0..10 {
        assert_eq!(tester().await.unwrap(), a.id.to_string());
    }
    h.up(&want).await;
    assert_eq!(tester().await.unwrap(), b.id.to_string());
    b.kill().await;
    for n in 0..100 {
        assert_eq!(tester().await.as_deref(), Ok(a.id.to_string().as_str()), "request {n} after the kill");
    }
    h.up(&with_rules(route(Slot::A, &[&a], &[], Bp::ZERO))).await;
    for _ in 0..10 {
        assert_eq!(tester().await.unwrap(), a.id.to_string());
    }
}

/// A visitor's place, and whether it was the candidate that answered, per visitor.
async fn newcomers(h: &Harness, candidate: &Backend, n: usize) -> Vec<(u16, bool)> {
    let (client, listen, id) = (client(), h.listen, candidate.id.to_string());
    let task = |_| {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..n / 8 {
                let answer = ask(&client, listen, &[]).await.unwrap();
                seen.push((answer.place(), answer.body == id));
            }
            seen
        })
    };
    let mut all = Vec::new();
    for t in (0..8).map(task).collect::<Vec<_>>() {
        all.extend(t.await.unwrap());
    }
    all
}

/// Whether the candidate answered, per visitor that comes again.
async fn again(h: &Harness, candidate: &Backend, places: &[u16]) -> Vec<bool> {
    let (client, listen) = (client(), h.listen);
    let task = |places: &[u16]| {
        let (client, places, id) = (client.clone(), places.to_vec(), candidate.id.to_string());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            for place in places {
                let cookie = format!("theme=dark; ph_shop_web={place}");
                let answer = ask(&client, listen, &[("cookie", &cookie)]).await.unwrap();
                assert!(answer.cookies.is_empty(), "a visitor with a place is told none: {answer:?}");
                seen.push(answer.body == id);
            }
            seen
        })
    };
    let mut all = Vec::new();
    for t in places.chunks(places.len().div_ceil(8)).map(task).collect::<Vec<_>>() {
        all.extend(t.await.unwrap());
    }
    all
}

/// Places are given in proportion, visitors keep them, move to the candidate only as its weight rises, and go back
/// all at once.
pub async fn visitors_move_one_way(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    // Of a fair dice, so many that two points are more than four standard deviations; the edge's is spread evenly.
    let many = if h.server.throws_dice() { 9000 } else { 1000 };
    for (stable, candidate, n) in [(Slot::A, &b, many), (Slot::B, &a, 1000)] {
        let at = |percent: u16| {
            let share = if stable == Slot::A { bp(percent) } else { bp(100 - percent) };
            sticky(route(stable, &[&a], &[&b], share))
        };
        h.up(&at(10)).await;
        let all = newcomers(h, candidate, n).await;
        let percent = |n: usize| 100.0 * n as f64 / all.len() as f64;
        let belongs = |place: u16, percent: u16| match stable {
            Slot::A => place < percent * 100,
            Slot::B => place >= 10_000 - percent * 100,
        };
        let share = percent(all.iter().filter(|(_, seen)| *seen).count());
        let near = if n == many { 2.0 } else { 6.0 };
        assert!((share - 10.0).abs() < near, "10 % was {share:.2} %");
        let share = percent(all.iter().filter(|(place, _)| belongs(*place, 30)).count());
        assert!((share - 30.0).abs() < near, "30 % would be {share:.2} %");
        assert!(all.iter().all(|(place, seen)| *seen == belongs(*place, 10)), "the place says who answers");

        let (places, at_10): (Vec<u16>, Vec<bool>) = all.into_iter().take(1000).unzip();
        assert_eq!(again(h, candidate, &places).await, at_10, "nobody moves while nothing changes");
        h.up(&at(30)).await;
        let at_30 = again(h, candidate, &places).await;
        let moved_back = at_10.iter().zip(&at_30).filter(|(before, now)| **before && !**now).count();
        assert_eq!(moved_back, 0);
        let want: Vec<bool> = places.iter().map(|p| belongs(*p, 30)).collect();
        assert_eq!(at_30, want, "those moved whose turn it was");
        h.apply(&at(0), Direction::Back).await.unwrap();
        h.settled(&at(0)).await;
        assert!(again(h, candidate, &places).await.iter().all(|seen| !seen), "all back at once");
    }
}

/// A cookie that holds no place is replaced; one that does is not; and none matters where places are not kept.
pub async fn strangers_are_given_a_place(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let plain = route(Slot::A, &[&a], &[&b], bp(50));
    h.up(&sticky(plain.clone())).await;
    for bad in ["x", "10000", "", "-1", "+1", "1e3", "12x", "99999999999999999999", "0x10", "1 2", "%31"] {
        let cookie = format!("ph_shop_web={bad}; a=1");
        let answer = visit(h, &[("cookie", &cookie)]).await;
        let candidate = answer.body == b.id.to_string();
        assert_eq!(answer.place() < 5000, candidate, "{bad:?}: {answer:?}");
    }
    let twice = visit(h, &[("cookie", "ph_shop_web=1; ph_shop_web=x")]).await;
    assert_eq!(twice.place() < 5000, twice.body == b.id.to_string());
    for (place, id) in [("0", &b.id), ("4999", &b.id), ("5000", &a.id), ("9999", &a.id)] {
        let cookie = format!("ph_shop_web={place}");
        let answer = visit(h, &[("cookie", &cookie)]).await;
        assert_eq!((answer.body, answer.cookies), (id.to_string(), vec![]), "{place}");
    }
    assert!(!h.read().await.serves(&plain), "that places are kept is read back");
    h.up(&plain).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let answer = visit(h, &[("cookie", "ph_shop_web=0")]).await;
        assert!(answer.cookies.is_empty(), "{answer:?}");
        seen.insert(answer.body);
    }
    assert_eq!(seen.len(), 2, "the dice decides");
}

/// A restart keeps rules and places.
pub async fn rules_and_places_survive(h: &mut Harness) {
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    let want = sticky(with_rules(route(Slot::A, &[&a], &[&b], bp(10))));
    h.up(&want).await;
    h.restart().await;
    h.settled(&want).await;
    keeps(h, &a, &b).await;
    let off = route(Slot::A, &[&a], &[&b], Bp::ZERO);
    h.apply(&off, Direction::Back).await.unwrap();
    h.restart().await;
    h.settled(&off).await;
    let tester = visit(h, &[("x-variant", "b"), ("cookie", "ph_shop_web=0; try=new.1")]).await;
    assert_eq!((tester.body, tester.cookies), (a.id.to_string(), vec![]), "and so they stay gone");
}

/// Whether rules and places are in force with stable `a` and candidate `b`, which has 10 %.
pub async fn keeps(h: &Harness, a: &Backend, b: &Backend) {
    for (headers, id) in [
        (&[("x-variant", "b"), ("cookie", "ph_shop_web=9999")], &b.id),
        (&[("x-variant", "c"), ("cookie", "ph_shop_web=999")], &b.id),
        (&[("x-variant", "c"), ("cookie", "ph_shop_web=1000")], &a.id),
    ] {
        let answer = visit(h, headers).await;
        assert_eq!((answer.body, answer.cookies), (id.to_string(), vec![]), "{headers:?}");
    }
    visit(h, &[]).await.place();
}
