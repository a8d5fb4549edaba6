//! The parts of an image reference: `registry:5000/repository:tag@digest`.

use std::ops::Range;

/// What is wrong with a text that should be an image reference or a part of one.
type Problem = &'static str;

/// Byte ranges of the tag and of the digest in an image reference, without `:` and `@`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImageParts {
    pub(crate) tag: Option<Range<usize>>,
    pub(crate) digest: Option<Range<usize>>,
}

/// Takes an image reference apart. Only a colon after the last slash starts a tag: others belong to a registry's port.
pub(crate) fn split(reference: &str) -> Result<ImageParts, Problem> {
    let (name_and_tag, digest) =
        reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    let last = name_and_tag.rfind('/').map_or(0, |slash| slash + 1);
    let colon = name_and_tag.get(last..).and_then(|segment| segment.find(':')).map(|at| at + last);
    let name = name_and_tag.get(..colon.unwrap_or(name_and_tag.len())).unwrap_or_default();
    if name.is_empty() || name.ends_with('/') || name.starts_with('/') {
        return Err("the repository is empty");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte)) {
        return Err("the repository has a character that none can have");
    }
    let tag = colon.map(|colon| colon + 1..name_and_tag.len());
    if let Some(tag) = tag.clone().and_then(|range| name_and_tag.get(range)) {
        check_tag(tag)?;
    }
    Ok(ImageParts { tag, digest: digest.map(|digest| reference.len() - digest.len()..reference.len()) })
}

/// Whether the text is a tag by the rules of the OCI distribution specification.
pub(crate) fn check_tag(tag: &str) -> Result<(), Problem> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.as_bytes() {
        [] => Err("a tag cannot be empty"),
        [first, ..] if !is_word(*first) => Err("a tag starts with a letter, a digit or an underscore"),
        bytes if bytes.len() > 128 => Err("a tag has at most 128 characters"),
        bytes if !bytes.iter().all(|byte| is_word(*byte) || b".-".contains(byte)) => {
            Err("a tag has only letters, digits, underscores, dots and dashes")
        }
        _ => Ok(()),
    }
}

/// Whether the text is a digest such as `sha256:...`.
pub(crate) fn check_digest(digest: &str) -> Result<(), Problem> {
    let Some((algorithm, encoded)) = digest.split_once(':') else { return Err("a digest is algorithm:value") };
    let is_algorithm = !algorithm.is_empty()
        && algorithm.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+._-".contains(&byte));
    let is_hex = encoded.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let has_length = match algorithm {
        "sha256" => encoded.len() == 64,
        "sha512" => encoded.len() == 128,
        _ => encoded.len() >= 32,
    };
    if is_algorithm && is_hex && has_length {
        Ok(())
    } else {
        Err("a digest is an algorithm, a colon and its value in lower-case hexadecimal digits, 64 for sha256")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn ports_are_not_tags() {
        for (reference, tag, has_digest) in [
            ("nginx", None, false),
            ("nginx:1.25", Some("1.25"), false),
            ("host:5000/repo", None, false),
            ("host:5000/a/repo:1.2", Some("1.2"), false),
            ("[::1]:5000/repo:1.2", Some("1.2"), false),
            (&format!("host:5000/repo:1.2@{DIGEST}"), Some("1.2"), true),
            (&format!("repo@{DIGEST}"), None, true),
        ] {
            let parts = split(reference).unwrap();
            assert_eq!(parts.tag.map(|range| &reference[range]), tag, "{reference}");
            assert_eq!(parts.digest.map(|range| &reference[range]), has_digest.then_some(DIGEST), "{reference}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for reference in [
            "",
            ":1.2",
            "repo:",
            "a b:1",
            "/a:1",
            "a/:1",
            "repo:-x",
            "repo:a:b",
            "repo@sha256:12",
            "repo@x",
            "repo:1+2",
            "{{x}}:1",
        ] {
            assert!(split(reference).is_err(), "{reference}");
        }
        assert!(check_tag(&"a".repeat(129)).is_err() && check_tag(&"a".repeat(128)).is_ok());
    }
}
