use super::*;
use crate::controller::journal::{Head, Journal};
use crate::rollout::fact::Fact;
use crate::rollout::plan::plan;
use crate::rollout::simulation::fixture;

const PLAN: &[(u16, Option<crate::fleet::model::Gate>)] = &[(25, Some(crate::fleet::model::Gate::Manual))];

/// A journal that is written fact by fact, a second apart.
struct Written {
    dir: tempfile::TempDir,
    journal: Journal,
    wall: u64,
    /// Not written one by one while there is such a list.
    together: Option<Vec<Fact>>,
}

impl Written {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal.db"), &Head::default()).unwrap().0;
        Self { dir, journal, wall: 1_000_000, together: None }
    }

    fn add(&mut self, fact: Fact) {
        self.wall += 1000;
        if let Some(together) = &mut self.together {
            together.push(fact);
            return;
        }
        self.journal.append(Millis(self.wall), self.wall, vec![fact]).unwrap();
    }

    fn reader(&self) -> Reader {
        Reader::new(self.dir.path().join("journal.db"))
    }

    /// A rollout of revision `to` over revision `from` begins.
    fn start(&mut self, service: &str, n: u64, from: Option<u32>, to: u32) -> RolloutId {
        let fleet = fixture::fleet(2, 2, 1, fixture::steps(PLAN));
        let name: ServiceName = service.parse().unwrap();
        let revision = fixture::revision(&fleet, to);
        let spec = Box::new(revision.spec.clone());
        let rollout = RolloutId::of(&name, n);
        let from = from.map(|n| fixture::revision(&fleet, n).id);
        self.add(Fact::RevisionKnown { service: name.clone(), revision: Box::new(revision.clone()) });
        self.add(Fact::RolloutStarted {
            service: name,
            rollout: rollout.clone(),
            kind: if from.is_some() { Kind::Release } else { Kind::First },
            strategy: "canary".into(),
            plan: plan(&spec, from.is_some()),
            from,
            to: revision.id,
            slot: crate::rollout::world::Slot::A,
            spec,
            by: "alice".into(),
        });
        rollout
    }

    fn promoted(&mut self, rollout: &RolloutId) {
        let (service, rollout) = (fixture::web(), rollout.clone());
        self.add(Fact::Promoted { service, rollout });
    }
}

fn ids(h: &History) -> Vec<&str> {
    h.rollouts.iter().map(|p| p.id.as_str()).collect()
}

#[tokio::test]
async fn a_story_is_told_from_its_facts_while_the_journal_is_written() {
    let mut w = Written::new();
    let one = w.start("web", 1, None, 1);
    w.promoted(&one);
    let two = w.start("web", 2, Some(1), 2);
    let (service, rollout) = (fixture::web(), two.clone());
    for fact in [
        Fact::PhaseSettled { service: service.clone(), rollout: two.clone(), phase: 0, weight: Bp::ZERO },
        Fact::PhaseEntered {
            service: service.clone(),
            rollout: two.clone(),
            phase: 1,
            by: "pilothouse".into(),
        },
        Fact::PhaseSettled {
            service: service.clone(),
            rollout: two.clone(),
            phase: 1,
            weight: Bp::percent(25),
        },
        Fact::Frozen { service: service.clone(), rollout: two.clone(), reason: "host node-1".into() },
    ] {
        w.add(fact);
    }
    // The writer is in the middle of it: read what is there.
    let frozen = w.reader().story(two.clone()).await.unwrap().unwrap();
    assert_eq!((frozen.past.status, frozen.past.reason.as_str()), (RolloutStatus::Frozen, "host node-1"));
    assert_eq!((frozen.past.ended_ms, frozen.counts.len()), (None, 0));
    for fact in [
        Fact::Thawed { service: service.clone(), rollout: two.clone() },
        Fact::GatesOpened { service: service.clone(), rollout: two.clone(), full: true, by: "bob".into() },
        Fact::AbortRequested {
            service: service.clone(),
            rollout: two.clone(),
            reason: "web-00000002-1 exited with 1".into(),
            by: "pilothouse".into(),
        },
        Fact::RolloutEnded {
            service: service.clone(),
            rollout: two.clone(),
            outcome: Outcome::Aborted,
            reason: "web-00000002-1 exited with 1".into(),
            owed: vec!["node-2".into()],
        },
        Fact::RolloutCounted {
            service,
            rollout,
            counts: vec![
                Counted { revision: "00000001".parse().unwrap(), requests: 90, errors: 1, retries: 0 },
                Counted { revision: "00000002".parse().unwrap(), requests: 30, errors: 7, retries: 2 },
            ],
        },
    ] {
        w.add(fact);
    }
    let s = w.reader().story(two.clone()).await.unwrap().unwrap();
    let p = &s.past;
    assert_eq!(
        (p.from.as_ref().unwrap().as_str(), p.to.as_str(), p.by.as_str()),
        ("1.1.0", "1.2.0", "alice")
    );
    assert_eq!((p.status, p.reason.as_str()), (RolloutStatus::Aborted, "web-00000002-1 exited with 1"));
    assert_eq!(p.ended_ms.unwrap() - p.started_ms, 8_000);
    let at = |ms: Option<u64>| ms.map(|ms| (ms - p.started_ms) / 1000);
    let phases: Vec<_> = s
        .phases
        .iter()
        .map(|ph| (ph.name.as_str(), ph.weight, at(ph.entered_ms), at(ph.settled_ms), at(ph.left_ms)))
        .collect();
    assert_eq!(
        phases,
        [
            ("start", 0.0, Some(0), Some(1), Some(2)),
            ("25%", 25.0, Some(2), Some(3), Some(8)),
            ("100%", 100.0, None, None, None)
        ]
    );
    let acts: Vec<_> = s.acts.iter().map(|a| (a.what.as_str(), a.by.as_str())).collect();
    assert_eq!(
        acts,
        [
            ("deploy", "alice"),
            ("freeze", "pilothouse"),
            ("thaw", "pilothouse"),
            ("promote_full", "bob"),
            ("abort", "pilothouse")
        ]
    );
    let counts: Vec<_> =
        s.counts.iter().map(|c| (c.role, c.version.as_str(), c.requests, c.errors)).collect();
    assert_eq!(counts, [(Role::Stable, "1.1.0", 90, 1), (Role::Candidate, "1.2.0", 30, 7)]);
    assert_eq!(s.owed.len(), 1);
    assert!(w.reader().story("web-3".parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn history_is_the_newest_first_of_one_service_or_all_and_no_more_than_asked() {
    let mut w = Written::new();
    for n in 1..=5 {
        let id = w.start("web", n, None, u32::try_from(n).unwrap());
        w.promoted(&id);
        w.start("api", n, None, u32::try_from(n).unwrap());
    }
    let all = w.reader().history(None, 20).await.unwrap();
    assert_eq!(all.rollouts.len(), 10);
    assert_eq!((ids(&all)[0], ids(&all)[9], all.more), ("api-5", "web-1", false));
    let web = w.reader().history(Some(fixture::web()), 2).await.unwrap();
    assert_eq!((ids(&web), web.more), (vec!["web-5", "web-4"], true));
    assert_eq!(web.rollouts[0].status, RolloutStatus::Done);
    assert_eq!(web.rollouts[0].to.as_str(), "1.5.0");
    assert_eq!(w.reader().history(Some("none".parse().unwrap()), 2).await.unwrap().rollouts, []);
    let api = w.reader().history(Some("api".parse().unwrap()), 1).await.unwrap();
    assert_eq!((api.rollouts[0].status, api.rollouts[0].ended_ms), (RolloutStatus::Running, None));
}

#[tokio::test]
async fn a_flood_of_acts_is_cut_and_said() {
    let mut w = Written::new();
    let id = w.start("web", 1, None, 1);
    let facts = (0..ACTS).flat_map(|_| {
        let (service, rollout) = (fixture::web(), id.clone());
        let frozen = Fact::Frozen { service: service.clone(), rollout: rollout.clone(), reason: "x".into() };
        [frozen, Fact::Thawed { service, rollout }]
    });
    w.journal.append(Millis(1), 1, facts.collect()).unwrap();
    w.promoted(&id);
    let s = w.reader().story(id).await.unwrap().unwrap();
    assert_eq!((s.acts.len(), s.cut, s.past.status), (ACTS, true, RolloutStatus::Done));
}

/// What other versions write, word for word: nothing of it may make a story unreadable.
#[test]
fn facts_of_other_versions_are_read_or_passed_over() {
    let read = |text: &str| serde_json::from_str::<Seen>(text).unwrap();
    let replaced = r#"{"fact":"instance_replaced","service":"web","rollout":"web-2","instance":"web-2-1","replaced":"web-1-1","downtime":3200}"#;
    assert!(matches!(read(replaced), Seen::InstanceReplaced { downtime: Millis(3200), .. }));
    assert!(matches!(read(r#"{"fact":"of_tomorrow","rollout":"web-2"}"#), Seen::Other));
}

/// The SQL finds facts by the place of their name, so that it need not parse every body.
#[test]
fn every_fact_begins_with_its_name() {
    let text = serde_json::to_string(&Fact::ClockReached {}).unwrap();
    assert!(text.starts_with(r#"{"fact":"clock_reached""#), "{text}");
    let text = serde_json::to_string(&Fact::ServiceGone { service: fixture::web() }).unwrap();
    assert!(text.starts_with(r#"{"fact":"service_gone""#), "{text}");
}

#[tokio::test]
async fn a_reader_cannot_write_and_a_missing_journal_is_an_error() {
    let w = Written::new();
    let wrote = w.reader().read(|db| Ok(db.execute("DELETE FROM facts", [])?)).await;
    assert!(matches!(wrote, Err(HistoryError::Sqlite(_))), "{wrote:?}");
    let missing = Reader::new(w.dir.path().join("none.db"));
    assert!(missing.history(None, 1).await.is_err());
    assert!(!w.dir.path().join("none.db").exists());
}

/// Asked for in mid-rollout: told with the rollout that made way for it.
#[tokio::test]
async fn what_was_asked_for_next_is_part_of_the_story() {
    let mut w = Written::new();
    let one = w.start("web", 1, None, 1);
    w.promoted(&one);
    let two = w.start("web", 2, Some(1), 2);
    let fleet = fixture::fleet(2, 2, 1, fixture::steps(PLAN));
    let next = |service: &str, n| Fact::NextQueued {
        service: service.parse().unwrap(),
        revision: Box::new(fixture::revision(&fleet, n)),
        by: "bob".into(),
    };
    w.add(next("web", 3));
    w.add(next("api", 4));
    w.add(Fact::NextDropped { service: fixture::web(), reason: "no longer in the file".into() });
    let acts = |s: &Story| -> Vec<(String, String)> {
        let all = s.acts.iter().map(|a| (a.what.to_string(), a.text.to_string()));
        all.filter(|(what, _)| what.starts_with("next")).collect()
    };
    let told = w.reader().story(two).await.unwrap().unwrap();
    assert_eq!(
        acts(&told),
        [("next".into(), "1.3.0".into()), ("next_dropped".into(), "no longer in the file".into())]
    );
    assert_eq!(told.past.from.unwrap().as_str(), "1.1.0");
    let told = w.reader().story(one).await.unwrap().unwrap();
    assert_eq!(acts(&told), [], "it was over by then");
}

/// The last rollout is told without a look at all that was before it.
#[tokio::test]
async fn the_last_of_many_rollouts_is_told_at_once() {
    let many: u64 = std::env::var("PILOTHOUSE_ROLLOUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let mut w = Written::new();
    w.together = Some(Vec::new());
    for n in 1..=many {
        let from = (n > 1).then(|| u32::try_from((n - 1) % 9000).unwrap());
        let rollout = w.start("web", n, from, u32::try_from(n % 9000).unwrap());
        let (service, by) = (fixture::web(), Safe::from("alice"));
        for phase in 0..6 {
            w.add(Fact::PhaseEntered {
                service: service.clone(),
                rollout: rollout.clone(),
                phase,
                by: by.clone(),
            });
        }
        w.promoted(&rollout);
        if n % 200 == 0 || n == many {
            let facts = w.together.replace(Vec::new()).unwrap_or_default();
            w.journal.append(Millis(w.wall), w.wall, facts).unwrap();
        }
    }
    let began = std::time::Instant::now();
    let last = w.reader().story(RolloutId::of(&fixture::web(), many)).await.unwrap().unwrap();
    let show = began.elapsed();
    assert_eq!(last.past.to.as_str(), format!("1.{}.0", many % 9000));
    let began = std::time::Instant::now();
    let all = w.reader().history(None, 20).await.unwrap();
    println!("MEASURED {many} rollouts: show of the last {show:?}, history of 20 {:?}", began.elapsed());
    assert_eq!((all.rollouts.len(), all.more), (20, true));
    // What is before is not looked at: a body that nothing can be read from would be an error.
    let db = rusqlite::Connection::open(w.dir.path().join("journal.db")).unwrap();
    let broken = "UPDATE facts SET body = '{\"fact\":\"revision_known\",' WHERE seq < (SELECT max(seq) - 200 FROM facts)";
    assert!(db.execute(broken, []).unwrap() > 1000);
    let again = w.reader().story(RolloutId::of(&fixture::web(), many)).await.unwrap();
    assert_eq!(again.as_ref(), Some(&last));
    assert!(w.reader().history(None, 10).await.is_ok());
}

/// The whole journal, page by page from its end.
async fn backwards(reader: &Reader, limit: usize) -> (Vec<crate::api::EventView>, usize) {
    let (mut events, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let mut page = reader.journal(before, limit).await.unwrap();
        assert!(page.events.len() <= limit);
        pages += 1;
        page.events.append(&mut events);
        events = page.events;
        before = page.before;
        if before.is_none() {
            return (events, pages);
        }
    }
}

#[tokio::test]
async fn the_journal_is_told_backwards_as_it_was_told_when_it_was_written() {
    let mut w = Written::new();
    assert_eq!(w.reader().journal(None, 10).await.unwrap(), crate::api::JournalPage::default());
    for n in 1..=20 {
        let rollout =
            w.start("web", n, (n > 1).then(|| u32::try_from(n).unwrap() - 1), u32::try_from(n).unwrap());
        let (service, phase) = (fixture::web(), 1);
        w.add(Fact::PhaseEntered { service, rollout: rollout.clone(), phase, by: "alice".into() });
        w.promoted(&rollout);
    }
    let reader = w.reader();
    let (all, _) = backwards(&reader, 500).await;
    assert_eq!(all.len(), 60, "{all:#?}");
    let versions = |n: u32| fixture::revision(&fixture::fleet(2, 2, 1, fixture::steps(PLAN)), n).version;
    let told: Vec<&str> = all.iter().skip(3).take(3).map(|e| e.text.as_str()).collect();
    assert_eq!(
        told,
        [
            format!("web: canary web-2 from {} to {}", versions(1), versions(2)),
            "web: phase 2 of 3: 25%".to_owned(),
            format!("web: {} serves everything: done", versions(2)),
        ]
    );
    assert_eq!((all[4].by.as_str(), all[4].rollout.as_ref().unwrap().as_str()), ("alice", "web-2"));
    // However long the pages are, and whoever asked before.
    for limit in [1, 7, 60] {
        assert_eq!(backwards(&reader, limit).await.0, all, "{limit}");
        assert_eq!(backwards(&w.reader(), limit).await.0, all, "{limit}");
    }
    let at = all[30].seq;
    let page = reader.journal(Some(at), 5).await.unwrap();
    assert_eq!((page.events.as_slice(), page.before), (&all[25..30], Some(all[25].seq)));
    // News are seen, and a page before what is not there yet is the last.
    w.add(Fact::ControllerStarted { version: "1".into(), pid: 1 });
    let page = reader.journal(Some(1_000_000), 1).await.unwrap();
    assert_eq!(page.events[0].kind.as_str(), "controller_started");
    assert_eq!(backwards(&reader, 500).await.0.len(), 61);
}

#[tokio::test]
async fn long_stretches_that_nobody_needs_to_read_are_passed_over_a_part_at_a_time() {
    let mut w = Written::new();
    w.start("web", 1, None, 1);
    w.journal.append(Millis(w.wall), w.wall, vec![Fact::ClockReached {}; 12_000]).unwrap();
    let page = w.reader().journal(None, 10).await.unwrap();
    assert_eq!((page.events.len(), page.before), (0, Some(7_003)));
    let (all, pages) = backwards(&w.reader(), 10).await;
    assert_eq!((all.len(), pages), (1, 3));
}
