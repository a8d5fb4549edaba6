//! Flux as an observer can tell: a source that fetches, objects that apply what was fetched, suspensions and tokens.

use jiff::{SignedDuration, Timestamp};

use super::super::builders::{git_repository, kustomization, release};
use super::{Setup, State};
use crate::Failure;
use crate::ports::{DeliveryRole, Hold, ObjectRef, Suspension};

const INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// For so long, who reads the source may still have what it had before.
const LAG: SignedDuration = SignedDuration::from_secs(3);

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Source {
    /// The commit it has fetched.
    pub(in crate::app::tests) artifact: String,
    /// What it had before, and until when that may be read.
    before: Option<(String, Timestamp)>,
    requested: String,
    handled: String,
    /// The token, what it will have fetched, and when.
    fetching: Option<(String, Option<String>, Timestamp)>,
    fetched_at: Option<Timestamp>,
}

impl Source {
    pub(super) fn new() -> Self {
        Self {
            artifact: "c0".into(),
            before: None,
            requested: String::new(),
            handled: String::new(),
            fetching: None,
            fetched_at: None,
        }
    }

    pub(super) fn object() -> ObjectRef {
        git_repository("apps")
    }

    pub(super) fn suspension(&self) -> Suspension {
        Suspension {
            uid: "uid-of-source".into(),
            suspend: None,
            held_by: None,
            stage: None,
            as_found: None,
            requested: Some(self.requested.clone()),
            handled: Some(self.handled.clone()),
        }
    }
}

/// What is above the root and reads another repository: its source and its Kustomization, and the commit that both show.
pub(super) fn bootstrap() -> (ObjectRef, ObjectRef, String) {
    (git_repository("flux-system"), kustomization("flux-system"), "b0".into())
}

/// A reconciliation under way.
#[derive(Debug, Clone)]
struct Run {
    /// The commit of a manifests object, the version of a release.
    what: String,
    /// The version that its spec named when it began.
    spec: String,
    token: String,
    /// Whether it is the first one since it was let go.
    again: bool,
    until: Timestamp,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Object {
    pub(in crate::app::tests) object: ObjectRef,
    pub(in crate::app::tests) uid: String,
    pub(in crate::app::tests) role: DeliveryRole,
    pub(in crate::app::tests) suspend: Option<bool>,
    pub(in crate::app::tests) held_by: Option<String>,
    pub(in crate::app::tests) stage: Option<String>,
    pub(in crate::app::tests) hold_as_found: Option<Option<bool>>,
    pub(in crate::app::tests) requested: String,
    handled: String,
    /// What it tried last: a commit, or the version of a release.
    pub(in crate::app::tests) attempted: String,
    pub(in crate::app::tests) applied: String,
    /// The version that its spec names, if it names one.
    pub(in crate::app::tests) spec: String,
    /// The same when it began to work last.
    seen: String,
    /// Its own cache of the source, which lags behind by one reconciliation after a suspension.
    cached: String,
    is_stale: bool,
    run: Option<Run>,
    ran_at: Timestamp,
}

impl Object {
    /// The root and the app's own object.
    pub(super) fn chain(setup: Setup, now: Timestamp) -> Vec<Self> {
        let object = |object: ObjectRef, role, suspend| Self {
            uid: format!("uid-{}", object.name),
            object,
            role,
            suspend,
            held_by: None,
            stage: None,
            hold_as_found: None,
            requested: String::new(),
            handled: String::new(),
            attempted: if role == DeliveryRole::Manifests { "c0".into() } else { "1.0.0".into() },
            applied: if role == DeliveryRole::Manifests { "c0".into() } else { "1.0.0".into() },
            spec: "1.0.0".into(),
            seen: "1.0.0".into(),
            cached: "c0".into(),
            is_stale: false,
            run: None,
            ran_at: now,
        };
        let own = if setup.release {
            object(release(), DeliveryRole::Release, setup.as_found)
        } else {
            object(kustomization("notes"), DeliveryRole::Manifests, setup.as_found)
        };
        vec![object(kustomization("root"), DeliveryRole::Manifests, None), own]
    }

    /// Begins a reconciliation that lasts long.
    pub(super) fn begin(&mut self, until: Timestamp) {
        let (what, spec) = (self.attempted.clone(), self.spec.clone());
        self.run = Some(Run { what, spec, token: self.requested.clone(), again: false, until });
    }

    pub(super) fn is_working(&self) -> bool {
        self.run.is_some()
    }

    pub(super) fn has_answered(&self) -> bool {
        self.handled == self.requested
    }

    pub(super) fn has_handled(&self, asked: &str) -> bool {
        self.handled.starts_with(asked)
    }

    pub(super) fn is_held_by(&self, operation: &str) -> bool {
        self.suspend == Some(true) && self.held_by.as_deref() == Some(operation)
    }

    pub(super) fn suspension(&self) -> Suspension {
        Suspension {
            uid: self.uid.clone(),
            suspend: self.suspend,
            held_by: self.held_by.clone(),
            stage: self.stage.clone(),
            as_found: self.hold_as_found,
            requested: Some(self.requested.clone()),
            handled: Some(self.handled.clone()),
        }
    }

    pub(super) fn suspend(&mut self, uid: &str, hold: &Hold) -> Result<(), Failure> {
        if self.uid != uid {
            return Err(Failure::permanent("object-replaced", "another object"));
        }
        self.hold_as_found = match self.held_by.as_ref() {
            None if self.suspend == Some(true) => {
                return Err(Failure::permanent("suspended-by-others", "it was suspended by somebody else"));
            }
            None => Some(hold.as_found),
            Some(holder) if *holder == hold.operation || hold.take_over.contains(holder) => self.hold_as_found,
            Some(holder) => return Err(Failure::permanent("held-by-other-operation", format!("held by {holder}"))),
        };
        self.held_by = Some(hold.operation.clone());
        self.stage = Some(hold.stage.clone());
        self.requested = hold.token.clone();
        self.suspend = Some(true);
        Ok(())
    }

    pub(super) fn set_stage(&mut self, operation: &str, stage: &str) -> Result<(), Failure> {
        if self.held_by.as_deref() != Some(operation) {
            return Err(Failure::permanent("hold-lost", "the hold is not ours"));
        }
        self.stage = Some(stage.into());
        Ok(())
    }

    pub(super) fn resume(&mut self, operation: &str, as_found: Option<bool>, token: &str) -> Result<(), Failure> {
        match self.held_by.as_deref() {
            Some(holder) if holder == operation => {}
            Some(holder) => return Err(Failure::permanent("held-by-other-operation", format!("held by {holder}"))),
            None if self.suspend == Some(true) => {
                return Err(Failure::permanent("suspended-by-others", "it was suspended by somebody else"));
            }
            None => return Ok(()),
        }
        (self.held_by, self.stage, self.hold_as_found) = (None, None, None);
        self.suspend = as_found;
        self.requested = token.into();
        self.is_stale = true;
        Ok(())
    }
}

impl State {
    pub(super) fn object(&mut self, object: &ObjectRef) -> Result<&mut Object, Failure> {
        let found = self.objects.iter_mut().find(|one| one.object == *object);
        found.ok_or_else(|| Failure::permanent("object-gone", format!("{object} is gone")))
    }

    /// The root still waits for the health of what it has applied last, and applies nothing new before that ends.
    pub(in crate::app::tests) fn root_is_busy(&mut self, duration: SignedDuration) {
        let until = self.now + duration;
        self.objects[0].begin(until);
    }

    /// The root has begun to apply what was fetched, unless it is held, and is at it for long.
    pub(in crate::app::tests) fn root_applies_what_is_fetched(&mut self, duration: SignedDuration) {
        let (until, artifact) = (self.now + duration, self.source.artifact.clone());
        let root = &mut self.objects[0];
        if root.suspend != Some(true) {
            root.attempted = artifact;
            root.begin(until);
        }
    }

    /// The app's own object knows by now what the source has, and works that long at a time from now on.
    pub(in crate::app::tests) fn own_is_slow(&mut self, duration: SignedDuration) {
        self.own_takes = duration;
        self.objects[1].cached = self.source.artifact.clone();
    }

    pub(in crate::app::tests) fn own(&mut self) -> &mut Object {
        &mut self.objects[1]
    }

    pub(super) fn poke(&mut self, object: &ObjectRef, token: &str) -> Result<(), Failure> {
        if self.setup.bootstrap && *object == bootstrap().1 {
            return Ok(());
        }
        if *object == Source::object() {
            self.source.requested = token.into();
            return Ok(());
        }
        self.object(object)?.requested = token.into();
        Ok(())
    }

    pub(super) fn turn_source(&mut self) {
        let now = self.now;
        let source = &mut self.source;
        match source.fetching.clone() {
            Some((token, fetched, until)) if until <= now => {
                source.handled = token;
                source.fetching = None;
                source.fetched_at = Some(now);
                if let Some(fetched) = fetched {
                    let before = std::mem::replace(&mut source.artifact, fetched);
                    if before != source.artifact {
                        source.before = Some((before, now + LAG));
                    }
                }
            }
            Some(_) => {}
            None => {
                let due = source.fetched_at.is_none_or(|at| now.duration_since(at) >= INTERVAL);
                if due || source.handled != source.requested {
                    self.fetch(SignedDuration::from_millis(150));
                }
            }
        }
    }

    /// The source begins to fetch what Git has now.
    pub(in crate::app::tests) fn fetch(&mut self, takes: SignedDuration) {
        let is_up = self.git.down_until.is_none_or(|until| until <= self.now);
        let fetched = is_up.then(|| self.git.head().sha.clone());
        self.source.fetching = Some((self.source.requested.clone(), fetched, self.now + takes));
    }

    pub(super) fn turn_objects(&mut self) {
        let (substitutes, takes) = (self.setup.substitutes, self.own_takes);
        for at in 0..self.objects.len() {
            let now = self.now;
            let artifact = self.source.artifact.clone();
            let before = self.source.before.clone().filter(|(_, until)| now < *until).map(|(before, _)| before);
            let object = &mut self.objects[at];
            if let Some(run) = object.run.clone() {
                if run.until > now {
                    continue;
                }
                object.run = None;
                object.handled = run.token;
                let is_new = object.applied != run.what;
                object.applied = run.what.clone();
                object.cached = artifact;
                object.ran_at = now;
                let (role, is_own) = (object.role, at == 1);
                match (role, is_own) {
                    (DeliveryRole::Manifests, false) => self.apply_root(&run.what),
                    (DeliveryRole::Manifests, true) => {
                        let version = if self.setup.substitutes { run.spec } else { self.git.version(&run.what) };
                        self.apply_workload(&version);
                    }
                    // A release that is there already is not made again, but one that has failed is when it was suspended since.
                    (DeliveryRole::Release, _) if is_new || run.again && self.behaviour(&run.what).is_some() => {
                        self.apply_workload(&run.what);
                    }
                    (DeliveryRole::Release, _) => {}
                }
                continue;
            }
            if object.suspend == Some(true) {
                // A suspended object is not worked on; its controller still says that it has seen the request.
                object.handled = object.requested.clone();
                continue;
            }
            let due = now.duration_since(object.ran_at) >= INTERVAL;
            let news = match object.role {
                // A change of its spec is a reason to work, as a new commit is.
                DeliveryRole::Manifests if substitutes && at == 1 && object.spec != object.seen => true,
                DeliveryRole::Manifests => artifact != object.attempted,
                DeliveryRole::Release => object.spec != object.attempted || object.is_stale,
            };
            if due || news || !object.has_answered() {
                let again = std::mem::take(&mut object.is_stale);
                let what = match object.role {
                    DeliveryRole::Release => object.spec.clone(),
                    DeliveryRole::Manifests if again && before.is_some() => before.unwrap_or_default(),
                    // Its own objects do without an assumption about how long that lasts.
                    DeliveryRole::Manifests if again && at == 1 => object.cached.clone(),
                    DeliveryRole::Manifests => artifact,
                };
                object.attempted = what.clone();
                object.seen = object.spec.clone();
                let until = now + if at == 1 { takes } else { SignedDuration::from_millis(200) };
                let (spec, token) = (object.spec.clone(), object.requested.clone());
                object.run = Some(Run { what, spec, token, again, until });
            }
        }
    }

    /// What the root applies of the app's own object.
    fn apply_root(&mut self, commit: &str) {
        let version = self.git.version(commit);
        let declares = self.setup.declares_suspend;
        let own = self.own();
        own.spec = version;
        if declares && own.suspend == Some(true) {
            own.suspend = Some(false);
            own.is_stale = true;
        }
        if declares {
            self.note_release_by_parent();
        }
    }

    /// What manifests or a release make of the workload.
    fn apply_workload(&mut self, version: &str) {
        if self.deployment.frozen {
            return;
        }
        if let Some(cron) = &mut self.cron {
            cron.apply(version);
        }
        if self.deployment.version != version {
            self.deployment.version = version.into();
            self.deployment.revision += 1;
        }
        if self.setup.declares_replicas && self.deployment.replicas != 2 {
            self.deployment.replicas = 2;
            self.deployment.revision += 1;
        }
        if self.deployment.replicas > 0 {
            self.may_run(version);
        }
    }
}
