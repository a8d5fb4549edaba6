//! Git writers and Git-driven deliveries (Flux).
//!
//! - [`git::PlainGit`] is the [`GitManager`](upgrade_core::ports::GitManager) for any server that speaks the Git protocol: it
//!   reads pinned scalars and changes exactly those, in one commit, pushed without force onto the head it was computed on.
//! - [`flux::FluxDelivery`] is the [`Delivery`](upgrade_core::ports::Delivery) of Flux: it suspends, proves the suspension, resumes,
//!   and tells whether a commit is applied.
//! - [`flux::FluxRenderer`] is the [`Renderer`](upgrade_core::ports::Renderer) of Flux: it says what a Kustomization or a HelmRelease
//!   would deliver from another commit.

mod error;
pub mod flux;
pub mod git;

pub use error::{GitopsError, Mismatch, NotAFile, Result};
