//! What runs: who mounts which claims, stopping it and putting it back, and whether it is well.
//!
//! [`KubeWorkloads`] carries out [`upgrade_core::ports::Workloads`], [`KubeHealth`] carries out
//! [`upgrade_core::ports::HealthChecker`], and [`kstatus`] is the field's verdict over single objects.
//!
//! What is decided about objects is decided by functions without I/O; the clients around them read uncached. Replicas are
//! changed through the scale subresource only: a change of the object itself leaves an owner of `spec.replicas` behind that
//! Helm later stumbles over.

mod error;
mod find;
mod health;
mod holders;
mod http;
pub mod kstatus;
mod objects;
mod pods;
mod scale;
mod verdict;
mod workloads;

pub use error::Error;
pub use health::KubeHealth;
pub use http::client as http_client;
pub use workloads::KubeWorkloads;
