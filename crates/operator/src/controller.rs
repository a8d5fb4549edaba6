//! The controllers of both request kinds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Api;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::watcher;

use crate::context::Context;
use crate::kinds::Request;
use crate::metrics::Code;
use crate::reconcile::{ReconcileError, reconcile};

/// Runs until the context is stopping; a reconcile in progress ends its decision first.
pub(crate) async fn run<K: Request>(context: Arc<Context>, concurrency: u16) {
    let api: Api<K> = Api::all(context.client.clone());
    let stopping = context.stopping.clone();
    let controller = Controller::new(api, watcher::Config::default());
    let store = controller.store();
    let stream = controller
        .with_config(Config::default().concurrency(concurrency))
        .graceful_shutdown_on(async move { stopping.cancelled().await })
        .run(reconcile::<K>, on_error::<K>, context.clone());
    let seen = async {
        // It fails when the controller ends before it has seen anything.
        if store.wait_until_ready().await.is_ok() {
            context.kinds_seen.fetch_add(1, Ordering::Relaxed);
        }
    };
    let work = stream.for_each(|result| async move {
        if let Err(error) = result {
            tracing::debug!(%error, kind = K::KIND.as_str(), "reconcile");
        }
    });
    tokio::join!(work, seen);
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error<K: Request>(request: Arc<K>, error: &ReconcileError, context: Arc<Context>) -> Action {
    use kube::ResourceExt as _;
    context.metrics.errors.get_or_create(&Code { code: error.code().into() }).inc();
    tracing::warn!(
        kind = K::KIND.as_str(),
        namespace = request.namespace().unwrap_or_default(),
        name = request.name_any(),
        code = error.code(),
        %error,
        "tried again"
    );
    Action::requeue(Duration::from_secs(1))
}
