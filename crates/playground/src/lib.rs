//! A simulated cluster with everything that an upgrade touches: Flux, CSI volumes with real bytes, a Git repository, and an app that
//! keeps records. `windlass demo` shows it to people; the journeys on the simulation run on it.

pub mod app;
mod apply;
mod charts;
mod cluster;
mod digest;
pub mod examples;
pub mod manifests;

pub use apply::apply;
pub use cluster::{Options, Playground};
pub use digest::digest;

/// Where the images of the app come from.
pub const IMAGE_REPOSITORY: &str = "registry.test/notes";
