//! Requests per instance out of what Traefik tells Prometheus, as each instance is a service of its own.

use std::collections::BTreeMap;

use super::config;
use crate::fleet::names::{FleetName, InstanceId};
use crate::rollout::world::{Route, Slot};
use crate::traffic::Counters;

/// One line: the name, its labels, the number.
struct Line<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Line<'a> {
    /// `None` for what is no number. None of the labels that matter here holds a quote.
    fn parse(line: &'a str) -> Option<Self> {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|l| l.split_once("=\""));
        let labels = labels.map(|(k, v)| (k, v.trim_end_matches('"'))).collect();
        Some(Self { name, labels, value: value.parse().ok()? })
    }

    fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.iter().find(|(k, _)| *k == name).map(|(_, v)| *v)
    }
}

/// What one look at the numbers tells.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// When the process was started, as Traefik has it: the name of this life of its counters.
    pub(super) life: String,
    /// The counts of each instance.
    pub(super) counts: BTreeMap<InstanceId, Counters>,
}

/// Reads the numbers of the instances of these routes; of one that is not there yet they are all zero.
pub(super) fn read(text: &str, routes: &[Route], fleet: &FleetName) -> Metrics {
    let mut out = Metrics::default();
    let mut whose = BTreeMap::new();
    for route in routes {
        let base = config::base(fleet, &route.service);
        for (slot, e) in Slot::BOTH.iter().flat_map(|s| route.slots.get(*s).endpoints.iter().map(|e| (*s, e)))
        {
            out.counts.entry(e.instance.clone()).or_default();
            for whatever in [false, true] {
                let name = config::endpoint_name(&base, slot, e.instance.as_str(), whatever);
                whose.insert(format!("{name}@file"), e.instance.clone());
            }
        }
    }
    // By instance, status and so on: each series has buckets that hold those below them as well.
    let mut buckets: BTreeMap<(InstanceId, String), Vec<(f64, u64)>> = BTreeMap::new();
    for line in text.lines().filter_map(Line::parse) {
        if line.name == "process_start_time_seconds" {
            out.life = line.value.to_string();
        }
        let Some(instance) = line.label("service").and_then(|s| whose.get(s)) else { continue };
        let n = line.value as u64;
        match line.name {
            "traefik_service_requests_total" => {
                let c = out.counts.entry(instance.clone()).or_default();
                c.requests += n;
                let failed = line.label("code").and_then(|c| c.parse::<u16>().ok()).is_some_and(|c| c >= 500);
                c.errors += if failed { n } else { 0 };
            }
            "traefik_service_request_duration_seconds_bucket" => {
                let others = line.labels.iter().filter(|(k, _)| *k != "le");
                let series: Vec<String> = others.map(|(k, v)| format!("{k}={v}")).collect();
                let up_to = line.label("le").and_then(|le| le.parse().ok()).unwrap_or(f64::INFINITY);
                buckets.entry((instance.clone(), series.join(","))).or_default().push((up_to, n));
            }
            _ => {}
        }
    }
    for ((instance, _), mut series) in buckets {
        series.sort_by(|a, b| a.0.total_cmp(&b.0));
        let c = out.counts.entry(instance).or_default();
        let (mut below, mut bound) = (0, 0.0);
        for (up_to, n) in series {
            // Above the last bound nothing is known but that.
            bound = if up_to.is_finite() { up_to } else { bound * 2.0 };
            c.latency.record_many((bound * 1e6) as u64, n.saturating_sub(below));
            below = n.max(below);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::nothing;
    use crate::rollout::world::{EndpointState, RouteEndpoint};

    #[test]
    fn numbers_are_those_of_the_instance_over_both_services_and_every_status() {
        let fleet: FleetName = "shop".parse().unwrap();
        let (one, two): (InstanceId, InstanceId) =
            ("web-00000001-1".parse().unwrap(), "web-00000002-1".parse().unwrap());
        let mut route = nothing(&"web".parse().unwrap());
        let endpoint = |instance: &InstanceId| RouteEndpoint {
            instance: instance.clone(),
            addr: "127.0.0.1:1".parse().unwrap(),
            state: EndpointState::Drain,
        };
        route.slots.a.endpoints = vec![endpoint(&one)];
        route.slots.b.endpoints = vec![endpoint(&two)];
        let text = r#"# HELP x y
process_start_time_seconds 1.79583334061e+09
traefik_service_requests_total{code="200",method="GET",protocol="http",service="shop_web_a_web-00000001-1@file"} 7
traefik_service_requests_total{code="502",method="GET",protocol="http",service="shop_web_a_web-00000001-1@file"} 2
traefik_service_requests_total{code="200",method="GET",protocol="http",service="shop_web_a_web-00000001-1_any@file"} 1
traefik_service_requests_total{code="200",method="GET",protocol="http",service="shop_web_b_web-00000001-1@file"} 99
traefik_service_request_duration_seconds_bucket{code="200",method="GET",protocol="http",service="shop_web_a_web-00000001-1@file",le="0.1"} 5
traefik_service_request_duration_seconds_bucket{code="200",method="GET",protocol="http",service="shop_web_a_web-00000001-1@file",le="0.3"} 6
traefik_service_request_duration_seconds_bucket{code="200",method="GET",protocol="http",service="shop_web_a_web-00000001-1@file",le="+Inf"} 7
nonsense
"#;
        let m = read(text, &[route], &fleet);
        assert_eq!(m.life, "1795833340.61");
        let c = &m.counts[&one];
        assert_eq!((c.requests, c.errors, c.retries, c.latency.count()), (10, 2, 0, 7));
        assert!((100_000..=119_000).contains(&c.latency.quantile_us(0.5).unwrap()));
        assert!((600_000..=714_000).contains(&c.latency.quantile_us(1.0).unwrap()));
        assert_eq!(m.counts[&two], Counters::default(), "nobody asked it yet");
    }
}
