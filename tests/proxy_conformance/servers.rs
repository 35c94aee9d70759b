//! The real servers, one file each.

pub mod caddy;
pub mod edge;
pub mod envoy;
pub mod haproxy;
pub mod nginx;
pub mod runner;
pub mod traefik;
