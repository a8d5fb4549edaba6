//! Spans of time as people write them in Kubernetes objects: `90s`, `1h30m`, `168h`.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What the API server checks before any bound; everything it accepts can be parsed by [`Duration::from_str`].
const PATTERN: &str = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$";

/// The longest text accepted, in bytes.
const MAX_LENGTH: usize = 32;

/// A span of time that is never negative, with the text form of Go and Kubernetes.
///
/// Read: one or more numbers, each with a unit of `h`, `m`, `s` or `ms`, at most nine digits before and after the decimal
/// point (`1h30m`, `1.5h`, `500ms`). There are no days: a day is not always 24 hours. Written: hours, minutes and seconds,
/// leaving out what is zero (`168h`, `10m`, `1m0.5s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(SignedDuration);

/// Why a text is not a [`Duration`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: {reason}")]
pub struct DurationError {
    text: String,
    reason: &'static str,
}

impl DurationError {
    /// A stable name for this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid-duration"
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "write numbers with the units h, m, s or ms, for example 90s, 10m, 1h30m or 168h for a week"
    }

    /// Always `false`: the same text is refused every time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(SignedDuration::ZERO);

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(SignedDuration::from_secs(seconds as i64))
    }

    /// So many minutes.
    #[must_use]
    pub const fn from_mins(minutes: u32) -> Self {
        Self(SignedDuration::from_secs(minutes as i64 * 60))
    }

    /// So many hours.
    #[must_use]
    pub const fn from_hours(hours: u32) -> Self {
        Self(SignedDuration::from_secs(hours as i64 * 3600))
    }

    /// For arithmetic with [`jiff::Timestamp`].
    #[must_use]
    pub const fn as_signed(self) -> SignedDuration {
        self.0
    }

    /// For timers.
    #[must_use]
    pub const fn as_std(self) -> std::time::Duration {
        self.0.unsigned_abs()
    }

    /// A measured time; a negative one (the clock went back) becomes zero.
    #[must_use]
    pub fn from_measured(measured: SignedDuration) -> Self {
        Self(measured.max(SignedDuration::ZERO))
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| DurationError { text: text.chars().take(MAX_LENGTH).collect(), reason };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        if text.len() > MAX_LENGTH {
            return Err(refuse("it is too long"));
        }
        let mut total: i128 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (whole, after) = digits(rest);
            if whole.is_empty() || whole.len() > 9 {
                return Err(refuse("a number of one to nine digits is missing"));
            }
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => digits(after),
                None => ("0", after),
            };
            if fraction.is_empty() || fraction.len() > 9 {
                return Err(refuse("one to nine digits must follow the decimal point"));
            }
            let (unit, after) = unit(after).ok_or_else(|| refuse("a unit (h, m, s or ms) is missing"))?;
            let number = |digits: &str| digits.parse::<i128>().map_err(|_| refuse("the number is out of range"));
            total += number(whole)? * unit;
            total += number(fraction)? * unit / 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(9));
            rest = after;
        }
        let seconds = i64::try_from(total / NANOS).map_err(|_| refuse("the number is out of range"))?;
        let nanos = i32::try_from(total % NANOS).map_err(|_| refuse("the number is out of range"))?;
        Ok(Self(SignedDuration::new(seconds, nanos)))
    }
}

/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;

/// Splits off the leading ASCII digits.
fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Splits off a unit, in nanoseconds. `ms` comes before `m`.
fn unit(text: &str) -> Option<(i128, &str)> {
    [("ms", NANOS / 1000), ("s", NANOS), ("m", 60 * NANOS), ("h", 3600 * NANOS)]
        .into_iter()
        .find_map(|(name, nanos)| text.strip_prefix(name).map(|after| (nanos, after)))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let nanos = self.0.subsec_nanos();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if nanos > 0 {
            write!(f, "{seconds}.{}s", format!("{nanos:09}").trim_end_matches('0'))
        } else if seconds > 0 || (hours == 0 && minutes == 0) {
            write!(f, "{seconds}s")
        } else {
            Ok(())
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_kubernetes_writes_them() {
        for (text, seconds, written) in [
            ("90s", 90.0, "1m30s"),
            ("10m", 600.0, "10m"),
            ("1h30m", 5400.0, "1h30m"),
            ("1.5h", 5400.0, "1h30m"),
            ("168h", 604_800.0, "168h"),
            ("0s", 0.0, "0s"),
            ("500ms", 0.5, "0.5s"),
            ("1h0m0s", 3600.0, "1h"),
            ("1m1s500ms", 61.5, "1m1.5s"),
            ("30m1h", 5400.0, "1h30m"),
        ] {
            let parsed: Duration = text.parse().unwrap();
            assert!((parsed.as_signed().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
            assert_eq!(parsed.to_string(), written);
            assert_eq!(written.parse::<Duration>().unwrap(), parsed, "{text} survives a round trip");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("10", "unit"),
            ("m", "number"),
            ("-5m", "number"),
            ("1d", "unit"),
            ("1h 30m", "number"),
            ("1.h", "decimal"),
            (".5h", "number"),
            ("9999999999h", "nine digits"),
            ("1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h", "too long"),
            ("١h", "number"),
        ] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn the_longest_text_the_schema_accepts_does_not_overflow() {
        let text = "999999999.999999999h999999999h";
        assert!(text.len() <= MAX_LENGTH);
        assert!(text.parse::<Duration>().is_ok());
    }

    #[test]
    fn a_clock_that_went_back_measures_nothing() {
        assert_eq!(Duration::from_measured(SignedDuration::from_secs(-3)), Duration::ZERO);
    }
}
