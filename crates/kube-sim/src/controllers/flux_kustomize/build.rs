//! From the files of an artifact to the objects to apply: what `kustomize build` would do, as far as it is understood.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::super::artifact::Packed;
use super::super::objects::{CLUSTER_SCOPED, Manifest, manifests, wants_mark};
use super::fields::{Image, KustomizationSpec, PostBuild};

/// Files by their path.
pub(super) type Files = BTreeMap<String, Packed>;

/// Why nothing was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BuildError {
    /// Kustomize would do it, the stand-in does not know how.
    Unsupported(String),
    /// Kustomize would refuse, too.
    Failed(String),
}

fn failed(why: impl Into<String>) -> BuildError {
    BuildError::Failed(format!("kustomize build failed: {}", why.into()))
}

fn unsupported(what: impl Into<String>) -> BuildError {
    BuildError::Unsupported(what.into())
}

/// The names under which kustomize looks for its own file.
const OWN_FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// `kustomization.yaml`, as far as it is understood.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Overlay {
    resources: Vec<String>,
    namespace: Option<String>,
    images: Vec<Image>,
}

/// The folder that `spec.path` names; `None` when the artifact has none.
pub(super) fn folder(files: &Files, path: &str) -> Option<String> {
    let folder = normal("", path)?;
    let exists = folder.is_empty() || files.keys().any(|file| is_below(file, &folder));
    exists.then_some(folder)
}

fn is_below(file: &str, folder: &str) -> bool {
    folder.is_empty() || file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// A path relative to a folder, without `.` and `..`; `None` when it leads out of the artifact.
fn normal(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

/// The objects of a folder as the Kustomization wants them.
pub(super) fn build(files: &Files, folder: &str, spec: &KustomizationSpec) -> Result<Vec<Manifest>, BuildError> {
    let mut objects = of_folder(files, folder, &mut BTreeSet::new())?;
    if let Some(namespace) = &spec.target_namespace {
        move_to(&mut objects, namespace)?;
    }
    set_images(&mut objects, &spec.images);
    if let Some(post_build) = &spec.post_build {
        objects = objects.into_iter().map(|object| substitute(object, post_build)).collect::<Result<_, _>>()?;
    }
    let mut seen = BTreeSet::new();
    for object in &objects {
        if !seen.insert(&object.id) {
            return Err(failed(format!("may not add resource with an already registered id: {}", object.id)));
        }
        if object.body.get("sops").is_some() {
            let why = "is SOPS encrypted, configuring decryption is required for this secret to be reconciled";
            return Err(BuildError::Failed(format!("{} {why}", object.id)));
        }
    }
    for object in &mut objects {
        for (map, added) in
            [("labels", &spec.common_metadata.labels), ("annotations", &spec.common_metadata.annotations)]
        {
            if !added.is_empty()
                && let Some(present) = object.metadata_map(map)
            {
                present.extend(added.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))));
            }
        }
    }
    Ok(objects)
}

fn own_file(files: &Files, folder: &str) -> Option<String> {
    OWN_FILES.iter().filter_map(|name| normal(folder, name)).find(|path| files.contains_key(path))
}

fn of_folder(files: &Files, folder: &str, open: &mut BTreeSet<String>) -> Result<Vec<Manifest>, BuildError> {
    if !open.insert(folder.to_owned()) {
        return Err(failed(format!("cycle detected: '{folder}' includes itself")));
    }
    let objects = match own_file(files, folder) {
        Some(path) => of_overlay(files, folder, &path, open),
        None => of_plain_folder(files, folder, open),
    };
    open.remove(folder);
    objects
}

/// All YAML files below the folder; a folder with a file of kustomize's own is left to that.
fn of_plain_folder(files: &Files, folder: &str, open: &mut BTreeSet<String>) -> Result<Vec<Manifest>, BuildError> {
    let mut objects = Vec::new();
    let mut left_out: Option<String> = None;
    for path in files.keys().filter(|path| is_below(path, folder)) {
        if left_out.as_ref().is_some_and(|inner| is_below(path, inner)) {
            continue;
        }
        if let Some(inner) = inner_overlay(files, folder, path) {
            objects.extend(of_folder(files, &inner, open)?);
            left_out = Some(inner);
        } else if [".yaml", ".yml"].iter().any(|ending| path.ends_with(ending)) {
            objects.extend(of_file(files, path)?);
        }
    }
    Ok(objects)
}

/// The outermost folder between `folder` and the file that has a file of kustomize's own.
fn inner_overlay(files: &Files, folder: &str, path: &str) -> Option<String> {
    let ends = path.match_indices('/').map(|(end, _)| end).filter(|end| *end > folder.len());
    ends.filter_map(|end| path.get(..end)).find(|inner| own_file(files, inner).is_some()).map(str::to_owned)
}

fn text<'a>(files: &'a Files, path: &str) -> Result<&'a str, BuildError> {
    match files.get(path) {
        Some(Packed::File { content, .. }) => {
            std::str::from_utf8(content).map_err(|error| failed(format!("{path}: {error}")))
        }
        Some(Packed::Link(_)) => Err(unsupported(format!("the symbolic link {path}"))),
        None => Err(failed(format!("{path}: no such file or directory"))),
    }
}

fn of_file(files: &Files, path: &str) -> Result<Vec<Manifest>, BuildError> {
    manifests(text(files, path)?)
        .map_err(|error| failed(format!("failed to decode Kubernetes YAML from {path}: {error}")))
}

fn of_overlay(
    files: &Files,
    folder: &str,
    path: &str,
    open: &mut BTreeSet<String>,
) -> Result<Vec<Manifest>, BuildError> {
    let bad = |error: serde_yaml_ng::Error| failed(format!("{path}: {error}"));
    let raw: Value = serde_yaml_ng::from_str(text(files, path)?).map_err(bad)?;
    let known = ["apiVersion", "kind", "metadata", "resources", "namespace", "images"];
    let unknown = raw.as_object().and_then(|fields| fields.keys().find(|field| !known.contains(&field.as_str())));
    if let Some(field) = unknown {
        return Err(unsupported(format!("{field} in {path}")));
    }
    let overlay: Overlay = serde_json::from_value(raw).map_err(|error| failed(format!("{path}: {error}")))?;
    let mut objects = Vec::new();
    for resource in &overlay.resources {
        if resource.contains("://") || resource.contains("?ref=") {
            return Err(unsupported(format!("the remote resource {resource} in {path}")));
        }
        let target =
            normal(folder, resource).ok_or_else(|| failed(format!("{path}: {resource} is not in the artifact")))?;
        if files.contains_key(&target) {
            objects.extend(of_file(files, &target)?);
        } else if own_file(files, &target).is_some() {
            objects.extend(of_folder(files, &target, open)?);
        } else {
            return Err(failed(format!("accumulating resources from '{resource}': no such file or directory")));
        }
    }
    if let Some(namespace) = overlay.namespace.filter(|namespace| !namespace.is_empty()) {
        move_to(&mut objects, &namespace)?;
    }
    set_images(&mut objects, &overlay.images);
    Ok(objects)
}

/// Kinds in which kustomize changes more than the namespace of the object itself.
const MOVED_WITH_MORE: [&str; 6] = [
    "APIService",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "RoleBinding",
    "ValidatingWebhookConfiguration",
];

fn move_to(objects: &mut [Manifest], namespace: &str) -> Result<(), BuildError> {
    for object in objects {
        if MOVED_WITH_MORE.contains(&object.id.kind.as_str()) {
            return Err(unsupported(format!("a namespace for {}", object.id)));
        }
        if !CLUSTER_SCOPED.contains(&object.id.kind.as_str()) {
            object.set_namespace(Some(namespace));
        }
    }
    Ok(())
}

fn set_images(objects: &mut [Manifest], images: &[Image]) {
    for object in objects {
        change_images(&mut object.body, images);
    }
}

fn change_images(value: &mut Value, images: &[Image]) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                if ["containers", "initContainers"].contains(&key.as_str())
                    && let Value::Array(containers) = child
                {
                    for image in containers.iter_mut().filter_map(|container| container.get_mut("image")) {
                        let changed = image.as_str().and_then(|text| changed_image(text, images));
                        if let Some(changed) = changed {
                            *image = changed.into();
                        }
                    }
                } else {
                    change_images(child, images);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| change_images(item, images)),
        _ => {}
    }
}

fn changed_image(image: &str, changes: &[Image]) -> Option<String> {
    let (without_digest, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash belongs to the registry's port.
    let colon =
        without_digest.rfind(':').filter(|colon| !without_digest.get(*colon..).unwrap_or_default().contains('/'));
    let (name, tag) = match colon.and_then(|colon| without_digest.split_at_checked(colon)) {
        Some((name, tag)) => (name, tag.strip_prefix(':')),
        None => (without_digest, None),
    };
    let change = changes.iter().find(|change| change.name == name)?;
    let name = change.new_name.as_deref().unwrap_or(name);
    Some(match (&change.digest, &change.new_tag) {
        (Some(digest), None) => format!("{name}@{digest}"),
        (Some(digest), Some(tag)) => format!("{name}:{tag}@{digest}"),
        (None, Some(tag)) => format!("{name}:{tag}"),
        (None, None) => {
            let tag = tag.map_or_else(String::new, |tag| format!(":{tag}"));
            let digest = digest.map_or_else(String::new, |digest| format!("@{digest}"));
            format!("{name}{tag}{digest}")
        }
    })
}

/// Substitutes variables in the object's YAML, so that a bare number stays a number.
fn substitute(object: Manifest, post_build: &PostBuild) -> Result<Manifest, BuildError> {
    let always = match post_build.substitute_strategy.as_deref() {
        None | Some("WithVariables") => false,
        Some("Always") => true,
        Some(other) => return Err(unsupported(format!("spec.postBuild.substituteStrategy {other}"))),
    };
    if (post_build.substitute.is_empty() && !always)
        || wants_mark(&object, "kustomize.toolkit.fluxcd.io/substitute", "disabled")
    {
        return Ok(object);
    }
    let bad = |why: String| BuildError::Failed(format!("post build failed for '{}': {why}", object.id));
    let yaml = serde_yaml_ng::to_string(&object.body).map_err(|error| bad(error.to_string()))?;
    let yaml = expand(&yaml, &post_build.substitute).map_err(|what| {
        let place = &object.id;
        unsupported(format!("the substitution {what} in {place}"))
    })?;
    let body = serde_yaml_ng::from_str(&yaml).map_err(|error| bad(error.to_string()))?;
    Manifest::new(body).map_err(bad)
}

/// Replaces `${name}`, `${name:=default}` and `${name:-default}`; `$${` stands for `${`.
///
/// # Errors
/// The expression, when it is of another form.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (expression, after) = after.split_once('}').ok_or_else(|| "${ without an end".to_owned())?;
        rest = after;
        let (name, default) = [":=", ":-"]
            .iter()
            .find_map(|operator| expression.split_once(operator))
            .map_or((expression, None), |(name, default)| (name, Some(default)));
        let is_name = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            && name.starts_with(|first: char| !first.is_ascii_digit());
        if !is_name || default.is_some_and(|default| default.contains('$')) {
            return Err(format!("${{{expression}}}"));
        }
        let value = variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        out.push_str(value.or(default).unwrap_or_default());
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
