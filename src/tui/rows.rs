//! Which instances the fleet pane shows and in which order, and the header's counts: derived from the snapshot, and
//! only when something they come from has changed.

use std::cmp::Ordering;

use crate::api::{EventView, HealthView, InstanceView, Level, ProbeView, Role, ServiceView};
use crate::text::Safe;

use super::filter::{Filter, List};
use super::model::{Counts, Model, Widths, health_word};

/// A column of the fleet pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Host name.
    Host,
    /// Instance id.
    Instance,
    /// Version.
    Version,
    /// State.
    State,
    /// What the probes say; the worst first.
    Health,
    /// Set share; the highest first.
    Share,
    /// The highest first.
    Cpu,
    /// The highest first.
    Memory,
    /// The youngest first.
    Age,
    /// The most first.
    Restarts,
}

impl Column {
    /// On the screen from left to right.
    pub const ALL: [Self; 10] = [
        Self::Host,
        Self::Instance,
        Self::Version,
        Self::State,
        Self::Health,
        Self::Share,
        Self::Cpu,
        Self::Memory,
        Self::Age,
        Self::Restarts,
    ];

    /// What stands above it; the palette calls it the same.
    #[must_use]
    pub fn caption(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Instance => "instance",
            Self::Version => "version",
            Self::State => "state",
            Self::Health => "health",
            Self::Share => "share",
            Self::Cpu => "cpu",
            Self::Memory => "mem",
            Self::Age => "age",
            Self::Restarts => "rst",
        }
    }

    /// Which of two instances comes first; what is not known comes last.
    fn order(self, a: &InstanceView, b: &InstanceView) -> Ordering {
        let known = |a: bool, b: bool| b.cmp(&a);
        match self {
            Self::Host => a.host.cmp(&b.host),
            Self::Instance => a.id.cmp(&b.id),
            Self::Version => a.version.cmp(&b.version),
            Self::State => a.state.cmp(&b.state),
            Self::Health => worst(a.health).cmp(&worst(b.health)),
            Self::Share => b.weight.cmp(&a.weight),
            Self::Cpu => {
                let order = b.cpu_percent.unwrap_or(-1.0).total_cmp(&a.cpu_percent.unwrap_or(-1.0));
                known(a.cpu_percent.is_some(), b.cpu_percent.is_some()).then(order)
            }
            Self::Memory => b.memory_bytes.cmp(&a.memory_bytes),
            Self::Age => b.started_ms.cmp(&a.started_ms),
            Self::Restarts => b.restarts.cmp(&a.restarts),
        }
    }
}

fn worst(health: HealthView) -> u8 {
    match health {
        HealthView::Unhealthy => 0,
        HealthView::Unknown => 1,
        HealthView::Healthy => 2,
    }
}

/// What the fleet pane is sorted by; by service, role and host when no column is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// The column.
    pub by: Option<Column>,
    /// The other way round.
    pub reversed: bool,
}

impl Sort {
    /// The next column; after the last one none.
    #[must_use]
    pub fn next(self) -> Self {
        let by = match self.by {
            None => Column::ALL.first(),
            Some(c) => Column::ALL.iter().position(|x| *x == c).and_then(|n| Column::ALL.get(n + 1)),
        };
        Self { by: by.copied(), reversed: false }
    }

    fn order(self, a: &InstanceView, b: &InstanceView) -> Ordering {
        let order = self.by.map_or(Ordering::Equal, |c| c.order(a, b));
        if self.reversed { order.reverse() } else { order }
    }
}

impl Model {
    /// Brings what is derived from the snapshot up to date, as far as it has changed. Sorting thousands of instances
    /// is the dearest thing here, and the common change (a probe, cpu, memory) does not need it.
    pub fn settle(&mut self) {
        let counted = std::mem::take(&mut self.counts_stale);
        if counted {
            self.count();
        }
        if std::mem::take(&mut self.rows_stale) {
            self.arrange();
        } else if counted && self.tree.on {
            self.tally();
        }
    }

    /// Whether a new view of an instance belongs into the same row as the old one.
    #[must_use]
    pub fn same_row(&self, new: &InstanceView) -> bool {
        let Some(instances) = self.snapshot.as_ref().map(|s| &s.instances) else { return false };
        let Some(old) = instances.binary_search_by(|i| i.id.cmp(&new.id)).ok().and_then(|n| instances.get(n))
        else {
            return false;
        };
        let filter = self.filters.of(List::Fleet);
        (!filter.active() || matches(old, filter) == matches(new, filter))
            && self.sort.order(old, new).is_eq()
            && (&old.service, &old.host, &old.version, old.role)
                == (&new.service, &new.host, &new.version, new.role)
    }

    fn count(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        let moving = |s: &&ServiceView| s.rollout.as_ref().is_some_and(|r| !r.status.ended());
        self.counts = Counts {
            instances: snapshot.instances.len(),
            unhealthy: snapshot.instances.iter().filter(|i| i.health == HealthView::Unhealthy).count(),
            rollouts: snapshot.services.iter().filter(moving).count(),
            lost_hosts: snapshot.hosts.iter().filter(|h| !h.reachable && !h.out).count(),
            lost_proxies: snapshot.proxies.iter().filter(|p| !p.reachable).count(),
        };
        if self.service_view().is_none() {
            let first = snapshot.services.iter().find(moving).or(snapshot.services.first());
            self.service = first.map(|s| s.name.clone());
            self.rows_stale = true;
        }
    }

    /// The rows of the fleet pane, and what comes from them.
    fn arrange(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        let filter = self.filters.of(List::Fleet);
        let filtered = filter.active();
        let mut order = std::mem::take(&mut self.tree.order);
        order.clear();
        self.in_scope = 0;
        let mut widths = Widths::default();
        for (n, i) in snapshot.instances.iter().enumerate() {
            if !self.all_services && Some(&i.service) != self.service.as_ref() {
                continue;
            }
            self.in_scope += 1;
            if filtered && !matches(i, filter) {
                continue;
            }
            order.push(u32::try_from(n).unwrap_or(u32::MAX));
            let fit = |w: &mut u16, text: &Safe| *w = (*w).max(super::view::columns(text.as_str()));
            fit(&mut widths.host, &i.host);
            fit(&mut widths.instance, &i.id);
            fit(&mut widths.version, &i.version);
            fit(&mut widths.service, &i.service);
        }
        self.widths = widths;
        let key = |n: &u32| {
            snapshot
                .instances
                .get(*n as usize)
                .map(|i| (&i.service, rank(i.role), &i.host, &i.version, &i.id))
        };
        let by = self.sort;
        let at = |n: &u32| snapshot.instances.get(*n as usize);
        let tree = self.tree.on;
        let first = |a: &u32, b: &u32| {
            at(a).zip(at(b)).map_or(Ordering::Equal, |(a, b)| {
                // In a tree, within a host.
                let group = || (&a.service, &a.host).cmp(&(&b.service, &b.host));
                let group = if tree { group() } else { Ordering::Equal };
                group.then_with(|| by.order(a, b))
            })
        };
        order.sort_by(|a, b| first(a, b).then_with(|| key(a).cmp(&key(b))));
        self.tree.order = order;
        self.regrow();
    }

    /// The same instances in the same order, folded another way.
    pub(super) fn regrow(&mut self) {
        self.grow();
        // The selection follows the instance, not the line it was on.
        let at = self.selected_row();
        self.cursor = at.unwrap_or(self.cursor.min(self.rows.len().saturating_sub(1)));
        self.take_row();
    }

    /// The probes that the health pane shows, and how many there were before its filter.
    #[must_use]
    pub fn probes(&self) -> (Vec<&ProbeView>, usize) {
        let all = self.snapshot.as_ref().map(|s| s.probes.as_slice()).unwrap_or_default();
        let in_scope = all.iter().filter(|p| self.all_services || Some(&p.service) == self.service.as_ref());
        let before = in_scope.clone().count();
        let filter = self.filters.of(List::Health);
        (in_scope.filter(|p| probe_matches(p, filter)).collect(), before)
    }

    /// Whether a new probe is one more line of the health pane.
    #[must_use]
    pub fn shows_probe(&self, p: &ProbeView) -> bool {
        (self.all_services || Some(&p.service) == self.service.as_ref())
            && probe_matches(p, self.filters.of(List::Health))
    }

    /// The events that the events pane shows.
    #[must_use]
    pub fn events(&self) -> Vec<&EventView> {
        let now = self.snapshot.as_ref().map(|s| s.events.as_slice()).unwrap_or_default();
        self.journal.shown().chain(now.iter().filter(|e| self.shows_event(e))).collect()
    }

    /// Whether a new event is one more line of the events pane.
    #[must_use]
    pub fn shows_event(&self, e: &EventView) -> bool {
        event_matches(e, self.filters.of(List::Events))
    }

    /// Moves the selection in the fleet pane to row `to`.
    pub fn select_row(&mut self, to: usize) {
        self.cursor = to.min(self.rows.len().saturating_sub(1));
        self.take_row();
    }

    /// Instances that the fleet pane's filter leaves.
    #[must_use]
    pub fn shown(&self) -> usize {
        self.tree.order.len()
    }
}

fn rank(role: Role) -> u8 {
    match role {
        // What is being watched must not fall below the fold of a short terminal.
        Role::Candidate => 0,
        Role::Stable => 1,
        Role::Old => 2,
    }
}

/// Whether a filter leaves an event.
#[must_use]
pub fn event_matches(e: &EventView, filter: &Filter) -> bool {
    let level = match e.level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let about = [&e.service, &e.rollout].into_iter().flatten().map(Safe::as_str);
    let said = [e.text.as_str(), e.by.as_str(), e.kind.as_str(), level];
    filter.matches(said.into_iter().chain(about))
}

fn probe_matches(p: &ProbeView, filter: &Filter) -> bool {
    let word = if p.ok { "ok" } else { "FAIL" };
    filter.matches([p.host.as_str(), p.instance.as_str(), p.result.as_str(), p.service.as_str(), word])
}

fn matches(i: &InstanceView, filter: &Filter) -> bool {
    let role = match i.role {
        Role::Stable => "stable",
        Role::Candidate => "candidate",
        Role::Old => "old",
    };
    filter.matches([
        i.host.as_str(),
        i.id.as_str(),
        i.version.as_str(),
        i.state.as_str(),
        i.probe.as_str(),
        health_word(i.health),
        role,
        // Where all services are shown.
        i.service.as_str(),
    ])
}
