//! A simulated cluster with everything that an upgrade touches: Flux, CSI volumes with real bytes, a Git repository, and an app that
//! keeps records. `windlass demo` shows it to people; the journeys on the simulation run on it.

pub mod app;
mod apply;

pub use apply::apply;
