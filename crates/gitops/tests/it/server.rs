//! git's own HTTP server (`git http-backend`) behind a small web server, with what tests want to see go wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

#[derive(Default)]
pub(crate) struct Behaviour {
    /// The only value of the header `Authorization` that is let in.
    pub(crate) authorization: Option<String>,
    /// Answered instead of what git says.
    pub(crate) answer: Mutex<Option<&'static str>>,
    /// How many requests are answered by git before `answer` is.
    pub(crate) honest: AtomicU32,
    /// Drops the connection instead of passing on the answer to the next push.
    pub(crate) lose_next_answer: AtomicBool,
    /// How many requests there were.
    pub(crate) requests: AtomicU32,
    /// How many requests carried an `Authorization` header.
    pub(crate) authorized: AtomicU32,
    /// How many requests for packs were answered.
    pub(crate) fetches: AtomicU32,
}

/// A certificate, with what it is issued by, and its key; both PEM.
pub(crate) type Identity = (&'static str, &'static str);

/// Valid for localhost and 127.0.0.1, issued by `ca.pem`.
pub(crate) const DIRECT: Identity = (include_str!("fixtures/server.pem"), include_str!("fixtures/server-key.pem"));
/// Valid for the same, issued by an intermediate authority that `chain-ca.pem` has issued.
pub(crate) const CHAIN: Identity = (include_str!("fixtures/chain.pem"), include_str!("fixtures/chain-key.pem"));

/// Serves the folders below `root` until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Behaviour>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(root: PathBuf, behaviour: Behaviour, tls: Option<Identity>) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let server = Self {
            address: ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into(),
            behaviour: Arc::new(behaviour),
            stop: Arc::default(),
        };
        let (behaviour, stop) = (server.behaviour.clone(), server.stop.clone());
        let tls = tls.map(|identity| Arc::new(tls_config(identity)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (root, behaviour, tls) = (root.clone(), behaviour.clone(), tls.clone());
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    // Clients that break off are what some tests are about.
                    let _ = match tls {
                        Some(config) => {
                            let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                            let result = serve(&mut stream, &root, &behaviour);
                            stream.conn.send_close_notify();
                            let _ = stream.flush();
                            result
                        }
                        None => serve(&mut &stream, &root, &behaviour),
                    };
                });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/apps.git", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(self.address);
    }
}

fn tls_config((chain, key): Identity) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn serve<S: Read + Write>(stream: &mut S, root: &PathBuf, behaviour: &Behaviour) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).unwrap();
            (&mut reader).take(size).read_to_end(&mut body)?;
            reader.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = header("content-length") {
        (&mut reader).take(length.parse().unwrap()).read_to_end(&mut body)?;
    }
    let stream = reader.into_inner();
    behaviour.requests.fetch_add(1, Ordering::SeqCst);
    if header("authorization").is_some() {
        behaviour.authorized.fetch_add(1, Ordering::SeqCst);
    }
    if let Some(wanted) = &behaviour.authorization
        && header("authorization") != Some(wanted)
    {
        let answer = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(answer.as_bytes());
    }
    let one_less = |honest: u32| honest.checked_sub(1);
    let is_honest = behaviour.honest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
    if !is_honest && let Some(answer) = *behaviour.answer.lock().unwrap() {
        return stream
            .write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "http.receivepack")
        .env("GIT_CONFIG_VALUE_0", "true")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output()?;
    let _ = feeder.join();
    if path.ends_with("git-receive-pack") && behaviour.lose_next_answer.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    if path.ends_with("git-upload-pack") {
        behaviour.fetches.fetch_add(1, Ordering::SeqCst);
    }
    let split = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = output.stdout.split_at(split + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{head}", body.len());
    stream.write_all(answer.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}
