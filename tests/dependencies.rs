//! The licences, sources and versions of everything that is linked, against the lists in deny.toml. It needs no other
//! program than cargo, so it holds wherever the tests run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

struct Package {
    name: String,
    version: String,
    license: String,
    source: Option<String>,
}

/// The packages of Cargo.lock that are built on `target`.
fn packages(target: &str) -> Vec<Package> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let built: BTreeSet<&str> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap()).collect();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| built.contains(p["id"].as_str().unwrap()))
        .map(|p| Package {
            name: text(&p["name"]),
            version: text(&p["version"]),
            license: text(&p["license"]),
            source: p["source"].as_str().map(str::to_owned),
        })
        .collect()
}

fn deny() -> toml::Table {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap().parse().unwrap()
}

fn strings(v: &toml::Value) -> Vec<String> {
    v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

/// Whether an SPDX expression can be satisfied with the licences in `allow`. `WITH` an exception only allows more, and
/// is listed as its own choice by those who use it, so a term with one is not taken.
fn satisfied(expression: &str, allow: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let ok = any(&mut words, allow);
    assert!(words.next().is_none(), "cannot read the licence {expression:?}");
    ok
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allow: &[String]) -> bool {
    let mut ok = all(words, allow);
    while words.next_if_eq(&"OR").is_some() {
        ok |= all(words, allow);
    }
    ok
}

fn all(words: &mut Words<'_>, allow: &[String]) -> bool {
    let mut ok = one(words, allow);
    while words.next_if_eq(&"AND").is_some() {
        ok &= one(words, allow);
    }
    ok
}

fn one(words: &mut Words<'_>, allow: &[String]) -> bool {
    let word = words.next().expect("a licence ends in the middle");
    if word == "(" {
        let ok = any(words, allow);
        assert_eq!(words.next(), Some(")"));
        return ok;
    }
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
        return false;
    }
    allow.iter().any(|a| a == word)
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let allow = ["MIT".to_owned(), "Zlib".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Zlib", "X OR MIT AND Zlib"]
    {
        assert!(satisfied(good, &allow), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH X-exception", "", "(X OR Y) AND MIT"] {
        assert!(bad.is_empty() || !satisfied(bad, &allow), "{bad}");
    }
}

#[test]
fn licences_sources_and_versions_are_allowed() {
    let deny = deny();
    let allow = strings(&deny["licenses"]["allow"]);
    let registries: Vec<String> =
        strings(&deny["sources"]["allow-registry"]).iter().map(|r| format!("registry+{r}")).collect();
    let crates = |key: &str| -> Vec<String> {
        let list = deny["bans"][key].as_array().unwrap();
        list.iter().map(|s| s["crate"].as_str().unwrap().to_owned()).collect()
    };
    let (skip, banned) = (crates("skip"), crates("deny"));
    let (mut problems, mut unused) = (Vec::new(), skip.clone());
    for target in strings(&deny["graph"]["targets"]) {
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for p in packages(&target) {
            let id = format!("{} {}", p.name, p.version);
            if !satisfied(&p.license, &allow) {
                problems.push(format!("{id}: licence {:?} is not in deny.toml", p.license));
            }
            if p.source.as_ref().is_some_and(|s| !registries.contains(s)) {
                problems.push(format!("{id}: comes from {:?}", p.source));
            }
            if banned.contains(&p.name) {
                problems.push(format!("{id}: is banned in deny.toml"));
            }
            let skipped = skip.iter().find(|s| {
                s.split_once('@').is_some_and(|(name, version)| {
                    name == p.name && (p.version == version || p.version.starts_with(&format!("{version}.")))
                })
            });
            match skipped {
                Some(s) => unused.retain(|u| u != s),
                None => versions.entry(p.name).or_default().push(p.version),
            }
        }
        let twice = versions.iter().filter(|(_, v)| v.len() > 1);
        problems.extend(twice.map(|(name, v)| format!("{name}: two versions are built: {}", v.join(", "))));
    }
    problems.extend(unused.iter().map(|s| format!("{s}: deny.toml skips what is no longer there")));
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "dependencies break the rules of deny.toml:\n  {}", problems.join("\n  "));
}
