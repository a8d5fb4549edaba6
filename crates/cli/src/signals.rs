//! The two signals that make a command leave: Ctrl-C, and what `kill` sends.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::Exit;
use crate::error::CliError;

/// Where they come from; by default nobody sends any.
#[derive(Debug, Default)]
pub struct Signals(Source);

#[derive(Debug, Default)]
enum Source {
    #[default]
    Nobody,
    /// This process, which they end until they are caught.
    Process,
    Caught {
        interrupt: Signal,
        terminate: Signal,
    },
    Sent(UnboundedReceiver<Exit>),
}

impl Signals {
    /// Those of this process. Until they are caught they end it, as they do any other.
    pub(crate) fn of_process() -> Self {
        Self(Source::Process)
    }

    /// Those that somebody sends through the other half: [`Exit::Interrupted`] for Ctrl-C, [`Exit::Terminated`] for `kill`.
    #[must_use]
    pub fn sent() -> (UnboundedSender<Exit>, Self) {
        let (sender, receiver) = unbounded_channel();
        (sender, Self(Source::Sent(receiver)))
    }

    /// From now on they no longer end the process, and somebody must always be waiting for the next one.
    pub(crate) fn catch(&mut self) -> Result<(), CliError> {
        if matches!(self.0, Source::Process) {
            let catch = |kind| signal(kind).map_err(CliError::Runtime);
            let (interrupt, terminate) = (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
            self.0 = Source::Caught { interrupt, terminate };
        }
        Ok(())
    }

    /// How to end because of the next one.
    pub(crate) async fn next(&mut self) -> Exit {
        let sent = match &mut self.0 {
            Source::Nobody | Source::Process => None,
            Source::Caught { interrupt, terminate } => tokio::select! {
                _ = interrupt.recv() => Some(Exit::Interrupted),
                _ = terminate.recv() => Some(Exit::Terminated),
            },
            Source::Sent(receiver) => receiver.recv().await,
        };
        match sent {
            Some(exit) => exit,
            None => std::future::pending().await,
        }
    }
}
