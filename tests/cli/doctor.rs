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

/// Answers every request with this; what it was asked.
fn answers(status: u16, body: &'static str) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            // Who only connects asked nothing.
            let Ok(n @ 1..) = stream.read(&mut request) else { continue };
            let line = String::from_utf8_lossy(&request[..n]).lines().next().unwrap().to_owned();
            kept.lock().unwrap().push(line);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    (at, asked)
}

/// An address where nobody listens.
fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn who_is_told_is_connected_to_and_told_nothing() {
    let ((hook, asked), nobody) = (answers(200, ""), nobody());
    let top = format!(
        "[notify.hook]\ntype = \"webhook\"\nurl = \"http://{hook}/geheim\"\n\
         [notify.gone]\ntype = \"webhook\"\nurl = \"http://{nobody}/geheim\"\n\
         [notify.unset]\ntype = \"webhook\"\nurl_env = \"NOBODY_SETS_THIS\"\n\
         [notify.here]\ntype = \"command\"\nrun = [\"true\"]\n\
         [notify.absent]\ntype = \"command\"\nrun = [\"./absent\"]\n"
    );
    let world = World::new(&top, BY_HAND);
    let found = findings(&world, 0);
    let of = |name: &str| {
        let about = format!("notify {name}");
        let mut of = found.iter().filter(|f| f["about"] == about.as_str());
        let (one, None) = (of.next().unwrap(), of.next()) else { panic!("{found:#?}") };
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("level"), text("what"), text("do"))
    };
    for there in ["hook", "here"] {
        assert_eq!(of(there).0, "ok", "{:?}", of(there));
    }
    let (level, what, cure) = of("gone");
    assert!(level == "warn" && what.contains("Connection refused"), "{what}");
    assert_eq!(cure, "put right 'url' in [notify.gone], or what it names");
    let (level, what, cure) = of("unset");
    assert!(level == "warn" && what.starts_with("NOBODY_SETS_THIS is not set here"), "{what}");
    assert!(cure.contains("pilothouse serve"), "{cure}");
    let (level, what, _) = of("absent");
    assert!(level == "warn" && what.ends_with("absent is no program on this machine"), "{what}");
    assert!(asked.lock().unwrap().is_empty(), "nobody was told anything");
    assert!(!format!("{found:?}").contains("geheim"), "addresses of receivers are secrets");
}

#[test]
fn who_is_asked_about_a_release_is_asked_what_can_be_asked_before_one() {
    let number =
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#;
    let ((prometheus, queries), (gate, gates)) = (answers(200, number), answers(500, "budget burnt"));
    let nobody = nobody();
    let world = World::new("", BY_HAND);
    let checks = [
        ("now", format!("type = \"prometheus\"\nurl = \"http://{prometheus}\"\nquery = \"up\"\nmax = 1")),
        (
            "later",
            format!(
                "type = \"prometheus\"\nurl = \"http://{prometheus}\"\nquery = 'x{{v=\"{{version}}\"}}'\nmax = 1"
            ),
        ),
        ("gate", format!("type = \"http\"\nurl = \"http://{gate}/{{service}}\"")),
        ("gate-of", format!("type = \"http\"\nurl = \"http://{gate}/{{version}}\"")),
        ("nobody", format!("type = \"http\"\nurl = \"http://{nobody}/{{version}}\"\ndry_run = true")),
        ("program", "type = \"command\"\ncommand = [\"false\", \"{version}\"]".to_owned()),
        ("absent", "type = \"command\"\ncommand = [\"./absent\"]".to_owned()),
    ];
    let mut text = std::fs::read_to_string(world.file()).unwrap();
    for (name, lines) in &checks {
        text.push_str(&format!("\n[services.web.checks.{name}]\n{lines}\n"));
    }
    std::fs::write(world.file(), text).unwrap();
    let found = findings(&world, 1);
    let of = |name: &str| {
        let about = format!("check {name} of web");
        let one = found.iter().find(|f| f["about"] == about.as_str()).unwrap_or_else(|| panic!("{found:#?}"));
        (one["level"].as_str().unwrap().to_owned(), one["what"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("now"), ("ok".into(), format!("http://{prometheus} says: 1")));
    assert_eq!(of("later"), ("ok".into(), format!("http://{prometheus} is there; it is asked in a release")));
    assert_eq!(
        *queries.lock().unwrap(),
        ["GET /api/v1/query?query=up HTTP/1.1", "GET /api/v1/query?query=vector%281%29 HTTP/1.1"]
    );
    let (level, what) = of("gate");
    assert!(level == "warn" && what.ends_with("says no as it is now: 500 budget burnt"), "{what}");
    assert_eq!(of("gate-of").0, "ok");
    assert_eq!(
        *gates.lock().unwrap(),
        ["GET /web HTTP/1.1"],
        "a question about a release is not put without one"
    );
    let (level, what) = of("nobody");
    assert!(level == "warn" && what.contains("Connection refused"), "{what}");
    assert_eq!(of("program").0, "ok", "it is not run");
    let (level, what) = of("absent");
    assert!(level == "fail" && what.contains("absent is no program on this machine"), "{what}");
    let absent = said(&found, "fail", "absent");
    assert_eq!(absent["do"], "put the program there, or change 'command' in [services.web.checks.absent]");
}

#[test]
fn the_address_of_the_numbers_is_free_or_ours_or_somebody_elses() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let world = World::new(&format!("[metrics]\nlisten = \"{at}\"\n"), BY_HAND);
    // Somebody else, who answers, and has nothing to do with this fleet.
    let other = std::thread::spawn(move || {
        let (mut stream, _) = taken.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi").unwrap();
    });
    let found = findings(&world, 0);
    let what = said(&found, "warn", "is taken by another process");
    assert!(what["do"].as_str().unwrap().contains(&format!("ss -ltnp sport = :{}", at.port())), "{what}");
    other.join().unwrap();
    said(&findings(&world, 0), "ok", "is free for the controller");
    world.ends(0, &["up"]);
    said(&findings(&world, 0), "ok", &format!("the controller serves http://{at}/metrics"));
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
