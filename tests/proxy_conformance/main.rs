//! One conformance suite for every proxy: what `pilothouse::proxy::Proxy` promises, checked against the real thing
//! with real backends, counted by the backends themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs)]

/// Tests of a suite, each with a proxy of its own: what opens one (`None` where it is not installed), and which.
macro_rules! conforms {
    ($open:expr; $suite:ident: $($name:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(mut h) = $open {
                $suite::$name(&mut h).await;
            }
        }
    )*};
}

mod caddy;
mod containers;
mod edge;
mod envoy;
mod haproxy;
mod nginx;
#[path = "../common/operators.rs"]
mod operators;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/require.rs"]
mod require;
mod results;
mod servers;
mod suite;
mod support;
mod traefik;
#[path = "../common/traefik_files.rs"]
mod traefik_files;
mod visitors;
