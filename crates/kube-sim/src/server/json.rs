//! Reading and writing `serde_json::Value` by path, without panics.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The value at `path`, or `Null`.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().try_fold(value, |v, key| v.get(*key)).unwrap_or(&NULL)
}

/// The string at `path`, or `""`.
pub(crate) fn str_at<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The integer at `path`, if it is one.
pub(crate) fn int_at(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// The list at `path`, or an empty one.
pub(crate) fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// `value` as a map, replacing it by an empty one if it is something else.
pub(crate) fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets the value at `path`, making the maps on the way.
pub(crate) fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    match path.split_first() {
        None => *value = new.into(),
        Some((key, rest)) => set(object_mut(value).entry((*key).to_owned()).or_insert(Value::Null), rest, new),
    }
}

/// Sets the value at `path` unless there is one already.
pub(crate) fn set_default(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    if at(value, path).is_null() {
        set(value, path, new);
    }
}

/// Removes and returns the value at `path`; the order of its neighbours is kept.
pub(crate) fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(value, |v, key| v.get_mut(*key))?;
    parent.as_object_mut()?.shift_remove(*last)
}

/// Copies the value at `path` from `from`, removing it in `to` if `from` has none.
pub(crate) fn copy_at(from: &Value, to: &mut Value, path: &[&str]) {
    match at(from, path) {
        Value::Null => {
            remove(to, path);
        }
        found => set(to, path, found.clone()),
    }
}

/// Removes members whose value is null, at every depth.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// True for null, `{}` and `[]`.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
