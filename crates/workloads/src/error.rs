//! What can go wrong with workloads and their pods.

use upgrade_core::ports::ObjectRef;
use upgrade_core::{Coded, Failure};
use windlass_api::call::CallError;

/// Why a call was refused or did not work. Nothing was changed unless the message says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Api(#[from] CallError),
    /// There is no object of that name.
    #[error("{0} does not exist")]
    Gone(ObjectRef),
    /// There is one, but it is not the one that was meant.
    #[error("{object} was replaced: it has the UID {found}, not {expected}")]
    Replaced {
        /// The object.
        object: String,
        /// UID that was meant.
        expected: String,
        /// UID that was found.
        found: String,
    },
    /// The object changed after what was decided about it.
    #[error("{object} changed meanwhile: it has the resource version {found}, not {expected}")]
    Changed {
        /// The object.
        object: String,
        /// Resource version the decision rests on.
        expected: String,
        /// Resource version that was found.
        found: String,
    },
    /// The kind can be neither scaled nor suspended.
    #[error("{0} cannot be stopped or started: only Deployments, StatefulSets, ReplicaSets and CronJobs can")]
    CannotStop(ObjectRef),
    /// The kind cannot deliver an app.
    #[error("{0} is no delivery object that is known: expected a Flux HelmRelease or Kustomization")]
    NotADelivery(ObjectRef),
    /// A pod that may still run, or that something would make again.
    #[error("{pod} is not removed: {why}")]
    PodInUse {
        /// The pod.
        pod: String,
        /// Why not.
        why: String,
    },
    /// The process has not chosen a TLS provider.
    #[error("the HTTP client for health checks cannot be made: no TLS provider is installed in this process")]
    NoTlsProvider,
    /// The HTTP client for health checks cannot be made.
    #[error("the HTTP client for health checks cannot be made")]
    HttpClient(#[source] reqwest::Error),
}

impl Coded for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Api(error) => error.code(),
            Self::Gone(_) => "workload-gone",
            Self::Replaced { .. } => "workload-replaced",
            Self::Changed { .. } => "changed-meanwhile",
            Self::CannotStop(_) => "cannot-stop",
            Self::NotADelivery(_) => "unknown-delivery",
            Self::PodInUse { .. } => "pod-in-use",
            Self::NoTlsProvider | Self::HttpClient(_) => "http-client",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Api(error) => error.hint(),
            Self::Gone(_) | Self::Replaced { .. } => {
                "somebody else changed it during the operation: find out who before going on".into()
            }
            Self::PodInUse { .. } => "scale what owns the pod to 0, or wait until it has ended".into(),
            _ => String::new(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Api(error) => error.is_retryable(),
            Self::Changed { .. } => true,
            _ => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from_coded(&error)
    }
}
