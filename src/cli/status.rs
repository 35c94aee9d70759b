//! `status`: how the fleet stands, as lines or JSON; with `--watch`, again whenever something changes.

use std::fmt::Write as _;
use std::path::Path;

use futures_util::StreamExt;

use super::fleet::{Fleet, failed};
use super::out::{Output, complain, say, say_json};
use super::{Exit, special};
use crate::api::{HealthView, RevisionView, Role, ServiceView, Snapshot, status};
use crate::client::Update;
use crate::fleet::names::{Bp, Millis};

/// `status`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print again whenever something changes: plain lines, fit for a screen reader
    #[arg(long)]
    watch: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(file: Option<&Path>, a: &Args) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    if !a.watch {
        return match fleet.client.snapshot().await {
            Ok(s) => {
                print(&s, a.output)?;
                Ok(Exit::Done)
            }
            Err(e) => Ok(failed(&e)),
        };
    }
    watch(&fleet, a.output).await
}

fn print(s: &Snapshot, output: Output) -> color_eyre::Result<()> {
    match output {
        Output::Json => say_json(&status(s)),
        Output::Text => say(&text(s)),
    }
}

/// Prints what is different from what was printed last: a line that did not change is not read out again.
async fn watch(fleet: &Fleet, output: Output) -> color_eyre::Result<Exit> {
    loop {
        let Ok(mut updates) = fleet.client.stream("status", false).await else {
            complain("pilothouse: the controller does not answer; trying again\n");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            continue;
        };
        let mut snapshot = Snapshot::default();
        let mut said: Vec<String> = Vec::new();
        let mut json = None;
        while let Some(update) = updates.next().await {
            match update {
                Ok(Update::Snapshot(s)) => snapshot = *s,
                Ok(Update::Delta(d)) if snapshot.apply(d.clone()) => {}
                _ => break,
            }
            match output {
                Output::Json => {
                    let mut now = status(&snapshot);
                    // Measured shares change all the time and are no news by themselves.
                    let whole = now.clone();
                    now.services.iter_mut().flat_map(|s| &mut s.revisions).for_each(|r| r.share = None);
                    if json.as_ref() != Some(&now) {
                        say_json(&whole)?;
                        json = Some(now);
                    }
                }
                Output::Text => {
                    let now: Vec<String> = news(&snapshot);
                    for line in now.iter().filter(|l| !said.contains(l)) {
                        say(&format!("{line}\n"))?;
                    }
                    said = now;
                }
            }
        }
        complain("pilothouse: the controller is gone; trying again\n");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// The lines of `status --watch`: no numbers that change all the time.
fn news(s: &Snapshot) -> Vec<String> {
    let mut out: Vec<String> = s.alarms.iter().map(|a| format!("ALARM: {a}")).collect();
    for service in &s.services {
        out.push(headline(service));
        for r in &service.revisions {
            let share = Bp::saturating(u64::from(r.weight));
            let instances = format!("{} of {} healthy", r.healthy, r.wanted);
            out.push(format!(
                "{} {} {}: {share}, {instances}",
                service.name,
                role(r.role),
                r.revision.version
            ));
        }
        if let Some(r) = service.rollout.as_ref().filter(|r| !r.status.ended()) {
            out.extend(r.waiting.iter().map(|w| format!("{}: waits for {w}", service.name)));
            let verdict = r.comparison.iter().map(crate::api::ComparisonView::verdict);
            let lines = special::notable(service, r).into_iter().chain(verdict);
            out.extend(lines.map(|line| format!("{}: {line}", service.name)));
            // Its numbers change every second; what it comes to does not.
            let said = r.verdict.as_ref().filter(|v| v.state.as_str() != "wait");
            out.extend(said.map(|v| format!("{}: verdict {}", service.name, v.state)));
        }
        out.extend(service.drift.iter().map(|d| format!("{} drift: {d}", service.name)));
    }
    for i in &s.instances {
        out.push(format!("{} on {}: {}, {}", i.id, i.host, i.state, health(i.health)));
    }
    out.extend(
        s.hosts.iter().filter(|h| !h.reachable && !h.out).map(|h| format!("host {} does not answer", h.name)),
    );
    out.extend(
        s.proxies.iter().filter(|p| !p.reachable).map(|p| format!("proxy {} does not answer", p.name)),
    );
    out
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Stable => "stable",
        Role::Candidate => "candidate",
        Role::Old => "old",
    }
}

fn health(h: HealthView) -> &'static str {
    match h {
        HealthView::Healthy => "healthy",
        HealthView::Unhealthy => "UNHEALTHY",
        HealthView::Unknown => "health unknown",
    }
}

fn headline(s: &ServiceView) -> String {
    let serves =
        s.stable.as_ref().map_or_else(|| "nothing serves".to_owned(), |r| format!("{} serves", r.version));
    match &s.rollout {
        Some(r) if !r.status.ended() => {
            let phase = r.phases.get(r.phase).map(|p| p.name.to_string()).unwrap_or_default();
            let reason = if r.reason.is_empty() { String::new() } else { format!(": {}", r.reason) };
            format!(
                "{}: {serves}; {} {} to {} is {}{reason}, phase {} of {} ({phase}), decision {}",
                s.name,
                r.strategy,
                r.id,
                r.to,
                r.status.as_str(),
                r.phase + 1,
                r.phases.len(),
                r.decision
            )
        }
        Some(r) => {
            let reason = if r.reason.is_empty() { String::new() } else { format!(": {}", r.reason) };
            format!(
                "{}: {serves}; the last rollout, {} to {}, is {}{reason}",
                s.name,
                r.id,
                r.to,
                r.status.as_str()
            )
        }
        None => format!("{}: {serves}", s.name),
    }
}

fn text(s: &Snapshot) -> String {
    let mut out = String::new();
    for alarm in &s.alarms {
        let _ = writeln!(out, "ALARM: {alarm}");
    }
    let production = if s.production { " PRODUCTION" } else { "" };
    let _ = writeln!(
        out,
        "fleet {} ({}){production}: {}, {}, {}, {}",
        s.controller.fleet,
        s.environment,
        count(s.hosts.len(), "host", "hosts"),
        count(s.proxies.len(), "proxy", "proxies"),
        count(s.services.len(), "service", "services"),
        count(s.instances.len(), "instance", "instances")
    );
    for h in s.hosts.iter().filter(|h| !h.reachable && !h.out) {
        let _ = writeln!(out, "host {} does not answer: {}", h.name, h.error.clone().unwrap_or_default());
    }
    for p in s.proxies.iter().filter(|p| !p.reachable) {
        let _ = writeln!(out, "proxy {} does not answer: {}", p.name, p.error.clone().unwrap_or_default());
    }
    for service in &s.services {
        let _ = writeln!(out, "\n{}", headline(service));
        if let Some(r) = service.rollout.as_ref().filter(|r| !r.status.ended()) {
            for w in &r.waiting {
                let _ = writeln!(out, "  waits for: {w}");
            }
            if let Some(left) = r.gate_left_ms {
                let _ = writeln!(out, "  gate opens in {}", Millis(left / 1000 * 1000));
            }
            for line in special::notable(service, r) {
                let _ = writeln!(out, "  {line}");
            }
            if let Some(v) = &r.verdict {
                let _ = writeln!(out, "  {}", v.line());
            }
            for check in &r.checks {
                let _ = writeln!(out, "  {}", check.line());
            }
            for line in special::comparison(r) {
                let _ = writeln!(out, "  {line}");
            }
        }
        for line in service.rollout.iter().flat_map(special::downtimes) {
            let _ = writeln!(out, "  {line}");
        }
        for r in &service.revisions {
            let _ = writeln!(out, "  {}", revision(r));
            for i in s.instances.iter().filter(|i| i.service == service.name && i.revision == r.revision.id) {
                let endpoint = i.endpoint.clone().unwrap_or_default();
                let _ = writeln!(
                    out,
                    "    {:<12} {:<28} {:<9} {:<14} {:<21} {} restarts",
                    i.host,
                    i.id,
                    i.state,
                    health(i.health),
                    endpoint,
                    i.restarts
                );
            }
        }
        for d in &service.drift {
            let _ = writeln!(out, "  drift: {d} (put right with: pilothouse up {})", service.name);
        }
        for o in service.rollout.iter().flat_map(|r| &r.owed) {
            let _ = writeln!(out, "  still owed: {o}");
        }
    }
    out
}

fn revision(r: &RevisionView) -> String {
    let percent = |bp: u16| Bp::saturating(u64::from(bp)).human();
    let actual = r.actual_weight.map_or_else(|| "unknown".to_owned(), percent);
    let measured = r.share.map(|s| format!(", measured {}", percent(s))).unwrap_or_default();
    let traffic = r.traffic.map(|t| {
        let latency = match (t.p95_ms, t.mean_ms) {
            (Some(p95), _) => format!(", p95 {p95:.0} ms"),
            (None, Some(mean)) => format!(", mean {mean:.0} ms"),
            (None, None) => String::new(),
        };
        format!(", {:.0}/s, {:.2}% errors{latency}", t.rate, t.error_percent)
    });
    format!(
        "{:<9} {:<12} {} of {} healthy, set {}, read back {actual}{measured}{}",
        role(r.role),
        r.revision.version,
        r.healthy,
        r.wanted,
        percent(r.weight),
        traffic.unwrap_or_default()
    )
}
