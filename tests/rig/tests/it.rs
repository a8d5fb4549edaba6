//! The rig does what the journeys take for granted: real bytes in volumes and snapshots, a Git host, fake nodes, a log of
//! every request, and nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "all of this is test code, the helper functions too"
)]

mod admission;
mod charts;
mod git_ssh;
mod pods;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use reqwest::Method;
use tokio::sync::Mutex;
use windlass_rig::csi::{CallName, CallRecord, Control, FailureCode, Rule};
use windlass_rig::{ADMIN, Binaries, Options, Rig, User, go_is_installed};

/// Two rigs at once would only make each other slow.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Builds the rig's servers if needed. Without Go there is no rig: a skip for a person, a failure in CI.
fn rig_is_built() -> bool {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    match Binaries::build() {
        Ok(_) => true,
        Err(error) if !ci && !go_is_installed() => {
            println!("SKIPPED: {error:#}");
            false
        }
        Err(error) => panic!("the rig cannot be built: {error:#}"),
    }
}

async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn claim(name: &str, snapshot: Option<&str>) -> String {
    let source = snapshot.map_or_else(String::new, |snapshot| {
        format!("  dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {snapshot}}}\n")
    });
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Mi}}}}\n{source}"
    )
}

/// Creates a claim and returns the folder of its volume.
async fn bound_volume(rig: &Rig, name: &str, snapshot: Option<&str>) -> PathBuf {
    rig.apply_yaml(&claim(name, snapshot)).await.unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(rig.admin_client());
    let volume = wait_for(&format!("claim {name} bound"), || async {
        let claim = claims.get(name).await.unwrap();
        claim.status.filter(|status| status.phase.as_deref() == Some("Bound")).and(claim.spec?.volume_name)
    })
    .await;
    rig.volumes_dir().join(volume)
}

fn git(args: &[&str], folder: &Path) {
    let output = Command::new("git")
        .args(["-c", "user.name=rig", "-c", "user.email=rig@example.com"])
        .args(args)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn volumes_and_snapshots_hold_real_bytes(rig: &Rig) {
    let volume = bound_volume(rig, "data", None).await;
    std::fs::write(volume.join("file"), "before the snapshot").unwrap();

    rig.apply_yaml(
        "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata: {name: data, namespace: default}\n\
         spec: {source: {persistentVolumeClaimName: data}}\n",
    )
    .await
    .unwrap();
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshot");
    let snapshots: Api<DynamicObject> = Api::default_namespaced_with(rig.admin_client(), &ApiResource::from_gvk(&kind));
    wait_for("snapshot ready", || async {
        (snapshots.get("data").await.unwrap().data["status"]["readyToUse"] == true).then_some(())
    })
    .await;

    std::fs::write(volume.join("file"), "after the snapshot").unwrap();
    let restored = bound_volume(rig, "restored", Some("data")).await;
    assert_eq!(std::fs::read_to_string(restored.join("file")).unwrap(), "before the snapshot");

    let calls = rig.csi_calls().unwrap();
    let at = |call, handle: &Path| {
        let is =
            |record: &CallRecord| record.call == call && record.volume == handle.file_name().unwrap().to_str().unwrap();
        calls.iter().find(|record| is(record)).unwrap().answered_ms
    };
    assert!(at(CallName::CreateVolume, &volume) <= at(CallName::CreateSnapshot, &volume), "{calls:?}");
    assert!(at(CallName::CreateSnapshot, &volume) <= at(CallName::CreateVolume, &restored), "{calls:?}");
}

async fn the_csi_driver_fails_on_demand(rig: &Rig) {
    let rule = Rule { first: Some(2), ..Rule::fail(CallName::CreateVolume, FailureCode::Unavailable) };
    rig.control_csi(&Control { rules: vec![rule], ..Control::default() }).unwrap();
    let volume = bound_volume(rig, "unlucky", None).await;
    let handle = volume.file_name().unwrap().to_str().unwrap();
    let calls = rig.csi_calls().unwrap();
    let results: Vec<_> = calls.iter().filter(|call| call.volume == handle).map(|call| call.result.as_str()).collect();
    assert_eq!(results, ["Unavailable", "Unavailable", "OK"]);
    rig.control_csi(&Control::default()).unwrap();
}

async fn a_repository_is_pushed_to_and_cloned(rig: &Rig) {
    let gitea = rig.gitea().unwrap();
    gitea.create_repo("apps", "fleet").await.unwrap();
    let url = gitea.clone_url_with_token("apps", "fleet");
    let folder = tempfile::tempdir().unwrap();
    git(&["init", "-q", "-b", "main", "here"], folder.path());
    std::fs::write(folder.path().join("here/app.yaml"), "version: 1.0.0\n").unwrap();
    git(&["add", "app.yaml"], &folder.path().join("here"));
    git(&["commit", "-q", "-m", "Add the app"], &folder.path().join("here"));
    git(&["push", "-q", &url, "main"], &folder.path().join("here"));
    git(&["clone", "-q", &url, "there"], folder.path());
    assert_eq!(std::fs::read_to_string(folder.path().join("there/app.yaml")).unwrap(), "version: 1.0.0\n");

    rig.stop_component("gitea").unwrap();
    gitea.api(Method::GET, "/repos/apps/fleet", None).await.unwrap_err();
    rig.start_component("gitea").await.unwrap();
    gitea.api(Method::GET, "/repos/apps/fleet", None).await.unwrap();
}

async fn a_commit_reaches_the_cluster(rig: &Rig) {
    let gitea = rig.gitea().unwrap();
    let url = gitea.create_repo("apps", "delivered").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    git(&["init", "-q", "-b", "main"], folder.path());
    let object =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: delivered, namespace: default}\ndata: {from: git}\n";
    std::fs::write(folder.path().join("object.yaml"), object).unwrap();
    git(&["add", "."], folder.path());
    git(&["commit", "-q", "-m", "Deliver an object"], folder.path());
    git(&["push", "-q", &gitea.clone_url_with_token("apps", "delivered"), "main"], folder.path());
    rig.apply_yaml(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: git, namespace: flux-system}}\n\
         stringData: {{username: {user}, password: {token}}}\n---\n\
         apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\n\
         metadata: {{name: delivered, namespace: flux-system}}\n\
         spec: {{url: \"{url}\", interval: 1m, ref: {{branch: main}}, secretRef: {{name: git}}}}\n---\n\
         apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n\
         metadata: {{name: delivered, namespace: flux-system}}\n\
         spec: {{interval: 1m, path: ./, prune: true, sourceRef: {{kind: GitRepository, name: delivered}}}}\n",
        user = gitea.admin(),
        token = gitea.token(),
    ))
    .await
    .unwrap();
    let objects: Api<ConfigMap> = Api::default_namespaced(rig.admin_client());
    wait_for("commit delivered", || async { objects.get_opt("delivered").await.unwrap() }).await;
    let events = rig.audit().unwrap();
    let applied = events.iter().find(|event| {
        event.is_write()
            && event
                .object_ref
                .as_ref()
                .is_some_and(|object| object.name == "delivered" && object.resource == "configmaps")
    });
    assert_eq!(applied.unwrap().user.username, "kustomize-controller");
}

async fn pods_of_fake_nodes_become_ready(rig: &Rig) {
    rig.apply_yaml(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: pretender, namespace: default}\nspec:\n  replicas: 2\n  \
         selector: {matchLabels: {app: pretender}}\n  template:\n    metadata: {labels: {app: pretender}}\n    spec:\n      \
         tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]\n      nodeSelector: {type: fake}\n      \
         containers: [{name: main, image: nothing}]\n",
    )
    .await
    .unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(rig.admin_client());
    wait_for("deployment ready", || async {
        let status = deployments.get("pretender").await.unwrap().status?;
        (status.ready_replicas == Some(2)).then_some(())
    })
    .await;
}

async fn every_request_is_logged_with_its_user(rig: &Rig) {
    let nobody = rig.client_for("nobody").await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(nobody);
    let refused = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

    let events = rig.audit().unwrap();
    let made_by = |user: &str, resource: &str| {
        events.iter().any(|event| {
            event.user.username == user && event.is_write() && event.resource().as_deref() == Some(resource)
        })
    };
    assert!(made_by(ADMIN, "/persistentvolumeclaims"));
    assert!(made_by("csi-provisioner", "/persistentvolumes"));
    assert!(made_by("csi-snapshotter", "snapshot.storage.k8s.io/volumesnapshotcontents/status"));
    assert!(events.iter().any(|event| event.user.username == "nobody" && event.verb == "list" && !event.is_write()));
}

fn is_running(pid: u32) -> bool {
    // A process that has ended but was not waited for yet still has an entry.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rig_gives_what_journeys_need_and_leaves_nothing_behind() {
    let _turn = ONE_AT_A_TIME.lock().await;
    if !rig_is_built() {
        return;
    }
    let rig = Rig::start(Options { users: vec![User::new("nobody", &[])], ..Options::default() }).await.unwrap();
    println!("rig up: {:.2} s; {}", rig.started_in().as_secs_f64(), rig.components().join(", "));
    assert!(rig.components().contains(&"kustomize-controller".to_owned()));

    // Most of this is waiting, so it is done at the same time as far as it does not get into each other's way.
    let began = Instant::now();
    let storage = async {
        volumes_and_snapshots_hold_real_bytes(&rig).await;
        the_csi_driver_fails_on_demand(&rig).await;
    };
    let git = async {
        a_repository_is_pushed_to_and_cloned(&rig).await;
        a_commit_reaches_the_cluster(&rig).await;
        git_ssh::repositories_are_read_and_written_over_ssh(&rig).await;
    };
    let admission = admission::what_is_installed_admits_and_allows_what_it_should(&rig);
    tokio::join!(storage, git, admission, pods_of_fake_nodes_become_ready(&rig));
    pods::pods_run_as_processes_and_releases_follow_flux(&rig).await;
    every_request_is_logged_with_its_user(&rig).await;
    println!("all looked at: {:.2} s", began.elapsed().as_secs_f64());
    rig.check().unwrap();

    let (pids, dir, began) = (rig.pids(), rig.dir().to_owned(), Instant::now());
    rig.stop().unwrap();
    println!("rig down: {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(pids.into_iter().filter(|pid| is_running(*pid)).collect::<Vec<_>>(), Vec::<u32>::new());
    assert!(!dir.exists());
}

fn windlass_rig(folder: &Path, command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_windlass-rig")).arg(command).env("TMPDIR", folder).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All processes that were told about something in `folder`, by their command line.
fn processes_about(folder: &Path) -> Vec<(u32, String)> {
    let text = folder.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let lines = pids.filter_map(|pid| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?)));
    lines.filter(|(pid, line)| line.contains(text) && is_running(*pid)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_die_with_a_supervisor_that_is_killed() {
    let _turn = ONE_AT_A_TIME.lock().await;
    if !rig_is_built() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // PostgreSQL runs as somebody else and must get through.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    println!("{}", windlass_rig(folder.path(), "up").trim());
    assert!(windlass_rig(folder.path(), "env").contains("export KUBECONFIG='"));
    assert!(processes_about(folder.path()).len() > 5);

    let states = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path().join("state.json"));
    let state = states.filter_map(|path| std::fs::read(path).ok()).next().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let killed = Command::new("kill").args(["-KILL", &state["pid"].to_string()]).status().unwrap();
    assert!(killed.success());
    wait_for("all servers dead", || async { processes_about(folder.path()).is_empty().then_some(()) }).await;

    // The folder could not be removed by the dead; the next command does it.
    assert_eq!(windlass_rig(folder.path(), "down"), "The rig is down.\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
