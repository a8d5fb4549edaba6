//! `metadata.managedFields`: who owns which field.

use super::error::{ApiError, Cause};
use super::fields::{self, FieldSet};
use super::json;
use super::patch::apply;
use super::shape::Shape;
use super::table::{ResourceDef, Source};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    api_version: String,
    time: String,
    set: FieldSet,
}

/// (manager, applied, subresource)
type Manager = (String, bool, String);

#[derive(Debug, Clone, Default, PartialEq)]
struct Managed(BTreeMap<Manager, Entry>);

/// Who writes, and when.
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) now: &'a str,
}

impl Managed {
    fn read(object: &Value) -> Self {
        let mut out = BTreeMap::new();
        for entry in json::list_at(object, &["metadata", "managedFields"]) {
            let key = (
                json::str_at(entry, &["manager"]).to_owned(),
                json::str_at(entry, &["operation"]) == "Apply",
                json::str_at(entry, &["subresource"]).to_owned(),
            );
            let value = Entry {
                api_version: json::str_at(entry, &["apiVersion"]).to_owned(),
                time: json::str_at(entry, &["time"]).to_owned(),
                set: FieldSet::from_fields_v1(json::at(entry, &["fieldsV1"])),
            };
            out.insert(key, value);
        }
        Self(out)
    }

    fn write(&self, object: &mut Value) {
        let mut entries: Vec<_> = self.0.iter().filter(|(_, e)| !e.set.is_empty()).collect();
        // Apply first, then by time: the order of a real server.
        entries.sort_by(|(ka, a), (kb, b)| {
            kb.1.cmp(&ka.1)
                .then_with(|| a.time.cmp(&b.time))
                .then_with(|| ka.0.cmp(&kb.0))
                .then_with(|| ka.2.cmp(&kb.2))
        });
        let list: Vec<Value> = entries
            .into_iter()
            .map(|((manager, applied, subresource), entry)| {
                let operation = if *applied { "Apply" } else { "Update" };
                let mut value = json!({"manager": manager, "operation": operation, "apiVersion": entry.api_version,
                    "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": entry.set.to_fields_v1()});
                if entry.time.is_empty() {
                    json::remove(&mut value, &["time"]);
                }
                if !subresource.is_empty() {
                    json::set(&mut value, &["subresource"], subresource.clone());
                }
                value
            })
            .collect();
        if list.is_empty() {
            json::remove(object, &["metadata", "managedFields"]);
        } else {
            json::set(object, &["metadata", "managedFields"], list);
        }
    }
}

const UNOWNED_METADATA: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
];

/// Takes out of a set what nobody owns, and what this endpoint cannot write.
fn strip(def: &ResourceDef, subresource: &str, set: &mut FieldSet) {
    set.remove_tree(&["f:apiVersion"]);
    set.remove_tree(&["f:kind"]);
    for field in UNOWNED_METADATA {
        set.remove_tree(&["f:metadata", field]);
    }
    if def.has_status {
        if subresource == "status" {
            set.remove_tree(&["f:spec"]);
            if def.is_crd() {
                // The status endpoint of a custom resource writes nothing of the metadata.
                set.remove_tree(&["f:metadata"]);
            }
        } else if subresource.is_empty() {
            set.remove_tree(&["f:status"]);
        }
    }
}

/// The object as a root shape: `metadata` always has the built-in one.
fn compare(def: &ResourceDef, old: &Value, new: &Value) -> fields::Comparison {
    let mut all = fields::compare(def.shape(), &without_metadata(old), &without_metadata(new));
    let meta = fields::compare(Shape::metadata(), json::at(old, &["metadata"]), json::at(new, &["metadata"]));
    all.added = all.added.union(&under_metadata(meta.added));
    all.removed = all.removed.union(&under_metadata(meta.removed));
    all.modified = all.modified.union(&under_metadata(meta.modified));
    all
}

fn under_metadata(set: FieldSet) -> FieldSet {
    set.below("f:metadata")
}

fn without_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    json::remove(&mut object, &["metadata"]);
    object
}

fn applied_set(def: &ResourceDef, subresource: &str, applied: &Value) -> FieldSet {
    let mut set = fields::applied_set(def.shape(), &without_metadata(applied));
    let meta = fields::applied_set(Shape::metadata(), json::at(applied, &["metadata"]));
    set = set.union(&under_metadata(meta));
    strip(def, subresource, &mut set);
    set
}

fn empty_object(def: &ResourceDef) -> Value {
    match &def.source {
        Source::Builtin { shape, .. } => shape.empty_object(),
        Source::Crd(_) => json!({"metadata": {}}),
    }
}

/// Records an update (also a patch that is not an apply) in `new`'s managed fields.
pub(crate) fn track_update(def: &ResourceDef, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let empty = empty_object(def);
    // A writer may reset the managers by sending an empty list, or say who they are; what a subresource sends is not trusted,
    // and who sends nothing does not know of them.
    let reset = new.get("metadata").and_then(|m| m.get("managedFields")).is_some_and(json::is_empty) && old.is_some();
    let mut managed = match old {
        Some(_) if reset => Managed::default(),
        Some(old) => {
            let sent = if writer.subresource.is_empty() { Managed::read(new) } else { Managed::default() };
            if sent.0.is_empty() { Managed::read(old) } else { sent }
        }
        None => Managed::default(),
    };
    if old.is_some() && managed.0.is_empty() {
        // An object that nobody manages is not tracked until somebody applies it.
        managed.write(new);
        return;
    }
    let mut changes = compare(def, old.unwrap_or(&empty), new);
    for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
        strip(def, writer.subresource, set);
    }
    let changed = changes.added.union(&changes.modified);
    let key = (writer.manager.to_owned(), false, writer.subresource.to_owned());
    for (other, entry) in &mut managed.0 {
        if *other != key {
            entry.set = entry.set.difference(&changes.removed).difference(&changed);
        }
    }
    let previous = managed.0.get(&key).map(|e| e.set.clone()).unwrap_or_default();
    let mine = previous.difference(&changes.removed).union(&changed);
    if mine != previous {
        managed.0.insert(key, Entry { api_version: def.api_version(), time: writer.now.to_owned(), set: mine });
    }
    managed.write(new);
}

/// Merges a configuration into the live object and returns the result with its managed fields.
pub(crate) fn apply(
    def: &ResourceDef,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApiError> {
    let set = applied_set(def, writer.subresource, applied);
    let mut managed = live.map(Managed::read).unwrap_or_default();
    let key = (writer.manager.to_owned(), true, writer.subresource.to_owned());
    if let Some(live) = live.filter(|_| managed.0.is_empty()) {
        let everything = compare(def, &empty_object(def), live);
        let mut set = everything.added.union(&everything.modified);
        strip(def, "", &mut set);
        let entry = Entry { api_version: def.api_version(), time: writer.now.to_owned(), set };
        managed.0.insert(("before-first-apply".to_owned(), false, String::new()), entry);
    }
    let last = managed.0.get(&key).cloned();

    let base = live.cloned().unwrap_or_else(|| json!({"apiVersion": def.api_version(), "kind": def.kind}));
    let mut merged = apply::merge(def.shape(), &without_metadata(&base), &without_metadata(applied));
    let metadata = apply::merge(Shape::metadata(), json::at(&base, &["metadata"]), json::at(applied, &["metadata"]));
    json::object_mut(&mut merged).insert("metadata".to_owned(), metadata);

    let mut changes = compare(def, &base, &merged);
    for changed in [&mut changes.added, &mut changes.modified] {
        strip(def, writer.subresource, changed);
    }
    let changed = changes.added.union(&changes.modified);
    let mut causes = Vec::new();
    for (other, entry) in &mut managed.0 {
        if *other == key {
            continue;
        }
        let conflict = entry.set.intersection(&changed);
        if conflict.is_empty() {
            continue;
        }
        if force {
            entry.set = entry.set.difference(&conflict);
        } else {
            let name = conflicting_manager(other, entry);
            causes.extend(conflict.paths().into_iter().map(|field| Cause::manager_conflict(&name, field)));
        }
    }
    if !causes.is_empty() {
        return Err(ApiError::apply_conflict(&causes));
    }
    if let Some(last) = &last {
        let others = managed.0.iter().filter(|(k, _)| **k != key).fold(set.clone(), |all, (_, e)| all.union(&e.set));
        let gone = last.set.difference(&set);
        let mut body = without_metadata(&merged);
        apply::prune(def.shape(), &mut body, &gone, &others);
        let mut metadata = json::at(&merged, &["metadata"]).clone();
        let nothing = FieldSet::default();
        if let Some(gone) = gone.child("f:metadata") {
            apply::prune(Shape::metadata(), &mut metadata, gone, others.child("f:metadata").unwrap_or(&nothing));
        }
        json::object_mut(&mut body).insert("metadata".to_owned(), metadata);
        merged = body;
    }
    let unchanged = last.as_ref().is_some_and(|l| l.set == set && l.api_version == def.api_version());
    if !unchanged {
        managed.0.insert(key, Entry { api_version: def.api_version(), time: writer.now.to_owned(), set });
    }
    managed.write(&mut merged);
    Ok(merged)
}

fn conflicting_manager(manager: &Manager, entry: &Entry) -> String {
    let (name, applied, subresource) = manager;
    let mut text = format!("{name:?}");
    if !subresource.is_empty() {
        text.push_str(&format!(" with subresource {subresource:?}"));
    }
    if !*applied {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}

/// After a write of the scale subresource: the writer owns the replicas, alone, and without a time. Two exceptions follow from
/// how a real server does it: zero replicas are an absent field of a `Scale`, so nobody owns them; and a field that nobody owned
/// before has no owner afterwards.
pub(crate) fn track_scale(def: &ResourceDef, object: &mut Value, path: &[&str], manager: &str, replicas: i64) {
    let mut managed = Managed::read(object);
    let mut had_owner = false;
    for entry in managed.0.values_mut().filter(|e| e.set.has(path)) {
        entry.set.remove_tree(path);
        had_owner = true;
    }
    if replicas != 0 && had_owner {
        let mut set = FieldSet::default();
        set.insert(&path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        let entry = Entry { api_version: def.api_version(), time: String::new(), set };
        managed.0.insert((manager.to_owned(), false, "scale".to_owned()), entry);
    }
    managed.write(object);
}

/// True if two objects differ in nothing but the times of their managed fields.
pub(crate) fn same_but_times(old: &Value, new: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        if let Some(Value::Array(entries)) = object.get_mut("metadata").and_then(|m| m.get_mut("managedFields")) {
            for entry in entries {
                json::remove(entry, &["time"]);
            }
        }
        object
    };
    timeless(old) == timeless(new)
}
