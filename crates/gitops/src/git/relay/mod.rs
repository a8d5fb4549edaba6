//! Stands between libgit2 and the server: libgit2 talks to a port of this machine, and this module to the world.
//!
//! libgit2 cannot be interrupted while it waits for a server, its timeouts can only be set by unsafe code, and some
//! redirects make it dereference a null pointer, whether it may follow them or not. Here waiting has limits, and dropping a
//! [`Relay`] closes the connections of a call that nobody waits for any more, which ends it. Of HTTP, libgit2 sees nothing but
//! the bodies of answers that are a success: no redirects, no headers, no logins. TLS and the credentials are ours
//! ([`web`]). SSH passes through as it is ([`ssh`]): libgit2 still proves who is who.

mod ssh;
mod web;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::Options;
use super::credentials::Keys;
use super::endpoint::{Endpoint, Scheme};
use crate::{GitopsError, Result};

/// What libgit2 is told to talk to, and what went wrong behind it.
#[derive(Clone)]
pub(super) struct Link {
    /// Never to be shown: it is good for as long as the relay is there.
    pub(super) url: String,
    heard: Arc<Mutex<Option<GitopsError>>>,
}

impl Link {
    fn new(url: String) -> Self {
        Self { url, heard: Arc::default() }
    }

    /// Says why an exchange cannot work. What was said first is the cause, the rest its consequences.
    fn say(&self, error: GitopsError) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// What was said since this was asked last.
    pub(super) fn heard(&self) -> Option<GitopsError> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The way to one server, for one call. Dropping it closes all connections.
pub(super) struct Relay {
    pub(super) link: Link,
    task: Option<AbortHandle>,
}

impl Relay {
    /// Opens a port for `endpoint`. Files need none.
    ///
    /// # Errors
    /// [`GitopsError::Untrusted`] when the certificate authorities cannot be used; [`GitopsError::Unreachable`] when this
    /// machine gives no port.
    pub(super) async fn open(
        repository: &str,
        endpoint: &Endpoint,
        keys: Arc<Keys>,
        options: &Options,
    ) -> Result<Self> {
        if !endpoint.is_remote() {
            return Ok(Self { link: Link::new(endpoint.url.clone()), task: None });
        }
        let local = |why: String| GitopsError::Unreachable { repository: repository.to_owned(), why };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| local(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| local(error.to_string()))?;
        let (link, task) = if endpoint.scheme == Scheme::Ssh {
            let link = Link::new(ssh::local_url(&endpoint.url, address));
            let tunnel = Arc::new(ssh::Tunnel::new(repository, endpoint, options, link.clone()));
            let task = serve(listener, move |stream| tunnel.clone().carry(stream));
            (link, tokio::spawn(task).abort_handle())
        } else {
            let secret = web::secret_path().ok_or_else(|| local("this machine gives no random numbers".to_owned()))?;
            let link = Link::new(format!("http://{address}{secret}"));
            let forward = Arc::new(web::Forward::new(repository, endpoint, keys, options, secret, link.clone())?);
            let task = serve(listener, move |stream| forward.clone().carry(stream));
            (link, tokio::spawn(task).abort_handle())
        };
        Ok(Self { link, task: Some(task) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Carries every connection; they end with this future.
async fn serve<F: Future<Output = ()> + Send + 'static>(listener: TcpListener, carry: impl Fn(TcpStream) -> F) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(carry(stream))),
                // Without a listener libgit2 is refused, which is an error like any other.
                Err(_) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::SecretKeys;
    use super::*;

    #[derive(Debug)]
    struct Never;

    #[async_trait::async_trait]
    impl upgrade_core::ports::Clock for Never {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        async fn sleep(&self, _: jiff::SignedDuration) {}
    }

    #[tokio::test]
    async fn whoever_does_not_know_the_path_gets_nothing_and_the_server_hears_nothing() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let url = format!("http://{}/apps.git", server.local_addr().unwrap());
        let endpoint = Endpoint::parse("apps", &url, false).unwrap();
        let secret = |text: &str| secrecy::SecretSlice::from(text.as_bytes().to_vec());
        let keys = SecretKeys::from([("password".to_owned(), secret("hunter2"))]);
        let keys = Arc::new(Keys::new("apps", "git-write", &endpoint, &keys).unwrap());
        let relay = Relay::open("apps", &endpoint, keys, &Options::new(Arc::new(Never))).await.unwrap();
        let (address, path) = relay.link.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let ask = async |request: String| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        for request in [
            "GET /info/refs?service=git-upload-pack".to_owned(),
            format!("GET /{}/info/refs?service=git-upload-pack", "0".repeat(32)),
            format!("GET /{path}/info/refs?service=git-upload-pack&x=y"),
            format!("GET /{path}/settings"),
            format!("POST /{path}/../other.git/git-receive-pack"),
        ] {
            let answer = ask(request.clone()).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
        }
        assert!(server.accept().is_err(), "nobody came");
        drop(relay);
    }
}
