//! How to see that a server is ready.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;

/// What has to be seen before a server counts as ready.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    /// Nothing but that it was started: it offers nothing to ask.
    Started,
    /// A URL answers with success.
    Http(String),
    /// A Unix socket accepts a connection.
    Socket(PathBuf),
    /// A file contains a word.
    Word(PathBuf, &'static str),
}

impl Ready {
    /// Looks once.
    pub(crate) async fn look(&self, http: &reqwest::Client) -> bool {
        match self {
            Self::Started => true,
            Self::Http(url) => {
                let answer = http.get(url).timeout(Duration::from_secs(2)).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            }
            Self::Socket(path) => UnixStream::connect(path).await.is_ok(),
            Self::Word(path, word) => tokio::fs::read_to_string(path)
                .await
                .is_ok_and(|text| text.split_whitespace().any(|found| found == *word)),
        }
    }
}
