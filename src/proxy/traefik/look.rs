//! What there is: what Traefik's API says is in force, and whether that is what a route means.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::{self, Parts};
use super::{ASK_DEADLINE, Traefik};
use crate::fleet::names::{InstanceId, ServiceName};
use crate::proxy::{ProxyError, files, sockets};
use crate::rollout::world::{Route, Slot};
use crate::text::Safe;

/// What Traefik's API says of everything.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Raw {
    #[serde(default)]
    pub(super) routers: Map<String, Value>,
    #[serde(default)]
    pub(super) services: Map<String, Value>,
    #[serde(default)]
    pub(super) middlewares: Map<String, Value>,
}

/// What of a service is in force.
#[derive(Debug)]
pub(super) struct Seen {
    /// The route that it says it is.
    pub(super) route: Route,
    /// Whether it is that, and nothing else.
    pub(super) intact: bool,
    /// Whether an operator has sent everything to stable by hand.
    pub(super) by_hand: bool,
    /// What Traefik's own checks say, where it has some.
    pub(super) up: BTreeMap<InstanceId, bool>,
}

/// The name of something of the file provider's.
pub(super) fn of_file(name: &str) -> String {
    format!("{name}@file")
}

fn enabled(value: &Value) -> bool {
    value.get("status").and_then(Value::as_str) != Some("disabled")
}

impl Traefik {
    /// What our entry point answers to a GET.
    pub(super) async fn ask(&self, path: &str) -> Result<(u16, String), ProxyError> {
        let api = self.settings.api;
        let http = match &self.http {
            Ok(http) => http,
            Err(e) => return Err(self.refused(&format!("no HTTP client: {e}"))),
        };
        let talk = async {
            let answer = http.get(format!("http://{api}{path}")).timeout(ASK_DEADLINE).send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
        };
        match talk.await {
            Ok(answer) => Ok(answer),
            Err(e) if e.is_timeout() => {
                let secs = ASK_DEADLINE.as_secs();
                Err(self.unknown(&format!("Traefik does not answer at {api} within {secs} s")))
            }
            Err(e) => Err(self.unknown(&format!(
                "Traefik does not answer at {api}: {}; does it run, with an entry point pilothouse there?",
                source(&e)
            ))),
        }
    }

    /// The same, as JSON; `None` where there is no such thing.
    pub(super) async fn ask_json<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ProxyError> {
        let (status, text) = self.ask(path).await?;
        let answer = match status {
            200 => serde_json::from_str(&text).map(Some).map_err(|e| e.to_string()),
            404 if text.starts_with('{') => Ok(None),
            status => Err(format!("status {status}")),
        };
        answer.map_err(|e| {
            let file = config::path(&self.settings.dir, &self.fleet);
            self.unknown(&format!(
                "what answers at {} is not Traefik's API as {} has it routed ({e}): is that directory its file \
                 provider's, has its static configuration `api: {{}}`, and does its log name a file that it cannot read?",
                self.settings.api,
                file.display()
            ))
        })
    }

    /// Everything that is in force.
    pub(super) async fn raw(&self) -> Result<Raw, ProxyError> {
        Ok(self.ask_json("/api/rawdata").await?.unwrap_or_default())
    }

    /// What of our services is in force.
    pub(super) fn seen(&self, raw: &Raw) -> BTreeMap<ServiceName, Seen> {
        let ours = raw.middlewares.iter().filter_map(|(name, m)| {
            let route = config::marked(m)?;
            let base = config::base(&self.fleet, &route.service);
            (*name == of_file(&config::route_name(&base))).then_some((route, base))
        });
        let seen = ours.map(|(route, base)| {
            let want = config::service(&route, &self.fleet, self.settings.api);
            let by_hand = of_file(&config::by_hand_name(&base));
            let seen = Seen {
                intact: is(&want, raw, &base, &by_hand),
                by_hand: raw.routers.get(&by_hand).is_some_and(enabled),
                up: up(&route, raw, &base),
                route,
            };
            (seen.route.service.clone(), seen)
        });
        seen.collect()
    }

    /// Connections that Traefik has, by the address at the far end. Every process of that name counts: which of them
    /// answers is not known when Traefik runs in a container, and an instance has only one address.
    pub(super) fn connections(&self) -> Result<BTreeMap<SocketAddr, u32>, ProxyError> {
        let find = || {
            let mut out = BTreeMap::new();
            let mut found = false;
            for pid in processes() {
                // One that ends meanwhile has none.
                let Ok(whose) = sockets::of_process(pid) else { continue };
                let Ok(open) = sockets::connections(pid, &whose) else { continue };
                found = true;
                for (addr, n) in open {
                    *out.entry(addr).or_default() += n;
                }
            }
            found.then_some(out)
        };
        files::waiting_for_disk(find).ok_or_else(|| {
            self.unknown(
                "no process called traefik is to be seen on this machine, so nobody knows what is in flight",
            )
        })
    }
}

/// What went wrong at the bottom of it.
fn source(e: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = e;
    while let Some(below) = last.source() {
        last = below;
    }
    Safe::capped(&last.to_string(), 200).to_string()
}

/// Processes that are called `traefik`.
fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let traefik = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "traefik")
    };
    pids.filter(traefik).collect()
}

/// Whether exactly this is in force of a service.
fn is(want: &Parts, raw: &Raw, base: &str, by_hand: &str) -> bool {
    let kinds = [
        (&want.routers, &raw.routers),
        (&want.services, &raw.services),
        (&want.middlewares, &raw.middlewares),
    ];
    kinds.into_iter().all(|(want, have)| {
        let there = |(name, value): (&String, &Value)| {
            have.get(&of_file(name)).is_some_and(|h| enabled(h) && covers(h, value))
        };
        let begins = format!("{base}_");
        let names: BTreeSet<String> = want.keys().map(|n| of_file(n)).collect();
        let known = |name: &String| !name.starts_with(&begins) || name == by_hand || names.contains(name);
        want.iter().all(there) && have.keys().all(known)
    })
}

/// Whether Traefik, which adds what it takes for granted, says this.
fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => want.iter().all(|(key, want)| {
            // Durations are written in a way of its own.
            ["interval", "timeout"].contains(&key.as_str())
                || match have.get(key) {
                    Some(have) => covers(have, want),
                    None => want.as_array().is_some_and(Vec::is_empty),
                }
        }),
        (Value::Array(have), Value::Array(want)) => {
            have.len() == want.len() && have.iter().zip(want).all(|(h, w)| covers(h, w))
        }
        (Value::String(have), Value::String(want)) => have == want || *have == of_file(want),
        (have, want) => have == want,
    }
}

/// What Traefik's checks say of each endpoint in rotation.
fn up(route: &Route, raw: &Raw, base: &str) -> BTreeMap<InstanceId, bool> {
    let mut out = BTreeMap::new();
    for slot in Slot::BOTH {
        for e in &route.slots.get(slot).endpoints {
            let name = of_file(&config::endpoint_name(base, slot, e.instance.as_str(), false));
            let Some(service) = raw.services.get(&name) else { continue };
            // Without a check it says that everything is up.
            let checked = service.pointer("/loadBalancer/healthCheck").is_some();
            let status = service.get("serverStatus").and_then(Value::as_object);
            let status = status.and_then(|s| s.values().next()).and_then(Value::as_str);
            if let (true, Some(status)) = (checked, status) {
                out.insert(e.instance.clone(), status == "UP");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_traefik_adds_is_no_difference_and_all_else_is() {
        let want = json!({ "weighted": { "services": [{ "name": "a", "weight": 5 }] }, "servers": [] });
        let mut have = json!({
            "status": "enabled", "weighted": { "services": [{ "name": "a@file", "weight": 5 }], "x": 1 }
        });
        assert!(covers(&have, &want));
        have["weighted"]["services"][0]["weight"] = 6.into();
        assert!(!covers(&have, &want));
        have["weighted"]["services"] = json!([]);
        assert!(!covers(&have, &want));
        assert!(!covers(&json!({}), &want));
        assert!(!enabled(&json!({ "status": "disabled" })) && enabled(&json!({ "status": "warning" })));
    }
}
