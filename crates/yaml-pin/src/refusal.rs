//! Why an edit was refused, and where: the one error type of this crate.

use std::fmt;

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, counted from 1. LF, CRLF and a lone CR end a line (YAML 1.2; NEL and U+2028 do not).
    pub line: usize,
    /// Column in characters, counted from 1. A byte order mark counts as one.
    pub column: usize,
    /// Offset in bytes, counted from 0.
    pub byte: usize,
}

impl Position {
    /// The position of a byte offset. An offset past the end gives the end.
    pub(crate) fn of(source: &str, byte: usize) -> Self {
        let mut position = Self { line: 1, column: 1, byte: byte.min(source.len()) };
        let mut after_cr = false;
        for (at, c) in source.char_indices() {
            if at >= byte {
                break;
            }
            match c {
                '\n' if after_cr => {}
                '\n' | '\r' => {
                    position.line += 1;
                    position.column = 1;
                }
                _ => position.column += 1,
            }
            after_cr = c == '\r';
        }
        position
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} (byte {})", self.line, self.column, self.byte)
    }
}

/// A refused read or edit. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A document selector or a path could not be read.
    #[error("{what} {text:?} cannot be read at its character {column}: {why}")]
    Syntax {
        /// `"document selector"` or `"path"`.
        what: &'static str,
        /// The text given.
        text: String,
        /// Where in that text, in characters from 1.
        column: usize,
        /// What is wrong there.
        why: &'static str,
    },
    /// The source is not UTF-8.
    #[error("the source is not UTF-8, first at {at}")]
    NotUtf8 {
        /// The first byte that is not UTF-8.
        at: Position,
    },
    /// The source is larger, or nested deeper, than this crate accepts.
    #[error("the source is beyond the limit of {limit} {unit}, seen at {at}")]
    Limit {
        /// The limit that was passed.
        limit: usize,
        /// What the limit counts.
        unit: &'static str,
        /// Where it was passed.
        at: Position,
    },
    /// The source, or one of its documents, is not valid YAML.
    #[error("not valid YAML at {at}: {why}")]
    InvalidYaml {
        /// What the parser says.
        why: String,
        /// Where.
        at: Position,
        /// Whether the source contains `{{`, as Helm templates do.
        template: bool,
    },
    /// The source, the target or the new value is a template, so its bytes are not the data that will be read.
    #[error("a template expression at {at}: what it will become is not known here")]
    Template {
        /// Where the expression, or the scalar with it, starts.
        at: Position,
    },
    /// No document matches the selector.
    #[error("no document {document} among the {count} of this file")]
    DocumentNotFound {
        /// The selector.
        document: String,
        /// How many documents the file has.
        count: usize,
    },
    /// Several documents match the selector.
    #[error("{count} documents match {document}; the second starts at {at}")]
    DocumentAmbiguous {
        /// The selector.
        document: String,
        /// How many match.
        count: usize,
        /// Where the second of them starts.
        at: Position,
    },
    /// A mapping that decides the answer has a key twice.
    #[error("the key {key:?} is there twice, at {first} and at {at}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Its first occurrence.
        first: Position,
        /// Its second occurrence.
        at: Position,
    },
    /// The path ends at a key, index or list item that does not exist.
    #[error("there is no {path} in what starts at {at}")]
    PathNotFound {
        /// The path up to and including the step that is missing.
        path: String,
        /// The collection that lacks it.
        at: Position,
    },
    /// The key is missing, but a merge key (`<<`) may provide it.
    #[error("{path} is not written here: at most the merge key at {at} provides it")]
    MergeKey {
        /// The path up to and including the step in question.
        path: String,
        /// The merge key.
        at: Position,
    },
    /// A step of the path met another kind of node than it needs.
    #[error("{path} needs {wanted}, but at {at} is {found}")]
    WrongShape {
        /// The path up to and including the step in question.
        path: String,
        /// What the step needs.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
        /// Where that is.
        at: Position,
    },
    /// Several list items match a `[name=x]` selector.
    #[error("{count} list items match {path}; the second is at {at}")]
    SelectorAmbiguous {
        /// The path up to and including the selector.
        path: String,
        /// How many match.
        count: usize,
        /// The second of them.
        at: Position,
    },
    /// The path meets an alias (`*name`): the bytes to change are elsewhere and shared.
    #[error("{path} is an alias at {at}; its value is written elsewhere")]
    Alias {
        /// The path up to and including the alias.
        path: String,
        /// The alias.
        at: Position,
    },
    /// The target, or a collection around it, has an anchor that aliases refer to.
    #[error("{path} at {at} is shared: {aliases} alias(es) repeat it, so an edit would change several places")]
    SharedAnchor {
        /// The path of the anchored node.
        path: String,
        /// The anchored node.
        at: Position,
        /// How many aliases refer to it.
        aliases: usize,
    },
    /// A block scalar of no or several lines, or a new value that a block scalar cannot hold in its one line.
    #[error("{path} at {at} is a block scalar: {why}")]
    BlockScalar {
        /// The path.
        path: String,
        /// Where its content starts.
        at: Position,
        /// What does not fit.
        why: &'static str,
    },
    /// The target has a tag other than `!!str` or `!`, so what its text means is not known here.
    #[error("{path} at {at} has the tag {tag}")]
    Tagged {
        /// The path.
        path: String,
        /// The tag as resolved.
        tag: String,
        /// Where the scalar is.
        at: Position,
    },
    /// The target is an empty value in a place where no byte offset says where to write.
    #[error("{path} at {at} is an empty value that is not written as `key:`")]
    EmptyValue {
        /// The path.
        path: String,
        /// Near where it is.
        at: Position,
    },
    /// A part was asked for, but the scalar is not an image reference.
    #[error("{value:?} at {at} is not an image reference: {why}")]
    NotAnImage {
        /// The scalar.
        value: String,
        /// What is wrong with it.
        why: &'static str,
        /// Where it is.
        at: Position,
    },
    /// The image reference has no such part.
    #[error("the image reference {value:?} at {at} has no {part}")]
    NoSuchPart {
        /// The image reference.
        value: String,
        /// `"tag"` or `"digest"`.
        part: &'static str,
        /// Where it is.
        at: Position,
    },
    /// The new value cannot be that part of an image reference.
    #[error("{value:?} cannot be the {part} of an image reference: {why}")]
    BadPart {
        /// The new value.
        value: String,
        /// `"tag"` or `"digest"`.
        part: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A part was asked for in a scalar whose text is not spelled literally (escapes, several lines).
    #[error("{path} at {at} is written with escapes or over several lines, so its parts have no bytes of their own")]
    Escaped {
        /// The path.
        path: String,
        /// Where the scalar is.
        at: Position,
    },
    /// The edited text, parsed again, is not the old tree with the one scalar replaced.
    #[error("the edit at {at} would not have the meant result: {why}")]
    OracleMismatch {
        /// The target.
        at: Position,
        /// What differs.
        why: String,
    },
}

impl Refusal {
    /// A stable name for programs. Never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::NotUtf8 { .. } => "not-utf8",
            Self::Limit { .. } => "limit",
            Self::InvalidYaml { .. } => "invalid-yaml",
            Self::Template { .. } => "template",
            Self::DocumentNotFound { .. } => "document-not-found",
            Self::DocumentAmbiguous { .. } => "document-ambiguous",
            Self::DuplicateKey { .. } => "duplicate-key",
            Self::PathNotFound { .. } => "path-not-found",
            Self::MergeKey { .. } => "merge-key",
            Self::WrongShape { .. } => "wrong-shape",
            Self::SelectorAmbiguous { .. } => "selector-ambiguous",
            Self::Alias { .. } => "alias",
            Self::SharedAnchor { .. } => "shared-anchor",
            Self::BlockScalar { .. } => "block-scalar",
            Self::Tagged { .. } => "tagged",
            Self::EmptyValue { .. } => "empty-value",
            Self::NotAnImage { .. } => "not-an-image",
            Self::NoSuchPart { .. } => "no-such-part",
            Self::BadPart { .. } => "bad-part",
            Self::Escaped { .. } => "escaped",
            Self::OracleMismatch { .. } => "oracle-mismatch",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => {
                "documents are written Kind/name, Kind/namespace/name or #0; paths a.b[0].c[name=x][\"k.with/dots\"]"
            }
            Self::NotUtf8 { .. } => "convert the file to UTF-8",
            Self::Limit { .. } => "split the file, or edit it by hand",
            Self::InvalidYaml { template: true, .. } => {
                "this looks like a template; edit the values it is rendered from instead"
            }
            Self::InvalidYaml { .. } => "repair the YAML first; every document of the file must parse",
            Self::Template { .. } => "edit the values that the template is rendered from instead",
            Self::DocumentNotFound { .. } => "check kind, namespace and name, or name the document by #index",
            Self::DocumentAmbiguous { .. } => "name the document as Kind/namespace/name or by #index",
            Self::DuplicateKey { .. } => "remove one of the two; readers disagree about which one counts",
            Self::PathNotFound { .. } => "add the key by hand first; keys and items are never added here",
            Self::MergeKey { .. } => "write the key out in this mapping, or edit the mapping that is merged in",
            Self::WrongShape { .. } => "name a scalar; use [0] or [key=value] for lists and names for mappings",
            Self::SelectorAmbiguous { .. } => "name the item by its index",
            Self::Alias { .. } => "write the value out in place of the alias, or edit where it is defined",
            Self::SharedAnchor { .. } => "write the aliased values out first, or make this edit by hand",
            Self::BlockScalar { .. } => "write the value as a plain or quoted scalar first",
            Self::Tagged { .. } => "edit this scalar by hand",
            Self::EmptyValue { .. } => "write a value such as \"\" there first",
            Self::NotAnImage { .. } => "replace the whole scalar instead of a part of it",
            Self::NoSuchPart { .. } => "replace the whole image reference, or the other part",
            Self::BadPart { .. } => "give only the tag (1.2.3) or only the digest (sha256:...)",
            Self::Escaped { .. } => "replace the whole scalar, or write it on one line without escapes first",
            Self::OracleMismatch { .. } => {
                "make this edit by hand, and report the file: the editor did not see this case"
            }
        }
    }

    /// Always `false`: the same source and request are refused again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The place in the source that the refusal is about; `None` if it is about the request alone.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Syntax { .. } | Self::DocumentNotFound { .. } | Self::BadPart { .. } => None,
            Self::NotUtf8 { at }
            | Self::Limit { at, .. }
            | Self::InvalidYaml { at, .. }
            | Self::Template { at }
            | Self::DocumentAmbiguous { at, .. }
            | Self::DuplicateKey { at, .. }
            | Self::PathNotFound { at, .. }
            | Self::MergeKey { at, .. }
            | Self::WrongShape { at, .. }
            | Self::SelectorAmbiguous { at, .. }
            | Self::Alias { at, .. }
            | Self::SharedAnchor { at, .. }
            | Self::BlockScalar { at, .. }
            | Self::Tagged { at, .. }
            | Self::EmptyValue { at, .. }
            | Self::NotAnImage { at, .. }
            | Self::NoSuchPart { at, .. }
            | Self::Escaped { at, .. }
            | Self::OracleMismatch { at, .. } => Some(*at),
        }
    }
}
