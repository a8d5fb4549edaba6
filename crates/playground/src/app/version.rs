//! Which versions of the app exist and how each behaves.

use std::fmt;
use std::str::FromStr;

use super::store::FormatPolicy;

/// A version of the app that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppVersion {
    major: u64,
    minor: u64,
    patch: u64,
}

/// What a version does with its data and its readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Serves format 1 faithfully.
    Plain,
    /// Turns format 1 into format 2 at start, then serves faithfully.
    MigratesItsData,
    /// Overwrites part of its data and never becomes ready.
    CorruptsItsData,
    /// Serves and acknowledges for a while, then turns unready.
    FailsInTheSoak,
}

impl Behaviour {
    /// What it does with the format that it finds.
    #[must_use]
    pub const fn format_policy(self) -> FormatPolicy {
        match self {
            Self::Plain => FormatPolicy::OnlyV1,
            Self::MigratesItsData => FormatPolicy::MigrateToV2,
            Self::CorruptsItsData | Self::FailsInTheSoak => FormatPolicy::Keep,
        }
    }
}

/// The tag names no version of the app.
#[derive(Debug, thiserror::Error)]
#[error("no such version of the app: {0:?} (there are 1.x.y, 2.x.y, 3.0.0 and 4.0.0)")]
pub struct UnknownVersion(String);

impl AppVersion {
    /// How this version behaves.
    #[must_use]
    pub const fn behaviour(self) -> Behaviour {
        match self.major {
            2 => Behaviour::MigratesItsData,
            3 => Behaviour::CorruptsItsData,
            4 => Behaviour::FailsInTheSoak,
            _ => Behaviour::Plain,
        }
    }
}

impl FromStr for AppVersion {
    type Err = UnknownVersion;

    fn from_str(tag: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownVersion(tag.to_owned());
        let mut numbers = tag.strip_prefix('v').unwrap_or(tag).split('.').map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).ok_or_else(unknown);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        let exists = match version.major {
            1 | 2 => true,
            3 | 4 => version.minor == 0 && version.patch == 0,
            _ => false,
        };
        if exists && numbers.next().is_none() { Ok(version) } else { Err(unknown()) }
    }
}

impl fmt::Display for AppVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_versions_exist() {
        for good in ["1.0.0", "1.12.3", "v2.0.0", "3.0.0", "4.0.0"] {
            assert!(good.parse::<AppVersion>().is_ok(), "{good}");
        }
        for bad in ["", "latest", "1.0", "1.0.0.0", "3.0.1", "4.1.0", "5.0.0", "1.0.0-rc1"] {
            assert!(bad.parse::<AppVersion>().is_err(), "{bad}");
        }
    }
}
