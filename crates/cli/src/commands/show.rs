//! `windlass show`

use windlass_api::OperationKind;

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::request::resolve;
use crate::view::apps::{AppView, show};
use crate::view::request::Shown;
use crate::{Common, Exit, RequestArg, Session, ShowWhat};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    what: &ShowWhat,
) -> Result<Exit, CliError> {
    let now = session.clock.now();
    let (kind, name) = match what {
        ShowWhat::App { name } => {
            let app = AppView::from(&cluster.app(session, name).await?);
            let program = session.program.clone();
            session.printer.result(common.output, "App", &app, |color| show(&app, now, color, &program))?;
            return Ok(Exit::Done);
        }
        ShowWhat::Upgrade { name } => (OperationKind::UpgradeRequest, name),
        ShowWhat::Rollback { name } => (OperationKind::RollbackRequest, name),
    };
    let request = resolve(cluster, &RequestArg { kind: Some(kind), name: name.clone() }).await?;
    let shown = Shown::of(&request)?;
    let program = session.program.clone();
    session.printer.result(common.output, "Request", &shown, |color| shown.text(now, color, &program))?;
    Ok(Exit::Done)
}
