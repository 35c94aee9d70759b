//! What goes out of a controller, received by real parts: `/metrics` scraped by a real Prometheus while a version is
//! rolled out.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/prometheus.rs"]
mod prometheus;
#[path = "common/stories.rs"]
mod stories;
#[path = "common/world.rs"]
mod world;

use std::net::{SocketAddr, TcpListener};

use load::Load;
use prometheus::Prometheus;
use world::{Backends, Setup, World};

/// A world whose controller serves `/metrics`, and where.
fn world(test: &str) -> Option<(World, SocketAddr)> {
    let world = World::new(test, Backends::ProcessEdge, &Setup::default())?;
    let address = format!("{}:9464", world.host_address(100)).parse().unwrap();
    world.edit("\n[hosts.node-1]", &format!("\n[metrics]\nlisten = \"{address}\"\n\n[hosts.node-1]"));
    Some((world, address))
}

#[test]
fn prometheus_scrapes_a_rollout_and_its_way_back() {
    let Some(binary) = common::require::program("prometheus") else { return };
    let Some((world, address)) = world("prometheus") else { return };
    stories::up(&world);
    let prometheus = Prometheus::start(&world, &binary, Some(address));
    let load = Load::start(world.listen, 4);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 25);

    let is = |query: &str, check: &dyn Fn(f64) -> bool| {
        world.wait(query, || prometheus.value(query).filter(|v| check(*v)));
    };
    let near = |want: f64| move |v: f64| (v - want).abs() < 1e-9;
    is("up", &near(1.0));
    is("sum(pilothouse_weight_set_ratio)", &near(1.0));
    is(r#"pilothouse_weight_set_ratio{version="1.1.0",role="candidate"}"#, &near(0.25));
    is(r#"pilothouse_weight_actual_ratio{version="1.1.0",proxy="lb"}"#, &near(0.25));
    is(r#"pilothouse_rollout_phase_info{from="1.0.0",to="1.1.0",phase="25%",status="running"}"#, &near(1.0));
    is(r#"pilothouse_instances{version="1.0.0",health="healthy"}"#, &|v| v >= 1.0);
    is(
        r#"sum by (result) (rate(pilothouse_probe_results_total{version="1.1.0",result="pass"}[10s]))"#,
        &|v| v > 0.5,
    );
    is(r#"rate(pilothouse_requests_total{version="1.1.0"}[10s])"#, &|v| v > 5.0);
    let part = r#"sum(rate(pilothouse_requests_total{version="1.1.0"}[5s])) / sum(rate(pilothouse_requests_total[5s]))"#;
    is(part, &|v| (v - 0.25).abs() < 0.05);
    is(r#"sum(rate(pilothouse_request_errors_total[10s]))"#, &near(0.0));
    let p95 = r#"histogram_quantile(0.95, sum by (version, le) (rate(pilothouse_request_duration_seconds_bucket{version="1.1.0"}[10s])))"#;
    is(p95, &|v| v > 0.0 && v < 1.0);
    let failed = load.finish().failed;
    assert_eq!(failed, 0);

    let page = prometheus::get(address, "/metrics").unwrap();
    assert_eq!(page.0, 200);
    prometheus::lint(&page.1);

    world.ok(&["abort", "web", "--wait"]);
    is(r#"pilothouse_rollout_status{status="aborted"}"#, &near(1.0));
    is(r#"pilothouse_rollouts_ended_total{outcome="aborted"}"#, &near(1.0));
    is(r#"pilothouse_rollout_time_to_safe_seconds{since="decision"}"#, &|v| (0.0..30.0).contains(&v));
    is(r#"pilothouse_weight_actual_ratio{version="1.0.0"}"#, &near(1.0));
    // What is over is gone from the page, and with it from Prometheus' present.
    world.wait("the aborted version is forgotten", || {
        let page = prometheus::get(address, "/metrics")?.1;
        let left = page.lines().filter(|l| l.contains("version=\"1.1.0\"")).count();
        (left == 0 && !page.contains("pilothouse_rollout_phase_info{")).then_some(())
    });
    world.assert_no_orphan();

    // Rollouts are counted over the whole journal, requests since the controller began.
    world.kill_controller();
    world.ok(&["status"]);
    is(r#"pilothouse_rollouts_started_total"#, &near(2.0));
    is(r#"pilothouse_requests_total{version="1.0.0"}"#, &near(0.0));
}

#[test]
fn an_address_that_is_taken_is_an_alarm_and_in_nobody_s_way() {
    let Some((world, address)) = world("metrics taken") else { return };
    let taken = TcpListener::bind(address).unwrap();
    stories::up(&world);
    let alarms = || world.snapshot().map(|s| s["alarms"].to_string()).unwrap_or_default();
    world.wait("an alarm", || alarms().contains("is taken by another process").then_some(()));
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.ok(&["abort", "web", "--wait"]);
    drop(taken);
    world.wait("a page", || prometheus::get(address, "/metrics").filter(|(status, _)| *status == 200));
    world.wait("no alarm", || (alarms() == "[]").then_some(()));
    world.assert_no_orphan();
}

/// Every expression of the dashboard, its annotations and its variables, with the variables filled in.
fn dashboard() -> Vec<String> {
    let text = include_str!("../assets/grafana-dashboard.json");
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut out = Vec::new();
    for panel in json["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        out.extend(targets.iter().map(|t| t["expr"].as_str().unwrap().to_owned()));
    }
    let annotations = json["annotations"]["list"].as_array().unwrap();
    out.extend(annotations.iter().map(|a| a["expr"].as_str().unwrap().to_owned()));
    for variable in json["templating"]["list"].as_array().unwrap() {
        let query = variable["query"].as_str().unwrap();
        // label_values(EXPRESSION, LABEL)
        if let Some(inner) = query.strip_prefix("label_values(") {
            out.push(inner.rsplit_once(", ").unwrap().0.to_owned());
        }
    }
    assert!(out.len() > 20, "{out:?}");
    let filled = |e: String| {
        let e = e.replace("$__rate_interval", "1m").replace("$fleet", ".*").replace("$service", ".*");
        assert!(!e.contains('$'), "{e}");
        e
    };
    out.into_iter().map(filled).collect()
}

/// The rules in the documentation, as YAML.
fn alerts() -> String {
    let text = include_str!("../docs/numbers.md");
    let blocks = text.split("```yaml\n").skip(1).map(|b| b.split("```").next().unwrap());
    blocks.filter(|b| b.starts_with("groups:")).collect()
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_one_that_a_page_has() {
    let page = include_str!(
        "../src/controller/metrics/snapshots/pilothouse__controller__metrics__tests__a_page_says_all_of_it.snap"
    );
    let known: Vec<&str> =
        page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(known.len() > 25, "{known:?}");
    let documented = include_str!("../docs/numbers.md");
    for name in &known {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/numbers.md");
    }
    for text in dashboard().into_iter().chain([alerts()]) {
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        for word in words.filter(|w| w.starts_with("pilothouse_")) {
            let family = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(known.contains(&family), "{word} is on no page: {text}");
        }
    }
}

#[test]
fn prometheus_takes_every_expression_of_the_dashboard_and_every_alert() {
    let Some(binary) = common::require::program("prometheus") else { return };
    let Some((world, address)) = world("dashboard") else { return };
    stories::up(&world);
    let prometheus = Prometheus::start(&world, &binary, Some(address));
    world.wait("a scrape", || prometheus.value("up").filter(|v| *v > 0.0));
    for expression in dashboard() {
        let answer = prometheus.query(&expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    let shares = dashboard().into_iter().find(|e| e.starts_with("pilothouse_weight_actual_ratio")).unwrap();
    assert_eq!(prometheus.value(&shares), Some(1.0), "the filled-in expressions find something");
    prometheus::check_rules(&world, &alerts());
}
