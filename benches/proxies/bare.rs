//! What an operator without Pilothouse does for the same change: a service of their own, split by hand in
//! their own configuration, and the shortest command that changes its weights.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::operators;
use crate::support::{Backend, Harness, client, free_addr, get};

/// Two versions, `a` and `b`, of a service that the operator splits.
#[async_trait]
pub trait Bare: Send {
    /// What is done, in words.
    fn words(&self) -> &'static str;

    /// Where its clients ask, and for what.
    fn address(&self) -> (SocketAddr, &'static str);

    /// Sends everything to `b`, or to `a`; returns when the server says that it is so, where it says so.
    async fn all_to(&mut self, b: bool);
}

/// Adds to a file of the operator's, and starts the server with it.
async fn add(h: &mut Harness, file: &str, change: impl FnOnce(String) -> String) {
    let file = h.path().join(file);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, change(text)).unwrap();
    h.restart().await;
}

/// Puts a new file in the place of another, as those who watch it expect.
fn replace(dir: &Path, file: &Path, text: &str) {
    let new = dir.join("bare.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// Asks until `is` holds of an answer of the server's own interface.
async fn until(at: SocketAddr, path: &str, is: impl Fn(&str) -> bool) {
    let (client, end) = (client(), Instant::now() + Duration::from_secs(20));
    while !get(&client, at, path).await.is_ok_and(|answer| is(&answer)) {
        assert!(Instant::now() < end, "http://{at}{path} never shows the change");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Haproxy {
    at: SocketAddr,
    dir: PathBuf,
}

pub async fn haproxy(h: &mut Harness, a: &Backend, b: &Backend) -> Box<dyn Bare> {
    let bare = Haproxy { at: free_addr(), dir: h.path().to_owned() };
    let (at, dir) = (bare.at, bare.dir.display());
    std::fs::write(bare.dir.join("bare.map"), "share 0\n").unwrap();
    let more = format!(
        "global\n    stats socket {dir}/op.sock level admin\nfrontend bare\n    bind {at}\n    \
         http-request set-var(txn.share) str(share),map_str_int({dir}/bare.map)\n    \
         use_backend bare_b if {{ rand(10000),sub(txn.share) lt 0 }}\n    default_backend bare_a\n\
         backend bare_a\n    server one {}\nbackend bare_b\n    server one {}\n",
        a.addr, b.addr
    );
    add(h, "op.cfg", |text| text + &more).await;
    Box::new(bare)
}

#[async_trait]
impl Bare for Haproxy {
    fn words(&self) -> &'static str {
        "`set map` on its socket"
    }

    fn address(&self) -> (SocketAddr, &'static str) {
        (self.at, "/")
    }

    async fn all_to(&mut self, b: bool) {
        let share = if b { 10_000 } else { 0 };
        let command = format!("set map {}/bare.map share {share}\n", self.dir.display());
        let mut socket = tokio::net::UnixStream::connect(self.dir.join("op.sock")).await.unwrap();
        socket.write_all(command.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).await.unwrap();
        assert!(said.trim().is_empty(), "{said}");
    }
}

struct Nginx {
    at: SocketAddr,
    dir: PathBuf,
    binary: PathBuf,
}

impl Nginx {
    fn write(&self, b: bool) {
        let all = if b { "bare_b" } else { "bare_a" };
        let text = format!("split_clients $request_id $bare {{ * {all}; }}\n");
        replace(&self.dir, &self.dir.join("bare.conf"), &text);
    }
}

pub async fn nginx(h: &mut Harness, a: &Backend, b: &Backend) -> Box<dyn Bare> {
    let binary = crate::require::program("nginx").unwrap();
    let bare = Nginx { at: free_addr(), dir: h.path().to_owned(), binary };
    bare.write(false);
    let more = format!(
        "    include {}/bare.conf;\n    upstream bare_a {{ server {}; }}\n    upstream bare_b {{ server {}; }}\n    \
         server {{ listen {}; location / {{ proxy_pass http://$bare; }} }}\n}}\n",
        bare.dir.display(),
        a.addr,
        b.addr,
        bare.at
    );
    add(h, "op.conf", |text| text.strip_suffix("}\n").unwrap().to_owned() + &more).await;
    Box::new(bare)
}

#[async_trait]
impl Bare for Nginx {
    fn words(&self) -> &'static str {
        "`split_clients` rewritten, `nginx -s reload`"
    }

    fn address(&self) -> (SocketAddr, &'static str) {
        (self.at, "/")
    }

    async fn all_to(&mut self, b: bool) {
        self.write(b);
        let mut command = tokio::process::Command::new(&self.binary);
        command.arg("-c").arg(self.dir.join("op.conf")).args(["-s", "reload"]);
        let ended = command.output().await.unwrap();
        assert!(ended.status.success(), "{ended:?}");
    }
}

struct Caddy {
    at: SocketAddr,
    /// Where its administration interface has the upstreams.
    upstreams: String,
    to: [SocketAddr; 2],
}

pub async fn caddy(h: &mut Harness, a: &Backend, b: &Backend) -> Box<dyn Bare> {
    let at = free_addr();
    let site = format!("http://:{} {{\n    bind 127.0.0.1\n    reverse_proxy {}\n}}\n", at.port(), a.addr);
    let mut admin = String::new();
    add(h, "Caddyfile", |text| {
        admin = text.split("admin ").nth(1).unwrap().lines().next().unwrap().to_owned();
        text + &site
    })
    .await;
    let servers = get(&client(), admin.parse().unwrap(), "/config/apps/http/servers").await.unwrap();
    let servers: Value = serde_json::from_str(&servers).unwrap();
    let mine = |server: &Value| server["listen"].to_string().contains(&at.to_string());
    let (name, server) = servers.as_object().unwrap().iter().find(|(_, s)| mine(s)).unwrap();
    let path = upstreams(server).unwrap();
    let upstreams = format!("http://{admin}/config/apps/http/servers/{name}{path}");
    Box::new(Caddy { at, upstreams, to: [a.addr, b.addr] })
}

/// The path to the first `upstreams` below a part of Caddy's configuration.
fn upstreams(part: &Value) -> Option<String> {
    let below: Vec<(String, &Value)> = match part {
        Value::Object(all) if all.contains_key("upstreams") => return Some("/upstreams".to_owned()),
        Value::Object(all) => all.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(all) => all.iter().enumerate().map(|(n, v)| (n.to_string(), v)).collect(),
        _ => return None,
    };
    below.into_iter().find_map(|(key, value)| Some(format!("/{key}{}", upstreams(value)?)))
}

#[async_trait]
impl Bare for Caddy {
    fn words(&self) -> &'static str {
        "`PATCH` of the upstreams"
    }

    fn address(&self) -> (SocketAddr, &'static str) {
        (self.at, "/")
    }

    async fn all_to(&mut self, b: bool) {
        let body = serde_json::json!([{ "dial": self.to[usize::from(b)].to_string() }]).to_string();
        let request = Request::patch(&self.upstreams).header("content-type", "application/json");
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
        let status = answer.status();
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{status} {}", String::from_utf8_lossy(&said));
    }
}

struct Traefik {
    listen: SocketAddr,
    api: SocketAddr,
    dir: PathBuf,
    to: [SocketAddr; 2],
}

pub async fn traefik(h: &mut Harness, a: &Backend, b: &Backend) -> Box<dyn Bare> {
    let settings = std::fs::read_to_string(h.path().join("traefik.yml")).unwrap();
    // Of the two addresses, the one that is not the operator's own entry point.
    let addresses = settings
        .split("address: ")
        .skip(1)
        .filter_map(|rest| rest.lines().next()?.trim().trim_matches('"').parse::<SocketAddr>().ok());
    let api = addresses.into_iter().find(|at| *at != h.listen).unwrap();
    let mut bare = Traefik { listen: h.listen, api, dir: h.path().to_owned(), to: [a.addr, b.addr] };
    bare.all_to(false).await;
    Box::new(bare)
}

#[async_trait]
impl Bare for Traefik {
    fn words(&self) -> &'static str {
        "the file provider's file rewritten, until its API shows it"
    }

    fn address(&self) -> (SocketAddr, &'static str) {
        (self.listen, "/bare")
    }

    async fn all_to(&mut self, b: bool) {
        let (of_a, of_b) = if b { (0, 1) } else { (1, 0) };
        let text = format!(
            "http:\n  routers:\n    bare: {{ rule: \"PathPrefix(`/bare`)\", entryPoints: [web], service: bare }}\n  \
             services:\n    bare:\n      weighted:\n        services:\n        - {{ name: bare-a, weight: {of_a} }}\n        \
             - {{ name: bare-b, weight: {of_b} }}\n    bare-a: {{ loadBalancer: {{ servers: [ {{ url: \"http://{}\" }} ] }} }}\n    \
             bare-b: {{ loadBalancer: {{ servers: [ {{ url: \"http://{}\" }} ] }} }}\n",
            self.to[0], self.to[1]
        );
        replace(&self.dir, &self.dir.join("own/bare.yml"), &text);
        until(self.api, "/api/http/services/bare@file", |answer| {
            let shown: Value = serde_json::from_str(answer).unwrap_or_default();
            let weight = |n: usize| shown["weighted"]["services"][n]["weight"].as_u64();
            (weight(0), weight(1)) == (Some(of_a), Some(of_b))
        })
        .await;
    }
}

struct Envoy {
    at: SocketAddr,
    admin: SocketAddr,
    dir: PathBuf,
    changes: u64,
}

impl Envoy {
    fn write(&self, b: bool) {
        let (of_a, of_b) = if b { (0, 100) } else { (100, 0) };
        let text = format!(
            "version_info: \"{}\"\nresources:\n- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  \
             name: bare\n  virtual_hosts:\n  - name: bare\n    domains: [\"*\"]\n    routes:\n    - match: {{ prefix: \"/\" }}\n      \
             route: {{ weighted_clusters: {{ clusters: [ {{ name: bare_a, weight: {of_a} }}, \
             {{ name: bare_b, weight: {of_b} }} ] }} }}\n",
            self.changes
        );
        replace(&self.dir, &self.dir.join("bare.yaml"), &text);
    }

    /// Until its configuration dump has as many changes as were made.
    async fn shown(&self) {
        let version = format!("\"version_info\": \"{}\"", self.changes);
        until(self.admin, "/config_dump?resource=dynamic_route_configs", |answer| answer.contains(&version))
            .await;
    }
}

pub async fn envoy(h: &mut Harness, a: &Backend, b: &Backend) -> Box<dyn Bare> {
    let admin = std::fs::read_to_string(h.path().join("admin")).unwrap().parse().unwrap();
    // Far from the numbers that Pilothouse gives its own files.
    let bare = Envoy { at: free_addr(), admin, dir: h.path().to_owned(), changes: 7_000_000_000 };
    bare.write(false);
    let routes = format!(
        "rds: {{ route_config_name: bare, config_source: {{ resource_api_version: V3, \
         path_config_source: {{ path: \"{}/bare.yaml\" }} }} }}",
        bare.dir.display()
    );
    let cluster = |name: &str, at: SocketAddr| {
        format!(
            "  - {{ name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{ cluster_name: {name}, endpoints: \
             [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }} ] }} ] }} }}\n",
            at.ip(),
            at.port()
        )
    };
    let more = operators::envoy_listener(bare.at, &routes, "", "")
        + "  clusters:\n"
        + &cluster("bare_a", a.addr)
        + &cluster("bare_b", b.addr);
    add(h, "op.yaml", |text| text + &more).await;
    bare.shown().await;
    Box::new(bare)
}

#[async_trait]
impl Bare for Envoy {
    fn words(&self) -> &'static str {
        "the RDS file renamed into place, until /config_dump shows it"
    }

    fn address(&self) -> (SocketAddr, &'static str) {
        (self.at, "/")
    }

    async fn all_to(&mut self, b: bool) {
        self.changes += 1;
        self.write(b);
        self.shown().await;
    }
}
