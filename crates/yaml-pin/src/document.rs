//! Which document of a file is meant, and which documents a file has.

use std::fmt;
use std::str::FromStr;

use crate::refusal::{Position, Refusal};
use crate::resolve::lookup;
use crate::tree::{NodeId, Tree};

/// Selects one document of a file.
///
/// ```
/// use yaml_pin::Document;
/// assert_eq!("#1".parse(), Ok(Document::Index(1)));
/// let named: Document = "HelmRelease/apps/notes".parse()?;
/// assert_eq!(named.to_string(), "HelmRelease/apps/notes");
/// # Ok::<(), yaml_pin::Refusal>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Document {
    /// The document at this index, counted from 0. Documents without content count; a comment before the first `---` is
    /// none.
    Index(usize),
    /// The one document with this `kind`, `metadata.name` and, if given, `metadata.namespace`.
    Named {
        /// `kind`.
        kind: String,
        /// `metadata.namespace`; `None` matches any and none.
        namespace: Option<String>,
        /// `metadata.name`.
        name: String,
    },
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "#{index}"),
            Self::Named { kind, namespace: None, name } => write!(f, "{kind}/{name}"),
            Self::Named { kind, namespace: Some(namespace), name } => write!(f, "{kind}/{namespace}/{name}"),
        }
    }
}

impl FromStr for Document {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let error = |column, why| Refusal::Syntax { what: "document selector", text: text.to_owned(), column, why };
        if let Some(index) = text.strip_prefix('#') {
            let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
            return match index.parse() {
                Ok(index) if is_number => Ok(Self::Index(index)),
                _ => Err(error(2, "an index such as #0 is needed")),
            };
        }
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(error(1, "kind, namespace and name must not be empty"));
        }
        let owned = |part: &str| part.to_owned();
        match parts.as_slice() {
            [kind, name] => Ok(Self::Named { kind: owned(kind), namespace: None, name: owned(name) }),
            [kind, namespace, name] => {
                Ok(Self::Named { kind: owned(kind), namespace: Some(owned(namespace)), name: owned(name) })
            }
            _ => Err(error(1, "neither Kind/name, Kind/namespace/name nor #index")),
        }
    }
}

/// What a document says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentInfo {
    /// Its index, for [`Document::Index`].
    pub index: usize,
    /// `kind`, if there is one.
    pub kind: Option<String>,
    /// `metadata.namespace`, if there is one.
    pub namespace: Option<String>,
    /// `metadata.name`, if there is one.
    pub name: Option<String>,
    /// Where its content starts.
    pub position: Position,
}

/// Lists the documents of a file.
///
/// # Errors
/// Refuses invalid YAML, templates, sources beyond the limits, and documents with one of the four keys twice.
pub fn documents(source: &str) -> Result<Vec<DocumentInfo>, Refusal> {
    let tree = Tree::parse(source)?;
    let mut infos = Vec::new();
    for (index, root) in tree.documents.iter().enumerate() {
        let metadata = child(source, &tree, *root, "metadata")?;
        let inside = |key| metadata.map_or(Ok(None), |id| child_text(source, &tree, id, key));
        infos.push(DocumentInfo {
            index,
            kind: child_text(source, &tree, *root, "kind")?,
            namespace: inside("namespace")?,
            name: inside("name")?,
            position: Position::of(source, tree.node(*root).map_or(0, |node| node.span.start)),
        });
    }
    Ok(infos)
}

/// Finds the root of the one document that is meant.
pub(crate) fn find(source: &str, tree: &Tree, document: &Document) -> Result<NodeId, Refusal> {
    let not_found = || Refusal::DocumentNotFound { document: document.to_string(), count: tree.documents.len() };
    let (kind, namespace, name) = match document {
        Document::Index(index) => return tree.documents.get(*index).copied().ok_or_else(not_found),
        Document::Named { kind, namespace, name } => (kind, namespace, name),
    };
    let mut matches = Vec::new();
    for root in &tree.documents {
        if child_text(source, tree, *root, "kind")?.as_ref() != Some(kind) {
            continue;
        }
        let Some(metadata) = child(source, tree, *root, "metadata")? else { continue };
        let is_name = child_text(source, tree, metadata, "name")?.as_ref() == Some(name);
        if is_name
            && (namespace.is_none() || child_text(source, tree, metadata, "namespace")?.as_ref() == namespace.as_ref())
        {
            matches.push(*root);
        }
    }
    match matches.as_slice() {
        [] => Err(not_found()),
        [root] => Ok(*root),
        [_, second, ..] => Err(Refusal::DocumentAmbiguous {
            document: document.to_string(),
            count: matches.len(),
            at: Position::of(source, tree.node(*second).map_or(0, |node| node.span.start)),
        }),
    }
}

fn child(source: &str, tree: &Tree, parent: NodeId, key: &str) -> Result<Option<NodeId>, Refusal> {
    Ok(lookup(source, tree, parent, key)?.map(|(_, value)| value))
}

fn child_text(source: &str, tree: &Tree, parent: NodeId, key: &str) -> Result<Option<String>, Refusal> {
    Ok(child(source, tree, parent, key)?.and_then(|id| tree.text(id)).map(str::to_owned))
}
