//! The Windlass operator: runs upgrade and rollback requests on the engine of `upgrade-core`.
//!
//! A frontend: it turns objects into questions to the core ([`resolve`]), keeps plans and journals in the requests' status
//! ([`store`]), and lets one leader at a time ([`lease`]) act. What an upgrade does is decided in the core.

pub mod apps;
mod args;
mod bounded;
mod clock;
mod conditions;
mod context;
mod controller;
mod events;
mod http;
mod kinds;
pub mod lease;
pub mod manifests;
mod metrics;
mod points;
pub mod rbac;
mod reconcile;
mod reference;
pub mod resolve;
mod rights;
mod run;
pub mod status;
pub mod store;
mod sweep;
#[cfg(test)]
mod tests;

pub use args::{Args, Command};
pub use clock::SystemClock;
pub use run::{Embedding, WrapGit, main, main_with, run};
