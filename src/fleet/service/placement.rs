//! On which hosts a service runs, and how many instances of it on each.

use std::collections::BTreeMap;

use globset::GlobBuilder;

use super::{MOST_INSTANCES, exclusive};
use crate::fleet::ctx::{At, Ctx};
use crate::fleet::hosts::Declared;
use crate::fleet::model::{Engine, Host, Run};
use crate::fleet::names::HostName;
use crate::fleet::read::Section;

/// Instances needed at 100 %, per host. Hosts that are out keep their share: nothing moves when a host is lost.
pub(super) fn read(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    run: Option<&Run>,
    hosts: &Declared<HostName, Host>,
) -> BTreeMap<HostName, u32> {
    let both = exclusive(
        ctx,
        section,
        "replicas",
        "per_host",
        "'replicas' is the total, 'per_host' the number on each host",
    );
    let replicas = section.whole(ctx, "replicas", 1, MOST_INSTANCES);
    let per_host = section.whole(ctx, "per_host", 1, MOST_INSTANCES);
    let Some(chosen) = chosen(ctx, section, run, hosts) else { return BTreeMap::new() };
    match replicas.filter(|_| !both) {
        Some(total) => spread(&chosen, total.value),
        None => chosen.into_iter().map(|h| (h, per_host.as_ref().map_or(1, |n| n.value))).collect(),
    }
}

/// `total` instances over `hosts` in name order, the first ones taking what does not divide.
fn spread(hosts: &[HostName], total: u32) -> BTreeMap<HostName, u32> {
    let count = u32::try_from(hosts.len()).unwrap_or(u32::MAX).max(1);
    (0u32..)
        .zip(hosts)
        .map(|(n, host)| (host.clone(), total / count + u32::from(n < total % count)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

/// The hosts, sorted by name; `None` when that cannot be said.
fn chosen(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    run: Option<&Run>,
    hosts: &Declared<HostName, Host>,
) -> Option<Vec<HostName>> {
    let fits = |host: &Host| match run {
        Some(Run::Image { .. }) => matches!(host.engine, Engine::Docker { .. }),
        Some(Run::Command { .. }) => matches!(host.engine, Engine::Process { .. }),
        None => true,
    };
    let wanted = match run {
        Some(Run::Command { .. }) => "a command needs a process host (engine = \"process://\")",
        _ => "an image needs a Docker host (engine = \"unix:///var/run/docker.sock\")",
    };
    let mut out: Vec<HostName> = Vec::new();
    if !section.has("hosts") {
        out.extend(hosts.items.iter().filter(|(_, h)| fits(&h.value)).map(|(n, _)| n.clone()));
        // A host that is declared but wrong may be the one that fits.
        if out.is_empty() && hosts.items.len() == hosts.names.len() {
            let message = format!("{} has no host that fits: {wanted}", section.title);
            ctx.mismatch(&section.span, &message, "add a [hosts.NAME] table with such an engine");
        }
    } else {
        let list = section.texts(ctx, "hosts")?;
        if list.value.is_empty() {
            let message = format!("'hosts'{} is empty", section.place());
            ctx.error(
                &list.span,
                &message,
                "name hosts, or remove the line for all hosts of a fitting engine",
            );
        }
        for written in &list.value {
            for name in matching(ctx, section, written, hosts) {
                let Some(host) = hosts.items.get(&name) else { continue };
                if !fits(&host.value) {
                    let message = format!("{} cannot run on host '{name}': {wanted}", section.title);
                    ctx.mismatch(&written.span, &message, "name hosts of that engine only");
                } else if !out.contains(&name) {
                    out.push(name);
                }
            }
        }
        out.sort();
    }
    if let Some(span) = section.key_span("hosts").or(Some(section.span.clone()))
        && !out.is_empty()
        && out.iter().all(|n| hosts.items.get(n).is_some_and(|h| h.value.out))
    {
        let message = format!("all hosts of {} are out: it has no capacity left", section.title);
        ctx.warn(&span, &message, "add hosts, or remove out = true from those that are back");
    }
    run.map(|_| out)
}

/// The hosts that a name or glob means; reported when there are none.
fn matching(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    written: &At<&str>,
    hosts: &Declared<HostName, Host>,
) -> Vec<HostName> {
    if !written.value.contains(['*', '?', '[', '{', '\\', '!']) {
        if !hosts.names.contains(written.value) {
            hosts.unknown(ctx, "host", written, &section.place());
        }
        return written.value.parse().into_iter().collect();
    }
    let glob = match GlobBuilder::new(written.value).build() {
        Ok(g) => g.compile_matcher(),
        Err(e) => {
            let message = format!("'{}' is not a pattern: {}", written.value, e.kind());
            ctx.error(
                &written.span,
                &message,
                "write names, or patterns with * and ?, for example \"node-*\"",
            );
            return Vec::new();
        }
    };
    let found: Vec<HostName> =
        hosts.names.iter().filter(|n| glob.is_match(n)).filter_map(|n| n.parse().ok()).collect();
    if found.is_empty() {
        let names: Vec<_> = hosts.names.iter().map(String::as_str).collect();
        let fix = match names.join(", ") {
            none if none.is_empty() => "add a [hosts.NAME] table".to_owned(),
            names => format!("the hosts are {names}"),
        };
        let message = format!("the pattern '{}'{} matches no host", written.value, section.place());
        ctx.mismatch(&written.span, &message, &fix);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_spread_in_name_order_and_none_is_lost() {
        let hosts: Vec<HostName> = ["a", "b", "c"].iter().map(|n| n.parse().unwrap()).collect();
        for total in 1..50 {
            let placed = spread(&hosts, total);
            assert_eq!(placed.values().sum::<u32>(), total);
            let (least, most) = (placed.values().min().unwrap(), placed.values().max().unwrap());
            assert!(most - least <= 1);
            assert!(!placed.values().any(|n| *n == 0));
        }
        assert_eq!(spread(&hosts, 4).into_values().collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(spread(&hosts, 2).len(), 2);
    }
}
