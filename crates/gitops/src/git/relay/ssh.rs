//! Carries the bytes of an SSH connection, encrypted as they are, and ends it when the server falls silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Link;
use crate::GitopsError;
use crate::git::Options;
use crate::git::endpoint::Endpoint;

const BUFFER: usize = 16 * 1024;

/// `url` with the host and port replaced. The user goes too: libgit2 then asks for it.
pub(super) fn local_url(url: &str, address: SocketAddr) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
            format!("{scheme}://{address}{path}")
        }
        // Unlike a URL's, this path may be relative to the home of the user.
        None => {
            let after_brackets = url.find("]:").map(|at| at + 1);
            let path = after_brackets.or(url.find(':')).and_then(|at| url.get(at..)).unwrap_or_default();
            format!("[{address}]{path}")
        }
    }
}

pub(super) struct Tunnel {
    repository: String,
    host: String,
    port: u16,
    connect: Duration,
    silence: Duration,
    link: Link,
}

impl Tunnel {
    pub(super) fn new(repository: &str, endpoint: &Endpoint, options: &Options, link: Link) -> Self {
        Self {
            repository: repository.to_owned(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            connect: options.connect_timeout,
            silence: options.silence,
            link,
        }
    }

    pub(super) async fn carry(self: Arc<Self>, near: TcpStream) {
        let say = |why: String| {
            self.link.say(GitopsError::Unreachable { repository: self.repository.clone(), why });
        };
        let far = match timeout(self.connect, TcpStream::connect((&*self.host, self.port))).await {
            Ok(Ok(far)) => far,
            Ok(Err(error)) => return say(format!("connecting to {} port {}: {error}", self.host, self.port)),
            Err(_) => {
                return say(format!("{} port {} takes no connection within {:?}", self.host, self.port, self.connect));
            }
        };
        let (near, far) = (near.into_split(), far.into_split());
        let alive = Notify::new();
        let both = async { tokio::join!(pump(near.0, far.1, &alive), pump(far.0, near.1, &alive)) };
        let silent = async {
            while timeout(self.silence, alive.notified()).await.is_ok() {}
            // Before the connection closes, or libgit2 would tell first.
            say(format!("no answer within {:?}", self.silence));
        };
        tokio::select! {
            _ = both => {}
            () = silent => {}
        }
    }
}

/// Copies until one side has no more, or takes no more; libgit2 sees that too, and knows better what it means.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, alive: &Notify) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        alive.notify_one();
        if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_lead_here_with_the_path_they_had() {
        let here = ([127, 0, 0, 1], 4000).into();
        for (url, local) in [
            ("ssh://git@git.test/org/apps.git", "ssh://127.0.0.1:4000/org/apps.git"),
            ("ssh://git@git.test:2222/~/apps.git", "ssh://127.0.0.1:4000/~/apps.git"),
            ("ssh://git@[::1]:2222/apps.git", "ssh://127.0.0.1:4000/apps.git"),
            ("git@git.test:org/apps.git", "[127.0.0.1:4000]:org/apps.git"),
            ("git@[::1]:org/apps.git", "[127.0.0.1:4000]:org/apps.git"),
            ("git.test:/srv/apps.git", "[127.0.0.1:4000]:/srv/apps.git"),
        ] {
            assert_eq!(local_url(url, here), local, "{url}");
        }
    }
}
