use super::page::{Actual, Known, page};
use super::*;
use crate::api::{HealthView, ProbeView};
use crate::api::{
    HostView, InstanceView, PhaseView, ProxyView, RevisionRef, RevisionView, Role, RolloutStatus,
    RolloutView, ServiceView, Snapshot, VerdictView,
};
use crate::fleet::names::{Bp, InstanceId, Millis};
use crate::traffic::Counters;
use crate::traffic::loss::LogLoss;

/// A canary at 25 %, read back at 20 % by one of its two proxies; everything that a page can say is said.
pub(crate) fn source() -> Source {
    let revision = |id: &str, version: &str, role, slot: &str, weight| RevisionView {
        revision: RevisionRef { id: id.into(), version: version.into(), digest: "d".into() },
        role,
        slot: Some(slot.into()),
        weight,
        actual_weight: Some(weight),
        share: (weight < 5_000).then_some(2_460),
        healthy: 1,
        wanted: 1,
        ..RevisionView::default()
    };
    let instance = |id: &str, revision: &str, role, health| InstanceView {
        id: id.into(),
        service: "web".into(),
        host: "node-1".into(),
        revision: revision.into(),
        role,
        health,
        probe_ms: Some(4),
        ..InstanceView::default()
    };
    let phase = |name: &str| PhaseView { name: name.into(), ..PhaseView::default() };
    let mut snapshot = Snapshot {
        schema: 1,
        hosts: vec![HostView { name: "node-1".into(), reachable: true, ..HostView::default() }],
        proxies: vec![ProxyView { name: "lb-1".into(), reachable: true, ..ProxyView::default() }],
        services: vec![ServiceView {
            name: "web".into(),
            rollout: Some(RolloutView {
                id: "web-2".into(),
                strategy: "canary".into(),
                from: Some("1.4.2".into()),
                to: "1.5.0 \"rc\"".into(),
                status: RolloutStatus::Running,
                phase: 1,
                phases: vec![phase("start"), phase("25%"), phase("100%")],
                gate_left_ms: Some(61_500),
                started_ms: 1_790_000_000_250,
                ended_ms: Some(1_790_000_001_000),
                verdict: Some(VerdictView { state: "wait".into(), ..VerdictView::default() }),
                ..RolloutView::default()
            }),
            revisions: vec![
                revision("0000000a", "1.4.2", Role::Stable, "a", 7_500),
                revision("0000000b", "1.5.0 \"rc\"", Role::Candidate, "b", 2_500),
            ],
            drift: vec!["something".into()],
            ..ServiceView::default()
        }],
        instances: vec![
            instance("web-0000000a-1", "0000000a", Role::Stable, HealthView::Healthy),
            instance("web-0000000b-1", "0000000b", Role::Candidate, HealthView::Unhealthy),
        ],
        alarms: vec!["the disk is full".into()],
        ..Snapshot::default()
    };
    snapshot.controller.fleet = "shop".into();
    snapshot.controller.version = "9.9.9".into();
    snapshot.controller.started_ms = 1_780_000_000_000;
    let mut tally = tally::Tally::default();
    let lb: crate::fleet::names::ProxyName = "lb-1".parse().unwrap();
    let mut said: std::collections::BTreeMap<InstanceId, Counters> =
        ["web-0000000a-1", "web-0000000b-1"].map(|id| (id.parse().unwrap(), Counters::default())).into();
    tally.take(&lb, &said);
    for (n, c) in said.values_mut().enumerate() {
        (c.requests, c.errors, c.retries) = (4, n as u64, 2 * n as u64);
        [30, 900, 900, 60_000_000].iter().for_each(|us| c.latency.record(*us));
    }
    tally.take(&lb, &said);
    for ok in [true, true, false] {
        let (instance, host) = ("web-0000000b-1".into(), "node-1".into());
        tally.probed(&ProbeView { instance, host, ok, ..ProbeView::default() });
    }
    let loss = LogLoss { came: 990, dropped: 10, counted: 500, unread: 3, ..LogLoss::default() };
    tally.lines(&lb, Some(loss));
    tally.lines(&"gone".parse().unwrap(), Some(loss));
    let web: crate::fleet::names::ServiceName = "web".parse().unwrap();
    tally.rollouts.insert(web.clone(), tally::Rollouts { started: 2, done: 1, aborted: 0, failed: 0 });
    let actual = |revision: &str, proxy: &str, percent| Actual {
        of: ("web".into(), revision.into()),
        proxy: proxy.parse().unwrap(),
        share: Bp::percent(percent),
    };
    let known = Known {
        tally,
        actual: vec![
            actual("0000000a", "lb-1", 75),
            actual("0000000b", "lb-1", 25),
            actual("0000000b", "lb-2", 20),
        ],
        told: [(
            "ops".parse().unwrap(),
            crate::controller::notify::Told { delivered: 7, ..Default::default() },
        )]
        .into(),
        safe: [(web, (Some(Millis(4_100)), Millis(12)))].into(),
    };
    Source { snapshot, known }
}

#[test]
fn a_page_says_all_of_it() {
    insta::assert_snapshot!(page(&source()).finish());
}

#[test]
fn every_sample_is_of_the_family_it_stands_in_and_no_family_comes_twice() {
    let text = page(&source()).finish();
    let mut families: Vec<&str> = Vec::new();
    let mut samples = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(!families.contains(&name), "{name} twice");
            assert!(name.starts_with("pilothouse_"), "{name}");
            families.push(name);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.starts_with(*families.last().unwrap()), "{line}");
            assert!(series.contains("{fleet=\"shop\""), "{line}");
            assert!(samples.insert(series.to_owned()), "{series} twice");
        }
    }
    assert!(families.len() > 25, "{families:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_and_had_when_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (tx, mut rx) = mpsc::channel(4);
    let exporter = Exporter::start(tx, Latest::default());
    exporter.listen(Some(address));
    let trouble = || exporter.trouble().map(|t| t.to_string());
    let until = async |there: bool| {
        while trouble().is_some() != there {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, until(true)).await.unwrap();
    assert!(trouble().unwrap().contains("is taken by another process"), "{:?}", trouble());
    drop(taken);
    tokio::time::timeout(patience, until(false)).await.unwrap();

    let asked = tokio::spawn(async move {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let get = |path: &str| http.get(format!("http://{address}{path}")).send();
        let elsewhere = get("/").await.unwrap().status();
        let page = get("/metrics").await.unwrap();
        let kind = page.headers()["content-type"].to_str().unwrap().to_owned();
        (elsewhere, kind, page.text().await.unwrap())
    });
    match rx.recv().await.unwrap() {
        Input::Metrics(reply) => assert!(reply.send(Box::new(source().known)).is_ok()),
        _ => panic!("something else was asked"),
    }
    let (elsewhere, kind, text) = asked.await.unwrap();
    assert_eq!((elsewhere.as_u16(), kind.as_str()), (404, text::CONTENT_TYPE));
    assert!(text.contains("pilothouse_rollouts_started_total{"), "{text}");
    exporter.listen(None);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
