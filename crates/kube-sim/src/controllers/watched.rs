//! The newest known objects of one kind, kept up by a watch.
//!
//! The order of everything is that of the watch and of the names: nothing here depends on hashes or on chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

/// Namespace and name.
pub(super) type Id = (String, String);

/// The same wait before every new try.
struct Every(Duration);

impl Iterator for Every {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0)
    }
}

impl Backoff for Every {
    fn reset(&mut self) {}
}

/// All objects of a kind, for ever; a watch that fails is begun anew a second later.
pub(super) fn watch<K>(client: &Client) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .backoff(Every(Duration::from_secs(1)))
        .filter_map(|event| async {
            event.inspect_err(|error| tracing::debug!(kind = %K::kind(&()), %error, "watching")).ok()
        })
        .boxed()
}

pub(super) fn id(object: &impl ResourceExt) -> Id {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// What is known of a kind.
#[derive(Debug)]
pub(super) struct Known<K> {
    objects: BTreeMap<Id, Arc<K>>,
    /// What a list under way has named so far.
    listing: BTreeSet<Id>,
    complete: bool,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listing: BTreeSet::new(), complete: false }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Known<K> {
    /// Whether a whole list has been seen.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects of a namespace, by name.
    pub(super) fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.objects
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((its, _), _)| its == namespace)
            .map(|(_, object)| object)
    }

    /// Takes an event and returns the objects that it is about; those that are gone as they last were.
    pub(super) fn take(&mut self, event: watcher::Event<K>) -> Vec<Arc<K>> {
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.listing.insert(id(&object));
                self.put(object).into_iter().collect()
            }
            watcher::Event::InitDone => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listing);
                let gone = |id: &Id| !listed.contains(id);
                let gone: Vec<Id> = self.objects.keys().filter(|id| gone(id)).cloned().collect();
                gone.iter().filter_map(|id| self.objects.remove(id)).collect()
            }
            watcher::Event::Apply(object) => self.put(object).into_iter().collect(),
            watcher::Event::Delete(object) => {
                let id = id(&object);
                // Its name may be that of a newer object already.
                if self.objects.get(&id).is_some_and(|known| known.meta().uid == object.meta().uid) {
                    self.objects.remove(&id);
                }
                vec![Arc::new(object)]
            }
        }
    }

    /// Takes an object from a watch or from the answer to a write, unless a newer one is known. Returns it if it is news.
    pub(super) fn put(&mut self, object: K) -> Option<Arc<K>> {
        let revision = |object: &K| object.meta().resource_version.as_ref().and_then(|text| text.parse::<u64>().ok());
        let id = id(&object);
        if self.objects.get(&id).is_some_and(|known| revision(known) >= revision(&object)) {
            return None;
        }
        let object = Arc::new(object);
        self.objects.insert(id, Arc::clone(&object));
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;
    use serde_json::{from_value, json};

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        let metadata = json!({ "namespace": "n", "name": name, "uid": uid, "resourceVersion": version.to_string() });
        from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn an_older_object_does_not_replace_a_newer_one() {
        let mut known = Known::default();
        assert!(known.put(object("a", "1", 5)).is_some());
        assert!(known.put(object("a", "1", 4)).is_none());
        assert!(known.take(Event::Apply(object("a", "1", 5))).is_empty());
        known.put(object("a", "2", 9));
        known.take(Event::Delete(object("a", "1", 8)));
        assert_eq!(known.get("n", "a").unwrap().metadata.uid.as_deref(), Some("2"));
    }

    #[test]
    fn a_new_list_ends_what_it_does_not_name() {
        let mut known = Known::default();
        known.put(object("a", "1", 1));
        known.put(object("b", "2", 2));
        known.take(Event::Init);
        known.take(Event::InitApply(object("b", "2", 2)));
        assert!(!known.is_complete());
        let gone = known.take(Event::InitDone);
        assert_eq!(gone.iter().map(|one| one.name_any()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(known.within("n").count(), 1);
        assert!(known.is_complete());
    }
}
