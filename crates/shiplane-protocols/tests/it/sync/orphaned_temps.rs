//! The next sync removes what a failing disk left behind, even if it has nothing else to do.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use shiplane_files::internals::disk::Change;
use shiplane_transport::PeerId;
use shiplane_wire::Digest;

use super::{admitted, interrupted::own_names, sync, try_sync, write};
use crate::{
    broken_disk::BrokenDisk,
    harness::{World, noise, on_broken_disks},
};

fn no_own_names(world: &World) {
    for side in [world.source(), world.dest()] {
        assert_eq!(own_names(&side), Vec::<PathBuf>::new());
    }
}

/// Names that vanish from the directory itself, not from one in it.
fn vanishes_from(directory: &Path) -> impl Fn(Change<'_>, &Path) -> bool + use<> {
    let directory = directory.canonicalize().unwrap();
    move |change, at| change == Change::Unname && at == directory
}

#[test]
fn a_lock_or_a_journal_that_cannot_be_removed_is_no_success_and_the_next_sync_removes_it() {
    on_broken_disks(async {
        for is_same in [false, true] {
            let world = World::syncing();
            let client = admitted(&world).await;
            for side in [world.dest(), world.source()] {
                write(&world.dest(), "a", &noise(1, 1000));
                if is_same {
                    sync(&world, &client).await;
                }
                let broken = BrokenDisk::below(&side, vanishes_from(&side));
                try_sync(&world, &client).await.unwrap_err();
                assert!(!own_names(&side).is_empty());
                drop(broken);
                sync(&world, &client).await;
                no_own_names(&world);
                fs::remove_file(world.dest().join("a")).unwrap();
            }
        }
    });
}

#[test]
fn a_lock_that_cannot_be_removed_in_the_end_is_no_success_either() {
    on_broken_disks(async {
        for asked in [false, true] {
            let world = World::syncing();
            let client = admitted(&world).await;
            write(&world.dest(), "a", &noise(1, 1000));
            let side = if asked { world.source() } else { world.dest() };
            // The journal goes, and the lock stays.
            let (vanishes, seen) = (vanishes_from(&side), AtomicUsize::new(0));
            let broken = BrokenDisk::below(&side, move |change, at| {
                vanishes(change, at) && seen.fetch_add(1, Ordering::SeqCst) > 0
            });
            try_sync(&world, &client).await.unwrap_err();
            assert_eq!(own_names(&side).len(), 1);
            drop(broken);
            sync(&world, &client).await;
            no_own_names(&world);
        }
    });
}

/// Of a journal whose name a power cut has taken.
#[tokio::test]
async fn a_file_that_no_journal_knows_of_is_removed_wherever_it_is() {
    for is_same in [true, false] {
        let world = World::syncing();
        // Both have the same key, so that their temporary files have the same prefix.
        let client = world.admitted_as(world.identity(), world.ticket_to_write("")).await;
        let prefix = prefix_of_a_sync_with(world.identity().peer_id());
        for side in [world.dest(), world.source()] {
            write(&side, "d/e/a", &noise(1, 1000));
            write(&side, &format!("d/e/{prefix}7.part"), b"left");
            write(&side, &format!("d/{prefix}0.part"), b"left");
        }
        let foreign = world.dest().join("d/.shiplane-00000000-1.part");
        fs::write(&foreign, b"another job's").unwrap();
        if !is_same {
            write(&world.source(), "d/b", &noise(2, 1000));
        }
        let report = try_sync(&world, &client).await.unwrap();
        assert_eq!(report.chunks, u64::from(!is_same));
        assert_eq!(own_names(&world.dest()), [foreign]);
        assert_eq!(own_names(&world.source()), Vec::<PathBuf>::new());
    }
}

/// What its temporary files are called, but for a number.
fn prefix_of_a_sync_with(peer: PeerId) -> String {
    let parts: [&[u8]; 2] = [peer.as_bytes(), b"the sync of a dataset"];
    let key: Vec<u8> = parts.iter().flat_map(|part| [&part.len().to_le_bytes()[..], part].concat()).collect();
    format!(".shiplane-{}-", &Digest::blake3(&key).to_string()[..8])
}

#[test]
fn a_copy_that_fails_half_way_leaves_nothing() {
    on_broken_disks(async {
        let world = World::syncing();
        let client = admitted(&world).await;
        write(&world.source(), "old/a", &noise(1, 20_000));
        sync(&world, &client).await;
        fs::create_dir(world.source().join("new")).unwrap();
        fs::rename(world.source().join("old/a"), world.source().join("new/a")).unwrap();
        write(&world.source(), "old/b", &noise(2, 100));
        let seen = AtomicUsize::new(0);
        let is_first = move |change: Change<'_>, at: &Path| {
            let is_copy = at.parent().is_some_and(|parent| parent.ends_with("new"));
            change == Change::Metadata && is_copy && seen.fetch_add(1, Ordering::SeqCst) == 0
        };
        let broken = BrokenDisk::below(&world.dest(), is_first);
        let report = sync(&world, &client).await;
        assert_eq!(report.received_bytes, 20_100, "the copy came to nothing");
        drop(broken);
        no_own_names(&world);
    });
}
