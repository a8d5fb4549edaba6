//! Walks a path through one document to the scalar it names, and refuses every way in which that is not exactly one place.

use crate::path::{Path, Step};
use crate::refusal::{Position, Refusal};
use crate::tree::{Node, NodeId, NodeKind, Tree};

use granit_parser::ScalarStyle;

/// The scalar a path names, and what is around it.
pub(crate) struct Target {
    /// The scalar.
    pub(crate) id: NodeId,
    /// The collections around it, from the root of the document, each with the key under which the next one hangs.
    pub(crate) around: Vec<(NodeId, Option<NodeId>)>,
}

/// Finds a key of a mapping itself, not of what it merges in. Anything but a mapping has no keys.
pub(crate) fn lookup(
    source: &str,
    tree: &Tree,
    mapping: NodeId,
    key: &str,
) -> Result<Option<(NodeId, NodeId)>, Refusal> {
    let Some(Node { kind: NodeKind::Mapping { pairs, .. }, .. }) = tree.node(mapping) else { return Ok(None) };
    let mut found = pairs.iter().filter(|(id, _)| tree.text(*id) == Some(key));
    let first = found.next().copied();
    match (first, found.next()) {
        (Some((first, _)), Some((second, _))) => Err(Refusal::DuplicateKey {
            key: key.to_owned(),
            first: position(source, tree, first),
            at: position(source, tree, *second),
        }),
        _ => Ok(first),
    }
}

/// Follows the path from the root of a document.
pub(crate) fn resolve(source: &str, tree: &Tree, root: NodeId, path: &Path) -> Result<Target, Refusal> {
    let mut target = Target { id: root, around: Vec::new() };
    for (index, step) in path.steps().iter().enumerate() {
        let walk = Walk { source, tree, path, depth: index + 1, here: target.id };
        let (key, next) = walk.step(step)?;
        target.around.push((target.id, key));
        target.id = next;
    }
    let here = Walk { source, tree, path, depth: path.steps().len(), here: target.id };
    match tree.node(target.id).map(|node| &node.kind) {
        Some(NodeKind::Scalar { .. }) => Ok(target),
        Some(NodeKind::Alias { .. }) => Err(here.alias(target.id)),
        _ => Err(here.wrong_shape("a scalar")),
    }
}

/// One step of the walk: `depth` steps of the path are done once it succeeds.
struct Walk<'a> {
    source: &'a str,
    tree: &'a Tree,
    path: &'a Path,
    depth: usize,
    here: NodeId,
}

impl Walk<'_> {
    fn step(&self, step: &Step) -> Result<(Option<NodeId>, NodeId), Refusal> {
        let kind = self.tree.node(self.here).map(|node| &node.kind);
        if let Some(NodeKind::Alias { .. }) = kind {
            return Err(self.alias(self.here));
        }
        match (step, kind) {
            (Step::Key(key), Some(NodeKind::Mapping { .. })) => match lookup(self.source, self.tree, self.here, key)? {
                Some((key, value)) => Ok((Some(key), value)),
                None => Err(self.merge_key(self.here).unwrap_or_else(|| self.missing())),
            },
            (Step::Index(index), Some(NodeKind::Sequence { items, .. })) => {
                items.get(*index).map(|item| (None, *item)).ok_or_else(|| self.missing())
            }
            (Step::Select { key, value }, Some(NodeKind::Sequence { items, .. })) => {
                self.select(items, key, value).map(|item| (None, item))
            }
            (Step::Key(_), _) => Err(self.wrong_shape("a mapping")),
            _ => Err(self.wrong_shape("a list")),
        }
    }

    fn select(&self, items: &[NodeId], key: &str, value: &str) -> Result<NodeId, Refusal> {
        let mut matches = Vec::new();
        for item in items {
            if let Some(NodeKind::Alias { .. }) = self.tree.node(*item).map(|node| &node.kind) {
                // What the alias stands for could match as well, and it is not ours to edit.
                return Err(self.alias(*item));
            }
            match lookup(self.source, self.tree, *item, key)? {
                Some((_, found)) if self.tree.text(found) == Some(value) => matches.push(*item),
                Some(_) => {}
                None => {
                    if let Some(refusal) = self.merge_key(*item) {
                        return Err(refusal);
                    }
                }
            }
        }
        match matches.as_slice() {
            [] => Err(self.missing()),
            [item] => Ok(*item),
            [_, second, ..] => Err(Refusal::SelectorAmbiguous {
                path: self.reached(),
                count: matches.len(),
                at: position(self.source, self.tree, *second),
            }),
        }
    }

    /// The refusal for a mapping that lacks a key but has `<<`, which may provide it.
    fn merge_key(&self, mapping: NodeId) -> Option<Refusal> {
        let NodeKind::Mapping { pairs, .. } = &self.tree.node(mapping)?.kind else { return None };
        let (merge, _) = pairs.iter().find(|(key, _)| {
            matches!(self.tree.node(*key).map(|node| &node.kind),
                Some(NodeKind::Scalar { text, style: ScalarStyle::Plain }) if text == "<<")
        })?;
        Some(Refusal::MergeKey { path: self.reached(), at: position(self.source, self.tree, *merge) })
    }

    fn reached(&self) -> String {
        self.path.prefix(self.depth)
    }

    fn missing(&self) -> Refusal {
        Refusal::PathNotFound { path: self.reached(), at: position(self.source, self.tree, self.here) }
    }

    fn alias(&self, id: NodeId) -> Refusal {
        Refusal::Alias { path: self.reached(), at: position(self.source, self.tree, id) }
    }

    fn wrong_shape(&self, wanted: &'static str) -> Refusal {
        let found = match self.tree.node(self.here).map(|node| &node.kind) {
            Some(NodeKind::Mapping { .. }) => "a mapping",
            Some(NodeKind::Sequence { .. }) => "a list",
            _ => "a scalar",
        };
        let at = position(self.source, self.tree, self.here);
        Refusal::WrongShape { path: self.reached(), wanted, found, at }
    }
}

/// Where a node starts.
pub(crate) fn position(source: &str, tree: &Tree, id: NodeId) -> Position {
    Position::of(source, tree.node(id).map_or(0, |node| node.span.start))
}
