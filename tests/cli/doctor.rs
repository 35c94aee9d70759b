//! `doctor`: what is missing is said, with what to do, and nothing is changed by looking.

use super::*;

fn findings(world: &World, code: i32) -> Vec<Value> {
    let said = world.ends(code, &["doctor", "--output", "json"]);
    let all: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(keys(&all), ["findings", "ok", "schema"]);
    assert_eq!((&all["schema"], &all["ok"]), (&1.into(), &(code == 0).into()));
    all["findings"].as_array().unwrap().clone()
}

fn said<'a>(found: &'a [Value], level: &str, part: &str) -> &'a Value {
    let is = |f: &&Value| f["level"] == level && f["what"].as_str().unwrap().contains(part);
    found.iter().find(is).unwrap_or_else(|| panic!("no {level} about {part:?} in {found:#?}"))
}

#[test]
fn a_fleet_that_was_never_up_is_looked_at_and_nothing_comes_of_it() {
    let world = World::new("", BY_HAND);
    let found = findings(&world, 0);
    for part in
        ["is fine", "is made by the first controller", "none runs", "answers: 0", "web 1.0.0 can be had"]
    {
        said(&found, "ok", part);
    }
    let judged = said(&found, "warn", "not judged by their requests");
    assert_eq!(judged["do"], "add [services.web.analysis]");
    assert!(!world.state().exists(), "nothing was made");
    let text = world.ends(0, &["doctor"]).out;
    assert!(
        text.contains("\nproxy lb\n  ok    edge on ") && text.ends_with("releases work; 1 could be better\n"),
        "{text}"
    );
    // A socket's place is taken by somebody else.
    let taken = std::net::TcpListener::bind(format!("{}.100:8080", world.net)).unwrap();
    let found = findings(&world, 1);
    let fails = said(&found, "fail", "cannot listen on");
    assert_eq!(
        (&fails["about"], &fails["do"]),
        (&"proxy lb".into(), &"give it another 'listen', or end what listens there".into())
    );
    drop(taken);
    assert!(!world.state().exists());
}

#[test]
fn what_keeps_a_controller_from_starting_and_what_others_can_read_is_said() {
    let world = World::new("require_serve = true", BY_HAND);
    let text = std::fs::read_to_string(world.file()).unwrap();
    let text = text.replace("replicas = 2", "replicas = 2\nenv_file = \"web.env\"");
    std::fs::write(world.file(), text).unwrap();
    let env = world.dir.path().join("web.env");
    std::fs::write(&env, "TOKEN=planted-4711\n").unwrap();
    std::fs::set_permissions(&env, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::create_dir(world.state()).unwrap();
    std::fs::set_permissions(world.state(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = findings(&world, 1);
    assert!(said(&found, "fail", "require_serve")["do"].as_str().unwrap().contains("pilothouse serve"));
    assert!(said(&found, "warn", "can be read by others")["do"].as_str().unwrap().starts_with("chmod 600 "));
    assert!(said(&found, "warn", "is open to others")["do"].as_str().unwrap().starts_with("chmod 700 "));
    said(&found, "ok", "web.env: 1 values");
    assert!(!format!("{found:?}").contains("planted"), "values are never shown");
    std::fs::write(&env, "NOT A LINE\n").unwrap();
    let broken = world.ends(2, &["doctor"]);
    assert!(broken.err.contains("web.env:1"), "{broken:?}");
}

#[test]
fn a_fleet_that_is_up_is_looked_at_through_its_controller_as_well() {
    let world = World::new("", BY_HAND);
    world.ends(0, &["up"]);
    let found = findings(&world, 0);
    said(&found, "ok", &format!("version {}", env!("CARGO_PKG_VERSION")));
    said(&found, "ok", "answers: 2 instances");
    said(&found, "ok", "is private");
    // A mistake in the file is what every command says.
    std::fs::write(world.file(), "name = 3\n").unwrap();
    let wrong = world.ends(2, &["doctor"]);
    assert!(wrong.err.contains("fleet.toml:1:8"), "{wrong:?}");
}
