//! How long the containers of a pod run: when they must stop, whether they start again, and the end of the pod itself.
//! Any small kubelet can use it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::status::Kind;

/// `None` while the pod may run; then the moment at which what is left of it is killed.
pub type Stop = watch::Receiver<Option<Instant>>;

/// Turns a deletion into the moment by which the containers must be gone; it is only ever brought forward.
pub fn order_stop(stop: &watch::Sender<Option<Instant>>, pod: Option<&Pod>) {
    let now = Instant::now();
    let deadline = match pod {
        // Deleted without a grace period: the API holds nothing of it any more.
        None => now,
        Some(pod) if pod.metadata.deletion_timestamp.is_some() => now + grace(pod),
        Some(_) => return,
    };
    stop.send_if_modified(|current| {
        let earlier = current.is_none_or(|current| deadline < current);
        if earlier {
            *current = Some(deadline);
        }
        earlier
    });
}

/// How long the pod's containers have to stop by themselves.
#[must_use]
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds;
    let seconds = seconds.or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
    Duration::from_secs(seconds.map_or(30, |seconds| u64::try_from(seconds).unwrap_or(0)))
}

/// Whether a container that has ended is started again, as the pod's restart policy says.
#[must_use]
pub fn starts_again(pod: &Pod, kind: Kind, succeeded: bool) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    match (policy, kind) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Kind::Init) => !succeeded,
        _ => true,
    }
}

/// Takes a pod that was deleted, and of which nothing runs any more, out of the API.
///
/// # Errors
/// When the API server refuses, or cannot be reached. That the pod is gone already is none.
pub async fn remove(client: &Client, pod: &Pod) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let params = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
    match api.delete(&pod.name_any(), &params).await {
        // Gone already, or another pod has the name by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    #[test]
    fn an_init_container_starts_again_only_after_a_failure_and_an_ordinary_one_as_the_pod_says() {
        for (policy, kind, after_success, after_failure) in [
            (None, Kind::Main, true, true),
            (Some("OnFailure"), Kind::Main, false, true),
            (Some("Never"), Kind::Main, false, false),
            (None, Kind::Init, false, true),
            (Some("Never"), Kind::Init, false, false),
        ] {
            let spec = PodSpec { restart_policy: policy.map(str::to_owned), ..PodSpec::default() };
            let pod = Pod { spec: Some(spec), ..Pod::default() };
            let found = (starts_again(&pod, kind, true), starts_again(&pod, kind, false));
            assert_eq!(found, (after_success, after_failure), "{policy:?} {kind:?}");
        }
    }
}
