//! Charts in local folders, standing for chart repositories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::Error;
use super::artifact::{Packed, pack, unpack};

/// The folder of a chart repository is `<root>/<host>/<path>` of its URL: charts of `https://charts.test/stable` are in
/// `<root>/charts.test/stable`, and so is `oci://charts.test/stable/notes` when a chart there is called `notes`.
///
/// It holds unpacked charts (directories with a `Chart.yaml`) and packed ones (`.tgz`), and is read at each look, so that a
/// chart can be published by putting it there.
#[derive(Debug, Clone)]
pub struct ChartRegistry {
    root: PathBuf,
}

/// What `Chart.yaml` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are those of Chart.yaml")]
pub struct ChartMetadata {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub app_version: Option<String>,
}

impl ChartRegistry {
    /// The repositories below `root`.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The newest chart `name` of the repository at `url` that `wanted` allows (all, when empty), packed.
    ///
    /// # Errors
    /// [`Error::Source`] when the URL is not mapped or no version fits.
    pub fn find(&self, url: &str, name: &str, wanted: &str) -> Result<(ChartMetadata, Vec<u8>), Error> {
        let folder = &self.folder(url)?;
        let mut best: Option<(Version, ChartMetadata, PathBuf)> = None;
        for (metadata, path) in charts_in(folder)? {
            let Ok(version) = Version::parse(&metadata.version) else { continue };
            let fits = metadata.name == name && allows(wanted, &version)?;
            if fits && best.as_ref().is_none_or(|(newest, ..)| *newest < version) {
                best = Some((version, metadata, path));
            }
        }
        let missing = || Error::Source(format!("no '{name}' chart with version matching '{wanted}' found"));
        let (_, metadata, path) = best.ok_or_else(missing)?;
        let packed = if path.is_dir() { pack_chart(&metadata.name, &tree(&path)?)? } else { read(&path)? };
        Ok((metadata, packed))
    }

    /// The index of the repository at `url`, as a chart repository serves it: each chart is next to it, as
    /// `<name>-<version>.tgz`.
    ///
    /// # Errors
    /// [`Error::Source`] when the URL is not mapped or a chart cannot be read.
    pub fn index(&self, url: &str) -> Result<String, Error> {
        let mut entries: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
        for (ChartMetadata { name, version, .. }, _) in charts_in(&self.folder(url)?)? {
            let urls = [format!("{name}-{version}.tgz")];
            let entry = serde_json::json!({ "apiVersion": "v2", "name": &name, "version": version, "urls": urls });
            entries.entry(name).or_default().push(entry);
        }
        // JSON is YAML.
        Ok(serde_json::json!({ "apiVersion": "v1", "entries": entries }).to_string())
    }

    /// The folder of the repository at `url`.
    ///
    /// # Errors
    /// [`Error::Source`] when there is none.
    pub fn folder(&self, url: &str) -> Result<PathBuf, Error> {
        let path = url.split_once("://").map_or(url, |(_, path)| path);
        let inside = path.split('/').all(|part| part != "..");
        let folder = self.root.join(path.trim_matches('/'));
        if inside && folder.is_dir() {
            return Ok(folder);
        }
        Err(Error::Source(format!("failed to fetch the index of {url}: no such repository")))
    }
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Source(format!("{path}: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(unreadable(path))
}

fn charts_in(folder: &Path) -> Result<Vec<(ChartMetadata, PathBuf)>, Error> {
    let mut charts = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.join("Chart.yaml").is_file() {
            charts.push((parse(&read(&path.join("Chart.yaml"))?)?, path));
        } else if path.extension().is_some_and(|extension| extension == "tgz") {
            charts.push((chart_metadata(&read(&path)?)?, path));
        }
    }
    Ok(charts)
}

fn parse(yaml: &[u8]) -> Result<ChartMetadata, Error> {
    serde_yaml_ng::from_slice(yaml).map_err(|error| Error::Source(format!("Chart.yaml: {error}")))
}

/// What the `Chart.yaml` of a packed chart says.
///
/// # Errors
/// [`Error::Source`] when it is not a packed chart.
pub fn chart_metadata(packed: &[u8]) -> Result<ChartMetadata, Error> {
    let files = unpack(packed).map_err(|error| Error::Source(format!("unpacking the chart: {error}")))?;
    match files.iter().find(|(path, _)| is_metadata(path)) {
        Some((_, Packed::File { content, .. })) => parse(content),
        _ => Err(Error::Source("the archive is not a chart: it has no Chart.yaml".to_owned())),
    }
}

/// The packed chart with another version in its `Chart.yaml`.
pub(super) fn chart_with_version(packed: &[u8], version: &str) -> Result<Vec<u8>, Error> {
    let mut files = unpack(packed).map_err(|error| Error::Source(format!("unpacking the chart: {error}")))?;
    let metadata = files.iter_mut().find(|(path, _)| is_metadata(path));
    if let Some((_, Packed::File { content, .. })) = metadata {
        let mut fields: serde_json::Value =
            serde_yaml_ng::from_slice(content).map_err(|error| Error::Source(format!("Chart.yaml: {error}")))?;
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("version".to_owned(), version.into());
        }
        // JSON is YAML.
        *content = fields.to_string().into_bytes();
    }
    pack(&files).map_err(|error| Error::Source(format!("packing the chart: {error}")))
}

/// Whether this is the `Chart.yaml` of the chart itself, not of one it depends on.
fn is_metadata(path: &str) -> bool {
    path.split_once('/').is_some_and(|(_, file)| file == "Chart.yaml")
}

/// The chart at `path` of an unpacked source tree.
pub(super) fn chart_of_tree(files: &BTreeMap<String, Packed>, path: &str) -> Result<(ChartMetadata, Vec<u8>), Error> {
    let prefix = format!("{}/", path.trim_start_matches("./").trim_matches('/'));
    let inside =
        |(file, content): (&String, &Packed)| file.strip_prefix(&prefix).map(|file| (file.to_owned(), content.clone()));
    let chart: BTreeMap<String, Packed> = files.iter().filter_map(inside).collect();
    let Some(Packed::File { content, .. }) = chart.get("Chart.yaml") else {
        return Err(Error::Source(format!("no chart at '{path}' of the source")));
    };
    let metadata = parse(content)?;
    let packed = pack_chart(&metadata.name, &chart)?;
    Ok((metadata, packed))
}

fn pack_chart(name: &str, files: &BTreeMap<String, Packed>) -> Result<Vec<u8>, Error> {
    let files = files.iter().map(|(path, file)| (format!("{name}/{path}"), file.clone())).collect();
    pack(&files).map_err(|error| Error::Source(format!("packing chart {name}: {error}")))
}

fn tree(folder: &Path) -> Result<BTreeMap<String, Packed>, Error> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).map_err(unreadable(&next))? {
            let path = entry.map_err(unreadable(&next))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, Packed::File { content: read(&path)?, executable: false });
            }
        }
    }
    Ok(files)
}

/// Whether a version constraint as Helm writes it allows `version`. A bare version is exact; comparators are joined by
/// space or comma, alternatives by `||`.
pub(super) fn allows(constraint: &str, version: &Version) -> Result<bool, Error> {
    let bad = |error: semver::Error| Error::Source(format!("version constraint '{constraint}': {error}"));
    if constraint.trim().is_empty() {
        return Ok(version.pre.is_empty());
    }
    for alternative in constraint.split("||") {
        let alternative = alternative.trim();
        let bare = alternative.strip_prefix('v').unwrap_or(alternative);
        let fits = match Version::parse(bare) {
            Ok(exact) => exact.cmp_precedence(version).is_eq(),
            Err(_) => {
                let comparators = alternative.replace(',', " ");
                let joined = comparators.split_whitespace().collect::<Vec<_>>().join(", ");
                // An operator may stand apart from its version.
                let joined = ["<", ">", "=", "~", "^"]
                    .iter()
                    .fold(joined, |text, operator| text.replace(&format!("{operator}, "), operator));
                VersionReq::parse(&joined).map_err(bad)?.matches(version)
            }
        };
        if fits {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(folder: &Path, directory: &str, name: &str, version: &str) {
        let chart = folder.join(directory);
        fs::create_dir_all(chart.join("templates")).unwrap();
        fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: {version}\n")).unwrap();
        fs::write(chart.join("templates/a.yaml"), "x: 1\n").unwrap();
    }

    #[test]
    fn the_newest_allowed_version_is_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("charts.test/stable");
        for version in ["1.0.0", "1.2.0", "1.10.0", "2.0.0", "2.1.0-rc.1"] {
            publish(&folder, version, "notes", version);
        }
        publish(&folder, "other", "other", "9.0.0");
        let registry = ChartRegistry::new(root.path().to_owned());
        let found =
            |wanted| registry.find("https://charts.test/stable/", "notes", wanted).map(|(chart, _)| chart.version).ok();
        for (wanted, expected) in [
            ("1.2.0", Some("1.2.0")),
            ("1.x", Some("1.10.0")),
            (">= 1.0.0 <1.5.0", Some("1.2.0")),
            ("~1.2", Some("1.2.0")),
            ("", Some("2.0.0")),
            ("2.1.0-rc.1", Some("2.1.0-rc.1")),
            ("3.0.0", None),
            ("nonsense", None),
        ] {
            assert_eq!(found(wanted).as_deref(), expected, "{wanted}");
        }
        assert!(registry.find("https://charts.test/other", "notes", "").is_err());
    }

    #[test]
    fn a_packed_chart_says_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("r.test/charts");
        publish(&folder, "a", "notes", "1.0.0");
        let registry = ChartRegistry::new(root.path().to_owned());
        let (metadata, packed) = registry.find("oci://r.test/charts", "notes", "1.0.0").unwrap();
        assert_eq!(chart_metadata(&packed).unwrap(), metadata);
        let changed = chart_with_version(&packed, "1.0.0+0123456789ab").unwrap();
        assert_eq!(chart_metadata(&changed).unwrap().version, "1.0.0+0123456789ab");
        fs::remove_dir_all(folder.join("a")).unwrap();
        fs::write(folder.join("notes-1.0.0.tgz"), &packed).unwrap();
        assert_eq!(registry.find("oci://r.test/charts", "notes", "1.0.0").unwrap(), (metadata, packed));
    }
}
