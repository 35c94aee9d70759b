//! The cockpit in a real terminal, against a controller made of memory: what it leaves behind, what it sends, and
//! what it does when the terminal or the controller goes away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod acting;
#[path = "../support/canned.rs"]
mod canned;
mod leaving;
mod pty;
mod seeing;
