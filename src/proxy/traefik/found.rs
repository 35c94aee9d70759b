//! A Traefik that runs already: what the fleet file says of it.

use crate::proxy::found::{Found, Process, Setting, free};

pub(in crate::proxy) fn found(process: &Process) -> Option<Found> {
    if process.name != "traefik" {
        return None;
    }
    let given = |option: &str| {
        let inline =
            process.args.iter().find_map(|a| a.to_lowercase().starts_with(option).then(|| a.split_once('=')));
        inline.flatten().map(|(_, value)| value.to_owned())
    };
    let config = given("--configfile=").map(|file| process.path(&file));
    let text = config.map(|file| process.read(&file)).unwrap_or_default();
    // `directory: /etc/traefik/dynamic`, in YAML or TOML: the file provider has the only key of this name.
    let written = text.lines().find_map(|l| {
        let value = l.trim().strip_prefix("directory")?.trim_start().strip_prefix([':', '='])?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    });
    let dir = given("--providers.file.directory=").or(written).filter(|d| !d.is_empty());
    let (why, notes) = match &dir {
        Some(_) => ("what its file provider watches", Vec::new()),
        None => (
            "a guess",
            vec!["its file provider has to watch a directory: --providers.file.directory".to_owned()],
        ),
    };
    let dir = process.path(dir.as_deref().unwrap_or("/etc/traefik/dynamic"));
    let settings = vec![
        Setting::path("dir", &dir, why),
        Setting::text(
            "api",
            &free(8404),
            "where its entry point 'pilothouse' is to listen; nothing else does now",
        ),
    ];
    Some(Found { kind: "traefik", pid: process.pid, container: None, settings, notes })
}
