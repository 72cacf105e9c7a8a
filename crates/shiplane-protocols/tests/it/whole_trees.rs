//! Trees arrive as they are: hard links, holes, odd names, any depth, and files whose size is not their length.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use cap_std::{ambient_authority, fs::Dir};
use shiplane_files::internals::{Existing, sync::Change};
use shiplane_protocols::internals::{WriteLimits, sync::synchronise};

use crate::{
    harness::{World, tree},
    push::{push, request, source},
    sync::{admitted, job, sync},
    trees::{stamps, stamps_below},
};

/// Which names are those of one file: each with the least of them.
fn names(root: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let files = tree(root).into_keys().filter(|name| root.join(name).is_file());
    let of = |name: PathBuf| {
        let inode = fs::symlink_metadata(root.join(&name)).unwrap().ino();
        let first = first.entry(inode).or_insert_with(|| name.clone()).clone();
        (name, first)
    };
    files.map(of).collect()
}

fn fill_with_names(at: &Path) {
    fs::create_dir_all(at.join("d/e")).unwrap();
    fs::write(at.join("a"), "several names").unwrap();
    fs::write(at.join("large"), vec![7; 300_000]).unwrap();
    fs::write(at.join("alike"), "several names").unwrap();
    fs::write(at.join("empty"), "").unwrap();
    for (from, to) in [("a", "d/b"), ("a", "z"), ("large", "d/e/large"), ("empty", "d/empty")] {
        fs::hard_link(at.join(from), at.join(to)).unwrap();
    }
}

#[tokio::test]
async fn a_fetched_tree_has_the_hard_links_of_its_source_and_content_travels_once() {
    let world = World::new(fill_with_names);
    let client = world.admitted().await;
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!((report.received_bytes, report.left_out()), (13 + 13 + 300_000, 0));
    assert_eq!((report.summary.published_files, report.summary.hard_links), (8, 4));
    assert_eq!((tree(&world.dest()), names(&world.dest())), (tree(&world.source()), names(&world.source())));
    assert_eq!(stamps(&world.dest()), stamps(&world.source()));
    let again = world.fetch(&client, "").await.unwrap();
    assert_eq!((again.received_bytes, again.summary.identical_files, again.summary.hard_links), (0, 8, 0));
    // A new name, which may be the first that is listed.
    fs::hard_link(world.source().join("large"), world.source().join("large-too")).unwrap();
    world.fetch(&client, "").await.unwrap();
    assert_eq!(names(&world.dest()), names(&world.source()));
    let again = world.fetch(&client, "").await.unwrap();
    assert_eq!((again.received_bytes, again.summary.identical_files), (0, 9));
}

#[tokio::test]
async fn a_pushed_tree_has_the_hard_links_of_its_source() {
    let world = World::writable(WriteLimits::default());
    fill_with_names(&world.dest());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    for round in 0..2 {
        let report = push(&world, &client, source(&world.dest()), &request("in")).await.unwrap();
        assert_eq!(report.sent_bytes, if round == 0 { 13 + 13 + 300_000 } else { 0 });
        let there = world.source().join("in");
        assert_eq!((tree(&there), names(&there)), (tree(&world.dest()), names(&world.dest())));
    }
}

#[tokio::test]
async fn a_sync_links_the_names_that_are_new_together_and_keeps_every_content() {
    let world = World::syncing();
    fill_with_names(&world.dest());
    let client = admitted(&world).await;
    let report = sync(&world, &client).await;
    assert_eq!(report.sent_bytes, 13 + 13 + 300_000);
    assert_eq!(tree(&world.source()), tree(&world.dest()));
    assert_eq!(names(&world.source())[Path::new("d/e/large")], Path::new("d/e/large"));
    assert_eq!(names(&world.source()), names(&world.dest()));
    assert_eq!(stamps_below(&world.source()), stamps_below(&world.dest()));
    assert!(sync(&world, &client).await.actions.is_empty());
    // What is changed in place has changed under all its names.
    fs::write(world.source().join("large"), vec![8; 200_000]).unwrap();
    let report = sync(&world, &client).await;
    assert_eq!(report.received_bytes, 200_000);
    assert_eq!((tree(&world.source()), names(&world.source())), (tree(&world.dest()), names(&world.dest())));
    assert!(sync(&world, &client).await.actions.is_empty());
    // A name that becomes a file of its own leaves the others alone.
    fs::remove_file(world.dest().join("z")).unwrap();
    fs::write(world.dest().join("z"), "its own").unwrap();
    sync(&world, &client).await;
    assert_eq!((tree(&world.source()), names(&world.source())), (tree(&world.dest()), names(&world.dest())));
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn fill_with_holes(at: &Path) {
    let sparse = |name: &str, len_bytes: u64, data: &[(u64, usize)]| {
        let file = File::create(at.join(name)).unwrap();
        file.set_len(len_bytes).unwrap();
        for (offset, len) in data {
            file.write_all_at(&vec![7; *len], *offset).unwrap();
        }
    };
    sparse("vast", 1 << 40, &[(1 << 20, 100_000), (1 << 39, 5)]);
    sparse("hole", 1 << 40, &[]);
    sparse("small", 20_000, &[(9_000, 10)]);
    sparse("ends-in-data", 1 << 30, &[((1 << 30) - 1, 1)]);
    fs::write(at.join("plain"), vec![0; 70_000]).unwrap();
}

/// Sizes, times and occupied bytes of files that are too long to be read.
fn extents(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64)> {
    let of = |name: PathBuf| {
        let found = fs::symlink_metadata(root.join(&name)).unwrap();
        (name, (found.len(), found.blocks(), found.mtime_nsec()))
    };
    fs::read_dir(root).unwrap().map(|item| of(item.unwrap().file_name().into())).collect()
}

#[tokio::test]
async fn holes_of_terabytes_cost_neither_time_nor_space_in_either_direction() {
    let mut world = World::new(fill_with_holes);
    let client = world.admitted().await;
    let report = world.fetch(&client, "").await.unwrap();
    assert!(report.received_bytes < 300_000, "{}", report.received_bytes);
    assert_eq!(report.summary.resumed_bytes, 0);
    assert_eq!(extents(&world.dest()), extents(&world.source()));
    let mut data = [0; 5];
    File::open(world.dest().join("vast")).unwrap().read_exact_at(&mut data, 1 << 39).unwrap();
    assert_eq!(data, [7; 5]);
    world.receive.verify = true;
    let again = world.fetch(&client, "").await.unwrap();
    assert_eq!((again.received_bytes, again.summary.identical_files), (0, 5));
    // Another byte in the middle of a hole.
    let changed = File::options().write(true).open(world.source().join("hole")).unwrap();
    changed.write_all_at(b"x", 1 << 38).unwrap();
    world.receive.existing = Existing::Replace;
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!((report.summary.published_files, report.summary.identical_files), (1, 4));
    assert_eq!(extents(&world.dest()), extents(&world.source()));

    let world = World::writable(WriteLimits::default());
    fill_with_holes(&world.dest());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    for round in 0..2 {
        let report = push(&world, &client, source(&world.dest()), &request("in")).await.unwrap();
        assert!(report.sent_bytes < 300_000 && (round == 0 || report.sent_bytes == 0));
        assert_eq!(extents(&world.source().join("in")), extents(&world.dest()));
    }
    assert!(allocated(&world.source().join("in/vast")) < 1 << 20);
}

#[tokio::test]
async fn a_sync_neither_reads_nor_sends_holes_and_takes_written_zeros_for_the_same() {
    let world = World::syncing();
    fill_with_holes(&world.dest());
    for (root, is_written) in [(world.dest(), true), (world.source(), false)] {
        fs::write(root.join("zeros"), vec![0; if is_written { 300_000 } else { 0 }]).unwrap();
        File::options().write(true).open(root.join("zeros")).unwrap().set_len(300_000).unwrap();
    }
    let client = admitted(&world).await;
    let (asked, job) = (&client, &job(&world));
    let sync = || async move {
        let report = synchronise(asked, job, Arc::new(|_| ())).await.unwrap();
        assert!(report.left.is_empty(), "{:?}", report.left);
        report
    };
    let report = sync().await;
    assert!(report.sent_bytes < 300_000 && report.received_bytes == 0, "{}", report.sent_bytes);
    assert!(
        report
            .actions
            .iter()
            .all(|action| !action.path.to_string().contains("zeros") || action.change == Change::SetMetadata)
    );
    let without_zeros = |root: PathBuf| {
        let mut found = extents(&root);
        assert!(found.remove(Path::new("zeros")).is_some());
        found
    };
    assert_eq!(without_zeros(world.source()), without_zeros(world.dest()));

    // Back: something in the middle of a hole, and another name, under which it is copied.
    let changed = File::options().write(true).open(world.source().join("vast")).unwrap();
    changed.write_all_at(&[8; 100], 1 << 38).unwrap();
    fs::rename(world.source().join("hole"), world.source().join("moved")).unwrap();
    let report = sync().await;
    assert!(report.received_bytes < 300_000 && report.sent_bytes == 0, "{}", report.received_bytes);
    assert_eq!(without_zeros(world.source()), without_zeros(world.dest()));
    let mut data = [0; 100];
    File::open(world.dest().join("vast")).unwrap().read_exact_at(&mut data, 1 << 38).unwrap();
    assert_eq!(data, [8; 100]);
    assert_eq!(sync().await.actions, []);
}

/// Deeper than a path may be in one call, with line breaks and bytes that are no text in its names.
fn fill_deep(at: &Path) {
    let mut dir = Dir::open_ambient_dir(at, ambient_authority()).unwrap();
    let name = OsStr::from_bytes(b"line\nfeed, \r and \xff");
    for level in 0..300 {
        dir.write(format!("{level}\n"), format!("{level}")).unwrap();
        dir.create_dir(name).unwrap();
        dir = dir.open_dir(name).unwrap();
    }
}

/// Names, and what the files contain.
type Level = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What is there, level by level.
fn levels(at: &Path) -> Vec<Level> {
    let mut dir = Dir::open_ambient_dir(at, ambient_authority()).unwrap();
    let mut levels = Vec::new();
    loop {
        let (mut level, mut below) = (Level::new(), None);
        for item in dir.entries().unwrap() {
            let item = item.unwrap();
            let is_directory = item.file_type().unwrap().is_dir();
            let name = item.file_name();
            level.insert(name.as_bytes().to_vec(), (!is_directory).then(|| dir.read(&name).unwrap()));
            if is_directory {
                below = Some(dir.open_dir(&name).unwrap());
            }
        }
        levels.push(level);
        match below {
            Some(below) => dir = below,
            None => return levels,
        }
    }
}

#[tokio::test]
async fn trees_of_any_depth_and_names_of_any_bytes_arrive() {
    let world = World::new(fill_deep);
    let client = world.admitted().await;
    for _ in 0..2 {
        let report = world.fetch(&client, "").await.unwrap();
        assert_eq!((report.summary.directories, report.left_out()), (300, 0));
        assert_eq!(levels(&world.dest()), levels(&world.source()));
    }
    let world = World::syncing();
    fill_deep(&world.dest());
    let client = admitted(&world).await;
    let job = job(&world);
    synchronise(&client, &job, Arc::new(|_| ())).await.unwrap();
    assert_eq!(levels(&world.source()).len(), 301);
    assert_eq!(levels(&world.dest()), levels(&world.source()));
    assert!(synchronise(&client, &job, Arc::new(|_| ())).await.unwrap().actions.is_empty());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn files_that_the_kernel_makes_up_are_pushed_whole() {
    let world = World::writable(WriteLimits::default());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let made_up = source(Path::new("/proc/sys/kernel/random"));
    let report = push(&world, &client, made_up, &request("in")).await.unwrap();
    assert!(report.sent_bytes > 80);
    let there = |name: &str| fs::read_to_string(world.source().join("in").join(name)).unwrap();
    assert_eq!(there("boot_id"), fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap());
    assert_eq!(there("uuid").len(), 37, "other each time that it is read");
}
