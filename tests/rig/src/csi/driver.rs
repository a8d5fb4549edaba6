//! The CSI services: identity and the controller half, which the folder driver does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bpfman_csi::v1::controller_server::Controller;
use bpfman_csi::v1::controller_service_capability::{Rpc, Type as ControllerType, rpc};
use bpfman_csi::v1::identity_server::Identity;
use bpfman_csi::v1::plugin_capability::{Service, Type as PluginType, service};
use bpfman_csi::v1::volume_content_source::{SnapshotSource, Type as SourceType};
use bpfman_csi::v1::{self as csi, VolumeContentSource};
use kube_sim::controllers::volumes::driver::{FolderDriver, SnapshotInfo, VolumeInfo, VolumeRequest};
use tonic::{Code, Request, Response, Status};

use super::{FailureCode, Refusal};

type Answer<T> = Result<Response<T>, Status>;

/// The driver behind gRPC; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Driver(FolderDriver);

impl Driver {
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        Ok(Self(FolderDriver::open(root, Arc::new(jiff::Timestamp::now))?))
    }
}

fn status(refusal: Refusal) -> Status {
    let code = match refusal.code {
        FailureCode::Cancelled => Code::Cancelled,
        FailureCode::Unknown => Code::Unknown,
        FailureCode::InvalidArgument => Code::InvalidArgument,
        FailureCode::DeadlineExceeded => Code::DeadlineExceeded,
        FailureCode::NotFound => Code::NotFound,
        FailureCode::AlreadyExists => Code::AlreadyExists,
        FailureCode::PermissionDenied => Code::PermissionDenied,
        FailureCode::ResourceExhausted => Code::ResourceExhausted,
        FailureCode::FailedPrecondition => Code::FailedPrecondition,
        FailureCode::Aborted => Code::Aborted,
        FailureCode::OutOfRange => Code::OutOfRange,
        FailureCode::Unimplemented => Code::Unimplemented,
        FailureCode::Internal => Code::Internal,
        FailureCode::Unavailable => Code::Unavailable,
        FailureCode::DataLoss => Code::DataLoss,
        FailureCode::Unauthenticated => Code::Unauthenticated,
    };
    Status::new(code, refusal.message)
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
        let from_snapshot = source_snapshot(&request)?;
        let range = request.capacity_range.unwrap_or_default();
        let wanted = VolumeRequest {
            name: request.name.clone(),
            required_bytes: range.required_bytes,
            limit_bytes: range.limit_bytes,
            from_snapshot,
            parameters: request.parameters.into_iter().collect(),
        };
        let info = self.0.create_volume(wanted).await.map_err(status)?;
        Ok(Response::new(csi::CreateVolumeResponse { volume: Some(as_volume(&request.name, info)) }))
    }

    async fn delete_volume(&self, request: Request<csi::DeleteVolumeRequest>) -> Answer<csi::DeleteVolumeResponse> {
        self.0.delete_volume(&request.into_inner().volume_id).await.map_err(status)?;
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        let csi::CreateSnapshotRequest { name, source_volume_id, parameters, .. } = request.into_inner();
        let parameters = parameters.into_iter().collect();
        let info = self.0.create_snapshot(&name, &source_volume_id, &parameters).await.map_err(status)?;
        Ok(Response::new(csi::CreateSnapshotResponse { snapshot: Some(as_snapshot(&name, info)) }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        self.0.delete_snapshot(&request.into_inner().snapshot_id).await.map_err(status)?;
        Ok(Response::new(csi::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(&self, request: Request<csi::ListSnapshotsRequest>) -> Answer<csi::ListSnapshotsResponse> {
        let request = request.into_inner();
        let found = self.0.list_snapshots(&request.snapshot_id, &request.source_volume_id).await.map_err(status)?;
        let entry = |(handle, info): (String, SnapshotInfo)| csi::list_snapshots_response::Entry {
            snapshot: Some(as_snapshot(&handle, info)),
        };
        let entries = found.into_iter().map(entry).collect();
        Ok(Response::new(csi::ListSnapshotsResponse { entries, next_token: String::new() }))
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
        let volume = request.volume_id;
        if self.0.volume(&volume).map_err(status)?.is_none() {
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
