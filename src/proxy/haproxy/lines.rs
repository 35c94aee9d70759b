//! The lines an operator adds to a frontend, per service, and which of them a worker really has.
//!
//! One line is enough for shares. Rules need one more above it, sticky places two. They are separate because
//! HAProxy takes the first `use_backend` whose condition holds, and because a service without them should not have
//! to carry them. What they do comes and goes at run time with the maps they name; an empty map makes a line inert.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::config::{self, DICE, Place};
use crate::fleet::names::{FleetName, ServiceName};
use crate::proxy::{Extras, place_cookie};

/// The key of a service's switch for sticky places: there while they are on.
pub(super) const ON: &str = "on";

/// Holds the place that a new visitor was given, until the answer tells them.
pub(super) const PLACE: &str = "txn.ph_place";

/// The line per service that every frontend needs.
#[must_use]
pub fn frontend_line(dir: &Path, fleet: &FleetName, service: &ServiceName) -> String {
    let neutral = config::backend(fleet, service, Place::Neutral);
    let map = config::map_path(dir, fleet, service);
    format!("use_backend %[rand({DICE}),map_int({},{neutral})]", map.display())
}

/// All lines that a service with these extras needs, in their order; the last is [`frontend_line`].
#[must_use]
pub fn frontend_lines(dir: &Path, fleet: &FleetName, service: &ServiceName, extras: Extras) -> Vec<String> {
    let mut lines = Vec::new();
    if extras.rules {
        let rules = format!("req.hdrs,map_reg({})", config::rules_path(dir, fleet, service).display());
        lines.push(format!("use_backend %[{rules}] if {{ {rules} -m found }}"));
    }
    if extras.sticky {
        let cookie = place_cookie(fleet, service);
        let neutral = config::backend(fleet, service, Place::Neutral);
        let map = format!("map_int({},{neutral})", config::map_path(dir, fleet, service).display());
        let sticky = config::sticky_path(dir, fleet, service);
        let on = format!("{{ str({ON}),map({}) -m found }}", sticky.display());
        // Two cookies of the name are none: a condition looks at each of them, a sample at the last.
        lines.push(format!(
            "use_backend %[req.cook({cookie}),{map}] if {on} {{ req.cook_cnt({cookie}) 1 }} \
             {{ req.cook({cookie}) -m reg ^[0-9]{{1,4}}$ }}"
        ));
        lines.push(format!("use_backend %[rand({DICE}),set-var({PLACE}),{map}] if {on}"));
    }
    lines.push(frontend_line(dir, fleet, service));
    lines
}

/// Which of the lines a worker's frontends have, where they are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// The one for shares.
    pub(super) plain: bool,
    /// The others.
    pub(super) extras: Extras,
}

/// Reads the lines off the places that look things up: one below the plain line is never reached, as that has no
/// condition. Without places to compare (another HAProxy may describe its maps in other words) a map that is loaded
/// is taken to be used well.
pub(super) fn seen(
    uses: &BTreeMap<String, BTreeSet<(String, u32)>>,
    dir: &Path,
    fleet: &FleetName,
    service: &ServiceName,
) -> Lines {
    let none = BTreeSet::new();
    let of = |path: PathBuf| uses.get(path.display().to_string().as_str());
    let map = of(config::map_path(dir, fleet, service));
    let sticky = of(config::sticky_path(dir, fleet, service));
    let plain: Vec<_> = map.unwrap_or(&none).difference(sticky.unwrap_or(&none)).collect();
    // As many lines as needed above the first plain one, in every file that has one.
    let has = |lines: Option<&BTreeSet<(String, u32)>>, needed: usize| {
        lines.is_some_and(|lines| {
            lines.is_empty()
                || plain.iter().all(|(file, _)| {
                    let first = plain.iter().filter(|(f, _)| f == file).map(|(_, line)| line).min();
                    let above = |(f, line): &&(String, u32)| f == file && Some(line) < first;
                    lines.iter().filter(above).count() >= needed
                })
        })
    };
    Lines {
        plain: map.is_some_and(|m| m.is_empty() || !plain.is_empty()),
        extras: Extras { rules: has(of(config::rules_path(dir, fleet, service)), 1), sticky: has(sticky, 2) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_that_were_tried() {
        let (fleet, service) = ("shop".parse().unwrap(), "web".parse().unwrap());
        let lines = frontend_lines(Path::new("/d"), &fleet, &service, Extras::ALL);
        let tried = [
            "use_backend %[req.hdrs,map_reg(/d/shop_web.rules)] if { req.hdrs,map_reg(/d/shop_web.rules) -m found }",
            "use_backend %[req.cook(ph_shop_web),map_int(/d/shop_web.map,ph_shop_web)] if \
             { str(on),map(/d/shop_web.sticky) -m found } { req.cook_cnt(ph_shop_web) 1 } \
             { req.cook(ph_shop_web) -m reg ^[0-9]{1,4}$ }",
            "use_backend %[rand(10000),set-var(txn.ph_place),map_int(/d/shop_web.map,ph_shop_web)] if \
             { str(on),map(/d/shop_web.sticky) -m found }",
            "use_backend %[rand(10000),map_int(/d/shop_web.map,ph_shop_web)]",
        ];
        assert_eq!(lines, tried);
        assert_eq!(
            frontend_lines(Path::new("/d"), &fleet, &service, Extras::default()),
            [frontend_line(Path::new("/d"), &fleet, &service)]
        );
    }

    fn lines(rules: &[u32], sticky: &[u32], map: &[u32]) -> Lines {
        let of = |lines: &[u32]| lines.iter().map(|l| ("op.cfg".to_owned(), *l)).collect();
        let uses = [("rules", rules), ("sticky", sticky), ("map", map)]
            .into_iter()
            .filter(|(_, lines)| !lines.is_empty())
            .map(|(name, lines)| (format!("/d/f_w.{name}"), of(lines)))
            .collect();
        seen(&uses, Path::new("/d"), &"f".parse().unwrap(), &"w".parse().unwrap())
    }

    #[test]
    fn a_line_counts_above_the_plain_one() {
        let of = |plain, rules, sticky| Lines { plain, extras: Extras { rules, sticky } };
        assert_eq!(lines(&[1], &[2, 3], &[2, 3, 4]), of(true, true, true));
        assert_eq!(lines(&[], &[], &[4]), of(true, false, false));
        assert_eq!(lines(&[5], &[2, 6], &[2, 4, 6]), of(true, false, false), "below the plain line");
        assert_eq!(lines(&[1], &[3], &[3, 4]), of(true, true, false), "one of the two is missing");
        assert_eq!(lines(&[1], &[2, 3], &[2, 3]), of(false, true, true), "shares only while sticky");
        assert_eq!(lines(&[], &[], &[]), Lines::default());
    }

    #[test]
    fn words_that_are_not_understood_are_no_reason_to_refuse() {
        let uses = ["rules", "map"].map(|name| (format!("/d/f_w.{name}"), BTreeSet::new())).into();
        let lines = seen(&uses, Path::new("/d"), &"f".parse().unwrap(), &"w".parse().unwrap());
        assert_eq!(lines, Lines { plain: true, extras: Extras { rules: true, sticky: false } });
    }
}
