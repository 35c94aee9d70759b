//! Notifications of a real controller, received on loopback.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/receiver.rs"]
mod receiver;
#[path = "common/stories.rs"]
mod stories;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;

use load::Load;
use receiver::Receiver;
use tls::serve;
use world::{Backends, Setup, World};

/// A world in which somebody is told.
fn world(test: &str, setup: &Setup, notify: &str) -> Option<World> {
    let world = World::new(test, Backends::ProcessEdge, setup)?;
    world.edit("\n[hosts.node-1]", &format!("\n{notify}\n[hosts.node-1]"));
    Some(world)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn each_is_told_once_in_order_over_a_restart_and_who_hangs_delays_nothing() {
    let (receiver, secret) = (Receiver::plain(), common::unique("geheim"));
    // It accepts and never answers: the kernel does that for who listens.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        r#"[notify.ops]
type = "webhook"
url_file = "url"
token_file = "token"
[notify.hangs]
type = "webhook"
url = "http://{}/"
timeout = "1m"
[notify.tell]
type = "command"
run = ["./tell"]
events = ["aborting", "aborted"]
"#,
        hangs.local_addr().unwrap()
    );
    let Some(world) = world("notify", &Setup::default(), &text) else { return };
    write(&world.path().join("url"), &format!("http://{}/{secret}\n", receiver.address));
    write(&world.path().join("token"), &secret);
    let (tell, told) = (world.path().join("tell"), world.path().join("told"));
    write(&tell, &format!("#!/bin/sh\ncat > /dev/null\necho $PILOTHOUSE_EVENT >> {}\n", told.display()));
    std::fs::set_permissions(&tell, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();

    stories::up(&world);
    world.wait("the first release is told", || {
        receiver.events().contains(&"promoted 1.0.0".to_owned()).then_some(())
    });
    let before = receiver.events().len();
    let load = Load::start(world.listen, 2);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.ok(&["promote", "web"]);
    world.wait_for_share("1.1.0", 25);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    world.ok(&["abort", "web", "--wait"]);
    assert_eq!(load.finish().failed, 0);
    world.wait("the end is told", || receiver.events().contains(&"aborted 1.1.0".to_owned()).then_some(()));
    world.wait("the command was run", || {
        (std::fs::read_to_string(&told).unwrap_or_default() == "aborting\naborted\n").then_some(())
    });
    let events = receiver.events().split_off(before);
    assert_eq!(events.first().unwrap(), "started 1.1.0", "{events:?}");
    assert_eq!(events[events.len() - 2..], ["aborting 1.1.0", "aborted 1.1.0"], "{events:?}");
    assert!(events[1..events.len() - 2].iter().all(|e| e == "phase 1.1.0"), "{events:?}");

    let last = receiver.bodies().pop().unwrap();
    assert_eq!(
        (&last["schema"], &last["service"], &last["from"]),
        (&1.into(), &"web".into(), &"1.0.0".into())
    );
    assert!(last["time_to_safe_ms"].as_u64().is_some(), "{last}");
    assert_eq!(last["phase"]["name"], "25%", "{last}");
    let counts = last["counts"].as_array().unwrap();
    let candidate = counts.iter().find(|c| c["role"] == "candidate").unwrap();
    assert!(candidate["version"] == "1.1.0" && candidate["requests"].as_u64().unwrap() > 0, "{last}");
    let head = receiver.heads().pop().unwrap();
    assert!(
        head.contains(&format!("Bearer {secret}")) || head.contains(&format!("bearer {secret}")),
        "{head}"
    );
    let alarms = world.snapshot().unwrap()["alarms"].to_string();
    assert_eq!(alarms, "[]", "what is tried again is no alarm yet");

    // Another controller tells what is left, and nothing twice.
    world.kill_controller();
    world.ok(&["status"]);
    world.ok(&["deploy", "web", "1.2.0", "--detach"]);
    world.wait_for_share("1.2.0", 5);
    world.wait("it is told", || receiver.events().contains(&"started 1.2.0".to_owned()).then_some(()));
    world.ok(&["abort", "web", "--wait"]);
    world.wait("its end is told", || receiver.events().contains(&"aborted 1.2.0".to_owned()).then_some(()));
    let ids: Vec<String> = receiver.bodies().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    let at: Vec<u64> = receiver.bodies().iter().map(|b| b["at_ms"].as_u64().unwrap()).collect();
    assert!(at.is_sorted(), "{at:?}");

    for entry in std::fs::read_dir(world.state_dir()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "the secret is in {}", path.display());
    }
    world.assert_no_orphan();
}

#[test]
fn what_is_given_up_is_an_event_and_an_alarm_and_names_no_secret() {
    let secret = common::unique("geheim");
    let free = common::free_port();
    let text = "[notify.ops]\ntype = \"webhook\"\nurl_file = \"url\"\nretry_for = \"500ms\"\n";
    let Some(world) = world("given up", &Setup::default(), text) else { return };
    write(&world.path().join("url"), &format!("http://127.0.0.1:{free}/{secret}"));
    stories::up(&world);
    let event = world.wait("an event", || world.events().into_iter().find(|e| e.contains("notify:ops")));
    assert!(event.contains("is given up") && event.contains("refused"), "{event}");
    let alarms = || world.snapshot().unwrap()["alarms"].to_string();
    world.wait("an alarm", || alarms().contains("notify ops is not told").then_some(()));
    let all = format!("{:?}{}", world.events(), alarms());
    assert!(!all.contains(&secret), "{all}");
    let receiver = Receiver::plain();
    write(&world.path().join("url"), &format!("http://{}/", receiver.address));
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.wait("no alarm", || (alarms() == "[]").then_some(()));
    assert_eq!(receiver.events().first().unwrap(), "started 1.1.0");
    world.ok(&["abort", "web", "--wait"]);
    world.assert_no_orphan();
}

#[test]
fn https_is_for_who_is_trusted_only() {
    let receiver = Receiver::tls();
    let url = format!("https://localhost:{}/{}", receiver.address.port(), common::unique("geheim"));
    let text = "[notify.ops]\ntype = \"webhook\"\nurl_env = \"OPS_URL\"\nretry_for = \"500ms\"\n";
    let Some(world) = world("https", &Setup::default(), text) else { return };
    let env = [("OPS_URL", url.as_str())];
    let mut child = serve(&world, false, &env);
    stories::up(&world);
    let event = world.wait("an event", || world.events().into_iter().find(|e| e.contains("notify:ops")));
    assert!(event.contains("UnknownIssuer") || event.contains("unknown issuer"), "{event}");
    assert!(receiver.events().is_empty());
    world.kill_controller();
    child.wait().unwrap();

    let mut child = serve(&world, true, &env);
    world.ok(&["deploy", "web", "1.1.0", "--detach"]);
    world.wait_for_share("1.1.0", 5);
    world.wait("it is told", || receiver.events().contains(&"started 1.1.0".to_owned()).then_some(()));
    world.ok(&["abort", "web", "--wait"]);
    world.assert_no_orphan();
    world.kill_controller();
    child.wait().unwrap();
}
