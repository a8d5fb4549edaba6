//! The journey of an app through Git: its data and its version move together, or not at all.
//!
//! [`facts`] are gathered through the ports, read-only; [`preflight`] refuses by name; [`upgrade`] and [`rollback`] turn facts
//! into plans; [`AppRunner`] carries the steps out; [`after`](mod@after) says what follows when an upgrade did not succeed,
//! [`handover`] who says so while a rollback takes it over, and [`inherit`] what operations leave to each other.

pub mod after;
mod ask;
mod build;
pub mod changes;
pub mod facts;
pub mod handover;
pub mod inherit;
mod message;
pub mod preflight;
mod readers;
pub mod replaced;
pub mod retention;
pub mod rollback;
mod runner;
pub mod stage;
mod step;
#[cfg(test)]
mod tests;
pub mod upgrade;
mod watch;

pub use ask::{
    AppSpec, AutoRollback, Consistency, HealthPolicy, RollbackAsk, SnapshotPolicy, UpgradeAsk, VersionPolicy,
};
pub use build::{AppInputs, PlannedWorkload, Root, collide, roots};
pub use readers::Reader;
pub use runner::{AppPorts, AppRunner};
pub use step::AppStep;
