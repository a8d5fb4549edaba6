//! Making a request. Its name is known before it is made: whoever does not see the answer is told what may be there.

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::request::{Draft, Request, RequestRef};
use crate::{Exit, Session};

/// How many names are tried.
const NAMES: u64 = 3;

/// What became of it.
pub(super) enum Made {
    /// It is there.
    Request(Request),
    /// A signal came before the answer: it may be there.
    Signal(Exit, RequestRef),
}

/// Makes the request, unless a signal comes first.
pub(super) async fn make(session: &mut Session, cluster: &Cluster, draft: &Draft) -> Result<Made, CliError> {
    // Caught before there is a request that nobody would be told of.
    session.signals.catch()?;
    let now = session.clock.now();
    let mut attempt = 0;
    loop {
        let reference = draft.reference(now, attempt);
        attempt += 1;
        let made = tokio::select! {
            biased;
            exit = session.signals.next() => return Ok(Made::Signal(exit, reference)),
            made = draft.create(cluster, &reference.name) => made,
        };
        match made {
            Ok(request) => return Ok(Made::Request(request)),
            // The client sends a request again whose answer was bad: then it is there, and is ours.
            Err(error) if error.is_exists() && attempt < NAMES => {
                if let Some(request) = draft.made_before(cluster, &reference.name).await? {
                    return Ok(Made::Request(request));
                }
            }
            // Lost on its way, given by something in between, or unreadable: the server may have done it all the same.
            Err(source) if ["api-unreachable", "api-unavailable", "api-unreadable"].contains(&source.code()) => {
                let (request, namespace) = (reference.to_string(), cluster.namespace.clone());
                return Err(CliError::MaybeMade {
                    request,
                    namespace,
                    only_plans: draft.is_dry_run(),
                    source: Box::new(source),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}
