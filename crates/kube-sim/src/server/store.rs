//! The objects, one revision counter for all of them, and the log of changes that watches read.

use super::json;
use super::table::StorageKey;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// (namespace, name)
pub(crate) type ObjectKey = (String, String);

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) change: Change,
    pub(crate) storage: StorageKey,
    pub(crate) key: ObjectKey,
    pub(crate) object: Arc<Value>,
    pub(crate) previous: Option<Arc<Value>>,
}

/// All objects and their recent history.
pub(crate) struct Store {
    objects: BTreeMap<StorageKey, BTreeMap<ObjectKey, Arc<Value>>>,
    log: VecDeque<Event>,
    revision: u64,
    compacted: u64,
    log_limit: usize,
    digest: Sha256,
}

/// A revision that the store no longer has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compacted;

impl Store {
    pub(crate) fn new(log_limit: usize) -> Self {
        Self {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            revision: 1,
            compacted: 0,
            log_limit,
            digest: Sha256::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that can still be shown.
    pub(crate) fn oldest(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn get(&self, storage: &StorageKey, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(storage)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn all(&self, storage: &StorageKey) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        self.objects.get(storage).into_iter().flatten()
    }

    pub(crate) fn storages(&self) -> impl Iterator<Item = &StorageKey> {
        self.objects.keys()
    }

    /// The objects of a resource as they were at `revision`.
    pub(crate) fn snapshot(
        &self,
        storage: &StorageKey,
        revision: u64,
    ) -> Result<BTreeMap<ObjectKey, Arc<Value>>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted);
        }
        let mut objects = self.objects.get(storage).cloned().unwrap_or_default();
        for event in self.log.iter().rev().take_while(|e| e.revision > revision).filter(|e| e.storage == *storage) {
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), previous.clone()),
                None => objects.remove(&event.key),
            };
        }
        Ok(objects)
    }

    /// Writes an object under the next revision, which is set in its metadata.
    pub(crate) fn put(&mut self, storage: &StorageKey, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        json::set(&mut object, &["metadata", "resourceVersion"], self.revision.to_string());
        let key = (
            json::str_at(&object, &["metadata", "namespace"]).to_owned(),
            json::str_at(&object, &["metadata", "name"]).to_owned(),
        );
        let object = Arc::new(object);
        let previous = self.objects.entry(storage.clone()).or_default().insert(key.clone(), object.clone());
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        self.record(Event {
            revision: self.revision,
            change,
            storage: storage.clone(),
            key,
            object: object.clone(),
            previous,
        });
        object
    }

    /// Removes an object; its last state carries the revision of the removal.
    pub(crate) fn delete(&mut self, storage: &StorageKey, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (namespace.to_owned(), name.to_owned());
        let previous = self.objects.get_mut(storage)?.remove(&key)?;
        self.revision += 1;
        let mut last = Value::clone(&previous);
        json::set(&mut last, &["metadata", "resourceVersion"], self.revision.to_string());
        let object = Arc::new(last);
        self.record(Event {
            revision: self.revision,
            change: Change::Deleted,
            storage: storage.clone(),
            key,
            object: object.clone(),
            previous: Some(previous),
        });
        Some(object)
    }

    fn record(&mut self, event: Event) {
        self.digest.update(format!("{:?} {:?} {:?} ", event.change, event.storage, event.key));
        self.digest.update(event.object.to_string());
        self.log.push_back(event);
        while self.log.len() > self.log_limit {
            if let Some(gone) = self.log.pop_front() {
                self.compacted = gone.revision;
            }
        }
    }

    /// Events after `revision`, of one resource.
    pub(crate) fn events_after(&self, storage: &StorageKey, revision: u64) -> Result<Vec<Event>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted);
        }
        let first = self.log.partition_point(|e| e.revision <= revision);
        Ok(self.log.range(first..).filter(|e| e.storage == *storage).cloned().collect())
    }

    /// Forgets all history: older revisions answer 410 from now on.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        self.log.clear();
    }

    /// A hash of everything that was ever written.
    pub(crate) fn digest(&self) -> Sha256 {
        self.digest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> StorageKey {
        (String::new(), "configmaps".to_owned())
    }

    fn object(name: &str, value: u32) -> Value {
        json!({"metadata": {"name": name, "namespace": "n"}, "data": {"v": value}})
    }

    #[test]
    fn a_snapshot_shows_the_state_of_its_revision() {
        let mut store = Store::new(100);
        store.put(&key(), object("a", 1));
        store.put(&key(), object("b", 1));
        let then = store.revision();
        store.put(&key(), object("a", 2));
        store.delete(&key(), "n", "b");
        store.put(&key(), object("c", 1));
        let seen = store.snapshot(&key(), then).unwrap();
        assert_eq!(seen.keys().map(|k| k.1.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(seen[&("n".to_owned(), "a".to_owned())]["data"]["v"], 1);
    }

    #[test]
    fn history_beyond_the_limit_is_compacted() {
        let mut store = Store::new(2);
        let first = store.revision();
        for n in 0..4 {
            store.put(&key(), object("a", n));
        }
        assert_eq!(store.events_after(&key(), first).unwrap_err(), Compacted);
        assert_eq!(store.events_after(&key(), store.revision() - 2).unwrap().len(), 2);
        assert!(store.snapshot(&key(), first).is_err());
    }
}
