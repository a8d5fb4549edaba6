//! Where a scalar is inside its document: keys, list indices and `[name=x]` selectors.

use std::fmt;
use std::str::FromStr;

use crate::refusal::Refusal;

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The value of this key of a mapping.
    Key(String),
    /// The item of a list at this index, counted from 0.
    Index(usize),
    /// The one item of a list that is a mapping with this value for this key.
    Select {
        /// The key.
        key: String,
        /// The text of its value.
        value: String,
    },
}

/// The way from the root of a document to a scalar: `spec.containers[name=web].image`, `list[0]`,
/// `metadata.annotations["a.b/c.d"]`.
///
/// Keys with any of `.[]="'` or white space, and empty ones, are written `["..."]`, where `\"` and `\\` are escapes. The
/// value of a selector may be quoted in the same way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

impl Path {
    /// A path of these steps; `None` if there are none, because a document as a whole is never edited.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Option<Self> {
        if steps.is_empty() { None } else { Some(Self(steps)) }
    }

    /// The first `count` steps as text, for messages.
    pub(crate) fn prefix(&self, count: usize) -> String {
        Self(self.0.iter().take(count).cloned().collect()).to_string()
    }

    /// The steps from the root; at least one.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// Whether a key or selector value can be written without quotes.
fn is_bare(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| ".[]=\"'\\".contains(c) || c.is_whitespace() || c.is_control())
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if is_bare(key) => write!(f, "{}{key}", if position == 0 { "" } else { "." })?,
                Step::Key(key) => {
                    f.write_str("[")?;
                    write_quoted(f, key)?;
                    f.write_str("]")?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Select { key, value } => {
                    f.write_str("[")?;
                    for (text, end) in [(key, "="), (value, "]")] {
                        // A bare selector value may hold dots: `[version=1.2]` is what people write.
                        let written =
                            if is_bare(&text.replace('.', "")) { f.write_str(text) } else { write_quoted(f, text) };
                        written?;
                        f.write_str(end)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Path {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut reader = Reader { text, chars: text.chars().collect(), at: 0 };
        let mut steps = Vec::new();
        while let Some(c) = reader.peek() {
            steps.push(match c {
                '[' => reader.bracket()?,
                '.' if steps.is_empty() => return Err(reader.error("a path does not start with a dot")),
                '.' => {
                    reader.at += 1;
                    Step::Key(reader.bare("a key is missing here")?)
                }
                _ if steps.is_empty() => Step::Key(reader.bare("a key is missing here")?),
                _ => return Err(reader.error("a dot or a bracket is missing here")),
            });
        }
        Self::new(steps).ok_or_else(|| reader.error("the path is empty"))
    }
}

struct Reader<'t> {
    text: &'t str,
    chars: Vec<char>,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn error(&self, why: &'static str) -> Refusal {
        Refusal::Syntax { what: "path", text: self.text.to_owned(), column: self.at + 1, why }
    }

    fn expect(&mut self, wanted: char, why: &'static str) -> Result<(), Refusal> {
        if self.peek() != Some(wanted) {
            return Err(self.error(why));
        }
        self.at += 1;
        Ok(())
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let taken: String = self.chars.iter().skip(self.at).take_while(|c| belongs(**c)).collect();
        self.at += taken.chars().count();
        taken
    }

    fn bare(&mut self, why: &'static str) -> Result<String, Refusal> {
        let taken = self.take_while(|c| is_bare(c.encode_utf8(&mut [0; 4])));
        if taken.is_empty() { Err(self.error(why)) } else { Ok(taken) }
    }

    fn quoted(&mut self) -> Result<String, Refusal> {
        let mut text = String::new();
        let quote = self.peek();
        self.at += 1;
        loop {
            let Some(c) = self.peek() else { return Err(self.error("the closing quote is missing")) };
            self.at += 1;
            if Some(c) == quote {
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match self.peek() {
                Some(escaped @ ('\\' | '"' | '\'')) => text.push(escaped),
                _ => return Err(self.error("only a backslash or a quote can follow a backslash")),
            }
            self.at += 1;
        }
    }

    /// A quoted or bare text inside brackets; bare ones may hold dots.
    fn word(&mut self, why: &'static str) -> Result<String, Refusal> {
        if matches!(self.peek(), Some('"' | '\'')) {
            return self.quoted();
        }
        let taken = self.take_while(|c| c == '.' || is_bare(c.encode_utf8(&mut [0; 4])));
        if taken.is_empty() { Err(self.error(why)) } else { Ok(taken) }
    }

    fn bracket(&mut self) -> Result<Step, Refusal> {
        self.at += 1;
        let is_quoted = matches!(self.peek(), Some('"' | '\''));
        let start = self.at;
        let word = self.word("an index, a quoted key or key=value is missing here")?;
        if self.peek() == Some('=') {
            self.at += 1;
            let value = self.word("the value of the selector is missing here")?;
            self.expect(']', "the closing bracket is missing")?;
            return Ok(Step::Select { key: word, value });
        }
        self.expect(']', "the closing bracket is missing")?;
        if is_quoted {
            return Ok(Step::Key(word));
        }
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        match word.parse() {
            Ok(index) if is_number => Ok(Step::Index(index)),
            _ => {
                self.at = start;
                Err(self.error("not an index; quote it if it is a key"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Step {
        Step::Key(text.to_owned())
    }

    #[test]
    fn every_form_of_step_is_read_and_written_back() {
        let text = "spec.c[name=web].ports[0][\"a.b/c.d\"].x[name=\"a]b\"][v=1.2]";
        let path: Path = text.parse().unwrap();
        let select = |key: &str, value: &str| Step::Select { key: key.to_owned(), value: value.to_owned() };
        assert_eq!(
            path.steps(),
            [
                key("spec"),
                key("c"),
                select("name", "web"),
                key("ports"),
                Step::Index(0),
                key("a.b/c.d"),
                key("x"),
                select("name", "a]b"),
                select("v", "1.2")
            ]
        );
        assert_eq!(path.to_string(), text);
        assert_eq!("['it\\'s']".parse::<Path>().unwrap().steps(), [key("it's")]);
    }

    #[test]
    fn a_number_after_a_dot_is_a_key() {
        assert_eq!("data.8080".parse::<Path>().unwrap().steps(), [key("data"), key("8080")]);
    }

    #[test]
    fn malformed_paths_are_refused_with_the_column() {
        for (text, at) in [
            ("", 1),
            (".a", 1),
            ("a.", 3),
            ("a..b", 3),
            ("a[", 3),
            ("a[]", 3),
            ("a[x]", 3),
            ("a[-1]", 3),
            ("a[+1]", 3),
            ("a[99999999999999999999999]", 3),
            ("a[0", 4),
            ("a[n=]", 5),
            ("a[n=x", 6),
            ("a[0]b", 5),
            ("a[\"x", 5),
            ("a[\"\\x\"]", 5),
            ("a b", 2),
            ("a]b", 2),
            ("a\"b\"", 2),
        ] {
            match text.parse::<Path>() {
                Err(Refusal::Syntax { column, .. }) => assert_eq!(column, at, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
