//! `windlass wait`

use windlass_api::Duration;

use super::outcome::until_the_end;
use crate::cluster::Cluster;
use crate::error::CliError;
use crate::request::resolve;
use crate::{Common, Exit, RequestArg, Session};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    request: &RequestArg,
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let request = resolve(cluster, request).await?;
    until_the_end(session, cluster, common.output, &request, timeout).await
}
