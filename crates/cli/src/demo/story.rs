//! What is told, act by act.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use serde_json::Value;
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
    ensure!(!folder.exists(), "{} was left behind", folder.display());
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
    let kills = killed_upgrade(session, stage).await?;
    stage.runs("2.0.0").await?;
    say(session, &format!("The operator was killed {}. It went on from its journal each time.", kills.join(", and ")))?;
    say(session, "2.0.0 has migrated the records to a new file format.")?;
    stage.write(50).await?;

    act(session, "What came of it")?;
    windlass(session, stage, "history notes -n notes").await?;
    let good = checks::check(session, stage, &kills).await?;
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

/// An upgrade whose operator is killed twice, as soon as it is seen to have begun one of two steps; says where it was when it died.
async fn killed_upgrade(session: &mut Session, stage: &mut Stage) -> anyhow::Result<Vec<String>> {
    let line = "upgrade app notes -n notes --to 2.0.0 --reason demo";
    let cli = parse(session, stage, line)?;
    let answers = session.answers.take();
    let mut kills = Vec::new();
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
                // What it had sent by then may still be written.
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                let (_, status) = stage.newest_upgrade().await?.context("the upgrade is gone")?;
                ensure!(status.outcome.is_none(), "the upgrade had ended before the operator was killed");
                kills.push(moment(&status.journal.unwrap_or_default(), step)?);
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
    Ok(kills)
}

/// Where an operation stood, by its journal, when who did it was killed for having begun `wanted`. It may have gone on before it died.
fn moment(journal: &Value, wanted: &str) -> anyhow::Result<String> {
    let entries = journal.get("entries").and_then(Value::as_array).context("the journal has no entries")?;
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let begun = entries.iter().find(|entry| text(entry, "step").starts_with(wanted));
    let begun = begun.with_context(|| format!("step {wanted} was not begun"))?;
    let last = entries.last().unwrap_or(begun);
    let (step, state, newest) = (text(begun, "step"), text(begun, "state"), text(last, "step"));
    ensure!(state == "Doing" || state == "Done", "{step} was {state} when the operator was killed");
    let at = match text(last, "state").as_str() {
        "Doing" => format!("in the middle of {newest}"),
        "Done" => format!("when {newest} was just done"),
        state => bail!("{newest} was {state} when the operator was killed"),
    };
    Ok(if newest == step { at } else { format!("{at}, after {step}") })
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

    #[test]
    fn a_kill_is_told_as_what_it_cut_off() {
        let journal = |states: &[(&str, &str)]| {
            let entries = states.iter().map(|(step, state)| serde_json::json!({"step": step, "state": state}));
            serde_json::json!({"entries": entries.collect::<Vec<_>>()})
        };
        let told =
            |states: &[(&str, &str)]| moment(&journal(states), "snapshot/take/").map_err(|error| error.to_string());
        assert_eq!(
            told(&[("stop/wait", "Done"), ("snapshot/take/data", "Doing")]).unwrap(),
            "in the middle of snapshot/take/data"
        );
        assert_eq!(told(&[("snapshot/take/data", "Done")]).unwrap(), "when snapshot/take/data was just done");
        assert_eq!(
            told(&[("snapshot/take/data", "Done"), ("snapshot/verify/data", "Doing")]).unwrap(),
            "in the middle of snapshot/verify/data, after snapshot/take/data"
        );
        told(&[("snapshot/take/data", "Undone")]).unwrap_err();
        told(&[("stop/wait", "Done")]).unwrap_err();
    }

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
