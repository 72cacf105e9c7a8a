//! A locked and scanned dataset, and the base agreed with the other side. Blocking.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use shiplane_wire::{Digest, DigestAlgorithm, Durability, EscapedPath, LeftOutReason, RelPath};

use super::base::{BaseKey, Generations, SyncState};
use super::changes::Changes;
use super::error::DatasetError;
use super::manifest::{Manifest, Stamp, side_by_side};
use super::plan::{Action, Consent, Outcome, PlanError, Side, plan, plan_one_way};
use super::scan::{ScanError, ScanOptions, Scanned, SeenFiles, scan};
use super::stat_cache::StatCache;
use super::watch::Relisting;
use crate::{
    buffers::SharedMemory,
    destination::Destination,
    error::{DestinationError, SourceError},
    existing::Existing,
    names::JobKey,
    parallel, platform,
    policy::LinkPolicy,
    shape::Shape,
    site::ReceiveOptions,
    source::SourceRoot,
    state::DIRECTORY_MODES,
};

/// Where a dataset is, and what it takes to change it.
#[derive(Debug)]
pub struct Site {
    root: SourceRoot,
    /// Holds the lock of the dataset. `None` while nothing is to be changed.
    writable: Option<Destination>,
}

/// How a dataset is written.
#[derive(Clone, Copy, Debug)]
pub struct SiteOptions {
    /// What digests are computed with.
    pub digest: DigestAlgorithm,
    /// Which symbolic links of the other side are created.
    pub links: LinkPolicy,
    /// Whether owners, access lists and extended attributes are carried.
    pub attributes: bool,
    /// The size from which a file has chunks of its own.
    pub chunk_len_bytes: u64,
}

impl Site {
    /// The directory `path` beneath `root`; `None` if it does not exist, which counts as empty.
    pub fn to_look_at(root: &SourceRoot, path: &[u8]) -> Result<Option<Self>, DatasetError> {
        match root.below(path) {
            Ok(root) => Ok(Some(Self { root, writable: None })),
            Err(SourceError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same, created if need be and if `may_create` says so of each directory on the way, and for
    /// no other process on this machine to sync until this is dropped. What an earlier sync with the same peer
    /// has left half received is taken up, in the memory of `shared`.
    pub fn to_change(
        root: &SourceRoot,
        path: &[u8],
        peer: &[u8; 32],
        site: SiteOptions,
        shared: SharedMemory,
        may_create: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self, DatasetError> {
        let SiteOptions { digest, links, attributes, chunk_len_bytes } = site;
        let options = ReceiveOptions {
            existing: Existing::Replace,
            durability: Durability::Durable,
            verify: false,
            links,
            attributes,
            digest,
            chunk_len_bytes,
        };
        let job = JobKey::new(peer, b"the sync of a dataset");
        let destination =
            Destination::open_beneath(root, path, &Shape::Contents, job, options, shared, may_create);
        let destination = destination.map_err(busy_or_failed)?;
        let root = root.below(path)?;
        destination.lock_dataset(&root).map_err(busy_or_failed)?;
        Ok(Self { root, writable: Some(destination) })
    }

    /// Gives the directory this mode, if it is a new one.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_new_mode(&self, mode: u32) -> Result<(), DatasetError> {
        Ok(self.writable.as_ref().map_or(Ok(()), |destination| destination.set_new_root_mode(mode))?)
    }

    fn keeps_modes(&self) -> bool {
        self.writable.as_ref().map_or(cfg!(unix), Destination::keeps_modes)
    }

    /// The mode of the directory itself, if it is known.
    pub fn mode(&self) -> Option<u32> {
        let directory = self.root.directory().filter(|_| self.keeps_modes())?;
        Some(platform::stat_open(directory.as_ref()).ok()?.mode & DIRECTORY_MODES)
    }

    /// After a failed sync of a file system, what an earlier run has left counts as the disk has it.
    fn listing_by(&self, options: &ScanOptions) -> ScanOptions {
        let has_failed_sync = |destination: &Destination| destination.parts.store.has_failed_sync();
        ScanOptions { from_disk: self.writable.as_ref().is_some_and(has_failed_sync), ..options.clone() }
    }

    /// Lists it. What was read is known next time, whatever comes of this.
    fn scan(
        &self,
        cache: &Path,
        options: &ScanOptions,
        relisting: Option<&Relisting>,
    ) -> Result<Scanned, ScanError> {
        let mut cache = StatCache::load(cache);
        let options = &self.listing_by(options);
        let scanned = match relisting {
            Some(relisting) => relisting.list(&self.root, &mut cache, options),
            None => scan(&self.root, b"", &mut cache, options),
        };
        if let Err(error) = cache.save() {
            tracing::warn!(%error, "the digests of files are not kept: the next sync reads them again");
        }
        scanned
    }

    /// Drops `held` once nothing can change the dataset any more, also what works on after the sync was dropped.
    pub fn hold(&self, held: KeepAlive) {
        if let Some(destination) = &self.writable {
            destination.hold(held);
        }
    }
}

fn busy_or_failed(error: DestinationError) -> DatasetError {
    match error {
        DestinationError::Busy { .. } => DatasetError::Busy,
        error => error.into(),
    }
}

/// What is here.
#[derive(Debug)]
pub struct Dataset {
    site: Option<Site>,
    scanned: Scanned,
    /// What was common with the peer.
    bases: Generations,
    /// Digest of the base that both sides begin with, if known.
    common: Option<Digest>,
    key: BaseKey,
    state: SyncState,
    held: Option<KeepAlive>,
}

/// Something that goes with the last of those who hold it, such as a reservation of memory.
pub type KeepAlive = Arc<dyn Any + Send + Sync>;

/// What a plan is made of and carried out on. Shares all that is large.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) root: SourceRoot,
    /// `None` if nothing is to be changed.
    pub(super) destination: Option<Destination>,
    /// What is here.
    pub manifest: Arc<Manifest>,
    pub(super) seen: Arc<SeenFiles>,
    /// What is here and not listed, with all beneath it.
    pub unlisted: BTreeSet<RelPath>,
    /// The first path of which not all attributes can be carried.
    pub(super) stripped: Option<RelPath>,
    pub(super) held: Option<KeepAlive>,
}

impl View {
    /// Whether names that differ in case only are the same here.
    pub fn folds(&self) -> bool {
        self.destination.as_ref().is_some_and(Destination::folds)
    }
}

impl Dataset {
    /// Scans the dataset at `site`, which this machine calls `local`, for a sync with `peer`. If it is watched and was listed
    /// before, only what has changed since is looked at.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn open(
        site: Option<Site>,
        local: &[u8],
        peer: &[u8; 32],
        state: &SyncState,
        options: &ScanOptions,
        relisting: Option<&Relisting>,
    ) -> Result<Self, DatasetError> {
        let key = BaseKey::new(peer, local, options.digest, &options.filters);
        // The peer waits for either, one side after the other.
        let (bases, scanned) = parallel::join(
            || {
                let bases = state.generations(key);
                // What an earlier sync has carried beside is not lost by one that does not.
                let bases = bases.map(|bases| if options.attributes { bases } else { bases.undescribed() });
                bases.inspect(|bases| bases.iter().for_each(|base| _ = base.digest()))
            },
            || {
                site.as_ref()
                    .map(|site| site.scan(&state.stat_cache(local, options.digest), options, relisting))
                    .transpose()
            },
        );
        let mut dataset = Self {
            site: None,
            scanned: Scanned::default(),
            bases: bases?,
            common: None,
            key,
            state: state.clone(),
            held: None,
        };
        if let (Some(site), Some(mut scanned)) = (site, scanned?) {
            if !site.keeps_modes() {
                Arc::make_mut(&mut scanned.manifest).take_modes_of(dataset.bases.iter().next());
            }
            if !platform::may_give_away() {
                Arc::make_mut(&mut scanned.manifest).take_owners_of(dataset.bases.iter().next());
            }
            // What was here at the end of the last sync was made durable then. Anything else may be what one left
            // that was cut, and the other side is about to count on it.
            let is_settled =
                dataset.bases.iter().next().is_some_and(|base| base.digest() == scanned.manifest.digest());
            if let Some(destination) = site.writable.as_ref().filter(|_| !is_settled) {
                destination.rely_on_what_is_here();
                let others =
                    scanned.file_systems.iter().filter(|(device, _)| **device != destination.device());
                others.map(|(_, path)| path).try_for_each(|path| destination.note_file_system(path))?;
            }
            if let Some(destination) = &site.writable {
                destination.note_orphaned_temps(&scanned.own);
            }
            dataset.site = Some(site);
            dataset.scanned = scanned;
        }
        Ok(dataset)
    }

    /// What its lists count as, with all that a sync makes of them.
    pub fn cost_bytes(&self) -> u64 {
        self.bases.iter().chain([self.manifest()]).map(Manifest::cost_bytes).sum()
    }

    /// Drops `held` once none of its lists is there any more.
    pub fn hold(&mut self, held: KeepAlive) {
        self.held = Some(held);
    }

    /// `None` if there is no directory.
    pub fn view(&self) -> Option<View> {
        let site = self.site.as_ref()?;
        Some(View {
            root: site.root.clone(),
            destination: site.writable.clone(),
            manifest: Arc::clone(&self.scanned.manifest),
            seen: Arc::clone(&self.scanned.seen),
            unlisted: self.unlisted().cloned().collect(),
            stripped: self.scanned.stripped.clone(),
            held: self.held.clone(),
        })
    }

    /// Both sides have the same already. Makes that last, and removes what an earlier sync has left half
    /// received, if one was cut; nothing is done on the disk otherwise.
    pub fn finish_interrupted(&self) -> Result<(), DatasetError> {
        match self.destination().filter(|destination| destination.is_unsettled()) {
            Some(destination) => Ok(destination.clone().finish().map(drop)?),
            None => Ok(()),
        }
    }

    /// The last step: gives the dataset free. After a reported success no file of ours is there, so
    /// that one that cannot be removed is a failure; the next sync does only that.
    pub fn release(&self) -> Result<(), DatasetError> {
        Ok(self.destination().map_or(Ok(()), Destination::release)?)
    }

    fn destination(&self) -> Option<&Destination> {
        self.site.as_ref()?.writable.as_ref()
    }

    /// Whether names that differ in case only are the same here, as far as that is known.
    pub fn folds(&self) -> bool {
        self.destination().is_some_and(Destination::folds)
    }

    /// What this one peer knows the dataset by that this machine calls `local`.
    pub fn source(peer: &[u8; 32], local: &[u8], options: &ScanOptions) -> [u8; 32] {
        *BaseKey::new(peer, local, options.digest, &options.filters).as_bytes()
    }

    /// Whether everything that is here can be synced.
    pub fn is_whole(&self) -> bool {
        let Scanned { unknown, unsendable, stripped, .. } = &self.scanned;
        unknown.is_empty() && unsendable.is_empty() && stripped.is_none()
    }

    /// The paths that are here and cannot be synced, and why.
    pub fn unknown(&self) -> &BTreeMap<RelPath, LeftOutReason> {
        &self.scanned.unknown
    }

    /// What is here besides under paths that cannot be sent.
    pub fn unsendable(&self) -> &[EscapedPath] {
        &self.scanned.unsendable
    }

    /// What is here and not listed, with all beneath it: unknown, or excluded by what only this side has.
    pub fn unlisted(&self) -> impl Iterator<Item = &RelPath> + Clone {
        self.scanned.unknown.keys().chain(&self.scanned.excluded)
    }

    /// What is here.
    pub fn manifest(&self) -> &Manifest {
        &self.scanned.manifest
    }

    /// Digests of the remembered bases, the newest first.
    pub fn base_digests(&self) -> Vec<Digest> {
        self.bases.iter().map(Manifest::digest).collect()
    }

    /// The newest state that both remember; nothing if there is none.
    pub fn common_base(&mut self, theirs: &[Digest]) -> Manifest {
        let is_common = |base: &&Manifest| theirs.contains(&base.digest());
        let common = self.bases.iter().find(is_common).cloned();
        self.common = common.as_ref().map(Manifest::digest);
        common.unwrap_or_default()
    }

    /// What has changed here since `base`. What seems to have been deleted is looked for once more: a file
    /// that was renamed during the scan may have been overlooked.
    pub fn changes_since(&mut self, base: &Manifest) -> Changes {
        if let Some(Site { root, .. }) = &self.site {
            let Scanned { manifest, seen, unknown, excluded, .. } = &mut self.scanned;
            let is_excluded = |path: &RelPath| is_within(path, |path| excluded.contains(path));
            let both = side_by_side([base, &**manifest]);
            let missing = both.filter_map(|(path, [_, found])| found.is_none().then_some(path));
            for path in missing.filter(|path| !is_excluded(path)) {
                let why = match seen.is_unchanged(root, path) {
                    Ok(true) => continue,
                    Ok(false) => LeftOutReason::Changed,
                    Err(error) => error.left_out_reason(),
                };
                // What is within something that is not listed needs no reason of its own.
                if !is_within(path, |path| unknown.contains_key(path)) {
                    unknown.insert(path.clone(), why);
                }
            }
        }
        let Scanned { manifest, unknown, excluded, unsendable, .. } = &self.scanned;
        let mut changes = Changes::between(base, manifest, unknown.clone());
        (changes.excluded, changes.unsendable) = (excluded.clone(), unsendable.clone());
        changes
    }

    /// Remembers `base` as what is common now.
    pub fn remember(&self, base: &Manifest) -> Result<(), DatasetError> {
        // No other sync has changed it since: the dataset is locked.
        if self.bases.is_newest(base) {
            return Ok(());
        }
        Ok(self.state.advance(self.key, base, self.common)?)
    }
}

/// What both sides have found and agreed on.
#[derive(Debug)]
pub struct Agreed {
    pub(super) own: Manifest,
    pub(super) outcome: Outcome,
    base: Manifest,
    unlisted: BTreeSet<RelPath>,
}

impl Agreed {
    /// Plans, with `own` as the local side, which may take names in another case for the same. What either side does not
    /// list is left out on both. `only_to` is the one side that is changed, in a sync in one direction.
    pub fn on<'a>(
        base: &Manifest,
        own: &Manifest,
        other: &Manifest,
        unlisted: impl Iterator<Item = &'a RelPath>,
        only_to: Option<Side>,
        consent: Consent,
        folds: bool,
    ) -> Result<Self, PlanError> {
        let unlisted: BTreeSet<_> = unlisted.cloned().collect();
        let [known_base, own, other] = [base, own, other].map(|manifest| {
            let mut manifest = Cow::Borrowed(manifest);
            unlisted.iter().for_each(|path| drop(manifest.to_mut().forget(path)));
            manifest
        });
        let outcome = match only_to {
            Some(to) => plan_one_way(&known_base, &own, &other, to, consent)?,
            None => plan(&known_base, &own, &other, consent)?,
        };
        let own = own.into_owned();
        let mut agreed = Self { own, outcome, base: base.clone(), unlisted };
        if folds && only_to.is_none() {
            agreed.respell(&known_base, &other, consent);
        }
        Ok(agreed)
    }

    /// What both are to have.
    pub fn merged(&self) -> &Manifest {
        &self.outcome.merged
    }

    /// What is to be done, on both sides.
    pub fn actions(&self) -> &[Action] {
        &self.outcome.actions
    }

    /// Where the side that takes, in one direction, keeps its own version.
    pub fn kept(&self) -> impl Iterator<Item = (Side, &RelPath)> {
        self.outcome.one_way.iter().flat_map(|one_way| one_way.kept.iter().map(|path| (one_way.to, path)))
    }

    /// Whether nothing is changed on this side.
    pub(super) fn is_source_only(&self) -> bool {
        self.outcome.one_way.as_ref().is_some_and(|one_way| one_way.to == Side::Remote)
    }

    /// The digest of the merged manifest.
    pub fn merged_digest(&self) -> Digest {
        self.outcome.merged.digest()
    }

    /// What both will remember once all is done but for the `unsettled` paths: of those, what they remembered
    /// before, so that the next sync takes them up from there. The same for what was left out. Where one side has what is
    /// planned, but may not set its mode and time, both remember those that it has: they are no change of that side's.
    pub fn next_base(&self, unsettled: &BTreeMap<RelPath, Option<Stamp>>) -> Manifest {
        let common = self.outcome.one_way.as_ref().map_or(&self.outcome.merged, |one_way| &one_way.common);
        if unsettled.is_empty() && self.unlisted.is_empty() {
            return common.clone();
        }
        let (merged, base) = (common, &self.base);
        let settled = merged.iter().filter_map(|(path, node)| match unsettled.get(path) {
            None => Some((path, node.clone(), merged.attributes(path))),
            Some(stamp) => Some((path, node.with_stamp((*stamp)?), base.attributes(path))),
        });
        let is_left = |path: &RelPath| match unsettled.get(path) {
            Some(stamp) => stamp.is_none(),
            None => is_within(path, |path| self.unlisted.contains(path)),
        };
        let left = base.iter().filter(|(path, _)| is_left(path));
        let left = left.map(|(path, node)| (path, node.clone(), base.attributes(path)));
        let mut next = Manifest::new();
        // What contradicts itself, such as a file that is left where a directory has come, is forgotten.
        for (path, node, attributes) in settled.chain(left) {
            if next.insert(path.clone(), node) {
                next.describe(path, attributes.cloned());
            }
        }
        next
    }
}

/// Whether the path, or one above it, is one of some.
fn is_within(path: &RelPath, contains: impl Fn(&RelPath) -> bool) -> bool {
    std::iter::successors(Some(path.clone()), RelPath::parent).any(|path| contains(&path))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::sync::{Change, FileState, Node};
    use shiplane_wire::Mtime;

    fn file(content: &[u8], mode: u32, secs: i64) -> Manifest {
        let stamp = Stamp { mode, mtime: Mtime { secs, nanos: 0 } };
        let state = FileState { size_bytes: content.len() as u64, digest: Digest::blake3(content), stamp };
        let mut manifest = Manifest::new();
        assert!(manifest.insert(RelPath::parse(b"f").unwrap(), Node::File(state)));
        manifest
    }

    #[test]
    fn a_mode_that_one_side_may_not_set_is_no_change_of_that_side() {
        let on = |base: &Manifest, own: &Manifest, other: &Manifest| {
            Agreed::on(base, own, other, std::iter::empty(), None, Consent::default(), false).unwrap()
        };
        let path = RelPath::parse(b"f").unwrap();
        let (new, old) = (file(b"new", 0o664, 5), file(b"old", 0o644, 1));
        // At the first meeting, and after an edit. What one side has received has the time at which it was written.
        for (base, theirs) in [(&Manifest::new(), &Manifest::new()), (&old, &old)] {
            let agreed = on(base, &new, theirs);
            let theirs = file(b"new", 0o600, 9);
            let stamp = theirs.file(&path).map(|file| file.stamp);
            let next = agreed.next_base(&BTreeMap::from([(path.clone(), stamp)]));
            let again = on(&next, &new, &theirs);
            assert_eq!(*again.merged(), new);
            let [Action { side: Side::Remote, change: Change::SetMetadata, .. }] = again.actions() else {
                panic!("{:?}", again.actions());
            };
            // What its user changes there counts.
            let changed = on(&next, &new, &file(b"new", 0o400, 9));
            assert_eq!(*changed.merged(), file(b"new", 0o400, 5));
        }
    }

    #[test]
    fn after_a_failed_sync_of_a_file_system_the_next_listing_reads_the_disk() {
        let temp = TempDir::new().unwrap();
        let root = SourceRoot::open(temp.path()).unwrap();
        let options = SiteOptions {
            digest: DigestAlgorithm::Blake3,
            links: LinkPolicy::All,
            attributes: false,
            chunk_len_bytes: 1000,
        };
        let open = || Site::to_change(&root, b"", &[1; 32], options, SharedMemory::default(), &|_| true);
        let site = open().unwrap();
        assert!(!site.listing_by(&ScanOptions::default()).from_disk);
        site.writable.as_ref().unwrap().parts.store.poison_all();
        drop(site);
        assert!(open().unwrap().listing_by(&ScanOptions::default()).from_disk);
    }
}
