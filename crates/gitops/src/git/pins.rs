//! Reads and edits pinned scalars in memory, and knows which paths may be written.

use std::collections::BTreeMap;

use gix::ObjectId;
use gix::objs::tree::EntryKind;
use upgrade_core::ports::{CommitRequest, Pin, PinFacts, PinPart, PinValue};
use yaml_pin::{Document, Part, Path, Refusal, documents};

use super::history::History;
use super::session::Session;
use crate::{GitopsError, Mismatch, Result};

/// How many files are read for one folder.
const MAX_FILES: usize = 2000;

/// A file that an edit changes.
pub(super) struct Edited {
    pub(super) text: String,
    pub(super) kind: EntryKind,
}

/// The files of a commit, read once each.
struct Files<'s> {
    session: &'s Session,
    history: History,
    commit: ObjectId,
    read: BTreeMap<String, Edited>,
}

/// A pin in the words of `yaml-pin`.
struct Target {
    document: Document,
    field: Path,
    part: Part,
}

impl Files<'_> {
    fn get(&mut self, pin: &Pin) -> Result<&mut Edited> {
        let session = self.session;
        session.check_path(&pin.path)?;
        if !self.read.contains_key(&pin.path) {
            let limit = session.options.max_file_bytes;
            let read = self.history.file(self.commit, &pin.path, limit).map_err(|broken| session.broken(broken))?;
            let (bytes, kind) = read.map_err(|what| GitopsError::File {
                repository: session.name(),
                commit: self.commit.to_string(),
                path: pin.path.clone(),
                what,
            })?;
            let text = yaml_pin::text(&bytes).map_err(|refusal| session.refused(pin, refusal))?.to_owned();
            self.read.insert(pin.path.clone(), Edited { text, kind });
        }
        self.read.get_mut(&pin.path).ok_or_else(|| session.unreachable("a file was lost"))
    }
}

impl Session {
    fn files(&self, commit: ObjectId) -> Result<Files<'_>> {
        Ok(Files { session: self, history: self.history()?, commit, read: BTreeMap::new() })
    }

    fn refused(&self, pin: &Pin, refusal: Refusal) -> GitopsError {
        GitopsError::Pin {
            repository: self.name(),
            component: pin.component.clone(),
            place: place(pin),
            refusal: Box::new(refusal),
        }
    }

    fn not_allowed(&self, path: &str, why: &str) -> GitopsError {
        GitopsError::PathNotAllowed { repository: self.name(), path: path.to_owned(), why: why.to_owned() }
    }

    /// Whether a path is one inside the repository.
    pub(super) fn check_path(&self, path: &str) -> Result<()> {
        let path = windlass_api::RepositoryPath::from(path);
        match path.check() {
            Err(error) => Err(self.not_allowed(path.as_str(), &error.to_string())),
            Ok(()) if path.as_str().ends_with('/') => Err(self.not_allowed(path.as_str(), "it names a folder")),
            Ok(()) => Ok(()),
        }
    }

    /// Whether a path may be written.
    pub(super) fn check_writable(&self, path: &str) -> Result<()> {
        self.check_path(path)?;
        let file = windlass_api::RepositoryPath::from(path);
        let mut allowed = self.repository.paths.iter().map(|path| windlass_api::RepositoryPath::from(path.as_str()));
        if allowed.any(|prefix| prefix.check().is_ok() && prefix.holds(&file)) {
            return Ok(());
        }
        let why = if self.repository.paths.is_empty() {
            "no path of this repository may be written".to_owned()
        } else {
            format!("only {} may be written", self.repository.paths.join(", "))
        };
        Err(self.not_allowed(path, &why))
    }

    /// What pins carry at a commit that is here.
    pub(super) fn facts(&self, commit: ObjectId, pins: &[Pin]) -> Result<Vec<PinFacts>> {
        let mut files = self.files(commit)?;
        let mut facts = Vec::with_capacity(pins.len());
        for pin in pins {
            let text = &files.get(pin)?.text;
            let read = || {
                let target = target(text, pin)?;
                let scalar = yaml_pin::get(text, &target.document, &target.field, target.part)?;
                let marker = scalar.trailing_comment.is_some_and(|comment| comment.contains("$imagepolicy"));
                let count = documents(text)?.len();
                let mut sops = false;
                for index in 0..count {
                    sops |= is_declared(text, &Document::Index(index), "sops.mac")?;
                }
                Ok(PinFacts { pin: pin.clone(), value: scalar.value, image_policy_marker: marker, sops })
            };
            facts.push(read().map_err(|refusal| self.refused(pin, refusal))?);
        }
        Ok(facts)
    }

    /// The YAML files below a folder, with the changes made that are in them.
    ///
    /// # Errors
    /// [`GitopsError::FilesRefused`] when there are too many, or one is no text; and those of an edit.
    pub(super) fn manifests(
        &self,
        commit: ObjectId,
        folder: &str,
        changes: &[PinValue],
    ) -> Result<BTreeMap<String, String>> {
        let refused =
            |what: String| GitopsError::FilesRefused { repository: self.name(), folder: folder.to_owned(), what };
        let limit = self.options.max_file_bytes.saturating_mul(16);
        let found =
            self.history()?.yaml_below(commit, folder, MAX_FILES, limit).map_err(|broken| self.broken(broken))?;
        let mut files = BTreeMap::new();
        for (path, bytes) in found.map_err(refused)? {
            let text = yaml_pin::text(&bytes).map_err(|refusal| refused(format!("{path}: {refusal}")))?.to_owned();
            files.insert(path, text);
        }
        for PinValue { pin, value } in changes {
            let Some(text) = files.get_mut(&pin.path) else { continue };
            let edited = target(text, pin)
                .and_then(|target| yaml_pin::set(text, &target.document, &target.field, target.part, value));
            *text = edited.map_err(|refusal| self.refused(pin, refusal))?;
        }
        Ok(files)
    }

    /// The files of `head` with every change made, and nothing else.
    ///
    /// # Errors
    /// [`GitopsError::Superseded`] when a pin does not carry what is expected, [`GitopsError::AlreadyThere`] when all
    /// carry what is wanted; and every reason why a pin cannot be edited safely.
    pub(super) fn edit(&self, head: ObjectId, request: &CommitRequest) -> Result<BTreeMap<String, Edited>> {
        let pins: Vec<Pin> = request.changes.iter().map(|change| change.pin.clone()).collect();
        for pin in &pins {
            self.check_writable(&pin.path)?;
        }
        let facts = self.facts(head, &pins)?;
        if facts.iter().zip(&request.changes).all(|(fact, change)| fact.value == change.value) {
            return Err(GitopsError::AlreadyThere {
                repository: self.name(),
                commit: head.to_string(),
                operation: request.operation.clone(),
            });
        }
        let found: Vec<Mismatch> = facts
            .iter()
            .zip(&request.expected)
            .filter(|(fact, expected)| fact.value != **expected)
            .map(|(fact, expected)| Mismatch {
                component: fact.pin.component.clone(),
                place: place(&fact.pin),
                expected: expected.clone(),
                found: fact.value.clone(),
            })
            .collect();
        if !found.is_empty() {
            return Err(GitopsError::Superseded { repository: self.name(), commit: head.to_string(), found });
        }
        self.refuse_stale_digests(head, request)?;
        let mut files = self.files(head)?;
        let mut before = BTreeMap::new();
        let mut lines: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (change, expected) in request.changes.iter().zip(&request.expected) {
            let pin = &change.pin;
            let file = files.get(pin)?;
            before.entry(pin.path.clone()).or_insert_with(|| file.text.clone());
            if change.value == *expected {
                continue;
            }
            let set = || {
                let target = target(&file.text, pin)?;
                let line = yaml_pin::get(&file.text, &target.document, &target.field, target.part)?.position.line;
                let text = yaml_pin::set(&file.text, &target.document, &target.field, target.part, &change.value)?;
                Ok((line, text))
            };
            let (line, text) = set().map_err(|refusal| self.refused(pin, refusal))?;
            file.text = text;
            let lines = lines.entry(pin.path.clone()).or_default();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let mut edited = files.read;
        edited.retain(|path, file| before.get(path).is_some_and(|old| *old != file.text));
        for (path, file) in &edited {
            let old = before.get(path).map(String::as_str).unwrap_or_default();
            self.check_lines(path, old, &file.text, lines.get(path).map_or(0, Vec::len))?;
        }
        Ok(edited)
    }

    /// A tag that changes while the digest behind it stays would say one version and run another.
    fn refuse_stale_digests(&self, head: ObjectId, request: &CommitRequest) -> Result<()> {
        let mut files = self.files(head)?;
        for change in request.changes.iter().filter(|change| change.pin.part == PinPart::Tag) {
            let digest = Pin { part: PinPart::Digest, ..change.pin.clone() };
            let is_changed_too = request.changes.iter().any(|other| {
                other.pin.part == PinPart::Digest
                    && (&other.pin.path, &other.pin.object, &other.pin.field)
                        == (&digest.path, &digest.object, &digest.field)
            });
            let text = &files.get(&digest)?.text;
            let has_digest = target(text, &digest)
                .and_then(|target| yaml_pin::get(text, &target.document, &target.field, target.part))
                .is_ok();
            if has_digest && !is_changed_too {
                return Err(GitopsError::RequestRefused {
                    repository: self.name(),
                    why: format!("{} has a digest behind its tag, and only the tag would change", place(&change.pin)),
                });
            }
        }
        Ok(())
    }

    /// The last line of defence: an edit is as many changed lines as pins stand on, and no line more or less.
    fn check_lines(&self, path: &str, old: &str, new: &str, expected: usize) -> Result<()> {
        let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
        let changed = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        if old.len() == new.len() && (1..=expected).contains(&changed) {
            return Ok(());
        }
        Err(GitopsError::UnexpectedDiff {
            repository: self.name(),
            expected: format!("{expected} line(s) of {path}"),
            found: format!("{changed} line(s), and {} lines into {}", old.len(), new.len()),
        })
    }
}

fn place(pin: &Pin) -> String {
    format!("{} {} {}", pin.path, pin.object, pin.field)
}

fn target(text: &str, pin: &Pin) -> Result<Target, Refusal> {
    let part = match pin.part {
        PinPart::Whole => Part::Whole,
        PinPart::Tag => Part::Tag,
        PinPart::Digest => Part::Digest,
    };
    Ok(Target { document: document(text, &pin.object)?, field: pin.field.parse()?, part })
}

/// `Kind/name`, `Kind/namespace/name`, `#index`, or a kind alone when only one document has it.
fn document(text: &str, object: &str) -> Result<Document, Refusal> {
    if object.starts_with('#') || object.contains('/') {
        return object.parse();
    }
    let all = documents(text)?;
    let mut matches = all.iter().filter(|info| info.kind.as_deref() == Some(object));
    match (matches.next(), matches.next()) {
        (Some(info), None) => Ok(Document::Index(info.index)),
        (None, _) => Err(Refusal::DocumentNotFound { document: object.to_owned(), count: all.len() }),
        (Some(_), Some(second)) => Err(Refusal::DocumentAmbiguous {
            document: object.to_owned(),
            count: 2 + matches.count(),
            at: second.position,
        }),
    }
}

/// Whether a document may have a field: where that cannot be told, it may.
fn is_declared(text: &str, document: &Document, field: &str) -> Result<bool, Refusal> {
    match yaml_pin::get(text, document, &field.parse()?, Part::Whole) {
        // The shape of a document that has no such mapping at all is no sign of the field.
        Err(Refusal::PathNotFound { .. } | Refusal::WrongShape { .. }) => Ok(false),
        Ok(_) | Err(_) => Ok(true),
    }
}
