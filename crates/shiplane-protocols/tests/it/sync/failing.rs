//! Failing disks during a sync: affected paths are left alone and reported with the system's error.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::{
    disk::Change,
    sync::{Side, UnresolvedReason},
};
use shiplane_protocols::internals::sync::{SyncEvent, SyncJob, synchronise};
use shiplane_wire::LeftOutReason;

use super::{admitted, job, sync, write, written_at};
use crate::{
    broken_disk::BrokenDisk,
    harness::{World, noise, on_broken_disks},
};

#[test]
fn a_version_that_cannot_be_kept_aside_is_left_with_the_systems_error() {
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

#[test]
fn a_name_that_one_side_refuses_keeps_no_other_change_from_travelling() {
    on_broken_disks(async {
        let world = World::syncing();
        for name in ["stays", "goes-here", "goes-there"] {
            write(&world.dest(), name, name.as_bytes());
        }
        let client = admitted(&world).await;
        sync(&world, &client).await;
        fs::remove_file(world.dest().join("goes-here")).unwrap();
        fs::remove_file(world.source().join("goes-there")).unwrap();
        write(&world.source(), "d/10:30 notes.txt", b"refused here");
        write(&world.source(), "new", b"new");
        fs::create_dir(world.dest().join("d")).unwrap();
        let refuses = |change: Change<'_>, path: &Path| change == Change::Name && path.ends_with("d");
        let broken = BrokenDisk::below(&world.dest(), refuses).with_errno(22);
        let report = synchronise(&client, &job(&world), Arc::new(|_| ())).await.unwrap();
        let [left] = &report.left[..] else { panic!("{:?}", report.left) };
        assert_eq!(left.path.to_string(), "d/10:30 notes.txt");
        // Where a temporary file is made on a thread of its own, only the final name is refused.
        let why = left.why.reason();
        assert!(matches!(why, LeftOutReason::Name | LeftOutReason::Failed), "{why}");
        drop(broken);
        for at in [world.dest(), world.source()] {
            assert!(!at.join("goes-here").exists() && !at.join("goes-there").exists(), "{}", at.display());
            assert!(at.join("new").exists() && at.join("stays").exists(), "{}", at.display());
        }
        sync(&world, &client).await;
        assert_eq!(fs::read(world.dest().join("d/10:30 notes.txt")).unwrap(), b"refused here");
    });
}

#[test]
fn a_failure_of_the_other_side_comes_with_its_systems_error() {
    on_broken_disks(async {
        let world = World::syncing();
        write(&world.dest(), "d/a", b"ours");
        write(&world.source(), "d/b", b"theirs");
        let client = admitted(&world).await;
        let read_only = 30; // EROFS
        let refuses = |change: Change<'_>, path: &Path| change == Change::Name && path.ends_with("d");
        let broken = BrokenDisk::below(&world.source(), refuses).with_errno(read_only);
        let report = synchronise(&client, &job(&world), Arc::new(|_| ())).await.unwrap();
        assert!(!report.left.is_empty());
        for left in report.left.iter().filter(|left| left.side == Side::Remote) {
            let says = left.why.to_string();
            assert!(says.contains("Read-only file system"), "{says}");
            assert!(!says.contains(&*world.source().to_string_lossy()), "where it is, is not told: {says}");
        }
        assert!(report.left.iter().any(|left| left.side == Side::Remote));
        drop(broken);
        sync(&world, &client).await;
        assert_eq!(fs::read(world.source().join("d/a")).unwrap(), b"ours");
    });
}

#[test]
fn a_directory_that_is_created_at_the_second_attempt_has_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    on_broken_disks(async {
        let world = World::syncing();
        write(&world.source(), "d/a", b"theirs");
        let mode =
            |root: std::path::PathBuf| fs::metadata(root.join("d")).unwrap().permissions().mode() & 0o777;
        fs::set_permissions(world.source().join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        let client = admitted(&world).await;
        let (root, has_failed) = (world.dest().canonicalize().unwrap(), AtomicBool::new(false));
        let once = move |change: Change<'_>, path: &Path| {
            change == Change::Name && *path == root && !has_failed.swap(true, Ordering::Relaxed)
        };
        let (broken, directory) = (Arc::new(Mutex::new(None)), world.dest());
        let once = Mutex::new(Some(once));
        let events = {
            let broken = Arc::clone(&broken);
            Arc::new(move |event| {
                if let SyncEvent::Planned(_) = event
                    && let Some(once) = once.lock().unwrap().take()
                {
                    *broken.lock().unwrap() = Some(BrokenDisk::below(&directory, once));
                }
            })
        };
        let report = synchronise(&client, &job(&world), events).await.unwrap();
        assert_eq!(report.left.len(), 1, "{:?}", report.left);
        assert_eq!(mode(world.dest()), 0o755, "{:?}", report.left);
        broken.lock().unwrap().take();
        sync(&world, &client).await;
        assert_eq!((mode(world.dest()), mode(world.source())), (0o755, 0o755));
        assert_eq!(fs::read(world.dest().join("d/a")).unwrap(), b"theirs");
    });
}

/// Seed 9845 of the simulation: the sync reported success, and the two sides had different attributes.
#[test]
fn a_version_that_is_kept_aside_without_its_attributes_is_told_and_gets_them_by_the_next_sync() {
    use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
    use std::sync::atomic::{AtomicBool, Ordering};
    on_broken_disks(async {
        let world = World::syncing();
        write(&world.dest(), "a", b"ours");
        written_at(world.dest().join("a"), 1_000_000_000);
        let ours = fs::File::open(world.dest().join("a")).unwrap();
        if fsetxattr(&ours, "user.x", b"kept", XattrFlags::empty()).is_err() {
            eprintln!("skipped: the file system has no extended attributes");
            return;
        }
        write(&world.source(), "a", b"theirs");
        let client = admitted(&world).await;
        let job = || SyncJob { attributes: true, ..job(&world) };

        let has_failed = AtomicBool::new(false);
        let is_first = move |change: Change<'_>, path: &Path| {
            let is_copy = path.extension().is_some_and(|extension| extension == "part");
            change == Change::Metadata && is_copy && !has_failed.swap(true, Ordering::Relaxed)
        };
        let broken = BrokenDisk::below(&world.dest(), is_first).with_errno(5);
        let report = synchronise(&client, &job(), Arc::new(|_| ())).await.unwrap();
        let [left] = &report.left[..] else { panic!("{:?}", report.left) };
        assert_eq!((left.side, left.why.reason()), (Side::Local, LeftOutReason::Attributes), "{left:?}");
        drop(broken);

        let report = synchronise(&client, &job(), Arc::new(|_| ())).await.unwrap();
        assert!(report.left.is_empty(), "{:?}", report.left);
        for side in [world.dest(), world.source()] {
            let kept = fs::File::open(side.join(left.path.to_string())).unwrap();
            let mut value = [0; 8];
            let len = fgetxattr(&kept, "user.x", &mut value).unwrap();
            assert_eq!(&value[..len], b"kept", "{}", side.display());
        }
    });
}

/// A side that may not set modes and times has others than the plan says, and the next sync took these for a change of its own.
#[test]
fn a_mode_that_one_side_may_not_set_is_named_by_each_sync_and_changes_nothing_on_the_other() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    on_broken_disks(async {
        let world = World::syncing();
        let state = |root: &Path| {
            ["d", "d/both", "new", "new/a"].map(|path| {
                let found = fs::metadata(root.join(path)).unwrap();
                (found.mode() & 0o7777, found.mtime(), found.mtime_nsec())
            })
        };
        let settle = |path: &Path, mode, secs| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        };
        let (source, dest) = (world.source(), world.dest());
        write(&source, "d/both", b"same");
        write(&source, "new/a", b"new");
        settle(&source.join("d/both"), 0o664, 1_000_000_000);
        settle(&source.join("new/a"), 0o664, 1_000_000_000);
        settle(&source.join("new"), 0o775, 1_000_000_000);
        settle(&source.join("d"), 0o775, 1_000_000_000);
        // One that both have, and that is newer there; and a directory with fewer permissions there.
        write(&dest, "d/both", b"same");
        settle(&dest.join("d/both"), 0o600, 900_000_000);
        settle(&dest.join("d"), 0o777, 1_000_000_000);
        let right = state(&source);
        let client = admitted(&world).await;
        let not_permitted = 1; // EPERM
        let broken = BrokenDisk::below(&dest, |change, _| change == Change::Metadata);
        let broken = broken.with_errno(not_permitted);
        for number in 0..3 {
            let report = synchronise(&client, &job(&world), Arc::new(|_| ())).await.unwrap();
            let left: Vec<_> = report.left.iter().map(|left| (left.side, left.path.to_string())).collect();
            assert!(left.iter().all(|(side, _)| *side == Side::Local), "{left:?}");
            for path in ["d", "d/both", "new"] {
                assert!(left.contains(&(Side::Local, path.to_owned())), "sync {number}: {path}: {left:?}");
            }
            assert_eq!(state(&source), right, "sync {number}: {:?}", report.left);
        }
        assert_ne!(state(&dest), right);
        // What its user changes there is a change all the same.
        fs::set_permissions(dest.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
        drop(broken);
        sync(&world, &client).await;
        let [_, rest @ ..] = right;
        for side in [&source, &dest] {
            let [directory, found @ ..] = state(side);
            assert_eq!((directory.0, found), (0o750, rest), "{}", side.display());
        }
    });
}
