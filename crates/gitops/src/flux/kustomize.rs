//! What `kustomize build` would make of a folder, as far as names, kinds and claims are concerned.
//!
//! Pure: files in, objects out. Only what is sure is said: resources are followed through the repository, fields that
//! change nothing about names or volumes are passed over, and everything else makes the result unknown.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use upgrade_core::ports::{ObjectRef, Piece};

use super::pins::template_pointer;

/// Why there is no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// This folder has to be read first.
    Needs(String),
    /// It cannot be told.
    Unknown(String),
}

type Result<T> = std::result::Result<T, Stop>;

fn unknown<T>(why: impl Into<String>) -> Result<T> {
    Err(Stop::Unknown(why.into()))
}

/// What was read of a repository.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The YAML files, by path.
    pub(super) files: BTreeMap<String, String>,
    /// The folders that were read with everything below; `""` is the root.
    pub(super) read: BTreeSet<String>,
    /// The bytes that were looked at while building, each time they were.
    effort: Cell<usize>,
}

/// Fields of a kustomization that change neither which objects there are nor what they mount.
const HARMLESS: [&str; 13] = [
    "apiVersion",
    "buildMetadata",
    "commonAnnotations",
    "commonLabels",
    "configMapGenerator",
    "generatorOptions",
    "images",
    "kind",
    "labels",
    "metadata",
    "replicas",
    "secretGenerator",
    "sortOptions",
];

/// Words without which a patch touches neither objects as such nor their volumes.
const SENSITIVE: [&str; 9] = [
    "$patch",
    LOCAL,
    "claimname",
    "persistentvolumeclaim",
    "volumeclaimtemplates",
    "volumes",
    "/metadata/name",
    "/kind",
    "remove",
];

/// What makes kustomize leave an object out.
const LOCAL: &str = "config.kubernetes.io/local-config";

/// The places that [`pieces`] reads.
const READ: [&str; 8] = [
    "/apiVersion",
    "/kind",
    "/metadata/name",
    "/metadata/namespace",
    "/spec/volumes",
    "/spec/volumeClaimTemplates",
    "/spec/template/spec/volumes",
    "/spec/jobTemplate/spec/template/spec/volumes",
];

/// How deep resources are followed.
const MAX_DEPTH: usize = 12;

/// How many bytes are looked at in all: folders may be named again and again, and each of them again.
const MAX_EFFORT: usize = 8 << 20;

/// The objects of a folder, as Flux's Kustomization builds it: without a kustomization file, of all files below it.
pub(super) fn build(tree: &Tree, folder: &str) -> Result<Vec<Value>> {
    tree.effort.set(0);
    tree.need(folder)?;
    if tree.kustomization(folder).is_some() {
        return tree.folder(folder, 0);
    }
    let mut objects = Vec::new();
    let mut seen = BTreeSet::new();
    for path in tree.below(folder) {
        // A folder below with a kustomization file of its own is one resource, as its topmost such folder.
        match tree.own_folder(folder, path) {
            Some(inner) if seen.insert(inner.clone()) => objects.extend(tree.folder(&inner, 1)?),
            Some(_) => {}
            None => objects.extend(tree.documents(path)?),
        }
    }
    if objects.is_empty() {
        return unknown(format!("there is nothing in {}", name(folder)));
    }
    Ok(objects)
}

/// Whether a patch, as text, leaves names and volumes alone: its words do, and so does all that it replaces as a whole.
pub(super) fn is_harmless_patch(text: &str) -> bool {
    let words = text.to_ascii_lowercase();
    if SENSITIVE.iter().any(|word| words.contains(word)) {
        return false;
    }
    let Ok(documents) = windlass_helm::values(text) else { return false };
    documents.iter().all(|document| match document {
        Value::Null => true,
        Value::Array(operations) => operations.iter().all(is_harmless_operation),
        merge @ Value::Object(_) => !erases(merge, ""),
        _ => false,
    })
}

/// Whether changing what is at `path` can change something that is read.
fn is_read(path: &str) -> bool {
    let is_below = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
    READ.iter().any(|place| path == *place || is_below(place, path) || is_below(path, place))
}

/// An operation of a JSON patch.
fn is_harmless_operation(operation: &Value) -> bool {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    match (text("op"), text("path")) {
        (Some("test"), _) => true,
        (Some("add" | "replace"), Some(path)) => !is_read(path),
        _ => false,
    }
}

/// Whether a patch that is merged in takes away something that is read: a null does, and directives may.
fn erases(value: &Value, path: &str) -> bool {
    match value {
        Value::Null => is_read(path),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.starts_with('$') || erases(value, &format!("{path}/{key}")))
        }
        _ => false,
    }
}

/// The objects as the delivery would apply them: in `namespace`, if one is put on all of them. With `substitutes`, variables
/// in names make them unknown.
pub(super) fn pieces(objects: &[Value], namespace: Option<&str>, substitutes: bool) -> Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(objects.len());
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let group = text("/apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        let own = text("/metadata/namespace");
        let reference = ObjectRef::new(group, text("/kind"), namespace.unwrap_or(own), text("/metadata/name"));
        let template = match (group, text("/kind")) {
            ("", "Pod") => Some(object),
            _ => template_pointer(&reference).and_then(|pointer| object.pointer(pointer)),
        };
        let volumes = template.and_then(|template| template.pointer("/spec/volumes")).and_then(Value::as_array);
        let named = |item: &Value, pointer: &str| item.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let claims: Vec<String> = volumes
            .into_iter()
            .flatten()
            .filter_map(|volume| named(volume, "/persistentVolumeClaim/claimName"))
            .collect();
        let templates = object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
        let claim_templates: Vec<String> =
            templates.into_iter().flatten().filter_map(|template| named(template, "/metadata/name")).collect();
        if object.pointer("/metadata/annotations").is_some_and(|all| all.get(LOCAL).is_some()) {
            return unknown(format!("{reference} has {LOCAL}"));
        }
        if reference.kind.is_empty() || reference.name.is_empty() {
            return unknown("an object has no kind or no name");
        }
        let piece = Piece { object: reference, claims, claim_templates };
        let texts = [&piece.object.kind, &piece.object.namespace, &piece.object.name].into_iter();
        let substituted =
            texts.chain(&piece.claims).chain(&piece.claim_templates).find(|text| substitutes && text.contains("${"));
        if let Some(text) = substituted {
            return unknown(format!("{text} is substituted by spec.postBuild"));
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

impl Tree {
    fn need(&self, folder: &str) -> Result<()> {
        let is_read = |read: &String| read.is_empty() || folder == read || is_below(folder, read);
        if self.read.iter().any(is_read) { Ok(()) } else { Err(Stop::Needs(folder.to_owned())) }
    }

    fn below<'t>(&'t self, folder: &'t str) -> impl Iterator<Item = &'t String> {
        self.files.keys().filter(move |path| is_below(path, folder))
    }

    /// The paths of a folder's kustomization files, by the names that kustomize knows. It takes one only.
    fn kustomizations(&self, folder: &str) -> impl Iterator<Item = String> {
        let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
        names.into_iter().map(move |name| join(folder, name)).filter(|path| self.files.contains_key(path))
    }

    fn kustomization(&self, folder: &str) -> Option<String> {
        self.kustomizations(folder).next()
    }

    /// The topmost folder between `folder` and a file that has a kustomization file.
    fn own_folder(&self, folder: &str, path: &str) -> Option<String> {
        let rest = if folder.is_empty() { path } else { path.get(folder.len() + 1..)? };
        let mut at = folder.to_owned();
        let mut parts = rest.split('/').peekable();
        while let Some(part) = parts.next() {
            parts.peek()?;
            at = join(&at, part);
            if self.kustomization(&at).is_some() {
                return Some(at);
            }
        }
        None
    }

    fn documents(&self, path: &str) -> Result<Vec<Value>> {
        let Some(text) = self.files.get(path) else { return unknown(format!("{path} does not exist")) };
        // An empty file is some work, too.
        let effort = self.effort.get().saturating_add(text.len()).saturating_add(256);
        self.effort.set(effort);
        if effort > MAX_EFFORT {
            return unknown(format!(
                "it is put together from more than {MAX_EFFORT} bytes, or from the same again and again"
            ));
        }
        let read = windlass_helm::documents(text).into_iter().map(|document| document.object).collect();
        let Some(objects): Option<Vec<Value>> = read else {
            return unknown(format!("{path} has a document that cannot be read"));
        };
        Ok(objects)
    }

    fn folder(&self, folder: &str, depth: usize) -> Result<Vec<Value>> {
        self.need(folder)?;
        let Some(path) = self.kustomization(folder) else {
            return unknown(format!("{} has no kustomization.yaml", name(folder)));
        };
        if self.kustomizations(folder).count() > 1 {
            return unknown(format!("{} has more than one kustomization file", name(folder)));
        }
        if depth > MAX_DEPTH {
            return unknown(format!("{path} leads in a circle, or too deep"));
        }
        let documents = self.documents(&path)?;
        let [Value::Object(fields)] = documents.as_slice() else {
            return unknown(format!("{path} is not one document"));
        };
        let mut objects = Vec::new();
        let mut namespace = None;
        for (key, value) in fields {
            match key.as_str() {
                "resources" | "bases" => {
                    for resource in list(&path, key, value)? {
                        objects.extend(self.resource(&path, folder, resource, depth)?);
                    }
                }
                "namespace" => namespace = value.as_str(),
                "patches" | "patchesJson6902" | "patchesStrategicMerge" => self.patches(&path, folder, key, value)?,
                key if HARMLESS.contains(&key) || is_empty(value) => {}
                key => return unknown(format!("{path} has {key}")),
            }
        }
        if let Some(namespace) = namespace {
            for object in &mut objects {
                if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
                    metadata.insert("namespace".into(), namespace.into());
                }
            }
        }
        Ok(objects)
    }

    fn resource(&self, path: &str, folder: &str, resource: &str, depth: usize) -> Result<Vec<Value>> {
        if resource.contains("://") || resource.contains('?') || resource.starts_with("git@") {
            return unknown(format!("{path} takes {resource} from elsewhere"));
        }
        let Some(target) = resolve(folder, resource) else {
            return unknown(format!("{path} names {resource}, which is outside of the repository"));
        };
        if !target.ends_with(".yaml") && !target.ends_with(".yml") {
            return self.folder(&target, depth + 1);
        }
        self.need(parent(&target))?;
        self.documents(&target)
    }

    fn patches(&self, path: &str, folder: &str, key: &str, value: &Value) -> Result<()> {
        let Some(patches) = value.as_array() else { return unknown(format!("{path} has {key}")) };
        for patch in patches {
            let inline = patch.get("patch").and_then(Value::as_str);
            let named = patch.get("path").and_then(Value::as_str).or(patch.as_str());
            let text = match (inline, named) {
                (Some(text), _) => text.to_owned(),
                (None, Some(named)) if named.contains('\n') => named.to_owned(),
                (None, Some(named)) => {
                    let file = resolve(folder, named).unwrap_or_default();
                    self.need(parent(&file))?;
                    match self.files.get(&file) {
                        Some(text) => text.clone(),
                        None => return unknown(format!("{path} has a patch in {named}, which cannot be read")),
                    }
                }
                (None, None) => return unknown(format!("{path} has a patch that cannot be read")),
            };
            let renames = patch.get("options").is_some_and(|options| !is_empty(options));
            if renames || !is_harmless_patch(&text) {
                return unknown(format!("{path} has a patch that may change names or volumes"));
            }
        }
        Ok(())
    }
}

fn list<'v>(path: &str, key: &str, value: &'v Value) -> Result<Vec<&'v str>> {
    let items = match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    };
    items.map_or_else(|| unknown(format!("{path} has {key} that cannot be read")), Ok)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn name(folder: &str) -> &str {
    if folder.is_empty() { "the root of the repository" } else { folder }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A path relative to a folder, without `.` and `..`; `None` when it leaves the repository.
pub(super) fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
#[path = "kustomize_tests.rs"]
mod tests;
