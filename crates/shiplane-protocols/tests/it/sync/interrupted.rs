//! Syncs interrupted at every step: the next one converges, and nothing is lost.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use shiplane_protocols::internals::sync::{SyncEventFn, synchronise};
use shiplane_rpc::RpcClient;
use tokio::sync::Notify;

use super::{contents, job, sync, write, written_at};
use crate::harness::{World, noise};

/// Both sides have changed everything that can be changed since they last met.
async fn diverged() -> World {
    let world = World::syncing();
    for name in ["kept", "edited", "both", "gone", "old/x", "old/y", "kind"] {
        write(&world.dest(), name, &noise(name.len() as u64, 9000));
    }
    sync(&world, &same(&world).await).await;
    write(&world.dest(), "edited", &noise(20, 150_000));
    write(&world.dest(), "both", &noise(21, 5000));
    written_at(world.dest().join("both"), 1_000_000_000);
    write(&world.source(), "both", &noise(22, 6000));
    fs::remove_file(world.source().join("gone")).unwrap();
    fs::rename(world.dest().join("old"), world.dest().join("new")).unwrap();
    fs::remove_file(world.source().join("kind")).unwrap();
    write(&world.source(), "kind/now/a/directory", &noise(23, 200_000));
    world
}

fn written_since() -> BTreeSet<Vec<u8>> {
    let sizes = [(20, 150_000), (21, 5000), (22, 6000), (23, 200_000)];
    sizes.into_iter().map(|(seed, len)| noise(seed, len)).collect()
}

#[tokio::test]
async fn cut_after_any_event_the_next_sync_converges() {
    let mut cuts = 0;
    loop {
        let world = diverged().await;
        let (cut, seen) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let events: SyncEventFn = {
            let cut = Arc::clone(&cut);
            Arc::new(move |_| {
                if seen.fetch_add(1, Ordering::SeqCst) == cuts {
                    cut.notify_one();
                }
            })
        };
        let (client, job) = (same(&world).await, job(&world));
        let was_cut = tokio::select! {
            biased;
            () = cut.notified() => true,
            done = synchronise(&client, &job, events) => {
                done.unwrap();
                false
            }
        };
        client.connection().close(shiplane_wire::Code::Cancelled);
        let again = same(&world).await;
        sync(&world, &again).await;
        let all = contents(&world.source());
        let kept: BTreeSet<_> = all.iter().cloned().collect();
        assert!(written_since().is_subset(&kept), "something is lost after {cuts} events");
        assert_eq!(all.len(), 7, "nothing is there twice after {cuts} events");
        for side in [world.source(), world.dest()] {
            let own = own_names(&side);
            assert!(own.is_empty(), "{own:?} is left behind after {cuts} events");
        }
        if !was_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 5, "{cuts}");
}

/// Journals and temporary files, wherever they are.
pub(super) fn own_names(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(own_names(&path));
        } else if path.file_name().unwrap().to_string_lossy().starts_with(".shiplane-") {
            found.push(path);
        }
    }
    found
}

/// Each time the same peer, by another connection.
async fn same(world: &World) -> RpcClient {
    world.admitted_as(world.identity(), world.ticket_to_write("")).await
}
