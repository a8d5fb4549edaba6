//! What the controllers know of the cluster, what is to be reconciled, and how they write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{WorkloadsContext, cron_job, daemon_set, deployment, job, replica_set, stateful_set};
use crate::controllers::Clock;
use crate::controllers::watched::{Id, Known, id, watch};

const MANAGER: &str = "kube-controller-manager";

/// Waits after a failed reconcile: the first and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// When to look at an object again, other than when something changes.
pub(super) type Again = Option<Duration>;

/// The kinds that are reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    CronJob,
    Job,
}

impl Kind {
    fn of(owner: &OwnerReference) -> Option<Self> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        Some(match (group, owner.kind.as_str()) {
            ("apps", "Deployment") => Self::Deployment,
            ("apps", "ReplicaSet") => Self::ReplicaSet,
            ("apps", "StatefulSet") => Self::StatefulSet,
            ("apps", "DaemonSet") => Self::DaemonSet,
            ("batch", "CronJob") => Self::CronJob,
            ("batch", "Job") => Self::Job,
            _ => return None,
        })
    }
}

type Key = (Kind, Id);

/// Takes in what a watch reported.
type Change = Box<dyn FnOnce(&mut World) + Send>;

/// The state of all controllers.
pub(super) struct World {
    client: Client,
    clock: Clock,
    pub(super) deployments: Known<Deployment>,
    pub(super) replica_sets: Known<ReplicaSet>,
    pub(super) stateful_sets: Known<StatefulSet>,
    pub(super) daemon_sets: Known<DaemonSet>,
    pub(super) revisions: Known<ControllerRevision>,
    pub(super) cron_jobs: Known<CronJob>,
    pub(super) jobs: Known<Job>,
    pub(super) pods: Known<Pod>,
    pub(super) claims: Known<PersistentVolumeClaim>,
    pub(super) nodes: Known<Node>,
    due: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
    failures: BTreeMap<Key, u32>,
}

/// A kind that is kept and written.
pub(super) trait Held:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug
{
    fn known(world: &mut World) -> &mut Known<Self>;
    /// Marks what a change of the object concerns.
    fn touch(&self, world: &mut World);
}

macro_rules! held {
    ($($kind:ty, $known:ident, $touch:expr;)*) => {$(
        impl Held for $kind {
            fn known(world: &mut World) -> &mut Known<Self> {
                &mut world.$known
            }
            fn touch(&self, world: &mut World) {
                let touch: fn(&Self, &mut World) = $touch;
                touch(self, world);
            }
        }
    )*};
}

held! {
    Deployment, deployments, |object, world| world.mark(Kind::Deployment, object);
    StatefulSet, stateful_sets, |object, world| world.mark(Kind::StatefulSet, object);
    DaemonSet, daemon_sets, |object, world| world.mark(Kind::DaemonSet, object);
    CronJob, cron_jobs, |object, world| world.mark(Kind::CronJob, object);
    ControllerRevision, revisions, |object, world| { world.mark_controller(&object.metadata); };
    Job, jobs, |object, world| {
        world.mark(Kind::Job, object);
        world.mark_controller(&object.metadata);
    };
    ReplicaSet, replica_sets, |object, world| {
        world.mark(Kind::ReplicaSet, object);
        if !world.mark_controller(&object.metadata) {
            world.mark_all(&object.namespace().unwrap_or_default(), &[Kind::Deployment]);
        }
    };
    Pod, pods, |object, world| world.touch_pod(object);
    PersistentVolumeClaim, claims, |object, world| {
        world.mark_all(&object.namespace().unwrap_or_default(), &[Kind::StatefulSet]);
    };
}

fn changes<K: Held + Send + 'static>(client: &Client) -> BoxStream<'static, Change> {
    watch::<K>(client).map(|event| -> Change { Box::new(move |world| world.take(event)) }).boxed()
}

impl World {
    pub(super) fn new(context: WorkloadsContext) -> Self {
        let WorkloadsContext { client, clock } = context;
        Self {
            client,
            clock,
            deployments: Known::default(),
            replica_sets: Known::default(),
            stateful_sets: Known::default(),
            daemon_sets: Known::default(),
            revisions: Known::default(),
            cron_jobs: Known::default(),
            jobs: Known::default(),
            pods: Known::default(),
            claims: Known::default(),
            nodes: Known::default(),
            due: BTreeSet::new(),
            later: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Reconciles for ever.
    pub(super) async fn work(&mut self) {
        let client = &self.client;
        let nodes = watch(client).map(|event| -> Change { Box::new(move |world| world.take_nodes(event)) });
        let mut changes = stream::SelectAll::from_iter([
            changes::<Deployment>(client),
            changes::<ReplicaSet>(client),
            changes::<StatefulSet>(client),
            changes::<DaemonSet>(client),
            changes::<ControllerRevision>(client),
            changes::<CronJob>(client),
            changes::<Job>(client),
            changes::<Pod>(client),
            changes::<PersistentVolumeClaim>(client),
            nodes.boxed(),
        ]);
        loop {
            // Everything that is known already counts before a decision.
            while let Some(Some(change)) = changes.next().now_or_never() {
                change(self);
            }
            let now = Instant::now();
            let ripe: Vec<Key> = self.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
            for key in ripe {
                self.later.remove(&key);
                self.due.insert(key);
            }
            if self.knows_everything()
                && let Some(key) = self.due.pop_first()
            {
                self.reconcile(key).await;
                continue;
            }
            let next = self.later.values().min().copied();
            tokio::select! {
                biased;
                Some(change) = changes.next() => change(self),
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                else => return,
            }
        }
    }

    fn knows_everything(&self) -> bool {
        self.deployments.is_complete()
            && self.replica_sets.is_complete()
            && self.stateful_sets.is_complete()
            && self.daemon_sets.is_complete()
            && self.revisions.is_complete()
            && self.cron_jobs.is_complete()
            && self.jobs.is_complete()
            && self.pods.is_complete()
            && self.claims.is_complete()
            && self.nodes.is_complete()
    }

    async fn reconcile(&mut self, key: Key) {
        self.later.remove(&key);
        let (kind, (namespace, name)) = &key;
        let done = match kind {
            Kind::Deployment => deployment::reconcile(self, namespace, name).await,
            Kind::ReplicaSet => replica_set::reconcile(self, namespace, name).await,
            Kind::StatefulSet => stateful_set::reconcile(self, namespace, name).await,
            Kind::DaemonSet => daemon_set::reconcile(self, namespace, name).await,
            Kind::CronJob => cron_job::reconcile(self, namespace, name).await,
            Kind::Job => job::reconcile(self, namespace, name).await,
        };
        match done {
            Ok(again) => {
                self.failures.remove(&key);
                if let Some(again) = again {
                    self.later.insert(key, Instant::now() + again);
                }
            }
            Err(error) => {
                tracing::debug!(?kind, namespace, name, %error, "reconcile");
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = FIRST_RETRY.saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX));
                *failures += 1;
                self.later.insert(key, Instant::now() + wait.min(LONGEST_RETRY));
            }
        }
    }

    fn take_nodes(&mut self, event: Event<Node>) {
        if !self.nodes.take(event).is_empty() {
            let sets: Vec<Id> = self.daemon_sets.all().map(|set| id(&**set)).collect();
            self.due.extend(sets.into_iter().map(|id| (Kind::DaemonSet, id)));
        }
    }

    fn take<K: Held>(&mut self, event: Event<K>) {
        for object in K::known(self).take(event) {
            object.touch(self);
        }
    }

    fn mark(&mut self, kind: Kind, object: &impl ResourceExt) {
        self.due.insert((kind, id(object)));
    }

    /// Marks the controller of an object; returns whether it has one.
    fn mark_controller(&mut self, meta: &ObjectMeta) -> bool {
        let Some(owner) = controller(meta) else { return false };
        if let Some(kind) = Kind::of(owner) {
            self.due.insert((kind, (meta.namespace.clone().unwrap_or_default(), owner.name.clone())));
        }
        true
    }

    fn mark_all(&mut self, namespace: &str, kinds: &[Kind]) {
        let mut ids: Vec<Key> = Vec::new();
        for kind in kinds {
            match kind {
                Kind::Deployment => ids.extend(self.deployments.within(namespace).map(|one| (*kind, id(&**one)))),
                Kind::ReplicaSet => ids.extend(self.replica_sets.within(namespace).map(|one| (*kind, id(&**one)))),
                Kind::StatefulSet => ids.extend(self.stateful_sets.within(namespace).map(|one| (*kind, id(&**one)))),
                Kind::DaemonSet => ids.extend(self.daemon_sets.within(namespace).map(|one| (*kind, id(&**one)))),
                Kind::CronJob | Kind::Job => {}
            }
        }
        self.due.extend(ids);
    }

    fn touch_pod(&mut self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        if !self.mark_controller(&pod.metadata) {
            return self.mark_all(&namespace, &[Kind::ReplicaSet, Kind::StatefulSet, Kind::DaemonSet]);
        }
        // A Deployment that recreates waits for pods, not for its ReplicaSets.
        let set = controller(&pod.metadata).and_then(|owner| self.replica_sets.get(&namespace, &owner.name)).cloned();
        if let Some(set) = set {
            self.mark_controller(&set.metadata);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn time(&self) -> Time {
        Time(self.now())
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn api<K: Held>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn wrote<K: Held>(&mut self, object: K) -> Arc<K> {
        K::known(self).put(object.clone());
        object.touch(self);
        Arc::new(object)
    }

    pub(super) async fn create<K: Held>(&mut self, object: &K) -> kube::Result<Arc<K>> {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = self.api::<K>(&namespace).create(&params, object).await?;
        Ok(self.wrote(created))
    }

    /// Merges `patch` into the object, if it is still the same one.
    pub(super) async fn patch<K: Held>(&mut self, object: &K, mut patch: Value) -> kube::Result<Arc<K>> {
        only_if_same(&mut patch, object.meta());
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        let patched = api.patch(&object.name_any(), &params(), &Patch::Merge(patch)).await?;
        Ok(self.wrote(patched))
    }

    /// Makes the status of the object `status`, if it is not so already.
    pub(super) async fn set_status<K: Held>(&mut self, object: &K, status: &impl Serialize) -> kube::Result<()> {
        let before = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
        let before = before.get("status").cloned().unwrap_or_default();
        let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        let empty = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
        if before == status || (empty(&before) && empty(&status)) {
            return Ok(());
        }
        remove_missing(&before, &mut status);
        let mut patch = json!({ "status": status });
        only_if_same(&mut patch, object.meta());
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        let patched = api.patch_status(&object.name_any(), &params(), &Patch::Merge(patch)).await?;
        self.wrote(patched);
        Ok(())
    }

    /// Deletes the object, if it is still the same one; what it owns goes in the background. One that is gone is no error.
    pub(super) async fn delete<K: Held>(&mut self, object: &K) -> kube::Result<()> {
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        let params =
            DeleteParams::background().preconditions(Preconditions { uid: object.uid(), resource_version: None });
        match api.delete(&object.name_any(), &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
            // A pod is answered as it now is; one that went at once counts as going until the watch says that it is gone.
            Ok(answer) => {
                if let Some(mut last) = answer.left() {
                    let now = self.time();
                    last.meta_mut().deletion_timestamp.get_or_insert(now);
                    self.wrote(last);
                }
            }
        }
        Ok(())
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Makes a merge patch of `after` that removes what only `before` has.
fn remove_missing(before: &Value, after: &mut Value) {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object_mut()) else { return };
    for (field, value) in before {
        remove_missing(value, after.entry(field).or_insert(Value::Null));
    }
}

fn only_if_same(patch: &mut Value, meta: &ObjectMeta) {
    let Some(patch) = patch.as_object_mut() else { return };
    if let Some(metadata) = patch.entry("metadata").or_insert_with(|| json!({})).as_object_mut() {
        metadata.insert("uid".to_owned(), json!(meta.uid));
    }
}

/// The controller of an object, if it has one.
pub(super) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// What objects that `owner` controls refer to it by.
pub(super) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// `None` for zero, as the API leaves zeros out.
pub(super) fn some(count: usize) -> Option<i32> {
    (count > 0).then(|| number(count))
}

/// A count as the API's numbers are.
pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
