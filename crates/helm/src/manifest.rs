//! The rendered objects of a release.

use std::fmt;

use serde_json::Value;

use crate::HelmError;

/// One object of a manifest.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// The template it was rendered from, as `chart/templates/x.yaml`, if Helm wrote it down.
    pub source: Option<String>,
    /// The object, or `None` if this document is no YAML that can be read. May hold secrets.
    pub object: Option<Value>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("source", &self.source)
            .field("kind", &self.text("/kind"))
            .field("name", &self.text("/metadata/name"))
            .finish_non_exhaustive()
    }
}

impl Document {
    /// The kind, or an empty text.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// The name, or an empty text.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The namespace, or an empty text: then it is that of the release, or the object has none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    fn text(&self, pointer: &str) -> &str {
        self.object.as_ref().and_then(|object| object.pointer(pointer)).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The objects of a manifest, in order. Empty documents are left out, and the items of a `List` stand for it.
#[must_use]
pub fn documents(manifest: &str) -> Vec<Document> {
    split(manifest).iter().flat_map(|text| read(text)).collect()
}

/// The one object of this kind and name. With `namespace`, objects that name another one are passed over.
///
/// # Errors
/// If it is there twice; if it is not there, but might be in a document that cannot be read.
pub fn find<'a>(
    documents: &'a [Document],
    kind: &str,
    name: &str,
    namespace: Option<&str>,
) -> Result<Option<&'a Value>, HelmError> {
    let fits = |document: &&Document| {
        let elsewhere = namespace.is_some_and(|wanted| !["", wanted].contains(&document.namespace()));
        document.kind() == kind && document.name() == name && !elsewhere
    };
    let found: Vec<_> = documents.iter().filter(fits).filter_map(|document| document.object.as_ref()).collect();
    match found.as_slice() {
        [one] => Ok(Some(one)),
        [] => {
            let mut unreadable = documents.iter().filter(|document| document.object.is_none());
            match unreadable.next() {
                None => Ok(None),
                Some(first) => Err(HelmError::UnreadableManifest {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    count: 1 + unreadable.count(),
                    first: first.source.clone().unwrap_or_else(|| "unknown template".to_owned()),
                }),
            }
        }
        several => Err(HelmError::Ambiguous { kind: kind.to_owned(), name: name.to_owned(), count: several.len() }),
    }
}

/// Cuts at the lines that separate documents. A `---` inside a block scalar is indented, so that lines are enough.
fn split(manifest: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in manifest.split_inclusive('\n') {
        let rest = match line.strip_prefix("---") {
            Some(rest) if rest.trim_start().len() < rest.len() || rest.is_empty() => rest.trim_start(),
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push_str(line);
                }
                continue;
            }
        };
        // What follows on the separator's own line belongs to the document: a comment, or a flow mapping.
        parts.push(if rest.is_empty() { String::new() } else { format!("{}\n", rest.trim_end()) });
    }
    parts
}

/// Reads one document; none if it is empty.
fn read(text: &str) -> Vec<Document> {
    let source = text.lines().find_map(|line| line.strip_prefix("# Source: ")).map(|source| source.trim().to_owned());
    let unreadable = || vec![Document { source: source.clone(), object: None }];
    let Ok(mut documents) = crate::values(text) else { return unreadable() };
    let document = documents.pop();
    if !documents.is_empty() {
        return unreadable();
    }
    match document {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(mut list)) if list.get("kind").and_then(Value::as_str) == Some("List") => {
            match list.remove("items") {
                Some(Value::Array(items)) => items
                    .into_iter()
                    .map(|item| Document { source: source.clone(), object: item.is_object().then_some(item) })
                    .collect(),
                None | Some(Value::Null) => Vec::new(),
                Some(_) => unreadable(),
            }
        }
        Some(object @ Value::Object(_)) => vec![Document { source, object: Some(object) }],
        Some(_) => unreadable(),
    }
}
