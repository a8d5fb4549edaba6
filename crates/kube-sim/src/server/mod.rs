//! The API server: state, requests, answers.

mod audit;
mod conform;
mod crd;
mod defaults;
mod delete;
mod discovery;
mod error;
mod events;
mod eviction;
mod fields;
mod gc;
pub(crate) mod json;
mod listen;
mod managed;
mod openapi;
mod patch;
mod print;
mod rbac;
mod read;
mod respond;
mod rounds;
mod router;
mod scale;
mod schema;
pub(crate) mod selectors;
mod shape;
mod state;
mod store;
mod table;
mod validation;
mod watch;
mod write;

pub use audit::AuditEntry;
pub use error::ApiError;
pub use listen::Listening;

pub(crate) use audit::is_mutating as is_mutating_verb;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use jiff::Timestamp;
use router::{Incoming, Reply};
use serde_json::Value;
use sha2::Digest as _;
pub(crate) use state::Seeded;
use state::State;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name, such as `system:serviceaccount:ns:name`.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// What a write wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// Any change of an object: update, patch, apply, status.
    Update,
    /// A deletion.
    Delete,
}

/// A write as an admission hook sees it.
#[derive(Debug)]
pub struct Admission<'a> {
    /// What is about to happen.
    pub operation: Operation,
    /// Who asks.
    pub user: &'a Identity,
    /// API group; empty for the core.
    pub group: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// True if nothing will be kept.
    pub dry_run: bool,
    /// The new object, which the hook may change; null for a deletion.
    pub object: &'a mut Value,
    /// The object before, except for a creation.
    pub old: Option<&'a Value>,
}

/// Judges a write. It runs inside the request: it must not call the server.
pub type AdmissionHook = Arc<dyn Fn(&mut Admission<'_>) -> Result<(), ApiError> + Send + Sync>;

/// Answers `kubectl logs`: namespace, pod, container.
pub type LogSource = Arc<dyn Fn(&str, &str, Option<&str>) -> Option<String> + Send + Sync>;

/// How a server is to behave.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where uids and generated names come from; the same seed gives the same ones.
    pub seed: u64,
    /// The time at which the server starts; from then on its clock follows `tokio::time`, virtual or not.
    pub epoch: Timestamp,
    /// How many changes watches can look back; older revisions answer 410.
    pub history: usize,
    /// True: everybody may do everything. False: RBAC decides.
    pub always_allow: bool,
    /// How long a request takes. Requests that arrive at the same instant are executed in an order that depends on the seed
    /// and on what they ask, not on the order of arrival: hash maps in a client cannot make a run differ from the last one.
    /// Zero executes each request as it comes.
    pub latency: Duration,
    /// How long after a change the garbage collector runs.
    pub housekeeping_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            epoch: Timestamp::from_second(1_767_225_600).unwrap_or_default(),
            history: 20_000,
            always_allow: false,
            latency: Duration::from_millis(1),
            housekeeping_delay: Duration::from_millis(50),
        }
    }
}

/// State, and what is known without its lock.
pub(crate) struct Shared {
    state: Mutex<State>,
    housekeeping: AtomicBool,
    delay: Duration,
    rounds: rounds::Rounds,
    this: Weak<Shared>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panicking admission hook leaves no half-done write behind: objects are stored in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the background sweep with the first watch or write, on the runtime of that request.
    fn start_housekeeping(&self) {
        if tokio::runtime::Handle::try_current().is_err() || self.housekeeping.swap(true, Ordering::SeqCst) {
            return;
        }
        let (this, delay) = (self.this.clone(), self.delay);
        tokio::spawn(housekeep(this, delay));
    }
}

async fn housekeep(shared: Weak<Shared>, delay: Duration) {
    let notify = match shared.upgrade() {
        Some(shared) => shared.lock().add_watcher().1,
        None => return,
    };
    loop {
        notify.notified().await;
        tokio::time::sleep(delay).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        if std::mem::take(&mut state.dirty) {
            gc::sweep(&mut state);
        }
    }
}

/// An in-process Kubernetes API server. Clones share one state.
#[derive(Clone)]
pub struct SimServer {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SimServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimServer").field("revision", &self.shared.lock().store.revision()).finish()
    }
}

impl Default for SimServer {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl SimServer {
    /// A server with the namespaces of a fresh cluster.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let delay = config.housekeeping_delay;
        let rounds = rounds::Rounds::new(config.seed, config.latency);
        let state = State {
            store: store::Store::new(config.history),
            registry: table::builtin(),
            seeded: Seeded::new(config.seed),
            audit: Vec::new(),
            tokens: BTreeMap::new(),
            hooks: Vec::new(),
            logs: None,
            config,
            started: tokio::time::Instant::now(),
            watchers: BTreeMap::new(),
            next_watcher: 0,
            next_ip: 0,
            dirty: false,
        };
        let shared = Arc::new_cyclic(|this| Shared {
            state: Mutex::new(state),
            housekeeping: AtomicBool::new(false),
            delay,
            rounds,
            this: this.clone(),
        });
        let server = Self { shared };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            server.create_namespace(name);
        }
        server
    }

    fn create_namespace(&self, name: &str) {
        let mut state = self.shared.lock();
        let Some(def) = state.registry.find("", "v1", "namespaces") else { return };
        let mut call = write::Call {
            def,
            user: Identity::admin(),
            namespace: String::new(),
            name: String::new(),
            subresource: String::new(),
            dry_run: false,
            force: false,
            manager: "kube-apiserver".to_owned(),
            field_validation: write::FieldValidation::Ignore,
            warnings: Vec::new(),
        };
        // A fresh store has no reason to refuse a namespace.
        let _ = write::create(&mut state, &mut call, serde_json::json!({"metadata": {"name": name}}));
    }

    /// A client that is `user`, without sockets. Works under paused time.
    #[must_use]
    pub fn client_as(&self, user: Identity) -> kube::Client {
        kube::Client::new(self.service_as(user), "default")
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client_as(Identity::admin())
    }

    /// The service behind [`SimServer::client_as`], to put layers in between.
    #[must_use]
    pub fn service_as(&self, user: Identity) -> SimService {
        SimService { server: self.clone(), identity: Some(user) }
    }

    /// A service whose requests say themselves, by bearer token, who they come from.
    #[must_use]
    pub fn anonymous_service(&self) -> SimService {
        SimService { server: self.clone(), identity: None }
    }

    /// Makes a bearer token valid.
    pub fn add_token(&self, token: impl Into<String>, user: Identity) {
        self.shared.lock().tokens.insert(token.into(), user);
    }

    /// Adds a hook that judges every later write, after those added before.
    pub fn add_admission_hook(&self, hook: AdmissionHook) {
        self.shared.lock().hooks.push(hook);
    }

    /// Sets where the logs of pods come from.
    pub fn set_log_source(&self, source: LogSource) {
        self.shared.lock().logs = Some(source);
    }

    /// All requests so far, in the order of their execution.
    #[must_use]
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.shared.lock().audit.clone()
    }

    /// The revision of the newest write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.lock().store.revision()
    }

    /// The server's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.lock().now()
    }

    /// Forgets the history: watches and lists of older revisions answer 410.
    pub fn compact(&self) {
        let mut state = self.shared.lock();
        state.store.compact();
        state.wake();
    }

    /// A hash over every request and every write so far: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> String {
        let state = self.shared.lock();
        let mut digest = state.store.digest();
        for entry in &state.audit {
            digest.update(format!("{entry:?}"));
        }
        digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn respond(&self, request: &Request<Bytes>, identity: Option<&Identity>) -> Response<SimBody> {
        self.shared.start_housekeeping();
        let incoming =
            Incoming { method: request.method(), uri: request.uri(), headers: request.headers(), body: request.body() };
        into_response(router::handle(&self.shared, &incoming, identity))
    }
}

/// The body of an answer.
pub type SimBody = UnsyncBoxBody<Bytes, Infallible>;

fn into_response(reply: Reply) -> Response<SimBody> {
    let mut response = match reply {
        Reply::Json { code, body, media_type, warnings } => {
            let retry = body.get("details").and_then(|d| d.get("retryAfterSeconds")).and_then(Value::as_u64);
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = response.headers_mut();
            headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
            for warning in warnings {
                let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
                if let Ok(value) = http::HeaderValue::from_str(&text) {
                    headers.append(http::header::WARNING, value);
                }
            }
            if let Some(seconds) = retry {
                headers.insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
            }
            response
        }
        Reply::Text(code, text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
            response
        }
        Reply::Watch(watch) => {
            let lines = futures::stream::unfold(watch, |mut watch| async move {
                let line = watch.next().await?;
                Some((Ok(http_body::Frame::data(line)), watch))
            });
            let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            response
        }
    };
    response.headers_mut().insert("audit-id", http::HeaderValue::from_static("kube-sim"));
    response
}

/// A refusal made up by a fault.
pub(crate) fn status_response(code: u16, reason: &'static str, text: &str) -> Response<SimBody> {
    let mut error = ApiError::custom(code, reason, text);
    if code == 429 {
        error = error.with_retry_after(1);
    }
    into_response(Reply::error(&error))
}

/// What a request asks for, as far as its head tells.
pub(crate) fn describe_request(request: &Request<Bytes>) -> AuditEntry {
    router::describe(request.method(), request.uri())
}

/// A server and who talks to it: what `kube::Client::new` takes.
#[derive(Debug, Clone)]
pub struct SimService {
    server: SimServer,
    identity: Option<Identity>,
}

impl SimService {
    /// Who the requests of this service come from; `None` if they say so themselves.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

impl<B> Service<Request<B>> for SimService
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
            Ok(rounds::execute(service, Request::from_parts(parts, body)).await)
        })
    }
}
