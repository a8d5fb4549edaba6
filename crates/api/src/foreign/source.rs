//! Flux sources, `source.toolkit.fluxcd.io/v1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::SourceReference;

/// Which revision of which repository is fetched.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "source.toolkit.fluxcd.io",
    version = "v1",
    kind = "GitRepository",
    plural = "gitrepositories",
    namespaced,
    status = "SourceStatus",
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Flux GitRepository: the part of it that Windlass reads."
)]
#[serde(rename_all = "camelCase", default)]
pub struct GitRepositorySpec {
    /// Where to fetch from.
    pub url: String,
    /// What to fetch; the branch `master` when absent.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitReference>,
    /// The credentials for reading, in the object's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<crate::LocalSecretReference>,
    /// Absent is not the same as `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How often it is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Signatures that are required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<GitVerification>,
}

/// What to fetch. When several are given: `commit`, then `name`, then `semver`, then `tag`, then `branch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitReference {
    /// A branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// A tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// A range of tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// A full reference name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Signatures that are required of a Git source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitVerification {
    /// `HEAD`, `Tag` or `TagAndHEAD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// Which artifact is fetched.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "source.toolkit.fluxcd.io",
    version = "v1",
    kind = "OCIRepository",
    plural = "ocirepositories",
    namespaced,
    status = "SourceStatus",
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Flux OCIRepository: the part of it that Windlass reads."
)]
#[serde(rename_all = "camelCase", default)]
pub struct OciRepositorySpec {
    /// Where to fetch from, as `oci://host/repository`.
    pub url: String,
    /// What to fetch; the tag `latest` when absent.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<OciReference>,
    /// Absent is not the same as `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What to fetch. When several are given: `digest`, then `semver`, then `tag`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OciReference {
    /// A tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// A range of tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// A digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Which chart is fetched.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "source.toolkit.fluxcd.io",
    version = "v1",
    kind = "HelmChart",
    plural = "helmcharts",
    namespaced,
    status = "SourceStatus",
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Flux HelmChart: the part of it that Windlass reads."
)]
#[serde(rename_all = "camelCase", default)]
pub struct HelmChartSpec {
    /// Its name in a Helm repository, or its path in another source.
    pub chart: String,
    /// Its version or a range; absent means the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it comes from.
    pub source_ref: SourceReference,
    /// Absent is not the same as `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What was fetched, by any of the sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// The generation that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last token that was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// What was fetched last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Ready, FetchFailed, ArtifactInStorage, Reconciling and Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What a source fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifact {
    /// `main@sha1:<commit>`, `sha1:<commit>`, `<tag>@sha256:<digest>` or a chart version.
    pub revision: String,
    /// The digest of the archive, as `sha256:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where other controllers get the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When it was fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<String>,
}

impl Artifact {
    /// The commit of a Git revision, in hexadecimal. `None` if the revision is not that of a commit.
    ///
    /// Branch names may hold `/` and `@`, so the last separator counts.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        let revision = self.revision.rsplit_once('@').map_or(self.revision.as_str(), |(_, digest)| digest);
        let commit = match revision.split_once(':') {
            Some(("sha1", commit)) if commit.len() == 40 => commit,
            Some(("sha256", commit)) if commit.len() == 64 => commit,
            _ => return None,
        };
        commit.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::Artifact;

    #[test]
    fn the_commit_is_what_follows_the_last_separator() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let commit = |revision: &str| {
            Artifact { revision: revision.to_owned(), ..Artifact::default() }.commit().map(ToOwned::to_owned)
        };
        for prefix in ["main@sha1:", "sha1:", "refs/heads/x@sha1:", "feature/a@b@sha1:", "v1.2@sha1:"] {
            assert_eq!(commit(&format!("{prefix}{sha}")).as_deref(), Some(sha), "{prefix}");
        }
        for revision in
            ["6.0.3", "main/0123456789abcdef", "main@sha1:12", "", "main@sha1:zz23456789abcdef0123456789abcdef01234567"]
        {
            assert_eq!(commit(revision), None, "{revision}");
        }
    }
}
