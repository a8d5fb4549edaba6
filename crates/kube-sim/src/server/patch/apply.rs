//! The merge of server-side apply, and the removal of fields that a manager no longer names.

use crate::server::fields::{FieldSet, item_element};
use crate::server::shape::{ListKind, Shape};
use serde_json::{Map, Value};

/// The live object with everything the configuration names set as it says.
pub(crate) fn merge(shape: Shape<'_>, live: &Value, applied: &Value) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !shape.is_atomic_map() => {
            let mut out = live.clone();
            for (key, value) in applied {
                let child = shape.field(key);
                let merged = match live.get(key) {
                    Some(existing) => merge(child, existing, value),
                    None => value.clone(),
                };
                out.insert(key.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(live), Value::Array(applied)) => match shape.list_kind() {
            ListKind::Atomic => Value::Array(applied.clone()),
            kind => Value::Array(merge_list(shape, &kind, live, applied)),
        },
        _ => applied.clone(),
    }
}

fn merge_list(shape: Shape<'_>, kind: &ListKind, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let live_keys: Vec<Option<String>> = live.iter().map(|i| item_element(shape, kind, i)).collect();
    let applied_keys: Vec<Option<String>> = applied.iter().map(|i| item_element(shape, kind, i)).collect();
    let mut out = Vec::with_capacity(live.len() + applied.len());
    let mut next_live = live.iter().zip(&live_keys).peekable();
    for (item, key) in applied.iter().zip(&applied_keys) {
        // Live items that the configuration does not name keep their place before the next named one.
        while let Some((untouched, _)) = next_live.next_if(|(_, k)| !applied_keys.contains(k)) {
            out.push(untouched.clone());
        }
        if next_live.peek().is_some_and(|(_, k)| *k == key) {
            next_live.next();
        }
        match live.iter().zip(&live_keys).find(|(_, k)| *k == key) {
            Some((existing, _)) => out.push(merge(shape.item(), existing, item)),
            None => out.push(item.clone()),
        }
    }
    out.extend(next_live.filter(|(_, k)| !applied_keys.contains(k)).map(|(item, _)| item.clone()));
    out
}

/// Removes what is in `gone`, except what somebody still owns (`kept`).
pub(crate) fn prune(shape: Shape<'_>, value: &mut Value, gone: &FieldSet, kept: &FieldSet) {
    match value {
        Value::Object(map) => prune_map(shape, map, gone, kept),
        Value::Array(items) => {
            let kind = shape.list_kind();
            if kind == ListKind::Atomic {
                return;
            }
            items.retain_mut(|item| {
                let Some(element) = item_element(shape, &kind, item) else { return true };
                let Some(child_gone) = gone.child(&element) else { return true };
                // An item whose others own only parts of it goes as a whole: they own no item.
                let owned = kept.child(&element).filter(|k| k.is_member() || !child_gone.is_member());
                prune_child(shape.item(), item, child_gone, owned)
            });
        }
        _ => {}
    }
}

fn prune_map(shape: Shape<'_>, map: &mut Map<String, Value>, gone: &FieldSet, kept: &FieldSet) {
    for (element, child_gone) in gone.children() {
        let Some(key) = element.strip_prefix("f:") else { continue };
        let Some(value) = map.get_mut(key) else { continue };
        if !prune_child(shape.field(key), value, child_gone, kept.child(element)) {
            map.shift_remove(key);
        }
    }
}

/// False if the child is to be removed as a whole.
fn prune_child(shape: Shape<'_>, value: &mut Value, gone: &FieldSet, kept: Option<&FieldSet>) -> bool {
    let nobody = FieldSet::default();
    if gone.is_member() && kept.is_none_or(FieldSet::is_empty) {
        return false;
    }
    prune(shape, value, gone, kept.unwrap_or(&nobody));
    kept.is_some_and(|k| !k.is_empty()) || !crate::server::json::is_empty(value)
}
