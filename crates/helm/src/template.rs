//! What a chart would make of values: `helm template`, run as a child.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::HelmError;

/// How long Helm may take, with fetching the chart.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much it may print, in bytes. What is larger is no release that a Secret could hold.
const OUTPUT_LIMIT: usize = 8 * 1024 * 1024;
/// How much of what it complains about is read, in bytes.
const COMPLAINT_LIMIT: u64 = 64 * 1024;
/// How much of that is passed on, in characters.
const COMPLAINT_SHOWN: usize = 300;
/// How long a result is taken again: a request that waits its turn is looked at every few seconds.
const FRESH: Duration = Duration::from_secs(60);
/// When Helm's garbage collector gets busy: its memory is that of our container.
const MEMORY: &str = "160MiB";
/// Texts of the values that are this long or longer are blacked out in complaints.
const SECRET_LENGTH: usize = 4;

/// A chart of a repository that needs no credentials, with the values it gets.
#[derive(Clone, PartialEq)]
pub struct TemplateRequest {
    /// The name of the release.
    pub release: String,
    /// The namespace of the release.
    pub namespace: String,
    /// The name of the chart in its repository.
    pub chart: String,
    /// The exact version of the chart.
    pub version: String,
    /// The address of the repository: `http`, `https` or `oci`.
    pub repository: String,
    /// The values, without the chart's own. May hold secrets.
    pub values: Value,
    /// The version of Kubernetes that the chart is told.
    pub kube_version: String,
}

impl fmt::Debug for TemplateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemplateRequest")
            .field("release", &self.release)
            .field("namespace", &self.namespace)
            .field("chart", &self.chart)
            .field("version", &self.version)
            .field("repository", &self.repository)
            .field("kube_version", &self.kube_version)
            .finish_non_exhaustive()
    }
}

impl TemplateRequest {
    /// Whether this names a chart in a repository, and neither a file nor a credential.
    fn check(&self) -> Result<(), HelmError> {
        let refused = |why: &str| Err(HelmError::TemplateRefused { why: why.to_owned() });
        let Some((scheme, address)) = self.repository.split_once("://") else {
            return refused("the repository has no address");
        };
        if !["http", "https", "oci"].contains(&scheme) {
            return refused("the repository is reached neither by http nor as oci");
        }
        let is_plain = |one: char| one.is_ascii_graphic() && !['@', '?', '#', '"', '\\'].contains(&one);
        if address.is_empty() || !address.chars().all(is_plain) {
            return refused("the repository's address has more than a host and a path in it");
        }
        // Helm takes a name for a path or an address when it looks like one.
        let is_name = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.chars().all(|one| one.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&one))
        };
        if !self.chart.split('/').all(is_name) || (scheme != "oci" && self.chart.contains('/')) {
            return refused("the chart's name is none that a repository can have");
        }
        let texts = [&self.release, &self.namespace, &self.version, &self.kube_version];
        if texts.into_iter().any(|text| text.is_empty() || !text.chars().all(|one| one.is_ascii_graphic())) {
            return refused("the release's name or namespace, or a version, is empty or has blanks in it");
        }
        Ok(())
    }

    fn arguments(&self, values: &Path) -> Vec<OsString> {
        let mut named = vec!["template".to_owned(), "--no-hooks".to_owned(), "--is-upgrade".to_owned()];
        named.push(format!("--namespace={}", self.namespace));
        named.push(format!("--version={}", self.version));
        named.push(format!("--kube-version={}", self.kube_version));
        let repository = self.repository.trim_end_matches('/');
        let chart = if repository.starts_with("oci://") {
            format!("{repository}/{}", self.chart)
        } else {
            named.push(format!("--repo={repository}"));
            self.chart.clone()
        };
        let mut arguments: Vec<OsString> = named.into_iter().map(OsString::from).collect();
        let mut file = OsString::from("--values=");
        file.push(values);
        arguments.push(file);
        // Nothing behind this is taken for an option.
        arguments.extend(["--".to_owned(), self.release.clone(), chart].map(OsString::from));
        arguments
    }
}

/// Renders charts.
///
/// - **Flow**: asked before an upgrade is judged, with the target's chart and values.
/// - **Guarantees**: nothing is changed. The text is what an upgrade would put into the release's manifest: YAML documents,
///   without hooks and without the chart's `crds` folder.
/// - **Assumptions**: the chart does not look at the cluster (`lookup`, `.Capabilities.APIVersions`): it is rendered as if
///   nothing were there.
/// - **Errors**: say what is wrong without showing any of the values.
/// - **Cancellation**: nothing is left behind.
#[async_trait]
pub trait ChartTemplates: Send + Sync {
    /// The rendered objects.
    async fn template(&self, request: &TemplateRequest) -> Result<String, HelmError>;
}

/// Charts through the `helm` program, version 3 or 4.
///
/// It gets an empty folder for its home, nothing of our environment but `PATH`, and its values in a file. One runs at a time.
pub struct HelmCli {
    program: PathBuf,
    timeout: Duration,
    output_limit: usize,
    /// The newest result. Held while Helm runs.
    last: Mutex<Option<(TemplateRequest, Instant, String)>>,
}

impl HelmCli {
    /// `program` is a path, or a name that is looked for in `PATH`, at each call.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        // A path must not depend on the folder that Helm is run in.
        let is_path = program.components().count() > 1;
        let absolute = std::path::absolute(program).ok().filter(|_| is_path);
        Self {
            program: absolute.unwrap_or_else(|| program.to_owned()),
            timeout: TIMEOUT,
            output_limit: OUTPUT_LIMIT,
            last: Mutex::new(None),
        }
    }

    async fn run(&self, request: &TemplateRequest) -> Result<String, HelmError> {
        let no_folder = |error: io::Error| HelmError::NoHelm { why: format!("a temporary folder: {}", error.kind()) };
        // For its owner alone, and dropped after the child.
        let home = tempfile::Builder::new().prefix("windlass-helm-").tempdir().map_err(no_folder)?;
        let (values, empty) = (home.path().join("values.json"), home.path().join("empty"));
        tokio::fs::write(&values, request.values.to_string()).await.map_err(no_folder)?;
        tokio::fs::create_dir(&empty).await.map_err(no_folder)?;
        let mut command = Command::new(&self.program);
        command.args(request.arguments(&values)).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        for variable in ["HOME", "TMPDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, home.path());
        }
        command.env("GOMEMLIMIT", MEMORY);
        // In this folder no file can be called as the chart is.
        command
            .current_dir(&empty)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let not_run = |error: io::Error| HelmError::NoHelm { why: error.kind().to_string() };
        let mut child = command.spawn().map_err(not_run)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(HelmError::NoHelm { why: "it has no output".to_owned() });
        };
        let working = async {
            let (printed, complaint) = tokio::try_join!(self.output(stdout), complaint(stderr))?;
            Ok::<_, HelmError>((child.wait().await.map_err(not_run)?, printed, complaint))
        };
        let seconds = self.timeout.as_secs();
        let ended = timeout(self.timeout, working).await.map_err(|_| HelmError::TemplateTimeout { seconds })?;
        let (status, printed, complaint) = ended?;
        if !status.success() {
            return Err(HelmError::TemplateFailed { why: problem(&complaint, &request.values) });
        }
        String::from_utf8(printed)
            .map_err(|_| HelmError::TemplateFailed { why: "what it printed is no text".to_owned() })
    }

    async fn output(&self, from: impl AsyncRead + Unpin) -> Result<Vec<u8>, HelmError> {
        let mut printed = Vec::new();
        let limit = u64::try_from(self.output_limit).unwrap_or(u64::MAX).saturating_add(1);
        from.take(limit).read_to_end(&mut printed).await.map_err(|error| unread(&error))?;
        if printed.len() > self.output_limit {
            return Err(HelmError::TooLarge { limit: self.output_limit });
        }
        Ok(printed)
    }
}

fn unread(error: &io::Error) -> HelmError {
    HelmError::TemplateFailed { why: format!("its output cannot be read: {}", error.kind()) }
}

/// What Helm wrote on its standard error, from the beginning; the rest is read and forgotten, so that it does not wait for us.
async fn complaint(mut from: impl AsyncRead + Unpin) -> Result<String, HelmError> {
    let mut first = Vec::new();
    (&mut from).take(COMPLAINT_LIMIT).read_to_end(&mut first).await.map_err(|error| unread(&error))?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map_err(|error| unread(&error))?;
    Ok(String::from_utf8_lossy(&first).into_owned())
}

/// What is wrong, in a form that shows no values. Templates may print any of them, so that only their place is told.
fn problem(complaint: &str, values: &Value) -> String {
    // Warnings of its log come first.
    let error = complaint.lines().skip_while(|line| !line.starts_with("Error: ")).collect::<Vec<_>>().join("\n");
    let Some(error) = error.strip_prefix("Error: ") else { return "it does not say why".to_owned() };
    if let Some(place) = template_place(error) {
        return format!("the chart's template {place} cannot be rendered with the values");
    }
    if error.contains("values don't meet") {
        return "the values do not fit the chart's schema".to_owned();
    }
    let line = error.lines().next().unwrap_or_default();
    let mut secrets = Vec::new();
    collect_texts(values, &mut secrets);
    // The longest first: one may be a part of another.
    secrets.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let shown = secrets.iter().fold(line.to_owned(), |line, secret| line.replace(secret.as_str(), "***"));
    shown.chars().filter(|one| !one.is_control()).take(COMPLAINT_SHOWN).collect()
}

/// `chart/templates/file.yaml:1:2`, if the text names one.
fn template_place(error: &str) -> Option<String> {
    let is_end = |one: char| one.is_whitespace() || ['(', ')', '"', '\'', '<', '>', ','].contains(&one);
    let word = error.split(is_end).find(|word| word.contains("/templates/"))?;
    Some(word.trim_end_matches(':').chars().take(COMPLAINT_SHOWN).collect())
}

fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => texts.push(number.to_string()),
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(fields) => fields.values().for_each(|field| collect_texts(field, texts)),
    }
    texts.retain(|text| text.len() >= SECRET_LENGTH);
}

#[async_trait]
impl ChartTemplates for HelmCli {
    async fn template(&self, request: &TemplateRequest) -> Result<String, HelmError> {
        request.check()?;
        let mut last = self.last.lock().await;
        let known = last.as_ref().filter(|(of, at, _)| of == request && at.elapsed() < FRESH);
        if let Some((_, _, printed)) = known {
            return Ok(printed.clone());
        }
        // Values are kept no longer than they are of use.
        *last = None;
        let printed = self.run(request).await?;
        *last = Some((request.clone(), Instant::now(), printed.clone()));
        Ok(printed)
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
