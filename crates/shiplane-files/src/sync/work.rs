//! One side's part of a sync: what it does beside the transfers, and in which order. Blocking.
//!
//! 1. What is about to lose its name gets another (copies, durable before anything is replaced).
//! 2. What stands in the way of the other kind is removed, directories are created.
//! 3. What is wanted and here already, under another name, is copied.
//! 4. The rest is received, and what the other side wants is provided, both at once: see `exchange`.
//! 5. What was deleted is removed, modes and times are set, and everything is made durable.
//!
//! Cut anywhere, this leaves files that one of the two sides had, each whole: the next sync finds fewer
//! differences and goes on. Immediately before something is replaced or removed it is looked at again; if it
//! is not what was listed, it is left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use shiplane_wire::{Digest, Entry, EntryKind, RelPath, Version};

use super::dataset::{Agreed, KeepAlive, View};
use super::error::DatasetError;
use super::left::{Left, UnresolvedReason};
use super::manifest::{FileState, LinkState, Manifest, Node, Stamp, side_by_side};
use super::plan::{Action, Change, Side};
use super::policy::{Shared, TakePolicy};
use super::scan::ScanError;
use super::spelling;
use crate::{
    destination::Destination,
    error::{DestinationError, SourceError},
    left_out::LeftOut,
    platform::Kind,
    policy::{CopyPolicy, RenameMode},
    source::{Source, SourceRoot},
    state::{DIRECTORY_MODES, FILE_MODES, OWNER_DIRECTORY_MODE, Summary},
};

/// One side's part.
#[derive(Debug)]
pub(super) struct Work {
    shared: Shared,
    /// In the order of the plan, this side's only.
    actions: Vec<Action>,
    /// Directories in which something is done. `None`: it may be any.
    touched: Option<BTreeSet<RelPath>>,
    /// What the other side takes, by the name it has on both in the end.
    offered: Vec<RelPath>,
    /// Names that have become files of their own, with their modes, times and attributes.
    separate: BTreeSet<RelPath>,
    /// The first path of which not all attributes can be carried.
    stripped: Option<RelPath>,
}

/// The result of copying.
struct Copied {
    done: BTreeSet<RelPath>,
    /// Of the files that are not done. The others have changed, or their name is taken.
    failed: BTreeMap<RelPath, UnresolvedReason>,
}

/// What is ready after the first steps.
#[derive(Debug)]
pub struct Prepared {
    /// What the other side takes, if it takes anything.
    pub source: Option<Source>,
    /// For what this side takes, if it takes anything.
    policy: Option<Arc<TakePolicy>>,
    agreed: Arc<Agreed>,
    left: Left,
    /// What is still to be done here; `None` if the other side takes from this one, and that is all.
    work: Option<Work>,
    _held: Option<KeepAlive>,
}

impl Work {
    /// This side's part of what was `agreed` on.
    fn new(view: View, destination: Destination, agreed: Agreed) -> Self {
        let (actions, theirs): (Vec<_>, Vec<_>) =
            agreed.outcome.actions.iter().cloned().partition(|action| action.side == Side::Local);
        let is_taken = |action: &Action| matches!(action.change, Change::Take { .. });
        let offered = theirs.into_iter().filter(is_taken).map(|action| action.path).collect();
        let parents = || actions.iter().filter_map(|action| action.path.parent()).collect();
        let touched = (!destination.has_leftovers()).then(parents);
        let stripped = view.stripped.clone();
        let (shared, separate) = (Shared::new(view, destination, agreed), BTreeSet::new());
        Self { shared, actions, touched, offered, separate, stripped }
    }

    /// The first three steps.
    fn prepare(mut self) -> Result<Prepared, DatasetError> {
        self.make_writable()?;
        spelling::rename(&mut self.shared, &self.actions)?;
        self.keep_what_loses_its_name()?;
        let in_the_way = self.in_the_way();
        self.remove(&in_the_way)?;
        self.create_directories()?;
        let taken = self.files_to_take();
        let here = self.copy_what_is_here(&taken)?;
        self.separate_names()?;
        let source = if self.offered.is_empty() { None } else { Some(self.offer()?) };
        let policy = (!taken.is_empty()).then(|| TakePolicy::new(self.shared.clone(), taken, here));
        let (agreed, left) = (Arc::clone(&self.shared.agreed), self.shared.left.clone());
        Ok(Prepared { source, policy, agreed, left, work: Some(self), _held: None })
    }

    fn keep_what_loses_its_name(&self) -> Result<(), DatasetError> {
        let mut copies = BTreeMap::new();
        for action in &self.actions {
            let Change::KeepAs { from } = &action.change else { continue };
            if let Some(Node::Link(link)) = self.shared.agreed.own.get(from) {
                self.keep_link(from, &action.path, link)?;
                continue;
            }
            let Some(file) = self.shared.agreed.own.file(from) else { continue };
            let wanted = self.shared.agreed.outcome.merged.file(&action.path).unwrap_or(file);
            copies.insert(action.path.clone(), (from.clone(), *wanted));
        }
        let Copied { done, mut failed } = self.copy(&copies, &|_| RenameMode::New)?;
        for (to, (from, _)) in copies.iter().filter(|(to, _)| !done.contains(*to)) {
            let why = failed.remove(to).unwrap_or(UnresolvedReason::Changed);
            // It must not be replaced either.
            self.shared.left.note(from, why.clone());
            self.shared.left.note(to, why);
        }
        Ok(())
    }

    /// Gives a link that is about to lose its name another one. It is ours, wherever it leads.
    fn keep_link(&self, from: &RelPath, to: &RelPath, link: &LinkState) -> Result<(), DatasetError> {
        let Shared { destination, left, .. } = &self.shared;
        if !self.shared.is_untouched(from) {
            left.note(to, UnresolvedReason::Changed);
            return Ok(());
        }
        let attributes = self.shared.agreed.outcome.merged.attributes(to);
        destination.create_link(to, link, attributes, false).or_else(|error| {
            let why = UnresolvedReason::after(error)?;
            // It must not be replaced either.
            left.note(from, why.clone());
            left.note(to, why);
            Ok(())
        })
    }

    /// What is removed now, because something of the other kind comes: a directory with all that is in it.
    fn in_the_way(&mut self) -> Vec<Action> {
        let merged = &self.shared.agreed.outcome.merged;
        let is_replaced = |Action { path, change, .. }: &&Action| {
            *change == Change::RemoveFile && merged.is_directory(path)
                || *change == Change::RemoveDirectory && merged.leaf(path).is_some()
        };
        let replaced = self.actions.iter().filter(is_replaced).map(|action| action.path.clone());
        let replaced: BTreeSet<_> = replaced.collect();
        let is_in_the_way = |action: &Action| {
            let mut above = std::iter::successors(Some(action.path.clone()), RelPath::parent);
            matches!(action.change, Change::RemoveFile | Change::RemoveDirectory)
                && above.any(|path| replaced.contains(&path))
        };
        let (now, later) = std::mem::take(&mut self.actions).into_iter().partition(is_in_the_way);
        self.actions = later;
        now
    }

    fn remove(&self, actions: &[Action]) -> Result<(), DatasetError> {
        let Shared { destination, left, .. } = &self.shared;
        for Action { path, change, .. } in actions {
            if left.contains(path) {
                continue;
            }
            let removed = if *change == Change::RemoveDirectory {
                // It fails if anything is in it.
                destination.remove_directory(path)
            } else if *change == Change::RemoveFile && self.shared.is_untouched(path) {
                destination.remove_file(path)
            } else {
                continue;
            };
            removed.or_else(|error| left.failed(path, error))?;
        }
        Ok(())
    }

    fn create_directories(&self) -> Result<(), DatasetError> {
        let merged = &self.shared.agreed.outcome.merged;
        for action in self.actions.iter().filter(|action| action.change == Change::CreateDirectory) {
            let Some(stamp) = merged.directory(&action.path) else { continue };
            let created = self.shared.destination.create_directory(&action.path, stamp);
            created.or_else(|error| self.shared.left.failed(&action.path, error))?;
        }
        Ok(())
    }

    fn files_to_take(&self) -> HashMap<RelPath, FileState> {
        let merged = &self.shared.agreed.outcome.merged;
        let taken = self.actions.iter().filter(|action| matches!(action.change, Change::Take { .. }));
        taken.filter_map(|action| Some((action.path.clone(), *merged.file(&action.path)?))).collect()
    }

    /// A file that was renamed on the other side, for one, need not come from there. Gives what is done.
    fn copy_what_is_here(
        &self,
        taken: &HashMap<RelPath, FileState>,
    ) -> Result<BTreeSet<RelPath>, DatasetError> {
        let own = &self.shared.agreed.own;
        let wanted: BTreeSet<_> = taken.values().map(|file| *file.digest.as_bytes()).collect();
        let here = own.files().filter(|(_, file)| wanted.contains(file.digest.as_bytes()));
        let by_content: HashMap<Digest, &RelPath> = here.map(|(path, file)| (file.digest, path)).collect();
        let mut copies = BTreeMap::new();
        for (path, file) in taken.iter().filter(|(path, _)| !self.shared.left.contains(path)) {
            if let Some(from) = by_content.get(&file.digest) {
                copies.insert(path.clone(), ((*from).clone(), *file));
            }
        }
        // What cannot be copied comes from the other side after all.
        Ok(self.copy(&copies, &|path| self.shared.rename_mode(path))?.done)
    }

    /// Names of one file cannot have different modes, times or attributes: those that are to have others than the rest become
    /// files of their own.
    fn separate_names(&mut self) -> Result<(), DatasetError> {
        let copies = self.names_to_separate();
        let Copied { done, mut failed } = self.copy(&copies, &|path| self.shared.rename_mode(path))?;
        for path in copies.keys().filter(|path| !done.contains(*path)) {
            self.shared.left.note(path, failed.remove(path).unwrap_or(UnresolvedReason::Changed));
        }
        self.separate = done;
        Ok(())
    }

    fn names_to_separate(&self) -> BTreeMap<RelPath, (RelPath, FileState)> {
        let Shared { agreed, seen, .. } = &self.shared;
        let merged = &agreed.outcome.merged;
        let set = self.actions.iter().filter(|action| action.change == Change::SetMetadata);
        let set: HashSet<_> = set.map(|action| &action.path).collect();
        let files: HashSet<_> = set.iter().filter_map(|path| seen.version_of_linked(path)).collect();
        let mut copies = BTreeMap::new();
        if files.is_empty() {
            return copies;
        }
        // Those that stay as they are decide for the rest.
        let (changed, kept): (Vec<_>, Vec<_>) = agreed.own.files().partition(|(path, _)| set.contains(path));
        let mut wanted_of = HashMap::new();
        for (path, own) in kept.into_iter().chain(changed) {
            let version = seen.version_of_linked(path).filter(|version| files.contains(version));
            let wanted = merged.file(path).filter(|wanted| wanted.digest == own.digest);
            let (Some(version), Some(wanted)) = (version, wanted) else { continue };
            let metadata = (wanted.stamp, merged.attributes(path));
            if *wanted_of.entry(version).or_insert(metadata) != metadata {
                copies.insert(path.clone(), (path.clone(), *wanted));
            }
        }
        copies
    }

    /// Copies files within the dataset, renamed as `mode_of` says.
    fn copy(
        &self,
        copies: &BTreeMap<RelPath, (RelPath, FileState)>,
        mode_of: &(dyn Fn(&RelPath) -> RenameMode + Sync),
    ) -> Result<Copied, DatasetError> {
        let Shared { destination, .. } = &self.shared;
        let (mut staged, mut failed) = (Vec::new(), BTreeMap::new());
        // The numbers of entries that a peer sends begin at the other end.
        for (index, (to, (from, wanted))) in (FIRST_COPY..).zip(copies) {
            let attributes = self.shared.agreed.outcome.merged.attributes(to);
            match destination.copy_within(index, from, to, wanted, attributes) {
                Ok(true) => staged.push(index),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "not copied");
                    failed.insert(to.clone(), UnresolvedReason::after(error)?);
                }
            }
        }
        let policy = CopyPolicy::new(mode_of);
        if !staged.is_empty() {
            destination.publish_by(&staged, &policy)?;
        }
        let done = policy.outcomes().done;
        for left_out in destination.take_left_out()?.0 {
            match &left_out.path {
                // They come from the other side, or are left alone, and are told then.
                Some(path) if copies.contains_key(path) && !done.contains(path) => {
                    failed.insert(path.clone(), UnresolvedReason::of(left_out.error));
                }
                // It is here without all of its attributes, or is no copy, and is taken notice of at the end.
                _ => destination.parts.site.left_outs.add(left_out),
            }
        }
        Ok(Copied { done, failed })
    }

    /// The entries that the other side takes, in their current state; without those that have changed since the plan.
    fn offer(&self) -> Result<Source, DatasetError> {
        let mut entries = BTreeMap::new();
        for path in &self.offered {
            match self.entry_of(path)? {
                Some(entry) => drop(entries.insert(path.clone(), entry)),
                // Unless it is known better.
                None => self.shared.left.note(path, UnresolvedReason::Changed),
            }
        }
        let Shared { root, agreed, destination, .. } = &self.shared;
        offered(root, &agreed.outcome.merged, entries, |above| Ok(Some(destination.entry_at(above)?)))
    }

    fn entry_of(&self, path: &RelPath) -> Result<Option<Entry>, DestinationError> {
        let Shared { agreed, left, .. } = &self.shared;
        let Some(expected) = agreed.outcome.merged.file(path) else { return Ok(None) };
        let entry = match self.shared.destination.entry_at(path) {
            Ok(entry) => entry,
            Err(error) => return left.failed(path, error).map(|()| None),
        };
        // What was here before must be so still; a copy under a new name was checked when it was made.
        let was_here = agreed.own.file(path).is_some_and(|file| file.digest == expected.digest);
        let is_same = if was_here { self.shared.is_untouched(path) } else { !left.contains(path) };
        Ok(as_agreed(entry, &agreed.outcome.merged).filter(|_| is_same))
    }

    /// Lets files be created and removed wherever that is to be done.
    fn make_writable(&self) -> Result<(), DatasetError> {
        let Shared { destination, left, agreed, .. } = &self.shared;
        let parents: BTreeSet<_> = self.actions.iter().filter_map(|action| action.path.parent()).collect();
        for parent in parents {
            let is_writable = |stamp: Stamp| stamp.mode & OWNER_DIRECTORY_MODE == OWNER_DIRECTORY_MODE;
            if agreed.own.directory(&parent).is_none_or(is_writable) {
                continue;
            }
            destination.make_writable(&parent).or_else(|error| left.failed(&parent, error))?;
        }
        Ok(())
    }

    /// After everything else, so that nothing is done through one.
    fn create_links(&self) -> Result<(), DatasetError> {
        let Shared { destination, left, agreed, .. } = &self.shared;
        for Action { path, .. } in self.actions.iter().filter(|action| action.change == Change::CreateLink) {
            let Some(Node::Link(link)) = agreed.outcome.merged.get(path) else { continue };
            let created = destination.check_link(path, &link.target).and_then(|()| {
                match self.shared.rename_mode(path) {
                    // What is there is not what was listed, and is left alone.
                    RenameMode::Refuse => Err(destination.exists(path)),
                    mode => {
                        let replaces = mode == RenameMode::Replace;
                        let attributes = agreed.outcome.merged.attributes(path);
                        destination.create_link(path, link, attributes, replaces)
                    }
                }
            });
            created.or_else(|error| left.failed(path, error))?;
        }
        Ok(())
    }

    /// Gives files and directories the modes and times that both are to have, now that nothing more is done in them.
    fn set_metadata(&self) -> Result<(), DatasetError> {
        let Shared { destination, left, agreed, .. } = &self.shared;
        let merged = &agreed.outcome.merged;
        let mut set_files = HashSet::new();
        for Action { path, .. } in self.actions.iter().filter(|action| action.change == Change::SetMetadata) {
            let is_done = self.separate.contains(path) || left.contains(path);
            let Some(leaf) = merged.leaf(path).filter(|_| !is_done) else { continue };
            // Another name of a file that has just got them has not changed otherwise.
            let linked =
                destination.stat_at(path).filter(|found| found.kind == Kind::File && found.links > 1);
            let linked = linked.map(|found| found.identity());
            if linked.is_some_and(|file| set_files.contains(&file)) {
                continue;
            }
            if self.shared.is_untouched(path) {
                let attributes = merged.attributes(path);
                let set = match leaf {
                    Node::Link(link) => destination.set_link_metadata(path, link, attributes),
                    leaf => destination.set_metadata(path, leaf.stamp(), attributes),
                };
                match set {
                    Ok(()) => set_files.extend(linked),
                    Err(error) => left.failed(path, error)?,
                }
            }
        }
        let merged = if agreed.is_source_only() { &Manifest::new() } else { merged };
        // A look at each of many directories would take longer than all else.
        let may_differ = |path: &RelPath, found: Option<Stamp>, wanted: Stamp| {
            let is_touched = self.touched.as_ref().is_none_or(|touched| touched.contains(path));
            is_touched || found != Some(wanted) || agreed.own.attributes(path) != merged.attributes(path)
        };
        // What failed to be created, and was created after all for what is in it, is private as yet.
        let is_new = |path: &RelPath| {
            agreed.own.get(path).is_none()
                && destination.stat_at(path).is_some_and(|found| found.kind == Kind::Directory)
        };
        let is_ours = |path: &RelPath| !left.contains(path) || is_new(path);
        let directories = side_by_side([&agreed.own, merged]).filter_map(|(path, [found, wanted])| {
            let (found, wanted) = (found.and_then(Node::directory), wanted.and_then(Node::directory)?);
            let is_due = may_differ(path, found, wanted) && is_ours(path);
            is_due.then(|| (path, wanted, merged.attributes(path).cloned()))
        });
        destination.settle_directories(directories)?;
        Ok(())
    }

    /// The mode and time of what is here, if it is what was planned: it was so before, or was `received`.
    fn stamp_of(&self, path: &RelPath, received: &BTreeSet<RelPath>) -> Option<Stamp> {
        let Shared { destination, agreed, .. } = &self.shared;
        let found = destination.stat_at(path)?;
        let wanted = agreed.outcome.merged.get(path)?;
        let is_here =
            || received.contains(path) || agreed.own.get(path).is_some_and(|own| own.is_same(wanted));
        let modes = match (wanted, found.kind) {
            (Node::File(_), Kind::File) if is_here() => FILE_MODES,
            (Node::Directory(_), Kind::Directory) => DIRECTORY_MODES,
            (Node::File(_) | Node::Directory(_) | Node::Link(_), _) => return None,
        };
        let mode = if destination.keeps_modes() { found.mode & modes } else { Stamp::UNKNOWN_MODE };
        Some(Stamp { mode, mtime: found.mtime })
    }

    /// The last step. Gives what was left alone.
    fn finish(
        self,
        received: &BTreeSet<RelPath>,
    ) -> Result<(BTreeMap<RelPath, UnresolvedReason>, Summary), DatasetError> {
        // They would keep the directory that they are in.
        self.shared.destination.remove_unfinished()?;
        self.remove(&self.actions)?;
        self.create_links()?;
        self.set_metadata()?;
        let Shared { destination, left, .. } = &self.shared;
        let summary = destination.clone().finish()?;
        for LeftOut { path, error, .. } in destination.take_left_out()?.0 {
            path.iter().for_each(|path| left.note(path, UnresolvedReason::of(Arc::clone(&error))));
        }
        // The path is here, on both sides, so that it is named at the very end.
        self.stripped.iter().for_each(|path| left.note(path, UnresolvedReason::Stripped));
        let mut left = left.take();
        left.iter_mut().for_each(|(path, why)| why.note_stamp(|| self.stamp_of(path, received)));
        Ok((left, summary))
    }
}

impl Prepared {
    /// Does the first steps of this side's part of what was `agreed` on.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn new(view: View, agreed: Agreed) -> Result<Self, DatasetError> {
        match view.destination.clone() {
            Some(destination) => Work::new(view, destination, agreed).prepare(),
            None => Self::of_source(view, agreed),
        }
    }

    /// Of a side that is only read from: what the other takes, as far as it is still as it was listed. Nothing is done here.
    fn of_source(view: View, agreed: Agreed) -> Result<Self, DatasetError> {
        let View { root, seen, stripped, held: _held, .. } = view;
        let (left, merged, mut entries) = (Left::default(), &agreed.outcome.merged, BTreeMap::new());
        let (tree, mut is_taken) = (root.resolve_unlinked(b"")?, false);
        for Action { side, path, change, .. } in &agreed.outcome.actions {
            if *side == Side::Local {
                left.note(path, UnresolvedReason::Changed);
                continue;
            }
            if !matches!(change, Change::Take { .. }) {
                continue;
            }
            is_taken = true;
            let is_same = seen.is_unchanged(&root, path).and_then(|is_same| match is_same {
                true => tree.entry_at(path).map(Some),
                false => Ok(None),
            });
            match is_same.map(|entry| entry.and_then(|entry| as_agreed(entry, merged))) {
                Ok(Some(entry)) => drop(entries.insert(path.clone(), entry)),
                Ok(None) => left.note(path, UnresolvedReason::Changed),
                Err(error) => left.note(path, UnresolvedReason::unreadable(error.into())),
            }
        }
        stripped.iter().for_each(|path| left.note(path, UnresolvedReason::Stripped));
        let entry_at = |above: &RelPath| Ok(tree.entry_at(above).ok());
        // The other side waits for it, though nothing of it may be left.
        let source = is_taken.then(|| offered(&root, merged, entries, entry_at)).transpose()?;
        Ok(Self { source, policy: None, agreed: agreed.into(), left, work: None, _held })
    }

    /// The rest, once everything has been received and provided, but for what is `unsent`. Gives what was left
    /// alone.
    pub fn finish(
        self,
        unsent: Vec<(RelPath, Arc<SourceError>)>,
    ) -> Result<(BTreeMap<RelPath, UnresolvedReason>, Summary), DatasetError> {
        let received = self.policy.as_ref().map(|policy| policy.end()).unwrap_or_default();
        for (path, error) in unsent {
            self.left.note(&path, UnresolvedReason::unreadable(error));
        }
        match self.work {
            Some(work) => work.finish(&received),
            None => Ok((self.left.take(), Summary::default())),
        }
    }

    /// Where it lands what this side takes, if it takes anything. It is finished later.
    pub fn destination(&self) -> Option<Destination> {
        self.policy.as_ref().map(TakePolicy::destination)
    }

    /// What both sides have agreed on.
    pub fn agreed(&self) -> &Arc<Agreed> {
        &self.agreed
    }
}

/// A file as the other side gets it, with the mode, time and attributes that both are to have: here they are set at the end.
/// `None` if it is not the file that was agreed on.
fn as_agreed(mut entry: Entry, merged: &Manifest) -> Option<Entry> {
    let expected = merged.file(&entry.path)?;
    expected.stamp.apply(&mut entry);
    entry.attributes = merged.attributes(&entry.path).cloned();
    (entry.kind == EntryKind::File && entry.size_bytes == expected.size_bytes).then_some(entry)
}

/// What the other side takes: these files, with the directories above them as both are to have them.
fn offered(
    root: &SourceRoot,
    merged: &Manifest,
    mut entries: BTreeMap<RelPath, Entry>,
    entry_at: impl Fn(&RelPath) -> Result<Option<Entry>, DatasetError>,
) -> Result<Source, DatasetError> {
    for path in entries.keys().cloned().collect::<Vec<_>>() {
        for above in std::iter::successors(path.parent(), RelPath::parent) {
            if !entries.contains_key(&above)
                && let Some(mut entry) = entry_at(&above)?
            {
                merged.directory(&above).iter().for_each(|stamp| stamp.apply(&mut entry));
                entries.insert(above, entry);
            }
        }
    }
    let mut entries: Vec<_> = entries.into_values().collect();
    link_names(&mut entries);
    let is_file = || ScanError::NotDirectory { path: ".".to_owned() };
    Ok(Source::of_entries(root, entries).ok_or_else(is_file)?)
}

/// Tells which files are names of one file: they are in the same state, which tells one inode from another.
fn link_names(entries: &mut [Entry]) {
    let mut first_of: HashMap<Version, usize> = HashMap::new();
    for index in 0..if cfg!(unix) { entries.len() } else { 0 } {
        if entries[index].kind != EntryKind::File {
            continue;
        }
        let first = *first_of.entry(entries[index].version).or_insert(index);
        if first < index {
            entries[first].first = Some(first as u64);
            entries[index].first = Some(first as u64);
        }
    }
}

/// Half of all numbers.
const FIRST_COPY: u64 = 1 << 63;
