//! Interrupted runs and their resumption.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use shiplane_files::internals::{DestinationError, Plan};
use shiplane_wire::{EntryKind, LeftOutReason, Version};
use tempfile::TempDir;

use super::tree::{
    CHUNK, Transfer, Tree, assert_equal, journal_of, listing, noise, open, open_with, overwriting, own_names,
    receive, verified,
};

/// Runs until `chunks` were delivered, publishing whenever `publish` says so, and is cut off.
fn cut_after(dest: &Path, tree: &Tree, chunks: usize, publish: impl Fn(usize) -> bool) -> u64 {
    let mut transfer = Transfer::plan(open(dest), tree).unwrap();
    let mut delivered_bytes = 0;
    for chunk in 0..chunks {
        delivered_bytes += transfer.deliver(chunk).unwrap();
        if publish(chunk) {
            transfer.publish().unwrap();
        }
    }
    delivered_bytes
}

#[test]
fn cut_off_after_any_chunk_nothing_is_sent_twice() {
    let tree = Tree::mixed();
    let all = Transfer::plan(open(TempDir::new().unwrap().path()), &tree).unwrap().chunks.len();
    assert!(all > 6, "the tree has {all} chunks");
    for chunks in 0..=all {
        for publish_every in [1, 2, usize::MAX] {
            let temp = TempDir::new().unwrap();
            let delivered =
                cut_after(temp.path(), &tree, chunks, |chunk| chunk % publish_every == publish_every - 1);
            let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
            let total: u64 = tree.entries.iter().map(|(entry, _)| entry.size_bytes).sum();
            assert_eq!(transfer.missing_bytes(), total - delivered, "after {chunks} of {all} chunks");
            transfer.complete().unwrap();
            assert_equal(temp.path(), &tree);
        }
    }
}

#[test]
fn cut_off_again_and_again_it_ends() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    let mut runs = 0;
    loop {
        let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
        if transfer.chunks.is_empty() {
            transfer.publish().unwrap();
            transfer.dest.finish().unwrap();
            break;
        }
        // Out of order, and another one in flight.
        let mut lost = transfer.writer(0);
        lost.write(&transfer.content(0)[..100]).unwrap();
        let last = transfer.chunks.len() - 1;
        transfer.deliver(last).unwrap();
        runs += 1;
    }
    assert!(runs > 6, "it took {runs} runs");
    assert_equal(temp.path(), &tree);
}

#[test]
fn what_was_written_and_not_committed_is_asked_for_again() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    for chunk in 0..transfer.chunks.len() {
        let content = transfer.content(chunk);
        let mut writer = transfer.writer(chunk);
        writer.write(&content[..content.len() - 1]).unwrap();
        drop(writer);
    }
    // In the same run and in the next one.
    let missing_bytes = transfer.missing_bytes();
    let mut transfer = transfer;
    transfer.deliver(0).unwrap();
    let delivered = transfer.content(0).len() as u64;
    drop(transfer);
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    assert_eq!(transfer.missing_bytes(), missing_bytes - delivered);
    transfer.complete().unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn a_torn_journal_costs_time_and_nothing_else() {
    let tree = Tree::mixed();
    let cut = TempDir::new().unwrap();
    cut_after(cut.path(), &tree, 5, |chunk| chunk == 3);
    let len = fs::metadata(journal_of(cut.path())).unwrap().len();
    for torn in (0..=len).step_by(7).chain([len - 1]) {
        let temp = copy_of(cut.path());
        fs::OpenOptions::new().write(true).open(journal_of(temp.path())).unwrap().set_len(torn).unwrap();
        receive(open(temp.path()), &tree).unwrap();
        assert_equal(temp.path(), &tree);
    }
}

/// As ext4 does after a power cut, whose metadata may be ahead of the data.
#[test]
fn a_journal_whose_end_or_all_is_zeros_is_cut_off_there_and_nothing_is_left_of_it() {
    let tree = Tree::mixed();
    let cut = TempDir::new().unwrap();
    cut_after(cut.path(), &tree, 5, |chunk| chunk == 3);
    let whole = fs::read(journal_of(cut.path())).unwrap();
    // The header is within a sector: written or not.
    for written in (49..whole.len()).step_by(13).chain([0]) {
        let temp = copy_of(cut.path());
        let mut zeroed = whole.clone();
        zeroed[written..].fill(0);
        fs::write(journal_of(temp.path()), zeroed).unwrap();
        receive(open(temp.path()), &tree).unwrap();
        let own = own_names(temp.path());
        assert!(own.is_empty(), "with {written} bytes written: {own:?}");
        assert_equal(temp.path(), &tree);
    }
}

#[test]
fn a_journal_of_which_a_power_cut_left_only_the_size_is_begun_anew() {
    let tree = Tree::mixed();
    let cut = TempDir::new().unwrap();
    cut_after(cut.path(), &tree, 5, |chunk| chunk == 3);
    let len = fs::metadata(journal_of(cut.path())).unwrap().len() as usize;
    for left in [1, len / 2, len] {
        let temp = copy_of(cut.path());
        fs::write(journal_of(temp.path()), vec![0; left]).unwrap();
        receive(open(temp.path()), &tree).unwrap();
        assert_eq!(own_names(temp.path()).len(), 0, "nothing is set aside");
        assert_equal(temp.path(), &tree);
    }
}

#[test]
fn a_journal_with_a_flipped_bit_is_cut_off_there_or_set_aside() {
    let tree = Tree::mixed();
    let cut = TempDir::new().unwrap();
    cut_after(cut.path(), &tree, 5, |chunk| chunk == 3);
    let whole = fs::read(journal_of(cut.path())).unwrap();
    for at in (0..whole.len()).step_by(11) {
        let temp = copy_of(cut.path());
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(journal_of(temp.path()), flipped).unwrap();
        receive(open(temp.path()), &tree).unwrap();
        for name in own_names(temp.path()) {
            assert!(name.to_string_lossy().contains(".aside-"), "{}", name.display());
            fs::remove_file(temp.path().join(name)).unwrap();
        }
        assert_equal(temp.path(), &tree);
    }
}

#[test]
fn a_foreign_file_in_the_journals_place_is_moved_aside_unharmed() {
    let tree = Tree::mixed();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "untouched").unwrap();
    type Plant<'a> = (&'a str, &'a dyn Fn(&Path));
    let plant: [Plant<'_>; 5] = [
        ("garbage", &|path| fs::write(path, noise(5, 500)).unwrap()),
        ("another job's", &|path| {
            fs::write(path, [&b"shiplane-jrnl 2\n\x02"[..], &[7; 32]].concat()).unwrap()
        }),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
        ("a link", &|path| symlink(outside.path().join("secret"), path).unwrap()),
        ("a FIFO", &|path| make_fifo(path)),
    ];
    for (what, plant) in plant {
        let temp = TempDir::new().unwrap();
        let dest = open(temp.path());
        let journal = journal_of(temp.path());
        drop(dest);
        plant(&journal);
        let planted = fs::read_link(&journal).ok();
        receive(open(temp.path()), &tree).unwrap();
        let aside = PathBuf::from(format!("{}.aside-0", journal.display()));
        assert_eq!(fs::read_link(&aside).ok(), planted, "{what}");
        assert!(fs::symlink_metadata(&aside).is_ok(), "{what}");
        fs::remove_file(&aside).or_else(|_| fs::remove_dir(&aside)).unwrap();
        assert_equal(temp.path(), &tree);
    }
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"untouched");
    assert_eq!(listing(outside.path()).len(), 1);
}

#[test]
fn a_flipped_byte_in_what_was_kept_makes_its_chunk_wanted_again() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("f", noise(1, 5300));
    cut_after(temp.path(), &tree, 5, |_| false);
    let part = part_of(temp.path());
    let file = fs::OpenOptions::new().read(true).write(true).open(&part).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2 * CHUNK + 17).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 2 * CHUNK + 17).unwrap();

    let dest = open(temp.path());
    let plan = dest.plan(0, &tree.entries[0].0).unwrap();
    let missing = vec![2 * CHUNK..3 * CHUNK, 5 * CHUNK..5300];
    assert_eq!(plan, Plan::Want { missing, resumed_bytes: 4 * CHUNK });
    drop(dest);
    receive(open(temp.path()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn a_kept_file_that_is_short_long_or_gone_is_received_again() {
    for damage in [
        &(|part: &Path| fs::OpenOptions::new().write(true).open(part).unwrap().set_len(10).unwrap())
            as &dyn Fn(&Path),
        &|part| fs::OpenOptions::new().write(true).open(part).unwrap().set_len(1 << 20).unwrap(),
        &|part| fs::remove_file(part).unwrap(),
        &|part| {
            fs::remove_file(part).unwrap();
            fs::create_dir(part).unwrap();
            fs::remove_dir(part).unwrap();
            make_fifo(part);
        },
    ] {
        for content in [noise(1, 3000), noise(2, 300)] {
            let temp = TempDir::new().unwrap();
            let tree = Tree::default().file("f", content);
            cut_after(temp.path(), &tree, 1, |_| false);
            damage(&part_of(temp.path()));
            receive(open(temp.path()), &tree).unwrap();
            assert_equal(temp.path(), &tree);
        }
    }
}

#[test]
fn of_another_version_nothing_is_kept_and_its_neighbours_in_the_pack_are() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", noise(1, 300)).file("b", noise(2, 300)).file("c", noise(3, 300));
    assert_eq!(cut_after(temp.path(), &tree, 1, |_| false), 900);
    let mut changed = tree.clone();
    changed.entries[0].0.version = Version::from_bytes([9; 16]);
    changed.entries[0].1 = noise(4, 300);

    let transfer = Transfer::plan(open(temp.path()), &changed).unwrap();
    assert_eq!((transfer.resumed_bytes, transfer.missing_bytes()), (600, 300));
    transfer.complete().unwrap();
    assert_equal(temp.path(), &changed);
}

#[test]
fn what_the_peer_does_not_have_any_more_is_removed() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    cut_after(temp.path(), &tree, 6, |_| false);
    assert!(own_names(temp.path()).len() > 4);
    let less = Tree::default().dir("sub").dir("sub/none").file("other", noise(7, 1200));
    receive(open(temp.path()), &less).unwrap();
    assert_equal(temp.path(), &less);
}

#[test]
fn a_file_that_is_discarded_leaves_nothing() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", noise(1, 300)).file("b", noise(2, 2000)).file("c", noise(3, 300));
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    transfer.dest.discard(1, LeftOutReason::Vanished).unwrap();
    // Both were on their way when it was given up; the second has bytes of another file as well.
    transfer.deliver(1).unwrap();
    transfer.deliver(2).unwrap();
    transfer.publish().unwrap();
    assert!(
        matches!(
            transfer.dest.discard(0, LeftOutReason::Vanished),
            Err(DestinationError::NotWanted { entry: 0 })
        ),
        "it is published"
    );
    transfer.dest.finish().unwrap();
    let rest = Tree::default().file("a", noise(1, 300)).file("c", noise(3, 300));
    assert_equal(temp.path(), &rest);
}

#[test]
fn a_file_that_is_discarded_while_it_is_written_leaves_nothing() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", noise(1, 300)).file("b", noise(2, 300));
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    let content = transfer.content(0);
    let mut writer = transfer.writer(0);
    transfer.dest.discard(1, LeftOutReason::Vanished).unwrap();
    writer.write(&content).unwrap();
    let (_, complete) = writer.commit(verified(&content)).unwrap();
    assert_eq!(complete, [0]);
    transfer.dest.publish(&complete).unwrap();
    transfer.dest.finish().unwrap();
    assert_equal(temp.path(), &Tree::default().file("a", noise(1, 300)));
}

#[test]
fn published_files_that_were_changed_since_are_not_taken_for_kept() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    cut_after(temp.path(), &tree, 7, |_| true);
    let published: Vec<_> = tree.entries.iter().filter(|(entry, _)| entry.kind == EntryKind::File).collect();
    let mut changed = 0;
    for (entry, _) in published {
        let path = temp.path().join(entry.path.to_string());
        if path.exists() && entry.size_bytes > 0 {
            fs::write(&path, "mine, and of another length").unwrap();
            changed += 1;
        }
    }
    assert!(changed > 2);
    assert!(matches!(receive(open(temp.path()), &tree), Err(DestinationError::Exists { .. })));
    receive(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn another_chunk_length_goes_on_all_the_same() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("f", noise(1, 5300));
    cut_after(temp.path(), &tree, 2, |_| false);
    let dest = open(temp.path());
    let Plan::Want { missing, .. } = dest.plan(0, &tree.entries[0].0).unwrap() else {
        panic!("it is not done")
    };
    let rest = 2 * CHUNK..5300;
    assert_eq!(missing, [rest]);
    let content = &tree.entries[0].1;
    for (chunk, start) in (2 * CHUNK..5300).step_by(777).enumerate() {
        let end = (start + 777).min(5300);
        let span = shiplane_wire::Span { entry: 0, offset_bytes: start, len_bytes: end - start };
        let mut writer = dest.chunk_writer(chunk as u64, &[span]).unwrap();
        let bytes = &content[start as usize..end as usize];
        writer.write(bytes).unwrap();
        let (_, complete) = writer.commit(verified(bytes)).unwrap();
        assert_eq!(complete.is_empty(), end < 5300);
    }
    dest.publish(&[0]).unwrap();
    dest.finish().unwrap();
    assert_equal(temp.path(), &tree);
}

fn part_of(dest: &Path) -> PathBuf {
    let part = own_names(dest).into_iter().find(|name| name.extension().is_some_and(|end| end == "part"));
    dest.join(part.unwrap())
}

fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Another destination in the same state.
fn copy_of(dest: &Path) -> TempDir {
    let temp = TempDir::new().unwrap();
    for (path, content) in listing(dest) {
        let (from, to) = (dest.join(&path), temp.path().join(&path));
        match content {
            Some(content) => {
                fs::write(&to, content).unwrap();
                let modified = fs::metadata(from).unwrap().modified().unwrap();
                fs::File::options().write(true).open(to).unwrap().set_modified(modified).unwrap();
            }
            None => fs::create_dir(to).unwrap(),
        }
    }
    temp
}
