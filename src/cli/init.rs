//! `init`: looks at what runs here and writes a fleet file for it, to be read before it is used. Nothing else is written,
//! and nothing is started or changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Exit;
use super::out::{complain, say};
use crate::engine::docker::{self, Container};
use crate::fleet;
use crate::fleet::model;
use crate::fleet::names::{FleetName, ServiceName, Version};
use crate::proxy::{self, Found};
use crate::text::Safe;

/// What holds data, moves traffic or looks at others: nothing to be released beside itself.
const NOT_RELEASED: [&str; 29] = [
    "alertmanager",
    "caddy",
    "cassandra",
    "clickhouse-server",
    "consul",
    "elasticsearch",
    "envoy",
    "etcd",
    "grafana",
    "haproxy",
    "influxdb",
    "kafka",
    "mariadb",
    "memcached",
    "minio",
    "mongo",
    "mysql",
    "nats",
    "nginx",
    "opensearch",
    "postgres",
    "prometheus",
    "rabbitmq",
    "redis",
    "registry",
    "traefik",
    "valkey",
    "vault",
    "zookeeper",
];

/// `init`
#[derive(clap::Args)]
pub(super) struct Args {
    /// The Docker Engine to look at
    #[arg(long, value_name = "SOCKET", default_value = model::Container::SOCKET)]
    docker: PathBuf,
    /// Name of the fleet: 1 to 32 characters out of a-z, 0-9 and '-'; part of the names of everything that is made
    #[arg(long, default_value = "shop")]
    name: FleetName,
    /// Print the file instead of writing it
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(file: Option<&Path>, a: &Args) -> color_eyre::Result<Exit> {
    let file = file.map_or_else(|| PathBuf::from("fleet.toml"), Path::to_owned);
    let seen = look(a).await;
    let text = seen.fleet_file(a);
    if a.print {
        say(&text)?;
        return Ok(Exit::Done);
    }
    let shown = Safe::new(&file.to_string_lossy());
    let written = OpenOptions::new().write(true).create_new(true).open(&file).and_then(|mut f| {
        f.write_all(text.as_bytes())?;
        f.sync_all()
    });
    if let Err(e) = written {
        complain(&match e.kind() {
            ErrorKind::AlreadyExists => {
                format!(
                    "pilothouse: {shown} is there already and stays as it is; --print shows what would be written\n"
                )
            }
            _ => format!("pilothouse: cannot write {shown}: {e}\n"),
        });
        return Ok(Exit::Usage);
    }
    let mut out = seen.words();
    let _ = writeln!(out, "\n{shown} is written; every guess in it is marked. Read it first.");
    match fleet::load(&file) {
        Ok(loaded) => {
            for (what, lines) in
                loaded.fleet.proxies.values().flat_map(|p| proxy::lines_to_add(&loaded.fleet, p))
            {
                let _ = writeln!(out, "\n{what}:");
                for line in lines {
                    let _ = writeln!(out, "  {}", Safe::new(&line));
                }
            }
        }
        Err(problems) => {
            let _ = writeln!(out, "\nIt cannot be used as it is:\n{problems}");
        }
    }
    let adopt = if seen.services.is_empty() { "" } else { " --adopt" };
    let _ = writeln!(
        out,
        "\nthen:\n  pilothouse check     what the file declares\n  pilothouse doctor    what is missing for releases to \
         work\n  pilothouse up{adopt:<8} {}",
        if adopt.is_empty() {
            "starts what is declared"
        } else {
            "takes over what runs, with nothing restarted"
        }
    );
    say(&out)?;
    Ok(Exit::Done)
}

/// A service as it runs.
struct Running {
    name: String,
    repository: String,
    version: Option<String>,
    /// Other tags that run as well.
    others: Vec<String>,
    instances: Vec<Container>,
}

/// What was seen.
struct Seen {
    docker: Result<usize, String>,
    services: Vec<Running>,
    /// Containers that nothing is written for, and why.
    left_out: Vec<(String, &'static str)>,
    proxies: Vec<Behind>,
    /// Host ports that something has now.
    taken: BTreeSet<u16>,
}

/// A proxy that runs.
struct Behind {
    /// What it is to be called.
    name: String,
    found: Found,
    /// Its container's name.
    container: Option<String>,
}

/// What Pilothouse proposes for a proxy, and no two may share.
const PROPOSED: [&str; 4] = ["dir", "status", "log", "api"];

/// Gives a proxy another directory and other addresses than those that are proposed for one before it.
fn apart(found: &mut Found, taken: &mut BTreeSet<String>) {
    for s in &mut found.settings {
        // Traefik's directory is the one that it watches.
        if !PROPOSED.contains(&s.key) || (found.kind == "traefik" && s.key == "dir") {
            continue;
        }
        let Some(first) = s.value.parse::<toml::Value>().ok().and_then(|v| v.as_str().map(str::to_owned))
        else {
            continue;
        };
        let other = |n: u16| match first.parse::<SocketAddr>() {
            Ok(at) => proxy::free_address(at.port().saturating_add(n)),
            Err(_a_path) => format!("{first}-{}", n + 1),
        };
        let free =
            std::iter::once(first.clone()).chain((1..100).map(other)).find(|v| taken.insert(v.clone()));
        if let Some(free) = free.filter(|v| *v != first) {
            s.value = quoted(&free);
        }
    }
}

/// The proxies, each with a name, and with what its container lacks.
async fn proxies(a: &Args, containers: &[Container]) -> Vec<Behind> {
    let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
    let mut out = Vec::new();
    for mut found in proxy::found() {
        apart(&mut found, &mut taken);
        let numbered = (2..).map(|n| format!("{}-{n}", found.kind));
        let name = std::iter::once(found.kind.to_owned()).chain(numbered).find(|n| names.insert(n.clone()));
        let name = name.unwrap_or_default();
        let named = |id: &String| containers.iter().find(|c| c.id == *id).map(|c| c.name.to_string());
        // Docker knows it by the beginning of its id as well.
        let container =
            found.container.as_ref().map(|id| named(id).unwrap_or_else(|| id.chars().take(12).collect()));
        if let (Some(container), Ok(name)) = (&container, name.parse()) {
            let container = model::Container { name: container.clone(), engine: a.docker.clone() };
            let dir = found.settings.iter().find(|s| s.key == "dir");
            let dir = dir.and_then(|s| s.value.parse::<toml::Value>().ok());
            if let Some(dir) = dir.as_ref().and_then(toml::Value::as_str) {
                found.notes.extend(proxy::misfit(found.kind, &name, &container, Path::new(dir)).await);
            }
        }
        out.push(Behind { name, found, container });
    }
    out
}

async fn look(a: &Args) -> Seen {
    let (docker, containers) = match docker::survey(&a.docker).await {
        Ok(all) => (Ok(all.len()), all),
        Err(e) => (Err(e.to_string()), Vec::new()),
    };
    let proxies = proxies(a, &containers).await;
    let taken =
        containers.iter().flat_map(|c| c.ports.iter().filter_map(|(_, published)| *published)).collect();
    let mut left_out = Vec::new();
    let mut by_image: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for c in containers {
        let last = c.repository.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let why = if NOT_RELEASED.contains(&last.as_str()) {
            "is nothing that is released beside itself"
        } else if c.tag.is_none() {
            "runs an image without a tag, so it has no version"
        } else if c.ports.is_empty() {
            "has no port by which it could be checked"
        } else {
            by_image.entry(c.repository.to_string()).or_default().push(c);
            continue;
        };
        left_out.push((c.name.to_string(), why));
    }
    let mut names = BTreeSet::new();
    let services = by_image
        .into_iter()
        .map(|(repository, instances)| running(&mut names, repository, instances))
        .collect();
    Seen { docker, services, left_out, proxies, taken }
}

fn running(names: &mut BTreeSet<String>, repository: String, instances: Vec<Container>) -> Running {
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    for tag in instances.iter().filter_map(|c| c.tag.as_ref()) {
        *tags.entry(tag.as_str()).or_default() += 1;
    }
    let mut tags: Vec<(&str, usize)> =
        tags.into_iter().filter(|(t, _)| t.parse::<Version>().is_ok()).collect();
    tags.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let mut tags = tags.into_iter().map(|(t, _)| t.to_owned());
    let version = tags.next();
    let others = tags.collect();
    Running { name: service_name(names, &repository), repository, version, others, instances }
}

/// A name that nobody else has, as near to the image's as the rules allow.
fn service_name(names: &mut BTreeSet<String>, repository: &str) -> String {
    let last = repository.rsplit('/').next().unwrap_or_default().to_lowercase();
    let fits = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let words: String = last.chars().map(fits).collect();
    let words: Vec<&str> = words.split('-').filter(|w| !w.is_empty()).collect();
    let wanted: String = words.join("-").chars().take(28).collect();
    let wanted = wanted.trim_matches('-').to_owned();
    let wanted = if wanted.parse::<ServiceName>().is_ok() { wanted } else { "web".to_owned() };
    let numbered = (2..).map(|n| format!("{wanted}-{n}"));
    let free = std::iter::once(wanted.clone()).chain(numbered).find(|n| !names.contains(n)).unwrap_or(wanted);
    names.insert(free.clone());
    free
}

impl Seen {
    /// What was seen, for people.
    fn words(&self) -> String {
        let mut out = String::new();
        let _ = match &self.docker {
            Ok(n) => writeln!(out, "docker: {n} containers run that are not Pilothouse's"),
            Err(why) => writeln!(out, "docker: {}", Safe::new(why)),
        };
        for s in &self.services {
            let version = s.version.as_deref().unwrap_or("no version");
            let _ = writeln!(
                out,
                "  {}: {} of {} {version}",
                s.name,
                s.instances.len(),
                Safe::new(&s.repository)
            );
        }
        for (name, why) in &self.left_out {
            let _ = writeln!(out, "  {} {why}: left out", Safe::new(name));
        }
        if self.proxies.is_empty() {
            let _ = writeln!(
                out,
                "no proxy runs on this machine that Pilothouse knows: the embedded one is written down"
            );
        }
        for p in &self.proxies {
            let _ = match &p.container {
                Some(container) => {
                    writeln!(out, "{} runs in container {}", p.found.kind, Safe::new(container))
                }
                None => writeln!(out, "{} runs as process {}", p.found.kind, p.found.pid),
            };
            for note in &p.found.notes {
                let _ = writeln!(out, "  {note}");
            }
        }
        out
    }

    fn fleet_file(&self, a: &Args) -> String {
        let mut out = String::from(
            "# What was found on this machine. Read every line; a guess says so. docs/fleet-file.md explains all keys.\n\n",
        );
        let _ = writeln!(out, "name = {}", quoted(a.name.as_str()));
        let _ = writeln!(
            out,
            "environment = \"staging\"    # a guess; \"production\" makes risky verbs ask for more than a key\n"
        );
        out.push_str("[hosts.node-1]\n");
        if self.docker.is_ok() {
            let socket = format!("unix://{}", a.docker.to_string_lossy());
            let _ = writeln!(out, "engine = {}", quoted(&socket));
        } else {
            let _ = writeln!(
                out,
                "engine = \"process://\"      # no Docker Engine answered at {}",
                Safe::new(&a.docker.to_string_lossy())
            );
        }
        let _ = writeln!(
            out,
            "address = \"127.0.0.1\"      # a guess: where the proxy reaches published ports\n"
        );
        self.proxies_into(a, &mut out);
        let mut free = Free { taken: self.taken.clone(), next: 9000 };
        for s in &self.services {
            self.service_into(&mut out, s, &mut free);
        }
        if self.services.is_empty() {
            out.push_str(&self.sample());
        }
        out
    }

    /// The name that the first proxy is given.
    fn first_proxy(&self) -> String {
        self.proxies.first().map_or("edge", |p| p.name.as_str()).to_owned()
    }

    fn proxies_into(&self, a: &Args, out: &mut String) {
        for p in &self.proxies {
            let _ = writeln!(out, "[proxies.{}]               # process {}", p.name, p.found.pid);
            let _ = writeln!(out, "type = {}", quoted(p.found.kind));
            if let Some(container) = &p.container {
                let _ = writeln!(out, "container = {}    # it runs in it", quoted(container));
                if a.docker != Path::new(model::Container::SOCKET) {
                    let _ = writeln!(out, "engine = {}", quoted(&format!("unix://{}", a.docker.display())));
                }
            }
            for s in &p.found.settings {
                let _ = writeln!(out, "{} = {}    # {}", s.key, s.value, s.why);
            }
            for note in &p.found.notes {
                let _ = writeln!(out, "# to do: {note}");
            }
            out.push('\n');
        }
        if self.proxies.is_empty() {
            let _ = writeln!(
                out,
                "[proxies.edge]             # the embedded proxy: none that Pilothouse knows runs here\ntype = \"edge\"\n\
                 listen = \"{}\"    # a guess\n",
                proxy::free_address(8080)
            );
        }
    }

    fn service_into(&self, out: &mut String, s: &Running, free: &mut Free) {
        let count = u32::try_from(s.instances.len()).unwrap_or(u32::MAX);
        let _ = writeln!(out, "[services.{}]", s.name);
        let _ = writeln!(out, "image = {}", quoted(&s.repository));
        if let Some(version) = &s.version {
            let more = if s.others.is_empty() {
                String::new()
            } else {
                format!(
                    "    # a guess: {} runs as well; `up --adopt` takes over one version",
                    s.others.join(", ")
                )
            };
            let _ = writeln!(out, "version = {}{more}", quoted(version));
        }
        let Some(first) = s.instances.first() else { return };
        let (port, _) = first.ports.first().copied().unwrap_or((8080, None));
        let several = if first.ports.len() > 1 {
            let all: Vec<String> = first.ports.iter().map(|(p, _)| p.to_string()).collect();
            format!("    # a guess, out of {}", all.join(", "))
        } else {
            String::new()
        };
        let _ = writeln!(out, "port = {port}{several}");
        let _ = writeln!(out, "replicas = {count}");
        if first.ports.iter().any(|(_, published)| published.is_some()) {
            let (from, to) = free.range(count.saturating_mul(2));
            let _ = writeln!(
                out,
                "host_ports = \"{from}-{to}\"    # a guess: two for each instance, old and new run side by side"
            );
        } else {
            let _ = writeln!(out, "address = \"container\"       # it publishes no port");
            if let Some(network) = &first.network {
                let _ = writeln!(out, "network = {}", quoted(network.as_str()));
            }
        }
        let _ = writeln!(out, "proxies = [{}]", quoted(&self.first_proxy()));
        if !first.env.is_empty() {
            let names: Vec<&str> = first.env.iter().map(Safe::as_str).collect();
            let _ = writeln!(
                out,
                "# It runs with {}: write those that are no secret into env = {{ … }}, and the others\n\
                 # into a file of NAME=value lines that only the controller's user can read:\n\
                 # env_file = \"{}.env\"",
                names.join(", "),
                s.name
            );
        }
        let path = first.health.as_ref().and_then(|h| health_path(h.as_str(), port));
        let _ = match path {
            Some(path) => writeln!(
                out,
                "\n[services.{}.health]\nhttp = {}    # as in its image's health check\n",
                s.name,
                quoted(&path)
            ),
            None => writeln!(
                out,
                "\n[services.{}.health]\ntcp = true                 # a guess; http = \"/health\" knows more than that somebody listens\n",
                s.name
            ),
        };
        let _ = writeln!(
            out,
            "[services.{}.strategy]\ntype = \"canary\"            # a guess, as are the steps\nsteps = [\n  {{ weight = 5, \
             healthy_for = \"30s\" }},\n  {{ weight = 25, pause = \"2m\" }},\n  {{ weight = 50, pause = \"manual\" }},\n]\n\n\
             [services.{}.analysis]      # a version that fails more of its requests than this is taken back by itself\n\
             tolerance = \"0.5%\"\n",
            s.name, s.name
        );
    }

    /// A service to begin with, where nothing runs.
    fn sample(&self) -> String {
        let run = if self.docker.is_ok() {
            "image = \"registry.example:5000/shop/web\"    # change: nothing runs here yet\nversion = \"1.0.0\"\nport = 8080\n"
        } else {
            "command = [\"./web-{version}\", \"--port\", \"{port}\"]    # change: nothing runs here yet\nversion = \"1.0.0\"\n"
        };
        format!(
            "[services.web]\n{run}replicas = 2\nhost_ports = \"9000-9003\"   # two for each instance: old and new run side by \
             side\nproxies = [{}]\n\n[services.web.health]\nhttp = \"/\"                 # change\n",
            quoted(&self.first_proxy())
        )
    }
}

/// Host ports that nobody has.
struct Free {
    taken: BTreeSet<u16>,
    next: u16,
}

impl Free {
    /// So many in a row.
    fn range(&mut self, n: u32) -> (u16, u16) {
        let n = u16::try_from(n.max(2)).unwrap_or(u16::MAX);
        let mut from = self.next;
        while let Some(taken) = self.taken.range(from..from.saturating_add(n)).next_back() {
            from = taken.saturating_add(1);
        }
        self.next = from.saturating_add(n);
        (from, self.next.saturating_sub(1))
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The path that a health check asks for over HTTP, on the port that counts.
fn health_path(command: &str, port: u16) -> Option<String> {
    let (_, rest) = command.split_once("http://")?;
    let url: &str = rest.split(|c: char| c.is_whitespace() || "\"'|;)".contains(c)).next()?;
    let (host, path) = url.find('/').map_or((url, "/"), |at| url.split_at(at));
    let asked = host.rsplit_once(':').map_or(Some(80), |(_, p)| p.parse().ok());
    (asked == Some(port)).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(services: Vec<Container>) -> Seen {
        let mut names = BTreeSet::new();
        let services = if services.is_empty() {
            Vec::new()
        } else {
            vec![running(&mut names, "registry.example:5000/team/my_app".into(), services)]
        };
        Seen {
            docker: Ok(1),
            services,
            left_out: Vec::new(),
            proxies: Vec::new(),
            taken: [9001, 9004].into(),
        }
    }

    fn loads(seen: &Seen) -> crate::fleet::model::Fleet {
        let args = Args { docker: "/run/d.sock".into(), name: "shop".parse().unwrap(), print: true };
        let (dir, text) = (tempfile::tempdir().unwrap(), seen.fleet_file(&args));
        let file = dir.path().join("fleet.toml");
        std::fs::write(&file, &text).unwrap();
        fleet::load(&file).unwrap_or_else(|p| panic!("{p}\n{text}")).fleet
    }

    #[test]
    fn two_proxies_share_nothing_that_is_proposed() {
        let setting = |key, value: &str| proxy::Setting { key, value: quoted(value), why: "" };
        let found = |kind| Found {
            kind,
            pid: 1,
            container: None,
            settings: vec![
                setting("dir", "/etc/nginx/pilothouse"),
                setting("config", "/etc/nginx/nginx.conf"),
                setting("status", "127.0.0.1:18404"),
            ],
            notes: Vec::new(),
        };
        let (mut all, mut taken) = ([found("nginx"), found("nginx"), found("traefik")], BTreeSet::new());
        all.iter_mut().for_each(|f| apart(f, &mut taken));
        let values = |n: usize| values_of(&all[n]);
        assert_eq!(values(0), values_of(&found("nginx")), "the first is as it was");
        assert_eq!(values(1)[..2], ["\"/etc/nginx/pilothouse-2\"", "\"/etc/nginx/nginx.conf\""]);
        assert_eq!(values(2)[0], "\"/etc/nginx/pilothouse\"", "what Traefik watches is no proposal");
        let addresses: BTreeSet<&str> = (0..3).map(|n| values(n)[2]).collect();
        assert_eq!(addresses.len(), 3, "{addresses:?}");
    }

    fn values_of(found: &Found) -> Vec<&str> {
        found.settings.iter().map(|s| s.value.as_str()).collect()
    }

    #[test]
    fn what_is_written_can_be_used_and_says_what_runs() {
        let container = |tag: &str| Container {
            id: String::new(),
            name: "a".into(),
            repository: "x".into(),
            tag: Some(tag.into()),
            ports: vec![(8080, Some(32768)), (9100, None)],
            network: None,
            health: Some("CMD-SHELL curl -f http://localhost:8080/ready?x=1 || exit 1".into()),
            env: vec!["TOKEN".into()],
        };
        let mut fleet = loads(&seen(vec![container("1.2"), container("1.3"), container("1.3")]));
        let service = fleet.services.pop_first().unwrap().1;
        assert_eq!((service.name.as_str(), service.replicas(), service.port), ("my-app", 3, 8080));
        assert_eq!(service.version.unwrap().as_str(), "1.3");
        assert_eq!(service.host_ports, (9005, 9010), "around what is taken");
        assert_eq!(service.health.probe, crate::fleet::model::Probe::Http { path: "/ready?x=1".into() });
    }

    #[test]
    fn what_publishes_nothing_is_reached_at_its_own_address_and_nothing_at_all_is_a_beginning() {
        let container = Container {
            repository: "x".into(),
            tag: Some("1".into()),
            ports: vec![(80, None)],
            network: Some("team".into()),
            ..Container::default()
        };
        let fleet = loads(&seen(vec![container]));
        let service = fleet.services.values().next().unwrap();
        assert_eq!(service.address, crate::fleet::model::Address::Container);
        assert_eq!(service.network.as_deref(), Some("team"));
        loads(&seen(Vec::new()));
        loads(&Seen { docker: Err("nobody".into()), ..seen(Vec::new()) });
    }

    #[test]
    fn a_health_check_tells_its_path_and_one_of_another_port_does_not() {
        let path = |c| health_path(c, 8080);
        assert_eq!(path("wget -q http://127.0.0.1:8080 -O -").as_deref(), Some("/"));
        assert_eq!(path("curl 'http://localhost:8080/h'").as_deref(), Some("/h"));
        assert_eq!(path("curl http://localhost:9090/h"), None);
        assert_eq!(path("/app healthcheck"), None);
    }
}
