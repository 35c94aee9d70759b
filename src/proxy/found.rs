//! Proxies that run on this machine already, by what the kernel tells of their processes. For `pilothouse init`.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// Its id.
    pub(super) pid: u32,
    /// The name of its program, as the kernel has it: at most 15 bytes.
    pub(super) name: String,
    /// Its arguments, the program first.
    pub(super) args: Vec<String>,
    /// The file of its program, where that may be known.
    pub(super) program: Option<PathBuf>,
    /// What its relative paths start from.
    pub(super) dir: PathBuf,
    /// The id of its container, where it runs in one: paths are the container's then.
    pub(super) container: Option<String>,
}

impl Process {
    /// A path of its arguments.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.dir.join(written)
    }

    /// The text of a file, as the process sees it; empty where it cannot be read.
    pub(super) fn read(&self, path: &Path) -> String {
        let seen = match &self.container {
            Some(_) => {
                let inside = path.strip_prefix("/").unwrap_or(path);
                Path::new("/proc").join(self.pid.to_string()).join("root").join(inside)
            }
            None => path.to_owned(),
        };
        fs::read_to_string(seen).unwrap_or_default()
    }

    /// What follows each `option`, as in `-f FILE`.
    pub(super) fn after<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.args.iter().zip(self.args.iter().skip(1));
        pairs.filter(move |(o, _)| *o == option).map(|(_, value)| value.as_str())
    }
}

/// A proxy that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What `type` calls it.
    pub kind: &'static str,
    /// Its process.
    pub pid: u32,
    /// The id of its container, where it runs in one.
    pub container: Option<String>,
    /// Keys of its table in the fleet file, and their values as they are written there.
    pub settings: Vec<Setting>,
    /// What has to be changed in how it runs before releases work, in words.
    pub notes: Vec<String>,
}

/// One line of a fleet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value, as TOML.
    pub value: String,
    /// Why it is what it is; a guess says so.
    pub why: &'static str,
}

impl Setting {
    /// A text.
    pub(super) fn text(key: &'static str, value: &str, why: &'static str) -> Self {
        Self { key, value: toml::Value::from(value).to_string(), why }
    }

    /// A path.
    pub(super) fn path(key: &'static str, value: &Path, why: &'static str) -> Self {
        Self::text(key, &value.to_string_lossy(), why)
    }
}

/// One function for each kind that runs by itself.
const KINDS: [fn(&Process) -> Option<Found>; 5] = [
    super::haproxy::found,
    super::nginx::found,
    super::caddy::found,
    super::traefik::found,
    super::envoy::found,
];

/// Keys that mean something of this machine, not of a container.
const OURS: [&str; 2] = ["pid", "binary"];

/// All proxies that run on this machine, each once.
#[must_use]
pub fn all() -> Vec<Found> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<Found> = pids
        .filter_map(process)
        .filter_map(|process| {
            let mut found = KINDS.iter().find_map(|kind| kind(&process))?;
            if process.container.is_some() {
                found.settings.retain(|s| !OURS.contains(&s.key));
            }
            found.container = process.container;
            Some(found)
        })
        .collect();
    found.sort_by_key(|f| f.pid);
    found
}

/// Whether a process sees the files that we see.
fn here(pid: u32) -> bool {
    let files = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
    files(&pid.to_string()).is_some_and(|theirs| Some(theirs) == files("self"))
}

/// The id of the container that a process runs in, as Docker names control groups.
fn container(groups: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let last = line.rsplit('/').next()?;
        let last = last.strip_prefix("docker-").and_then(|l| l.strip_suffix(".scope")).unwrap_or(last);
        (last.len() == 64 && last.bytes().all(|b| b.is_ascii_hexdigit())).then(|| last.to_owned())
    })
}

fn process(pid: u32) -> Option<Process> {
    let name = name(pid)?;
    let container = if here(pid) {
        None
    } else {
        // Of another namespace, and in no container that could be named: nothing can be said of its files.
        Some(container(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?)
    };
    let args = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args = args.split(|b| *b == 0).filter(|a| !a.is_empty());
    let args: Vec<String> = args.map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
    // A worker: its master is the one to talk to.
    if self::name(parent).as_ref() == Some(&name) {
        return None;
    }
    let link = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).ok();
    Some(Process { pid, name, args, program: link("exe"), dir: link("cwd").unwrap_or_default(), container })
}

fn name(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// A loopback address with a port that nobody has now, `first` or one soon after.
#[must_use]
pub fn free(first: u16) -> String {
    let taken = |port: &u16| {
        let at = (Ipv4Addr::LOCALHOST, *port);
        TcpListener::bind(at).is_err() || UdpSocket::bind(at).is_err()
    };
    let port = (first..first.saturating_add(100)).find(|p| !taken(p)).unwrap_or(first);
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Process {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let name = args[0].rsplit('/').next().unwrap().to_owned();
        Process {
            pid: 1,
            name,
            args,
            program: Some("/opt/bin/server".into()),
            dir: "/srv".into(),
            container: None,
        }
    }

    fn value<'a>(found: &'a Found, key: &str) -> &'a str {
        found.settings.iter().find(|s| s.key == key).map_or("", |s| &s.value)
    }

    #[test]
    fn haproxy_is_read_from_its_arguments() {
        let args = ["haproxy", "-W", "-S", "/run/m.sock,level,admin", "-f", "a.cfg", "-f", "/etc/b.cfg"];
        let found = super::super::haproxy::found(&of(&args)).unwrap();
        assert_eq!(value(&found, "master_socket"), "\"/run/m.sock\"");
        assert_eq!(value(&found, "config"), "[\"/srv/a.cfg\", \"/etc/b.cfg\"]");
        assert_eq!(value(&found, "binary"), "\"/opt/bin/server\"");
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        let found =
            super::super::haproxy::found(&of(&["/usr/sbin/haproxy", "-f", "/etc/haproxy/haproxy.cfg"]))
                .unwrap();
        assert_eq!(value(&found, "master_socket"), "\"/run/haproxy/master.sock\"");
        assert!(
            found.notes.iter().any(|n| n.contains("-W -S /run/haproxy/master.sock")),
            "{:?}",
            found.notes
        );
        assert_eq!(super::super::haproxy::found(&of(&["nginx"])), None);
    }

    #[test]
    fn caddy_traefik_and_envoy_are_read_from_their_arguments() {
        let process = of(&["/usr/bin/caddy", "run", "--config", "Caddyfile"]);
        let found = super::super::caddy::found(&process).unwrap();
        assert_eq!(value(&found, "config"), "\"/srv/Caddyfile\"");
        let found = super::super::caddy::found(&of(&["caddy", "run", "--config", "/x.json"])).unwrap();
        assert!(found.notes.iter().any(|n| n.contains("JSON")), "{:?}", found.notes);

        let found =
            super::super::traefik::found(&of(&["traefik", "--providers.file.directory=dyn"])).unwrap();
        assert_eq!((value(&found, "dir"), found.notes.len()), ("\"/srv/dyn\"", 0));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "providers:\n  file:\n    directory: \"/etc/dyn\"\n").unwrap();
        let option = format!("--configFile={}", file.path().display());
        let found = super::super::traefik::found(&of(&["traefik", &option])).unwrap();
        assert_eq!(value(&found, "dir"), "\"/etc/dyn\"");
        let found = super::super::traefik::found(&of(&["traefik"])).unwrap();
        assert_eq!((value(&found, "dir"), found.notes.len()), ("\"/etc/traefik/dynamic\"", 1));

        assert_eq!(super::super::envoy::found(&of(&["envoy", "-c", "e.yaml"])).unwrap().kind, "envoy");
    }

    #[test]
    fn containers_are_known_by_their_control_groups() {
        let id = "6303fd812e72d6a50898a80b0722eec83a1d583749da9f3c9f8b06f3559bd9dd";
        assert_eq!(container(&format!("9:name=systemd:/docker/{id}\n8:pids:/docker/{id}\n")).unwrap(), id);
        assert_eq!(container(&format!("0::/system.slice/docker-{id}.scope\n")).unwrap(), id);
        assert_eq!(container("0::/user.slice/user-1000.slice\n"), None);
        assert_eq!(container(""), None);
    }

    #[test]
    fn nginx_is_read_from_its_title() {
        let mut process = of(&["nginx: master process /usr/sbin/nginx -c op.conf -g daemon on;"]);
        process.name = "nginx".into();
        let found = super::super::nginx::found(&process).unwrap();
        assert_eq!(value(&found, "config"), "\"/srv/op.conf\"");
        process.args = vec!["nginx: worker process".into()];
        assert_eq!(super::super::nginx::found(&process), None);
    }
}
