//! `plan`: what a deploy would do, before anybody says yes to it.

use std::path::Path;

use super::Exit;
use super::fleet::{Fleet, failed};
use super::out::{Output, say, say_json};
use super::table::{columns, labelled, table};
use crate::api::{PhaseHostView, PhaseView, PlanView, plan_report};
use crate::fleet::names::Bp;

/// `plan SERVICE VERSION`
#[derive(clap::Args)]
pub(super) struct Args {
    /// The service
    service: String,
    /// The version: the tag of the image
    version: String,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(file: Option<&Path>, a: &Args) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    let (path, hash) = fleet.read();
    match fleet.client.plan(&a.service, &a.version, Some((&path, &hash)), true).await {
        Ok(plan) => {
            match a.output {
                Output::Json => say_json(&plan_report(&plan))?,
                Output::Text => say(&text(&plan))?,
            }
            Ok(Exit::Done)
        }
        Err(e) => Ok(failed(&e)),
    }
}

fn percent(bp: u16) -> String {
    Bp::saturating(u64::from(bp)).human()
}

fn text(p: &PlanView) -> String {
    let from = p.from.as_ref().map(|v| format!(" from {v}")).unwrap_or_default();
    let phases =
        if p.phases.len() == 1 { "1 phase".to_owned() } else { format!("{} phases", p.phases.len()) };
    let mut out = labelled("", &format!("{}: {}{from} to {}, {phases}", p.service, p.strategy, p.to));
    out.push('\n');
    out.push_str(&phase_table(p));
    out.push('\n');
    // A controller of an older version says less.
    if p.replicas > 0 {
        let replicas = p.replicas;
        let of = if replicas == 1 { "1 instance".to_owned() } else { format!("{replicas} instances") };
        let lowest = match p.lowest {
            Some(n) => {
                let share = Bp::ratio(u64::from(n), u64::from(replicas));
                format!("never fewer than {n} of {of} in rotation ({share})")
            }
            None => "nothing serves before it".to_owned(),
        };
        out.push_str(&labelled("  capacity   ", &lowest));
        let extra = match p.extra {
            0 => "no instance beyond the replicas".to_owned(),
            1 => format!("1 instance beyond the {of} declared"),
            n => format!("up to {n} instances beyond the {of} declared"),
        };
        out.push_str(&labelled("  needs      ", &extra));
        out.push_str(&labelled("  takes      ", p.takes.as_str()));
    }
    out.push_str(&labelled("  way back   ", p.way_back.as_str()));
    for (n, what) in p.not_promised.iter().enumerate() {
        out.push_str(&labelled(if n == 0 { "  no promise " } else { "             " }, &format!("- {what}")));
    }
    for note in &p.notes {
        out.push_str(&labelled("  note       ", note.as_str()));
    }
    out
}

/// A line for each group of hosts that are alike, under each phase what must hold before the next.
fn phase_table(p: &PlanView) -> String {
    let with_stable = p.from.is_some();
    let mut header = vec!["phase".to_owned(), "hosts".into()];
    header.extend(with_stable.then(|| "stable".into()));
    header.push("candidate".into());
    let mut rows = vec![header];
    let mut gates = vec![None];
    for (n, phase) in p.phases.iter().enumerate() {
        let mut name = format!("{} {}", n + 1, phase.name);
        for (hosts, like) in alike(phase) {
            let each = if hosts.len() > 1 { " each" } else { "" };
            let cell = |n: u32, share: u16| match n {
                0 => "-".to_owned(),
                n => format!("{n} with {}{each}", percent(share)),
            };
            let mut row = vec![std::mem::take(&mut name), names(&hosts)];
            row.extend(with_stable.then(|| cell(like.stable, like.stable_weight)));
            row.push(cell(like.candidate, like.candidate_weight));
            rows.push(row);
            gates.push(None);
        }
        if !name.is_empty() {
            // From an older controller: without hosts.
            let mut row = vec![name, "all".to_owned()];
            row.extend(with_stable.then(String::new));
            row.push(format!("{} with {}", phase.instances, percent(phase.weight)));
            rows.push(row);
            gates.push(None);
        }
        let then: Vec<&str> = phase.gates.iter().map(|g| g.as_str()).collect();
        if let (Some(last), false) = (gates.last_mut(), then.is_empty()) {
            *last = Some(then.join(" and "));
        }
    }
    let lines = table(2, &rows);
    let mut out = String::new();
    for (line, gate) in lines.lines().zip(gates) {
        out.push_str(line);
        out.push('\n');
        if let Some(gate) = gate {
            out.push_str(&labelled("      then ", &gate));
        }
    }
    out
}

/// Hosts with the same numbers, in the order of the first of each.
fn alike(phase: &PhaseView) -> Vec<(Vec<&str>, &PhaseHostView)> {
    let mut out: Vec<(Vec<&str>, &PhaseHostView)> = Vec::new();
    let numbers = |h: &PhaseHostView| (h.stable, h.candidate, h.stable_weight, h.candidate_weight);
    for host in &phase.hosts {
        match out.iter_mut().find(|(_, like)| numbers(like) == numbers(host)) {
            Some((names, _)) => names.push(host.host.as_str()),
            None => out.push((vec![host.host.as_str()], host)),
        }
    }
    out
}

/// All names, or the first and how many more when they are too many for a column.
fn names(hosts: &[&str]) -> String {
    let all = hosts.join(", ");
    match hosts {
        [first, rest @ ..] if columns(&all) > 24 && !rest.is_empty() => {
            format!("{first} and {} more", rest.len())
        }
        _ => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    #[test]
    fn a_plan_reads_as_a_person_reads_it_in_80_columns() {
        let text = text(&fixture::plan());
        assert!(text.lines().all(|l| columns(l) <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_first_release_has_no_stable() {
        let plan = PlanView { from: None, lowest: None, extra: 0, not_promised: vec![], ..fixture::plan() };
        let text = text(&plan);
        assert!(!text.contains("stable") && text.contains("nothing serves before it"), "{text}");
    }

    #[test]
    fn an_older_controller_says_less() {
        let mut plan = fixture::plan();
        plan.phases.iter_mut().for_each(|p| p.hosts.clear());
        let old = PlanView { replicas: 0, not_promised: vec![], ..plan };
        let text = text(&old);
        assert!(text.contains("3 25%") && text.contains("2 with 25%"), "{text}");
        assert!(!text.contains("capacity"), "{text}");
    }
}
