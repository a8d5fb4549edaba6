//! Which URLs are talked to at all.

use std::net::IpAddr;

use reqwest::Url;

use crate::{GitopsError, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    /// Only ever to this machine.
    Http,
    Ssh,
    File,
}

/// A URL that was found acceptable. It holds no credentials, so it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) scheme: Scheme,
    /// As libgit2 takes it.
    pub(super) url: String,
    /// Empty for files.
    pub(super) host: String,
    /// Of SSH only.
    pub(super) port: u16,
    /// Of SSH only.
    pub(super) user: String,
    /// The path of the URL: for files, the folder.
    pub(super) path: String,
    /// Of https and http: the URL as it is asked for.
    pub(super) web: Option<Url>,
}

impl Endpoint {
    /// Accepts https, http to this machine, ssh in both spellings, and files if `allow_files`.
    ///
    /// # Errors
    /// [`GitopsError::UrlRefused`], which never repeats the URL: it may hold a password.
    pub(super) fn parse(repository: &str, url: &str, allow_files: bool) -> Result<Self> {
        let refuse = |why: &str| GitopsError::UrlRefused { repository: repository.into(), why: why.into() };
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refuse("it has white space or control characters"));
        }
        let parsed = gix::url::parse(url).map_err(|_| refuse("it cannot be read as a url"))?;
        let scheme = match parsed.scheme.as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" if cfg!(feature = "ssh") => Scheme::Ssh,
            "ssh" => return Err(refuse("this program was built without ssh")),
            "file" if url.starts_with("file://") => Scheme::File,
            _ => return Err(refuse("only https, ssh, http to this machine and file urls are used")),
        };
        if parsed.password().is_some() || (scheme != Scheme::Ssh && parsed.user().is_some()) {
            return Err(refuse("it has credentials in it"));
        }
        let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        match scheme {
            Scheme::File if !allow_files => {
                return Err(refuse("file urls name folders of the operator's own machine and are not enabled"));
            }
            Scheme::File if !host.is_empty() => return Err(refuse("a file url needs three slashes: file:///path")),
            Scheme::File => {}
            Scheme::Http if !is_loopback(&host) => {
                return Err(refuse("http is neither private nor trustworthy: use https"));
            }
            _ if host.is_empty() || host.starts_with('-') => return Err(refuse("it names no host")),
            _ => {}
        }
        let web = match scheme {
            Scheme::Https | Scheme::Http => Some(Url::parse(url).map_err(|_| refuse("it cannot be read as a url"))?),
            Scheme::Ssh | Scheme::File => None,
        };
        // What was checked above must be what is talked to, however inventive the spelling.
        let is_same =
            |web: &Url| web.host_str().is_some_and(|seen| seen.trim_matches(['[', ']']).eq_ignore_ascii_case(&host));
        if web.as_ref().is_some_and(|web| !is_same(web)) {
            return Err(refuse(
                "its host can be read in two ways; write it in small ASCII letters or as a plain address",
            ));
        }
        if web.as_ref().is_some_and(|web| web.query().is_some() || web.fragment().is_some()) {
            return Err(refuse("it has a query or a fragment"));
        }
        let path = String::from_utf8(parsed.path.to_vec()).map_err(|_| refuse("its path is not UTF-8"))?;
        Ok(Self {
            scheme,
            url: url.to_owned(),
            host,
            port: parsed.port.unwrap_or(22),
            user: parsed.user().unwrap_or("git").to_owned(),
            path,
            web,
        })
    }

    /// Whether it is talked to over a connection, and not read as a folder.
    pub(super) fn is_remote(&self) -> bool {
        self.scheme != Scheme::File
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_could_leak_or_mislead_are_refused_without_repeating_them() {
        for (url, why) in [
            ("https://bot:hunter2@git.test/apps", "credentials"),
            ("https://hunter2@git.test/apps", "credentials"),
            ("ssh://git:hunter2@git.test/apps", "credentials"),
            ("http://git.test/apps?hunter2", "use https"),
            ("git://git.test/hunter2", "only https"),
            ("/srv/hunter2", "only https"),
            ("ftp://git.test/hunter2", "only https"),
            ("file://elsewhere/hunter2", "three slashes"),
            ("https://git.test/\nhunter2", "control"),
            ("https://0x7f000001/hunter2", "two ways"),
            ("https://git.test/apps?token=hunter2", "query"),
        ] {
            let error = Endpoint::parse("apps", url, true).unwrap_err();
            assert!(error.to_string().contains(why), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn files_are_refused_unless_enabled() {
        assert!(Endpoint::parse("apps", "file:///srv/apps.git", false).is_err());
        assert_eq!(Endpoint::parse("apps", "file:///srv/apps.git", true).unwrap().path, "/srv/apps.git");
    }

    #[test]
    fn the_usual_urls_are_understood() {
        let ssh = Endpoint::parse("apps", "ssh://deploy@git.test:2222/org/apps.git", false).unwrap();
        assert_eq!((ssh.scheme, &*ssh.host, ssh.port, &*ssh.user), (Scheme::Ssh, "git.test", 2222, "deploy"));
        let short = Endpoint::parse("apps", "git@git.test:org/apps.git", false).unwrap();
        assert_eq!((short.scheme, &*short.host, short.port, &*short.user), (Scheme::Ssh, "git.test", 22, "git"));
        for url in
            ["https://git.test/org/apps.git", "http://127.0.0.1:3000/a", "http://localhost/a", "http://[::1]:3000/a"]
        {
            Endpoint::parse("apps", url, false).unwrap();
        }
    }
}
