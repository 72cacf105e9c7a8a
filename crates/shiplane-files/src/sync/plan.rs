//! Computes the plan of a sync.

mod one_way;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use shiplane_wire::{Attributes, Digest, EntryKind, PathRefused, Principal, RelPath};
use thiserror::Error;

pub use self::one_way::plan_one_way;
use super::conflict::name_of;
use super::manifest::{FileState, Manifest, Node, Stamp, side_by_side};
use crate::state::FILE_MODES;

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
    /// Give the file or link at `from`, on the same side, this name as well: it is about to lose its own.
    KeepAs {
        /// Where it is.
        from: RelPath,
    },
    /// Rename the file or directory at `from`, whose name this side's file system takes for the same. Done before all else.
    Rename {
        /// Where it is.
        from: RelPath,
    },
    /// Remove the file or link, which is still what the manifest says.
    RemoveFile,
    /// Remove the directory, which is empty by now.
    RemoveDirectory,
    /// Create the directory.
    CreateDirectory,
    /// Create the symbolic link; replace what is here. Done after all that is in this list.
    CreateLink,
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
    /// Deleted on the side that only takes changes: it comes again.
    Restored,
    /// Both have changed it, each in its way: both versions stay, one of them under another name.
    BothEdited,
    /// A directory has the name here or there: the file gets another.
    DirectoryInItsPlace,
}

/// The result of [`plan`] or [`plan_one_way`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What both sides have afterwards, and the next base; in one direction, what the side that takes has.
    pub merged: Manifest,
    /// What is to be done, on both sides. Empty if nothing is.
    pub actions: Vec<Action>,
    /// Of a sync in one direction.
    pub one_way: Option<OneWay>,
}

/// What a sync in one direction leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneWay {
    /// The side that takes the other's changes. The other one is not changed.
    pub to: Side,
    /// What both have in common afterwards: the next base.
    pub common: Manifest,
    /// Where that side has a version of its own, which stays: what the other side has there, and beneath, is not taken.
    pub kept: BTreeSet<RelPath>,
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
    Ok(Outcome { merged: merge.merged, actions, one_way: None })
}

/// What both are to have, and where it comes from. A *leaf* is a file or a link.
struct Merge<'a> {
    merged: Manifest,
    /// Leaves under another name than the one they had, and that one.
    renamed: BTreeMap<RelPath, (RelPath, Why)>,
    /// Leaves that one side has deleted, and why they are there all the same.
    deleted: BTreeMap<RelPath, Why>,
    /// What was there before.
    base: &'a Manifest,
}

impl<'a> Merge<'a> {
    fn of(base: &'a Manifest, local: &Manifest, remote: &Manifest) -> Result<Self, PlanError> {
        let (mut leaves, mut directories) = (Vec::new(), Vec::new());
        // Leaves that cannot keep their name, beside the one that does.
        let (mut homeless, mut deleted) = (Vec::new(), BTreeMap::new());
        for (path, nodes) in side_by_side([base, local, remote]) {
            let [was, ours, theirs] = nodes.map(|node| node.is_some_and(Node::is_directory));
            if if ours == was { theirs } else { ours } {
                directories.push((path.clone(), nodes));
            }
            let [was, ours, theirs] = nodes.map(|node| node.filter(|node| !node.is_directory()));
            match merge_leaf(was, ours, theirs) {
                Merged::Nothing => {}
                Merged::One(leaf) => {
                    if was.is_some() && (ours.is_none() || theirs.is_none()) {
                        deleted.insert(path.clone(), Why::EditOutlivesDeletion);
                    }
                    leaves.push((path.clone(), leaf));
                }
                Merged::Both { kept, other } => {
                    leaves.push((path.clone(), kept));
                    homeless.push((path.clone(), other, Why::BothEdited));
                }
            }
        }
        let sides = [base, local, remote];
        let (above, mut leaves, in_the_way) =
            with_parents(sides, directories, BTreeMap::from_iter(leaves), merge_directories);
        homeless.extend(in_the_way.into_iter().map(|(path, leaf)| (path, leaf, Why::DirectoryInItsPlace)));
        let is_taken = |path: &RelPath, leaves: &BTreeMap<_, _>| {
            leaves.contains_key(path)
                || above.contains_key(path)
                || sides.iter().any(|side| side.get(path).is_some())
        };
        let mut renamed = BTreeMap::new();
        for (path, leaf, why) in homeless {
            // A sync that was cut may have kept it already: once is enough.
            let is_kept = |name: &RelPath| leaves.get(name).is_some_and(|kept| kept.is_same(&leaf));
            let name = free_name(&path, &leaf, |name| !is_kept(name) && is_taken(name, &leaves))?;
            leaves.entry(name.clone()).or_insert(leaf);
            renamed.insert(name, (path, why));
        }
        Ok(Self { merged: described(above, leaves, sides, &renamed), renamed, deleted, base })
    }

    /// What one side has to do, in an order in which it can be done.
    fn act(&self, side: Side, own: &Manifest, other: &Manifest, actions: &mut Vec<Action>) {
        let mut act = |path: &RelPath, change, why| {
            actions.push(Action { side, path: path.clone(), change, why });
        };
        for (name, (from, why)) in &self.renamed {
            let Some(kept) = self.merged.leaf(name) else { continue };
            if has(own, from, kept) && !has(own, name, kept) {
                act(name, Change::KeepAs { from: from.clone() }, *why);
            }
        }
        let both: Vec<_> = side_by_side([own, &self.merged]).collect();
        // Children before their parents.
        for (path, [found, wanted]) in both.iter().rev() {
            let Some(is_directory) = found.map(Node::is_directory) else { continue };
            if wanted.is_none_or(|wanted| wanted.is_directory() != is_directory) {
                let change = if is_directory { Change::RemoveDirectory } else { Change::RemoveFile };
                let is_replaced = wanted.is_some() && !is_directory;
                act(path, change, if is_replaced { Why::DirectoryInItsPlace } else { Why::Deleted });
            }
        }
        for (path, [found, wanted]) in &both {
            let Some(wanted) = wanted.and_then(Node::directory) else { continue };
            match found.and_then(Node::directory) {
                None => act(path, Change::CreateDirectory, self.why_there(path)),
                // Its time follows from what is done in it, and is set without a word.
                Some(stamp) if stamp.has_other_mode(wanted) || self.has_other_attributes(own, path) => {
                    act(path, Change::SetMetadata, Why::MetadataChanged);
                }
                Some(_) => {}
            }
        }
        let in_conflict: HashSet<_> = self.renamed.values().map(|(from, _)| from).collect();
        for (path, [found, wanted]) in &both {
            let Some(leaf) = wanted.filter(|wanted| !wanted.is_directory()) else { continue };
            let (from, why) = match self.renamed.get(path) {
                Some((from, why)) => (from, *why),
                None if in_conflict.contains(path) => (*path, Why::BothEdited),
                None => (*path, self.why_there(path)),
            };
            let is_link = leaf.kind() == EntryKind::Symlink;
            if let Some(found) = found.filter(|found| found.is_same(leaf)) {
                let found = found.stamp();
                let has_other_stamp = found.has_other_mode(leaf.stamp()) || found.mtime != leaf.stamp().mtime;
                if has_other_stamp || self.has_other_attributes(own, path) {
                    act(path, Change::SetMetadata, Why::MetadataChanged);
                }
            } else if from != *path && has(own, from, leaf) {
                // It is kept already.
            } else if is_link {
                act(path, Change::CreateLink, why);
            } else if from == *path || has(other, from, leaf) {
                act(path, Change::Take { from: from.clone() }, why);
            }
        }
    }

    /// Whether a side that knows its attributes at a path is to be given others.
    fn has_other_attributes(&self, own: &Manifest, path: &RelPath) -> bool {
        match (own.attributes(path), self.merged.attributes(path)) {
            (Some(own), Some(wanted)) => known_by(own, wanted) != *wanted,
            (None, _) | (_, None) => false,
        }
    }

    fn why_there(&self, path: &RelPath) -> Why {
        let is_new = self.base.get(path).is_none();
        self.deleted.get(path).copied().unwrap_or(if is_new { Why::Created } else { Why::Edited })
    }
}

type Nodes = BTreeMap<RelPath, Node>;

/// These directories and those above them and the leaves, each that both sides have as `merge` says: a directory stays as long
/// as anything in it does, be it an empty directory. Also the leaves, and apart from them those whose names directories have.
fn with_parents(
    sides: [&Manifest; 3],
    directories: Vec<(RelPath, [Option<&Node>; 3])>,
    leaves: Nodes,
    merge: impl Fn(Option<Stamp>, Stamp, Stamp) -> Stamp,
) -> (Nodes, Nodes, Nodes) {
    let merge = |nodes: [Option<&Node>; 3]| {
        let [was, one, other] = nodes.map(|node| node.and_then(Node::directory));
        Node::Directory(match (one, other) {
            (Some(one), Some(other)) => merge(was, one, other),
            (one, other) => one.or(other).unwrap_or(Stamp::UNKNOWN),
        })
    };
    let paths: Vec<_> = leaves.keys().chain(directories.iter().map(|(path, _)| path)).cloned().collect();
    let mut all: BTreeMap<_, _> = directories.into_iter().map(|(path, nodes)| (path, merge(nodes))).collect();
    for path in paths {
        let mut above = path.parent();
        // Those above one that is there are there as well, or come yet.
        while let Some(parent) = above.filter(|parent| !all.contains_key(parent)) {
            above = parent.parent();
            let node = merge(sides.map(|side| side.get(&parent)));
            all.insert(parent, node);
        }
    }
    let (in_the_way, leaves) = leaves.into_iter().partition(|(path, _)| all.contains_key(path));
    (all, leaves, in_the_way)
}

/// Whether a side has this leaf at a path, whatever its mode and time.
fn has(side: &Manifest, path: &RelPath, leaf: &Node) -> bool {
    side.get(path).is_some_and(|node| node.is_same(leaf))
}

enum Merged {
    Nothing,
    One(Node),
    Both { kept: Node, other: Node },
}

/// The rules for one file or link.
fn merge_leaf(was: Option<&Node>, ours: Option<&Node>, theirs: Option<&Node>) -> Merged {
    let was_this = |node: &Node| was.is_some_and(|was| was.is_same(node));
    match (ours, theirs) {
        (None, None) => Merged::Nothing,
        (Some(one), None) | (None, Some(one)) => {
            // The other side has deleted what this one has left as it was, or else it is new or edited.
            if was_this(one) { Merged::Nothing } else { Merged::One(one.clone()) }
        }
        (Some(ours), Some(theirs)) if ours.is_same(theirs) => Merged::One(same(was, ours, theirs)),
        (Some(ours), Some(theirs)) if was_this(ours) => Merged::One(edited(was, theirs, ours)),
        (Some(ours), Some(theirs)) if was_this(theirs) => Merged::One(edited(was, ours, theirs)),
        (Some(ours), Some(theirs)) => {
            let rank = |node: &Node| (node.stamp().mtime, *node.content_digest().as_bytes());
            let (kept, other) = if rank(ours) > rank(theirs) { (ours, theirs) } else { (theirs, ours) };
            Merged::Both { kept: kept.clone(), other: other.clone() }
        }
    }
}

/// What both have, with a mode and a time.
fn same(was: Option<&Node>, ours: &Node, theirs: &Node) -> Node {
    ours.with_stamp(merge_stamps(was.map(Node::stamp), ours.stamp(), theirs.stamp()))
}

/// What only one side has edited. The other may have changed its mode.
fn edited(was: Option<&Node>, node: &Node, other: &Node) -> Node {
    let (Node::File(file), Node::File(other)) = (node, other) else { return node.clone() };
    let was = was.and_then(Node::file);
    let has_own_mode = was.is_none_or(|was| was.stamp.mode != file.stamp.mode);
    let takes_mode =
        file.stamp.mode == Stamp::UNKNOWN_MODE || !has_own_mode && other.stamp.mode != Stamp::UNKNOWN_MODE;
    let mode = if takes_mode { other.stamp.mode } else { file.stamp.mode };
    Node::File(FileState { stamp: Stamp { mode, ..file.stamp }, ..*file })
}

/// Of files with the same content: what only one side has changed counts, else what the later one has.
fn merge_stamps(was: Option<Stamp>, ours: Stamp, theirs: Stamp) -> Stamp {
    let mtime = changed(was.map(|was| was.mtime), ours.mtime, theirs.mtime);
    let later = match ours.mtime.cmp(&theirs.mtime) {
        Ordering::Greater => ours.mode,
        Ordering::Less => theirs.mode,
        Ordering::Equal => stricter(ours.mode, theirs.mode),
    };
    Stamp {
        mode: merge_modes(was, ours, theirs, later),
        mtime: mtime.unwrap_or_else(|| ours.mtime.max(theirs.mtime)),
    }
}

/// Of a directory. A sync that was cut may have changed the time of one of them: the earlier counts.
fn merge_directories(was: Option<Stamp>, ours: Stamp, theirs: Stamp) -> Stamp {
    let mtime = changed(was.map(|was| was.mtime), ours.mtime, theirs.mtime);
    Stamp {
        mode: merge_modes(was, ours, theirs, stricter(ours.mode, theirs.mode)),
        mtime: mtime.unwrap_or_else(|| ours.mtime.min(theirs.mtime)),
    }
}

/// The merged manifest, with the attributes that each path is to have. Both versions of what is in conflict have those of
/// their content's side.
fn described(
    directories: Nodes,
    leaves: Nodes,
    sides: [&Manifest; 3],
    renamed: &BTreeMap<RelPath, (RelPath, Why)>,
) -> Manifest {
    let mut merged = Manifest::of_nodes(directories.into_iter().chain(leaves), Vec::new());
    if sides.iter().all(|side| side.knows_owners().is_none()) {
        return merged;
    }
    let in_conflict: HashSet<_> = renamed.values().map(|(from, _)| from).collect();
    let attributes_of = |path: &RelPath, node: &Node| {
        let from = renamed.get(path).map(|(from, _)| from);
        let of = |side: &Manifest| {
            let found = side.get(from.unwrap_or(path))?;
            let is_it = match from.is_some() || in_conflict.contains(path) {
                true => found.is_same(node),
                false => found.kind() == node.kind(),
            };
            side.attributes(from.unwrap_or(path)).filter(|_| is_it).cloned()
        };
        let [was, ours, theirs] = sides.map(of);
        merge_attributes(was.as_ref(), ours, theirs)
    };
    let described: Vec<_> =
        merged.iter().map(|(path, node)| (path.clone(), attributes_of(path, node))).collect();
    described.into_iter().for_each(|(path, attributes)| merged.describe(&path, attributes));
    merged
}

/// What only one side has changed counts, else the longer ones, so that none are lost where nothing is known of before.
fn merge_attributes(
    was: Option<&Attributes>,
    ours: Option<Attributes>,
    theirs: Option<Attributes>,
) -> Option<Attributes> {
    let (Some(ours), Some(theirs)) = (ours.as_ref(), theirs.as_ref()) else { return ours.or(theirs) };
    let (ours, theirs) = (known_by(ours, theirs), known_by(theirs, ours));
    // That both have the same owner by now is no change of the rest.
    let has_same_owners = ours.owners() == theirs.owners();
    let was = was.map(|was| if has_same_owners { was.with_owners(ours.owners()) } else { was.clone() });
    let rank = |attributes: &Attributes| (attributes.as_bytes().len(), attributes.clone());
    let longer = if rank(&ours) > rank(&theirs) { ours.clone() } else { theirs.clone() };
    Some(changed(was.as_ref(), &ours, &theirs).cloned().unwrap_or(longer))
}

/// The same with the owners that only the other side knows.
fn known_by(attributes: &Attributes, other: &Attributes) -> Attributes {
    let ([user, group], [other_user, other_group]) = (attributes.owners(), other.owners());
    let known = |one: Principal<'_>| one.is_known();
    if known(user) && known(group) {
        return attributes.clone();
    }
    attributes.with_owners([
        if known(user) { user } else { other_user },
        if known(group) { group } else { other_group },
    ])
}

fn merge_modes(was: Option<Stamp>, ours: Stamp, theirs: Stamp, both_changed: u32) -> u32 {
    match (ours.mode, theirs.mode) {
        (Stamp::UNKNOWN_MODE, known) | (known, Stamp::UNKNOWN_MODE) => known,
        (ours, theirs) => changed(was.map(|was| was.mode), ours, theirs).unwrap_or(both_changed),
    }
}

/// The permissions that both give, and what else either has.
fn stricter(ours: u32, theirs: u32) -> u32 {
    (ours & theirs & FILE_MODES) | ((ours | theirs) & !FILE_MODES)
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

fn free_name(path: &RelPath, leaf: &Node, is_taken: impl Fn(&RelPath) -> bool) -> Result<RelPath, PlanError> {
    let mut attempt = 0;
    loop {
        let name = name_of(path, &leaf.content_digest(), attempt)
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

/// More files than this are rarely deleted on purpose, however large the dataset.
const MASS_DELETION_FILES: u64 = 1000;

#[cfg(test)]
mod tests;
