//! `[services.NAME.strategy]`. A strategy is one file in this folder and one line in [`KINDS`].

mod ab;
mod batch;
mod blue_green;
mod canary;
mod gates;
mod in_place;
mod rolling;
mod rule;
mod share;

use super::ctx::Ctx;
use super::keys::Keys;
use super::model::Strategy;
use super::problem::Span;
use super::read::{Section, list};
use super::suggest::nearest;

pub(super) use rule::RULE;

/// A strategy that this version knows.
pub(super) struct Kind {
    /// What is written as `type`.
    pub(super) name: &'static str,
    /// What it is called elsewhere, in small letters and digits only: for those who come from there.
    also: &'static [&'static str],
    /// The tables it reads; the first is `[services.NAME.strategy]` itself.
    pub(super) tables: &'static [Keys],
    /// Reads it. `None` when something was wrong (and reported).
    read: fn(&mut Ctx<'_>, &Section<'_>, &Around<'_>) -> Option<Strategy>,
}

/// Every strategy, the default first.
pub(super) const KINDS: &[Kind] = &[canary::KIND, in_place::KIND, rolling::KIND, blue_green::KIND, ab::KIND];

/// What a strategy has to fit: the service around it.
pub(super) struct Around<'s> {
    /// The service's table, as in `[services.web]`.
    pub(super) service: &'s str,
    /// Instances at 100 %; `None` when that could not be read, and nothing is compared with it.
    pub(super) replicas: Option<u32>,
    /// Whether the service names proxies, good ones or not.
    pub(super) proxied: bool,
}

impl Around<'_> {
    /// Reports that `what`, which stands at `span`, chooses between requests where no request passes. `or` is the other
    /// way out.
    fn needs_proxy(&self, ctx: &mut Ctx<'_>, span: &Span, what: &str, or: &str) {
        if self.proxied {
            return;
        }
        let message =
            format!("{what} needs a proxy, and {} has none: no request passes Pilothouse", self.service);
        ctx.mismatch(span, &message, &format!("add proxies = [\"NAME\"] to {}, or {or}", self.service));
    }
}

/// The strategy of a service that names none.
pub(super) fn default() -> Strategy {
    Strategy::Canary { steps: canary::default_steps(), sticky: false, tester: None }
}

/// Reads `[services.NAME.strategy]`.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, around: &Around<'_>) -> Option<Strategy> {
    let names = || list(KINDS.iter().map(|k| k.name));
    section.missing(ctx, "type", &format!("type = \"canary\"; this version knows {}", names()));
    let kind = section.text(ctx, "type")?;
    let Some(known) = KINDS.iter().find(|k| k.name == kind.value) else {
        let fix = match meant(kind.value) {
            Some(near) => format!("write type = \"{near}\""),
            None => format!("this version knows {}", names()),
        };
        ctx.error(&kind.span, &format!("unknown strategy '{}'{}", kind.value, section.place()), &fix);
        return None;
    };
    if let Some(keys) = known.tables.first() {
        section.check_keys(ctx, keys);
    }
    (known.read)(ctx, section, around)
}

/// The strategy that somebody meant who wrote `BlueGreen`, `a/b` or what another tool calls it.
fn meant(written: &str) -> Option<&'static str> {
    let bare = |s: &str| {
        s.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    let word = bare(written);
    KINDS
        .iter()
        .find(|k| bare(k.name) == word || k.also.contains(&word.as_str()))
        .map(|k| k.name)
        .or_else(|| nearest(written, KINDS.iter().map(|k| k.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_tools_and_other_spellings_call_a_strategy_is_understood() {
        for (written, name) in [
            ("bluegreen", "blue-green"),
            ("blue_green", "blue-green"),
            ("Blue/Green", "blue-green"),
            ("red-black", "blue-green"),
            ("a/b", "ab"),
            ("A/B", "ab"),
            ("ab-test", "ab"),
            ("inplace", "in-place"),
            ("in_place", "in-place"),
            ("Recreate", "in-place"),
            ("RollingUpdate", "rolling"),
            ("roling", "rolling"),
            ("cannary", "canary"),
        ] {
            assert_eq!(meant(written), Some(name), "{written}");
        }
        for written in ["", "-", "shadow", "fast"] {
            assert_eq!(meant(written), None, "{written}");
        }
        for kind in KINDS {
            for word in kind.also {
                assert!(
                    word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
                    "{word} is compared without anything else"
                );
            }
        }
    }

    #[test]
    fn a_strategy_is_named_once() {
        for (n, kind) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().take(n).all(|k| k.name != kind.name && !k.also.contains(&kind.name)));
        }
    }
}
