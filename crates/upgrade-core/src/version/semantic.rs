//! One version: reading it strictly, ordering it, and measuring a change.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use semver::BuildMetadata;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Coded;

/// The longest text that is looked at, in bytes. Container tags may have 128 characters, chart versions fewer.
const MAX_LENGTH: usize = 256;

/// A semantic version, kept as it was written.
///
/// Equality, order and hash are those of semver.org: a pre-release comes before its release, numbers compare as numbers, and
/// neither a leading `v` nor build metadata counts. Use [`Version::as_str`] where the exact text matters.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    /// Without build metadata, so that its derived order is that of semver.org.
    number: semver::Version,
    build: BuildMetadata,
}

impl Version {
    /// The text as it was written, with a leading `v` if there was one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first number.
    #[must_use]
    pub fn major(&self) -> u64 {
        self.number.major
    }

    /// The second number.
    #[must_use]
    pub fn minor(&self) -> u64 {
        self.number.minor
    }

    /// The third number.
    #[must_use]
    pub fn patch(&self) -> u64 {
        self.number.patch
    }

    /// What follows `-`, without it; empty for a release.
    #[must_use]
    pub fn prerelease(&self) -> &str {
        self.number.pre.as_str()
    }

    /// Whether this is a pre-release.
    #[must_use]
    pub fn is_prerelease(&self) -> bool {
        !self.number.pre.is_empty()
    }

    /// What follows `+`, without it; empty if there is none.
    #[must_use]
    pub fn build(&self) -> &str {
        self.build.as_str()
    }

    pub(super) fn number(&self) -> &semver::Version {
        &self.number
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem| VersionError { text: text.chars().take(MAX_LENGTH).collect(), problem };
        if text.len() > MAX_LENGTH {
            return Err(refuse(VersionProblem::TooLong));
        }
        let mut number = semver::Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|_| refuse(VersionProblem::of(text)))?;
        let build = std::mem::take(&mut number.build);
        Ok(Self { text: text.to_owned(), number, build })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Whether going from one version to the other goes back. Equal versions are no downgrade, whatever their build metadata.
#[must_use]
pub fn is_downgrade(from: &Version, to: &Version) -> bool {
    to < from
}

/// How large the step between two versions is: the first number that differs, in either direction.
///
/// By the book, every step below 1.0.0 may break; this does not know that and calls 0.1 to 0.2 [`Change::Minor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Equal, except perhaps for build metadata.
    None,
    /// Only the pre-release differs.
    Prerelease,
    /// The third number differs.
    Patch,
    /// The second number differs.
    Minor,
    /// The first number differs.
    Major,
}

impl Change {
    /// The step between two versions.
    #[must_use]
    pub fn between(from: &Version, to: &Version) -> Self {
        if from.major() != to.major() {
            Self::Major
        } else if from.minor() != to.minor() {
            Self::Minor
        } else if from.patch() != to.patch() {
            Self::Patch
        } else if from != to {
            Self::Prerelease
        } else {
            Self::None
        }
    }
}

/// A text that is no semantic version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: {problem}")]
pub struct VersionError {
    text: String,
    problem: VersionProblem,
}

impl VersionError {
    /// Why it is none.
    #[must_use]
    pub fn problem(&self) -> VersionProblem {
        self.problem
    }
}

impl Coded for VersionError {
    fn code(&self) -> &'static str {
        self.problem.code()
    }

    fn hint(&self) -> String {
        self.problem.hint().to_owned()
    }

    fn is_retryable(&self) -> bool {
        false
    }
}

/// Why a text is no semantic version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VersionProblem {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than any registry accepts.
    #[error("it is longer than 256 bytes")]
    TooLong,
    /// A name that moves, as `latest`.
    #[error("it is a name that can point to another version tomorrow")]
    Moving,
    /// One or two numbers, as `1` or `1.2`.
    #[error("it has fewer than three numbers")]
    Incomplete,
    /// A commit or a digest.
    #[error("it is a commit or a digest, and those have no order")]
    Commit,
    /// A date or a time.
    #[error("it is a date, and not every later date is a newer version")]
    Date,
    /// A range, as `>=1.2` or `1.x`.
    #[error("it is a range of versions")]
    Range,
    /// Something else.
    #[error("it does not have the form 1.2.3, 1.2.3-rc.1 or 1.2.3+build")]
    Malformed,
}

impl VersionProblem {
    /// A stable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "version-empty",
            Self::TooLong => "version-too-long",
            Self::Moving => "version-moving-tag",
            Self::Incomplete => "version-incomplete",
            Self::Commit => "version-commit",
            Self::Date => "version-date",
            Self::Range => "version-range",
            Self::Malformed => "version-malformed",
        }
    }

    /// The next thing a person should do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Empty | Self::TooLong | Self::Malformed => "name one release with three numbers, for example 1.4.1",
            Self::Moving => "name the release that the tag points to, for example 1.4.1",
            Self::Incomplete => "write all three numbers, for example 1.4.0 instead of 1.4",
            Self::Commit => "name the release that was built from it, for example 1.4.1",
            Self::Date => "only semantic versions can be ordered; name a release such as 1.4.1",
            Self::Range => "name one version of the range, for example 1.4.1",
        }
    }

    /// The best reason for a text that failed to parse. Only a guess about wording: the text is refused in any case.
    fn of(text: &str) -> Self {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let lower = bare.to_ascii_lowercase();
        let groups: Vec<&str> =
            bare.split(['.', '-', '_', ':', 'T', 't', 'Z', 'z']).filter(|group| !group.is_empty()).collect();
        let numeric = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if bare.is_empty() {
            Self::Empty
        } else if matches!(
            lower.as_str(),
            "latest"
                | "stable"
                | "edge"
                | "nightly"
                | "main"
                | "master"
                | "head"
                | "dev"
                | "develop"
                | "release"
                | "canary"
                | "beta"
                | "alpha"
                | "rc"
                | "lts"
        ) {
            Self::Moving
        } else if is_date(&groups) {
            Self::Date
        } else if is_commit(&lower) {
            Self::Commit
        } else if bare.contains(['<', '>', '=', '~', '^', '*', '|', ',', ' ']) || has_wildcard(&lower) {
            Self::Range
        } else if bare.split('.').count() <= 2 && bare.split('.').all(numeric) {
            Self::Incomplete
        } else {
            Self::Malformed
        }
    }
}

/// `2026-11-20`, `2026.11.20`, `20261120`, with or without a time behind it.
fn is_date(groups: &[&str]) -> bool {
    let within = |text: &str, low: u32, high: u32| text.parse().is_ok_and(|number: u32| (low..=high).contains(&number));
    let day = |year: &str, month: &str, day: &str| {
        within(year, 1990, 2199) && within(month, 1, 12) && within(day, 1, 31) && month.len() == 2 && day.len() == 2
    };
    match groups {
        [year, month, date, ..] if year.len() == 4 => day(year, month, date),
        [first, ..] if matches!(first.len(), 8 | 12 | 14) => match (first.get(..4), first.get(4..6), first.get(6..8)) {
            (Some(year), Some(month), Some(date)) => day(year, month, date),
            _ => false,
        },
        _ => false,
    }
}

/// Hexadecimal of the length of a commit, short or whole, or an algorithm and a digest.
fn is_commit(lower: &str) -> bool {
    let (marked, hex) =
        match ["sha256:", "sha512:", "sha-", "git-", "g"].iter().find_map(|mark| lower.strip_prefix(mark)) {
            Some(hex) => (true, hex),
            None => (false, lower),
        };
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let has_letter = hex.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_hex && (7..=128).contains(&hex.len()) && (marked || has_letter || hex.len() >= 40)
}

/// `x`, `1.x`, `1.2.X`.
fn has_wildcard(lower: &str) -> bool {
    lower.split('.').any(|part| part == "x") && lower.split('.').all(|part| part == "x" || part.parse::<u64>().is_ok())
}
