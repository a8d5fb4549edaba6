//! The loop that all stand-ins share: watch, filter, reconcile one object at a time, look again.

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{PredicateConfig, WatchStreamExt, applier, reflector, watcher};
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::Error;

/// References to reconcile.
type Queue = BoxStream<'static, Result<ObjectRef<DynamicObject>, watcher::Error>>;

/// What to do after a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing until something changes.
    Wait,
    /// Reconcile again after this time.
    After(Duration),
}

/// Objects whose changes concern objects of the watched kind.
pub(super) struct Related {
    pub(super) resource: ApiResource,
    /// Whether a change of the first concerns the second.
    pub(super) concerns: fn(&DynamicObject, &DynamicObject) -> bool,
}

/// Waits between failed tries: long enough not to spin, short enough for tests.
const RETRY: Duration = Duration::from_millis(500);

/// A Flux kind by its group's short name.
pub(super) fn flux(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(&format!("{group}.toolkit.fluxcd.io"), version, kind))
}

/// Calls `reconcile` for every object of `resource`, when its spec, annotations of request or deletion change, when a
/// related object's artifact or readiness changes, and when it asked for another look. Ends when `stop` is cancelled:
/// reconciles in flight are dropped where they are, as in a crash.
pub(super) async fn drive<F, R>(
    client: &Client,
    resource: ApiResource,
    related: Vec<Related>,
    stop: CancellationToken,
    reconcile: F,
) where
    F: Fn(Arc<DynamicObject>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Next, Error>> + Send + 'static,
{
    let writer = reflector::store::Writer::<DynamicObject>::new(resource.clone());
    let reader = writer.as_reader();
    let kind = resource.kind.clone();
    let own = watcher(all(client, &resource), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(wanted, PredicateConfig::default())
        .map_ok({
            let resource = resource.clone();
            move |object| ObjectRef::from_obj_with(&object, resource.clone())
        })
        .boxed();
    let mut queue = stream::SelectAll::from_iter([own]);
    queue.extend(related.into_iter().map(|one| concerned(client, one, reader.clone(), resource.clone())));
    let run = applier(
        move |object, _: Arc<()>| {
            reconcile(object)
                .map_ok(|next| match next {
                    Next::Wait => Action::await_change(),
                    Next::After(time) => Action::requeue(time),
                })
                .boxed()
        },
        move |object, error, _| {
            tracing::debug!(kind, object = object.name_any(), %error, "reconcile");
            match error {
                Error::Waiting { again, .. } => Action::requeue(*again),
                error if error.is_retryable() => Action::requeue(RETRY),
                _ => Action::await_change(),
            }
        },
        Arc::new(()),
        reader,
        queue,
        controller::Config::default(),
    );
    tokio::select! {
        () = stop.cancelled() => {}
        () = run.for_each(|_| async {}) => {}
    }
}

fn all(client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
    Api::all_with(client.clone(), resource)
}

/// References to the objects that a change of a related one concerns.
fn concerned(client: &Client, related: Related, reader: Store<DynamicObject>, resource: ApiResource) -> Queue {
    let Related { resource: other, concerns } = related;
    watcher(all(client, &other), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .predicate_filter(readiness, PredicateConfig::default())
        .flat_map(move |changed| {
            let targets: Vec<_> = match changed {
                Ok(changed) => reader
                    .state()
                    .into_iter()
                    .filter(|object| concerns(&changed, object))
                    .map(|object| Ok(ObjectRef::from_obj_with(&*object, resource.clone())))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(targets)
        })
        .boxed()
}

fn hash(value: impl Hash) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    Some(hasher.finish())
}

/// What makes a reconcile necessary. The status is not part of it: controllers do not react to what they write themselves.
fn wanted(object: &DynamicObject) -> Option<u64> {
    let request = object.annotations().get(super::flux_objects::REQUESTED_AT);
    hash((object.metadata.generation, request, object.metadata.deletion_timestamp.is_some()))
}

fn readiness(object: &DynamicObject) -> Option<u64> {
    let status = object.data.get("status");
    let ready = super::conditions::find(status, "Ready").map(|ready| ready.get("status").map(ToString::to_string));
    hash((status.and_then(|status| status.get("artifact")).map(ToString::to_string), ready))
}
