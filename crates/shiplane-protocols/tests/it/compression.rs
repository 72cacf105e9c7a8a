//! Compressed chunks: fewer bytes on the wire, the same content.

use std::{fs, path::Path};

use shiplane_files::internals::SourceRoot;
use shiplane_protocols::{
    Compression,
    internals::{Push, PushRequest, transfer::TransferOptions},
};
use shiplane_wire::Durability;

use crate::harness::{Events, World, noise, options, tree};

fn compressing(compression: Compression) -> TransferOptions {
    TransferOptions { compression, chunk_len_bytes: 256 * 1024, ..options() }
}

/// What logs are like.
fn text(len: usize) -> Vec<u8> {
    let mut text = String::new();
    for number in 0u64.. {
        if text.len() >= len {
            break;
        }
        let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text += &format!("2026-07-{:02} request {id:016x} served in {} ms\n", number % 31, number % 977);
    }
    text.into_bytes()
}

fn logs(at: &Path) {
    fs::write(at.join("log"), text(10_000_000)).unwrap();
    for i in 0..20 {
        fs::write(at.join(format!("small{i}")), &text(30_000)[i..]).unwrap();
    }
    fs::write(at.join("empty"), b"").unwrap();
}

#[tokio::test]
async fn text_is_sent_as_less_than_half_and_arrives_unchanged() {
    for compression in [Compression::Auto, Compression::Always] {
        let world = World::with_options(compressing(compression), logs);
        let client = world.admitted().await;
        let events = Events::default();
        let report = world.fetch_watched(&client, "", events.watch()).await.unwrap();
        assert!(tree(&world.dest()) == tree(&world.source()), "both have the same");
        assert_eq!(report.received_bytes, report.total_bytes);
        assert_eq!(events.moved_bytes(), report.total_bytes, "what moves is counted as content");
        assert!(report.wire_bytes < report.total_bytes / 2, "{report:?}");
    }
}

#[tokio::test]
async fn a_push_is_compressed_as_well() {
    let world = World::writable_with(compressing(Compression::Auto));
    logs(&world.dest());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let request = PushRequest {
        path: Vec::new(),
        name: None,
        total_bytes: None,
        existing: shiplane_files::internals::Existing::Refuse,
        delete: None,
        chunk_len_bytes: 256 * 1024,
        durability: Durability::Durable,
        filters: std::sync::Arc::default(),
        attributes: false,
        source_name: b"test".to_vec(),
    };
    let source = SourceRoot::open(&world.dest()).unwrap().resolve(b"").unwrap();
    let push = Push::open(&client, source, &request, &world.options).await.unwrap();
    let events = Events::default();
    let report = push.send(&world.options, events.watch()).await.unwrap();
    assert!(tree(&world.source()) == tree(&world.dest()), "both have the same");
    assert_eq!(report.sent_bytes, report.total_bytes);
    assert_eq!(events.moved_bytes(), report.total_bytes, "what moves is counted as content");
    assert!(report.wire_bytes < report.total_bytes / 2, "{report:?}");
}

#[tokio::test]
async fn chunks_that_do_not_shrink_are_sent_uncompressed() {
    for compression in [Compression::Auto, Compression::Always] {
        let world = World::with_options(compressing(compression), |source| {
            fs::write(source.join("film"), noise(1, 3_000_000)).unwrap();
            fs::write(source.join("photo"), noise(2, 40_000)).unwrap();
        });
        let client = world.admitted().await;
        let report = world.fetch(&client, "").await.unwrap();
        assert!(tree(&world.dest()) == tree(&world.source()), "both have the same");
        assert_eq!(report.wire_bytes, report.total_bytes);
    }
}

#[tokio::test]
async fn both_sides_must_want_it() {
    let mut world = World::with_options(compressing(Compression::Never), logs);
    let client = world.admitted().await;
    world.options.compression = Compression::Always;
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!(report.wire_bytes, report.total_bytes, "the server does not");

    let mut world = World::with_options(compressing(Compression::Always), logs);
    let client = world.admitted().await;
    world.options.compression = Compression::Never;
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!(report.wire_bytes, report.total_bytes, "the client does not");
}
