//! `windlass history`

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::request::of_app;
use crate::view::history::history;
use crate::view::request::RequestView;
use crate::{Common, Exit, OutputFormat, Session};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    app: &str,
) -> Result<Exit, CliError> {
    // Requests outlive their app, so its absence alone is no error.
    let requests: Vec<RequestView> = of_app(cluster, app).await?.iter().map(RequestView::from).collect();
    if requests.is_empty() {
        cluster.app(session, app).await?;
        if common.output == OutputFormat::Table {
            session.printer.note(&format!("{app} was never upgraded or rolled back by request."));
            return Ok(Exit::Done);
        }
    }
    let now = session.clock.now();
    session.printer.result(common.output, "RequestList", &requests, |color| history(&requests, now, color))?;
    Ok(Exit::Done)
}
