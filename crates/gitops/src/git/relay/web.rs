//! Forwards the four requests of Git over HTTP, adds the credentials, and lets nothing but a success through.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::net::TcpStream;

use super::Link;
use crate::git::Options;
use crate::git::credentials::Keys;
use crate::git::endpoint::{Endpoint, Scheme};
use crate::git::tls;
use crate::{GitopsError, Result};

/// A commit of a few files, or a list of commits that are here, is much smaller.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// A path that no other program on this machine can guess: whoever knows it can use the credentials.
pub(super) fn secret_path() -> Option<String> {
    let mut bytes = [0; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(format!("/{:032x}", u128::from_ne_bytes(bytes)))
}

pub(super) struct Forward {
    repository: String,
    keys: Arc<Keys>,
    authorization: Option<HeaderValue>,
    base: Url,
    secret: String,
    silence: std::time::Duration,
    client: reqwest::Client,
    link: Link,
}

impl Forward {
    pub(super) fn new(
        repository: &str,
        endpoint: &Endpoint,
        keys: Arc<Keys>,
        options: &Options,
        secret: String,
        link: Link,
    ) -> Result<Self> {
        let untrusted = |why: String| GitopsError::Untrusted { repository: repository.to_owned(), why };
        let refused = |why: &str| GitopsError::UrlRefused { repository: repository.to_owned(), why: why.to_owned() };
        let base = endpoint.web.clone().ok_or_else(|| refused("it is no web address"))?;
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.silence);
        match (&keys.ca, endpoint.scheme) {
            (Some(ca), _) => {
                let config = tls::config(ca, options.clock.clone()).map_err(untrusted)?;
                client = client.tls_backend_preconfigured(config);
            }
            (None, Scheme::Https) => {
                // reqwest panics without one. Whoever chose another has it kept.
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
            (None, _) => client = client.tls_backend_preconfigured(tls::trust_nobody().map_err(untrusted)?),
        }
        let client = client.build().map_err(|error| untrusted(root_cause(&error)))?;
        let mut authorization = None;
        if let Some(text) = keys.authorization() {
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| refused("its credentials do not fit into a header"))?;
            value.set_sensitive(true);
            authorization = Some(value);
        }
        let silence = options.silence;
        Ok(Self { repository: repository.to_owned(), keys, authorization, base, secret, silence, client, link })
    }

    pub(super) async fn carry(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let this = self.clone();
            async move {
                let answer = this.forward(request).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|error| {
                    this.link.say(error);
                    status(StatusCode::BAD_GATEWAY)
                }))
            }
        });
        // How a connection from this very process ends is no news.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn forward(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<reqwest::Body>> {
        let Some(url) = self.target(&request) else { return Ok(status(StatusCode::NOT_FOUND)) };
        let (head, body) = request.into_parts();
        let mut onward = self.client.request(head.method, url.clone());
        for name in [ACCEPT, CONTENT_TYPE, USER_AGENT] {
            if let Some(value) = head.headers.get(&name) {
                onward = onward.header(name, value);
            }
        }
        if let Some(authorization) = &self.authorization {
            onward = onward.header(AUTHORIZATION, authorization);
        }
        let body = Limited::new(body, MAX_REQUEST).collect().await;
        let body = body.map_err(|error| self.unreachable(format!("the request could not be read: {error}")))?;
        let answer = onward.body(body.to_bytes()).send().await.map_err(|error| self.explain(&error))?;
        self.check(&url, &answer)?;
        let (head, body) = Response::<reqwest::Body>::from(answer).into_parts();
        let this = self.clone();
        let body = body.map_err(move |error| {
            this.link.say(this.explain(&error));
            error
        });
        let mut answer = Response::new(reqwest::Body::wrap(body));
        if let Some(kind) = head.headers.get(CONTENT_TYPE) {
            answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        Ok(answer)
    }

    /// Where a request of libgit2 goes, if it is one that Git makes.
    fn target(&self, request: &Request<Incoming>) -> Option<Url> {
        let path = request.uri().path().strip_prefix(&self.secret)?;
        let query = request.uri().query();
        let is_known = matches!(
            (request.method(), path, query),
            (&Method::GET, "/info/refs", Some("service=git-upload-pack" | "service=git-receive-pack"))
                | (&Method::POST, "/git-upload-pack" | "/git-receive-pack", None)
        );
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        is_known.then_some(url)
    }

    fn check(&self, asked: &Url, answer: &reqwest::Response) -> Result<()> {
        let (repository, status) = (self.repository.clone(), answer.status());
        if status.is_redirection() {
            let to = self.keys.redact(&destination(asked, answer.headers().get(LOCATION)));
            return Err(GitopsError::Redirected { repository, to });
        }
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED if self.authorization.is_none() => {
                Err(GitopsError::Denied { repository, why: "it wants credentials, and there are none".to_owned() })
            }
            StatusCode::UNAUTHORIZED => {
                Err(GitopsError::Denied { repository, why: "it does not accept the credentials".to_owned() })
            }
            // 404 is how hosts hide what one may not see.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                Err(GitopsError::Denied { repository, why: format!("it answers {status}") })
            }
            _ => Err(self.unreachable(format!("it answers {status}"))),
        }
    }

    fn unreachable(&self, why: impl AsRef<str>) -> GitopsError {
        GitopsError::Unreachable { repository: self.repository.clone(), why: self.keys.redact(why.as_ref()) }
    }

    fn explain(&self, error: &reqwest::Error) -> GitopsError {
        if let Some(rustls::Error::InvalidCertificate(why)) = tls_error(error) {
            let trusted = if self.keys.ca.is_some() { "caFile" } else { "the authorities of this machine" };
            let why = format!("its certificate does not stand up to {trusted}: {why}");
            return GitopsError::Untrusted { repository: self.repository.clone(), why: self.keys.redact(&why) };
        }
        if error.is_timeout() {
            return self.unreachable(format!("no answer within {:?}", self.silence));
        }
        self.unreachable(root_cause(error))
    }
}

fn status(status: StatusCode) -> Response<reqwest::Body> {
    let mut answer = Response::new(reqwest::Body::from(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// A redirect's destination as a URL of a repository, without what could be a secret in it.
fn destination(asked: &Url, location: Option<&HeaderValue>) -> String {
    let to = location.and_then(|value| value.to_str().ok()).and_then(|text| asked.join(text).ok());
    let Some(mut to) = to else { return "a place that cannot be read".to_owned() };
    to.set_query(None);
    to.set_fragment(None);
    // Impossible only where there is no host, and then there is no user either.
    let _ = to.set_username("").and_then(|()| to.set_password(None));
    let to = to.as_str();
    let repository =
        ["/info/refs", "/git-upload-pack", "/git-receive-pack"].iter().find_map(|end| to.strip_suffix(end));
    repository.unwrap_or(to).to_owned()
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'e (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>() {
            // An io::Error names the source of what it wraps as its own, and leaves out what it wraps.
            Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_named_as_the_url_to_write_down_and_without_secrets() {
        let asked = Url::parse("https://git.test/org/apps.git/info/refs?service=git-upload-pack").unwrap();
        for (location, to) in [
            ("/new/apps.git/info/refs", "https://git.test/new/apps.git"),
            ("https://bot:hunter2@other.test/a.git/info/refs?token=hunter2#hunter2", "https://other.test/a.git"),
            ("http://[", "a place that cannot be read"),
        ] {
            assert_eq!(destination(&asked, Some(&HeaderValue::from_static(location))), to);
        }
        assert_eq!(destination(&asked, None), "a place that cannot be read");
    }
}
