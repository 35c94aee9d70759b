//! Who we are at a registry: what `docker login` left in the configuration of the user who runs the controller.
//! dockerd keeps no credentials of its own; whoever asks it to pull must bring them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest wait for a credential helper.
const HELPER: Duration = Duration::from_secs(10);

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    /// The helper for all registries that have none of their own.
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

/// What a credential helper answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    identitytoken: Option<String>,
}

/// The credentials for the registry of `repository`; `None` to go without. Read again each time: a login takes
/// effect at once.
pub(super) async fn for_repository(repository: &str) -> Option<DockerCredentials> {
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    let text = tokio::fs::read(dir.join("config.json")).await.ok()?;
    let config: Config = serde_json::from_slice(&text).ok()?;
    let registry = registry(repository);
    if let Some((name, server)) = helper_for(&config, registry)
        && let Some(credentials) = ask_helper(Path::new(&format!("docker-credential-{name}")), &server).await
    {
        return Some(credentials);
    }
    in_config(&config, registry)
}

/// The helper that knows the registry, and the name by which it knows it.
fn helper_for<'a>(config: &'a Config, registry: &str) -> Option<(&'a str, String)> {
    let own = config.helpers.iter().find(|(name, _)| host_of(name) == host_of(registry));
    if let Some((server, helper)) = own {
        return Some((helper, server.clone()));
    }
    let server = match host_of(registry) {
        "index.docker.io" => "https://index.docker.io/v1/".to_owned(),
        host => host.to_owned(),
    };
    config.store.as_deref().map(|helper| (helper, server))
}

/// Runs `program get` with the server's name as its input, as `docker pull` does. One that fails or does not answer
/// counts as knowing nothing: the registry then says what is missing.
async fn ask_helper(program: &Path, server: &str) -> Option<DockerCredentials> {
    let ask = async {
        let mut helper = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        // One that knows its only server need not read its name.
        let _ = helper.stdin.take()?.write_all(server.as_bytes()).await;
        let output = helper.wait_with_output().await.ok()?;
        serde_json::from_slice::<Answer>(&output.stdout).ok()
    };
    let answer = tokio::time::timeout(HELPER, ask).await.ok()??;
    let credentials =
        DockerCredentials { serveraddress: Some(server.to_owned()), ..DockerCredentials::default() };
    Some(if answer.username == "<token>" {
        DockerCredentials { identitytoken: Some(answer.secret), ..credentials }
    } else {
        DockerCredentials { username: Some(answer.username), password: Some(answer.secret), ..credentials }
    })
}

fn in_config(config: &Config, registry: &str) -> Option<DockerCredentials> {
    let mut entries = config.auths.iter();
    let (name, entry) = entries.find(|(name, e)| host_of(name) == host_of(registry) && !e.auth.is_empty())?;
    let plain = String::from_utf8(base64(&entry.auth)?).ok()?;
    let (username, password) = plain.split_once(':').unwrap_or_default();
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.to_owned()),
        serveraddress: Some(name.clone()),
        identitytoken: entry.identitytoken.clone(),
        ..DockerCredentials::default()
    })
}

/// The registry in a repository's name: its first part if that can be a host's name, else Docker Hub.
fn registry(repository: &str) -> &str {
    match repository.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "index.docker.io",
    }
}

fn host_of(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    match name.split('/').next().unwrap_or(name) {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        host => host,
    }
}

/// RFC 4648, section 4; `None` for anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut have) = (0_u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from((bits >> have) & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_login_left_is_found_by_registry() {
        let config: Config = serde_json::from_str(
            r#"{"auths":{"registry.example:5000":{"auth":"YWxpY2U6c2VjOnJldA=="},
                "https://index.docker.io/v1/":{"auth":"Ym9iOng="}},"credsStore":"none"}"#,
        )
        .unwrap();
        let of = |repository: &str| in_config(&config, registry(repository));
        let alice = of("registry.example:5000/shop/web").unwrap();
        assert_eq!((alice.username.as_deref(), alice.password.as_deref()), (Some("alice"), Some("sec:ret")));
        assert_eq!(of("shop/web").unwrap().username.as_deref(), Some("bob"));
        assert_eq!(of("docker.io/shop/web").unwrap().username.as_deref(), Some("bob"));
        assert!(of("localhost/web").is_none());
    }

    #[tokio::test]
    async fn a_credential_helper_is_asked_as_docker_does() {
        use std::os::unix::fs::PermissionsExt;
        let config: Config = serde_json::from_str(
            r#"{"auths":{"ecr.example":{}},"credHelpers":{"ecr.example":"ecr"},"credsStore":"pass"}"#,
        )
        .unwrap();
        assert_eq!(helper_for(&config, "ecr.example"), Some(("ecr", "ecr.example".to_owned())));
        assert_eq!(helper_for(&config, "other:5000"), Some(("pass", "other:5000".to_owned())));
        let hub = Some(("pass", "https://index.docker.io/v1/".to_owned()));
        assert_eq!(helper_for(&config, registry("shop/web")), hub);
        assert!(in_config(&config, "ecr.example").is_none(), "the entry only says that there was a login");

        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("helper");
        let write = |text: &str| {
            // Renamed into place: a file just written may still count as being written when it is run.
            let draft = dir.path().join("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&draft, &program).unwrap();
        };
        write("#!/bin/sh\nread -r s; echo \"{\\\"Username\\\":\\\"$1\\\",\\\"Secret\\\":\\\"for $s\\\"}\"\n");
        let told = ask_helper(&program, "ecr.example").await.unwrap();
        assert_eq!(
            (told.username.as_deref(), told.password.as_deref()),
            (Some("get"), Some("for ecr.example"))
        );
        write("#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"t\"}'\n");
        assert_eq!(ask_helper(&program, "x").await.unwrap().identitytoken.as_deref(), Some("t"));
        write("#!/bin/sh\necho credentials not found; exit 1\n");
        assert!(ask_helper(&program, "x").await.is_none());
        assert!(ask_helper(&dir.path().join("none"), "x").await.is_none());
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        for (text, plain) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64(text).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64("Zm9v\n!"), None);
    }
}
