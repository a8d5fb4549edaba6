//! Where credentials come from, which of them a URL may use, and how they are kept out of every text.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretSlice};
use upgrade_core::Failure;
use upgrade_core::ports::AppRef;

use super::endpoint::{Endpoint, Scheme};
use crate::{GitopsError, Result};

/// The keys of one Secret, with the names that Flux uses.
pub type SecretKeys = BTreeMap<String, SecretSlice<u8>>;

/// Reads the Secrets that repositories name.
///
/// - **Flow**: called once per operation on a repository that names a Secret; nothing is kept between calls.
/// - **Guarantees**: only Secrets of the app's own namespace are read.
/// - **Assumptions**: none.
/// - **Cancellation**: may be dropped at any time.
/// - **Errors**: a Secret that does not exist is permanent; a store that does not answer is transient.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// All keys of the Secret `name`.
    async fn secret(&self, app: &AppRef, name: &str) -> Result<SecretKeys, Failure>;
}

/// Secrets of the cluster.
#[derive(Clone)]
pub struct KubeCredentials {
    client: Client,
}

impl KubeCredentials {
    /// Reads with this client, which needs `get` on Secrets in the namespaces of the apps.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Credentials for KubeCredentials {
    async fn secret(&self, app: &AppRef, name: &str) -> Result<SecretKeys, Failure> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &app.namespace);
        let found = secrets.get_opt(name).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 403 => Failure::permanent(
                "git-credentials",
                format!("reading secret {name} in namespace {} is forbidden", app.namespace),
            )
            .with_hint("give the operator the right to get this Secret"),
            // Only what the API server says about the request: never a body.
            other => {
                Failure::transient("git-credentials", format!("secret {name} in namespace {}: {other}", app.namespace))
            }
        })?;
        let Some(secret) = found else {
            return Err(Failure::permanent(
                "git-credentials",
                format!("there is no secret {name} in namespace {}", app.namespace),
            )
            .with_hint("create it in the namespace of the ManagedApp, with the keys that Flux uses"));
        };
        Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, SecretSlice::from(value.0))).collect())
    }
}

/// How to prove who we are.
pub(super) enum Login {
    Nothing,
    Password {
        username: String,
        password: String,
    },
    /// Sent as a header, so its text must be a header's.
    Bearer {
        token: String,
    },
    Key {
        private: String,
        public: Option<String>,
        passphrase: Option<String>,
    },
}

/// The credentials of one repository, checked against its URL.
pub(super) struct Keys {
    pub(super) login: Login,
    /// PEM of the only certificate authorities to trust.
    pub(super) ca: Option<Vec<u8>>,
    /// The only SSH host keys to trust.
    pub(super) known_hosts: Option<String>,
    secrets: Vec<String>,
}

impl Keys {
    /// Takes from a Secret what the URL may use.
    ///
    /// # Errors
    /// [`GitopsError::Credentials`] when something needed is missing, or cannot be sent safely.
    pub(super) fn new(repository: &str, secret: &str, endpoint: &Endpoint, keys: &SecretKeys) -> Result<Self> {
        let error =
            |why: String| GitopsError::Credentials { repository: repository.into(), secret: secret.into(), why };
        let text = |key: &str| -> Result<Option<String>> {
            let Some(value) = keys.get(key) else { return Ok(None) };
            let text = std::str::from_utf8(value.expose_secret()).map_err(|_| error(format!("{key} is not UTF-8")))?;
            Ok((!text.is_empty()).then(|| text.to_owned()))
        };
        // A file often ends in a line break that is not part of the secret.
        let line = |key: &str| -> Result<Option<String>> {
            let Some(text) = text(key)? else { return Ok(None) };
            let text = text.trim_end_matches(['\r', '\n']);
            if text.chars().any(char::is_control) {
                return Err(error(format!("{key} has control characters")));
            }
            Ok(Some(text.to_owned()))
        };
        let (username, password, bearer) = (line("username")?, line("password")?, line("bearerToken")?);
        let login = match endpoint.scheme {
            Scheme::File => Login::Nothing,
            Scheme::Http | Scheme::Https => match (bearer, username, password) {
                (Some(token), _, _) if !token.is_ascii() => return Err(error("bearerToken is not ASCII".into())),
                (Some(token), _, _) => Login::Bearer { token },
                (None, username, Some(password)) => {
                    Login::Password { username: username.unwrap_or_else(|| "git".to_owned()), password }
                }
                (None, Some(_), None) => return Err(error("it has a username, but no password".into())),
                (None, None, None) => Login::Nothing,
            },
            Scheme::Ssh => {
                let private = text("identity")?.ok_or_else(|| error("ssh needs the key identity".into()))?;
                if password.is_none() && is_encrypted(&private) {
                    return Err(error(
                        "identity is encrypted, and its passphrase, the key password, is missing".into(),
                    ));
                }
                Login::Key { private, public: text("identity.pub")?, passphrase: password }
            }
        };
        let known_hosts = text("known_hosts")?;
        if endpoint.scheme == Scheme::Ssh && known_hosts.is_none() {
            return Err(error("ssh needs the key known_hosts, or anybody could answer".into()));
        }
        let ca = text("ca.crt")?.or(text("caFile")?).map(String::into_bytes);
        let mut keys = Self { login, ca, known_hosts, secrets: Vec::new() };
        keys.secrets = keys.spellings();
        Ok(keys)
    }

    /// The value of the header `Authorization`, where there is one to be sent.
    pub(super) fn authorization(&self) -> Option<String> {
        match &self.login {
            Login::Password { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Login::Bearer { token } => Some(format!("Bearer {token}")),
            Login::Nothing | Login::Key { .. } => None,
        }
    }

    /// Every spelling in which a server or library might repeat a secret; the longest first, so that none is cut in two.
    fn spellings(&self) -> Vec<String> {
        let mut all = match &self.login {
            Login::Nothing => Vec::new(),
            Login::Password { username, password } => vec![
                password.clone(),
                percent_encoded(password),
                STANDARD.encode(password),
                STANDARD.encode(format!("{username}:{password}")),
            ],
            Login::Bearer { token } => vec![token.clone(), percent_encoded(token), STANDARD.encode(token)],
            Login::Key { private, passphrase, .. } => private
                .lines()
                .filter(|line| !line.starts_with("-----"))
                .map(str::to_owned)
                .chain(passphrase.clone())
                .collect(),
        };
        all.retain(|text| !text.trim().is_empty());
        all.sort_by_key(|text| std::cmp::Reverse(text.len()));
        all
    }

    /// The text without any secret, without control characters, and short enough for an error.
    pub(super) fn redact(&self, text: &str) -> String {
        let clean = self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"));
        let clean: String = clean.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
        clean.trim().to_owned()
    }
}

/// Whether a private key wants a passphrase, in any of the forms that `ssh-keygen` and `openssl` write.
fn is_encrypted(private: &str) -> bool {
    let is_header = |line: &&str| line.starts_with("-----") || line.contains(':');
    if private.lines().filter(is_header).any(|line| line.contains("ENCRYPTED")) {
        return true;
    }
    let body: String = private.lines().map(str::trim).filter(|line| !is_header(line)).collect();
    let bytes = STANDARD.decode(body).unwrap_or_default();
    // OpenSSH's own form names the cipher first.
    bytes.strip_prefix(b"openssh-key-v1\0").is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(url: &str, pairs: &[(&str, &str)]) -> Result<Keys> {
        let endpoint = Endpoint::parse("apps", url, true).unwrap();
        let secret = pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretSlice::from(value.as_bytes().to_vec())));
        Keys::new("apps", "git-write", &endpoint, &secret.collect())
    }

    #[test]
    fn a_secret_is_redacted_in_every_spelling() {
        let keys = keys("https://git.test/apps", &[("username", "bot"), ("password", "s3cr/t\n")]).unwrap();
        let text = format!("x s3cr/t y s3cr%2Ft z {} {}", STANDARD.encode("bot:s3cr/t"), STANDARD.encode("s3cr/t"));
        assert_eq!(keys.redact(&text), "x [redacted] y [redacted] z [redacted] [redacted]");
    }

    #[test]
    fn ssh_without_known_hosts_is_refused() {
        let error = keys("ssh://git@git.test/apps", &[("identity", "key")]).err().unwrap();
        assert!(error.to_string().contains("known_hosts"), "{error}");
    }

    #[test]
    fn a_token_that_would_add_a_header_is_refused_and_not_repeated() {
        let error = keys("https://git.test/apps", &[("bearerToken", "tok\r\nX-Evil: 1")]).err().unwrap();
        assert!(error.to_string().contains("control characters"), "{error}");
        assert!(!format!("{error} {error:?}").contains("tok\r"), "{error:?}");
    }

    #[test]
    fn an_encrypted_key_without_its_passphrase_is_refused_before_anybody_is_asked() {
        let openssh = |cipher: &[u8]| {
            let body = STANDARD.encode([b"openssh-key-v1\0", cipher].concat());
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
        };
        let (open, closed) = (openssh(b"\0\0\0\x04none\0"), openssh(b"\0\0\0\x0aaes256-ctr\0"));
        let new = |identity: &str, password: &str| {
            let pairs = [("identity", identity), ("password", password), ("known_hosts", "x")];
            keys("ssh://git@git.test/apps", &pairs).map(|_| ())
        };
        new(&open, "").unwrap();
        new(&closed, "passphrase").unwrap();
        let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMII=\n-----END EC PRIVATE KEY-----\n";
        for identity in [&closed, pkcs8, old] {
            let error = new(identity, "").unwrap_err();
            assert!(error.to_string().contains("passphrase"), "{error}");
        }
    }

    #[test]
    fn a_username_alone_is_no_login() {
        assert!(keys("https://git.test/apps", &[("username", "bot")]).is_err());
    }
}
