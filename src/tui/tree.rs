//! The fleet pane as a tree: instances under their hosts, and these under their services where all are shown. Each
//! group can be folded to one line, which says how its instances are.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::api::{HealthView, InstanceView, Role};
use crate::text::Safe;

use super::filter::List;
use super::model::Model;

/// A row of the fleet pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// An instance, by its place in the snapshot.
    Instance(u32),
    /// The heading of a group, by its place in the tree.
    Group(u32),
}

/// Which group: a service, or with `host` its instances there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The service.
    pub service: Safe,
    /// The host.
    pub host: Option<Safe>,
}

impl Key {
    /// What its heading says.
    #[must_use]
    pub fn name(&self) -> &Safe {
        self.host.as_ref().unwrap_or(&self.service)
    }
}

/// How the instances of a group are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Probes pass.
    pub healthy: u32,
    /// Probes fail, or it ended by itself.
    pub failing: u32,
    /// Nobody can say.
    pub unknown: u32,
    /// It has not answered a probe yet.
    pub starting: u32,
    /// It does not run, as it should be.
    pub stopped: u32,
    /// Of all these, the candidate's.
    pub candidates: u32,
}

impl Tally {
    fn add(&mut self, i: &InstanceView) {
        let n = match (i.state.as_str(), i.health) {
            ("stopped" | "parked", _) => &mut self.stopped,
            ("exited" | "gone", _) | (_, HealthView::Unhealthy) => &mut self.failing,
            (_, HealthView::Healthy) => &mut self.healthy,
            ("pending" | "starting", _) => &mut self.starting,
            _ => &mut self.unknown,
        };
        *n += 1;
        self.candidates += u32::from(i.role == Role::Candidate);
    }
}

/// A group and its heading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub key: Key,
    /// 0 at the left edge, 1 below a service.
    pub depth: u16,
    /// Whether only its heading is shown.
    pub folded: bool,
    /// How its instances are.
    pub tally: Tally,
    /// Its part of the tree's order.
    members: Range<usize>,
}

/// The tree, and what of it is folded.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Whether instances are shown as a tree.
    pub on: bool,
    /// What is folded, also of what is not shown now.
    pub folded: BTreeSet<Key>,
    /// The groups that have something to show, in their order.
    pub groups: Vec<Group>,
    /// The heading that is selected.
    pub chosen: Option<Key>,
    /// The instances that are shown, in their order, folded or not: places in the snapshot.
    pub(super) order: Vec<u32>,
}

/// What stands for all groups.
pub const ALL: &str = "all";

impl Model {
    /// What can be folded by its name: everything, hosts, and services where all are shown.
    #[must_use]
    pub fn group_names(&self) -> Vec<Safe> {
        let Some(snapshot) = &self.snapshot else { return vec![] };
        let mut names = BTreeSet::new();
        for i in &snapshot.instances {
            if self.all_services {
                names.insert(&i.service);
            }
            if self.all_services || Some(&i.service) == self.service.as_ref() {
                names.insert(&i.host);
            }
        }
        std::iter::once(ALL.into()).chain(names.into_iter().cloned()).collect()
    }

    /// The group whose heading is row `n` of the fleet pane.
    #[must_use]
    pub fn group(&self, n: usize) -> Option<&Group> {
        match self.rows.get(n)? {
            Row::Group(at) => self.tree.groups.get(*at as usize),
            Row::Instance(_) => None,
        }
    }

    /// Whether what is folded is shown as such: a filter shows all that it leaves.
    #[must_use]
    pub fn folds(&self) -> bool {
        self.tree.on && !self.filters.of(List::Fleet).active()
    }

    /// The innermost group that an instance is in.
    #[must_use]
    pub fn home(&self, i: &InstanceView) -> Key {
        Key { service: i.service.clone(), host: Some(i.host.clone()) }
    }

    /// Puts headings between the instances of `order`, and leaves out what is folded.
    pub(super) fn grow(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        self.rows.clear();
        self.tree.groups.clear();
        if !self.tree.on {
            self.rows.extend(self.tree.order.iter().map(|n| Row::Instance(*n)));
            return;
        }
        let folds = !self.filters.of(List::Fleet).active();
        let depth = u16::from(self.all_services);
        // The groups that the instances before belong to, from the outermost.
        let mut open: Vec<usize> = Vec::new();
        for (place, n) in self.tree.order.iter().enumerate() {
            let Some(i) = snapshot.instances.get(*n as usize) else { continue };
            let service = Key { service: i.service.clone(), host: None };
            let host = Key { service: i.service.clone(), host: Some(i.host.clone()) };
            let path = [(depth > 0).then_some((service, 0)), Some((host, depth))];
            for (level, (key, depth)) in path.into_iter().flatten().enumerate() {
                let same =
                    open.get(level).and_then(|g| self.tree.groups.get(*g)).is_some_and(|g| g.key == key);
                if same {
                    continue;
                }
                let hidden =
                    open.iter().take(level).any(|g| self.tree.groups.get(*g).is_some_and(|g| g.folded));
                open.truncate(level);
                open.push(self.tree.groups.len());
                let folded = folds && self.tree.folded.contains(&key);
                if !hidden {
                    self.rows.push(Row::Group(u32::try_from(self.tree.groups.len()).unwrap_or(u32::MAX)));
                }
                let group = Group { key, depth, folded, members: place..place, ..Group::default() };
                self.tree.groups.push(group);
            }
            let mut hidden = false;
            for g in &open {
                if let Some(g) = self.tree.groups.get_mut(*g) {
                    g.members.end = place + 1;
                    hidden |= g.folded;
                }
            }
            if !hidden {
                self.rows.push(Row::Instance(*n));
            }
        }
        self.tally();
    }

    /// Counts anew how the instances of each group are.
    pub(super) fn tally(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        for g in &mut self.tree.groups {
            g.tally = Tally::default();
            let members = self.tree.order.get(g.members.clone()).unwrap_or_default();
            members.iter().filter_map(|n| snapshot.instances.get(*n as usize)).for_each(|i| g.tally.add(i));
        }
    }

    /// The row to be selected: the heading or the instance that was, or where that went when something was folded.
    pub(super) fn selected_row(&self) -> Option<usize> {
        let heading = |key: &Key| {
            let is = |n: &usize| self.group(*n).is_some_and(|g| g.key == *key);
            (0..self.rows.len()).find(is)
        };
        if let Some(row) = self.tree.chosen.as_ref().filter(|_| self.tree.on).and_then(heading) {
            return Some(row);
        }
        let id = self.instance.as_ref()?;
        let is = |n: &usize| self.row(*n).is_some_and(|i| i.id == *id);
        let shown = (0..self.rows.len()).find(is);
        shown.or_else(|| {
            let home = self.home(self.instance_named(id).filter(|_| self.tree.on)?);
            heading(&home).or_else(|| heading(&Key { host: None, ..home }))
        })
    }

    /// What the row of the cursor stands for is what is selected.
    pub(super) fn take_row(&mut self) {
        self.instance = self.row(self.cursor).map(|i| i.id.clone());
        self.tree.chosen = self.group(self.cursor).map(|g| g.key.clone());
    }
}
