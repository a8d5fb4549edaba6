//! The rules that must hold at every instant, and what must be true right before what cannot be taken back.

use jiff::SignedDuration;

use super::State;
use crate::app::stage;
use crate::ports::{DeliveryRole, ReclaimPolicy};

/// What the operation that runs is about.
#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Running {
    pub(super) operation: String,
    /// Whether it is a rollback, and whether that restores data.
    pub(super) rollback: Option<bool>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) stopped: bool,
    pub(super) soak: SignedDuration,
    /// The volume of the claim when it began.
    pub(super) volume: String,
    /// Whether the app's own object was let go with the wanted version at the head.
    pub(super) released: bool,
}

impl Running {
    /// Its point of no return is the swap of the data; a rollback that keeps the data can be undone until its release.
    pub(super) fn restores(&self) -> bool {
        self.rollback == Some(true)
    }
}

impl State {
    /// What must hold always: whatever somebody relies on exists somewhere, and one operation makes no commit twice.
    pub(super) fn check(&mut self) {
        let storage = &self.storage;
        let mut lost = Vec::new();
        for version in ["1.0.0", "1.1.0"] {
            let Some(newest) = storage.acknowledged.iter().rev().find(|write| write.version == version) else {
                continue;
            };
            let disks = storage.volumes.values().flat_map(|volume| [&volume.dirty, &volume.data]);
            let mut copies = disks.chain(storage.contents.values().map(|content| &content.data));
            if !copies.any(|copy| copy.iter().rev().any(|write| write == newest)) {
                lost.push(format!("what {version} wrote at {} exists nowhere any more", newest.at));
            }
        }
        for (at, commit) in self.git.commits.iter().enumerate() {
            let again = |other: &super::git::Commit| other.key.is_some() && other.key == commit.key;
            if self.git.commits.iter().skip(at + 1).any(again) {
                lost.push(format!("{:?} was committed twice", commit.key));
            }
        }
        for what in lost {
            self.breach(what);
        }
        self.check_stages();
    }

    /// Whoever finds a hold without its request lets it go if its stage says so: then no commit of ours may show that the data
    /// does not belong to.
    fn check_stages(&mut self) {
        let held = self.objects.iter().any(|one| one.held_by.is_some() && stage::may_be_let_go(&one.suspension()));
        let Some(newest) = self.storage.volume_of("data").filter(|_| held).and_then(|volume| {
            let written = [volume.data.last(), volume.dirty.last()];
            written.into_iter().flatten().max_by_key(|write| write.at).map(|write| write.version.clone())
        }) else {
            return;
        };
        let fetched = self.git.commits.iter().find(|commit| commit.sha == self.source.artifact);
        let ours = [Some(self.git.head()), fetched].into_iter().flatten().filter(|commit| commit.key.is_some());
        let foreign: Vec<String> = ours.map(|commit| commit.version.clone()).filter(|one| *one != newest).collect();
        if let Some(foreign) = foreign.first() {
            self.breach(format!("a hold says that it may be let go, and {foreign} would start on data of {newest}"));
        }
    }

    fn is_held(&self, operation: &str) -> bool {
        let held = |at: usize| self.objects[at].is_held_by(operation);
        held(1) && (!self.setup.declares_suspend || held(0))
    }

    /// Before a workload is scaled to 0.
    pub(super) fn may_stop(&mut self) {
        let Some(running) = self.running.clone() else { return };
        if !self.is_held(&running.operation) {
            self.breach("the app is stopped and nothing holds its delivery");
        }
        if self.objects[1].is_working() {
            self.breach("the app is stopped while a reconciliation from before the suspension is under way");
        }
    }

    /// Before a version is committed.
    pub(super) fn may_commit(&mut self, running: &Running) {
        if !self.is_held(&running.operation) {
            self.breach("a version is committed and nothing holds the app");
        }
        if running.stopped && (!self.pods.is_empty() || self.deployment.replicas > 0) {
            self.breach("a version is committed while the app runs");
        }
        match running.rollback {
            None => {
                let points: Vec<_> =
                    self.points.values().filter(|point| point.operation == running.operation).cloned().collect();
                if points.iter().all(|point| !point.void.is_empty() || point.volumes.is_empty()) {
                    self.breach("a version is committed without a restore point");
                }
                for volume in points.iter().flat_map(|point| &point.volumes) {
                    let content = self.storage.contents.get(&volume.snapshot);
                    let kept = content.is_some_and(|content| content.policy == ReclaimPolicy::Retain);
                    let snapshot = self.storage.snapshots.get(&volume.snapshot);
                    if !kept || !snapshot.is_some_and(|one| one.ready && one.mismatch.is_none()) {
                        self.breach("a version is committed without a snapshot that is ready, verified and kept");
                    }
                }
            }
            Some(true) if self.volume_name() == running.volume => {
                self.breach("the older version is committed before its data is back");
            }
            Some(_) => {}
        }
    }

    pub(super) fn volume_name(&self) -> String {
        self.storage.claims.get("data").and_then(|claim| claim.volume.clone()).unwrap_or_default()
    }

    /// Before a pod touches the data.
    pub(super) fn may_start(&mut self, version: &str) {
        let written = self.storage.volume_of("data").map(|volume| volume.data.iter().chain(&volume.dirty));
        let newer = written.and_then(|mut all| all.find(|write| write.version.as_str() > version)).cloned();
        if let Some(newer) = newer {
            self.breach(format!("{version} starts on data of {}", newer.version));
        }
        let Some(running) = self.running.clone() else { return };
        let resting = self.points.values().any(|point| {
            // One whose copies are gone is refused by name; that it is void may be noted later.
            let restorable = point.volumes.iter().any(|one| self.storage.snapshots.contains_key(&one.snapshot));
            let ours = point.operation == running.operation && point.stopped && !running.released;
            ours && point.void.is_empty() && restorable
        });
        match running.rollback {
            None if version == running.to && !running.released => {
                self.breach(format!("{version} starts before it was released"));
            }
            None if version == running.from && resting => {
                self.breach(format!("{version} starts again, and the restore point is not void"));
            }
            Some(true) if version == running.from && self.volume_name() != running.volume => {
                self.breach(format!("{version} starts on the data that was restored"));
            }
            _ => {}
        }
    }

    /// When pods of a version are asked for, which takes a moment to show.
    pub(super) fn may_run(&mut self, version: &str) {
        let Some(running) = self.running.clone() else { return };
        match running.rollback {
            None if version == running.to && !running.released => {
                self.breach(format!("{version} is asked to run before it was released"));
            }
            Some(true) if version == running.from && self.volume_name() != running.volume => {
                self.breach(format!("{version} is asked to run on the data that was restored"));
            }
            _ => {}
        }
    }

    /// Before a claim of the app is deleted: its own volume on Retain was checked by whoever deletes.
    pub(super) fn may_drop_claim(&mut self, claim: &str) {
        let Some(running) = self.running.clone() else { return };
        if !self.is_held(&running.operation) || !self.pods.is_empty() || self.unmounts_at.is_some() {
            self.breach("a claim is deleted while something may use it");
        }
        let copy = self
            .storage
            .volumes
            .values()
            .any(|volume| volume.policy == ReclaimPolicy::Retain && volume.claim == Some((claim.to_owned(), None)));
        if !copy {
            self.breach("a claim is deleted and no restored copy is kept and reserved for it");
        }
    }

    /// When the app's own object is let go.
    pub(super) fn note_release(&mut self, operation: &str) {
        let head = self.git.head().version.clone();
        let own = &self.objects[1];
        let (names_one, spec) = (own.role == DeliveryRole::Release || self.setup.substitutes, own.spec.clone());
        if names_one
            && self.running.as_ref().is_some_and(|one| one.operation == operation && head == one.to && spec != head)
        {
            self.breach("the app is let go before its spec names the version");
        }
        if let Some(running) = &mut self.running
            && running.operation == operation
        {
            running.released |= head == running.to;
        }
    }

    /// When a parent works, below which Git declares that the app's own object is not suspended.
    pub(super) fn note_release_by_parent(&mut self) {
        let spec = self.objects[1].spec.clone();
        if let Some(running) = &mut self.running {
            running.released |= spec == running.to;
        }
    }

    /// Before an operation says that it has succeeded.
    pub(super) fn may_record(&mut self) {
        let Some(running) = self.running.clone() else { return };
        let carried = self.git.version(&self.source.artifact);
        if self.git.head().version != running.to || carried != running.to || self.deployment.version != running.to {
            self.breach("success is recorded, and the version is not everywhere");
        }
        let own = &self.objects[1];
        if own.suspend == Some(true) || !own.has_answered() || own.applied != own.attempted {
            self.breach("success is recorded before the delivery has finished");
        }
        let soaked = self.healthy_since.is_some_and(|since| self.now.duration_since(since) >= running.soak);
        if !soaked {
            self.breach("success is recorded before the app was healthy for the soak time");
        }
    }
}
