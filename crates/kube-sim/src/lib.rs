//! An in-process Kubernetes API server with stand-in controllers and faults, for tests.

#[cfg(feature = "controllers")]
pub mod controllers;
pub mod server;

pub use server::{Config, Identity, SimServer};
