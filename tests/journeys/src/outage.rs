//! How long an app was down and suspended, as its users and whoever looks after it would measure it, whatever the operator says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use windlass_api::OperationStatus;
use windlass_rig::kubelet::{Entry, Event};

use crate::fixture::App;
use crate::request::durations;
use crate::world::World;

/// Watches the delivery objects of an app for as long as it is kept.
#[derive(Default)]
pub(crate) struct Outage {
    seen: Arc<Mutex<Seen>>,
    watches: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// The objects that are suspended now.
    suspended: BTreeSet<String>,
    since: Option<Instant>,
    total: Duration,
    /// What was reported already: suspended, and down in milliseconds.
    reported: (Duration, i64),
}

impl Seen {
    fn turn(&mut self, object: &str, suspended: bool, now: Instant) {
        if suspended {
            self.suspended.insert(object.to_owned());
            self.since.get_or_insert(now);
            return;
        }
        self.suspended.remove(object);
        if self.suspended.is_empty()
            && let Some(since) = self.since.take()
        {
            self.total += now - since;
        }
    }
}

impl Outage {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches one more object, which need not be there yet.
    pub(crate) fn watch(&mut self, api: Api<DynamicObject>, kind: &str, name: &str) {
        let (key, config) =
            (format!("{kind}/{name}"), watcher::Config::default().fields(&format!("metadata.name={name}")));
        let seen = self.seen.clone();
        self.watches.push(tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                let suspended = match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        object.data.pointer("/spec/suspend") == Some(&json!(true))
                    }
                    Ok(watcher::Event::Delete(_)) => false,
                    Ok(_) | Err(_) => continue,
                };
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.turn(&key, suspended, Instant::now());
            }
        }));
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

/// For how many milliseconds no pod of the namespace served from a claim, after the first one did; and whether none does now.
fn down(entries: &[Entry], namespace: &str, now: i64) -> (i64, bool) {
    let mut serving: BTreeSet<(String, String)> = BTreeSet::new();
    let (mut total, mut since) = (0, None);
    for entry in entries {
        let (Some(pod), Some(container)) = (&entry.pod, &entry.container) else { continue };
        if pod.namespace != namespace || entry.claims.is_empty() {
            continue;
        }
        let one = (pod.uid.clone(), container.clone());
        match entry.event {
            Event::Ready => {
                serving.insert(one);
                total += since.take().map_or(0, |since| entry.at_ms - since);
            }
            Event::Unready | Event::Stopped if serving.remove(&one) && serving.is_empty() => {
                since = Some(entry.at_ms);
            }
            _ => {}
        }
    }
    (total + since.map_or(0, |since| now - since), since.is_some())
}

impl World {
    /// How long the app was suspended and down since this was asked last, with what the operator says of these operations.
    pub(crate) fn measured(&self, app: &App, operations: &[&OperationStatus]) -> anyhow::Result<String> {
        let now = self.estate.clock().now().as_millisecond();
        let (down_ms, is_down) = down(&self.estate.runs()?, &app.name, now);
        let mut seen = app.outage.seen();
        let suspended = seen.total + seen.since.map_or(Duration::ZERO, |since| since.elapsed());
        let (before, down_before) = std::mem::replace(&mut seen.reported, (suspended, down_ms));
        let still = |is: bool| if is { " and still is" } else { "" };
        let said: Vec<String> = operations.iter().map(|status| durations(status)).collect();
        Ok(format!(
            "was suspended {:.2} s{}, down {:.2} s{} (it says: {})",
            (suspended - before).as_secs_f64(),
            still(seen.since.is_some()),
            Duration::from_millis(u64::try_from(down_ms - down_before)?).as_secs_f64(),
            still(is_down),
            if said.is_empty() { "nothing any more".to_owned() } else { said.join("; ") },
        ))
    }
}

#[cfg(test)]
mod tests {
    use windlass_rig::kubelet::PodRef;

    use super::*;

    fn entry(at_ms: i64, event: Event, uid: &str) -> Entry {
        let pod = PodRef { namespace: "a".into(), name: "b".into(), uid: uid.into() };
        let claims = serde_json::from_value(json!([{"claim": "data", "handle": "h"}])).unwrap();
        Entry { at_ms, pod: Some(pod), container: Some("c".into()), claims, ..Entry::bare(event) }
    }

    #[test]
    fn an_app_is_down_from_the_end_of_its_last_pod_until_one_is_ready_again() {
        let mut log = vec![
            entry(10, Event::Ready, "1"),
            entry(20, Event::Ready, "2"),
            entry(30, Event::Stopped, "1"),
            entry(40, Event::Unready, "2"),
            entry(41, Event::Stopped, "2"),
            entry(45, Event::Starting, "3"),
        ];
        assert_eq!(down(&log, "a", 100), (60, true));
        log.push(entry(70, Event::Ready, "3"));
        assert_eq!(down(&log, "a", 100), (30, false));
        assert_eq!(down(&log, "other", 100), (0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_suspended_while_any_of_its_objects_is() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        seen.turn("one", true, at(1));
        seen.turn("other", true, at(2));
        seen.turn("one", false, at(5));
        seen.turn("other", false, at(9));
        seen.turn("other", false, at(10));
        assert_eq!((seen.total, seen.since), (Duration::from_secs(8), None));
    }
}
