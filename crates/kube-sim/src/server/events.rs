//! Events are one kind with two faces: `core/v1` and `events.k8s.io/v1`. They are kept in the latter form.

use super::json;
use serde_json::Value;

/// (core, events.k8s.io)
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(crate) fn to_core(object: &mut Value) {
    rename(object, |(core, events)| (*events, *core));
}

pub(crate) fn to_events_group(object: &mut Value) {
    rename(object, |(core, events)| (*core, *events));
}

fn rename(object: &mut Value, direction: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str)) {
    for pair in RENAMED {
        let (from, to) = direction(pair);
        if let Some(value) = json::remove(object, &[from]) {
            json::set(object, &[to], value);
        }
    }
}
