//! The run log: what ran on a node and when, so that a test can prove what did not.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The kubelet came up; no process of an earlier one is left.
    KubeletStarted,
    /// The volume is about to be used by the pod.
    VolumeInUse,
    /// A process is about to be started (written before it is).
    Starting,
    /// The container turned ready.
    Ready,
    /// The container turned unready.
    Unready,
    /// The process has ended (written after it has).
    Stopped,
    /// The pod's processes are gone and its volume is free.
    VolumeReleased,
    /// The pod is about to be removed from the API.
    Removed,
}

/// The pod an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: the name may be used again.
    pub uid: String,
}

impl PodRef {
    /// The reference to `pod`.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        }
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// What happened.
    pub event: Event,
    /// To which pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Container, for everything about a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Image of that container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Claims of the pod with the handles of their volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimRef>,
    /// Exit code, with [`Event::Stopped`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// A claim and the volume it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRef {
    /// Name of the claim, in the pod's namespace.
    pub claim: String,
    /// Handle under which the driver knows the volume.
    pub handle: String,
}

impl Entry {
    /// An entry about nothing in particular, without a time.
    #[must_use]
    pub fn bare(event: Event) -> Self {
        Self { at_ms: 0, event, pod: None, container: None, image: None, claims: Vec::new(), exit_code: None }
    }
}

/// The log of a kubelet in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RunLog(Arc<Mutex<Vec<Entry>>>);

impl RunLog {
    /// Appends an entry, whose time is the caller's.
    pub fn record(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// All entries so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the entries so far say.
    #[must_use]
    pub fn history(&self) -> RunHistory {
        RunHistory::from_entries(self.entries())
    }
}

/// One process of one container, from just before its start to just after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Pod it belonged to.
    pub pod: PodRef,
    /// Container name.
    pub container: String,
    /// Image as the pod names it.
    pub image: String,
    /// Volumes the pod used.
    pub claims: Vec<ClaimRef>,
    /// Unix milliseconds, before the start.
    pub from_ms: i64,
    /// Unix milliseconds of the first time it was ready.
    pub ready_ms: Option<i64>,
    /// Unix milliseconds, after the end; `None` while it runs.
    pub until_ms: Option<i64>,
    /// Exit code; `None` while it runs or when it died with the kubelet.
    pub exit_code: Option<i32>,
}

/// What the log says, read back.
#[derive(Debug, Clone, Default)]
pub struct RunHistory {
    /// All runs, in the order of their starts.
    pub runs: Vec<Run>,
    /// The entries they come from.
    pub entries: Vec<Entry>,
}

impl RunHistory {
    /// What the entries, oldest first, say.
    #[must_use]
    pub fn from_entries(entries: Vec<Entry>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for entry in &entries {
            if entry.event == Event::KubeletStarted {
                for run in runs.iter_mut().filter(|run| run.until_ms.is_none()) {
                    run.until_ms = Some(entry.at_ms);
                }
                continue;
            }
            let (Some(pod), Some(container), Some(image)) = (&entry.pod, &entry.container, &entry.image) else {
                continue;
            };
            if entry.event == Event::Starting {
                runs.push(Run {
                    pod: pod.clone(),
                    container: container.clone(),
                    image: image.clone(),
                    claims: entry.claims.clone(),
                    from_ms: entry.at_ms,
                    ready_ms: None,
                    until_ms: None,
                    exit_code: None,
                });
                continue;
            }
            let open = runs
                .iter_mut()
                .rev()
                .find(|run| run.until_ms.is_none() && run.pod.uid == pod.uid && run.container == *container);
            let Some(run) = open else { continue };
            match entry.event {
                Event::Ready => run.ready_ms = run.ready_ms.or(Some(entry.at_ms)),
                Event::Stopped => (run.until_ms, run.exit_code) = (Some(entry.at_ms), entry.exit_code),
                _ => {}
            }
        }
        Self { runs, entries }
    }

    /// The runs of which any moment lies within `[from_ms, until_ms]`.
    pub fn between(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.from_ms <= until_ms && run.until_ms.is_none_or(|end| end >= from_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: i64, event: Event, uid: &str) -> Entry {
        let pod = PodRef { namespace: "a".into(), name: "b".into(), uid: uid.into() };
        let (container, image) = (Some("c".into()), Some("registry.test/notes:1.0.0".into()));
        Entry { at_ms, pod: Some(pod), container, image, exit_code: Some(0), ..Entry::bare(event) }
    }

    #[test]
    fn a_run_lasts_from_before_its_start_to_after_its_end() {
        let history = RunHistory::from_entries(vec![
            entry(10, Event::Starting, "1"),
            entry(12, Event::Ready, "1"),
            entry(15, Event::Starting, "2"),
            entry(20, Event::Stopped, "1"),
        ]);
        let uids = |from, until| history.between(from, until).map(|run| run.pod.uid.as_str()).collect::<Vec<_>>();
        assert_eq!(uids(0, 9), Vec::<&str>::new());
        assert_eq!(uids(20, 20), ["1", "2"]);
        assert_eq!(uids(21, 99), ["2"]);
        assert_eq!(history.runs[0].ready_ms, Some(12));
    }

    #[test]
    fn runs_end_with_their_kubelet() {
        let mut started = Entry::bare(Event::KubeletStarted);
        started.at_ms = 30;
        let history = RunHistory::from_entries(vec![entry(10, Event::Starting, "1"), started]);
        assert_eq!(history.runs[0].until_ms, Some(30));
        assert_eq!(history.runs[0].exit_code, None);
    }
}
