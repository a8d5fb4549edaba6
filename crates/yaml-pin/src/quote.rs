//! How a value must be spelled so that every reader, YAML 1.1 or 1.2, reads that value back.

use granit_parser::ScalarStyle;

/// What a plain scalar is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text.
    String,
    /// Null: `null`, `~`, nothing.
    Null,
    /// A boolean.
    Bool,
    /// An integer or a floating point number.
    Number,
    /// A date or a time (YAML 1.1).
    Timestamp,
    /// A merge key `<<` or a default value `=` (YAML 1.1).
    Special,
}

/// How readers of either version of YAML understand a plain scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    /// To a YAML 1.1 reader: libyaml, PyYAML, go-yaml (so Kubernetes, Helm and Flux). In doubt not a string.
    pub yaml11: Kind,
    /// To a YAML 1.2 reader of the core schema.
    pub yaml12: Kind,
}

impl Reading {
    /// A string to everyone, as every quoted scalar is.
    pub const STRING: Self = Self { yaml11: Kind::String, yaml12: Kind::String };

    /// How this plain text is read.
    #[must_use]
    pub fn of_plain(text: &str) -> Self {
        let yaml12 = core_schema(text);
        let yaml11 = match yaml12 {
            Kind::String => legacy(text),
            // Everything the core schema resolves, some YAML 1.1 reader resolves alike, except octal `0o17`.
            Kind::Number if text.trim_start_matches(['-', '+']).starts_with("0o") => Kind::String,
            kind => kind,
        };
        Self { yaml11, yaml12 }
    }

    /// Whether every reader sees a string.
    #[must_use]
    pub fn is_string(self) -> bool {
        self == Self::STRING
    }
}

fn core_schema(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Kind::Bool,
        ".nan" | ".NaN" | ".NAN" => return Kind::Number,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || has_digits(text.strip_prefix("0o"), 8)
        || has_digits(text.strip_prefix("0x"), 16)
        || is_decimal(unsigned);
    if number { Kind::Number } else { Kind::String }
}

/// What YAML 1.1 readers resolve beyond the core schema: the union over the readers, so that quoting errs on the safe side.
fn legacy(text: &str) -> Kind {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "y" | "yes" | "n" | "no" | "on" | "off" | "true" | "false" => return Kind::Bool,
        "null" => return Kind::Null,
        "<<" | "=" => return Kind::Special,
        _ => {}
    }
    let unsigned = lower.strip_prefix(['-', '+']).unwrap_or(&lower);
    let digits: String = unsigned.chars().filter(|c| *c != '_').collect();
    let number = matches!(digits.as_str(), ".inf" | ".nan" | ".")
        || has_digits(digits.strip_prefix("0b"), 2)
        || has_digits(digits.strip_prefix("0o"), 8)
        || has_digits(digits.strip_prefix("0x"), 16)
        || is_decimal(&digits)
        || is_sexagesimal(&digits);
    // A leading underscore is a name, not a digit separator.
    if number && !unsigned.starts_with('_') {
        Kind::Number
    } else if is_timestamp(&lower) {
        Kind::Timestamp
    } else {
        Kind::String
    }
}

fn has_digits(text: Option<&str>, radix: u32) -> bool {
    text.is_some_and(|text| !text.is_empty() && text.chars().all(|c| c.is_digit(radix)))
}

/// `12`, `1.`, `.5`, `1.5`, `7e12345`, `1.5E-3`; no sign.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| has_digits(Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)), 10))
}

/// Numbers to the base of 60: `190:20:30`, `20:30.15`.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.split(':');
    let is_first = has_digits(parts.next(), 10);
    let mut rest = parts.peekable();
    let mut is_rest = rest.peek().is_some();
    while let Some(part) = rest.next() {
        let (minutes, fraction) = match part.split_once('.') {
            Some((minutes, fraction)) if rest.peek().is_none() => (minutes, fraction),
            Some(_) => return false,
            None => (part, ""),
        };
        is_rest &= minutes.len() <= 2 && has_digits(Some(minutes), 10) && fraction.bytes().all(|b| b.is_ascii_digit());
    }
    is_first && is_rest
}

/// `2024-01-01`, and with anything behind a `t` or white space. `2024-01-01-r1` is none.
fn is_timestamp(text: &str) -> bool {
    let date = text.split_once(['t', ' ', '\t']).map_or(text, |(date, _)| date);
    let parts: Vec<&str> = date.split('-').collect();
    matches!(parts.as_slice(), [year, month, day]
        if year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len())
            && has_digits(Some(&parts.concat()), 10))
}

/// Characters that only a double-quoted scalar can hold, as an escape. White space that a reader could fold, and the
/// line breaks of YAML 1.1, are among them.
pub(crate) fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// What surrounds the scalar that is replaced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// Inside `{}` or `[]`.
    pub(crate) flow: bool,
    /// Inside a flow mapping with double-quoted keys: the file may be JSON.
    pub(crate) json: bool,
    /// The scalar is tagged as a string.
    pub(crate) string_tag: bool,
    /// How the old scalar is read.
    pub(crate) old: Reading,
}

/// Spells a value in the given style, or in double quotes where that style cannot hold it.
pub(crate) fn encode(value: &str, style: ScalarStyle, context: Context) -> (String, ScalarStyle) {
    match style {
        ScalarStyle::Plain if may_be_plain(value, context) => (value.to_owned(), ScalarStyle::Plain),
        ScalarStyle::SingleQuoted if !value.chars().any(needs_escape) => {
            (format!("'{}'", value.replace('\'', "''")), ScalarStyle::SingleQuoted)
        }
        _ => (double_quoted(value), ScalarStyle::DoubleQuoted),
    }
}

/// Whether the value, written plain, is read back as the same text, and as a string or as what the old value was: a number
/// in place of a number stays a number.
fn may_be_plain(value: &str, context: Context) -> bool {
    let reading = Reading::of_plain(value);
    let keeps_kind = reading == context.old && !reading.is_string();
    is_plain_syntax(value, context.flow)
        && (keeps_kind || context.string_tag || reading.is_string())
        && (keeps_kind || !context.json)
}

/// Stricter than YAML itself, so that also readers with bugs in rare spellings agree.
fn is_plain_syntax(value: &str, flow: bool) -> bool {
    // `-1` and `--flag=x` are plain; `- x` and `---` are not.
    let is_dashed = value.strip_prefix('-').is_some_and(|rest| {
        rest.strip_prefix('-').unwrap_or(rest).starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.')
    });
    !value.is_empty()
        && !value.starts_with(char::is_whitespace)
        && !value.ends_with(char::is_whitespace)
        && (is_dashed || !value.starts_with(|c| "-?:,[]{}#&*!|>'\"%@`".contains(c)))
        && !value.starts_with("...")
        && !value.ends_with(':')
        && !value.contains(": ")
        && !value.contains(" #")
        && !(flow && value.contains([',', '[', ']', '{', '}']))
        && !value.chars().any(needs_escape)
}

/// Only escapes that JSON has as well.
fn double_quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if needs_escape(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_string_to_some_reader_is_known() {
        for (texts, yaml11, yaml12) in [
            (
                "1.2.3 v1.20 3f2e1c0 latest 1.20-rc1 2024-01-01-r1 2024.01.01 20240101x >=1 1.x . ~1.2 ^1.2 _1 0x 0b2 0o8 1e 1:2:x 1: a:b 1:100 -",
                Kind::String,
                Kind::String,
            ),
            ("1.20 7e12345 7E5 0 -1 +1 1. .5 -.5 1.5e-3 010 09 0x1F .inf -.INF .nan 1e+5", Kind::Number, Kind::Number),
            ("1_000 0b11 -0x1F 0X1f 190:20:30 20:30.15 1:30 1_0.5 +.inF -0o17", Kind::Number, Kind::String),
            ("0o17", Kind::String, Kind::Number),
            ("true False TRUE", Kind::Bool, Kind::Bool),
            ("yes No on OFF y N tRue", Kind::Bool, Kind::String),
            ("null ~ NULL", Kind::Null, Kind::Null),
            ("2024-01-01 2024-1-1 2001-12-14t21:59:43.10-05:00 2001-12-14T21:59:43Z", Kind::Timestamp, Kind::String),
            ("<< =", Kind::Special, Kind::String),
        ] {
            for text in texts.split(' ') {
                // A lone dot is a float by the letter of YAML 1.1.
                let yaml11 = if text == "." { Kind::Number } else { yaml11 };
                assert_eq!(Reading::of_plain(text), Reading { yaml11, yaml12 }, "{text:?}");
            }
        }
        assert_eq!(Reading::of_plain("2001-12-14 21:59:43").yaml11, Kind::Timestamp);
        assert_eq!(Reading::of_plain("").yaml12, Kind::Null);
    }

    #[test]
    fn text_that_the_syntax_would_break_is_not_plain() {
        for text in [
            "",
            " a",
            "a ",
            "-",
            "- a",
            "-- a",
            "-[a",
            "? a",
            ": a",
            "#a",
            "a #b",
            "a: b",
            "a:",
            "*a",
            "&a",
            "!a",
            "|",
            ">=1",
            "'a",
            "\"a",
            "%a",
            "@a",
            "`a",
            "[a",
            "]a",
            "{a",
            "}a",
            ",a",
            "...",
            "---",
            "a\tb",
            "a\nb",
            "a\u{85}b",
            "a\u{2028}b",
            "\u{feff}a",
        ] {
            assert!(!is_plain_syntax(text, false), "{text:?}");
        }
        for text in [
            "a", "1.2.3", "a:b", "a#b", "<2", "=1.2", "~1.2", "-1", "--a=b", "-.5", "é", "a b", "a,b", "(a)", "/a",
            "a]b",
        ] {
            assert!(is_plain_syntax(text, false), "{text:?}");
        }
        for text in ["a,b", "a]b", "a{b"] {
            assert!(!is_plain_syntax(text, true), "{text:?}");
        }
    }
}
