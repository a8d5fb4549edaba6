//! Where an operation's plan and journal are kept.

use async_trait::async_trait;

use crate::Failure;
use crate::engine::{Journal, Plan};

/// What a store calls the version of a record it has handed out; opaque to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(pub String);

/// A plan with its journal, and the revision they were read at.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The plan, as it was accepted.
    pub plan: Plan,
    /// What has been done of it.
    pub journal: Journal,
    /// To be handed back to [`JournalStore::save`].
    pub revision: Revision,
}

/// Why a journal was not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Somebody else wrote first: what was decided on is no longer true. Read again, decide again.
    #[error("the journal was changed by someone else")]
    Conflict,
    /// The store did not answer, or refused.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Keeps the plan and the journal of operations.
///
/// - **Flow**: `load`, decide, `save` with the revision that was loaded; the returned revision serves the next `save`.
/// - **Guarantees**: plan and journal are written together, atomically, and only if the stored revision is the one given.
/// - **Assumptions**: one record fits the store (the engine bounds it to [`Plan::MAX_RECORD`] bytes).
/// - **Cancellation**: a dropped `save` may or may not have happened; the next `save` with the old revision then conflicts.
/// - **Errors**: [`SaveError::Conflict`] means read again; anything else is retried by the caller.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait JournalStore: Send + Sync {
    /// The record of `operation`, or `None` when no plan was stored yet.
    async fn load(&self, operation: &str) -> Result<Option<Stored>, Failure>;
    /// Replaces the record. `expected` is `None` for the first write of an operation.
    async fn save(
        &self,
        operation: &str,
        plan: &Plan,
        journal: &Journal,
        expected: Option<Revision>,
    ) -> Result<Revision, SaveError>;
}
