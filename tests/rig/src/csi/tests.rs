//! The driver as a sidecar sees it, without the socket.

use std::time::Duration;

use bpfman_csi::v1::controller_server::Controller;
use bpfman_csi::v1::volume_content_source::{SnapshotSource, Type};
use bpfman_csi::v1::{
    CapacityRange, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest, Snapshot,
    Volume, VolumeContentSource,
};
use tempfile::TempDir;
use tonic::{Code, Request};

use super::driver::Driver;
use super::{CallName, CallRecord, Control, FailureCode, Rule, call_log, control_file, snapshots_dir, volumes_dir};

struct Fixture {
    root: TempDir,
    driver: Driver,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let driver = Driver::open(root.path()).unwrap();
        Self { root, driver }
    }

    fn control(&self, control: &Control) {
        control.write(&control_file(self.root.path())).unwrap();
    }

    fn rule(&self, rule: Rule) {
        self.control(&Control { rules: vec![rule], ..Control::default() });
    }

    async fn volume(&self, name: &str, bytes: i64, snapshot: Option<&str>) -> Result<Volume, Code> {
        let source =
            |id: &str| VolumeContentSource { r#type: Some(Type::Snapshot(SnapshotSource { snapshot_id: id.into() })) };
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_content_source: snapshot.map(source),
            ..CreateVolumeRequest::default()
        };
        let answer = self.driver.create_volume(Request::new(request)).await.map_err(|status| status.code())?;
        Ok(answer.into_inner().volume.unwrap())
    }

    async fn delete_volume(&self, id: &str) -> Result<(), Code> {
        let request = DeleteVolumeRequest { volume_id: id.to_owned(), ..DeleteVolumeRequest::default() };
        self.driver.delete_volume(Request::new(request)).await.map(drop).map_err(|status| status.code())
    }

    async fn snapshot(&self, name: &str, volume: &str) -> Result<Snapshot, Code> {
        let request = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        let answer = self.driver.create_snapshot(Request::new(request)).await.map_err(|status| status.code())?;
        Ok(answer.into_inner().snapshot.unwrap())
    }

    async fn delete_snapshot(&self, id: &str) -> Result<(), Code> {
        let request = DeleteSnapshotRequest { snapshot_id: id.to_owned(), ..DeleteSnapshotRequest::default() };
        self.driver.delete_snapshot(Request::new(request)).await.map(drop).map_err(|status| status.code())
    }

    fn calls(&self) -> Vec<CallRecord> {
        crate::lines::read_json_lines(&call_log(self.root.path())).unwrap()
    }
}

#[tokio::test]
async fn a_repeated_call_changes_nothing_and_a_contradicting_one_is_refused() {
    let csi = Fixture::new();
    let first = csi.volume("v", 10, None).await.unwrap();
    std::fs::write(volumes_dir(csi.root.path()).join("v/file"), "bytes").unwrap();
    assert_eq!(csi.volume("v", 10, None).await.unwrap(), first);
    assert!(volumes_dir(csi.root.path()).join("v/file").exists());
    assert_eq!(csi.volume("v", 11, None).await, Err(Code::AlreadyExists));

    let cut = csi.snapshot("s", "v").await.unwrap();
    std::fs::write(volumes_dir(csi.root.path()).join("v/file"), "later").unwrap();
    assert_eq!(csi.snapshot("s", "v").await.unwrap(), cut);
    assert_eq!(std::fs::read_to_string(snapshots_dir(csi.root.path()).join("s/file")).unwrap(), "bytes");
    csi.volume("w", 10, None).await.unwrap();
    assert_eq!(csi.snapshot("s", "w").await, Err(Code::AlreadyExists));

    for _ in 0..2 {
        csi.delete_snapshot("s").await.unwrap();
        csi.delete_volume("v").await.unwrap();
    }
}

#[tokio::test]
async fn what_a_volume_is_made_from_must_exist_and_fit() {
    let csi = Fixture::new();
    assert_eq!(csi.snapshot("s", "v").await, Err(Code::NotFound));
    assert_eq!(csi.volume("w", 10, Some("s")).await, Err(Code::NotFound));
    csi.volume("v", 10, None).await.unwrap();
    csi.snapshot("s", "v").await.unwrap();
    assert_eq!(csi.volume("w", 9, Some("s")).await, Err(Code::OutOfRange));
    csi.delete_volume("v").await.unwrap();
    csi.volume("w", 10, Some("s")).await.unwrap();
    assert_eq!(csi.volume("../w", 10, None).await, Err(Code::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn a_second_call_while_the_first_runs_is_told_so_and_work_goes_on_without_its_caller() {
    let csi = Fixture::new();
    csi.rule(Rule::slow(CallName::CreateVolume, Duration::from_millis(150)));
    let gave_up = tokio::time::timeout(Duration::from_millis(20), csi.volume("v", 10, None)).await;
    assert!(gave_up.is_err());
    assert_eq!(csi.volume("v", 10, None).await, Err(Code::Aborted));
    while csi.calls().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let results: Vec<_> = csi.calls().into_iter().map(|call| call.result).collect();
    assert_eq!(results, ["Aborted", "OK"]);
    assert!(volumes_dir(csi.root.path()).join("v").is_dir());
}

#[tokio::test]
async fn each_way_to_misbehave_is_to_be_had() {
    let csi = Fixture::new();
    csi.rule(Rule::fail(CallName::CreateVolume, FailureCode::ResourceExhausted));
    assert_eq!(csi.volume("v", 10, None).await, Err(Code::ResourceExhausted));
    assert!(!volumes_dir(csi.root.path()).join("v").exists());

    csi.control(&Control { round_up_to: Some(1000), ..Control::default() });
    assert_eq!(csi.volume("v", 10, None).await.unwrap().capacity_bytes, 1000);
    csi.control(&Control { never_ready: true, ..Control::default() });
    assert!(!csi.snapshot("s", "v").await.unwrap().ready_to_use);

    csi.control(&Control { keep_volumes_with_snapshots: true, ..Control::default() });
    assert_eq!(csi.delete_volume("v").await, Err(Code::FailedPrecondition));
    csi.control(&Control { delete_snapshots_with_volume: true, ..Control::default() });
    csi.delete_volume("v").await.unwrap();
    assert!(!snapshots_dir(csi.root.path()).join("s").exists());

    std::fs::write(control_file(csi.root.path()), r#"{"nevrReady": true}"#).unwrap();
    assert_eq!(csi.volume("w", 10, None).await, Err(Code::Internal));
}
