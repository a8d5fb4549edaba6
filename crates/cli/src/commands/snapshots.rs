//! `windlass snapshots`

use kube::ResourceExt as _;
use windlass_api::RestorePoint;

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::view::snapshots::{RestorePointView, snapshots};
use crate::{Common, Exit, OutputFormat, Session};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    app: &str,
) -> Result<Exit, CliError> {
    // Restore points outlive their app, so its absence alone is no error.
    let mut points: Vec<RestorePoint> = cluster.list(false).await?;
    points.retain(|point| point.spec.subject.name == app);
    points.sort_by_key(|point| {
        let made = point.creation_timestamp().map(|time| time.0);
        std::cmp::Reverse((point.spec.taken_at.or(made), point.name_any()))
    });
    if points.is_empty() {
        cluster.app(session, app).await?;
        if common.output == OutputFormat::Table {
            session.printer.note(&format!("{app} has no restore points."));
            return Ok(Exit::Done);
        }
    }
    let views: Vec<RestorePointView> = points.iter().map(RestorePointView::from).collect();
    let now = session.clock.now();
    session.printer.result(common.output, "RestorePointList", &views, |color| snapshots(&views, now, color))?;
    Ok(Exit::Done)
}
