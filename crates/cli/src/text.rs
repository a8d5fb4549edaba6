//! Small things as people read them.

use jiff::{SignedDuration, Timestamp};
use windlass_api::{Components, Duration};

/// An age in one or two units, as kubectl writes it: `42s`, `5m`, `3h`, `2d`.
pub(crate) fn age(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago; `-` when it never was.
pub(crate) fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".into(), |at| age(now.duration_since(at)))
}

/// A measured time to the second: `1m12s`.
pub(crate) fn took(span: SignedDuration) -> String {
    Duration::from_measured(SignedDuration::from_secs(span.as_secs())).to_string()
}

/// `chart=1.4.1, image/notes=2.0.1`, or `-`.
pub(crate) fn components(components: &Components) -> String {
    if components.is_empty() {
        return "-".into();
    }
    components.iter().map(|(component, version)| format!("{component}={version}")).collect::<Vec<_>>().join(", ")
}

/// Text of others without characters that control a terminal or the direction of writing: an object must not be able to
/// move the cursor, or to make a line read as another one.
pub(crate) fn clean(text: &str) -> String {
    let controls = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if controls(c) { ' ' } else { c }).collect()
}

/// `1 claim`, `2 claims`.
pub(crate) fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// An instant to the second, in UTC.
pub(crate) fn instant(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_the_unit_that_says_most() {
        for (seconds, expected) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d"), (-5, "0s")]
        {
            assert_eq!(age(SignedDuration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn control_characters_of_others_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{9b}d\u{202e}e"), "a [2Jb c d e");
    }
}
