//! An in-process Kubernetes API server with stand-in controllers and faults, for tests.

pub mod server;

pub use server::{Config, Identity, SimServer};
