//! Everything at once on one connection, without mix-ups.

use std::{fs, sync::Arc};

use futures::future::join_all;
use shiplane_files::internals::sync::{Consent, SyncState};
use shiplane_protocols::internals::sync::{SyncJob, synchronise};
use shiplane_wire::Durability;

use crate::{
    harness::{World, noise, tree},
    push::{file, push, request},
};

const FETCHES: u64 = 50;
const PUSHES: u64 = 20;
const SYNCED: u64 = 10;

/// What the fetch, push or file of a sync with this number carries.
fn content(number: u64) -> Vec<u8> {
    noise(number + 1, 100_000 + number as usize)
}

#[tokio::test]
async fn fifty_fetches_twenty_pushes_and_a_sync_both_ways_at_once_each_get_their_own() {
    let world = World::syncing();
    let (shelf, there, here) =
        (world.source().join("shelf"), world.source().join("shared"), world.outside().join("here"));
    for directory in [&shelf, &there, &here] {
        fs::create_dir(directory).unwrap();
    }
    for i in 0..FETCHES {
        fs::write(shelf.join(format!("f{i}")), content(i)).unwrap();
    }
    for i in 0..SYNCED {
        fs::write(here.join(format!("mine {i}")), content(100 + i)).unwrap();
        fs::write(there.join(format!("theirs {i}")), content(200 + i)).unwrap();
    }
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let names: Vec<_> = (0..FETCHES).map(|i| format!("shelf/f{i}")).collect();

    let fetches = join_all(names.iter().map(|name| world.fetch(&client, name)));
    let pushes = join_all((0..PUSHES).map(|i| {
        let (world, client) = (&world, &client);
        async move {
            let source = file(&format!("p{i}"), &content(300 + i));
            push(world, client, source, &request("in")).await
        }
    }));
    let job = SyncJob {
        directory: here.clone(),
        remote_path: b"shared".to_vec(),
        state: SyncState::at(world.outside().join("state-here")),
        own: world.identity().peer_id(),
        root: None,
        only_to: None,
        consent: Consent::default(),
        filters: Arc::default(),
        attributes: false,
        dry_run: false,
        relisting: None,
        peer_watch: None,
        transfer: world.options.clone(),
    };
    let (fetched, pushed, synced) =
        tokio::join!(fetches, pushes, synchronise(&client, &job, Arc::new(|_| ())));

    for (i, report) in (0..).zip(fetched) {
        assert_eq!(report.unwrap().total_bytes, 100_000 + i);
        assert!(fs::read(world.dest().join(format!("f{i}"))).unwrap() == content(i), "f{i}");
    }
    for (i, report) in (0..).zip(pushed) {
        assert_eq!(report.unwrap().durability, Durability::Durable);
        let pushed = world.source().join(format!("in/p{i}"));
        assert!(fs::read(pushed).unwrap() == content(300 + i), "p{i}");
    }
    let synced = synced.unwrap();
    assert_eq!((synced.left.len(), synced.files), (0, 2 * SYNCED));
    assert_eq!(tree(&here), tree(&there));
    for i in 0..SYNCED {
        assert!(fs::read(there.join(format!("mine {i}"))).unwrap() == content(100 + i), "mine {i}");
        assert!(fs::read(here.join(format!("theirs {i}"))).unwrap() == content(200 + i), "theirs {i}");
    }
    assert_eq!(tree(&world.dest()).len() as u64, FETCHES, "nothing else has come");
    // There was no other dial: the client has but this connection, and so does the server.
    assert!(!client.connection().is_closed());
    assert_eq!(world.open_connections(), 1);
}
