//! Upgrades that cannot lose data and cannot get stuck half way: the decisions, without any client.
//!
//! - [`engine`] runs a plan of steps durably: intent before each effect, evidence after it, undo before the point of no
//!   return, forward after it. It knows nothing about apps; `examples/two_steps.rs` runs an order on it.
//! - [`app`] is the journey of an app through Git, as plans for that engine and decisions over [`ports`].
//! - [`ports`] are the small traits through which everything outside is reached.
//! - [`image`] tells which container images a pin is about.
//! - [`version`] knows versions, ranges and their order.
//!
//! This crate has no Kubernetes, Git or HTTP client, no runtime, and no clock but the one it is given.

pub mod app;
pub mod duration;
pub mod engine;
mod failure;
pub mod image;
pub mod ports;
pub mod version;

// What it takes to implement the traits here, in the versions that they are made of.
pub use async_trait::async_trait;
pub use jiff;
pub use serde_json;

pub use failure::{Coded, Failure};
