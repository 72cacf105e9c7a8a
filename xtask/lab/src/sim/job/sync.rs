//! Two trees are synced while both are edited between the syncs: they become one, and nothing that was written is
//! lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use shiplane_files::internals::sync::Consent;
use shiplane_protocols::internals::sync::{SyncEventFn, SyncJob, SyncReport, synchronise};
use shiplane_rpc::RpcClient;
use testlink::Rng;

use super::{Job, Stopped, connect};
use crate::sim::{
    oracle::{Violation, check_tidy},
    tree::{self, Tree},
    world::{Program, World},
};

/// Some rounds of edits, each followed by a sync.
pub(crate) struct Sync {
    rng: Rng,
    /// For what is not content: drawn apart.
    names: Rng,
    rounds: u64,
    /// Every content that ever stood anywhere.
    known: BTreeSet<Vec<u8>>,
    /// What was written in this round, on either side, and must be somewhere when it ends.
    written: BTreeSet<Vec<u8>>,
    /// Files that were on both sides, that one side has removed in this round and the other has not touched.
    removed: BTreeSet<String>,
    /// Names that were one file on either side.
    linked: BTreeSet<(PathBuf, PathBuf)>,
    /// What the last sync has done.
    idle: bool,
    /// Neither side was edited since both were the same.
    same: bool,
}

impl Sync {
    pub(crate) fn new(world: &World) -> Result<Self, Violation> {
        let mut rng = world.rng().fork();
        let rounds = rng.between(1, 4);
        let mut sync = Self {
            rng,
            names: Rng::new(world.scenario.seed ^ NAMES),
            rounds,
            known: BTreeSet::new(),
            written: BTreeSet::new(),
            removed: BTreeSet::new(),
            linked: BTreeSet::new(),
            idle: false,
            same: false,
        };
        for (is_sure, machine) in [(true, &world.client), (false, &world.server)] {
            if is_sure || sync.rng.chance(500_000) {
                let mut tree = tree::draw(&mut sync.rng);
                tree::write(&tree, &machine.files())?;
                tree::add_names(&mut tree, &machine.files(), &mut sync.names)?;
                if world.scenario.holes {
                    tree::add_holes(&mut tree, &machine.files(), &mut sync.names)?;
                }
            }
        }
        sync.note_linked(world)?;
        let both = sync.contents(world)?;
        sync.known.clone_from(&both);
        sync.written = both;
        Ok(sync)
    }
}

impl Job for Sync {
    async fn attempt(&mut self, world: &World, client: &Program) -> Result<(), Stopped> {
        let report = sync(world, &connect(world, client).await?, Arc::new(|_| ())).await?;
        if !report.left.is_empty() {
            return Err(Stopped::Failed(format!("left alone: {:?}", report.left)));
        }
        self.idle = report.actions.is_empty() && report.chunks == 0;
        Ok(())
    }

    /// Every file is one of the versions that there were, whole.
    fn check(&self, world: &World) -> Result<(), Violation> {
        for machine in [&world.client, &world.server] {
            for (path, content) in machine.read()?.0 {
                if let Some(content) = content.filter(|content| !self.known.contains(content)) {
                    return Err(Violation::WrongContent { path, found_bytes: content.len() });
                }
            }
        }
        Ok(())
    }

    fn check_done(&mut self, world: &World, is_tidy: bool) -> Result<(), Violation> {
        let [(ours, mut left), (theirs, their_left)] = [world.client.read()?, world.server.read()?];
        if let Some(path) = difference(&ours, &theirs) {
            return Err(Violation::Missing { path });
        }
        if let Some(path) = self.removed.iter().find(|path| ours.contains_key(*path)) {
            return Err(Violation::CameBack { path: path.clone() });
        }
        let [here, there] = [world.client.files(), world.server.files()];
        tree::check_metadata(&here, &there, world.scenario.attributes)?;
        for side in [here, there] {
            // Those that came apart stay apart, and no others come together.
            if let Some(names) = tree::linked(&side)?.difference(&self.linked).next() {
                return Err(Violation::OtherNames { names: names.clone() });
            }
        }
        let kept: BTreeSet<_> = ours.into_values().flatten().collect();
        if let Some(lost) = self.written.difference(&kept).next() {
            return Err(Violation::Missing { path: format!("a version of {} bytes", lost.len()) });
        }
        left.extend(their_left);
        check_tidy(is_tidy, left)?;
        match self.same && !self.idle {
            true => Err(Violation::NotStable),
            false => Ok(()),
        }
    }

    /// Once more without an edit, then with some, until the rounds are over.
    fn goes_on(&mut self, world: &World) -> Result<bool, Violation> {
        if !self.same {
            self.same = true;
            return Ok(true);
        }
        if self.rounds == 0 {
            return Ok(false);
        }
        self.rounds -= 1;
        self.same = false;
        let (before, common) = (self.contents(world)?, world.client.read()?.0);
        for machine in [&world.client, &world.server] {
            for _ in 0..self.rng.between(0, 4) {
                edit(&mut self.rng, &machine.files())?;
            }
            for _ in 0..self.names.between(0, 4) {
                tree::edit_names(&machine.files(), &mut self.names)?;
            }
            if world.scenario.holes {
                tree::edit_holes(&machine.files(), &mut self.names)?;
            }
            machine.adopt()?;
        }
        self.note_linked(world)?;
        let after = self.contents(world)?;
        // What was there before may have been removed on the other side.
        self.written = after.difference(&before).cloned().collect();
        self.known.extend(after);
        let [ours, theirs] = [world.client.read()?.0, world.server.read()?.0];
        let is_removed = |path: &String, content: &Option<Vec<u8>>| {
            let kept = [&ours, &theirs].map(|side| side.get(path));
            content.is_some() && kept.contains(&None) && kept.contains(&Some(content))
        };
        let removed = common.into_iter().filter(|(path, content)| is_removed(path, content));
        self.removed = removed.map(|(path, _)| path).collect();
        Ok(true)
    }
}

impl Sync {
    fn note_linked(&mut self, world: &World) -> Result<(), Violation> {
        for machine in [&world.client, &world.server] {
            self.linked.extend(tree::linked(&machine.files())?);
        }
        Ok(())
    }

    fn contents(&self, world: &World) -> Result<BTreeSet<Vec<u8>>, Violation> {
        let [ours, theirs] = [world.client.read()?.0, world.server.read()?.0];
        Ok(ours.into_values().chain(theirs.into_values()).flatten().collect())
    }
}

/// Syncs everything.
pub(crate) async fn sync(
    world: &World,
    client: &RpcClient,
    events: SyncEventFn,
) -> Result<SyncReport, Stopped> {
    let job = SyncJob {
        directory: world.client.files(),
        remote_path: Vec::new(),
        state: world.client.sync_state(),
        own: world.client.peer().id,
        root: None,
        only_to: None,
        consent: Consent { mass_deletion: true },
        filters: Arc::default(),
        attributes: world.scenario.attributes,
        dry_run: false,
        relisting: None,
        peer_watch: None,
        transfer: world.transfer_options(),
    };
    synchronise(client, &job, events).await.map_err(|error| Stopped::by(&error))
}

/// The first path at which the two are not the same.
fn difference(one: &Tree, other: &Tree) -> Option<String> {
    let paths: BTreeMap<_, _> = one.iter().chain(other).collect();
    paths.into_keys().find(|path| one.get(*path) != other.get(*path)).cloned()
}

/// Does something that users do.
fn edit(rng: &mut Rng, root: &Path) -> Result<(), Violation> {
    let (tree, _) = tree::read(root)?;
    let paths: Vec<_> = tree.keys().cloned().collect();
    let any = |rng: &mut Rng| paths.get(rng.between(0, paths.len() as u64) as usize).cloned();
    match (rng.between(0, 4), any(rng)) {
        (0, Some(path)) => {
            let path = root.join(path);
            // One of the two fails.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        (1, Some(path)) if tree.get(&path).is_some_and(Option::is_some) => {
            let renamed = format!("{path}.{}", rng.between(0, 100));
            fs::rename(root.join(&path), root.join(renamed))?;
        }
        (2, Some(path)) if tree::is_file(tree.get(&path).and_then(Option::as_deref)) => {
            let len_bytes = rng.spread(1, 50_000) as usize;
            tree::write_file(&root.join(path), &rng.bytes(len_bytes))?;
        }
        (_, _) => {
            let len_bytes = rng.spread(1, 50_000) as usize;
            let path = root.join(format!("new {}", rng.between(0, 1000)));
            tree::write_file(&path, &rng.bytes(len_bytes))?;
        }
    }
    Ok(())
}

/// So that it is drawn apart from all else.
const NAMES: u64 = 0x4e41_4d45;
