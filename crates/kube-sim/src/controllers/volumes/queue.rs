//! What is to be done, in an order that does not depend on hash maps; each thing once at a time, failures ever later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::objects::{Kind, Name};

/// What a job is for. Each is a part of one of the real controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Binder: a claim.
    BindClaim,
    /// Binder: a volume.
    BindVolume,
    /// Protection of a claim that pods use.
    ProtectClaim,
    /// Protection of a volume that is bound.
    ProtectVolume,
    /// Provisioner: a claim's volume.
    Provision,
    /// Provisioner: a volume that is not wanted any more.
    Reclaim,
    /// Snapshot controller: a snapshot.
    Snapshot,
    /// Snapshot controller: the finalizer of a claim that snapshots are cut from.
    SourceClaim,
    /// Snapshot controller: a content.
    Content,
    /// Snapshotter: a content.
    Cut,
}

impl Role {
    /// Kinds that must be known before it may begin: an object that was not listed yet looks like one that is gone.
    pub(super) fn needs(self) -> &'static [Kind] {
        match self {
            Self::Snapshot | Self::SourceClaim | Self::Content | Self::Cut => &Kind::ALL,
            _ => Kind::CORE,
        }
    }
}

/// One thing to do about one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) role: Role,
    pub(super) name: Name,
}

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// All jobs that wait or run.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeSet<Job>,
    later: BTreeMap<Job, Instant>,
    running: BTreeSet<Job>,
    tries: BTreeMap<Job, u32>,
}

impl Queue {
    /// To be done now, or again when it is running.
    pub(super) fn add(&mut self, job: Job) {
        self.ready.insert(job);
    }

    /// The next job to begin, among those whose role may.
    pub(super) fn next(&mut self, now: Instant, may: impl Fn(Role) -> bool) -> Option<Job> {
        let due: Vec<Job> = self.later.iter().filter(|(_, at)| **at <= now).map(|(job, _)| job.clone()).collect();
        for job in due {
            self.later.remove(&job);
            self.ready.insert(job);
        }
        let job = self.ready.iter().find(|job| !self.running.contains(job) && may(job.role))?.clone();
        self.ready.remove(&job);
        self.later.remove(&job);
        self.running.insert(job.clone());
        Some(job)
    }

    /// Ends a job; one that is not finished comes again.
    pub(super) fn done(&mut self, job: Job, finished: bool, now: Instant) {
        self.running.remove(&job);
        if finished {
            self.tries.remove(&job);
            return;
        }
        let tries = self.tries.entry(job.clone()).or_default();
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(*tries)).min(LAST_RETRY);
        *tries = tries.saturating_add(1);
        self.later.insert(job, now + wait);
    }

    /// When the next job is due that waits for its time.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.later.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_job_comes_later_each_time_and_never_twice_at_once() {
        let job = || Job { role: Role::Cut, name: (String::new(), "a".into()) };
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(job());
        for wait in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            assert_eq!(queue.next(now + Duration::from_secs(60), |_| true), Some(job()));
            queue.add(job());
            assert_eq!(queue.next(now + Duration::from_secs(60), |_| true), None, "it runs");
            queue.ready.clear();
            queue.done(job(), false, now);
            assert_eq!(queue.wake_at(), Some(now + Duration::from_millis(wait)));
        }
        assert_eq!(queue.next(now, |_| true), None);
        queue.add(job());
        assert_eq!(queue.next(now, |_| false), None, "its kinds are not known yet");
        assert_eq!(queue.next(now, |_| true), Some(job()));
        queue.done(job(), true, now);
        assert_eq!((queue.wake_at(), queue.tries.len()), (None, 0));
    }
}
