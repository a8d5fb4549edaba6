//! One module per verb: arguments to calls, and results to what is shown.

mod cancel;
mod completions;
mod crd;
mod explain;
mod history;
mod list;
mod make;
mod outcome;
mod plan;
mod reference;
mod rollback;
mod show;
mod snapshots;
mod unblock;
mod upgrade;
mod wait;

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::{Cli, Exit, Session, Verb};

/// Runs the verb.
pub(crate) async fn run(cli: &Cli, session: &mut Session) -> Result<Exit, CliError> {
    let common = &cli.common;
    // Those that need no cluster.
    match &cli.verb {
        Verb::Explain { code } => return explain::run(session, common, code.as_deref()),
        Verb::Crd => return crd::run(session, common),
        Verb::Completions { shell } => return completions::run(session, *shell),
        Verb::Reference { into } => return reference::run(into),
        Verb::Demo(demo) => return Box::pin(crate::demo::run(session, demo.keep)).await,
        _ => {}
    }
    let cluster = Cluster::connect(session, common).await?;
    match &cli.verb {
        Verb::List { all_namespaces } => list::run(session, &cluster, common, *all_namespaces).await,
        Verb::Show { what } => show::run(session, &cluster, common, what).await,
        Verb::Plan { what, exit_code } => plan::run(session, &cluster, common, what, *exit_code).await,
        Verb::Upgrade { what } => upgrade::run(session, &cluster, common, what).await,
        Verb::Rollback { what } => rollback::run(session, &cluster, common, what).await,
        Verb::History { app } => history::run(session, &cluster, common, app_name(app)?).await,
        Verb::Snapshots { app } => snapshots::run(session, &cluster, common, app_name(app)?).await,
        Verb::Cancel { request } => cancel::run(session, &cluster, common, request).await,
        Verb::Unblock { app, component, blocked } => {
            unblock::run(session, &cluster, common, app_name(app)?, component, blocked).await
        }
        Verb::Wait { request, timeout } => wait::run(session, &cluster, common, request, *timeout).await,
        Verb::Explain { .. } | Verb::Crd | Verb::Completions { .. } | Verb::Reference { .. } | Verb::Demo(_) => {
            Ok(Exit::Done)
        }
    }
}

/// `NAME` or `app NAME`, for the verbs that are about apps only.
fn app_name(words: &[String]) -> Result<&str, CliError> {
    match words {
        [name] => Ok(name),
        [kind, name] if kind == "app" => Ok(name),
        _ => Err(CliError::AppNotNamed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_with_or_without_its_kind() {
        let name = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.into()).collect();
            app_name(&words).map(ToOwned::to_owned).ok()
        };
        assert_eq!(name(&["notes"]).as_deref(), Some("notes"));
        assert_eq!(name(&["app", "notes"]).as_deref(), Some("notes"));
        assert_eq!(name(&["notes", "other"]), None);
    }
}
