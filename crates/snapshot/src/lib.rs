//! Volumes and their copies through CSI: find, protect, take, prove, restore aside, swap.
//!
//! [`CsiSnapshots`] carries out [`upgrade_core::ports::SnapshotManager`] on claims, volumes and `snapshot.storage.k8s.io/v1`,
//! and [`upgrade_core::ports::Disposal`]; [`RestorePointStore`] keeps [`upgrade_core::ports::RestorePoints`] as `RestorePoint` objects.
//!
//! What is decided about objects is decided by functions without I/O ([`facts`], [`state`], [`manifest`], [`class`]); the
//! clients around them read uncached and write with the UID, and where the decision rests on content with the resource version,
//! of what they read.
//!
//! # What is never done
//! - A claim is never deleted unless its volume was on Retain in a read made right before, with the claim's UID and resource
//!   version as preconditions of the deletion.
//! - A volume that is not bound is never set to Delete, because its controller would delete it at once; but by `discard` and
//!   `reclaim`, which are for that.
//! - A content is never set to Delete unless it belongs to a snapshot with our label or is the one that a restore point has
//!   recorded, and no object without our label is deleted as a helper or a snapshot.
//! - No finalizer is removed but our own, [`COPIES`], of a restore point that is let go.
//!
//! # Example
//! `examples/swap.rs` takes a claim of a real cluster back to a snapshot of itself, by the calls of the port in their safe order.

pub mod class;
mod csi;
mod disposal;
mod error;
pub mod facts;
mod labels;
mod lifecycle;
pub mod manifest;
mod node;
mod quantity;
mod restore_points;
pub mod state;
mod swap;

pub use csi::CsiSnapshots;
pub use error::Error;
pub use labels::{COPIES, HELPER, OPERATION, RESTORE_POINT};
pub use quantity::{NotAQuantity, bytes};
pub use restore_points::{RestorePointStore, copies, record};
