//! Disks that are full, read-only or broken: real ones, mounted for the test.
//!
//! Where mounting is not permitted the test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shiplane_files::internals::{Destination, DestinationError, FaultClass, ReceiveOptions, Shape};
#[cfg(target_os = "linux")]
use shiplane_files::internals::{
    SharedMemory, SourceRoot,
    sync::{Dataset, ScanOptions, Site, SiteOptions, SyncState},
};
use tempfile::TempDir;

use super::tree::{
    Transfer, Tree, assert_equal, job, listing, noise, open, open_with, options, overwriting, own_names,
    receive,
};

#[cfg(target_os = "linux")]
use crate::broken_disk::BrokenDisk;

struct Mounted {
    path: PathBuf,
}

/// Held by each test here. They start processes, and a process that was forked and is not yet another
/// program has all files of this one open, so that space is freed later than the others expect.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mounted {
    fn new(path: PathBuf, arguments: &[&str]) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { path });
        }
        eprintln!("SKIPPED: no permission to mount with {arguments:?}");
        None
    }

    fn tmpfs(temp: &TempDir, options: &str) -> Option<Self> {
        Self::new(temp.path().join("disk"), &["-t", "tmpfs", "-o", options, "none"])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn too_little_space_is_reported_before_the_first_byte() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let Some(disk) = Mounted::tmpfs(&temp, "size=1m") else { return };
    let dest = open(&disk.path);
    dest.reserve(500_000).unwrap();
    let error = dest.reserve(2_000_000).unwrap_err();
    let DestinationError::NoSpace { needed_bytes: 2_000_000, available_bytes, .. } = error else {
        panic!("{error}");
    };
    assert!((500_000..=1 << 20).contains(&available_bytes), "{available_bytes}");
    assert_eq!(error.class(), FaultClass::LocalIo);
}

#[test]
fn a_disk_that_fills_up_loses_nothing_and_the_next_run_goes_on() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let Some(disk) = Mounted::tmpfs(&temp, "size=1m") else { return };
    let ballast = disk.path.join("ballast");
    // Once it is a large file that does not fit, once the sum of small ones.
    let large = Tree::default().file("small", noise(1, 500)).file("large", noise(2, 600_000));
    let many = (0..150).fold(Tree::default(), |tree, at| tree.file(&format!("f{at}"), noise(3, 999 - at)));
    for tree in [large, many] {
        fs::write(&ballast, vec![1; 500 << 10]).unwrap();
        let filler = disk.path.join("filler");
        fs::write(&filler, vec![1; 470 << 10]).unwrap();
        let error = receive(open(&disk.path), &tree).unwrap_err();
        assert!(matches!(error, DestinationError::NoSpace { .. }), "{error}");
        let names: Vec<_> =
            listing(&disk.path).into_keys().filter(|name| !name.starts_with(".shiplane-")).collect();
        assert!(names.iter().all(|name| own_or_ballast(name)), "nothing half-written has a name: {names:?}");

        fs::remove_file(&ballast).unwrap();
        fs::remove_file(&filler).unwrap();
        receive(open(&disk.path), &tree).unwrap();
        assert_equal(&disk.path, &tree);
        for (entry, _) in &tree.entries {
            fs::remove_file(disk.path.join(entry.path.to_string())).unwrap();
        }
    }
}

fn own_or_ballast(name: &Path) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(".shiplane-") || name == "ballast" || name == "filler"
}

#[test]
fn space_that_a_resumed_file_has_already_is_not_asked_for_twice() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let Some(disk) = Mounted::tmpfs(&temp, "size=1m") else { return };
    let tree = Tree::default().file("large", noise(2, 700_000));
    let mut transfer = Transfer::plan(open(&disk.path), &tree).unwrap();
    transfer.dest.reserve(transfer.missing_bytes()).unwrap();
    for chunk in 0..10 {
        transfer.deliver(chunk).unwrap();
    }
    drop(transfer);
    let transfer = Transfer::plan(open(&disk.path), &tree).unwrap();
    assert_eq!(transfer.missing_bytes(), 690_000);
    transfer.dest.reserve(690_000).unwrap();
    assert!(matches!(transfer.dest.reserve(1_200_000), Err(DestinationError::NoSpace { .. })));
    transfer.complete().unwrap();
    assert_equal(&disk.path, &tree);
}

#[test]
fn each_file_system_is_asked_for_the_space_of_what_lands_on_it() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let dest = temp.path().join("dest");
    fs::create_dir(&dest).unwrap();
    let Some(small) = Mounted::new(dest.join("mount"), &["-t", "tmpfs", "-o", "size=1m", "none"]) else {
        return;
    };
    let fits = Tree::default()
        .file("large", noise(1, 2_000_000))
        .dir("mount")
        .file("mount/small", noise(2, 500_000));
    let transfer = Transfer::plan(open(&dest), &fits).unwrap();
    transfer.dest.reserve(transfer.missing_bytes()).unwrap();
    transfer.complete().unwrap();
    fs::remove_file(small.path.join("small")).unwrap();

    let too_large = Tree::default().file("other", b"x").dir("mount").file("mount/large", noise(3, 2_000_000));
    let transfer = Transfer::plan(open(&dest), &too_large).unwrap();
    let error = transfer.dest.reserve(transfer.missing_bytes()).unwrap_err();
    assert!(
        matches!(&error, DestinationError::NoSpace { path, needed_bytes: 2_000_000, .. } if path.ends_with("mount")),
        "{error}"
    );
    drop(transfer);
}

/// What was synced as a whole, from `root` on.
#[cfg(target_os = "linux")]
fn synced_file_systems<'a>(calls: &'a [(&str, PathBuf)]) -> Vec<&'a Path> {
    let synced = calls.iter().filter(|(what, _)| *what == "sync all");
    let mut synced: Vec<_> = synced.map(|(_, path)| path.as_path()).collect();
    synced.sort_unstable();
    synced
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_found_on_a_file_system_below_the_destination_is_made_durable_too() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let Some(mounted) = Mounted::tmpfs(&temp, "size=1m") else { return };
    let tree =
        Tree::default().file("a", noise(1, 100)).dir("disk").dir("disk/d").file("disk/d/b", noise(2, 100));
    receive(open_with(temp.path(), overwriting()), &tree).unwrap();
    let disk = BrokenDisk::below(temp.path(), |_, _| false);
    let summary = receive(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_eq!(summary.identical_files, 2);
    assert_eq!(synced_file_systems(&disk.calls()), [Path::new(""), Path::new("disk")]);
    drop(mounted);
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_sync_lists_on_a_file_system_below_its_root_is_made_durable_too() {
    let (_alone, temp, state) = (alone(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let Some(mounted) = Mounted::tmpfs(&temp, "size=1m") else { return };
    fs::write(temp.path().join("a"), "a").unwrap();
    fs::create_dir(mounted.path.join("d")).unwrap();
    fs::write(mounted.path.join("d/b"), "b").unwrap();
    let root = SourceRoot::open(temp.path()).unwrap();
    let ReceiveOptions { digest, links, attributes, chunk_len_bytes, .. } = options();
    let options = SiteOptions { digest, links, attributes, chunk_len_bytes };
    let site = Site::to_change(&root, b"", &[1; 32], options, SharedMemory::default(), &|_| true).unwrap();
    let (state, options) = (SyncState::at(state.path().to_owned()), ScanOptions::default());
    let dataset = Dataset::open(Some(site), b"here", &[1; 32], &state, &options, None).unwrap();
    let disk = BrokenDisk::below(temp.path(), |_, _| false);
    // The other side has the same, and counts on this one.
    dataset.finish_interrupted().unwrap();
    assert_eq!(synced_file_systems(&disk.calls()), [Path::new(""), Path::new("disk")]);
    drop(mounted);
}

#[test]
fn too_few_inodes_are_told_apart_from_too_little_space() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let Some(disk) = Mounted::tmpfs(&temp, "size=1m,nr_inodes=20") else { return };
    let few = (0..5).fold(Tree::default(), |tree, at| tree.file(&format!("f{at}"), b"x"));
    let transfer = Transfer::plan(open(&disk.path), &few).unwrap();
    transfer.dest.reserve(transfer.missing_bytes()).unwrap();
    transfer.complete().unwrap();
    let many = (0..30).fold(Tree::default(), |tree, at| tree.file(&format!("g{at}"), b"x"));
    let transfer = Transfer::plan(open(&disk.path), &many).unwrap();
    let error = transfer.dest.reserve(transfer.missing_bytes()).unwrap_err();
    assert!(matches!(error, DestinationError::NoInodes { needed: 30, .. }), "{error}");
    drop(transfer);
}

#[test]
fn a_read_only_disk_is_a_matter_of_permission() {
    let (_alone, temp) = (alone(), TempDir::new().unwrap());
    let Some(disk) = Mounted::tmpfs(&temp, "ro,size=1m") else { return };
    for dest in [disk.path.clone(), disk.path.join("new")] {
        let error = Destination::open(&dest, &Shape::Contents, job(), options()).unwrap_err();
        assert!(matches!(error, DestinationError::PermissionDenied { .. }), "{error}");
        assert_eq!(error.class(), FaultClass::LocalIo);
    }
}

/// A small disk that pretends to be a large one: what is written fits in the cache, and syncing fails.
fn overcommitted(temp: &TempDir) -> Option<(Mounted, Mounted)> {
    let backing = Mounted::tmpfs(temp, "size=3m")?;
    let image = backing.path.join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no mkfs.ext4");
        return None;
    }
    let disk =
        Mounted::new(temp.path().join("lying"), &["-o", "loop,errors=continue", image.to_str().unwrap()])?;
    fs::remove_dir(disk.path.join("lost+found")).unwrap();
    Some((disk, backing))
}

#[test]
fn what_cannot_be_made_durable_is_never_published() {
    let _alone = alone();
    // Few files are synced one by one, many all at once.
    for files in [2, 40] {
        let temp = TempDir::new().unwrap();
        let Some((disk, _backing)) = overcommitted(&temp) else { return };
        let size = (8 << 20) / files;
        let tree =
            (0..files).fold(Tree::default(), |tree, at| tree.file(&format!("f{at}"), noise(at as u8, size)));
        let options = ReceiveOptions { chunk_len_bytes: 4 << 20, ..overwriting() };
        let transfer = Transfer::plan(open_with(&disk.path, options), &tree).unwrap();
        let mut ready = Vec::new();
        for (entry, (_, content)) in (0..).zip(&tree.entries) {
            let span = shiplane_wire::Span { entry, offset_bytes: 0, len_bytes: content.len() as u64 };
            let mut writer = transfer.dest.chunk_writer(entry, &[span]).unwrap();
            writer.write(content).unwrap();
            ready.extend(writer.commit(super::tree::verified(content)).unwrap().1);
        }
        assert_eq!(ready.len(), files);
        let error = transfer.dest.publish(&ready).unwrap_err();
        assert!(matches!(error, DestinationError::Poisoned { source: Some(_), .. }), "{error}");
        assert_eq!(error.class(), FaultClass::LocalIo);
        assert!(error.to_string().contains("os error"), "it does not say why: {error}");
        let names: Vec<_> = listing(&disk.path).into_keys().filter(|name| !own_or_ballast(name)).collect();
        assert!(names.is_empty(), "{names:?}");

        // To try again would succeed, and prove nothing.
        let poisoned = ready.iter().filter(|entry| {
            matches!(transfer.dest.publish(&[**entry]), Err(DestinationError::Poisoned { source: None, .. }))
        });
        assert!(poisoned.count() >= 1);
        let error = transfer.dest.clone().finish().unwrap_err();
        assert!(matches!(error, DestinationError::Poisoned { .. }), "{error}");
        drop(transfer);
        // Nor does the next run find any of it in the cache and take it for kept.
        if let Ok(dest) = Destination::open(&disk.path, &Shape::Contents, job(), options) {
            let again = Transfer::plan(dest, &tree).unwrap();
            assert!(again.missing_bytes() >= size as u64);
        }
        assert!(own_names(&disk.path).len() <= files + 1);
    }
}
