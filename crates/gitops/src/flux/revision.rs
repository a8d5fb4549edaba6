//! Revisions and versions as Flux writes them.

use upgrade_core::version::Version;
use windlass_api::foreign::Artifact;

/// The commit of a Git revision, in hexadecimal; `None` for anything else.
pub(super) fn commit(revision: &str) -> Option<String> {
    Artifact { revision: revision.to_owned(), ..Artifact::default() }.commit().map(ToOwned::to_owned)
}

/// Whether a chart version that Flux reports is the one asked for. Flux may append `+<digest>` or `+<generation>`.
pub(super) fn same_version(reported: &str, wanted: &str) -> bool {
    if reported == wanted {
        return true;
    }
    // A wanted version that has build metadata itself was compared in full above.
    !wanted.contains('+') && reported.split_once('+').is_some_and(|(version, _)| version == wanted)
}

/// Whether the text is one version, and not a range or a wildcard that may move without anybody changing it.
pub(super) fn is_exact(version: &str) -> bool {
    version.parse::<Version>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_found_behind_any_branch_name() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(commit(&format!("feature/a@b@sha1:{sha}")).as_deref(), Some(sha));
        assert_eq!(commit("latest@sha256:12"), None);
    }

    #[test]
    fn what_flux_appends_to_a_version_does_not_count() {
        for (reported, wanted, same) in [
            ("1.2.0", "1.2.0", true),
            ("1.2.0+0123456789ab", "1.2.0", true),
            ("1.2.0+2", "1.2.0", true),
            ("1.2.0+a", "1.2.0+b", false),
            ("1.2.0", "1.2.0+b", false),
            ("1.2.0+b", "1.2.0+b", true),
            ("1.2.1", "1.2.0", false),
            ("1.2.0-rc.1", "1.2.0", false),
            ("", "1.2.0", false),
        ] {
            assert_eq!(same_version(reported, wanted), same, "{reported} {wanted}");
        }
    }

    #[test]
    fn only_a_full_version_is_exact() {
        for version in ["1.2.3", "v1.2.3", "1.2.3-rc.1", "1.2.3+build", "1.2.3-rc-1+b.2", "10.0.0"] {
            assert!(is_exact(version), "{version}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "1.x",
            "*",
            "1.2.*",
            "1.2.x",
            "^1.2.3",
            "~1.2.3",
            ">=1.2.3",
            "1.2.3 - 1.3.0",
            ">1.0.0 <2.0.0",
            "1.2.3 || 1.3.0",
            "1.2.3-",
            "latest",
            "1.2.3,1.2.4",
        ] {
            assert!(!is_exact(version), "{version}");
        }
    }
}
