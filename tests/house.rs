//! The rules of the house: what may use what, how the core stays pure, and what no file may contain. Intention alone
//! does not hold for years; these tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What each folder (or file) of `src` may use of the crate, beside itself. DESIGN: dependencies point inward.
const MAY_USE: &[(&str, &[&str], &str)] = &[
    ("text", &[], "text stands alone"),
    ("analysis", &[], "arithmetic and nothing else"),
    ("fleet", &["analysis", "text"], "fleet is what is declared; it knows nothing of what runs"),
    (
        "rollout",
        &["analysis", "fleet", "text"],
        "the core knows only the fleet's model and what a verdict is",
    ),
    ("traffic", &["fleet", "rollout::world", "text"], "drivers speak the vocabulary of the world"),
    ("probe", &["fleet", "rollout::world", "traffic", "text"], "drivers speak the vocabulary of the world"),
    ("program", &[], "whatever is run stands alone"),
    ("https", &[], "whoever is asked or told, it is the same client"),
    (
        "checks",
        &["fleet", "https", "program", "rollout::world", "text"],
        "drivers speak the vocabulary of the world",
    ),
    (
        "engine",
        &["fleet", "program", "rollout::world", "traffic", "text"],
        "drivers speak the vocabulary of the world",
    ),
    (
        "proxy",
        &["engine", "fleet", "rollout::world", "traffic", "text"],
        "drivers speak the vocabulary of the world, and reach a proxy's container through its engine",
    ),
    (
        "api",
        &["rollout::decide::ErrorCode", "rollout::decide::VerbKind", "text"],
        "the screen never sees the core's types; two names of the core are handed on",
    ),
    ("client", &["api", "text"], "the client knows the API only"),
    ("tui", &["client", "api", "fleet::names", "text"], "the screen is a client of the API and nothing else"),
    (
        "controller",
        &[
            "analysis", "api", "checks", "client", "engine", "fleet", "https", "probe", "program", "proxy",
            "rollout", "text", "traffic",
        ],
        "the controller knows no front end",
    ),
    (
        "demo",
        &["api", "client", "controller", "engine", "fleet", "proxy", "rollout", "text", "traffic"],
        "the demo uses the product, it is no part of the screen",
    ),
];

/// What the core must not contain: no I/O, no clock, no async. Time and the world come in as arguments.
const NOT_IN_THE_CORE: &[&str] = &[
    "Instant",
    "SystemTime",
    "async fn",
    "tokio::",
    "std::fs",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "TcpStream",
    "UdpSocket",
    "getrandom",
];

/// Longest file in `src`, in lines.
const LONGEST: usize = 700;
/// Files that are longer, and why. An entry that is no longer needed fails too.
const LONGER: &[(&str, usize, &str)] = &[];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Every file below `dir` with one of the extensions (all when there are none), sorted.
fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return out };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path, extensions));
        } else if extensions.is_empty()
            || path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x))
        {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

/// The code of a line: without its comment. Strings with `//` in them lose their end, which no rule here minds.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The text with comments blanked, line by line, so that line numbers stay.
fn uncommented(text: &str) -> String {
    text.lines().map(|l| format!("{}\n", code(l))).collect()
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts
        .into_iter()
        .filter(|p| !p.trim().is_empty())
        .flat_map(|p| expand(&format!("{head}{}", p.trim())))
        .collect()
}

/// Everything of this crate that a file names, as (line, path below the crate).
fn uses(file: &Path, text: &str, top: &BTreeSet<String>) -> Vec<(usize, String)> {
    let text = uncommented(text);
    let line_of = |at: usize| text[..at].matches('\n').count() + 1;
    // `super::` once more than the module is deep leads to the crate's root as well.
    let mut depth = short(file).split('/').count() - 1;
    if file.file_name().is_some_and(|n| n == "mod.rs" || n == "lib.rs") {
        depth -= 1;
    }
    let up = "super::".repeat(depth.max(1));
    let mut out = Vec::new();
    for start in ["crate::", "pilothouse::", up.as_str()] {
        for (at, _) in text.match_indices(start) {
            let before = &text[..at];
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let rest = &text[at + start.len()..];
            let statement = before.rsplit([';', '}', '{']).next().unwrap_or_default().trim_start();
            let is_use =
                ["use ", "pub use "].iter().any(|u| statement.starts_with(u)) || statement.ends_with("use ");
            let end = if is_use {
                rest.find(';').unwrap_or(rest.len())
            } else {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len())
            };
            for path in expand(&rest[..end]) {
                let path = path.trim_end_matches("::*").trim_end_matches("::self").to_owned();
                let first = path.split("::").next().unwrap_or_default();
                if top.contains(first) {
                    out.push((line_of(at), path));
                }
            }
        }
    }
    out
}

/// Whether `path` is `allowed` or in it.
fn within(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn top_modules() -> BTreeSet<String> {
    std::fs::read_dir(root().join("src"))
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|n| n != "lib" && n != "main")
        .collect()
}

/// The edges of one file that the table forbids, in words.
fn forbidden(file: &Path, text: &str, top: &BTreeSet<String>) -> Vec<String> {
    let name = short(file);
    let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default().to_owned();
    let Some((_, may, why)) = MAY_USE.iter().find(|(m, ..)| *m == module) else { return Vec::new() };
    uses(file, text, top)
        .into_iter()
        .filter(|(_, path)| !within(path, &module) && !may.iter().any(|m| within(path, m)))
        .map(|(line, path)| {
            format!("{name}:{line}: {module} uses crate::{path}, but may use only {}: {why}", may.join(", "))
        })
        .collect()
}

fn report(problems: &[String]) {
    let mut all = String::new();
    problems.iter().for_each(|p| {
        let _ = writeln!(all, "  {p}");
    });
    assert!(problems.is_empty(), "the house's rules are broken:\n{all}");
}

#[test]
fn dependencies_point_inward() {
    let top = top_modules();
    let problems: Vec<String> = files(&root().join("src"), &["rs"])
        .iter()
        .flat_map(|f| forbidden(f, &std::fs::read_to_string(f).unwrap(), &top))
        .collect();
    report(&problems);
}

#[test]
fn the_table_names_every_folder_but_the_command_line() {
    let named: BTreeSet<String> =
        MAY_USE.iter().map(|(m, ..)| (*m).to_owned()).chain(["cli".to_owned()]).collect();
    assert_eq!(named, top_modules(), "a new folder needs a line in MAY_USE, a gone one none");
}

/// The test above is only worth something if it sees what it should.
#[test]
fn forbidden_edges_are_seen_however_they_are_written() {
    let top = top_modules();
    let at = |name: &str| root().join(name);
    let rollout = at("src/rollout/decide/verb.rs");
    for bad in [
        "use crate::api::VerbKind;",
        "use crate::{\n    fleet::names::Bp,\n    controller::clock,\n};",
        "pub(crate) use crate::api;",
        "fn f() -> crate::client::Client { todo() }",
        "use super::super::super::controller::clock::Clock;",
    ] {
        assert_eq!(forbidden(&rollout, bad, &top).len(), 1, "{bad}");
    }
    let good = "use crate::fleet::names::{Bp, Millis};\nuse crate::text::Safe;\n/// [`crate::api::Verb`]\nuse super::life;";
    assert!(forbidden(&rollout, good, &top).is_empty());
    let said = forbidden(&at("src/tui/app.rs"), "\n\nuse crate::rollout::{fact::Fact, state::State};", &top);
    assert_eq!(said.len(), 2);
    assert!(said[0].starts_with("src/tui/app.rs:3: tui uses crate::rollout::fact::Fact"), "{said:?}");
    let api = at("src/api/mod.rs");
    assert!(forbidden(&api, "pub use crate::rollout::decide::{ErrorCode, VerbKind};", &top).is_empty());
    assert_eq!(forbidden(&api, "use crate::rollout::decide::Intent;", &top).len(), 1);
}

#[test]
fn the_core_has_no_clock_no_input_and_no_output() {
    let mut problems = Vec::new();
    let core = ["src/rollout", "src/analysis"].map(|dir| files(&root().join(dir), &["rs"]));
    for file in core.into_iter().flatten() {
        let text = std::fs::read_to_string(&file).unwrap();
        for (n, line) in text.lines().enumerate() {
            // The simulation that tests the core is told its seed by the environment.
            let exempt = |word: &str| word == "std::env" && short(&file).contains("/simulation");
            let words = NOT_IN_THE_CORE.iter().filter(|w| !exempt(w) && contains_word(code(line), w));
            for word in words {
                problems.push(format!(
                    "{}:{}: {word} in the pure core: {}",
                    short(&file),
                    n + 1,
                    line.trim()
                ));
            }
        }
    }
    report(&problems);
}

/// Whether `word` stands in `line` as a word of its own (`InstanceId` has no `Instant` in it).
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(before) && (word.ends_with(':') || !letter(after))
    })
}

/// Everything that is in the repository: sources, tests, benches, scripts, documents, configuration.
fn everything() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for dir in ["src", "tests", "benches", "assets", "docs", "scripts", ".ci", ".config"] {
        out.extend(files(&root().join(dir), &[]));
    }
    let top = std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().path());
    out.extend(
        top.filter(|p| p.is_file() && p.file_name().is_some_and(|n| n != "Cargo.lock" && n != ".git")),
    );
    out
}

#[test]
fn nothing_is_left_undone_and_nothing_names_a_machine() {
    // Written in two halves, so that this file does not contain them.
    let anywhere = [concat!("/wo", "rk/"), concat!("/Us", "ers/"), concat!("FIX", "ME"), concat!("TO", "DO")];
    let in_code =
        [concat!("unimplem", "ented!"), concat!("to", "do!("), concat!("#[ig", "nore"), concat!("dbg", "!(")];
    let mut problems = Vec::new();
    for file in everything() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let rust = file.extension().is_some_and(|e| e == "rs");
        for (n, line) in text.lines().enumerate() {
            let words = anywhere.iter().chain(in_code.iter().filter(|_| rust));
            for word in words.filter(|w| line.contains(**w)) {
                problems.push(format!("{}:{}: {word}: {}", short(&file), n + 1, line.trim()));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_file_says_why_it_exists_and_can_be_held_in_the_head() {
    let mut problems = Vec::new();
    for file in files(&root().join("src"), &["rs"]) {
        let (text, name) = (std::fs::read_to_string(&file).unwrap(), short(&file));
        // A file of tests says it with its name.
        if !text.starts_with("//!") && !name.ends_with("/tests.rs") {
            problems.push(format!("{name}:1: no //! line that says why the file exists"));
        }
        let lines = text.lines().count();
        match LONGER.iter().find(|(n, ..)| *n == name) {
            Some((_, most, why)) if lines > *most => {
                problems.push(format!("{name}: {lines} lines; it may have {most} ({why})"));
            }
            Some(_) if lines <= LONGEST => {
                problems.push(format!("{name}: {lines} lines; it no longer needs its entry in LONGER"));
            }
            None if lines > LONGEST => {
                problems.push(format!(
                    "{name}: {lines} lines, more than {LONGEST}: split it by what it is responsible for"
                ));
            }
            _ => {}
        }
    }
    report(&problems);
}

/// What tests print when a part is missing has to reach whoever runs them.
#[test]
fn scripts_are_executable_and_read_by_bash() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in ["scripts/test", "scripts/results", ".ci/run"] {
        let path = root().join(script);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
        let out = std::process::Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
