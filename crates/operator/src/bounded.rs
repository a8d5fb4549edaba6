//! Requests that are made only while there is the right to make them, and do not outlive it.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request};
use jiff::SignedDuration;
use kube::Client;
use kube::client::Body;
use tower::BoxError;
use upgrade_core::engine::{Guard, GuardState};
use windlass_api::call::GuardLost;

/// How long a read may take until its answer begins. Nothing hangs on it but the time of whoever waits.
const READ: Duration = Duration::from_secs(60);

/// Reviews are created to be answered: nothing is kept of them.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The same client, whose writes are given up after a third of the lease's term, and whose reads when nothing comes. With a `fence`, a
/// write is sent only while that is held; only who competes for the lease itself has none.
///
/// It is asked for every request right before it is sent: what was read before may have taken longer than the lease. Leadership is given
/// up a third of the term before a successor may act, so a write that was begun while it was held, and that is sent at all, is sent before
/// somebody else writes. What was given up may have been done all the same; the next look tells. Watches are left alone once they are open.
pub(crate) fn client(inner: &Client, term: SignedDuration, fence: Option<Arc<dyn Guard>>) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let inner = inner.clone();
    let write = Duration::try_from(term / 3).unwrap_or(READ);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, fence) = (inner.clone(), fence.clone());
        async move {
            let changes = is_write(&request);
            if let Some(GuardState::Lost(what)) = fence.as_deref().filter(|_| changes).map(Guard::state) {
                return Err(BoxError::from(GuardLost(what)));
            }
            let limit = if changes { write } else { READ };
            match tokio::time::timeout(limit, inner.send(request)).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(BoxError::from(format!("no answer within {} s", limit.as_secs_f64()))),
            }
        }
    });
    Client::new(service, namespace)
}

fn is_write(request: &Request<Body>) -> bool {
    !matches!(request.method(), &Method::GET | &Method::HEAD) && request.uri().path() != REVIEWS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use kube_sim::{Config, SimServer};
    use serde_json::json;
    use tokio::time::Instant;
    use windlass_api::call::CallError;

    use super::*;

    const TERM: SignedDuration = SignedDuration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_not_answered_is_given_up_while_nobody_else_may_write() {
        let hangs =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<::http::Response<Body>, BoxError>>());
        let maps: Api<ConfigMap> = Api::namespaced(client(&Client::new(hangs, "default"), TERM, None), "default");
        let began = Instant::now();
        let patch = Patch::Merge(json!({}));
        let error = maps.patch("a", &PatchParams::default(), &patch).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        let error = CallError::on::<ConfigMap>("patch", "default", "a")(error);
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains("no answer within 5 s"), "{error}");
    }

    struct Lease(AtomicBool);

    impl Guard for Lease {
        fn state(&self) -> GuardState {
            if self.0.load(Ordering::Relaxed) { GuardState::Held } else { GuardState::Lost("leadership".into()) }
        }
    }

    #[tokio::test]
    async fn who_leads_no_more_sends_no_write_and_may_still_look() {
        let server = SimServer::new(Config { always_allow: true, latency: Duration::ZERO, ..Config::default() });
        let lease = Arc::new(Lease(AtomicBool::new(true)));
        let fenced = client(&server.client(), TERM, Some(lease.clone()));
        let maps: Api<ConfigMap> = Api::namespaced(fenced.clone(), "default");
        let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();

        lease.0.store(false, Ordering::Relaxed);
        let patch = Patch::Merge(json!({ "data": { "a": "b" } }));
        let refused = [
            maps.patch("a", &PatchParams::default(), &patch).await.map(drop),
            maps.replace("a", &PostParams::default(), &map).await.map(drop),
            maps.create(&PostParams::default(), &map).await.map(drop),
            maps.delete("a", &DeleteParams::default()).await.map(drop),
        ];
        for refused in refused {
            let error = CallError::on::<ConfigMap>("change", "default", "a")(refused.unwrap_err());
            assert_eq!((error.code(), error.is_retryable()), ("guard-lost", true), "{error}");
            assert!(error.to_string().ends_with("leadership was lost: this process may not act any more"), "{error}");
            assert!(!error.is_conflict() && !error.is_exists() && !error.is_not_found(), "{error}");
        }
        assert_eq!(maps.get("a").await.unwrap().data, None);
        let asked = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
        let review: SelfSubjectAccessReview = serde_json::from_value(asked).unwrap();
        let reviews: Api<SelfSubjectAccessReview> = Api::all(fenced);
        assert!(reviews.create(&PostParams::default(), &review).await.unwrap().status.is_some());

        lease.0.store(true, Ordering::Relaxed);
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
}
