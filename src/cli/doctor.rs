//! `doctor`: what is missing for releases to work, and what to do about it, down to the exact line. It looks, at the real
//! engines and proxies, and changes nothing; no controller is needed or started.

mod outside;

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde::Serialize;

use super::Exit;
use super::fleet::load;
use super::out::{Output, say, say_json};
use crate::client::{Client, ClientError};
use crate::controller::clock::utc;
use crate::controller::lock::Place;
use crate::controller::secrets::Identity;
use crate::engine;
use crate::fleet::model::{Engine, Fleet, Host, Run, Service};
use crate::fleet::{Loaded, env_file};
use crate::proxy;
use crate::text::Safe;

/// Version of the JSON, documented in docs/json.md.
const SCHEMA: u32 = 1;
/// Less room than this on the state directory's disk is said.
const ROOM_MB: u64 = 64;

/// `doctor`
#[derive(clap::Args)]
pub(super) struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, and could be safer or tell more.
    Warn,
    /// Releases do not work with it.
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// `proxy lb`
    about: Safe,
    level: Level,
    what: Safe,
    /// What to do; `None` where there is nothing to do, or `what` says it.
    #[serde(rename = "do")]
    cure: Option<Safe>,
}

/// Collects what is found of one thing.
struct About<'a> {
    name: Safe,
    into: &'a mut Vec<Finding>,
}

impl About<'_> {
    fn add(&mut self, level: Level, what: &str, cure: &str) {
        let (about, what) = (self.name.clone(), Safe::new(what));
        let cure = Some(Safe::new(cure)).filter(|c| !c.is_empty());
        self.into.push(Finding { about, level, what, cure });
    }

    fn ok(&mut self, what: &str) {
        self.add(Level::Ok, what, "");
    }

    fn warn(&mut self, what: &str, cure: &str) {
        self.add(Level::Warn, what, cure);
    }

    fn fail(&mut self, what: &str, cure: &str) {
        self.add(Level::Fail, what, cure);
    }
}

fn about<'a>(into: &'a mut Vec<Finding>, name: &str) -> About<'a> {
    About { name: Safe::new(name), into }
}

pub(super) async fn run(file: Option<&Path>, a: &Args) -> color_eyre::Result<Exit> {
    let loaded = match load(file) {
        Ok(l) => l,
        Err(exit) => return Ok(exit),
    };
    let mut found = Vec::new();
    let fleet = &loaded.fleet;
    fleet_file(&loaded, &mut found);
    let place = Place::of(fleet);
    state(&place, &mut found);
    controller(fleet, &place, &mut found).await;
    let program = std::env::current_exe()?;
    // One that there is; to make one is the first controller's.
    let identity = place.dir.join("identity").exists().then(|| Identity::load(&place.dir).ok()).flatten();
    let owner = identity.map(|i| i.owner).unwrap_or_default();
    for host in fleet.hosts.values() {
        examine_host(fleet, host, &place, &program, &mut found).await;
    }
    for service in fleet.services.values() {
        examine_service(service, &mut found);
    }
    for declared in fleet.proxies.values() {
        let behind: Vec<&Service> =
            fleet.services.values().filter(|s| s.proxies.contains(&declared.name)).collect();
        let mut of = about(&mut found, &format!("proxy {}", declared.name));
        let driver = proxy::open(declared, &fleet.name, &owner, &place.dir, &program);
        let advice = driver.examine(&behind).await;
        if !advice.iter().any(|a| a.fails) {
            of.ok(&format!("{}: answers", proxy::describe(&fleet.name, declared)));
        }
        for a in advice {
            of.add(if a.fails { Level::Fail } else { Level::Warn }, a.what.as_str(), a.cure.as_str());
        }
    }
    outside::examine(fleet, &mut found).await;
    print(&found, a.output)?;
    let failed = found.iter().any(|f| f.level == Level::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn print(found: &[Finding], output: Output) -> color_eyre::Result<()> {
    match output {
        Output::Json => {
            let ok = found.iter().all(|f| f.level != Level::Fail);
            say_json(&serde_json::json!({ "schema": SCHEMA, "ok": ok, "findings": found }))
        }
        Output::Text => say(&text(found)),
    }
}

fn text(found: &[Finding]) -> String {
    let mut out = String::new();
    let mut last = None;
    for f in found {
        if last != Some(&f.about) {
            let _ = writeln!(out, "{}{}", if last.is_some() { "\n" } else { "" }, f.about);
        }
        last = Some(&f.about);
        let _ = writeln!(out, "  {:<5} {}", f.level.word(), f.what);
        if let Some(cure) = &f.cure {
            let _ = writeln!(out, "        do: {cure}");
        }
    }
    let count = |level| found.iter().filter(|f| f.level == level).count();
    let (fails, warns) = (count(Level::Fail), count(Level::Warn));
    let said = match (fails, warns) {
        (0, 0) => "nothing is missing".to_owned(),
        (0, n) => format!("releases work; {n} could be better"),
        (n, 0) => format!("{n} must be put right before releases work"),
        (n, m) => format!("{n} must be put right before releases work, {m} could be better"),
    };
    let _ = writeln!(out, "\n{said}");
    out
}

fn fleet_file(loaded: &Loaded, found: &mut Vec<Finding>) {
    let mut of = about(found, &format!("fleet {}", loaded.fleet.name));
    of.ok(&format!("{} is fine", loaded.file.display()));
    for warning in &loaded.warnings {
        of.warn(&format!("line {}: {}", warning.line, warning.message), warning.fix.as_str());
    }
}

fn state(place: &Place, found: &mut Vec<Finding>) {
    let mut of = about(found, "state directory");
    let dir = place.dir.display();
    if let Err(e) = place.trusted() {
        of.fail(&e.to_string(), "");
    }
    // What is not there yet is made below what is.
    let there = place.dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let Ok(meta) = std::fs::metadata(there) else {
        return of.fail(
            &format!("{} cannot be looked at", there.display()),
            "set state_dir to a directory of yours",
        );
    };
    let me = rustix::process::getuid();
    if there == place.dir {
        if meta.uid() != me.as_raw() && !me.is_root() {
            of.fail(
                &format!("{dir} belongs to user {}", meta.uid()),
                "run pilothouse as that user, or set another state_dir",
            );
        } else if meta.mode() & 0o077 != 0 {
            of.warn(
                &format!("{dir} is open to others (mode {:03o})", meta.mode() & 0o777),
                &format!("chmod 700 {dir}"),
            );
        } else {
            of.ok(&format!("{dir} is private"));
        }
    } else if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
        of.fail(
            &format!("{dir} cannot be made: {} is not yours to write to", there.display()),
            "set state_dir to a directory of yours, or run pilothouse as root",
        );
    } else {
        of.ok(&format!("{dir} is made by the first controller"));
    }
    if let Ok(fs) = rustix::fs::statvfs(there) {
        let room = fs.f_bavail.saturating_mul(fs.f_frsize) / (1 << 20);
        if room < ROOM_MB {
            of.fail(
                &format!("only {room} MB are free there: what cannot be journalled is not done"),
                "make room",
            );
        }
    }
}

async fn controller(fleet: &Fleet, place: &Place, found: &mut Vec<Finding>) {
    let mut of = about(found, "controller");
    let client = match Client::connect(&place.socket).await {
        Ok(client) => client,
        Err(ClientError::Unreachable { .. }) if fleet.require_serve => {
            return of.fail(
                "none runs, and require_serve = true keeps commands from starting one",
                "start 'pilothouse serve' (see assets/pilothouse.service)",
            );
        }
        Err(ClientError::Unreachable { .. }) => {
            return of.ok("none runs; the first command that needs one starts it");
        }
        Err(e) => return of.fail(&e.to_string(), "look at controller.log in the state directory"),
    };
    let hello = client.controller();
    of.ok(&format!("process {} since {}, version {}", hello.pid, utc(hello.started_ms), hello.version));
    if hello.version.as_str() != env!("CARGO_PKG_VERSION") {
        of.warn(
            &format!("this pilothouse has version {}", env!("CARGO_PKG_VERSION")),
            "start the controller again with this one: rollouts go on where they were",
        );
    }
    let Ok(now) = client.snapshot().await else { return };
    for alarm in &now.alarms {
        of.fail(alarm.as_str(), "");
    }
    let errors = now.hosts.iter().filter(|h| !h.out).map(|h| ("host", &h.name, h.reachable, &h.error));
    let errors = errors.chain(now.proxies.iter().map(|p| ("proxy", &p.name, p.reachable, &p.error)));
    for (kind, name, reachable, error) in errors.filter(|(.., reachable, _)| !reachable) {
        debug_assert!(!reachable);
        of.fail(&format!("it does not reach {kind} {name}: {}", error.clone().unwrap_or_default()), "");
    }
    for (service, drift) in now.services.iter().flat_map(|s| s.drift.iter().map(move |d| (s, d))) {
        of.warn(&format!("drift of {}: {drift}", service.name), &format!("pilothouse up {}", service.name));
    }
}

async fn examine_host(fleet: &Fleet, host: &Host, place: &Place, program: &Path, found: &mut Vec<Finding>) {
    let mut of = about(found, &format!("host {}", host.name));
    if host.out {
        return of.warn("it is out: nothing is on it, and nothing is done to it", "");
    }
    let engine = engine::open(host, &place.dir, program);
    match engine.observe(&fleet.name).await {
        Ok(all) => of.ok(&format!("answers: {} instances of this fleet", all.len())),
        Err(e) => {
            let cure = match &host.engine {
                Engine::Docker { socket } => {
                    let socket = socket.display();
                    format!("see that dockerd runs and that this user may use {socket} (group docker)")
                }
                Engine::Process { .. } => String::new(),
            };
            return of.fail(&e.to_string(), &cure);
        }
    }
    for service in fleet.services.values().filter(|s| s.placement.contains_key(&host.name)) {
        let Some(version) = &service.version else { continue };
        match (engine.resolve(&service.run, version).await, &service.run) {
            (Ok(Some(_)), _) => of.ok(&format!("{} {version} can be had", service.name)),
            (Ok(None), Run::Image { repository, .. }) => of.fail(
                &format!("{repository}:{version} is not here, and no registry has it"),
                "pull or build it, or name another version",
            ),
            (Ok(None), Run::Command { argv }) => {
                let program = argv.first().map(String::as_str).unwrap_or_default();
                of.fail(&format!("{program} is not on this machine"), "");
            }
            (Err(e), _) => of.fail(&format!("{} {version}: {e}", service.name), ""),
        }
    }
}

fn examine_service(service: &Service, found: &mut Vec<Finding>) {
    let mut of = about(found, &format!("service {}", service.name));
    if service.version.is_none() {
        of.warn(
            "no version is named: 'up' starts nothing of it",
            "version = \"…\", or take over what runs: pilothouse up --adopt",
        );
    }
    if let Some(path) = &service.env_file {
        match env_file::read(path) {
            Ok(env) => of.ok(&format!("{}: {} values", path.display(), env.len())),
            Err(e) => of.fail(&e.to_string(), ""),
        }
        let open = std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        if open {
            of.warn(
                &format!("{} can be read by others", path.display()),
                &format!("chmod 600 {}", path.display()),
            );
        }
    }
    if service.analysis.is_none() && !service.proxies.is_empty() {
        of.warn(
            "its candidates are not judged by their requests: one that only answers errors is not taken back by itself",
            &format!("add [services.{}.analysis]", service.name),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_reads_as_groups_with_what_to_do() {
        let mut found = Vec::new();
        let mut of = about(&mut found, "proxy lb");
        of.ok("answers");
        of.fail("no frontend sends requests to web", "add: use_backend x\u{1b}[2J");
        about(&mut found, "service web").warn("others can read web.env", "chmod 600 web.env");
        let said = text(&found);
        assert_eq!(
            said,
            "proxy lb\n  ok    answers\n  FAIL  no frontend sends requests to web\n        do: add: use_backend x·[2J\n\n\
             service web\n  warn  others can read web.env\n        do: chmod 600 web.env\n\n\
             1 must be put right before releases work, 1 could be better\n"
        );
        assert!(text(&found[..1]).ends_with("\nnothing is missing\n"));
    }
}
