//! Image references, and whether a container runs what a pin asks for.

use crate::ports::{PinPart, PinValue};

/// The parts of `repository:tag@digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The repository, with its registry.
    pub repository: &'a str,
    /// The tag, if it has one.
    pub tag: Option<&'a str>,
    /// The digest, with its algorithm, if it has one.
    pub digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Takes an image apart. Any text is one: what is no tag and no digest is the repository.
    #[must_use]
    pub fn of(image: &'a str) -> Self {
        let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
        // A colon before the last slash is a port.
        match named.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((repository, tag)) => Self { repository, tag: Some(tag), digest },
            None => Self { repository: named, tag: None, digest },
        }
    }
}

/// Whether the container is one that the pin `image/<name>` is about: its repository is `<name>` or ends in `/<name>`, or the pin's
/// own field names the container.
pub fn belongs(pin: &PinValue, container: &str, image: &str) -> bool {
    let Some(name) = pin.pin.component.strip_prefix("image/") else { return false };
    let repository = Reference::of(image).repository;
    let by_name = repository == name || repository.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'));
    let by_field = pin.pin.field.split_once("ontainers[name=").and_then(|(_, rest)| rest.split_once(']'));
    by_name || by_field.is_some_and(|(named, rest)| named == container && rest.starts_with(".image"))
}

/// Whether the image is of the pinned version.
pub fn runs(pin: &PinValue, image: &str) -> bool {
    let Reference { tag, digest, .. } = Reference::of(image);
    let value = pin.value.as_str();
    match pin.pin.part {
        PinPart::Digest => {
            digest.is_some_and(|digest| digest == value || digest.strip_prefix("sha256:") == Some(value))
        }
        PinPart::Tag => tag == Some(value),
        // A whole scalar may be the tag alone, the digest alone, both, or the whole reference.
        PinPart::Whole => {
            let pinned = Reference::of(value);
            image == value
                || tag == Some(value)
                || digest == Some(value)
                || (digest == pinned.digest && digest.is_some() && tag == Some(pinned.repository))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ports::Pin;

    use super::*;

    fn pin(component: &str, field: &str, part: PinPart, value: &str) -> PinValue {
        let text = String::from;
        let pin = Pin {
            component: text(component),
            repository: text("apps"),
            path: text("f.yaml"),
            object: text("HelmRelease/x"),
            field: text(field),
            part,
        };
        PinValue { pin, value: text(value) }
    }

    #[test]
    fn references_are_taken_apart() {
        for (image, repository, tag, digest) in [
            ("notes", "notes", None, None),
            ("localhost:5000/notes", "localhost:5000/notes", None, None),
            ("localhost:5000/a/notes:1.0", "localhost:5000/a/notes", Some("1.0"), None),
            ("notes:1.0@sha256:ab", "notes", Some("1.0"), Some("sha256:ab")),
            ("notes@sha256:ab", "notes", None, Some("sha256:ab")),
        ] {
            assert_eq!(Reference::of(image), Reference { repository, tag, digest }, "{image}");
        }
    }

    #[test]
    fn a_pin_is_about_the_images_of_its_name() {
        let by_name = pin("image/notes", "spec.values.image.tag", PinPart::Whole, "1.0");
        for (image, expected) in [
            ("notes:1", true),
            ("localhost:5000/team/notes:1", true),
            ("footnotes:1", false),
            ("notes/sidecar:1", false),
        ] {
            assert_eq!(belongs(&by_name, "main", image), expected, "{image}");
        }
        let by_field = pin("image/app", "spec.template.spec.containers[name=web].image", PinPart::Tag, "1.0");
        assert!(belongs(&by_field, "web", "nginx:1") && !belongs(&by_field, "other", "nginx:1"));
        let chart = pin("chart", "spec.chart.spec.version", PinPart::Whole, "1.0");
        assert!(!belongs(&chart, "chart", "chart:1.0"));
    }

    #[test]
    fn an_image_runs_a_version_only_if_it_says_so() {
        for (part, value, image, expected) in [
            (PinPart::Whole, "1.0", "notes:1.0", true),
            (PinPart::Whole, "1.0", "notes:1.0@sha256:ab", true),
            (PinPart::Whole, "1.0", "notes:1.0.1", false),
            (PinPart::Whole, "1.0", "notes", false),
            (PinPart::Whole, "1.0@sha256:ab", "notes:1.0@sha256:ab", true),
            (PinPart::Whole, "1.0@sha256:ab", "notes:1.0@sha256:cd", false),
            (PinPart::Whole, "sha256:ab", "notes:1.0@sha256:ab", true),
            (PinPart::Whole, "sha256:ab", "notes:1.0", false),
            (PinPart::Whole, "r/notes:1.0", "r/notes:1.0", true),
            (PinPart::Whole, "r/notes:1.0", "notes:1.0", false),
            (PinPart::Tag, "1.0", "r:5000/notes:1.0", true),
            (PinPart::Tag, "5000/notes", "r:5000/notes", false),
            (PinPart::Digest, "sha256:ab", "notes:1.0@sha256:ab", true),
            (PinPart::Digest, "ab", "notes@sha256:ab", true),
            (PinPart::Digest, "sha256:ab", "notes:1.0", false),
        ] {
            assert_eq!(runs(&pin("image/notes", "f", part, value), image), expected, "{value} {image}");
        }
    }
}
