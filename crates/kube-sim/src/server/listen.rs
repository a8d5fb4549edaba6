//! Serving on a loopback port, for kubectl and other programs outside the process.

use super::{Identity, SimServer, SimService};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::Service as _;

/// A listening server; it stops when this is dropped.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server: plain HTTP on loopback.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for this server.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: sim\nclusters:\n- name: sim\n  cluster: {{server: \"{}\"}}\n\
             users:\n- name: sim\n  user: {{}}\ncontexts:\n- name: sim\n  context: {{cluster: sim, user: sim}}\n",
            self.url()
        )
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SimServer {
    /// Listens on a free port of the loopback interface for requests of `user`. kubectl sends no token over plain HTTP, so each
    /// identity has its own port; a client that does send a bearer token (see [`SimServer::add_token`]) is who the token says.
    /// Do not use it under paused time: real sockets do not move virtual time.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub async fn listen_as(&self, user: Identity) -> io::Result<Listening> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, self.service_as(user)));
        Ok(Listening { address, task })
    }
}

async fn accept(listener: TcpListener, service: SimService) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = service.clone();
        connections.spawn(async move {
            let handler =
                hyper::service::service_fn(move |request: http::Request<Incoming>| service.clone().call(request));
            // A client that hangs up ends its connection; nothing to report.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), handler).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
