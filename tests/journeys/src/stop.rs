//! Ends everything in order when a signal asks for it: servers and folders go with whoever owns them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

static TOLD: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);
static CODE: AtomicU8 = AtomicU8::new(0);

/// The exit code that a signal asks for, once one has.
pub(crate) fn code() -> Option<u8> {
    Some(CODE.load(Ordering::SeqCst)).filter(|code| *code != 0)
}

/// Does this, unless a signal comes first: then it is dropped where it is.
pub(crate) async fn unless_told<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        result = work => result,
        () = TOLD.cancelled() => bail!("told to end"),
    }
}

/// Listens on a thread of its own. A command of ours that runs in this process catches signals for itself: they must go on to end the
/// process. A second signal ends it wherever it is.
pub(crate) fn listen() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            loop {
                let asked = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                };
                if CODE.swap(asked, Ordering::SeqCst) != 0 {
                    at_once(asked);
                }
                TOLD.cancel();
            }
        });
    });
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait")]
fn at_once(code: u8) {
    std::process::exit(code.into());
}
