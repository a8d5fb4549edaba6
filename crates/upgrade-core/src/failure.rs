//! The one shape in which anything that went wrong travels through the engine, the journal and every port.

use serde::{Deserialize, Serialize};

/// What a library's own error must be able to say, so that it can become a [`Failure`] without losing anything.
pub trait Coded: std::error::Error {
    /// A stable, kebab-case name: it is a metric label, an event reason and the key of `windlass explain`.
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

    /// The same failure, no longer worth trying again.
    #[must_use]
    pub fn final_(mut self) -> Self {
        self.retryable = false;
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

    /// The same failure with message and hint cut to `max` bytes in all, at character boundaries.
    #[must_use]
    pub fn bounded(mut self, max: usize) -> Self {
        truncate(&mut self.hint, max / 4);
        let left = max.saturating_sub(self.hint.len());
        truncate(&mut self.message, left);
        self
    }
}

pub(crate) fn truncate(text: &mut String, max: usize) {
    if text.len() <= max {
        return;
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while end > 0 && !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push('…');
}
