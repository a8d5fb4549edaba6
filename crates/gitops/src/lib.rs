//! Git writers and Git-driven deliveries (Flux).
//!
//! [`git::PlainGit`] is the [`GitManager`](upgrade_core::ports::GitManager) for any server that speaks the Git protocol: it
//! reads pinned scalars and changes exactly those, in one commit, pushed without force onto the head it was computed on.

mod error;
pub mod flux;
pub mod git;

pub use error::{GitopsError, Mismatch, NotAFile, Result};
