//! `init`: what it writes can be used, and nothing that is there is touched.

use super::*;

fn init(dir: &std::path::Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(common::pilothouse());
    let out =
        command.arg("init").args(args).current_dir(dir).env_remove("PILOTHOUSE_FLEET").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[test]
fn without_anything_that_runs_it_is_a_beginning_and_what_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("none.sock");
    let docker = ["--docker", nobody.to_str().unwrap(), "--name", "begun"];
    let (code, printed, _) = init(dir.path(), &[&docker[..], &["--print"]].concat());
    assert_eq!(code, 0);
    assert!(!dir.path().join("fleet.toml").exists(), "only printed");
    let (code, said, err) = init(dir.path(), &docker);
    assert_eq!((code, err.as_str()), (0, ""), "{said}");
    assert!(said.contains("cannot reach docker") && said.contains("pilothouse doctor"), "{said}");
    let written = std::fs::read_to_string(dir.path().join("fleet.toml")).unwrap();
    // A proxy of another test may have come or gone meanwhile.
    assert_eq!(written.lines().take(6).collect::<Vec<_>>(), printed.lines().take(6).collect::<Vec<_>>());
    assert!(written.contains("name = \"begun\"") && written.contains("engine = \"process://\""), "{written}");
    let loaded = pilothouse::fleet::load(&dir.path().join("fleet.toml")).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.fleet.services.len(), 1);

    std::fs::write(dir.path().join("fleet.toml"), "mine").unwrap();
    let (code, said, err) = init(dir.path(), &docker);
    assert_eq!((code, said.as_str()), (2, ""));
    assert!(err.contains("is there already and stays as it is; --print"), "{err}");
    assert_eq!(std::fs::read_to_string(dir.path().join("fleet.toml")).unwrap(), "mine");
    let (code, _, err) = init(dir.path(), &["--name", "Not A Name"]);
    assert_eq!(code, 2);
    assert!(err.contains("--name") && err.contains("a-z"), "{err}");
}
