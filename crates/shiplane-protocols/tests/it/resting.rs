//! A server that has nothing to do gives back what it has kept for the next transfer.

use std::fs;
use std::sync::{Arc, Mutex};

use shiplane_protocols::internals::{FileServer, WriteLimits};

use crate::harness::{World, noise};

#[tokio::test]
async fn the_buffers_of_a_session_are_gone_some_time_after_its_end() {
    let seen = Arc::new(Mutex::new(None));
    let shown = Arc::clone(&seen);
    let world =
        World::writable_by(WriteLimits::default(), move |server: Arc<FileServer>, transport, stop| {
            *shown.lock().unwrap() = Some(Arc::clone(&server));
            server.run(transport, stop)
        });
    let server = seen.lock().unwrap().clone().unwrap();
    fs::write(world.source().join("file"), noise(1, 4 << 20)).unwrap();
    let resting = Arc::clone(&server);
    let resting = tokio::spawn(async move { resting.rested().await });
    tokio::task::yield_now().await;
    let client = world.admitted().await;
    world.fetch(&client, "file").await.unwrap();
    assert!(server.kept_buffers() > 0, "the next transfer would use them again");
    drop(client);
    // What takes its time is over; the rest is waiting.
    tokio::time::pause();
    resting.await.unwrap();
    assert_eq!(server.kept_buffers(), 0);
}
