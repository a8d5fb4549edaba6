//! Lists and watches: what is asked for, from which revision, in which pages.

use super::error::ApiError;
use super::respond::Format;
use super::router::{Incoming, Query};
use super::selectors::FieldSelector;
use super::state::{State, present};
use super::store::ObjectKey;
use super::watch::{Filter, WatchRequest};
use super::write::Call;
use super::{Shared, json};
use base64::Engine as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn filter(call: &Call, query: &Query) -> Result<Filter, ApiError> {
    let mut fields = query.get("fieldSelector").cloned().unwrap_or_default();
    if !call.name.is_empty() {
        fields = format!("metadata.name={},{fields}", call.name);
    }
    Ok(Filter {
        namespace: call.namespace.clone(),
        labels: query.get("labelSelector").map_or(Ok(Default::default()), |l| l.parse())?,
        fields: FieldSelector::parse(&call.def, &fields)?,
    })
}

fn revision(query: &Query) -> Result<Option<u64>, ApiError> {
    match query.get("resourceVersion").map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        }),
    }
}

pub(crate) fn watch(
    shared: &Arc<Shared>,
    state: &mut State,
    call: &Call,
    query: &Query,
    format: Format,
) -> Result<WatchRequest, ApiError> {
    let from = revision(query)?;
    let current = state.store.revision();
    if from.is_some_and(|f| f > current) {
        return Err(ApiError::too_large_resource_version(from.unwrap_or(0), current));
    }
    let is = |name: &str| query.get(name).is_some_and(|v| v == "true" || v == "1");
    let send_initial = is("sendInitialEvents");
    if send_initial && query.get("resourceVersionMatch").map(String::as_str) != Some("NotOlderThan") {
        return Err(ApiError::unprocessable(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let seconds = query.get("timeoutSeconds").and_then(|t| t.parse().ok()).filter(|t| *t > 0);
    let timeout = match seconds {
        Some(seconds) => Duration::from_secs(seconds),
        // As on a real server: between 30 and 60 minutes.
        None => Duration::from_secs(1800 + state.seeded.below(1800)),
    };
    shared.start_housekeeping();
    Ok(WatchRequest {
        def: call.def.clone(),
        filter: filter(call, query)?,
        format,
        from,
        send_initial,
        bookmarks: is("allowWatchBookmarks"),
        timeout,
    })
}

/// The revision that a stale read shows; the fault layer asks for it.
pub(crate) fn stale_revision(state: &State, incoming: &Incoming<'_>) -> Option<u64> {
    let back: u64 = incoming.headers.get("kube-sim-stale")?.to_str().ok()?.parse().ok()?;
    Some(state.store.oldest().max(state.store.revision().saturating_sub(back)))
}

/// A list: the newest state, or the one of a revision, whole or page by page.
pub(crate) fn list(
    state: &State,
    call: &Call,
    query: &Query,
    format: Format,
    stale: Option<u64>,
) -> Result<Value, ApiError> {
    let filter = filter(call, query)?;
    let current = state.store.revision();
    let limit: usize = query.get("limit").and_then(|l| l.parse().ok()).unwrap_or(0);
    let token = query.get("continue").filter(|c| !c.is_empty()).map(|c| Token::decode(c)).transpose()?;
    let asked = revision(query)?;
    if let Some(asked) = asked.filter(|a| *a > current) {
        return Err(ApiError::too_large_resource_version(asked, current));
    }
    let exact = match (&token, query.get("resourceVersionMatch").map(String::as_str)) {
        (Some(token), _) => Some(token.revision),
        (None, Some("Exact")) => asked,
        (None, None) if limit > 0 => asked.filter(|a| *a > 0),
        _ => None,
    };
    let at = exact.or(stale).unwrap_or(current);
    let objects = state.store.snapshot(&call.def.storage, at).map_err(|_| {
        ApiError::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.")
    })?;
    let start = token.map(|t| t.after);
    let mut matching = objects
        .iter()
        .filter(|(key, _)| start.as_ref().is_none_or(|s| *key > s))
        .map(|(key, stored)| (key, present(&call.def, stored)))
        .filter(|(key, object)| filter.matches(&key.0, object));
    let mut metadata = json!({"resourceVersion": at.to_string()});
    if call.def.is_crd() {
        json::set(&mut metadata, &["continue"], "");
    }
    let mut items = Vec::new();
    let mut last = None;
    for (key, object) in matching.by_ref() {
        items.push(object);
        last = Some(key.clone());
        if limit > 0 && items.len() == limit {
            break;
        }
    }
    if limit > 0 && items.len() == limit {
        let remaining = matching.count();
        if let (Some(after), true) = (last, remaining > 0) {
            json::set(&mut metadata, &["continue"], Token { revision: at, after }.encode());
            if filter.labels.is_empty() && filter.fields.is_empty() {
                json::set(&mut metadata, &["remainingItemCount"], remaining);
            }
        }
    }
    Ok(format.list(&call.def, items, &metadata))
}

/// Where the next page starts.
struct Token {
    revision: u64,
    after: ObjectKey,
}

impl Token {
    fn encode(&self) -> String {
        let text = json!({"rv": self.revision, "ns": self.after.0, "name": self.after.1}).to_string();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("continue key is not valid");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let after = (json::str_at(&value, &["ns"]).to_owned(), json::str_at(&value, &["name"]).to_owned());
        Ok(Self { revision: json::at(&value, &["rv"]).as_u64().ok_or_else(bad)?, after })
    }
}
