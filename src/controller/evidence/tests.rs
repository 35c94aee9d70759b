//! Evidence in numbers and in words.

use super::*;

fn analysis() -> Analysis {
    Analysis {
        tolerance: Rate::TOLERANCE,
        alpha: Rate::ALPHA,
        max_errors: None,
        latency: true,
        soak: Millis(0),
        inconclusive_after: Millis::secs(600),
        early: false,
        dry_run: false,
    }
}

fn did(requests: u64, errors: u64, us: u64) -> Counters {
    let mut c = Counters { requests, errors, ..Counters::default() };
    (0..requests).for_each(|_| c.latency.record(us));
    c
}

fn evidence(a: &Analysis, before: &Counters) -> Evidence {
    Evidence::begin("web-2".parse().unwrap(), 1, a, before, 1.0, Millis::secs(100))
}

/// One tick a second, from the given second on; the second in which it first says `wanted`.
fn until(
    e: &mut Evidence,
    from: u64,
    wanted: State,
    mut second: impl FnMut(u64) -> (Counters, Counters),
) -> Option<u64> {
    (from..from + 3600).find(|s| {
        let (stable, candidate) = second(*s);
        e.tick(Millis::secs(100 + s), &stable, &candidate);
        e.verdict().state == wanted
    })
}

#[test]
fn a_candidate_that_fails_a_fifth_is_found_within_seconds_and_the_numbers_are_said() {
    let mut e = evidence(&analysis(), &did(30_000, 30, 2_000));
    let at = until(&mut e, 1, State::Fail, |s| (did(95, 0, 2_000), did(5, u64::from(s > 3), 2_000))).unwrap();
    assert!((4..=9).contains(&at), "{at} s");
    let v = e.verdict();
    assert_eq!(v.first_bad, Some(Millis::secs(103)), "bad from the fourth second on");
    let said = v.words.as_str();
    assert!(said.contains(&format!("{} of {} requests failed, stable 0 of", at - 3, at * 5)), "{said}");
    assert!(said.contains("sure it is over 0.5 points worse") && said.contains("99"), "{said}");
    // A failure stays one, whatever comes.
    assert_eq!(until(&mut e, at + 1, State::Wait, |_| (did(95, 0, 2_000), did(5, 0, 2_000))), None);
}

#[test]
fn a_good_candidate_passes_and_says_how_much_worse_it_can_be() {
    let mut e = evidence(&analysis(), &did(30_000, 0, 2_000));
    let at = until(&mut e, 1, State::Pass, |_| (did(75, 0, 2_000), did(25, 0, 2_000))).unwrap();
    assert!((30..=90).contains(&at), "25 a second, and the latency is looked at after 30 s: {at} s");
    let words = e.verdict().words.to_string();
    assert!(words.starts_with("0 of ") && words.contains("points worse (95%)"), "{words}");
}

#[test]
fn a_pass_is_gathered_anew_at_each_share_and_a_suspicion_is_not() {
    let a = Analysis { latency: false, ..analysis() };
    let mut e = evidence(&a, &did(30_000, 0, 2_000));
    let at = until(&mut e, 1, State::Pass, |_| (did(75, 0, 1), did(25, 0, 1))).unwrap();
    let before = e.whole.log_fail();
    e.enter(2, &a, Millis::secs(100 + at));
    e.tick(Millis::secs(101 + at), &did(3, 0, 1), &did(1, 0, 1));
    let v = e.verdict();
    assert_eq!((v.phase, v.state), (2, State::Wait), "{}", v.words);
    assert!((e.whole.log_fail() - before).abs() < 0.1, "what speaks against it goes on");
    assert!(v.words.as_str().starts_with("0 of 1 failed, stable 0 of 3"), "{}", v.words);
}

#[test]
fn slower_answers_are_found_and_those_that_nobody_feels_are_not() {
    let before = did(3_000, 0, 20_000);
    let mut e = evidence(&analysis(), &before);
    let slow = |us| move |_| (did(75, 0, 20_000), did(25, 0, us));
    let at = until(&mut e, 1, State::Fail, slow(60_000)).unwrap();
    assert!((31..=45).contains(&at), "after the warm-up: {at} s");
    assert!(e.verdict().words.as_str().contains("answers took longer than"), "{}", e.verdict().words);
    let mut e = evidence(&analysis(), &before);
    assert_eq!(until(&mut e, 1, State::Fail, slow(22_000)), None, "10% more of 20 ms");
    let mut e = evidence(&analysis(), &did(100, 0, 20_000));
    assert_eq!(until(&mut e, 1, State::Fail, slow(60_000)), None, "too little is known of stable to judge");
}

#[test]
fn stable_that_fails_by_itself_puts_it_on_hold_and_is_not_held_against_the_candidate() {
    let a = Analysis { latency: false, ..analysis() };
    let mut e = evidence(&a, &did(30_000, 30, 1));
    let burst = |s: u64| {
        if (20..60).contains(&s) { (did(95, 76, 1), did(5, 5, 1)) } else { (did(95, 0, 1), did(5, 0, 1)) }
    };
    let at = until(&mut e, 1, State::Hold, burst).unwrap();
    assert_eq!(at, 20);
    let v = e.verdict();
    assert_eq!(v.stable_fails, Some(Millis::secs(120)));
    assert!(v.words.as_str().starts_with("stable itself fails: 76 of"), "{}", v.words);
    let after = until(&mut e, 21, State::Wait, burst).unwrap();
    assert!((60..=66).contains(&after), "{after}");
    assert_eq!(e.verdict().stable_fails, None);
    assert_eq!(until(&mut e, after + 1, State::Fail, burst), None);
}

#[test]
fn an_absolute_bound_finds_what_hurts_both() {
    let a = Analysis { latency: false, max_errors: "20%".parse().ok(), ..analysis() };
    // Below what counts as stable failing by itself, above the bound for the candidate.
    let mut e = evidence(&a, &did(3_000, 400, 1));
    let at = until(&mut e, 1, State::Fail, |_| (did(50, 7, 1), did(50, 25, 1)));
    assert!(at.is_some());
    let alike = |_| (did(50, 9, 1), did(50, 15, 1));
    let a = Analysis { tolerance: "40%".parse().unwrap(), ..a };
    let mut e = evidence(&a, &did(3_000, 540, 1));
    assert!(until(&mut e, 1, State::Fail, alike).is_some());
    assert!(e.verdict().words.as_str().contains("sure that over 20% do"), "{}", e.verdict().words);
}

#[test]
fn attempts_that_the_proxy_hid_count_against_the_candidate() {
    let mut e = evidence(&analysis(), &did(30_000, 30, 2_000));
    let hidden = |_| (did(95, 0, 2_000), Counters { requests: 4, retries: 1, ..Counters::default() });
    let at = until(&mut e, 1, State::Fail, hidden).unwrap();
    assert!(at <= 9, "{at} s");
    assert!(e.verdict().words.as_str().contains(&format!("{at} of {} requests failed", at * 5)));
}

#[test]
fn it_is_written_down_and_goes_on_as_if_nothing_had_been() {
    let a = Analysis { max_errors: "50%".parse().ok(), ..analysis() };
    let second = |s: u64| {
        (did(95, u64::from(s.is_multiple_of(9)), 2_000), did(5, u64::from(s.is_multiple_of(4)), 2_000))
    };
    let (mut whole, mut parts) = (evidence(&a, &did(3_000, 3, 2_000)), evidence(&a, &did(3_000, 3, 2_000)));
    for s in 1..120 {
        let (stable, candidate) = second(s);
        whole.tick(Millis::secs(100 + s), &stable, &candidate);
        parts.tick(Millis::secs(100 + s), &stable, &candidate);
        parts = serde_json::from_slice(&serde_json::to_vec(&parts).unwrap()).unwrap();
        if s == 60 {
            whole.enter(2, &a, Millis::secs(100 + s));
            parts.enter(2, &a, Millis::secs(100 + s));
        }
        assert_eq!(whole, parts, "second {s}");
    }
}

/// `lost` in a hundred of this second's lines of a proxy.
fn loses(e: &mut Evidence, lost: u64, latency_only: bool) {
    let loss = LogLoss { came: 100 - lost, dropped: lost, latency_only, ..LogLoss::default() };
    e.lost(&"lb".parse().unwrap(), &loss);
}

#[test]
fn nothing_is_passed_by_what_is_left_of_lines_that_were_lost() {
    let a = Analysis { latency: false, ..analysis() };
    let good = || (did(75, 0, 1), did(25, 0, 1));
    let mut e = evidence(&a, &did(30_000, 0, 2_000));
    for s in 1..=300 {
        loses(&mut e, 2, false);
        let (stable, candidate) = good();
        e.tick(Millis::secs(100 + s), &stable, &candidate);
        assert_eq!(e.verdict().state, State::Wait, "second {s}");
    }
    let v = e.verdict();
    assert_eq!(v.counted_since, Some(Millis::secs(400)));
    let said = v.words.as_str();
    assert!(
        said.starts_with("no requests of both versions at this share yet; 2.0% of the log lines of proxy lb"),
        "{said}"
    );
    assert!(
        said.contains("(600 of 30,000 were not read in time")
            && said.ends_with("nothing is passed by what is left"),
        "{said}"
    );
    // What waited in the buffer comes with the next interval: that is none to count on either. Then it begins.
    let at = until(&mut e, 301, State::Pass, |_| good()).unwrap();
    assert!((320..=390).contains(&at), "gathered from nothing: {at} s");
    let v = e.verdict();
    assert_eq!(v.counted_since, Some(Millis::secs(401)));
    assert!(v.words.as_str().starts_with(&format!("0 of {} failed", (at - 301) * 25)), "{}", v.words);
    // It is taken back in the moment in which lines are lost again, and another share begins without them.
    loses(&mut e, 50, false);
    e.tick(Millis::secs(101 + at), &did(75, 0, 1), &did(25, 0, 1));
    assert_eq!(e.verdict().state, State::Wait);
    e.enter(2, &a, Millis::secs(101 + at));
    assert_eq!(e.verdict().counted_since, None);
    assert!(!e.verdict().words.as_str().contains("lost"), "{}", e.verdict().words);
}

#[test]
fn one_line_in_a_hundred_may_be_lost() {
    let a = Analysis { latency: false, ..analysis() };
    let passed_at = |lost| {
        let mut e = evidence(&a, &did(30_000, 0, 2_000));
        (1..200_u64).find(|s| {
            loses(&mut e, lost, false);
            e.tick(Millis::secs(100 + s), &did(75, 0, 1), &did(25, 0, 1));
            e.verdict().state == State::Pass
        })
    };
    assert!(passed_at(0).is_some());
    assert_eq!(passed_at(1), passed_at(0));
    assert_eq!(passed_at(2), None);
}

#[test]
fn lost_lines_do_not_keep_back_what_speaks_against_the_candidate() {
    let second = |s: u64| (did(95, 0, 2_000), did(5, u64::from(s > 3), 2_000));
    let found = |lost| {
        let mut e = evidence(&analysis(), &did(30_000, 30, 2_000));
        (1..60_u64).find(|s| {
            loses(&mut e, lost, false);
            let (stable, candidate) = second(*s);
            e.tick(Millis::secs(100 + s), &stable, &candidate);
            e.verdict().state == State::Fail
        })
    };
    assert!(found(0).is_some());
    assert_eq!(found(40), found(0));
}

#[test]
fn where_lines_tell_response_times_only_failures_are_judged_as_ever() {
    let passes = |latency: bool| {
        let a = Analysis { latency, ..analysis() };
        let mut e = evidence(&a, &did(30_000, 0, 2_000));
        let at = (1..400_u64).find(|s| {
            loses(&mut e, 30, true);
            e.tick(Millis::secs(100 + s), &did(75, 0, 2_000), &did(25, 0, 2_000));
            e.verdict().state == State::Pass
        });
        (at.is_some(), e.verdict())
    };
    let (passed, v) = passes(false);
    assert!(passed && v.counted_since.is_none(), "nobody asked for response times: {}", v.words);
    let (passed, v) = passes(true);
    assert!(!passed, "{}", v.words);
    let said = v.words.as_str();
    assert!(
        said.starts_with("0 of 9,975 failed, stable 0 of") && said.contains("30.0% of the log lines"),
        "{said}"
    );
}

#[test]
fn what_was_lost_is_written_down_and_evidence_of_before_can_be_read() {
    let mut e = evidence(&analysis(), &did(3_000, 3, 2_000));
    loses(&mut e, 9, false);
    let mut text = serde_json::to_value(&e).unwrap();
    assert_eq!(serde_json::from_value::<Evidence>(text.clone()).unwrap(), e);
    assert!(text.as_object_mut().unwrap().remove("lost").is_some());
    assert_eq!(serde_json::from_value::<Evidence>(text).unwrap().lost, Lost::default());
}

#[test]
fn numbers_are_said_as_people_read_them() {
    assert_eq!(
        (thousands(0), thousands(999), thousands(1_234_567)),
        ("0".into(), "999".into(), "1,234,567".into())
    );
    assert_eq!((sure(5.95), sure(100.0), sure(0.7)), ("99.7%".into(), "99.9%".into(), "50.3%".into()));
    assert_eq!((points(0.005), points(0.0012), points(0.12)), ("0.5".into(), "0.12".into(), "12".into()));
    assert_eq!((percent(0.2), percent(0.005)), ("20%".into(), "0.5%".into()));
}

#[test]
fn requests_that_fail_together_count_for_less() {
    let second = |s: u64| (did(95, 0, 1), did(5, u64::from(s.is_multiple_of(4)), 1));
    let a = Analysis { latency: false, ..analysis() };
    let found = |divisor| {
        let before = did(30_000, 30, 1);
        let mut e = Evidence::begin("web-2".parse().unwrap(), 1, &a, &before, divisor, Millis::secs(100));
        let at = until(&mut e, 1, State::Fail, second).unwrap();
        (at, e.verdict().words.to_string())
    };
    let ((alone, plain), (together, said)) = (found(1.0), found(5.0));
    assert!(together > 2 * alone, "{alone} s, {together} s");
    assert!(said.contains("one in 5 counted: requests of one client fail together"), "{said}");
    assert!(!plain.contains("counted"), "{plain}");
}
