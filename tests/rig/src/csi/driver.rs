//! The CSI services: identity and the controller half.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bpfman_csi::v1::controller_server::Controller;
use bpfman_csi::v1::controller_service_capability::{Rpc, Type as ControllerType, rpc};
use bpfman_csi::v1::identity_server::Identity;
use bpfman_csi::v1::plugin_capability::{Service, Type as PluginType, service};
use bpfman_csi::v1::volume_content_source::{SnapshotSource, Type as SourceType};
use bpfman_csi::v1::{self as csi, VolumeContentSource};
use tonic::{Request, Response, Status};

use super::control::{CallName, Control, Met};
use super::log::{CallLog, CallRecord};
use super::store::{Shelf, SnapshotInfo, VolumeInfo, is_handle};

const DEFAULT_BYTES: i64 = 1 << 30;

type Answer<T> = Result<Response<T>, Status>;

/// The driver; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Driver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    volumes: Shelf,
    snapshots: Shelf,
    control: PathBuf,
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn volume(&self, handle: &str) -> Result<Option<VolumeInfo>, Status> {
        self.volumes.get(handle).map_err(|error| internal(&error))
    }

    fn snapshot(&self, handle: &str) -> Result<Option<SnapshotInfo>, Status> {
        self.snapshots.get(handle).map_err(|error| internal(&error))
    }

    fn snapshots_of(&self, volume: &str) -> Result<Vec<(String, SnapshotInfo)>, Status> {
        let mut all = self.snapshots.all::<SnapshotInfo>().map_err(|error| internal(&error))?;
        all.retain(|(_, info)| info.volume == volume);
        Ok(all)
    }

    fn create_volume(&self, request: &csi::CreateVolumeRequest, control: &Control) -> Result<csi::Volume, Status> {
        let name = request.name.as_str();
        let range = request.capacity_range.clone().unwrap_or_default();
        let wanted = if range.required_bytes > 0 { range.required_bytes } else { DEFAULT_BYTES };
        let from_snapshot = source_snapshot(request)?;
        let bytes = control.rounded(wanted);
        if range.limit_bytes > 0 && bytes > range.limit_bytes {
            return Err(Status::out_of_range(format!("{bytes} bytes are above the limit of {}", range.limit_bytes)));
        }
        if let Some(there) = self.volume(name)? {
            if there.from_snapshot != from_snapshot || there.bytes < wanted {
                return Err(Status::already_exists(format!("volume {name} exists with other properties: {there:?}")));
            }
            return Ok(as_volume(name, there));
        }
        let source = match &from_snapshot {
            None => None,
            Some(handle) => {
                let Some(snapshot) = self.snapshot(handle)? else {
                    return Err(Status::not_found(format!("snapshot {handle} does not exist")));
                };
                if bytes < snapshot.bytes {
                    let text = format!("{bytes} bytes are too few for snapshot {handle} of {} bytes", snapshot.bytes);
                    return Err(Status::out_of_range(text));
                }
                Some(self.snapshots.dir(handle))
            }
        };
        let delete_snapshots_with_volume = control.delete_snapshots_with_volume;
        let info = VolumeInfo { bytes, from_snapshot, delete_snapshots_with_volume };
        self.volumes.create(name, &info, source.as_deref()).map_err(|error| internal(&error))?;
        Ok(as_volume(name, info))
    }

    fn delete_volume(&self, handle: &str, control: &Control) -> Result<(), Status> {
        let Some(volume) = self.volume(handle)? else { return Ok(()) };
        let snapshots = self.snapshots_of(handle)?;
        if control.keep_volumes_with_snapshots && !snapshots.is_empty() {
            let text = format!("volume {handle} has {} snapshots", snapshots.len());
            return Err(Status::failed_precondition(text));
        }
        if control.delete_snapshots_with_volume || volume.delete_snapshots_with_volume {
            for (snapshot, _) in &snapshots {
                self.snapshots.remove(snapshot).map_err(|error| internal(&error))?;
            }
        }
        self.volumes.remove(handle).map_err(|error| internal(&error))
    }

    fn create_snapshot(&self, name: &str, volume: &str, control: &Control) -> Result<csi::Snapshot, Status> {
        if let Some(there) = self.snapshot(name)? {
            if there.volume != volume {
                return Err(Status::already_exists(format!("snapshot {name} is of volume {}", there.volume)));
            }
            return Ok(as_snapshot(name, there));
        }
        let Some(source) = self.volume(volume)? else {
            return Err(Status::not_found(format!("volume {volume} does not exist")));
        };
        let never_ready = control.never_ready;
        let cut_at = jiff::Timestamp::now();
        let info = SnapshotInfo { volume: volume.to_owned(), bytes: source.bytes, cut_at, never_ready };
        self.snapshots.create(name, &info, Some(&self.volumes.dir(volume))).map_err(|error| internal(&error))?;
        Ok(as_snapshot(name, info))
    }

    fn list_snapshots(&self, request: &csi::ListSnapshotsRequest) -> Result<csi::ListSnapshotsResponse, Status> {
        let mut all = self.snapshots.all::<SnapshotInfo>().map_err(|error| internal(&error))?;
        all.retain(|(handle, info)| {
            (request.snapshot_id.is_empty() || request.snapshot_id == *handle)
                && (request.source_volume_id.is_empty() || request.source_volume_id == info.volume)
        });
        let entry = |(handle, info): (String, SnapshotInfo)| csi::list_snapshots_response::Entry {
            snapshot: Some(as_snapshot(&handle, info)),
        };
        let entries = all.into_iter().map(entry).collect();
        Ok(csi::ListSnapshotsResponse { entries, next_token: String::new() })
    }
}

impl Driver {
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(root)?;
        Ok(Self(Arc::new(Shared {
            volumes: Shelf::open(super::volumes_dir(root), root.join("described/volumes"))?,
            snapshots: Shelf::open(super::snapshots_dir(root), root.join("described/snapshots"))?,
            control: super::control_file(root),
            log: CallLog::open(&super::call_log(root))?,
            state: Mutex::default(),
        })))
    }

    /// Runs one call: misbehaviour, then the work, then a line in the log.
    ///
    /// The work is a task of its own, because a driver goes on when its caller has given up.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        work: impl FnOnce(&Shared, &Control) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let arrived = jiff::Timestamp::now();
            let result = call.run(&shared, work).await;
            let answered = jiff::Timestamp::now();
            let (code, message) = match &result {
                Ok(_) => ("OK".to_owned(), String::new()),
                Err(status) => (format!("{:?}", status.code()), status.message().to_owned()),
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
            shared.log.write(&record).map_err(|error| Status::internal(format!("the call log: {error:#}")))?;
            result.map(Response::new)
        });
        task.await.map_err(|error| Status::internal(error.to_string()))?
    }
}

/// One call as rules and the log see it.
struct Call {
    name: CallName,
    volume: String,
    snapshot: String,
    parameters: HashMap<String, String>,
}

impl Call {
    async fn run<T: Send + 'static>(
        &self,
        shared: &Arc<Shared>,
        work: impl FnOnce(&Shared, &Control) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let handles = [self.volume.as_str(), self.snapshot.as_str()];
        if let Some(bad) = handles.iter().find(|handle| !handle.is_empty() && !is_handle(handle)) {
            return Err(Status::invalid_argument(format!("{bad:?} is not a handle of this driver")));
        }
        let control = Control::read(&shared.control).map_err(|error| Status::internal(format!("{error:#}")))?;
        let control = control.with_parameters(self.name, &self.parameters)?;
        let subject = match self.name {
            CallName::CreateVolume | CallName::DeleteVolume => &self.volume,
            CallName::CreateSnapshot | CallName::DeleteSnapshot => &self.snapshot,
            CallName::ListSnapshots => "",
        };
        let _busy = if subject.is_empty() { None } else { Some(mark_busy(shared, subject)?) };
        let (delay, failure) = shared.state().met.apply(&control, self.name, &handles);
        tokio::time::sleep(delay).await;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let shared = Arc::clone(shared);
        let done = tokio::task::spawn_blocking(move || work(&shared, &control)).await;
        done.map_err(|error| Status::internal(error.to_string()))?
    }
}

fn mark_busy(shared: &Arc<Shared>, subject: &str) -> Result<Busy, Status> {
    if !shared.state().busy.insert(subject.to_owned()) {
        return Err(Status::aborted(format!("a call about {subject} is still running")));
    }
    Ok(Busy(Arc::clone(shared), subject.to_owned()))
}

fn internal(error: &io::Error) -> Status {
    Status::internal(error.to_string())
}

fn required(value: String, what: &str) -> Result<String, Status> {
    if value.is_empty() { Err(Status::invalid_argument(format!("{what} is missing"))) } else { Ok(value) }
}

fn source_snapshot(request: &csi::CreateVolumeRequest) -> Result<Option<String>, Status> {
    match request.volume_content_source.as_ref().and_then(|source| source.r#type.as_ref()) {
        None => Ok(None),
        Some(SourceType::Snapshot(snapshot)) => Ok(Some(snapshot.snapshot_id.clone())),
        Some(SourceType::Volume(_)) => Err(Status::invalid_argument("this driver does not clone volumes")),
    }
}

fn as_volume(handle: &str, info: VolumeInfo) -> csi::Volume {
    let content_source = info
        .from_snapshot
        .map(|snapshot_id| VolumeContentSource { r#type: Some(SourceType::Snapshot(SnapshotSource { snapshot_id })) });
    csi::Volume { capacity_bytes: info.bytes, volume_id: handle.to_owned(), content_source, ..csi::Volume::default() }
}

fn as_snapshot(handle: &str, info: SnapshotInfo) -> csi::Snapshot {
    let mut snapshot = csi::Snapshot {
        size_bytes: info.bytes,
        snapshot_id: handle.to_owned(),
        source_volume_id: info.volume,
        ready_to_use: !info.never_ready,
        ..csi::Snapshot::default()
    };
    let time = snapshot.creation_time.get_or_insert_default();
    (time.seconds, time.nanos) = (info.cut_at.as_second(), info.cut_at.subsec_nanosecond());
    snapshot
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(&self, _: Request<csi::GetPluginInfoRequest>) -> Answer<csi::GetPluginInfoResponse> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: super::DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Answer<csi::GetPluginCapabilitiesResponse> {
        let controller = PluginType::Service(Service { r#type: service::Type::ControllerService.into() });
        let capabilities = vec![csi::PluginCapability { r#type: Some(controller) }];
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Answer<csi::ProbeResponse> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Driver {
    async fn create_volume(&self, request: Request<csi::CreateVolumeRequest>) -> Answer<csi::CreateVolumeResponse> {
        let request = request.into_inner();
        let call = Call {
            name: CallName::CreateVolume,
            volume: required(request.name.clone(), "the name")?,
            snapshot: source_snapshot(&request)?.unwrap_or_default(),
            parameters: request.parameters.clone(),
        };
        self.call(call, move |driver, control| {
            Ok(csi::CreateVolumeResponse { volume: Some(driver.create_volume(&request, control)?) })
        })
        .await
    }

    async fn delete_volume(&self, request: Request<csi::DeleteVolumeRequest>) -> Answer<csi::DeleteVolumeResponse> {
        let volume = required(request.into_inner().volume_id, "the volume id")?;
        let (snapshot, parameters) = (String::new(), HashMap::new());
        let call = Call { name: CallName::DeleteVolume, volume: volume.clone(), snapshot, parameters };
        self.call(call, move |driver, control| {
            driver.delete_volume(&volume, control)?;
            Ok(csi::DeleteVolumeResponse {})
        })
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        let request = request.into_inner();
        let call = Call {
            name: CallName::CreateSnapshot,
            volume: required(request.source_volume_id.clone(), "the source volume id")?,
            snapshot: required(request.name.clone(), "the name")?,
            parameters: request.parameters.clone(),
        };
        self.call(call, move |driver, control| {
            let snapshot = driver.create_snapshot(&request.name, &request.source_volume_id, control)?;
            Ok(csi::CreateSnapshotResponse { snapshot: Some(snapshot) })
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        let snapshot = required(request.into_inner().snapshot_id, "the snapshot id")?;
        let (volume, parameters) = (String::new(), HashMap::new());
        let call = Call { name: CallName::DeleteSnapshot, volume, snapshot: snapshot.clone(), parameters };
        self.call(call, move |driver, _| {
            driver.snapshots.remove(&snapshot).map_err(|error| internal(&error))?;
            Ok(csi::DeleteSnapshotResponse {})
        })
        .await
    }

    async fn list_snapshots(&self, request: Request<csi::ListSnapshotsRequest>) -> Answer<csi::ListSnapshotsResponse> {
        let request = request.into_inner();
        let call = Call {
            name: CallName::ListSnapshots,
            volume: request.source_volume_id.clone(),
            snapshot: request.snapshot_id.clone(),
            parameters: HashMap::new(),
        };
        self.call(call, move |driver, _| driver.list_snapshots(&request)).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        let offered = [rpc::Type::CreateDeleteVolume, rpc::Type::CreateDeleteSnapshot, rpc::Type::ListSnapshots];
        let capabilities = offered.map(|kind| csi::ControllerServiceCapability {
            r#type: Some(ControllerType::Rpc(Rpc { r#type: kind.into() })),
        });
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        let volume = required(request.volume_id, "the volume id")?;
        if !is_handle(&volume) || self.0.volume(&volume)?.is_none() {
            return Err(Status::not_found(format!("volume {volume} does not exist")));
        }
        let confirmed = csi::validate_volume_capabilities_response::Confirmed {
            volume_capabilities: request.volume_capabilities,
            ..Default::default()
        };
        let message = String::new();
        Ok(Response::new(csi::ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message }))
    }

    async fn controller_publish_volume(
        &self,
        _: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        Err(not_offered())
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        Err(not_offered())
    }

    async fn list_volumes(&self, _: Request<csi::ListVolumesRequest>) -> Answer<csi::ListVolumesResponse> {
        Err(not_offered())
    }

    async fn get_capacity(&self, _: Request<csi::GetCapacityRequest>) -> Answer<csi::GetCapacityResponse> {
        Err(not_offered())
    }

    async fn controller_expand_volume(
        &self,
        _: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        Err(not_offered())
    }

    async fn controller_get_volume(
        &self,
        _: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        Err(not_offered())
    }

    async fn controller_modify_volume(
        &self,
        _: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        Err(not_offered())
    }
}

fn not_offered() -> Status {
    Status::unimplemented("not among the capabilities of this driver")
}
