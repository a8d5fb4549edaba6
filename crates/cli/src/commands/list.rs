//! `windlass list`

use windlass_api::ManagedApp;

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::view::apps::{AppView, list};
use crate::{Common, Exit, OutputFormat, Session};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    everywhere: bool,
) -> Result<Exit, CliError> {
    let mut apps: Vec<AppView> = cluster.list::<ManagedApp>(everywhere).await?.iter().map(AppView::from).collect();
    apps.sort_by(|one, other| one.id().cmp(&other.id()));
    if apps.is_empty() && common.output == OutputFormat::Table {
        let place = if everywhere { "in the cluster".into() } else { format!("in namespace {}", cluster.namespace) };
        session.printer.note(&format!("There are no apps {place}."));
        return Ok(Exit::Done);
    }
    let now = session.clock.now();
    session.printer.result(common.output, "AppList", &apps, |color| list(&apps, everywhere, now, color))?;
    Ok(Exit::Done)
}
