//! Durations as Kubernetes writes them (`1h30m`, `10m`, `45s`), for serde's `with`.

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes `10m0s` the short way: `10m`.
pub fn format(duration: SignedDuration) -> String {
    jiff::fmt::friendly::SpanPrinter::new()
        .designator(jiff::fmt::friendly::Designator::Compact)
        .spacing(jiff::fmt::friendly::Spacing::None)
        .duration_to_string(&duration)
}

/// Reads what [`format()`] writes, and everything Go's `time.ParseDuration` writes down to milliseconds.
pub fn parse(text: &str) -> Result<SignedDuration, jiff::Error> {
    jiff::fmt::friendly::SpanParser::new().parse_duration(text)
}

/// For `#[serde(with = "...")]`.
pub fn serialize<S: Serializer>(duration: &SignedDuration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with = "...")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_a_round_trip_in_the_short_form() {
        for (text, seconds) in [("10m", 600), ("45s", 45), ("1h30m", 5400), ("168h", 604_800), ("0s", 0)] {
            assert_eq!(parse(text).unwrap().as_secs(), seconds, "{text}");
            assert_eq!(format(SignedDuration::from_secs(seconds)), text);
        }
    }
}
