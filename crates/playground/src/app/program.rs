//! The app as a function: what a pod of the simulation runs, on the same files as the process of the real rig.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kube_sim::controllers::pods::{Container, Images, Program};

use super::{AppVersion, Behaviour, Store, StoreError, Summary};

/// After this time version 4.0.0 turns unready, unless `FAIL_AFTER_SECONDS` in its environment says otherwise.
const FAIL_AFTER: Duration = Duration::from_secs(2);

/// Images of the app under one repository name, and the instances that run. Clones share the instances.
#[derive(Clone)]
pub struct NotesImages {
    repository: String,
    instances: Instances,
}

/// Instances by namespace and pod.
type ByPod = BTreeMap<(String, String), Arc<Instance>>;

/// What runs at the moment.
#[derive(Clone, Default)]
struct Instances(Arc<Mutex<ByPod>>);

impl Instances {
    fn lock(&self) -> MutexGuard<'_, ByPod> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Instance {
    store: Store,
    serving: std::sync::atomic::AtomicBool,
}

impl NotesImages {
    /// Images `repository:<version>`.
    #[must_use]
    pub fn new(repository: impl Into<String>) -> Self {
        Self { repository: repository.into(), instances: Instances::default() }
    }

    fn instance(&self, namespace: &str, pod: &str) -> Option<Arc<Instance>> {
        self.instances.lock().get(&(namespace.to_owned(), pod.to_owned())).cloned()
    }

    /// Appends a record through the instance of that pod and returns its number once it is durable; `None` when no instance
    /// serves there.
    ///
    /// # Errors
    /// When the record is not one line of text, or the disk refused it.
    pub fn append(&self, namespace: &str, pod: &str, text: &str) -> Result<Option<u64>, StoreError> {
        let found = self.instance(namespace, pod);
        let serving = found.filter(|one| one.serving.load(std::sync::atomic::Ordering::SeqCst));
        serving.map(|one| one.store.append(text)).transpose()
    }

    /// What the instance of that pod holds; `None` when there is none.
    #[must_use]
    pub fn summary(&self, namespace: &str, pod: &str) -> Option<Summary> {
        self.instance(namespace, pod).map(|one| one.store.summary())
    }
}

impl Images for NotesImages {
    fn program(&self, image: &str) -> Option<Arc<dyn Program>> {
        let tag = image.strip_prefix(&self.repository)?.strip_prefix(':')?;
        let version = tag.parse().ok()?;
        Some(Arc::new(Notes { version, instances: self.instances.clone() }))
    }
}

struct Notes {
    version: AppVersion,
    instances: Instances,
}

/// Takes the instance out when its process ends, however it ends.
struct Registered(Instances, (String, String));

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

#[async_trait]
impl Program for Notes {
    async fn run(&self, container: Container) -> i32 {
        let behaviour = self.version.behaviour();
        let Some(folder) = data_folder(&container) else { return 2 };
        let store = match Store::open(&folder, behaviour.format_policy()) {
            Ok(store) => store,
            Err(error) => {
                tracing::info!(version = %self.version, %error, "the app cannot start");
                return 1;
            }
        };
        let corrupts = behaviour == Behaviour::CorruptsItsData;
        if corrupts && let Err(error) = store.corrupt() {
            tracing::info!(%error, "the data was not overwritten");
            return 1;
        }
        let instance = Arc::new(Instance { store, serving: (!corrupts).into() });
        let key = (container.namespace.clone(), container.pod.clone());
        self.instances.lock().insert(key.clone(), instance.clone());
        let _registered = Registered(self.instances.clone(), key);
        container.readiness.set(!corrupts);
        if behaviour == Behaviour::FailsInTheSoak {
            tokio::select! {
                () = container.stop.cancelled() => return 0,
                () = tokio::time::sleep(fail_after(&container)) => {}
            }
            instance.serving.store(false, std::sync::atomic::Ordering::SeqCst);
            container.readiness.set(false);
        }
        container.stop.cancelled().await;
        0
    }
}

fn fail_after(container: &Container) -> Duration {
    let seconds = container.env.get("FAIL_AFTER_SECONDS").and_then(|text| text.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(FAIL_AFTER)
}

/// The folder that `DATA_DIR` names inside the container.
fn data_folder(container: &Container) -> Option<PathBuf> {
    container.mounts.get(container.env.get("DATA_DIR")?).cloned()
}
