//! Reads or replaces one scalar: splice the bytes, parse the result again, and compare it with what was meant.

use std::ops::Range;

use granit_parser::ScalarStyle;

use crate::document::{self, Document};
use crate::image;
use crate::path::Path;
use crate::quote::{Context, Reading, encode, needs_escape};
use crate::refusal::{Position, Refusal};
use crate::resolve::{Target, position, resolve};
use crate::tree::{Node, NodeId, NodeKind, Tree};

/// Which part of a scalar is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// The tag of an image reference. A digest behind it stays, and it is the digest that container runtimes obey.
    Tag,
    /// The digest of an image reference.
    Digest,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "value",
            Self::Tag => "tag",
            Self::Digest => "digest",
        }
    }
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In single quotes.
    SingleQuoted,
    /// In double quotes.
    DoubleQuoted,
    /// A block scalar, `|` or `>`.
    Block,
}

/// A scalar, or a part of one, as it is in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, without quotes and escapes. A block scalar includes the line breaks at its end.
    pub value: String,
    /// The bytes in the source: of a whole scalar with its quotes, of a part that part alone. Empty for an empty value.
    pub span: Range<usize>,
    /// Where those bytes start.
    pub position: Position,
    /// How the scalar is written.
    pub style: Style,
    /// How readers understand the whole scalar. A version that is not a string (`1.20` without quotes) is a mistake waiting.
    pub reading: Reading,
    /// The comment beside it, from its `#` to the end of the line: Flux sets its `{"$imagepolicy": ...}` markers there.
    pub trailing_comment: Option<String>,
}

/// The text of a file that must be UTF-8.
///
/// # Errors
/// Refuses other bytes, with the position of the first.
pub fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid =
            bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default();
        Refusal::NotUtf8 { at: Position::of(valid, valid.len()) }
    })
}

/// Reads one scalar, or a part of it.
///
/// # Errors
/// Refuses what [`set`] refuses, except reasons that concern only the writing: shared anchors, tags, long block scalars,
/// empty values and the new value.
pub fn get(source: &str, document: &Document, path: &Path, part: Part) -> Result<Scalar, Refusal> {
    Found::find(source, document, path)?.scalar(part)
}

/// Replaces one scalar, or a part of it, and returns the edited source. All other bytes are those of `source`.
///
/// The quoting style stays; a plain scalar gets double quotes if a YAML 1.1 or 1.2 reader would not read the new text as
/// a string. Only where the old plain text was no string either, and the new one is of the same kind, it stays plain: a
/// number replaces a number. Setting the value that is there returns the source as it is, if an edit were possible.
///
/// # Errors
/// See [`Refusal`]. Nothing is ever guessed: what is not exactly one scalar, written in exactly one place, is refused.
pub fn set(source: &str, document: &Document, path: &Path, part: Part, value: &str) -> Result<String, Refusal> {
    let found = Found::find(source, document, path)?;
    found.refuse_shared()?;
    if value.contains("{{") {
        return Err(Refusal::Template { at: found.at() });
    }
    let (old, wanted) = match part {
        Part::Whole => (found.text.to_owned(), value.to_owned()),
        Part::Tag | Part::Digest => {
            let range = found.part_range(part)?;
            let check = if part == Part::Tag { image::check_tag(value) } else { image::check_digest(value) };
            check.map_err(|why| Refusal::BadPart { value: value.to_owned(), part: part.name(), why })?;
            let mut wanted = found.text.to_owned();
            wanted.replace_range(range, value);
            (found.text.to_owned(), wanted)
        }
    };
    let splice = found.splice(&wanted)?;
    if old == splice.text {
        return Ok(source.to_owned());
    }
    let mut edited = String::with_capacity(source.len() + splice.written.len());
    edited.push_str(source.get(..splice.range.start).unwrap_or_default());
    edited.push_str(&splice.written);
    edited.push_str(source.get(splice.range.end..).unwrap_or_default());
    found.verify(&edited, &splice)?;
    Ok(edited)
}

/// The target of a path, with what is needed to read or replace it.
struct Found<'s> {
    source: &'s str,
    tree: Tree,
    target: Target,
    path: &'s Path,
    text: String,
    style: ScalarStyle,
    span: Range<usize>,
    tag: Option<String>,
}

/// What to write where, and what the parser must see afterwards.
struct Splice {
    range: Range<usize>,
    written: String,
    /// The new text of the scalar, decoded.
    text: String,
    style: ScalarStyle,
    /// The new span of the scalar.
    span: Range<usize>,
}

impl<'s> Found<'s> {
    fn find(source: &'s str, document: &Document, path: &'s Path) -> Result<Self, Refusal> {
        let tree = Tree::parse(source)?;
        let root = document::find(source, &tree, document)?;
        let target = resolve(source, &tree, root, path)?;
        let at = position(source, &tree, target.id);
        let Some(Node { kind: NodeKind::Scalar { text, style }, span, tag, .. }) = tree.node(target.id) else {
            return Err(Refusal::WrongShape { path: path.to_string(), wanted: "a scalar", found: "no scalar", at });
        };
        if text.contains("{{") {
            return Err(Refusal::Template { at });
        }
        let (text, style, span, tag) = (text.clone(), *style, span.clone(), tag.clone());
        Ok(Self { source, tree, target, path, text, style, span, tag })
    }

    fn at(&self) -> Position {
        Position::of(self.source, self.span.start)
    }

    fn raw(&self) -> &str {
        self.source.get(self.span.clone()).unwrap_or_default()
    }

    fn is_block(&self) -> bool {
        matches!(self.style, ScalarStyle::Literal | ScalarStyle::Folded)
    }

    fn reading(&self) -> Reading {
        if self.style == ScalarStyle::Plain && self.tag.is_none() {
            Reading::of_plain(&self.text)
        } else {
            Reading::STRING
        }
    }

    /// The bytes of the text itself, if it is spelled literally on one line: without quotes, escapes and line breaks.
    fn literal(&self) -> Option<Range<usize>> {
        let quotes = usize::from(matches!(self.style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted));
        let start = self.span.start + quotes;
        let text = if self.is_block() { self.text.trim_end_matches('\n') } else { &self.text };
        let range = start..start + text.len();
        (self.source.get(range.clone()) == Some(text) && !text.contains('\n')).then_some(range)
    }

    /// The range of a part in the decoded text.
    fn part_range(&self, part: Part) -> Result<Range<usize>, Refusal> {
        let reference = if self.is_block() { self.text.trim_end_matches('\n') } else { &self.text };
        let value = || reference.to_owned();
        let parts =
            image::split(reference).map_err(|why| Refusal::NotAnImage { value: value(), why, at: self.at() })?;
        if self.literal().is_none() {
            return Err(Refusal::Escaped { path: self.path.to_string(), at: self.at() });
        }
        match part {
            Part::Whole => Some(0..reference.len()),
            Part::Tag => parts.tag,
            Part::Digest => parts.digest,
        }
        .ok_or_else(|| Refusal::NoSuchPart { value: value(), part: part.name(), at: self.at() })
    }

    fn scalar(&self, part: Part) -> Result<Scalar, Refusal> {
        let (value, span) = match part {
            Part::Whole => (self.text.clone(), self.span.clone()),
            Part::Tag | Part::Digest => {
                let range = self.part_range(part)?;
                let start = self.literal().map_or(self.span.start, |literal| literal.start);
                let value = self.text.get(range.clone()).unwrap_or_default().to_owned();
                (value, start + range.start..start + range.end)
            }
        };
        Ok(Scalar {
            value,
            position: Position::of(self.source, span.start),
            span,
            style: match self.style {
                ScalarStyle::Plain => Style::Plain,
                ScalarStyle::SingleQuoted => Style::SingleQuoted,
                ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
                ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
            },
            reading: self.reading(),
            trailing_comment: self.tree.comment_beside(self.source, self.target.id).map(str::to_owned),
        })
    }

    /// Refuses if aliases repeat the target or anything around it.
    fn refuse_shared(&self) -> Result<(), Refusal> {
        let chain = self.target.around.iter().map(|(id, _)| *id).chain([self.target.id]);
        for (depth, id) in chain.enumerate() {
            let aliases = self.tree.node(id).map_or(0, |node| self.tree.aliases_of(node));
            if aliases > 0 {
                let path = if depth == 0 { "the document".to_owned() } else { self.path.prefix(depth) };
                return Err(Refusal::SharedAnchor { path, at: position(self.source, &self.tree, id), aliases });
            }
        }
        Ok(())
    }

    fn splice(&self, wanted: &str) -> Result<Splice, Refusal> {
        let is_string_tag = |tag: &str| tag == "tag:yaml.org,2002:str" || tag == "!";
        if let Some(tag) = self.tag.as_deref().filter(|tag| !is_string_tag(tag)) {
            return Err(Refusal::Tagged { path: self.path.to_string(), tag: tag.to_owned(), at: self.at() });
        }
        if self.is_block() {
            return self.splice_block(wanted);
        }
        let parent = self.target.around.last();
        let context = Context {
            flow: parent.is_some_and(|(id, _)| self.is_flow(*id)),
            json: self.target.around.iter().any(|(id, key)| self.is_flow(*id) && self.is_double_quoted(*key)),
            string_tag: self.tag.is_some(),
            old: self.reading(),
        };
        let (scalar, style) = encode(wanted, self.style, context);
        let (range, prefix) = if self.span.is_empty() { (self.empty_place()?, " ") } else { (self.span.clone(), "") };
        let start = range.start + prefix.len();
        let span = start..start + scalar.len();
        Ok(Splice { range, written: format!("{prefix}{scalar}"), text: wanted.to_owned(), style, span })
    }

    /// A block scalar with one line of content: that line is replaced, the line breaks at its end stay.
    fn splice_block(&self, wanted: &str) -> Result<Splice, Refusal> {
        let refusal = |why| Refusal::BlockScalar { path: self.path.to_string(), at: self.at(), why };
        let Some(range) = self.literal().filter(|range| !range.is_empty()) else {
            return Err(refusal("only one with exactly one line of content is edited"));
        };
        let ending = self.text.trim_start_matches(|c| c != '\n');
        // The value may be given as it was read, with the line breaks at its end.
        let line = wanted.strip_suffix(ending).unwrap_or(wanted);
        if line.is_empty() || line.trim() != line || line.chars().any(needs_escape) {
            return Err(refusal("the new value does not fit in its line"));
        }
        let rest = self.span.end.saturating_sub(range.end);
        let span = range.start..range.start + line.len() + rest;
        Ok(Splice { range, written: line.to_owned(), text: format!("{line}{ending}"), style: self.style, span })
    }

    /// Where to write a value behind `key:`, the anchor or the tag. The parser places an empty value before the colon.
    fn empty_place(&self) -> Result<Range<usize>, Refusal> {
        let refusal = || Refusal::EmptyValue { path: self.path.to_string(), at: self.at() };
        let start = self.span.start;
        let has_properties = self.tag.is_some() || self.tree.node(self.target.id).is_some_and(|node| node.anchor != 0);
        if has_properties {
            return Ok(start..start);
        }
        let key = self.target.around.last().and_then(|(_, key)| self.tree.node((*key)?)).ok_or_else(refusal)?;
        let behind_key = self.source.get(key.span.end..).unwrap_or_default();
        let rest = behind_key.trim_start_matches([' ', '\t']);
        let colon = self.source.len() - rest.len();
        if start > colon || !rest.starts_with(':') {
            return Err(refusal());
        }
        Ok(colon + 1..colon + 1)
    }

    fn is_flow(&self, id: NodeId) -> bool {
        matches!(
            self.tree.node(id).map(|node| &node.kind),
            Some(NodeKind::Mapping { flow: true, .. } | NodeKind::Sequence { flow: true, .. })
        )
    }

    fn is_double_quoted(&self, key: Option<NodeId>) -> bool {
        matches!(
            key.and_then(|key| self.tree.node(key)).map(|node| &node.kind),
            Some(NodeKind::Scalar { style: ScalarStyle::DoubleQuoted, .. })
        )
    }

    /// The oracle: the edited text must parse to the same nodes at the same, shifted, places, and only the target differs.
    fn verify(&self, edited: &str, splice: &Splice) -> Result<(), Refusal> {
        let mismatch = |why: String| Refusal::OracleMismatch { at: self.at(), why };
        // The raw bytes must be a scalar of this style, or the span is not what it seems to be.
        let is_quoted_by =
            |quote| self.raw().len() >= 2 && self.raw().starts_with(quote) && self.raw().ends_with(quote);
        let is_sound = match self.style {
            ScalarStyle::SingleQuoted => is_quoted_by('\''),
            ScalarStyle::DoubleQuoted => is_quoted_by('"'),
            _ => true,
        };
        if !is_sound {
            return Err(mismatch("the parser's span of the scalar does not have its quotes".to_owned()));
        }
        let after = Tree::parse(edited).map_err(|refusal| mismatch(refusal.to_string()))?;
        let shift = |byte: usize| {
            if byte >= splice.range.end {
                byte - splice.range.end + splice.range.start + splice.written.len()
            } else {
                byte
            }
        };
        let same_range =
            |old: &Range<usize>, new: &Range<usize>| shift(old.start) == new.start && shift(old.end) == new.end;
        if self.tree.nodes.len() != after.nodes.len() || self.tree.documents != after.documents {
            return Err(mismatch("the documents have other nodes".to_owned()));
        }
        for (id, (old, new)) in self.tree.nodes.iter().zip(&after.nodes).enumerate() {
            let is_same = old.anchor == new.anchor
                && old.tag == new.tag
                && if id == self.target.id {
                    new.span == splice.span
                        && matches!(&new.kind, NodeKind::Scalar { text, style } if *text == splice.text && *style == splice.style)
                } else {
                    // Positions of empty nodes are the parser's convention; the order of nodes says enough about them.
                    old.kind == new.kind && (old.span.is_empty() || same_range(&old.span, &new.span))
                };
            if !is_same {
                return Err(mismatch(format!("the node at {} changes", Position::of(edited, new.span.start))));
            }
        }
        let same_comments = self.tree.comments.len() == after.comments.len()
            && self.tree.comments.iter().zip(&after.comments).all(|(old, new)| same_range(old, new));
        if same_comments { Ok(()) } else { Err(mismatch("a comment changes".to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edits that the splicer does not make: the oracle must see each of them.
    #[test]
    fn the_oracle_sees_every_other_change() {
        let source = "a: 1 # c\nb: &x v1\nc: [*x, !!str 2]\n---\nd: 'y'\n";
        let (document, path) = (Document::Index(0), Path::new(vec![crate::Step::Key("a".to_owned())]).unwrap());
        let found = Found::find(source, &document, &path).unwrap();
        let splice = found.splice("2").unwrap();
        assert_eq!(found.verify(&source.replace("a: 1", "a: 2"), &splice), Ok(()));
        for (from, to) in [
            ("a: 1", "a: 3"),
            ("a: 1", "a: '2'"),
            ("a: 1 ", "a: 2"),
            ("a: 1 # c", "a: 2 # \u{e9}"),
            ("a: 1 # c", "a: 2    "),
            ("a: 1", "a:  2"),
            ("a: 1 # c\nb: &x v1", "a: 2 # c\nb: &x v2"),
            ("a: 1 # c\nb: &x v1\nc: [*x, !!str 2]", "a: 2 # c\nb: &x v1\nc: [v1, !!str 2]"),
            ("a: 1 # c\nb: &x v1\nc: [*x, !!str 2]", "a: 2 # c\nb: &x v1\nc: [*x, !!int 2]"),
            ("a: 1 # c\nb: &x v1\nc: [*x, !!str 2]\n---", "a: 2 # c\nb: &x v1\nc: [*x, !!str 2]\n   "),
            ("a: 1", "a: 2\ne: 3"),
            ("a: 1", "a: ["),
        ] {
            let refused = found.verify(&source.replace(from, to), &splice).map_err(|refusal| refusal.code());
            assert_eq!(refused, Err("oracle-mismatch"), "{to:?}");
        }
    }

    #[test]
    fn no_edit_is_returned_that_the_oracle_has_not_seen() {
        let path = Path::new(vec![crate::Step::Key("a".to_owned())]).unwrap();
        // The result is beyond the limits, which only parsing it tells.
        let huge = "x".repeat(crate::tree::MAX_BYTES);
        let refused = set("a: 1\n", &Document::Index(0), &path, Part::Whole, &huge);
        assert_eq!(refused.map_err(|refusal| refusal.code()), Err("oracle-mismatch"));
    }
}
