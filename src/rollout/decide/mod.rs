//! What a verb, or the world as it is, means: facts. Nothing here does anything; `now` is controller time.

mod advance;
mod checks;
mod hooks;
mod judge;
mod life;
mod place;
mod refusal;
mod steer;
mod verb;
mod waiting;

pub use advance::{advance, start_key};
pub use checks::{checks, seen as check_seen, to_be_asked};
pub use hooks::{
    declared as hook_declared, irreversible, passed as hook_passed, running as hook_running,
    start_key as hook_key,
};
pub use judge::{judged, verdict};
pub use life::drained;
pub use refusal::{ErrorCode, Refusal, VerbKind};
pub use steer::empty_places;
pub use verb::{Intent, Taken, adopt, allow_stop, deploy, down, load, possible, up, verb};
pub use waiting::{drift, gate_left, gate_text, waiting};

/// The name that facts carry when no operator caused them.
pub const OURSELVES: &str = "pilothouse";
