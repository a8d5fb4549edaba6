//! Ranges of versions: what each operator means, and whether a version is inside.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    str::FromStr,
};

use semver::Prerelease;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Version,
    grammar::{self, Operator, Partial, Precision},
};
use crate::Coded;

/// The longest text that is looked at, in bytes.
const MAX_LENGTH: usize = 512;

/// The most alternatives.
const MAX_GROUPS: usize = 32;

/// A set of versions: alternatives of terms that must all hold.
///
/// Written back in one way: terms joined by `, `, alternatives by ` || `, a hyphen range as its two terms.
#[derive(Clone, Debug)]
pub struct Range {
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    terms: Vec<Term>,
    /// Whether some term names a pre-release; only then can the group match any.
    admits_prereleases: bool,
}

#[derive(Clone, Debug)]
struct Term {
    operator: Operator,
    version: Partial,
    test: Test,
}

type Span = (Bound<semver::Version>, Bound<semver::Version>);

/// What a term means.
#[derive(Clone, Debug)]
enum Test {
    Inside(Span),
    Outside(Span),
    /// Outside, or inside with another pre-release: `!=1.2` spares the pre-releases of 1.2.
    OutsideOrOtherPrerelease(Span, Prerelease),
}

impl Range {
    /// Whether the version is in the range.
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        let number = version.number();
        self.groups.iter().any(|group| {
            (number.pre.is_empty() || group.admits_prereleases)
                && group.terms.iter().all(|term| term.test.holds(number))
        })
    }

    /// Whether the range is one version, written out: `1.2.3` or `=1.2.3`.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact().is_some()
    }

    /// The one version that the range names, if it is exact.
    #[must_use]
    pub fn exact(&self) -> Option<Version> {
        match self.groups.as_slice() {
            [Group { terms, .. }] => match terms.as_slice() {
                [Term { operator: Operator::Bare | Operator::Equal, version, .. }]
                    if version.precision == Precision::Full =>
                {
                    version.text.parse().ok()
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl Test {
    fn holds(&self, version: &semver::Version) -> bool {
        match self {
            Self::Inside(span) => span.contains(version),
            Self::Outside(span) => !span.contains(version),
            Self::OutsideOrOtherPrerelease(span, pre) => !span.contains(version) || version.pre != *pre,
        }
    }

    fn of(operator: Operator, version: &Partial) -> Self {
        use Bound::{Excluded, Included, Unbounded};
        use Precision::{Full, Major, Minor, Nothing};

        let base = version.base.clone();
        let precision = version.precision;
        // The lowest version above everything that shares the first one, two or three numbers with `base`.
        let above = |precision| -> Bound<semver::Version> {
            let next = match precision {
                Nothing => None,
                Major => base.major.checked_add(1).map(|major| (major, 0, 0)),
                Minor => base.minor.checked_add(1).map(|minor| (base.major, minor, 0)),
                Full => base.patch.checked_add(1).map(|patch| (base.major, base.minor, patch)),
            };
            next.map_or(Unbounded, |(major, minor, patch)| Excluded(lowest(major, minor, patch)))
        };
        // Everything that shares the first one or two numbers with `base`.
        let line = |precision| (Included(lowest(base.major, base.minor, 0)), above(precision));
        let is_zero = (base.major, base.minor, base.patch) == (0, 0, 0);

        match (operator, precision) {
            (Operator::Bare | Operator::Equal, Full) => Self::Inside((Included(base.clone()), Included(base))),
            (Operator::NotEqual, Full | Nothing) => Self::Outside((Included(base.clone()), Included(base))),
            (Operator::NotEqual, Major) => Self::Outside(line(Major)),
            (Operator::NotEqual, Minor) => Self::OutsideOrOtherPrerelease(line(Minor), base.pre.clone()),
            (Operator::Greater, Full | Nothing) => Self::Inside((Excluded(base), Unbounded)),
            (Operator::Greater, Major | Minor) => match above(precision) {
                Excluded(next) => Self::Inside((Included(next), Unbounded)),
                // Nothing is above the highest number there is.
                _ => Self::Outside((Unbounded, Unbounded)),
            },
            (Operator::Less, _) => Self::Inside((Unbounded, Excluded(base))),
            (Operator::GreaterEqual, _) => Self::Inside((Included(base), Unbounded)),
            (Operator::LessEqual, Full) => Self::Inside((Unbounded, Included(base))),
            (Operator::LessEqual, Major) => Self::Inside((Unbounded, above(Major))),
            (Operator::LessEqual, Minor | Nothing) => Self::Inside((Unbounded, above(Minor))),
            (Operator::Tilde | Operator::Bare | Operator::Equal, Full | Nothing) if is_zero => {
                Self::Inside((Included(base), Unbounded))
            }
            (Operator::Tilde | Operator::Bare | Operator::Equal, Major) => {
                Self::Inside((Included(base.clone()), above(Major)))
            }
            (Operator::Tilde | Operator::Bare | Operator::Equal, _) => {
                Self::Inside((Included(base.clone()), above(Minor)))
            }
            (Operator::Caret, _) => {
                let stays = if base.major > 0 || precision == Major {
                    Major
                } else if base.minor > 0 || precision == Minor {
                    Minor
                } else {
                    Full
                };
                Self::Inside((Included(base.clone()), above(stays)))
            }
        }
    }
}

/// The version below every other with these numbers.
fn lowest(major: u64, minor: u64, patch: u64) -> semver::Version {
    let mut version = semver::Version::new(major, minor, patch);
    // Identifiers of digits come before all others, and of those 0 is the lowest. It always parses.
    version.pre = Prerelease::new("0").unwrap_or_default();
    version
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(RangeError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(RangeError::TooLong);
        }
        if text.split("||").count() > MAX_GROUPS {
            return Err(RangeError::TooManyAlternatives);
        }
        let groups = text
            .split("||")
            .map(|group| {
                let terms: Vec<_> = grammar::group(group)
                    .map_err(|unexpected| RangeError::Unexpected {
                        text: text.to_owned(),
                        reason: unexpected.reason,
                        rest: unexpected.rest.to_owned(),
                    })?
                    .into_iter()
                    .map(|(operator, version)| Term { operator, test: Test::of(operator, &version), version })
                    .collect();
                let admits_prereleases = terms.iter().any(|term| !term.version.base.pre.is_empty());
                Ok(Group { terms, admits_prereleases })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { groups })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self.groups.iter().enumerate() {
            if index > 0 {
                f.write_str(" || ")?;
            }
            for (index, term) in group.terms.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{}{}", term.operator.as_str(), term.version.text)?;
            }
        }
        Ok(())
    }
}

impl PartialEq for Range {
    /// Whether both are written the same way, not whether they hold the same versions.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Range {}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A text that is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing there. `*` is the range of all releases.
    #[error("a range must not be empty")]
    Empty,
    /// Longer than anything a person writes.
    #[error("a range must not be longer than 512 bytes")]
    TooLong,
    /// More alternatives than anything a person writes.
    #[error("a range must not have more than 32 alternatives")]
    TooManyAlternatives,
    /// Something that does not belong there.
    #[error("`{text}` is not a range: {reason}, at `{rest}`")]
    Unexpected {
        /// The range.
        text: String,
        /// What is wrong.
        reason: &'static str,
        /// Where: the rest of the alternative from there on.
        rest: String,
    },
}

impl Coded for RangeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Empty => "range-empty",
            Self::TooLong => "range-too-long",
            Self::TooManyAlternatives => "range-too-many-alternatives",
            Self::Unexpected { .. } => "range-malformed",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Empty => "write * for all releases",
            Self::TooLong | Self::TooManyAlternatives => "write fewer, wider alternatives",
            Self::Unexpected { .. } => "write for example >=1.2 <2, ~1.4, ^2.0.0 || 3.1.x or 1.2 - 1.4",
        }
        .to_owned()
    }

    fn is_retryable(&self) -> bool {
        false
    }
}
