//! One conformance suite for every proxy: what `pilothouse::proxy::Proxy` promises, checked against the real thing
//! with real backends, counted by the backends themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs)]

mod edge;
mod haproxy;
mod nginx;
#[path = "../common/require.rs"]
mod require;
mod suite;
mod support;
mod visitors;
