//! `pilothouse check`: says what a fleet file declares, or everything that is wrong in it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::Exit;
use super::out::{Output, complain, say};
use crate::fleet::model::{
    Batch, Choose, Engine, Fleet, Gate, Hooks, NotifyEvent, NotifyKind, Rule, RuleBy, Run, Service, Strategy,
};
use crate::fleet::{self, Loaded, Problem, Problems};
use crate::proxy;
use crate::rollout::decide;
use crate::text::Safe;

/// Version of the JSON that is printed.
const SCHEMA: u32 = 1;

#[derive(clap::Args)]
pub(super) struct Args {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(fleet: Option<&Path>, args: &Args) -> color_eyre::Result<Exit> {
    let file = match fleet::find(fleet) {
        Ok(file) => file,
        Err(e) => {
            complain(&format!("pilothouse: {e}\n"));
            return Ok(Exit::Usage);
        }
    };
    let result = fleet::load(&file);
    match args.output {
        Output::Text => print_text(&file, &result)?,
        Output::Json => say(&format!("{}\n", as_json(&file, &result)))?,
    }
    Ok(if result.is_ok() { Exit::Done } else { Exit::Usage })
}

fn print_text(file: &Path, result: &Result<Loaded, Problems>) -> color_eyre::Result<()> {
    let file = Safe::new(&file.to_string_lossy());
    match result {
        Ok(loaded) => {
            for w in &loaded.warnings {
                complain(&format!("{w}\n\n"));
            }
            let end = match loaded.warnings.len() {
                0 => "is fine".to_owned(),
                n => format!("can be used; {}", count(n, "warning")),
            };
            say(&format!("{}{file} {end}\n", summary(&loaded.fleet)))
        }
        Err(problems) => {
            for p in problems.list() {
                complain(&format!("{p}\n\n"));
            }
            let errors = problems.errors();
            let warnings = problems.list().len() - errors;
            let more =
                if warnings > 0 { format!(" and {}", count(warnings, "warning")) } else { String::new() };
            complain(&format!("{}{more} in {file}\n", count(errors, "error")));
            Ok(())
        }
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// What a fleet declares, a line each.
fn summary(fleet: &Fleet) -> String {
    let mut out = String::new();
    let production = match (fleet.production, fleet.environment.as_str()) {
        (true, "production") | (false, _) => "",
        (true, _) => ", guarded like production",
    };
    let _ = writeln!(out, "fleet {} ({}{production})", fleet.name, Safe::new(&fleet.environment));
    let _ = writeln!(out, "\n{}", count(fleet.hosts.len(), "host"));
    for (name, host) in &fleet.hosts {
        let engine = match &host.engine {
            Engine::Docker { socket } => format!("docker at {}", socket.display()),
            Engine::Process { dir: Some(dir) } => format!("processes in {}", dir.display()),
            Engine::Process { dir: None } => "processes".to_owned(),
        };
        let gone = if host.out { "  OUT" } else { "" };
        let _ = writeln!(out, "  {name:<16} {:<15} {}{gone}", host.address.to_string(), Safe::new(&engine));
    }
    let proxies =
        if fleet.proxies.len() == 1 { "1 proxy".into() } else { format!("{} proxies", fleet.proxies.len()) };
    let _ = writeln!(out, "\n{proxies}");
    for (name, declared) in &fleet.proxies {
        let kind = proxy::describe(&fleet.name, declared);
        let _ = writeln!(out, "  {name:<16} {}", Safe::new(&kind));
        for (what, lines) in proxy::lines_to_add(fleet, declared) {
            let _ = writeln!(out, "    {what}:");
            for line in lines {
                let _ = writeln!(out, "      {}", Safe::new(&line));
            }
        }
    }
    tells(&mut out, fleet);
    let _ = writeln!(out, "\n{}", count(fleet.services.len(), "service"));
    for service in fleet.services.values() {
        service_lines(&mut out, service);
    }
    out.push('\n');
    out
}

/// Who gets numbers and news, without an address: that may be a secret.
fn tells(out: &mut String, fleet: &Fleet) {
    if let Some(listen) = fleet.metrics {
        let _ = writeln!(out, "\nnumbers at http://{listen}/metrics");
    }
    if fleet.notify.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{} of news", count(fleet.notify.len(), "receiver"));
    for (name, n) in &fleet.notify {
        let to = match &n.to {
            NotifyKind::Webhook { .. } => "webhook",
            NotifyKind::Slack { .. } => "slack",
            NotifyKind::Command { .. } => "command",
        };
        let events: Vec<_> = n.events.iter().map(|e| e.as_str()).collect();
        let all = events.len() == NotifyEvent::ALL.len();
        let events = if all { "everything".to_owned() } else { events.join(", ") };
        let _ = writeln!(out, "  {name:<16} {to:<8} {events}");
    }
}

fn service_lines(out: &mut String, service: &Service) {
    let run = match &service.run {
        Run::Image { repository, .. } => repository.clone(),
        Run::Command { argv } => argv.join(" "),
    };
    let _ = writeln!(out, "  {:<16} {}", service.name, Safe::capped(&run, 100));
    let placed: Vec<_> = service.placement.iter().map(|(host, n)| format!("{host} {n}")).collect();
    let _ = writeln!(out, "    instances      {}: {}", service.replicas(), placed.join(", "));
    let behind: Vec<_> = service.proxies.iter().map(ToString::to_string).collect();
    let behind = if behind.is_empty() { "none".to_owned() } else { behind.join(", ") };
    let _ = writeln!(out, "    behind         {behind}");
    let _ = writeln!(out, "    strategy       {}", strategy(&service.strategy));
    hook_lines(out, &service.hooks);
    let _ = writeln!(out, "    afterwards     {}", afterwards(service));
}

/// `canary: 5% (healthy for 10s) → 25% (manual) → 100%`
fn strategy(strategy: &Strategy) -> String {
    let how = match strategy {
        Strategy::InPlace { batch, min_healthy_time } => format!(
            "{}, stopped and replaced on the same port, with downtime; {min_healthy_time} healthy before the next",
            by(*batch)
        ),
        Strategy::Rolling { batch, max_unavailable, max_surge, min_healthy_time, healthy_deadline } => {
            format!(
                "{}, at most {max_surge} extra and {max_unavailable} missing; {min_healthy_time} healthy before the \
                 next, failed after {healthy_deadline}",
                by(*batch)
            )
        }
        Strategy::BlueGreen { preview, gates } => {
            let seen = match preview {
                Some(r) => format!("preview by {}", rule(r)),
                None => "no preview".to_owned(),
            };
            let gates = if gates.is_empty() { "all healthy".to_owned() } else { all(gates) };
            format!("all of the new beside the old, {seen} → ({gates}) → switch")
        }
        Strategy::Canary { steps, sticky, tester } => {
            let mut parts: Vec<String> = Vec::new();
            for step in steps {
                let on = step
                    .instances
                    .map_or(String::new(), |n| format!(" on {}", count(n as usize, "instance")));
                parts.push(format!("{}{on} ({})", step.weight, all(&step.gates)));
            }
            parts.push("100%".to_owned());
            let sticky = if *sticky { "; visitors keep their version" } else { "" };
            let tester = tester.as_ref().map_or(String::new(), |r| format!("; testers by {}", rule(r)));
            format!("{}{sticky}{tester}", parts.join(" → "))
        }
        Strategy::Ab { choose, duration } => {
            let who = match choose {
                Choose::Share(share) => format!("{share} of the visitors, each always the same version"),
                Choose::Rule(r) => format!("requests with {}", rule(r)),
            };
            format!("{who}, for {duration}; then somebody decides")
        }
    };
    format!("{}: {how}", strategy.name())
}

/// What becomes of the old version, and so what going back takes.
fn afterwards(service: &Service) -> String {
    match service.strategy {
        Strategy::InPlace { .. } | Strategy::Rolling { .. } => {
            "the old version is stopped; going back restarts it".to_owned()
        }
        Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Ab { .. } => {
            format!("the old version runs on for {}", service.keep)
        }
    }
}

/// `1 at a time`
fn by(batch: Batch) -> String {
    match batch {
        Batch::Count(n) => format!("{n} at a time"),
        Batch::Host => "a host at a time".to_owned(),
    }
}

/// `header X-Preview: green`
fn rule(rule: &Rule) -> String {
    match rule.by {
        RuleBy::Header => format!("header {}: {}", rule.name, rule.value),
        RuleBy::Cookie => format!("cookie {}={}", rule.name, rule.value),
    }
}

/// Each hook that is there: when, what, for how long, and what it means for the way back.
fn hook_lines(out: &mut String, hooks: &Hooks) {
    let all = [
        ("before start", &hooks.before_start),
        ("before traffic", &hooks.before_traffic),
        ("after promote", &hooks.after_promote),
    ];
    for (when, hook) in all.into_iter().filter_map(|(when, h)| Some((when, h.as_ref()?))) {
        let again = if hook.idempotent { "; may run twice" } else { "" };
        let back = if hook.irreversible { "; no automatic way back from then on" } else { "" };
        let run = Safe::capped(&hook.run.join(" "), 60);
        let _ = writeln!(out, "    {when:<14} {run} (at most {}{again}{back})", hook.timeout);
    }
}

/// `healthy for 10s, manual`
fn all(gates: &[Gate]) -> String {
    gates.iter().map(gate).collect::<Vec<_>>().join(", ")
}

fn gate(gate: &Gate) -> String {
    match gate {
        // As it is written in the file; on the way it is what somebody has to do.
        Gate::Manual => "manual".to_owned(),
        gate => decide::gate_text(*gate),
    }
}

/// `{"schema":1,"file":…,"ok":…,"problems":[…],"fleet":…}`; the fleet is null when it cannot be used.
fn as_json(file: &Path, result: &Result<Loaded, Problems>) -> serde_json::Value {
    let (problems, fleet): (&[Problem], _) = match result {
        Ok(loaded) => (&loaded.warnings, declared(&loaded.fleet)),
        Err(problems) => (problems.list(), serde_json::Value::Null),
    };
    json!({
        "schema": SCHEMA,
        "file": Safe::new(&file.to_string_lossy()),
        "ok": result.is_ok(),
        "problems": problems,
        "fleet": fleet,
    })
}

fn declared(fleet: &Fleet) -> serde_json::Value {
    let services: Vec<_> = fleet
        .services
        .values()
        .map(|s| {
            json!({
                "name": s.name,
                "replicas": s.replicas(),
                "placement": s.placement,
                "proxies": s.proxies,
                "strategy": s.strategy,
                "hooks": s.hooks,
            })
        })
        .collect();
    json!({
        "name": fleet.name,
        "environment": Safe::new(&fleet.environment),
        "production": fleet.production,
        "hash": fleet.hash,
        "hosts": fleet.hosts.keys().collect::<Vec<_>>(),
        "proxies": fleet.proxies.keys().collect::<Vec<_>>(),
        "services": services,
    })
}
