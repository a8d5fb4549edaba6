//! Watches: a stream of events from a revision on, with bookmarks, selectors and 410 after compaction.

use super::Shared;
use super::error::ApiError;
use super::respond::Format;
use super::selectors::{FieldSelector, LabelSelector};
use super::state::present;
use super::store::{Change, Event};
use super::table::ResourceDef;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Which objects a list or watch shows.
#[derive(Clone)]
pub(crate) struct Filter {
    pub(crate) namespace: String,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Filter {
    pub(crate) fn matches(&self, namespace: &str, object: &Value) -> bool {
        (self.namespace.is_empty() || self.namespace == namespace)
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

/// How a watch was asked for.
pub(crate) struct WatchRequest {
    pub(crate) def: Arc<ResourceDef>,
    pub(crate) filter: Filter,
    pub(crate) format: Format,
    pub(crate) from: Option<u64>,
    pub(crate) send_initial: bool,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

/// A running watch.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    request: WatchRequest,
    id: u64,
    notify: Arc<Notify>,
    cursor: u64,
    queue: VecDeque<Bytes>,
    ends_at: Instant,
    bookmark_at: Instant,
    ended: bool,
    first: bool,
}

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

impl Watch {
    /// Registers the watch; initial events are those of this moment.
    pub(crate) fn start(shared: Arc<Shared>, request: WatchRequest) -> Self {
        let mut state = shared.lock();
        let (id, notify) = state.add_watcher();
        let now = Instant::now();
        let mut queue = VecDeque::new();
        let revision = state.store.revision();
        let synthetic = request.from.is_none_or(|r| r == 0) || request.send_initial;
        if synthetic {
            for ((namespace, _), stored) in state.store.all(&request.def.storage) {
                let object = present(&request.def, stored);
                if request.filter.matches(namespace, &object) {
                    queue.push_back(line("ADDED", &request.format.watched(&request.def, object, queue.is_empty())));
                }
            }
            if request.send_initial && request.bookmarks {
                queue.push_back(bookmark(&request, revision, true));
            }
        }
        let cursor = if synthetic { revision } else { request.from.unwrap_or(revision) };
        drop(state);
        let first = queue.is_empty();
        let (ends_at, bookmark_at) = (now + request.timeout, now + BOOKMARK_EVERY);
        Self { shared, request, id, notify, cursor, queue, ends_at, bookmark_at, ended: false, first }
    }

    /// The next line of the stream; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.collect();
            if !self.queue.is_empty() {
                continue;
            }
            let wake_at = if self.request.bookmarks { self.ends_at.min(self.bookmark_at) } else { self.ends_at };
            tokio::select! {
                biased;
                () = self.notify.notified() => {}
                () = sleep_until(wake_at) => {
                    if Instant::now() >= self.ends_at {
                        self.ended = true;
                    }
                    if self.request.bookmarks {
                        self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                        self.collect();
                        self.queue.push_back(bookmark(&self.request, self.cursor, false));
                    }
                }
            }
        }
    }

    fn collect(&mut self) {
        let state = self.shared.lock();
        match state.store.events_after(&self.request.def.storage, self.cursor) {
            Ok(events) => {
                for event in events {
                    if let Some((kind, object)) = seen(&self.request, &event) {
                        let object = self.request.format.watched(&self.request.def, object, self.first);
                        self.first = false;
                        self.queue.push_back(line(kind, &object));
                    }
                }
                self.cursor = state.store.revision();
            }
            Err(_) => {
                let error = ApiError::expired(format!(
                    "too old resource version: {} ({})",
                    self.cursor,
                    state.store.revision()
                ));
                self.queue.push_back(line("ERROR", &error.to_status()));
                self.ended = true;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().watchers.remove(&self.id);
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    Bytes::from(text)
}

fn bookmark(request: &WatchRequest, revision: u64, initial_end: bool) -> Bytes {
    let mut object = json!({"kind": request.def.kind, "apiVersion": request.def.api_version(),
        "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
    if initial_end {
        super::json::set(&mut object, &["metadata", "annotations", "k8s.io/initial-events-end"], "true");
    }
    line("BOOKMARK", &request.format.bookmark(object))
}

/// What a selector makes of an event: objects enter and leave the selection by changing.
fn seen(request: &WatchRequest, event: &Event) -> Option<(&'static str, Value)> {
    let show = |stored: &Value| {
        let object = present(&request.def, stored);
        request.filter.matches(&event.key.0, &object).then_some(object)
    };
    let now = show(&event.object);
    let before = event.previous.as_ref().and_then(|p| show(p));
    match (event.change, before, now) {
        (Change::Deleted, Some(_), Some(last)) => Some(("DELETED", last)),
        (Change::Deleted, ..) => None,
        (_, None, Some(object)) => Some(("ADDED", object)),
        (_, Some(_), Some(object)) => Some(("MODIFIED", object)),
        (_, Some(mut left), None) => {
            super::json::set(&mut left, &["metadata", "resourceVersion"], event.revision.to_string());
            Some(("DELETED", left))
        }
        (_, None, None) => None,
    }
}
