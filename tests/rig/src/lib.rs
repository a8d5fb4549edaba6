//! The real rig: a supervisor for real servers, a CSI driver, a small kubelet and the app under test.
//!
//! [`Rig::start`] brings up etcd, the API server with its controllers, CSI with real bytes, Flux and a Git host in one
//! temporary folder, on loopback only; the servers are built once and cached ([`Binaries`]).

pub mod app;
pub mod csi;
pub mod kubelet;
pub mod standins;
pub mod testbed;

mod audit;
mod binaries;
mod charts;
mod cluster;
mod flux;
mod git_host;
mod lines;
mod options;
mod ports;
mod process;
mod ready;
mod rig;
mod storage;

pub use audit::{AuditEvent, AuditObject, AuditStatus, AuditUser};
pub use binaries::{Binaries, go_is_installed};
pub use charts::ChartServer;
pub use git_host::GitHost;
pub use options::{Options, User};
pub use ports::free_port;
pub use rig::{ADMIN, Rig};
