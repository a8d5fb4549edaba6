//! A CSI driver whose volumes and snapshots are directories, and that misbehaves when told to.
//!
//! It is the storage itself, without gRPC: the stand-ins of this crate call it, and a real rig serves it to the real
//! sidecars. A volume's handle is its name, and its bytes are `<root>/volumes/<handle>`; a snapshot is a full copy under
//! `<root>/snapshots/<handle>`. Every call is one line of `<root>/calls.jsonl`; `<root>/control.json` ([`Control`]) changes
//! the behaviour of the calls that follow. Nothing is mounted: whoever plays the app uses a volume's directory directly.

mod control;
mod log;
mod store;

pub use control::{CallName, Control, FailureCode, Refusal, Rule};
pub use log::CallRecord;
pub use store::{SnapshotInfo, VolumeInfo};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Clock;
use control::Met;
use log::CallLog;
use store::{Shelf, is_handle};

const DEFAULT_BYTES: i64 = 1 << 30;

/// Where the driver keeps a volume's bytes: one directory per handle.
#[must_use]
pub fn volumes_dir(root: &Path) -> PathBuf {
    root.join("volumes")
}

/// Where the driver keeps a snapshot's bytes: one directory per handle.
#[must_use]
pub fn snapshots_dir(root: &Path) -> PathBuf {
    root.join("snapshots")
}

/// The log of all calls, one [`CallRecord`] per line.
#[must_use]
pub fn call_log(root: &Path) -> PathBuf {
    root.join("calls.jsonl")
}

/// The file that [`Control`] is read from at each call; absent means well-behaved.
#[must_use]
pub fn control_file(root: &Path) -> PathBuf {
    root.join("control.json")
}

/// What is asked of [`FolderDriver::create_volume`].
#[derive(Debug, Clone, Default)]
pub struct VolumeRequest {
    /// The volume's name, which becomes its handle.
    pub name: String,
    /// The smallest size in bytes; 1 GiB when not positive.
    pub required_bytes: i64,
    /// The largest size in bytes; none when not positive.
    pub limit_bytes: i64,
    /// Handle of the snapshot whose bytes it starts with; empty when absent.
    pub from_snapshot: Option<String>,
    /// Parameters of the StorageClass.
    pub parameters: BTreeMap<String, String>,
}

/// The driver; clones share everything.
#[derive(Clone)]
pub struct FolderDriver(Arc<Shared>);

struct Shared {
    root: PathBuf,
    clock: Clock,
    volumes: Shelf,
    snapshots: Shelf,
    log: CallLog,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    met: Met,
    busy: BTreeSet<String>,
}

/// Marks a name as being worked on; the specification wants ABORTED for a second call meanwhile.
struct Busy(Arc<Shared>, String);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().busy.remove(&self.1);
    }
}

impl fmt::Debug for FolderDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FolderDriver").field(&self.0.root).finish()
    }
}

impl FolderDriver {
    /// A driver for what is under `root`, which is made if it is not there. `clock` tells when snapshots are cut.
    ///
    /// # Errors
    /// When the directories or the call log cannot be made.
    pub fn open(root: &Path, clock: Clock) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        Ok(Self(Arc::new(Shared {
            root: root.to_owned(),
            clock,
            volumes: Shelf::open(volumes_dir(root), root.join("described/volumes"))?,
            snapshots: Shelf::open(snapshots_dir(root), root.join("described/snapshots"))?,
            log: CallLog::open(&call_log(root))?,
            state: Mutex::default(),
        })))
    }

    /// Makes a volume, empty or with the bytes of a snapshot. Asked again with the same name, it answers with what is there.
    ///
    /// Cancelled or not, the work goes on: only the answer is lost.
    ///
    /// # Errors
    /// When the request contradicts what is there, the snapshot is missing or larger, or the driver was told to fail.
    pub async fn create_volume(&self, request: VolumeRequest) -> Result<VolumeInfo, Refusal> {
        let call = Call {
            name: CallName::CreateVolume,
            volume: required(&request.name, "the name")?,
            snapshot: request.from_snapshot.clone().unwrap_or_default(),
            parameters: request.parameters.clone(),
        };
        self.call(call, move |driver, control| driver.create_volume(&request, control)).await
    }

    /// Removes a volume and its bytes; what is not there is removed already. Goes on when cancelled.
    ///
    /// # Errors
    /// When the driver was told to fail, or to keep volumes with snapshots.
    pub async fn delete_volume(&self, handle: &str) -> Result<(), Refusal> {
        let volume = required(handle, "the volume id")?;
        let call = Call { volume: volume.clone(), ..Call::of(CallName::DeleteVolume) };
        self.call(call, move |driver, control| driver.delete_volume(&volume, control)).await
    }

    /// Copies the bytes that a volume has when the call is carried out. Asked again with the same name, it answers with what
    /// is there. Goes on when cancelled.
    ///
    /// # Errors
    /// When there is no such volume, the name is taken by a copy of another one, or the driver was told to fail.
    pub async fn create_snapshot(
        &self,
        name: &str,
        volume: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Result<SnapshotInfo, Refusal> {
        let (volume, snapshot) = (required(volume, "the source volume id")?, required(name, "the name")?);
        let call = Call {
            name: CallName::CreateSnapshot,
            volume: volume.clone(),
            snapshot: snapshot.clone(),
            parameters: parameters.clone(),
        };
        self.call(call, move |driver, control| driver.create_snapshot(&snapshot, &volume, control)).await
    }

    /// Removes a snapshot; what is not there is removed already. Goes on when cancelled.
    ///
    /// # Errors
    /// When the driver was told to fail.
    pub async fn delete_snapshot(&self, handle: &str) -> Result<(), Refusal> {
        let snapshot = required(handle, "the snapshot id")?;
        let call = Call { snapshot: snapshot.clone(), ..Call::of(CallName::DeleteSnapshot) };
        self.call(call, move |driver, _| driver.snapshots.remove(&snapshot).map_err(|error| internal(&error))).await
    }

    /// The snapshots with this handle and of this volume, by handle; an empty text stands for all.
    ///
    /// # Errors
    /// When the driver was told to fail.
    pub async fn list_snapshots(&self, snapshot: &str, volume: &str) -> Result<Vec<(String, SnapshotInfo)>, Refusal> {
        let (snapshot, volume) = (snapshot.to_owned(), volume.to_owned());
        let call = Call { volume: volume.clone(), snapshot: snapshot.clone(), ..Call::of(CallName::ListSnapshots) };
        self.call(call, move |driver, _| {
            let mut all = driver.snapshots.all::<SnapshotInfo>().map_err(|error| internal(&error))?;
            all.retain(|(handle, info)| {
                (snapshot.is_empty() || snapshot == *handle) && (volume.is_empty() || volume == info.volume)
            });
            Ok(all)
        })
        .await
    }

    /// What is known of a volume. Not a call: rules do not apply to it and it is not logged.
    ///
    /// # Errors
    /// When its description cannot be read.
    pub fn volume(&self, handle: &str) -> Result<Option<VolumeInfo>, Refusal> {
        if is_handle(handle) { self.0.volume(handle) } else { Ok(None) }
    }

    /// The directory with a volume's bytes, if there is such a volume.
    #[must_use]
    pub fn volume_folder(&self, handle: &str) -> Option<PathBuf> {
        let folder = is_handle(handle).then(|| self.0.volumes.dir(handle))?;
        folder.is_dir().then_some(folder)
    }

    /// The directory with a snapshot's bytes, if there is such a snapshot.
    #[must_use]
    pub fn snapshot_folder(&self, handle: &str) -> Option<PathBuf> {
        let folder = is_handle(handle).then(|| self.0.snapshots.dir(handle))?;
        folder.is_dir().then_some(folder)
    }

    /// Changes how the calls from now on behave.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn control(&self, control: &Control) -> io::Result<()> {
        control.write(&control_file(&self.0.root))
    }

    /// All calls answered so far, in the order of the answers.
    ///
    /// # Errors
    /// When the call log cannot be read.
    pub fn calls(&self) -> io::Result<Vec<CallRecord>> {
        let text = std::fs::read_to_string(call_log(&self.0.root))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Runs one call: misbehaviour, then the work, then a line in the log.
    ///
    /// The work is a task of its own, because a driver goes on when its caller has given up. The directories of tests are
    /// small, so that copying them does not need a thread, whose end virtual time could not order.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        work: impl FnOnce(&Shared, &Control) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let arrived = (shared.clock)();
            let result = call.run(&shared, work).await;
            let answered = (shared.clock)();
            let (code, message) = match &result {
                Ok(_) => ("OK".to_owned(), String::new()),
                Err(refusal) => (format!("{:?}", refusal.code), refusal.message.clone()),
            };
            let record = CallRecord {
                at_ms: arrived.as_millisecond(),
                answered_ms: answered.as_millisecond(),
                call: call.name,
                volume: call.volume,
                snapshot: call.snapshot,
                result: code,
                message,
            };
            // An event without its line would make every proof from the log worthless.
            shared.log.write(&record).map_err(|error| internal(&about("writing", &call_log(&shared.root), &error)))?;
            result
        });
        task.await.map_err(|error| Refusal::new(FailureCode::Internal, error.to_string()))?
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn volume(&self, handle: &str) -> Result<Option<VolumeInfo>, Refusal> {
        self.volumes.get(handle).map_err(|error| internal(&error))
    }

    fn snapshot(&self, handle: &str) -> Result<Option<SnapshotInfo>, Refusal> {
        self.snapshots.get(handle).map_err(|error| internal(&error))
    }

    fn create_volume(&self, request: &VolumeRequest, control: &Control) -> Result<VolumeInfo, Refusal> {
        let VolumeRequest { name, required_bytes, limit_bytes, from_snapshot, .. } = request;
        let wanted = if *required_bytes > 0 { *required_bytes } else { DEFAULT_BYTES };
        let bytes = control.rounded(wanted);
        let refuse = |code, text| Err(Refusal::new(code, text));
        if *limit_bytes > 0 && bytes > *limit_bytes {
            return refuse(FailureCode::OutOfRange, format!("{bytes} bytes are above the limit of {limit_bytes}"));
        }
        if let Some(there) = self.volume(name)? {
            if there.from_snapshot != *from_snapshot || there.bytes < wanted {
                let text = format!("volume {name} exists with other properties: {there:?}");
                return refuse(FailureCode::AlreadyExists, text);
            }
            return Ok(there);
        }
        let source = match from_snapshot {
            None => None,
            Some(handle) => {
                let Some(snapshot) = self.snapshot(handle)? else {
                    return refuse(FailureCode::NotFound, format!("snapshot {handle} does not exist"));
                };
                if bytes < snapshot.bytes {
                    let text = format!("{bytes} bytes are too few for snapshot {handle} of {} bytes", snapshot.bytes);
                    return refuse(FailureCode::OutOfRange, text);
                }
                Some(self.snapshots.dir(handle))
            }
        };
        let delete_snapshots_with_volume = control.delete_snapshots_with_volume;
        let info = VolumeInfo { bytes, from_snapshot: from_snapshot.clone(), delete_snapshots_with_volume };
        self.volumes.create(name, &info, source.as_deref()).map_err(|error| internal(&error))?;
        Ok(info)
    }

    fn delete_volume(&self, handle: &str, control: &Control) -> Result<(), Refusal> {
        let Some(volume) = self.volume(handle)? else { return Ok(()) };
        let mut snapshots = self.snapshots.all::<SnapshotInfo>().map_err(|error| internal(&error))?;
        snapshots.retain(|(_, info)| info.volume == handle);
        if control.keep_volumes_with_snapshots && !snapshots.is_empty() {
            let text = format!("volume {handle} has {} snapshots", snapshots.len());
            return Err(Refusal::new(FailureCode::FailedPrecondition, text));
        }
        if control.delete_snapshots_with_volume || volume.delete_snapshots_with_volume {
            for (snapshot, _) in &snapshots {
                self.snapshots.remove(snapshot).map_err(|error| internal(&error))?;
            }
        }
        self.volumes.remove(handle).map_err(|error| internal(&error))
    }

    fn create_snapshot(&self, name: &str, volume: &str, control: &Control) -> Result<SnapshotInfo, Refusal> {
        if let Some(there) = self.snapshot(name)? {
            if there.volume != volume {
                let text = format!("snapshot {name} is of volume {}", there.volume);
                return Err(Refusal::new(FailureCode::AlreadyExists, text));
            }
            return Ok(there);
        }
        let Some(source) = self.volume(volume)? else {
            return Err(Refusal::new(FailureCode::NotFound, format!("volume {volume} does not exist")));
        };
        let (never_ready, cut_at) = (control.never_ready, (self.clock)());
        let info = SnapshotInfo { volume: volume.to_owned(), bytes: source.bytes, cut_at, never_ready };
        self.snapshots.create(name, &info, Some(&self.volumes.dir(volume))).map_err(|error| internal(&error))?;
        Ok(info)
    }
}

/// One call as rules and the log see it.
struct Call {
    name: CallName,
    volume: String,
    snapshot: String,
    parameters: BTreeMap<String, String>,
}

impl Call {
    fn of(name: CallName) -> Self {
        Self { name, volume: String::new(), snapshot: String::new(), parameters: BTreeMap::new() }
    }

    async fn run<T>(
        &self,
        shared: &Arc<Shared>,
        work: impl FnOnce(&Shared, &Control) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let handles = [self.volume.as_str(), self.snapshot.as_str()];
        if let Some(bad) = handles.iter().find(|handle| !handle.is_empty() && !is_handle(handle)) {
            return Err(Refusal::new(FailureCode::InvalidArgument, format!("{bad:?} is not a handle of this driver")));
        }
        let control = Control::read(&control_file(&shared.root)).map_err(|error| internal(&error))?;
        let control = control.with_parameters(self.name, &self.parameters)?;
        let subject = match self.name {
            CallName::CreateVolume | CallName::DeleteVolume => &self.volume,
            CallName::CreateSnapshot | CallName::DeleteSnapshot => &self.snapshot,
            CallName::ListSnapshots => "",
        };
        let _busy = if subject.is_empty() { None } else { Some(mark_busy(shared, subject)?) };
        let (delay, failure) = shared.state().met.apply(&control, self.name, &handles);
        tokio::time::sleep(delay).await;
        failure.map_or_else(|| work(shared, &control), Err)
    }
}

fn mark_busy(shared: &Arc<Shared>, subject: &str) -> Result<Busy, Refusal> {
    if !shared.state().busy.insert(subject.to_owned()) {
        return Err(Refusal::new(FailureCode::Aborted, format!("a call about {subject} is still running")));
    }
    Ok(Busy(Arc::clone(shared), subject.to_owned()))
}

fn internal(error: &io::Error) -> Refusal {
    Refusal::new(FailureCode::Internal, error.to_string())
}

/// The error with what was being done to which file.
fn about(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} {}: {error}", path.display()))
}

fn required(value: &str, what: &str) -> Result<String, Refusal> {
    if value.is_empty() {
        return Err(Refusal::new(FailureCode::InvalidArgument, format!("{what} is missing")));
    }
    Ok(value.to_owned())
}
