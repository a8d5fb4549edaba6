//! A durable engine for plans of steps.
//!
//! An operation is a [`Plan`] (what will be done, fixed and hashed before it starts) and a [`Journal`] (what has been done:
//! intent before each effect, evidence after it). One pure function, [`decide`], says what comes next; one pure function,
//! [`settle`], says what an observation does to the journal; the [`Engine`] is the thin shell that gathers facts, applies
//! one decision and writes the journal by compare-and-swap.
//!
//! What holds for every workflow:
//!
//! - No effect without its intent in the journal, in a write that succeeded on the revision that was decided on.
//! - A step that was begun is found again after a crash: it is observed first, and acted on only if its effect is absent.
//! - Before the point of no return a failure, a deadline or a cancel undoes what was begun, newest first; after it the
//!   operation only goes forward and ends as succeeded or failed.
//! - An undo that cannot be done in time becomes a *leftover*: it is listed, the operation ends, and the undo is tried again
//!   until it succeeds or somebody takes over.
//! - Steps may share a deadline, counted from the first attempt at the first of them.
//! - When what an operation is about goes away it is let go, at any time: only what it holds outside of that is put back.
//! - A lost guard stops every further effect.
//!
//! `examples/two_steps.rs` is a whole workflow of two steps, whose processes die half way.

mod decide;
mod journal;
mod memory;
mod plan;
mod shell;
#[cfg(test)]
mod tests;

pub use decide::{Decision, Facts, GuardState, Observation, decide, settle};
pub use journal::{Cause, Course, Entry, Journal, Leftover, Outcome, StepState};
pub use memory::MemoryStore;
pub use plan::{Direction, Plan, PlanError, Step, Stretch};
pub use shell::{Effect, Engine, EngineError, Guard, Signals, StepContext, StepRunner, Tick};
