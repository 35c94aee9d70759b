//! `events`, `health`, `logs`: what goes on, line by line.

use std::path::Path;

use futures_util::StreamExt;

use super::Exit;
use super::fleet::{Fleet, failed};
use super::follow::print;
use super::out::{Output, complain, say, say_json};
use crate::api::{Change, EventView, InstanceView, LogEntry, MergedLog, ProbeView, Snapshot};
use crate::client::Update;
use crate::controller::clock::utc;

/// `events [SERVICE]`
#[derive(clap::Args)]
pub(super) struct EventsArgs {
    /// Only of this service
    service: Option<String>,
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `health SERVICE`
#[derive(clap::Args)]
pub(super) struct HealthArgs {
    /// The service
    service: String,
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `logs INSTANCE|SERVICE`
#[derive(clap::Args)]
pub(super) struct LogsArgs {
    /// An instance, or a service for all of its instances
    of: String,
    /// Of a service: only the instances of this version
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Go on with what is written
    #[arg(long, short)]
    follow: bool,
    /// Lines to begin with, of each instance
    #[arg(long, default_value_t = 100, value_name = "N")]
    tail: u32,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is taken out of the stream.
enum Seen {
    Event(EventView),
    Probe(ProbeView),
}

pub(super) async fn events(file: Option<&Path>, a: &EventsArgs) -> color_eyre::Result<Exit> {
    let mut last = 0;
    tail(file, a.follow, |seen| match seen {
        Seen::Event(e) if e.seq > last => {
            last = e.seq;
            let ours = a.service.as_ref().is_none_or(|s| e.service.as_ref().is_some_and(|x| x.as_str() == s));
            if ours { print(&e, a.output) } else { Ok(()) }
        }
        _ => Ok(()),
    })
    .await
}

pub(super) async fn health(file: Option<&Path>, a: &HealthArgs) -> color_eyre::Result<Exit> {
    let mut last = 0;
    tail(file, a.follow, |seen| match seen {
        Seen::Probe(p) if p.service.as_str() == a.service && p.at_ms >= last => {
            last = p.at_ms;
            probe(&p, a.output)
        }
        _ => Ok(()),
    })
    .await
}

fn probe(p: &ProbeView, output: Output) -> color_eyre::Result<()> {
    if output == Output::Json {
        return say_json(p);
    }
    let at = utc(p.at_ms);
    let time = at.split(' ').nth(1).unwrap_or(&at);
    let verdict = if p.ok { "ok  ".to_owned() } else { format!("FAIL {}/{}", p.failures, p.fall) };
    say(&format!("{time} {:<12} {:<28} {verdict} {} {}ms\n", p.host, p.instance, p.result, p.latency_ms))
}

/// What is known, then what comes; over losses of the controller as well.
async fn tail(
    file: Option<&Path>,
    follow: bool,
    mut each: impl FnMut(Seen) -> color_eyre::Result<()>,
) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    if !follow {
        return match fleet.client.snapshot().await {
            Ok(s) => {
                s.events.into_iter().try_for_each(|e| each(Seen::Event(e)))?;
                s.probes.into_iter().try_for_each(|p| each(Seen::Probe(p)))?;
                Ok(Exit::Done)
            }
            Err(e) => Ok(failed(&e)),
        };
    }
    loop {
        if let Ok(mut updates) = fleet.client.stream("tail", false).await {
            while let Some(Ok(update)) = updates.next().await {
                match update {
                    Update::Snapshot(s) => {
                        s.events.into_iter().try_for_each(|e| each(Seen::Event(e)))?;
                        s.probes.into_iter().try_for_each(|p| each(Seen::Probe(p)))?;
                    }
                    Update::Delta(d) => {
                        for change in d.changes {
                            match change {
                                Change::Event(e) => each(Seen::Event(e))?,
                                Change::Probe(p) => each(Seen::Probe(p))?,
                                _ => {}
                            }
                        }
                    }
                }
            }
        }
        complain("pilothouse: the controller does not answer; trying again\n");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

pub(super) async fn logs(file: Option<&Path>, a: &LogsArgs) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    let snapshot = match fleet.client.snapshot().await {
        Ok(s) => s,
        Err(e) => return Ok(failed(&e)),
    };
    if snapshot.services.iter().any(|s| s.name.as_str() == a.of) {
        return merged(&fleet, &snapshot, a).await;
    }
    if a.version.is_some() {
        complain(&format!("pilothouse: --version is for a service, and {} is none\n", a.of));
        return Ok(Exit::Usage);
    }
    let mut lines = match fleet.client.logs(&a.of, a.tail, a.follow).await {
        Ok(lines) => lines,
        Err(e) => return Ok(failed(&e)),
    };
    while let Some(line) = lines.next().await {
        match line {
            Ok(l) if a.output == Output::Json => say_json(&json(&a.of, &l))?,
            Ok(l) => say(&format!("{}\n", l.text))?,
            Err(e) => return Ok(failed(&e)),
        }
    }
    Ok(Exit::Done)
}

fn json(instance: &str, l: &LogEntry) -> serde_json::Value {
    serde_json::json!({"instance": instance, "stderr": l.stderr, "text": l.text, "at_ms": l.at_ms})
}

/// Of all instances of a service, by the time the lines were written.
async fn merged(fleet: &Fleet, snapshot: &Snapshot, a: &LogsArgs) -> color_eyre::Result<Exit> {
    let version = a.version.as_deref();
    let of = |i: &&InstanceView| {
        let wanted = |v| i.version.as_str() == v || i.revision.as_str() == v;
        i.service.as_str() == a.of && version.is_none_or(wanted)
    };
    // Where others may come, each line says whose it is from the beginning.
    let many = a.follow || snapshot.instances.iter().filter(of).count() > 1;
    let mut lines = match fleet.client.merged_logs(&a.of, version, a.tail, a.follow).await {
        Ok(lines) => lines,
        Err(e) => return Ok(failed(&e)),
    };
    while let Some(line) = lines.next().await {
        match line {
            Ok(MergedLog::Line { instance, line }) => match a.output {
                Output::Json => say_json(&json(instance.as_str(), &line))?,
                Output::Text if many => say(&format!("{instance} {}\n", line.text))?,
                Output::Text => say(&format!("{}\n", line.text))?,
            },
            Ok(MergedLog::Note { instance, text }) => complain(&format!("pilothouse: {instance} {text}\n")),
            Ok(MergedLog::Reads { instances, of }) if instances < of => {
                complain(&format!("pilothouse: these are {instances} of {of} instances\n"));
            }
            Ok(MergedLog::Reads { .. }) => {}
            Err(e) => return Ok(failed(&e)),
        }
    }
    Ok(Exit::Done)
}
