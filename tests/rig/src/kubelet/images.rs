//! Which local program stands for an image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::app::AppVersion;

/// What runs in place of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The app under test, of the version that the tag names.
    App,
    /// A program of this machine: its path and first arguments (the image's entrypoint).
    Command(Vec<String>),
}

/// The images that can be "pulled".
#[derive(Debug, Clone)]
pub struct ImageMap {
    rig: PathBuf,
    rules: BTreeMap<String, Program>,
}

/// Nothing stands for this image.
#[derive(Debug, thiserror::Error)]
#[error("failed to pull image {image:?}: {why}")]
pub struct UnknownImage {
    image: String,
    why: String,
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pulled {
    /// The image's entrypoint.
    pub(super) entrypoint: Vec<String>,
    /// Environment the image brings.
    pub(super) env: BTreeMap<String, String>,
    /// `repository@sha256:...`, stable for a repository and tag.
    pub(super) id: String,
}

impl ImageMap {
    /// The built-in images (the app as `registry.test/notes`, shells as `busybox`, `alpine`, `debian`) and `rules`, which win.
    #[must_use]
    pub fn new(rig: PathBuf, rules: Vec<(String, Program)>) -> Self {
        let mut all = BTreeMap::from([("registry.test/notes".to_owned(), Program::App)]);
        for shell in ["busybox", "alpine", "debian"] {
            all.insert(shell.to_owned(), Program::Command(vec!["/bin/sh".to_owned()]));
        }
        all.extend(rules);
        Self { rig, rules: all }
    }

    pub(super) fn pull(&self, image: &str) -> Result<Pulled, UnknownImage> {
        let unknown = |why: String| UnknownImage { image: image.to_owned(), why };
        let (repository, tag) = split(image);
        let program = self.rules.get(repository).ok_or_else(|| unknown(format!("no program for {repository:?}")))?;
        let digest: String =
            Sha256::digest(format!("{repository}:{tag}")).iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{repository}@sha256:{digest}");
        match program {
            Program::Command(entrypoint) => Ok(Pulled { entrypoint: entrypoint.clone(), env: BTreeMap::new(), id }),
            Program::App => {
                let version: AppVersion = tag.parse().map_err(|error| unknown(format!("not found: {error}")))?;
                let entrypoint = vec![self.rig.display().to_string(), "app".to_owned()];
                Ok(Pulled { entrypoint, env: BTreeMap::from([("APP_VERSION".to_owned(), version.to_string())]), id })
            }
        }
    }
}

/// Repository (without the parts that Docker Hub implies) and tag of an image name.
pub(super) fn split(image: &str) -> (&str, &str) {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

pub(super) fn parse_rule(text: &str) -> Result<(String, Program), String> {
    let (repository, program) = text.split_once('=').ok_or_else(|| format!("{text:?} is not repository=program"))?;
    let words: Vec<String> = program.split_whitespace().map(str::to_owned).collect();
    match words.as_slice() {
        [] => Err(format!("{text:?} names no program")),
        [word] if word == "app" => Ok((repository.to_owned(), Program::App)),
        _ => Ok((repository.to_owned(), Program::Command(words))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> ImageMap {
        ImageMap::new("/rig".into(), vec![parse_rule("registry.test:5000/other=app").unwrap()])
    }

    #[test]
    fn the_tag_chooses_the_version_of_the_app() {
        for image in ["registry.test/notes:1.2.3", "registry.test:5000/other:1.2.3@sha256:00"] {
            let pulled = images().pull(image).unwrap();
            assert_eq!(pulled.entrypoint, ["/rig", "app"]);
            assert_eq!(pulled.env["APP_VERSION"], "1.2.3");
        }
    }

    #[test]
    fn what_nothing_stands_for_cannot_be_pulled() {
        for image in ["registry.test/notes", "registry.test/notes:9.9.9", "registry.test/nothing:1.0.0"] {
            assert!(images().pull(image).is_err(), "{image}");
        }
    }

    #[test]
    fn docker_hub_names_are_understood_in_short_and_in_full() {
        for image in ["busybox", "busybox:1.36", "docker.io/library/busybox:1.36"] {
            assert_eq!(images().pull(image).unwrap().entrypoint, ["/bin/sh"], "{image}");
        }
    }
}
