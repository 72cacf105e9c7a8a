//! Random datasets and edits: both sides become equal, and no edit is lost.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use proptest::prelude::*;
use shiplane_files::internals::{
    SourceRoot,
    sync::{Consent, Relisting, watch},
};
use shiplane_protocols::internals::sync::{PeerWatch, SyncJob, synchronise};
use tokio::{runtime::Runtime, sync::watch::channel};

use super::{admitted, contents, job, silent};
use crate::harness::{World, tree};

/// A random change of a dataset.
#[derive(Debug, Clone)]
enum Edit {
    Write { path: String, content: u8 },
    Create { path: String },
    Remove { path: String },
    Rename { from: String, to: String },
}

fn any_path() -> impl Strategy<Value = String> {
    "[ab](/[ab]){0,2}"
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any_path(), any::<u8>()).prop_map(|(path, content)| Edit::Write { path, content }),
        1 => any_path().prop_map(|path| Edit::Create { path }),
        2 => any_path().prop_map(|path| Edit::Remove { path }),
        1 => (any_path(), any_path()).prop_map(|(from, to)| Edit::Rename { from, to }),
    ]
}

/// Does it as far as the system lets it. Tells the content that was written.
fn edit(at: &Path, edit: &Edit) -> Option<Vec<u8>> {
    let made = |path: &Path| fs::create_dir_all(path.parent().unwrap());
    match edit {
        Edit::Write { path, content } => {
            let (path, content) = (at.join(path), vec![*content; 1 + usize::from(*content) * 3]);
            made(&path).and_then(|()| fs::write(path, &content)).ok().map(|()| content)
        }
        Edit::Create { path } => fs::create_dir_all(at.join(path)).map(|()| None).unwrap_or_default(),
        Edit::Remove { path } => {
            let path = at.join(path);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            None
        }
        Edit::Rename { from, to } => {
            let to = at.join(to);
            let _ = made(&to).and_then(|()| fs::rename(at.join(from), to));
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_become_equal_and_nothing_that_was_written_is_lost(
        rounds in prop::collection::vec(
            [prop::collection::vec(any_edit(), 0..6), prop::collection::vec(any_edit(), 0..6)],
            1..4,
        ),
    ) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let world = World::syncing();
            let client = admitted(&world).await;
            let job = SyncJob { consent: Consent { mass_deletion: true }, ..job(&world) };
            for edits in &rounds {
                let mut written = BTreeSet::new();
                let sides = [world.source(), world.dest()];
                for (at, edits) in sides.iter().zip(edits) {
                    let before: BTreeSet<_> = contents(at).into_iter().collect();
                    edits.iter().for_each(|one| drop(edit(at, one)));
                    // What was there before may have been deleted on the other side.
                    written.extend(contents(at).into_iter().filter(|content| !before.contains(content)));
                }
                let report = synchronise(&client, &job, silent()).await.unwrap();
                assert!(report.left.is_empty(), "{:?}", report.left);
                assert_eq!(tree(&sides[0]), tree(&sides[1]));
                let kept: BTreeSet<_> = contents(&sides[0]).into_iter().collect();
                assert!(written.is_subset(&kept), "{rounds:?}");
                let again = synchronise(&client, &job, silent()).await.unwrap();
                assert_eq!((again.actions.len(), again.chunks), (0, 0));
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn rounds_over_changed_paths_alone_equal_full_rounds(
        rounds in prop::collection::vec(
            [prop::collection::vec(any_edit(), 0..6), prop::collection::vec(any_edit(), 0..6)],
            1..5,
        ),
    ) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let world = World::syncing();
            let client = admitted(&world).await;
            let sides = [world.source(), world.dest()];
            let full = SyncJob { consent: Consent { mass_deletion: true }, ..job(&world) };
            let (changed, mut here) = channel(0_u64);
            let on_change = move || changed.send_modify(|changes| *changes += 1);
            let root = SourceRoot::open(&sides[1]).unwrap();
            let tree_watch = watch(&root, b"", Arc::default(), Box::new(()), on_change).unwrap();
            let (there, mut noticed) = PeerWatch::begin(&client, b"", &Arc::default()).await.unwrap();
            let relisting = Some(Relisting { watch: Arc::new(tree_watch), is_full: false });
            let job = SyncJob { relisting, peer_watch: Some(there.id()), ..full.clone() };
            synchronise(&client, &job, silent()).await.unwrap();
            for edits in &rounds {
                for (at, edits) in sides.iter().zip(edits) {
                    edits.iter().for_each(|one| drop(edit(at, one)));
                }
                loop {
                    here.mark_unchanged();
                    let synced = synchronise(&client, &job, silent()).await.unwrap();
                    if tree(&sides[0]) == tree(&sides[1]) && synced.left.is_empty() {
                        break;
                    }
                    tokio::select! {
                        changed = here.changed() => changed.unwrap(),
                        changed = there.changed(noticed.changes) => noticed = changed.unwrap(),
                    }
                }
                // A full round finds nothing more, and both remember the same.
                let before = bases(&world);
                let again = synchronise(&client, &full, silent()).await.unwrap();
                assert_eq!((again.actions.len(), again.chunks), (0, 0), "{rounds:?}");
                assert_eq!(bases(&world), before, "{rounds:?}");
            }
        });
    }
}

/// What both sides remember.
fn bases(world: &World) -> Vec<Vec<u8>> {
    let states = ["state-here", "state"].map(|name| world.outside().join(name));
    let files = states.iter().flat_map(|state| fs::read_dir(state).into_iter().flatten());
    let files = files.map(|file| file.unwrap().path());
    let mut bases: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|name| name == "base")).collect();
    bases.sort();
    assert!(!bases.is_empty());
    bases.iter().map(|base| fs::read(base).unwrap()).collect()
}
