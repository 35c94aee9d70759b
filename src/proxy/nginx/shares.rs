//! Shares that nginx looks up for every request, so that changing one needs no reload.
//!
//! A request has a place in 0 to 9,999, written with four digits. A slot's share is a range of places: `b` has the first,
//! `a` the rest. The range is written down as empty files in one directory: `b.03` for the places 0300 to 0399, `b.0412`
//! for a single one. nginx asks whether such a file is there (`if (-f ...)`). `FLEET_SERVICE.share` is a symbolic link to
//! the directory that is in force; replacing it changes the share for every worker at once, and lasts.
//!
//! Both slots' ranges are written, and a configuration asks for the slot that is not stable: whatever is lost leads to
//! stable.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::fleet::names::{Bp, FleetName, ServiceName};
use crate::proxy::files;
use crate::rollout::world::{Route, Slot};

/// Places there are: a share is so many basis points of them.
const PLACES: u16 = 10_000;
/// Places in a file of two digits.
const ROW: u16 = 100;
/// The file that is there while rules are followed.
pub(super) const RULE: &str = "rule";

/// What a service's directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Slot b's share; `a` has the rest. `None` before a first release, when no slot has any.
    pub(super) b: Option<Bp>,
    /// Whether rules are followed.
    pub(super) rules: bool,
}

impl Shares {
    /// What a route wants.
    pub(super) fn of(route: &Route) -> Self {
        let (a, b) = (route.slots.a.weight, route.slots.b.weight);
        let none = a == Bp::ZERO && b == Bp::ZERO;
        Self { b: (!none).then_some(b), rules: !route.rules.is_empty() }
    }

    /// A slot's share.
    pub(super) fn weight(self, slot: Slot) -> Bp {
        match (self.b, slot) {
            (None, _) => Bp::ZERO,
            (Some(b), Slot::B) => b,
            (Some(b), Slot::A) => b.rest(),
        }
    }

    /// The slot that a place belongs to; `stable` while nobody has a share.
    pub(super) fn slot(self, place: u16, stable: Slot) -> Slot {
        match self.b {
            None => stable,
            Some(b) if u64::from(place) < u64::from(b.get()) => Slot::B,
            Some(_) => Slot::A,
        }
    }

    /// The places at which a mistake would show: the ends of both ranges.
    pub(super) fn edges(self) -> BTreeSet<u16> {
        let b = self.b.unwrap_or(Bp::ZERO).get().min(PLACES);
        [0, b.saturating_sub(1), b.min(PLACES - 1), PLACES - 1].into()
    }

    /// The name of the directory.
    fn name(self) -> String {
        let rules = if self.rules { "-rule" } else { "" };
        match self.b {
            None => format!("none{rules}"),
            Some(b) => format!("b{:05}{rules}", b.get()),
        }
    }

    /// What [`Self::name`] says.
    fn named(name: &str) -> Option<Self> {
        let (name, rules) = name.strip_suffix("-rule").map_or((name, false), |n| (n, true));
        let b = match name {
            "none" => None,
            n => Some(n.strip_prefix('b').filter(|d| d.len() == 5)?.parse().ok()?),
        };
        let b = match b {
            Some(b @ 0..=PLACES) => Some(Bp::saturating(u64::from(b))),
            Some(_) => return None,
            None => None,
        };
        Some(Self { b, rules })
    }

    /// The files in the directory.
    fn files(self) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        if let Some(b) = self.b {
            range(&mut out, Slot::B, 0, b.get());
            range(&mut out, Slot::A, b.get(), PLACES);
        }
        if self.rules {
            out.insert(RULE.to_owned());
        }
        out
    }
}

/// Adds the files of the places from `from` up to and without `to`.
fn range(out: &mut BTreeSet<String>, slot: Slot, mut from: u16, to: u16) {
    let slot = slot.as_str();
    while from < to {
        if from.is_multiple_of(ROW) && to - from >= ROW {
            out.insert(format!("{slot}.{:02}", from / ROW));
            from += ROW;
        } else {
            out.insert(format!("{slot}.{from:04}"));
            from += 1;
        }
    }
}

/// The link of a service: what nginx's configuration names.
pub(super) fn link(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.share"))
}

/// The directory of a service's directories.
fn store(dir: &Path, fleet: &FleetName, service: &ServiceName) -> PathBuf {
    dir.join(format!("{fleet}_{service}.shares"))
}

/// Where the link shall point, as it is written into it: relative, so that a container that mounts the directory
/// elsewhere follows it too.
pub(super) fn target(fleet: &FleetName, service: &ServiceName, shares: Shares) -> PathBuf {
    Path::new(&format!("{fleet}_{service}.shares")).join(shares.name())
}

/// What is in force: what the link names, if the directory has exactly the files it should. `None` when there is no
/// link, or somebody has changed something.
pub(super) fn read(dir: &Path, fleet: &FleetName, service: &ServiceName) -> io::Result<Option<Shares>> {
    let to = match fs::read_link(link(dir, fleet, service)) {
        Ok(to) => to,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Something else stands there.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        Err(e) => return Err(e),
    };
    let named = to.file_name().and_then(|n| n.to_str()).and_then(Shares::named);
    let Some(shares) = named.filter(|s| to == target(fleet, service, *s)) else { return Ok(None) };
    Ok((listed(&dir.join(to))? == Some(shares.files())).then_some(shares))
}

/// The names in a directory; `None` when there is no such directory.
fn listed(dir: &Path) -> io::Result<Option<BTreeSet<String>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut out = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        // A directory of that name is no file to nginx either.
        let kind = if entry.file_type()?.is_file() { "" } else { "/" };
        out.insert(format!("{}{kind}", entry.file_name().to_string_lossy()));
    }
    Ok(Some(out))
}

/// Makes a directory ready to be put in force; one that is there and right stays as it is.
pub(super) fn make(dir: &Path, fleet: &FleetName, service: &ServiceName, shares: Shares) -> io::Result<()> {
    let store = store(dir, fleet, service);
    let path = store.join(shares.name());
    let wanted = shares.files();
    // Also what a kill in the middle has left, which nobody but us could look into.
    files::open_to_all(&store)?;
    if listed(&path).ok().flatten().as_ref() == Some(&wanted) {
        return files::open_to_all(&path);
    }
    let _ = fs::remove_dir_all(&path);
    files::open_to_all(&path)?;
    for name in &wanted {
        fs::File::create(path.join(name))?;
    }
    files::sync_dir(&path)?;
    files::sync_dir(&store)
}

/// A link that is made beforehand: to put it in force then takes no room on the disk.
fn spare(link: &Path, shares: Shares) -> PathBuf {
    let mut name = link.as_os_str().to_owned();
    name.push(format!(".{}", shares.name()));
    name.into()
}

/// Makes what an abort needs: the directory and the link, ready to be put in force.
pub(super) fn make_ready(dir: &Path, fleet: &FleetName, service: &ServiceName) -> io::Result<()> {
    for shares in ready() {
        make(dir, fleet, service, shares)?;
        let spare = spare(&link(dir, fleet, service), shares);
        let target = target(fleet, service, shares);
        if fs::read_link(&spare).ok().as_ref() != Some(&target) {
            replace_link(&spare, &target)?;
        }
    }
    Ok(())
}

fn replace_link(path: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::os::unix::fs::symlink(target, path)
}

/// Puts shares in force: for every worker at once, and for good. Nothing is touched when they are already.
pub(super) fn set(dir: &Path, fleet: &FleetName, service: &ServiceName, shares: Shares) -> io::Result<()> {
    // What cannot be read is replaced.
    if read(dir, fleet, service).ok().flatten() == Some(shares) {
        return Ok(());
    }
    make(dir, fleet, service, shares)?;
    let link = link(dir, fleet, service);
    // Something that is no link (a copy that followed it, say) would be in the way for ever.
    if fs::symlink_metadata(&link).is_ok_and(|m| !m.is_symlink()) {
        let mut aside = link.as_os_str().to_owned();
        aside.push(format!(".aside-{}", std::process::id()));
        let _ = fs::remove_dir_all(&aside);
        fs::rename(&link, aside)?;
    }
    let target = target(fleet, service, shares);
    let mut next = spare(&link, shares);
    if fs::read_link(&next).ok().as_ref() != Some(&target) {
        next = files::beside(&link);
        replace_link(&next, &target)?;
    }
    files::publish(&next, &link)?;
    // For the next time; without it that needs room on the disk.
    let _ = make_ready(dir, fleet, service);
    Ok(())
}

/// Removes the directories that are neither in force nor what an abort needs at once.
pub(super) fn tidy(dir: &Path, fleet: &FleetName, service: &ServiceName) -> io::Result<()> {
    let store = store(dir, fleet, service);
    let in_force = fs::read_link(link(dir, fleet, service)).ok();
    let keep: Vec<_> = in_force
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|n| n.to_str())
        .map(str::to_owned)
        .into_iter()
        .chain(ready().map(Shares::name))
        .collect();
    for name in listed(&store)?.unwrap_or_default() {
        let name = name.trim_end_matches('/');
        if !keep.iter().any(|k| k == name) && Shares::named(name).is_some() {
            fs::remove_dir_all(store.join(name))?;
        }
    }
    Ok(())
}

/// What is made beforehand: all to one slot, which is where an abort goes.
pub(super) fn ready() -> impl Iterator<Item = Shares> {
    [Bp::ZERO, Bp::FULL].into_iter().map(|b| Shares { b: Some(b), rules: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(b: u64) -> Shares {
        Shares { b: Some(Bp::saturating(b)), rules: false }
    }

    /// What nginx does: two questions about the slot that is not stable.
    fn asked(files: &BTreeSet<String>, place: u16, stable: Slot) -> Slot {
        let other = stable.other();
        let has = |what: String| files.contains(&format!("{}.{what}", other.as_str()));
        if has(format!("{:02}", place / 100)) || has(format!("{place:04}")) { other } else { stable }
    }

    #[test]
    fn every_place_goes_where_its_share_says_whichever_slot_is_stable() {
        for b in [0, 1, 99, 100, 101, 500, 1234, 5000, 9900, 9999, 10_000] {
            let files = shares(b).files();
            for place in 0..10_000 {
                for stable in Slot::BOTH {
                    let want = if u64::from(place) < b { Slot::B } else { Slot::A };
                    assert_eq!(asked(&files, place, stable), want, "{b} {place}");
                    assert_eq!(shares(b).slot(place, stable), want);
                }
            }
            assert!(files.len() <= 299, "{b}: {}", files.len());
        }
        assert!(Shares { b: None, rules: false }.files().is_empty());
    }

    #[test]
    fn what_is_set_is_read_and_what_somebody_changed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, fleet, service) = (dir.path(), "shop".parse().unwrap(), "web".parse().unwrap());
        let read = || read(dir, &fleet, &service).unwrap();
        assert_eq!(read(), None);
        for want in [shares(500), Shares { b: Some(Bp::FULL), rules: true }, Shares { b: None, rules: false }]
        {
            set(dir, &fleet, &service, want).unwrap();
            assert_eq!(read(), Some(want));
            tidy(dir, &fleet, &service).unwrap();
            assert_eq!(read(), Some(want));
            assert_eq!(Shares::named(&want.name()), Some(want));
        }
        set(dir, &fleet, &service, shares(150)).unwrap();
        let stray = link(dir, &fleet, &service).join("b.07");
        fs::write(&stray, "").unwrap();
        assert_eq!(read(), None, "more than was written");
        set(dir, &fleet, &service, shares(150)).unwrap();
        assert!(!stray.exists());
        fs::remove_file(link(dir, &fleet, &service).join("b.0149")).unwrap();
        assert_eq!(read(), None, "less than was written");
        set(dir, &fleet, &service, shares(150)).unwrap();
        assert_eq!(read(), Some(shares(150)));
        make_ready(dir, &fleet, &service).unwrap();
        tidy(dir, &fleet, &service).unwrap();
        assert_eq!(fs::read_dir(store(dir, &fleet, &service)).unwrap().count(), 3);
        // A copy that followed the link stands in the way of nothing.
        let link = link(dir, &fleet, &service);
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        fs::write(link.join("b.00"), "").unwrap();
        assert_eq!(read(), None);
        set(dir, &fleet, &service, shares(0)).unwrap();
        assert_eq!(read(), Some(shares(0)));
        // What a kill has left half done, and nobody else could look into.
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(store(dir, &fleet, &service), fs::Permissions::from_mode(0o700)).unwrap();
        set(dir, &fleet, &service, shares(10_000)).unwrap();
        assert_eq!(fs::metadata(store(dir, &fleet, &service)).unwrap().permissions().mode() & 0o777, 0o755);
        for odd in ["b", "b1", "b10001", "none-rules", "../x", "b00001-rule-rule"] {
            assert_eq!(Shares::named(odd), None, "{odd}");
        }
    }
}
