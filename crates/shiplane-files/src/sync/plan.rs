//! Computes the plan of a sync.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use shiplane_wire::{Digest, PathRefused, RelPath};
use thiserror::Error;

use super::conflict::name_of;
use super::manifest::{FileState, Manifest, Node, Stamp};

/// One of the two that are brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one whose manifest was given first.
    Local,
    /// The other.
    Remote,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

/// One thing to do on one side. Done in the order given, each finds what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Where it is to be done.
    pub side: Side,
    /// What has to be at this path afterwards, or no longer.
    pub path: RelPath,
    /// What to do.
    pub change: Change,
    /// Why.
    pub why: Why,
}

/// What is to be done at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Give the file at `from`, on the same side, this name as well: it is about to lose its own.
    KeepAs {
        /// Where it is.
        from: RelPath,
    },
    /// Remove the file, which is still what the manifest says.
    RemoveFile,
    /// Remove the directory, which is empty by now.
    RemoveDirectory,
    /// Create the directory.
    CreateDirectory,
    /// Give the file or directory, which is otherwise as it is to be, the mode and time that both are to have.
    SetMetadata,
    /// Take the file at `from` of the other side, as it was before any action; replace what is here.
    Take {
        /// Where it is.
        from: RelPath,
    },
}

/// Why something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The other side has made it.
    Created,
    /// The other side has changed it.
    Edited,
    /// The other side has deleted it.
    Deleted,
    /// The other side has changed its mode or time.
    MetadataChanged,
    /// Deleted here and edited there: what was edited stays.
    EditOutlivesDeletion,
    /// Both have changed it, each in its way: both versions stay, one of them under another name.
    BothEdited,
    /// A directory has the name here or there: the file gets another.
    DirectoryInItsPlace,
}

/// What [`plan`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What both sides have afterwards: the next base.
    pub merged: Manifest,
    /// What is to be done, on both sides. Empty if nothing is.
    pub actions: Vec<Action>,
}

/// What the user has agreed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// That a side loses most of its files.
    pub mass_deletion: bool,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A side would lose more than half of its files, or more than a thousand. Look whether the other side is
    /// what it should be; if so, run it again with consent.
    #[error("{deleted} of {files} files would be deleted on the {} side", match side {
        Side::Local => "local",
        Side::Remote => "remote",
    })]
    MassDeletion {
        /// Which side.
        side: Side,
        /// How many files it would lose.
        deleted: u64,
        /// How many it has.
        files: u64,
    },
    /// There is no room in the path for the name that a version in conflict would get. Rename it.
    #[error("cannot name the conflict copy of {path}: {reason}")]
    NoName {
        /// The path that both have.
        path: RelPath,
        /// What is wrong with the name.
        reason: PathRefused,
    },
}

/// Brings `local` and `remote` together, which last had `base` in common.
///
/// What only one side has changed since then is done on the other, deletions included. What both have
/// changed alike is settled. Where both have changed the same file, the version written last keeps its name
/// (of two written at once, the one with the greater digest), and the other is kept beside it. A deletion
/// yields to an edit, a file to a directory. Modes and times are merged each by itself: what only one side has changed
/// counts.
///
/// Given the same three manifests, both sides find the same [`Outcome`], each with itself as
/// [`Side::Local`].
///
/// # Errors
/// [`PlanError::MassDeletion`] without consent, [`PlanError::NoName`].
pub fn plan(
    base: &Manifest,
    local: &Manifest,
    remote: &Manifest,
    consent: Consent,
) -> Result<Outcome, PlanError> {
    let merge = Merge::of(base, local, remote)?;
    if !consent.mass_deletion {
        check_deletions(Side::Local, local, &merge.merged)?;
        check_deletions(Side::Remote, remote, &merge.merged)?;
    }
    let mut actions = Vec::new();
    for (side, own, other) in [(Side::Local, local, remote), (Side::Remote, remote, local)] {
        merge.act(side, own, other, &mut actions);
    }
    Ok(Outcome { merged: merge.merged, actions })
}

/// What both are to have, and where it comes from.
struct Merge {
    merged: Manifest,
    /// Files under another name than the one they had, and that one.
    renamed: BTreeMap<RelPath, (RelPath, Why)>,
    /// Files that stay although one side has deleted them.
    outlived: BTreeSet<RelPath>,
    /// What was there before.
    base: BTreeSet<RelPath>,
}

impl Merge {
    fn of(base: &Manifest, local: &Manifest, remote: &Manifest) -> Result<Self, PlanError> {
        let paths: BTreeSet<_> =
            [base, local, remote].iter().flat_map(|side| side.iter().map(|(path, _)| path)).collect();
        let (mut files, mut directories) = (BTreeMap::<RelPath, FileState>::new(), BTreeSet::new());
        // Files that cannot keep their name, beside the one that does.
        let (mut homeless, mut outlived) = (Vec::new(), BTreeSet::new());
        for path in paths {
            let [was, ours, theirs] = [base, local, remote].map(|side| side.is_directory(path));
            if if ours == was { theirs } else { ours } {
                directories.insert(path.clone());
            }
            let [was, ours, theirs] = [base, local, remote].map(|side| side.file(path));
            match merge_file(was, ours, theirs) {
                Merged::Nothing => {}
                Merged::One(file) => {
                    if was.is_some() && (ours.is_none() || theirs.is_none()) {
                        outlived.insert(path.clone());
                    }
                    files.insert(path.clone(), file);
                }
                Merged::Both { kept, other } => {
                    files.insert(path.clone(), kept);
                    homeless.push((path.clone(), other, Why::BothEdited));
                }
            }
        }
        // A directory stays as long as anything in it does, be it an empty directory.
        let mut above = directories.clone();
        for path in files.keys().chain(&directories) {
            above.extend(std::iter::successors(path.parent(), RelPath::parent));
        }
        let in_the_way: Vec<_> = files.keys().filter(|path| above.contains(path)).cloned().collect();
        for path in in_the_way {
            if let Some(file) = files.remove(&path) {
                homeless.push((path, file, Why::DirectoryInItsPlace));
            }
        }
        let is_taken = |path: &RelPath, files: &BTreeMap<_, _>| {
            files.contains_key(path)
                || above.contains(path)
                || [base, local, remote].iter().any(|side| side.get(path).is_some())
        };
        let mut renamed = BTreeMap::new();
        for (path, file, why) in homeless {
            // A sync that was cut may have kept it already: once is enough.
            let is_kept = |name: &RelPath| files.get(name).is_some_and(|kept| kept.digest == file.digest);
            let name = free_name(&path, &file, |name| !is_kept(name) && is_taken(name, &files))?;
            files.entry(name.clone()).or_insert(file);
            renamed.insert(name, (path, why));
        }
        let mut merged = Manifest::new();
        for path in above {
            let [was, ours, theirs] = [base, local, remote].map(|side| side.directory(&path));
            merged.insert(path, Node::Directory(merge_directory(was, ours, theirs)));
        }
        for (path, file) in files {
            merged.insert(path, Node::File(file));
        }
        let base = base.iter().map(|(path, _)| path.clone()).collect();
        Ok(Self { merged, renamed, outlived, base })
    }

    /// What one side has to do, in an order in which it can be done.
    fn act(&self, side: Side, own: &Manifest, other: &Manifest, actions: &mut Vec<Action>) {
        let mut act = |path: &RelPath, change, why| {
            actions.push(Action { side, path: path.clone(), change, why });
        };
        for (name, (from, why)) in &self.renamed {
            let is_there = |path| own.file(path).map(|file| file.digest);
            let kept = self.merged.file(name).map(|file| file.digest);
            if is_there(from) == kept && is_there(name) != kept {
                act(name, Change::KeepAs { from: from.clone() }, *why);
            }
        }
        // Children before their parents.
        for (path, node) in own.iter().rev() {
            let (gone, change) = match node {
                Node::File(_) => (self.merged.file(path).is_none(), Change::RemoveFile),
                Node::Directory(_) => (!self.merged.is_directory(path), Change::RemoveDirectory),
            };
            if gone {
                let is_replaced = self.merged.is_directory(path) && node.file().is_some();
                act(path, change, if is_replaced { Why::DirectoryInItsPlace } else { Why::Deleted });
            }
        }
        for (path, node) in self.merged.iter() {
            let Node::Directory(wanted) = node else { continue };
            match own.directory(path) {
                None => act(path, Change::CreateDirectory, self.why_there(path)),
                // Its time follows from what is done in it, and is set without a word.
                Some(stamp) if stamp.has_other_mode(*wanted) => {
                    act(path, Change::SetMetadata, Why::MetadataChanged);
                }
                Some(_) => {}
            }
        }
        let in_conflict: HashSet<_> = self.renamed.values().map(|(from, _)| from).collect();
        for (path, file) in self.merged.files() {
            if let Some((from, why)) = self.renamed.get(path) {
                let has =
                    |side: &Manifest, path| side.file(path).map(|file| file.digest) == Some(file.digest);
                if has(other, from) && !has(own, from) && !has(own, path) {
                    act(path, Change::Take { from: from.clone() }, *why);
                }
            } else if own.file(path).map(|file| file.digest) != Some(file.digest) {
                let why = if in_conflict.contains(path) { Why::BothEdited } else { self.why_there(path) };
                act(path, Change::Take { from: path.clone() }, why);
            } else if let Some(FileState { stamp, .. }) = own.file(path)
                && (stamp.has_other_mode(file.stamp) || stamp.mtime != file.stamp.mtime)
            {
                act(path, Change::SetMetadata, Why::MetadataChanged);
            }
        }
    }

    fn why_there(&self, path: &RelPath) -> Why {
        if self.outlived.contains(path) {
            Why::EditOutlivesDeletion
        } else if self.base.contains(path) {
            Why::Edited
        } else {
            Why::Created
        }
    }
}

enum Merged {
    Nothing,
    One(FileState),
    Both { kept: FileState, other: FileState },
}

/// The rules for one file.
fn merge_file(was: Option<&FileState>, ours: Option<&FileState>, theirs: Option<&FileState>) -> Merged {
    let digest = |file: Option<&FileState>| file.map(|file| file.digest);
    match (ours, theirs) {
        (None, None) => Merged::Nothing,
        (Some(one), None) | (None, Some(one)) => {
            // The other side has deleted what this one has left as it was, or else it is new or edited.
            if digest(was) == Some(one.digest) { Merged::Nothing } else { Merged::One(*one) }
        }
        (Some(ours), Some(theirs)) if ours.digest == theirs.digest => {
            let size_bytes = ours.size_bytes.max(theirs.size_bytes);
            let stamp = merge_stamps(was.map(|was| was.stamp), ours.stamp, theirs.stamp);
            Merged::One(FileState { size_bytes, digest: ours.digest, stamp })
        }
        (Some(ours), Some(theirs)) if digest(was) == Some(ours.digest) => {
            Merged::One(edited(was, theirs, ours))
        }
        (Some(ours), Some(theirs)) if digest(was) == Some(theirs.digest) => {
            Merged::One(edited(was, ours, theirs))
        }
        (Some(ours), Some(theirs)) => {
            let rank = |file: &FileState| (file.stamp.mtime, *file.digest.as_bytes());
            let (kept, other) = if rank(ours) > rank(theirs) { (ours, theirs) } else { (theirs, ours) };
            Merged::Both { kept: *kept, other: *other }
        }
    }
}

/// A file that only one side has edited. The other may have changed its mode.
fn edited(was: Option<&FileState>, file: &FileState, other: &FileState) -> FileState {
    let has_own_mode = was.is_none_or(|was| was.stamp.mode != file.stamp.mode);
    let takes_mode =
        file.stamp.mode == Stamp::UNKNOWN_MODE || !has_own_mode && other.stamp.mode != Stamp::UNKNOWN_MODE;
    let mode = if takes_mode { other.stamp.mode } else { file.stamp.mode };
    FileState { stamp: Stamp { mode, ..file.stamp }, ..*file }
}

/// Of files with the same content: what only one side has changed counts, else what the later one has.
fn merge_stamps(was: Option<Stamp>, ours: Stamp, theirs: Stamp) -> Stamp {
    let mtime = changed(was.map(|was| was.mtime), ours.mtime, theirs.mtime);
    let later = match ours.mtime.cmp(&theirs.mtime) {
        Ordering::Greater => ours.mode,
        Ordering::Less => theirs.mode,
        Ordering::Equal => ours.mode.min(theirs.mode),
    };
    Stamp {
        mode: merge_modes(was, ours, theirs, later),
        mtime: mtime.unwrap_or_else(|| ours.mtime.max(theirs.mtime)),
    }
}

/// Of a directory. A sync that was cut may have changed the time of one of them: the earlier counts.
fn merge_directory(was: Option<Stamp>, ours: Option<Stamp>, theirs: Option<Stamp>) -> Stamp {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            let mtime = changed(was.map(|was| was.mtime), ours.mtime, theirs.mtime);
            Stamp {
                mode: merge_modes(was, ours, theirs, ours.mode.min(theirs.mode)),
                mtime: mtime.unwrap_or_else(|| ours.mtime.min(theirs.mtime)),
            }
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Stamp::UNKNOWN,
    }
}

fn merge_modes(was: Option<Stamp>, ours: Stamp, theirs: Stamp, both_changed: u32) -> u32 {
    match (ours.mode, theirs.mode) {
        (Stamp::UNKNOWN_MODE, known) | (known, Stamp::UNKNOWN_MODE) => known,
        (ours, theirs) => changed(was.map(|was| was.mode), ours, theirs).unwrap_or(both_changed),
    }
}

/// What both have, or what the one has that has changed it; `None` if both have.
fn changed<T: PartialEq>(was: Option<T>, ours: T, theirs: T) -> Option<T> {
    if ours == theirs {
        return Some(ours);
    }
    match was {
        Some(was) if was == ours => Some(theirs),
        Some(was) if was == theirs => Some(ours),
        Some(_) | None => None,
    }
}

fn free_name(
    path: &RelPath,
    file: &FileState,
    is_taken: impl Fn(&RelPath) -> bool,
) -> Result<RelPath, PlanError> {
    let mut attempt = 0;
    loop {
        let name = name_of(path, &file.digest, attempt)
            .map_err(|reason| PlanError::NoName { path: path.clone(), reason })?;
        if !is_taken(&name) {
            return Ok(name);
        }
        attempt += 1;
    }
}

/// A file whose content stays under some name is not lost, so that a directory may be renamed at will.
fn check_deletions(side: Side, own: &Manifest, merged: &Manifest) -> Result<(), PlanError> {
    let kept: HashSet<Digest> = merged.files().map(|(_, file)| file.digest).collect();
    let (mut files, mut deleted) = (0_u64, 0_u64);
    for (path, file) in own.files() {
        files += 1;
        if merged.file(path).is_none() && !kept.contains(&file.digest) {
            deleted += 1;
        }
    }
    if deleted > MASS_DELETION_FILES || deleted > files / 2 {
        return Err(PlanError::MassDeletion { side, deleted, files });
    }
    Ok(())
}

/// So many files are rarely deleted on purpose, however large the dataset.
const MASS_DELETION_FILES: u64 = 1000;

#[cfg(test)]
mod tests;
