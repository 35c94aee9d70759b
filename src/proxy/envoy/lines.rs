//! What an operator adds to Envoy's own configuration, and whether that is there.

use std::path::Path;

use serde_json::Value;

use super::{Settings, config, place};
use crate::fleet::names::{FleetName, ServiceName};
use crate::proxy::Extras;
use crate::traffic::envoy_log::FORMAT;

/// The line for `dynamic_resources` of the bootstrap.
#[must_use]
pub fn clusters_line(dir: &Path, fleet: &FleetName) -> String {
    format!("cds_config: {}", config::source_line(&config::clusters_path(dir, fleet)))
}

/// The line for the `http_connection_manager` that serves a service, in place of `route_config`.
#[must_use]
pub fn routes_line(dir: &Path, fleet: &FleetName, service: &ServiceName) -> String {
    format!(
        "rds: {{ route_config_name: {}, config_source: {} }}",
        config::route_name(fleet, service),
        config::source_line(&config::routes_path(dir, fleet, service))
    )
}

/// The same for one that serves all services of the fleet, each by its domains.
#[must_use]
pub fn all_routes_line(dir: &Path, fleet: &FleetName) -> String {
    format!(
        "rds: {{ route_config_name: {}, config_source: {} }}",
        config::all_name(fleet),
        config::source_line(&config::all_routes_path(dir, fleet))
    )
}

/// The line for its `http_filters`, before the router, where visitors keep their places.
#[must_use]
pub fn place_line() -> String {
    place::line()
}

/// The line for the same `http_connection_manager` that tells response times.
#[must_use]
pub fn log_line(log: &Path) -> String {
    format!(
        "access_log: [{{ name: envoy.access_loggers.file, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {}, log_format: {{ \
         text_format_source: {{ inline_string: \"{FORMAT}\\n\" }} }} }} }}]",
        log.display()
    )
}

/// Where to add what.
pub(in crate::proxy) fn lines_to_add(
    s: &Settings,
    fleet: &FleetName,
    services: &[(&ServiceName, Extras)],
) -> Vec<(String, Vec<String>)> {
    let first = "line for dynamic_resources of Envoy's configuration".to_owned();
    let mut out = vec![(first, vec![clusters_line(&s.dir, fleet)])];
    if services.len() > 1 {
        let place = "in an http_connection_manager that serves all of them, each by its domains, in place of \
                     route_config and of the lines below";
        out.push((place.to_owned(), vec![all_routes_line(&s.dir, fleet)]));
    }
    for (service, extras) in services {
        let mut lines = vec![routes_line(&s.dir, fleet, service)];
        lines.extend(s.log.as_deref().map(log_line));
        let place = format!("in the http_connection_manager that serves {service}, in place of route_config");
        out.push((place, lines));
        if extras.sticky {
            out.push(("among its http_filters, before the router".to_owned(), vec![place_line()]));
        }
    }
    out
}

/// The parts of listeners that may route requests to a service: what has filters, and takes its routes or those of all.
pub(super) fn routing<'a>(
    listeners: &'a [Value],
    fleet: &FleetName,
    service: &ServiceName,
) -> Vec<&'a Value> {
    let names = [config::route_name(fleet, service), config::all_name(fleet)];
    let mut out = Vec::new();
    listeners.iter().for_each(|l| find(l, &names, &mut out));
    out
}

fn find<'a>(value: &'a Value, names: &[String; 2], out: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            let takes = value.pointer("/rds/route_config_name").and_then(Value::as_str);
            if fields.contains_key("http_filters") && takes.is_some_and(|t| names.iter().any(|n| n == t)) {
                out.push(value);
            }
            fields.values().for_each(|v| find(v, names, out));
        }
        Value::Array(all) => all.iter().for_each(|v| find(v, names, out)),
        _ => {}
    }
}

/// Whether the filter that keeps places is in it.
pub(super) fn keeps_places(connection: &Value) -> bool {
    let filters = connection.get("http_filters").and_then(Value::as_array);
    filters.into_iter().flatten().any(|f| f.pointer("/typed_config/@type") == Some(&Value::from(place::TYPE)))
}

/// Whether it writes what is read of a log.
pub(super) fn logs_to(connection: &Value, log: &Path) -> bool {
    let logs = connection.get("access_log").and_then(Value::as_array);
    logs.into_iter().flatten().any(|l| {
        let format = l.pointer("/typed_config/log_format/text_format_source/inline_string");
        l.pointer("/typed_config/path") == Some(&Value::from(log.to_string_lossy()))
            && format.and_then(Value::as_str).map(str::trim_end) == Some(FORMAT)
    })
}
