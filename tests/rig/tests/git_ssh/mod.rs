//! `PlainGit` over SSH, against the SSH server of a Git host: keys, host keys, and what is said when they do not fit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretSlice;
use tempfile::TempDir;
use upgrade_core::Failure;
use upgrade_core::ports::{Ancestry, AppRef, CommitRequest, GitManager as _, Pin, PinPart, PinValue, Repository};
use windlass_gitops::git::{Credentials, Options, PlainGit, SecretKeys};
use windlass_operator::SystemClock;
use windlass_rig::{GitHost, Rig};

use super::git;

const FILE: &str = "apps/notes/release.yaml";
const RELEASE: &str =
    "# by hand\nkind: HelmRelease\nmetadata: {name: notes}\nspec: {chart: {spec: {version: '1.4.0'}}} # !\n";
const PASSPHRASE: &str = "correct horse battery staple";
const WRONG_PASSPHRASE: &str = "incorrect pony";

/// One Secret, whatever it is called.
struct Secret(BTreeMap<&'static str, String>);

#[async_trait]
impl Credentials for Secret {
    async fn secret(&self, _: &AppRef, _: &str) -> Result<SecretKeys, Failure> {
        let bytes = |text: &String| SecretSlice::from(text.clone().into_bytes());
        Ok(self.0.iter().map(|(key, value)| ((*key).to_owned(), bytes(value))).collect())
    }
}

/// Keys that `ssh-keygen` makes, and managers that use them.
struct Desk {
    folder: TempDir,
    url: String,
    known_hosts: String,
}

impl Desk {
    fn key(&self, name: &str, passphrase: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-C", name, "-N", passphrase, "-f"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
        path
    }

    fn secret(&self, key: &Path) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("identity", std::fs::read_to_string(key).unwrap()),
            ("identity.pub", public(key)),
            ("known_hosts", self.known_hosts.clone()),
        ])
    }

    /// A manager without any copy yet.
    fn manager(&self, secret: &BTreeMap<&'static str, String>) -> PlainGit {
        let cache = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        PlainGit::new(Arc::new(Secret(secret.clone())), cache, Options::new(Arc::new(SystemClock::default())))
    }

    fn repository(&self) -> Repository {
        Repository {
            name: "over-ssh".into(),
            url: self.url.clone(),
            branch: "main".into(),
            paths: vec!["apps/notes/".into()],
            secret: Some("git-write".into()),
            author_name: "Windlass".into(),
            author_email: "windlass@example.com".into(),
            message_template: None,
        }
    }

    /// The failure of asking for the head, which must hold nothing of the secret.
    async fn refusal(&self, secret: &BTreeMap<&'static str, String>) -> Failure {
        let failure = self.manager(secret).head(&app(), &self.repository()).await.unwrap_err();
        assert_silent(&failure, secret);
        failure
    }
}

fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned()
}

fn assert_silent(failure: &Failure, secret: &BTreeMap<&'static str, String>) {
    let text = format!("{failure} {failure:?} {}", failure.hint);
    let lines = ["identity", "password"].iter().filter_map(|key| secret.get(key)).flat_map(|value| value.lines());
    for line in lines.filter(|line| !line.starts_with("-----")) {
        assert!(!text.contains(line), "{text}");
    }
}

fn app() -> AppRef {
    AppRef { namespace: "notes".into(), name: "notes".into(), uid: "1".into() }
}

fn chart() -> Pin {
    Pin {
        component: "chart".into(),
        repository: "over-ssh".into(),
        path: FILE.into(),
        object: "HelmRelease/notes".into(),
        field: "spec.chart.spec.version".into(),
        part: PinPart::Whole,
    }
}

fn change(repository: &Repository, operation: &str, from: &str, to: &str) -> CommitRequest {
    CommitRequest {
        repository: repository.clone(),
        changes: vec![PinValue { pin: chart(), value: to.into() }],
        expected: vec![from.into()],
        message: format!("notes: chart {from} -> {to}"),
        operation: operation.into(),
    }
}

fn assert_permanent(failure: &Failure, code: &str, says: &str) {
    assert_eq!((failure.code.as_str(), failure.retryable), (code, false), "{failure:?}");
    assert!(failure.message.contains(says), "{failure}");
}

/// How often somebody offered a key to the Git host that it does not know.
fn unknown_keys(rig: &Rig) -> usize {
    let log = std::fs::read_to_string(rig.logs_dir().join("gitea.log")).unwrap();
    log.lines().filter(|line| line.contains("Unknown public key")).count()
}

async fn repository_of(gitea: &GitHost, folder: &Path) {
    gitea.create_repo("apps", "over-ssh").await.unwrap();
    git(&["init", "-q", "-b", "main", "here"], folder);
    let here = folder.join("here");
    std::fs::create_dir_all(here.join("apps/notes")).unwrap();
    std::fs::write(here.join(FILE), RELEASE).unwrap();
    git(&["add", "."], &here);
    git(&["commit", "-q", "-m", "Add the app"], &here);
    git(&["push", "-q", &gitea.clone_url_with_token("apps", "over-ssh"), "main"], &here);
}

/// The file of the pin, as somebody else sees it.
fn cloned(gitea: &GitHost, folder: &Path, name: &str) -> String {
    git(&["clone", "-q", &gitea.clone_url_with_token("apps", "over-ssh"), name], folder);
    std::fs::read_to_string(folder.join(name).join(FILE)).unwrap()
}

pub(crate) async fn repositories_are_read_and_written_over_ssh(rig: &Rig) {
    let gitea = rig.gitea().unwrap();
    let folder = tempfile::tempdir().unwrap();
    repository_of(gitea, folder.path()).await;
    let (url, known_hosts) = (gitea.ssh_url("apps", "over-ssh"), gitea.known_hosts());
    let desk = Desk { folder, url, known_hosts };
    let writer = desk.key("writer", "");
    gitea.add_deploy_key("apps", "over-ssh", &public(&writer), true).await.unwrap();

    let manager = desk.manager(&desk.secret(&writer));
    let (app, repository) = (app(), desk.repository());
    let first = manager.head(&app, &repository).await.unwrap();
    assert_eq!(manager.pins(&app, &repository, &first, &[chart()]).await.unwrap()[0].value, "1.4.0");
    let bump = manager.commit(&app, &change(&repository, "op-1", "1.4.0", "1.5.0")).await.unwrap();
    assert_eq!(bump.parent, first);
    assert_eq!(manager.head(&app, &repository).await.unwrap(), bump.sha);
    assert_eq!(cloned(gitea, desk.folder.path(), "bumped"), RELEASE.replace("1.4.0", "1.5.0"));
    let other = desk.manager(&desk.secret(&writer));
    assert_eq!(other.find(&app, &repository, "op-1").await.unwrap(), Some(bump.clone()));
    assert_eq!(other.find(&app, &repository, "op-2").await.unwrap(), None);
    assert_eq!(other.ancestry(&app, &repository, &first, &bump.sha).await.unwrap(), Ancestry::Contained);
    assert_eq!(other.ancestry(&app, &repository, &bump.sha, &first).await.unwrap(), Ancestry::NotContained);
    let back = other.commit(&app, &change(&repository, "op-2", "1.5.0", "1.4.0")).await.unwrap();
    assert_eq!(back.parent, bump.sha);
    assert_eq!(cloned(gitea, desk.folder.path(), "reverted"), RELEASE);

    an_encrypted_key_needs_its_passphrase(&desk, gitea).await;
    keys_without_rights_are_denied(&desk, gitea, rig).await;
    host_keys_that_are_not_known_are_refused(&desk, rig).await;
}

async fn an_encrypted_key_needs_its_passphrase(desk: &Desk, gitea: &GitHost) {
    let key = desk.key("encrypted", PASSPHRASE);
    gitea.add_deploy_key("apps", "over-ssh", &public(&key), true).await.unwrap();
    let mut secret = desk.secret(&key);
    assert_permanent(&desk.refusal(&secret).await, "git-credentials", "identity is encrypted");
    secret.insert("password", WRONG_PASSPHRASE.into());
    assert_permanent(&desk.refusal(&secret).await, "git-denied", "password is not the passphrase of identity");
    secret.insert("password", PASSPHRASE.into());
    let request = change(&desk.repository(), "op-3", "1.4.0", "1.6.0");
    let record = desk.manager(&secret).commit(&app(), &request).await.unwrap();
    secret.remove("identity.pub");
    // As most editors save it, and as it comes out of `kubectl create secret --from-file`.
    secret.insert("password", format!("{PASSPHRASE}\n"));
    assert_eq!(desk.manager(&secret).head(&app(), &desk.repository()).await.unwrap(), record.sha);
}

async fn keys_without_rights_are_denied(desk: &Desk, gitea: &GitHost, rig: &Rig) {
    let before = unknown_keys(rig);
    let stranger = desk.secret(&desk.key("stranger", ""));
    assert_permanent(&desk.refusal(&stranger).await, "git-denied", "does not accept the key");
    assert!(unknown_keys(rig) > before, "the log of the Git host shows what is offered");

    let reader = desk.key("reader", "");
    gitea.add_deploy_key("apps", "over-ssh", &public(&reader), false).await.unwrap();
    let secret = desk.secret(&reader);
    let manager = desk.manager(&secret);
    let head = manager.head(&app(), &desk.repository()).await.unwrap();
    let failure = manager.commit(&app(), &change(&desk.repository(), "op-4", "1.6.0", "1.7.0")).await.unwrap_err();
    assert_permanent(&failure, "git-denied", "not authorized to write");
    assert_silent(&failure, &secret);
    assert_eq!(manager.head(&app(), &desk.repository()).await.unwrap(), head);
}

async fn host_keys_that_are_not_known_are_refused(desk: &Desk, rig: &Rig) {
    // A key that is not let in: if it were ever offered, the log of the Git host would have it.
    let mut secret = desk.secret(&desk.key("offered", ""));
    let before = unknown_keys(rig);
    let (host, _) = desk.known_hosts.split_once(' ').unwrap();
    let other = public(&desk.key("other-host", ""));
    secret.insert("known_hosts", format!("{host} {other}\n"));
    assert_permanent(&desk.refusal(&secret).await, "git-untrusted", "shows a host key (ssh-ed25519) that is not among");
    secret.insert("known_hosts", desk.known_hosts.replace("127.0.0.1", "git.test"));
    assert_permanent(&desk.refusal(&secret).await, "git-untrusted", "is not in known_hosts");
    secret.insert("known_hosts", String::new());
    assert_permanent(&desk.refusal(&secret).await, "git-credentials", "known_hosts");
    secret.insert("known_hosts", format!("{}@revoked {}", desk.known_hosts, desk.known_hosts));
    assert_permanent(&desk.refusal(&secret).await, "git-untrusted", "revoked");
    secret.remove("known_hosts");
    assert_permanent(&desk.refusal(&secret).await, "git-credentials", "known_hosts");
    assert_eq!(unknown_keys(rig), before, "nothing was offered to a host that is not known");
}
