//! What is told, act by act.

use std::path::Path;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::time::Instant;

use super::checks;
use super::stage::{APP, Stage, until};
use crate::{Cli, Exit, Session};

/// Tells all of it.
pub(super) async fn tell(session: &mut Session, keep: bool) -> anyhow::Result<Exit> {
    let began = Instant::now();
    say(
        session,
        "Setting up a cluster inside this process: an API server, Flux, CSI volumes, one node, a Git repository.",
    )?;
    let mut stage = Stage::set().await?;
    let folder = stage.playground.folder().to_owned();
    let good = acts(session, &mut stage, began).await;
    if !end(session, keep, good, &folder.join("kubeconfig")).await? {
        return Ok(Exit::Unexpected);
    }
    drop(stage);
    anyhow::ensure!(!folder.exists(), "{} was left behind", folder.display());
    say(session, "Nothing is left behind. See README.md for how to use it on a cluster of yours.")?;
    Ok(Exit::Done)
}

/// The acts; `false` when something is not as it should be.
async fn acts(session: &mut Session, stage: &mut Stage, began: Instant) -> anyhow::Result<bool> {
    describe(session, stage)?;
    stage.write(100).await?;
    say(
        session,
        "The app keeps numbered records on its volume. It runs version 1.0.0 and has acknowledged 100 of them.",
    )?;

    act(session, "1. An upgrade that succeeds")?;
    let exit = windlass(session, stage, "upgrade app notes -n notes --to 1.1.0 --reason demo").await?;
    checks::expect(exit, Exit::Done)?;
    stage.runs("1.1.0").await?;
    stage.write(50).await?;
    say(session, "50 more records were acknowledged by 1.1.0.")?;

    act(session, "2. A version that overwrites its data and never becomes ready")?;
    stage.note_bytes().await?;
    let exit = windlass(session, stage, "upgrade app notes -n notes --to 3.0.0 --reason demo").await?;
    checks::expect(exit, Exit::AsBefore)?;
    stage.runs("1.1.0").await?;
    stage.note_bytes().await?;
    say(session, "Exit code 4: not reached; data and Git are as before, 1.1.0 runs, and 3.0.0 is blocked.")?;
    stage.write(50).await?;

    act(session, "3. The operator is killed half way (kill -9), twice")?;
    let moments = killed_upgrade(session, stage).await?;
    stage.runs("2.0.0").await?;
    say(
        session,
        &format!("The operator was killed in {} and went on from its journal each time.", moments.join(" and in ")),
    )?;
    say(session, "2.0.0 has migrated the records to a new file format.")?;
    stage.write(50).await?;

    act(session, "What came of it")?;
    windlass(session, stage, "history notes -n notes").await?;
    let good = checks::check(session, stage).await?;
    say(session, &format!("It took {:.0} s.", began.elapsed().as_secs_f64()))?;
    Ok(good)
}

/// With `keep` the cluster stays for a look, the more so when something went wrong; then this never ends.
async fn end(session: &mut Session, keep: bool, good: anyhow::Result<bool>, config: &Path) -> anyhow::Result<bool> {
    if keep {
        if let Err(error) = &good {
            session.printer.note(&format!("The demo broke off: {error:#}"));
        }
        stay(session, config).await?;
    }
    good
}

async fn stay(session: &mut Session, config: &Path) -> anyhow::Result<()> {
    // It need not be in PATH.
    let program = std::env::current_exe().map_or_else(|_| session.program.clone(), |path| path.display().to_string());
    say(
        session,
        &format!(
            "The cluster stays until Ctrl-C. In another terminal:\n\n  export KUBECONFIG={}\n  kubectl get mapp,ureq,rreq,rp -A\n  {program} plan app {APP} -n {APP} --to 2.1.0\n",
            config.display()
        ),
    )?;
    std::future::pending().await
}

fn describe(session: &mut Session, stage: &Stage) -> anyhow::Result<()> {
    let lines = format!(
        "  API server  {}\n  repository  {}\n  operator    a child process, log at {}",
        stage.person.url(),
        stage.repository.url(),
        stage.operator.log().display(),
    );
    say(session, &lines)
}

/// An upgrade whose operator is killed in two of its steps; says in which.
async fn killed_upgrade(session: &mut Session, stage: &mut Stage) -> anyhow::Result<Vec<String>> {
    let line = "upgrade app notes -n notes --to 2.0.0 --reason demo";
    let cli = parse(session, stage, line)?;
    let answers = session.answers.take();
    let mut moments = Vec::new();
    let exit = {
        let follow = Box::pin(crate::commands::run(&cli, session));
        let kill = async {
            for step in ["snapshot/take/", "release/resume/"] {
                until(&format!("step {step}"), || async {
                    Ok(stage.newest_upgrade().await?.is_some_and(|(_, status)| {
                        status.outcome.is_none()
                            && status.journal.is_some_and(|journal| journal.to_string().contains(step))
                    }))
                })
                .await?;
                stage.operator.kill()?;
                moments.push(step.trim_end_matches('/').to_owned());
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                stage.operator.start()?;
            }
            anyhow::Ok(())
        };
        let (exit, killed) = tokio::join!(follow, kill);
        killed?;
        exit
    };
    session.answers = answers;
    let exit = exit.map_err(|error| anyhow::anyhow!("{error}"))?;
    checks::expect(exit, Exit::Done)?;
    Ok(moments)
}

/// Runs a command as if a person had typed it.
async fn windlass(session: &mut Session, stage: &Stage, line: &str) -> anyhow::Result<Exit> {
    let cli = parse(session, stage, line)?;
    let answers = session.answers.take();
    let exit = Box::pin(crate::commands::run(&cli, session)).await;
    session.printer.clear_live();
    session.answers = answers;
    exit.map_err(|error| anyhow::anyhow!("{error}"))
}

fn parse(session: &mut Session, stage: &Stage, line: &str) -> anyhow::Result<Cli> {
    say(session, &format!("\n$ windlass {line}"))?;
    session.client = Some(stage.client.clone());
    Cli::try_parse_from(std::iter::once("windlass").chain(line.split_whitespace())).context("the demo's own command")
}

fn act(session: &mut Session, title: &str) -> anyhow::Result<()> {
    say(session, &format!("\n== {title}"))
}

pub(super) fn say(session: &mut Session, text: &str) -> anyhow::Result<()> {
    session.printer.out(&format!("{text}\n")).map_err(|error| anyhow::anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Printer;

    #[tokio::test(start_paused = true)]
    async fn the_cluster_stays_for_a_look_when_that_is_wanted_also_after_a_failure() {
        let mut session = Session::new(Printer::new(Box::new(std::io::sink()), Box::new(std::io::sink())));
        let config = Path::new("/nowhere/kubeconfig");
        let tellings: [fn() -> anyhow::Result<bool>; 3] =
            [|| Ok(true), || Ok(false), || Err(anyhow::anyhow!("the app does not run"))];
        for told in tellings {
            let hour = Duration::from_secs(3600);
            let kept = tokio::time::timeout(hour, end(&mut session, true, told(), config)).await;
            assert!(kept.is_err(), "{:?} ended it", told());
            let ended = end(&mut session, false, told(), config).await;
            assert_eq!(ended.ok(), told().ok());
        }
    }
}
