//! Whether an operator is alive: without one a request would only lie there.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};
use windlass_api::call::CallError;
use windlass_operator::lease::NAME as LEASE;

use crate::Session;
use crate::cluster::Cluster;
use crate::error::CliError;

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    /// Somebody leads.
    Alive,
    /// Nobody leads.
    Dead(String),
    /// By our clock it has lapsed; the clocks may differ, so it is worth looking whether it is renewed within this time.
    Doubtful { seen: String, within: SignedDuration },
}

fn judge(lease: Option<&Lease>, now: Timestamp) -> Life {
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else {
        return Life::Dead(format!("there is no lease {LEASE}"));
    };
    let Some(holder) = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty()) else {
        return Life::Dead(format!("lease {LEASE} has no holder"));
    };
    let (Some(renewed), Some(seconds)) = (&spec.renew_time, spec.lease_duration_seconds) else {
        return Life::Dead(format!("lease {LEASE} does not say until when it is held"));
    };
    let (age, term) = (now.duration_since(renewed.0), SignedDuration::from_secs(seconds.into()));
    if age <= term {
        return Life::Alive;
    }
    let age = crate::text::age(age);
    let seen = format!("{holder} has not renewed lease {LEASE} for {age}; it lasts {seconds}s");
    // A live operator renews it every third of its term.
    Life::Doubtful { seen, within: term / 2 }
}

/// Refuses when no operator is alive.
pub(crate) async fn require(session: &Session, cluster: &Cluster, namespace: &str) -> Result<(), CliError> {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let read = async || {
        api.get_opt(LEASE)
            .await
            .map_err(CallError::on::<Lease>("get", namespace, LEASE))
            .map_err(|source| CliError::OperatorUnknown { namespace: namespace.to_owned(), source })
    };
    let dead = |seen: String| CliError::NoOperator { namespace: namespace.to_owned(), seen };
    let first = read().await?;
    let (seen, within) = match judge(first.as_ref(), session.clock.now()) {
        Life::Alive => return Ok(()),
        Life::Dead(seen) => return Err(dead(seen)),
        Life::Doubtful { seen, within } => (seen, within),
    };
    let version = first.and_then(|lease| lease.resource_version());
    let mut waited = SignedDuration::ZERO;
    while waited < within {
        let pause = SignedDuration::from_secs(1);
        session.clock.sleep(pause).await;
        waited += pause;
        if read().await?.and_then(|lease| lease.resource_version()) != version {
            return Ok(());
        }
    }
    Err(dead(seen))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn lease(holder: Option<&str>, renewed: Option<i64>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: Some(15),
            renew_time: renewed.map(|second| MicroTime(Timestamp::from_second(second).unwrap())),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn only_a_held_and_renewed_lease_is_alive() {
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(judge(Some(&lease(Some("a_1"), Some(990))), now), Life::Alive);
        assert_eq!(judge(None, now), Life::Dead("there is no lease windlass-operator".into()));
        let no_holder = Life::Dead("lease windlass-operator has no holder".into());
        assert_eq!(judge(Some(&lease(None, Some(990))), now), no_holder);
        assert_eq!(judge(Some(&lease(Some(""), Some(990))), now), no_holder);
        assert!(matches!(judge(Some(&lease(Some("a_1"), None)), now), Life::Dead(_)));
        assert_eq!(
            judge(Some(&lease(Some("a_1"), Some(900))), now),
            Life::Doubtful {
                seen: "a_1 has not renewed lease windlass-operator for 100s; it lasts 15s".into(),
                within: SignedDuration::from_millis(7500)
            }
        );
    }
}
