//! The pure core: what should be done, decided from facts and observations. No I/O, no clock, no async.
//!
//! | function | says |
//! | --- | --- |
//! | [`plan::plan`] | the phases of a release, as data |
//! | [`decide::verb`], [`decide::advance`] | what a verb, or the world as it is, means: facts |
//! | [`state::State::apply`] | what a fact changes; the only way state changes |
//! | [`reconcile::reconcile`] | what is to be done, from what is true and what should be: effects |
//!
//! Facts are journalled before they are applied, and applied before anything is done for them.

pub mod capacity;
pub mod decide;
pub mod fact;
pub mod hook;
pub mod plan;
pub mod reconcile;
pub mod state;
pub mod target;
pub mod world;

#[cfg(test)]
pub(crate) mod simulation;
