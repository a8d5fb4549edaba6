//! Versions, ranges and their order.
//!
//! [`Version`] is a strict semantic version (semver.org, 2.0.0). A leading `v` is accepted, because Git tags and images
//! carry one, and the text is kept as it was written. Build metadata (`+...`) is kept as well, but has no part in order or
//! equality: `1.0.0+a` and `v1.0.0+b` are equal. What is no semantic version (`latest`, `1.2`, a commit, a date) is refused
//! with a [`VersionProblem`], never guessed at: an upgrade that does not know which of two versions is newer is not safe.
//!
//! [`Range`] has the grammar and the behaviour of Masterminds/semver 3.4 and later, which is what Helm and Flux use, so that
//! a range in a HelmRelease means the same here as there:
//!
//! | Written | Means |
//! |---|---|
//! | `1.2.3`, `=1.2.3` | exactly that (unlike Cargo, where it means `^1.2.3`) |
//! | `1.2`, `1.2.x`, `1`, `1.*`, `*` | anything on that line |
//! | `!=1.2.3`, `!=1.2` | anything but that version, or that line |
//! | `>1.2.3`, `>=1.2`, `<2`, `<=1.4` (also `=>`, `=<`) | `>1.2` starts at 1.3.0; `<=1.4` includes all of 1.4 |
//! | `~1.2.3`, `~1.2`, `~1` (also `~>`) | `>=1.2.3 <1.3.0`, `>=1.2.0 <1.3.0`, `>=1.0.0 <2.0.0` |
//! | `^1.2.3`, `^0.2.3`, `^0.0.3` | the first number that is not 0 stays |
//! | `1.2 - 1.4` | `>=1.2 <=1.4` |
//! | `a b`, `a, b` | both |
//! | <code>a &#124;&#124; b</code> | either; binds weaker than "both" |
//!
//! A pre-release is matched only if some version in the same "both" group is one as well: `>=1.0.0` never matches
//! `2.0.0-rc.1`, while `>=1.0.0-0` and `>=1.0.0-0, <3` do.
//!
//! Three corners of Masterminds/semver are kept on purpose, because Flux behaves like that: `^*` matches 0.0.0 only, `<=*`
//! matches 0.0.x only, and `~0.0.0` matches everything. One difference is deliberate: a hyphen range may follow
//! another term after a space (`!=1.3.0 1.2 - 1.4`), where Masterminds/semver wants a comma.
//!
//! ```
//! use upgrade_core::version::{Change, Range, Version};
//!
//! let running: Version = "v1.4.0".parse()?;
//! let offered: Version = "1.5.2".parse()?;
//! let allowed: Range = ">=1.2 <2".parse()?;
//! assert!(allowed.matches(&offered) && offered > running);
//! assert_eq!(Change::between(&running, &offered), Change::Minor);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod grammar;
mod range;
mod semantic;
#[cfg(test)]
mod tests;

pub use range::{Range, RangeError};
pub use semantic::{Change, Version, VersionError, VersionProblem, is_downgrade};

/// What may be shown of a value that was read where a version should be: whoever names the place may have no right to read it.
///
/// The text itself where it is two to four numbers with dots, as versions are, or a digest; else words in its place.
///
/// ```
/// use upgrade_core::version::or_no_version;
///
/// assert_eq!(or_no_version("v1.4.0-rc.1"), "v1.4.0-rc.1");
/// assert_eq!(or_no_version("c2VjcmV0"), "something that is no version");
/// ```
pub fn or_no_version(value: &str) -> &str {
    let numbers = value.strip_prefix('v').unwrap_or(value).split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_version = value.len() <= 64
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte))
        && (2..=4).contains(&numbers.split('.').count())
        && numbers.split('.').all(is_number);
    let is_digest = value.strip_prefix("sha256:").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_version || is_digest { value } else { "something that is no version" }
}
