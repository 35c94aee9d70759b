//! Routes that Caddy looks up for every request, so that changing one needs no reload.
//!
//! What a service's route says is a directory, `FLEET_SERVICE.d/NAME`, in which a request finds an instance by its path.
//! `FLEET_SERVICE.now` is a symbolic link to the one that is in force; replacing it changes everything at once, whatever
//! connection the next request comes on, and lasts. A request has a place of four digits and two more for the instance,
//! and asks for `w/12/34/56/*`:
//! ```text
//! w/NN       which slot has the places NN00 to NNNN: a link to o (the other one), s (stable) or m (the row where both meet)
//! o/NN s/NN m/NN   a link to `other` or `stable`
//! other/NN stable/NN   an instance at random: a link to a directory below l
//! l/LIST/LIST      an empty file whose name has the instance's address, and the one that the request is repeated at
//! is/NAME          the directory's own name, so that Caddy can be asked which one it sees
//! sticky, rule.HASH    there while visitors keep their places, and while a rule is followed
//! route            what all this was made of
//! ```
//! A slot without ready instances is stable's; stable's failing requests are never the candidate's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::fleet::model::Rule;
use crate::fleet::names::{Bp, FleetName, ServiceName};
use crate::proxy::files;
use crate::rollout::world::{EndpointState, Route, Slot};
use crate::text::hex;

/// Parts of each level: two digits.
pub(super) const PARTS: u16 = 100;
/// Changes when the same route would be written otherwise.
const FORMAT: &str = "1";

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    Link(String),
    File(String),
}

/// A route as a directory.
pub(super) struct Tree {
    /// Its name: a hash of what it says.
    pub(super) name: String,
    nodes: BTreeMap<String, Node>,
}

/// The file that is there while a rule is followed.
pub(super) fn rule_file(rule: &Rule) -> String {
    let text = format!("{:?} {} {}", rule.by, rule.name, rule.value);
    format!("rule.{}", hex(Sha256::digest(text.as_bytes()).get(..6).unwrap_or_default()))
}

/// The slot that a place belongs to; stable's while nobody has a share.
pub(super) fn slot_of(route: &Route, place: u16) -> Slot {
    let (a, b) = (route.slots.a.weight, route.slots.b.weight);
    match (a == Bp::ZERO && b == Bp::ZERO, u64::from(place) < u64::from(b.get())) {
        (true, _) => route.stable,
        (false, true) => Slot::B,
        (false, false) => Slot::A,
    }
}

/// The same route with everything at stable, as an abort wants it.
pub(super) fn aborted(route: &Route) -> Route {
    let mut route = route.clone();
    route.slots.get_mut(route.stable).weight = Bp::FULL;
    route.slots.get_mut(route.stable.other()).weight = Bp::ZERO;
    route.rules.clear();
    route
}

/// Addresses of a slot's instances that take requests.
pub(super) fn ready(route: &Route, slot: Slot) -> Vec<SocketAddr> {
    let endpoints = route.slots.get(slot).endpoints.iter();
    endpoints.filter(|e| e.state == EndpointState::Ready).map(|e| e.addr).collect()
}

/// For each part of the requests an instance of `own`, and the one at which a request is repeated: one of `behind`, or
/// where there are none another of `own`.
fn lists(own: &[SocketAddr], behind: &[SocketAddr]) -> Vec<String> {
    let pick = |all: &[SocketAddr], n: usize| all.get(n.checked_rem(all.len()).unwrap_or(0)).copied();
    let list = |part: usize| {
        let first = pick(own, part)?;
        let turn = part.checked_div(own.len()).unwrap_or(0);
        let other = 1 + turn.checked_rem(own.len().saturating_sub(1)).unwrap_or(0);
        let second = pick(behind, turn).or_else(|| pick(own, part % own.len().max(1) + other))?;
        Some(format!("{first},{second}"))
    };
    (0..usize::from(PARTS)).filter_map(list).collect()
}

impl Tree {
    /// The directory of a route.
    pub(super) fn of(route: &Route) -> io::Result<Self> {
        let text = serde_json::to_string(route).map_err(io::Error::other)?;
        let digest = Sha256::digest(format!("{FORMAT} {text}").as_bytes());
        let name = hex(digest.get(..6).unwrap_or_default());
        let mut nodes = BTreeMap::new();
        let mut link = |path: String, to: &str| nodes.insert(path, Node::Link(to.to_owned()));
        let other = |place: u16| slot_of(route, place) != route.stable;
        for row in 0..PARTS {
            let (first, last) = (row * PARTS, row * PARTS + PARTS - 1);
            let to = match (other(first), other(last)) {
                (true, true) => "../o",
                (false, false) => "../s",
                _ => {
                    for n in 0..PARTS {
                        let to = if other(first + n) { "../other" } else { "../stable" };
                        link(format!("m/{n:02}"), to);
                    }
                    "../m"
                }
            };
            link(format!("w/{row:02}"), to);
            link(format!("o/{row:02}"), "../other");
            link(format!("s/{row:02}"), "../stable");
        }
        let (stable, candidates) = (ready(route, route.stable), ready(route, route.stable.other()));
        let stables = lists(&stable, &[]);
        let others = if candidates.is_empty() { stables.clone() } else { lists(&candidates, &stable) };
        for (slot, lists) in [("stable", &stables), ("other", &others)] {
            for (n, list) in lists.iter().enumerate() {
                link(format!("{slot}/{n:02}"), &format!("../l/{list}"));
            }
        }
        for list in stables.iter().chain(&others) {
            nodes.insert(format!("l/{list}"), Node::Dir);
            nodes.insert(format!("l/{list}/{list}"), Node::File(String::new()));
        }
        for dir in ["w", "o", "s", "m", "l", "is", "stable", "other"] {
            nodes.insert(dir.to_owned(), Node::Dir);
        }
        nodes.insert(format!("is/{name}"), Node::File(String::new()));
        if route.sticky {
            nodes.insert("sticky".to_owned(), Node::File(String::new()));
        }
        for rule in &route.rules {
            nodes.insert(rule_file(rule), Node::File(String::new()));
        }
        nodes.insert("route".to_owned(), Node::File(text));
        Ok(Self { name, nodes })
    }
}

/// The link of a service: what Caddy's configuration names.
pub(super) fn link(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.now"))
}

/// The directory of a service's directories.
fn store(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.d"))
}

/// Where the link shall point, as it is written into it: relative, so that a container that mounts the directory
/// elsewhere follows it too.
pub(super) fn target(fleet: &FleetName, service: &ServiceName, name: &str) -> PathBuf {
    Path::new(&format!("{fleet}_{service}.d")).join(name)
}

/// The name of the directory that is in force; `None` when there is no link of ours.
pub(super) fn in_force(dir: &Path, fleet: &FleetName, service: &ServiceName) -> Option<String> {
    let to = fs::read_link(link(dir, fleet, service)).ok()?;
    let name = to.file_name()?.to_str()?.to_owned();
    (to == target(fleet, service, &name)).then_some(name)
}

/// What a directory was made of, and whether it is as it was made. `None` when nobody can say what it is.
pub(super) fn read(
    dir: &Path,
    fleet: &FleetName,
    service: &ServiceName,
    name: &str,
) -> io::Result<Option<(Route, bool)>> {
    let path = store(dir, fleet, service).join(name);
    let Some(text) = files::read(&path.join("route"))? else { return Ok(None) };
    let Ok(route) = serde_json::from_str::<Route>(&text) else { return Ok(None) };
    let tree = Tree::of(&route)?;
    let intact = tree.name == name && listed(&path)? == tree.nodes;
    Ok((route.service == *service).then_some((route, intact)))
}

/// Everything in a directory.
fn listed(path: &Path) -> io::Result<BTreeMap<String, Node>> {
    let mut out = BTreeMap::new();
    let mut left = vec![(path.to_owned(), String::new())];
    while let Some((path, prefix)) = left.pop() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let (kind, path) = (entry.file_type()?, entry.path());
            let node = if kind.is_symlink() {
                Node::Link(fs::read_link(&path)?.to_string_lossy().into_owned())
            } else if kind.is_dir() {
                left.push((path, format!("{name}/")));
                Node::Dir
            } else {
                Node::File(files::read(&path)?.unwrap_or_default())
            };
            out.insert(name, node);
        }
    }
    Ok(out)
}

/// The link that is made with a directory: to put it in force then takes no room on the disk.
fn spare(link: &Path, name: &str) -> PathBuf {
    let mut path = link.as_os_str().to_owned();
    path.push(format!(".{name}"));
    path.into()
}

fn replace_link(path: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::os::unix::fs::symlink(target, path)
}

/// Makes a route ready to be put in force, and returns its name; one that is there and right stays as it is.
pub(super) fn make(dir: &Path, fleet: &FleetName, route: &Route) -> io::Result<String> {
    let (tree, service) = (Tree::of(route)?, &route.service);
    let store = store(dir, fleet, service);
    let path = store.join(&tree.name);
    files::open_to_all(&store)?;
    if listed(&path).ok().as_ref() != Some(&tree.nodes) {
        let _ = fs::remove_dir_all(&path);
        files::open_to_all(&path)?;
        for (name, node) in &tree.nodes {
            let at = path.join(name);
            match node {
                Node::Dir => files::open_to_all(&at)?,
                Node::Link(to) => std::os::unix::fs::symlink(to, at)?,
                Node::File(text) => fs::write(at, text)?,
            }
        }
        files::write_synced(&path.join("route"), tree.text(), 0o644)?;
        files::sync_dir(&path)?;
        files::sync_dir(&store)?;
    }
    let (spare, target) = (spare(&link(dir, fleet, service), &tree.name), target(fleet, service, &tree.name));
    if fs::read_link(&spare).ok().as_ref() != Some(&target) {
        replace_link(&spare, &target)?;
    }
    Ok(tree.name)
}

impl Tree {
    fn text(&self) -> &str {
        match self.nodes.get("route") {
            Some(Node::File(text)) => text,
            _ => "",
        }
    }
}

/// Puts a route in force, at once and for good; whether anything changed.
pub(super) fn set(dir: &Path, fleet: &FleetName, route: &Route) -> io::Result<bool> {
    let service = &route.service;
    let name = make(dir, fleet, route)?;
    if in_force(dir, fleet, service).as_ref() == Some(&name) {
        return Ok(false);
    }
    let link = link(dir, fleet, service);
    // Something that is no link (a copy that followed it, say) would be in the way for ever.
    if fs::symlink_metadata(&link).is_ok_and(|m| !m.is_symlink()) {
        let mut aside = link.as_os_str().to_owned();
        aside.push(".aside");
        let _ = fs::remove_dir_all(&aside);
        fs::rename(&link, aside)?;
    }
    files::publish(&spare(&link, &name), &link)?;
    // For the next time; without it that needs room on the disk.
    let _ = replace_link(&spare(&link, &name), &target(fleet, service, &name));
    Ok(true)
}

/// Removes what is neither in force nor what an abort of that needs at once. Nothing depends on it.
pub(super) fn tidy(dir: &Path, fleet: &FleetName, route: &Route) -> io::Result<()> {
    let service = &route.service;
    let mut keep = vec![Tree::of(route)?.name, Tree::of(&aborted(route))?.name];
    keep.extend(in_force(dir, fleet, service));
    let link = link(dir, fleet, service);
    for entry in fs::read_dir(store(dir, fleet, service))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !keep.contains(&name) {
            let _ = fs::remove_file(spare(&link, &name));
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::nothing;
    use crate::rollout::world::RouteEndpoint;

    /// Slot a has `a` instances, slot b has `b`; b's share is `share` basis points.
    fn route(stable: Slot, a: u16, b: u16, share: u64) -> Route {
        let mut route = Route { stable, ..nothing(&"web".parse().unwrap()) };
        for (slot, n, port) in [(Slot::A, a, 1000), (Slot::B, b, 2000)] {
            let endpoint = |n: u16| RouteEndpoint {
                instance: format!("web-{port:08x}-{n}").parse().unwrap(),
                addr: ([127, 0, 0, 1], port + n).into(),
                state: EndpointState::Ready,
            };
            route.slots.get_mut(slot).endpoints = (1..=n).map(endpoint).collect();
        }
        route.slots.b.weight = Bp::saturating(share);
        route.slots.a.weight = Bp::saturating(share).rest();
        route
    }

    /// What a request finds, as Caddy goes through links.
    fn find(tree: &Tree, path: &str) -> Option<(SocketAddr, SocketAddr)> {
        let mut at = String::new();
        for part in path.split('/') {
            at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            if let Some(Node::Link(to)) = tree.nodes.get(&at) {
                at = to.trim_start_matches("../").to_owned();
            }
        }
        let (first, second) = at.strip_prefix("l/")?.split_once(',')?;
        Some((first.parse().ok()?, second.parse().ok()?))
    }

    #[test]
    fn every_place_goes_where_its_share_says_whichever_slot_is_stable() {
        for share in [0, 1, 99, 100, 101, 1234, 5000, 9999, 10_000] {
            for stable in Slot::BOTH {
                let route = route(stable, 2, 3, share);
                let tree = Tree::of(&route).unwrap();
                for place in 0..10_000_u16 {
                    let path = format!("w/{:02}/{:02}/{:02}", place / 100, place % 100, place % 97);
                    let (first, second) = find(&tree, &path).unwrap();
                    let slot = if u64::from(place) < share { Slot::B } else { Slot::A };
                    assert!(ready(&route, slot).contains(&first), "{share} {place}");
                    assert!(
                        ready(&route, stable).contains(&second),
                        "what fails is stable's: {share} {place}"
                    );
                    assert_ne!(first, second);
                }
            }
        }
    }

    #[test]
    fn instances_get_alike_and_what_is_empty_is_stables() {
        for n in [1, 2, 3, 7, 30, 100] {
            let tree = Tree::of(&route(Slot::A, 2, n, 10_000)).unwrap();
            let mut got = BTreeMap::new();
            for part in 0..100 {
                *got.entry(find(&tree, &format!("o/00/{part:02}")).unwrap().0).or_insert(0) += 1;
            }
            assert_eq!(got.len(), usize::from(n));
            assert!(got.values().max().unwrap() - got.values().min().unwrap() <= 1);
        }
        let empty = Tree::of(&route(Slot::A, 1, 0, 5000)).unwrap();
        let only = ([127, 0, 0, 1], 1001).into();
        assert_eq!(find(&empty, "w/00/00/00"), Some((only, only)));
        let dead = Tree::of(&route(Slot::A, 0, 2, 500)).unwrap();
        assert_eq!(find(&dead, "w/99/00/00"), None, "stable's share is never the candidate's");
        assert!(find(&dead, "w/00/00/00").is_some());
        let none = Tree::of(&nothing(&"web".parse().unwrap())).unwrap();
        assert_eq!(find(&none, "w/00/00/00"), None);
    }

    #[test]
    fn what_is_set_is_read_and_what_somebody_changed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, fleet, service) = (dir.path(), "shop".parse().unwrap(), "web".parse().unwrap());
        let now = || {
            let name = in_force(dir, &fleet, &service)?;
            read(dir, &fleet, &service, &name).unwrap()
        };
        assert_eq!(now(), None);
        let (one, two) = (route(Slot::A, 2, 1, 500), aborted(&route(Slot::A, 2, 1, 500)));
        for want in [&one, &two, &one] {
            assert!(set(dir, &fleet, want).unwrap());
            assert!(!set(dir, &fleet, want).unwrap());
            assert_eq!(now(), Some((want.clone(), true)));
            make(dir, &fleet, &aborted(want)).unwrap();
            tidy(dir, &fleet, want).unwrap();
        }
        assert_eq!(fs::read_dir(store(dir, &fleet, &service)).unwrap().count(), 2);
        let stray = link(dir, &fleet, &service).join("sticky");
        fs::write(&stray, "").unwrap();
        assert_eq!(now(), Some((one.clone(), false)), "more than was written");
        set(dir, &fleet, &one).unwrap();
        assert_eq!(now(), Some((one, true)));
        assert!(!stray.exists());
    }
}
