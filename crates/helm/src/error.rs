//! What can be wrong with a stored release, or with making one from a chart.

/// Why a stored release or its manifest could not be read, or a chart not be rendered. Never shows values, which may be secret: only names and places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelmError {
    /// The Secret is something else.
    #[error("Secret `{secret}` holds no Helm release: its type is `{type_}`, not `helm.sh/release.v1`")]
    WrongType {
        /// The name of the Secret.
        secret: String,
        /// The type it has.
        type_: String,
    },
    /// The Secret has no payload.
    #[error("Secret `{secret}` holds no Helm release: its key `release` is missing")]
    NoPayload {
        /// The name of the Secret.
        secret: String,
    },
    /// The Secret's name does not fit what is in it.
    #[error("Secret `{secret}` holds revision {revision} of release `{release}`, which its name denies")]
    WrongName {
        /// The name of the Secret.
        secret: String,
        /// The release inside.
        release: String,
        /// The revision inside.
        revision: i64,
    },
    /// The payload is not base64.
    #[error("the stored release is not base64")]
    NotBase64,
    /// The payload is damaged gzip.
    #[error("the stored release is damaged: it cannot be inflated")]
    NotGzip,
    /// The payload inflates to more than the limit, or Helm prints more.
    #[error("the release is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The payload is not the JSON of a release.
    #[error("the stored release is not what Helm writes: {problem} at line {line}, column {column}")]
    NotRelease {
        /// What is wrong.
        problem: &'static str,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// The manifest does not hold the object, as far as it can be read.
    #[error(
        "`{kind}/{name}` was not found in the release's manifest, of which {count} documents cannot be read (the first: {first})"
    )]
    UnreadableManifest {
        /// The kind that was looked for.
        kind: String,
        /// The name that was looked for.
        name: String,
        /// How many documents cannot be read.
        count: usize,
        /// Where the first of them comes from.
        first: String,
    },
    /// The manifest holds the object more than once.
    #[error("`{kind}/{name}` is in the release's manifest {count} times")]
    Ambiguous {
        /// The kind that was looked for.
        kind: String,
        /// The name that was looked for.
        name: String,
        /// How often it was found.
        count: usize,
    },
    /// There is no Helm that could be run.
    #[error("helm cannot be run: {why}")]
    NoHelm {
        /// What is wrong.
        why: String,
    },
    /// Helm was killed because it did not end.
    #[error("helm had not rendered the chart after {seconds} s")]
    TemplateTimeout {
        /// How long it had.
        seconds: u64,
    },
    /// Helm could not fetch or render the chart.
    #[error("helm cannot render the chart: {why}")]
    TemplateFailed {
        /// What Helm says, as far as it can be shown.
        why: String,
    },
    /// This is no chart that Helm may be asked for.
    #[error("the chart is not rendered: {why}")]
    TemplateRefused {
        /// What is wrong.
        why: String,
    },
}

impl HelmError {
    /// A stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongType { .. } => "helm-wrong-type",
            Self::NoPayload { .. } => "helm-no-payload",
            Self::WrongName { .. } => "helm-wrong-name",
            Self::NotBase64 => "helm-not-base64",
            Self::NotGzip => "helm-not-gzip",
            Self::TooLarge { .. } => "helm-too-large",
            Self::NotRelease { .. } => "helm-not-a-release",
            Self::UnreadableManifest { .. } => "helm-unreadable-manifest",
            Self::Ambiguous { .. } => "helm-ambiguous-object",
            Self::NoHelm { .. } => "helm-missing",
            Self::TemplateTimeout { .. } => "helm-timeout",
            Self::TemplateFailed { .. } => "helm-template-failed",
            Self::TemplateRefused { .. } => "helm-template-refused",
        }
    }

    /// The next thing a person should do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::WrongType { .. } | Self::NoPayload { .. } => {
                "check that Helm keeps its releases in Secrets (HELM_DRIVER)"
            }
            Self::WrongName { .. } => "somebody copied or renamed the Secret: delete the copy",
            Self::NotBase64 | Self::NotGzip | Self::NotRelease { .. } => {
                "see whether `helm get all` can read this revision; if not, restore the Secret or roll back to another revision"
            }
            Self::TooLarge { .. } => "no chart is that large: find out who wrote the Secret",
            Self::UnreadableManifest { .. } => "see `helm get manifest` and fix the template named here",
            Self::Ambiguous { .. } => "name the object's namespace, or remove one from the chart",
            Self::NoHelm { .. } => "put the helm program into the operator's image, or name it with --helm",
            Self::TemplateTimeout { .. } | Self::TemplateFailed { .. } => {
                "run `helm template` with the chart, its version and the values of the HelmRelease"
            }
            Self::TemplateRefused { .. } => "look at the HelmRelease and its HelmRepository",
        }
    }

    /// Whether it may go away by itself. What is stored does not change, and no more does a chart.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TemplateTimeout { .. })
    }
}
