//! The log pane: whose lines it shows, and moving among them.

use crate::api::{InstanceView, MergedLog};
use crate::text::Safe;
use crate::tui::filter::List;
use crate::tui::keys::Action;
use crate::tui::logs::{LOG_CHARS, Logs, Whose};
use crate::tui::model::{Loudness, Model, Overlay, Pane};

use super::{Cmd, tell};

/// Lines asked for when a log is opened: of one instance, and of many together, about.
const TAIL: usize = 500;
const TOGETHER: usize = 1_500;
/// And of each of many, at least.
const LEAST: usize = 20;

impl Model {
    /// Whose logs an action opens now.
    #[must_use]
    pub fn logs_of(&self, action: Action) -> Option<Whose> {
        let instance = self.logs_instance();
        let service = match (&self.logs, instance) {
            (Some(logs), _) => self.service_of(&logs.whose),
            (None, Some(i)) if self.on_instances() => Some(i.service.clone()),
            // One that was never released has none.
            (None, _) => self.service_view().filter(|s| !s.revisions.is_empty()).map(|s| s.name.clone()),
        };
        let of_service = || service.clone().map(Whose::Service);
        let of_version = || {
            let service = service.clone()?;
            let version = match (&self.logs, instance) {
                (Some(Logs { whose: Whose::Version { version, .. }, .. }), _) => Some(version.clone()),
                (_, Some(i)) if i.service == service && self.on_instances() => Some(i.version.clone()),
                _ => self.version_to_watch(&service),
            };
            Some(Whose::Version { service, version: version? })
        };
        match action {
            Action::Logs if self.on_instances() => Some(Whose::Instance(instance?.id.clone())),
            Action::LogsOfVersion => of_version(),
            Action::Widen => match &self.logs.as_ref()?.whose {
                Whose::Instance(_) => of_version().or_else(of_service),
                Whose::Version { .. } => of_service(),
                Whose::Service(_) => {
                    let home =
                        self.logs.as_ref()?.home.clone().filter(|id| self.instance_named(id).is_some());
                    home.map(Whose::Instance).or_else(of_version)
                }
            },
            _ => of_service(),
        }
    }

    /// Whether what is looked at are instances, not services.
    fn on_instances(&self) -> bool {
        match (&self.overlay, &self.logs) {
            (Overlay::Details(_), _) => true,
            (_, Some(logs)) => matches!(logs.whose, Whose::Instance(_)),
            (_, None) => !matches!(self.focus, Pane::Services | Pane::Rollout),
        }
    }

    /// The instance that is looked at.
    fn logs_instance(&self) -> Option<&InstanceView> {
        match (&self.overlay, self.logs.as_ref().map(|l| &l.whose)) {
            (Overlay::Details(d), _) => self.instance_named(&d.instance),
            (_, Some(Whose::Instance(id))) => self.instance_named(id),
            _ => self.instance_view(),
        }
    }

    fn service_of(&self, whose: &Whose) -> Option<Safe> {
        match whose {
            Whose::Service(service) | Whose::Version { service, .. } => Some(service.clone()),
            Whose::Instance(id) => match self.instance_named(id) {
                Some(i) => Some(i.service.clone()),
                // It has gone; its service is most likely the one that is looked at.
                None => self.service.clone(),
            },
        }
    }

    /// The candidate's version while one is rolled out, else stable's.
    fn version_to_watch(&self, service: &Safe) -> Option<Safe> {
        let s = self.service_named(service)?;
        let candidate = s.rollout.as_ref().filter(|r| !r.status.ended()).map(|r| &r.to);
        candidate.or(s.stable.as_ref().map(|r| &r.version)).cloned()
    }

    /// Instances whose lines these are, as far as is known.
    fn instances_of(&self, whose: &Whose) -> usize {
        let all = self.snapshot.as_ref().map(|s| s.instances.as_slice()).unwrap_or_default();
        let is = |i: &&InstanceView| match whose {
            Whose::Instance(id) => i.id == *id,
            Whose::Version { service, version } => i.service == *service && i.version == *version,
            Whose::Service(service) => i.service == *service,
        };
        all.iter().filter(is).count()
    }
}

/// Opens the pane, or shows another's lines in it.
pub(super) fn open(model: &mut Model, action: Action) -> Vec<Cmd> {
    let Some(whose) = model.logs_of(action) else { return vec![] };
    let home = match (&model.logs, &whose) {
        (_, Whose::Instance(id)) => Some(id.clone()),
        (Some(logs), _) => logs.home.clone(),
        (None, Whose::Version { service, .. } | Whose::Service(service)) => {
            model.logs_instance().filter(|i| i.service == *service).map(|i| i.id.clone())
        }
    };
    // What was looked for in another log is not looked for in this one; in a wider one it is.
    if action != Action::Widen {
        model.filters.of_mut(List::Logs).set("");
    }
    model.overlay = Overlay::None;
    follow(model, whose, home)
}

/// The lines ended with the connection; they start over where an open log pane waits for them.
pub(super) fn follow_again(model: &mut Model) -> Vec<Cmd> {
    match &model.logs {
        Some(logs) => follow(model, logs.whose.clone(), logs.home.clone()),
        None => vec![],
    }
}

fn follow(model: &mut Model, whose: Whose, home: Option<Safe>) -> Vec<Cmd> {
    model.counter += 1;
    let generation = model.counter;
    let tail = match &whose {
        Whose::Instance(_) => TAIL,
        many => (TOGETHER / model.instances_of(many).max(1)).clamp(LEAST, TAIL),
    };
    let mut logs = Logs::new(whose.clone(), home, generation);
    logs.refilter(model.filters.of(List::Logs));
    model.logs = Some(logs);
    vec![Cmd::Follow { generation, whose, tail: u32::try_from(tail).unwrap_or(u32::MAX) }]
}

/// Lines have come.
pub(super) fn came(model: &mut Model, generation: u64, lines: Vec<MergedLog>) {
    let filter = model.filters.of(List::Logs);
    let Some(logs) = model.logs.as_mut().filter(|l| l.generation == generation) else { return };
    lines.into_iter().for_each(|line| logs.take(line, filter));
}

/// `n` and `N`.
pub(super) fn seek(model: &mut Model, newer: bool) {
    let Some(logs) = &mut model.logs else { return };
    if !logs.seek(newer) {
        let which = if newer { "newer" } else { "older" };
        tell(model, Loudness::Note, format!("no {which} line matches"));
    }
}

/// So many lines down, or up.
pub(super) fn scroll(logs: &mut Logs, by: isize) {
    logs.back = logs.back.saturating_add_signed(-by).min(logs.count().saturating_sub(1));
}

pub(super) fn sideways(model: &mut Model, by: isize) {
    if let Some(logs) = &mut model.logs {
        logs.left = logs.left.saturating_add_signed(by).min(LOG_CHARS);
    }
}

pub(super) fn close(model: &mut Model) -> Vec<Cmd> {
    if model.logs.take().is_some() { vec![Cmd::Unfollow] } else { vec![] }
}
