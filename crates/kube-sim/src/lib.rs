#![doc = include_str!("../README.md")]
//!
//! ## Where to begin
//!
//! - [`server`]: the API server. [`SimServer::client_as`] gives an ordinary `kube::Client`.
//! - [`faults`]: what may go wrong between a client and the server, and crash points.
//! - [`controllers`]: stand-ins for the controllers of a cluster.
//! - [`differential`]: the same random requests to two servers, to find where the simulation lies.
//!
//! `examples/serve.rs` serves an empty cluster to `kubectl`; `examples/against_a_real_server.rs` compares the simulation with a real
//! API server.
//!
//! Everything follows `tokio::time`: under paused time hours pass in milliseconds. The same [`Config::seed`] gives the same run.

pub mod controllers;
pub mod differential;
pub mod faults;
pub mod server;

// In the versions that the types here are made of.
pub use k8s_openapi;
pub use kube;

pub use server::{Config, Identity, SimServer};
