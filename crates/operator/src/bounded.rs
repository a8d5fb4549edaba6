//! Requests that do not outlive the right to make them.

use std::time::Duration;

use ::http::{Method, Request};
use jiff::SignedDuration;
use kube::Client;
use kube::client::Body;
use tower::BoxError;

/// How long a read may take until its answer begins. Nothing hangs on it but the time of whoever waits.
const READ: Duration = Duration::from_secs(60);

/// The same client, whose writes are given up after a third of the lease's term, and whose reads when nothing comes.
///
/// Leadership is given up a third of the term before a successor may act: a write that was begun while it was held, and that is
/// sent at all, is sent before somebody else writes. What was given up may have been done all the same; the next look tells. Watches
/// are left alone once they are open.
pub(crate) fn client(inner: &Client, term: SignedDuration) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let inner = inner.clone();
    let write = Duration::try_from(term / 3).unwrap_or(READ);
    let service = tower::service_fn(move |request: Request<Body>| {
        let inner = inner.clone();
        async move {
            let limit = if *request.method() == Method::GET { READ } else { write };
            match tokio::time::timeout(limit, inner.send(request)).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(BoxError::from(format!("no answer within {} s", limit.as_secs_f64()))),
            }
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{Patch, PatchParams};
    use serde_json::json;
    use tokio::time::Instant;
    use windlass_api::call::CallError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_not_answered_is_given_up_while_nobody_else_may_write() {
        let hangs =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<::http::Response<Body>, BoxError>>());
        let maps: Api<ConfigMap> =
            Api::namespaced(client(&Client::new(hangs, "default"), SignedDuration::from_secs(15)), "default");
        let began = Instant::now();
        let patch = Patch::Merge(json!({}));
        let error = maps.patch("a", &PatchParams::default(), &patch).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        let error = CallError::on::<ConfigMap>("patch", "default", "a")(error);
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains("no answer within 5 s"), "{error}");
    }
}
