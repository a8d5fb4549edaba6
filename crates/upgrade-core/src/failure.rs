//! The one shape in which anything that went wrong travels through the engine, the journal and every port.

use serde::{Deserialize, Serialize};

/// What a library's own error must be able to say, so that it can become a [`Failure`] without losing anything.
pub trait Coded: std::error::Error {
    /// A stable, kebab-case name: it is a metric label and the key of `windlass explain`.
    fn code(&self) -> &'static str;
    /// The next thing a person should do, as a sentence.
    fn hint(&self) -> String;
    /// Whether the same call may succeed later without anybody changing anything.
    fn is_retryable(&self) -> bool;
}

/// Something that did not work: what failed, what to do next, and whether trying again can help.
///
/// It is stored in the journal, so it holds text only. Secrets must never be put into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable, kebab-case.
    pub code: String,
    /// What failed and what was observed.
    pub message: String,
    /// The next thing a person should do; empty when there is nothing better than the message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Whether trying again, unchanged, may succeed.
    pub retryable: bool,
}

impl Failure {
    /// A failure that may pass by itself: the engine tries again until the step's deadline.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: String::new(), retryable: true }
    }

    /// A failure that will not pass by itself: the step ends here.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: String::new(), retryable: false }
    }

    /// Adds the next thing a person should do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Takes over everything a library's error can say.
    pub fn from_coded(error: &dyn Coded) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self { code: error.code().into(), message, hint: error.hint(), retryable: error.is_retryable() }
    }

    /// The same failure with code, message and hint cut to `max` bytes in all, as JSON writes them.
    #[must_use]
    pub fn bounded(mut self, max: usize) -> Self {
        truncate(&mut self.code, max / 8);
        truncate(&mut self.hint, max / 4);
        let left = max.saturating_sub(written(&self.code) + written(&self.hint));
        truncate(&mut self.message, left);
        self
    }
}

/// Cuts what JSON would write in more than `max` bytes, quotes not counted, at a character boundary: what is kept is JSON, and
/// a text full of quotes takes twice its length there.
pub(crate) fn truncate(text: &mut String, max: usize) {
    if written(text) <= max {
        return;
    }
    let Some(room) = max.checked_sub(MORE.len_utf8()) else { return text.clear() };
    let mut used = 0;
    let fits = text.char_indices().find(|(_, one)| {
        used += width(*one);
        used > room
    });
    let end = fits.map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    text.push(MORE);
}

/// Stands for what was cut off.
const MORE: char = '…';

/// How many bytes JSON takes for a text, without its quotes.
fn written(text: &str) -> usize {
    text.chars().map(width).sum()
}

fn width(one: char) -> usize {
    match one {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        one => one.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_json_would_take_more_bytes_and_never_inside_a_character() {
        let cases = [
            ("", 0, ""),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc…"),
            ("éééé", 8, "éééé"),
            ("éééé", 7, "éé…"),
            ("aéééé", 7, "aé…"),
            ("say \"no\"", 10, "say \"no\""),
            ("say \"no\"", 9, "say \"…"),
            ("\u{1}\u{1}", 12, "\u{1}\u{1}"),
            ("\u{1}\u{1}", 11, "\u{1}…"),
            ("a\nb", 4, "a\nb"),
            ("a\nb", 3, "…"),
            ("abcd", 2, ""),
        ];
        for (text, max, expected) in cases {
            let mut cut = text.to_owned();
            truncate(&mut cut, max);
            assert_eq!(cut, expected, "{text:?} at {max}");
            let json = serde_json::to_string(&cut).unwrap();
            assert!(json.len() - 2 <= max, "{json} at {max}");
            assert_eq!(written(&cut), json.len() - 2);
        }
    }

    #[test]
    fn a_failure_is_cut_to_its_limit_with_a_quarter_for_the_hint() {
        let size = |failure: &Failure| {
            [&failure.code, &failure.message, &failure.hint].map(|text| serde_json::to_string(text).unwrap().len() - 2)
        };
        let failure = |code: usize, message: usize, hint: usize| {
            Failure::permanent(&"c".repeat(code), "m".repeat(message)).with_hint("h".repeat(hint))
        };
        let cases = [
            (failure(8, 700, 60), [8, 700, 60]),
            // One byte more than there is room for.
            (failure(8, 701, 60), [8, 700, 60]),
            (failure(8, 568, 192), [8, 568, 192]),
            (failure(8, 568, 193), [8, 568, 192]),
            (failure(97, 5000, 5000), [96, 480, 192]),
        ];
        for (failure, expected) in cases {
            let whole = size(&failure) == expected;
            let cut = failure.clone().bounded(768);
            assert_eq!(size(&cut), expected);
            assert_eq!(cut == failure, whole);
        }
        let quoted = Failure::transient("c", "\"".repeat(768)).with_hint("\n".repeat(768)).bounded(768);
        assert!(size(&quoted).iter().sum::<usize>() <= 768, "{quoted:?}");
    }
}
