//! From a pin in a file to the live object that shows its value.

use serde_json::Value;
use upgrade_core::image::Reference;
use upgrade_core::ports::{AppRef, ObjectRef, Pin, PinPart};
use windlass_api::foreign::Inventory;
use yaml_pin::{Path, Step};

use super::live::Live;

/// One of the app's own delivery objects, with what it says it applies: `(object, version of its API group)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) object: ObjectRef,
    pub(super) applies: Vec<(ObjectRef, String)>,
}

/// Where a pin shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the same field of this object.
    Field {
        object: ObjectRef,
        version: String,
        path: Path,
        /// The own object that it is, or that applies it.
        through: ObjectRef,
    },
    /// In the images of these workloads' containers: the pin stands in a kustomization file.
    Images {
        workloads: Vec<ObjectRef>,
        image: String,
        /// The own Kustomization that applies them.
        through: ObjectRef,
    },
    /// Nowhere that we can see.
    Nowhere,
}

impl Place {
    /// The own object through which the pin reaches the cluster.
    pub(super) fn through(&self) -> Option<&ObjectRef> {
        match self {
            Self::Field { through, .. } | Self::Images { through, .. } => Some(through),
            Self::Nowhere => None,
        }
    }
}

/// The objects of an inventory.
pub(super) fn entries(inventory: Option<&Inventory>) -> Vec<(ObjectRef, String)> {
    let entries = inventory.map_or(&[][..], |inventory| &inventory.entries);
    entries
        .iter()
        .filter_map(|entry| {
            let object = entry.object()?;
            Some((ObjectRef::new(object.group, object.kind, object.namespace, object.name), entry.v.clone()))
        })
        .collect()
}

/// Where the pin shows. A pin that could be in two objects is nowhere, because neither may be taken for the other.
pub(super) fn place(pin: &Pin, own: &[Own]) -> Place {
    let Ok(path) = pin.field.parse::<Path>() else { return Place::Nowhere };
    if let Some(image) = kustomize_image(pin, &path) {
        return images(image, own);
    }
    let parts: Vec<&str> = pin.object.split('/').collect();
    let (kind, namespace, name) = match parts.as_slice() {
        [kind, name] => (*kind, None, *name),
        [kind, namespace, name] => (*kind, Some(*namespace), *name),
        _ => return Place::Nowhere,
    };
    let is_it = |object: &ObjectRef| {
        object.kind == kind && object.name == name && namespace.is_none_or(|namespace| object.namespace == namespace)
    };
    let mut found = own.iter().flat_map(|owned| {
        let itself = is_it(&owned.object).then_some((&owned.object, "", owned));
        let applied = owned.applies.iter().filter(|(object, _)| is_it(object));
        itself.into_iter().chain(applied.map(move |(object, version)| (object, version.as_str(), owned)))
    });
    let Some((object, version, owned)) = found.next() else { return Place::Nowhere };
    if found.any(|(other, _, _)| other != object) {
        return Place::Nowhere;
    }
    Place::Field { object: object.clone(), version: version.to_owned(), path, through: owned.object.clone() }
}

/// Whether what a Kustomization applies may be read for its pins. It may apply objects anywhere, to which who made the app may have
/// no right; and no version stands in a Secret.
pub(super) fn may_be_read(object: &ObjectRef, app: &AppRef) -> bool {
    let is_secret = object.group.is_empty() && object.kind == "Secret";
    object.namespace == app.namespace && !is_secret
}

/// The image name of a pin in the `images` of a kustomization file; empty when it is named by index.
fn kustomize_image(pin: &Pin, path: &Path) -> Option<String> {
    // Such a file seldom has a name; the kind alone is how its document is named then.
    if pin.object.split('/').next() != Some("Kustomization") && !pin.object.starts_with('#') {
        return None;
    }
    match path.steps() {
        [Step::Key(images), Step::Select { key, value }, _] if images == "images" && key == "name" => {
            Some(value.clone())
        }
        [Step::Key(images), Step::Index(_), _] if images == "images" => {
            Some(pin.component.strip_prefix("image/").unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

fn images(image: String, own: &[Own]) -> Place {
    let mut appliers = own.iter().filter(|owned| owned.object.kind == "Kustomization");
    let (Some(owned), None) = (appliers.next(), appliers.next()) else { return Place::Nowhere };
    let workloads = owned.applies.iter().map(|(object, _)| object).filter(|object| template_pointer(object).is_some());
    Place::Images { workloads: workloads.cloned().collect(), image, through: owned.object.clone() }
}

/// Where a workload of this kind has its pod template.
pub(super) fn template_pointer(object: &ObjectRef) -> Option<&'static str> {
    match (object.group.as_str(), object.kind.as_str()) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {
            Some("/spec/template")
        }
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The value at the path. A selector must match exactly one item.
pub(super) fn lookup<'v>(value: &'v Value, path: &Path) -> Option<&'v Value> {
    path.steps().iter().try_fold(value, |at, step| match step {
        Step::Key(key) => at.get(key),
        Step::Index(index) => at.get(index),
        Step::Select { key, value } => {
            let mut matching = at
                .as_array()?
                .iter()
                .filter(|item| item.get(key).and_then(scalar).is_some_and(|found| found == *value));
            let found = matching.next()?;
            matching.next().is_none().then_some(found)
        }
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// The part of a live scalar that a pin stands for.
pub(super) fn shown(value: &Value, part: PinPart) -> Option<String> {
    let text = scalar(value)?;
    match part {
        PinPart::Whole => Some(text),
        PinPart::Tag => Reference::of(&text).tag.map(ToOwned::to_owned),
        PinPart::Digest => Reference::of(&text).digest.map(ToOwned::to_owned),
    }
}

/// Whether this is the image that a kustomization file calls `name`. The file may have renamed it, so the last segment decides; a
/// wrong guess shows another version and is seen as a difference.
fn is_called(image: &Reference<'_>, name: &str) -> bool {
    let last = image.repository.rsplit('/').next();
    !name.is_empty() && (image.repository == name || last == name.rsplit('/').next())
}

/// The images in the containers of a workload's pod template.
pub(super) fn container_images(live: &Live) -> Vec<&str> {
    let template = template_pointer(&live.object).and_then(|pointer| live.json.pointer(pointer));
    ["/spec/initContainers", "/spec/containers"]
        .into_iter()
        .filter_map(|pointer| template?.pointer(pointer)?.as_array())
        .flatten()
        .filter_map(|container| container.get("image")?.as_str())
        .collect()
}

/// What the containers of a workload show for an image of a kustomization file: `None` if none has the image,
/// `Some(None)` if they disagree.
pub(super) fn image_shown(live: &Live, image: &str, part: PinPart, field: &str) -> Option<Option<String>> {
    let wants_digest = part == PinPart::Digest || field.ends_with(".digest");
    let mut versions = container_images(live)
        .into_iter()
        .map(Reference::of)
        .filter(|found| is_called(found, image))
        .map(|found| if wants_digest { found.digest } else { found.tag });
    let first = versions.next()?;
    Some(if versions.all(|other| other == first) { first.map(ToOwned::to_owned) } else { None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pin(component: &str, object: &str, field: &str) -> Pin {
        Pin {
            component: component.into(),
            repository: "apps".into(),
            path: "apps/notes/x.yaml".into(),
            object: object.into(),
            field: field.into(),
            part: PinPart::Whole,
        }
    }

    fn own() -> Vec<Own> {
        let version = "v1".to_owned();
        vec![
            Own {
                object: ObjectRef::new("helm.toolkit.fluxcd.io", "HelmRelease", "notes", "notes"),
                applies: Vec::new(),
            },
            Own {
                object: ObjectRef::new("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", "plain"),
                applies: vec![
                    (ObjectRef::new("apps", "Deployment", "notes", "web"), version.clone()),
                    (ObjectRef::new("", "ConfigMap", "notes", "web"), version.clone()),
                    (ObjectRef::new("apps", "StatefulSet", "a", "twice"), version.clone()),
                    (ObjectRef::new("apps", "StatefulSet", "b", "twice"), version),
                ],
            },
        ]
    }

    #[test]
    fn a_pin_shows_in_the_own_object_or_in_what_an_own_object_applies() {
        for (object, expected, through) in [
            ("HelmRelease/notes", Some("HelmRelease notes/notes"), "HelmRelease notes/notes"),
            ("Deployment/web", Some("Deployment notes/web"), "Kustomization flux-system/plain"),
            ("Kustomization/plain", Some("Kustomization flux-system/plain"), "Kustomization flux-system/plain"),
            ("HelmRelease/other", None, ""),
            ("StatefulSet/twice", None, ""),
            ("#0", None, ""),
        ] {
            let place = place(&pin("chart", object, "spec.version"), &own());
            assert_eq!(place.through().map(ToString::to_string).unwrap_or_default(), through, "{object}");
            let found = match place {
                Place::Field { object, .. } => Some(object.to_string()),
                _ => None,
            };
            assert_eq!(found.as_deref(), expected, "{object}");
        }
    }

    #[test]
    fn an_image_of_a_kustomization_file_shows_in_the_workloads() {
        for (object, field, name) in [
            ("#0", "images[name=ghcr.io/x/notes].newTag", "ghcr.io/x/notes"),
            ("Kustomization/any", "images[name=notes].newTag", "notes"),
            ("Kustomization", "images[name=notes].newTag", "notes"),
            ("Kustomization", "images[0].newTag", "web"),
            ("#0", "images[0].newTag", "web"),
        ] {
            let Place::Images { image, workloads, .. } = place(&pin("image/web", object, field), &own()) else {
                panic!("{field}")
            };
            assert_eq!((image.as_str(), workloads.len()), (name, 3));
        }
    }

    #[test]
    fn paths_find_exactly_one_value() {
        let value = json!({ "c": [{ "name": "a", "v": 1 }, { "name": "b", "v": "2" }, { "name": "b", "v": 3 }], "t": { "x.y": true } });
        for (path, expected) in [
            ("c[name=a].v", Some("1")),
            ("c[1].v", Some("2")),
            ("c[name=b].v", None),
            ("c[9].v", None),
            ("t[\"x.y\"]", Some("true")),
            ("t", None),
        ] {
            let found = lookup(&value, &path.parse().unwrap()).and_then(|found| shown(found, PinPart::Whole));
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_part_of_an_image_is_taken() {
        for (text, tag, digest) in [
            ("host:5000/a/web:1.2", Some("1.2"), None),
            ("host:5000/web", None, None),
            ("web:1@sha256:ab", Some("1"), Some("sha256:ab")),
        ] {
            assert_eq!(shown(&json!(text), PinPart::Tag).as_deref(), tag, "{text}");
            assert_eq!(shown(&json!(text), PinPart::Digest).as_deref(), digest, "{text}");
        }
    }

    #[test]
    fn containers_with_the_image_must_agree() {
        let live = |images: &[&str]| Live {
            object: ObjectRef::new("apps", "Deployment", "notes", "web"),
            json: json!({ "spec": { "template": { "spec": {
                "initContainers": [{ "image": images[0] }],
                "containers": images[1..].iter().map(|image| json!({ "image": image })).collect::<Vec<_>>()
            } } } }),
        };
        let shown = |images: &[&str]| image_shown(&live(images), "ghcr.io/x/notes", PinPart::Whole, "images[0].newTag");
        assert_eq!(shown(&["ghcr.io/x/notes:2", "other:1", "mirror/notes:2"]), Some(Some("2".into())));
        assert_eq!(shown(&["ghcr.io/x/notes:2", "ghcr.io/x/notes:1"]), Some(None));
        assert_eq!(shown(&["busybox:1", "other:1"]), None);
    }
}
