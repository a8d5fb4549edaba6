//! How far an operation has come, in one word written on each object that it holds. It is all that a new leader has to go by when
//! the request itself is gone.

use crate::ports::Suspension;

/// Nothing of the operation waits in Git.
pub const HELD: &str = "held";
/// A version is being committed, or was.
pub const COMMITTING: &str = "committing";
/// Data is being put back: Git may carry another version than the data's, from the beginning to the end.
pub const RESTORING: &str = "restoring";

/// Whether an object whose request is gone may be let go: only if nothing waits in Git that the data does not belong to.
pub fn may_be_let_go(found: &Suspension) -> bool {
    found.stage.as_deref() == Some(HELD)
}
