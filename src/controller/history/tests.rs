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
}

impl Written {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal.db"), &Head::default()).unwrap().0;
        Self { dir, journal, wall: 1_000_000 }
    }

    fn add(&mut self, fact: Fact) {
        self.wall += 1000;
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
