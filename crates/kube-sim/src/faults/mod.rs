//! Faults between a client and the server: latency, refusals, lost replies, broken watches, stale reads, crash points.
//!
//! A [`Faults`] is a script of [`Rule`]s and crash points, shared by the services it wraps. Rules choose requests by who asks
//! and what they ask, and how often; chance comes from a seed, so that a run can be repeated.
//!
//! ```no_run
//! # fn main() {
//! use kube_sim::faults::{Fault, Faults, Matcher, Rule};
//! use kube_sim::{Identity, SimServer};
//!
//! let server = SimServer::default();
//! let faults = Faults::new(7);
//! faults.add(Rule::new(Matcher::mutating().resource("configmaps"), Fault::LostReply).times(1));
//! let client = faults.client(&server, Identity::user("jane"));
//! # }
//! ```

mod matcher;
mod watch;

pub use matcher::{Matcher, Seen};

use crate::server::{Identity, SimBody, SimServer, SimService, status_response};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request arrives this much later.
    Latency(Duration),
    /// The request arrives later by a random time up to this.
    Jitter(Duration),
    /// The server refuses with this code without executing the request: 409, 429, 500, 503, 504, ...
    Refuse(u16),
    /// The connection breaks before the request is executed.
    LostRequest,
    /// The request is executed, and the connection breaks before the answer arrives.
    LostReply,
    /// The answer never comes, though the request was executed.
    Hang,
    /// A list or get is answered from the state of this many revisions ago (as far as history reaches).
    Stale(u64),
    /// Of a watch: this share (percent) of its events is lost on the way; the stream goes on.
    DropEvents(u8),
    /// Of a watch: every event arrives this much later.
    DelayEvents(Duration),
    /// Of a watch: the stream ends after this many events.
    EndWatch(usize),
}

/// A fault, for which requests, and how often.
#[derive(Debug, Clone)]
pub struct Rule {
    matcher: Matcher,
    fault: Fault,
    skip: u64,
    times: Option<u64>,
    percent: u8,
}

impl Rule {
    /// A fault for every request that matches.
    #[must_use]
    pub fn new(matcher: Matcher, fault: Fault) -> Self {
        Self { matcher, fault, skip: 0, times: None, percent: 100 }
    }

    /// Leaves the first `n` matching requests alone.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// Strikes at most `n` times.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// Strikes in this share of the matching requests (0 to 100), chosen by the seed.
    #[must_use]
    pub fn percent(mut self, share: u8) -> Self {
        self.percent = share.min(100);
        self
    }
}

/// Where in a request the code under test dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashAt {
    /// The request is not sent.
    Before,
    /// The request is executed; the code dies before it sees the answer.
    ReplyLost,
    /// The answer is delivered; the code dies as it makes its next request of any kind, which is not sent.
    After,
}

/// What is told to a crash callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// Which mutating request of the identity it was, counted from 1.
    pub number: u64,
    /// Where in that request.
    pub at: CrashAt,
    /// The request.
    pub request: Seen,
}

/// Kills the code under test: cancels its token, aborts its task.
pub type OnCrash = Arc<dyn Fn(&Crash) + Send + Sync>;

struct CrashPoint {
    user: String,
    number: u64,
    at: CrashAt,
    on_crash: OnCrash,
}

struct Script {
    rules: Vec<(Rule, u64, u64)>,
    crash_points: Vec<CrashPoint>,
    mutations: Vec<(String, u64)>,
    /// Clients of a dead process: none of their requests does anything any more.
    dead: Vec<u64>,
    /// Clients that die with their next request.
    doomed: Vec<(u64, OnCrash, Crash)>,
    next_client: u64,
    random: crate::server::Seeded,
    trace: Vec<String>,
}

/// A script of faults. Clones share it.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<Script>>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("rules", &self.lock().rules.len()).finish()
    }
}

/// What the script decided for one request.
#[derive(Default)]
struct Verdict {
    faults: Vec<Fault>,
    crash: Option<(CrashAt, OnCrash, Crash)>,
    random: u64,
}

impl Faults {
    /// An empty script; chance comes from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Script {
            rules: Vec::new(),
            crash_points: Vec::new(),
            mutations: Vec::new(),
            dead: Vec::new(),
            doomed: Vec::new(),
            next_client: 0,
            random: crate::server::Seeded::new(seed ^ 0xFA17),
            trace: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule; several may strike the same request.
    pub fn add(&self, rule: Rule) {
        self.lock().rules.push((rule, 0, 0));
    }

    /// Removes all rules and crash points; what struck so far stays in the trace.
    pub fn clear(&self) {
        let mut script = self.lock();
        script.rules.clear();
        script.crash_points.clear();
    }

    /// Kills the code under test at its `number`-th mutating request (from 1), counted over all clients of that user. The client
    /// that made the request is dead from then on: its requests, that one included, never end and are not executed. Clients made
    /// later by [`Faults::client`] live, as those of a restarted process do. `on_crash` should end the code, for example by
    /// aborting its task; it must not call the server.
    pub fn crash(&self, user: impl Into<String>, number: u64, at: CrashAt, on_crash: OnCrash) {
        self.lock().crash_points.push(CrashPoint { user: user.into(), number, at, on_crash });
    }

    /// How many mutating requests a user has made through this script (dry runs not counted).
    #[must_use]
    pub fn mutations(&self, user: &str) -> u64 {
        self.lock().mutations.iter().find(|(u, _)| u == user).map_or(0, |(_, n)| *n)
    }

    /// What struck, in order.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// A client of the server with the faults in between. Its watches, too.
    #[must_use]
    pub fn client(&self, server: &SimServer, user: Identity) -> kube::Client {
        kube::Client::new(self.wrap(server.service_as(user)), "default")
    }

    /// Puts the faults before a service.
    #[must_use]
    pub fn wrap(&self, inner: SimService) -> FaultyService {
        let mut script = self.lock();
        script.next_client += 1;
        FaultyService { faults: self.clone(), inner, client: script.next_client }
    }

    fn judge(&self, client: u64, seen: &Seen) -> Option<Verdict> {
        let mut script = self.lock();
        let script = &mut *script;
        if script.dead.contains(&client) {
            return None;
        }
        if let Some(at) = script.doomed.iter().position(|(doomed, ..)| *doomed == client) {
            let (_, on_crash, crash) = script.doomed.remove(at);
            return Some(Verdict { crash: Some((CrashAt::Before, on_crash, crash)), ..Verdict::default() });
        }
        let mut verdict = Verdict { random: script.random.next(), ..Verdict::default() };
        for (rule, matched, struck) in &mut script.rules {
            if !rule.matcher.matches(seen) {
                continue;
            }
            *matched += 1;
            let exhausted = rule.times.is_some_and(|times| *struck >= times);
            let by_chance = rule.percent == 100 || script.random.below(100) < u64::from(rule.percent);
            if *matched <= rule.skip || exhausted || !by_chance {
                continue;
            }
            *struck += 1;
            script.trace.push(format!("{:?} {seen}", rule.fault));
            verdict.faults.push(rule.fault.clone());
        }
        if seen.is_mutating() {
            let number = match script.mutations.iter_mut().find(|(user, _)| *user == seen.user) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    script.mutations.push((seen.user.clone(), 1));
                    1
                }
            };
            let point = script.crash_points.iter().position(|p| p.user == seen.user && p.number == number);
            if let Some(point) = point.map(|at| script.crash_points.remove(at)) {
                script.trace.push(format!("crash {:?} {seen}", point.at));
                let crash = Crash { number, at: point.at, request: seen.clone() };
                verdict.crash = Some((point.at, point.on_crash, crash));
            }
        }
        Some(verdict)
    }

    fn die(&self, client: u64) {
        self.lock().dead.push(client);
    }
}

/// A server behind faults: what `kube::Client::new` takes.
#[derive(Debug, Clone)]
pub struct FaultyService {
    faults: Faults,
    inner: SimService,
    client: u64,
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, format!("connection reset by a fault: {what}"))
}

fn refusal(code: u16) -> Response<SimBody> {
    let (reason, text) = match code {
        409 => {
            ("Conflict", "the object has been modified; please apply your changes to the latest version and try again")
        }
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "the server was unable to return a response in the time allotted"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    status_response(code, reason, text)
}

impl FaultyService {
    async fn run(self, request: Request<Bytes>) -> Result<Response<SimBody>, std::io::Error> {
        let user = self.inner.identity().map(|i| i.name.clone()).unwrap_or_default();
        let seen = Seen::of(user, &request);
        let Some(mut verdict) = self.faults.judge(self.client, &seen) else { return std::future::pending().await };
        if let Some((CrashAt::Before, on_crash, crash)) = &verdict.crash {
            self.faults.die(self.client);
            on_crash(crash);
            return std::future::pending().await;
        }
        let mut request = request;
        for fault in &verdict.faults {
            match fault {
                Fault::Latency(time) => tokio::time::sleep(*time).await,
                Fault::Jitter(most) => {
                    let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
                    let wait = verdict.random.checked_rem(millis.saturating_add(1)).unwrap_or(0);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                Fault::Refuse(code) => return Ok(refusal(*code)),
                Fault::LostRequest => return Err(broken("request lost")),
                Fault::Stale(revisions) if matches!(seen.verb.as_str(), "get" | "list") => {
                    request.headers_mut().insert("kube-sim-stale", http::HeaderValue::from(*revisions));
                }
                _ => {}
            }
        }
        let mut inner = self.inner.clone();
        let response = inner.call(request.map(http_body_util::Full::new)).await?;
        if let Some((at, on_crash, crash)) = verdict.crash.take() {
            if at == CrashAt::After {
                self.faults.lock().doomed.push((self.client, on_crash, crash));
                return Ok(response);
            }
            self.faults.die(self.client);
            on_crash(&crash);
            return std::future::pending().await;
        }
        for fault in &verdict.faults {
            match fault {
                Fault::LostReply => return Err(broken("reply lost")),
                Fault::Hang => return std::future::pending().await,
                _ => {}
            }
        }
        Ok(if seen.verb == "watch" { watch::disturb(response, &verdict.faults, verdict.random) } else { response })
    }
}

impl<B> Service<Request<B>> for FaultyService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<SimBody>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            service.run(Request::from_parts(parts, body)).await
        })
    }
}
