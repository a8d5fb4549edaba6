//! What can go wrong between us and Flux's objects.

use upgrade_core::{Coded, Failure};
use windlass_api::call::CallError;
use windlass_helm::HelmError;

/// Why a Flux object could not be read, held or let go; objects are named as `Kind namespace/name`. The state of the object is as it was found, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FluxError {
    /// The object does not exist.
    #[error("{object} does not exist")]
    Gone {
        /// The object.
        object: String,
    },
    /// The object is not the one that was planned with.
    #[error("{object} is not the object this operation began with (UID {expected}): {found}")]
    Replaced {
        /// The object.
        object: String,
        /// The UID it must have.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// The object is being deleted.
    #[error("{object} is being deleted; nothing was written on it")]
    Terminating {
        /// The object.
        object: String,
    },
    /// It is suspended, and not by us.
    #[error("{object} has spec.suspend: true and no hold of ours; nothing was written on it")]
    SuspendedByOthers {
        /// The object.
        object: String,
    },
    /// Another operation holds it.
    #[error("{object} is held by operation {holder}, not by {operation}; nothing was written on it")]
    HeldByOther {
        /// The object.
        object: String,
        /// The operation that wanted to write.
        operation: String,
        /// The operation that holds it.
        holder: String,
    },
    /// Our hold is not on it any more.
    #[error("the hold of operation {operation} is not on {object} any more; nothing was written on it")]
    HoldLost {
        /// The object.
        object: String,
        /// The operation that wanted to write.
        operation: String,
    },
    /// Somebody else keeps kustomize-controller from applying it.
    #[error("{object} has {mark}, which is not ours; nothing was written on it")]
    KeptByOthers {
        /// The object.
        object: String,
        /// What is written on it, as `key: value`.
        mark: String,
    },
    /// It changed between reading and writing, several times in a row.
    #[error("{object} changed while it was being written, {attempts} times in a row; nothing was written on it")]
    ChangedMeanwhile {
        /// The object.
        object: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// We do not know this kind of object.
    #[error("{object} cannot be delivered through Flux by us: {why}")]
    Unsupported {
        /// The object.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is where the app has nothing to say; nothing of it was read.
    #[error("{object} {what} namespace {namespace}, which is not allowed for apps of {app}")]
    NotAllowed {
        /// The object.
        object: String,
        /// What it has to do with the namespace: `is in`.
        what: &'static str,
        /// The namespace.
        namespace: String,
        /// The app's namespace.
        app: String,
    },
    /// The labels of the objects lead in a circle.
    #[error("the Kustomizations above {object} lead in a circle through {again}")]
    Cycle {
        /// Where we came from.
        object: String,
        /// What was met a second time.
        again: String,
    },
    /// No delivery object of the app delivers this workload.
    #[error("{workload} is not delivered by any of the app's own delivery objects")]
    NotDelivered {
        /// The workload.
        workload: String,
    },
    /// The object is there but is not what its kind should be.
    #[error("{object} cannot be read: {why}")]
    Unreadable {
        /// The object.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// What Helm has stored for it cannot be read.
    #[error("the newest release of {object} cannot be read")]
    Helm {
        /// The HelmRelease.
        object: String,
        /// Why.
        source: HelmError,
    },
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Coded for FluxError {
    fn code(&self) -> &'static str {
        match self {
            Self::Gone { .. } => "object-gone",
            Self::Replaced { .. } => "object-replaced",
            Self::Terminating { .. } => "object-terminating",
            Self::SuspendedByOthers { .. } => "suspended-by-others",
            Self::HeldByOther { .. } => "held-by-other-operation",
            Self::HoldLost { .. } => "hold-lost",
            Self::KeptByOthers { .. } => "frozen",
            Self::ChangedMeanwhile { .. } => "changed-meanwhile",
            Self::Unsupported { .. } => "delivery-unsupported",
            Self::NotAllowed { .. } => "namespace-not-allowed",
            Self::Cycle { .. } => "delivery-cycle",
            Self::NotDelivered { .. } => "workload-not-delivered",
            Self::Unreadable { .. } => "api-unreadable",
            Self::Helm { source, .. } => source.code(),
            Self::Call(error) => error.code(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Gone { object } => format!("Check that {object} exists and that its name is right."),
            Self::Replaced { object, .. } => {
                format!("Somebody deleted {object} during the operation; start a new one when it is back.")
            }
            Self::Terminating { object } => format!("Wait until {object} is gone, or find out who deleted it."),
            Self::SuspendedByOthers { object } => {
                format!("Find out why {object} is suspended, and resume it before you try again.")
            }
            Self::HeldByOther { holder, .. } => format!("Wait for operation {holder} to end, or cancel it."),
            Self::HoldLost { object, .. } => format!("Find out who removed our annotations from {object}."),
            Self::KeptByOthers { object, .. } => {
                format!("Find out why {object} is kept from being applied, and remove the mark.")
            }
            Self::ChangedMeanwhile { object, .. } => format!("See who keeps writing {object}, if this goes on."),
            Self::Unsupported { .. } => "Name a HelmRelease or a Kustomization of Flux, with its namespace.".into(),
            Self::NotAllowed { namespace, .. } => {
                format!("Keep it in the app's own namespace, or add {namespace} to the operator's --shared-namespaces.")
            }
            Self::Cycle { .. } => "Let each Kustomization be applied by one that does not depend on it.".into(),
            Self::NotDelivered { workload } => {
                format!("Add the HelmRelease or Kustomization that applies {workload} to the app's delivery objects.")
            }
            Self::Unreadable { .. } => "Check that the version of Flux is one that we support.".into(),
            Self::Helm { source, .. } => source.hint().to_owned(),
            Self::Call(error) => error.hint(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::ChangedMeanwhile { .. } => true,
            Self::Call(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<FluxError> for Failure {
    fn from(error: FluxError) -> Self {
        Self::from_coded(&error)
    }
}
