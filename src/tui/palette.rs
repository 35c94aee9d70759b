//! The palette: every verb, pane and option by name, out of the same table as the keys. Pure: what is offered for a
//! text, and what the text means. A verb runs only when it stands there in full, and then asks what its key would ask.

use super::dialog::single_hosts;
use super::keys::{Action, Binding, Context, Group, possible};
use super::model::{Input, Model};
use super::rows::Column;
use super::theme::Palette as Colours;
use crate::text::Safe;

/// What is typed, and which of the offers is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    /// The text after the colon.
    pub input: Input,
    /// The chosen offer; `None` is the first, which nobody has chosen yet.
    pub cursor: Option<usize>,
    /// Why Enter did nothing.
    pub complaint: Option<Safe>,
}

/// One line of the palette.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The whole text that it stands for: `promote full`, `deploy 1.5.0`.
    pub text: String,
    /// The line of the key table.
    pub binding: &'static Binding,
    /// What is behind the command's name.
    pub argument: String,
    /// What it does, or what is to know about the argument.
    pub note: String,
    /// Why it is not possible now.
    pub why_not: Option<String>,
}

impl Offer {
    /// Whether it changes what runs, and so must stand there in full.
    #[must_use]
    pub fn steers(&self) -> bool {
        self.binding.group == Group::Steer
    }
}

/// What a command takes behind its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// May be left out.
    Version,
    /// May be left out.
    Host,
    Service,
    /// May be left out.
    Text,
    /// May be left out: the one around the selection.
    Group,
    /// May be left out: the next one.
    Column,
    /// May be left out: the next one.
    Theme,
}

fn takes(action: Action) -> Takes {
    match action {
        Action::Deploy => Takes::Version,
        Action::Rollback => Takes::Host,
        Action::Service => Takes::Service,
        Action::Filter => Takes::Text,
        Action::Fold | Action::Unfold => Takes::Group,
        Action::Sort => Takes::Column,
        Action::Theme => Takes::Theme,
        _ => Takes::Nothing,
    }
}

/// What can be typed behind `action`'s name: shown with it.
#[must_use]
pub fn hint(action: Action) -> &'static str {
    match takes(action) {
        Takes::Nothing => "",
        Takes::Version => " [VERSION]",
        Takes::Host => " [HOST]",
        Takes::Service => " NAME",
        Takes::Text => " [TEXT]",
        Takes::Group => " [NAME]",
        Takes::Column => " [COLUMN]",
        Takes::Theme => " [NAME]",
    }
}

/// The lines of the table that have a name and belong to this kind of screen.
fn named(model: &Model) -> impl Iterator<Item = &'static Binding> + use<> {
    let (replay, read_only) = (model.replay.is_some(), model.read_only);
    let here = move |b: &&Binding| b.exists(read_only) && (replay || b.contexts != [Context::Replay]);
    model.keys.lines().iter().filter(|b| !b.names.is_empty()).filter(here)
}

/// How well `typed` names a command; less is better, `None` not at all.
fn rank(typed: &str, name: &str) -> Option<u8> {
    if typed == name {
        return Some(0);
    }
    if name.starts_with(typed) {
        return Some(1);
    }
    // One letter is in nearly every name.
    if typed.len() < 2 {
        return None;
    }
    if name.contains(typed) {
        return Some(2);
    }
    let mut left = name.chars();
    typed.chars().all(|c| c == ' ' || left.any(|n| n == c)).then_some(3)
}

/// What is offered for a text, best first; what is not possible now is there as well, with the reason.
#[must_use]
pub fn offers(model: &Model, text: &str) -> Vec<Offer> {
    let typed = text.trim_start();
    if let Some((binding, name, argument)) = with_argument(model, typed) {
        return arguments(model, binding, name, argument.trim());
    }
    let typed = typed.trim_end().to_lowercase();
    let mut found: Vec<(u8, Offer)> = named(model)
        .filter_map(|b| {
            let best =
                b.names.iter().filter_map(|n| rank(&typed, n).map(|r| (r, *n))).min_by_key(|(r, _)| *r);
            best.map(|(r, name)| (r, offer(model, b, name, "", b.help.to_owned())))
        })
        .collect();
    found.sort_by_key(|(rank, o)| (*rank, o.why_not.is_some()));
    // Of what is alike by chance only, nothing is offered beside what was meant.
    let good = found.iter().any(|(rank, _)| *rank < 3);
    found.into_iter().filter(|(rank, _)| !good || *rank < 3).map(|(_, offer)| offer).collect()
}

fn offer(model: &Model, binding: &'static Binding, name: &str, argument: &str, note: String) -> Offer {
    let text = if argument.is_empty() { name.to_owned() } else { format!("{name} {argument}") };
    let why_not = reason(model, binding);
    Offer { text, binding, argument: argument.to_owned(), note, why_not }
}

fn reason(model: &Model, binding: &Binding) -> Option<String> {
    if model.replay.is_some() && !binding.contexts.contains(&Context::Replay) {
        return Some("not in a replay".into());
    }
    possible(model, binding.action).err()
}

/// A command that takes something, and what stands behind its name and a space.
fn with_argument<'a>(model: &Model, typed: &'a str) -> Option<(&'static Binding, &'static str, &'a str)> {
    named(model).filter(|b| takes(b.action) != Takes::Nothing).find_map(|b| {
        b.names.iter().find_map(|name| {
            let rest = typed.strip_prefix(name)?;
            rest.starts_with(' ').then_some((b, *name, rest))
        })
    })
}

fn arguments(model: &Model, binding: &'static Binding, name: &str, typed: &str) -> Vec<Offer> {
    let make = |argument: &str, note: String| offer(model, binding, name, argument, note);
    let service = model.service_view();
    let known: Vec<(&str, String)> = match takes(binding.action) {
        Takes::Nothing => vec![],
        Takes::Text => return vec![make(typed, binding.help.to_owned())],
        Takes::Version => {
            let Some(s) = service else { return vec![make(typed, binding.help.to_owned())] };
            let serves = |v: &Safe| s.stable.as_ref().is_some_and(|r| r.version == *v);
            let note = |v| if serves(v) { "serves now" } else { "shows the plan, and asks" };
            s.known_versions.iter().map(|v| (v.as_str(), note(v).to_owned())).collect()
        }
        Takes::Host => {
            let hosts = service.map(|s| single_hosts(model, s)).unwrap_or_default();
            let note = |h: &Safe| format!("{h} alone; the other hosts go on (asks)");
            let all = hosts.iter().map(|h| make(h.as_str(), note(h)));
            return keep(typed, all.collect());
        }
        Takes::Group => {
            let names = model.group_names();
            let all = names.iter().map(|n| make(n.as_str(), String::new()));
            return keep(typed, all.collect());
        }
        Takes::Column => Column::ALL.iter().map(|c| (c.caption(), String::new())).collect(),
        Takes::Theme => Colours::ALL.iter().map(|p| (p.name(), p.about().to_owned())).collect(),
        Takes::Service => {
            let services = model.snapshot.as_ref().map(|s| s.services.as_slice()).unwrap_or_default();
            services.iter().map(|s| (s.name.as_str(), s.strategy.as_str().to_owned())).collect()
        }
    };
    let unknown = takes(binding.action) == Takes::Version && !typed.is_empty();
    let unknown = unknown && !known.iter().any(|(v, _)| *v == typed);
    let mut found = keep(typed, known.into_iter().map(|(argument, note)| make(argument, note)).collect());
    if unknown {
        // Last: what is known is meant more often than what begins like it.
        found.push(make(typed, "not seen on any host yet; it will be looked for".into()));
    }
    found
}

/// Of the offers, those whose argument is meant by `typed`, best first.
fn keep(typed: &str, all: Vec<Offer>) -> Vec<Offer> {
    let mut found: Vec<(u8, Offer)> =
        all.into_iter().filter_map(|o| rank(typed, &o.argument).filter(|r| *r < 3).map(|r| (r, o))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, offer)| offer).collect()
}

impl Palette {
    /// The offer that Enter and Tab take.
    #[must_use]
    pub fn choice(&self, model: &Model) -> Option<Offer> {
        let mut all = offers(model, &self.input.text);
        let at = self.cursor.unwrap_or(0).min(all.len().checked_sub(1)?);
        Some(all.swap_remove(at))
    }

    /// Whether what is typed is `offer` in full.
    #[must_use]
    pub fn in_full(&self, offer: &Offer) -> bool {
        let typed = self.input.text.split_whitespace().collect::<Vec<_>>().join(" ");
        typed == offer.text
    }

    /// Takes an offer's text over, ready for what can follow.
    pub fn complete(&mut self, offer: &Offer) {
        self.input.text.clone_from(&offer.text);
        if offer.argument.is_empty() && takes(offer.binding.action) != Takes::Nothing {
            self.input.text.push(' ');
        }
        self.cursor = None;
        self.complaint = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Snapshot;
    use crate::tui::fixture;
    use crate::tui::keys::TABLE;

    fn model(snapshot: Snapshot) -> Model {
        let mut m = Model { snapshot: Some(Box::new(snapshot)), ..Model::default() };
        m.link = crate::tui::model::Link::Live;
        (m.rows_stale, m.counts_stale) = (true, true);
        m.settle();
        m
    }

    fn texts(m: &Model, typed: &str) -> Vec<String> {
        offers(m, typed).into_iter().map(|o| o.text).collect()
    }

    #[test]
    fn every_verb_that_has_a_key_has_a_name_and_nothing_has_two() {
        for b in TABLE.iter().filter(|b| b.group == Group::Steer) {
            assert!(TABLE.iter().any(|o| o.action == b.action && !o.names.is_empty()), "{b:?}");
        }
        let mut all: Vec<&str> = TABLE.iter().flat_map(|b| b.names).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "{all:?}");
    }

    #[test]
    fn prefix_comes_before_part_and_part_before_letters_in_order() {
        let m = model(fixture::canary());
        assert_eq!(texts(&m, "pro"), ["promote", "promote full", "probes"]);
        assert_eq!(texts(&m, "promote f"), ["promote full"]);
        assert_eq!(texts(&m, "full"), ["promote full"]);
        assert_eq!(texts(&m, "rbk"), ["rollback"]);
        assert_eq!(texts(&m, "q"), ["q"]);
        assert_eq!(texts(&m, "nonsense"), [] as [&str; 0]);
        assert!(texts(&m, "").len() > 20);
    }

    #[test]
    fn what_is_not_possible_is_offered_with_its_reason() {
        let m = model(fixture::canary());
        let all = offers(&m, "resume");
        assert!(all[0].why_not.as_ref().is_some_and(|w| w.contains("running")), "{all:?}");
        assert!(offers(&m, "abort")[0].why_not.is_none());
    }

    #[test]
    fn arguments_are_completed_from_what_is_known() {
        let m = model(fixture::canary());
        assert_eq!(texts(&m, "deploy "), ["deploy 1.5.0", "deploy 1.4.2", "deploy 1.4.1"]);
        assert_eq!(texts(&m, "deploy 1.4.1"), ["deploy 1.4.1"]);
        assert_eq!(texts(&m, "deploy 9"), ["deploy 9"]);
        assert_eq!(texts(&m, "deploy 1.5"), ["deploy 1.5.0", "deploy 1.5"]);
        assert_eq!(texts(&m, "service w"), ["service web", "service worker"]);
        assert_eq!(texts(&m, "rollback node-2"), ["rollback node-2"]);
        assert_eq!(texts(&m, "filter !ok"), ["filter !ok"]);
    }
}
