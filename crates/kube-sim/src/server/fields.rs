//! Sets of field paths, and what they are computed from: the heart of managed fields.
//!
//! A [`FieldSet`] is kept in the form of `FieldsV1`: path elements are strings like `f:spec`, `k:{"name":"x"}` and `v:"y"`.

use super::shape::{ListKind, Shape};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A set of paths. `member` says that the node itself is in the set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// What differs between two objects.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
}

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member
    }

    pub(crate) fn children(&self) -> impl Iterator<Item = (&String, &FieldSet)> {
        self.children.iter()
    }

    pub(crate) fn child(&self, element: &str) -> Option<&FieldSet> {
        self.children.get(element)
    }

    /// The same paths below one more element.
    pub(crate) fn below(self, element: &str) -> Self {
        let mut out = Self::default();
        if !self.is_empty() {
            out.children.insert(element.to_owned(), self);
        }
        out
    }

    pub(crate) fn insert(&mut self, path: &[String]) {
        match path.split_first() {
            None => self.member = true,
            Some((first, rest)) => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(crate) fn has(&self, path: &[&str]) -> bool {
        match path.split_first() {
            None => self.member,
            Some((first, rest)) => self.children.get(*first).is_some_and(|c| c.has(rest)),
        }
    }

    /// Removes everything at and below `path`.
    pub(crate) fn remove_tree(&mut self, path: &[&str]) {
        match path.split_first() {
            None => *self = Self::default(),
            Some((first, rest)) => {
                if let Some(child) = self.children.get_mut(*first) {
                    child.remove_tree(rest);
                    if child.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    fn combine(a: Option<&Self>, b: Option<&Self>, rule: fn(bool, bool) -> bool) -> Self {
        let empty = Self::default();
        let (a, b) = (a.unwrap_or(&empty), b.unwrap_or(&empty));
        let mut out = Self { member: rule(a.member, b.member), children: BTreeMap::new() };
        for key in a.children.keys().chain(b.children.keys().filter(|k| !a.children.contains_key(*k))) {
            let child = Self::combine(a.children.get(key), b.children.get(key), rule);
            if !child.is_empty() {
                out.children.insert(key.clone(), child);
            }
        }
        out
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::combine(Some(self), Some(other), |a, b| a || b)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self::combine(Some(self), Some(other), |a, b| a && b)
    }

    pub(crate) fn difference(&self, other: &Self) -> Self {
        Self::combine(Some(self), Some(other), |a, b| a && !b)
    }

    /// Paths of all members, in the notation of messages: `.spec.containers[name="x"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        fn walk(set: &FieldSet, prefix: &str, out: &mut Vec<String>) {
            if set.member {
                out.push(prefix.to_owned());
            }
            for (element, child) in &set.children {
                walk(child, &format!("{prefix}{}", shown(element)), out);
            }
        }
        let mut out = Vec::new();
        walk(self, "", &mut out);
        out
    }

    pub(crate) fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_fields_v1());
        }
        Value::Object(map)
    }

    pub(crate) fn from_fields_v1(value: &Value) -> Self {
        fn node(value: &Value) -> FieldSet {
            let mut set = FieldSet::default();
            let Some(map) = value.as_object() else { return set };
            set.member = map.is_empty() || map.contains_key(".");
            set.children = map.iter().filter(|(k, _)| *k != ".").map(|(k, v)| (k.clone(), node(v))).collect();
            set
        }
        let mut root = node(value);
        root.member = false;
        root
    }
}

fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match serde_json::from_str::<Value>(keys) {
            Ok(Value::Object(map)) => {
                let inner: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", inner.join(","))
            }
            _ => format!("[{keys}]"),
        },
        Some(("v", value)) => format!("[={value}]"),
        _ => format!("[{element}]"),
    }
}

/// The path element of a list item; `None` if it lacks its keys.
pub(crate) fn item_element(shape: Shape<'_>, kind: &ListKind, item: &Value) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let mut sorted: Vec<&String> = keys.iter().collect();
            sorted.sort();
            let mut found = Map::new();
            for key in sorted {
                if let Some(value) = item.get(key).cloned().or_else(|| shape.key_default(key)) {
                    found.insert(key.clone(), value);
                }
            }
            (!found.is_empty()).then(|| format!("k:{}", Value::Object(found)))
        }
    }
}

/// A value seen as a node with children, or as a leaf.
enum Node<'a> {
    Leaf,
    Children(Vec<(String, Shape<'a>, &'a Value)>),
}

fn node<'a>(shape: Shape<'a>, value: &'a Value) -> Node<'a> {
    match value {
        Value::Object(map) if !shape.is_atomic_map() => {
            Node::Children(map.iter().map(|(k, v)| (format!("f:{k}"), shape.field(k), v)).collect())
        }
        Value::Array(items) => {
            let kind = shape.list_kind();
            if kind == ListKind::Atomic {
                return Node::Leaf;
            }
            let mut found = Vec::with_capacity(items.len());
            for item in items {
                match item_element(shape, &kind, item) {
                    Some(element) => found.push((element, shape.item(), item)),
                    // An item without keys cannot be told apart: own the list as a whole.
                    None => return Node::Leaf,
                }
            }
            Node::Children(found)
        }
        _ => Node::Leaf,
    }
}

/// The paths that an applied configuration names.
pub(crate) fn applied_set(shape: Shape<'_>, value: &Value) -> FieldSet {
    fn walk(shape: Shape<'_>, value: &Value) -> FieldSet {
        match node(shape, value) {
            Node::Leaf => FieldSet { member: true, children: BTreeMap::new() },
            Node::Children(children) => {
                let mut set = FieldSet::default();
                for (element, child_shape, child) in children {
                    let is_item = element.strip_prefix("f:").is_none_or(|name| !shape.declares(name));
                    let mut child_set = walk(child_shape, child);
                    if is_item || child.as_object().is_some_and(Map::is_empty) {
                        child_set.member = true;
                    }
                    if !child_set.is_empty() {
                        set.children.insert(element, child_set);
                    }
                }
                set
            }
        }
    }
    let mut set = walk(shape, value);
    set.member = false;
    set
}

/// Compares two objects path by path.
pub(crate) fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    walk_compare(shape, Some(old), Some(new), &mut Vec::new(), &mut out);
    out
}

fn walk_compare<'a>(
    shape: Shape<'a>,
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    path: &mut Vec<String>,
    out: &mut Comparison,
) {
    let children = |v: Option<&'a Value>| match v {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(v) => match node(shape, v) {
            Node::Leaf => None,
            Node::Children(c) => Some(c),
        },
    };
    let pair = match (children(old), children(new)) {
        (Some(o), Some(n)) if !(o.is_empty() && n.is_empty()) => Some((o, n)),
        _ => None,
    };
    let Some((old_children, new_children)) = pair else {
        match (old, new) {
            (None, Some(_)) => out.added.insert(path),
            (Some(_), None) => out.removed.insert(path),
            (Some(o), Some(n)) if o != n => out.modified.insert(path),
            _ => {}
        }
        return;
    };
    let old_map: BTreeMap<&str, &Value> = old_children.iter().map(|(e, _, v)| (e.as_str(), *v)).collect();
    let new_map: BTreeMap<&str, &Value> = new_children.iter().map(|(e, _, v)| (e.as_str(), *v)).collect();
    let mut seen = std::collections::BTreeSet::new();
    for (element, child_shape, _) in new_children.iter().chain(&old_children) {
        if !seen.insert(element.as_str()) {
            continue;
        }
        path.push(element.clone());
        let key = element.as_str();
        walk_compare(*child_shape, old_map.get(key).copied(), new_map.get(key).copied(), path, out);
        path.pop();
    }
    if !path.is_empty() {
        if old.is_none() {
            out.added.insert(path);
        } else if new.is_none() {
            out.removed.insert(path);
        }
    }
}
