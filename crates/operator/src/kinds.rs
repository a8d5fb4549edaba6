//! What upgrade and rollback requests have in common, so that one reconciler serves both.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_api::{OperationKind, OperationStatus, RollbackRequest, Subject, UpgradeRequest};

/// A request.
pub(crate) trait Request:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Its kind.
    const KIND: OperationKind;
    /// Its status.
    fn status(&self) -> Option<&OperationStatus>;
    /// The app.
    fn subject(&self) -> &Subject;
    /// Whether it was cancelled.
    fn cancelled(&self) -> bool;
    /// Whether it only plans.
    fn is_dry_run(&self) -> bool;
    /// For the two questions that differ by kind.
    fn either(&self) -> Either<'_>;
}

/// A request, by kind.
#[derive(Clone, Copy)]
pub(crate) enum Either<'a> {
    /// An upgrade.
    Upgrade(&'a UpgradeRequest),
    /// A rollback.
    Rollback(&'a RollbackRequest),
}

macro_rules! request {
    ($kind:ident, $variant:ident) => {
        impl Request for $kind {
            const KIND: OperationKind = OperationKind::$kind;

            fn status(&self) -> Option<&OperationStatus> {
                self.status.as_ref()
            }

            fn subject(&self) -> &Subject {
                &self.spec.subject
            }

            fn cancelled(&self) -> bool {
                self.spec.cancel() || self.metadata.deletion_timestamp.is_some()
            }

            fn is_dry_run(&self) -> bool {
                self.spec.dry_run()
            }

            fn either(&self) -> Either<'_> {
                Either::$variant(self)
            }
        }
    };
}

request!(UpgradeRequest, Upgrade);
request!(RollbackRequest, Rollback);
