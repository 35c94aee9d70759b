//! All that the cockpit knows. No I/O, no clock: time is an input, in milliseconds.

use std::collections::BTreeMap;

use crate::api::{
    API_VERSION, HealthView, InstanceDetails, InstanceView, PlanView, RolloutStatus, ServiceView, Snapshot,
    Trends, VerbKind,
};
use crate::client::ClientError;
use crate::text::Safe;

use super::dialog::Dialog;
use super::filter::{Filters, List};
use super::format;
use super::journal::Journal;
use super::keys::Table;
use super::logs::Logs;
use super::palette::Palette;
use super::rows::Sort;
use super::theme::Palette as Colours;
use super::tree::{Row, Tree};

/// How things stand with the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not connected yet.
    #[default]
    Connecting,
    /// The picture is current.
    Live,
    /// It was current until `since_ms`.
    Lost {
        /// When it was lost.
        since_ms: u64,
        /// Why.
        why: Safe,
    },
}

/// The panes that can have the focus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pane {
    /// The list of services.
    #[default]
    Services,
    /// The rollout of the selected service.
    Rollout,
    /// The instances.
    Fleet,
    /// The last probes.
    Health,
    /// The last events.
    Events,
}

impl Pane {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Services, Self::Rollout, Self::Fleet, Self::Health, Self::Events];

    /// Its title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Rollout => "rollout",
            Self::Fleet => "fleet",
            Self::Health => "health",
            Self::Events => "events",
        }
    }
}

/// What covers the panes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The help page, scrolled down by so many lines.
    Help(usize),
    /// A question.
    Dialog(Box<Dialog>),
    /// A command is being typed.
    Palette(Palette),
    /// All there is to know of an instance.
    Details(Box<Details>),
}

/// An instance that is looked at closely.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Which.
    pub instance: Safe,
    /// What its engine says; `None` while it is asked.
    pub told: Option<Result<Box<InstanceDetails>, Safe>>,
    /// Scrolled down by so many lines.
    pub top: usize,
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// It went as asked.
    Good,
    /// Something to know.
    Note,
    /// It did not work.
    Bad,
}

/// One line above the bar, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How loud.
    pub loudness: Loudness,
    /// What.
    pub text: Safe,
    /// When it goes away by itself; a bad one stays until the next key.
    pub until_ms: Option<u64>,
}

/// One line of typing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The text.
    pub text: String,
}

impl Input {
    /// Longest text.
    pub const MAX: usize = 128;

    /// Adds what can be shown and fits.
    pub fn push(&mut self, c: char) {
        if !c.is_control() && self.text.chars().count() < Self::MAX {
            self.text.push(c);
        }
    }
}

/// A verb that was sent and not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Number of the request.
    pub id: u64,
    /// Service.
    pub service: Safe,
    /// What was asked, in words.
    pub what: String,
    /// How the rollout stood when the operator decided.
    pub seen: Option<String>,
}

/// Counts for the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instances there are.
    pub instances: usize,
    /// Of these, the ones whose probes fail.
    pub unhealthy: usize,
    /// Rollouts under way.
    pub rollouts: usize,
    /// Hosts that cannot be reached and are not declared as gone.
    pub lost_hosts: usize,
    /// Proxies that cannot be reached.
    pub lost_proxies: usize,
}

/// Widths that the columns of the fleet pane need, in columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// Host name.
    pub host: u16,
    /// Instance id.
    pub instance: u16,
    /// Version.
    pub version: u16,
    /// Service name.
    pub service: u16,
}

/// A past rollout that is being played; see [`mod@super::replay`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Which.
    pub rollout: Safe,
    /// How far it is, in milliseconds of the recording.
    pub at_ms: u64,
    /// How long the recording is.
    pub length_ms: u64,
    /// So many times as fast as it was.
    pub speed: u32,
    /// It stands still.
    pub paused: bool,
}

/// The whole state of the screen.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Monotonic time.
    pub now_ms: u64,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Columns and rows.
    pub size: (u16, u16),
    /// What others see as our name.
    pub name: Safe,
    /// Watch only.
    pub read_only: bool,
    /// The first start: what each pane is, is said until a key is pressed.
    pub welcome: bool,
    /// What each key does.
    pub keys: Table,
    /// Which colours.
    pub palette: Colours,
    /// Nothing moves by itself more often than once in two seconds.
    pub reduced_motion: bool,
    /// The terminal sends what the mouse does, instead of selecting text with it.
    pub mouse: bool,
    /// Lines for an empty area, such as which versions to try.
    pub demo_hint: Vec<Safe>,

    /// The past rollout that is played; `None` for the present.
    pub replay: Option<Replay>,
    /// How things stand with the controller.
    pub link: Link,
    /// The last picture.
    pub snapshot: Option<Box<Snapshot>>,
    /// When the controller was heard last.
    pub heard_ms: u64,
    /// When the view of each service arrived: countdowns run from there.
    pub service_ms: BTreeMap<Safe, u64>,
    /// What the versions did over the last minutes.
    pub trends: Trends,

    /// The selected service.
    pub service: Option<Safe>,
    /// What the fleet pane shows, in its order.
    pub rows: Vec<Row>,
    /// The fleet pane as a tree.
    pub tree: Tree,
    /// What they are sorted by.
    pub sort: Sort,
    /// Whether `rows` is out of date.
    pub rows_stale: bool,
    /// Whether `counts`, and the choice of the service, are out of date.
    pub counts_stale: bool,
    /// What the columns need.
    pub widths: Widths,
    /// For the header.
    pub counts: Counts,
    /// The selected instance.
    pub instance: Option<Safe>,
    /// Its place in `rows`.
    pub cursor: usize,
    /// Instances and probes of all services, not only the selected one.
    pub all_services: bool,
    /// Instances in the fleet pane's scope, before its filter.
    pub in_scope: usize,
    /// What the lists are filtered by.
    pub filters: Filters,
    /// The list whose filter is being typed.
    pub filtering: Option<List>,
    /// Probes scrolled back.
    pub health_back: usize,
    /// What happened before the events of the snapshot.
    pub journal: Journal,
    /// Events scrolled back.
    pub events_back: usize,

    /// Which pane the arrows move in.
    pub focus: Pane,
    /// Whether that pane has the whole screen.
    pub zoom: bool,
    /// The log pane, when it is open.
    pub logs: Option<Logs>,
    /// What covers the panes.
    pub overlay: Overlay,
    /// The line above the bar.
    pub notice: Option<Notice>,
    /// Verbs under way.
    pub pending: Vec<Pending>,
    /// Counts requests and openings.
    pub counter: u64,
    /// When the last key or paste came.
    pub input_ms: Option<u64>,
    /// Whether what is drawn is out of date.
    pub dirty: bool,
    /// Whether in a way that must be seen at once: more than a figure has changed.
    pub urgent: bool,
    /// The clock texts drawn last; see [`super::update::update`].
    pub clocks: String,
}

impl Model {
    /// The selected service, if it (still) exists.
    #[must_use]
    pub fn service_view(&self) -> Option<&ServiceView> {
        let name = self.service.as_ref()?;
        self.service_named(name)
    }

    /// A service by name.
    #[must_use]
    pub fn service_named(&self, name: &Safe) -> Option<&ServiceView> {
        let services = &self.snapshot.as_ref()?.services;
        let at = services.binary_search_by(|s| s.name.cmp(name)).ok()?;
        services.get(at)
    }

    /// The selected instance, if it is shown.
    #[must_use]
    pub fn instance_view(&self) -> Option<&InstanceView> {
        self.row(self.cursor)
    }

    /// An instance by id.
    #[must_use]
    pub fn instance_named(&self, id: &Safe) -> Option<&InstanceView> {
        let instances = &self.snapshot.as_ref()?.instances;
        let at = instances.binary_search_by(|i| i.id.cmp(id)).ok()?;
        instances.get(at)
    }

    /// The instance in row `n` of the fleet pane; `None` for a heading.
    #[must_use]
    pub fn row(&self, n: usize) -> Option<&InstanceView> {
        match self.rows.get(n)? {
            Row::Instance(at) => self.snapshot.as_ref()?.instances.get(*at as usize),
            Row::Group(_) => None,
        }
    }

    /// What would be copied now: in lists that scroll, the last line in sight.
    #[must_use]
    pub fn selected(&self) -> Option<String> {
        if let Overlay::Details(d) = &self.overlay {
            return Some(d.instance.as_str().to_owned());
        }
        let nth_last = |count: usize, back: usize| count.checked_sub(back + 1);
        if let Some(logs) = &self.logs {
            return Some(logs.line(logs.cursor()?)?.text.as_str().to_owned());
        }
        match self.focus {
            Pane::Services => Some(self.service.as_ref()?.as_str().to_owned()),
            Pane::Rollout => Some(self.service_view()?.rollout.as_ref()?.id.as_str().to_owned()),
            Pane::Fleet => {
                let heading = || self.group(self.cursor).map(|g| g.key.name());
                Some(self.instance_view().map(|i| &i.id).or_else(heading)?.as_str().to_owned())
            }
            Pane::Health => {
                let shown = self.probes().0;
                let p = shown.get(nth_last(shown.len(), self.health_back)?)?;
                let word = if p.ok { "ok" } else { "FAIL" };
                let at = format::clock(p.at_ms);
                Some(format!("{at} {} {} {word} {} {}ms", p.host, p.instance, p.result, p.latency_ms))
            }
            Pane::Events => {
                let shown = self.events();
                let e = shown.get(nth_last(shown.len(), self.events_back)?)?;
                let service = e.service.as_ref().map(|s| format!(" {s}:")).unwrap_or_default();
                Some(format!("{}{service} {} ({})", format::clock(e.at_ms), e.text, e.by))
            }
        }
    }

    /// The list that a filter would be for now.
    #[must_use]
    pub fn list(&self) -> List {
        match self.focus {
            _ if self.logs.is_some() => List::Logs,
            Pane::Health => List::Health,
            Pane::Events => List::Events,
            Pane::Services | Pane::Rollout | Pane::Fleet => List::Fleet,
        }
    }

    /// Whether the picture is current.
    #[must_use]
    pub fn live(&self) -> bool {
        self.link == Link::Live
    }

    /// Time left on the gate of a service's rollout, counted on since its view came. Stands still while paused.
    #[must_use]
    pub fn gate_left(&self, service: &ServiceView) -> Option<u64> {
        let rollout = service.rollout.as_ref()?;
        let left = rollout.gate_left_ms?;
        if rollout.status != RolloutStatus::Running {
            return Some(left);
        }
        let came = self.service_ms.get(&service.name).copied().unwrap_or(self.now_ms);
        // While the controller is lost, nobody knows whether the clock runs.
        let until = if self.live() { self.now_ms } else { self.heard_ms };
        Some(left.saturating_sub(until.saturating_sub(came)))
    }

    /// Whether this cockpit has verbs at all, possible now or not.
    #[must_use]
    pub fn steers(&self) -> bool {
        !self.read_only && self.replay.is_none()
    }

    /// Whether `kind` can be done on the selected service now; if not, why not, in words.
    pub fn can(&self, kind: VerbKind) -> Result<&ServiceView, String> {
        if self.replay.is_some() {
            return Err("this is a replay: what happened cannot be changed".into());
        }
        if self.read_only {
            return Err("this cockpit is read-only".into());
        }
        match &self.link {
            Link::Live => {}
            Link::Connecting => return Err("not connected yet".into()),
            Link::Lost { .. } => {
                return Err(format!(
                    "{} is off: the controller is lost, and nothing can reach it from here. Trying again by itself.",
                    word(kind)
                ));
            }
        }
        let Some(snapshot) = &self.snapshot else { return Err("nothing is known yet".into()) };
        let theirs = snapshot.controller.api;
        if theirs != API_VERSION && kind != VerbKind::Abort {
            return Err(format!(
                "the controller speaks API {theirs}, this cockpit {API_VERSION}: only watching and abort are possible"
            ));
        }
        let Some(service) = self.service_view() else { return Err("no service is selected".into()) };
        if service.verbs.contains(&kind) {
            return Ok(service);
        }
        let name = &service.name;
        Err(match (kind, service.rollout.as_ref().filter(|r| !r.status.ended())) {
            (VerbKind::Promote | VerbKind::Abort | VerbKind::Pause | VerbKind::Resume, None) => {
                format!("nothing to {}: {name} has no rollout under way", word(kind))
            }
            (VerbKind::Deploy, Some(r)) => {
                format!("{} is {}: wait until it has ended", r.id, r.status.as_str())
            }
            (VerbKind::Retry, None) => {
                format!("nothing to retry: the last rollout of {name} was not aborted")
            }
            (VerbKind::Retry, Some(r)) if r.status != RolloutStatus::Aborting => {
                format!("nothing to retry: no host of {} is held back", r.id)
            }
            (VerbKind::Rollback, None) if service.previous.is_none() => {
                format!("{name} has no previous version to go back to")
            }
            (_, Some(r)) => format!("{} is not possible: {} is {}", word(kind), r.id, r.status.as_str()),
            (_, None) => format!("{} is not possible on {name} now", word(kind)),
        })
    }

    /// The others who watch.
    pub fn others(&self) -> impl Iterator<Item = &Safe> {
        // One entry is ours; a second one with our name is another terminal of ours, and counts.
        let mut own = true;
        let watchers = self.snapshot.as_ref().map(|s| s.watchers.as_slice()).unwrap_or_default();
        let you = self.snapshot.as_ref().map(|s| &s.you).filter(|y| !y.is_empty()).unwrap_or(&self.name);
        watchers.iter().filter(move |w| !(*w == you && std::mem::take(&mut own)))
    }

    /// Whether an instance's host was rolled back alone in its service's rollout.
    #[must_use]
    pub fn held(&self, i: &InstanceView) -> bool {
        let rollout = self.service_named(&i.service).and_then(|s| s.rollout.as_ref());
        rollout.is_some_and(|r| !r.status.ended() && r.held.contains(&i.host))
    }

    /// A host's trouble, if it has any: `out` or why it cannot be reached.
    #[must_use]
    pub fn host_trouble(&self, name: &Safe) -> Option<HostTrouble> {
        let hosts = &self.snapshot.as_ref()?.hosts;
        let host = hosts.get(hosts.binary_search_by(|h| h.name.cmp(name)).ok()?)?;
        match (host.out, host.reachable) {
            (true, _) => Some(HostTrouble::Out),
            (false, false) => Some(HostTrouble::Unreachable),
            (false, true) => None,
        }
    }
}

/// What is wrong with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTrouble {
    /// Declared as gone.
    Out,
    /// Cannot be reached.
    Unreachable,
}

/// The verb's name, as the keys and commands call it.
#[must_use]
pub fn word(kind: VerbKind) -> &'static str {
    match kind {
        VerbKind::Deploy => "deploy",
        VerbKind::Promote => "promote",
        VerbKind::Pause => "pause",
        VerbKind::Resume => "resume",
        VerbKind::Abort => "abort",
        VerbKind::Rollback => "roll back",
        VerbKind::Retry => "retry",
    }
}

/// The word for a health.
#[must_use]
pub fn health_word(health: HealthView) -> &'static str {
    match health {
        HealthView::Unknown => "unknown",
        HealthView::Healthy => "ok",
        HealthView::Unhealthy => "FAIL",
    }
}

/// What a plan request brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The plan.
    pub plan: PlanView,
    /// SHA-256 of the fleet file when it was asked for, so that what was shown is what is done.
    pub fleet_hash: Option<String>,
}

/// What a failed call says, with what to do about it, on one line.
#[must_use]
pub fn sentence(e: &ClientError) -> Safe {
    match e {
        ClientError::Refused(api) => match &api.hint {
            Some(hint) => format!("{}. {hint}", api.message).into(),
            None => api.message.clone(),
        },
        other => other.to_string().into(),
    }
}
