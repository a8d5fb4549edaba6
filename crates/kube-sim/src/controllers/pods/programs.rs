//! What images do: programs as futures, and ready-made ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Where images come from.
///
/// - **Flow**: asked before each start of a container, and again with growing pauses while the answer is `None`.
/// - **Guarantees** asked of an implementation: it answers at once.
/// - **Assumptions**: an image may be run by several containers at the same time, and be another program at the next start.
/// - **Cancellation**: nothing to cancel: it does not wait.
/// - **Errors**: none. An image that cannot be pulled is `None`; the pod then says `ErrImagePull` and `ImagePullBackOff`.
pub trait Images: Send + Sync {
    /// What the image does; `None` when it cannot be pulled.
    fn program(&self, image: &str) -> Option<Arc<dyn Program>>;
}

/// What a container runs.
///
/// - **Flow**: `run` once for each start of the container.
/// - **Guarantees** asked of an implementation: it ends soon after [`Container::stop`] is cancelled, and what must survive it is in a
///   volume before it says that it is.
/// - **Assumptions**: the folders in [`Container::mounts`] stay until it has ended.
/// - **Cancellation**: the future is dropped, at any `await`, when its time to end is over: what SIGKILL is to a process.
/// - **Errors**: an exit code other than 0.
#[async_trait]
pub trait Program: Send + Sync {
    /// Runs as the container's process and returns its exit code.
    async fn run(&self, container: Container) -> i32;
}

/// A container as its program sees it.
#[derive(Debug, Clone)]
pub struct Container {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Address of the pod. Nothing listens there.
    pub pod_ip: String,
    /// Name of the container.
    pub name: String,
    /// Image as the pod names it.
    pub image: String,
    /// `command` and `args`, with references to variables expanded.
    pub command: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Mount paths and the folders they stand for, `subPath` applied. `readOnly` is not enforced.
    pub mounts: BTreeMap<String, PathBuf>,
    /// Cancelled when the container is asked to end.
    pub stop: CancellationToken,
    /// What the program answers to probes.
    pub readiness: Readiness,
}

/// The answer to readiness and startup probes; off until the program turns it on. Without such probes nobody asks.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Sender<bool>);

impl Readiness {
    pub(super) fn new() -> (Self, watch::Receiver<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), receiver)
    }

    /// Says whether the program is ready.
    pub fn set(&self, ready: bool) {
        self.0.send_replace(ready);
    }
}

/// A program that does nothing but behave in a certain way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs until it is asked to end.
    Serve {
        /// When it says that it is ready; `None`: never.
        ready_after: Option<Duration>,
        /// How long it takes to end once it is asked.
        stop_after: Duration,
    },
    /// Ends by itself. Under a restart policy that starts it again, a crash loop.
    Exit {
        /// When.
        after: Duration,
        /// Exit code.
        code: i32,
    },
}

impl Behaviour {
    /// Serves, ready after a second, and ends at once when asked.
    #[must_use]
    pub const fn serve() -> Self {
        Self::Serve { ready_after: Some(Duration::from_secs(1)), stop_after: Duration::ZERO }
    }

    /// Runs and is never ready.
    #[must_use]
    pub const fn never_ready() -> Self {
        Self::Serve { ready_after: None, stop_after: Duration::ZERO }
    }

    /// Works for a second and ends with `code`.
    #[must_use]
    pub const fn exit(code: i32) -> Self {
        Self::Exit { after: Duration::from_secs(1), code }
    }
}

#[async_trait]
impl Program for Behaviour {
    async fn run(&self, container: Container) -> i32 {
        match *self {
            Self::Serve { ready_after, stop_after } => {
                let serve = async {
                    if let Some(after) = ready_after {
                        sleep(after).await;
                        container.readiness.set(true);
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    () = container.stop.cancelled() => {}
                    () = serve => {}
                }
                sleep(stop_after).await;
                0
            }
            Self::Exit { after, code } => {
                tokio::select! {
                    biased;
                    () = container.stop.cancelled() => 143,
                    () = sleep(after) => code,
                }
            }
        }
    }
}

/// Images by the pattern of their name.
#[derive(Clone, Default)]
pub struct Scripted {
    rules: Vec<(String, Arc<dyn Program>)>,
}

impl Scripted {
    /// No images at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what images are whose name is like `pattern`, in which `*` stands for anything: `registry.test/app:1.*`. Of several
    /// patterns the first one counts.
    #[must_use]
    pub fn with(mut self, pattern: impl Into<String>, program: impl Program + 'static) -> Self {
        self.rules.push((pattern.into(), Arc::new(program)));
        self
    }
}

impl Images for Scripted {
    fn program(&self, image: &str) -> Option<Arc<dyn Program>> {
        self.rules.iter().find(|(pattern, _)| matches(pattern, image)).map(|(_, program)| Arc::clone(program))
    }
}

/// Whether `text` is like `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, text.split_at(at).1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("app:1.*", "app:1.2.3", true),
            ("app:1.*", "app:2.1.0", false),
            ("*/app:*", "registry.test/app:1", true),
            ("app:1", "app:10", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "a-b-c", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
