//! Parser events turned into a flat tree of nodes with byte spans. Aliases stay aliases, so the tree is never larger than
//! its source, and nothing here recurses.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use crate::refusal::{Position, Refusal};

/// Larger sources are refused: Kubernetes itself stops at 1.5 MiB an object. Tests run into a smaller limit, sooner.
pub(crate) const MAX_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
/// More nodes than this are refused, so that `[,,,` cannot cost a hundred times its size.
pub(crate) const MAX_NODES: usize = if cfg!(test) { 1_000 } else { 300_000 };
const MAX_DEPTH: usize = 255;

/// Index of a node in [`Tree::nodes`].
pub(crate) type NodeId = usize;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    /// The scalar's own bytes with its quotes; the start of a collection; the whole `*name` of an alias.
    pub(crate) span: Range<usize>,
    /// The parser's number of the anchor defined on this node; 0 for none.
    pub(crate) anchor: usize,
    pub(crate) tag: Option<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum NodeKind {
    Scalar {
        text: String,
        style: ScalarStyle,
    },
    /// Keys and values in the order of the source.
    Mapping {
        pairs: Vec<(NodeId, NodeId)>,
        flow: bool,
    },
    Sequence {
        items: Vec<NodeId>,
        flow: bool,
    },
    Alias {
        anchor: usize,
    },
}

/// All documents of one source.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// In the order of the source: parents before children, keys before values.
    pub(crate) nodes: Vec<Node>,
    /// The root node of each document.
    pub(crate) documents: Vec<NodeId>,
    /// Spans of the comments, each from `#` to the end of its line.
    pub(crate) comments: Vec<Range<usize>>,
    anchors: HashMap<usize, NodeId>,
    aliases: HashMap<usize, usize>,
    template: Option<usize>,
}

/// A collection whose end has not been seen.
struct Open {
    node: NodeId,
    key: Option<NodeId>,
}

impl Tree {
    /// Reads every document, or refuses the source.
    pub(crate) fn parse(source: &str) -> Result<Self, Refusal> {
        if source.len() > MAX_BYTES {
            let at = Position::of(source, MAX_BYTES);
            return Err(Refusal::Limit { limit: MAX_BYTES, unit: "bytes", at });
        }
        // Comments are bounded by the source, and manifests have long ones: the default of 96 in a row would refuse them.
        let options = granit_parser::options! { max_buffered_comment_events: usize::MAX, block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH };
        let mut tree = Self::default();
        let mut open = Vec::new();
        for next in Parser::new_from_str_with_options(source, options) {
            match next {
                Ok((event, span)) => tree.take(source, &mut open, event, &span)?,
                Err(error) => {
                    let byte = error.marker().byte_offset().unwrap_or_default();
                    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
                        let at = Position::of(source, byte);
                        return Err(Refusal::Limit { limit: MAX_DEPTH, unit: "nested collections", at });
                    }
                    return Err(invalid(source, byte, error.info()));
                }
            }
        }
        if let Some(byte) = tree.template {
            return Err(Refusal::Template { at: Position::of(source, byte) });
        }
        Ok(tree)
    }

    fn take(&mut self, source: &str, open: &mut Vec<Open>, event: Event<'_>, span: &Span) -> Result<(), Refusal> {
        let Some(range) = span.byte_range() else {
            return Err(invalid(source, 0, "the parser gave no byte offsets".to_owned()));
        };
        let (kind, anchor, tag) = match event {
            Event::Comment(..) => {
                self.comments.push(range);
                return Ok(());
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                return Ok(());
            }
            Event::Scalar(text, style, anchor, tag) => {
                // An empty value is announced as `~`; keep what is written: nothing.
                let text = if range.is_empty() { String::new() } else { text.into_owned() };
                (NodeKind::Scalar { text, style }, anchor, tag)
            }
            Event::SequenceStart(style, anchor, tag) => {
                (NodeKind::Sequence { items: Vec::new(), flow: style == StructureStyle::Flow }, anchor, tag)
            }
            Event::MappingStart(style, anchor, tag) => {
                (NodeKind::Mapping { pairs: Vec::new(), flow: style == StructureStyle::Flow }, anchor, tag)
            }
            Event::Alias(anchor) => {
                *self.aliases.entry(anchor).or_default() += 1;
                (NodeKind::Alias { anchor }, 0, None)
            }
            // Stream and document marks carry no data; the other events are switched off in the options.
            _ => return Ok(()),
        };
        if self.nodes.len() >= MAX_NODES {
            let at = Position::of(source, range.start);
            return Err(Refusal::Limit { limit: MAX_NODES, unit: "nodes", at });
        }
        let id = self.nodes.len();
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        let opens = matches!(kind, NodeKind::Mapping { .. } | NodeKind::Sequence { .. });
        let tag = tag.map(|tag: std::borrow::Cow<'_, Tag>| format!("{}{}", tag.handle(), tag.suffix()));
        self.nodes.push(Node { kind, span: range, anchor, tag });
        self.attach(open, id);
        if opens {
            open.push(Open { node: id, key: None });
        }
        Ok(())
    }

    /// Hangs a new node under the innermost open collection, or makes it a document.
    fn attach(&mut self, open: &mut [Open], id: NodeId) {
        let Some(parent) = open.last_mut() else {
            self.documents.push(id);
            return;
        };
        if parent.key.is_none() && self.is_double_brace(parent.node, id) {
            self.template = self.template.or(self.nodes.get(parent.node).map(|node| node.span.start));
        }
        match self.nodes.get_mut(parent.node).map(|node| &mut node.kind) {
            Some(NodeKind::Sequence { items, .. }) => items.push(id),
            Some(NodeKind::Mapping { pairs, .. }) => match parent.key.take() {
                None => parent.key = Some(id),
                Some(key) => pairs.push((key, id)),
            },
            _ => {}
        }
    }

    /// `{{ .Values.x }}` happens to parse: as a mapping whose key is a mapping. Nobody writes data that way.
    fn is_double_brace(&self, parent: NodeId, child: NodeId) -> bool {
        let flow_start = |id: NodeId| match self.nodes.get(id) {
            Some(Node { kind: NodeKind::Mapping { flow: true, .. }, span, .. }) if !span.is_empty() => Some(span.start),
            _ => None,
        };
        matches!((flow_start(parent), flow_start(child)), (Some(outer), Some(inner)) if inner == outer + 1)
    }

    /// The node of an id.
    pub(crate) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// How many aliases refer to the anchor of this node.
    pub(crate) fn aliases_of(&self, node: &Node) -> usize {
        if node.anchor == 0 { 0 } else { self.aliases.get(&node.anchor).copied().unwrap_or_default() }
    }

    /// The text of a scalar, or of the scalar that an alias stands for.
    pub(crate) fn text(&self, id: NodeId) -> Option<&str> {
        let target = match self.node(id)?.kind {
            // An anchor sits on a node, never on an alias, so one hop is all there can be.
            NodeKind::Alias { anchor } => *self.anchors.get(&anchor)?,
            _ => id,
        };
        match &self.node(target)?.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The comment that follows on the same line: behind the scalar, or behind the `|` or `>` of a block scalar.
    pub(crate) fn comment_beside<'s>(&self, source: &'s str, id: NodeId) -> Option<&'s str> {
        let node = self.node(id)?;
        let block = matches!(node.kind, NodeKind::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. });
        if block {
            let index = self.comments.partition_point(|comment| comment.end <= node.span.start).checked_sub(1)?;
            let comment = self.comments.get(index)?;
            let between = source.get(comment.end..node.span.start)?;
            return if between.trim().is_empty() { source.get(comment.clone()) } else { None };
        }
        let comment = self.comments.get(self.comments.partition_point(|comment| comment.start < node.span.end))?;
        let between = source.get(node.span.end..comment.start)?;
        if between.contains(['\n', '\r']) { None } else { source.get(comment.clone()) }
    }
}

fn invalid(source: &str, byte: usize, why: String) -> Refusal {
    Refusal::InvalidYaml { why, at: Position::of(source, byte), template: source.contains("{{") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_beyond_the_limits_are_refused() {
        for (source, wanted) in [
            (format!("#{}", " ".repeat(MAX_BYTES - 1)), None),
            (format!("#{}", " ".repeat(MAX_BYTES)), Some("bytes")),
            (format!("[{}]", "x,".repeat(MAX_NODES - 1)), None),
            (format!("[{}]", "x,".repeat(MAX_NODES)), Some("nodes")),
            ("[".repeat(MAX_DEPTH + 1), Some("nested collections")),
        ] {
            let seen = match Tree::parse(&source) {
                Err(Refusal::Limit { unit, .. }) => Some(unit),
                other => other.map(|_| None).unwrap(),
            };
            assert_eq!(seen, wanted);
        }
    }
}
