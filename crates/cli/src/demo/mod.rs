//! `windlass demo`: the main job on a simulated cluster inside this process, with the real operator as a child process, real Git and
//! real bytes. It shows what a person would see, and ends by checking that it was so.

mod checks;
pub(crate) mod operator;
mod stage;
mod story;

use crate::error::CliError;
use crate::{Exit, Session};

/// Runs the demo; with `keep` the cluster stays until Ctrl-C.
///
/// Dropped, as at a signal, it ends the operator and removes its folder.
pub(crate) async fn run(session: &mut Session, keep: bool) -> Result<Exit, CliError> {
    // A signal ends all of it: the commands that it runs must not take one for a wish to detach.
    let mut signals = std::mem::take(&mut session.signals);
    signals.catch()?;
    tokio::select! {
        biased;
        exit = signals.next() => Ok(exit),
        told = story::tell(session, keep) => told.map_err(|error| CliError::Demo(format!("{error:#}"))),
    }
}
