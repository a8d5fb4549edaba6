//! What the watches tell, in ordered maps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};

use super::objects::{Kind, Name, Object, name_of, uid};

/// An object before and after.
pub(super) type Change = (Option<Object>, Option<Object>);

/// All objects that are known.
#[derive(Debug, Default)]
pub(super) struct World {
    kinds: BTreeMap<Kind, BTreeMap<Name, Object>>,
    listing: BTreeMap<Kind, BTreeMap<Name, Object>>,
}

impl World {
    /// Whether all of these kinds have been listed.
    pub(super) fn knows(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.kinds.contains_key(kind))
    }

    pub(super) fn get(&self, kind: Kind, name: &Name) -> Option<Object> {
        self.kinds.get(&kind)?.get(name).cloned()
    }

    /// All objects of a kind, by name.
    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.kinds.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// Takes in what a watch reported and tells what it changed.
    pub(super) fn take(&mut self, kind: Kind, event: Event<DynamicObject>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.listing.insert(kind, BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.entry(kind).or_default().insert(name_of(&object), Arc::new(object));
                Vec::new()
            }
            Event::InitDone => {
                let listed = self.listing.remove(&kind).unwrap_or_default();
                let mut before = self.kinds.insert(kind, listed.clone()).unwrap_or_default();
                let mut changes: Vec<Change> =
                    listed.into_iter().map(|(name, object)| (before.remove(&name), Some(object))).collect();
                changes.extend(before.into_values().map(|gone| (Some(gone), None)));
                changes
            }
            Event::Apply(object) => {
                let object = Arc::new(object);
                let known = self.kinds.entry(kind).or_default();
                let before = known.get(&name_of(&object)).cloned();
                // What was written here is known from its answer already, and may be newer than this report of it.
                let newer =
                    before.as_ref().filter(|before| same(before, &object) && version(before) > version(&object));
                if let Some(newer) = newer.cloned() {
                    return vec![(before, Some(newer))];
                }
                known.insert(name_of(&object), Arc::clone(&object));
                vec![(before, Some(object))]
            }
            Event::Delete(object) => {
                let gone = self.kinds.entry(kind).or_default().remove(&name_of(&object));
                vec![(Some(gone.unwrap_or_else(|| Arc::new(object))), None)]
            }
        }
    }

    /// Takes in the answer to a write. What is not known is not made known by it: it may be gone by now.
    pub(super) fn learn(&mut self, kind: Kind, object: &Object) {
        let known = self.kinds.entry(kind).or_default().get_mut(&name_of(object));
        if let Some(known) = known
            && same(known, object)
            && version(known) < version(object)
        {
            *known = Arc::clone(object);
        }
    }
}

fn same(one: &DynamicObject, other: &DynamicObject) -> bool {
    uid(one) == uid(other)
}

fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Reports on a kind for ever; what fails is begun anew.
pub(super) fn watch(client: &Client, kind: Kind) -> BoxStream<'static, (Kind, Event<DynamicObject>)> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
    watcher(api, watcher::Config::default())
        .backoff(Steady(0))
        .filter_map(move |event| async move { Some((kind, event.ok()?)) })
        .boxed()
}

/// Doubling waits without the random part of the usual ones, which would make every run another one.
struct Steady(u32);

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(500 << self.0.min(6));
        self.0 += 1;
        Some(wait)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {
        self.0 = 0;
    }
}
