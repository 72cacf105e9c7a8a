//! Both sides of a transfer name what limits it.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use shiplane_protocols::internals::transfer::{EventFn, Limit, TransferEvent};
use shiplane_transport::{TransportConfig, internals::LaneThreads, slow_digests};
use testlink::Relay;
use tokio::runtime::{Builder, Runtime};

use crate::harness::{World, narrow_windows, noise, options, quick};

/// One side: a runtime whose threads take this much longer for each digest.
fn side(digest_delay: Duration) -> Runtime {
    let mut side = Builder::new_multi_thread();
    side.worker_threads(1).enable_all().on_thread_start(move || slow_digests(digest_delay));
    side.build().unwrap()
}

/// Chunks are hashed on those threads.
fn config() -> TransportConfig {
    quick().lane_threads(LaneThreads::Runtime)
}

fn world(source: &Runtime, len_bytes: usize) -> World {
    let _inside = source.enter();
    World::with_config(config(), options(), |source| {
        fs::write(source.join("file"), noise(1, len_bytes)).unwrap();
    })
}

/// What the receiver and the provider have named in most seconds of a transfer over this address.
fn named(world: &World, receiver: &Runtime, address: SocketAddr, config: TransportConfig) -> [Limit; 2] {
    let named = Arc::new(Mutex::new([const { Vec::new() }; 2]));
    let (files, noted) = (Arc::clone(&world.files), Arc::clone(&named));
    let events: EventFn = Arc::new(move |event| {
        if let TransferEvent::LimitedBy(limit) = event {
            let job = files.under_way().pop().unwrap();
            let [receiver, provider] = &mut *noted.lock().unwrap();
            receiver.push(limit);
            provider.extend(job.limited_by());
        }
    });
    receiver.block_on(async {
        let client = world.admitted_over(address, config).await;
        world.fetch_watched(&client, "file", events).await.unwrap();
    });
    let named = named.lock().unwrap();
    named.each_ref().map(|named| most_frequent(named).unwrap_or_else(|| panic!("too short: {named:?}")))
}

fn most_frequent(named: &[Limit]) -> Option<Limit> {
    let mut seconds = HashMap::new();
    named.iter().for_each(|limit| *seconds.entry(*limit).or_insert(0) += 1);
    seconds.into_iter().max_by_key(|(_, seconds)| *seconds).map(|(limit, _)| limit)
}

#[test]
fn both_sides_name_slow_digests_of_the_source() {
    let (source, receiver) = (side(DELAY), side(Duration::ZERO));
    let world = world(&source, 16 << 20);
    let named = named(&world, &receiver, world.address(), config());
    assert_eq!(named, [Limit::SourceDigest; 2]);
}

#[test]
fn both_sides_name_slow_digests_of_the_receiver() {
    let (source, receiver) = (side(Duration::ZERO), side(DELAY));
    let world = world(&source, 48 << 20);
    let named = named(&world, &receiver, world.address(), config());
    assert_eq!(named, [Limit::ReceiverDigest; 2]);
}

#[test]
fn both_sides_name_a_window_that_is_narrower_than_the_path() {
    let (source, receiver) = (side(Duration::ZERO), side(Duration::ZERO));
    let world = world(&source, 4 << 20);
    let relay = Relay::start(world.address(), testlink::Path::new(200.0, 60.0)).unwrap();
    // 64 KiB each round trip, a twentieth of the path.
    let named = named(&world, &receiver, relay.address(), narrow_windows());
    assert_eq!(named, [Limit::Window; 2]);
}

/// With four lanes of chunks of 64 KiB, some seconds for a file.
const DELAY: Duration = Duration::from_millis(10);
