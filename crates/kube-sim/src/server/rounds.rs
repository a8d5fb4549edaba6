//! Requests of the same instant, executed in an order that does not depend on who came first.
//!
//! Clients keep work in hash maps, so that the order of their simultaneous requests differs from run to run. Here a request
//! waits for the latency of the server; then all that are due are executed in the order of a seeded hash of their contents.

use super::{SimBody, SimService};
use bytes::Bytes;
use http::{Request, Response};
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Requests that have arrived and are not yet executed.
pub(crate) struct Rounds {
    seed: u64,
    latency: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    requests: Vec<Pending>,
}

struct Pending {
    id: u64,
    due: Instant,
    rank: Vec<u8>,
    service: SimService,
    request: Request<Bytes>,
    reply: oneshot::Sender<Response<SimBody>>,
}

impl Rounds {
    pub(crate) fn new(seed: u64, latency: Duration) -> Self {
        Self { seed, latency, waiting: Mutex::default() }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Waiting) -> R) -> R {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn rank(&self, service: &SimService, request: &Request<Bytes>) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update(self.seed.to_le_bytes());
        digest.update(format!("{:?} {} {} ", service.identity(), request.method(), request.uri()));
        digest.update(request.body());
        digest.finalize().to_vec()
    }

    /// Executes everything that is due.
    fn run(&self) {
        let now = Instant::now();
        let mut due = self.with(|waiting| {
            let (due, later): (Vec<Pending>, Vec<Pending>) =
                std::mem::take(&mut waiting.requests).into_iter().partition(|p| p.due <= now);
            waiting.requests = later;
            due
        });
        due.sort_by(|a, b| (a.due, &a.rank, a.id).cmp(&(b.due, &b.rank, b.id)));
        for pending in due {
            let response = pending.service.server.respond(&pending.request, pending.service.identity());
            // Whoever asked may have gone; the request was executed all the same.
            let _ = pending.reply.send(response);
        }
    }
}

/// A client that stops waiting before its request is due never sent it.
struct Withdraw<'a>(&'a Rounds, u64);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.0.with(|waiting| waiting.requests.retain(|p| p.id != self.1));
    }
}

/// Executes a request in its round.
pub(crate) async fn execute(service: SimService, request: Request<Bytes>) -> Response<SimBody> {
    let shared = service.server.shared.clone();
    let rounds = &shared.rounds;
    if rounds.latency.is_zero() {
        return service.server.respond(&request, service.identity());
    }
    let due = Instant::now() + rounds.latency;
    let (reply, answer) = oneshot::channel();
    let rank = rounds.rank(&service, &request);
    let id = rounds.with(|waiting| {
        waiting.next += 1;
        let id = waiting.next;
        waiting.requests.push(Pending { id, due, rank, service, request, reply });
        id
    });
    let withdraw = Withdraw(rounds, id);
    sleep_until(due).await;
    rounds.run();
    drop(withdraw);
    match answer.await {
        Ok(response) => response,
        // Not reachable: the round above has executed this request, unless another one did before.
        Err(_) => {
            super::into_response(super::router::Reply::error(&super::ApiError::internal("the request was withdrawn")))
        }
    }
}
