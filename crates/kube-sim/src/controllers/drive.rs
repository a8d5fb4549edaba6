//! The loop that all stand-ins share: watch, filter, reconcile one object at a time, look again.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{PredicateConfig, WatchStreamExt, applier, reflector, watcher};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, sleep_until};
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
    /// What of the changed object matters; other changes are passed over.
    pub(super) matters: fn(&DynamicObject) -> Option<u64>,
    /// Where the changed objects are kept for the reconciler, if it reads them from there.
    pub(super) cache: Option<Cache>,
}

impl Related {
    /// Related objects that the reconciler reads from the API server itself.
    pub(super) const fn new(resource: ApiResource, concerns: fn(&DynamicObject, &DynamicObject) -> bool) -> Self {
        Self { resource, concerns, matters: readiness, cache: None }
    }
}

/// Objects as a watch reported them some time ago: what a controller believes that does not ask the API server.
#[derive(Clone, Default)]
pub(super) struct Cache {
    /// How much later than the watch reports it a change is seen.
    lag: Duration,
    objects: Arc<Mutex<BTreeMap<(String, String), DynamicObject>>>,
}

impl Cache {
    pub(super) fn lagging(lag: Duration) -> Self {
        Self { lag, ..Self::default() }
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<DynamicObject> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), DynamicObject>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, event: &watcher::Event<DynamicObject>) {
        let key = |object: &DynamicObject| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                self.lock().insert(key(object), object.clone());
            }
            watcher::Event::Delete(object) => {
                self.lock().remove(&key(object));
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }
}

/// How many changes may be under way to a lagging cache.
const IN_TRANSIT: usize = 4096;
/// The wait after the first failed try; it doubles with each further one.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait after failed tries. Flux's own is 15 minutes; a test that repairs something does not want to wait for that.
const MAX_RETRY: Duration = Duration::from_secs(60);

fn retry_after(failures: u32) -> Duration {
    RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(MAX_RETRY)
}

/// Waits of a watch that failed: the same in every run.
#[derive(Default)]
struct WatchBackoff(u32);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1);
        Some(retry_after(self.0).min(Duration::from_secs(5)))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Consecutive failures of each object.
type Failures = Arc<Mutex<BTreeMap<String, u32>>>;

/// Counts a failure of the object, or forgets those before.
fn count(failures: &Failures, object: &DynamicObject, failed: bool) -> u32 {
    let key = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    if !failed {
        failures.remove(&key);
        return 0;
    }
    let count = failures.entry(key).or_default();
    *count = count.saturating_add(1);
    *count
}

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
        .backoff(WatchBackoff::default())
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
    let failures = Failures::default();
    let run = applier(
        {
            let failures = Arc::clone(&failures);
            move |object: Arc<DynamicObject>, _: Arc<()>| {
                let failures = Arc::clone(&failures);
                reconcile(Arc::clone(&object))
                    .map_ok(move |next| {
                        count(&failures, &object, false);
                        match next {
                            Next::Wait => Action::await_change(),
                            Next::After(time) => Action::requeue(time),
                        }
                    })
                    .boxed()
            }
        },
        move |object, error, _| {
            tracing::debug!(kind, object = object.name_any(), %error, "reconcile");
            match error {
                Error::Waiting { again, .. } => Action::requeue(*again),
                error if error.is_retryable() => Action::requeue(retry_after(count(&failures, &object, true))),
                _ => Action::await_change(),
            }
        },
        Arc::new(()),
        reader,
        queue,
        controller::Config::default(),
    );
    tokio::select! {
        // In a fixed order: the choice would be random otherwise.
        biased;
        () = stop.cancelled() => {}
        () = run.for_each(|_| async {}) => {}
    }
}

fn all(client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
    Api::all_with(client.clone(), resource)
}

/// References to the objects that a change of a related one concerns.
fn concerned(client: &Client, related: Related, reader: Store<DynamicObject>, resource: ApiResource) -> Queue {
    let Related { resource: other, concerns, matters, cache } = related;
    let changes = watcher(all(client, &other), watcher::Config::default()).backoff(WatchBackoff::default());
    let changes = match cache {
        None => changes.boxed(),
        Some(cache) => changes
            .map(move |event| {
                let (cache, due) = (cache.clone(), Instant::now() + cache.lag);
                async move {
                    if !cache.lag.is_zero() {
                        sleep_until(due).await;
                    }
                    if let Ok(event) = &event {
                        cache.take_in(event);
                    }
                    event
                }
            })
            .buffered(IN_TRANSIT)
            .boxed(),
    };
    changes
        .applied_objects()
        .predicate_filter(matters, PredicateConfig::default())
        .flat_map(move |changed| {
            let targets: Vec<_> = match changed {
                Ok(changed) => {
                    let mut concerned = reader.state();
                    concerned.retain(|object| concerns(&changed, object));
                    // The store keeps them in an order of its own in every run.
                    concerned.sort_by_key(|object| (object.namespace(), object.name_any()));
                    concerned.iter().map(|object| Ok(ObjectRef::from_obj_with(&**object, resource.clone()))).collect()
                }
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

/// The revision of a source's artifact.
pub(super) fn revision(source: &DynamicObject) -> Option<u64> {
    hash(source.data.pointer("/status/artifact/revision").map(ToString::to_string))
}

fn readiness(object: &DynamicObject) -> Option<u64> {
    let status = object.data.get("status");
    let ready = super::conditions::find(status, "Ready").map(|ready| ready.get("status").map(ToString::to_string));
    hash((status.and_then(|status| status.get("artifact")).map(ToString::to_string), ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_after_failures_double_up_to_a_limit() {
        let waits: Vec<u64> = (1..=9).map(|failures| retry_after(failures).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry_after(u32::MAX), MAX_RETRY);
    }
}
