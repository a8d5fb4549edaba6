//! Everything the server remembers, behind one lock: a request is one atomic step.

use super::audit::AuditEntry;
use super::store::Store;
use super::table::{Registry, ResourceDef};
use super::{AdmissionHook, Config, Identity};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A source of names and uids that gives the same ones for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    pub(crate) fn uid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    /// Five characters as `generateName` appends them.
    pub(crate) fn suffix(&mut self) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).filter_map(|_| ALPHABET.get(self.below(27) as usize).map(|b| char::from(*b))).collect()
    }
}

/// The contents of the server.
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) seeded: Seeded,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) tokens: BTreeMap<String, Identity>,
    pub(crate) hooks: Vec<AdmissionHook>,
    pub(crate) logs: Option<super::LogSource>,
    pub(crate) config: Config,
    pub(crate) started: Instant,
    pub(crate) watchers: BTreeMap<u64, Arc<Notify>>,
    pub(crate) next_watcher: u64,
    pub(crate) next_ip: u32,
    /// Something changed that the garbage collector may care about.
    pub(crate) dirty: bool,
}

impl State {
    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.started.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
        self.config.epoch.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// The time in the form of metadata: whole seconds.
    pub(crate) fn now_text(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Wakes everybody who waits for changes, always in the same order.
    pub(crate) fn wake(&self) {
        for watcher in self.watchers.values() {
            watcher.notify_one();
        }
    }

    pub(crate) fn add_watcher(&mut self) -> (u64, Arc<Notify>) {
        self.next_watcher += 1;
        let notify = Arc::new(Notify::new());
        self.watchers.insert(self.next_watcher, notify.clone());
        (self.next_watcher, notify)
    }

    /// The stored object as its version shows it.
    pub(crate) fn fetch(&self, def: &ResourceDef, namespace: &str, name: &str) -> Option<Value> {
        self.store.get(&def.storage, namespace, name).map(|stored| present(def, stored))
    }

    pub(crate) fn put(&mut self, def: &ResourceDef, object: Value) -> Arc<Value> {
        let metadata = super::json::at(&object, &["metadata"]);
        self.dirty |= metadata.get("ownerReferences").is_some() || metadata.get("deletionTimestamp").is_some();
        let stored = self.store.put(&def.storage, to_storage(def, object));
        self.wake();
        stored
    }

    pub(crate) fn delete(&mut self, def: &ResourceDef, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.dirty = true;
        let last = self.store.delete(&def.storage, namespace, name);
        self.wake();
        last
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Arc<Value>> {
        self.store.get(&(String::new(), "namespaces".to_owned()), "", name)
    }
}

/// The stored form in the form of one API version. Versions of a custom resource differ in their name only.
pub(crate) fn present(def: &ResourceDef, stored: &Value) -> Value {
    let mut object = stored.clone();
    if def.is("", "events") {
        super::events::to_core(&mut object);
    }
    let map = super::json::object_mut(&mut object);
    map.insert("apiVersion".to_owned(), Value::String(def.api_version()));
    map.insert("kind".to_owned(), Value::String(def.kind.clone()));
    if def.has_status && !def.is_crd() {
        // Go shows an empty status as `{}`.
        map.entry("status").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    object
}

/// The form in which an object is kept: events of both groups are one kind.
pub(crate) fn to_storage(def: &ResourceDef, mut object: Value) -> Value {
    if def.is("", "events") {
        super::events::to_events_group(&mut object);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::Seeded;

    #[test]
    fn the_same_seed_gives_the_same_names() {
        let draw = |seed| {
            let mut seeded = Seeded::new(seed);
            (seeded.uid(), seeded.suffix())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(draw(7).0.len(), 36);
        assert_eq!(draw(7).1.len(), 5);
    }
}
