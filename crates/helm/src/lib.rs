//! Reads Helm releases from their storage, without Helm and without a Kubernetes client; and renders charts that are not
//! released yet, with the `helm` program ([`HelmCli`]).
//!
//! Helm keeps every revision of a release in a Secret of its own: [`SECRET_TYPE`], named `sh.helm.release.v1.<release>.v<revision>`,
//! found by [`selector`]. Its key [`PAYLOAD_KEY`] holds base64 of gzip of JSON (on top of the base64 that the API adds to every
//! Secret). Callers list the Secrets, hand each one in as a [`StoredSecret`] and get a [`Release`]; of several, [`newest`]
//! and [`deployed`] choose.
//!
//! The values and the manifest of a release hold secrets. No error and no `Debug` output of this crate shows any of them.
//!
//! ```
//! use windlass_helm::{parse_secret_name, secret_name, selector};
//!
//! assert_eq!(selector("notes"), "owner=helm,name=notes");
//! assert_eq!(secret_name("notes", 3), "sh.helm.release.v1.notes.v3");
//! assert_eq!(parse_secret_name("sh.helm.release.v1.notes.v3"), Some(("notes", 3)));
//! ```

mod error;
mod manifest;
mod release;
mod template;
#[cfg(test)]
mod tests;
mod yaml;

pub use error::HelmError;
pub use manifest::{Document, documents, find};
pub use release::{Chart, DEFAULT_INFLATED_LIMIT, Hook, Release, Status, StoredSecret, decode, deployed, newest};
pub use template::{ChartTemplates, HelmCli, TemplateRequest};
pub use yaml::values;

/// The type of the Secrets that Helm keeps releases in.
pub const SECRET_TYPE: &str = "helm.sh/release.v1";

/// The key of the Secret that holds the release.
pub const PAYLOAD_KEY: &str = "release";

/// What the names of all release Secrets start with.
const NAME_PREFIX: &str = "sh.helm.release.v1.";

/// The label selector that finds all revisions of a release, in the namespace of its storage. The label `status` says how a
/// revision stands, but only the release inside is the truth.
#[must_use]
pub fn selector(release: &str) -> String {
    format!("owner=helm,name={release}")
}

/// The name of the Secret that holds this revision.
#[must_use]
pub fn secret_name(release: &str, revision: i64) -> String {
    format!("{NAME_PREFIX}{release}.v{revision}")
}

/// The release and the revision that a Secret of this name holds. `None` if it is no name of a release Secret.
#[must_use]
pub fn parse_secret_name(name: &str) -> Option<(&str, i64)> {
    let (release, revision) = name.strip_prefix(NAME_PREFIX)?.rsplit_once(".v")?;
    let revision = revision.parse().ok().filter(|number| *number > 0)?;
    (!release.is_empty()).then_some((release, revision))
}
