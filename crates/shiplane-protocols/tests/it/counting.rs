//! Rate limits and counters of transfers.

use std::{fs, num::NonZeroU64, path::Path, sync::Arc};

use shiplane_files::internals::{Source, SourceRoot};
use shiplane_protocols::{
    TransferMetrics,
    internals::{Fetch, Push, PushRequest, transfer::TransferOptions},
};
use shiplane_transport::{RateLimit, RateLimiter};
use shiplane_wire::Durability;

use crate::harness::{World, noise, options};

const FILES: u64 = 3;
const FILE_LEN_BYTES: u64 = 1_000_000;

fn fill(at: &Path) {
    for seed in 0..FILES {
        fs::write(at.join(format!("f{seed}")), noise(seed, FILE_LEN_BYTES as usize)).unwrap();
    }
}

/// Never waited for, and refilled so slowly that a debit stays visible.
fn limit() -> RateLimiter {
    let burst_bytes = NonZeroU64::new(BURST_BYTES).unwrap();
    RateLimiter::new(RateLimit { bytes_per_second: NonZeroU64::MIN, burst_bytes })
}

const BURST_BYTES: u64 = 1 << 40;

/// Every byte of every frame was: size, content and digest, but for the byte that each second earns again.
async fn assert_debited(limit: &RateLimiter, transfers: u64, who: &str) {
    let debited_bytes = BURST_BYTES - limit.available_bytes().await;
    let frames = FILE_LEN_BYTES.div_ceil(64 * 1024);
    let all_bytes = transfers * FILES * (FILE_LEN_BYTES + frames * (8 + 32));
    assert!(
        debited_bytes <= all_bytes && debited_bytes + 600 > all_bytes,
        "{who}: {debited_bytes} of {all_bytes}"
    );
}

fn request() -> PushRequest {
    PushRequest {
        path: b"in".to_vec(),
        name: None,
        total_bytes: None,
        existing: shiplane_files::internals::Existing::Refuse,
        delete: None,
        chunk_len_bytes: 64 * 1024,
        durability: Durability::Verified,
        filters: Arc::default(),
        attributes: false,
        source_name: b"test".to_vec(),
    }
}

fn source(path: &Path) -> Source {
    SourceRoot::open(path).unwrap().resolve(b"").unwrap()
}

#[tokio::test]
async fn every_lane_of_every_transfer_draws_on_the_one_limit_of_its_side() {
    let server = limit();
    let mut world = World::with_options(TransferOptions { rate: Some(server.clone()), ..options() }, fill);
    world.options.rate = None;
    let rpc = world.admitted().await;
    world.fetch(&rpc, "").await.unwrap();
    assert_debited(&server, 1, "the server sends").await;

    let client = limit();
    let mut world = World::writable_with(options());
    fill(&world.source());
    let rpc = world.admitted_by(world.ticket_to_write("")).await;
    world.options.rate = Some(client.clone());
    // Only the receiver limits the rate; the provider does not know the limit.
    let fetch = Fetch::open(&rpc, shiplane_protocols::internals::FetchRequest::of(b""), &Default::default())
        .await
        .unwrap();
    let target = world.destination(&fetch).unwrap();
    fetch.receive(target, &world.options, Arc::new(|_| ())).await.unwrap();
    assert_debited(&client, 1, "the client receives").await;
    let push = Push::open(&rpc, source(&world.dest()), &request(), &Default::default()).await.unwrap();
    push.send(&world.options, Arc::new(|_| ())).await.unwrap();
    assert_debited(&client, 2, "and sends").await;
}

#[tokio::test]
async fn transfers_both_ways_and_failures_are_counted_on_both_sides() {
    let (server, client) = (Arc::new(TransferMetrics::new()), Arc::new(TransferMetrics::new()));
    let options = TransferOptions { metrics: Some(Arc::clone(&server)), ..options() };
    let mut world = World::writable_with(options);
    fill(&world.source());
    world.options.metrics = Some(Arc::clone(&client));
    let rpc = world.admitted_by(world.ticket_to_write("")).await;
    world.fetch(&rpc, "").await.unwrap();
    for _ in 0..2 {
        let push = Push::open(&rpc, source(&world.dest()), &request(), &Default::default()).await.unwrap();
        push.send(&world.options, Arc::new(|_| ())).await.unwrap();
    }
    // The target has other content, and the push may not replace it.
    fs::write(world.dest().join("f0"), b"other").unwrap();
    let push = Push::open(&rpc, source(&world.dest()), &request(), &Default::default()).await.unwrap();
    push.send(&world.options, Arc::new(|_| ())).await.unwrap_err();
    world.shut_down().await;

    let (server, client) = (server.snapshot(), client.snapshot());
    let bytes = FILES * FILE_LEN_BYTES;
    assert_eq!((server.sent.completed, server.sent.failed, server.sent.bytes), (1, 0, bytes));
    assert_eq!((client.received.completed, client.received.failed, client.received.bytes), (1, 0, bytes));
    assert_eq!((server.received.completed, server.received.failed, server.received.bytes), (2, 1, bytes));
    assert_eq!((client.sent.completed, client.sent.failed, client.sent.bytes), (2, 1, bytes));
}
