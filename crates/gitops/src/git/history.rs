//! Reads commits, trees and blobs of the local copy with gix, never believing that a shallow history is all there is.

use std::collections::{BinaryHeap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use gix::ObjectId;
use gix::objs::tree::EntryKind;
use upgrade_core::ports::{Ancestry, CommitRecord};

use super::TRAILER;
use crate::NotAFile;

/// Something in the local copy that is not as it must be: it is thrown away and fetched anew.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl<E: std::error::Error> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// How many characters of a commit's subject are given: they end up in messages.
const SUBJECT: usize = 200;

type Result<T, E = Broken> = std::result::Result<T, E>;

/// The commits that are here, and where they stop being complete.
pub(super) struct History {
    repo: gix::Repository,
    shallow: HashSet<ObjectId>,
}

/// What a walk saw.
#[derive(Debug, Default)]
struct Seen {
    commits: HashSet<ObjectId>,
    /// Committer times, in seconds, of the commits whose parents are not here.
    cut_at: Vec<i64>,
    /// Whether a commit without parents was met.
    root: bool,
}

/// The answer to a search in a history that may be cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search<T> {
    Found(T),
    Absent,
    /// Deepen and ask again.
    Cut,
}

struct Node<'r> {
    commit: gix::Commit<'r>,
    parents: Vec<ObjectId>,
    /// Whether it has parents that are not here.
    is_cut: bool,
}

impl History {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let repo = gix::open_opts(dir, gix::open::Options::isolated())?;
        let shallow = repo.shallow_commits()?;
        let shallow = shallow.map(|commits| commits.iter().copied().collect()).unwrap_or_default();
        Ok(Self { repo, shallow })
    }

    pub(super) fn has(&self, id: ObjectId) -> bool {
        self.repo.has_object(id)
    }

    fn node(&self, id: ObjectId) -> Result<Node<'_>> {
        let commit = self.repo.find_commit(id)?;
        let all: Vec<ObjectId> = commit.parent_ids().map(gix::Id::detach).collect();
        // A parent that is missing is treated like a cut that the shallow file knows about: not known is not "not there".
        let is_cut =
            !all.is_empty() && (self.shallow.contains(&id) || !all.iter().all(|parent| self.repo.has_object(*parent)));
        let parents = if is_cut { Vec::new() } else { all };
        Ok(Node { commit, parents, is_cut })
    }

    /// Visits what `from` contains, newest first, but nothing in `without`.
    fn walk<'r>(
        &'r self,
        from: ObjectId,
        without: &HashSet<ObjectId>,
        mut visit: impl FnMut(&Node<'r>) -> Result<ControlFlow<()>>,
    ) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut open = BinaryHeap::new();
        let push = |open: &mut BinaryHeap<(i64, ObjectId)>, seen: &mut Seen, id: ObjectId| -> Result<()> {
            if !without.contains(&id) && seen.commits.insert(id) {
                open.push((self.time(id)?, id));
            }
            Ok(())
        };
        push(&mut open, &mut seen, from)?;
        while let Some((time, id)) = open.pop() {
            let node = self.node(id)?;
            if visit(&node)?.is_break() {
                break;
            }
            if node.is_cut {
                seen.cut_at.push(time);
            } else if node.parents.is_empty() {
                seen.root = true;
            }
            for parent in node.parents {
                push(&mut open, &mut seen, parent)?;
            }
        }
        Ok(seen)
    }

    fn time(&self, id: ObjectId) -> Result<i64> {
        let commit = self.repo.find_commit(id)?;
        // An unreadable date only loses its place in the order.
        Ok(commit.time().map_or(0, |time| time.seconds))
    }

    pub(super) fn ancestry(&self, commit: ObjectId, descendant: ObjectId) -> Result<Ancestry> {
        if !self.has(descendant) {
            return Ok(Ancestry::Unknown);
        }
        let mut is_found = false;
        let seen = self.walk(descendant, &HashSet::new(), |node| {
            is_found = node.commit.id == commit;
            Ok(if is_found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(match (is_found, seen.cut_at.is_empty()) {
            (true, _) => Ancestry::Contained,
            (false, true) => Ancestry::NotContained,
            (false, false) => Ancestry::Unknown,
        })
    }

    /// Looks for the commit with the trailer of `operation`. Cuts older than `not_before` (Unix seconds) are no reason to
    /// look further: the operation is younger.
    pub(super) fn find(&self, tip: ObjectId, operation: &str, not_before: i64) -> Result<Search<(ObjectId, ObjectId)>> {
        let trailer = format!("{TRAILER}: {operation}");
        let mut found = None;
        let seen = self.walk(tip, &HashSet::new(), |node| {
            let message = node.commit.message_raw()?;
            let message = String::from_utf8_lossy(message);
            let last = message.trim_end().rsplit("\n\n").next().unwrap_or_default();
            if last.lines().any(|line| line.trim_end() == trailer) {
                let parent = node.commit.parent_ids().next();
                found = parent.map(|parent| (node.commit.id, parent.detach()));
            }
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(match found {
            Some(found) => Search::Found(found),
            None if seen.cut_at.iter().any(|time| *time >= not_before) => Search::Cut,
            None => Search::Absent,
        })
    }

    /// Subjects of the commits that `to` contains and `from` does not, as `git log from..to -- paths` gives them.
    pub(super) fn log(
        &self,
        from: ObjectId,
        to: ObjectId,
        paths: &[String],
        limit: usize,
    ) -> Result<Search<Vec<String>>> {
        if !self.has(from) || !self.has(to) {
            return Ok(Search::Cut);
        }
        let old = self.walk(from, &HashSet::new(), |_| Ok(ControlFlow::Continue(())))?;
        let mut subjects = Vec::new();
        let new = self.walk(to, &old.commits, |node| {
            if !node.is_cut && subjects.len() < limit && self.touches(node, paths)? {
                let message = node.commit.message_raw()?;
                let subject = String::from_utf8_lossy(message);
                subjects.push(subject.lines().next().unwrap_or_default().chars().take(SUBJECT).collect());
            }
            Ok(if subjects.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        // A root that only the new side reaches may lie behind the cut of the old one.
        let is_cut = !new.cut_at.is_empty() || (new.root && !old.cut_at.is_empty());
        Ok(if is_cut { Search::Cut } else { Search::Found(subjects) })
    }

    /// Whether a commit differs from all its parents below one of the paths.
    fn touches(&self, node: &Node<'_>, paths: &[String]) -> Result<bool> {
        if paths.is_empty() {
            return Ok(true);
        }
        let here = self.entries(&node.commit, paths)?;
        if node.parents.is_empty() {
            return Ok(here.iter().any(Option::is_some));
        }
        for parent in &node.parents {
            let parent = self.repo.find_commit(*parent)?;
            if self.entries(&parent, paths)? == here {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entries(&self, commit: &gix::Commit<'_>, paths: &[String]) -> Result<Vec<Option<(EntryKind, ObjectId)>>> {
        let tree = commit.tree()?;
        let entry = |path: &String| {
            let entry = tree.lookup_entry(path.trim_end_matches('/').split('/').map(str::as_bytes));
            Ok(entry?.map(|entry| (entry.mode().kind(), entry.object_id())))
        };
        paths.iter().map(entry).collect()
    }

    /// The bytes of a plain file, and its mode.
    pub(super) fn file(
        &self,
        commit: ObjectId,
        path: &str,
        limit: u64,
    ) -> Result<Result<(Vec<u8>, EntryKind), NotAFile>> {
        let mut tree = self.repo.find_commit(commit).and_then(|commit| commit.tree())?;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let Some(entry) = tree.lookup_entry([part.as_bytes()])? else {
                return Ok(Err(NotAFile::Missing));
            };
            let id = entry.object_id();
            match (entry.mode().kind(), parts.peek()) {
                (EntryKind::Link, _) => return Ok(Err(NotAFile::Symlink)),
                (EntryKind::Commit, _) => return Ok(Err(NotAFile::Submodule)),
                (EntryKind::Tree, None) => return Ok(Err(NotAFile::Folder)),
                (EntryKind::Tree, Some(_)) => tree = self.repo.find_tree(id)?,
                (EntryKind::Blob | EntryKind::BlobExecutable, Some(_)) => return Ok(Err(NotAFile::Missing)),
                (kind @ (EntryKind::Blob | EntryKind::BlobExecutable), None) => {
                    let size = self.repo.find_header(id)?.size();
                    if size > limit {
                        return Ok(Err(NotAFile::TooLarge { size, limit }));
                    }
                    let mut blob = self.repo.find_blob(id)?;
                    return Ok(Ok((blob.take_data(), kind)));
                }
            }
        }
        Ok(Err(NotAFile::Missing))
    }
}

/// Paths with what is in the files.
type Contents = Vec<(String, Vec<u8>)>;

impl History {
    /// Paths and contents of the plain files below a folder that kustomize may read, by their names. Gives up beyond `most` files or `limit`
    /// bytes in all, with what was too much.
    pub(super) fn yaml_below(
        &self,
        commit: ObjectId,
        folder: &str,
        most: usize,
        limit: u64,
    ) -> Result<Result<Contents, String>> {
        let mut tree = self.repo.find_commit(commit).and_then(|commit| commit.tree())?;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let Some(entry) = tree.lookup_entry([part.as_bytes()])? else { return Ok(Ok(Vec::new())) };
            if entry.mode().kind() != EntryKind::Tree {
                return Ok(Ok(Vec::new()));
            }
            tree = self.repo.find_tree(entry.object_id())?;
        }
        let mut found = Vec::new();
        let mut size = 0;
        let mut open = vec![(folder.to_owned(), tree.id)];
        while let Some((at, id)) = open.pop() {
            for entry in self.repo.find_tree(id)?.iter() {
                let entry = entry?;
                let name = String::from_utf8_lossy(entry.filename()).into_owned();
                let path = if at.is_empty() { name } else { format!("{at}/{name}") };
                // kustomize reads a file of this name, too.
                let is_kustomization = path.rsplit('/').next() == Some("Kustomization");
                let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml") || is_kustomization;
                match entry.mode().kind() {
                    EntryKind::Tree => open.push((path, entry.object_id())),
                    EntryKind::Blob | EntryKind::BlobExecutable if is_yaml => {
                        size += self.repo.find_header(entry.object_id())?.size();
                        if found.len() >= most || size > limit {
                            return Ok(Err(format!("more than {most} files or {limit} bytes")));
                        }
                        found.push((path, self.repo.find_blob(entry.object_id())?.take_data()));
                    }
                    // What a link or another repository brings along is not seen here, so it must not be passed over.
                    EntryKind::Link if is_yaml => return Ok(Err(format!("{path}, which is a symbolic link"))),
                    EntryKind::Commit => return Ok(Err(format!("{path}, which is another repository"))),
                    EntryKind::Link | EntryKind::Blob | EntryKind::BlobExecutable => {}
                }
            }
        }
        Ok(Ok(found))
    }
}

/// How a commit of ours is reported.
pub(super) fn record(repository: &str, (sha, parent): (ObjectId, ObjectId)) -> CommitRecord {
    CommitRecord { repository: repository.to_owned(), sha: sha.to_string(), parent: parent.to_string() }
}
