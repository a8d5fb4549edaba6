//! `windlass cancel`

use serde_json::json;

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::request::{cancel, resolve};
use crate::{Common, Exit, RequestArg, Session};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    request: &RequestArg,
) -> Result<Exit, CliError> {
    let request = resolve(cluster, request).await?;
    let reference = request.reference();
    let outcome = request.status().and_then(|status| status.outcome);
    let (changed, said) = match outcome {
        Some(outcome) => (false, format!("{reference} has ended already: {outcome:?}")),
        None if request.is_cancelled() => (false, format!("{reference} was cancelled already")),
        None => {
            cancel(cluster, &request).await?;
            (true, format!("{reference} cancelled"))
        }
    };
    let value = json!({
        "request": reference.to_string(), "namespace": cluster.namespace, "cancelled": changed, "outcome": outcome,
    });
    session.printer.result(common.output, "Cancelled", &value, |_| format!("{said}\n"))?;
    if changed {
        session.printer.note(
            "Before the point of no return everything is undone; after it the operation goes on to a consistent end.",
        );
        session.printer.note(&format!("Follow it: {} wait {reference} -n {}", session.program, cluster.namespace));
    }
    Ok(Exit::Done)
}
