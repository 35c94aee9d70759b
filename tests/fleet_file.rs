//! Fleet files, good and bad, through the library and through the binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pilothouse::fleet::{self, Severity, env_file, model};
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../sample-fleet.toml");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every malformed fleet file, sorted by name.
fn malformed() -> Vec<PathBuf> {
    let dir = std::fs::read_dir(root().join("tests/fleet_files")).unwrap();
    let mut files: Vec<_> =
        dir.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(files.len() >= 20, "{files:?}");
    files
}

fn check(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilothouse"));
    command.arg("check").args(args).current_dir(dir).env_remove(fleet::ENV_VAR).output().unwrap()
}

/// Without the directories of this checkout, which differ from machine to machine.
fn portable(text: &str) -> String {
    let dir = root().join("tests/fleet_files");
    text.replace(&format!("{}/", dir.display()), "")
}

#[test]
fn each_malformed_file_is_explained() {
    for file in malformed() {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let problems = fleet::load(&file).expect_err(&name);
        assert!(problems.errors() > 0, "{name}");
        for p in problems.list() {
            assert!(!p.fix.is_empty(), "{name}: nothing says what to do about: {p}");
        }
        insta::assert_snapshot!(name, portable(&problems.to_string()));
    }
}

#[test]
fn the_binary_refuses_each_malformed_file_with_2_and_never_shows_a_secret_or_a_control_character() {
    for file in malformed() {
        let name = file.file_name().unwrap().to_str().unwrap();
        for output in ["text", "json"] {
            let out = check(&["--fleet", name, "--output", output], file.parent().unwrap());
            let (stdout, stderr) =
                (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
            assert_eq!(out.status.code(), Some(2), "{name}: {stderr}");
            let shown = format!("{stdout}{stderr}");
            assert!(!shown.contains("panicked"), "{name}: {shown}");
            assert!(!shown.contains("hunter2"), "{name}: {shown}");
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{name}: {shown:?}");
            assert!(!shown.contains('\u{202e}'), "{name}: {shown:?}");
            if output == "text" {
                assert_eq!(stdout, "", "{name}");
                let last = stderr.lines().last().unwrap();
                assert!(last.contains("error") && last.ends_with(name), "{name}: {last}");
            } else {
                let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
                assert_eq!(
                    (&json["schema"], &json["ok"], &json["fleet"]),
                    (&1.into(), &false.into(), &serde_json::Value::Null)
                );
                assert!(
                    json["problems"].as_array().unwrap().iter().any(|p| p["severity"] == "error"),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn the_sample_is_accepted_without_a_warning() {
    let loaded = fleet::load(&root().join("sample-fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, []);
    assert!(loaded.file.is_absolute());
    let out = check(&["--fleet", "sample-fleet.toml"], root());
    assert_eq!((out.status.code(), String::from_utf8(out.stderr).unwrap().as_str()), (Some(0), ""));
    insta::assert_snapshot!("sample", String::from_utf8(out.stdout).unwrap());
}

#[test]
fn the_variants_that_the_sample_has_commented_out_are_accepted() {
    // The edge in place of HAProxy.
    let (before, rest) = SAMPLE.split_once("[proxies.lb]\n").unwrap();
    let (haproxy, after) = rest.split_once("# [proxies.lb]\n").unwrap();
    assert!(haproxy.contains("haproxy"));
    let edge = after.replacen("# type", "type", 1).replacen("# listen", "listen", 1);
    let text = format!("{before}[proxies.lb]\n{edge}");
    let loaded = fleet::parse(&text, &root().join("sample-fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
    assert!(matches!(loaded.fleet.proxies.values().next().unwrap().kind, model::ProxyKind::Edge(_)));

    // Processes beside the containers.
    let (before, after) = SAMPLE.split_once("# [hosts.local]").unwrap();
    let after: Vec<_> = after.lines().map(|l| l.trim_start_matches("# ").trim_start_matches('#')).collect();
    let text = format!("{before}[hosts.local]{}", after.join("\n"));
    let loaded = fleet::parse(&text, &root().join("sample-fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
    let api = &loaded.fleet.services[&"api".parse().unwrap()];
    let model::Run::Command { argv } = &api.run else { panic!("{api:?}") };
    assert_eq!(Path::new(&argv[0]), root().join("bin/api-{version}"));
    assert_eq!(argv[2], "{address}:{port}");
}

/// The sample's tables `header` that are commented out, each with what stands below it.
fn commented(header: &str) -> Vec<String> {
    let start = format!("# {header}");
    let mut out: Vec<String> = Vec::new();
    let mut inside = false;
    for line in SAMPLE.lines() {
        let bare = line.strip_prefix("# ");
        inside = line.starts_with(&start) || inside && bare.is_some_and(|b| !b.starts_with('['));
        if line.starts_with(&start) {
            out.push(String::new());
        }
        if let (true, Some(bare), Some(table)) = (inside, bare, out.last_mut()) {
            table.push_str(bare);
            table.push('\n');
        }
    }
    out
}

#[test]
fn each_strategy_that_the_sample_has_commented_out_is_accepted_in_place_of_the_canary() {
    let header = "[services.web.strategy]";
    let (before, rest) = SAMPLE.split_once(header).unwrap();
    let (canary, after) = rest.split_once("]\n# sticky").unwrap();
    assert!(canary.contains("type = \"canary\""), "{canary}");
    let accepted = |table: &str| {
        let text = format!("{before}{table}\n# sticky{after}");
        let loaded = fleet::parse(&text, &root().join("sample-fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(loaded.warnings, []);
        loaded.fleet.services[&"web".parse().unwrap()].clone()
    };
    let tables = commented(header);
    let names: Vec<&str> = tables.iter().map(|t| accepted(t).strategy.name()).collect();
    assert_eq!(names, ["rolling", "blue-green", "ab", "in-place"]);

    // The other way to choose, in the table that has one commented out.
    let by_cookie: String = tables[2]
        .lines()
        .filter(|l| !l.starts_with("share"))
        .map(|l| format!("{}\n", l.trim_start_matches("# ")))
        .collect();
    let model::Strategy::Ab { choose: model::Choose::Rule(rule), .. } = accepted(&by_cookie).strategy else {
        panic!("{by_cookie}")
    };
    assert_eq!(rule.by, model::RuleBy::Cookie);

    // What the canary has commented out, and the hooks.
    let (_, more) = SAMPLE.split_once("\n# sticky").unwrap();
    let more: Vec<_> =
        more.lines().take_while(|l| !l.is_empty()).map(|l| l.trim_start_matches("# ")).collect();
    let hooks = commented("[services.web.hooks]");
    let service = accepted(&format!("{header}{canary}]\nsticky{}\n{}", more.join("\n"), hooks[0]));
    let model::Strategy::Canary { sticky: true, tester: Some(_), .. } = service.strategy else {
        panic!("{service:?}")
    };
    let hooks = service.hooks;
    assert!(hooks.before_start.is_some() && hooks.before_traffic.is_some() && hooks.after_promote.is_some());
}

const FULL: &str = r#"
name = "shop"
environment = "production"
state_dir = "state"

[metrics]
listen = "[::1]:9464"

[notify.ops]
type = "webhook"
url = "https://ops.example/hooks"
token_file = "token"
token_header = "X-Token"
events = ["aborted", "failed"]
services = ["web"]
timeout = "3s"
retry_for = "1h"
[notify.chat]
type = "slack"
url_env = "SLACK_URL"
[notify.pager]
type = "command"
run = ["./page", "ops"]

[hosts.node-1]
engine = "unix:///run/one.sock"
address = "10.0.0.11"
[hosts.node-2]
engine = "unix:///run/two.sock"
address = "10.0.0.12"
[hosts.node-3]
engine = "unix:///run/three.sock"
address = "fd00::13"
out = true
[hosts.local]
engine = "process:///var/lib/instances"

[proxies.lb]
type = "haproxy"
dir = "generated"
master_socket = "/run/haproxy/master.sock"
config = ["haproxy.cfg"]
binary = "./bin/haproxy"
log = "127.0.0.1:5140"
[proxies.web]
type = "nginx"
dir = "generated-nginx"
config = "nginx.conf"
pid = "/run/web/nginx.pid"
status = "127.0.0.1:8404"
binary = "./bin/nginx"
log = "[::1]:5141"
[proxies.usual]
type = "nginx"
dir = "/etc/nginx/pilothouse"
status = "127.0.0.1:8405"
[proxies.watched]
type = "traefik"
dir = "dynamic"
api = "127.0.0.1:8409"
[proxies.mesh]
type = "envoy"
dir = "generated-envoy"
admin = "127.0.0.1:9901"
log = "/var/log/envoy/shop.log"
[proxies.caddy]
type = "caddy"
dir = "generated-caddy"
config = "Caddyfile"
admin = "127.0.0.1:2020"
status = "127.0.0.1:8406"
binary = "./bin/caddy"
log = "127.0.0.1:5142"
[proxies.usual-caddy]
type = "caddy"
dir = "/etc/caddy/pilothouse"
status = "127.0.0.1:8407"
[proxies.front]
type = "edge"
listen = "127.0.0.1:8080"

[services.web]
image = "registry:5000/shop/web"
args = ["--verbose"]
pull = "always"
version = "1.4.2"
hosts = ["node-*", "node-1"]
replicas = 4
port = 8080
host_ports = "9000-9015"
network = "shop"
env = { LOG_LEVEL = "info" }
proxies = ["lb", "front"]
domains = ["shop.example"]
keep = "0s"
drift = "restore"
progress_deadline = "1h"
health = { http = "/health?full=1", interval = "2s", timeout = "1s", rise = 3, fall = 4 }
drain = { deadline = "1m", stop_grace = "5s" }
checks.burn = { type = "prometheus", url = "http://127.0.0.1:9090/", query = "max(burn)", min = 1, max = 2.5, interval = "2s", timeout = "1s", failures = 3, dry_run = true }
checks.gate = { type = "http", url = "http://127.0.0.1:9000/{version}" }
checks.smoke = { type = "command", command = ["./smoke", "{version}"] }
analysis = { tolerance = "1%", alpha = "0.1%", max_errors = "0.2", latency = false, soak = "1m", inconclusive_after = "5m", promote = "auto", dry_run = true }
[services.web.strategy]
type = "canary"
steps = [
  { weight = 0.25, pause = "2m", healthy_for = "30s" },
  { weight = 12.5, pause = "manual" },
  { weight = 50 },
]

[services.canary]
image = "shop/canary"
hosts = ["node-*"]
per_host = 2
port = 80
address = "container"
proxies = ["lb"]
health = { tcp = true }
[services.canary.strategy]
type = "canary"
sticky = true
tester = { header = "X-Tester", value = "yes" }
steps = [{ weight = 5, instances = 3, pause = "manual" }, { weight = 50, instances = 6 }]

[services.green]
image = "shop/green"
port = 80
address = "container"
proxies = ["lb"]
health = { tcp = true }
strategy = { type = "blue-green", preview = { cookie = "preview", value = "green" }, healthy_for = "1m", pause = "5m" }

[services.rolling]
image = "shop/rolling"
replicas = 4
hosts = ["node-1", "node-2"]
port = 80
host_ports = "9100-9103"
[services.rolling.strategy]
type = "rolling"
batch = "host"
max_unavailable = 2
max_surge = 0
min_healthy_time = "20s"
healthy_deadline = "2m"

[services.in-place]
command = ["./in-place"]
host_ports = "9200-9201"
replicas = 2
strategy = { type = "in-place", batch = 2, min_healthy_time = "1s" }
[services.in-place.hooks]
before_start = { run = ["./migrate", "--to", "{version}"], timeout = "1h", irreversible = true }
before_traffic = { run = ["smoke"], idempotent = true }

[services.split]
image = "shop/split"
port = 80
address = "container"
proxies = ["lb"]
health = { tcp = true }
strategy = { type = "ab", duration = "1d", share = 12.5 }
hooks.after_promote = { run = ["announce", "--all"] }

[services.variant]
image = "shop/variant"
port = 80
address = "container"
proxies = ["lb"]
health = { tcp = true }
strategy = { type = "ab", duration = "1h", candidate = { header = "X-Variant", value = "b" } }

[services.defaults-rolling]
image = "shop/defaults"
port = 80
address = "container"
strategy = { type = "rolling" }

[services.defaults-green]
image = "shop/defaults"
port = 80
address = "container"
strategy = { type = "blue-green" }

[services.defaults-in-place]
image = "shop/defaults"
hosts = ["node-1"]
port = 80
host_ports = "9300-9300"
strategy = { type = "in-place" }

[services.internal]
image = "shop/internal"
port = 80
address = "container"
per_host = 2
hosts = ["node-2"]

[services.api]
command = ["sh", "-c", "exec app {port}"]
host_ports = "9000-9001"
"#;

#[test]
fn every_key_arrives_in_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = fleet::parse(FULL, &dir.path().join("fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, []);
    let json = serde_json::to_string_pretty(&loaded.fleet).unwrap();
    let back: model::Fleet = serde_json::from_str(&json).unwrap();
    assert_eq!(back, loaded.fleet, "what is journalled is what was loaded");
    let shown = json.replace(&dir.path().display().to_string(), "DIR").replace(&loaded.fleet.hash, "HASH");
    insta::assert_snapshot!("model", shown);
}

#[test]
fn each_strategy_and_its_hooks_are_said_in_words() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fleet.toml"), FULL).unwrap();
    let out = check(&[], dir.path());
    assert_eq!((out.status.code(), String::from_utf8(out.stderr).unwrap().as_str()), (Some(0), ""));
    let stdout = String::from_utf8(out.stdout).unwrap().replace(&dir.path().display().to_string(), "DIR");
    let (_, services) = stdout.split_once("services\n").unwrap();
    insta::assert_snapshot!("in_words", services);
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.toml");
    std::fs::write(&file, "name = \"shop\"\n").unwrap();
    let loaded = fleet::load(&file).unwrap();
    // printf 'name = "shop"\n' | sha256sum
    assert_eq!(loaded.fleet.hash, "984bf849e4db289e9b62ef297ee70f4fa43fca7e20ac45811d81a410ea5073e2");
    std::fs::write(&file, "name = \"shop\"\n\n").unwrap();
    assert_ne!(fleet::load(&file).unwrap().fleet.hash, loaded.fleet.hash);
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].severity, Severity::Warning);
}

#[test]
fn what_cannot_be_read_is_said_without_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let missing = fleet::load(&dir.path().join("fleet.toml")).unwrap_err();
    assert!(missing.to_string().contains("cannot read the fleet file: No such file"), "{missing}");
    assert!(fleet::load(dir.path()).unwrap_err().to_string().contains("not a regular file"));
    let file = dir.path().join("latin1.toml");
    std::fs::write(&file, b"name = \"shop\"\n# caf\xe9\n").unwrap();
    let latin1 = fleet::load(&file).unwrap_err();
    assert_eq!((latin1.list()[0].line, latin1.list()[0].column), (2, 0));
    let file = dir.path().join("large.toml");
    std::fs::write(&file, "#".repeat(2 * 1024 * 1024)).unwrap();
    assert!(fleet::load(&file).unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn the_file_is_found_by_name_then_here_then_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, fleet: &str| {
        std::fs::write(dir.path().join(name), format!("name = \"{fleet}\"\n")).unwrap();
    };
    let run = |args: &[&str], named: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilothouse"));
        command.arg("check").args(args).current_dir(dir.path()).env_remove(fleet::ENV_VAR);
        if let Some(named) = named {
            command.env(fleet::ENV_VAR, named);
        }
        let out = command.output().unwrap();
        let first = String::from_utf8(out.stdout).unwrap().lines().next().unwrap_or_default().to_owned();
        (out.status.code(), first, String::from_utf8(out.stderr).unwrap())
    };
    let (code, _, stderr) = run(&[], None);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--fleet FILE"), "{stderr}");
    write("named.toml", "named");
    write("env.toml", "from-env");
    assert_eq!(run(&[], Some("env.toml")).1, "fleet from-env (development)");
    write("fleet.toml", "here");
    assert_eq!(run(&[], Some("env.toml")).1, "fleet here (development)");
    assert_eq!(run(&["--fleet", "named.toml"], Some("env.toml")).1, "fleet named (development)");
    assert_eq!(run(&["--fleet", "nowhere.toml"], Some("env.toml")).0, Some(2));
}

#[test]
fn secrets_are_read_but_not_kept_in_the_model() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("web.env"), "export TOKEN='hunter2 # $x'\n").unwrap();
    let text = "name = \"shop\"\n[hosts.a]\nengine = \"process://\"\n[services.web]\ncommand = [\"app\"]\n\
                host_ports = \"9000-9001\"\nenv_file = \"web.env\"\n";
    let loaded = fleet::parse(text, &dir.path().join("fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
    let shown = format!("{loaded:?}{}", serde_json::to_string(&loaded.fleet).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    let file = loaded.fleet.services[&"web".parse().unwrap()].env_file.clone().unwrap();
    assert!(file.is_absolute());
    assert_eq!(env_file::read(&file).unwrap()["TOKEN"], "hunter2 # $x");
}

#[test]
fn a_full_disk_under_standard_output_is_an_error_and_a_reader_that_left_is_not() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = |stdout: Stdio, stderr: Stdio, file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilothouse"));
        command.args(["check", "--fleet", file]).current_dir(root()).stdout(stdout).stderr(stderr);
        command.output().unwrap()
    };
    let out = run(full.try_clone().unwrap().into(), Stdio::piped(), "sample-fleet.toml");
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr.contains("cannot write to standard output") && !stderr.contains("panicked"), "{stderr}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = run(writer.into(), Stdio::piped(), "sample-fleet.toml");
    assert_eq!((out.status.code(), String::from_utf8(out.stderr).unwrap().as_str()), (Some(0), ""));
    let out = run(Stdio::null(), full.into(), "tests/fleet_files/01-unknown-keys.toml");
    assert_eq!(out.status.code(), Some(2));
}

/// Parses `text` and prints what comes out, which must not panic either. Every place lies inside the text.
fn survives(text: &str) {
    let lines = text.matches('\n').count() + 1;
    match fleet::parse(text, &root().join("sample-fleet.toml")) {
        Ok(loaded) => assert!(serde_json::to_string(&loaded.fleet).is_ok()),
        Err(problems) => {
            assert!(problems.list().iter().all(|p| p.line <= lines), "{problems}");
            assert!(!problems.to_string().contains('\u{1b}'));
        }
    }
}

/// Pieces that TOML gives a meaning to.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r\n",
    "\\",
    "\\u00",
    "-",
    "_",
    "name",
    "services",
    "[services.web]",
    "[[services]]",
    "services.web.port = 1\n",
    "1e999",
    "0x",
    "nan",
    "true",
    "2020-01-01",
    "\u{feff}",
    "\0",
    "한",
    "\u{1b}[2J",
    "[services]",
    "[services.web.strategy]\n",
    "steps = [[",
    "strategy = { type = \"rolling\", max_unavailable = 99 }\n",
    "strategy = { type = \"ab\", share = 99999999999999999999 }\n",
    "instances = 0",
    "batch = \"host\"\n",
    "max_surge = 4294967295\n",
    "min_healthy_time = \"365d\"\n",
    "preview = { header = \"\", value = \"\" }\n",
    "hooks = { before_start = { run = [] } }\n",
    "hosts = {",
];

/// A good file to break: the sample, or the one that has every key.
fn any_file() -> impl proptest::strategy::Strategy<Value = &'static str> {
    proptest::sample::select(&[SAMPLE, FULL][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    #[test]
    fn a_truncated_file_does_not_panic(text in any_file(), cut in proptest::num::usize::ANY) {
        survives(&String::from_utf8_lossy(&text.as_bytes()[..cut % text.len()]));
    }

    #[test]
    fn a_file_with_changed_bytes_does_not_panic(
        text in any_file(),
        changes in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY), 1..30),
    ) {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_file_with_moved_and_inserted_pieces_does_not_panic(
        text in any_file(),
        inserts in proptest::collection::vec((proptest::num::usize::ANY, proptest::sample::select(PIECES)), 0..12),
        copies in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::usize::ANY), 0..4),
    ) {
        let mut lines: Vec<&str> = text.lines().collect();
        for (from, to) in copies {
            lines.insert(to % lines.len(), lines[from % lines.len()]);
        }
        let mut text = lines.join("\n");
        for (at, piece) in inserts {
            let at = (at % text.len()..text.len()).find(|a| text.is_char_boundary(*a)).unwrap_or(text.len());
            text.insert_str(at, piece);
        }
        survives(&text);
    }

    #[test]
    fn what_a_rule_lets_through_is_harmless_in_a_proxys_configuration(
        by in proptest::sample::select(&["header", "cookie"][..]),
        name in "[ -~]{1,3}|\\PC{0,70}|[A-Za-z-]{1,70}",
        value in "[ -~]{1,3}|\\PC{0,70}|[!-~]{60,66}",
    ) {
        let rule = serde_json::json!({ "name": name, "value": value });
        let text = format!(
            "name = \"shop\"\n[hosts.a]\nengine = \"unix:///run/a.sock\"\n[proxies.p]\ntype = \"edge\"\n\
             listen = \"127.0.0.1:1\"\n[services.web]\nimage = \"web\"\nport = 80\naddress = \"container\"\n\
             proxies = [\"p\"]\nhealth = {{ tcp = true }}\n[services.web.strategy]\ntype = \"canary\"\n\
             tester = {{ {by} = {}, value = {} }}\n",
            rule["name"], rule["value"],
        );
        let fits = |s: &str, not: &str| {
            (1..=64).contains(&s.len()) && s.chars().all(|c| c.is_ascii_graphic() && !not.contains(c))
        };
        // RFC 9110: all visible characters but the delimiters.
        let good = fits(&name, "\"(),/:;<=>?@[\\]{}")
            && fits(&value, "\",;\\")
            && !(by == "cookie" && name.starts_with("ph_"))
            && !(by == "header" && name.eq_ignore_ascii_case("cookie"));
        match fleet::parse(&text, &root().join("fleet.toml")) {
            Ok(loaded) => {
                prop_assert!(good, "{text}");
                let strategy = &loaded.fleet.services[&"web".parse().unwrap()].strategy;
                let model::Strategy::Canary { tester: Some(rule), .. } = strategy else { panic!("{strategy:?}") };
                prop_assert_eq!((&rule.name, &rule.value), (&name, &value));
            }
            Err(problems) => prop_assert!(!good, "{problems}"),
        }
    }

    #[test]
    fn pieces_of_toml_do_not_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        survives(&pieces.concat());
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        survives(&String::from_utf8_lossy(&bytes));
    }
}

/// A port that an outgoing connection holds at the wrong moment is one that an instance cannot have.
#[test]
fn ports_of_outgoing_connections_are_warned_of() {
    let text = |ports: &str, address: &str| {
        format!(
            "name = \"shop\"\n[hosts.node-1]\nengine = \"process://\"\naddress = \"{address}\"\n\
             [services.web]\ncommand = [\"/bin/app\"]\nreplicas = 1\nhost_ports = \"{ports}\"\n\
             [services.web.health]\ntcp = true\n[services.web.strategy]\ntype = \"blue-green\"\n"
        )
    };
    let on = |outgoing, ports: &str, address: &str| {
        let machine = fleet::Machine { outgoing };
        let loaded = fleet::parse_on(&text(ports, address), Path::new("fleet.toml"), &machine);
        loaded.unwrap_or_else(|e| panic!("{e}")).warnings
    };
    let range = Some((32_768, 60_999));
    let warned = on(range, "40000-40009", "127.0.0.1");
    assert_eq!(warned.len(), 1);
    assert_eq!((warned[0].severity, warned[0].line), (Severity::Warning, 8));
    let said = warned[0].to_string();
    assert!(said.contains("32768-60999") && said.contains("host_ports = \"32758-32767\""), "{said}");
    assert_eq!(on(range, "32760-32768", "127.0.0.1").len(), 1, "the last one is enough");
    assert_eq!(on(range, "32758-32767", "127.0.0.1"), []);
    assert_eq!(on(range, "61000-61009", "127.0.0.1"), []);
    assert_eq!(on(range, "40000-40009", "192.0.2.1"), [], "not an address of this machine");
    assert_eq!(on(None, "40000-40009", "127.0.0.1"), [], "nothing is known of the machine");
}
