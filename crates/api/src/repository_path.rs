//! Paths inside a Git repository that can never lead out of it.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The longest path accepted, in bytes.
const MAX_LENGTH: usize = 256;

/// A path inside a repository, with `/` between its segments, relative to the root. A final `/` says "everything below".
///
/// Reading one from an object never fails, so that one odd object cannot stop a watch. The API server refuses unsafe
/// paths by CEL rules; code that is about to write must call [`RepositoryPath::check`] as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepositoryPath(pub String);

/// Why a text is not a safe [`RepositoryPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path inside a repository: {reason}")]
pub struct RepositoryPathError {
    path: String,
    reason: &'static str,
}

impl RepositoryPathError {
    /// A stable name for this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid-repository-path"
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "write the path from the root of the repository, for example apps/notes/release.yaml"
    }

    /// Always `false`: the same path is refused every time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl RepositoryPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path is safe to write below the root of a repository.
    ///
    /// # Errors
    /// An empty, absolute or over-long path; a `.`, `..`, `.git` or empty segment; a backslash or a control character.
    pub fn check(&self) -> Result<(), RepositoryPathError> {
        let path = self.0.as_str();
        let segments = || path.strip_suffix('/').unwrap_or(path).split('/');
        let reason = if path.is_empty() {
            "it is empty"
        } else if path.len() > MAX_LENGTH {
            "it is longer than 256 bytes"
        } else if path.starts_with('/') {
            "it is absolute"
        } else if path.contains('\\') || path.chars().any(char::is_control) {
            "it has a backslash or a control character"
        } else if segments().any(|segment| matches!(segment, "" | "." | "..") || segment.eq_ignore_ascii_case(".git")) {
            "it has a `.`, `..`, `.git` or empty segment"
        } else {
            return Ok(());
        };
        Err(RepositoryPathError { path: path.chars().take(MAX_LENGTH).collect(), reason })
    }

    /// Whether `file` is this path, or lies below it. Segments are compared whole: `apps/notes` does not hold
    /// `apps/notes-old/x`.
    #[must_use]
    pub fn holds(&self, file: &RepositoryPath) -> bool {
        let folder = self.0.strip_suffix('/').unwrap_or(&self.0);
        match file.0.strip_prefix(folder) {
            Some("") => !self.0.ends_with('/'),
            Some(below) => below.starts_with('/'),
            None => false,
        }
    }
}

impl fmt::Display for RepositoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for RepositoryPath {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl JsonSchema for RepositoryPath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RepositoryPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_LENGTH,
            "x-kubernetes-validations": [
                { "rule": "!self.startsWith('/')", "message": "a repository path must be relative, without a leading `/`" },
                {
                    "rule": "!self.lowerAscii().split('/').exists(s, s in ['.', '..', '.git']) && !self.contains('//')",
                    "message": "a repository path must not have `.`, `..`, `.git` or empty segments"
                },
                { "rule": "!self.matches('[\\\\x00-\\\\x1f\\\\x7f\\\\\\\\]')", "message": "a repository path must not have backslashes or control characters" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_lead_out_of_the_repository_is_refused() {
        for (path, reason) in [
            ("", "empty"),
            ("/etc/passwd", "absolute"),
            ("..", "segment"),
            ("apps/../../x", "segment"),
            ("apps/..", "segment"),
            ("./apps", "segment"),
            ("apps//x", "segment"),
            ("apps//", "segment"),
            (".git/config", "segment"),
            ("a/.GIT/hooks/x", "segment"),
            ("apps\\..\\x", "backslash"),
            ("apps/\nx", "control"),
        ] {
            let error = RepositoryPath::from(path).check().unwrap_err();
            assert!(error.to_string().contains(reason), "{path}: {error}");
        }
        assert!(RepositoryPath("a".repeat(257)).check().is_err());
    }

    #[test]
    fn ordinary_paths_are_accepted() {
        for path in ["apps/notes/", "apps/notes/release.yaml", "x", "a/..b/c", "a/b..", ".github/x.yaml", "ünï/x"] {
            assert_eq!(RepositoryPath::from(path).check(), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_path_holds_itself_and_what_is_below_but_no_neighbour() {
        let holds = |folder: &str, file: &str| RepositoryPath::from(folder).holds(&file.into());
        assert!(holds("apps/notes/", "apps/notes/release.yaml"));
        assert!(holds("apps/notes", "apps/notes/deep/release.yaml"));
        assert!(holds("apps/notes.yaml", "apps/notes.yaml"));
        assert!(!holds("apps/notes/", "apps/notes"), "a folder is no file");
        assert!(!holds("apps/notes", "apps/notes-old/release.yaml"));
        assert!(!holds("apps/notes/", "apps/other/release.yaml"));
    }
}
