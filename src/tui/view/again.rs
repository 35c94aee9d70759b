//! What the questions say about going back, trying again, and a new version while another is being rolled out: what is
//! so now, what follows, and what does not.

use super::dialogs::{Lines, share, stable_health};
use super::notes::listed;
use crate::api::{InstanceView, Role, RolloutView, ServiceView};
use crate::text::Safe;
use crate::tui::dialog::single_hosts;
use crate::tui::format;
use crate::tui::keys::Action;
use crate::tui::model::Model;
use crate::tui::theme::{Theme, Tone};

/// Hosts in the list at once.
const ROWS: usize = 5;

/// Going back, to the previous version or in mid-rollout.
pub(super) fn rollback(
    model: &Model,
    theme: &Theme,
    service: &ServiceView,
    host: Option<&Safe>,
    lines: &mut Lines,
) {
    if let Some(r) = service.rollout.as_ref().filter(|r| !r.status.ended()) {
        // On a screen that has no room for all of it, what follows is worth more than what is.
        match host {
            Some(host) => one_host(model, service, r, host, lines),
            None => everything(service, r, lines),
        }
        choice(model, theme, service, r, host, lines);
        lines.push(share(service, r));
        return;
    }
    let serving = service.stable.as_ref().map_or("nothing", |s| s.version.as_str());
    let Some(p) = &service.previous else {
        lines.push(("There is no previous version to go back to.".into(), Tone::Warn));
        return;
    };
    lines.push((format!("Now: {serving} serves, {}.", stable_health(service)), Tone::Plain));
    if service.previous_warm {
        lines.push((
            format!("Then: all traffic goes to {}, at once: it still runs.", p.version),
            Tone::Strong,
        ));
    } else {
        let text = format!(
            "Then: {}'s instances are started, and get the traffic once they are healthy.",
            p.version
        );
        lines.push((text, Tone::Strong));
    }
}

/// Everything, or one of the hosts.
fn choice(
    model: &Model,
    theme: &Theme,
    service: &ServiceView,
    r: &RolloutView,
    host: Option<&Safe>,
    lines: &mut Lines,
) {
    let hosts = single_hosts(model, service);
    if hosts.is_empty() {
        return;
    }
    let mut line = |chosen: bool, text: String| {
        let mark = if chosen { theme.glyphs().now } else { " " };
        lines.push((format!("  {mark} {text}"), if chosen { Tone::Accent } else { Tone::Plain }));
    };
    line(host.is_none(), "everything back (abort)".into());
    let at = host.and_then(|h| hosts.iter().position(|o| o == h));
    let top = super::window(at.unwrap_or(0), hosts.len(), ROWS);
    for h in hosts.iter().skip(top).take(ROWS) {
        let there = match candidates(model, service, h).count() {
            0 => format!("nothing of {} there yet", r.to),
            n => format!("{} of {} there", format::count(n, "instance"), r.to),
        };
        line(host == Some(h), format!("{h} alone ({there})"));
    }
    let hidden = hosts.len().saturating_sub(ROWS);
    if hidden > 0 {
        lines.push((format!("    {hidden} more: up and down"), Tone::Dim));
    }
}

fn candidates<'a>(
    model: &'a Model,
    service: &'a ServiceView,
    host: &'a Safe,
) -> impl Iterator<Item = &'a InstanceView> {
    let instances = model.snapshot.as_ref().map(|s| s.instances.as_slice()).unwrap_or_default();
    instances.iter().filter(move |i| {
        i.service == service.name
            && i.host == *host
            && i.role == Role::Candidate
            && !matches!(i.state.as_str(), "stopped" | "exited" | "gone")
    })
}

fn everything(service: &ServiceView, r: &RolloutView, lines: &mut Lines) {
    let stable = r.from.as_ref().map_or("nothing", |v| v.as_str());
    lines.push((
        format!(
            "Then: the same as abort: all traffic back to {stable} everywhere, {}; {} ends.",
            stable_health(service),
            r.id
        ),
        Tone::Strong,
    ));
}

fn one_host(model: &Model, service: &ServiceView, r: &RolloutView, host: &Safe, lines: &mut Lines) {
    let stable = r.from.as_ref().map_or("nothing", |v| v.as_str());
    let back = match candidates(model, service, host).count() {
        0 => "keeps",
        _ => "goes back to",
    };
    let then = format!("Then: {host} {back} {stable}, the other hosts go on.");
    lines.push((then, Tone::Strong));
    if r.strategy.as_str() == "in-place" {
        lines.push((format!("! In place: {host} is empty while {stable} starts again."), Tone::Warn));
    }
    lines.push((
        format!(
            "! {} cannot end while {host} is held back: only retry ({}) or abort ({}) ends that.",
            r.id,
            model.keys.key(Action::Retry),
            model.keys.key(Action::Abort)
        ),
        Tone::Warn,
    ));
}

/// Held hosts take part again.
pub(super) fn retry(service: &ServiceView, r: &RolloutView, lines: &mut Lines) {
    lines.push(share(service, r));
    if r.status == crate::api::RolloutStatus::Paused && !r.reason.is_empty() {
        lines.push((format!("It stands because: {}", r.reason), Tone::Plain));
    }
    let again = if r.held.len() == 1 { "takes part again and gets" } else { "take part again and get" };
    lines.push((format!("Then: {} {again} {}, as planned.", listed(&r.held), r.to), Tone::Strong));
    if r.status == crate::api::RolloutStatus::Paused {
        lines.push(("The pause ends, and the rollout goes on by itself.".into(), Tone::Warn));
    }
    if r.held.len() > 1 {
        let text = format!("For one of them alone: pilothouse retry {} --host HOST", service.name);
        lines.push((text, Tone::Dim));
    }
}

/// A new version while another is being rolled out: what becomes of that one.
pub(super) fn instead(service: &ServiceView, to: &str, lines: &mut Lines) {
    let Some(r) = service.rollout.as_ref().filter(|r| !r.status.ended()) else { return };
    let stable = r.from.as_ref().map_or("nothing", |v| v.as_str());
    lines.push((
        format!(
            "! FIRST {} is taken back: {} is aborted, all traffic to {stable}. THEN {to} follows by itself.",
            r.to, r.id
        ),
        Tone::Warn,
    ));
    lines.push(share(service, r));
    if let Some(next) = service.next.as_ref().filter(|n| n.as_str() != to) {
        lines.push((format!("! {next}, which waits for its turn, is dropped."), Tone::Warn));
    }
}
