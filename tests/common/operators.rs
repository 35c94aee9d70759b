//! What operators write themselves for the proxies of tests.

use std::net::SocketAddr;

/// Envoy's configuration: its administration server, where its clusters come from, and its listeners.
pub fn envoy(admin: SocketAddr, clusters: &str, listeners: &str) -> String {
    let (host, port) = (admin.ip(), admin.port());
    format!(
        "node: {{ id: front, cluster: here }}\n\
         admin: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}\n\
         dynamic_resources: {{ {clusters} }}\nstatic_resources:\n  listeners:\n{listeners}"
    )
}

/// One listener: what it routes by, what it logs, and a filter before the router.
pub fn envoy_listener(listen: SocketAddr, routes: &str, log: &str, filter: &str) -> String {
    let (host, port) = (listen.ip(), listen.port());
    format!(
        "  - address: {{ socket_address: {{ address: {host}, port_value: {port} }} }}\n    filter_chains:\n    \
         - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
         HttpConnectionManager\n          stat_prefix: front\n          use_remote_address: true\n          {routes}\n          \
         {log}\n          http_filters:\n          {filter}\n          - {{ name: envoy.filters.http.router, \
         typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}\n"
    )
}
