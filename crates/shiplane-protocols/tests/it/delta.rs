//! Edited files: common blocks are not sent again.

mod liar;

use std::{fs, os::unix::fs::MetadataExt, time::SystemTime};

use shiplane_protocols::internals::transfer::{FilesReport, TransferEvent};
use shiplane_rpc::RpcClient;

use crate::harness::{Events, World, noise, tree};

const MIB: usize = 1 << 20;

/// A world in which different files are replaced.
async fn world(new: &[u8], old: &[u8]) -> (World, RpcClient) {
    let mut world = World::new(|source| fs::write(source.join("large"), new).unwrap());
    world.receive.existing = shiplane_files::internals::Existing::Replace;
    fs::write(world.dest().join("large"), old).unwrap();
    let client = world.admitted().await;
    (world, client)
}

async fn replace(new: &[u8], old: &[u8]) -> FilesReport {
    let (world, client) = world(new, old).await;
    let report = world.fetch(&client, "").await.unwrap();
    assert!(tree(&world.dest()) == tree(&world.source()), "both have the same");
    assert_eq!(report.summary.published_bytes, new.len() as u64);
    assert_eq!(report.summary.copied_bytes + report.received_bytes, new.len() as u64);
    report
}

#[tokio::test]
async fn a_fetch_of_an_edited_file_sends_only_the_bytes_around_the_edits() {
    let old = noise(1, 8 * MIB);
    let mut new = [b"xy", &old[..]].concat();
    for (i, at) in [MIB, 3 * MIB + 5, 6 * MIB].into_iter().enumerate() {
        new[at..at + 4096].copy_from_slice(&noise(100 + i as u64, 4096));
    }
    let report = replace(&new, &old).await;
    // An edit of 4 KiB, and the pieces of 2 KiB on average that its ends fall into.
    assert!(report.received_bytes < 4 * 16 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn content_that_moved_within_the_file_is_found() {
    let old = noise(2, 4 * MIB);
    let (front, back) = old.split_at(MIB + 77_777);
    // One byte more, so that no clock is too coarse to tell the two apart.
    let report = replace(&[back, front, b"!"].concat(), &old).await;
    assert!(report.received_bytes < 64 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn a_file_that_grew_or_shrank_costs_only_its_new_bytes() {
    let old = noise(3, 2 * MIB);
    let grown = [&old[..], &noise(4, 300_000)].concat();
    let report = replace(&grown, &old).await;
    assert!((300_000..400_000).contains(&report.received_bytes), "{} bytes", report.received_bytes);
    let report = replace(&old, &grown).await;
    assert!(report.received_bytes < 16 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn a_file_of_the_same_content_at_other_places_is_copied_whole() {
    // No entropy at all: every piece is the longest there is, and all are the same.
    let report = replace(&vec![7; 3 * MIB], &vec![7; 2 * MIB]).await;
    assert!(report.received_bytes <= 512 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn an_unrelated_file_is_sent_whole() {
    let report = replace(&noise(5, 2 * MIB), &noise(6, 2 * MIB + 1)).await;
    assert_eq!(report.received_bytes, 2 * MIB as u64);
}

#[tokio::test]
async fn of_a_small_file_no_lists_are_made() {
    let old = noise(7, MIB - 2);
    let report = replace(&[&old[..], b"x"].concat(), &old).await;
    assert_eq!(report.summary.copied_bytes, 0);
}

#[tokio::test]
async fn a_file_that_was_only_touched_is_not_written_again() {
    let content = noise(10, 3 * MIB);
    let (world, client) = world(&content, &content).await;
    let (new, old) = (world.source().join("large"), world.dest().join("large"));
    let inode = fs::metadata(&old).unwrap().ino();
    let hour = std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(&old).unwrap().set_modified(SystemTime::now() - hour).unwrap();
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!((report.summary.identical_files, report.summary.published_files), (1, 0));
    assert_eq!(report.received_bytes, 0);
    let now = fs::metadata(&old).unwrap();
    assert_eq!(now.modified().unwrap(), fs::metadata(&new).unwrap().modified().unwrap());
    assert_eq!(now.ino(), inode, "it is the same file still");
    assert_eq!(tree(&world.dest()).len(), 1, "and nothing is beside it");
}

#[tokio::test]
async fn an_edit_that_keeps_the_size_is_found_in_any_section_of_a_long_file() {
    let old = noise(11, 65 * MIB);
    let mut new = old.clone();
    for at in [0, 64 * MIB - 10, 64 * MIB + 10, 65 * MIB - 1] {
        new[at] ^= 1;
    }
    let report = replace(&new, &old).await;
    assert!(report.received_bytes < 5 * 8 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn a_file_that_differs_only_at_its_end_is_copied_though_it_seemed_the_same() {
    let old = noise(12, 20 * MIB);
    let mut new = old.clone();
    new[20 * MIB - 1] ^= 1;
    let report = replace(&new, &old).await;
    assert!(report.received_bytes < 8 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn blocks_moved_by_a_different_length_after_each_edit_are_found() {
    let old = noise(13, 30 * MIB);
    // Two bytes more, from 5 MiB on 300,000 more, from 15 MiB on 100,000 less than in the old one.
    let new =
        [b"xy", &old[..5 * MIB], &noise(14, 300_000), &old[5 * MIB..15 * MIB], &old[15 * MIB + 400_000..]];
    let report = replace(&new.concat(), &old).await;
    assert!((300_000..350_000).contains(&report.received_bytes), "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn blocks_moved_beyond_the_search_range_are_found_by_content() {
    let old = noise(15, 40 * MIB);
    let (front, back) = old.split_at(30 * MIB + 12_345);
    let report = replace(&[back, b"!", front].concat(), &old).await;
    assert!(report.received_bytes < 64 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn many_edited_files_are_all_put_together() {
    let mut world = World::new(|source| {
        for seed in 0..6 {
            fs::write(source.join(format!("f{seed}")), noise(seed, MIB + 10_000)).unwrap();
        }
    });
    world.receive.existing = shiplane_files::internals::Existing::Replace;
    for seed in 0..6 {
        let old = [b"before", &noise(seed, MIB + 10_000)[..]].concat();
        fs::write(world.dest().join(format!("f{seed}")), old).unwrap();
    }
    let client = world.admitted().await;
    let report = world.fetch(&client, "").await.unwrap();
    assert!(tree(&world.dest()) == tree(&world.source()), "both have the same");
    assert_eq!(report.summary.published_files, 6);
    assert!(report.received_bytes < 6 * 16 * 1024, "{} bytes", report.received_bytes);
}

#[tokio::test]
async fn an_interrupted_run_keeps_its_copied_bytes() {
    let old = noise(8, 4 * MIB);
    let new = [&old[..], &noise(9, 2 * MIB)].concat();
    let (world, client) = world(&new, &old).await;
    // As soon as a byte of the new end has come.
    let (moved, seen) = tokio::sync::oneshot::channel();
    let moved = std::sync::Mutex::new(Some(moved));
    let events = std::sync::Arc::new(move |event| {
        if let TransferEvent::Moved { .. } = event
            && let Some(moved) = moved.lock().unwrap().take()
        {
            let _ = moved.send(());
        }
    });
    tokio::select! {
        cut = async { let _ = seen.await; } => cut,
        _ = world.fetch_watched(&client, "", events) => panic!("it was done before it was cut off"),
    }
    assert!(fs::read(world.dest().join("large")).unwrap() == old, "the old version is as it was");

    // The first run's threads may still hold the journal for a moment.
    let events = Events::default();
    let report = loop {
        match world.fetch_watched(&client, "", events.watch()).await {
            Ok(report) => break report,
            Err(error) => assert!(error.to_string().contains("another"), "{error}"),
        }
    };
    assert!(tree(&world.dest()) == tree(&world.source()), "both have the same");
    assert!(report.summary.resumed_bytes >= 3 * MIB as u64, "{} bytes", report.summary.resumed_bytes);
    assert!(events.moved_bytes() <= 2 * MIB as u64 + 300_000, "{} bytes", events.moved_bytes());
}
