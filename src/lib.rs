//! Pilothouse: a terminal cockpit, and the controller behind it, for zero-downtime releases of containers on plain
//! Docker hosts behind the proxy a team already runs.
//!
//! ARCHITECTURE.md says where everything is. Dependencies point inward: `rollout` knows only `fleet`'s model; `tui`
//! knows `client` and `api`.

pub mod analysis;
pub mod api;
pub mod checks;
pub mod cli;
pub mod client;
pub mod controller;
pub mod demo;
pub mod engine;
pub mod fleet;
pub mod https;
pub mod probe;
pub mod program;
pub mod proxy;
pub mod rollout;
pub mod text;
pub mod traffic;
pub mod tui;
