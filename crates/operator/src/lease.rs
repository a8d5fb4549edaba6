//! Leadership: our own lease on a `coordination.k8s.io/v1` Lease, by compare-and-swap, with a guard that lapses by itself.
//!
//! Taking over waits until the holder's lease has not changed for a whole term *on our own clock*, so clocks of two machines
//! need not agree. The guard lapses two thirds into the term: a holder that cannot renew stops acting before anybody may take
//! over, and requests in flight at that moment have the last third to end.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use upgrade_core::engine::{Guard, GuardState};
use upgrade_core::ports::Clock;
use windlass_api::call::CallError;

/// The name of the lease.
pub const NAME: &str = "windlass-operator";

/// Says whether this process may act at this moment.
pub struct Leadership {
    held_until: Mutex<Option<Timestamp>>,
    clock: Arc<dyn Clock>,
}

impl Leadership {
    /// Whether it is held now.
    pub fn is_held(&self) -> bool {
        let until = *self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| self.clock.now() < until)
    }

    fn set(&self, until: Option<Timestamp>) {
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Guard for Leadership {
    fn state(&self) -> GuardState {
        if self.is_held() { GuardState::Held } else { GuardState::Lost("leadership".into()) }
    }
}

/// Competes for the lease.
pub struct Elector {
    api: Api<Lease>,
    identity: String,
    term: SignedDuration,
    clock: Arc<dyn Clock>,
    leadership: Arc<Leadership>,
    /// What was last seen of another holder, and since when by our clock.
    seen: Option<(String, Timestamp)>,
}

impl Elector {
    /// Competes in `namespace` as `identity`, which must differ between instances that may run at the same time.
    pub fn new(client: Client, namespace: &str, identity: String, term: SignedDuration, clock: Arc<dyn Clock>) -> Self {
        let leadership = Arc::new(Leadership { held_until: Mutex::new(None), clock: clock.clone() });
        Self { api: Api::namespaced(client, namespace), identity, term, clock, leadership, seen: None }
    }

    /// The guard.
    pub fn leadership(&self) -> Arc<Leadership> {
        self.leadership.clone()
    }

    /// One attempt to take or renew the lease; says when to try again.
    pub async fn round(&mut self) -> SignedDuration {
        let retry = self.term / 5;
        match self.attempt().await {
            Ok(true) => self.term / 3,
            Ok(false) => retry,
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "could not take or renew the lease");
                retry
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool, CallError> {
        let asked = self.clock.now();
        let namespace = self.api.namespace().unwrap_or_default().to_owned();
        let found = self.api.get_opt(NAME).await.map_err(CallError::on::<Lease>("get", &namespace, NAME))?;
        let Some(mut lease) = found else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
                spec: Some(self.spec(asked, 0)),
            };
            let made =
                self.api.create(&post(), &lease).await.map_err(CallError::on::<Lease>("create", &namespace, NAME));
            return match made {
                Err(error) if error.is_exists() => {
                    self.leadership.set(None);
                    Ok(false)
                }
                other => other.map(|_| self.won(asked)),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.has_lapsed(&lease, &spec, asked) {
            self.leadership.set(None);
            return Ok(false);
        }
        let taken_over = holder != self.identity;
        lease.spec = Some(self.spec(asked, transitions + i32::from(taken_over)));
        // The resource version read above makes this the compare-and-swap.
        let written = self.api.replace(NAME, &post(), &lease).await;
        match written.map_err(CallError::on::<Lease>("update", &namespace, NAME)) {
            Ok(_) => Ok(self.won(asked)),
            Err(error) if error.is_conflict() => {
                self.leadership.set(None);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn won(&mut self, asked: Timestamp) -> bool {
        self.seen = None;
        self.leadership.set(asked.checked_add(self.term * 2 / 3).ok());
        true
    }

    fn has_lapsed(&mut self, lease: &Lease, spec: &LeaseSpec, now: Timestamp) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let term = spec.lease_duration_seconds.map_or(self.term, |seconds| SignedDuration::from_secs(seconds.into()));
        match &self.seen {
            Some((seen, since)) if *seen == version => now.duration_since(*since) >= term,
            _ => {
                // Not since this look began: what it shows may have been written while it took its time.
                self.seen = Some((version, self.clock.now()));
                false
            }
        }
    }

    fn spec(&self, now: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.term.as_secs()).ok(),
            renew_time: Some(MicroTime(now)),
            acquire_time: None,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that a successor need not wait the term out.
    pub async fn resign(&mut self) {
        let was_held = self.leadership.is_held();
        self.leadership.set(None);
        if !was_held {
            return;
        }
        if let Ok(mut lease) = self.api.get(NAME).await {
            let ours =
                lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(self.identity.as_str());
            if let Some(spec) = lease.spec.as_mut().filter(|_| ours) {
                spec.holder_identity = None;
                if let Err(error) = self.api.replace(NAME, &post(), &lease).await {
                    tracing::info!(%error, "the lease was not given back and will lapse");
                }
            }
        }
    }
}

fn post() -> PostParams {
    windlass_api::call::post_params()
}

#[cfg(test)]
mod tests;
