//! Failing disks during a sync: affected paths are left alone and reported with the system's error.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::{
    disk::Change,
    sync::{Side, UnresolvedReason},
};
use shiplane_protocols::internals::sync::{SyncEvent, synchronise};

use super::{admitted, job, sync, write, written_at};
use crate::{
    broken_disk::BrokenDisk,
    harness::{World, noise, on_broken_disks},
};

#[test]
fn a_version_that_cannot_be_kept_aside_is_left_with_what_the_system_says() {
    on_broken_disks(async {
        let world = World::syncing();
        write(&world.dest(), "d/a", &noise(1, 3000));
        let client = admitted(&world).await;
        sync(&world, &client).await;
        write(&world.dest(), "d/a", b"ours");
        written_at(world.dest().join("d/a"), 1_000_000_000);
        write(&world.source(), "d/a", b"theirs");

        let (broken, directory) = (Arc::new(Mutex::new(None)), world.dest().join("d"));
        let events = {
            let broken = Arc::clone(&broken);
            Arc::new(move |event| {
                if let SyncEvent::Planned(_) = event {
                    let disk = BrokenDisk::below(&directory, |change, _| change == Change::Name);
                    *broken.lock().unwrap() = Some(disk);
                }
            })
        };
        let report = synchronise(&client, &job(&world), events).await.unwrap();
        let ours: Vec<_> = report.left.iter().filter(|left| left.side == Side::Local).collect();
        assert_eq!(ours.len(), 2, "what loses its name, and the name that it should get: {ours:?}");
        for left in ours {
            let UnresolvedReason::Failed(error) = &left.why else { panic!("{left:?}") };
            assert!(error.to_string().ends_with("the disk is broken"), "{error}");
        }
        assert_eq!(fs::read(world.dest().join("d/a")).unwrap(), b"ours");

        broken.lock().unwrap().take();
        sync(&world, &client).await;
        assert_eq!(fs::read_dir(world.dest().join("d")).unwrap().count(), 2, "both versions");
    });
}
